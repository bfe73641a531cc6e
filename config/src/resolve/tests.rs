use std::collections::BTreeMap;
use std::io::Write;

use proptest::prelude::*;

use super::*;
use crate::fixture::{BASE, bad, file, good, problems, table, with_env, with_sets};

#[test]
fn five_different_mistakes_are_all_reported_at_once() {
    let text = "route.name=clicks\nsource.topic=a\nsink.type=kafka\ndelivery.batch.max.events=many\nkafka.enable.auto.commit=true\n";
    let sources = Sources {
        file: Some(("route.properties".into(), text.into())),
        env: vec![("KEYSTONE_DELIVERY_BATCH_MAX_AGE_MS".into(), "5s".into())],
        sets: vec!["admin.listen=here".into()],
        ..Sources::default()
    };
    let expected = "\
route.properties:2: source.topic: unknown option; did you mean `source.topics`?
route.properties:4: delivery.batch.max.events: `many` is not a whole number; allowed: a whole number from 1 to 100000
route.properties:5: kafka.enable.auto.commit: this name can't be set; the worker commits what is settled
KEYSTONE_DELIVERY_BATCH_MAX_AGE_MS: delivery.batch.max.age.ms: `5s` is not a number of milliseconds; allowed: a number of milliseconds from 1 to 600000
--set: admin.listen: `here` has no colon; allowed: host:port
source.topics: required, and not set; allowed: a comma-separated list; for example `source.topics=^events\\..*`
sink.kafka.topic: required where sink.type=kafka, and not set; allowed: any text that is not empty; for example `sink.kafka.topic=clicks-clean`";
    assert_eq!(bad(&sources), expected);
}

#[test]
fn mistakes_of_the_grammar_are_reported_with_the_others() {
    let problems = bad(&file(
        "filter=a\nfilter=b\nadmin.listen=\\u12\nadmin.enabled=maybe",
    ));
    let lines: Vec<&str> = problems.lines().collect();
    assert_eq!(lines.len(), 3, "{problems}");
    assert!(lines[0].starts_with("route.properties:6: filter: set twice: in line 5 and in line 6"));
    assert!(lines[1].starts_with("route.properties:7: malformed escape"));
    assert!(lines[2].starts_with("route.properties:8: admin.enabled: `maybe` is neither"));
}

#[test]
fn defaults_follow_the_resolved_tradeoff() {
    let age = |sources: &Sources| {
        let settings = good(sources);
        (
            settings.count("delivery.batch.max.age.ms"),
            settings.origin("delivery.batch.max.age.ms").to_string(),
        )
    };
    assert_eq!(age(&file("")), (500, "delivery.tradeoff=balanced".into()));
    assert_eq!(
        age(&file("delivery.tradeoff=low-latency")),
        (5, "delivery.tradeoff=low-latency".into())
    );
    let set = with_sets(
        "delivery.tradeoff=low-latency",
        &["delivery.tradeoff=no-duplicates"],
    );
    assert_eq!(age(&set), (5000, "delivery.tradeoff=no-duplicates".into()));
    assert!(!good(&set).is_set("delivery.batch.max.age.ms"));
    // Any layer of the user is stronger, the managed defaults too.
    let managed = Sources {
        defaults: Some(("fleet".into(), "delivery.batch.max.age.ms=7".into())),
        ..set
    };
    assert_eq!(age(&managed), (7, "fleet:1".into()));
    assert!(good(&managed).is_set("delivery.batch.max.age.ms"));
}

#[test]
fn an_option_of_a_section_not_in_use_is_a_warning_and_not_checked() {
    let settings = good(&file(
        "sink.parquet.rows=many\nsink.parquet.location=file:///x",
    ));
    assert_eq!(settings.warnings().len(), 2);
    assert_eq!(
        settings.warnings()[1],
        "route.properties:5: sink.parquet.rows has no effect: it belongs to sink.type=parquet, and sink.type is kafka"
    );
    assert_eq!(settings.text("sink.parquet.rows"), None);
    assert!(!settings.is_set("sink.parquet.rows"));
    let parquet = with_sets(
        "sink.kafka.acks=all",
        &["sink.type=parquet", "sink.parquet.location=file:///x"],
    );
    let settings = good(&parquet);
    assert!(
        settings
            .warnings()
            .iter()
            .any(|warning| warning.contains("sink.kafka.acks has no effect"))
    );
    assert_eq!(settings.passthrough("sink.kafka."), []);
}

#[test]
fn managed_defaults_of_other_sinks_are_no_warning() {
    let defaults = Some(("fleet".into(), "sink.parquet.rows=7".into()));
    assert!(
        good(&Sources {
            defaults,
            ..file("")
        })
        .warnings()
        .is_empty()
    );
}

