//! Checks everything that the layers gave and makes [`Settings`] of it, or a list of all problems.

use std::collections::BTreeMap;

use crate::kind;
use crate::layers::{self, Raw, Sources};
use crate::option::{Default, OptionSpec, Passthrough, Section, Table, Tradeoff3};
use crate::problem::{Origin, Problem, Problems};
use crate::reference::{self, Expanded, Flaw};
use crate::secret::{HIDDEN, without_url_secrets, without_userinfo};
use crate::settings::{Entry, Settings};

const TRADEOFF: &str = "delivery.tradeoff";

/// Resolves all layers against the table: the settings, or all that is wrong with them.
pub fn resolve(table: &Table, sources: &Sources) -> Result<Settings, Problems> {
    let (settings, problems) = resolve_partly(table, sources);
    if problems.0.is_empty() {
        Ok(settings)
    } else {
        Err(problems)
    }
}

/// The same for a caller that goes on checking where something is wrong, to report more at once: what has a problem is absent in the
/// settings, also an option that otherwise always has a value.
pub fn resolve_partly(table: &Table, sources: &Sources) -> (Settings, Problems) {
    let (settings, problems, _) = partly(table, sources, Unread::Wrong);
    (settings, problems)
}

/// The same for trying a route where its secrets are not: a secret whose file can't be read counts as absent.
pub fn resolve_without_secrets(table: &Table, sources: &Sources) -> (Settings, Problems) {
    let (settings, problems, _) = partly(table, sources, Unread::Absent);
    (settings, problems)
}

/// The same for checking a route where its secrets are not: one whose file can't be read counts as set, to a value that nobody looks at.
/// What would be wrong with it elsewhere comes last.
pub fn resolve_elsewhere(table: &Table, sources: &Sources) -> (Settings, Problems, Vec<Problem>) {
    partly(table, sources, Unread::Set)
}

/// What a secret is whose file can't be read.
#[derive(Clone, Copy)]
enum Unread {
    Wrong,
    Absent,
    Set,
}

fn partly(table: &Table, sources: &Sources, unread: Unread) -> (Settings, Problems, Vec<Problem>) {
    let mut problems = Vec::new();
    let raw = layers::gather(table, sources, &mut problems);
    let mut resolver = Resolver {
        table,
        raw,
        unread,
        problems,
        elsewhere: Vec::new(),
        entries: Vec::new(),
        warnings: Vec::new(),
    };
    for section in &table.sections {
        resolver.section(section);
    }
    let Resolver {
        problems,
        elsewhere,
        entries,
        warnings,
        ..
    } = resolver;
    let keys = layers::declared(table).map(|spec| spec.key.to_owned());
    let settings = Settings::new(keys, entries, warnings);
    let Problems(elsewhere) = Problems(elsewhere).in_order();
    (settings, Problems(problems).in_order(), elsewhere)
}

/// Whether a section is in use.
enum Use {
    Yes,
    /// The option it depends on has this other value.
    No(String),
    /// The option it depends on is itself wrong or missing.
    Unclear,
}

struct Resolver<'a> {
    table: &'a Table,
    raw: BTreeMap<String, Raw>,
    unread: Unread,
    problems: Vec<Problem>,
    /// With secrets that can't be read and count as set.
    elsewhere: Vec<Problem>,
    entries: Vec<Entry>,
    warnings: Vec<String>,
}

