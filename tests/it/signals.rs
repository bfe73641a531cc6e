//! Signals that end a worker.

use keystone_tests::{Result, Worker};

use crate::scenario::{END, WORK};

/// No broker has ever answered: a signal ends the worker all the same.
#[test]
fn signals_end_a_worker_that_never_reached_a_broker() -> Result<()> {
    let mut ending = Vec::new();
    for signal in ["TERM", "HUP"] {
        let mut worker = Worker::spawn(
            "route.name = nowhere\nsource.topics = none\nkafka.bootstrap.servers = 127.0.0.1:1\nsink.type = blackhole\n",
        )?;
        worker.wait_until(WORK, "readyz says that kafka is away", |worker| {
            let (ready, text) = worker.readyz()?;
            Ok(!ready && text.contains("kafka.bootstrap.servers"))
        })?;
        worker.signal(signal)?;
        ending.push((worker, signal));
    }
    for (mut worker, signal) in ending {
        let (status, log) = worker.wait_exit(END)?;
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(log.contains(&format!("SIG{signal}: draining")), "{log}");
    }
    Ok(())
}
