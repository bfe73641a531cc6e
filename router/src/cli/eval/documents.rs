//! Splits a text into events: one a line, or JSON laid out over several lines, in any mixture.
//!
//! A line is an event, whatever it holds, unless it leaves a bracket open: then the event ends where the bracket is closed. What
//! can't become JSON any more is one bad event; the next begins at the next line that begins with a bracket. So a truncated event
//! never takes those after it along, and what a bad event holds is judged by the same reader as in a worker, not here.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read as _};

use keystone_dsl::MAX_DEPTH;

/// The most that an event may have: brokers allow far less.
const MAX_EVENT: usize = 128 << 20;

/// An event, or what stands in its place.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Document {
    /// The line it begins in, from 1.
    pub(super) line: usize,
    pub(super) bytes: Vec<u8>,
}

/// A line, or the rest of one.
#[derive(Debug)]
struct Line {
    number: usize,
    bytes: Vec<u8>,
    /// Nothing stands before it in its line.
    whole: bool,
}

impl Line {
    /// An event laid out over several lines begins so, and none of its other lines does, as layouts go.
    fn begins_event(&self) -> bool {
        self.whole && matches!(self.bytes.first(), Some(b'{' | b'['))
    }
}

pub(super) struct Documents<R> {
    input: R,
    number: usize,
    /// Lines that were read too early.
    again: VecDeque<Line>,
}

impl<R: BufRead> Documents<R> {
    pub(super) fn new(input: R) -> Documents<R> {
        Documents {
            input,
            number: 0,
            again: VecDeque::new(),
        }
    }

    /// The next event; `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Document>> {
        let first = loop {
            match self.line()? {
                None => return Ok(None),
                Some(line) if line.bytes.trim_ascii().is_empty() => {}
                Some(line) => break line,
            }
        };
        let mut layout = Layout::default();
        match layout.read(&first.bytes) {
            // Whole events may stand before the one that goes on.
            State::Open if layout.closed > 0 => {
                let end = layout.closed;
                Ok(Some(self.cut(vec![first], end)))
            }
            State::Open => self.laid_out(first, layout),
            State::Closed | State::Broken => Ok(Some(document(vec![first]))),
        }
    }

    /// The rest of an event that leaves a bracket open.
    fn laid_out(&mut self, first: Line, mut layout: Layout) -> io::Result<Option<Document>> {
        let mut size = first.bytes.len();
        let mut lines = vec![first];
        loop {
            let Some(line) = self.line()? else {
                return self.broken(lines);
            };
            size += line.bytes.len();
            layout.closed = 0;
            let state = layout.read(&line.bytes);
            lines.push(line);
            match state {
                _ if layout.closed > 0 => {
                    let end = layout.closed;
                    return Ok(Some(self.cut(lines, end)));
                }
                State::Broken => return self.broken(lines),
                State::Open | State::Closed if size > MAX_EVENT => return self.broken(lines),
                State::Open | State::Closed => {}
            }
        }
    }

    /// Ends an event inside its last line.
    fn cut(&mut self, mut lines: Vec<Line>, end: usize) -> Document {
        if let Some(last) = lines.last_mut() {
            let rest = last.bytes.split_off(end);
            self.again.push_front(Line {
                number: last.number,
                bytes: rest,
                whole: false,
            });
        }
        document(lines)
    }

    /// One bad event of these lines, up to where another begins.
    fn broken(&mut self, mut lines: Vec<Line>) -> io::Result<Option<Document>> {
        if let Some(next) = (1..lines.len()).find(|&at| lines[at].begins_event()) {
            for line in lines.drain(next..).rev() {
                self.again.push_front(line);
            }
            return Ok(Some(document(lines)));
        }
        let mut bad = document(lines);
        while let Some(line) = self.line()? {
            if line.begins_event() {
                self.again.push_front(line);
                break;
            }
            // The rest of a bad event is of no use where it is huge.
            if bad.bytes.len() < MAX_EVENT {
                bad.bytes.push(b'\n');
                bad.bytes.extend_from_slice(&line.bytes);
            }
        }
        Ok(Some(bad))
    }

    /// The next line without its end.
    fn line(&mut self) -> io::Result<Option<Line>> {
        if let Some(line) = self.again.pop_front() {
            return Ok(Some(line));
        }
        let mut bytes = Vec::new();
        let most = MAX_EVENT as u64 + 1;
        if self
            .input
            .by_ref()
            .take(most)
            .read_until(b'\n', &mut bytes)?
            == 0
        {
            return Ok(None);
        }
        self.number += 1;
        if bytes.len() > MAX_EVENT {
            let what = format!(
                "line {} is longer than {} MiB",
                self.number,
                MAX_EVENT >> 20
            );
            return Err(io::Error::other(what));
        }
        for end in [b'\n', b'\r'] {
            if bytes.last() == Some(&end) {
                bytes.pop();
            }
        }
        Ok(Some(Line {
            number: self.number,
            bytes,
            whole: true,
        }))
    }
}

