//! What an answer means that is not a success: the whole request was refused. Pure.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::Value;

use super::answer::{is_blocked, member, push_error};
use super::flood::Flood;
use super::trust::Trust;
use crate::{Cause, SinkError};

/// The longest pause that a server may ask for.
const MAX_PAUSE: Duration = Duration::from_secs(300);

/// How the sink proves who it is, to name the right option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Auth {
    None,
    Password,
    ApiKey,
}

impl Auth {
    /// What to do about a 401.
    pub(crate) fn advice(self) -> &'static str {
        match self {
            Auth::None => {
                "it wants credentials: set sink.elasticsearch.username and sink.elasticsearch.password, or sink.elasticsearch.api.key"
            }
            Auth::Password => "check sink.elasticsearch.username and sink.elasticsearch.password",
            Auth::ApiKey => "check sink.elasticsearch.api.key",
        }
    }

    /// What to do about a 403.
    pub(crate) fn privilege_advice(self) -> &'static str {
        match self {
            Auth::None => {
                "anonymous requests may not write: set sink.elasticsearch.username or sink.elasticsearch.api.key"
            }
            Auth::Password => {
                "give the user of sink.elasticsearch.username the privileges to write"
            }
            Auth::ApiKey => "give sink.elasticsearch.api.key the privileges to write",
        }
    }
}

/// How the words on roles end that the user has and that are not found.
pub(super) const NO_ROLES: &str = "were not found)";

/// What is wrong with an event, not with a request.
const PARSING: [&str; 5] = [
    "x_content_parse_exception",
    "json_parse_exception",
    "document_parsing_exception",
    "mapper_parsing_exception",
    "parse_exception",
];

/// A refused `_bulk` request.
#[derive(Debug)]
pub(crate) struct Refusal<'a> {
    pub(crate) status: u16,
    pub(crate) body: &'a [u8],
    /// The header `Retry-After`.
    pub(crate) retry_after: Option<&'a str>,
    /// The node that answered.
    pub(crate) node: &'a str,
    pub(crate) auth: Auth,
    pub(crate) now: DateTime<Utc>,
}

impl Refusal<'_> {
    /// What the worker is to do with a request of so many events. `trust` takes note of a refusal of this moment, `flood` of an event that
    /// can't be parsed.
    pub(crate) fn verdict(
        &self,
        events: usize,
        trust: &mut Trust,
        flood: &mut Flood,
        moment: Instant,
    ) -> SinkError {
        let words = self.words();
        let error = self.error();
        let kind = error.as_ref().map_or("", |error| member(error, "type"));
        let reason = error.as_ref().map_or("", |error| member(error, "reason"));
        match self.status {
            413 => SinkError::TooLarge(words),
            // One event that can't be parsed may cost all others of its request: elastic/elasticsearch#138445. Its halves tell which.
            400 if is_of_an_event(kind, reason) && (events > 1 || flood.is_its_own_fault()) => {
                SinkError::TooLarge(words)
            }
            429 if never_fits(kind, reason) => SinkError::TooLarge(words),
            _ if is_blocked(kind, reason) => self.retry("blocked", words),
            429 => self.retry("http_429", words),
            500..=599 => self.retry("http_5xx", words),
            408 | 425 => self.retry("timeout", words),
            401 => match trust.refused(moment) {
                Some(left) => self.retry("http_401", doubtful(&words, self.auth.advice(), left)),
                None => SinkError::Fatal(format!("{words}; {}", self.auth.advice())),
            },
            // So it also says while `.security`, where roles stand, is away.
            403 if kind == "security_exception"
                && reason.contains(NO_ROLES)
                && let Some(left) = trust.refused(moment) =>
            {
                let advice = self.auth.privilege_advice();
                self.retry("http_403", doubtful(&words, advice, left))
            }
            403 => SinkError::Fatal(format!("{words}; {}", self.auth.privilege_advice())),
            404 if kind == "index_not_found_exception" => SinkError::Fatal(format!(
                "{words}; create it, or change sink.elasticsearch.index"
            )),
            404 | 405 => SinkError::Fatal(format!(
                "{words}; there is no _bulk under that address: check sink.elasticsearch.urls"
            )),
            400..=499 => SinkError::Fatal(format!(
                "{words}; the whole request was refused: check that sink.elasticsearch.urls leads to an Elasticsearch or OpenSearch that takes sink.elasticsearch.compression, and sink.elasticsearch.pipeline"
            )),
            _ => self.retry("garbled", words),
        }
    }

    /// The server's own words.
    pub(crate) fn words(&self) -> String {
        let mut words = format!("elasticsearch at {} answered {}", self.node, self.status);
        match self.error() {
            Some(error) => {
                words.push(' ');
                push_error(&mut words, &error);
            }
            None if self.body.is_empty() => {}
            // A proxy's page, for example.
            None => {
                let text = String::from_utf8_lossy(&self.body[..self.body.len().min(2_000)]);
                let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
                words.push_str(&format!(" with: {}", crate::template::shorten(&text)));
            }
        }
        words
    }

    fn error(&self) -> Option<Value> {
        #[derive(Deserialize)]
        struct Body {
            error: Value,
        }
        serde_json::from_slice::<Body>(self.body)
            .ok()
            .map(|body| body.error)
    }

    fn retry(&self, reason: &'static str, detail: String) -> SinkError {
        SinkError::Retry(Cause {
            reason,
            detail,
            after: self.retry_after.and_then(|text| pause(text, self.now)),
        })
    }
}

