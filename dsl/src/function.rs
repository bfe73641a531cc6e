//! The functions: what each takes, how it is prepared, and how it is called. `standard` has JMESPath's own, the other modules ours.

pub(crate) mod argument;
mod privacy;
mod record;
mod shape;
mod standard;
mod text;
mod time;

use std::ops::Deref;

use crate::context::Context;
use crate::error::Position;
use crate::evaluate::{evaluate, located};
use crate::node::Node;
use crate::settings::Settings;
use crate::value::Value;

use argument::Takes;

type Outcome<'a> = Result<Value<'a>, String>;

pub(crate) struct Function {
    pub(crate) name: &'static str,
    takes: &'static [Takes],
    /// Further arguments that may be left out.
    optional: &'static [Takes],
    /// Any number of further arguments of this type.
    rest: Option<Takes>,
    /// Whether arguments that are literals are checked when the expression is compiled. JMESPath's own functions fail
    /// for each event, as its compliance suite has it.
    strict: bool,
    /// Checks literals further, and makes of them what is worth making once.
    prepare: Option<Prepare>,
    run: Run,
}

#[derive(Clone, Copy)]
enum Run {
    /// On the arguments' values.
    Eager(for<'c, 'a> fn(&Call<'c, 'a>) -> Outcome<'a>),
    /// On the arguments themselves, which it evaluates as it needs them, and the current value.
    Lazy(for<'a> fn(&'a [Node], &Value<'a>, &Context<'a>) -> Outcome<'a>),
}

/// For each argument its value, if it is a literal.
type Literals<'l> = &'l [Option<&'l Value<'static>>];

/// The index of an argument, and what is wrong with it.
type PrepareError = (usize, String);

type Prepare = fn(Literals<'_>, &Settings) -> Result<Prepared, PrepareError>;

/// What a call keeps of its literals.
#[derive(Debug)]
pub(crate) enum Prepared {
    Nothing,
    Attribute(record::Attribute),
    Key(privacy::Key),
    Regex(regex::Regex),
    Time {
        from: Option<time::Format>,
        to: Option<time::Format>,
    },
}

/// One call: the arguments' values, as a slice, and what else there is.
pub(crate) struct Call<'c, 'a> {
    arguments: &'c [Value<'a>],
    prepared: &'a Prepared,
    context: &'c Context<'a>,
}

impl<'a> Deref for Call<'_, 'a> {
    type Target = [Value<'a>];

    fn deref(&self) -> &[Value<'a>] {
        self.arguments
    }
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl Function {
    /// A function of ours; the tables of the modules are written with this and what follows.
    const fn new(
        name: &'static str,
        takes: &'static [Takes],
        run: for<'c, 'a> fn(&Call<'c, 'a>) -> Outcome<'a>,
    ) -> Function {
        Function::with_run(name, takes, Run::Eager(run))
    }

    const fn lazy(
        name: &'static str,
        takes: &'static [Takes],
        run: for<'a> fn(&'a [Node], &Value<'a>, &Context<'a>) -> Outcome<'a>,
    ) -> Function {
        Function::with_run(name, takes, Run::Lazy(run))
    }

    const fn with_run(name: &'static str, takes: &'static [Takes], run: Run) -> Function {
        Function {
            name,
            takes,
            optional: &[],
            rest: None,
            strict: true,
            prepare: None,
            run,
        }
    }

    const fn with_optional(mut self, optional: &'static [Takes]) -> Function {
        self.optional = optional;
        self
    }

    const fn with_rest(mut self, rest: Takes) -> Function {
        self.rest = Some(rest);
        self
    }

    const fn prepared_by(mut self, prepare: Prepare) -> Function {
        self.prepare = Some(prepare);
        self
    }
}

const GROUPS: &[&[Function]] = &[
    standard::FUNCTIONS,
    record::FUNCTIONS,
    time::FUNCTIONS,
    text::FUNCTIONS,
    privacy::FUNCTIONS,
    shape::FUNCTIONS,
];

fn all() -> impl Iterator<Item = &'static Function> {
    GROUPS.iter().copied().flatten()
}

pub(crate) fn find(name: &str) -> Option<&'static Function> {
    all().find(|function| function.name == name)
}

pub(crate) fn names() -> Vec<&'static str> {
    let mut names: Vec<_> = all().map(|function| function.name).collect();
    names.sort_unstable();
    names
}

/// The function whose name is most like the one given, if one is like it at all.
pub(crate) fn nearest(name: &str) -> Option<&'static str> {
    let plain = |name: &str| name.to_ascii_lowercase().replace('_', "");
    let likeness = |known: &str| strsim::jaro_winkler(&plain(name), &plain(known));
    let best = names()
        .into_iter()
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(best) >= 0.8).then_some(best)
}

