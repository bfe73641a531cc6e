//! What can be wrong with a table of options itself, for a test of the program that puts it together.

use std::collections::HashMap;

use crate::kind;
use crate::layers::{declared, environment_name};
use crate::option::{Default, OptionSpec, Table};

/// All mistakes in a table, empty where there are none: keys or environment names that stand twice, keys in another style, defaults and
/// examples that their own kind refuses, conditions on options that do not exist.
pub fn flaws(table: &Table) -> Vec<String> {
    let mut flaws = Vec::new();
    let mut names: HashMap<String, &str> = HashMap::new();
    for spec in declared(table) {
        if let Some(other) = names.insert(environment_name(spec.key), spec.key) {
            flaws.push(format!("{}: has the environment name of {other}", spec.key));
        }
        flaws.extend(
            of_option(spec)
                .into_iter()
                .map(|flaw| format!("{}: {flaw}", spec.key)),
        );
    }
    for section in &table.sections {
        if let Some((key, word)) = section.when {
            match declared(table).find(|spec| spec.key == key) {
                None => flaws.push(format!(
                    "{}: depends on {key}, which is not declared",
                    section.title
                )),
                Some(spec) => flaws.extend(kind::check(&spec.kind, word).err().map(|problem| {
                    format!("{}: depends on {key}={word}: {problem}", section.title)
                })),
            }
        }
        if let Some(passthrough) = section
            .passthrough
            .filter(|passthrough| !passthrough.prefix.ends_with('.'))
        {
            flaws.push(format!(
                "{}: the prefix {} does not end in a dot",
                section.title, passthrough.prefix
            ));
        }
    }
    flaws
}

fn of_option(spec: &OptionSpec) -> Vec<String> {
    let mut flaws = Vec::new();
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-');
    if !spec.key.chars().all(plain) || !spec.key.starts_with(|c: char| c.is_ascii_lowercase()) {
        flaws.push("a key is lower-case letters, digits, dots and dashes".into());
    }
    if spec.doc.is_empty() {
        flaws.push("has no documentation".into());
    }
    let defaults = match spec.default {
        Default::Value(text) => vec![text],
        Default::ByTradeoff(three) => vec![three.low_latency, three.balanced, three.no_duplicates],
        Default::Required if spec.example.is_empty() => {
            flaws.push("is required and has no example".into());
            vec![]
        }
        _ => vec![],
    };
    let example = Some(spec.example).filter(|example| !example.is_empty());
    for text in defaults.into_iter().chain(example) {
        if let Err(problem) = kind::check(&spec.kind, text) {
            flaws.push(format!("default or example: {problem}"));
        }
    }
    flaws
}
