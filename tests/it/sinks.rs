//! What each sink can do beyond the main job.

use std::collections::BTreeSet;
use std::path::Path;

use keystone_tests::elasticsearch::PASSWORD;
use keystone_tests::events::noise;
use keystone_tests::proxy::{Mode, Proxy};
use keystone_tests::{
    Elasticsearch, Events, Judge, Kafka, Metastore, Result, Route, S3, Worker, free_port, judge,
};

use crate::scenario::{
    LONG_DRAIN, MEBIBYTE, Outgoing, WORK, all_committed, all_read, assert_ledger, counter, drain,
    file_url, holds, route, send, to_elasticsearch, to_parquet, topic_of, values,
};

/// The names of all files below a directory, hidden ones too.
fn all_files(directory: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => names.extend(all_files(&entry.path())?),
            false => names.push(entry.file_name().to_string_lossy().into_owned()),
        }
    }
    Ok(names)
}

#[test]
fn an_index_by_time_and_field_and_an_id_from_a_field() -> Result<()> {
    let kafka = Kafka::shared()?;
    let server = Elasticsearch::shared()?;
    kafka.create_topic("named-in", 2, &[])?;
    let records = [
        r#"{"key":"a","tenant":{"id":"one"},"ts":"2026-11-23T23:59:59.999Z"}"#,
        r#"{"key":"b","tenant":{"id":"one"},"ts":"2026-11-24T01:00:00+01:00"}"#,
        r#"{"key":3,"tenant":{"id":"two"},"ts":1795435200000}"#,
        r#"{"key":"a","tenant":{"id":"one"},"ts":"2026-11-23T00:00:00Z","again":true}"#,
        // Dead letters: no time, a name that Elasticsearch does not take, no id.
        r#"{"key":"x","tenant":{"id":"one"}}"#,
        r#"{"key":"x","tenant":{"id":"ONE"},"ts":"2026-11-23T00:00:00Z"}"#,
        r#"{"tenant":{"id":"one"},"ts":"2026-11-23T00:00:00Z"}"#,
    ];
    send(kafka, "named-in", &records.map(Outgoing::new))?;
    let more = format!(
        "sink.type = elasticsearch\nsink.elasticsearch.urls = {}\nsink.elasticsearch.index = named-{{tenant.id}}-{{ts:%Y.%m.%d}}\n\
         sink.elasticsearch.id = key",
        server.url()
    );
    let mut worker = Worker::spawn(&route(kafka, "named", "named-in", &more))?;
    all_committed(kafka, "named", "named-in", &mut [&mut worker])?;
    assert_eq!(counter(&worker, "dead_lettered")?, 3);
    assert_eq!(counter(&worker, "delivered")?, 4);
    drain(worker)?;
    let one = server.search_all("named-one-2026.11.23")?;
    assert_eq!(one.len(), 1);
    assert_eq!(
        one["a"]["again"], true,
        "the later event is written over the earlier"
    );
    assert!(server.search_all("named-one-2026.11.24")?.contains_key("b"));
    assert!(server.search_all("named-two-2026.11.23")?.contains_key("3"));
    let letters = kafka.read_all("named.dead-letters")?;
    let reasons: Vec<_> = letters
        .iter()
        .filter_map(|letter| letter.header("keystone.reason"))
        .collect();
    for (reason, words) in reasons.iter().zip(["ts", "ONE", "key"]) {
        assert!(reason.contains(words), "{reasons:?}");
    }
    Ok(())
}

/// The same events a second time, by `create`: Elasticsearch keeps what it has, and they count as delivered before.
#[test]
fn create_suppresses_what_was_delivered_before() -> Result<()> {
    let kafka = Kafka::shared()?;
    let server = Elasticsearch::shared()?;
    let events = Events::new(41, 20_000);
    topic_of(kafka, "created-in", &events)?;
    let properties = to_elasticsearch(kafka, "created", "created-in", &server.url(), "created")
        // A request that is sent again would find its own documents.
        + "delivery.tradeoff = no-duplicates\nsink.elasticsearch.request.timeout.ms = 300000\n";
    let kept = events.expected().len() as u64;
    for (group, suppressed) in [("created-once", 0), ("created-twice", kept)] {
        let mut worker = Route::new(&properties)
            .set("kafka.group.id", group)
            .spawn()?;
        all_committed(kafka, group, "created-in", &mut [&mut worker])?;
        assert_eq!(counter(&worker, "delivered")?, kept);
        let found = worker.metrics()?.sum(
            "keystone_elasticsearch_duplicates_total",
            &[("outcome", "suppressed")],
        );
        assert_eq!(found as u64, suppressed);
        drain(worker)?;
    }
    let mut judge = Judge::new(events.expected(), "event_id");
    judge.elasticsearch(server, "created")?;
    judge.verdict().assert_exact();
    Ok(())
}

