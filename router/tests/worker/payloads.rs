//! What is in the records: bad payloads, tombstones, keys, headers and timestamps; and where a new group begins.

use std::sync::{Arc, Mutex};

use keystone::state::lock;
use keystone_sinks::{Answer, Batch, BoxFuture, Sink, SinkError};

use crate::bench::{Bench, Entry, together};
use crate::scripted::{Act, Scripted};

#[test]
fn payloads_and_starts() {
    together(&[
        ("good_and_bad_payloads", good_and_bad_payloads),
        ("tombstones_to_dead_letters", tombstones_to_dead_letters),
        ("tombstones_discarded", tombstones_discarded),
        ("tombstones_delivered", tombstones_delivered),
        ("raw_payloads", raw_payloads),
        ("hygiene", hygiene),
        ("hygiene_that_discards", hygiene_that_discards),
        ("all_parts_reach_the_sink", all_parts_reach_the_sink),
        ("expressions_see_the_record", expressions_see_the_record),
        ("start_latest", start_latest),
        ("start_at_a_time", start_at_a_time),
    ]);
}

/// Payloads that are to be delivered byte for byte.
fn good() -> Vec<Vec<u8>> {
    let texts = [
        "{\n  \"pretty\": [\n    1,\n    2\n  ]\r\n}\n",
        "{\"n\":12345678901234567890123456789,\"f\":0.1000000000000000055511151231257827,\"e\":1E+400}",
        "{\"a\":1,\"a\":2}",
        " \t\"text\" ",
        "null",
        "[]",
        "{\"nul\":\"\\u0000\",\"name\":\"Zo\u{eb} \u{1f600}\"}",
    ];
    let mut all: Vec<Vec<u8>> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    all.push([vec![b'['; 128], vec![b']'; 128]].concat());
    all
}

/// Payloads that are no JSON, or not as the options allow it.
fn bad() -> Vec<Vec<u8>> {
    vec![
        b"".to_vec(),
        b" \n".to_vec(),
        b"not json".to_vec(),
        b"{\"cut\":\"of".to_vec(),
        b"{\"a\":1}{\"b\":2}".to_vec(),
        b"{\"latin\":\"Zo\xeb\"}".to_vec(),
        b"{\"nul\":\"\0\"}".to_vec(),
        b"{\"a\":01}".to_vec(),
        vec![b'['; 100_000],
        [vec![b'['; 100_000], vec![b']'; 100_000]].concat(),
    ]
}

fn good_and_bad_payloads() {
    let bench = Bench::new("payloads", 2);
    let entries: Vec<Entry> = good()
        .into_iter()
        .chain(bad())
        .map(|payload| Entry::payload(0, payload))
        .collect();
    let places = bench.produce_entries(&entries);
    for (place, entry) in places.iter().zip(&entries).take(good().len()) {
        bench.record.expect(*place, entry.payload.clone());
    }
    bench.produce(10);
    let total = (entries.len() + 10) as u64;
    let running = bench.start(Scripted::new(&bench.record, |_| Act::done()), &[]);
    running.until("all is settled", || {
        let ledger = running.shared.ledger.view();
        ledger.consumed == total && ledger.in_flight == 0
    });
    running.stop().expect("drained");
    bench.assert_finished();
    bench.record.assert_once();
    let letters = bench.dead_letters(bad().len());
    for (number, payload) in bad().into_iter().enumerate() {
        let offset = (good().len() + number).to_string();
        let letter = letters
            .iter()
            .find(|letter| letter.header("keystone.source.offset") == offset)
            .unwrap_or_else(|| panic!("no dead letter of offset {offset}"));
        // Kafka's clients give an empty value back as one of length zero or as none.
        assert_eq!(letter.payload.clone().unwrap_or_default(), payload);
        assert_eq!(letter.header("keystone.stage"), "decode");
        assert!(!letter.header("keystone.reason").is_empty());
    }
}

