//! `delivery.tradeoff = no-duplicates` from Kafka to Kafka: a reader of committed records sees each event exactly once, whatever is killed.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use keystone_tests::events::noise;
use keystone_tests::kafka::Isolation;
use keystone_tests::{Error, Events, Judge, Kafka, Result, Route, Stream, Worker, wait_for};

use crate::scenario::{
    END, NEW_PROTOCOL, Outgoing, QUICK_SESSION, RATE, WORK, all_committed, assert_ledger, consumed,
    counter, drain, holds, kill_at_work, send, to_kafka, topic_of, values,
};

/// For workers that are killed or stopped: what they leave open is soon gone.
const SHORT: &str = "sink.kafka.transaction.timeout.ms = 6000\n";
/// For the others: none is to be fenced, or thrown out, because the machine is busy.
const PATIENT: &str = "sink.kafka.transaction.timeout.ms = 60000\n";
const PATIENT_SESSION: &str = "kafka.session.timeout.ms = 60000\n";
/// A worker that ends more often than this by itself is not started again.
const RESTARTS: usize = 5;

fn once(kafka: &Kafka, name: &str, from: &str, to: &str) -> String {
    to_kafka(kafka, name, from, to)
        + "delivery.tradeoff = no-duplicates\nsink.kafka.transaction.max.ms = 200\n"
}

/// Does what a container platform does: where the answer to a commit was lost for good, the worker ends, and the next one is started.
fn keep_up(worker: &mut Worker, properties: &str, restarts: &mut usize) -> Result<()> {
    if worker.has_exited() {
        let log = worker.stderr();
        *restarts += 1;
        assert!(
            log.contains("is not known") && *restarts <= RESTARTS,
            "{log}"
        );
        *worker = Worker::spawn(properties)?;
    }
    Ok(())
}

/// Waits until the worker, kept up, has come so far.
fn kept_up(
    worker: &mut Worker,
    properties: &str,
    restarts: &mut usize,
    what: &str,
    come_so_far: impl Fn(&Worker) -> Result<bool>,
) -> Result<()> {
    wait_for(WORK, what, || {
        keep_up(worker, properties, restarts)?;
        match come_so_far(worker)? {
            true => Ok(()),
            false => Err(Error::new(worker.stderr_tail())),
        }
    })
}

fn judge(kafka: &Kafka, expected: HashMap<String, String>, topic: &str) -> Result<()> {
    let mut judge = Judge::new(expected, "event_id");
    judge.topic(kafka, topic, Isolation::ReadCommitted)?;
    judge.verdict().assert_exact();
    Ok(())
}

/// A worker is drained in the middle and the next one goes on: the ledger adds up, nothing is twice, and nothing is exposed.
#[test]
fn a_drained_worker_hands_on_exactly() -> Result<()> {
    let kafka = Kafka::shared()?;
    let events = Events::new(61, 200_000);
    topic_of(kafka, "once-in", &events)?;
    kafka.create_topic("once-out", 8, &[])?;
    let route = Route::new(once(kafka, "once", "once-in", "once-out") + PATIENT + PATIENT_SESSION);
    let mut first = route.spawn()?;
    first.wait_until(WORK, "some is committed", |worker| {
        assert_eq!(
            worker
                .metrics()?
                .get("keystone_duplicate_exposure_events", &[]),
            Some(0.0)
        );
        Ok(kafka.committed("once", "once-in")?.values().sum::<i64>() > 0)
    })?;
    drain(first)?;
    let committed: i64 = kafka.committed("once", "once-in")?.values().sum();
    let mut second = route.spawn()?;
    consumed(&mut second, events.count() - committed as u64)?;
    all_committed(kafka, "once", "once-in", &mut [&mut second])?;
    assert_ledger(&mut second)?;
    assert_eq!(counter(&second, "abandoned")?, 0);
    drain(second)?;
    judge(kafka, events.expected(), "once-out")
}

