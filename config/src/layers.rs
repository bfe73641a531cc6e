//! From the sources of one run to one text for each key: files, environment and `--set`, later wins.

use std::collections::BTreeMap;
use std::path::Path;

use crate::nearest::nearest;
use crate::option::{OptionSpec, Passthrough, Section, Table};
use crate::problem::{Origin, Problem};
use crate::properties;

/// What one run was given, as text.
#[derive(Clone, Default)]
pub struct Sources {
    /// The managed defaults: the name to show and the text.
    pub defaults: Option<(String, String)>,
    /// The route's file: the name to show and the text.
    pub file: Option<(String, String)>,
    /// The environment, whole: what does not begin with `KEYSTONE_` is not looked at.
    pub env: Vec<(String, String)>,
    /// What `--set` was given, each `key=value`.
    pub sets: Vec<String>,
}

/// Any of the texts may hold a secret, so none is printed.
impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sources")
            .field("defaults", &self.defaults.as_ref().map(|(name, _)| name))
            .field("file", &self.file.as_ref().map(|(name, _)| name))
            .field("env", &self.env.len())
            .field("sets", &self.sets.len())
            .finish()
    }
}

/// Reads a property file for [`Sources`]: its name as given and its text, or what is wrong, with the line of a byte that is not UTF-8.
pub fn read_file(path: &Path) -> Result<(String, String), Problem> {
    let name = path.display().to_string();
    let problem = |origin, problem, hint: &str| Problem {
        key: String::new(),
        origin,
        problem,
        hint: hint.into(),
    };
    let bytes = std::fs::read(path).map_err(|error| {
        problem(
            None,
            format!("can't read {name}: {error}"),
            "check the path and its permissions",
        )
    })?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok((name, text)),
        Err(error) => {
            let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
            let origin = Some(Origin::File { file: name, line });
            Err(problem(
                origin,
                "the line is not valid UTF-8".into(),
                "save the file as UTF-8",
            ))
        }
    }
}

/// The text of a key in the last layer that sets it.
pub(crate) struct Raw {
    pub(crate) text: String,
    pub(crate) origin: Origin,
}

/// The winning text of each known key, and what is wrong with the others.
pub(crate) fn gather(
    table: &Table,
    sources: &Sources,
    problems: &mut Vec<Problem>,
) -> BTreeMap<String, Raw> {
    let mut raw = BTreeMap::new();
    let mut add =
        |key: String, text: String, origin: Origin, problems: &mut Vec<Problem>| match known(
            table, &key,
        ) {
            true => {
                raw.insert(key, Raw { text, origin });
            }
            false => problems.push(unknown_key(table, key, origin)),
        };
    if let Some((file, text)) = &sources.defaults {
        let origin = |line| Origin::Defaults {
            file: file.clone(),
            line,
        };
        for (key, value, origin) in from_file(table, text, origin, problems) {
            add(key, value, origin, problems);
        }
    }
    if let Some((file, text)) = &sources.file {
        let origin = |line| Origin::File {
            file: file.clone(),
            line,
        };
        for (key, value, origin) in from_file(table, text, origin, problems) {
            add(key, value, origin, problems);
        }
    }
    for (name, value) in &sources.env {
        match from_variable(table, name, value) {
            Variable::Key(key) => add(key, value.clone(), Origin::Env(name.clone()), problems),
            Variable::Ignored => {}
            Variable::Unknown(problem) => problems.push(problem),
        }
    }
    for set in &sources.sets {
        match set.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => {
                add(
                    key.trim().to_owned(),
                    value.to_owned(),
                    Origin::Set,
                    problems,
                );
            }
            _ => problems.push(bad_set(set)),
        }
    }
    raw
}

