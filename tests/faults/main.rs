//! The battery of faults in its long form (`make faults`): every fault under every sink and tradeoff. Writes the table of
//! docs/delivery.md, and fails if a promise was broken.
//!
//! The arguments name faults to run alone (a part of a title is enough), and the environment variable `SEED` another seed; the table is
//! written only when all have run. Where a fault went wrong, Kafka's log of it is kept, below `target/tmp/faults`.

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use keystone_tests::battery::{Cell, Fault, Servers, run, table};
use keystone_tests::{Doing, Result};

const SEED: u64 = 20_261_124;

fn main() -> ExitCode {
    match battery() {
        Ok(0) => ExitCode::SUCCESS,
        Ok(broken) => {
            eprintln!("{broken} cells have broken a promise");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("the battery could not be run: {error}");
            ExitCode::FAILURE
        }
    }
}

/// How many cells have broken a promise.
fn battery() -> Result<usize> {
    let seed = match std::env::var("SEED") {
        Ok(text) => text.parse().doing("reading the variable SEED")?,
        Err(_) => SEED,
    };
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let is_wanted = |fault: &Fault| {
        wanted.is_empty()
            || wanted
                .iter()
                .any(|word| fault.title().contains(word.as_str()))
    };
    let start = Instant::now();
    let mut servers = Servers::start()?;
    let (mut rows, mut broken, mut not_run) = (table::Rows::new(), 0, Vec::new());
    for fault in Fault::ALL.into_iter().filter(is_wanted) {
        eprintln!("{:4} s  {}", start.elapsed().as_secs(), fault.title());
        let before = broken;
        match run(&mut servers, fault, &Cell::all(), seed) {
            Ok(outcomes) => {
                for (cell, outcome) in &outcomes {
                    eprintln!(
                        "        {:?} {}: {outcome}",
                        cell.sink,
                        cell.tradeoff.name()
                    );
                    broken += usize::from(!outcome.problems.is_empty());
                }
                if broken > before {
                    keep_log(&servers, fault);
                }
                rows.push((fault, outcomes));
            }
            Err(error) => {
                eprintln!("        NOT RUN TO ITS END: {error}");
                not_run.push(fault);
                keep_log(&servers, fault);
                // What is left of it must not disturb the next.
                servers = Servers::start()?;
            }
        }
    }
    eprintln!("{:4} s  done with seed {seed}", start.elapsed().as_secs());
    if wanted.is_empty() && not_run.is_empty() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        table::write(&root.join("docs/delivery.md"), &rows, seed)?;
    }
    Ok(broken + not_run.len())
}

/// The broker's directory goes with it, and Kafka's log is all that tells why a route stood still.
fn keep_log(servers: &Servers, fault: Fault) {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("faults");
    match servers.keep_log(fault, &directory) {
        Ok(path) => eprintln!("        Kafka's log: {}", path.display()),
        Err(error) => eprintln!("        Kafka's log was not kept: {error}"),
    }
}
