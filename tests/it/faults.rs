//! Faults of workers and servers: nothing is lost, what is repeated is counted, and the worker says what is wrong.

use std::time::{Duration, Instant};

use keystone_tests::elasticsearch::Options;
use keystone_tests::events::{COLUMNS_WITH_TIME, PROJECTION_WITH_TIME};
use keystone_tests::judge::visible_objects;
use keystone_tests::kafka::Isolation;
use keystone_tests::proxy::{Mode, Proxy};
use keystone_tests::worker::read_in;
use keystone_tests::{
    Elasticsearch, Events, Judge, Kafka, Metastore, Result, S3, Stream, Verdict, Worker,
};

use crate::scenario::{
    LONG_DRAIN, MEBIBYTE, QUICK_SESSION, RATE, WORK, all_committed, all_read, consumed, counter,
    drain, file_url, holds, kill_at_work, source, to_elasticsearch, to_kafka, to_parquet, topic_of,
};

/// How long a part of the worker may stand still where Elasticsearch is away.
const STALL: Duration = Duration::from_secs(5);
/// What a worker says whose sink took too long at the end.
const NOT_CLOSED: &str = "could not be closed in time";

/// More than comes in any of these tests.
const MOST: u64 = 2_000_000;

/// Two workers on one route, to which events come all the time; one is killed in the middle of the work, a third takes over. Ends when all
/// is committed, with how many events have come.
fn kill_one_of_two(
    kafka: &Kafka,
    route: &str,
    topic: &str,
    events: &Events,
    properties: &str,
) -> Result<u64> {
    kafka.create_topic(topic, 8, &[])?;
    // Only the one that is killed is to be missed soon.
    let mut first = Worker::spawn(&format!("{properties}{QUICK_SESSION}"))?;
    let patient = format!("{properties}{LONG_DRAIN}");
    let mut second = Worker::spawn(&patient)?;
    for worker in [&mut first, &mut second] {
        holds(worker, 4)?;
    }
    let stream = Stream::start(events.clone(), &kafka.bootstrap(), topic, RATE, |_| None)?;
    let group = kafka.group_on(route, topic)?;
    first.wait_until(WORK, "the first worker has committed", |worker| {
        let committed = group.committed()?;
        let status = worker.status()?;
        Ok(read_in(&status)
            .keys()
            .any(|held| committed.contains_key(held)))
    })?;
    kill_at_work(kafka, route, topic, &mut first)?;
    let mut third = Worker::spawn(&patient)?;
    for worker in [&mut second, &mut third] {
        holds(worker, 4)?;
    }
    let sent = stream.stop()?;
    if properties.contains("sink.type = parquet") {
        // Files wait for more rows: a drain publishes them.
        all_read(kafka, topic, &mut [&mut second, &mut third])?;
    } else {
        all_committed(kafka, route, topic, &mut [&mut second, &mut third])?;
    }
    drain(second)?;
    drain(third)?;
    assert_eq!(kafka.committed(route, topic)?, kafka.end_offsets(topic)?);
    Ok(sent)
}

fn report(route: &str, verdict: &Verdict) {
    eprintln!(
        "{route}: {} of {} events twice",
        verdict.repeated(),
        verdict.expected
    );
}

#[test]
fn a_killed_worker_loses_nothing_to_kafka() -> Result<()> {
    let kafka = Kafka::shared()?;
    let events = Events::new(11, MOST);
    kafka.create_topic("killed-kafka-out", 8, &[])?;
    let properties = to_kafka(kafka, "killed-kafka", "killed-kafka-in", "killed-kafka-out");
    let sent = kill_one_of_two(
        kafka,
        "killed-kafka",
        "killed-kafka-in",
        &events,
        &properties,
    )?;
    let mut judge = Judge::new(events.expected_in(0..sent), "event_id");
    judge.topic(kafka, "killed-kafka-out", Isolation::ReadCommitted)?;
    let verdict = judge.verdict();
    report("killed-kafka", &verdict);
    verdict.assert_complete();
    Ok(())
}

