//! Reads a payload once, forward, to its last byte: is it JSON, and where are the values of the paths that are needed?
//!
//! It says the same as [`json`](crate::json) about every payload, several times as fast and without building anything. It
//! doesn't say what is wrong: that happens seldom, and `json` reads the payload again to tell. Payloads are known to be
//! UTF-8 here.

mod block;
mod lexeme;
mod raw;
mod shape;

use crate::MAX_DEPTH;
use crate::json;
use crate::paths::{EVENT, Keys, Path, PathId, Paths, Span};

use lexeme::Bytes;
use shape::Shapes;

pub(crate) use raw::{Keyring, Raw, inside, lone_number};

/// The payload is not JSON, or nested too deep.
#[derive(Debug)]
pub(crate) struct Refused;

/// What the filter says of an event, as far as that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Early {
    Undecided,
    /// The filter accepts, whatever follows but a repeat of a key that was seen.
    Accepted,
    /// The filter rejects, in the same way. Paths were not looked for after that.
    Rejected,
}

/// Where the special bytes of a payload are: scratch space of a scan.
#[derive(Debug, Default)]
pub(crate) struct Marks(Vec<u64>);

/// What a scan keeps from event to event.
#[derive(Debug, Default)]
pub(crate) struct Known {
    marks: Marks,
    shapes: Shapes,
}

/// Is the payload one JSON value, nested at most `max_depth` deep?
pub(crate) fn is_valid(text: &str, max_depth: usize, marks: &mut Marks) -> bool {
    block::mark_special(text.as_bytes(), &mut marks.0);
    let mut undecided = |_: &[Span]| Early::Undecided;
    let mut scanner = Scanner::new(text, &marks.0, &mut [], &mut undecided);
    scanner.document(None, max_depth).is_ok()
}

/// The end of the value that begins at `at` in text known to be valid.
fn value_end(text: &str, at: usize) -> Option<usize> {
    let mut undecided = |_: &[Span]| Early::Undecided;
    Scanner::new(text, &[], &mut [], &mut undecided).any(at, None, MAX_DEPTH)
}

/// How to read.
pub(crate) struct Request<'r> {
    pub(crate) paths: &'r Paths,
    pub(crate) max_depth: usize,
    /// Stop where the filter rejects.
    pub(crate) stop_rejected: bool,
    /// Stop where all members of the event that are paths are found.
    pub(crate) stop_found: bool,
}

/// Finds the values of all paths, and what the filter says of the event if that was known before its end. Where it
/// rejects, the rest is only validated, and watched for a repeat of a key that the filter needs: then all is read again.
///
/// Of a repeated key the last value counts. `spans` has a place for each path. `decide` is asked after members of the
/// event that the filter needs.
pub(crate) fn find(
    text: &str,
    request: &Request<'_>,
    known: &mut Known,
    spans: &mut [Span],
    decide: &mut dyn FnMut(&[Span]) -> Early,
) -> Result<Early, Refused> {
    if request.stop_rejected || request.stop_found {
        return find_anew(text, request, &mut known.marks, spans, decide);
    }
    if known.shapes.find(text, spans) {
        // All is known: the filter need not be asked more than once.
        return Ok(Early::Undecided);
    }
    let early = find_anew(text, request, &mut known.marks, spans, decide)?;
    known.shapes.learn(text, request.paths);
    Ok(early)
}

/// The same for an event of no known shape.
fn find_anew(
    text: &str,
    request: &Request<'_>,
    marks: &mut Marks,
    spans: &mut [Span],
    decide: &mut dyn FnMut(&[Span]) -> Early,
) -> Result<Early, Refused> {
    block::mark_special(text.as_bytes(), &mut marks.0);
    let event = request.paths.event();
    let mut scanner = Scanner::new(text, &marks.0, spans, decide);
    scanner.paths = Some(request.paths);
    scanner.stop_rejected = request.stop_rejected;
    scanner.missing = request.stop_found.then(|| event.keys.len());
    let read = scanner.document(Some(event), request.max_depth);
    let (early, repeated) = (scanner.early, scanner.repeated);
    if !scanner.stopped {
        read?;
    }
    if !repeated {
        return Ok(early);
    }
    // The filter may change its mind, and values were passed over.
    find_all(text, request.paths, &marks.0, spans)?;
    Ok(Early::Undecided)
}

