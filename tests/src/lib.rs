//! What the end-to-end tests stand on: real servers, a generator of events that knows what must come out, and a judge of what did.
//!
//! - [`provision`] downloads each server once; [`kafka`], [`elasticsearch`], [`metastore`] and [`s3`] start it on free loopback ports.
//! - [`worker`] runs the real `keystone` binary.
//! - [`events`] makes events and tells, in plain Rust and without our own language, what a route must deliver of them.
//! - [`proxy`] stands before a server and misbehaves; [`battery`] runs faults over each sink and tradeoff.
//! - [`judge`] reads a sink to its end and names what is lost, duplicated, unexpected or wrong.
//!
//! A server that can't be had is an error, never a skipped test. Nothing outlives the test process, however it ends: see [`process`].
//! All calls block; tests are plain functions, not async ones.
#![forbid(unsafe_code)]

pub mod battery;
pub mod elasticsearch;
pub mod events;
pub mod judge;
pub mod kafka;
pub mod metastore;
pub mod metrics;
pub mod process;
pub mod provision;
pub mod proxy;
pub mod s3;
pub mod stream;
pub mod worker;

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::future::Future;
use std::net::TcpListener;
use std::path::Path;
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use elasticsearch::Elasticsearch;
pub use events::Events;
pub use judge::{Judge, Verdict};
pub use kafka::Kafka;
pub use metastore::Metastore;
pub use s3::S3;
pub use stream::Stream;
pub use worker::{Route, Worker, keystone};

/// Dates a file back by this much.
pub fn make_old(path: &Path, age: Duration) -> Result<()> {
    let file = File::options().write(true).open(path);
    let file = file.doing(format!("opening {}", path.display()))?;
    file.set_modified(SystemTime::now() - age)?;
    Ok(())
}

/// A text for the person who reads the failed test. Takes any error by `?`; prints the same as debug, so that `unwrap` is readable.
pub struct Error(String);

impl Error {
    pub fn new(text: impl Into<String>) -> Error {
        Error(text.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl<E: std::error::Error> From<E> for Error {
    fn from(error: E) -> Error {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !text.contains(&cause_text) {
                text.push_str(": ");
                text.push_str(&cause_text);
            }
            source = cause.source();
        }
        Error(text)
    }
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Puts what was being done in front of an error.
pub trait Doing<T> {
    fn doing(self, what: impl fmt::Display) -> Result<T>;
}

impl<T, E: Into<Error>> Doing<T> for std::result::Result<T, E> {
    fn doing(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|error| Error(format!("{what}: {}", error.into())))
    }
}

/// How often a condition is looked at while a test waits for it.
const POLL: Duration = Duration::from_millis(50);

/// Waits until `condition` holds. Panics with `what` when it does not within `deadline`.
#[track_caller]
pub fn wait_until(deadline: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let outcome = wait_for(deadline, what, || match condition() {
        true => Ok(()),
        false => Err(Error::new("not yet")),
    });
    if outcome.is_err() {
        panic!("waited {deadline:?} in vain until {what}");
    }
}

/// Asks `probe` until it answers. The error names `what` and the last error of the probe.
pub fn wait_for<T>(
    deadline: Duration,
    what: &str,
    mut probe: impl FnMut() -> Result<T>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        match probe() {
            Ok(answer) => return Ok(answer),
            Err(error) if start.elapsed() >= deadline => {
                return Err(Error(format!(
                    "waited {deadline:?} in vain for {what}: {error}"
                )));
            }
            Err(_) => std::thread::sleep(POLL),
        }
    }
}

/// A free TCP port on loopback, never given twice by this process.
///
/// It lies below the range that outgoing connections take theirs from: while a server is stopped to be restarted on its port, a client
/// that keeps trying could otherwise be given that very port, and even connect to itself.
pub fn free_port() -> u16 {
    const FIRST: u32 = 15_000;
    const COUNT: u32 = 17_000;
    static GIVEN: LazyLock<Mutex<HashSet<u16>>> = LazyLock::new(Mutex::default);
    let clock = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.subsec_nanos());
    let start = clock ^ std::process::id().wrapping_mul(2_654_435_761);
    let mut given = GIVEN.lock().expect("no holder of this lock panics");
    for step in 0..COUNT {
        let port = (FIRST + start.wrapping_add(step) % COUNT) as u16;
        if !given.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            given.insert(port);
            return port;
        }
    }
    panic!(
        "no free port on 127.0.0.1 between {FIRST} and {}",
        FIRST + COUNT
    );
}

/// Runs a future of an async client to its end.
pub fn block_on<F: Future>(future: F) -> F::Output {
    static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a tokio runtime")
    });
    RUNTIME.block_on(future)
}

/// An HTTP client for servers on loopback: no proxy, each request has a deadline.
pub fn http() -> &'static reqwest::blocking::Client {
    static CLIENT: LazyLock<reqwest::blocking::Client> = LazyLock::new(|| {
        reqwest::blocking::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(30))
            .build()
            .expect("an HTTP client")
    });
    &CLIENT
}