/// Whether one event of the request may be to blame, not the request itself: one without a body, or with one that nothing unpacks, is not.
fn is_of_an_event(kind: &str, reason: &str) -> bool {
    let no_request = ["request body is required", "Failed to derive xcontent"];
    PARSING.contains(&kind) && !no_request.iter().any(|words| reason.starts_with(words))
}

/// What a person is told while it is not known whose fault a refusal is.
fn doubtful(words: &str, advice: &str, left: Duration) -> String {
    format!(
        "{words}; {advice}, unless the cluster is restarting; the worker stops if this lasts {} s more",
        left.as_secs_f64().ceil()
    )
}

/// Whether this request alone needs more than Elasticsearch's `indexing_pressure.memory.limit`: waiting would not help, halves might.
fn never_fits(kind: &str, reason: &str) -> bool {
    let number = |name: &str| -> Option<u64> {
        let (_, after) = reason.split_once(name)?;
        let digits = after.split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse().ok()
    };
    let needed = number("coordinating_operation_bytes=");
    // The other name is that of OpenSearch and of older Elasticsearch; the other type is that of OpenSearch.
    let most =
        number("max_coordinating_bytes=").or_else(|| number("max_coordinating_and_primary_bytes="));
    let is_rejection = matches!(
        kind,
        "es_rejected_execution_exception" | "rejected_execution_exception"
    );
    is_rejection && most.is_some() && needed > most
}

/// Reads `Retry-After`: a number of seconds or a date.
fn pause(text: &str, now: DateTime<Utc>) -> Option<Duration> {
    let text = text.trim();
    let pause = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let until = DateTime::parse_from_rfc2822(text).ok()?;
            (until.to_utc() - now).to_std().unwrap_or_default()
        }
    };
    Some(pause.min(MAX_PAUSE))
}

#[cfg(test)]
mod tests {
    use super::super::flood::FLOOD;
    use super::*;

    fn verdict(status: u16, body: &str) -> SinkError {
        refused(status, body, &mut Trust::default(), Instant::now())
    }

    fn refused(status: u16, body: &str, trust: &mut Trust, moment: Instant) -> SinkError {
        Refusal {
            status,
            body: body.as_bytes(),
            retry_after: Some("7"),
            node: "es1:9200",
            auth: Auth::Password,
            now: DateTime::UNIX_EPOCH,
        }
        .verdict(2, trust, &mut Flood::default(), moment)
    }

