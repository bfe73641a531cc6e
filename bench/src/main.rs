//! `make bench`: what the worker costs beside the floors, on one machine, in one run.
//!
//! Makes a topic of seeded events, runs each job some times, in turn, so that what else the machine does meets all of them alike, checks what
//! each run delivered by content, prints the table and writes it to `docs/benchmarks.md`; then, where `PEER_*` names the binary of a peer,
//! the peers and their table. Only the measured programs must be release builds; this one only starts and judges them.

mod duckdb;
mod floor;
mod jobs;
mod load;
mod measure;
mod origin;
mod peers;
mod scaling;
mod table;
mod tradeoffs;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use keystone_tests::{Doing, Error, Events, Result};

use jobs::{Bench, Job, Programs};
use table::Line;

const SEED: u64 = 1;

#[derive(Debug, Parser)]
#[command(
    name = "keystone-bench",
    about = "Measures the worker beside the floors"
)]
struct Arguments {
    /// How many events the topic holds
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    events: u64,
    /// Partitions of the topic; the table of the jobs with others than 8 has a place of its own
    #[arg(long, default_value_t = jobs::PARTITIONS, value_parser = clap::value_parser!(i32).range(1..), conflicts_with_all = ["tradeoffs", "scaling", "peers"])]
    partitions: i32,
    /// The jobs to run, or with `--tradeoffs` the rows, `kafka-low-latency` for example, separated by commas; all if not given
    #[arg(long, value_delimiter = ',')]
    jobs: Vec<String>,
    /// How often each job is run
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    repeats: u32,
    /// Measure what each word of `delivery.tradeoff` costs, instead of the jobs
    #[arg(long)]
    tradeoffs: bool,
    /// Measure how the cost grows with partitions, sizes, fields and lanes, instead of the jobs
    #[arg(long)]
    scaling: bool,
    /// Measure the peers of bench/peers, as far as this machine has them, instead of the jobs; after all jobs where a variable PEER_* names one
    #[arg(long)]
    peers: bool,
    /// Events a second for the tradeoffs
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..))]
    rate: u64,
    /// Seconds for which each tradeoff is looked at
    #[arg(long, default_value_t = tradeoffs::MIN_WINDOW, value_parser = clap::value_parser!(u64).range(tradeoffs::MIN_WINDOW..600))]
    window: u64,
    /// Only print the table
    #[arg(long)]
    dry_run: bool,
}

