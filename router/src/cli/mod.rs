//! The commands and their exit codes: 0 done or drained, 64 bad configuration or expression, 1 failed, with the reason on the last line of
//! standard error.

mod asking;
mod check;
mod demo;
mod eval;
mod lines;
mod output;
mod run;
mod test;
mod trial;

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use keystone_config::{Problems, Sources, read_file};
use output::complain;

/// Why a command ended without success.
pub enum Failure {
    /// Bad configuration, expression or command line: exit code 64.
    Usage(String),
    /// Anything else: exit code 1.
    Failed(String),
    /// Exit code 1 as well; the reason is the log's last line already.
    Logged,
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Failure {
        Failure::Usage(problems.to_string())
    }
}

#[derive(Parser)]
#[command(
    name = "keystone",
    version,
    about = "Routes events from Kafka to Elasticsearch, Parquet files in a Hive layout, or Kafka, at least once"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the worker of a route until SIGTERM
    Run(RouteArgs),
    /// Validate a route, print its effective configuration, and ask its servers whether they are there
    Check {
        #[command(flatten)]
        route: RouteArgs,
        /// Ask no server; secrets and certificates whose files are not on this machine are warnings
        #[arg(long)]
        offline: bool,
    },
    /// Show what a filter, a projection or a route does to events: of a file, standard input or its topics
    Eval(Box<eval::EvalArgs>),
    /// Run the cases that stand beside routes: what goes in, what is to come out
    Test(test::TestArgs),
    /// Run the whole job in this process, on an embedded broker, with nothing else installed
    Demo(demo::DemoArgs),
}

/// Where a route's configuration comes from.
#[derive(Args)]
pub struct RouteArgs {
    /// The route's property file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Managed defaults, which the route's file overrides
    #[arg(long, value_name = "FILE")]
    defaults: Option<PathBuf>,
    /// Sets one option, over all files and the environment
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
}

impl RouteArgs {
    /// Reads the files and the environment.
    fn sources(&self) -> Result<Sources, Failure> {
        let read =
            |path: &PathBuf| read_file(path).map_err(|problem| Failure::Usage(problem.to_string()));
        Ok(Sources {
            defaults: self.defaults.as_ref().map(read).transpose()?,
            file: self.config.as_ref().map(read).transpose()?,
            env: environment(std::env::vars_os())?,
            sets: self.sets.clone(),
        })
    }
}

/// The variables as text. One of ours that is no text is told of: to leave it out would run the route without it.
fn environment(
    all: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Vec<(String, String)>, Failure> {
    let (mut env, mut unfit) = (Vec::new(), Vec::new());
    for (name, value) in all {
        let shown = name.to_string_lossy().into_owned();
        match (name.into_string(), value.into_string()) {
            (Ok(name), Ok(value)) => env.push((name, value)),
            _ if shown.starts_with("KEYSTONE_") => unfit.push(format!(
                "{shown}: the variable is not valid UTF-8; set it to text in UTF-8"
            )),
            _ => {}
        }
    }
    unfit.sort();
    match unfit.is_empty() {
        true => Ok(env),
        false => Err(Failure::Usage(unfit.join("\n"))),
    }
}

/// Parses the command line, runs the command, reports its failure.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // clap prints help and version to standard output, everything else to standard error.
            let printed = match error.print() {
                // A reader such as `head` has seen enough.
                Err(error) => error.kind() == ErrorKind::BrokenPipe,
                Ok(()) => true,
            };
            return match printed && !error.use_stderr() {
                true => ExitCode::SUCCESS,
                false => ExitCode::from(64),
            };
        }
    };
    let done = match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Check { route, offline } => check::check(&route, offline),
        Command::Eval(args) => eval::eval(&args),
        Command::Test(args) => test::test(&args),
        Command::Demo(args) => demo::demo(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(text)) => {
            complain!("{}", text.trim_end());
            ExitCode::from(64)
        }
        Err(Failure::Failed(text)) => {
            complain!("{}", text.trim_end());
            ExitCode::FAILURE
        }
        Err(Failure::Logged) => ExitCode::FAILURE,
    }
}

/// Names this process among the workers of a route: host and process, and the time against reuse of a process id.
fn worker_id() -> String {
    let host: String = std::env::var("HOSTNAME")
        .unwrap_or_default()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
        .take(40)
        .collect();
    let now = crate::state::now_ms();
    let process = std::process::id();
    if host.is_empty() {
        format!("{process}-{now:x}")
    } else {
        format!("{host}-{process}-{now:x}")
    }
}
