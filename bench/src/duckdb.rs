//! DuckDB, the measure for Parquet: the same filter and projection from a local NDJSON file to one Parquet file, on one thread.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use keystone_tests::{Doing, Error, Events, Judge, Result, Verdict, process};
use tempfile::TempDir;

use crate::measure::{self, Cost};

const VERSION: &str = "2.0.0";
const INSTALL: Duration = Duration::from_secs(600);

/// DuckDB, and the file with the events that it reads.
pub(crate) struct DuckDb {
    python: PathBuf,
    script: PathBuf,
    directory: TempDir,
}

/// What one run cost.
pub(crate) struct Run {
    /// The whole process, the start of Python included.
    pub(crate) whole: Cost,
    /// The query alone, as the process itself counted it; the peak is that of the process.
    pub(crate) query: Cost,
}

impl DuckDb {
    /// Installs DuckDB from PyPI, once, into `.bench` of the workspace, and writes the events to a file, one a line.
    pub(crate) fn prepare(root: &Path, events: &Events) -> Result<DuckDb> {
        let python = installed(&root.join(".bench")).doing("installing DuckDB")?;
        let directory = tempfile::tempdir()?;
        let mut file = BufWriter::new(File::create(directory.path().join(EVENTS))?);
        for number in 0..events.count() {
            writeln!(file, "{}", events.event(number))?;
        }
        file.flush()?;
        Ok(DuckDb {
            python,
            script: root.join("bench/duckdb/to_parquet.py"),
            directory,
        })
    }

    /// Runs the query once and judges the file by content.
    pub(crate) fn run(&self, events: &Events) -> Result<(Run, Verdict)> {
        let at = |name| self.directory.path().join(name);
        // A directory of its own, which the judge reads to its end.
        let out = tempfile::tempdir_in(&self.directory)?;
        let mut command = Command::new(&self.python);
        command.arg(&self.script).arg(at(EVENTS));
        command.arg(out.path().join("out.parquet")).arg(at(FIGURES));
        let whole = measure::run(&mut command)?;
        let figures = std::fs::read_to_string(at(FIGURES))?;
        let mut judge = Judge::new(events.expected_with_time(), "event_id");
        judge.parquet(out.path())?;
        let query = query_alone(&figures, whole)
            .ok_or_else(|| Error::new(format!("not the figures of the query: {figures}")))?;
        Ok((Run { whole, query }, judge.verdict()))
    }
}

const EVENTS: &str = "events.ndjson";
const FIGURES: &str = "figures";

fn query_alone(figures: &str, whole: Cost) -> Option<Cost> {
    let (cpu, wall) = figures.trim().split_once(' ')?;
    Some(Cost {
        cpu_seconds: cpu.parse().ok()?,
        wall_seconds: wall.parse().ok()?,
        ..whole
    })
}

/// The Python of a virtual environment with DuckDB. One that was not made to its end is made anew.
fn installed(cache: &Path) -> Result<PathBuf> {
    let home = cache.join(format!("duckdb-{VERSION}"));
    let python = home.join("bin/python");
    let mut import = Command::new(&python);
    import.args(["-c", "import duckdb"]);
    if import.output().is_ok_and(|output| output.status.success()) {
        return Ok(python);
    }
    eprintln!("installing DuckDB {VERSION} into {} (once)", home.display());
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv", "--clear"]).arg(&home);
    process::run("python3 -m venv", &mut venv, INSTALL)?;
    let mut pip = Command::new(&python);
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ]);
    pip.arg(format!("duckdb=={VERSION}"));
    process::run("pip install duckdb", &mut pip, INSTALL)?;
    Ok(python)
}
