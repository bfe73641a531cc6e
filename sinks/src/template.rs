//! Names made from an event: a text with placeholders in braces.
//!
//! `events-{tenant.id}-{ts:%Y.%m.%d}` is the literal `events-`, the field `tenant.id` as it is, `-`, and the time in the field `ts`
//! in UTC, written by the format after the first colon (strftime, as `date` knows it). A brace can't be part of the literal text.

use std::fmt::Write;

use chrono::format::{Item, StrftimeItems};
use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::event_time;

mod fields;

pub use fields::Fields;

/// A parsed text with placeholders.
#[derive(Debug, Clone)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone)]
enum Part {
    Literal(String),
    Field(usize),
    Time { slot: usize, format: String },
}

impl Template {
    /// Parses the text; the fields of its placeholders get slots in `fields`. The error says what is wrong with the text.
    pub fn parse(text: &str, fields: &mut Fields) -> Result<Template, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find(['{', '}']) {
            let (literal, from_brace) = rest.split_at(open);
            if !literal.is_empty() {
                parts.push(Part::Literal(literal.to_owned()));
            }
            let Some(inside) = from_brace.strip_prefix('{') else {
                return Err("has a \"}\" without a \"{\" before it".to_owned());
            };
            let Some((placeholder, after)) = inside.split_once('}') else {
                return Err("has a \"{\" without a \"}\" after it".to_owned());
            };
            parts.push(placeholder_of(placeholder, fields)?);
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.to_owned()));
        }
        Ok(Template { parts })
    }

    /// The text where it has no placeholder.
    pub fn fixed(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// Whether a field's own text becomes part of the name, so that one odd event makes an odd name.
    pub fn has_field(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Field(_)))
    }

    /// The literal text before the first placeholder.
    pub fn prefix(&self) -> &str {
        match self.parts.first() {
            Some(Part::Literal(text)) => text,
            _ => "",
        }
    }

    /// Appends the name for an event whose fields are in `found` (see [`Fields::pick`]). The error names the field and its value.
    pub fn render(
        &self,
        fields: &Fields,
        found: &[Option<Value>],
        out: &mut String,
    ) -> Result<(), String> {
        for part in &self.parts {
            match part {
                Part::Literal(text) => out.push_str(text),
                Part::Field(slot) => {
                    let value = found[*slot].as_ref();
                    push_scalar(fields.path(*slot), value, out)?;
                }
                Part::Time { slot, format } => {
                    let path = fields.path(*slot);
                    let value = match &found[*slot] {
                        None | Some(Value::Null) => {
                            return Err(format!("it has no field {path:?}"));
                        }
                        Some(value) => value,
                    };
                    let time = event_time::parse_for_name(value).ok_or_else(|| {
                        let shown = shorten(&value.to_string());
                        format!("its field {path:?} is {shown}, not {}", event_time::ALLOWED)
                    })?;
                    push_time(time, format, out)?;
                }
            }
        }
        Ok(())
    }

    /// A name as this template makes it, with `x` for each field and a day in 2026 for each time: to check the text around the
    /// placeholders before any event is there.
    pub fn sample(&self) -> String {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Literal(text) => out.push_str(text),
                Part::Field(_) => out.push('x'),
                Part::Time { format, .. } => {
                    let time = DateTime::from_timestamp(1_795_431_906, 0).unwrap_or_default();
                    // The format was checked by `parse`.
                    let _ = push_time(time, format, &mut out);
                }
            }
        }
        out
    }
}

/// Appends a text, a number with all its digits, or `true` or `false`. An exponent is spelt with a sign, as `serde_json` reads it:
/// `1e5` and `1E5` become `1e+5`.
pub fn push_scalar(path: &str, value: Option<&Value>, out: &mut String) -> Result<(), String> {
    match value {
        None | Some(Value::Null) => return Err(format!("it has no field {path:?}")),
        Some(Value::String(text)) if text.is_empty() => {
            return Err(format!("its field {path:?} is an empty text"));
        }
        Some(Value::String(text)) => out.push_str(text),
        Some(Value::Number(number)) => out.push_str(&number.to_string()),
        Some(Value::Bool(flag)) => out.push_str(if *flag { "true" } else { "false" }),
        Some(value @ (Value::Array(_) | Value::Object(_))) => {
            let shown = shorten(&value.to_string());
            return Err(format!(
                "its field {path:?} is {shown}, not a text or a number"
            ));
        }
    }
    Ok(())
}

