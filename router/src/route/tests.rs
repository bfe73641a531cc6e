use keystone_config::Sources;

use super::load;

const ROUTE: &str = "route.name = r\nsource.topics = in\nkafka.bootstrap.servers = 127.0.0.1:1\nsink.type = blackhole\n";

fn problems(sets: &[&str]) -> Option<String> {
    let sources = Sources {
        defaults: None,
        file: Some(("r.properties".to_owned(), ROUTE.to_owned())),
        env: Vec::new(),
        sets: sets.iter().map(|set| (*set).to_owned()).collect(),
    };
    load(&sources, "w")
        .err()
        .map(|problems| problems.to_string())
}

/// The route with these options over it is refused with all these words.
#[track_caller]
pub(super) fn assert_refused(sets: &[&str], words: &[&str]) {
    let problems = problems(sets).unwrap_or_else(|| panic!("{sets:?} are taken"));
    for words in words {
        assert!(problems.contains(words), "no {words:?} in {problems}");
    }
}

#[track_caller]
pub(super) fn assert_taken(sets: &[&str]) {
    assert_eq!(problems(sets), None, "{sets:?}");
}

#[test]
fn credentials_in_addresses_are_refused_and_not_repeated() {
    let kafka = ["sink.type=kafka", "sink.kafka.topic=out"];
    let parquet = [
        "sink.type=parquet",
        "sink.parquet.schema=a string",
        "sink.hive.table=t",
        "sink.parquet.location=s3://b/p",
    ];
    for (others, set) in [
        (&kafka[..], "kafka.bootstrap.servers=a:1,user:s3cret@b:1"),
        (&kafka, "kafka.metadata.broker.list=user:s3cret@b:1"),
        (&kafka, "sink.kafka.bootstrap.servers=user:s3cret@b:1"),
        (&parquet, "sink.parquet.location=s3://user:s3cret@b/p"),
        (&parquet, "sink.parquet.s3.endpoint=http://user:s3cret@b"),
        (
            &parquet,
            "sink.hive.metastore.uri=thrift://user:s3c,s3cret@b",
        ),
        (&parquet, "sink.hive.location=s3a://user:s3cret@b/p"),
    ] {
        let found = problems(&[others, &[set]].concat()).unwrap_or_default();
        let key = set.split('=').next().unwrap_or_default();
        assert!(
            found.contains(&format!("{key}: ")) && found.contains("redentials"),
            "{found}"
        );
        assert!(
            !found.contains("s3c") && !found.contains("user:"),
            "{found}"
        );
    }
}

#[test]
fn properties_that_librdkafka_refuses_together_are_a_problem() {
    assert_refused(
        &["kafka.session.timeout.ms=400000"],
        &[
            "--set: kafka.session.timeout.ms: no Kafka client can be made; librdkafka says: ",
            "max.poll.interval.ms",
        ],
    );
    assert_refused(
        &["kafka.max.in.flight=10"],
        &[
            "kafka.max.in.flight: no Kafka client can be made",
            "enable.idempotence",
        ],
    );
    assert_taken(&["kafka.max.in.flight=10", "dead.letter.policy=stop"]);
    assert_taken(&[
        "kafka.message.timeout.ms=1",
        "kafka.group.protocol=consumer",
    ]);
}

#[test]
fn an_empty_group_is_refused() {
    assert_refused(&["kafka.group.id="], &["kafka.group.id: it is empty"]);
}

#[test]
fn a_transaction_stays_on_the_cluster_that_is_read() {
    let with = |servers: &'static str| {
        [
            "delivery.tradeoff=no-duplicates",
            "sink.type=kafka",
            "sink.kafka.topic=out",
            "kafka.bootstrap.servers=a:1,b:1",
            servers,
        ]
    };
    // The same brokers, written in another way.
    assert_taken(&with("sink.kafka.bootstrap.servers=b:1, PLAINTEXT://A:1"));
    for (key, servers) in [
        (
            "sink.kafka.bootstrap.servers",
            "sink.kafka.bootstrap.servers=c:1",
        ),
        (
            "sink.kafka.metadata.broker.list",
            "sink.kafka.metadata.broker.list=c:1",
        ),
    ] {
        let says = format!("{key}: a transaction carries the consumed offsets");
        assert_refused(&with(servers), &[&says]);
    }
}

#[test]
fn which_events_librdkafka_tells_of_is_not_to_be_set() {
    for key in ["kafka.enabled_events", "sink.kafka.enabled_events"] {
        let set = format!("{key}=512");
        assert_refused(&["sink.type=kafka", "sink.kafka.topic=out", &set], &[key]);
    }
}