/// The ids come from topic, partition and offset, so even what is sent twice is there once.
#[test]
fn a_killed_worker_loses_nothing_to_elasticsearch() -> Result<()> {
    let kafka = Kafka::shared()?;
    let server = Elasticsearch::shared()?;
    let events = Events::new(12, MOST);
    let properties = to_elasticsearch(kafka, "killed-es", "killed-es-in", &server.url(), "killed");
    let sent = kill_one_of_two(kafka, "killed-es", "killed-es-in", &events, &properties)?;
    let mut judge = Judge::new(events.expected_in(0..sent), "event_id");
    judge.elasticsearch(server, "killed")?;
    judge.verdict().assert_exact();
    Ok(())
}

/// In two phases nothing is there twice.
#[test]
fn a_killed_worker_loses_nothing_to_parquet() -> Result<()> {
    let kafka = Kafka::shared()?;
    let directory = tempfile::tempdir()?;
    let events = Events::new(13, MOST);
    let properties = to_parquet(
        kafka,
        "killed-parquet",
        "killed-parquet-in",
        &file_url(directory.path()),
    );
    let properties = format!("{properties}sink.parquet.roll.max.rows = 5000\n");
    let sent = kill_one_of_two(
        kafka,
        "killed-parquet",
        "killed-parquet-in",
        &events,
        &properties,
    )?;
    let mut judge = Judge::new(events.expected_with_time_in(0..sent), "event_id");
    judge.parquet(directory.path())?;
    judge.verdict().assert_exact();
    Ok(())
}

/// Killed when its commit had named the files, and before they were visible: the next worker publishes them, and nothing is there twice.
#[test]
fn files_of_a_worker_killed_after_its_commit_are_published_by_the_next_one() -> Result<()> {
    let kafka = Kafka::shared()?;
    let s3 = S3::start()?;
    let proxy = Proxy::to(s3.port())?;
    let events = Events::new(15, 40_000);
    kafka.create_topic("named-files-in", 8, &[])?;
    let route = source(kafka, "named-files", "named-files-in")
        + &format!(
            "projection = {PROJECTION_WITH_TIME}\nsink.type = parquet\nsink.parquet.location = s3://{}/named\n\
             sink.parquet.schema = {COLUMNS_WITH_TIME}\nsink.parquet.roll.max.age.ms = 1000\n{LONG_DRAIN}",
            S3::BUCKET
        );
    let endpoint = |port: u16| route.clone() + &S3::properties(&format!("http://127.0.0.1:{port}"));
    let mut first = Worker::spawn(&(endpoint(proxy.port()) + QUICK_SESSION))?;
    first.wait_ready(WORK)?;
    // Publishing starts with reading the manifest, and that answer comes this late.
    proxy.set(Mode::Delay(Duration::from_secs(8)));
    events.produce_in(&kafka.bootstrap(), "named-files-in", 0..20_000)?;
    first.wait_until(WORK, "a commit names files", |_| {
        let commits = kafka.commits("named-files", "named-files-in")?;
        Ok(commits
            .values()
            .any(|(_, metadata)| metadata.starts_with("keystone:publish:")))
    })?;
    first.sigkill();
    assert_eq!(
        s3.list("named/_keystone/named-files")?.len(),
        1,
        "a manifest"
    );
    assert!(
        visible_objects(&s3, "named/")?.is_empty(),
        "killed too late"
    );
    let mut second = Worker::spawn(&endpoint(s3.port()))?;
    events.produce_in(&kafka.bootstrap(), "named-files-in", 20_000..40_000)?;
    all_committed(kafka, "named-files", "named-files-in", &mut [&mut second])?;
    let log = drain(second)?;
    assert!(log.contains("is published"), "{log}");
    assert!(s3.list("named/_keystone")?.is_empty(), "{log}");
    let mut judge = Judge::new(events.expected_with_time(), "event_id");
    judge.parquet_s3(&s3, "named/")?;
    judge.verdict().assert_exact();
    Ok(())
}

