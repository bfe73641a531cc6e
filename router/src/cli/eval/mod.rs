//! `keystone eval`: what a filter, a projection, or a whole route would do to events: of a file, or the latest of its topics.

mod documents;
mod topic;

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::PathBuf;

use clap::Args;
use keystone_config::Settings;
use keystone_dsl::{Expression, ExpressionError, Limits, Program, Secrets};
use serde_json::{Map, Value};

use super::lines::value_members;
use super::trial::{Outcome, OwnedRecord, Trial};
use super::{Failure, RouteArgs};
use crate::cli::output::{complain, say};
use crate::decision::{NullPayload, Steps};
use crate::route;
use documents::Documents;

const AFTER_HELP: &str = "\
With --config it decides as the route does: filter and projection, unless they are given here, hygiene rules and source \
options. Nothing is delivered. Totals come at the end on standard error.

  keystone eval --filter \"type == 'play'\" events.ndjson
  keystone eval --config plays.properties --from-topic 1000 --verdicts > verdicts.ndjson";

#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct EvalArgs {
    /// Keep the events for which this is true
    #[arg(long, value_name = "EXPR")]
    filter: Option<String>,
    /// Print the result of this instead of the event
    #[arg(long, value_name = "EXPR")]
    projection: Option<String>,
    /// Print each event's result, null included, to explore an expression
    #[arg(long, value_name = "EXPR", conflicts_with_all = ["filter", "projection", "verdicts"])]
    expression: Option<String>,
    // Decides as the route does: filter and projection, unless they are given, hygiene rules and source options.
    #[command(flatten)]
    route: RouteArgs,
    /// Print what becomes of each event, and why, as a line of JSON
    #[arg(long)]
    verdicts: bool,
    /// Take the latest N events of the route's topics; its consumer group does not notice
    #[arg(long, value_name = "N", requires = "config", conflicts_with = "file", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    from_topic: Option<u32>,
    /// Print which parts of filter and projection are compiled and which are interpreted, and read no events
    #[arg(long, conflicts_with_all = ["expression", "verdicts", "from_topic", "file"])]
    explain: bool,
    /// How deep events may be nested
    #[arg(
        long,
        value_name = "N",
        default_value_t = 128,
        conflicts_with = "config"
    )]
    max_depth: usize,
    /// The key that hmac_sha256 knows by this name: what the file holds
    #[arg(long = "secret", value_name = "NAME=FILE", conflicts_with = "config")]
    secrets: Vec<String>,
    /// A file of JSON events, one a line or laid out over several; standard input if absent
    file: Option<PathBuf>,
}