/// Tombstones among other events, with the policy under test.
fn with_tombstones(
    name: &str,
    policy: &str,
    delivered: bool,
) -> (Bench, keystone::ledger::LedgerView) {
    let bench = Bench::new(name, 1);
    let entries: Vec<Entry> = (0..60)
        .map(|number| Entry {
            key: Some(format!("k{number}").into_bytes()),
            payload: (number % 3 != 0).then(|| format!("{{\"n\":{number}}}").into_bytes()),
            ..Entry::default()
        })
        .collect();
    let places = bench.produce_entries(&entries);
    for (place, entry) in places.iter().zip(&entries) {
        if entry.payload.is_some() || delivered {
            bench.record.expect(*place, entry.payload.clone());
        }
    }
    let running = bench.start(
        Scripted::new(&bench.record, |_| Act::done()),
        &[&format!("source.null.payload={policy}"), "filter=n > `0`"],
    );
    running.until("all is settled", || {
        let ledger = running.shared.ledger.view();
        ledger.consumed == 60 && ledger.in_flight == 0
    });
    let ledger = running.stop().expect("drained");
    bench.assert_finished();
    bench.record.assert_once();
    (bench, ledger)
}

fn tombstones_to_dead_letters() {
    let (bench, ledger) = with_tombstones("tombstones-dead", "dead-letter", false);
    assert_eq!((ledger.delivered, ledger.dead_lettered), (40, 20));
    for letter in bench.dead_letters(20) {
        assert_eq!(letter.payload, None);
        assert!(letter.header("keystone.reason").contains("tombstone"));
        let offset = letter.header("keystone.source.offset");
        assert_eq!(letter.key, Some(format!("k{offset}").into_bytes()));
    }
}

fn tombstones_discarded() {
    let (bench, ledger) = with_tombstones("tombstones-discarded", "discard", false);
    assert_eq!((ledger.delivered, ledger.discarded), (40, 20));
    bench.dead_letters(0);
}

fn tombstones_delivered() {
    let (bench, ledger) = with_tombstones("tombstones-delivered", "deliver", true);
    assert_eq!((ledger.delivered, ledger.discarded), (60, 0));
    bench.dead_letters(0);
}

fn raw_payloads() {
    let bench = Bench::new("raw", 1);
    let entries: Vec<Entry> = good()
        .into_iter()
        .chain(bad())
        .filter(|payload| !payload.is_empty())
        .map(|payload| Entry::payload(0, payload))
        .collect();
    let places = bench.produce_entries(&entries);
    for (place, entry) in places.iter().zip(&entries) {
        bench.record.expect(*place, entry.payload.clone());
    }
    let running = bench.start(
        Scripted::new(&bench.record, |_| Act::done()),
        &["source.format=raw"],
    );
    running.until("all is delivered", || bench.record.complete());
    running.stop().expect("drained");
    bench.assert_finished();
    bench.dead_letters(0);
}

/// Ten events in turn: clean, to be put right, without a required field, with a wrong type.
fn with_hygiene(name: &str, policy: &str) -> (Bench, keystone::ledger::LedgerView) {
    let bench = Bench::new(name, 1);
    let entries: Vec<Entry> = (0..40)
        .map(|number| {
            let payload = match number % 4 {
                0 => format!("{{ \"id\": \"e-{number}\" }}"),
                1 => format!("{{\"id\":\" e-{number} \",\"took\":null}}"),
                2 => "{\"id\":null}".to_owned(),
                _ => format!("{{\"id\":\"e-{number}\",\"took\":\"long\"}}"),
            };
            Entry::payload(0, payload)
        })
        .collect();
    let places = bench.produce_entries(&entries);
    for (number, (place, entry)) in places.iter().zip(&entries).enumerate() {
        match number % 4 {
            0 => bench.record.expect(*place, entry.payload.clone()),
            1 => {
                let right = format!("{{\"id\":\"e-{number}\"}}");
                bench.record.expect(*place, Some(right.into_bytes()));
            }
            _ => {}
        }
    }
    let running = bench.start(
        Scripted::new(&bench.record, |_| Act::done()),
        &[
            "hygiene.required=id",
            "hygiene.types=took: integer",
            "hygiene.drop.nulls=true",
            "hygiene.trim.strings=true",
            &format!("hygiene.on.violation={policy}"),
        ],
    );
    running.until("all is settled", || {
        let ledger = running.shared.ledger.view();
        ledger.consumed == 40 && ledger.in_flight == 0
    });
    let violations = running
        .shared
        .violations
        .each_ref()
        .map(|count| count.load(std::sync::atomic::Ordering::Relaxed));
    assert_eq!(violations, [10, 10, 0]);
    let ledger = running.stop().expect("drained");
    bench.assert_finished();
    bench.record.assert_once();
    (bench, ledger)
}

