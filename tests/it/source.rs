//! Where a route reads: several topics, starts, partitions and topics that come and go, groups of every kind.

use std::ops::Range;
use std::time::{Duration, Instant};

use keystone_tests::events::{self, Record};
use keystone_tests::kafka::Isolation;
use keystone_tests::{Events, Judge, Kafka, Result, Route, Stream, Worker};
use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use crate::scenario::{
    LONG_DRAIN, MEBIBYTE, NEW_PROTOCOL, Outgoing, QUICK_SESSION, RATE, WORK, all_committed,
    assigned, counter, drain, holds, send, silent_server, to_elasticsearch, to_kafka, topic_of,
    values,
};

/// Notices new topics and partitions soon.
const QUICK: &str = "kafka.topic.metadata.refresh.interval.ms = 1000\n";

/// Everything of these topics goes to one.
fn copy(kafka: &Kafka, name: &str, topics: &str, to: &str) -> String {
    format!(
        "route.name = {name}\nsource.topics = {topics}\nkafka.bootstrap.servers = {}\nsink.type = kafka\nsink.kafka.topic = {to}\n{QUICK}",
        kafka.bootstrap()
    )
}

fn event(id: &str) -> String {
    format!("{{\"id\":\"{id}\"}}")
}

fn events(ids: &[&str]) -> Vec<Outgoing> {
    ids.iter().map(|id| Outgoing::new(event(id))).collect()
}

fn delivered(worker: &mut Worker, count: u64) -> Result<()> {
    let what = format!("{count} events are delivered");
    worker.wait_until(WORK, &what, |worker| {
        Ok(counter(worker, "delivered")? >= count)
    })
}

/// Which ids a topic holds, sorted.
fn ids(kafka: &Kafka, topic: &str) -> Result<Vec<String>> {
    let mut ids: Vec<_> = values(kafka, topic)?
        .iter()
        .map(|value| value.replace("{\"id\":\"", "").replace("\"}", ""))
        .collect();
    ids.sort();
    Ok(ids)
}

#[test]
fn several_topics_and_an_expression_that_matches_a_later_one() -> Result<()> {
    let kafka = Kafka::shared()?;
    for topic in [
        "several-plain",
        "several-re-1",
        "several-other",
        "several-out",
    ] {
        kafka.create_topic(topic, 2, &[])?;
    }
    send(kafka, "several-plain", &events(&["plain"]))?;
    send(kafka, "several-re-1", &events(&["re-1"]))?;
    send(kafka, "several-other", &events(&["other"]))?;
    let topics = "several-plain, ^several-re-.*";
    let mut worker = Worker::spawn(&copy(kafka, "several", topics, "several-out"))?;
    holds(&mut worker, 4)?;
    kafka.create_topic("several-re-2", 2, &[])?;
    send(kafka, "several-re-2", &events(&["re-2", "re-2 again"]))?;
    holds(&mut worker, 6)?;
    delivered(&mut worker, 4)?;
    for topic in ["several-plain", "several-re-1", "several-re-2"] {
        all_committed(kafka, "several", topic, &mut [&mut worker])?;
    }
    drain(worker)?;
    assert_eq!(
        ids(kafka, "several-out")?,
        ["plain", "re-1", "re-2", "re-2 again"]
    );
    assert_eq!(
        kafka.committed("several", "several-re-2")?.get(&0),
        Some(&2)
    );
    Ok(())
}

/// What a topic holds before the worker finds it was written after the group had begun: it is not skipped, though what was there before is.
#[test]
fn a_later_topic_of_an_expression_is_read_whole_where_the_group_started_at_the_end() -> Result<()> {
    let kafka = Kafka::shared()?;
    for topic in ["later-re-1", "later-re-2", "later-out"] {
        kafka.create_topic(topic, 1, &[])?;
    }
    send(kafka, "later-re-1", &events(&["old"]))?;
    send(kafka, "later-re-2", &events(&["old"]))?;
    let properties = copy(kafka, "later", "^later-re-.*", "later-out") + "source.start = latest\n";
    let mut worker = Worker::spawn(&properties)?;
    holds(&mut worker, 2)?;
    worker.wait_until(WORK, "the start is committed", |_| {
        Ok(kafka.committed("later", "later-re-1")?.len() == 1)
    })?;
    kafka.create_topic("later-re-3", 1, &[])?;
    send(kafka, "later-re-3", &events(&["before it is found"]))?;
    send(kafka, "later-re-1", &events(&["after"]))?;
    holds(&mut worker, 3)?;
    delivered(&mut worker, 2)?;
    drain(worker)?;
    assert_eq!(ids(kafka, "later-out")?, ["after", "before it is found"]);
    Ok(())
}

