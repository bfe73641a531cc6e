//! What SASL needs: librdkafka ignores it, tells of it late, or in words that name no option.

use keystone_config::{Problem, Settings};

use super::client::{SOURCE_PREFIX, one_name};

const PROTOCOL: &str = "security.protocol";
const MECHANISM: &str = "sasl.mechanism";

/// What is wrong with the SASL properties of a client whose properties are those of these prefixes, later ones over earlier ones.
pub fn problems(settings: &Settings, prefixes: &[&str]) -> Vec<Problem> {
    let Some(own) = prefixes.last() else {
        return Vec::new();
    };
    let find = |name: &str| {
        prefixes
            .iter()
            .rev()
            .find_map(|prefix| property(settings, prefix, name))
    };
    let protocol = find(PROTOCOL);
    let is_sasl = |value: &str| value.trim().to_ascii_lowercase().starts_with("sasl_");
    match &protocol {
        Some((key, value)) if is_sasl(value) => {
            let prefix = key.strip_suffix(PROTOCOL).unwrap_or(SOURCE_PREFIX);
            match find(MECHANISM) {
                None => vec![settings.problem(
                    &format!("{prefix}{MECHANISM}"),
                    format!("it is needed, as {key} = {value}, and not set"),
                    "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512",
                )],
                Some((key, _)) => ["sasl.username", "sasl.password"]
                    .into_iter()
                    .filter(|name| find(name).is_none())
                    .map(|name| {
                        let prefix = key.split("sasl.").next().unwrap_or(SOURCE_PREFIX);
                        settings.problem(
                            &format!("{prefix}{name}"),
                            format!("it is needed with {key}, and not set"),
                            "set it, or leave SASL out",
                        )
                    })
                    .collect(),
            }
        }
        // A sink on another cluster may do without the SASL of the source, so only its own properties count.
        protocol => without_effect(settings, own, protocol.as_ref()),
    }
}

/// SASL properties while the protocol has no SASL: the worker would connect without a user.
fn without_effect(
    settings: &Settings,
    prefix: &str,
    protocol: Option<&(String, String)>,
) -> Vec<Problem> {
    let set = settings.passthrough(prefix).into_iter();
    let mut names = set.filter(|(name, _)| name.starts_with("sasl."));
    let Some((name, _)) = names.next() else {
        return Vec::new();
    };
    let why = match protocol {
        Some((key, value)) => format!("{key} is {value}"),
        None => format!("{prefix}{PROTOCOL} is not set, which is PLAINTEXT"),
    };
    vec![settings.problem(
        &format!("{prefix}{name}"),
        format!("SASL is not used: {why}"),
        format!(
            "set {prefix}{PROTOCOL} = SASL_SSL (or SASL_PLAINTEXT), or leave {prefix}sasl.* out"
        ),
    )]
}

/// A property that is set below a prefix, by whatever name: its key and value.
fn property(settings: &Settings, prefix: &str, name: &str) -> Option<(String, String)> {
    let set = settings.passthrough(prefix).into_iter();
    let mut named = set.filter(|(set, _)| one_name(set) == name);
    let (name, value) = named.next()?;
    Some((format!("{prefix}{name}"), value))
}