pub(super) fn eval(args: &EvalArgs) -> Result<(), Failure> {
    let (steps, settings) = steps(args)?;
    if args.explain {
        say!("{}", steps.program.explain());
        return Ok(());
    }
    let expression = match &args.expression {
        Some(text) => {
            let language = match &settings {
                Some(settings) => route::language(settings),
                None => language(args)?,
            };
            let compiled = Expression::compile_with(text, language);
            Some(compiled.map_err(|error| wrong(&[error]))?)
        }
        None => None,
    };
    let mut printer = Printer {
        out: BufWriter::new(io::stdout().lock()),
        how: match &expression {
            Some(expression) => How::Result(expression, Results::default()),
            None => How::Decide(Box::new(Trial::new(&steps)), args.verdicts),
        },
    };
    let printed = match (args.from_topic, &settings) {
        (Some(count), Some(settings)) => printer.topic(settings, count as usize),
        _ => printer.file(args.file.as_ref()),
    };
    match printed {
        // A reader such as `head` has seen enough.
        Err(Stop::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
        Err(Stop::Output(error)) => return Err(cannot_write(&error)),
        Err(Stop::Input(failure)) => return Err(failure),
        Ok(()) => {}
    }
    printer.out.flush().map_err(|error| cannot_write(&error))?;
    complain!("{}", printer.totals());
    Ok(())
}

/// What decides about events: the route's, with the expressions of the command line laid over it, or those alone.
fn steps(args: &EvalArgs) -> Result<(Steps, Option<Settings>), Failure> {
    if args.route.config.is_none() {
        if args.route.defaults.is_some() || !args.route.sets.is_empty() {
            let reason = "--defaults and --set belong to a route: name it with --config FILE";
            return Err(Failure::Usage(reason.to_owned()));
        }
        let (filter, projection) = (args.filter.as_deref(), args.projection.as_deref());
        let program = Program::compile(filter, projection, language(args)?);
        let steps = Steps {
            json: true,
            null_payload: NullPayload::DeadLetter,
            program: program.map_err(|all| wrong(&all))?,
            hygiene: None,
            discard_violations: false,
        };
        return Ok((steps, None));
    }
    let mut sources = args.route.sources()?;
    for (key, value) in [("filter", &args.filter), ("projection", &args.projection)] {
        // A `${` is a reference in a value of the configuration.
        let set = |value: &String| format!("{key}={}", value.replace("${", "$${"));
        sources.sets.extend(value.as_ref().map(set));
    }
    let (steps, settings) = match args.from_topic {
        None => route::load_steps(&sources)?,
        Some(_) => route::load_source(&sources)?,
    };
    Ok((steps, Some(settings)))
}

/// What expressions of the command line alone are compiled with.
fn language(args: &EvalArgs) -> Result<keystone_dsl::Settings, Failure> {
    Ok(keystone_dsl::Settings {
        limits: Limits {
            max_depth: args.max_depth,
            ..Limits::default()
        },
        secrets: secrets(&args.secrets)?,
    })
}

/// As `${file:…}` in a route has it: without a trailing line break.
fn secrets(given: &[String]) -> Result<Secrets, Failure> {
    let mut secrets = Secrets::default();
    for text in given {
        // Neither is echoed: somebody may have written the key itself.
        let Some((name, file)) = text.split_once('=') else {
            return Err(Failure::Usage("--secret: expected NAME=FILE".to_owned()));
        };
        let key = std::fs::read(file).map_err(|error| {
            Failure::Usage(format!("--secret {name}: its file can't be read: {error}"))
        })?;
        let key = key.strip_suffix(b"\n").unwrap_or(&key);
        let key = key.strip_suffix(b"\r").unwrap_or(key);
        if key.is_empty() {
            return Err(Failure::Usage(format!(
                "--secret {name}: its file is empty"
            )));
        }
        secrets.insert(name, key);
    }
    Ok(secrets)
}

fn wrong(all: &[ExpressionError]) -> Failure {
    let texts: Vec<String> = all.iter().map(ToString::to_string).collect();
    Failure::Usage(texts.join("\n\n"))
}

fn cannot_write(error: &io::Error) -> Failure {
    Failure::Failed(format!("standard output can't be written: {error}"))
}

/// Why no more events are printed.
enum Stop {
    Input(Failure),
    Output(io::Error),
}

struct Printer<'s, W> {
    out: W,
    how: How<'s>,
}