/// A start at the end, or at a time, is where the group is from then on: a restart before the first event moves nothing, and what a
/// partition that is added later holds is not skipped.
#[test]
fn a_new_group_starts_at_the_end_or_at_a_time() -> Result<()> {
    let kafka = Kafka::shared()?;
    for (name, start) in [
        ("start-latest", "latest"),
        ("start-time", "2026-11-23T11:00:00Z"),
    ] {
        let (from, to) = (format!("{name}-in"), format!("{name}-out"));
        kafka.create_topic(&from, 2, &[])?;
        kafka.create_topic(&to, 1, &[])?;
        // 10:00, before either start. (Times in a topic are those of its producer.)
        let at = |mut outgoing: Outgoing, timestamp: i64, partition: i32| {
            outgoing.timestamp = Some(timestamp);
            outgoing.partition = partition;
            outgoing
        };
        let (ten, noon) = (1_795_428_000_000, 1_795_435_200_000);
        send(
            kafka,
            &from,
            &[
                at(Outgoing::new(event("old")), ten, 0),
                at(Outgoing::new(event("old")), ten, 1),
            ],
        )?;
        let mut expected = vec!["added later", "after", "while away"];
        if start != "latest" {
            send(
                kafka,
                &from,
                &[at(Outgoing::new(event("at noon")), noon, 0)],
            )?;
            expected.insert(2, "at noon");
        }
        let properties = copy(kafka, name, &from, &to) + &format!("source.start = {start}\n");
        let mut worker = Worker::spawn(&properties)?;
        holds(&mut worker, 2)?;
        worker.wait_until(WORK, "the start is committed", |_| {
            Ok(kafka.committed(name, &from)?.len() == 2)
        })?;
        drain(worker)?;
        send(
            kafka,
            &from,
            &[at(Outgoing::new(event("while away")), noon, 1)],
        )?;
        let mut worker = Worker::spawn(&properties)?;
        delivered(&mut worker, 1)?;
        kafka.widen(&from, 3)?;
        // At 10:00 too: a time as the start does not hold for it.
        keystone_tests::wait_for(WORK, "the new partition takes events", || {
            send(
                kafka,
                &from,
                &[at(Outgoing::new(event("added later")), ten, 2)],
            )
        })?;
        holds(&mut worker, 3)?;
        send(kafka, &from, &[at(Outgoing::new(event("after")), noon, 0)])?;
        // Which of the two workers has read "at noon" is not known, so nothing is to be left unread.
        all_committed(kafka, name, &from, &mut [&mut worker])?;
        drain(worker)?;
        expected.sort_unstable();
        assert_eq!(ids(kafka, &to)?, expected, "{name}");
    }
    Ok(())
}

/// Events that Kafka deletes while the route is away are lost to it, and it says so and counts them.
#[test]
fn events_that_were_deleted_unread_are_counted() -> Result<()> {
    let kafka = Kafka::shared()?;
    kafka.create_topic("expired-in", 1, &[])?;
    kafka.create_topic("expired-out", 1, &[])?;
    let numbers = |range: std::ops::Range<u32>| -> Vec<Outgoing> {
        range
            .map(|number| Outgoing::new(event(&number.to_string())))
            .collect()
    };
    let properties = copy(kafka, "expired", "expired-in", "expired-out");
    send(kafka, "expired-in", &numbers(0..10))?;
    let mut worker = Worker::spawn(&properties)?;
    all_committed(kafka, "expired", "expired-in", &mut [&mut worker])?;
    drain(worker)?;
    send(kafka, "expired-in", &numbers(10..1010))?;
    kafka.delete_before("expired-in", 0, 900)?;
    let mut worker = Worker::spawn(&properties)?;
    worker.wait_until(WORK, "the loss is counted", |worker| {
        Ok(counter(worker, "expired")? > 0)
    })?;
    delivered(&mut worker, 110)?;
    assert_eq!(counter(&worker, "expired")?, 890);
    all_committed(kafka, "expired", "expired-in", &mut [&mut worker])?;
    let errors = worker.status()?["last_errors"].to_string();
    let log = drain(worker)?;
    for text in [&errors, &log] {
        assert!(
            text.contains("890 events of expired-in-0 before offset 900")
                && text.contains("retention.ms"),
            "{text}"
        );
    }
    assert_eq!(ids(kafka, "expired-out")?.len(), 120);
    Ok(())
}

