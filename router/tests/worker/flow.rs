//! Back pressure, stops under load, two workers in one group.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use crate::bench::{Bench, together};
use crate::scripted::{Act, Scripted};

#[test]
fn flow() {
    together(&[
        (
            "a_slow_sink_bounds_what_is_in_flight",
            a_slow_sink_bounds_what_is_in_flight,
        ),
        ("a_stop_under_load", a_stop_under_load),
        ("two_workers_one_stops", two_workers_one_stops),
        (
            "a_partition_that_left_paused_comes_back",
            a_partition_that_left_paused_comes_back,
        ),
        ("an_idle_worker_stops", an_idle_worker_stops),
        (
            "a_coordinator_that_is_not_ready_yet",
            a_coordinator_that_is_not_ready_yet,
        ),
    ]);
}

/// A sink that asks for every batch again until it is open.
fn closed_until(bench: &Bench, open: &Arc<AtomicBool>) -> Scripted {
    let open = open.clone();
    Scripted::new(&bench.record, move |_| {
        if open.load(Ordering::Relaxed) {
            Act::done()
        } else {
            Act::retry()
        }
    })
}

/// 20,000 events wait; the worker takes in what its limits allow, pauses, and delivers all when the sink comes round.
fn a_slow_sink_bounds_what_is_in_flight() {
    const BOUND: u64 = 2 * (2 + 3) * 50; // lanes × (in flight + queued + waiting for room + filling) × batch
    let bench = Bench::new("slow-sink", 4);
    bench.produce(20_000);
    let open = Arc::new(AtomicBool::new(false));
    let sink = closed_until(&bench, &open);
    let options = [
        "delivery.batch.max.events=50",
        "delivery.batch.max.age.ms=5000",
        "delivery.max.in.flight=2",
    ];
    let running = bench.start(sink, &options);
    let shared = running.shared.clone();
    let most = || {
        let in_flight = shared.ledger.view().in_flight;
        assert!(
            in_flight <= BOUND,
            "{in_flight} events in flight, at most {BOUND} are allowed"
        );
        in_flight
    };
    running.until("both lanes are paused", || {
        most();
        shared.paused_lanes.load(Ordering::Relaxed) == 2
    });
    let paused = Instant::now();
    running.until("a while has passed", || {
        most();
        paused.elapsed() > Duration::from_secs(2)
    });
    assert_eq!(bench.record.count(), 0);
    assert!(most() >= 2 * 2 * 50);
    assert_eq!(running.status()["lanes"]["paused"], 2);
    open.store(true, Ordering::Relaxed);
    running.until("all is delivered", || {
        most();
        bench.record.complete()
    });
    let ledger = running.stop().expect("drained");
    assert_eq!((ledger.consumed, ledger.delivered), (20_000, 20_000));
    bench.assert_finished();
    bench.record.assert_once();
}

/// What SIGTERM does: drained and committed, and the next worker delivers the rest, nothing twice.
fn a_stop_under_load() {
    const COUNT: usize = 10_000; // far more than the lanes hold
    let bench = Bench::new("stop-under-load", 4);
    bench.produce(COUNT);
    let open = Arc::new(AtomicBool::new(false));
    let some = {
        let (open, taken) = (open.clone(), AtomicUsize::new(0));
        Scripted::new(&bench.record, move |call| {
            let first = taken.fetch_add(call.batch.len(), Ordering::Relaxed) < 500;
            if first || open.load(Ordering::Relaxed) {
                Act::after_ms(call.number % 9, Act::done())
            } else {
                Act::retry()
            }
        })
    };
    let running = bench.start(some, &["delivery.shutdown.drain.max.ms=120000"]);
    running.until("some is delivered", || bench.record.count() >= 500);
    running.shared.request_stop();
    // Twice: the first round after the request may be one that still hands over what was read.
    for _ in 0..2 {
        let now = Instant::now();
        running.until("the consumer thread has gone round", || {
            now.elapsed() > running.shared.heartbeat_age()
        });
    }
    open.store(true, Ordering::Relaxed);
    let first = running.stop().expect("drained");
    assert_eq!((first.consumed, first.in_flight), (first.delivered, 0));
    assert!(first.delivered < COUNT as u64, "there was no load any more");
    bench.assert_commits_safe();
    assert_eq!(
        bench.committed().values().sum::<i64>(),
        first.delivered as i64
    );
    let running = bench.start(
        Scripted::new(&bench.record, |call| {
            Act::after_ms(call.number % 9, Act::done())
        }),
        &[],
    );
    running.until("all is delivered", || bench.record.complete());
    let second = running.stop().expect("drained");
    assert_eq!(first.delivered + second.delivered, COUNT as u64);
    bench.assert_finished();
    bench.record.assert_once();
}

