//! The record around the event: `meta` and `header`.

use super::argument::Takes;
use super::{Call, Function, Literals, Outcome, PrepareError, Prepared};
use crate::settings::Settings;
use crate::value::Value;

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("header", &[Takes::String], header),
    Function::new("meta", &[Takes::String], meta).prepared_by(prepare_meta),
];

/// What `meta` tells.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Attribute {
    Topic,
    Partition,
    Offset,
    Timestamp,
    Key,
}

const ATTRIBUTES: &[(&str, Attribute)] = &[
    ("topic", Attribute::Topic),
    ("partition", Attribute::Partition),
    ("offset", Attribute::Offset),
    ("timestamp", Attribute::Timestamp),
    ("key", Attribute::Key),
];

fn prepare_meta(literals: Literals<'_>, _: &Settings) -> Result<Prepared, PrepareError> {
    let allowed = || {
        let names: Vec<_> = ATTRIBUTES
            .iter()
            .map(|(name, _)| format!("'{name}'"))
            .collect();
        (0, format!("it must be one of {}", names.join(", ")))
    };
    let Some(Value::String(name)) = literals[0] else {
        return Err(allowed());
    };
    let known = ATTRIBUTES.iter().find(|(known, _)| *name == **known);
    known
        .map(|(_, attribute)| Prepared::Attribute(*attribute))
        .ok_or_else(allowed)
}

fn meta<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let record = &call.context.record;
    let Prepared::Attribute(attribute) = call.prepared else {
        return Ok(Value::Null);
    };
    Ok(match attribute {
        Attribute::Topic => Value::text(record.topic),
        Attribute::Partition => Value::Number(record.partition.to_string().into()),
        Attribute::Offset => Value::Number(record.offset.to_string().into()),
        Attribute::Timestamp => record
            .timestamp
            .map_or(Value::Null, |time| Value::Number(time.to_string().into())),
        Attribute::Key => bytes("the record's key", record.key)?,
    })
}

fn header<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let headers = call.context.record.headers;
    let Value::String(name) = &call[0] else {
        return Ok(Value::Null);
    };
    bytes("the header's value", headers.last(&name.as_str())?)
}

fn bytes<'a>(what: &str, bytes: Option<&'a [u8]>) -> Outcome<'a> {
    let Some(bytes) = bytes else {
        return Ok(Value::Null);
    };
    std::str::from_utf8(bytes)
        .map(Value::text)
        .map_err(|error| {
            format!(
                "{what} is not UTF-8: an invalid sequence at byte {}",
                error.valid_up_to()
            )
        })
}

#[cfg(test)]
mod tests {
    use crate::{Expression, Record};

    fn ask(expression: &str, record: &Record<'_>) -> Result<String, String> {
        let expression = Expression::compile(expression).unwrap();
        let mut out = Vec::new();
        let outcome = expression.search(record, &mut out);
        outcome
            .map(|()| String::from_utf8(out).unwrap())
            .map_err(|error| error.reason)
    }

    #[test]
    fn the_record_is_told_as_it_is() {
        let headers = vec![
            ("trace", Some(b"a1".as_slice())),
            ("none", None),
            ("trace", Some(b"b2".as_slice())),
            ("raw", Some(b"\xff".as_slice())),
        ];
        let record = Record {
            payload: br#"{"name": "trace"}"#,
            topic: "plays",
            partition: 3,
            offset: i64::MAX,
            timestamp: Some(-1_500),
            key: Some(b"k\"1"),
            headers: &headers,
        };
        let all =
            "[meta('topic'), meta('partition'), meta('offset'), meta('timestamp'), meta('key')]";
        let told = r#"["plays",3,9223372036854775807,-1500,"k\"1"]"#;
        assert_eq!(ask(all, &record).unwrap(), told);
        let nothing = Record::of(b"{}");
        assert_eq!(ask(all, &nothing).unwrap(), r#"["",0,0,null,null]"#);
        // Inside a projection of a list and a reference to an expression, too.
        let inside = "map(&meta('partition'), [`1`, `2`][*].meta('offset'))";
        assert_eq!(ask(inside, &record).unwrap(), "[3,3]");

        // Of a repeated header the last one; the name may come from the event.
        let named = "[header('trace'), header(name), header('none'), header('Trace')]";
        assert_eq!(ask(named, &record).unwrap(), r#"["b2","b2",null,null]"#);
        assert_eq!(
            ask(named, &nothing).unwrap_err(),
            "header: argument 1 is null, expected a string (line 1, column 19)"
        );
        assert_eq!(ask("header('trace')", &nothing).unwrap(), "null");
    }

    #[test]
    fn bytes_that_are_no_text_are_an_error() {
        let record = Record {
            key: Some(b"ab\xff"),
            ..Record::of(b"1")
        };
        assert_eq!(
            ask("meta('key')", &record).unwrap_err(),
            "meta: the record's key is not UTF-8: an invalid sequence at byte 2 (line 1, column 1)"
        );
        assert_eq!(ask("meta('topic')", &record).unwrap(), "\"\"");
    }

    #[test]
    fn what_meta_does_not_know_is_found_when_it_is_compiled() {
        for (expression, column) in [
            ("meta('tpoic')", 6),
            ("a && meta(name)", 11),
            ("meta(`1`)", 6),
        ] {
            let error = Expression::compile(expression).unwrap_err();
            assert_eq!(error.position, (1, column), "{expression}");
            assert!(
                error.message.starts_with("meta: argument 1"),
                "{}",
                error.message
            );
        }
        let error = Expression::compile("meta('tpoic')").unwrap_err();
        assert!(
            error
                .to_string()
                .contains("it must be one of 'topic', 'partition', "),
            "{error}"
        );
    }
}
