//! What is to become of an event: null payload, source format, filter, projection, hygiene, in this order.
//!
//! The lane, `keystone eval` and `keystone test` all decide here, so what is tried is what runs.

use std::borrow::Cow;

use keystone_dsl::{Broken, Evaluator, EventError, Hygiene, Program, Record, Rule, Verdict};
use keystone_sinks::Stage;

/// `source.null.payload`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NullPayload {
    DeadLetter,
    Discard,
    Deliver,
}

/// The part of a route that decides about events.
#[derive(Debug)]
pub struct Steps {
    /// `source.format = json`: payloads are validated. With `raw` they are copied as they are.
    pub json: bool,
    pub null_payload: NullPayload,
    pub program: Program,
    /// Absent where there is no rule.
    pub hygiene: Option<Hygiene>,
    /// `hygiene.on.violation = discard`.
    pub discard_violations: bool,
}

/// What is to become of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    Filtered,
    /// With the reason, for a person.
    Discard(Cow<'static, str>),
    /// Delivered byte for byte.
    Keep,
    /// Delivered as it was written anew, by the projection or a hygiene rule.
    KeepRewritten,
    Bury(Stage, String),
}

/// Events that broke each rule, in the order of [`Rule::ALL`].
pub type Violations = [u64; Rule::ALL.len()];

/// Decides about one event after the other; each lane has its own.
#[derive(Debug)]
pub struct Decider<'s> {
    steps: &'s Steps,
    evaluator: Evaluator<'s>,
    /// Where hygiene writes what it puts right.
    right: Vec<u8>,
    violations: Violations,
}

impl<'s> Decider<'s> {
    pub fn new(steps: &'s Steps) -> Decider<'s> {
        Decider {
            steps,
            evaluator: steps.program.evaluator(),
            right: Vec::new(),
            violations: Violations::default(),
        }
    }

    /// Decides about a record with a value. `out` is appended to for [`Decision::KeepRewritten`] only.
    pub fn decide(&mut self, record: &Record<'_>, out: &mut Vec<u8>) -> Decision {
        let start = out.len();
        let kept = match self.steps.json {
            false => Decision::Keep,
            true => match self.evaluator.apply(record, out) {
                Ok(Verdict::Filtered) => return Decision::Filtered,
                Ok(Verdict::Discarded) => {
                    return Decision::Discard("the projection is null".into());
                }
                Ok(Verdict::Unchanged) => Decision::Keep,
                Ok(Verdict::Projected) => Decision::KeepRewritten,
                Err(EventError { stage, reason }) => {
                    return Decision::Bury(stage_of(stage), reason);
                }
            },
        };
        let Some(hygiene) = &self.steps.hygiene else {
            return kept;
        };
        self.right.clear();
        let event = match kept {
            Decision::KeepRewritten => &out[start..],
            _ => record.payload,
        };
        match hygiene.apply(event, &mut self.right) {
            Ok(false) => kept,
            Ok(true) => {
                out.truncate(start);
                out.extend_from_slice(&self.right);
                Decision::KeepRewritten
            }
            Err(broken) => {
                out.truncate(start);
                self.violation(broken)
            }
        }
    }

    /// Decides about a record without a value.
    pub fn tombstone(&self) -> Decision {
        match self.steps.null_payload {
            NullPayload::Deliver => Decision::Keep,
            NullPayload::Discard => Decision::Discard("a tombstone".into()),
            NullPayload::DeadLetter => Decision::Bury(
                Stage::Decode,
                "the record has no value (a tombstone); source.null.payload can discard or deliver such records".to_owned(),
            ),
        }
    }

    fn violation(&mut self, Broken { rules, reason }: Broken) -> Decision {
        for rule in &rules {
            self.violations[*rule as usize] += 1;
        }
        // What no rule has judged is never dropped silently.
        if self.steps.discard_violations && !rules.is_empty() {
            Decision::Discard(reason.into())
        } else {
            Decision::Bury(Stage::Hygiene, reason)
        }
    }

    /// The violations since this was last called.
    pub fn take_violations(&mut self) -> Violations {
        std::mem::take(&mut self.violations)
    }
}

fn stage_of(stage: keystone_dsl::Stage) -> Stage {
    match stage {
        keystone_dsl::Stage::Decode => Stage::Decode,
        keystone_dsl::Stage::Filter => Stage::Filter,
        keystone_dsl::Stage::Projection => Stage::Projection,
    }
}

#[cfg(test)]
mod tests {
    use keystone_dsl::{Limits, Rules};
    use keystone_sinks::event_time;
    use proptest::prelude::*;

    use super::*;

    fn steps(projection: Option<&str>, rules: Rules<'_>) -> Steps {
        Steps {
            json: true,
            null_payload: NullPayload::DeadLetter,
            program: Program::compile(Some("n != `0`"), projection, Limits::default()).unwrap(),
            hygiene: Hygiene::compile(&rules).unwrap(),
            discard_violations: false,
        }
    }

