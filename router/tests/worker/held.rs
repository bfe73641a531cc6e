//! Batches that the sink holds and makes durable later, and what it loses: rewinds.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use keystone::state::lock;
use keystone_sinks::SinkError;

use crate::bench::{Bench, together};
use crate::scripted::{Act, Call, Scripted, cause, reason};

#[test]
fn held_batches_and_rewinds() {
    together(&[
        ("durable_by_tick", durable_by_tick),
        ("durable_by_flush_at_shutdown", durable_by_flush_at_shutdown),
        ("durable_by_a_later_delivery", durable_by_a_later_delivery),
        ("a_batch_held_in_parts", a_batch_held_in_parts),
        (
            "a_batch_of_which_one_half_is_held",
            a_batch_of_which_one_half_is_held,
        ),
        ("a_flush_that_fails_at_first", a_flush_that_fails_at_first),
        (
            "a_flush_that_asks_for_a_rewind",
            a_flush_that_asks_for_a_rewind,
        ),
        ("one_rewind", one_rewind),
        ("rewinds_of_a_holding_sink", rewinds_of_a_holding_sink),
        (
            "a_rewind_while_a_batch_is_filled",
            a_rewind_while_a_batch_is_filled,
        ),
        ("a_rewind_ends_stuck_calls", a_rewind_ends_stuck_calls),
    ]);
}

fn durable_by_tick() {
    let bench = Bench::new("by-tick", 3);
    bench.produce(500);
    let sink = Scripted::new(&bench.record, |_| Act::hold())
        .holding()
        .on_tick(|sink, number| match number % 3 {
            0 => Ok(sink.publish_all()),
            1 => Err(SinkError::Retry(cause("scripted_tick"))),
            _ => Ok(Vec::new()),
        });
    let running = bench.start(sink, &[]);
    running.until("all is durable and committed", || {
        bench.record.complete() && bench.committed() == bench.ends()
    });
    assert!(
        running
            .shared
            .retries()
            .contains_key(&("sink", "scripted_tick"))
    );
    let ledger = running.stop().expect("drained");
    assert_eq!(
        (ledger.consumed, ledger.delivered, ledger.abandoned),
        (500, 500, 0)
    );
    bench.assert_finished();
    bench.record.assert_once();
}

fn durable_by_flush_at_shutdown() {
    let bench = Bench::new("by-flush", 3);
    bench.produce(500);
    let running = bench.start(Scripted::new(&bench.record, |_| Act::hold()).holding(), &[]);
    running.until("all is held", || running.sink.held_events() == 500);
    let ledger = running.shared.ledger.view();
    assert_eq!((ledger.delivered, ledger.in_flight), (0, 500));
    assert!(
        bench.committed().values().all(|offset| *offset == 0),
        "{:?}",
        bench.committed()
    );
    let ledger = running.stop().expect("drained");
    assert_eq!(
        (ledger.consumed, ledger.delivered, ledger.in_flight),
        (500, 500, 0)
    );
    bench.assert_finished();
    bench.record.assert_once();
}

fn a_flush_that_fails_at_first() {
    let bench = Bench::new("flush-fails", 2);
    bench.produce(200);
    let sink = Scripted::new(&bench.record, |_| Act::hold())
        .holding()
        .on_flush(|sink, number| match number {
            0..3 => Err(SinkError::Retry(cause("scripted_flush"))),
            _ => Ok(sink.publish_all()),
        });
    let running = bench.start(sink, &[]);
    running.until("all is held", || running.sink.held_events() == 200);
    let ledger = running.stop().expect("drained");
    assert_eq!((ledger.delivered, ledger.in_flight), (200, 0));
    bench.assert_finished();
    bench.record.assert_once();
}

/// What the sink held is lost while the worker stops: nothing of it is committed, the next worker delivers it.
fn a_flush_that_asks_for_a_rewind() {
    let bench = Bench::new("flush-rewinds", 2);
    bench.produce(200);
    let sink = Scripted::new(&bench.record, |_| Act::hold())
        .holding()
        .on_flush(|_, _| Err(SinkError::Rewind(cause("scripted_flush"))));
    let running = bench.start(sink, &["delivery.shutdown.drain.max.ms=500"]);
    running.until("all is held", || running.sink.held_events() == 200);
    let error = running.stop().expect_err("nothing could be made durable");
    assert!(error.contains("delivery.shutdown.drain.max.ms"), "{error}");
    assert_eq!(bench.record.count(), 0);
    bench.assert_commits_safe();
    let running = bench.start(Scripted::new(&bench.record, |_| Act::done()), &[]);
    running.until("all is delivered", || bench.record.complete());
    running.stop().expect("drained");
    bench.assert_finished();
    bench.record.assert_once();
}

