//! `docs/options.md` and the sample file, written from the table.

use crate::kind;
use crate::layers::environment_name;
use crate::option::{Default, OptionSpec, Section, Table};
use crate::properties::escape_value;

const INTRO: &str = "\
# Options

This page is written from the tables of options in the code.

## Where a value comes from

Layers, later wins:

1. built-in defaults; some are chosen by `delivery.tradeoff`
2. managed defaults: the file that `--defaults` names
3. the route's file: the file that `--config` names
4. environment variables
5. `--set key=value`; if a key is given twice, the later one wins

`keystone check` prints each value in use and where it comes from. All that is wrong is reported at once. An unknown key is an error.
An option that belongs to another `sink.type` than the route's has no effect: a warning, or nothing where it is in the managed defaults.

**Files** are Java property files in UTF-8: `key=value`, `#` begins a comment, a backslash at the end of a line continues the value in the
next line, and `\\n` is a line break. A backslash that is part of a value is written twice: `source.topics=^events\\\\..*`. One before a
character that it does nothing for is an error, as it would be dropped: `\\d` would be read as `d`. What may be escaped: `\\\\`, `\\n`, `\\t`,
`\\r`, `\\f`, `\\u` and four hexadecimal digits, `:`, `=`, `#`, `!`, `'`, `\"`, a space and a tab. White space around a value is dropped, except in a
secret. A key may stand only once in a file.

**Environment**: `source.topics` is `KEYSTONE_SOURCE_TOPICS`: upper-case, with an underscore for each dot and dash. Of a name that is free, as
below `kafka.` and `dsl.secret.`, each underscore is read as a dot: `KEYSTONE_DSL_SECRET_MY_USERS` is `dsl.secret.my.users`. An empty variable
counts as not set. A variable that begins with `KEYSTONE_` and sets no option is an error; the variables that Kubernetes makes for a Service named
`keystone` or `keystone-…` are ignored.

**Values in files**: `${file:/etc/keystone-secrets/name}` in a value, from any layer, is replaced by what the file holds, without its trailing line
break. Such a value is treated as a secret: only the reference is shown. A literal `${` is written `$${`. For `keystone check --offline` the
files of secrets need not be there.

**Secrets** are never printed: not in logs, errors, metrics or by `keystone check`.
";

/// The page `docs/options.md`.
pub fn markdown(table: &Table) -> String {
    let mut out = String::from(INTRO);
    for section in &table.sections {
        out.push_str(&format!("\n## {}\n", section.title));
        if let Some((key, word)) = section.when {
            out.push_str(&format!("\nIn use where `{key}` is `{word}`.\n"));
        }
        for spec in section.options {
            out.push_str(&option(spec));
        }
        out.push_str(&handed_on(section));
    }
    out
}

fn option(spec: &OptionSpec) -> String {
    let mut out = format!("\n### `{}`\n\n{}\n\n", spec.key, spec.doc.trim());
    out.push_str(&format!("- Allowed: {}\n", kind::allowed(&spec.kind)));
    out.push_str(&format!("- Default: {}\n", default(spec)));
    if !spec.example.is_empty() {
        out.push_str(&format!("- Example: {}\n", code(spec.example)));
    }
    out.push_str(&format!(
        "- Environment: `{}`\n",
        environment_name(spec.key)
    ));
    if spec.secret {
        out.push_str("- Secret\n");
    }
    out
}

/// A span of code in Markdown, which may itself hold backticks: JMESPath writes its literals with them.
fn code(text: &str) -> String {
    match text.contains('`') {
        true => format!("`` {text} ``"),
        false => format!("`{text}`"),
    }
}

fn default(spec: &OptionSpec) -> String {
    match spec.default {
        Default::Absent => "none".into(),
        Default::Required => "none, it must be set".into(),
        Default::Value(text) => code(text),
        Default::Derived(how) => how.into(),
        Default::ByTradeoff(three) => format!(
            "by `delivery.tradeoff`: low-latency `{}`, balanced `{}`, no-duplicates `{}`",
            three.low_latency, three.balanced, three.no_duplicates
        ),
    }
}

fn handed_on(section: &Section) -> String {
    let Some(passthrough) = section.passthrough else {
        return String::new();
    };
    let prefix = passthrough.prefix;
    let mut out = format!("\n### `{prefix}<name>`\n\n{}\n\n", passthrough.doc.trim());
    out.push_str(&format!(
        "- Environment: `{}<NAME>`, with an underscore for each dot; a name with a dash, an underscore or an upper-case letter can't be set so\n",
        environment_name(prefix)
    ));
    if !passthrough.reserved.is_empty() {
        out.push_str("- Names that can't be set:\n");
        for (name, reason) in passthrough.reserved {
            out.push_str(&format!("  - `{prefix}{name}`: {reason}\n"));
        }
    }
    out
}

/// A sample file: each option with its documentation as a comment and its default commented out; what must be set is set to its example.
/// Read as it is, it resolves without a problem or a warning.
pub fn sample(table: &Table) -> String {
    let mut out = String::from(
        "# A sample route: every option. Lines that begin with `#` and a key show a default, or an example where there is none.\n",
    );
    for section in &table.sections {
        out.push_str(&format!("\n# ---- {} ----\n", section.title));
        if let Some((key, word)) = section.when {
            out.push_str(&format!("# In use where {key} is {word}.\n"));
        }
        let used = section
            .when
            .is_none_or(|(key, word)| sample_value(table, key) == Some(word));
        for spec in section.options {
            out.push('\n');
            comment(&mut out, spec.doc);
            comment(
                &mut out,
                &format!("Allowed: {}.", kind::allowed(&spec.kind)),
            );
            if matches!(spec.default, Default::Derived(_) | Default::ByTradeoff(_)) {
                comment(&mut out, &format!("Default: {}.", default(spec)));
            }
            let mark = if used && matches!(spec.default, Default::Required) {
                ""
            } else {
                "#"
            };
            // A default is a text; an example is what one writes, references included.
            let value = match spec.default {
                Default::Value(_) | Default::ByTradeoff(_) => text_of(spec).replace("${", "$${"),
                _ => text_of(spec).to_owned(),
            };
            let value = escape_value(&value);
            out.push_str(&format!("{mark}{}={value}\n", spec.key));
        }
        if let Some(passthrough) = section.passthrough {
            out.push('\n');
            comment(
                &mut out,
                &format!("{}<name>: {}", passthrough.prefix, passthrough.doc),
            );
        }
    }
    out
}

fn text_of(spec: &OptionSpec) -> &'static str {
    match spec.default {
        Default::Value(text) => text,
        Default::ByTradeoff(three) => three.balanced,
        Default::Absent | Default::Required | Default::Derived(_) => spec.example,
    }
}

/// What an option is in the sample itself.
fn sample_value(table: &Table, key: &str) -> Option<&'static str> {
    let spec = crate::layers::declared(table).find(|spec| spec.key == key)?;
    matches!(spec.default, Default::Required | Default::Value(_)).then(|| text_of(spec))
}

/// Wraps a text into comment lines of about 100 characters.
fn comment(out: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.chars().count() + word.chars().count() >= 100 && line.len() > 1 {
            out.push_str(&line);
            out.push('\n');
            line = "#".into();
        }
        line.push(' ');
        line.push_str(word);
    }
    out.push_str(&line);
    out.push('\n');
}

#[cfg(test)]
mod tests;