fn hygiene() {
    let (bench, ledger) = with_hygiene("hygiene", "dead-letter");
    assert_eq!((ledger.delivered, ledger.dead_lettered), (20, 20));
    for letter in bench.dead_letters(20) {
        assert_eq!(letter.header("keystone.stage"), "hygiene");
        let offset: u64 = letter
            .header("keystone.source.offset")
            .parse()
            .expect("an offset");
        let (payload, reason) = match offset % 4 {
            2 => (
                "{\"id\":null}".to_owned(),
                "hygiene.required: id is missing",
            ),
            _ => (
                format!("{{\"id\":\"e-{offset}\",\"took\":\"long\"}}"),
                "hygiene.types: took is a string, expected an integer",
            ),
        };
        assert_eq!(letter.payload, Some(payload.into_bytes()));
        assert_eq!(letter.header("keystone.reason"), reason);
    }
}

fn hygiene_that_discards() {
    let (bench, ledger) = with_hygiene("hygiene-discard", "discard");
    assert_eq!((ledger.delivered, ledger.discarded), (20, 20));
    bench.dead_letters(0);
}

/// Keeps whole events.
#[derive(Default)]
struct Keeper(Mutex<Vec<Entry>>);

impl Sink for Keeper {
    fn deliver<'a>(&'a self, batch: &'a Batch) -> BoxFuture<'a, Result<Answer, SinkError>> {
        let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
        let entries = batch.events().map(|event| Entry {
            partition: event.partition,
            key: owned(event.key),
            payload: owned(event.payload),
            headers: event
                .headers()
                .map(|(name, value)| (name.to_owned(), owned(value)))
                .collect(),
            timestamp: event.timestamp,
        });
        lock(&self.0).extend(entries);
        Box::pin(async { Ok(Answer::done()) })
    }
}

fn all_parts_reach_the_sink() {
    let bench = Bench::new("parts", 1);
    let entry =
        |payload: &str, key: Option<&[u8]>, headers: &[(&str, Option<&[u8]>)], timestamp| Entry {
            partition: 0,
            key: key.map(<[u8]>::to_vec),
            payload: Some(payload.as_bytes().to_vec()),
            headers: headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.map(<[u8]>::to_vec)))
                .collect(),
            timestamp: Some(timestamp),
        };
    let entries = vec![
        entry("{\"n\":1}", None, &[], 1_700_000_000_000),
        entry(
            "{\"n\":2}",
            Some(b"\x00\xff key \n"),
            &[("a", Some(b"1")), ("b", None), ("a", Some(b"\xff\x00"))],
            1_600_000_000_123,
        ),
        entry(
            "{\"n\":3}",
            Some(b"k"),
            &[("", Some(b"")), ("name \u{1f600} \n", Some(b"v"))],
            1,
        ),
        entry(
            "{\"n\":4}",
            Some(&[7; 10_000]),
            &[("long", Some(&[9; 20_000]))],
            1_800_000_000_000,
        ),
    ];
    bench.produce_entries(&entries);
    let keeper = Arc::new(Keeper::default());
    let running = bench.start_any(keeper.clone(), &[]);
    running.until("all is delivered", || {
        lock(&keeper.0).len() == entries.len()
    });
    running.stop().expect("drained");
    assert_eq!(*lock(&keeper.0), entries);
}

