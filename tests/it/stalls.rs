//! A part of the worker that stands still, on the real binary. How each part is watched is tested beside the worker.

use keystone_tests::events::mixed;
use keystone_tests::{Kafka, Result, Worker};

use crate::scenario::{Outgoing, WORK, last_line, send};

/// Characters of the event that one lane is busy with for far longer than it takes to be noticed: each costs thousands of steps.
const LENGTH: u64 = 900_000;

/// A lane is at one event for many times `delivery.stall.max.ms`: `/livez` names it, then the worker ends and says why.
#[test]
fn a_lane_that_stands_still_ends_the_worker() -> Result<()> {
    let kafka = Kafka::shared()?;
    kafka.create_topic("stalled-in", 1, &[])?;
    // What has matched so far may go on at every `a`, so all places are followed at once.
    let properties = format!(
        "route.name = stalled\nsource.topics = stalled-in\nkafka.bootstrap.servers = {}\n\
         filter = regex_match(text, 'a[ab]{{1500}}[^ab]')\nsink.type = blackhole\n\
         delivery.lanes = 1\ndelivery.stall.max.ms = 1000\n",
        kafka.bootstrap()
    );
    let mut worker = Worker::spawn(&properties)?;
    worker.wait_ready(WORK)?;
    assert_eq!(worker.get("/livez")?, (200, "ok\n".to_owned()));
    let event = format!("{{\"text\":\"{}\"}}", letters(LENGTH));
    send(kafka, "stalled-in", &[Outgoing::new(event)])?;
    worker.wait_until(WORK, "/livez names the lane", |worker| {
        let (code, text) = worker.get("/livez")?;
        Ok(code == 503 && text.starts_with("lane 0 has stood still for "))
    })?;
    let (status, log) = worker.wait_exit(WORK)?;
    assert_eq!(status.code(), Some(1), "{log}");
    let reason = last_line(&log);
    assert!(
        reason.contains("lane 0 has stood still for ")
            && reason.contains("delivery.stall.max.ms = 1000 has passed twice"),
        "{log}"
    );
    Ok(())
}

/// As many of `a` and `b`, without a pattern.
fn letters(count: u64) -> String {
    let letter = |number| if mixed(number) & 1 == 0 { 'a' } else { 'b' };
    (0..count).map(letter).collect()
}
