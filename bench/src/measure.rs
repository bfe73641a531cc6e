//! What a process cost: processor time, wall time and memory, read from `/proc` while it runs and once more when it has ended.
//!
//! An ended process keeps its processor time until its parent waits for it, so the last figure is that of its whole life.

use std::fs::File;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use keystone_tests::{Doing, Error, Result};

/// Linux counts in hundredths of a second towards programs.
const TICKS: f64 = 100.0;
/// How often memory is looked at; it counts its own peak, so only the end can be missed.
const POLL: Duration = Duration::from_millis(5);
/// For one run of a program.
pub(crate) const RUN: Duration = Duration::from_secs(240);

/// The cost of one run, from the start of the process to its end.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    /// User and system time of all threads.
    pub(crate) cpu_seconds: f64,
    pub(crate) wall_seconds: f64,
    /// The most memory ever held (`VmHWM`).
    pub(crate) peak_bytes: u64,
}

/// Looks at a child until it has ended; the caller waits for it afterwards.
pub(crate) fn until_ended(pid: u32, started: Instant, deadline: Duration) -> Result<Cost> {
    let limit = Instant::now() + deadline;
    let mut peak_bytes = 0;
    while Instant::now() < limit {
        let (ended, cpu_seconds) = cpu(pid)?;
        if ended {
            return Ok(Cost {
                cpu_seconds,
                wall_seconds: started.elapsed().as_secs_f64(),
                peak_bytes,
            });
        }
        peak_bytes = peak_bytes.max(peak(pid).unwrap_or(0));
        std::thread::sleep(POLL);
    }
    Err(Error::new(format!(
        "process {pid} did not end within {deadline:?}"
    )))
}

/// Runs a command to its end, its output to nowhere. An exit code other than 0 is an error with what it said.
pub(crate) fn run(command: &mut Command) -> Result<Cost> {
    run_heard(command).map(|(cost, _)| cost)
}

/// The same, with what it said on its standard error.
pub(crate) fn run_heard(command: &mut Command) -> Result<(Cost, String)> {
    let name = command.get_program().display().to_string();
    let said = tempfile::NamedTempFile::new()?;
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(said.path())?);
    let started = Instant::now();
    let mut child = command.spawn().doing(format!("starting {name}"))?;
    let cost = until_ended(child.id(), started, RUN);
    if cost.is_err() {
        let _ = child.kill();
    }
    let status = child.wait()?;
    let text = std::fs::read_to_string(said.path()).unwrap_or_default();
    match status.success() || cost.is_err() {
        true => Ok((cost.doing(name)?, text)),
        false => Err(Error::new(format!("{name} failed ({status}): {text}"))),
    }
}

/// Whether the process has ended, and its processor time in seconds.
fn cpu(pid: u32) -> Result<(bool, f64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .doing(format!("reading the processor time of process {pid}"))?;
    parse_stat(&stat).ok_or_else(|| Error::new(format!("not a line of /proc/PID/stat: {stat}")))
}

fn parse_stat(stat: &str) -> Option<(bool, f64)> {
    // The name, in parentheses, may hold spaces. After it the state is field 3; user and system time are 14 and 15.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
    let ended = matches!(*fields.first()?, "Z" | "X");
    Some((ended, (ticks(11)? + ticks(12)?) / TICKS))
}

/// `None` once the process has ended.
fn peak(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_process_whose_name_holds_spaces_and_parentheses() {
        let stat = "7 (a b) c) Z 1 7 7 0 -1 4 0 0 0 0 150 25 0 0 20 0 1 0 5 0 0";
        assert_eq!(parse_stat(stat), Some((true, 1.75)));
        assert_eq!(parse_stat("7 (a) R 1"), None);
    }

    #[test]
    fn a_command_that_works_costs_time_and_memory() {
        let cost =
            run(Command::new("sh")
                .args(["-c", "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done"]))
            .unwrap();
        assert!(cost.cpu_seconds > 0.0 && cost.peak_bytes > 0, "{cost:?}");
    }

    #[test]
    fn a_command_that_fails_is_quoted() {
        let error = run(Command::new("sh").args(["-c", "echo no broker >&2; exit 3"])).unwrap_err();
        assert!(error.to_string().contains("no broker"), "{error}");
    }
}
