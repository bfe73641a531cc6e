//! `${file:/etc/keystone-secrets/name}` in a value: replaced by what the file holds. `$${` stands for `${`.

use std::fs::File;
use std::io::Read;

use crate::secret::HIDDEN;

/// The most that a file may hold: a bundle of certificates fits, a wrong file (a log, a device) is refused.
const MOST: u64 = 1 << 20;

/// A value after its references were replaced.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Expanded {
    pub(crate) text: String,
    /// The contents of files that went into the text. Where there are any, the whole is secret from here on.
    pub(crate) contents: Vec<String>,
    /// Holds nothing but one reference, so that the text before the expansion gives nothing away.
    pub(crate) whole: bool,
}

impl Expanded {
    pub(crate) fn has_content(&self) -> bool {
        !self.contents.is_empty()
    }
}

/// What is wrong with a reference. The texts name files but no content and no other part of the value.
#[derive(Debug)]
pub(crate) struct Flaw {
    pub(crate) problem: String,
    pub(crate) hint: String,
    /// The reference is right, and its file can't be read here.
    pub(crate) unread: bool,
}

/// Replaces all references of a value.
pub(crate) fn expand(raw: &str) -> Result<Expanded, Flaw> {
    let mut text = String::with_capacity(raw.len());
    let (mut contents, mut rest) = (Vec::new(), raw);
    while let Some(at) = rest.find('$') {
        text.push_str(&rest[..at]);
        let tail = &rest[at..];
        if let Some(after) = tail.strip_prefix("$${") {
            text.push_str("${");
            rest = after;
        } else if let Some(after) = tail.strip_prefix("${") {
            let (path, after) = after
                .strip_prefix("file:")
                .and_then(|after| after.split_once('}'))
                .ok_or_else(unknown)?;
            let content = read(path)?;
            text.push_str(&content);
            contents.push(content);
            rest = after;
        } else {
            text.push('$');
            rest = &tail[1..];
        }
    }
    text.push_str(rest);
    Ok(Expanded {
        text,
        contents,
        whole: is_whole(raw),
    })
}

fn is_whole(raw: &str) -> bool {
    raw.starts_with("${") && raw.find('}') == Some(raw.len() - 1)
}

/// What a value is taken for whose file can't be read.
pub(crate) fn stand_in(raw: &str) -> Expanded {
    Expanded {
        text: HIDDEN.into(),
        contents: vec![HIDDEN.into()],
        whole: is_whole(raw),
    }
}

fn unknown() -> Flaw {
    Flaw {
        problem: "`${` begins a reference that is not known or has no end".into(),
        hint: "allowed: `${file:/path/of/a/file}`; write `$${` for a literal `${`".into(),
        unread: false,
    }
}

/// The content of a file without its trailing line break.
fn read(path: &str) -> Result<String, Flaw> {
    let wrong = |reason: &str, unread| Flaw {
        problem: format!("can't take the value from the file {path}: {reason}"),
        hint: "the file must hold the value, in UTF-8, and be readable by the worker".into(),
        unread,
    };
    let unread = |error: std::io::Error| wrong(&error.to_string(), true);
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unread)?;
    file.take(MOST + 1)
        .read_to_end(&mut bytes)
        .map_err(unread)?;
    if bytes.len() as u64 > MOST {
        return Err(wrong("it is larger than 1 MiB", false));
    }
    let mut text = String::from_utf8(bytes).map_err(|_| wrong("it is not UTF-8", false))?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    match text.is_empty() {
        true => Err(wrong("it is empty", false)),
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests;