/// A static member that restarts within its session timeout is not noticed by the others.
#[test]
fn a_static_member_restarts_without_a_rebalance() -> Result<()> {
    let kafka = Kafka::shared()?;
    let load = Events::new(31, 60_000);
    kafka.create_topic("static-in", 8, &[])?;
    kafka.create_topic("static-out", 8, &[])?;
    let properties = to_kafka(kafka, "static", "static-in", "static-out");
    let start = |id: &str| {
        let route = Route::new(&properties).set("kafka.group.instance.id", id);
        // As long as `max.poll.interval.ms`: the restart takes as long as a busy machine takes.
        route.set("kafka.session.timeout.ms", "300000").spawn()
    };
    let rebalances = |worker: &Worker| -> Result<f64> {
        Ok(worker.metrics()?.sum("keystone_rebalances_total", &[]))
    };
    let mut first = start("one")?;
    holds(&mut first, 8)?;
    let mut second = start("two")?;
    holds(&mut second, 4)?;
    // All eight; none new in the generation that took four away; none in the one that gives them to the second, of which the first may hear
    // after the second.
    first.wait_until(WORK, "the first knows the last generation", |worker| {
        Ok(rebalances(worker)? >= 3.0)
    })?;
    let before = rebalances(&first)?;
    load.produce(&kafka.bootstrap(), "static-in")?;
    drain(second)?;
    let mut second = start("two")?;
    holds(&mut second, 4)?;
    all_committed(kafka, "static", "static-in", &mut [&mut first, &mut second])?;
    assert_eq!(rebalances(&first)?, before, "{}", first.stderr());
    drain(first)?;
    drain(second)?;
    let mut judge = Judge::new(load.expected(), "event_id");
    judge.topic(kafka, "static-out", Isolation::ReadCommitted)?;
    judge.verdict().assert_exact();
    Ok(())
}

/// Produces while workers come and go, and judges what arrived.
fn join_and_leave(kafka: &Kafka, name: &str, seed: u64, more: &str) -> Result<()> {
    // Enough for the load to last as long as the coming and going.
    let load = Events::new(seed, 2_000_000);
    let (from, to) = (format!("{name}-in"), format!("{name}-out"));
    kafka.create_topic(&from, 8, &[])?;
    kafka.create_topic(&to, 8, &[])?;
    // Partitions are given up when they are drained, however busy the machine is.
    let properties = to_kafka(kafka, name, &from, &to)
        + more
        + LONG_DRAIN
        + "delivery.rebalance.drain.max.ms = 50000\n";
    let stream = Stream::start(load.clone(), &kafka.bootstrap(), &from, RATE, |_| None)?;
    let mut first = Worker::spawn(&properties)?;
    holds(&mut first, 8)?;
    delivered(&mut first, 1)?;
    let mut second = Worker::spawn(&properties)?;
    holds(&mut second, 4)?;
    let mut third = Worker::spawn(&properties)?;
    third.wait_until(WORK, "the third has its share", |worker| {
        Ok(assigned(worker)? >= 2)
    })?;
    drain(first)?;
    let mut fourth = Worker::spawn(&properties)?;
    fourth.wait_until(WORK, "the fourth has its share", |worker| {
        Ok(assigned(worker)? >= 2)
    })?;
    drain(second)?;
    let sent = stream.stop()?;
    all_committed(kafka, name, &from, &mut [&mut third, &mut fourth])?;
    drain(third)?;
    drain(fourth)?;
    let mut judge = Judge::new(load.expected_in(0..sent), "event_id");
    judge.topic(kafka, &to, Isolation::ReadCommitted)?;
    let verdict = judge.verdict();
    eprintln!("{name}: {sent} events, {} twice", verdict.repeated());
    verdict.assert_exact();
    Ok(())
}

#[test]
fn workers_join_and_leave_a_cooperative_group_under_load() -> Result<()> {
    join_and_leave(Kafka::shared()?, "joins", 32, "")
}

/// KIP-848: the brokers assign.
#[test]
fn workers_join_and_leave_a_group_of_the_new_protocol() -> Result<()> {
    join_and_leave(Kafka::shared()?, "new-protocol", 33, NEW_PROTOCOL)
}