/// An older event that comes after a later one of its id changes nothing where the offset is the version.
#[test]
fn later_events_win_by_their_offsets() -> Result<()> {
    let kafka = Kafka::shared()?;
    let server = Elasticsearch::shared()?;
    kafka.create_topic("later-in", 1, &[])?;
    let records = [
        r#"{"key":"a","n":0}"#,
        r#"{"key":"b","n":1}"#,
        r#"{"key":"a","n":2}"#,
        r#"{"key":"a","n":3}"#,
    ];
    send(kafka, "later-in", &records.map(Outgoing::new))?;
    let properties = route(
        kafka,
        "later",
        "later-in",
        &format!(
            "sink.type = elasticsearch\nsink.elasticsearch.urls = {}\nsink.elasticsearch.index = later\n\
             sink.elasticsearch.id = key\nsink.elasticsearch.version = offset\n",
            server.url()
        ),
    );
    // The second time only the older events.
    for (group, filter, suppressed) in
        [("later-once", "n >= `0`", 0), ("later-again", "n < `3`", 3)]
    {
        let mut worker = Route::new(&properties)
            .set("kafka.group.id", group)
            .set("filter", filter)
            .spawn()?;
        all_committed(kafka, group, "later-in", &mut [&mut worker])?;
        assert_eq!(counter(&worker, "dead_lettered")?, 0);
        let found = worker.metrics()?.sum(
            "keystone_elasticsearch_duplicates_total",
            &[("outcome", "suppressed")],
        );
        assert_eq!(found as u64, suppressed, "{group}");
        drain(worker)?;
        let found = server.search_all("later")?;
        assert_eq!(found.len(), 2);
        assert_eq!((&found["a"]["n"], &found["b"]["n"]), (&3.into(), &1.into()));
    }
    Ok(())
}

/// A data stream takes `create` with ids of our own: the second time everything is there already.
#[test]
fn a_data_stream_has_each_event_once() -> Result<()> {
    let kafka = Kafka::shared()?;
    let server = Elasticsearch::shared()?;
    let events = Events::new(46, 20_000);
    topic_of(kafka, "stream-in", &events)?;
    let template = serde_json::json!({
        "index_patterns": ["stream-plays*"],
        "data_stream": {},
        "template": {"settings": {"number_of_replicas": 0}}
    });
    server.request("PUT", "/_index_template/stream-plays", Some(&template))?;
    let projection = "{\"@timestamp\": ts, event_id: id}";
    let properties = route(
        kafka,
        "stream",
        "stream-in",
        &format!(
            "projection = {projection}\nsink.type = elasticsearch\nsink.elasticsearch.urls = {}\n\
             sink.elasticsearch.index = stream-plays\nsink.elasticsearch.op.type = create\n",
            server.url()
        ),
    );
    for group in ["stream-once", "stream-twice"] {
        let mut worker = Route::new(&properties)
            .set("kafka.group.id", group)
            .spawn()?;
        all_committed(kafka, group, "stream-in", &mut [&mut worker])?;
        assert_eq!(counter(&worker, "delivered")?, events.count());
        drain(worker)?;
    }
    let hits = server.request("GET", "/stream-plays/_search?size=1", None)?;
    let index = hits["hits"]["hits"][0]["_index"].as_str();
    assert!(
        index.is_some_and(|index| index.starts_with(".ds-stream-plays-")),
        "no backing index of a data stream: {index:?}"
    );
    let found = server.search_all("stream-plays")?;
    let ids: BTreeSet<_> = found
        .values()
        .filter_map(|document| document["event_id"].as_str())
        .collect();
    assert_eq!(server.count("stream-plays")?, events.count());
    assert_eq!(ids.len() as u64, events.count());
    Ok(())
}

