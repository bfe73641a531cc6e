//! What stops a worker: an event that can't be delivered, a sink that is stuck, a fatal error. And what the next worker finds.

use std::sync::atomic::Ordering;

use keystone_sinks::SinkError;

use crate::bench::{Bench, Entry, together};
use crate::scripted::{Act, Scripted, reason};

#[test]
fn stuck_and_fatal() {
    together(&[
        ("policy_stop_at_the_sink", policy_stop_at_the_sink),
        ("policy_stop_in_the_lane", policy_stop_in_the_lane),
        ("an_answer_that_never_comes", an_answer_that_never_comes),
        ("a_stuck_sink_and_a_stop", a_stuck_sink_and_a_stop),
        ("fatal", fatal),
    ]);
}

fn policy_stop_at_the_sink() {
    let bench = Bench::new("policy-stop-sink", 1);
    bench.produce(100);
    let start = |options: &[&str]| {
        let sink = Scripted::new(&bench.record, |call| {
            Act::parts(call.chosen(|place| place == (0, 57)), Vec::new())
        });
        let running = bench.start(sink, options);
        running.ended().expect_err("it has to stop")
    };
    let stop = "dead.letter.policy=stop";
    let error = start(&[stop]);
    for words in [
        "policy-stop-sink-0 offset 57",
        "log.event.values = true",
        "dead.letter.policy = stop",
    ] {
        assert!(error.contains(words), "{error}");
    }
    assert!(!error.contains(&reason((0, 57))), "{error}");
    let error = start(&[stop, "log.event.values=true"]);
    assert!(error.contains(&reason((0, 57))), "{error}");
    let committed = bench.committed().get(&0).copied().unwrap_or(0);
    assert!(committed <= 57, "committed {committed}");
    bench.dead_letters(0);
}

fn policy_stop_in_the_lane() {
    let bench = Bench::new("policy-stop-lane", 1);
    bench.produce(40);
    bench.produce_entries(&[Entry::payload(0, "[1,")]);
    let running = bench.start(
        Scripted::new(&bench.record, |_| Act::done()),
        &["dead.letter.policy=stop"],
    );
    let error = running.ended().expect_err("it has to stop");
    assert!(
        error.contains("policy-stop-lane-0 offset 40") && error.contains("stage decode"),
        "{error}"
    );
    assert!(bench.committed().get(&0).copied().unwrap_or(0) <= 40);
    bench.assert_commits_safe();
}

/// One batch without an answer: the others go on, the commit does not pass it, and the next worker delivers it.
fn an_answer_that_never_comes() {
    let bench = Bench::new("never", 2);
    bench.produce(400);
    let sink = Scripted::new(&bench.record, |call| {
        if call.chosen(|place| place == (1, 33)).is_empty() {
            Act::done()
        } else {
            Act::Never
        }
    });
    let options = ["delivery.lanes=1", "delivery.shutdown.drain.max.ms=300"];
    let running = bench.start(sink, &options);
    running.until("the others are delivered", || bench.record.count() >= 390);
    let error = running.stop().expect_err("it can't be drained");
    assert!(
        error.contains("not settled within delivery.shutdown.drain.max.ms"),
        "{error}"
    );
    assert!(!bench.record.was_delivered((1, 33)));
    bench.assert_commits_safe();
    assert!(bench.committed().get(&1).copied().unwrap_or(0) <= 33);
    let running = bench.start(Scripted::new(&bench.record, |_| Act::done()), &options);
    running.until("all is delivered", || bench.record.complete());
    running.stop().expect("drained");
    bench.assert_finished();
}

/// Nothing is ever answered; the stop ends all the same when the time given is over.
fn a_stuck_sink_and_a_stop() {
    let bench = Bench::new("stuck", 2);
    bench.produce(10_000);
    let sink = Scripted::new(&bench.record, |_| Act::Never);
    let options = [
        "delivery.shutdown.drain.max.ms=500",
        "delivery.max.in.flight=3",
    ];
    let running = bench.start(sink, &options);
    running.until("all that may be is in flight", || {
        running.shared.paused_lanes.load(Ordering::Relaxed) == 2
    });
    let error = running.stop().expect_err("it can't be drained");
    assert!(
        error.contains("not settled within delivery.shutdown.drain.max.ms"),
        "{error}"
    );
    assert_eq!(bench.record.count(), 0);
    assert!(
        bench.committed().values().all(|offset| *offset == 0),
        "{:?}",
        bench.committed()
    );
}

fn fatal() {
    let bench = Bench::new("fatal", 2);
    bench.produce(600);
    let sink = Scripted::new(&bench.record, |call| {
        if call.number == 30 {
            return Act::Error(SinkError::Fatal(
                "sink.scripted.user has no rights".to_owned(),
            ));
        }
        Act::after_ms(call.number % 5, Act::done())
    });
    let error = bench.start(sink, &[]).ended().expect_err("it has to stop");
    assert_eq!(error, "sink.scripted.user has no rights");
    assert!(!bench.record.complete());
    bench.assert_commits_safe();
    let running = bench.start(Scripted::new(&bench.record, |_| Act::done()), &[]);
    running.until("all is delivered", || bench.record.complete());
    running.stop().expect("drained");
    bench.assert_finished();
}