impl Resolver<'_> {
    fn section(&mut self, section: &Section) {
        let usage = self.usage(section);
        for spec in section.options {
            self.option(section, spec, &usage);
        }
        if let Some(passthrough) = section.passthrough {
            self.passthrough(section, passthrough, &usage);
        }
    }

    fn usage(&self, section: &Section) -> Use {
        let Some((key, wanted)) = section.when else {
            return Use::Yes;
        };
        // A table may be a part of the whole (a sink's own tests): there the condition holds.
        let Some(spec) = layers::declared(self.table).find(|spec| spec.key == key) else {
            return Use::Yes;
        };
        match (self.word(key), spec.default) {
            (Some(word), _) if word == wanted => Use::Yes,
            (Some(word), _) => Use::No(word),
            (None, Default::Required) => Use::Unclear,
            (None, _) if self.raw.contains_key(key) => Use::Unclear,
            (None, _) => Use::No("not set".into()),
        }
    }

    /// The resolved value of an option that others depend on, if it has a valid one. Its problems are reported at its own place.
    fn word(&self, key: &str) -> Option<String> {
        let spec = layers::declared(self.table).find(|spec| spec.key == key)?;
        match (self.raw.get(key), spec.default) {
            (Some(raw), _) => value(spec, raw).ok().map(|expanded| expanded.text),
            (None, Default::Value(text)) => Some(text.into()),
            (None, _) => None,
        }
    }

    fn option(&mut self, section: &Section, spec: &'static OptionSpec, usage: &Use) {
        match (self.raw.get(spec.key), usage) {
            (Some(raw), Use::No(word)) => {
                let warning = no_effect(section, spec.key, &raw.origin, word);
                self.warnings.extend(warning);
            }
            (Some(raw), _) => match value(spec, raw) {
                Ok(expanded) => {
                    self.entries
                        .push(entry(spec.key, raw, expanded, spec.secret, None));
                }
                Err(problem) => {
                    let without = unread(spec.key, raw, spec.secret, None);
                    self.refused(problem, without);
                }
            },
            (None, Use::No(_)) => {}
            (None, _) => self.default(section, spec, usage),
        }
    }

    fn default(&mut self, section: &Section, spec: &'static OptionSpec, usage: &Use) {
        let (text, shown, origin) = match spec.default {
            Default::Absent => return,
            Default::Required => {
                if matches!(usage, Use::Yes) {
                    self.problems.push(missing(section, spec));
                }
                return;
            }
            Default::Derived(how) => (None, how, Origin::Default),
            Default::Value(text) => (Some(text), text, Origin::Default),
            Default::ByTradeoff(three) => {
                let word = self.word(TRADEOFF).unwrap_or_else(|| "balanced".into());
                let text = by_tradeoff(&three, &word);
                (Some(text), text, Origin::Tradeoff(word))
            }
        };
        let shown = if spec.secret && text.is_some() {
            HIDDEN
        } else {
            shown
        };
        self.entries.push(Entry {
            key: spec.key.into(),
            text: text.map(str::to_owned),
            shown: shown.into(),
            secrets: text
                .filter(|_| spec.secret)
                .map(str::to_owned)
                .into_iter()
                .collect(),
            quoted: false,
            origin,
            prefix: None,
        });
    }

    fn passthrough(&mut self, section: &Section, passthrough: Passthrough, usage: &Use) {
        let all = std::mem::take(&mut self.raw);
        for (key, raw) in &all {
            let Some((_, name)) = layers::handed_on(self.table, key)
                .filter(|(owner, _)| owner.prefix == passthrough.prefix)
            else {
                continue;
            };
            if let Use::No(word) = usage {
                self.warnings
                    .extend(no_effect(section, key, &raw.origin, word));
                continue;
            }
            let wrong = |problem: String, hint: String| Problem {
                key: key.clone(),
                origin: Some(raw.origin.clone()),
                problem,
                hint,
            };
            if let Some((_, reason)) = passthrough
                .reserved
                .iter()
                .find(|(reserved, _)| *reserved == name)
            {
                self.problems
                    .push(wrong("this name can't be set".into(), (*reason).into()));
                continue;
            }
            let secret = (passthrough.secret)(name);
            match reference::expand(trimmed(&raw.text, secret)) {
                Ok(expanded) => {
                    let prefix = Some(passthrough.prefix);
                    self.entries.push(entry(key, raw, expanded, secret, prefix));
                }
                Err(Flaw { problem, hint, .. }) => {
                    let problem = wrong(problem, hint);
                    let without = unread(key, raw, secret, Some(passthrough.prefix));
                    self.refused(problem, without);
                }
            }
        }
        self.raw = all;
    }

    /// What is wrong with a value, and how it stands in the settings where it may be read elsewhere.
    fn refused(&mut self, problem: Problem, without: Option<Entry>) {
        match (without, self.unread) {
            (None, _) | (_, Unread::Wrong) => self.problems.push(problem),
            (Some(_), Unread::Absent) => {}
            (Some(entry), Unread::Set) => {
                self.entries.push(entry);
                self.elsewhere.push(problem);
            }
        }
    }
}

