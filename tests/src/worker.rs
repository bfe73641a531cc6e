//! Runs the real `keystone` binary: as a worker, or as a command.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::metrics::Metrics;
use crate::process::{self, Process};
use crate::{Doing, Error, Result, free_port, http, wait_for};

const BUILD: Duration = Duration::from_secs(1200);
/// For a command that is not a worker.
const COMMAND: Duration = Duration::from_secs(120);

/// The `keystone` binary, built from the present sources with the features of a build of the whole workspace.
pub fn binary() -> Result<&'static Path> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| build().map_err(|error| error.to_string()));
    built.as_deref().map_err(Error::new)
}

/// Builds it in the profile and target directory of the running test; does nothing where it is up to date.
fn build() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    // target/debug/deps/it-0123456789abcdef
    let profile = test
        .parent()
        .and_then(Path::parent)
        .ok_or_else(|| Error::new("the test is not in a target directory"))?;
    let name = profile
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or("debug");
    let target = profile
        .parent()
        .ok_or_else(|| Error::new("the test is not in a target directory"))?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into()));
    cargo.args([
        "build",
        "--quiet",
        "--locked",
        "--workspace",
        "--bin",
        "keystone",
    ]);
    // With a test target, cargo takes the same features as `cargo test --workspace` and compiles no dependency twice.
    cargo.args([
        "--test",
        "it",
        "--profile",
        if name == "debug" { "dev" } else { name },
    ]);
    cargo.arg("--manifest-path").arg(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .unwrap_or(Path::new("."))
            .join("Cargo.toml"),
    );
    cargo.arg("--target-dir").arg(target);
    // What `cargo test` tells this test about its own package makes build scripts that look at it run again, and all that rests on them.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&name);
        }
    }
    process::run("cargo build", &mut cargo, BUILD).doing("building the keystone binary")?;
    Ok(profile.join("keystone"))
}

/// How a worker is to be started.
#[derive(Debug, Clone, Default)]
pub struct Route {
    properties: String,
    args: Vec<String>,
    env: Vec<(String, String)>,
    program: Option<PathBuf>,
}

impl Route {
    /// The text of the route's property file.
    pub fn new(properties: impl Into<String>) -> Route {
        Route {
            properties: properties.into(),
            ..Route::default()
        }
    }

    /// More arguments of `keystone run`.
    pub fn args(mut self, args: &[&str]) -> Route {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }

    /// `--set key=value`.
    pub fn set(self, key: &str, value: &str) -> Route {
        self.args(&["--set", &format!("{key}={value}")])
    }