/// SIGTERM under load: drained, committed, exit 0; the next worker delivers no event twice.
#[test]
fn a_drained_worker_repeats_nothing() -> Result<()> {
    let kafka = Kafka::shared()?;
    let directory = tempfile::tempdir()?;
    let events = Events::new(14, 400_000);
    kafka.create_topic("drained-out", 8, &[])?;
    let (topic, table) = ("drained-kafka-in", "drained-parquet-in");
    let to_topic = to_kafka(kafka, "drained-kafka", topic, "drained-out");
    let location = file_url(directory.path());
    let to_files = to_parquet(kafka, "drained-parquet", table, &location);
    let mut hurried = false;
    for (route, from, properties) in [
        ("drained-kafka", topic, to_topic),
        ("drained-parquet", table, to_files),
    ] {
        let properties = properties + LONG_DRAIN;
        kafka.create_topic(from, 8, &[])?;
        let (mut produced, mut committed) = (0, 0);
        // One that is done before it is told to stop proves nothing: the next one gets more.
        while committed == produced {
            let before = produced;
            produced += events.count() / 4;
            assert!(
                produced <= events.count(),
                "no worker was drained in the middle"
            );
            events.produce_in(&kafka.bootstrap(), from, before..produced)?;
            let mut first = Worker::spawn(&properties)?;
            consumed(&mut first, 1)?;
            hurried |= drain(first)?.contains(NOT_CLOSED);
            committed = kafka.committed(route, from)?.values().sum::<i64>() as u64;
        }
        eprintln!("{route}: drained after {committed} of {produced} events");
        assert!(committed > 0);
        events.produce_in(&kafka.bootstrap(), from, produced..events.count())?;
        let mut second = Worker::spawn(&properties)?;
        consumed(&mut second, events.count() - committed)?;
        assert_eq!(counter(&second, "consumed")?, events.count() - committed);
        if from == topic {
            all_committed(kafka, route, from, &mut [&mut second])?;
        }
        hurried |= drain(second)?.contains(NOT_CLOSED);
    }
    // Workers take their locks with them, unless they say that they could not close in time.
    let mut locks = std::fs::read_dir(directory.path().join("_keystone/locks"))?;
    assert!(hurried || locks.next().is_none(), "a lock was left");
    let mut judge = Judge::new(events.expected(), "event_id");
    judge.topic(kafka, "drained-out", Isolation::ReadCommitted)?;
    judge.verdict().assert_exact();
    let mut judge = Judge::new(events.expected_with_time(), "event_id");
    judge.parquet(directory.path())?;
    judge.verdict().assert_exact();
    Ok(())
}

/// Elasticsearch is away in the middle of the work, for longer than a stall may last: the worker waits it out, in its group, with bounded memory, and
/// says what is wrong.
#[test]
fn an_outage_of_elasticsearch_is_waited_out() -> Result<()> {
    let kafka = Kafka::shared()?;
    let mut server = Elasticsearch::start(Options::default())?;
    let events = Events::new(15, 600_000);
    kafka.create_topic("es-outage-in", 8, &[])?;
    let half = events.count() / 2;
    events.produce_in(&kafka.bootstrap(), "es-outage-in", 0..half)?;
    let properties = to_elasticsearch(kafka, "es-outage", "es-outage-in", &server.url(), "outage");
    // Far shorter than the outage, which is no stall.
    let properties = format!(
        "{properties}delivery.stall.max.ms = {}\n",
        STALL.as_millis()
    );
    let mut worker = Worker::spawn(&properties)?;
    worker.wait_until(WORK, "some is delivered", |worker| {
        Ok(counter(worker, "delivered")? > 1_000)
    })?;
    server.kill();
    let down = Instant::now();
    // So there is work, however fast the first half went.
    events.produce_in(&kafka.bootstrap(), "es-outage-in", half..events.count())?;
    worker.wait_until(WORK, "readyz says that the sink is down", |worker| {
        let (ready, text) = worker.readyz()?;
        let address = server.url().replace("http://", "");
        Ok(!ready && text.contains("sink:") && text.contains(&address))
    })?;
    assert!(
        worker
            .metrics()?
            .sum("keystone_retries_total", &[("part", "sink")])
            > 0.0
    );
    // A worker that stands still ends after twice that time.
    worker.wait_until(WORK, "a stall would have ended the worker", |worker| {
        assert_eq!(kafka.group("es-outage")?, (1, "Stable".to_owned()));
        assert!(worker.peak_rss()? < 200 * MEBIBYTE);
        Ok(down.elapsed() > 3 * STALL)
    })?;
    let (live, _) = worker.get("/livez")?;
    assert_eq!(live, 200);
    server.restart()?;
    all_committed(kafka, "es-outage", "es-outage-in", &mut [&mut worker])?;
    worker.wait_ready(WORK)?;
    drain(worker)?;
    let mut judge = Judge::new(events.expected(), "event_id");
    judge.elasticsearch(&server, "outage")?;
    judge.verdict().assert_exact();
    Ok(())
}

