//! One outcome at a time: delivered, filtered, rejected, to be sent again, too large.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use keystone::state::lock;

use crate::bench::{Bench, Entry, together};
use crate::scripted::{Act, NODE_AWAY, Scripted, reason};

#[test]
fn delivered_rejected_and_sent_again() {
    together(&[
        ("all_delivered", all_delivered),
        ("fates_in_between", fates_in_between),
        ("the_first_calls_fail", the_first_calls_fail),
        ("some_events_are_sent_again", some_events_are_sent_again),
        (
            "rejected_events_are_dead_letters",
            rejected_events_are_dead_letters,
        ),
        ("policy_discard", policy_discard),
        ("batches_too_large_are_split", batches_too_large_are_split),
        ("an_event_too_large_alone", an_event_too_large_alone),
    ]);
}

fn all_delivered() {
    let bench = Bench::new("all-delivered", 4);
    bench.produce(503);
    let running = bench.start(Scripted::new(&bench.record, |_| Act::done()), &[]);
    running.until("all is delivered", || bench.record.complete());
    running.until("all is delivered and committed", || {
        bench.record.complete()
            && running.status()["partitions"]
                .as_array()
                .is_some_and(|all| {
                    all.iter()
                        .filter(|each| each["committed"] == each["read"])
                        .count()
                        == 4
                })
    });
    let status = running.status();
    assert_eq!(status["ledger"]["delivered"], 503, "{status}");
    assert_eq!(status["ledger"]["in_flight"], 0, "{status}");
    assert_eq!(status["sink"]["failures"][0], NODE_AWAY, "{status}");
    assert_eq!(running.get("/readyz"), (200, "ok\n".to_owned()));
    let (_, metrics) = running.get("/metrics");
    let mut samples = metrics.lines().filter_map(|line| line.rsplit_once(' '));
    let start = samples.find(|(name, _)| name.starts_with("process_start_time_seconds{"));
    let start: f64 = start
        .and_then(|(_, value)| value.parse().ok())
        .expect("the worker says when it started");
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let age = now.expect("a clock that is set").as_secs_f64() - start;
    assert!((0.0..3_600.0).contains(&age), "{age}");
    let ledger = running.stop().expect("drained");
    assert_eq!(
        (ledger.consumed, ledger.delivered, ledger.in_flight),
        (503, 503, 0)
    );
    bench.assert_finished();
    bench.record.assert_once();
}

