//! A TCP proxy on loopback that a test makes misbehave: it cuts, refuses, swallows, delays, slows down, or answers in the server's place.
//!
//! Two threads serve a connection, at most [`CONNECTIONS`] connections are open. What a test sets holds at once, for open connections
//! too; everything ends when the proxy is dropped.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::{Doing, Result, free_port};

/// Open at the same time; more are closed at once.
const CONNECTIONS: usize = 512;
/// How often a waiting thread looks at what the test has set.
const LOOK: Duration = Duration::from_millis(20);
const CONNECT: Duration = Duration::from_secs(5);
/// For a request to begin to come, where it is answered in the server's place.
const REQUEST: Duration = Duration::from_secs(5);
const WRITE: Duration = Duration::from_secs(60);
const BUFFER: usize = 16 * 1024;

/// What the proxy does with bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Pass,
    /// Open connections are cut, new ones closed as soon as they are made.
    Refuse,
    /// Connections open and stay open; nothing moves in either direction.
    BlackHole,
    /// Half a connection: what the client sends arrives, what the server answers waits.
    Half,
    /// What the server answers arrives this much later.
    Delay(Duration),
    /// What the client sends moves at this many bytes a second and connection.
    Throttle(u32),
    /// Where the server's answer has the first text, the client reads the second, of the same length.
    Rewrite(&'static str, &'static str),
    /// Open connections are cut; each request of a new one is answered with an HTTP status of 503.
    Unavailable,
    /// The same with another status, and `Retry-After` in seconds.
    Busy {
        status: u16,
        retry_after: u32,
    },
}

impl Mode {
    /// What is answered in the server's place.
    fn answer(self) -> Option<String> {
        let (status, header) = match self {
            Mode::Unavailable => (503, String::new()),
            Mode::Busy {
                status,
                retry_after,
            } => (status, format!("Retry-After: {retry_after}\r\n")),
            _ => return None,
        };
        Some(format!(
            "HTTP/1.1 {status} Refused\r\n{header}Content-Length: 0\r\nConnection: close\r\n\r\n"
        ))
    }
}

/// A connection on which a client has sent something.
#[derive(Debug, Clone, Copy)]
pub struct Visit {
    /// When its first bytes were there.
    pub arrived: Instant,
    /// When it was answered in the server's place: just before the answer was sent.
    pub refused: Option<Instant>,
}

/// The proxy of one server.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    listener: Option<std::thread::JoinHandle<()>>,
}

struct Shared {
    target: SocketAddr,
    mode: Mutex<Mode>,
    /// Connections of an older generation are cut.
    generation: AtomicU64,
    open: AtomicUsize,
    visits: Mutex<Vec<Visit>>,
    ended: AtomicBool,
}