fn main() -> ExitCode {
    match bench(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn bench(arguments: &Arguments) -> Result<()> {
    let (chosen, cells) = match arguments.tradeoffs {
        true => (Vec::new(), tradeoffs::chosen(&arguments.jobs)?),
        false => (jobs::chosen(&arguments.jobs)?, Vec::new()),
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .ok_or_else(|| Error::new("the crate is not in the workspace"))?;
    // Before anything runs: the tree may be changed meanwhile.
    let page = Page {
        root,
        dry_run: arguments.dry_run,
        origin: origin::line(root),
    };
    let release = jobs::release(root);
    let scratch = tempfile::tempdir()?;
    let programs = Programs {
        root: root.to_owned(),
        worker: release.join("keystone"),
        mirror: floor::build("mirror", root, &release, scratch.path())?,
        latency: floor::build("latency", root, &release, scratch.path())?,
    };
    eprintln!("making {} events", arguments.events);
    let events = Events::new(SEED, arguments.events);
    let mut bench = Bench::start(events, arguments.partitions, programs)?;
    let wrong = if arguments.tradeoffs {
        let window = Duration::from_secs(arguments.window);
        let (floors, rows) = tradeoffs::run(&mut bench, &cells, arguments.rate, window);
        let table = tradeoffs::render(&floors, &rows, arguments.events, arguments.rate, window);
        page.put("tradeoffs", &table)?;
        rows.iter().filter(|row| row.is_wrong()).count()
    } else if arguments.scaling {
        let scaling = scaling::run(&bench, arguments.events, arguments.repeats)?;
        page.put("scaling", &scaling::render(&scaling, arguments.repeats))?;
        scaling.failures()
    } else if arguments.peers {
        run_peers(&mut bench, arguments, &page)?
    } else {
        let wrong = run_jobs(&mut bench, &chosen, arguments, &page)?;
        let as_usual = arguments.jobs.is_empty() && arguments.partitions == jobs::PARTITIONS;
        match (as_usual, peers::any_given()) {
            (true, true) => wrong + run_peers(&mut bench, arguments, &page)?,
            (true, false) => {
                eprintln!(
                    "no peer was run: PEER_VECTOR=<binary> or PEER_REDPANDA_CONNECT=<binary> adds the peers, `--peers` runs those of this machine"
                );
                wrong
            }
            (false, _) => wrong,
        }
    };
    match wrong {
        0 => Ok(()),
        wrong => Err(Error::new(format!("{wrong} lines failed; see above"))),
    }
}

/// Runs these jobs in turn; answers with how many went wrong.
fn run_jobs(
    bench: &mut Bench,
    chosen: &[Job],
    arguments: &Arguments,
    page: &Page<'_>,
) -> Result<usize> {
    let mut lines: Vec<Line> = chosen.iter().map(Line::new).collect();
    for repeat in 1..=arguments.repeats {
        for (job, line) in chosen.iter().zip(&mut lines) {
            run(bench, *job, repeat, line);
        }
    }
    let table = format!(
        "\n{} events in {} partitions; runs of each job: {}.\n\n{}{}\n",
        arguments.events,
        arguments.partitions,
        arguments.repeats,
        table::render(&lines, arguments.events, &jobs::FLOORS),
        load::render(&bench.loads, arguments.events)
    );
    let place = match arguments.partitions {
        jobs::PARTITIONS => "figures",
        _ => "partitions",
    };
    page.put(place, &table)?;
    Ok(lines.iter().filter(|line| line.wrong.is_some()).count())
}

/// Runs the peers in turn with the worker; answers with how many went wrong.
fn run_peers(bench: &mut Bench, arguments: &Arguments, page: &Page<'_>) -> Result<usize> {
    let rows = peers::run(bench, arguments.repeats);
    let table = peers::render(&rows, arguments.events, arguments.repeats);
    page.put("peers", &table)?;
    Ok(rows.iter().filter(|row| row.is_wrong()).count())
}

/// Where tables go.
struct Page<'a> {
    root: &'a Path,
    dry_run: bool,
    /// What they are of.
    origin: String,
}

impl Page<'_> {
    /// Shows a table and writes it into the place of this name in docs/benchmarks.md.
    fn put(&self, place: &str, table: &str) -> Result<()> {
        let table = format!("\n{}\n{table}", self.origin);
        println!("{table}");
        if self.dry_run {
            return Ok(());
        }
        let path = self.root.join("docs/benchmarks.md");
        let page = std::fs::read_to_string(&path).doing("reading docs/benchmarks.md")?;
        let page = table::insert(&page, place, &table)?;
        std::fs::write(&path, page).doing("writing docs/benchmarks.md")
    }
}

/// Runs a job once and takes its cost down, or what was wrong with it. A job that went wrong is not run again.
fn run(bench: &mut Bench, job: Job, repeat: u32, line: &mut Line) {
    if line.wrong.is_some() {
        return;
    }
    if !job.possible() {
        eprintln!("{}: its program is not installed", job.name);
        return;
    }
    match bench.run(job, &format!("{}-{repeat}", job.name)) {
        Ok((_, Some(verdict))) if !verdict.is_exact() => {
            let text = verdict.to_string();
            eprintln!("{}: the delivered set is wrong: {text}", job.name);
            line.wrong = Some(text.lines().next().unwrap_or_default().to_owned());
        }
        Ok((cost, _)) => {
            eprintln!(
                "{} ({repeat}): {:.2} CPU-s, {:.1} s",
                job.name, cost.cpu_seconds, cost.wall_seconds
            );
            line.costs.push(cost);
        }
        Err(error) => {
            eprintln!("{}: {error}", job.name);
            line.wrong = Some("it failed".to_owned());
        }
    }
}