/// Delivered, filtered, discarded and bad events one after the other in each partition.
fn fates_in_between() {
    let bench = Bench::new("fates", 3);
    let entries: Vec<Entry> = (0..600)
        .map(|number| {
            let payload = match number / 3 % 5 {
                1 => format!("{{\"id\":{number},\"kind\":\"drop\",\"out\":[{number}]}}"),
                2 => format!("{{\"id\":{number},\"kind\":\"keep\"}}"),
                3 => format!("{{\"id\":{number},\"kind\":\"ke"),
                _ => format!("{{\"id\":{number},\"kind\":\"keep\",\"out\":[{number}]}}"),
            };
            Entry {
                key: Some(format!("key-{number}").into_bytes()),
                headers: vec![("trace".to_owned(), Some(format!("t-{number}").into_bytes()))],
                timestamp: Some(1_700_000_000_000 + number),
                ..Entry::payload((number % 3) as i32, payload)
            }
        })
        .collect();
    let places = bench.produce_entries(&entries);
    for (number, place) in places.iter().enumerate() {
        if matches!(number / 3 % 5, 0 | 4) {
            bench
                .record
                .expect(*place, Some(format!("[{number}]").into_bytes()));
        }
    }
    let options = ["filter=kind == 'keep'", "projection=out"];
    let running = bench.start(Scripted::new(&bench.record, |_| Act::done()), &options);
    running.until("all is settled", || {
        let ledger = running.shared.ledger.view();
        ledger.consumed == 600 && ledger.in_flight == 0
    });
    let ledger = running.stop().expect("drained");
    let counts = [
        ledger.delivered,
        ledger.filtered,
        ledger.discarded,
        ledger.dead_lettered,
    ];
    assert_eq!(counts, [240, 120, 120, 120]);
    assert_eq!(
        (ledger.consumed, ledger.abandoned, ledger.in_flight),
        (600, 0, 0)
    );
    bench.assert_finished();
    bench.record.assert_once();
    let mut bad = BTreeSet::new();
    for letter in bench.dead_letters(120) {
        let offset: i64 = letter
            .header("keystone.source.offset")
            .parse()
            .expect("a number");
        let partition: i32 = letter
            .header("keystone.source.partition")
            .parse()
            .expect("a number");
        let number = places
            .iter()
            .position(|place| *place == (partition, offset))
            .expect("ours");
        let entry = &entries[number];
        assert_eq!((&letter.key, &letter.payload), (&entry.key, &entry.payload));
        assert_eq!(letter.headers[0], entry.headers[0]);
        assert!(letter.timestamp > entry.timestamp, "dated anew");
        assert_eq!(letter.header("keystone.route"), "fates");
        assert_eq!(letter.header("keystone.source.topic"), "fates");
        assert_eq!(letter.header("keystone.stage"), "decode");
        assert!(!letter.header("keystone.reason").is_empty());
        let timestamp = entry.timestamp.unwrap_or_default().to_string();
        assert_eq!(letter.header("keystone.source.timestamp"), timestamp);
        bad.insert(number);
    }
    let expected: BTreeSet<usize> = (0..600).filter(|number| number / 3 % 5 == 3).collect();
    assert_eq!(bad, expected);
}

fn the_first_calls_fail() {
    let bench = Bench::new("first-calls-fail", 2);
    bench.produce(200);
    let sink = Scripted::new(&bench.record, |call| {
        if call.number < 25 {
            Act::retry()
        } else {
            Act::done()
        }
    });
    let running = bench.start(sink, &[]);
    running.until("all is delivered", || bench.record.complete());
    assert_eq!(
        running.shared.retries().get(&("sink", "scripted")),
        Some(&25)
    );
    let ledger = running.stop().expect("drained");
    assert_eq!((ledger.consumed, ledger.delivered), (200, 200));
    bench.assert_finished();
    bench.record.assert_once();
}

/// Every third event has to be sent again, three times.
fn some_events_are_sent_again() {
    let bench = Bench::new("partial-retry", 2);
    bench.produce(300);
    let seen = Mutex::new(std::collections::HashMap::new());
    let sink = Scripted::new(&bench.record, move |call| {
        let mut seen = lock(&seen);
        let retry = call.batch.events().enumerate().filter(|(_, event)| {
            let times: &mut u32 = seen.entry((event.partition, event.offset)).or_default();
            *times += 1;
            event.offset % 3 == 0 && *times <= 3
        });
        Act::parts(Vec::new(), retry.map(|(index, _)| index).collect())
    });
    let running = bench.start(sink, &[]);
    running.until("all is delivered", || bench.record.complete());
    let ledger = running.stop().expect("drained");
    assert_eq!((ledger.consumed, ledger.delivered), (300, 300));
    bench.assert_finished();
    bench.record.assert_once();
}