/// A password, gzip, and a node that is dead beside one that lives.
#[test]
fn elasticsearch_with_credentials_gzip_and_a_dead_node() -> Result<()> {
    let kafka = Kafka::shared()?;
    let server = Elasticsearch::secured()?;
    let events = Events::new(42, 20_000);
    topic_of(kafka, "auth-in", &events)?;
    let both = format!("http://127.0.0.1:{},{}", free_port(), server.url());
    let basic = format!(
        "sink.elasticsearch.username = elastic\nsink.elasticsearch.password = {PASSWORD}\n"
    );
    let mut bytes = Vec::new();
    for (name, compression) in [("auth-plain", "none"), ("auth-gzip", "gzip")] {
        let properties = to_elasticsearch(kafka, name, "auth-in", &both, name)
            + &basic
            + &format!("sink.elasticsearch.compression = {compression}\n");
        let mut worker = Worker::spawn(&properties)?;
        all_committed(kafka, name, "auth-in", &mut [&mut worker])?;
        assert_ledger(&mut worker)?;
        let failures = worker.status()?["sink"]["failures"].to_string();
        assert!(failures.contains("can't be reached"), "{failures}");
        let (ready, text) = worker.readyz()?;
        assert!(ready, "{text}");
        let metrics = worker.metrics()?;
        bytes.push(metrics.sum("keystone_elasticsearch_request_bytes_total", &[]));
        drain(worker)?;
        let mut judge = Judge::new(events.expected(), "event_id");
        judge.elasticsearch(server, name)?;
        judge.verdict().assert_exact();
    }
    assert!(bytes[1] * 3.0 < bytes[0], "gzip: {bytes:?}");
    Ok(())
}

/// A topic refuses a request for one record in it: only that record is a dead letter.
#[test]
fn a_record_that_kafka_refuses_takes_none_with_it() -> Result<()> {
    let kafka = Kafka::shared()?;
    kafka.create_topic("refused-in", 1, &[])?;
    kafka.create_topic("refused-out", 1, &[("max.message.bytes", "20000")])?;
    kafka.create_topic("compacted-out", 1, &[("cleanup.policy", "compact")])?;
    let keyed = |key, value: String| Outgoing {
        key,
        ..Outgoing::new(value)
    };
    let mut records: Vec<_> = (0..500)
        .map(|n| keyed(Some("k"), format!("{{\"n\":{n}}}")))
        .collect();
    let long = noise(1, 60_000);
    records.insert(250, keyed(Some("k"), format!("{{\"t\":\"{long}\"}}")));
    records.insert(100, keyed(None, "{\"no\":\"key\"}".to_owned()));
    send(kafka, "refused-in", &records)?;
    for (name, words) in [
        ("refused", "max.message.bytes"),
        ("compacted", "without a key"),
    ] {
        let to = format!("{name}-out");
        let more = format!("sink.type = kafka\nsink.kafka.topic = {to}");
        let mut worker = Worker::spawn(&route(kafka, name, "refused-in", &more))?;
        all_committed(kafka, name, "refused-in", &mut [&mut worker])?;
        assert_ledger(&mut worker)?;
        drain(worker)?;
        assert_eq!(values(kafka, &to)?.len(), 501, "{name}");
        let letters = kafka.read_all(&format!("{name}.dead-letters"))?;
        assert_eq!(letters.len(), 1, "{name}");
        let reason = letters[0].header("keystone.reason").unwrap_or_default();
        assert!(reason.contains(words), "{reason}");
    }
    Ok(())
}

