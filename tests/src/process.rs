//! A child process that never outlives this one.
//!
//! `Drop` kills the child's whole process group. For the case that this process is killed itself, and for servers kept in a `static`, a
//! watchdog stands beside each child: a shell that reads a pipe whose other end only we hold. When we are gone, however that came about, the
//! read ends and the shell kills the group and removes its scratch directory. (`PR_SET_PDEATHSIG` would not do: it fires when the *thread*
//! that spawned the child ends, and every test has its own thread.)

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::{Doing, Error, Result, wait_for};

/// Log4j 2's settings for a server: warnings, to its console.
pub(crate) const LOG4J: &str = "\
status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601} %p %m (%c{1})%n
rootLogger.level = WARN
rootLogger.appenderRef.out.ref = out
";

const WATCHDOG: &str = r#"read line && exit
kill -s KILL -- "-$1" 2>/dev/null
[ -z "$2" ] && exit
left=50
while [ $left -gt 0 ] && kill -s 0 -- "-$1" 2>/dev/null; do left=$((left - 1)); sleep 0.1; done
rm -rf -- "$2""#;

/// How long the kernel may take to end a killed group.
const KILLED: Duration = Duration::from_secs(10);

/// A running (or ended) child with its log.
pub struct Process {
    name: String,
    child: Child,
    watchdog: Child,
    log: PathBuf,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts `command` in a process group of its own, its output appended to `log`. `scratch` is removed if this process dies without
    /// its own clean-up.
    pub fn spawn(
        name: &str,
        command: &mut Command,
        log: &Path,
        scratch: Option<&Path>,
    ) -> Result<Process> {
        Process::spawn_split(name, command, log, log, scratch)
    }