/// The only broker is away for longer than the session timeout.
#[test]
fn an_outage_of_kafka_is_waited_out() -> Result<()> {
    let mut kafka = Kafka::start()?;
    let events = Events::new(16, 400_000);
    topic_of(&kafka, "in", &events)?;
    kafka.create_topic("out", 8, &[])?;
    let properties = to_kafka(&kafka, "kafka-outage", "in", "out");
    // Waiting for Kafka is no stall.
    let properties =
        format!("{properties}kafka.session.timeout.ms = 6000\ndelivery.stall.max.ms = 2000\n");
    let mut worker = Worker::spawn(&properties)?;
    worker.wait_until(WORK, "some is delivered", |worker| {
        Ok(counter(worker, "delivered")? > 1_000)
    })?;
    kafka.kill();
    let down = Instant::now();
    worker.wait_until(WORK, "readyz says that kafka is down", |worker| {
        let (ready, text) = worker.readyz()?;
        Ok(!ready && text.contains("source:") && text.contains("kafka.bootstrap.servers"))
    })?;
    worker.wait_until(WORK, "the session has timed out", |_| {
        Ok(down.elapsed() > Duration::from_secs(8))
    })?;
    kafka.restart()?;
    all_committed(&kafka, "kafka-outage", "in", &mut [&mut worker])?;
    worker.wait_ready(WORK)?;
    drain(worker)?;
    let mut judge = Judge::new(events.expected(), "event_id");
    judge.topic(&kafka, "out", Isolation::ReadCommitted)?;
    let verdict = judge.verdict();
    report("kafka-outage", &verdict);
    verdict.assert_complete();
    Ok(())
}

/// A metastore that is away delays the registration of partitions, never delivery, and the worker catches up.
#[test]
fn an_outage_of_the_metastore_delays_registration_only() -> Result<()> {
    let kafka = Kafka::shared()?;
    let warehouse = tempfile::tempdir()?;
    let mut metastore = Metastore::start(warehouse.path())?;
    let events = Events::new(17, 100_000);
    topic_of(kafka, "hms-outage-in", &events)?;
    let location = warehouse.path().join("plays");
    let properties = to_parquet(kafka, "hms-outage", "hms-outage-in", &file_url(&location));
    let properties = format!(
        "{properties}sink.hive.metastore.uri = {}\nsink.hive.table = plays\nsink.parquet.roll.max.age.ms = 2000\n",
        metastore.uri()
    );
    metastore.stop();
    let mut worker = Worker::spawn(&properties)?;
    all_committed(kafka, "hms-outage", "hms-outage-in", &mut [&mut worker])?;
    let expected = events.expected_with_time();
    // Files are published after the commit that names them.
    worker.wait_until(WORK, "all is published", |worker| {
        Ok(counter(worker, "delivered")? >= expected.len() as u64)
    })?;
    let status = worker.status()?;
    let problems = status["sink"]["problems"].to_string();
    assert!(problems.contains("metastore"), "{status}");
    let (ready, text) = worker.readyz()?;
    assert!(!ready && text.contains("metastore"), "{text}");
    let pending = worker
        .metrics()?
        .sum("keystone_hive_pending_partitions", &[]);
    assert!(
        pending > 0.0,
        "the metrics say that {pending} partitions wait"
    );
    let mut judge = Judge::new(expected, "event_id");
    judge.parquet(&location)?;
    judge.verdict().assert_exact();
    metastore.restart()?;
    worker.wait_until(WORK, "the partitions are registered", |worker| {
        Ok(worker.status()?["sink"]["problems"]
            .as_array()
            .is_some_and(Vec::is_empty))
    })?;
    drain(worker)?;
    let table = metastore.table("default", "plays")?;
    assert_eq!(table.table_type, "EXTERNAL_TABLE");
    let names: Vec<_> = table
        .partition_keys
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(names, ["dt", "hour"]);
    let mut values: Vec<_> = metastore
        .partitions("default", "plays")?
        .into_iter()
        .map(|partition| partition.values.join("/"))
        .collect();
    values.sort();
    assert_eq!(values, ["2026-11-23/10", "2026-11-23/11"]);
    Ok(())
}