fn rejected_events_are_dead_letters() {
    let bench = Bench::new("rejected", 2);
    bench.produce(200);
    // Some are rejected only after others of their batch were sent again.
    let sink = Scripted::new(&bench.record, |call| {
        let rejected = call.chosen(|(_, offset)| offset % 4 == 1);
        let retry = call.chosen(|(_, offset)| offset % 4 == 2);
        if call.number < 10 {
            Act::parts(rejected, retry)
        } else {
            Act::parts(rejected, Vec::new())
        }
    });
    let running = bench.start(sink, &[]);
    running.until("all is settled", || {
        let ledger = running.shared.ledger.view();
        ledger.consumed == 200 && ledger.in_flight == 0
    });
    let status = running.status().to_string();
    assert!(
        status.contains("(stage sink)") && !status.contains("no room for"),
        "the reason may quote a value: {status}"
    );
    let ledger = running.stop().expect("drained");
    assert_eq!((ledger.delivered, ledger.dead_lettered), (150, 50));
    bench.assert_finished();
    bench.record.assert_once();
    let mut letters = BTreeSet::new();
    for letter in bench.dead_letters(50) {
        let partition = letter
            .header("keystone.source.partition")
            .parse()
            .expect("a number");
        let offset: i64 = letter
            .header("keystone.source.offset")
            .parse()
            .expect("a number");
        assert_eq!(letter.header("keystone.stage"), "sink");
        assert_eq!(
            letter.header("keystone.reason"),
            reason((partition, offset))
        );
        assert_eq!(offset % 4, 1);
        letters.insert((partition, offset));
    }
    assert_eq!(letters.len(), 50);
}

fn policy_discard() {
    let bench = Bench::new("policy-discard", 2);
    bench.produce(100);
    bench.produce_entries(&[Entry::payload(0, "{"), Entry::payload(1, "")]);
    let sink = Scripted::new(&bench.record, |call| {
        Act::parts(call.chosen(|(_, offset)| offset % 10 == 5), Vec::new())
    });
    let options = ["dead.letter.policy=discard", "log.event.values=true"];
    let running = bench.start(sink, &options);
    running.until("all is settled", || {
        let ledger = running.shared.ledger.view();
        ledger.consumed == 102 && ledger.in_flight == 0
    });
    let status = running.status().to_string();
    assert!(status.contains("no room for"), "{status}");
    let ledger = running.stop().expect("drained");
    assert_eq!(
        (ledger.delivered, ledger.discarded, ledger.dead_lettered),
        (90, 12, 0)
    );
    bench.assert_finished();
    bench.dead_letters(0);
}

fn batches_too_large_are_split() {
    let bench = Bench::new("too-large", 2);
    bench.produce(333);
    let sink = Scripted::new(&bench.record, |call| {
        if call.batch.len() > 1 {
            Act::too_large()
        } else {
            Act::done()
        }
    });
    let running = bench.start(sink, &["delivery.batch.max.events=64"]);
    running.until("all is delivered", || bench.record.complete());
    let ledger = running.stop().expect("drained");
    assert_eq!(
        (ledger.consumed, ledger.delivered, ledger.dead_lettered),
        (333, 333, 0)
    );
    bench.assert_finished();
    bench.record.assert_once();
}

fn an_event_too_large_alone() {
    let bench = Bench::new("too-large-alone", 1);
    bench.produce(100);
    let places: BTreeSet<_> = [(0, 0), (0, 17), (0, 18), (0, 99)].into();
    let huge = places.clone();
    let record = bench.record.clone();
    let sink = Scripted::new(&bench.record, move |call| {
        if call.chosen(|place| huge.contains(&place)).is_empty() {
            return Act::done();
        }
        if call.batch.len() == 1 {
            let event = call.batch.event(0);
            record.rejected((event.partition, event.offset));
        }
        Act::too_large()
    });
    let running = bench.start(sink, &[]);
    running.until("all is settled", || {
        let ledger = running.shared.ledger.view();
        ledger.consumed == 100 && ledger.in_flight == 0
    });
    let ledger = running.stop().expect("drained");
    assert_eq!((ledger.delivered, ledger.dead_lettered), (96, 4));
    bench.assert_finished();
    bench.record.assert_once();
    let letters: BTreeSet<_> = bench
        .dead_letters(4)
        .iter()
        .map(|letter| {
            assert_eq!(letter.header("keystone.stage"), "sink");
            assert_eq!(letter.header("keystone.reason"), "by the script");
            (
                0,
                letter
                    .header("keystone.source.offset")
                    .parse()
                    .expect("a number"),
            )
        })
        .collect();
    assert_eq!(letters, places);
}
