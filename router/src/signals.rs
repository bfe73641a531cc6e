//! Signals that ask a worker to drain and end.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use crate::state::Shared;
use crate::watchdog::aside;
use crate::worker::ended_within;

/// Signals that come together are one: some process managers send one to the process and to its group. A person takes longer.
const SAME_SIGNAL: Duration = Duration::from_millis(100);

/// How long the last words may take: nobody may read the log.
const TELL: Duration = Duration::from_secs(1);

/// Stops the worker on SIGTERM, SIGINT or SIGHUP. A second SIGTERM or SIGINT ends the process at once.
pub fn stop_on_signals(runtime: &Handle, shared: Arc<Shared>) -> io::Result<()> {
    let _entered = runtime.enter();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = match outlives_its_terminal() {
        true => None,
        false => Some(signal(SignalKind::hangup())?),
    };
    runtime.spawn(async move {
        let mut asked: Option<Instant> = None;
        loop {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
                Some(()) = async { hangup.as_mut()?.recv().await } => "SIGHUP",
            };
            match asked {
                None => {
                    asked = Some(Instant::now());
                    shared.request_stop();
                    aside(move || {
                        info!("{name}: draining; another SIGTERM or SIGINT ends it at once");
                    });
                }
                // A terminal that is closed on a worker that drains does not ask for more.
                Some(_) if name == "SIGHUP" => {}
                Some(first) if first.elapsed() < SAME_SIGNAL => {}
                Some(_) => {
                    ended_within(TELL, move || {
                        warn!(
                            "{name} again: ended at once; what is not committed is delivered again"
                        );
                    });
                    std::process::exit(1);
                }
            }
        }
    });
    Ok(())
}

/// Whether the process was started with SIGHUP ignored, as `nohup` does: then it stays ignored. Linux tells.
fn outlives_its_terminal() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignores_hangup(&status)
}

/// SIGHUP is signal 1, the lowest bit of the mask.
fn ignores_hangup(status: &str) -> bool {
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::ignores_hangup;

    #[test]
    fn the_mask_of_ignored_signals_is_read() {
        let status = |mask: &str| format!("SigBlk:\t0000000000000001\nSigIgn:\t{mask}\n");
        assert!(ignores_hangup(&status("0000000000001001")));
        assert!(!ignores_hangup(&status("0000000000001000")));
        assert!(!ignores_hangup(""));
    }
}
