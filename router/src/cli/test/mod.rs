//! `keystone test`: runs the cases that stand beside a route. `docs/testing-routes.md` describes them for their authors.

mod case;
mod difference;
mod junit;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use keystone_config::Settings;

use super::{Failure, RouteArgs};
use crate::cli::output::say;
use crate::decision::Steps;
use crate::route::{self, topics::is_pattern};
use case::{Case, cases_of};
use junit::{Reported, Suite};

#[derive(Args)]
pub(super) struct TestArgs {
    /// Routes; the cases of plays.properties are the folders in plays.tests beside it
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Write what comes out as what is expected, where the two differ
    #[arg(long)]
    update: bool,
    /// Also write the results as JUnit XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Managed defaults, which the routes' files override
    #[arg(long, value_name = "FILE")]
    defaults: Option<PathBuf>,
    /// Sets one option of all routes, over all files and the environment
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
}

pub(super) fn test(args: &TestArgs) -> Result<(), Failure> {
    let routes = load(args)?;
    let mut suites = Vec::new();
    for (file, (steps, settings)) in args.files.iter().zip(&routes) {
        suites.push(run_route(file, steps, settings, args.update));
    }
    if let Some(path) = &args.junit {
        std::fs::write(path, junit::xml(&suites)).map_err(|error| {
            Failure::Failed(format!("{} can't be written: {error}", path.display()))
        })?;
    }
    let cases = || suites.iter().flat_map(|suite| &suite.cases);
    let failed = cases().filter(|case| case.failure.is_some()).count();
    let all = cases().count();
    let plural = if all == 1 { "" } else { "s" };
    if failed == 0 {
        say!("{all} case{plural} passed");
        return Ok(());
    }
    let advice = match args.update {
        true => "",
        false => "; if what comes out is right, accept it with --update",
    };
    Err(Failure::Failed(format!(
        "{failed} of {all} case{plural} failed{advice}"
    )))
}

/// All routes, or the problems of all.
fn load(args: &TestArgs) -> Result<Vec<(Steps, Settings)>, Failure> {
    let (mut routes, mut problems) = (Vec::new(), Vec::new());
    for file in &args.files {
        let sources = RouteArgs {
            config: Some(file.clone()),
            defaults: args.defaults.clone(),
            sets: args.sets.clone(),
        }
        .sources()?;
        match route::load_steps(&sources) {
            Ok(route) => routes.push(route),
            Err(more) => problems.push(more.to_string()),
        }
    }
    match problems.is_empty() {
        true => Ok(routes),
        false => Err(Failure::Usage(problems.join("\n"))),
    }
}

fn run_route(file: &Path, steps: &Steps, settings: &Settings, update: bool) -> Suite {
    let mut suite = Suite {
        name: file.display().to_string(),
        cases: Vec::new(),
    };
    let topics = settings.list("source.topics");
    let topic = topics.iter().find(|topic| !is_pattern(topic));
    let topic = topic.map_or("", String::as_str);
    match cases_of(file) {
        Ok(cases) => {
            for case in cases {
                let reported = run_case(&suite.name, &case, steps, topic, update);
                suite.cases.push(reported);
            }
        }
        Err(reason) => {
            say!("FAILED  {}: {reason}", suite.name);
            suite.cases.push(Reported {
                name: "(no cases)".to_owned(),
                took: Duration::ZERO,
                failure: Some(reason),
            });
        }
    }
    suite
}

fn run_case(route: &str, case: &Case, steps: &Steps, topic: &str, update: bool) -> Reported {
    let started = Instant::now();
    let ran = case.run(steps, topic, update);
    let took = started.elapsed();
    let name = format!("{route}: {}", case.name);
    let failure = match ran {
        Err(reason) => {
            say!("FAILED  {name}\n  {reason}");
            Some(reason)
        }
        Ok(ran) if !ran.differences.is_empty() => {
            say!(
                "FAILED  {name} ({})\n{}",
                ran.tally,
                ran.differences.trim_end()
            );
            Some(ran.differences)
        }
        Ok(ran) => {
            let word = if ran.updated { "updated" } else { "ok     " };
            say!("{word} {name} ({})", ran.tally);
            None
        }
    };
    Reported {
        name: case.name.clone(),
        took,
        failure,
    }
}
