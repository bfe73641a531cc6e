//! What can be told from the JSON text of a value alone. An empty text is an absent value, which is null.

use std::cmp::Ordering;

use crate::json;
use crate::node::Operator;
use crate::number;
use crate::scan::{Raw, inside};

pub(super) fn is_true(text: &str) -> bool {
    match text.as_bytes().first() {
        None | Some(b'n' | b'f') => false,
        Some(b'"') => text.len() > 2,
        Some(b'{' | b'[') => !Raw(text).is_empty(),
        Some(_) => true,
    }
}

/// As [`compare`](crate::evaluate::compare) on the values. The outer nothing is "not from the text", for two containers;
/// the inner one is null.
pub(super) fn compare(operator: Operator, a: &str, b: &str) -> Option<Option<bool>> {
    let (kind_a, kind_b) = (kind(a), kind(b));
    match operator {
        Operator::Equal | Operator::NotEqual => {
            let equal = kind_a == kind_b
                && match kind_a {
                    Kind::Null | Kind::True | Kind::False => true,
                    Kind::String => equal_strings(a, b),
                    Kind::Number => number::equal(a, b),
                    Kind::Array | Kind::Object => return None,
                };
            Some(Some(equal == (operator == Operator::Equal)))
        }
        _ if kind_a != Kind::Number || kind_b != Kind::Number => Some(None),
        Operator::Less => Some(Some(number::compare(a, b) == Ordering::Less)),
        Operator::LessOrEqual => Some(Some(number::compare(a, b) != Ordering::Greater)),
        Operator::Greater => Some(Some(number::compare(a, b) == Ordering::Greater)),
        Operator::GreaterOrEqual => Some(Some(number::compare(a, b) != Ordering::Less)),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Null,
    True,
    False,
    String,
    Number,
    Array,
    Object,
}

fn kind(text: &str) -> Kind {
    match text.as_bytes().first() {
        None | Some(b'n') => Kind::Null,
        Some(b't') => Kind::True,
        Some(b'f') => Kind::False,
        Some(b'"') => Kind::String,
        Some(b'[') => Kind::Array,
        Some(b'{') => Kind::Object,
        Some(_) => Kind::Number,
    }
}

fn equal_strings(a: &str, b: &str) -> bool {
    if a == b {
        return true;
    }
    match (inside(a), inside(b)) {
        // Without escapes there is one way to spell a text.
        ((_, false), (_, false)) => false,
        ((a, _), (b, _)) => json::decoded(a).eq(json::decoded(b)),
    }
}