/// Offsets begin again at 0, below those that were committed.
#[test]
fn a_topic_that_was_deleted_and_made_anew_is_read_again() -> Result<()> {
    let kafka = Kafka::shared()?;
    kafka.create_topic("anew-in", 1, &[])?;
    kafka.create_topic("anew-out", 1, &[])?;
    send(kafka, "anew-in", &events(&["a", "b", "c", "d", "e"]))?;
    let mut worker = Worker::spawn(&copy(kafka, "anew", "anew-in", "anew-out"))?;
    all_committed(kafka, "anew", "anew-in", &mut [&mut worker])?;
    kafka.delete_topic("anew-in")?;
    keystone_tests::wait_until(WORK, "the topic is gone", || {
        kafka
            .partitions("anew-in")
            .is_ok_and(|found| found.is_empty())
    });
    keystone_tests::wait_for(WORK, "the topic can be made anew", || {
        kafka.create_topic("anew-in", 1, &[])
    })?;
    send(kafka, "anew-in", &events(&["f", "g"]))?;
    worker.wait_until(WORK, "the new events are delivered", |worker| {
        Ok(counter(worker, "delivered")? >= 7)
    })?;
    send(kafka, "anew-in", &events(&["h"]))?;
    delivered(&mut worker, 8)?;
    worker.wait_until(WORK, "the new offsets are committed", |_| {
        Ok(kafka.committed("anew", "anew-in")?.get(&0) == Some(&3))
    })?;
    drain(worker)?;
    let mut found = ids(kafka, "anew-out")?;
    found.dedup();
    assert_eq!(found, ["a", "b", "c", "d", "e", "f", "g", "h"]);
    Ok(())
}

/// One topic of two is missing: the worker says which for as long as that lasts, though it reads the other. When the topic comes, or is made
/// anew, all of it is new to the group, which starts at the end elsewhere.
#[test]
fn a_named_topic_that_is_missing_is_told_of_and_read_whole_when_it_comes() -> Result<()> {
    let kafka = Kafka::shared()?;
    for topic in ["missing-a", "missing-out"] {
        kafka.create_topic(topic, 1, &[])?;
    }
    send(kafka, "missing-a", &events(&["old"]))?;
    let properties = copy(kafka, "missing", "missing-a, missing-b", "missing-out");
    let mut worker = Worker::spawn(&(properties + "source.start = latest\n"))?;
    holds(&mut worker, 1)?;
    let says =
        "topics: of source.topics = missing-a,missing-b these do not exist (yet): missing-b;";
    let is_told = |worker: &Worker| Ok(worker.readyz()?.1.contains(says));
    worker.wait_until(WORK, "the missing one is told of", is_told)?;
    for id in ["b1", "b2"] {
        kafka.create_topic("missing-b", 1, &[])?;
        send(kafka, "missing-b", &events(&[id]))?;
        holds(&mut worker, 2)?;
        worker.wait_ready(WORK)?;
        all_committed(kafka, "missing", "missing-b", &mut [&mut worker])?;
        kafka.delete_topic("missing-b")?;
        worker.wait_until(WORK, "the deleted one is told of", is_told)?;
        holds(&mut worker, 1)?;
    }
    drain(worker)?;
    assert_eq!(ids(kafka, "missing-out")?, ["b1", "b2"]);
    Ok(())
}

/// There librdkafka says nothing of a topic that is missing.
#[test]
fn a_missing_topic_is_told_of_under_the_new_protocol() -> Result<()> {
    let kafka = Kafka::shared()?;
    kafka.create_topic("missing-new-out", 1, &[])?;
    let properties = copy(kafka, "missing-new", "missing-new-in", "missing-new-out");
    let mut worker = Worker::spawn(&(properties + "source.start = latest\n" + NEW_PROTOCOL))?;
    worker.wait_until(WORK, "the missing one is told of", |worker| {
        Ok(worker
            .readyz()?
            .1
            .contains("these do not exist (yet): missing-new-in;"))
    })?;
    kafka.create_topic("missing-new-in", 1, &[])?;
    send(kafka, "missing-new-in", &events(&["before it is found"]))?;
    delivered(&mut worker, 1)?;
    worker.wait_ready(WORK)?;
    drain(worker)?;
    assert_eq!(ids(kafka, "missing-new-out")?, ["before it is found"]);
    Ok(())
}