/// Finds the values of all paths of a valid event, without asking the filter.
fn find_all(text: &str, paths: &Paths, marks: &[u64], spans: &mut [Span]) -> Result<(), Refused> {
    let mut undecided = |_: &[Span]| Early::Undecided;
    let mut scanner = Scanner::new(text, marks, spans, &mut undecided);
    scanner.paths = Some(paths);
    scanner.document(Some(paths.event()), MAX_DEPTH)
}

struct Scanner<'s> {
    text: &'s str,
    bytes: Bytes<'s>,
    /// Empty where it doesn't pay to make them.
    marks: &'s [u64],
    paths: Option<&'s Paths>,
    spans: &'s mut [Span],
    decide: &'s mut dyn FnMut(&[Span]) -> Early,
    early: Early,
    /// After the filter rejected, a member came again that it may have looked at.
    repeated: bool,
    /// Members of the event to be found before the scan stops, if it may stop at all.
    missing: Option<usize>,
    stop_rejected: bool,
    stopped: bool,
}

impl<'s> Scanner<'s> {
    fn new(
        text: &'s str,
        marks: &'s [u64],
        spans: &'s mut [Span],
        decide: &'s mut dyn FnMut(&[Span]) -> Early,
    ) -> Self {
        Scanner {
            text,
            bytes: Bytes(text.as_bytes()),
            marks,
            paths: None,
            spans,
            decide,
            early: Early::Undecided,
            repeated: false,
            missing: None,
            stop_rejected: false,
            stopped: false,
        }
    }

    fn document(&mut self, event: Option<&'s Path>, max_depth: usize) -> Result<(), Refused> {
        let at = self.bytes.space(0);
        self.spans.fill(Span::NONE);
        let end = self.any(at, event, max_depth.min(MAX_DEPTH));
        if let (Some(end), Some(event)) = (end, event) {
            self.spans[event.id] = Span { start: at, end };
        }
        match end.map(|end| self.bytes.space(end)) {
            Some(end) if end == self.text.len() => Ok(()),
            _ => Err(Refused),
        }
    }

    /// From a value's first byte to after its last one. `depth` is how many containers may still be entered.
    #[inline(always)]
    fn value(&mut self, at: usize, path: Option<&'s Path>, depth: usize) -> Option<usize> {
        match path {
            None => self.any(at, None, depth),
            Some(path) => self.wanted(at, path, depth),
        }
    }

    /// From after the opening quote.
    #[inline(always)]
    fn string(&self, at: usize) -> Option<lexeme::Quoted> {
        let mut word = at / 64;
        let Some(marks) = self.marks.get(word) else {
            return self.bytes.string(at);
        };
        let marks = marks >> (at % 64);
        if marks != 0 {
            return self.bytes.string_to(at + marks.trailing_zeros() as usize);
        }
        loop {
            word += 1;
            let marks = *self.marks.get(word)?;
            if marks != 0 {
                let end = word * 64 + marks.trailing_zeros() as usize;
                return self.bytes.string_to(end);
            }
        }
    }

    /// The value of a path.
    #[inline(never)]
    fn wanted(&mut self, at: usize, path: &'s Path, depth: usize) -> Option<usize> {
        let before = std::mem::replace(&mut self.spans[path.id], Span::NONE);
        for &below in &path.below {
            self.spans[below] = Span::NONE;
        }
        let end = self.any(at, Some(path), depth)?;
        self.spans[path.id] = Span { start: at, end };
        if path.is_member {
            self.member_found(path, before)?;
        }
        Some(end)
    }

    /// Is the fate of the event known after this member? Nothing if nothing more is to be read.
    fn member_found(&mut self, path: &'s Path, before: Span) -> Option<()> {
        if path.for_filter && !before.is_none() {
            // It came again: the filter is not asked for each time, or a hostile event could have it asked without end.
            self.early = Early::Undecided;
        } else if path.for_filter && self.early == Early::Undecided {
            self.early = (self.decide)(self.spans);
        }
        if let Some(missing) = &mut self.missing {
            *missing -= usize::from(before.is_none());
            self.stopped = *missing == 0;
        }
        self.stopped |= self.stop_rejected && self.early == Early::Rejected;
        if self.stopped {
            // Of the event itself it is known that it isn't null.
            self.spans[EVENT] = Span { start: 0, end: 1 };
            return None;
        }
        Some(())
    }