fn expressions_see_the_record() {
    let bench = Bench::new("record", 1);
    let entry = |user: &str, key: &[u8], header: &str| Entry {
        key: Some(key.to_vec()),
        headers: vec![
            ("wanted".to_owned(), Some(b"no".to_vec())),
            ("wanted".to_owned(), Some(header.as_bytes().to_vec())),
        ],
        timestamp: Some(1_700_000_000_000),
        ..Entry::payload(0, format!("{{\"user\":{user}}}"))
    };
    bench.produce_entries(&[
        entry("\"Ada\"", b"k0", "no"),
        entry("\"Ada\"", b"k1", "yes"),
        entry("\"Ada\"", b"\xff", "yes"),
        entry("4711", b"k3", "yes"),
        entry("\"Ada Lovelace and everybody else\"", b"k4", "yes"),
    ]);
    let keeper = Arc::new(Keeper::default());
    let running = bench.start_any(
        keeper.clone(),
        &[
            "filter=header('wanted') == 'yes'",
            "projection=if(length(to_string(user)) > `9`, [user, user] | [@, @] | [@, @] | [@, @] | [@, @] | [@, @], \
             [meta('topic'), meta('partition'), meta('offset'), meta('key'), meta('timestamp'), hmac_sha256(user, 'users')])",
            "dsl.secret.users=an example",
            "dsl.max.output.bytes=1024",
        ],
    );
    running.until("all is settled", || {
        let ledger = running.shared.ledger.view();
        ledger.consumed == 5 && ledger.in_flight == 0
    });
    let ledger = running.stop().expect("drained");
    assert_eq!((ledger.filtered, ledger.delivered), (1, 1));
    let delivered = lock(&keeper.0).remove(0).payload.unwrap_or_default();
    assert_eq!(
        String::from_utf8_lossy(&delivered),
        "[\"record\",0,1,\"k1\",1700000000000,\"1af6a83af4b8d4255537b3c359fb4dc3d5a4d2ebe3c2b96858145ce3836d0ecf\"]"
    );
    let letters = bench.dead_letters(3);
    let reasons: Vec<&str> = letters
        .iter()
        .map(|l| l.header("keystone.reason"))
        .collect();
    for (offset, reason) in [
        (
            "2",
            "meta: the record's key is not UTF-8: an invalid sequence at byte 0",
        ),
        (
            "3",
            "hmac_sha256: argument 1 is a number, expected a string",
        ),
        (
            "4",
            "the result is larger than the limit of an expression's output",
        ),
    ] {
        let letter = letters
            .iter()
            .find(|letter| letter.header("keystone.source.offset") == offset)
            .unwrap_or_else(|| panic!("no dead letter of offset {offset}"));
        assert_eq!(letter.header("keystone.stage"), "projection");
        assert!(
            letter.header("keystone.reason").starts_with(reason),
            "{reasons:?}"
        );
    }
}

/// What was there before is not read; the start is committed at once, so that a restart does not move it.
fn start_latest() {
    start_at_the_end("start-latest", "source.start=latest");
}

/// The mock cluster answers every question for a time with the end.
fn start_at_a_time() {
    start_at_the_end("start-time", "source.start=2026-01-01T00:00:00Z");
}

fn start_at_the_end(name: &str, start: &str) {
    let bench = Bench::new(name, 2);
    let before: Vec<Entry> = (0..40)
        .map(|n| Entry::payload(n % 2, format!("{{\"old\":{n}}}")))
        .collect();
    bench.produce_entries(&before);
    let sink = || Scripted::new(&bench.record, |_| Act::done());
    let running = bench.start(sink(), &[start]);
    running.until("the start is committed", || {
        bench.committed() == bench.ends()
    });
    running.stop().expect("drained");
    // Written while no worker runs: to be read, the group knows where it is.
    bench.produce(30);
    let running = bench.start(sink(), &[start]);
    running.until("all is delivered", || bench.record.complete());
    bench.produce(30);
    running.until("all is delivered", || bench.record.complete());
    let ledger = running.stop().expect("drained");
    assert_eq!(ledger.consumed, 60);
    bench.assert_finished();
    bench.record.assert_once();
}