fn document(lines: Vec<Line>) -> Document {
    let line = lines.first().map_or(0, |line| line.number);
    let bytes: Vec<Vec<u8>> = lines.into_iter().map(|line| line.bytes).collect();
    Document {
        line,
        bytes: bytes.join(&b'\n'),
    }
}

/// After a line.
#[derive(Debug, PartialEq, Eq)]
enum State {
    /// A bracket is open.
    Open,
    Closed,
    /// No more text makes JSON of it.
    Broken,
}

/// The brackets that are open. Knows just enough of the grammar to notice where a bracket can't stand.
#[derive(Debug, Default)]
struct Layout {
    open: Vec<u8>,
    /// The last byte that is not white space.
    last: u8,
    /// After the last place in the present line where all brackets were closed; 0 where there is none.
    closed: usize,
}

impl Layout {
    fn read(&mut self, line: &[u8]) -> State {
        let mut at = 0;
        while let Some(byte) = line.get(at).copied() {
            at += 1;
            match byte {
                b' ' | b'\t' | b'\r' => continue,
                b'"' => match end_of_string(&line[at..]) {
                    Some(length) => at += length,
                    None => return State::Broken,
                },
                b'{' | b'[' => {
                    // Deeper is a bad event anyway; and each of many truncated events may seem to hold all that follow.
                    let fits = match self.open.last() {
                        None => matches!(self.last, 0 | b'}' | b']'),
                        Some(b'{') => self.last == b':',
                        Some(_) => matches!(self.last, b'[' | b','),
                    };
                    if !fits || self.open.len() >= MAX_DEPTH {
                        return State::Broken;
                    }
                    self.open.push(byte);
                }
                b'}' | b']' => {
                    // In ASCII a closing bracket is two after its opening one.
                    if self.open.pop() != Some(byte - 2) {
                        return State::Broken;
                    }
                    if self.open.is_empty() {
                        self.closed = at;
                    }
                }
                _ if self.open.is_empty() => return State::Broken,
                _ => {}
            }
            self.last = byte;
        }
        match self.open.is_empty() {
            true => State::Closed,
            false => State::Open,
        }
    }
}