    #[inline(always)]
    fn any(&mut self, at: usize, path: Option<&'s Path>, depth: usize) -> Option<usize> {
        match self.bytes.get(at)? {
            b'"' => Some(self.string(at + 1)?.end),
            b'{' => match path {
                Some(path) if path.keys.len() > 0 => {
                    self.wanted_object(at + 1, path, depth.checked_sub(1)?)
                }
                _ => self.object(at + 1, depth.checked_sub(1)?),
            },
            b'[' => self.array(at + 1, path, depth.checked_sub(1)?),
            _ => self.bytes.scalar(at),
        }
    }

    /// From after the opening brace.
    #[inline(never)]
    fn object(&mut self, at: usize, depth: usize) -> Option<usize> {
        self.members(at, None, depth)
    }

    /// An object with members that are paths.
    #[inline(never)]
    fn wanted_object(&mut self, at: usize, path: &'s Path, depth: usize) -> Option<usize> {
        self.members(at, Some(path), depth)
    }

    #[inline(always)]
    fn members(&mut self, at: usize, path: Option<&'s Path>, depth: usize) -> Option<usize> {
        let mut at = self.bytes.space(at);
        match self.bytes.get(at)? {
            b'"' => {}
            b'}' => return Some(at + 1),
            _ => return None,
        }
        loop {
            let start = at + 1;
            let key = self.string(start)?;
            let child = path.and_then(|path| self.child(path, start, key));
            at = self.value(self.after_key(key.end)?, child, depth)?;
            let (after, is_last) = self.after_member(at)?;
            at = after;
            if is_last {
                return Some(at);
            }
            if let Some(path) = path
                && self.early == Early::Rejected
            {
                return self.rest(at, path, depth);
            }
        }
    }

    /// The members of the event that come after the filter rejected it, from the first one's opening quote: they are validated, and the keys
    /// that the filter has looked at are watched for.
    #[inline(never)]
    fn rest(&mut self, mut at: usize, event: &'s Path, depth: usize) -> Option<usize> {
        let watched = event.filter_keys.lengths_of(|id| !self.spans[id].is_none());
        loop {
            let start = at + 1;
            let key = self.string(start)?;
            if key.escaped || watched.has(key.end - 1 - start) {
                self.watch(event, start, key);
            }
            at = self.any(self.after_key(key.end)?, None, depth)?;
            let (after, is_last) = self.after_member(at)?;
            at = after;
            if is_last {
                return Some(at);
            }
        }
    }

    #[inline(never)]
    fn watch(&mut self, event: &'s Path, start: usize, key: lexeme::Quoted) {
        let again = self.key(&event.filter_keys, start, key);
        self.repeated |= again.is_some_and(|id| !self.spans[id].is_none());
    }

    /// The path of a member, given its key.
    #[inline(always)]
    fn child(&self, path: &'s Path, start: usize, key: lexeme::Quoted) -> Option<&'s Path> {
        self.path(self.key(&path.keys, start, key)?)
    }

    #[inline(always)]
    fn key(&self, keys: &Keys, start: usize, key: lexeme::Quoted) -> Option<PathId> {
        let end = key.end - 1;
        if key.escaped {
            let inside = &self.text[start..end];
            keys.find_escaped(|name| json::is_spelt(inside, name))
        } else {
            keys.find(self.bytes.0, start, end)
        }
    }

    fn path(&self, id: PathId) -> Option<&'s Path> {
        Some(self.paths?.get(id))
    }

    /// The place of a member's value. Most writers put it right after the colon, which one look at two bytes tells.
    #[inline(always)]
    fn after_key(&self, at: usize) -> Option<usize> {
        match (self.bytes.get(at), self.bytes.get(at + 1)) {
            (Some(b':'), Some(first)) if first > b' ' => Some(at + 1),
            _ => self.after_spaced_key(at),
        }
    }

    #[inline(never)]
    fn after_spaced_key(&self, at: usize) -> Option<usize> {
        let at = self.bytes.space(at);
        (self.bytes.get(at)? == b':').then(|| self.bytes.space(at + 1))
    }

