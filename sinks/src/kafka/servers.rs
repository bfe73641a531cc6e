//! Addresses of brokers: what librdkafka would read otherwise than it is meant, or not at all, is refused.

use std::net::Ipv6Addr;

/// What may stand before `://`.
const PROTOCOLS: [&str; 4] = ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"];

/// Checks a list of `[PROTOCOL://]host[:port]`. Credentials are refused and not repeated: they would stand in logs and errors.
pub fn check_servers(text: &str) -> Result<(), String> {
    if text.contains('@') {
        return Err(format!(
            "`{}` holds credentials, which belong into kafka.sasl.username and kafka.sasl.password (the sink's own into sink.kafka.sasl.*)",
            without_credentials(text)
        ));
    }
    text.split(',').try_for_each(|item| check(item.trim()))
}

/// An address for an error: nothing of what stands before the last `@`.
pub fn without_credentials(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((_, after)) => format!("…@{after}"),
        None => text.to_owned(),
    }
}

fn check(item: &str) -> Result<(), String> {
    if item.is_empty() {
        return Err("an address is empty".to_owned());
    }
    if item.contains(char::is_whitespace) {
        return Err(format!(
            "`{item}` has white space in it; addresses are separated by commas"
        ));
    }
    let address = match item.split_once("://") {
        None => item,
        Some((protocol, address)) => {
            if !PROTOCOLS
                .iter()
                .any(|known| protocol.eq_ignore_ascii_case(known))
            {
                return Err(format!(
                    "`{item}`: before `://` stands nothing but {}",
                    PROTOCOLS.join(", ")
                ));
            }
            address
        }
    };
    let (host, port) = split(address).ok_or_else(|| {
        format!("`{item}` is no `host:port`; an IPv6 address stands in brackets: `[::1]:9092`")
    })?;
    match port {
        Some(port) if !is_port(port) => Err(format!(
            "`{item}`: `{port}` is no port, which is a number from 1 to 65535"
        )),
        _ if !is_host(host) => Err(format!("`{item}` has no valid name of a host")),
        _ => Ok(()),
    }
}

/// The host, an IPv6 address with its brackets, and what stands behind the colon.
fn split(address: &str) -> Option<(&str, Option<&str>)> {
    if address.starts_with('[') {
        let (host, rest) = address.split_at(address.find(']')? + 1);
        return match rest.strip_prefix(':') {
            Some(port) => Some((host, Some(port))),
            None => rest.is_empty().then_some((host, None)),
        };
    }
    match address.split_once(':') {
        Some((_, port)) if port.contains(':') => None,
        Some((host, port)) => Some((host, Some(port))),
        None => Some((address, None)),
    }
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port > 0)
}

fn is_host(host: &str) -> bool {
    match host.strip_prefix('[') {
        Some(address) => {
            let address = address.trim_end_matches(']');
            // What follows is the zone.
            let (address, _) = address.split_once('%').unwrap_or((address, ""));
            address.parse::<Ipv6Addr>().is_ok()
        }
        None => {
            let fits = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
            !host.is_empty() && host.chars().all(fits)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_in_addresses_are_refused_and_not_repeated() {
        let error = check_servers("a:9092,user:p@ss@b:9092").unwrap_err();
        assert!(
            error.contains("`…@b:9092`") && error.contains("kafka.sasl.password"),
            "{error}"
        );
        assert!(
            !error.contains("user:") && !error.contains("p@ss"),
            "{error}"
        );
    }

    #[test]
    fn addresses_that_librdkafka_reads_as_they_are_meant() {
        for good in [
            "a:9092, SSL://b",
            "sasl_ssl://B.example-1.org:1,plaintext://10.0.0.1:65535",
            "[::1]:9092,[fe80::1%eth0],SSL://[2001:db8::2]:9093",
            "kafka_1:9092",
        ] {
            assert_eq!(check_servers(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn other_addresses_are_refused_with_a_reason() {
        for (bad, reason) in [
            ("localhost:abc", "`abc` is no port"),
            ("localhost:99999", "`99999` is no port"),
            ("a:0", "`0` is no port"),
            ("a:", "`` is no port"),
            ("a:+1", "`+1` is no port"),
            ("a:1/", "`1/` is no port"),
            ("a:1 b:2", "white space"),
            (",", "is empty"),
            ("a:1,", "is empty"),
            ("", "is empty"),
            ("http://localhost:9092", "before `://`"),
            ("://a", "before `://`"),
            (":9092", "no valid name of a host"),
            ("a/b", "no valid name of a host"),
            ("[a]:1", "no valid name of a host"),
            ("::1", "brackets"),
            ("[::1", "brackets"),
            ("[::1]9092", "brackets"),
        ] {
            let error = check_servers(bad).expect_err(bad);
            assert!(error.contains(reason), "{bad}: {error}");
        }
    }
}