/// The bytes up to and with the closing quote.
fn end_of_string(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn split(text: &str) -> Vec<(usize, String)> {
        let mut documents = Documents::new(text.as_bytes());
        let mut all = Vec::new();
        while let Some(Document { line, bytes }) = documents.next().unwrap() {
            all.push((line, String::from_utf8(bytes).unwrap()));
        }
        all
    }

    #[track_caller]
    fn splits(text: &str, expected: &[(usize, &str)]) {
        let expected: Vec<_> = expected
            .iter()
            .map(|(line, text)| (*line, (*text).to_owned()))
            .collect();
        assert_eq!(split(text), expected);
    }

    #[test]
    fn a_line_is_an_event_unless_it_leaves_a_bracket_open() {
        splits("", &[]);
        splits("\n \r\n", &[]);
        splits(
            "{}\n\n[1]\r\n7\ntrue",
            &[(1, "{}"), (3, "[1]"), (4, "7"), (5, "true")],
        );
        splits(
            "{\n \"a\": [\n1]\n}\n{}",
            &[(1, "{\n \"a\": [\n1]\n}"), (5, "{}")],
        );
        splits(
            "[\n{\"a\":1},\n{\"a\":2}\n]",
            &[(1, "[\n{\"a\":1},\n{\"a\":2}\n]")],
        );
        // Files put one after the other without a line end between them.
        splits("{\n}{\n}[\n]", &[(1, "{\n}"), (2, "{\n}"), (3, "[\n]")]);
        splits("{\"a\":1}{\n}", &[(1, "{\"a\":1}"), (1, "{\n}")]);
        // As in Kafka, where each line were one record.
        splits("{}{}\n[] x\n", &[(1, "{}{}"), (2, "[] x")]);
        splits(
            "{\"a\":\"}\\\"{\"}\n{",
            &[(1, "{\"a\":\"}\\\"{\"}"), (2, "{")],
        );
    }

    #[test]
    fn a_bad_event_does_not_take_others_along() {
        splits("no {\n{}", &[(1, "no {"), (2, "{}")]);
        splits(
            "{\"a\":1\n{\"b\":2}\n{}",
            &[(1, "{\"a\":1"), (2, "{\"b\":2}"), (3, "{}")],
        );
        splits(
            "{\"a\":\n{\"b\":2}\n{}",
            &[(1, "{\"a\":"), (2, "{\"b\":2}"), (3, "{}")],
        );
        splits(
            "{\"a\":1,\n{\"b\":2}",
            &[(1, "{\"a\":1,"), (2, "{\"b\":2}")],
        );
        splits("{\"a\":\"of\n{}", &[(1, "{\"a\":\"of"), (2, "{}")]);
        splits("[1,\n{}\n{}", &[(1, "[1,"), (2, "{}"), (3, "{}")]);
        splits("{]\n{}}\n{}", &[(1, "{]"), (2, "{}}"), (3, "{}")]);
        splits(
            "{\n  \"a\": [1}\n}\n{}",
            &[(1, "{\n  \"a\": [1}\n}"), (4, "{}")],
        );
        splits("{\n  \"a\": 1\n", &[(1, "{\n  \"a\": 1")]);
    }

    /// Lists and objects; their layout is part of the test.
    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<Option<bool>>().prop_map(|it| json!(it)),
            any::<i16>().prop_map(|it| json!(it)),
            "[a{}\\[\\]\",:\\\\\n ]{0,5}".prop_map(|it| json!(it)),
        ];
        let tree = leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a{\"]{0,2}", inner, 0..4)
                    .prop_map(|members| members.into_iter().collect::<Value>()),
            ]
        });
        tree.prop_map(|value| {
            if value.is_object() {
                value
            } else {
                json!([value])
            }
        })
    }

    #[derive(Debug, Clone)]
    enum Part {
        Line(Value),
        LaidOut(Value),
        /// The front of an event in one line, which is no event.
        Cut(Value, usize),
    }

    fn part() -> impl Strategy<Value = Part> {
        prop_oneof![
            3 => json().prop_map(Part::Line),
            2 => json().prop_map(Part::LaidOut),
            1 => (json(), 1_usize..40).prop_map(|(value, length)| Part::Cut(json!({"k": value}), length)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn every_good_event_is_found_among_bad_ones(parts in prop::collection::vec(part(), 0..12)) {
            let (mut text, mut good) = (String::new(), Vec::new());
            for part in &parts {
                let written = match part {
                    Part::Line(value) => value.to_string(),
                    Part::LaidOut(value) => format!("{value:#}"),
                    Part::Cut(value, length) => {
                        let whole = value.to_string();
                        whole.chars().take((*length).min(whole.chars().count() - 1)).collect()
                    }
                };
                if !matches!(part, Part::Cut(..)) {
                    good.push((text.matches('\n').count() + 1, written.clone()));
                }
                text.push_str(&written);
                text.push('\n');
            }
            let found = split(&text);
            // What is bad: it may take more than one line, never one of a good event.
            let found: Vec<_> = found
                .into_iter()
                .filter(|(_, text)| serde_json::from_str::<Value>(text).is_ok())
                .collect();
            prop_assert_eq!(found, good, "{}", text);
        }

        #[test]
        fn any_text_is_split_without_a_loss(text in "[{}\\[\\]\",:a \n]{0,60}") {
            let ink = |text: &str| text.split_whitespace().collect::<String>();
            let all: String = split(&text).into_iter().map(|(_, text)| text).collect();
            prop_assert_eq!(ink(&all), ink(&text));
        }
    }
}
