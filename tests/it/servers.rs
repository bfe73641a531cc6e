//! What the other tests take for granted: a metastore keeps its tables over a restart, a node with a password lets no stranger in, and the
//! judge reads everything. (That Kafka, Elasticsearch and S3 keep what they have over a restart, outages of them show.)

use keystone_tests::kafka::Isolation;
use keystone_tests::{Elasticsearch, Events, Judge, Kafka, Metastore, Result, http};
use serde_json::json;

#[test]
fn elasticsearch_with_a_password_refuses_a_stranger() -> Result<()> {
    let server = Elasticsearch::secured()?;
    server.request("PUT", "/guarded/_doc/1", Some(&json!({"n": 1})))?;
    let stranger = http()
        .get(format!("{}/guarded/_count", server.url()))
        .send()?;
    assert_eq!(stranger.status().as_u16(), 401);
    Ok(())
}

#[test]
fn the_metastore_answers_and_keeps_its_tables_over_a_restart() -> Result<()> {
    let warehouse = tempfile::tempdir()?;
    let mut metastore = Metastore::start(warehouse.path())?;
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
