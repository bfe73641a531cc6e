//! Hygiene rules: what a route asks of every event that it is about to deliver, after the projection.
//!
//! Two rules put an event right (`drop.nulls`, `trim.strings`), three judge what has become of it. Fields are named as in
//! an expression (`user.id`, `"user-agent"`); a field of a list's items can't be named.

mod fields;

use std::sync::Arc;

use crate::error::{EventError, ExpressionError};
use crate::value::Value;
use crate::{MAX_DEPTH, json};

use fields::{Field, List, Type};

/// The rules as a route's options have them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rules<'t> {
    /// Fields that must be there and not null: `id, user.id`.
    pub required: Option<&'t str>,
    /// Fields with the type of their value, unless they are absent or null: `duration_ms: integer, ts: timestamp`.
    pub types: Option<&'t str>,
    /// The most that the event to deliver may have.
    pub max_event_bytes: Option<u64>,
    /// Members of objects that are null are left out, at every depth. Nulls in lists stay: there the place counts.
    pub drop_nulls: bool,
    /// White space at both ends of strings is left out, at every depth; not of keys.
    pub trim_strings: bool,
}

/// A rule that an event can break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    Required,
    Types,
    MaxEventBytes,
}

impl Rule {
    pub const ALL: [Rule; 3] = [Rule::Required, Rule::Types, Rule::MaxEventBytes];

    /// The option's name without `hygiene.`.
    pub fn as_str(self) -> &'static str {
        match self {
            Rule::Required => "required",
            Rule::Types => "types",
            Rule::MaxEventBytes => "max.event.bytes",
        }
    }
}

/// Why an event does not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Each rule once, in order. Empty where the event can't be read: a projection may nest deeper than any event.
    pub rules: Vec<Rule>,
    /// Each broken rule with its field and what was found; never a value of the event.
    pub reason: String,
}

/// The rules of a route, ready for use.
#[derive(Debug)]
pub struct Hygiene {
    required: Vec<Field>,
    types: Vec<(Field, Type)>,
    max_event_bytes: Option<u64>,
    drop_nulls: bool,
    trim_strings: bool,
}

impl Hygiene {
    /// `None` where there is no rule. Fails with what is wrong in both lists of fields.
    pub fn compile(rules: &Rules<'_>) -> Result<Option<Hygiene>, Vec<ExpressionError>> {
        let mut errors = Vec::new();
        let required = fields::list("hygiene.required", rules.required, List::field, &mut errors);
        let types = fields::types(rules.types, &mut errors);
        if !errors.is_empty() {
            return Err(errors);
        }
        let hygiene = Hygiene {
            required,
            types,
            max_event_bytes: rules.max_event_bytes,
            drop_nulls: rules.drop_nulls,
            trim_strings: rules.trim_strings,
        };
        Ok((hygiene.reads() || hygiene.max_event_bytes.is_some()).then_some(hygiene))
    }

    /// Whether a rule looks into the event.
    fn reads(&self) -> bool {
        self.drop_nulls || self.trim_strings || !self.required.is_empty() || !self.types.is_empty()
    }

    /// Puts an event right and judges it. `true` where something was put right: the event as it is now has been appended to
    /// `out`. Otherwise the event may go on byte for byte, and `out` is as it was.
    pub fn apply(&self, event: &[u8], out: &mut Vec<u8>) -> Result<bool, Broken> {
        let start = out.len();
        let mut found = Found::default();
        let mut changed = false;
        if self.reads() {
            let mut value = json::read(event, MAX_DEPTH).map_err(unreadable)?;
            if let Some(clean) = self.clean(&value) {
                value = clean;
                changed = true;
                // Never larger than the event; and no event holds a reference to an expression, the other cause to fail.
                value.write(usize::MAX, out).map_err(|reason| Broken {
                    rules: Vec::new(),
                    reason,
                })?;
            }
            self.judge(&value, &mut found);
        }
        let bytes = if changed {
            out.len() - start
        } else {
            event.len()
        } as u64;
        if let Some(most) = self.max_event_bytes.filter(|most| bytes > *most) {
            let what = format!("the event has {bytes} bytes, at most {most} are allowed");
            found.add(Rule::MaxEventBytes, &what);
        }
        match found.rules.is_empty() {
            true => Ok(changed),
            false => {
                out.truncate(start);
                Err(Broken {
                    rules: found.rules,
                    reason: found.reasons.join("; "),
                })
            }
        }
    }

    /// The value put right, or `None` where nothing is to be changed.
    fn clean<'a>(&self, value: &Value<'a>) -> Option<Value<'a>> {
        match value {
            Value::String(text) if self.trim_strings => {
                let text = text.as_str();
                let trimmed = text.trim();
                (trimmed.len() < text.len()).then(|| Value::text(trimmed.to_owned()))
            }
            Value::Array(items) => {
                let clean: Vec<_> = items.iter().map(|item| self.clean(item)).collect();
                let changed = clean.iter().any(Option::is_some);
                changed.then(|| {
                    let both = clean.into_iter().zip(items.iter());
                    Value::array(both.map(|(new, old)| new.unwrap_or(old.clone())).collect())
                })
            }
            Value::Object(members) => {
                let dropped = |value: &Value<'_>| self.drop_nulls && matches!(value, Value::Null);
                let clean: Vec<_> = members.iter().map(|(_, value)| self.clean(value)).collect();
                let changed = clean.iter().any(Option::is_some)
                    || members.iter().any(|(_, value)| dropped(value));
                changed.then(|| {
                    let both = clean.into_iter().zip(members.iter());
                    let kept = both
                        .filter(|(_, (_, old))| !dropped(old))
                        .map(|(new, (key, old))| (key.clone(), new.unwrap_or(old.clone())));
                    Value::Object(Arc::new(kept.collect()))
                })
            }
            _ => None,
        }
    }

    fn judge(&self, event: &Value<'_>, found: &mut Found) {
        for field in &self.required {
            let what = match field.of(event) {
                Ok(Value::Null) => format!("{} is null", field.shown),
                Ok(_) => continue,
                Err(missing) => missing,
            };
            found.add(Rule::Required, &what);
        }
        for (field, expected) in &self.types {
            let Ok(value) = field.of(event) else { continue };
            if let Some(what) = expected.refuses(&value) {
                let field = &field.shown;
                let expected = expected.shown();
                found.add(
                    Rule::Types,
                    &format!("{field} is {what}, expected {expected}"),
                );
            }
        }
    }
}

fn unreadable(EventError { reason, .. }: EventError) -> Broken {
    Broken {
        rules: Vec::new(),
        reason,
    }
}

/// What is broken so far.
#[derive(Default)]
struct Found {
    rules: Vec<Rule>,
    reasons: Vec<String>,
}

impl Found {
    fn add(&mut self, rule: Rule, what: &str) {
        if self.rules.last() != Some(&rule) {
            self.rules.push(rule);
        }
        self.reasons
            .push(format!("hygiene.{}: {what}", rule.as_str()));
    }
}

#[cfg(test)]
mod tests;