/// Two workers make the same table and the same partitions in one metastore; files roll by rows; a clean end leaves nothing hidden.
#[test]
fn two_workers_register_one_table() -> Result<()> {
    let kafka = Kafka::shared()?;
    let metastore = Metastore::shared()?;
    let directory = tempfile::tempdir()?;
    let events = Events::new(43, 60_000);
    kafka.create_topic("hive-in", 8, &[])?;
    let properties = to_parquet(kafka, "hive", "hive-in", &file_url(directory.path()))
        + &format!(
            "sink.hive.metastore.uri = {}\nsink.hive.table = two_workers\nsink.parquet.roll.max.rows = 1000\n{LONG_DRAIN}",
            metastore.uri()
        );
    let (mut first, mut second) = (Worker::spawn(&properties)?, Worker::spawn(&properties)?);
    for worker in [&mut first, &mut second] {
        holds(worker, 4)?;
    }
    events.produce(&kafka.bootstrap(), "hive-in")?;
    all_read(kafka, "hive-in", &mut [&mut first, &mut second])?;
    // What is to be registered dies with the process.
    first.wait_until(WORK, "the partitions are registered", |_| {
        Ok(metastore.partitions("default", "two_workers")?.len() == 2)
    })?;
    drain(first)?;
    drain(second)?;
    assert_eq!(
        kafka.committed("hive", "hive-in")?,
        kafka.end_offsets("hive-in")?
    );
    let mut judge = Judge::new(events.expected_with_time(), "event_id");
    judge.parquet(directory.path())?;
    judge.verdict().assert_exact();
    let mut files = all_files(directory.path())?;
    // Says that a worker lives; a sweep removes what is left of it.
    files.retain(|name| !name.ends_with(".lock"));
    assert!(
        files.len() as u64 >= events.expected().len() as u64 / 1000,
        "{files:?}"
    );
    assert!(
        files
            .iter()
            .all(|name| name.ends_with(".parquet") && !name.starts_with('.')),
        "{files:?}"
    );
    let table = metastore.table("default", "two_workers")?;
    assert_eq!(table.columns.len(), 6, "{table:?}");
    assert_eq!(table.columns[1], ("user".to_owned(), "bigint".to_owned()));
    let partitions = metastore.partitions("default", "two_workers")?;
    let values: Vec<_> = partitions
        .iter()
        .map(|partition| partition.values.join("/"))
        .collect();
    assert_eq!(values, ["2026-11-23/10", "2026-11-23/11"]);
    for partition in &partitions {
        let place = partition
            .location
            .trim_start_matches("file:")
            .trim_start_matches("//");
        assert!(
            !judge::visible_files(Path::new(place))?.is_empty(),
            "{partition:?}"
        );
    }
    Ok(())
}

