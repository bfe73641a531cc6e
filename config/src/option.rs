//! An option as data: its key, kind, default, documentation and whether it is secret.
//!
//! Tables of options stand beside the code that uses them. Parsing, the environment name, validation, `docs/options.md`,
//! the sample file and the redaction of secrets all come from these tables.

/// One option of a route.
#[derive(Debug, Clone, Copy)]
pub struct OptionSpec {
    /// Dotted lower-case key, with a unit suffix where it has a unit (`.ms`, `.bytes`).
    pub key: &'static str,
    /// What a value may be.
    pub kind: Kind,
    /// What holds where no layer sets the key.
    pub default: Default,
    /// A secret value is never printed: not in a log, an error, a metric or `keystone check`.
    pub secret: bool,
    /// One to three sentences for the user, in Markdown. Says what it does and when to change it.
    pub doc: &'static str,
    /// A value for the sample file where there is no default, or an empty text.
    pub example: &'static str,
}

/// What a value may be. Every kind parses from text and says what is allowed when it does not.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Any text that is not empty.
    Text,
    /// A comma-separated list of texts; white space around each is dropped, an empty one is an error.
    List,
    /// `true` or `false`.
    Bool,
    /// A whole number from `min` to `max`.
    Count { min: u64, max: u64 },
    /// A number of bytes from `min` to `max`: digits, or digits with `k`, `kb`, `m`, `mb`, `g`, `gb` (powers of 1,024).
    Bytes { min: u64, max: u64 },
    /// A time in milliseconds from `min` to `max`: digits.
    Millis { min: u64, max: u64 },
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Text with a check of its own. `form` says in words what is allowed; `check` answers with what is wrong.
    /// The check never names the option or its origin: those are added for everybody.
    Checked {
        form: &'static str,
        check: fn(&str) -> Result<(), String>,
    },
}

/// What holds where no layer sets the key.
#[derive(Debug, Clone, Copy)]
pub enum Default {
    /// The option is absent.
    Absent,
    /// The route must set it (where its section is in use).
    Required,
    /// This text, parsed as any other value.
    Value(&'static str),
    /// The default is made of other options; the text says how ("`<route.name>.dead-letters`"). The option is absent in `Settings`.
    Derived(&'static str),
    /// Set by `delivery.tradeoff`: for low-latency, balanced, no-duplicates.
    ByTradeoff(Tradeoff3),
}

/// A default for each word of `delivery.tradeoff`.
#[derive(Debug, Clone, Copy)]
pub struct Tradeoff3 {
    pub low_latency: &'static str,
    pub balanced: &'static str,
    pub no_duplicates: &'static str,
}

/// Options that belong together: a heading in the documentation, and optionally a condition for being in use.
#[derive(Debug, Clone, Copy)]
pub struct Section {
    pub title: &'static str,
    /// Only in use where option `.0` has value `.1` (for example `sink.type` = `kafka`). Required options of a section not in
    /// use may be missing; an option set in a section not in use is a warning, not an error.
    pub when: Option<(&'static str, &'static str)>,
    pub options: &'static [OptionSpec],
    /// Keys below a prefix that are handed on as they are, for example `kafka.` to librdkafka.
    pub passthrough: Option<Passthrough>,
}

/// Keys below a prefix that are handed on as they are.
#[derive(Debug, Clone, Copy)]
pub struct Passthrough {
    /// With the final dot: `kafka.`. A declared option of the same prefix is not passed through.
    pub prefix: &'static str,
    pub doc: &'static str,
    /// Tells whether a name (without the prefix) holds a secret.
    pub secret: fn(&str) -> bool,
    /// Names (without the prefix) that the worker sets itself, each with the reason: setting them is an error.
    pub reserved: &'static [(&'static str, &'static str)],
}

/// All options of the program: sections in the order of the documentation.
#[derive(Debug, Clone)]
pub struct Table {
    pub sections: Vec<Section>,
}