    /// The opening quote of the next member; or the place after the object, and that it is closed.
    #[inline(always)]
    fn after_member(&self, at: usize) -> Option<(usize, bool)> {
        match (self.bytes.get(at), self.bytes.get(at + 1)) {
            (Some(b','), Some(b'"')) => Some((at + 1, false)),
            _ => self.after_last_member(at),
        }
    }

    /// As [`Self::after_member`], where it is the last one or white space follows.
    #[inline(always)]
    fn after_last_member(&self, at: usize) -> Option<(usize, bool)> {
        let (at, is_last) = self.after_item(at, b'}')?;
        (is_last || self.bytes.get(at)? == b'"').then_some((at, is_last))
    }

    /// The place of the next member or item; or after the container, and that it is closed.
    #[inline(always)]
    fn after_item(&self, at: usize, closing: u8) -> Option<(usize, bool)> {
        let at = self.bytes.space(at);
        match self.bytes.get(at)? {
            b',' => Some((self.bytes.space(at + 1), false)),
            byte if byte == closing => Some((at + 1, true)),
            _ => None,
        }
    }

    /// From after the opening bracket.
    #[inline(never)]
    fn array(&mut self, at: usize, path: Option<&'s Path>, depth: usize) -> Option<usize> {
        match path {
            Some(path) if !path.indices.is_empty() => {
                // Where the end is must be known to count from it.
                let count = if path.from_end {
                    self.items(at, None, 0, depth)?.1
                } else {
                    0
                };
                Some(self.items(at, Some(path), count, depth)?.0)
            }
            _ => Some(self.items(at, None, 0, depth)?.0),
        }
    }

    /// The end of an array and the number of its items.
    #[inline(always)]
    fn items(
        &mut self,
        at: usize,
        path: Option<&'s Path>,
        count: usize,
        depth: usize,
    ) -> Option<(usize, usize)> {
        let mut at = self.bytes.space(at);
        if self.bytes.get(at)? == b']' {
            return Some((at + 1, 0));
        }
        let mut index = 0;
        loop {
            at = match path {
                Some(path) => self.item(at, path, index, count, depth)?,
                None => self.any(at, None, depth)?,
            };
            index += 1;
            let (after, is_last) = self.after_item(at, b']')?;
            at = after;
            if is_last {
                return Some((at, index));
            }
        }
    }

    /// An item, looked at once for each path that leads to it: `[0]` and `[-1]` may be the same.
    fn item(
        &mut self,
        at: usize,
        path: &'s Path,
        index: usize,
        count: usize,
        depth: usize,
    ) -> Option<usize> {
        let mut end = None;
        for &(wanted, id) in &path.indices {
            let place = match usize::try_from(wanted) {
                Ok(from_start) => Some(from_start),
                Err(_) => count.checked_sub(wanted.unsigned_abs() as usize),
            };
            if place == Some(index) {
                end = Some(self.value(at, self.path(id), depth)?);
            }
        }
        match end {
            Some(end) => Some(end),
            None => self.any(at, None, depth),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_is_asked_once_for_each_key_however_often_that_comes() {
        let mut paths = Paths::new();
        let [body, level] = ["body", "level"].map(|key| paths.key(EVENT, key.to_owned()));
        paths.mark_filter();
        paths.finish();
        let again = r#","level":"e""#.repeat(1000);
        let text = format!(r#"{{"body":"b","level":"e"{again},"level":"last"}}"#);
        let request = Request {
            paths: &paths,
            max_depth: 10,
            stop_rejected: false,
            stop_found: false,
        };
        for (answer, times) in [(Early::Undecided, 2), (Early::Accepted, 1)] {
            let (mut asked, mut spans) = (0, vec![Span::NONE; paths.len()]);
            let mut decide = |_: &[Span]| {
                asked += 1;
                answer
            };
            let early = find(
                &text,
                &request,
                &mut Known::default(),
                &mut spans,
                &mut decide,
            );
            assert_eq!(early.expect("an event"), Early::Undecided);
            assert_eq!(asked, times);
            let value = |id: PathId| &text[spans[id].start..spans[id].end];
            assert_eq!((value(body), value(level)), (r#""b""#, r#""last""#));
        }
    }
}
