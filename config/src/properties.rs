//! The grammar of property files: text to keys, values and lines. The text is UTF-8.
//!
//! The `java-properties` crate reads it, with Java's rules: `key=value`, `key: value` or `key value`; `#` and `!` begin a comment; a
//! line that ends in a backslash goes on in the next; `\t \n \r \f \uXXXX`; any other escaped character stands for itself.
//! Three things are added here: a malformed escape in a comment is no error, a backslash at the very end of the text does not swallow
//! the line, and no key may stand twice in a file.

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
    pub(crate) hint: &'static str,
}

/// Reads all pairs and all flaws. Of a key that stands twice the first pair is kept.
pub(crate) fn parse(text: &str) -> (Vec<Pair>, Vec<Flaw>) {
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
                        hint: "write a character as it is, in UTF-8, and a backslash as `\\\\`",
                    });
                }
                continue;
            }
        };
        let LineContent::KVPair(key, value) = content else {
            continue;
        };
        if key.is_empty() {
            flaws.push(Flaw {
                key,
                line,
                problem: "there is no key before the separator".into(),
                hint: "a line is `key=value`",
            });
        } else if let Some(first) = lines.get(&key) {
            flaws.push(Flaw {
                problem: format!("set twice: in line {first} and in line {line}"),
                key,
                line,
                hint: "keep one of them",
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
