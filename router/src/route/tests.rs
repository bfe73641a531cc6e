use std::io::Write;

use keystone_config::Sources;

use super::load;

const ROUTE: &str = "route.name = r\nsource.topics = in\nkafka.bootstrap.servers = 127.0.0.1:1\nsink.type = blackhole\n";

fn sources(sets: &[&str]) -> Sources {
    Sources {
        defaults: None,
        file: Some(("r.properties".to_owned(), ROUTE.to_owned())),
        env: Vec::new(),
        sets: sets.iter().map(|set| (*set).to_owned()).collect(),
    }
}

fn problems(sets: &[&str]) -> Option<String> {
    load(&sources(sets), "w")
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

const TO_KAFKA: [&str; 2] = ["sink.type=kafka", "sink.kafka.topic=out"];

/// What a route to Kafka with these options over it is refused with, one problem a line.
fn refused_to_kafka(sets: &[&str]) -> Vec<String> {
    let found = problems(&[&TO_KAFKA, sets].concat()).unwrap_or_default();
    found.lines().map(str::to_owned).collect()
}

#[test]
fn the_value_of_a_misspelt_secret_is_not_told() {
    for key in [
        "kafka.sasl.passwd",
        "kafka.SASL.PASSWORD",
        "kafka.ssl_key_pem",
        "kafka.ssl.keystore.key",
        "kafka.no.such.thing",
        "sink.kafka.sasl.passwd",
    ] {
        let set = format!("{key}=R3ALPASSWORD");
        let found = refused_to_kafka(&[&set]).join("\n");
        assert!(found.contains(&format!("{key}: ")), "{found}");
        assert!(!found.contains("R3ALPASSWORD"), "{found}");
    }
}

#[test]
fn a_slip_in_a_name_is_told_beside_what_is_missing() {
    assert_refused(
        &["sink.type=kafka", "sink.kafka.topik=x", "kafka.ackz=1"],
        &[
            "sink.kafka.topic: required",
            "sink.kafka.topik: librdkafka says: No such configuration property",
            "kafka.ackz: librdkafka says: No such configuration property",
        ],
    );
}

#[test]
fn what_no_client_can_be_made_with_is_told_once_and_by_its_own_key() {
    let ca = "kafka.ssl.ca.location=/no/such/ca";
    let found = refused_to_kafka(&["kafka.security.protocol=SSL", ca]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].starts_with("--set: kafka.ssl.ca.location: no Kafka client can be made"),
        "{found:?}"
    );
    let sink = "sink.kafka.ssl.ca.location=/no/such/ca";
    let found = refused_to_kafka(&["sink.kafka.security.protocol=SSL", sink]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].starts_with("--set: sink.kafka.ssl.ca.location: no Kafka client can be made"),
        "{found:?}"
    );
}

#[test]
fn what_sasl_needs_is_told_once() {
    let protocol = "kafka.security.protocol=SASL_SSL";
    let user = "kafka.sasl.username=me";
    let mechanism = "kafka.sasl.mechanism=PLAIN";
    let password = "kafka.sasl.password=hidden";
    for (sets, says) in [
        (&[protocol][..], "kafka.sasl.mechanism: it is needed"),
        (
            &[protocol, mechanism, password],
            "kafka.sasl.username: it is needed",
        ),
        (
            &[protocol, "kafka.sasl.mechanisms=GSSAPI", user, password],
            "--set: kafka.sasl.mechanisms: this program is built without Kerberos",
        ),
        (
            &[user, password],
            "--set: kafka.sasl.password: SASL is not used: kafka.security.protocol is not set",
        ),
        (
            &["kafka.security.protocol=ssl", user],
            "--set: kafka.sasl.username: SASL is not used: kafka.security.protocol is ssl",
        ),
        (
            &["sink.kafka.sasl.username=me"],
            "--set: sink.kafka.sasl.username: SASL is not used: sink.kafka.security.protocol is not set",
        ),
        (
            &["sink.kafka.security.protocol=SASL_PLAINTEXT"],
            "sink.kafka.sasl.mechanism: it is needed",
        ),
    ] {
        let found = refused_to_kafka(sets);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with(says), "no {says} in {found:?}");
    }
    let whole = [protocol, mechanism, user, password];
    assert_taken(&whole);
    // The sink's cluster does without.
    let sink = [
        "sink.kafka.bootstrap.servers=127.0.0.1:2",
        "sink.kafka.security.protocol=PLAINTEXT",
    ];
    assert_taken(&[&TO_KAFKA[..], &whole, &sink].concat());
}

#[test]
fn addresses_of_brokers_that_can_not_be_are_refused() {
    for (set, says) in [
        ("kafka.bootstrap.servers=localhost:abc", "is no port"),
        ("kafka.bootstrap.servers=a:1 b:2", "white space"),
        ("kafka.bootstrap.servers=http://a:1", "before `://`"),
        ("sink.kafka.bootstrap.servers=a:99999", "is no port"),
    ] {
        let key = set.split('=').next().unwrap_or_default();
        let found = refused_to_kafka(&[set]).join("\n");
        assert!(
            found.starts_with(&format!("--set: {key}: ")) && found.contains(says),
            "{found}"
        );
    }
}