#[test]
fn a_wrong_condition_is_one_problem_and_the_values_behind_it_are_still_checked() {
    let problems = problems(&with_sets("sink.parquet.rows=many", &["sink.type=parket"]));
    let keys: Vec<&str> = problems
        .0
        .iter()
        .map(|problem| problem.key.as_str())
        .collect();
    assert_eq!(keys, ["sink.parquet.rows", "sink.type"]);
    assert!(problems.to_string().contains("did you mean `parquet`?"));
}

#[test]
fn a_condition_on_an_option_that_is_not_set_does_not_hold_and_one_that_does_not_exist_does() {
    let mut table = table();
    table.sections[3].when = Some(("filter", "x"));
    let settings = resolve(&table, &file("sink.parquet.rows=7")).unwrap();
    assert!(settings.warnings()[0].ends_with("it belongs to filter=x, and filter is not set"));
    let part = Table {
        sections: vec![table.sections[2]],
    };
    let sets = vec!["sink.kafka.topic=x".to_owned()];
    let settings = resolve(
        &part,
        &Sources {
            sets,
            ..Sources::default()
        },
    )
    .unwrap();
    assert_eq!(settings.get("sink.kafka.topic"), "x");
    assert!(resolve(&part, &Sources::default()).is_err());
}

#[test]
fn white_space_around_a_value_is_dropped_but_not_in_a_secret() {
    let settings = good(&file(
        "admin.enabled=false \nkafka.acks= all\t\nadmin.password=\\ p \nkafka.ssl.password=\\ q ",
    ));
    assert!(!settings.flag("admin.enabled"));
    assert_eq!(settings.secret("admin.password").unwrap().expose(), " p ");
    let expected = [
        ("acks".to_owned(), "all".to_owned()),
        ("ssl.password".to_owned(), " q ".to_owned()),
    ];
    assert_eq!(settings.passthrough("kafka."), expected);
}

#[test]
fn an_empty_value_is_a_problem_but_is_handed_on() {
    assert!(bad(&file("filter=")).contains("filter: the value is empty; allowed: any text"));
    assert!(bad(&file("admin.password=")).contains("the value is empty"));
    assert_eq!(
        good(&file("kafka.client.rack="))
            .passthrough("kafka.")
            .len(),
        1
    );
}

#[test]
fn a_problem_with_a_secret_does_not_echo_it() {
    let problem = bad(&with_env("", &[("KEYSTONE_ADMIN_TOKEN", "hunter2")]));
    assert_eq!(
        problem,
        "KEYSTONE_ADMIN_TOKEN: admin.token: the value is not allowed (it is a secret and not shown); allowed: host:port"
    );
    let problem = bad(&file(
        "admin.listen=http//me:hunter2,http://me:hunter2@x\nadmin.enabled=http://me:hunter2@x",
    ));
    assert!(!problem.contains("me:hunter2@"), "{problem}");
}

#[test]
fn a_value_from_a_file_is_shown_as_its_reference_everywhere() {
    let mut secret = tempfile::NamedTempFile::new().unwrap();
    secret.write_all(b"hunter2\n").unwrap();
    let reference = format!("${{file:{}}}", secret.path().display());
    let more = format!(
        "admin.password={reference}\nfilter=a-{reference}\nkafka.sasl.password={reference}\nadmin.token=x:{reference}"
    );
    let settings = good(&file(&more));
    assert_eq!(
        settings.secret("admin.password").unwrap().expose(),
        "hunter2"
    );
    assert_eq!(settings.get("filter"), "a-hunter2");
    let shown = |key: &str| {
        settings
            .effective()
            .into_iter()
            .find(|line| line.key == key)
            .unwrap()
            .shown
    };
    assert_eq!(shown("admin.password"), reference);
    assert_eq!(shown("filter"), format!("a-{reference}"));
    assert_eq!(shown("kafka.sasl.password"), reference);
    assert_eq!(
        shown("admin.token"),
        "***",
        "what stands beside the reference is secret as well"
    );
    assert!(!format!("{settings:?}").contains("hunter2"));
    assert_eq!(
        settings
            .problem("filter", "near hunter2", "not a-hunter2")
            .to_string(),
        "route.properties:6: filter: near ***; not ***"
    );

    let problem = bad(&file(&format!(
        "admin.enabled={reference}\nfilter=${{file:/no/such}}\nadmin.password=${{env:X}}"
    )));
    assert!(!problem.contains("hunter2"), "{problem}");
    assert!(
        problem.contains("route.properties:5: admin.enabled: the value is not allowed"),
        "{problem}"
    );
    assert!(
        problem.contains(
            "route.properties:6: filter: can't take the value from the file /no/such: No such file"
        ),
        "{problem}"
    );
    assert!(
        problem.contains("route.properties:7: admin.password: `${` begins a reference"),
        "{problem}"
    );
}

