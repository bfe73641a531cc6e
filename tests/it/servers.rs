//! Each server, as it is provisioned and started here, answers, and keeps its data over a restart.

use keystone_tests::elasticsearch::Options;
use keystone_tests::kafka::Isolation;
use keystone_tests::{
    Elasticsearch, Error, Events, Judge, Kafka, Metastore, Result, S3, block_on, http, keystone,
};
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::json;
use std::time::{Duration, Instant};

fn send(kafka: &Kafka, topic: &str, value: &str) -> Result<()> {
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", kafka.bootstrap())
        .create()?;
    let record = FutureRecord::to(topic).key("k").payload(value);
    block_on(producer.send(record, Duration::from_secs(20))).map_err(|(error, _)| error)?;
    Ok(())
}

#[test]
fn kafka_answers_and_keeps_its_records_over_a_restart() -> Result<()> {
    let start = Instant::now();
    let mut kafka = Kafka::start()?;
    eprintln!(
        "Kafka was ready after {:.1} s",
        start.elapsed().as_secs_f64()
    );
    kafka.create_topic("t", 2, &[("max.message.bytes", "30000000")])?;
    send(&kafka, "t", "one")?;
    kafka.kill();
    kafka.restart()?;
    send(&kafka, "t", "two")?;
    kafka.stop();
    kafka.restart()?;
    let values: Vec<_> = kafka
        .read_all("t")?
        .into_iter()
        .filter_map(|record| record.value)
        .collect();
    assert_eq!(values, [b"one".to_vec(), b"two".to_vec()]);
    assert_eq!(kafka.end_offsets("t")?.values().sum::<i64>(), 2);
    assert!(kafka.committed("nobody", "t")?.is_empty());
    kafka.delete_topic("t")
}

#[test]
fn elasticsearch_answers_and_keeps_its_documents_over_a_restart() -> Result<()> {
    let start = Instant::now();
    let mut server = Elasticsearch::start(Options::default())?;
    eprintln!(
        "Elasticsearch was ready after {:.1} s",
        start.elapsed().as_secs_f64()
    );
    server.request(
        "PUT",
        "/i/_doc/1",
        Some(&json!({"n": 9_007_199_254_740_993_i64})),
    )?;
    server.stop();
    server.restart()?;
    server.request("PUT", "/i/_doc/2", Some(&json!({"n": 2})))?;
    assert_eq!(server.count("i")?, 2);
    let documents = server.search_all("i")?;
    assert_eq!(documents["1"], json!({"n": 9_007_199_254_740_993_i64}));
    assert_eq!(documents["2"], json!({"n": 2}));
    Ok(())
}

#[test]
fn elasticsearch_with_a_password_refuses_a_stranger() -> Result<()> {
    let server = Elasticsearch::start(Options {
        password: Some("let-me-in".to_owned()),
        ..Options::default()
    })?;
    server.request("PUT", "/i/_doc/1", Some(&json!({"n": 1})))?;
    let stranger = keystone_tests::http()
        .get(format!("{}/i/_count", server.url()))
        .send()?;
    assert_eq!(stranger.status().as_u16(), 401);
    Ok(())
}

#[test]
fn the_metastore_answers_and_keeps_its_tables_over_a_restart() -> Result<()> {
    let warehouse = tempfile::tempdir()?;
    let start = Instant::now();
    let mut metastore = Metastore::start(warehouse.path())?;
    eprintln!(
        "the metastore was ready after {:.1} s",
        start.elapsed().as_secs_f64()
    );
    assert_eq!(metastore.databases()?, ["default"]);
    // The metastore shortens file:/// to file:/ itself.
    let location = format!("file:{}/plays", warehouse.path().display());
    metastore.create_table(
        "default",
        "plays",
        &location,
        &[("event_id", "string")],
        &[("dt", "string")],
    )?;
    metastore.stop();
    metastore.restart()?;
    let table = metastore.table("default", "plays")?;
    assert_eq!(table.location, location);
    assert_eq!(
        table.columns,
        [("event_id".to_owned(), "string".to_owned())]
    );
    assert_eq!(
        table.partition_keys,
        [("dt".to_owned(), "string".to_owned())]
    );
    assert!(metastore.partitions("default", "plays")?.is_empty());
    let missing = metastore
        .table("default", "nothing")
        .map_err(|error| error.to_string())
        .unwrap_err();
    assert!(missing.contains("nothing"), "{missing}");
    Ok(())
}

#[test]
fn s3_answers_and_keeps_its_objects_over_a_restart() -> Result<()> {
    let start = Instant::now();
    let mut s3 = S3::start()?;
    eprintln!(
        "S3Proxy was ready after {:.1} s",
        start.elapsed().as_secs_f64()
    );
    s3.put("table/dt=2026-11-23/a.parquet", "content")?;
    s3.stop();
    s3.restart()?;
    assert_eq!(s3.list("table")?, ["table/dt=2026-11-23/a.parquet"]);
    assert_eq!(s3.get("table/dt=2026-11-23/a.parquet")?, "content");
    let missing = s3
        .get("table/none")
        .map_err(|error: Error| error.to_string())
        .unwrap_err();
    assert!(missing.contains("getting table/none"), "{missing}");
    Ok(())
}

#[test]
fn events_are_produced_and_found_again() -> Result<()> {
    let kafka = Kafka::shared()?;
    kafka.create_topic("found-again", 8, &[])?;
    let events = Events::new(20261123, 200_000);
    events.produce(&kafka.bootstrap(), "found-again")?;
    let mut judge = Judge::new(events.expected_whole(), "id");
    judge.topic(kafka, "found-again", Isolation::ReadCommitted)?;
    judge.verdict().assert_exact();
    assert!(
        kafka
            .end_offsets("found-again")?
            .values()
            .all(|end| *end == 25_000)
    );
    kafka.delete_topic("found-again")
}

#[test]
fn the_judge_reads_what_stands_in_elasticsearch_to_the_last_document() -> Result<()> {
    let server = Elasticsearch::shared()?;
    let expected = Events::new(5, 150_000).expected();
    let mut documents: Vec<_> = expected.iter().collect();
    documents.sort();
    let (lost, _) = documents.pop().expect("there are some");
    for part in documents.chunks(5_000) {
        let lines = part
            .iter()
            .map(|(id, content)| format!("{{\"index\":{{\"_id\":\"{id}\"}}}}\n{content}\n"));
        let body: String = lines.collect();
        let request = http()
            .post(format!("{}/judged/_bulk", server.url()))
            .header("Content-Type", "application/x-ndjson");
        let answer: serde_json::Value = request.body(body).send()?.json()?;
        assert_eq!(answer["errors"], false);
    }
    let mut judge = Judge::new(expected.clone(), "event_id");
    judge.elasticsearch(server, "judged")?;
    let verdict = judge.verdict();
    assert_eq!(verdict.lost, std::slice::from_ref(lost));
    assert_eq!(verdict.delivered, documents.len() as u64);
    assert!(
        verdict.wrong.is_empty() && verdict.unexpected.is_empty(),
        "{verdict}"
    );
    Ok(())
}

#[test]
fn the_binary_is_built_and_answers() -> Result<()> {
    let answer = keystone(&["--help"], b"")?;
    assert_eq!(answer.code, Some(0), "{}", answer.stderr);
    assert!(answer.stdout.contains("run"), "{}", answer.stdout);
    Ok(())
}