/// There librdkafka says nothing of an assignment without partitions.
#[test]
fn a_worker_that_stands_by_under_the_new_protocol_is_ready() -> Result<()> {
    let kafka = Kafka::shared()?;
    for topic in ["standby-in", "standby-out"] {
        kafka.create_topic(topic, 1, &[])?;
    }
    let properties = copy(kafka, "standby", "standby-in", "standby-out") + NEW_PROTOCOL;
    let mut first = Worker::spawn(&properties)?;
    let mut second = Worker::spawn(&properties)?;
    first.wait_ready(WORK)?;
    second.wait_ready(WORK)?;
    let held = assigned(&first)? + assigned(&second)?;
    assert_eq!(held, 1, "one of them stands by");
    drain(first)?;
    drain(second)?;
    Ok(())
}

/// A worker that is frozen for longer than its session loses its partitions, and finds that out when it wakes.
fn freeze(kafka: &Kafka, name: &str, seed: u64, quick: &str, more: &str) -> Result<()> {
    let load = Events::new(seed, 200_000);
    let (from, to) = (format!("{name}-in"), format!("{name}-out"));
    kafka.create_topic(&from, 8, &[])?;
    kafka.create_topic(&to, 8, &[])?;
    // Only the one that is frozen is to be missed soon.
    let properties = to_kafka(kafka, name, &from, &to) + more;
    let mut first = Worker::spawn(&format!("{properties}{quick}"))?;
    let mut second = Worker::spawn(&properties)?;
    holds(&mut first, 4)?;
    holds(&mut second, 4)?;
    load.produce_in(&kafka.bootstrap(), &from, 0..100_000)?;
    delivered(&mut first, 1)?;
    first.signal("STOP")?;
    let stopped = Instant::now();
    holds(&mut second, 8)?;
    eprintln!("taken over after {:.1} s", stopped.elapsed().as_secs_f64());
    if more == NEW_PROTOCOL {
        kafka.lengthen_sessions(name)?;
    }
    load.produce_in(&kafka.bootstrap(), &from, 100_000..200_000)?;
    all_committed(kafka, name, &from, &mut [&mut second])?;
    first.signal("CONT")?;
    holds(&mut first, 4)?;
    holds(&mut second, 4)?;
    all_committed(kafka, name, &from, &mut [&mut first, &mut second])?;
    drain(first)?;
    drain(second)?;
    assert_eq!(kafka.committed(name, &from)?, kafka.end_offsets(&from)?);
    let mut judge = Judge::new(load.expected(), "event_id");
    judge.topic(kafka, &to, Isolation::ReadCommitted)?;
    let verdict = judge.verdict();
    eprintln!(
        "{name}: {} of {} events twice",
        verdict.repeated(),
        verdict.expected
    );
    verdict.assert_complete();
    Ok(())
}

#[test]
fn a_worker_that_was_frozen_loses_nothing() -> Result<()> {
    freeze(Kafka::shared()?, "frozen", 34, QUICK_SESSION, "")
}

#[test]
fn a_worker_that_was_frozen_loses_nothing_under_the_new_protocol() -> Result<()> {
    let kafka = Kafka::shared()?;
    kafka.shorten_sessions("frozen-new")?;
    freeze(kafka, "frozen-new", 36, "", NEW_PROTOCOL)
}

