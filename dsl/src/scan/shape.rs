//! Reads an event that has the shape of one before it by comparing, not by parsing.
//!
//! The events of a route mostly differ in their scalars alone: the text between these (braces, keys, colons, commas, white space) is the
//! same, byte for byte. A [`Shape`] is that text of an event that was read to its end and found valid, with what stands where. An event
//! whose text between its scalars is the same and whose scalars are valid is therefore valid JSON with the same keys at the same places:
//! each path's value is where the shape says. Whatever differs is read in the ordinary way, which says the same of every event.
//!
//! The idea is that of the speculation in Mison (Li et al., "Mison: A Fast JSON Parser for Data Analytics", VLDB 2017).

use crate::paths::{Paths, Span};

use super::block::{self, WIDTH};
use super::find_all;
use super::lexeme::{self, Bytes};

/// Shapes kept at a time: a topic has a few kinds of events.
const MOST_SHAPES: usize = 4;
/// An event with more scalars, or with more text between them, is no shape.
const MOST_SCALARS: usize = 1024;
const MOST_TEXT: usize = 32 << 10;
/// What a miss adds to the misses in mind, where a hit takes one away.
const MISS: u32 = 4;
/// With so many misses in mind it does not pay for now.
const TOO_MANY: u32 = 64;
/// Events that are then read in the ordinary way before it is tried again.
const REST: u32 = 4096;

/// The shapes of the events seen last.
#[derive(Debug, Default)]
pub(super) struct Shapes {
    /// The one that fitted last is tried first.
    all: Vec<Shape>,
    last: usize,
    /// Where a new shape goes once there is no room.
    oldest: usize,
    misses: u32,
    rest: u32,
    /// Where the text before each scalar begins in the event being read.
    starts: Vec<usize>,
}

#[derive(Debug)]
struct Shape {
    /// One for each scalar.
    slots: Vec<Slot>,
    /// For the text after them.
    last: Slot,
    /// What does not fit into the slots' own blocks.
    more: Vec<Block>,
    /// For each path; nothing where it has no value.
    notes: Vec<Option<Note>>,
}

#[derive(Debug, Clone, Copy)]
struct Block {
    text: [u8; WIDTH],
    /// A bit for each byte of `text` that counts.
    mask: u32,
}

/// A piece of text, which a scalar follows.
#[derive(Debug, Clone)]
struct Slot {
    /// Most texts are no longer than this.
    first: Block,
    /// Bytes of the text.
    length: usize,
    /// The blocks of the rest of it, in the shape's `more` from `start` on.
    more: usize,
    start: usize,
}

/// Where a path's value begins and ends.
#[derive(Debug, Clone, Copy)]
struct Note {
    start: Place,
    end: Place,
}

/// So many bytes after the beginning of a slot's text.
#[derive(Debug, Clone, Copy)]
struct Place {
    slot: usize,
    offset: usize,
}

impl Shapes {
    /// Finds the values of all paths in an event of a shape that is known. False for any other.
    #[inline]
    pub(super) fn find(&mut self, text: &str, spans: &mut [Span]) -> bool {
        if self.rest > 0 {
            self.rest -= 1;
            return false;
        }
        let count = self.all.len();
        for turn in 0..count {
            let index = (self.last + turn) % count;
            let shape = &self.all[index];
            if shape.fits(text, &mut self.starts).is_some() {
                shape.note(&self.starts, spans);
                self.last = index;
                self.misses = self.misses.saturating_sub(1);
                return true;
            }
        }
        false
    }

    /// Learns from a valid event that was of no known shape.
    pub(super) fn learn(&mut self, text: &str, paths: &Paths) {
        if self.rest > 0 {
            return;
        }
        self.misses += MISS;
        if self.misses > TOO_MANY {
            self.misses = TOO_MANY / 2;
            self.rest = REST;
            return;
        }
        let Some(shape) = Shape::of(text, paths) else {
            return;
        };
        let starts = (shape.slots.len() + 1).max(self.starts.len());
        self.starts.resize(starts, 0);
        if self.all.len() < MOST_SHAPES {
            self.last = self.all.len();
            self.all.push(shape);
        } else {
            self.last = self.oldest;
            self.all[self.oldest] = shape;
            self.oldest = (self.oldest + 1) % MOST_SHAPES;
        }
    }
}

