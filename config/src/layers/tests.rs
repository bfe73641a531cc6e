use std::io::Write;

use super::*;
use crate::fixture::{bad, file, good, table, with_env, with_sets};

#[test]
fn later_layers_win_and_each_value_remembers_its_origin() {
    let mut sources = with_env("", &[("KEYSTONE_ADMIN_LISTEN", "env:1")]);
    assert_eq!(good(&file("")).origin("admin.listen"), Origin::Default);
    sources.defaults = Some((
        "fleet.properties".into(),
        "\nadmin.listen=managed:1\nfilter=managed\nadmin.enabled=false".into(),
    ));
    sources
        .file
        .as_mut()
        .unwrap()
        .1
        .push_str("admin.listen=file:1\nfilter=file");
    let settings = good(&sources);
    assert_eq!(settings.get("admin.listen"), "env:1");
    assert_eq!(
        settings.origin("admin.listen").to_string(),
        "KEYSTONE_ADMIN_LISTEN"
    );
    assert_eq!(settings.get("filter"), "file");
    assert_eq!(settings.origin("filter").to_string(), "route.properties:6");
    assert!(!settings.flag("admin.enabled"));
    assert_eq!(
        settings.origin("admin.enabled").to_string(),
        "fleet.properties:4"
    );
    sources.sets = vec!["admin.listen=set:1".into(), "admin.listen=set:2=x".into()];
    let settings = good(&sources);
    assert_eq!(settings.get("admin.listen"), "set:2=x");
    assert_eq!(settings.origin("admin.listen").to_string(), "--set");
}

#[test]
fn an_environment_name_is_made_of_dots_and_dashes() {
    assert_eq!(environment_name("source.topics"), "KEYSTONE_SOURCE_TOPICS");
    let settings = good(&with_env(
        "",
        &[
            ("KEYSTONE_DEAD_LETTER_TOPIC", "dead"),
            ("HOME", "/"),
            ("KEYSTONEX", "1"),
        ],
    ));
    assert_eq!(settings.get("dead-letter.topic"), "dead");
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    let settings = good(&with_env(
        "filter=x",
        &[("KEYSTONE_FILTER", ""), ("KEYSTONE_NO_SUCH", "")],
    ));
    assert_eq!(settings.get("filter"), "x");
}

#[test]
fn a_variable_below_a_prefix_is_handed_on_and_the_longest_prefix_wins() {
    let env = [
        ("KEYSTONE_KAFKA_BOOTSTRAP_SERVERS", "a:1"),
        ("KEYSTONE_SINK_KAFKA_COMPRESSION_TYPE", "zstd"),
        ("KEYSTONE_SINK_KAFKA_TOPIC", "declared"),
    ];
    let settings = good(&with_env("kafka.linger.ms=5", &env));
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(
        settings.passthrough("kafka."),
        [pair("bootstrap.servers", "a:1"), pair("linger.ms", "5")]
    );
    assert_eq!(
        settings.passthrough("sink.kafka."),
        [pair("compression.type", "zstd")]
    );
    assert_eq!(settings.get("sink.kafka.topic"), "declared");
    assert_eq!(
        settings.origin("kafka.bootstrap.servers").to_string(),
        "KEYSTONE_KAFKA_BOOTSTRAP_SERVERS"
    );
}

#[test]
fn the_longest_prefix_wins_for_keys_too() {
    let mut table = table();
    table.sections[1].passthrough = Some(Passthrough {
        prefix: "kafka.deep.",
        ..table.sections[0].passthrough.unwrap()
    });
    assert_eq!(
        handed_on(&table, "kafka.deep.x").map(|(owner, name)| (owner.prefix, name)),
        Some(("kafka.deep.", "x"))
    );
    assert_eq!(
        handed_on(&table, "kafka.deep.").map(|(owner, name)| (owner.prefix, name)),
        Some(("kafka.", "deep."))
    );
    assert!(handed_on(&table, "kafka.").is_none());
    assert!(handed_on(&table, "sink.kafka.topic").is_none());
    match from_variable(&table, "KEYSTONE_KAFKA_DEEP_X_Y", "1") {
        Variable::Key(key) => assert_eq!(key, "kafka.deep.x.y"),
        _ => panic!("must be handed on"),
    }
}