fn from_file(
    table: &Table,
    text: &str,
    origin: impl Fn(usize) -> Origin,
    problems: &mut Vec<Problem>,
) -> Vec<(String, String, Origin)> {
    let (pairs, flaws) = properties::parse(text, |key| secret(table, key));
    problems.extend(flaws.into_iter().map(|flaw| Problem {
        key: flaw.key,
        origin: Some(origin(flaw.line)),
        problem: flaw.problem,
        hint: flaw.hint.into_owned(),
    }));
    pairs
        .into_iter()
        .map(|pair| (pair.key, pair.value, origin(pair.line)))
        .collect()
}

/// The argument is not echoed beyond what can be a key: it may hold a secret.
fn bad_set(set: &str) -> Problem {
    let end = set.find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '_' | '-'));
    let key = &set[..end.unwrap_or(set.len())];
    Problem {
        key: key.into(),
        origin: Some(Origin::Set),
        problem: match set.starts_with('=') {
            true => "there is no key before the `=`".into(),
            false => "there is no `=`".into(),
        },
        hint: "write `--set key=value`".into(),
    }
}

/// All declared options.
pub(crate) fn declared(table: &Table) -> impl Iterator<Item = &'static OptionSpec> + Clone + '_ {
    table.sections.iter().flat_map(|section| section.options)
}

/// The section whose prefix hands a key on, the longest prefix first, and the name below the prefix. A declared option is not handed on.
pub(crate) fn handed_on<'a>(table: &Table, key: &'a str) -> Option<(Passthrough, &'a str)> {
    if declared(table).any(|spec| spec.key == key) {
        return None;
    }
    prefixes(table)
        .filter_map(|passthrough| Some((passthrough, key.strip_prefix(passthrough.prefix)?)))
        .filter(|(_, name)| !name.is_empty())
        .max_by_key(|(passthrough, _)| passthrough.prefix.len())
}

fn prefixes(table: &Table) -> impl Iterator<Item = Passthrough> + '_ {
    table
        .sections
        .iter()
        .filter_map(|section: &Section| section.passthrough)
}

fn known(table: &Table, key: &str) -> bool {
    declared(table).any(|spec| spec.key == key) || handed_on(table, key).is_some()
}

/// A key that nobody knows may be a secret's with a slip in it.
fn secret(table: &Table, key: &str) -> bool {
    match declared(table).find(|spec| spec.key == key) {
        Some(spec) => spec.secret,
        None => handed_on(table, key).is_none_or(|(passthrough, name)| (passthrough.secret)(name)),
    }
}

/// Of a PEM or a token that was pasted over several lines, each line is a key: it is not to be told.
fn looks_like_a_key(key: &str) -> bool {
    let is_word = |c: char| c.is_ascii_lowercase() || matches!(c, '_' | '-');
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    key.len() <= 80 && (key.chars().all(is_word) || key.contains('.') && key.chars().all(is_name))
}

fn unknown_key(table: &Table, key: String, origin: Origin) -> Problem {
    if !looks_like_a_key(&key) {
        return Problem {
            key: String::new(),
            origin: Some(origin),
            problem: "unknown option; its name is not shown, since it may be part of a secret".into(),
            hint: "all options are in docs/options.md; where a value goes on in the next line, the line before ends with a backslash"
                .into(),
        };
    }
    let near = nearest(&key, declared(table).map(|spec| spec.key)).map(str::to_owned);
    let hint = match near.or_else(|| nearest_handed_on(table, &key)) {
        Some(near) => format!("did you mean `{near}`?"),
        None if prefixes(table)
            .any(|p| p.prefix.trim_end_matches('.') == key.trim_end_matches('.')) =>
        {
            format!("a name follows: `{}.<name>`", key.trim_end_matches('.'))
        }
        None => {
            // Where every name is a secret's, the names are the user's own, and no slip makes one of them.
            let prefixes: Vec<String> = prefixes(table)
                .filter(|p| !(p.secret)(""))
                .map(|p| format!("`{}{key}`", p.prefix))
                .collect();
            match prefixes.is_empty() {
                true => "all options are in docs/options.md".into(),
                false => format!(
                    "all options are in docs/options.md; to hand it on, write {}",
                    prefixes.join(" or ")
                ),
            }
        }
    };
    Problem {
        key,
        origin: Some(origin),
        problem: "unknown option".into(),
        hint,
    }
}

