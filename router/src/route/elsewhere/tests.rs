use keystone_config::Sources;

use super::load_elsewhere;

const SECRET: &str = "${file:/no/such/secret}";
const COMMON: &str = "route.name = r\nsource.topics = in\nkafka.bootstrap.servers = 127.0.0.1:1\n";
const SASL: &str = "kafka.security.protocol = SASL_SSL\nkafka.sasl.mechanism = PLAIN\n";

/// The problems and what is absent, a line each.
fn loaded(properties: &str) -> (String, Vec<String>) {
    let sources = Sources {
        defaults: None,
        file: Some(("r.properties".to_owned(), format!("{COMMON}{properties}"))),
        env: Vec::new(),
        sets: Vec::new(),
    };
    let (route, absent) = load_elsewhere(&sources);
    let problems = route.err().map(|problems| problems.to_string());
    let absent = absent.iter().map(ToString::to_string).collect();
    (problems.unwrap_or_default(), absent)
}

/// Only these options miss something here, and that is no problem.
#[track_caller]
fn assert_right_but_for(properties: &str, keys: &[&str]) {
    let (problems, absent) = loaded(properties);
    assert_eq!(problems, "");
    assert_eq!(absent.len(), keys.len(), "{absent:#?}");
    for (line, key) in absent.iter().zip(keys) {
        assert!(
            line.starts_with("r.properties:") && line.contains(&format!(": {key}: can't ")),
            "{line}"
        );
        assert!(line.contains(" file /no/such/"), "{line}");
    }
}

#[test]
fn secrets_may_be_elsewhere() {
    let kafka = format!("{SASL}kafka.sasl.username = {SECRET}\nkafka.sasl.password = {SECRET}\n");
    let keys = ["kafka.sasl.username", "kafka.sasl.password"];
    for sink in [
        "sink.type = blackhole\n",
        "sink.type = kafka\nsink.kafka.topic = out\n",
        "sink.type = kafka\nsink.kafka.topic = out\ndelivery.tradeoff = no-duplicates\n",
    ] {
        assert_right_but_for(&format!("{kafka}{sink}"), &keys);
    }
    let elasticsearch = "sink.type = elasticsearch\nsink.elasticsearch.urls = http://h:1\nsink.elasticsearch.index = i\n";
    assert_right_but_for(
        &format!("{elasticsearch}sink.elasticsearch.api.key = {SECRET}\n"),
        &["sink.elasticsearch.api.key"],
    );
    assert_right_but_for(
        &format!(
            "{elasticsearch}sink.elasticsearch.username = {SECRET}\nsink.elasticsearch.password = {SECRET}\n"
        ),
        &["sink.elasticsearch.username", "sink.elasticsearch.password"],
    );
    let parquet =
        "sink.type = parquet\nsink.parquet.location = s3://b/p\nsink.parquet.schema = a string\n";
    let keys = [
        "sink.parquet.s3.access.key.id",
        "sink.parquet.s3.secret.access.key",
    ];
    let [id, key] = keys;
    assert_right_but_for(
        &format!("{parquet}{id} = {SECRET}\n{key} = {SECRET}\n"),
        &keys,
    );
    assert_right_but_for(
        &format!(
            "sink.type = blackhole\nprojection = {{u: hmac_sha256(u, 'users')}}\ndsl.secret.users = {SECRET}\n"
        ),
        &["dsl.secret.users"],
    );
}

#[test]
fn certificates_and_keys_may_be_elsewhere() {
    let ssl = "kafka.security.protocol = SSL\n";
    let files = "kafka.ssl.ca.location = /no/such/ca\nkafka.ssl.certificate.location = /no/such/cert\nkafka.ssl.key.location = /no/such/key\n";
    let keys = [
        "kafka.ssl.ca.location",
        "kafka.ssl.certificate.location",
        "kafka.ssl.key.location",
    ];
    for sink in ["blackhole", "kafka\nsink.kafka.topic = out"] {
        assert_right_but_for(&format!("{ssl}{files}sink.type = {sink}\n"), &keys);
    }
    assert_right_but_for(
        &format!("{ssl}kafka.ssl.key.pem = {SECRET}\nsink.type = blackhole\n"),
        &["kafka.ssl.key.pem"],
    );
    assert_right_but_for(
        "sink.type = elasticsearch\nsink.elasticsearch.urls = https://h:1\nsink.elasticsearch.index = i\nsink.elasticsearch.tls.ca.file = /no/such/ca\n",
        &["sink.elasticsearch.tls.ca.file"],
    );
    assert_right_but_for(
        &format!("{ssl}kafka.ssl.ca.location = probe\nsink.type = blackhole\n"),
        &[],
    );
}

#[test]
fn all_that_is_wrong_besides_is_found() {
    let (problems, absent) = loaded(&format!(
        "sink.type = elasticsearch\nsink.elasticsearch.index = i\nsink.elasticsearch.api.key = {SECRET}\n\
         kafka.ssl.ca.location = /no/such/ca\nkafka.session.timeout.ms = soon\nfilter = a ==\n"
    ));
    for words in [
        "sink.elasticsearch.urls: required",
        "kafka.session.timeout.ms: librdkafka says",
        "filter: ",
    ] {
        assert!(problems.contains(words), "no {words:?} in {problems}");
    }
    assert_eq!(absent.len(), 2, "{absent:#?}");
    assert!(!problems.contains("/no/such"), "{problems}");

    // Also what only a client that is made would tell, and what contradicts a secret that is not here.
    let (problems, absent) = loaded(&format!(
        "{SASL}kafka.sasl.username = me\nkafka.sasl.password = {SECRET}\nkafka.ssl.ca.location = /no/such/ca\n\
         kafka.session.timeout.ms = 400000\nsink.type = kafka\nsink.kafka.topic = out\nsink.kafka.message.timeout.ms = 1\n\
         sink.kafka.linger.ms = 5000\n"
    ));
    assert_eq!(absent.len(), 2, "{absent:#?}");
    for key in ["kafka.session.timeout.ms: ", "timeout.ms: "] {
        assert!(problems.contains(key), "no {key:?} in {problems}");
    }
    let (problems, _) = loaded(&format!(
        "sink.type = blackhole\nkafka.sasl.password = {SECRET}\n"
    ));
    assert!(problems.contains("SASL is not used"), "{problems}");

    // A filter belongs to the route, and so does its file.
    let (problems, absent) = loaded(&format!("sink.type = blackhole\nfilter = {SECRET}\n"));
    assert!(
        problems.contains("filter: can't take the value from the file /no/such/secret"),
        "{problems}"
    );
    assert_eq!(absent.len(), 0);
}