/// Two workers of one group; partitions move when the second comes, and when the first goes under load.
fn two_workers_one_stops() {
    let bench = Bench::new("two-workers", 4);
    let slow = || {
        Scripted::new(&bench.record, |call| {
            Act::after_ms(call.number % 5, Act::done())
        })
    };
    let one = bench.start(slow(), &[]);
    bench.produce(500);
    one.until("the first has all partitions", || {
        one.shared.offsets().keys().len() == 4
    });
    // The mock cluster refuses commits while the group rebalances, also where a real broker takes them, and throws out who waits for one
    // then. So nothing is left to commit when the second comes, and both get a commit through before the first goes.
    one.until("all is committed", || bench.committed() == bench.ends());
    let two = bench.start(slow(), &[]);
    two.until("the second has its share", || {
        one.shared.offsets().keys().len() == 2 && two.shared.offsets().keys().len() == 2
    });
    let commits = || [&one, &two].map(|each| each.shared.commits.load(Ordering::Relaxed));
    let stable = commits();
    two.until("the group has settled down", || {
        bench.produce(20);
        commits().iter().zip(stable).all(|(now, then)| *now > then)
    });
    bench.produce(2_000);
    let before = two.shared.ledger.view().delivered;
    two.until("the second delivers", || {
        two.shared.ledger.view().delivered > before
    });
    let first = one.stop().expect("drained");
    bench.produce(300);
    two.until("all is delivered", || bench.record.complete());
    let second = two.stop().expect("drained");
    assert!(
        first.delivered > 0 && second.delivered > 0,
        "{first:?} {second:?}"
    );
    bench.assert_finished();
    bench.record.assert_once();
}

/// Librdkafka remembers a pause when the partition goes; it must not hold when the partition is back.
fn a_partition_that_left_paused_comes_back() {
    let bench = Bench::new("left-paused", 4);
    bench.produce(8_000);
    let open = Arc::new(AtomicBool::new(false));
    let closed_at_first = closed_until(&bench, &open);
    let options = [
        "delivery.max.in.flight=1",
        "delivery.rebalance.drain.max.ms=100",
    ];
    let one = bench.start(closed_at_first, &options);
    one.until("both lanes are paused", || {
        one.shared.paused_lanes.load(Ordering::Relaxed) == 2
    });
    let two = bench.start(Scripted::new(&bench.record, |_| Act::done()), &options);
    two.until("the second has its share", || {
        two.shared.offsets().keys().len() == 2
    });
    open.store(true, Ordering::Relaxed);
    one.until("the lanes of the first go on", || {
        one.shared.paused_lanes.load(Ordering::Relaxed) == 0
    });
    two.stop().expect("drained");
    one.until("all partitions are back", || {
        one.shared.offsets().keys().len() == 4
    });
    bench.produce(100);
    one.until("all is delivered", || bench.record.complete());
    one.stop().expect("drained");
    bench.assert_finished();
}

fn an_idle_worker_stops() {
    let bench = Bench::new("idle", 2);
    let running = bench.start(Scripted::new(&bench.record, |_| Act::done()), &[]);
    running.until("it has its partitions", || {
        running.shared.offsets().keys().len() == 2
    });
    let ledger = running.stop().expect("drained");
    assert_eq!((ledger.consumed, ledger.in_flight), (0, 0));
    assert!(
        bench.committed().values().all(|offset| *offset == 0),
        "{:?}",
        bench.committed()
    );
}

/// A broker that comes back refuses to say what a group has committed, at once each time: the worker asks until it does.
fn a_coordinator_that_is_not_ready_yet() {
    const REFUSAL: RDKafkaRespErr = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_COORDINATOR;
    let bench = Bench::new("not-coordinator", 2);
    let own = MockCluster::new(1).expect("the mock cluster starts");
    own.create_topic(&bench.name, 2, 1)
        .expect("the topic is made");
    own.request_errors(RDKafkaApiKey::OffsetFetch, &[REFUSAL; 10]);
    let servers = format!("kafka.bootstrap.servers={}", own.bootstrap_servers());
    let sink = Scripted::new(&bench.record, |_| Act::done());
    let running = bench.start(sink, &[&servers]);
    running.until("it has its partitions", || {
        running.shared.offsets().keys().len() == 2
    });
    running.stop().expect("drained");
}