/// Each fifth call makes durable what the calls before it left held.
fn durable_by_a_later_delivery() {
    let bench = Bench::new("by-delivery", 3);
    bench.produce(500);
    let sink = Scripted::new(&bench.record, |call| Act::Answer {
        rejected: call.chosen(|(_, offset)| offset % 50 == 7),
        retry: Vec::new(),
        held: call.number % 2 == 0,
        publish: call.number % 5 == 4,
    });
    let running = bench.start(sink.holding(), &[]);
    running.until("all is read", || {
        running.shared.ledger.view().consumed == 500
    });
    let ledger = running.stop().expect("drained");
    assert_eq!(
        (ledger.consumed, ledger.in_flight, ledger.abandoned),
        (500, 0, 0)
    );
    assert_eq!(ledger.delivered + ledger.dead_lettered, 500);
    bench.assert_finished();
    bench.record.assert_once();
    for letter in bench.dead_letters(ledger.dead_lettered as usize) {
        let place = (
            letter
                .header("keystone.source.partition")
                .parse()
                .expect("a number"),
            letter
                .header("keystone.source.offset")
                .parse()
                .expect("a number"),
        );
        assert_eq!(letter.header("keystone.reason"), reason(place));
    }
}

/// The first half of a batch is durable before the sink sees the second: the batch is settled when both are.
fn a_batch_held_in_parts() {
    let bench = Bench::new("held-in-parts", 2);
    bench.produce(300);
    let sink = Scripted::new(&bench.record, |call| {
        if call.batch.len() > 3 {
            return Act::too_large();
        }
        Act::Answer {
            rejected: Vec::new(),
            // One of three comes back once more, after the others were made durable.
            retry: if call.batch.len() == 3 {
                vec![1]
            } else {
                Vec::new()
            },
            held: true,
            publish: call.number % 3 == 0,
        }
    });
    let running = bench.start(sink.holding(), &[]);
    running.until("all is taken over", || {
        bench.record.count() + running.sink.held_events() == 300
    });
    let ledger = running.stop().expect("drained");
    assert_eq!(
        (ledger.delivered, ledger.in_flight, ledger.abandoned),
        (300, 0, 0)
    );
    bench.assert_finished();
    bench.record.assert_once();
}

/// One half has nothing to hold (all rejected, or delivered at once), the other is held: before it or after it.
fn a_batch_of_which_one_half_is_held() {
    let bench = Bench::new("half-held", 1);
    bench.produce(300);
    let sink = Scripted::new(&bench.record, |call| {
        let all: Vec<usize> = (0..call.batch.len()).collect();
        match (call.batch.len(), call.batch.event(0).offset % 4) {
            (3.., _) => Act::too_large(),
            (_, 0) => Act::parts(all, Vec::new()),
            (_, 1) => Act::done(),
            _ => Act::Answer {
                rejected: Vec::new(),
                retry: Vec::new(),
                held: true,
                publish: call.number % 3 == 0,
            },
        }
    });
    let running = bench.start(sink.holding(), &[]);
    running.until("all is taken over", || {
        let ledger = running.shared.ledger.view();
        ledger.consumed == 300 && running.shared.pending_batches.load(Ordering::Relaxed) == 0
    });
    let ledger = running.stop().expect("drained");
    assert_eq!(
        (ledger.consumed, ledger.in_flight, ledger.abandoned),
        (300, 0, 0)
    );
    bench.assert_finished();
    bench.record.assert_once();
}

fn one_rewind() {
    let bench = Bench::new("one-rewind", 3);
    bench.produce(600);
    let open = Arc::new(AtomicBool::new(false));
    let script = {
        let open = open.clone();
        move |call: &Call<'_>| match call.number {
            17 => Act::rewind(),
            // Before the rewind is carried out, however late that is, nothing more is done.
            18.. if !open.load(Ordering::Relaxed) => Act::retry(),
            number => Act::after_ms(number % 7, Act::done()),
        }
    };
    let running = bench.start(Scripted::new(&bench.record, script), &[]);
    let sink = running.sink.clone();
    running.until("what was on its way is dropped", || {
        sink.abandons.load(Ordering::Relaxed) > 0
    });
    open.store(true, Ordering::Relaxed);
    running.until("all is settled", || bench.settled(&running.shared));
    let ledger = running.stop().expect("drained");
    assert_eq!(sink.abandons.load(Ordering::Relaxed), 1);
    assert_eq!(ledger.in_flight, 0);
    assert_eq!(ledger.consumed, ledger.delivered + ledger.abandoned);
    assert_eq!(ledger.delivered as usize, 600 + bench.record.duplicates());
    // What may come twice is what was done before: ten events a call.
    assert!(
        bench.record.duplicates() <= 17 * 10,
        "{}",
        bench.record.duplicates()
    );
    bench.assert_finished();
}