/// Workers are killed one after the other while events come in, at moments that the work itself decides.
#[test]
fn killed_workers_leave_nothing_twice() -> Result<()> {
    let kafka = Kafka::shared()?;
    // More than comes.
    let events = Events::new(62, 2_000_000);
    let (from, to) = ("once-killed-in", "once-killed-out");
    kafka.create_topic(from, 8, &[])?;
    kafka.create_topic(to, 8, &[])?;
    let properties = once(kafka, "once-killed", from, to);
    let patient = format!("{properties}{PATIENT}{PATIENT_SESSION}");
    let short = properties + SHORT + QUICK_SESSION;
    let mut workers = vec![Worker::spawn(&short)?, Worker::spawn(&short)?];
    let stream = Stream::start(events.clone(), &kafka.bootstrap(), from, RATE, |_| None)?;
    let parts = 4;
    let mut restarts = 0;
    for part in 0..parts {
        wait_for(WORK, "the worker is in the middle of its work", || {
            for worker in &mut workers {
                keep_up(worker, &short, &mut restarts)?;
            }
            match counter(&workers[0], "consumed")? > part * 3_000 {
                true => Ok(()),
                false => Err(Error::new(workers[0].stderr_tail())),
            }
        })?;
        kill_at_work(kafka, "once-killed", from, &mut workers[0])?;
        workers.remove(0);
        // The last two are not killed.
        let next = if part + 2 < parts { &short } else { &patient };
        workers.push(Worker::spawn(next)?);
    }
    let sent = stream.stop()?;
    let group = kafka.group_on("once-killed", from)?;
    wait_for(WORK, "all is committed", || {
        for worker in &mut workers {
            keep_up(worker, &patient, &mut restarts)?;
        }
        match group.committed()? == kafka.end_offsets(from)? {
            true => Ok(()),
            false => Err(Error::new(workers[0].stderr_tail())),
        }
    })?;
    for worker in workers {
        drain(worker)?;
    }
    judge(kafka, events.expected_in(0..sent), to)
}

/// A worker that was stopped for longer than its session comes back as a stranger: its open transaction comes to nothing.
fn come_back(kafka: &Kafka, name: &str, seed: u64, quick: &str, patient: &str) -> Result<()> {
    let events = Events::new(seed, 300_000);
    let (from, to) = (format!("{name}-in"), format!("{name}-out"));
    topic_of(kafka, &from, &events)?;
    kafka.create_topic(&to, 8, &[])?;
    let properties = once(kafka, name, &from, &to);
    let short = format!("{properties}{SHORT}{quick}");
    let mut zombie = Worker::spawn(&short)?;
    let mut restarts = 0;
    let at_work = |worker: &Worker| Ok(counter(worker, "consumed")? > 10_000);
    let what = "the first worker is at work";
    kept_up(&mut zombie, &short, &mut restarts, what, at_work)?;
    zombie.signal("STOP")?;
    let mut other = Worker::spawn(&(properties + PATIENT + patient))?;
    holds(&mut other, 8)?;
    if patient == NEW_PROTOCOL {
        kafka.lengthen_sessions(name)?;
    }
    zombie.signal("CONT")?;
    all_committed(kafka, name, &from, &mut [&mut other])?;
    drain(other)?;
    // Where it was stopped before the answer to a commit, it may have to end by itself.
    if !zombie.has_exited() {
        zombie.sigterm()?;
    }
    let (status, _) = zombie.wait_exit(END)?;
    let log = zombie.stderr();
    assert!(
        status.code() == Some(0) || log.contains("is not known"),
        "{log}"
    );
    judge(kafka, events.expected(), &to)
}

#[test]
fn a_worker_that_comes_back_from_the_dead_repeats_nothing() -> Result<()> {
    let kafka = Kafka::shared()?;
    come_back(kafka, "once-zombie", 63, QUICK_SESSION, PATIENT_SESSION)
}

#[test]
fn a_worker_that_comes_back_under_the_new_protocol_repeats_nothing() -> Result<()> {
    let kafka = Kafka::shared()?;
    kafka.shorten_sessions("once-zombie-new")?;
    come_back(kafka, "once-zombie-new", 66, NEW_PROTOCOL, NEW_PROTOCOL)
}

/// The only broker does not answer for longer than a session and a transaction may last. (It is frozen, not killed: a Kafka of one node that
/// is killed in the middle of a commit can forget the markers of that transaction, and nobody but its administrator can end it then.)
#[test]
fn an_outage_of_kafka_repeats_nothing() -> Result<()> {
    let mut kafka = Kafka::start()?;
    let events = Events::new(64, 300_000);
    topic_of(&kafka, "in", &events)?;
    kafka.create_topic("out", 8, &[])?;
    let properties = once(&kafka, "once-outage", "in", "out") + SHORT + QUICK_SESSION;
    let mut worker = Worker::spawn(&properties)?;
    let mut restarts = 0;
    let mut until = |what: &str, come_so_far: &dyn Fn(&Worker) -> Result<bool>| {
        kept_up(&mut worker, &properties, &mut restarts, what, come_so_far)
    };
    until("some is delivered", &|worker| {
        Ok(counter(worker, "delivered")? > 1_000)
    })?;
    kafka.pause()?;
    let away = Instant::now();
    until("session and transaction have timed out", &|_| {
        Ok(away.elapsed() > Duration::from_secs(10))
    })?;
    kafka.resume()?;
    let group = kafka.group_on("once-outage", "in")?;
    until("all is committed", &|_| {
        Ok(group.committed()? == kafka.end_offsets("in")?)
    })?;
    drain(worker)?;
    judge(&kafka, events.expected(), "out")
}