    pub fn env(mut self, name: &str, value: &str) -> Route {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs this binary instead of the one built by [`binary`].
    pub fn program(mut self, program: &Path) -> Route {
        self.program = Some(program.to_owned());
        self
    }

    /// Starts `keystone run`. It listens for administration on a free loopback port; nothing is waited for.
    pub fn spawn(&self) -> Result<Worker> {
        let dir = tempfile::Builder::new()
            .prefix("keystone-worker-")
            .tempdir()?;
        let config = dir.path().join("route.properties");
        std::fs::write(&config, &self.properties)?;
        let port = free_port();
        let program = match &self.program {
            Some(program) => program,
            None => binary()?,
        };
        let mut command = Command::new(program);
        command
            .arg("run")
            .arg("--config")
            .arg(&config)
            .args(["--set", &format!("admin.listen=127.0.0.1:{port}")]);
        command.args(&self.args).current_dir(dir.path());
        plain_environment(&mut command);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        let (stderr, stdout) = (dir.path().join("stderr"), dir.path().join("stdout"));
        let process = Process::spawn_split(
            "keystone run",
            &mut command,
            &stderr,
            &stdout,
            Some(dir.path()),
        )?;
        Ok(Worker {
            process,
            port,
            dir,
            started: Instant::now(),
        })
    }
}

/// A running (or ended) worker. Killed when dropped.
pub struct Worker {
    process: Process,
    port: u16,
    dir: TempDir,
    started: Instant,
}

/// The offset up to which a worker has read, by partition, in its `/status`; 0 where it has not read yet.
pub fn read_in(status: &Value) -> BTreeMap<i32, i64> {
    let partitions = status["partitions"].as_array().into_iter().flatten();
    let read = |partition: &Value| {
        let number = partition["partition"].as_i64()? as i32;
        Some((number, partition["read"].as_i64().unwrap_or(0)))
    };
    partitions.filter_map(read).collect()
}

impl Worker {
    /// A worker of this route, with nothing else set.
    pub fn spawn(properties: &str) -> Result<Worker> {
        Route::new(properties).spawn()
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Since the start.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Status and body of a request to the admin listener, for example `/livez`.
    pub fn get(&self, path: &str) -> Result<(u16, String)> {
        let response = http()
            .get(format!("http://127.0.0.1:{}{path}", self.port))
            .send()?;
        Ok((response.status().as_u16(), response.text()?))
    }

    pub fn metrics(&self) -> Result<Metrics> {
        match self.get("/metrics")? {
            (200, text) => Metrics::parse(&text),
            (status, text) => Err(Error::new(format!("/metrics answered {status}: {text}"))),
        }
    }

    /// `/status`.
    pub fn status(&self) -> Result<Value> {
        match self.get("/status")? {
            (200, text) => serde_json::from_str(&text).doing("reading /status"),
            (status, text) => Err(Error::new(format!("/status answered {status}: {text}"))),
        }
    }

    /// Whether `/readyz` answers 200, and its text.
    pub fn readyz(&self) -> Result<(bool, String)> {
        let (status, text) = self.get("/readyz")?;
        Ok((status == 200, text))
    }

    /// Waits until `/readyz` answers 200. A worker that ends instead is an error with the end of its log.
    pub fn wait_ready(&mut self, deadline: Duration) -> Result<()> {
        let url = format!("http://127.0.0.1:{}/readyz", self.port);
        self.process.wait_ready(deadline, || {
            let response = http().get(&url).timeout(Duration::from_secs(5)).send()?;
            match response.status().as_u16() {
                200 => Ok(()),
                status => Err(Error::new(format!(
                    "/readyz answered {status}: {}",
                    response.text()?
                ))),
            }
        })
    }

    /// Waits until `condition` holds. A worker that ends meanwhile is an error with the end of its log.
    pub fn wait_until(
        &mut self,
        deadline: Duration,
        what: &str,
        mut condition: impl FnMut(&Worker) -> Result<bool>,
    ) -> Result<()> {
        let outcome = wait_for(deadline, what, || match self.process.exited() {
            Some(status) => Ok(Some(status)),
            None if condition(self)? => Ok(None),
            None => Err(Error::new("not yet")),
        });
        match outcome {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(Error::new(format!(
                "the worker ended before {what} ({status})\n{}",
                self.stderr_tail()
            ))),
            Err(error) => Err(Error::new(format!("{error}\n{}", self.stderr_tail()))),
        }
    }

    pub fn sigterm(&mut self) -> Result<()> {
        self.process.signal("TERM")
    }

    /// SIGKILL, and waits for its end.
    pub fn sigkill(&mut self) {
        self.process.kill();
    }

    /// Any other signal, for example `STOP` and `CONT`.
    pub fn signal(&mut self, signal: &str) -> Result<()> {
        self.process.signal(signal)
    }

    pub fn has_exited(&mut self) -> bool {
        self.process.exited().is_some()
    }

    /// Waits for the worker's own end: its status and the end of its standard error.
    pub fn wait_exit(&mut self, deadline: Duration) -> Result<(ExitStatus, String)> {
        let status = self.process.wait_exit(deadline)?;
        Ok((status, self.stderr_tail()))
    }

    /// All of its log so far.
    pub fn stderr(&self) -> String {
        read(&self.dir.path().join("stderr"))
    }

    pub fn stderr_tail(&self) -> String {
        self.process.tail()
    }

    /// All it wrote to standard output so far (the sink `stdout`).
    pub fn stdout(&self) -> String {
        read(&self.dir.path().join("stdout"))
    }

    /// The most memory it ever held, in bytes.
    pub fn peak_rss(&self) -> Result<u64> {
        self.memory("VmHWM:")
    }

    /// The memory it holds now, in bytes.
    pub fn rss(&self) -> Result<u64> {
        self.memory("VmRSS:")
    }

    fn memory(&self, field: &str) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))
            .doing("reading the worker's memory")?;
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        Ok(
            kilobytes.ok_or_else(|| Error::new("the worker's memory is unknown: it has ended"))?
                * 1024,
        )
    }

    /// The processor time of all its threads so far, in seconds.
    pub fn cpu_seconds(&self) -> Result<f64> {
        // Linux counts in hundredths of a second towards programs.
        const TICKS: f64 = 100.0;
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()))
            .doing("reading the worker's CPU time")?;
        // The name, in parentheses, may hold spaces. After it the state is field 3; user and system time are 14 and 15.
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok());
        match (ticks(11), ticks(12)) {
            (Some(user), Some(system)) => Ok((user + system) / TICKS),
            _ => Err(Error::new(format!("not a line of /proc/PID/stat: {stat}"))),
        }
    }
}

/// What a command answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// `None`: ended by a signal.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs `keystone` with these arguments and this standard input.
pub fn keystone(args: &[&str], stdin: &[u8]) -> Result<Output> {
    let mut command = Command::new(binary()?);
    command
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    plain_environment(&mut command);
    let mut child = command.spawn().doing("starting keystone")?;
    let missing = || Error::new("a pipe of keystone is missing");
    let mut input = child.stdin.take().ok_or_else(missing)?;
    let mut out = child.stdout.take().ok_or_else(missing)?;
    let mut err = child.stderr.take().ok_or_else(missing)?;
    let collect = |pipe: &mut dyn Read| {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes)
            .map(|_| String::from_utf8_lossy(&bytes).into_owned())
    };
    std::thread::scope(|scope| {
        // The command may end without reading all; that is not an error here.
        scope.spawn(move || drop(input.write_all(stdin)));
        let stdout = scope.spawn(move || collect(&mut out));
        let stderr = scope.spawn(move || collect(&mut err));
        let what = format!("the end of keystone {}", args.join(" "));
        let ended = wait_for(COMMAND, &what, || {
            child.try_wait()?.ok_or_else(|| Error::new("it still runs"))
        });
        if ended.is_err() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let joined = |thread: std::thread::ScopedJoinHandle<'_, std::io::Result<String>>| {
            thread.join().expect("it does not panic")
        };
        let (stdout, stderr) = (joined(stdout)?, joined(stderr)?);
        let status = ended.map_err(|error| Error::new(format!("{error}\n{stderr}")))?;
        Ok(Output {
            code: status.code(),
            stdout,
            stderr,
        })
    })
}

/// Takes the variables away that would change a route.
fn plain_environment(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("KEYSTONE_") {
            command.env_remove(name);
        }
    }
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}
