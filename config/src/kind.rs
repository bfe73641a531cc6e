//! What the value of an option may be: reading it, refusing it, and saying what is allowed.

use crate::option::Kind;

const UNITS: [(&str, u128); 6] = [
    ("kb", 1 << 10),
    ("mb", 1 << 20),
    ("gb", 1 << 30),
    ("k", 1 << 10),
    ("m", 1 << 20),
    ("g", 1 << 30),
];

/// What is wrong with a value, or nothing. The text echoes the value: not for secrets.
pub(crate) fn check(kind: &Kind, value: &str) -> Result<(), String> {
    if value.is_empty() {
        return Err("the value is empty".into());
    }
    match kind {
        Kind::Text => Ok(()),
        Kind::List => match list(value).iter().any(String::is_empty) {
            true => Err(format!("{} has an empty item", quoted(value))),
            false => Ok(()),
        },
        Kind::Bool => match value {
            "true" | "false" => Ok(()),
            _ => Err(format!("{} is neither `true` nor `false`", quoted(value))),
        },
        Kind::Count { min, max } => within(value, number(value), *min, *max, "a whole number"),
        Kind::Bytes { min, max } => within(value, bytes(value), *min, *max, "a number of bytes"),
        Kind::Millis { min, max } => {
            within(value, number(value), *min, *max, "a number of milliseconds")
        }
        Kind::Choice(words) => match words.contains(&value) {
            true => Ok(()),
            false => Err(
                match crate::nearest::nearest(value, words.iter().copied()) {
                    Some(word) => format!("{} is not known; did you mean `{word}`?", quoted(value)),
                    None => format!("{} is not known", quoted(value)),
                },
            ),
        },
        Kind::Checked { check, .. } => check(value),
    }
}

/// What is allowed, in words that follow "allowed:".
pub(crate) fn allowed(kind: &Kind) -> String {
    match kind {
        Kind::Text => "any text that is not empty".into(),
        Kind::List => "a comma-separated list".into(),
        Kind::Bool => "`true` or `false`".into(),
        Kind::Count { min, max } => {
            format!("a whole number {}", range(*min, *max, |n| n.to_string()))
        }
        Kind::Bytes { min, max } => format!(
            "a number of bytes {}, as digits or with `k`, `m` or `g`",
            range(*min, *max, size)
        ),
        Kind::Millis { min, max } => format!(
            "a number of milliseconds {}",
            range(*min, *max, |n| n.to_string())
        ),
        Kind::Choice(words) => {
            let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
            words.join(", ")
        }
        Kind::Checked { form, .. } => (*form).into(),
    }
}

/// The items of a list, without the white space around each.
pub(crate) fn list(value: &str) -> Vec<String> {
    value
        .split(',')
        .map(|item| item.trim().to_owned())
        .collect()
}

/// A whole number, or `None`. Wider than any range, so that what is too large is known as such.
pub(crate) fn number(value: &str) -> Option<u128> {
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| value.parse().unwrap_or(u128::MAX))
}

/// A number of bytes with or without a unit, in any case of letters.
pub(crate) fn bytes(value: &str) -> Option<u128> {
    let lower = value.to_ascii_lowercase();
    for (unit, factor) in UNITS {
        if let Some(digits) = lower.strip_suffix(unit) {
            return Some(number(digits)?.saturating_mul(factor));
        }
    }
    number(&lower)
}

fn within(value: &str, number: Option<u128>, min: u64, max: u64, what: &str) -> Result<(), String> {
    match number {
        None => Err(format!("{} is not {what}", quoted(value))),
        Some(number) if number < u128::from(min) => Err(format!("{} is too small", quoted(value))),
        Some(number) if number > u128::from(max) => Err(format!("{} is too large", quoted(value))),
        Some(_) => Ok(()),
    }
}

fn range(min: u64, max: u64, show: fn(u64) -> String) -> String {
    match max {
        u64::MAX => format!("of {} or more", show(min)),
        _ => format!("from {} to {}", show(min), show(max)),
    }
}

/// Bytes with the largest unit that leaves no rest.
fn size(bytes: u64) -> String {
    for (unit, factor) in [("g", 1 << 30), ("m", 1 << 20), ("k", 1 << 10)] {
        if bytes >= factor && bytes.is_multiple_of(factor) {
            return format!("{}{unit}", bytes / factor);
        }
    }
    bytes.to_string()
}

/// A value for an error: control characters escaped, at most 80 characters, no user, password and query of a URL.
pub(crate) fn quoted(value: &str) -> String {
    let shown = crate::secret::without_url_secrets(value);
    let mut text: String = shown
        .chars()
        .take(80)
        .flat_map(char::escape_debug)
        .collect();
    if shown.chars().nth(80).is_some() {
        text.push('…');
    }
    format!("`{}`", text.replace("\\'", "'").replace("\\\"", "\""))
}

#[cfg(test)]
mod tests;
