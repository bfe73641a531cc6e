//! `keystone eval`: what a filter and a projection do to events, without Kafka.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::PathBuf;

use clap::Args;
use keystone_dsl::{Evaluator, EventError, Expression, ExpressionError, Limits, Program, Verdict};

use super::Failure;

#[derive(Args)]
pub(super) struct EvalArgs {
    /// Keep the events for which this is true
    #[arg(long, value_name = "EXPR")]
    filter: Option<String>,
    /// Print the result of this instead of the event
    #[arg(long, value_name = "EXPR")]
    projection: Option<String>,
    /// Print each event's result, null included, to explore an expression
    #[arg(long, value_name = "EXPR", conflicts_with_all = ["filter", "projection"])]
    expression: Option<String>,
    /// How deep events may be nested
    #[arg(long, value_name = "N", default_value_t = 128)]
    max_depth: usize,
    /// A file of events, one JSON value a line; standard input if absent
    file: Option<PathBuf>,
}

pub(super) fn eval(args: &EvalArgs) -> Result<(), Failure> {
    let limits = Limits {
        max_depth: args.max_depth,
        ..Limits::default()
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let bad = match &args.expression {
        Some(text) => {
            let expression = Expression::compile(text).map_err(|error| errors(&[error]))?;
            each_line(args, |line| print_result(&expression, line, &mut out))?
        }
        None => {
            let program =
                Program::compile(args.filter.as_deref(), args.projection.as_deref(), limits)
                    .map_err(|all| errors(&all))?;
            let mut evaluator = program.evaluator();
            each_line(args, |line| print_delivered(&mut evaluator, line, &mut out))?
        }
    };
    out.flush().map_err(|error| cannot_write(&error))?;
    if bad > 0 {
        eprintln!("{bad} events would be dead letters");
    }
    Ok(())
}

fn errors(all: &[ExpressionError]) -> Failure {
    let texts: Vec<String> = all.iter().map(ToString::to_string).collect();
    Failure::Usage(texts.join("\n\n"))
}

fn cannot_write(error: &io::Error) -> Failure {
    Failure::Failed(format!("standard output can't be written: {error}"))
}

/// What went wrong with one line.
enum LineError {
    Event(EventError),
    Output(io::Error),
}

/// Calls for each line that is not empty; counts and reports the bad ones.
fn each_line(
    args: &EvalArgs,
    mut call: impl FnMut(&[u8]) -> Result<(), LineError>,
) -> Result<u64, Failure> {
    let name = args.file.as_ref().map_or_else(
        || "standard input".to_owned(),
        |file| file.display().to_string(),
    );
    let cannot_read = |error: io::Error| Failure::Failed(format!("{name} can't be read: {error}"));
    let mut input: Box<dyn BufRead> = match &args.file {
        Some(file) => Box::new(BufReader::new(File::open(file).map_err(cannot_read)?)),
        None => Box::new(io::stdin().lock()),
    };
    let (mut line, mut number, mut bad) = (Vec::new(), 0, 0);
    loop {
        line.clear();
        if input.read_until(b'\n', &mut line).map_err(cannot_read)? == 0 {
            return Ok(bad);
        }
        number += 1;
        let event = line.strip_suffix(b"\n").unwrap_or(&line);
        let event = event.strip_suffix(b"\r").unwrap_or(event);
        if event.is_empty() {
            continue;
        }
        match call(event) {
            Ok(()) => {}
            // A reader such as `head` has seen enough.
            Err(LineError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                return Ok(bad);
            }
            Err(LineError::Output(error)) => return Err(cannot_write(&error)),
            Err(LineError::Event(error)) => {
                bad += 1;
                eprintln!("{name}, line {number}: {:?}: {}", error.stage, error.reason);
            }
        }
    }
}

fn print_line(out: &mut impl Write, line: &[u8]) -> Result<(), LineError> {
    out.write_all(line)
        .and_then(|()| out.write_all(b"\n"))
        .map_err(LineError::Output)
}

fn print_result(
    expression: &Expression,
    event: &[u8],
    out: &mut impl Write,
) -> Result<(), LineError> {
    let mut result = Vec::new();
    expression
        .search(event, &mut result)
        .map_err(LineError::Event)?;
    print_line(out, &result)
}

fn print_delivered(
    evaluator: &mut Evaluator<'_>,
    event: &[u8],
    out: &mut impl Write,
) -> Result<(), LineError> {
    let mut projected = Vec::new();
    match evaluator
        .apply(event, &mut projected)
        .map_err(LineError::Event)?
    {
        Verdict::Filtered | Verdict::Discarded => Ok(()),
        Verdict::Unchanged => print_line(out, event),
        Verdict::Projected => print_line(out, &projected),
    }
}