/// At most 100 characters of a value, for an error message.
pub fn shorten(text: &str) -> String {
    match text.char_indices().nth(100) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn placeholder_of(text: &str, fields: &mut Fields) -> Result<Part, String> {
    let (path, format) = match text.split_once(':') {
        Some((path, format)) => (path, Some(format)),
        None => (text, None),
    };
    let slot = fields.slot(path)?;
    let Some(format) = format else {
        return Ok(Part::Field(slot));
    };
    if format.is_empty() {
        return Err(format!(
            "has no time format after the colon in \"{{{text}}}\""
        ));
    }
    if StrftimeItems::new(format).any(|item| item == Item::Error) {
        return Err(format!(
            "has a time format that is not strftime: {format:?}"
        ));
    }
    Ok(Part::Time {
        slot,
        format: format.to_owned(),
    })
}

fn push_time(time: DateTime<Utc>, format: &str, out: &mut String) -> Result<(), String> {
    write!(out, "{}", time.format(format))
        .map_err(|_| format!("the time {time} can't be written by the format {format:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn render(text: &str, payload: &str) -> Result<String, String> {
        let mut fields = Fields::default();
        let template = Template::parse(text, &mut fields)?;
        let mut found = Vec::new();
        fields.pick(payload.as_bytes(), &mut found).unwrap();
        let mut out = String::new();
        template.render(&fields, &found, &mut out)?;
        Ok(out)
    }

    #[test]
    fn fields_and_times_are_put_in() {
        let payload = r#"{"tenant":{"id":"acme","no":12345678901234567890},"ok":true,
            "ts":"2026-11-23T23:30:00-01:00","ms":1795431906000,"f":1.50,"e":1E5,"m":1.0e-7}"#;
        for (text, expected) in [
            ("events", "events"),
            ("events-{tenant.id}", "events-acme"),
            ("{tenant.no}-{ok}", "12345678901234567890-true"),
            ("{f}-{e}-{m}", "1.50-1e+5-1.0e-7"),
            ("e-{ts:%Y.%m.%d}", "e-2026.11.24"),
            ("e-{ms:%Y-%m-%d-%H:%M}-x", "e-2026-11-23-11:05-x"),
            ("{tenant.id}{ts:%G-w%V}", "acme2026-w48"),
        ] {
            assert_eq!(render(text, payload).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn an_event_without_the_field_is_told_which() {
        let payload = r#"{"o":{"a":1},"n":null,"e":"","t":"yesterday"}"#;
        for (text, expected) in [
            ("{gone}", "it has no field \"gone\""),
            ("{n}", "it has no field \"n\""),
            ("{o.b}", "it has no field \"o.b\""),
            ("{gone:%Y}", "it has no field \"gone\""),
            ("{e}", "its field \"e\" is an empty text"),
            (
                "{o}",
                "its field \"o\" is {\"a\":1}, not a text or a number",
            ),
        ] {
            assert_eq!(render(text, payload).unwrap_err(), expected);
        }
        let error = render("{t:%Y}", payload).unwrap_err();
        assert!(
            error.starts_with("its field \"t\" is \"yesterday\", not an RFC 3339"),
            "{error}"
        );
    }

    #[test]
    fn a_bad_text_is_refused() {
        for text in [
            "a{", "a}", "{", "{}", "{a", "{a:}", "{a:%Q}", "{a..b}", "{a{b}}", "{:%Y}",
        ] {
            assert!(
                Template::parse(text, &mut Fields::default()).is_err(),
                "{text}"
            );
        }
    }

    #[test]
    fn a_template_knows_its_shape() {
        let shape = |text: &str| {
            let template = Template::parse(text, &mut Fields::default()).unwrap();
            let fixed = template.fixed().map(str::to_owned);
            (
                fixed,
                template.has_field(),
                template.prefix().to_owned(),
                template.sample(),
            )
        };
        assert_eq!(
            shape("a-{t:%Y}"),
            (None, false, "a-".into(), "a-2026".into())
        );
        assert_eq!(shape("{f}-a"), (None, true, "".into(), "x-a".into()));
        assert_eq!(
            shape("a"),
            (Some("a".into()), false, "a".into(), "a".into())
        );
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[a{}:%.YmdQ é]{0,12}", payload in "[0-9\"a{}:]{0,8}") {
            let mut fields = Fields::default();
            if let Ok(template) = Template::parse(&text, &mut fields) {
                let _ = template.sample();
                let mut found = Vec::new();
                if fields.pick(payload.as_bytes(), &mut found).is_ok() {
                    let _ = template.render(&fields, &found, &mut String::new());
                }
            }
        }
    }
}