    #[test]
    fn each_status_has_its_verdict() {
        let reason = |status, body| match verdict(status, body) {
            SinkError::Retry(cause) => {
                assert_eq!(cause.after, Some(Duration::from_secs(7)));
                cause.reason
            }
            SinkError::TooLarge(_) => "too large",
            SinkError::Fatal(_) => "fatal",
            SinkError::Rewind(_) => "rewind",
        };
        let blocked = r#"{"error":{"type":"cluster_block_exception","reason":"blocked by: [FORBIDDEN/6/cluster read-only (api)]"},"status":403}"#;
        let unparsed = r#"{"error":{"type":"x_content_parse_exception","reason":"[1:11] Duplicate field 'a'"},"status":400}"#;
        let bodiless = r#"{"error":{"type":"parse_exception","reason":"request body is required"},"status":400}"#;
        let roleless = r#"{"error":{"type":"security_exception","reason":"action [indices:data/write/bulk] is unauthorized for user [u] with effective roles [] (assigned roles [r] were not found), this action is granted by the index privileges [create_doc,write,all]"},"status":403}"#;
        let pressure = |needed: u64| {
            format!(
                "{{\"error\":{{\"type\":\"es_rejected_execution_exception\",\"reason\":\"rejected execution of coordinating \
                 operation [coordinating_and_primary_bytes=9, replica_bytes=0, all_bytes=9, \
                 coordinating_operation_bytes={needed}, max_coordinating_bytes=20480]\"}},\"status\":429}}"
            )
        };
        let opensearch = |needed: u64| {
            let words =
                pressure(needed).replace("max_coordinating", "max_coordinating_and_primary");
            words.replace("es_rejected", "rejected")
        };
        let no_new_index = r#"{"error":{"type":"index_create_block_exception","reason":"blocked by: [FORBIDDEN/10/cluster create-index blocked (api)];"},"status":403}"#;
        for (status, body, expected) in [
            (429, pressure(20_480).as_str(), "http_429"),
            (429, pressure(20_481).as_str(), "too large"),
            (429, opensearch(20_480).as_str(), "http_429"),
            (429, opensearch(20_481).as_str(), "too large"),
            (403, no_new_index, "blocked"),
            (413, "<html>too large</html>", "too large"),
            (429, "", "http_429"),
            (500, "{}", "http_5xx"),
            (502, "<html>", "http_5xx"),
            (503, "", "http_5xx"),
            (408, "", "timeout"),
            (403, blocked, "blocked"),
            (503, blocked, "blocked"),
            (400, "", "fatal"),
            (400, unparsed, "too large"),
            (400, bodiless, "fatal"),
            (403, roleless, "http_403"),
            (401, "", "http_401"),
            (403, "", "fatal"),
            (404, "", "fatal"),
            (405, "", "fatal"),
            (406, "", "fatal"),
            (302, "", "garbled"),
        ] {
            assert_eq!(reason(status, body), expected, "{status} {body}");
        }
    }

    #[test]
    fn a_401_is_waited_out_and_then_fatal() {
        let body = r#"{"error":{"type":"security_exception","reason":"unable to authenticate user [u]"},"status":401}"#;
        let start = Instant::now();
        let mut trust = Trust::default();
        let SinkError::Retry(cause) = refused(401, body, &mut trust, start) else {
            panic!()
        };
        assert_eq!(cause.reason, "http_401");
        assert_eq!(
            cause.detail,
            "elasticsearch at es1:9200 answered 401 security_exception: unable to authenticate user [u]; \
             check sink.elasticsearch.username and sink.elasticsearch.password, unless the cluster is restarting; \
             the worker stops if this lasts 30 s more"
        );
        let later = start + Duration::from_secs(30);
        let fatal = refused(401, body, &mut trust, later);
        assert!(matches!(fatal, SinkError::Fatal(_)));
        assert_eq!(
            fatal.to_string(),
            "elasticsearch at es1:9200 answered 401 security_exception: unable to authenticate user [u]; \
             check sink.elasticsearch.username and sink.elasticsearch.password"
        );
    }

    #[test]
    fn events_that_can_not_be_parsed_are_to_blame_as_long_as_they_are_few() {
        let body = r#"{"error":{"type":"json_parse_exception","reason":"Illegal character"},"status":400}"#;
        let mut flood = Flood::default();
        let mut refused = |events: usize| {
            Refusal {
                status: 400,
                body: body.as_bytes(),
                retry_after: None,
                node: "es1:9200",
                auth: Auth::None,
                now: DateTime::UNIX_EPOCH,
            }
            .verdict(events, &mut Trust::default(), &mut flood, Instant::now())
        };
        for _ in 1..FLOOD {
            assert!(matches!(refused(2), SinkError::TooLarge(_)));
            assert!(matches!(refused(1), SinkError::TooLarge(_)));
        }
        let SinkError::Fatal(text) = refused(1) else {
            panic!()
        };
        assert!(text.contains("sink.elasticsearch.compression"), "{text}");
    }

    #[test]
    fn a_fatal_refusal_names_the_option_and_keeps_the_servers_words() {
        let text = verdict(404, "<html>\n <h1>Not   found</h1>").to_string();
        assert!(
            text.starts_with(
                "elasticsearch at es1:9200 answered 404 with: <html> <h1>Not found</h1>; "
            ) && text.contains("sink.elasticsearch.urls"),
            "{text}"
        );
        let text = verdict(
            404,
            r#"{"error":{"type":"index_not_found_exception","reason":"no such index [e]"}}"#,
        );
        assert!(text.to_string().ends_with("sink.elasticsearch.index"));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_bounded() {
        let now = DateTime::parse_from_rfc3339("2026-11-23T11:00:00Z")
            .unwrap()
            .to_utc();
        for (text, expected) in [
            ("0", Some(0)),
            (" 12 ", Some(12)),
            ("86400", Some(300)),
            ("Mon, 23 Nov 2026 11:00:30 GMT", Some(30)),
            ("Mon, 23 Nov 2026 10:00:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            assert_eq!(
                pause(text, now),
                expected.map(Duration::from_secs),
                "{text}"
            );
        }
    }
}