#[test]
fn an_expression_of_a_file_is_not_quoted() {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(b"S3CRET (value").expect("it can be written");
    let path = file.path().display();
    for key in ["filter", "projection", "hygiene.types"] {
        let set = format!("{key}=${{file:{path}}}");
        let found = problems(&[&set]).unwrap_or_default();
        assert!(
            found.contains(&format!("--set: {key}: it is wrong at line 1, column ")),
            "{found}"
        );
        assert!(!found.contains("S3CRET"), "{found}");
    }
}

#[test]
fn the_query_of_an_address_is_not_told() {
    let found = problems(&[
        "sink.type=elasticsearch",
        "sink.elasticsearch.index=i",
        "sink.elasticsearch.urls=http://h:9200?api_key=S3CRET",
    ]);
    let found = found.unwrap_or_default();
    assert!(
        found.contains("sink.elasticsearch.urls: ") && found.contains("http://h:9200?***"),
        "{found}"
    );
    assert!(!found.contains("S3CRET"), "{found}");
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    assert_refused(
        &["delivery.retry.backoff.ms=20000"],
        &["--set: delivery.retry.backoff.ms: the first pause"],
    );
    assert_refused(
        &["delivery.retry.backoff.max.ms=100"],
        &["--set: delivery.retry.backoff.max.ms: the first pause"],
    );
    assert_taken(&["delivery.retry.backoff.ms=10000"]);
    let interval = "kafka.max.poll.interval.ms=60000";
    assert_refused(
        &[interval, "delivery.rebalance.drain.max.ms=60000"],
        &["--set: delivery.rebalance.drain.max.ms: a drain"],
    );
    assert_taken(&["delivery.shutdown.drain.max.ms=300000"]);
    assert_refused(
        &[interval, "delivery.tradeoff=no-duplicates"],
        &["--set: kafka.max.poll.interval.ms: a drain"],
    );
    assert_taken(&[interval]);
    assert_refused(
        &[
            "sink.type=parquet",
            "sink.parquet.schema=a string",
            "sink.parquet.location=file:///tmp/p",
            "sink.hive.table=t",
        ],
        &["--set: sink.hive.table: nothing registers it"],
    );
}

#[test]
fn a_topic_for_dead_letters_that_gets_none_is_worth_a_warning() {
    let topic = "dead.letter.topic=dead";
    let warnings = |sets: &[&str]| {
        let (route, _) = load(&sources(sets), "w").expect("it is taken");
        route.warnings().join("\n")
    };
    assert_eq!(warnings(&[topic]), "");
    assert_eq!(
        warnings(&[topic, "dead.letter.policy=stop"]),
        "--set: dead.letter.topic has no effect: dead.letter.policy is stop"
    );
}

#[test]
fn options_that_do_nothing_for_what_others_say_are_worth_a_warning() {
    let warnings = |sets: &[&str]| {
        let (route, _) = load(&sources(sets), "w").expect("it is taken");
        route.warnings().join("\n")
    };
    let parquet = [
        "sink.type=parquet",
        "sink.parquet.schema=a string",
        "sink.parquet.location=file:///lake",
    ];
    let kafka = ["sink.type=kafka", "sink.kafka.topic=out"];
    let with = |base: &[&str], more: &[&str]| warnings(&[base, more].concat());
    assert_eq!(
        with(&parquet, &["sink.parquet.s3.endpoint=http://minio:9000"]),
        "--set: sink.parquet.s3.endpoint has no effect: sink.parquet.location is a directory, no bucket"
    );
    assert_eq!(
        with(
            &parquet,
            &[
                "sink.parquet.compression=snappy",
                "sink.parquet.compression.level=9"
            ]
        ),
        "--set: sink.parquet.compression.level has no effect: sink.parquet.compression is not zstd"
    );
    assert_eq!(with(&parquet, &["sink.parquet.compression.level=9"]), "");
    assert_eq!(
        with(&parquet, &["sink.hive.database=lake"]),
        "--set: sink.hive.database has no effect: sink.hive.metastore.uri is not set"
    );
    assert_eq!(
        with(
            &kafka,
            &[
                "sink.kafka.transactions=false",
                "sink.kafka.transaction.max.ms=1000"
            ]
        ),
        "--set: sink.kafka.transaction.max.ms has no effect: sink.kafka.transactions is false"
    );
    let long = warnings(&["delivery.shutdown.drain.max.ms=300000"]);
    assert!(
        long.starts_with("--set: delivery.shutdown.drain.max.ms = 300000 is as long as"),
        "{long}"
    );
    assert_eq!(
        warnings(&["kafka.acks=1"]),
        "--set: kafka.acks has no effect: all producers are idempotent and wait for all in-sync replicas"
    );
    assert_eq!(
        warnings(&["hygiene.on.violation=discard"]),
        "--set: hygiene.on.violation has no effect: no hygiene rule is set"
    );
    assert_eq!(
        warnings(&["hygiene.on.violation=discard", "hygiene.required=id"]),
        ""
    );
}

#[test]
fn what_differs_between_workers_is_no_part_of_the_hash() {
    let hash = |sets: &[&str]| {
        let (route, _) = load(&sources(sets), "w").expect("it is taken");
        route.config_hash
    };
    let plain = hash(&[]);
    for key in [
        "kafka.client.id",
        "kafka.client.rack",
        "kafka.group.instance.id",
    ] {
        assert_eq!(hash(&[&format!("{key}=one")]), plain, "{key}");
    }
    assert_eq!(hash(&["admin.listen=127.0.0.1:0"]), plain);
    assert_ne!(hash(&["kafka.group.id=other"]), plain);
}
