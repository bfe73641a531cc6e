//! The paths that a program's expressions need, as one trie.
//!
//! Each path is a place in an event: the event itself, a member of an object, an item of an array. While an event is
//! read, [`scan`](crate::scan) follows the trie and notes for each path where its value stands ([`Span`]).

/// A path: its place in [`Paths`], and the place of what is found for it in a list of [`Span`]s.
pub(crate) type PathId = usize;

/// The event itself.
pub(crate) const EVENT: PathId = 0;

/// Where a value stands in the payload; empty if there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Span {
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl Span {
    pub(crate) const NONE: Span = Span { start: 0, end: 0 };

    pub(crate) fn is_none(self) -> bool {
        self.end == 0
    }
}

#[derive(Debug)]
pub(crate) struct Path {
    pub(crate) id: PathId,
    parent: PathId,
    step: Step,
    /// All paths that begin with this one and go on, to be forgotten when this one's value comes again.
    pub(crate) below: Vec<PathId>,
    /// This path's first step by itself: what it finds is there once that is.
    pub(crate) first: PathId,
    /// A member of the event.
    pub(crate) is_member: bool,
    /// The filter needs it.
    pub(crate) for_filter: bool,
    pub(crate) keys: Keys,
    /// Of the event's keys those that the filter needs.
    pub(crate) filter_keys: Keys,
    /// Items of an array, counted from its end where negative.
    pub(crate) indices: Vec<(i32, PathId)>,
    pub(crate) from_end: bool,
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    /// The event.
    Start,
    Key(String),
    Index(i32),
}

#[derive(Debug)]
pub(crate) struct Paths {
    all: Vec<Path>,
}

impl Paths {
    pub(crate) fn new() -> Self {
        let mut paths = Paths { all: Vec::new() };
        paths.add(EVENT, Step::Start);
        paths
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn get(&self, id: PathId) -> &Path {
        &self.all[id]
    }

    pub(crate) fn event(&self) -> &Path {
        self.get(EVENT)
    }

    /// The path of a member of what is at `parent`.
    pub(crate) fn key(&mut self, parent: PathId, name: String) -> PathId {
        self.step(parent, Step::Key(name))
    }

    /// The path of an item of what is at `parent`.
    pub(crate) fn index(&mut self, parent: PathId, index: i32) -> PathId {
        self.step(parent, Step::Index(index))
    }

    fn step(&mut self, parent: PathId, step: Step) -> PathId {
        let known = |path: &&Path| path.parent == parent && path.step == step;
        match self.all.iter().find(known) {
            Some(path) => path.id,
            None => self.add(parent, step),
        }
    }

    fn add(&mut self, parent: PathId, step: Step) -> PathId {
        let id = self.all.len();
        self.all.push(Path {
            id,
            parent,
            is_member: parent == EVENT && matches!(step, Step::Key(_)),
            step,
            below: Vec::new(),
            first: id,
            for_filter: false,
            keys: Keys::default(),
            filter_keys: Keys::default(),
            indices: Vec::new(),
            from_end: false,
        });
        id
    }

    /// All paths made so far are the filter's.
    pub(crate) fn mark_filter(&mut self) {
        for path in &mut self.all {
            path.for_filter = true;
        }
    }

    /// After the last path was made.
    pub(crate) fn finish(&mut self) {
        for id in 1..self.all.len() {
            // A parent is made before its children.
            let (parent, step) = (self.all[id].parent, self.all[id].step.clone());
            if parent != EVENT {
                self.all[id].first = self.all[parent].first;
            }
            match step {
                Step::Start => {}
                Step::Key(name) => {
                    if parent == EVENT && self.all[id].for_filter {
                        self.all[parent].filter_keys.add(&name, id);
                    }
                    self.all[parent].keys.add(&name, id);
                }
                Step::Index(index) => {
                    self.all[parent].indices.push((index, id));
                    self.all[parent].from_end |= index < 0;
                }
            }
            let mut above = parent;
            loop {
                self.all[above].below.push(id);
                if above == EVENT {
                    break;
                }
                above = self.all[above].parent;
            }
        }
    }

    /// As it is written in an expression.
    pub(crate) fn shown(&self, id: PathId) -> String {
        let path = self.get(id);
        let parent = if path.parent == EVENT {
            String::new()
        } else {
            self.shown(path.parent)
        };
        match &path.step {
            Step::Start => "@".to_owned(),
            Step::Index(index) => format!("{parent}[{index}]"),
            Step::Key(name) => {
                let plain = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                    && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
                let dot = if parent.is_empty() { "" } else { "." };
                if plain {
                    format!("{parent}{dot}{name}")
                } else {
                    format!("{parent}{dot}{name:?}")
                }
            }
        }
    }
}

/// Finds keys among those that a path goes on with. Most keys of an event are none of them, which their length and
/// their first bytes tell.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    lengths: Lengths,
    keys: Vec<Key>,
}

/// Bit n: there is a key of n bytes; the last bit stands for all longer ones.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Lengths(u64);

impl Lengths {
    #[inline(always)]
    pub(crate) fn has(self, length: usize) -> bool {
        self.0 >> length.min(63) & 1 != 0
    }

    fn add(&mut self, length: usize) {
        self.0 |= 1 << length.min(63);
    }
}

#[derive(Debug)]
struct Key {
    name: Box<str>,
    head: u64,
    path: PathId,
}

impl Keys {
    fn add(&mut self, name: &str, path: PathId) {
        self.lengths.add(name.len());
        self.keys.push(Key {
            name: name.into(),
            head: head(name.as_bytes(), 0, name.len()),
            path,
        });
    }

    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// The lengths of the keys whose paths are chosen.
    pub(crate) fn lengths_of(&self, is_chosen: impl Fn(PathId) -> bool) -> Lengths {
        let mut lengths = Lengths::default();
        for key in self.keys.iter().filter(|key| is_chosen(key.path)) {
            lengths.add(key.name.len());
        }
        lengths
    }

    /// The path of the key that stands, without escapes, in `bytes[start..end]`.
    #[inline(always)]
    pub(crate) fn find(&self, bytes: &[u8], start: usize, end: usize) -> Option<PathId> {
        if !self.lengths.has(end - start) {
            return None;
        }
        self.find_among(bytes, start, end)
    }

    #[inline]
    fn find_among(&self, bytes: &[u8], start: usize, end: usize) -> Option<PathId> {
        let head = head(bytes, start, end - start);
        let found = self.keys.iter().find(|key| {
            key.head == head
                && key.name.len() == end - start
                && (key.name.len() <= 8 || key.name.as_bytes()[8..] == bytes[start + 8..end])
        })?;
        Some(found.path)
    }

    /// The path of a key with escapes, given what stands between its quotes.
    #[inline(never)]
    pub(crate) fn find_escaped(&self, is: impl Fn(&str) -> bool) -> Option<PathId> {
        Some(self.keys.iter().find(|key| is(&key.name))?.path)
    }
}

/// The first up to eight bytes of a key, as a number.
#[inline(always)]
fn head(bytes: &[u8], start: usize, length: usize) -> u64 {
    let word = match bytes[start..].first_chunk() {
        Some(bytes) => u64::from_le_bytes(*bytes),
        None => {
            let mut word = [0; 8];
            let rest = &bytes[start..];
            word[..rest.len()].copy_from_slice(rest);
            u64::from_le_bytes(word)
        }
    };
    if length >= 8 {
        word
    } else {
        word & ((1 << (8 * length)) - 1)
    }
}