/// The key with its first segments replaced by a prefix they resemble: `kakfa.acks` is `kafka.acks`.
fn nearest_handed_on(table: &Table, key: &str) -> Option<String> {
    prefixes(table).find_map(|passthrough| {
        let dots = passthrough.prefix.matches('.').count();
        let (end, _) = key.match_indices('.').nth(dots.checked_sub(1)?)?;
        let (head, name) = key.split_at(end + 1);
        let near = strsim::damerau_levenshtein(head, passthrough.prefix) <= 2 && head.len() > 4;
        (near && !name.is_empty()).then(|| format!("{}{name}", passthrough.prefix))
    })
}

/// The environment variable of a key: `source.topics` is `KEYSTONE_SOURCE_TOPICS`. Dots and dashes become underscores.
pub fn environment_name(key: &str) -> String {
    format!(
        "KEYSTONE_{}",
        key.to_ascii_uppercase().replace(['.', '-'], "_")
    )
}

enum Variable {
    Key(String),
    Ignored,
    Unknown(Problem),
}

fn from_variable(table: &Table, name: &str, value: &str) -> Variable {
    // Container platforms set a variable to an empty text where they mean "not set".
    if !name.starts_with("KEYSTONE_") || value.is_empty() {
        return Variable::Ignored;
    }
    if let Some(spec) = declared(table).find(|spec| environment_name(spec.key) == name) {
        return Variable::Key(spec.key.into());
    }
    if injected_by_kubernetes(name, value) {
        return Variable::Ignored;
    }
    let rest = |prefix: &str| {
        name.strip_prefix(environment_name(prefix).as_str())
            .filter(|rest| !rest.is_empty())
    };
    let is_plain = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let longest = prefixes(table)
        .filter_map(|passthrough| Some((passthrough.prefix, rest(passthrough.prefix)?)))
        .max_by_key(|(prefix, _)| prefix.len());
    if let Some((prefix, rest)) = longest.filter(|_| name.chars().all(is_plain)) {
        return Variable::Key(format!(
            "{prefix}{}",
            rest.to_ascii_lowercase().replace('_', ".")
        ));
    }
    let variables: Vec<String> = declared(table)
        .map(|spec| environment_name(spec.key))
        .collect();
    Variable::Unknown(Problem {
        key: name.into(),
        origin: Some(Origin::Env(name.into())),
        problem: "unknown variable".into(),
        hint: match nearest(name, variables.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "variables that begin with `KEYSTONE_` set options; all are in docs/options.md"
                .into(),
        },
    })
}

/// Kubernetes gives each container variables about every Service of its namespace. Those of a Service `keystone` or `keystone-…` begin
/// like ours: `…_SERVICE_HOST`, `…_SERVICE_PORT`, `…_SERVICE_PORT_<NAME>`, `…_PORT` with a URL, `…_PORT_<NUMBER>_TCP…`.
fn injected_by_kubernetes(name: &str, value: &str) -> bool {
    let plain = name == "KEYSTONE_PORT" || name.starts_with("KEYSTONE_PORT_");
    let service = name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_");
    let url = ["tcp://", "udp://", "sctp://"]
        .iter()
        .any(|scheme| value.starts_with(scheme));
    let port = name
        .rsplit_once("_PORT_")
        .and_then(|(_, rest)| rest.split_once('_'))
        .is_some_and(|(number, rest)| {
            number.bytes().all(|byte| byte.is_ascii_digit())
                && ["TCP", "UDP", "SCTP"]
                    .iter()
                    .any(|word| rest.starts_with(word))
        });
    plain || service || port || (name.ends_with("_PORT") && url)
}

#[cfg(test)]
mod tests;