impl Function {
    /// Wrong numbers of arguments are found when the expression is compiled.
    pub(crate) fn check_count(&self, found: usize) -> Result<(), String> {
        let least = self.takes.len();
        let most = least + self.optional.len();
        if (least..=most).contains(&found) || self.rest.is_some() && found > most {
            return Ok(());
        }
        let expected = match (self.rest, least == most) {
            (Some(_), _) => format!("at least {least}"),
            (None, true) => least.to_string(),
            (None, false) => format!("{least} to {most}"),
        };
        let plural = if expected == "1" || expected == "at least 1" {
            ""
        } else {
            "s"
        };
        Err(format!(
            "{} takes {expected} argument{plural}, found {found}",
            self.name
        ))
    }

    /// Whether nothing of the arguments is in the result but what their texts say.
    pub(crate) fn reads_anew(&self) -> bool {
        self.name == "parse_json"
    }

    /// How much deeper than its arguments the result may be nested, see [`Node::growth`].
    pub(crate) fn growth(&self, arguments: &[Node]) -> usize {
        match self.name {
            "parse_json" => shape::PARSED_DEPTH,
            "set" => shape::path_length(&arguments[1]),
            "map" | "to_array" | "split" | "keys" | "values" => 1,
            _ => 0,
        }
    }

    /// Looks at the literals among the arguments. Fails with the index of the argument that is wrong, and why.
    pub(crate) fn prepare(
        &self,
        arguments: &[Node],
        settings: &Settings,
    ) -> Result<Prepared, PrepareError> {
        let literals: Vec<_> = arguments
            .iter()
            .map(|argument| match argument {
                Node::Literal(value) => Some(value),
                _ => None,
            })
            .collect();
        for (index, literal) in literals.iter().enumerate().filter(|_| self.strict) {
            if let Some(value) = literal {
                self.check_argument(index, value)
                    .map_err(|reason| (index, format!("{}: {reason}", self.name)))?;
            }
        }
        match self.prepare {
            Some(prepare) => prepare(&literals, settings).map_err(|(index, reason)| {
                let reason = format!("{}: argument {}: {reason}", self.name, index + 1);
                (index, reason)
            }),
            None => Ok(Prepared::Nothing),
        }
    }

    fn check_argument(&self, index: usize, argument: &Value<'_>) -> Result<(), String> {
        let mut types = self.takes.iter().chain(self.optional);
        match types.nth(index).copied().or(self.rest) {
            Some(takes) => takes
                .check(argument)
                .map_err(|reason| format!("argument {} is {reason}", index + 1)),
            None => Ok(()),
        }
    }

    /// Evaluates the arguments and calls the function. What it fails with itself is followed by its place.
    pub(crate) fn call<'a>(
        &self,
        arguments: &'a [Node],
        prepared: &'a Prepared,
        position: Position,
        current: &Value<'a>,
        context: &Context<'a>,
    ) -> Outcome<'a> {
        let run = match self.run {
            Run::Eager(run) => run,
            Run::Lazy(run) => return run(arguments, current, context),
        };
        let arguments = arguments
            .iter()
            .map(|argument| evaluate(argument, current, context))
            .collect::<Result<Vec<_>, _>>()?;
        // Called for each item of a list, it may look at one large value again and again.
        arguments
            .iter()
            .try_for_each(|argument| context.pass_value(argument))?;
        self.run_with(run, &arguments, prepared, context)
            .map_err(|reason| located(self.name, position, &reason))
    }

    /// Whether all that the function looks at of its arguments is their values.
    pub(crate) fn is_eager(&self) -> bool {
        matches!(self.run, Run::Eager(_))
    }

    /// Calls an eager function on the values of its arguments.
    pub(crate) fn call_with<'a>(
        &self,
        arguments: &[Value<'a>],
        prepared: &'a Prepared,
        context: &Context<'a>,
    ) -> Outcome<'a> {
        match self.run {
            Run::Eager(run) => self.run_with(run, arguments, prepared, context),
            Run::Lazy(_) => Err("it evaluates its arguments by itself".to_owned()),
        }
    }

    fn run_with<'a>(
        &self,
        run: for<'c, 'v> fn(&Call<'c, 'v>) -> Outcome<'v>,
        arguments: &[Value<'a>],
        prepared: &'a Prepared,
        context: &Context<'a>,
    ) -> Outcome<'a> {
        for (index, argument) in arguments.iter().enumerate() {
            self.check_argument(index, argument)?;
        }
        run(&Call {
            arguments,
            prepared,
            context,
        })
    }
}

#[cfg(test)]
mod tests;