impl Shape {
    /// Of a valid event; `None` where it is too much to keep.
    fn of(text: &str, paths: &Paths) -> Option<Shape> {
        let scalars = scalars(text)?;
        let starts: Vec<usize> = std::iter::once(0)
            .chain(scalars.iter().map(|scalar| scalar.end))
            .collect();
        let ends = scalars.iter().map(|scalar| scalar.start);
        let pieces = starts.iter().zip(ends.chain([text.len()]));
        let notes = notes(text, paths, &starts)?;
        let mut more = Vec::new();
        let mut slots: Vec<Slot> = pieces
            .map(|(start, end)| {
                let piece = &text.as_bytes()[*start..end];
                let mut blocks = piece.chunks(WIDTH).map(Block::of);
                let first = blocks.next().unwrap_or(Block::of(&[]));
                let start = more.len();
                more.extend(blocks);
                Slot {
                    first,
                    length: piece.len(),
                    more: more.len() - start,
                    start,
                }
            })
            .collect();
        let last = slots.pop()?;
        Some(Shape {
            slots,
            last,
            more,
            notes,
        })
    }

    /// Whether an event has this shape and valid scalars; `starts` then says where the slots' texts are.
    fn fits(&self, text: &str, starts: &mut [usize]) -> Option<()> {
        let (last_start, starts) = starts.get_mut(..=self.slots.len())?.split_last_mut()?;
        let mut rest = text.as_bytes();
        for (slot, start) in self.slots.iter().zip(starts) {
            *start = text.len() - rest.len();
            rest = lexeme::after_scalar(self.after(slot, rest)?)?;
        }
        *last_start = text.len() - rest.len();
        self.after(&self.last, rest)?.is_empty().then_some(())
    }

    /// After a slot's text, if that stands there.
    #[inline(always)]
    fn after<'t>(&self, slot: &Slot, rest: &'t [u8]) -> Option<&'t [u8]> {
        let begins = slot.first.begins(rest);
        if !begins || slot.more > 0 && !self.goes_on(slot, rest) {
            return None;
        }
        rest.get(slot.length..)
    }

    #[inline(never)]
    fn goes_on(&self, slot: &Slot, rest: &[u8]) -> bool {
        let more = &self.more[slot.start..slot.start + slot.more];
        let mut pieces = more.iter().zip(1..);
        pieces.all(|(block, number)| {
            rest.get(number * WIDTH..)
                .is_some_and(|rest| block.begins(rest))
        })
    }

    /// Where the values of paths are in an event whose slots' texts begin at `starts`.
    fn note(&self, starts: &[usize], spans: &mut [Span]) {
        let at = |place: Place| starts[place.slot] + place.offset;
        for (span, note) in spans.iter_mut().zip(&self.notes) {
            *span = note.map_or(Span::NONE, |note| Span {
                start: at(note.start),
                end: at(note.end),
            });
        }
    }
}

impl Block {
    fn of(piece: &[u8]) -> Block {
        let mut text = [0; WIDTH];
        text[..piece.len()].copy_from_slice(piece);
        Block {
            text,
            mask: (1 << piece.len()) - 1,
        }
    }

    /// Whether its bytes stand there.
    #[inline(always)]
    fn begins(&self, rest: &[u8]) -> bool {
        match rest.first_chunk() {
            Some(found) => block::same(found, &self.text) & self.mask == self.mask,
            None => self.is_start_of(rest),
        }
    }

    /// The same near the end of the payload, where there is no whole block.
    #[inline(never)]
    fn is_start_of(&self, rest: &[u8]) -> bool {
        rest.starts_with(&self.text[..self.mask.count_ones() as usize])
    }
}

/// Where the values of paths stand in a valid event; `starts` are those of the slots' texts.
fn notes(text: &str, paths: &Paths, starts: &[usize]) -> Option<Vec<Option<Note>>> {
    let mut spans = vec![Span::NONE; paths.len()];
    find_all(text, paths, &[], &mut spans).ok()?;
    let place = |at: usize| {
        let slot = starts.partition_point(|start| *start <= at) - 1;
        Place {
            slot,
            offset: at - starts[slot],
        }
    };
    let note = |span: &Span| {
        (!span.is_none()).then(|| Note {
            start: place(span.start),
            end: place(span.end),
        })
    };
    Some(spans.iter().map(note).collect())
}