/// Whether the file of an option may be elsewhere: it is a secret, or goes with one.
fn is_credential(key: &str, secret: bool) -> bool {
    secret
        || [".username", ".key.id", ".pem"]
            .iter()
            .any(|end| key.ends_with(end))
}

/// A credential whose file can't be read.
fn unread(key: &str, raw: &Raw, secret: bool, prefix: Option<&'static str>) -> Option<Entry> {
    let text = trimmed(&raw.text, secret);
    let unread = reference::expand(text).is_err_and(|flaw| flaw.unread);
    (unread && is_credential(key, secret))
        .then(|| entry(key, raw, reference::stand_in(text), secret, prefix))
}

/// The value of a declared option: trimmed, references replaced, checked. A problem with a secret does not echo it.
fn value(spec: &OptionSpec, raw: &Raw) -> Result<Expanded, Problem> {
    let wrong = |problem: String, hint: String| Problem {
        key: spec.key.into(),
        origin: Some(raw.origin.clone()),
        problem,
        hint,
    };
    let expanded = reference::expand(trimmed(&raw.text, spec.secret))
        .map_err(|Flaw { problem, hint, .. }| wrong(problem, hint))?;
    match kind::check(&spec.kind, &expanded.text) {
        Ok(()) => Ok(expanded),
        Err(problem) => {
            let problem = match (
                expanded.text.is_empty(),
                spec.secret || expanded.has_content(),
            ) {
                (false, true) => "the value is not allowed (it is a secret and not shown)".into(),
                _ => without_url_secrets(&problem),
            };
            Err(wrong(
                problem,
                format!("allowed: {}", kind::allowed(&spec.kind)),
            ))
        }
    }
}

/// White space around a value is never meant, but in a secret it may be (Kafka's own rule for its passwords).
fn trimmed(text: &str, secret: bool) -> &str {
    if secret { text } else { text.trim() }
}

fn entry(
    key: &str,
    raw: &Raw,
    expanded: Expanded,
    secret: bool,
    prefix: Option<&'static str>,
) -> Entry {
    let shown = match (secret, expanded.has_content()) {
        (true, _) if !expanded.whole => HIDDEN.into(),
        (_, true) => without_userinfo(raw.text.trim()),
        _ => without_userinfo(&expanded.text),
    };
    let quoted = expanded.has_content() && !secret;
    let mut secrets = expanded.contents;
    if secret || !secrets.is_empty() {
        secrets.push(expanded.text.clone());
    }
    Entry {
        key: key.into(),
        text: Some(expanded.text),
        shown,
        secrets,
        quoted,
        origin: raw.origin.clone(),
        prefix,
    }
}

fn by_tradeoff(three: &Tradeoff3, word: &str) -> &'static str {
    match word {
        "low-latency" => three.low_latency,
        "no-duplicates" => three.no_duplicates,
        _ => three.balanced,
    }
}

fn missing(section: &Section, spec: &OptionSpec) -> Problem {
    let problem = match section.when {
        Some((key, word)) => format!("required where {key}={word}, and not set"),
        None => "required, and not set".into(),
    };
    let allowed = kind::allowed(&spec.kind);
    let hint = match spec.example {
        "" => format!("allowed: {allowed}"),
        example => format!("allowed: {allowed}; for example `{}={example}`", spec.key),
    };
    Problem {
        key: spec.key.into(),
        origin: None,
        problem,
        hint,
    }
}

/// Managed defaults serve many routes, so those without effect in this one are not worth a warning.
fn no_effect(section: &Section, key: &str, origin: &Origin, word: &str) -> Option<String> {
    let (condition, wanted) = section.when?;
    let managed = matches!(origin, Origin::Defaults { .. });
    (!managed).then(|| format!("{origin}: {key} has no effect: it belongs to {condition}={wanted}, and {condition} is {word}"))
}

#[cfg(test)]
mod tests;
