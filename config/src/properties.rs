//! The grammar of property files: text to keys, values and lines. The text is UTF-8.
//!
//! The `java-properties` crate reads it, with Java's rules: `key=value`, `key: value` or `key value`; `#` and `!` begin a comment; a
//! line that ends in a backslash goes on in the next; `\t \n \r \f \uXXXX`; any other escaped character stands for itself.
//! Four things are added here: a malformed escape in a comment is no error, a backslash at the very end of the text does not swallow
//! the line, no key may stand twice in a file, and only a character that has a meaning may be escaped: in the `\d` of a regular
//! expression the backslash would vanish, and nobody would see why nothing matches.

use std::borrow::Cow;
use std::collections::HashMap;

use java_properties::{LineContent, PropertiesIter};

/// A key and its value, with the line of the key, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) line: usize,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Flaw {
    /// Empty where the key could not be read.
    pub(crate) key: String,
    pub(crate) line: usize,
    pub(crate) problem: String,
    pub(crate) hint: Cow<'static, str>,
}

/// Reads all pairs and all flaws. Of a key that stands twice the first pair is kept. A flaw tells nothing of the value of a key that is
/// `secret`.
pub(crate) fn parse(text: &str, secret: impl Fn(&str) -> bool) -> (Vec<Pair>, Vec<Flaw>) {
    let mut pairs: Vec<Pair> = Vec::new();
    let mut flaws = Vec::new();
    let mut lines: HashMap<String, usize> = HashMap::new();
    // The crate drops a last line that ends in a backslash, unless a line break follows.
    let text = text.replace("\r\n", "\n").replace('\r', "\n") + "\n";
    let natural: Vec<&str> = text.split('\n').collect();
    for line in PropertiesIter::new_with_encoding(text.as_bytes(), encoding_rs::UTF_8) {
        let (line, content) = match line {
            Ok(line) => (line.line_number(), line.consume_content()),
            Err(error) => {
                // Reading from memory fails only for escapes, and those carry a line.
                let line = error.line_number().unwrap_or(0);
                if !natural
                    .get(line.wrapping_sub(1))
                    .is_some_and(|line| is_comment(line))
                {
                    flaws.push(Flaw {
                        key: String::new(),
                        line,
                        problem: "malformed escape: `\\u` needs the four hexadecimal digits of one character".into(),
                        hint: "write a character as it is, in UTF-8, and a backslash as `\\\\`".into(),
                    });
                }
                continue;
            }
        };
        let LineContent::KVPair(key, value) = content else {
            continue;
        };
        flaws.extend(lost_backslashes(&natural, line, &key, secret(&key)));
        if key.is_empty() {
            flaws.push(Flaw {
                key,
                line,
                problem: "there is no key before the separator".into(),
                hint: "a line is `key=value`".into(),
            });
        } else if let Some(first) = lines.get(&key) {
            flaws.push(Flaw {
                problem: format!("set twice: in line {first} and in line {line}"),
                key,
                line,
                hint: "keep one of them".into(),
            });
        } else {
            lines.insert(key.clone(), line);
            pairs.push(Pair { key, value, line });
        }
    }
    (pairs, flaws)
}

fn is_comment(line: &str) -> bool {
    line.trim_start_matches([' ', '\t', '\x0c'])
        .starts_with(['#', '!'])
}

/// A flaw for each line of a pair, the first of which is `first`, that holds a backslash which Java's rules drop.
fn lost_backslashes(natural: &[&str], first: usize, key: &str, secret: bool) -> Vec<Flaw> {
    let mut flaws = Vec::new();
    for (line, text) in (first..).zip(natural.iter().skip(first - 1)) {
        let (lost, goes_on) = escaped_for_nothing(text);
        if !lost.is_empty() {
            let (problem, hint) = match secret {
                true => (
                    "a backslash stands before a character that needs none, and would be dropped"
                        .into(),
                    "write a backslash that is part of the value twice, `\\\\`".into(),
                ),
                false => would_be_read(&lost),
            };
            flaws.push(Flaw {
                key: key.to_owned(),
                line,
                problem,
                hint,
            });
        }
        if !goes_on {
            break;
        }
    }
    flaws
}

/// The characters of a line, each once, that a backslash stands before and does nothing for, and whether the line goes on in the next.
fn escaped_for_nothing(line: &str) -> (Vec<char>, bool) {
    let mut found = Vec::new();
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            continue;
        }
        match chars.next() {
            None => return (found, true),
            // A quote is escaped by the habit of other languages, and no pattern needs it to be.
            Some(
                '\\' | 'n' | 't' | 'r' | 'f' | 'u' | ':' | '=' | '#' | '!' | ' ' | '\t' | '\''
                | '"',
            ) => {}
            Some(c) if found.contains(&c) => {}
            Some(c) => found.push(c),
        }
    }
    (found, false)
}

fn would_be_read(lost: &[char]) -> (String, Cow<'static, str>) {
    let list = |item: fn(&char) -> String| lost.iter().map(item).collect::<Vec<_>>().join(", ");
    (
        format!(
            "a backslash would be dropped: {}",
            list(|c| {
                let c = c.escape_debug();
                format!("`\\{c}` would be read as `{c}`")
            })
        ),
        format!(
            "write a backslash that is part of the value twice: {}",
            list(|c| format!("`\\\\{}`", c.escape_debug()))
        )
        .into(),
    )
}

/// Writes a value so that [`parse`] reads it back.
pub(crate) fn escape_value(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for (index, c) in value.chars().enumerate() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0c' => out.push_str("\\f"),
            // Leading white space belongs to the separator, and so does a leading `=` or `:`.
            ' ' | '=' | ':' if index == 0 => {
                out.push('\\');
                out.push(c);
            }
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests;