/// Without `sink.parquet.schema` the columns are those of the table; a file rolls by age, so nothing waits for a drain.
#[test]
fn the_schema_comes_from_the_hive_table() -> Result<()> {
    let kafka = Kafka::shared()?;
    let metastore = Metastore::shared()?;
    let directory = tempfile::tempdir()?;
    let location = file_url(directory.path());
    let columns = [
        ("id", "string"),
        ("n", "int"),
        ("tags", "array<string>"),
        ("at", "date"),
    ];
    metastore.create_table(
        "default",
        "from_hive",
        &location,
        &columns,
        &[("country", "string")],
    )?;
    kafka.create_topic("from-hive-in", 1, &[])?;
    let records = [
        r#"{"id":"a","n":1,"tags":["x",null],"at":"2026-11-23","country":"DE","more":1}"#,
        r#"{"id":"b","N":2147483647,"country":"a/b c"}"#,
        r#"{"id":"c","n":2147483648,"country":"DE"}"#,
        r#"{"id":"d"}"#,
    ];
    send(kafka, "from-hive-in", &records.map(Outgoing::new))?;
    let more = format!(
        "sink.type = parquet\nsink.parquet.location = {location}\nsink.hive.metastore.uri = {}\nsink.hive.table = from_hive\n\
         sink.parquet.partition.by = country\nsink.parquet.roll.max.age.ms = 1000",
        metastore.uri()
    );
    let mut worker = Worker::spawn(&route(kafka, "from-hive", "from-hive-in", &more))?;
    all_committed(kafka, "from-hive", "from-hive-in", &mut [&mut worker])?;
    assert_eq!(
        worker.metrics()?.sum("keystone_parquet_open_files", &[]),
        0.0
    );
    worker.wait_until(WORK, "the partitions are registered", |_| {
        Ok(metastore.partitions("default", "from_hive")?.len() == 3)
    })?;
    drain(worker)?;
    let values: Vec<_> = metastore
        .partitions("default", "from_hive")?
        .into_iter()
        .map(|partition| partition.values.join("/"))
        .collect();
    assert_eq!(values, ["DE", "__HIVE_DEFAULT_PARTITION__", "a/b c"]);
    let mut rows = Vec::new();
    for file in judge::visible_files(directory.path())? {
        rows.extend(judge::parquet_rows(std::fs::read(file)?.into())?);
    }
    rows.sort();
    assert_eq!(rows.len(), 3, "{rows:?}");
    assert!(
        rows[0].starts_with(r#"{"id":"a","n":1,"tags":["x",null],"at":"2026-11-23"}"#),
        "{rows:?}"
    );
    assert_eq!(
        rows[1],
        r#"{"id":"b","n":2147483647,"tags":null,"at":null}"#
    );
    let letters = kafka.read_all("from-hive.dead-letters")?;
    assert_eq!(letters.len(), 1);
    let reason = letters[0].header("keystone.reason").unwrap_or_default();
    assert!(
        reason.contains("column n expects int, got the number 2147483648"),
        "{reason}"
    );
    Ok(())
}

/// The name of one partition is longer than the metastore's column for it. Registration is by chunks, each whole or not at all: the others
/// in its chunk are registered all the same, and later ones too.
#[test]
fn a_partition_that_the_metastore_refuses_holds_up_no_other() -> Result<()> {
    let kafka = Kafka::shared()?;
    let metastore = Metastore::shared()?;
    let directory = tempfile::tempdir()?;
    let (name, topic) = ("refused-partition", "refused-partition-in");
    kafka.create_topic(topic, 1, &[])?;
    let more = format!(
        "sink.type = parquet\nsink.parquet.location = {}\nsink.parquet.schema = id string\n\
         sink.parquet.partition.by = a, b, c, d\nsink.parquet.roll.max.age.ms = 1000\n\
         sink.hive.metastore.uri = {}\nsink.hive.table = refused_partition",
        file_url(directory.path()),
        metastore.uri()
    );
    let event = |value: &str| {
        format!(r#"{{"id":"i","a":"{value}","b":"{value}","c":"{value}","d":"{value}"}}"#)
    };
    // The greatest name: it is in the first chunk of every round. A directory for each value, so the path is no problem.
    let long = "z".repeat(230);
    let registered = |count: usize| -> Result<bool> {
        let found = metastore.partitions("default", "refused_partition");
        Ok(found.is_ok_and(|found| found.len() == count))
    };
    send(
        kafka,
        topic,
        &["one", &long, "two"].map(|value| Outgoing::new(event(value))),
    )?;
    let mut worker = Worker::spawn(&route(kafka, name, topic, &more))?;
    all_committed(kafka, name, topic, &mut [&mut worker])?;
    worker.wait_until(WORK, "the others are registered", |_| registered(2))?;
    let refusal = |worker: &Worker| -> Result<String> {
        Ok(worker.status()?["sink"]["facts"]["metastore_refuses"].to_string())
    };
    worker.wait_until(WORK, "the status names the partition", |worker| {
        let refusal = refusal(worker)?;
        Ok(refusal.contains(&format!("a={long}")) && refusal.contains("was refused"))
    })?;
    // Everything else is done: a worker that were unready for it would let no roll-out pass.
    worker.wait_ready(WORK)?;
    send(kafka, topic, &[Outgoing::new(event("later"))])?;
    all_committed(kafka, name, topic, &mut [&mut worker])?;
    worker.wait_until(WORK, "the later one is registered", |_| registered(3))?;
    for gauge in [
        "keystone_hive_pending_partitions",
        "keystone_hive_refused_partitions",
    ] {
        let waiting = worker.metrics()?.sum(gauge, &[]);
        assert_eq!(waiting, 1.0, "{gauge}: {}", refusal(&worker)?);
    }
    assert_eq!(judge::visible_files(directory.path())?.len(), 4);
    drain(worker)?;
    Ok(())
}

/// The bucket is away in the middle of the work, which is waited out; then it refuses the worker for a while: what was being written is read
/// again, and each row is there once.
#[test]
fn an_outage_of_s3_is_waited_out_and_a_refusal_healed_by_reading_again() -> Result<()> {
    let kafka = Kafka::shared()?;
    let mut s3 = S3::start()?;
    let proxy = Proxy::to(s3.port())?;
    let events = Events::new(44, 240_000);
    let (name, topic) = ("s3-outage", "s3-outage-in");
    kafka.create_topic(topic, 8, &[])?;
    let properties = to_parquet(kafka, name, topic, &format!("s3://{}/plays", S3::BUCKET))
        + &S3::properties(&format!("http://127.0.0.1:{}", proxy.port()))
        + "sink.parquet.roll.max.rows = 2000\nsink.parquet.roll.max.age.ms = 2000\n"
        + LONG_DRAIN;
    let mut worker = Worker::spawn(&properties)?;
    events.produce_in(&kafka.bootstrap(), topic, 0..100_000)?;
    worker.wait_until(WORK, "some is delivered", |worker| {
        Ok(counter(worker, "delivered")? > 0)
    })?;
    s3.stop();
    events.produce_in(&kafka.bootstrap(), topic, 100_000..200_000)?;
    // The client tries its requests again for 75 s, and says so.
    worker.wait_until(WORK, "readyz says that the sink is down", |worker| {
        let (ready, text) = worker.readyz()?;
        // Where it went away after a commit, the files that this names are what waits.
        Ok(!ready && (text.contains("sink:") || text.contains("publish:")))
    })?;
    assert!(
        worker
            .metrics()?
            .sum("keystone_parquet_failed_requests_total", &[])
            > 0.0
    );
    assert_eq!(kafka.group(name)?, (1, "Stable".to_owned()));
    s3.restart()?;
    all_committed(kafka, name, topic, &mut [&mut worker])?;
    worker.wait_ready(WORK)?;
    // All is published, too: while a commit waits for that, nothing is written that could be refused.
    assert_ledger(&mut worker)?;
    proxy.set(Mode::Busy {
        status: 403,
        retry_after: 0,
    });
    events.produce_in(&kafka.bootstrap(), topic, 200_000..240_000)?;
    worker.wait_until(WORK, "what was being written is dropped", |worker| {
        let denied = worker
            .metrics()?
            .sum("keystone_retries_total", &[("reason", "s3_denied")]);
        Ok(denied > 0.0 && counter(worker, "abandoned")? > 0)
    })?;
    proxy.set(Mode::Pass);
    all_committed(kafka, name, topic, &mut [&mut worker])?;
    worker.wait_ready(WORK)?;
    assert_ledger(&mut worker)?;
    let memory = worker.peak_rss()? / MEBIBYTE;
    assert!(memory < 200, "{memory} MiB at most");
    drain(worker)?;
    let mut judge = Judge::new(events.expected_with_time(), "event_id");
    judge.parquet_s3(&s3, "plays/")?;
    judge.verdict().assert_exact();
    Ok(())
}

/// The same outage of a Kafka cluster that is the target alone.
#[test]
fn an_outage_of_the_target_cluster_is_waited_out() -> Result<()> {
    let kafka = Kafka::shared()?;
    let mut target = Kafka::start()?;
    let events = Events::new(45, 50_000);
    topic_of(kafka, "target-in", &events)?;
    target.create_topic("target-out", 8, &[])?;
    // No filter: what it drops needs no sink to be committed.
    let more = format!(
        "sink.type = kafka\nsink.kafka.topic = target-out\nsink.kafka.bootstrap.servers = {}",
        target.bootstrap()
    );
    let properties = route(kafka, "target", "target-in", &more);
    target.stop();
    let mut worker = Worker::spawn(&properties)?;
    worker.wait_until(WORK, "readyz says that the sink is down", |worker| {
        let (ready, text) = worker.readyz()?;
        Ok(!ready && text.contains("sink"))
    })?;
    assert_eq!(
        kafka
            .committed("target", "target-in")?
            .values()
            .sum::<i64>(),
        0
    );
    target.restart()?;
    all_committed(kafka, "target", "target-in", &mut [&mut worker])?;
    worker.wait_ready(WORK)?;
    drain(worker)?;
    let mut judge = Judge::new(events.expected_whole(), "id");
    judge.topic(
        &target,
        "target-out",
        keystone_tests::kafka::Isolation::ReadCommitted,
    )?;
    judge.verdict().assert_exact();
    Ok(())
}