/// A sink that takes connections and never answers: partitions are paused, memory stays bounded, the group keeps its member although
/// `max.poll.interval.ms` passes, the lag is told all the same, and nothing is committed.
#[test]
fn a_sink_that_never_answers_holds_the_source_back() -> Result<()> {
    let kafka = Kafka::shared()?;
    let load = Events::new(35, 500_000);
    topic_of(kafka, "silent-in", &load)?;
    let properties = to_elasticsearch(kafka, "silent", "silent-in", &silent_server()?, "silent")
        .replace("filter", "# filter")
        + "kafka.session.timeout.ms = 30000\nkafka.max.poll.interval.ms = 30000\n\
           sink.elasticsearch.request.timeout.ms = 3000\ndelivery.shutdown.drain.max.ms = 500\n";
    let mut worker = Worker::spawn(&properties)?;
    worker.wait_until(WORK, "all lanes are paused", |worker| {
        let (lanes, paused) = (
            &worker.status()?["lanes"]["count"],
            &worker.status()?["lanes"]["paused"],
        );
        Ok(lanes == paused)
    })?;
    let paused = Instant::now();
    let more = Events::new(36, 1_000);
    more.produce(&kafka.bootstrap(), "silent-in")?;
    worker.wait_until(WORK, "the ends of the logs are known", |worker| {
        let status = worker.status()?;
        let partitions = status["partitions"].as_array().into_iter().flatten();
        let ends = partitions.filter_map(|partition| partition["log_end"].as_u64());
        Ok(ends.sum::<u64>() == load.count() + more.count())
    })?;
    worker.wait_until(WORK, "the poll interval has passed", |_| {
        assert_eq!(kafka.group("silent")?, (1, "Stable".to_owned()));
        Ok(paused.elapsed() > Duration::from_secs(35))
    })?;
    let log = worker.stderr();
    assert!(!log.contains("has thrown the worker out"), "{log}");
    let memory = worker.peak_rss()? / MEBIBYTE;
    eprintln!("silent: at most {memory} MiB");
    assert!(memory < 200, "{memory} MiB at most");
    assert_eq!(
        worker.metrics()?.get("keystone_partitions_assigned", &[]),
        Some(8.0)
    );
    assert!(
        worker.metrics()?.sum(
            "keystone_retries_total",
            &[("part", "sink"), ("reason", "timeout")]
        ) > 0.0
    );
    let (ready, text) = worker.readyz()?;
    assert!(!ready && text.contains("sink:"), "{text}");
    worker.sigterm()?;
    let (status, log) = worker.wait_exit(WORK)?;
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(
        crate::scenario::last_line(&log).contains("batches"),
        "{log}"
    );
    assert_eq!(
        kafka
            .committed("silent", "silent-in")?
            .values()
            .sum::<i64>(),
        0
    );
    Ok(())
}

/// Where records come many at a time, librdkafka takes the place of a fetch that failed for read, and would begin behind it after a
/// pause: all partitions are paused for a moment in each cooperative rebalance. A broker of librdkafka's own answers fetches with errors
/// here.
#[test]
fn a_failed_fetch_before_a_rebalance_skips_nothing() -> Result<()> {
    const EVENTS: u64 = 200;
    let kafka = Kafka::shared()?;
    kafka.create_topic("failed-fetch-out", 1, &[])?;
    let source = MockCluster::new(1)?;
    source.create_topic("failed-fetch-in", 1, 1)?;
    let bootstrap = source.bootstrap_servers();
    let id = |number: u64| format!("{number:06}");
    let produce = |numbers: Range<u64>| {
        let records = numbers.map(|number| Record {
            partition: 0,
            key: id(number),
            payload: event(&id(number)),
        });
        events::produce(&bootstrap, "failed-fetch-in", records)
    };
    let properties = format!(
        "route.name = failed-fetch\nsource.topics = failed-fetch-in\nkafka.bootstrap.servers = {bootstrap}\n\
         kafka.fetch.error.backoff.ms = 20\n{QUICK_SESSION}sink.type = kafka\nsink.kafka.topic = failed-fetch-out\n\
         sink.kafka.bootstrap.servers = {}\n",
        kafka.bootstrap()
    );
    let mut worker = Worker::spawn(&properties)?;
    produce(0..EVENTS / 2)?;
    delivered(&mut worker, EVENTS / 2)?;
    let errors = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN; 10_000];
    source.request_errors(RDKafkaApiKey::Fetch, &errors);
    produce(EVENTS / 2..EVENTS)?;
    let unread = format!(
        "failed-fetch-in-0 could not be read at offset {}",
        EVENTS / 2
    );
    worker.wait_until(WORK, &unread, |worker| {
        Ok(worker.stderr().contains(&unread))
    })?;
    let mut second = Worker::spawn(&properties)?;
    second.wait_ready(WORK)?;
    source.clear_request_errors(RDKafkaApiKey::Fetch);
    worker.wait_until(WORK, "all events are delivered", |worker| {
        let delivered = counter(worker, "delivered")? + counter(&second, "delivered")?;
        Ok(delivered >= EVENTS || worker.status()?["partitions"][0]["committed"] == EVENTS)
    })?;
    drain(worker)?;
    drain(second)?;
    let expected: Vec<String> = (0..EVENTS).map(id).collect();
    assert_eq!(ids(kafka, "failed-fetch-out")?, expected);
    Ok(())
}