enum How<'s> {
    Result(&'s Expression, Results),
    /// And whether each verdict is printed.
    Decide(Box<Trial<'s>>, bool),
}

#[derive(Default)]
struct Results {
    good: u64,
    bad: u64,
}

impl<W: Write> Printer<'_, W> {
    fn topic(&mut self, settings: &Settings, count: usize) -> Result<(), Stop> {
        let latest = topic::latest(settings, count).map_err(Stop::Input)?;
        if let Some(remark) = latest.remark {
            complain!("{remark}");
        }
        for record in latest.records {
            let OwnedRecord {
                topic,
                partition,
                offset,
                ..
            } = &record;
            let at = format!("{topic}-{partition} offset {offset}");
            self.event(&at, &record)?;
        }
        Ok(())
    }

    fn file(&mut self, file: Option<&PathBuf>) -> Result<(), Stop> {
        let name = file.map_or_else(
            || "standard input".to_owned(),
            |file| file.display().to_string(),
        );
        let cannot_read = |error: io::Error| {
            Stop::Input(Failure::Failed(format!("{name} can't be read: {error}")))
        };
        let input: Box<dyn BufRead> = match file {
            Some(file) => Box::new(BufReader::new(File::open(file).map_err(cannot_read)?)),
            None => Box::new(io::stdin().lock()),
        };
        let mut documents = Documents::new(input);
        let mut offset = 0;
        while let Some(document) = documents.next().map_err(cannot_read)? {
            let record = OwnedRecord {
                value: Some(document.bytes),
                offset,
                ..OwnedRecord::default()
            };
            offset += 1;
            self.event(&format!("{name}, line {}", document.line), &record)?;
        }
        Ok(())
    }

    fn event(&mut self, at: &str, record: &OwnedRecord) -> Result<(), Stop> {
        let printed = match &mut self.how {
            How::Result(expression, results) => {
                print_result(&mut self.out, expression, results, at, record)
            }
            How::Decide(trial, true) => {
                let line = verdict(at, record, &trial.run(record));
                writeln!(self.out, "{line}")
            }
            How::Decide(trial, false) => match trial.run(record) {
                Outcome::Delivered(Some(payload)) => print_line(&mut self.out, payload),
                Outcome::DeadLetter(stage, reason) => {
                    complain!("{at}: {}: {reason}", stage.as_str());
                    Ok(())
                }
                Outcome::Delivered(None) | Outcome::Filtered | Outcome::Discarded(_) => Ok(()),
            },
        };
        printed.map_err(Stop::Output)
    }

    fn totals(&self) -> String {
        match &self.how {
            How::Decide(trial, _) => trial.tally.to_string(),
            How::Result(_, Results { good, bad }) => {
                format!("{} events: {good} evaluated, {bad} failed", good + bad)
            }
        }
    }
}

fn print_result(
    out: &mut impl Write,
    expression: &Expression,
    results: &mut Results,
    at: &str,
    record: &OwnedRecord,
) -> io::Result<()> {
    let mut result = Vec::new();
    let found = match &record.value {
        Some(payload) => {
            let found = expression.search(&record.borrowed(payload), &mut result);
            found.map_err(|error| error.to_string())
        }
        None => Err("decode: the record has no value (a tombstone)".to_owned()),
    };
    match found {
        Ok(()) => {
            results.good += 1;
            print_line(out, &result)
        }
        Err(error) => {
            results.bad += 1;
            complain!("{at}: {error}");
            Ok(())
        }
    }
}

/// Prints an event in one line. In JSON a line break is white space, and so is what is around it.
fn print_line(out: &mut impl Write, event: &[u8]) -> io::Result<()> {
    for (number, part) in event.split(|byte| *byte == b'\n').enumerate() {
        let part = match number {
            0 => part,
            _ => part.trim_ascii_start(),
        };
        out.write_all(part.strip_suffix(b"\r").unwrap_or(part))?;
    }
    out.write_all(b"\n")
}

/// What became of an event, as a line: with what is delivered, or the event as it was read.
fn verdict(at: &str, record: &OwnedRecord, outcome: &Outcome<'_>) -> Value {
    let mut members = Map::new();
    let mut add = |name: &str, text: &str| {
        members.insert(name.to_owned(), text.into());
    };
    add("at", at);
    let mut value = record.value.as_deref();
    match outcome {
        Outcome::Delivered(delivered) => {
            add("verdict", "delivered");
            value = *delivered;
        }
        Outcome::Filtered => add("verdict", "filtered"),
        Outcome::Discarded(reason) => {
            add("verdict", "discarded");
            add("reason", reason);
        }
        Outcome::DeadLetter(stage, reason) => {
            add("verdict", "dead-letter");
            add("stage", stage.as_str());
            add("reason", reason);
        }
    }
    members.extend(value_members(value));
    Value::Object(members)
}