#[test]
fn a_secret_may_be_absent_where_a_route_is_only_tried() {
    let absent = "admin.password=${file:/no/such/file}\n";
    let (_, strictly) = resolve_partly(&table(), &file(absent));
    assert_eq!(strictly.0.len(), 1, "{strictly}");
    let (settings, problems) = resolve_without_secrets(&table(), &file(absent));
    assert_eq!(problems.0, [], "{problems}");
    assert!(settings.secret("admin.password").is_none());
    // Another option's file must be there, and a secret that is there must be right.
    let wrong = "filter=${file:/no/such/file}\nadmin.token=no-colon\n";
    let (_, problems) = resolve_without_secrets(&table(), &file(wrong));
    assert_eq!(problems.0.len(), 2, "{problems}");
}

#[test]
fn a_secret_that_is_elsewhere_counts_as_set() {
    let reference = "${file:/no/such/file}";
    let more = format!(
        "admin.password={reference}\nkafka.sasl.password={reference}\nkafka.sasl.username={reference}\nadmin.token=x:{reference}\n"
    );
    let (settings, problems, elsewhere) = resolve_elsewhere(&table(), &file(&more));
    assert_eq!(problems.0, [], "{problems}");
    assert_eq!(settings.secret("admin.password").unwrap().expose(), "***");
    assert_eq!(settings.passthrough("kafka.").len(), 2);
    let found: Vec<_> = elsewhere.iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), 4, "{found:?}");
    assert!(
        found[0].starts_with(
            "route.properties:5: admin.password: can't take the value from the file /no/such/file: "
        ),
        "{found:?}"
    );
    let shown = |settings: &Settings| {
        let all = settings.effective().into_iter();
        all.map(|line| (line.key, line.shown)).collect::<Vec<_>>()
    };
    let line = |key: &str, shown: &str| (key.to_owned(), shown.to_owned());
    for expected in [
        line("admin.password", reference),
        line("kafka.sasl.username", reference),
        line("admin.token", "***"),
    ] {
        assert!(shown(&settings).contains(&expected), "{expected:?}");
    }
    // What is no secret must be there, and what is wrong with a secret by itself is wrong everywhere.
    let mut empty = tempfile::NamedTempFile::new().unwrap();
    empty.write_all(b"\n").unwrap();
    let wrong = format!(
        "filter={reference}\nadmin.password=${{file:{}}}\nadmin.token=${{env:X}}\nkafka.x=${{file:/no/such\n",
        empty.path().display()
    );
    let (_, problems, elsewhere) = resolve_elsewhere(&table(), &file(&wrong));
    assert_eq!((problems.0.len(), elsewhere.len()), (4, 0), "{problems}");
}

#[test]
fn an_error_about_a_part_of_a_value_from_a_file_does_not_quote_it() {
    let mut topics = tempfile::NamedTempFile::new().unwrap();
    topics.write_all(b"plays, s3cret!").unwrap();
    let sources = with_sets(
        "",
        &[&format!(
            "source.topics=${{file:{}}}",
            topics.path().display()
        )],
    );
    let settings = good(&sources);
    let problem = |key| {
        let text = "no topic can be named s3cret!: '!' is not allowed in it";
        settings.problem(key, text, "allowed: letters").problem
    };
    // Another option may be compared with it.
    for key in ["source.topics", "sink.kafka.topic"] {
        assert_eq!(
            problem(key),
            "no topic can be named ***: '!' is not allowed in it"
        );
    }
    let plain = good(&file(""));
    assert_eq!(
        plain.problem("source.topics", "not a, b", "").problem,
        "not a, b"
    );
}

#[test]
fn a_reference_that_a_later_layer_replaces_is_not_read() {
    let settings = good(&with_sets("filter=${file:/no/such}", &["filter=$${x}"]));
    assert_eq!(settings.get("filter"), "${x}");
}

/// Option, and values that are all allowed.
const MODEL: [(&str, [&str; 3]); 4] = [
    ("admin.listen", ["a:1", "b:2", "c:3"]),
    (
        "delivery.tradeoff",
        ["low-latency", "balanced", "no-duplicates"],
    ),
    ("delivery.batch.max.age.ms", ["1", "2", "3"]),
    ("kafka.acks", ["0", "1", "all"]),
];