/// Rewinds asked for by deliveries and ticks, with batches held. Several that are asked for at once are one, so each is asked for until it
/// is carried out: what was not settled comes again, and asks for the next.
fn rewinds_of_a_holding_sink() {
    let bench = Bench::new("rewinds", 3);
    bench.produce(600);
    let sink = Scripted::new(&bench.record, |call| match (call.rewinds, call.number) {
        (0, 9..) | (1..3, 31..) => Act::rewind(),
        _ => Act::Answer {
            rejected: Vec::new(),
            retry: Vec::new(),
            held: true,
            // Twice early on: far from all is durable then.
            publish: matches!(call.number, 5 | 20),
        },
    });
    let sink = sink
        .holding()
        .on_tick(|sink, _| match sink.abandons.load(Ordering::SeqCst) {
            3 => Err(SinkError::Rewind(cause("scripted_tick"))),
            4.. => Ok(sink.publish_all()),
            _ => Ok(Vec::new()),
        });
    let running = bench.start(sink, &[]);
    let sink = running.sink.clone();
    running.until("all is settled, after the rewinds", || {
        sink.abandons.load(Ordering::Relaxed) >= 4 && bench.settled(&running.shared)
    });
    let ledger = running.stop().expect("drained");
    assert_eq!(ledger.in_flight, 0, "{ledger:?}");
    assert_eq!(
        ledger.consumed,
        ledger.delivered + ledger.abandoned,
        "{ledger:?}"
    );
    bench.assert_finished();
}

/// What a lane had taken into a batch that was not full goes with the rewind: it is not delivered beside what is read again.
fn a_rewind_while_a_batch_is_filled() {
    let bench = Bench::new("rewind-filling", 2);
    bench.produce(200);
    let rewind = Arc::new(AtomicBool::new(false));
    let wanted = rewind.clone();
    let sink = Scripted::new(&bench.record, |_| Act::done())
        .holding()
        .on_tick(move |_, _| match wanted.swap(false, Ordering::SeqCst) {
            true => Err(SinkError::Rewind(cause("scripted_tick"))),
            false => Ok(Vec::new()),
        });
    let settings = [
        "delivery.batch.max.age.ms=5000",
        "delivery.batch.max.events=1000",
    ];
    let running = bench.start(sink, &settings);
    let consumed = || running.shared.ledger.view().consumed;
    running.until("all is in batches that are filled", || consumed() == 200);
    rewind.store(true, Ordering::SeqCst);
    running.until("all is read again and settled", || {
        consumed() == 400 && bench.settled(&running.shared)
    });
    let ledger = running.stop().expect("drained");
    assert_eq!((ledger.delivered, ledger.abandoned), (200, 200));
    bench.assert_finished();
    bench.record.assert_once();
}

/// Some calls never end, one asks for a rewind: the stuck ones are dropped, and their events delivered.
fn a_rewind_ends_stuck_calls() {
    let bench = Bench::new("rewind-stuck", 2);
    bench.produce(400);
    let healthy = Arc::new(AtomicBool::new(false));
    let script = {
        let healthy = healthy.clone();
        let stuck = Mutex::new(0);
        move |call: &Call<'_>| {
            let mut stuck = lock(&stuck);
            if healthy.load(Ordering::SeqCst) || call.number.is_multiple_of(2) {
                return Act::done();
            }
            if *stuck == 3 {
                healthy.store(true, Ordering::SeqCst);
                return Act::rewind();
            }
            *stuck += 1;
            Act::Never
        }
    };
    let running = bench.start(Scripted::new(&bench.record, script), &[]);
    running.until("all is settled", || bench.settled(&running.shared));
    assert!(healthy.load(Ordering::SeqCst));
    let sink = running.sink.clone();
    running.until("no call is left", || {
        sink.under_way.load(Ordering::SeqCst) == 0
    });
    let ledger = running.stop().expect("drained");
    assert_eq!(ledger.consumed, ledger.delivered + ledger.abandoned);
    bench.assert_finished();
}