/// Events end a transaction when there are enough of them, long before its time is over.
#[test]
fn a_transaction_ends_with_its_last_event() -> Result<()> {
    let kafka = Kafka::shared()?;
    kafka.create_topic("once-many-in", 1, &[])?;
    kafka.create_topic("once-many-out", 1, &[])?;
    let max_events = 100;
    let properties = format!(
        "route.name = once-many\nsource.topics = once-many-in\nkafka.bootstrap.servers = {}\nsink.type = kafka\n\
         sink.kafka.topic = once-many-out\ndelivery.tradeoff = no-duplicates\n\
         sink.kafka.transaction.max.events = {max_events}\n\
         sink.kafka.transaction.max.ms = 60000\nsink.kafka.transaction.timeout.ms = 300000\n",
        kafka.bootstrap()
    );
    let mut worker = Worker::spawn(&properties)?;
    worker.wait_ready(WORK)?;
    let all: Vec<String> = (0..450)
        .map(|number| format!("{{\"n\":{number}}}"))
        .collect();
    let mut visible = 0;
    let sooner = Duration::from_secs(45); // than by its time
    // One transaction at a time: what is under way when it is full would be in it, too.
    for events in all.chunks(max_events) {
        let outgoing: Vec<Outgoing> = events.iter().map(|event| Outgoing::new(&**event)).collect();
        send(kafka, "once-many-in", &outgoing)?;
        if events.len() < max_events {
            break; // The drain ends that one.
        }
        visible += events.len();
        worker.wait_until(sooner, "the transaction is visible", |_| {
            Ok(values(kafka, "once-many-out")?.len() == visible)
        })?;
    }
    // A drain leaves what was not read to the next worker.
    consumed(&mut worker, all.len() as u64)?;
    drain(worker)?;
    assert_eq!(values(kafka, "once-many-out")?, all);
    let sizes = transactions(kafka, "once-many-out")?;
    assert_eq!(sizes, [100, 100, 100, 100, 50]);
    Ok(())
}

/// How many events are in each transaction of a topic of one partition: the mark at the end of one takes an offset of its own.
fn transactions(kafka: &Kafka, topic: &str) -> Result<Vec<usize>> {
    let (mut sizes, mut next) = (Vec::new(), None);
    for record in kafka.read_all(topic)? {
        match sizes.last_mut() {
            Some(size) if next == Some(record.offset) => *size += 1,
            _ => sizes.push(1),
        }
        next = Some(record.offset + 1);
    }
    Ok(sizes)
}

/// A static member that is killed ends its open transaction when it is back: nobody waits for Kafka to do that.
#[test]
fn a_restarted_static_member_ends_its_transaction() -> Result<()> {
    let kafka = Kafka::shared()?;
    let events = Events::new(65, 20_000);
    topic_of(kafka, "once-static-in", &events)?;
    kafka.create_topic("once-static-out", 8, &[])?;
    // Kafka would end it later than this test waits for anything.
    let timeout = 2 * WORK;
    let route = Route::new(to_kafka(
        kafka,
        "once-static",
        "once-static-in",
        "once-static-out",
    ))
    .set("delivery.tradeoff", "no-duplicates")
    .set("kafka.group.instance.id", "one")
    .set(
        "sink.kafka.transaction.timeout.ms",
        &timeout.as_millis().to_string(),
    );
    // Open until it is killed.
    let mut first = route
        .clone()
        .set("sink.kafka.transaction.max.ms", "60000")
        .spawn()?;
    let written = |isolation| -> Result<usize> {
        let mut count = 0;
        kafka.read("once-static-out", isolation, |_| count += 1)?;
        Ok(count)
    };
    first.wait_until(WORK, "events wait for the end of their transaction", |_| {
        Ok(written(Isolation::ReadUncommitted)? > 0)
    })?;
    first.sigkill();
    assert_eq!(written(Isolation::ReadCommitted)?, 0, "killed too late");
    let mut second = route.spawn()?;
    all_committed(kafka, "once-static", "once-static-in", &mut [&mut second])?;
    judge(kafka, events.expected(), "once-static-out")?;
    drain(second)?;
    judge(kafka, events.expected(), "once-static-out")
}

