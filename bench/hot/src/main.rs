//! The guard against regressions: instructions for each event of every case, counted by callgrind, beside a checked-in baseline.
//!
//! A case is run in processes of its own, once with few and once with more rounds. The difference is what rounds alone cost: start, input and
//! warming up are in both. Instructions repeat to a fraction of a percent whatever else the machine does; another compiler or C library moves
//! them, so the baseline says which compiler it is of.

mod baseline;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::{Parser, Subcommand};
use keystone_hot_path::{CASES, Case};

use baseline::{Baseline, Counts};

/// Rounds of the two runs.
const FEW: u32 = 2;
const MORE: u32 = 22;

#[derive(Debug, Parser)]
#[command(name = "hot-path", about = "Counts the instructions of the hot path")]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Counts, and fails where a case takes more instructions than the baseline allows
    Check {
        /// Percent by which a count may grow
        #[arg(long, default_value_t = 3.0)]
        allow: f64,
        /// Make what was counted the new baseline
        #[arg(long)]
        accept: bool,
    },
    /// Runs a case, to be looked at from outside
    Run { case: String, rounds: u32 },
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().action {
        Action::Check { allow, accept } => check(allow, accept),
        Action::Run { case, rounds } => run(&case, rounds),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(name: &str, rounds: u32) -> Result<(), String> {
    let case = CASES.iter().find(|case| case.name == name);
    let case = case.ok_or_else(|| {
        let known: Vec<&str> = CASES.iter().map(|case| case.name).collect();
        format!(
            "no case is named {name}; the cases are {}",
            known.join(", ")
        )
    })?;
    let mut round = (case.make)();
    for _ in 0..rounds {
        round();
    }
    Ok(())
}

fn check(allow: f64, accept: bool) -> Result<(), String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("baseline.txt");
    let directory = std::env::current_exe()
        .map_err(|error| format!("finding this program: {error}"))?
        .with_file_name("hot-path-profiles");
    std::fs::create_dir_all(&directory)
        .map_err(|error| format!("making {}: {error}", directory.display()))?;
    let mut counts = Counts::new();
    for case in &CASES {
        let few = instructions(case, FEW, &directory)?;
        let more = instructions(case, MORE, &directory)?;
        let events = case.events * u64::from(MORE - FEW);
        counts.insert(case.name.to_owned(), more.saturating_sub(few) / events);
    }
    let found = Baseline {
        compiler: compiler()?,
        counts,
    };
    if accept {
        return found.write(&path);
    }
    let baseline = Baseline::read(&path)?;
    let report = baseline.compare(&found, allow);
    println!("{}", report.text);
    match report.failed {
        false => Ok(()),
        true => Err(format!(
            "The hot path takes more instructions than bench/hot/baseline.txt allows. Profiles of both runs of each case, for callgrind_annotate, are in {}.\n\
             To accept the new counts: make bench-guard GUARD=--accept, and commit the file with the reason.",
            directory.display()
        )),
    }
}

/// Instructions of a process that runs so many rounds.
fn instructions(case: &Case, rounds: u32, directory: &Path) -> Result<u64, String> {
    let program =
        std::env::current_exe().map_err(|error| format!("finding this program: {error}"))?;
    let profile: PathBuf = directory.join(format!("{}-{rounds}.callgrind", case.name));
    let mut valgrind = Command::new("valgrind");
    valgrind
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(program)
        .args(["run", case.name, &rounds.to_string()]);
    let output = valgrind.output().map_err(|error| {
        format!("starting valgrind: {error}; `tests/setup.sh bench` installs it")
    })?;
    let text = String::from_utf8_lossy(&output.stderr);
    let count = text
        .lines()
        .find_map(|line| line.split_once("Collected : "))
        .and_then(|(_, count)| count.trim().parse().ok());
    match count {
        Some(count) if output.status.success() => Ok(count),
        _ => Err(format!(
            "{} under valgrind failed ({}):\n{text}",
            case.name, output.status
        )),
    }
}

/// The compiler that builds here, for example `rustc 1.95.0 (…)`.
fn compiler() -> Result<String, String> {
    let output = Command::new("rustc").arg("--version").output();
    let output = output.map_err(|error| format!("asking rustc for its version: {error}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