impl Shared {
    fn visits(&self) -> MutexGuard<'_, Vec<Visit>> {
        self.visits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mode(&self) -> Mode {
        *self.mode.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether bytes that were read may not go on yet.
    fn holds_back(&self, answers: bool) -> bool {
        match self.mode() {
            Mode::BlackHole => true,
            Mode::Half => answers,
            _ => false,
        }
    }

    fn is_cut(&self, generation: u64) -> bool {
        self.ended.load(Ordering::SeqCst) || self.generation.load(Ordering::SeqCst) != generation
    }

    /// Waits; ends early, with false, when the connection is cut.
    fn wait(&self, time: Duration, generation: u64) -> bool {
        let start = Instant::now();
        while start.elapsed() < time {
            if self.is_cut(generation) {
                return false;
            }
            std::thread::sleep(LOOK.min(time));
        }
        !self.is_cut(generation)
    }
}

impl Proxy {
    /// Listens on a free port and passes everything on to `target`, a port on loopback. The server need not run yet.
    pub fn to(target: u16) -> Result<Proxy> {
        let port = free_port();
        let listener =
            TcpListener::bind(("127.0.0.1", port)).doing("opening the port of a proxy")?;
        listener.set_nonblocking(true)?;
        let shared = Arc::new(Shared {
            target: SocketAddr::from(([127, 0, 0, 1], target)),
            mode: Mutex::new(Mode::Pass),
            generation: AtomicU64::new(0),
            open: AtomicUsize::new(0),
            visits: Mutex::default(),
            ended: AtomicBool::new(false),
        });
        let serving = shared.clone();
        let listener = std::thread::spawn(move || serve(&listener, &serving));
        Ok(Proxy {
            port,
            shared,
            listener: Some(listener),
        })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Every connection so far on which a client has sent something, by the time at which the first bytes came.
    pub fn visits(&self) -> Vec<Visit> {
        let mut visits = self.shared.visits().clone();
        visits.sort_by_key(|visit| visit.arrived);
        visits
    }

    /// From now on; [`Mode::Refuse`] and those that answer cut what is open.
    pub fn set(&self, mode: Mode) {
        *self
            .shared
            .mode
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = mode;
        if mode == Mode::Refuse || mode.answer().is_some() {
            self.cut();
        }
    }

    /// Cuts the connections that are open.
    pub fn cut(&self) {
        self.shared.generation.fetch_add(1, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}

fn serve(listener: &TcpListener, shared: &Arc<Shared>) {
    while !shared.ended.load(Ordering::SeqCst) {
        let Ok((client, _)) = listener.accept() else {
            std::thread::sleep(LOOK);
            continue;
        };
        if shared.mode() == Mode::Refuse || shared.open.load(Ordering::SeqCst) >= CONNECTIONS {
            continue;
        }
        shared.open.fetch_add(1, Ordering::SeqCst);
        let connection = shared.clone();
        std::thread::spawn(move || {
            let _ = connect(client, &connection);
            connection.open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

/// One connection, to its end.
fn connect(mut client: TcpStream, shared: &Arc<Shared>) -> std::io::Result<()> {
    let generation = shared.generation.load(Ordering::SeqCst);
    client.set_nonblocking(false)?;
    client.set_nodelay(true)?;
    if let Some(answer) = shared.mode().answer() {
        let visit = refuse(&mut client, &answer)?;
        shared.visits().extend(visit);
        return Ok(());
    }
    while shared.mode() == Mode::BlackHole {
        if !shared.wait(LOOK, generation) {
            return Ok(());
        }
    }
    let server = TcpStream::connect_timeout(&shared.target, CONNECT)?;
    server.set_nodelay(true)?;
    let (from, to) = (server.try_clone()?, client.try_clone()?);
    let other = shared.clone();
    let answers = std::thread::spawn(move || pump(from, to, &other, generation, true));
    pump(client, server, shared, generation, false);
    let _ = answers.join();
    Ok(())
}

/// Answers after it has read what has come of the request, so that closing does not reset the connection before the answer is read.
/// `None` where nothing came.
fn refuse(client: &mut TcpStream, answer: &str) -> std::io::Result<Option<Visit>> {
    client.set_read_timeout(Some(REQUEST))?;
    let mut buffer = [0; BUFFER];
    let mut arrived = None;
    // A request of 64 MiB is the most that is read.
    for _ in 0..4096 {
        match client.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(_) if arrived.is_none() => {
                arrived = Some(Instant::now());
                client.set_read_timeout(Some(LOOK * 5))?;
            }
            Ok(_) => {}
        }
    }
    let refused = Some(Instant::now());
    client.write_all(answer.as_bytes())?;
    Ok(arrived.map(|arrived| Visit { arrived, refused }))
}

fn pump(mut from: TcpStream, mut to: TcpStream, shared: &Shared, generation: u64, answers: bool) {
    let mut buffer = [0; BUFFER];
    let mut silent = true;
    let _ = from.set_read_timeout(Some(LOOK));
    let _ = to.set_write_timeout(Some(WRITE));
    while !shared.is_cut(generation) {
        // In small pieces, so that a slow connection is slow evenly.
        let piece = match shared.mode() {
            Mode::Throttle(_) if !answers => 512,
            _ => BUFFER,
        };
        let count = match from.read(&mut buffer[..piece]) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                continue;
            }
            Err(_) => break,
        };
        if std::mem::take(&mut silent) && !answers {
            shared.visits().push(Visit {
                arrived: Instant::now(),
                refused: None,
            });
        }
        if let (Mode::Rewrite(from, to), true) = (shared.mode(), answers) {
            rewrite(&mut buffer[..count], from.as_bytes(), to.as_bytes());
        }
        while shared.holds_back(answers) {
            if !shared.wait(LOOK, generation) {
                break;
            }
        }
        let pause = match shared.mode() {
            Mode::Delay(time) if answers => time,
            Mode::Throttle(rate) if !answers => {
                Duration::from_secs_f64(count as f64 / f64::from(rate.max(1)))
            }
            _ => Duration::ZERO,
        };
        if !shared.wait(pause, generation) || to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// A text that comes in two pieces is missed.
fn rewrite(bytes: &mut [u8], from: &[u8], to: &[u8]) {
    assert_eq!(from.len(), to.len(), "an answer keeps its length");
    for start in 0..bytes.len().saturating_sub(from.len() - 1) {
        let piece = &mut bytes[start..start + from.len()];
        if piece == from {
            piece.copy_from_slice(to);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that sends everything back.
    fn echo() -> u16 {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let mut from = stream.try_clone().unwrap();
                    let _ = std::io::copy(&mut from, &mut &stream);
                });
            }
        });
        port
    }

    fn client(proxy: &Proxy) -> TcpStream {
        let client = TcpStream::connect(("127.0.0.1", proxy.port())).unwrap();
        client
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        client
    }

    fn echoes(client: &mut TcpStream, text: &[u8]) -> bool {
        let mut answer = vec![0; text.len()];
        client.write_all(text).is_ok() && client.read_exact(&mut answer).is_ok() && answer == text
    }

    #[test]
    fn it_passes_delays_throttles_and_swallows() {
        let proxy = Proxy::to(echo()).unwrap();
        let mut open = client(&proxy);
        assert!(echoes(&mut open, &[7; 100_000]));
        let start = Instant::now();
        proxy.set(Mode::Delay(Duration::from_millis(300)));
        assert!(echoes(&mut open, b"late"));
        assert!(start.elapsed() >= Duration::from_millis(300));
        let start = Instant::now();
        proxy.set(Mode::Throttle(10_000));
        assert!(echoes(&mut open, &[7; 3_000]));
        assert!(start.elapsed() >= Duration::from_millis(250));
        proxy.set(Mode::BlackHole);
        open.set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        assert!(!echoes(&mut open, b"swallowed"));
        let mut half = client(&proxy);
        proxy.set(Mode::Pass);
        assert!(echoes(&mut half, b"whole"));
        proxy.set(Mode::Half);
        half.set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        assert!(!echoes(&mut half, b"unanswered"));
    }

    #[test]
    fn it_rewrites_answers() {
        let proxy = Proxy::to(echo()).unwrap();
        let mut open = client(&proxy);
        proxy.set(Mode::Rewrite("now", "old"));
        open.write_all(b"it is now, now").unwrap();
        let mut answer = [0; 14];
        open.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"it is old, old");
    }

    #[test]
    fn it_cuts_refuses_and_answers_in_the_servers_place() {
        let proxy = Proxy::to(echo()).unwrap();
        let mut open = client(&proxy);
        assert!(echoes(&mut open, b"one"));
        proxy.cut();
        assert!(!echoes(&mut open, b"two"));
        assert!(echoes(&mut client(&proxy), b"three"));
        proxy.set(Mode::Refuse);
        assert!(!echoes(&mut client(&proxy), b"four"));
        proxy.set(Mode::Unavailable);
        let mut refused = client(&proxy);
        refused.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let mut answer = String::new();
        refused.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        proxy.set(Mode::Busy {
            status: 429,
            retry_after: 7,
        });
        let mut refused = client(&proxy);
        refused.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let mut answer = String::new();
        refused.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
        assert!(answer.contains("\r\nRetry-After: 7\r\n"), "{answer}");
        proxy.set(Mode::Pass);
        assert!(echoes(&mut client(&proxy), b"five"));
        let refused = proxy
            .visits()
            .iter()
            .map(|visit| visit.refused.is_some())
            .collect::<Vec<_>>();
        assert_eq!(refused, [false, false, true, true, false]);
    }
}