#[test]
fn an_unknown_variable_is_a_problem_with_the_nearest() {
    assert_eq!(
        bad(&with_env("", &[("KEYSTONE_SOURCE_TOPIC", "hunter2")])),
        "KEYSTONE_SOURCE_TOPIC: unknown variable; did you mean `KEYSTONE_SOURCE_TOPICS`?"
    );
    assert!(bad(&with_env("", &[("KEYSTONE_WHATEVER_IT_IS", "1")])).contains("docs/options.md"));
    assert!(bad(&with_env("", &[("KEYSTONE_KAFKA_", "1")])).contains("unknown variable"));
    assert!(bad(&with_env("", &[("KEYSTONE_KAFKA_acks", "1")])).contains("unknown variable"));
}

#[test]
fn variables_of_kubernetes_services_are_ignored() {
    let env = [
        ("KEYSTONE_SERVICE_HOST", "10.0.0.1"),
        ("KEYSTONE_SERVICE_PORT", "9464"),
        ("KEYSTONE_SERVICE_PORT_METRICS", "9464"),
        ("KEYSTONE_PORT", "tcp://10.0.0.1:9464"),
        ("KEYSTONE_PORT_9464_TCP", "tcp://10.0.0.1:9464"),
        ("KEYSTONE_PORT_9464_TCP_PROTO", "tcp"),
        ("KEYSTONE_PORT_9464_TCP_PORT", "9464"),
        ("KEYSTONE_PORT_9464_TCP_ADDR", "10.0.0.1"),
        // A Service `keystone-kafka`: below a prefix that is handed on.
        ("KEYSTONE_KAFKA_SERVICE_HOST", "10.0.0.1"),
        ("KEYSTONE_KAFKA_SERVICE_PORT", "9092"),
        ("KEYSTONE_KAFKA_SERVICE_PORT_PLAIN", "9092"),
        ("KEYSTONE_KAFKA_PORT", "tcp://10.0.0.1:9092"),
        ("KEYSTONE_KAFKA_PORT_9092_TCP", "tcp://10.0.0.1:9092"),
        ("KEYSTONE_KAFKA_PORT_9092_TCP_PORT", "9092"),
    ];
    assert_eq!(good(&with_env("", &env)).passthrough("kafka."), []);
    let settings = good(&with_env(
        "",
        &[
            ("KEYSTONE_KAFKA_REPORT_PORT", "1"),
            ("KEYSTONE_KAFKA_SASL_KERBEROS_SERVICE_NAME", "k"),
        ],
    ));
    assert_eq!(settings.passthrough("kafka.").len(), 2);
}

#[test]
fn an_unknown_key_is_a_problem_with_the_nearest() {
    let cases = [
        (
            "source.topic=x",
            "route.properties:5: source.topic: unknown option; did you mean `source.topics`?",
        ),
        (
            "batch.max.events=x",
            "route.properties:5: batch.max.events: unknown option; did you mean `delivery.batch.max.events`?",
        ),
        (
            "kakfa.acks=x",
            "route.properties:5: kakfa.acks: unknown option; did you mean `kafka.acks`?",
        ),
        (
            "sink.kafak.acks=x",
            "route.properties:5: sink.kafak.acks: unknown option; did you mean `sink.kafka.acks`?",
        ),
    ];
    for (line, expected) in cases {
        assert_eq!(bad(&file(line)), expected);
    }
    let problem = bad(&file("bootstrap.servers=a:1"));
    assert!(
        problem.contains("write `kafka.bootstrap.servers` or `sink.kafka.bootstrap.servers`"),
        "{problem}"
    );
    for line in ["kafka.=x", "kafka=x"] {
        let problem = bad(&file(line));
        assert!(
            problem.ends_with("a name follows: `kafka.<name>`"),
            "{problem}"
        );
    }
}