/// Where the scalars of a valid event stand that are no keys; `None` where it is too much to keep.
fn scalars(text: &str) -> Option<Vec<Span>> {
    let bytes = Bytes(text.as_bytes());
    let mut scalars = Vec::new();
    let (mut at, mut between) = (0, 0);
    while let Some(byte) = bytes.get(at) {
        let (end, is_scalar) = match byte {
            b'{' | b'}' | b'[' | b']' | b':' | b',' | b' ' | b'\n' | b'\r' | b'\t' => {
                (at + 1, false)
            }
            b'"' => {
                let end = bytes.string(at + 1)?.end;
                (end, bytes.get(bytes.space(end)) != Some(b':'))
            }
            _ => (bytes.scalar(at)?, true),
        };
        if is_scalar {
            scalars.push(Span { start: at, end });
        } else {
            between += end - at;
        }
        if between > MOST_TEXT || scalars.len() > MOST_SCALARS {
            return None;
        }
        at = end;
    }
    Some(scalars)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paths::PathId;

    struct Reader {
        shapes: Shapes,
        paths: Paths,
        spans: Vec<Span>,
        a: PathId,
        deep: PathId,
    }

    impl Reader {
        /// Of the paths `a` and `b.c[-1]`.
        fn new() -> Reader {
            let mut paths = Paths::new();
            let a = paths.key(crate::paths::EVENT, "a".to_owned());
            paths.mark_filter();
            let b = paths.key(crate::paths::EVENT, "b".to_owned());
            let c = paths.key(b, "c".to_owned());
            let deep = paths.index(c, -1);
            paths.finish();
            Reader {
                shapes: Shapes::default(),
                spans: vec![Span::NONE; paths.len()],
                paths,
                a,
                deep,
            }
        }

        fn find(&mut self, text: &str) -> bool {
            self.shapes.find(text, &mut self.spans)
        }

        fn learn(&mut self, text: &str) {
            self.shapes.learn(text, &self.paths);
        }

        fn found<'t>(&self, text: &'t str, path: PathId) -> &'t str {
            &text[self.spans[path].start..self.spans[path].end]
        }
    }

    const EVENT: &str = r#"{"x":[], "a":1.5,"b":{"a member with a long name":true,"c":[1,"two"]}}"#;

    #[test]
    fn an_event_of_the_same_shape_is_read_with_its_paths() {
        let mut reader = Reader::new();
        assert!(!reader.find(EVENT));
        reader.learn(EVENT);
        let like = r#"{"x":[], "a":"é\"","b":{"a member with a long name":null,"c":[-2e9,false]}}"#;
        assert!(reader.find(EVENT) && reader.find(like));
        assert_eq!(reader.found(like, reader.a), r#""é\"""#);
        assert_eq!(reader.found(like, reader.deep), "false");
        assert_eq!(reader.found(like, crate::paths::EVENT), like);
    }

    #[test]
    fn whatever_differs_beside_scalars_is_another_shape() {
        let mut reader = Reader::new();
        reader.learn(EVENT);
        for other in [
            r#"{"x":[],"a":1.5,"b":{"a member with a long name":true,"c":[1,"two"]}}"#,
            r#"{"x":[], "a":1.5,"b":{"a member with a long nama":true,"c":[1,"two"]}}"#,
            r#"{"x":[], "a":[],"b":{"a member with a long name":true,"c":[1,"two"]}}"#,
            r#"{"x":[], "a":1.5,"b":{"a member with a long name":true,"c":[1]}}"#,
            r#"{"x":[], "a":1.5,"b":{"a member with a long name":true,"c":[1,"two"]}} "#,
            r#"{"x":[], "a":01,"b":{"a member with a long name":true,"c":[1,"two"]}}"#,
            r#"{"x":[], "a":1.5,"b":{"a member with a long name":true,"c":[1,"two"]}"#,
        ] {
            assert!(!reader.find(other), "{other}");
        }
    }

    #[test]
    fn a_few_shapes_are_known_at_a_time() {
        let mut reader = Reader::new();
        let event = |n: usize| format!("{{\"{n}\":0}}");
        for n in 0..MOST_SHAPES + 1 {
            reader.learn(&event(n));
        }
        assert!(!reader.find(&event(0)));
        for n in 1..MOST_SHAPES + 1 {
            assert!(reader.find(&event(n)), "{n}");
        }
    }

    #[test]
    fn where_every_event_has_its_own_shape_it_is_tried_now_and_then() {
        let mut reader = Reader::new();
        let mut tried = 0;
        for n in 0..10 * REST {
            let text = format!("{{\"{n}\":0}}");
            tried += u32::from(reader.shapes.rest == 0);
            assert!(!reader.find(&text));
            reader.learn(&text);
        }
        assert!(tried < REST / 10, "{tried}");
        // And it comes back.
        let hits = (0..2 * REST).filter(|_| {
            let hit = reader.find(EVENT);
            if !hit {
                reader.learn(EVENT);
            }
            hit
        });
        assert!(hits.count() as u32 >= REST - 1);
    }

    #[test]
    fn what_is_too_much_to_keep_is_no_shape() {
        let many = format!("[{}0]", "0,".repeat(MOST_SCALARS));
        let long = format!("{{\"{}\":0}}", "x".repeat(MOST_TEXT));
        let paths = Reader::new().paths;
        assert!(Shape::of(&many, &paths).is_none() && Shape::of(&long, &paths).is_none());
        assert!(Shape::of("[0]", &paths).is_some());
    }
}
