use std::time::Duration;

use crate::fixture::{file, good, table};
use crate::{Origin, Sources, resolve};

#[test]
fn getters_of_every_kind() {
    let settings = good(&file("delivery.batch.max.bytes=2MB\nadmin.password=pw"));
    assert_eq!(settings.get("route.name"), "clicks");
    assert_eq!(settings.text("filter"), None);
    assert!(settings.flag("admin.enabled"));
    assert_eq!(settings.count("delivery.batch.max.events"), 5000);
    assert_eq!(settings.bytes("delivery.batch.max.bytes"), 2 << 20);
    assert_eq!(
        settings.millis("delivery.batch.max.age.ms"),
        Duration::from_millis(500)
    );
    assert_eq!(settings.list("source.topics"), ["a", "b"]);
    assert_eq!(settings.list("filter"), Vec::<String>::new());
    assert_eq!(
        settings.maybe_count("delivery.batch.max.events"),
        Some(5000)
    );
    assert_eq!(settings.maybe_bytes("filter"), None);
    assert_eq!(settings.secret("admin.password").unwrap().expose(), "pw");
    assert!(settings.secret("admin.token").is_none());
    assert!(
        settings.is_set("route.name")
            && !settings.is_set("admin.listen")
            && !settings.is_set("filter")
    );
    assert_eq!(settings.origin("filter"), Origin::Default);
}

#[test]
#[should_panic(expected = "option `route.nam` is not declared")]
fn a_key_that_nobody_declared_is_a_mistake_of_the_program() {
    good(&file("")).text("route.nam");
}

#[test]
fn a_default_made_of_other_options_is_shown_and_has_no_value() {
    let settings = good(&file(""));
    assert_eq!(settings.text("dead-letter.topic"), None);
    let line = settings
        .effective()
        .into_iter()
        .find(|line| line.key == "dead-letter.topic")
        .unwrap();
    assert_eq!(
        (line.shown.as_str(), line.origin),
        ("`<route.name>.dead-letters`", Origin::Default)
    );
}

#[test]
fn the_effective_configuration_is_in_the_order_of_the_table() {
    let settings = good(&file(
        "kafka.b=1\nkafka.a=2\nadmin.password=pw\nsink.kafka.acks=all",
    ));
    let keys: Vec<String> = settings
        .effective()
        .into_iter()
        .map(|line| line.key)
        .collect();
    let expected = [
        "route.name",
        "source.topics",
        "dead-letter.topic",
        "admin.listen",
        "admin.enabled",
        "admin.password",
        "kafka.a",
        "kafka.b",
        "delivery.tradeoff",
        "delivery.batch.max.events",
        "delivery.batch.max.bytes",
        "delivery.batch.max.age.ms",
        "sink.type",
        "sink.kafka.topic",
        "sink.kafka.acks",
    ];
    assert_eq!(keys, expected);
}

#[test]
fn a_problem_of_an_owner_has_the_origin_of_its_option() {
    let settings = good(&file("kafka.acks=7\nadmin.password=hunter2"));
    let problem = settings.problem("kafka.acks", "librdkafka refuses it", "use all");
    assert_eq!(
        problem.to_string(),
        "route.properties:5: kafka.acks: librdkafka refuses it; use all"
    );
    let problem = settings.problem("filter", "needed here", "");
    assert_eq!(problem.to_string(), "filter: needed here");
    assert_eq!(
        settings.redact("x hunter2 http://u:p@h/"),
        "x *** http://***@h/"
    );
    assert_eq!(settings.redact("http://h?key=k"), "http://h?***");
    assert!(settings.is_hidden("admin.password"));
    assert!(!settings.is_hidden("filter") && !settings.is_hidden("route.name"));
}

#[test]
fn a_secret_that_looks_like_a_url_is_hidden_as_a_whole() {
    let settings = good(&file("admin.password=x://a@hunter2"));
    assert_eq!(settings.redact("with x://a@hunter2"), "with ***");
}

#[test]
fn the_hash_follows_keys_and_values_and_of_secrets_whether_they_are_set() {
    let hash = |more: &str| good(&file(more)).hash(&["kafka.client.id"]);
    let plain = hash("");
    assert_eq!(plain.len(), 12);
    assert!(plain.bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert_eq!(
        plain,
        hash("# a comment\nadmin.listen=0.0.0.0:9464"),
        "the origin does not count"
    );
    assert_ne!(plain, hash("admin.listen=0.0.0.0:9465"));
    assert_ne!(plain, hash("kafka.acks=all"));
    assert_eq!(plain, hash("kafka.client.id=one"), "it is left out");
    assert_ne!(plain, hash("admin.password=one"));
    assert_eq!(hash("admin.password=one"), hash("admin.password=two"));
}

#[test]
fn a_resolved_route_needs_no_file() {
    let sets = crate::fixture::BASE.lines().map(str::to_owned).collect();
    assert!(
        resolve(
            &table(),
            &Sources {
                sets,
                ..Sources::default()
            }
        )
        .is_ok()
    );
}
