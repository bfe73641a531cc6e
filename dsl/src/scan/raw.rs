//! Arrays and objects that are used as they stand in the payload, without becoming values.

use super::lexeme::Bytes;

/// The text of an array or object, known to be valid.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Raw<'a>(pub(crate) &'a str);

/// Scratch space for the keys of objects inside each other, which are looked through for repeats.
#[derive(Debug, Default)]
pub(crate) struct Keyring {
    /// Where each key stands, without its quotes.
    keys: Vec<(usize, usize)>,
    /// The number of keys before each object that is open.
    open: Vec<usize>,
}

/// Of more keys in one object, a hash map finds the repeats.
const FEW: usize = 32;

impl Keyring {
    /// Takes in a key of the innermost object. False if it can't be told from the others here: it is repeated, escaped,
    /// or one of many.
    fn add(&mut self, text: &str, key: (usize, usize), escaped: bool) -> bool {
        let own = self.open.last().copied().unwrap_or_default();
        let known = &self.keys[own..];
        let inside = |(start, end): (usize, usize)| &text.as_bytes()[start..end];
        let same = |other: &(usize, usize)| inside(*other) == inside(key);
        if escaped || known.len() >= FEW || known.iter().any(same) {
            return false;
        }
        self.keys.push(key);
        true
    }
}

impl<'a> Raw<'a> {
    pub(crate) fn is_array(self) -> bool {
        self.0.starts_with('[')
    }

    pub(crate) fn is_empty(self) -> bool {
        let bytes = Bytes(self.0.as_bytes());
        matches!(bytes.get(bytes.space(1)), Some(b']' | b'}'))
    }

    /// Appends the text without its white space. False, with nothing appended, if an object may repeat a key.
    pub(crate) fn write(self, keyring: &mut Keyring, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        let bytes = Bytes(self.0.as_bytes());
        keyring.keys.clear();
        keyring.open.clear();
        let (mut at, mut copied) = (0, 0);
        let mut last = (0, 0, false);
        while let Some(byte) = bytes.get(at) {
            match byte {
                b'"' => {
                    let Some(string) = bytes.string(at + 1) else {
                        break;
                    };
                    last = (at + 1, string.end - 1, string.escaped);
                    at = string.end;
                    continue;
                }
                b' ' | b'\n' | b'\r' | b'\t' => {
                    out.extend_from_slice(&bytes.0[copied..at]);
                    at = bytes.space(at);
                    copied = at;
                    continue;
                }
                b'{' => keyring.open.push(keyring.keys.len()),
                b'}' => keyring
                    .keys
                    .truncate(keyring.open.pop().unwrap_or_default()),
                b':' if !keyring.add(self.0, (last.0, last.1), last.2) => {
                    out.truncate(start);
                    return false;
                }
                _ => {}
            }
            at += 1;
        }
        out.extend_from_slice(&bytes.0[copied..]);
        true
    }

    /// The number of items or members. Nothing if an object may repeat a key.
    pub(crate) fn count(self, keyring: &mut Keyring) -> Option<usize> {
        if self.is_array() {
            return Some(self.items().count());
        }
        keyring.keys.clear();
        keyring.open.clear();
        let bytes = Bytes(self.0.as_bytes());
        let mut at = bytes.space(1);
        while bytes.get(at)? == b'"' {
            let key = bytes.string(at + 1)?;
            if !keyring.add(self.0, (at + 1, key.end - 1), key.escaped) {
                return None;
            }
            let value = bytes.space(bytes.space(key.end) + 1);
            at = next_item(bytes, super::value_end(self.0, value)?);
        }
        Some(keyring.keys.len())
    }

    /// The texts of an array's items.
    pub(crate) fn items(self) -> impl Iterator<Item = &'a str> {
        let bytes = Bytes(self.0.as_bytes());
        let mut at = bytes.space(1);
        std::iter::from_fn(move || {
            if bytes.get(at)? == b']' {
                return None;
            }
            let start = at;
            let end = super::value_end(self.0, start)?;
            at = next_item(bytes, end);
            Some(&self.0[start..end])
        })
    }
}

/// The next item or member, or the closing bracket.
fn next_item(bytes: Bytes<'_>, after_value: usize) -> usize {
    let at = bytes.space(after_value);
    if bytes.get(at) == Some(b',') {
        bytes.space(at + 1)
    } else {
        at
    }
}

/// The text of a number that stands alone, white space around it aside.
pub(crate) fn lone_number(text: &str) -> Option<&str> {
    let bytes = Bytes(text.as_bytes());
    let start = bytes.space(0);
    let end = bytes.number(start)?;
    (bytes.space(end) == text.len()).then(|| &text[start..end])
}

/// The inside of a string, and whether it has escapes.
pub(crate) fn inside(string: &str) -> (&str, bool) {
    let inside = string.get(1..string.len() - 1).unwrap_or_default();
    (inside, inside.as_bytes().contains(&b'\\'))
}