    /// The decision, and what is delivered beyond the payload itself.
    fn decide(steps: &Steps, payload: &str) -> (Decision, String) {
        let mut out = b"x".to_vec();
        let record = Record::of(payload.as_bytes());
        let decision = Decider::new(steps).decide(&record, &mut out);
        (decision, String::from_utf8(out).unwrap().split_off(1))
    }

    fn rewritten(text: &str) -> (Decision, String) {
        (Decision::KeepRewritten, text.to_owned())
    }

    fn nothing(decision: Decision) -> (Decision, String) {
        (decision, String::new())
    }

    #[test]
    fn hygiene_judges_what_the_projection_made() {
        let rules = Rules {
            required: Some("id"),
            trim_strings: true,
            ..Rules::default()
        };
        let mut steps = steps(Some("a && {id: a, n: n}"), rules);
        assert_eq!(
            decide(&steps, r#"{"a":{"b":1}}"#),
            rewritten(r#"{"id":{"b":1},"n":null}"#)
        );
        assert_eq!(
            decide(&steps, r#"{"a":" b ","n":1.0}"#),
            rewritten(r#"{"id":"b","n":1.0}"#)
        );
        assert_eq!(
            decide(&steps, r#"{"n":0}"#),
            nothing(Decision::Filtered),
            "a filtered event is not judged"
        );
        steps.program = Program::compile(None, Some("{a: a}"), Limits::default()).unwrap();
        let reason = "hygiene.required: id is missing";
        assert_eq!(
            decide(&steps, r#"{"id":1}"#),
            nothing(Decision::Bury(Stage::Hygiene, reason.into()))
        );
        steps.discard_violations = true;
        assert_eq!(
            decide(&steps, r#"{"id":1}"#),
            nothing(Decision::Discard(reason.into()))
        );
    }

    #[test]
    fn an_event_without_projection_is_written_anew_only_where_a_rule_changes_it() {
        let rules = Rules {
            drop_nulls: true,
            ..Rules::default()
        };
        let steps = steps(None, rules);
        assert_eq!(decide(&steps, "{ \"a\": 1 }"), nothing(Decision::Keep));
        assert_eq!(
            decide(&steps, "{ \"a\": 1, \"b\": null }"),
            rewritten("{\"a\":1}")
        );
        let tombstone = Decider::new(&steps).tombstone();
        assert!(
            matches!(tombstone, Decision::Bury(Stage::Decode, _)),
            "{tombstone:?}"
        );
    }

    #[test]
    fn raw_events_are_only_measured() {
        let rules = Rules {
            max_event_bytes: Some(3),
            ..Rules::default()
        };
        let raw = Steps {
            json: false,
            ..steps(None, rules)
        };
        assert_eq!(decide(&raw, "{{{"), nothing(Decision::Keep));
        let (long, _) = decide(&raw, "{{{{");
        assert!(
            matches!(long, Decision::Bury(Stage::Hygiene, _)),
            "{long:?}"
        );
    }

    proptest! {
        /// `hygiene.types = ts: timestamp` is to predict what a sink takes for a time.
        #[test]
        fn a_timestamp_is_what_the_sinks_take_for_one(text in timestamps()) {
            let rules = Rules {
                types: Some("ts: timestamp"),
                ..Rules::default()
            };
            let event = format!("{{\"n\":1,\"ts\":{text}}}");
            let (decision, _) = decide(&steps(None, rules), &event);
            let value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(decision == Decision::Keep, event_time::parse(&value).is_some());
        }
    }

    /// Times, and texts and numbers that are almost one.
    fn timestamps() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<i64>().prop_map(|number| number.to_string()),
            "-?[1-9][0-9]{0,22}(\\.[0-9]{1,3})?([eE][+-]?[0-9]{1,2})?",
            "\"20[0-9]{2}-[01][0-9]-[0-3][0-9]([T ][0-2][0-9]:[0-5][0-9]:[0-6][0-9](\\.[0-9]{1,9})?(Z|[+-][0-2][0-9]:00)?)?\"",
            "\"[0-9TZ:. +-]{0,12}\"",
            "true|\\[\\]|\\{\\}",
        ]
    }

    #[test]
    fn violations_are_counted_by_rule() {
        let rules = Rules {
            required: Some("a, b"),
            types: Some("c: string"),
            max_event_bytes: Some(100),
            ..Rules::default()
        };
        let steps = steps(None, rules);
        let mut decider = Decider::new(&steps);
        for event in ["{}", "{\"c\":1}", "{\"a\":1,\"b\":1}"] {
            decider.decide(&Record::of(event.as_bytes()), &mut Vec::new());
        }
        assert_eq!(decider.take_violations(), [2, 1, 0]);
        assert_eq!(decider.take_violations(), [0, 0, 0]);
    }
}
