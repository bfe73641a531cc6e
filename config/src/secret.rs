//! A value that does not print itself, and the redaction of texts that may carry one.

use std::fmt;

/// What is shown in place of a secret.
pub(crate) const HIDDEN: &str = "***";

/// A secret value. `Debug` and `Display` print `***`; only [`Secret::expose`] hands the value out.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(value: impl Into<String>) -> Secret {
        Secret(value.into())
    }

    /// The value itself: for the client that needs it, never for a log or an error.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

/// Hides the user and password of each `scheme://user:password@host` in a text: a URL is not a secret option, but people
/// put secrets there.
pub(crate) fn without_userinfo(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (head, tail) = rest.split_at(at + 3);
        out.push_str(head);
        let end = tail
            .find(|c: char| matches!(c, '/' | '?' | '#' | ',' | '"' | '`') || c.is_whitespace())
            .unwrap_or(tail.len());
        // The last `@`: a password may hold one that nobody escaped.
        rest = match tail[..end].rfind('@') {
            Some(sign) => {
                out.push_str(HIDDEN);
                &tail[sign..]
            }
            None => tail,
        };
    }
    out.push_str(rest);
    out
}

/// Hides the query of each URL, too, which may hold a key: for errors, which may quote a value that is refused for its query.
pub(crate) fn without_url_secrets(text: &str) -> String {
    let text = without_userinfo(text);
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(at) = rest.find("://") {
        let (head, tail) = rest.split_at(at + 3);
        out.push_str(head);
        let ends = |c: char| matches!(c, ',' | '"' | '`' | '\'') || c.is_whitespace();
        let (url, after) = tail.split_at(tail.find(ends).unwrap_or(tail.len()));
        match url.split_once('?') {
            Some((before, query)) if !query.is_empty() => {
                out.push_str(before);
                out.push('?');
                out.push_str(HIDDEN);
            }
            _ => out.push_str(url),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// Hides the words of a text, of four characters or more, that stand in a value: an error may quote one item of a list.
pub(crate) fn without_words_of(value: &str, text: &str) -> String {
    let ends = |c: char| c.is_whitespace() || matches!(c, '`' | '"' | '\'' | ',' | ';' | '=');
    let mut out = String::with_capacity(text.len());
    for piece in text.split_inclusive(ends) {
        let word = piece.trim_end_matches(|c| ends(c) || matches!(c, ':' | '.' | ')'));
        match word.chars().count() >= 4 && value.contains(word) {
            true => {
                out.push_str(HIDDEN);
                out.push_str(&piece[word.len()..]);
            }
            false => out.push_str(piece),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Secret, without_url_secrets, without_userinfo, without_words_of};

    #[test]
    fn words_of_a_value_are_hidden_and_others_stay() {
        let value = "plays, hun ter2, s3cret!,a:1";
        for (text, expected) in [
            (
                "no topic can be named s3cret!: '!' is not allowed",
                "no topic can be named ***: '!' is not allowed",
            ),
            (
                "`ter2` and \"plays\", not play",
                "`***` and \"***\", not ***",
            ),
            ("source.topics: a:1 is one", "source.topics: a:1 is one"),
        ] {
            assert_eq!(without_words_of(value, text), expected);
        }
    }

    #[test]
    fn the_query_of_a_url_is_hidden_in_errors() {
        let cases = [
            (
                "\"http://u:p@h:1/x?key=k&b=c\" has a query",
                "\"http://***@h:1/x?***\" has a query",
            ),
            ("http://a?k=1,http://b", "http://a?***,http://b"),
            ("is http://a? or b?c", "is http://a? or b?c"),
        ];
        for (text, expected) in cases {
            assert_eq!(without_url_secrets(text), expected);
        }
    }

    #[test]
    fn a_secret_prints_stars() {
        let secret = Secret::new("hunter2");
        assert_eq!(
            format!("{secret} {secret:?} {:?}", Some(&secret)),
            "*** *** Some(***)"
        );
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn user_and_password_of_a_url_are_hidden() {
        let cases = [
            ("http://u:p@h:1/x@y", "http://***@h:1/x@y"),
            (
                "https://a:1, https://u:p@w@b:2",
                "https://a:1, https://***@b:2",
            ),
            ("`s3://k:s@b`", "`s3://***@b`"),
            ("a@b http://h/?q=x@y", "a@b http://h/?q=x@y"),
            ("http://", "http://"),
        ];
        for (text, expected) in cases {
            assert_eq!(without_userinfo(text), expected);
        }
    }

    proptest! {
        #[test]
        fn a_text_without_an_at_sign_stays_as_it_is(text in "[^@]*") {
            prop_assert_eq!(without_userinfo(&text), text);
        }
    }
}