/// Kafka refuses an event, and with it the whole transaction: that event is a dead letter, the others are there once, in order.
#[test]
fn refused_events_are_dead_letters() -> Result<()> {
    let kafka = Kafka::shared()?;
    let more = &[
        ("cleanup.policy", "compact"),
        ("max.message.bytes", "20000"),
    ];
    kafka.create_topic("once-refused-out", 1, more)?;
    let event = |number: usize| match number % 100 {
        17 => Outgoing::new(format!("{{\"n\":{number},\"no\":\"key\"}}")),
        // Does not get smaller by compression.
        71 => Outgoing {
            key: Some("large"),
            ..Outgoing::new(format!(
                "{{\"n\":{number},\"noise\":\"{}\"}}",
                noise(number as u64, 60_000)
            ))
        },
        // Larger than the producer lets pass.
        99 if number == 199 => Outgoing {
            key: Some("larger"),
            ..Outgoing::new(format!(
                "{{\"n\":{number},\"long\":\"{}\"}}",
                "x".repeat(1_100_000)
            ))
        },
        _ => Outgoing {
            key: Some("key"),
            ..Outgoing::new(format!("{{\"n\":{number}}}"))
        },
    };
    let all: Vec<Outgoing> = (0..400).map(event).collect();
    kafka.create_topic(
        "once-refused.dead-letters",
        1,
        &[("max.message.bytes", "2000000")],
    )?;
    kafka.create_topic("once-refused-in", 1, &[("max.message.bytes", "2000000")])?;
    send(kafka, "once-refused-in", &all)?;
    let properties = format!(
        "route.name = once-refused\nsource.topics = once-refused-in\nkafka.bootstrap.servers = {}\n\
         sink.type = kafka\nsink.kafka.topic = once-refused-out\ndelivery.tradeoff = no-duplicates\n\
         delivery.batch.max.events = 50\ndelivery.retry.backoff.ms = 50\ndelivery.retry.backoff.max.ms = 200\n",
        kafka.bootstrap()
    );
    let mut worker = Worker::spawn(&properties)?;
    all_committed(kafka, "once-refused", "once-refused-in", &mut [&mut worker])?;
    drain(worker)?;
    let bad = |number: &usize| number % 100 == 17 || number % 100 == 71 || *number == 199;
    let good: Vec<String> = (0..400)
        .filter(|number| !bad(number))
        .map(|number| format!("{{\"n\":{number}}}"))
        .collect();
    assert_eq!(values(kafka, "once-refused-out")?, good);
    let mut letters: Vec<i64> = kafka
        .read_all("once-refused.dead-letters")?
        .iter()
        .filter_map(|letter| letter.header("keystone.source.offset")?.parse().ok())
        .collect();
    letters.sort_unstable();
    letters.dedup();
    let expected: Vec<i64> = (0..400).filter(bad).map(|number| number as i64).collect();
    assert_eq!(letters, expected);
    Ok(())
}

/// The worker stops at a bad event whose batch has good events in the open transaction: they are not visible before their offsets are.
#[test]
fn a_stop_at_a_bad_event_publishes_nothing_of_its_batch() -> Result<()> {
    let kafka = Kafka::shared()?;
    kafka.create_topic("once-stop-in", 1, &[])?;
    kafka.create_topic("once-stop-out", 1, &[])?;
    let event = |number: usize| match number {
        2_500 => Outgoing::new("not JSON"),
        _ => Outgoing::new(format!("{{\"n\":{number}}}")),
    };
    let all: Vec<Outgoing> = (0..5_000).map(event).collect();
    send(kafka, "once-stop-in", &all)?;
    let properties = format!(
        "route.name = once-stop\nsource.topics = once-stop-in\nkafka.bootstrap.servers = {}\nsink.type = kafka\n\
         sink.kafka.topic = once-stop-out\ndelivery.tradeoff = no-duplicates\nsink.kafka.transaction.max.ms = 10\n\
         delivery.batch.max.events = 20\ndelivery.lanes = 2\n",
        kafka.bootstrap()
    );
    let mut first = Worker::spawn(&format!("{properties}dead.letter.policy = stop\n"))?;
    let (status, log) = first.wait_exit(WORK)?;
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("offset 2500"), "{log}");
    let mut second = Worker::spawn(&format!("{properties}dead.letter.policy = discard\n"))?;
    all_committed(kafka, "once-stop", "once-stop-in", &mut [&mut second])?;
    drain(second)?;
    let good: Vec<String> = (0..5_000)
        .filter(|number| *number != 2_500)
        .map(|number| format!("{{\"n\":{number}}}"))
        .collect();
    assert_eq!(values(kafka, "once-stop-out")?, good);
    Ok(())
}