    /// The same with standard output in a file of its own.
    pub fn spawn_split(
        name: &str,
        command: &mut Command,
        log: &Path,
        stdout: &Path,
        scratch: Option<&Path>,
    ) -> Result<Process> {
        command
            .stdin(Stdio::null())
            .stdout(append(stdout)?)
            .stderr(append(log)?)
            .process_group(0);
        let child = command.spawn().doing(format!(
            "starting {name} ({})",
            command.get_program().display()
        ))?;
        let watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "watchdog", &child.id().to_string()])
            .arg(scratch.unwrap_or(Path::new("")))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .doing("starting a watchdog with sh")?;
        Ok(Process {
            name: name.to_owned(),
            child,
            watchdog,
            log: log.to_owned(),
            status: None,
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The status of a child that has ended. (Processes that it started may still run; `stop` and `kill` end them.)
    pub fn exited(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().ok().flatten();
        }
        self.status
    }

    /// Waits for the child's own end.
    pub fn wait_exit(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let name = self.name.clone();
        let ended = wait_for(deadline, &format!("the end of {name}"), || {
            self.exited().ok_or(Error::new("it still runs"))
        });
        ended.map_err(|error| self.with_tail(error))
    }

    /// Waits until `probe` is answered; a child that ends instead is an error with the end of its log.
    pub fn wait_ready<T>(
        &mut self,
        deadline: Duration,
        mut probe: impl FnMut() -> Result<T>,
    ) -> Result<T> {
        let what = format!("an answer of {}", self.name);
        let mut ended = None;
        let answer = wait_for(deadline, &what, || {
            ended = self.exited();
            match ended {
                Some(_) => Ok(None),
                None => probe().map(Some),
            }
        });
        match answer {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => {
                let status = ended.map(|status| status.to_string()).unwrap_or_default();
                Err(self.with_tail(Error::new(format!(
                    "{} ended before it was ready ({status})",
                    self.name
                ))))
            }
            Err(error) => Err(self.with_tail(error)),
        }
    }

    /// Sends a signal (`TERM`, `STOP`, …) to the child.
    pub fn signal(&mut self, signal: &str) -> Result<()> {
        if self.exited().is_some() {
            return Err(self.with_tail(Error::new(format!(
                "{} has ended, SIG{signal} can't be sent to it",
                self.name
            ))));
        }
        send(signal, &self.child.id().to_string())
    }

    /// SIGTERM to the whole group; what is left of it after `grace` gets SIGKILL. (A launcher may end before the server it started.)
    pub fn stop(&mut self, grace: Duration) {
        let group = self.child.id();
        if group_lives(group) && send("TERM", &format!("-{group}")).is_ok() {
            let _ = wait_for(grace, "the end of the group", || {
                match self.exited().is_some() && !group_lives(group) {
                    true => Ok(()),
                    false => Err(Error::new("it still runs")),
                }
            });
        }
        self.kill();
    }

    /// SIGKILL to the whole group, and waits for its end.
    pub fn kill(&mut self) {
        // Without its watchdog's pipe all has been done before.
        let Some(mut pipe) = self.watchdog.stdin.take() else {
            return;
        };
        let group = self.child.id();
        if group_lives(group) {
            let _ = send("KILL", &format!("-{group}"));
        }
        let _ = wait_for(KILLED, "the end of the group", || {
            match self.exited().is_some() && !group_lives(group) {
                true => Ok(()),
                false => Err(Error::new("it still runs")),
            }
        });
        // The group's number may be given to others now: the watchdog must not kill it any more.
        let _ = pipe.write_all(b"done\n");
        drop(pipe);
        let _ = self.watchdog.wait();
    }

    /// The last lines of the log.
    pub fn tail(&self) -> String {
        tail(&self.log)
    }

    fn with_tail(&self, error: Error) -> Error {
        Error::new(format!(
            "{error}\n--- end of the log of {} ---\n{}\n---",
            self.name,
            self.tail()
        ))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a command to its end; an error carries its whole output.
pub fn run(name: &str, command: &mut Command, deadline: Duration) -> Result<()> {
    let log = tempfile::NamedTempFile::new()?;
    let mut process = Process::spawn(name, command, log.path(), None)?;
    let status = process.wait_exit(deadline)?;
    if status.success() {
        return Ok(());
    }
    let output = String::from_utf8_lossy(&std::fs::read(log.path())?).into_owned();
    Err(Error::new(format!(
        "{name} failed ({status})\n--- its output ---\n{output}\n---"
    )))
}

/// The last lines of a log file.
pub fn tail(log: &Path) -> String {
    const LINES: usize = 40;
    let bytes = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

fn append(log: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .doing(format!("opening the log {}", log.display()))
}

/// Whether a process of this group runs; a zombie does not.
fn group_lives(group: u32) -> bool {
    let member = |pid: &str| match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        // After the name in parentheses: state, parent, group.
        Ok(stat) => {
            let mut fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
            let runs = !matches!(fields.next(), Some("Z" | "X") | None);
            runs && fields.nth(1).and_then(|found| found.parse().ok()) == Some(group)
        }
        Err(_) => false,
    };
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().into_string().ok());
    pids.any(|name| name.starts_with(|first: char| first.is_ascii_digit()) && member(&name))
}

/// The shell's own `kill`: no `unsafe`, and no package that a small system may lack.
fn send(signal: &str, to: &str) -> Result<()> {
    let status = Command::new("sh")
        .args(["-c", r#"kill -s "$1" -- "$2""#, "kill", signal, to])
        .stderr(Stdio::null())
        .status()
        .doing("running kill with sh")?;
    match status.success() {
        true => Ok(()),
        false => Err(Error::new(format!("SIG{signal} could not be sent to {to}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_dies_early_shows_the_end_of_its_log() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such option; exit 3"]);
        let mut process = Process::spawn("server", &mut command, log.path(), None).unwrap();
        let error = process
            .wait_ready::<()>(Duration::from_secs(10), || Err(Error::new("refused")))
            .unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("server ended before it was ready") && text.contains("no such option"),
            "{text}"
        );
    }

    #[test]
    fn the_watchdog_kills_the_group_and_removes_the_scratch_directory() {
        let scratch = tempfile::tempdir().unwrap().keep();
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 600 & sleep 600"]);
        let mut process =
            Process::spawn("sleeper", &mut command, log.path(), Some(&scratch)).unwrap();
        let group = process.pid();
        assert!(group_lives(group));
        // What the death of this process does: the pipe closes.
        drop(process.watchdog.stdin.take());
        crate::wait_until(Duration::from_secs(10), "the group is killed", || {
            !group_lives(group)
        });
        process.wait_exit(Duration::from_secs(10)).unwrap();
        crate::wait_until(
            Duration::from_secs(10),
            "the scratch directory is removed",
            || !scratch.exists(),
        );
    }

    #[test]
    fn what_a_launcher_leaves_behind_is_ended_too() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 600 & exit 0"]);
        let mut process = Process::spawn("launcher", &mut command, log.path(), None).unwrap();
        process.wait_exit(Duration::from_secs(10)).unwrap();
        let group = process.pid();
        assert!(group_lives(group));
        process.stop(Duration::from_secs(10));
        assert!(!group_lives(group));
    }

    #[test]
    fn a_group_that_ignores_sigterm_is_killed() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' TERM; echo ready; while :; do sleep 1; done"]);
        let mut process = Process::spawn("stubborn", &mut command, log.path(), None).unwrap();
        let ready = || match std::fs::read_to_string(log.path())?.is_empty() {
            true => Err(Error::new("not yet")),
            false => Ok(()),
        };
        process.wait_ready(Duration::from_secs(10), ready).unwrap();
        process.stop(Duration::from_millis(300));
        assert!(!group_lives(process.pid()) && process.exited().is_some());
    }

    #[test]
    fn drop_kills_the_whole_group() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 600 & sleep 600"]);
        let process = Process::spawn("sleeper", &mut command, log.path(), None).unwrap();
        let group = process.pid();
        assert!(group_lives(group));
        drop(process);
        assert!(!group_lives(group));
    }
}
