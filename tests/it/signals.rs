//! Signals that end a worker.

use std::time::{Duration, Instant};

use keystone_tests::{Kafka, Result, Worker};

use crate::scenario::{END, Outgoing, WORK, consumed, last_line, route, send, silent_server};

/// Signals that come sooner after the first one are the same one to the worker.
const SAME_SIGNAL: Duration = Duration::from_millis(100);

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

/// Who does not want to wait for a drain that may take long sends a second signal: the worker ends at once, and nothing is committed.
#[test]
fn a_second_signal_ends_a_drain_at_once() -> Result<()> {
    let kafka = Kafka::shared()?;
    kafka.create_topic("second-signal-in", 1, &[])?;
    send(kafka, "second-signal-in", &[Outgoing::new("{}")])?;
    let more = format!(
        "sink.type = elasticsearch\nsink.elasticsearch.urls = {}\nsink.elasticsearch.index = i\n\
         delivery.shutdown.drain.max.ms = {}",
        silent_server()?,
        // It ends far sooner, or this test ends first.
        2 * END.as_millis()
    );
    let mut worker = Worker::spawn(&route(kafka, "second-signal", "second-signal-in", &more))?;
    consumed(&mut worker, 1)?;
    worker.sigterm()?;
    worker.wait_until(WORK, "it drains", |worker| {
        Ok(worker.stderr().contains("SIGTERM: draining"))
    })?;
    let draining = Instant::now();
    worker.wait_until(WORK, "another signal counts", |_| {
        Ok(draining.elapsed() > SAME_SIGNAL)
    })?;
    worker.signal("INT")?;
    let (status, log) = worker.wait_exit(END)?;
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(
        last_line(&log).contains("SIGINT again: ended at once"),
        "{log}"
    );
    let committed = kafka.committed("second-signal", "second-signal-in")?;
    assert!(
        committed.values().all(|offset| *offset == 0),
        "{committed:?}"
    );
    Ok(())
}