#[test]
fn a_line_of_a_pasted_secret_is_not_told() {
    let key = "kafka.ssl.key.pem=-----BEGIN PRIVATE KEY-----\n";
    for line in [
        "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj",
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9lIn0.SflKxwRJ",
        "MzEfYyjiWA4R4/M2bS1GB4t7NXp98C3SC6dVMvDuictGeurT8jNbvJZHtCSuYEvu",
        "WA4==",
        "Qk3x",
    ] {
        let problem = bad(&file(&format!("{key}{line}")));
        assert!(
            problem.starts_with("route.properties:6: unknown option; its name is not shown"),
            "{problem}"
        );
        assert!(!problem.contains(line.trim_end_matches('=')), "{problem}");
    }
    for key in ["topics", "source_topics", "KAFKA.acks", "Source.Topic"] {
        let problem = bad(&file(&format!("{key}=x")));
        assert!(
            problem.contains(&format!(" {key}: unknown option")),
            "{problem}"
        );
    }
}

#[test]
fn a_prefix_for_names_of_the_users_own_is_not_suggested() {
    let mut table = table();
    table.sections[1].passthrough = Some(Passthrough {
        prefix: "dsl.secret.",
        secret: |_| true,
        ..table.sections[0].passthrough.unwrap()
    });
    let problem = unknown_key(&table, "bootstrap.servers".into(), Origin::Set).to_string();
    assert!(
        problem.contains("write `kafka.bootstrap.servers`") && !problem.contains("dsl.secret"),
        "{problem}"
    );
}

#[test]
fn a_bad_set_is_a_problem_that_does_not_echo_a_value() {
    assert_eq!(
        bad(&with_sets("", &["filter"])),
        "--set: filter: there is no `=`; write `--set key=value`"
    );
    assert_eq!(
        bad(&with_sets("", &["=x"])),
        "--set: there is no key before the `=`; write `--set key=value`"
    );
    let problem = bad(&with_sets("", &["admin.password:hunter2"]));
    assert!(
        problem.contains("admin.password") && !problem.contains("hunter2"),
        "{problem}"
    );
    assert!(
        bad(&with_sets("", &["admin.pasword=hunter2"])).contains("did you mean `admin.password`?")
    );
    assert_eq!(good(&with_sets("", &[" filter =a=b"])).get("filter"), "a=b");
}

#[test]
fn sources_do_not_print_what_they_hold() {
    let mut sources = with_env(
        "admin.password=hunter2",
        &[("KEYSTONE_ADMIN_PASSWORD", "hunter2")],
    );
    sources.sets.push("admin.password=hunter2".into());
    sources.defaults = sources.file.clone();
    assert!(!format!("{sources:?}").contains("hunter2"));
}

#[test]
fn a_file_is_read_and_its_first_wrong_byte_has_a_line() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all("a=1\nb=é\n".as_bytes()).unwrap();
    let name = file.path().display().to_string();
    assert_eq!(
        read_file(file.path()).unwrap(),
        (name.clone(), "a=1\nb=é\n".into())
    );
    file.write_all(b"c=\xe9\n").unwrap();
    let problem = read_file(file.path()).unwrap_err().to_string();
    assert_eq!(
        problem,
        format!("{name}:3: the line is not valid UTF-8; save the file as UTF-8")
    );
    let problem = read_file(Path::new("/no/such/route.properties"))
        .unwrap_err()
        .to_string();
    assert!(
        problem.starts_with("can't read /no/such/route.properties: No such file"),
        "{problem}"
    );
}

#[test]
fn a_dropped_backslash_is_a_problem_of_its_line_in_each_file() {
    let mut sources =
        file("filter=regex_match(a, '\\d+')\nadmin.password=a\\Zb\nadmin.pasword=a\\Zb");
    sources.defaults = Some(("fleet".into(), "route.name=\\\na\\.b".into()));
    let problems = bad(&sources);
    let lines: Vec<&str> = problems.lines().collect();
    assert_eq!(
        lines[0],
        r"fleet:2: route.name: a backslash would be dropped: `\.` would be read as `.`; write a backslash that is part of the value twice: `\\.`"
    );
    assert_eq!(
        lines[1],
        r"route.properties:5: filter: a backslash would be dropped: `\d` would be read as `d`; write a backslash that is part of the value twice: `\\d`"
    );
    assert!(lines[2].starts_with("route.properties:6: admin.password: a backslash stands before"));
    assert_eq!(lines.len(), 5, "{problems}");
    assert!(!problems.contains('Z'), "{problems}");
}