/// What each layer sets: for each option of the model nothing or one of its values.
fn layer() -> impl Strategy<Value = BTreeMap<&'static str, &'static str>> {
    let choice = || prop::option::of(0usize..3);
    [choice(), choice(), choice(), choice()].prop_map(|chosen| {
        let set = MODEL
            .iter()
            .zip(chosen)
            .filter_map(|((key, values), chosen)| Some((*key, values[chosen?])));
        set.collect()
    })
}

fn lines(layer: &BTreeMap<&str, &str>) -> String {
    layer
        .iter()
        .map(|(key, value)| format!("{key}={value}\n"))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn layers_agree_with_a_naive_model(layers in [layer(), layer(), layer(), layer()]) {
        let [managed, route, env, sets] = &layers;
        let sources = Sources {
            defaults: Some(("fleet".into(), lines(managed))),
            file: Some(("route".into(), format!("{BASE}{}", lines(route)))),
            env: env.iter().map(|(key, value)| (crate::environment_name(key), value.to_string())).collect(),
            sets: sets.iter().map(|(key, value)| format!("{key}={value}")).collect(),
        };
        let mut expected = BTreeMap::from([("admin.listen", "0.0.0.0:9464"), ("delivery.tradeoff", "balanced")]);
        let tradeoff = layers.iter().rev().find_map(|layer| layer.get("delivery.tradeoff")).unwrap_or(&"balanced");
        expected.insert("delivery.batch.max.age.ms", match *tradeoff {
            "low-latency" => "5",
            "balanced" => "500",
            _ => "5000",
        });
        for layer in &layers {
            expected.extend(layer);
        }
        let settings = good(&sources);
        for (key, _) in MODEL {
            let found = settings.effective().into_iter().find(|line| line.key == key).map(|line| line.shown);
            prop_assert_eq!(found.as_deref(), expected.get(key).copied(), "{}", key);
        }
    }

    #[test]
    fn any_sources_are_resolved_or_refused_without_a_panic(
        defaults in any::<String>(),
        lines in prop::collection::vec("(filter|admin.listen|kafka.x|sink.type|delivery.tradeoff|a)[=: ]([ -~]{0,12}|\\PC{0,8})", 0..6),
        env in prop::collection::vec(("KEYSTONE_[A-Z_]{0,12}|KEYSTONE_KAFKA_\\PC{0,6}|\\PC*", any::<String>()), 0..4),
        sets in prop::collection::vec("[a-z.]{0,8}=?\\PC{0,8}", 0..4),
    ) {
        let sources = Sources {
            defaults: Some(("fleet".into(), defaults)),
            file: Some(("route".into(), format!("{BASE}{}", lines.join("\n")))),
            env,
            sets,
        };
        match resolve(&table(), &sources) {
            Ok(settings) => { settings.hash(&[]); }
            Err(problems) => prop_assert!(!problems.to_string().is_empty()),
        }
    }

    /// Whatever layer it comes from and whatever else is wrong.
    #[test]
    fn a_secret_is_in_no_output(
        secret in "[A-Z0-9:,@/#!${}]{0,3}XyZ[A-Z0-9:,@/#!${} ]{1,12}",
        place in 0usize..4,
        key in prop::sample::select(vec!["admin.password", "admin.token", "kafka.sasl.password", "sink.kafka.ssl.password", "admin.pasword"]),
        broken in any::<bool>(),
    ) {
        let mut sources = file(if broken { "admin.enabled=perhaps\n" } else { "" });
        let line = format!("{key}={}", crate::properties::escape_value(&secret));
        match place {
            0 => sources.defaults = Some(("fleet".into(), line)),
            1 => sources.file.as_mut().unwrap().1.push_str(&line),
            2 => sources.env.push((crate::environment_name(key), secret.clone())),
            _ => sources.sets.push(format!("{key}={secret}")),
        }
        let mut output = format!("{sources:?}");
        // What a library is given and may echo.
        let used = secret.replace("$${", "${");
        match resolve(&table(), &sources) {
            Ok(settings) => {
                output.push_str(&format!("{settings:?} {:#?} {:?} {}", settings.effective(), settings.warnings(), settings.hash(&[])));
                output.push_str(&settings.problem(key, format!("the library says {used}"), used.clone()).to_string());
                if key.starts_with("admin") {
                    output.push_str(&format!("{0} {0:?}", settings.secret(key).unwrap()));
                }
                prop_assert!(output.contains("***"));
            }
            Err(problems) => output.push_str(&format!("{problems} {problems:?}")),
        }
        prop_assert!(!output.contains("XyZ"), "{}", output);
    }
}
