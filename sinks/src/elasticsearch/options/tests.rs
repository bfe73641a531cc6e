use std::io::Write;

use keystone_config::{Sources, Table, resolve};

use super::*;

const DELIVERY: &[OptionSpec] = &[OptionSpec {
    key: TRADEOFF,
    kind: Kind::Choice(&["low-latency", "balanced", "no-duplicates"]),
    default: Default::Value("balanced"),
    secret: false,
    doc: "x",
    example: "",
}];

/// Settings of these lines, or the problems as text.
pub(crate) fn settings(lines: &[&str]) -> Result<Settings, String> {
    let tradeoff = Section {
        title: "Delivery",
        when: None,
        options: DELIVERY,
        passthrough: None,
    };
    let table = Table {
        sections: vec![tradeoff, SECTION],
    };
    let sources = Sources {
        file: Some(("route.properties".to_owned(), lines.join("\n"))),
        ..Sources::default()
    };
    resolve(&table, &sources).map_err(|problems| problems.to_string())
}

pub(crate) fn context() -> Context {
    Context {
        route: "r".to_owned(),
        worker: "w".to_owned(),
    }
}

fn built(lines: &[&str]) -> Result<(), String> {
    match build(&settings(lines)?, &context()) {
        Ok(_) => Ok(()),
        Err(problems) => Err(problems
            .iter()
            .map(|problem| format!("{problem}\n"))
            .collect()),
    }
}

const URL: &str = "sink.elasticsearch.urls=http://localhost:9200";
const NAME: &str = "sink.elasticsearch.index=events";

#[test]
fn the_tradeoff_chooses_ids_and_action() {
    for (lines, id, op) in [
        ("delivery.tradeoff=low-latency", Id::Auto, Op::Create),
        ("delivery.tradeoff=balanced", Id::Offset, Op::Index),
        ("delivery.tradeoff=no-duplicates", Id::Offset, Op::Create),
        ("sink.elasticsearch.id=a.b", Id::Field(0), Op::Index),
        ("sink.elasticsearch.id=auto", Id::Auto, Op::Create),
        ("sink.elasticsearch.op.type=create", Id::Offset, Op::Create),
        // What other events of an id become is said by nobody but the user.
        (
            "delivery.tradeoff=no-duplicates\nsink.elasticsearch.id=a.b",
            Id::Field(0),
            Op::Index,
        ),
        (
            "delivery.tradeoff=no-duplicates\nsink.elasticsearch.id=a.b\nsink.elasticsearch.op.type=create",
            Id::Field(0),
            Op::Create,
        ),
        (
            "delivery.tradeoff=no-duplicates\nsink.elasticsearch.op.type=index",
            Id::Offset,
            Op::Index,
        ),
    ] {
        let settings = settings(&[URL, NAME, lines]).unwrap();
        let plan = plan(&settings, &mut Vec::new()).unwrap();
        assert_eq!((plan.id, plan.op), (id, op), "{lines}");
    }
}

#[test]
fn good_options_build() {
    for lines in [
        &[URL, NAME][..],
        &["sink.elasticsearch.urls=https://a, http://b:9200/es", NAME],
        &[URL, "sink.elasticsearch.index=e-{ts:%Y.%m.%d}-{x}"],
        &[
            URL,
            NAME,
            "sink.elasticsearch.username=u",
            "sink.elasticsearch.password=p",
        ],
        &[URL, NAME, "sink.elasticsearch.api.key=VnVhQ2ZHY0JDZGJrUW=="],
        &[URL, NAME, "sink.elasticsearch.api.key=id:key"],
        &[URL, NAME, "sink.elasticsearch.tls.verify=false"],
    ] {
        assert_eq!(built(lines), Ok(()), "{lines:?}");
    }
}

#[test]
fn every_problem_names_its_option() {
    for (lines, key, words) in [
        (&[NAME][..], URLS, ""),
        (&[URL], INDEX, ""),
        (
            &["sink.elasticsearch.urls=localhost:9200", NAME],
            URLS,
            "http://",
        ),
        (&["sink.elasticsearch.urls=es1", NAME], URLS, "no URL"),
        (
            &["sink.elasticsearch.urls=http://u:secret@es1", NAME],
            URLS,
            "holds credentials",
        ),
        (
            &["sink.elasticsearch.urls=http://es1?x=1", NAME],
            URLS,
            "after \"?\"",
        ),
        (
            &[URL, "sink.elasticsearch.index=Events"],
            INDEX,
            "upper-case",
        ),
        (&[URL, "sink.elasticsearch.index=e-{ts:%b}"], INDEX, "e-Nov"),
        (
            &[URL, "sink.elasticsearch.index=e-{ts"],
            INDEX,
            "without a \"}\"",
        ),
        (&[URL, NAME, "sink.elasticsearch.id=a..b"], ID, "empty name"),
        (
            &[URL, NAME, "sink.elasticsearch.username=u"],
            USERNAME,
            "is set without",
        ),
        (
            &[URL, NAME, "sink.elasticsearch.password=p"],
            PASSWORD,
            "is set without",
        ),
        (
            &[
                URL,
                NAME,
                "sink.elasticsearch.api.key=k",
                "sink.elasticsearch.username=u",
            ],
            API_KEY,
            "together with",
        ),
        (
            &[URL, NAME, "sink.elasticsearch.api.key=a b"],
            API_KEY,
            "white space",
        ),
        (
            &[URL, NAME, "sink.elasticsearch.tls.ca.file=/no/such/file"],
            CA_FILE,
            "can't be read",
        ),
    ] {
        let problems = built(lines).unwrap_err();
        assert!(
            problems.contains(key) && problems.contains(words),
            "{lines:?}: {problems}"
        );
        assert!(!problems.contains("secret"), "{problems}");
    }
}

#[test]
fn later_events_win_only_by_an_id_from_a_field_and_index() {
    let version = "sink.elasticsearch.version=offset";
    let field = "sink.elasticsearch.id=a.b";
    for tradeoff in ["balanced", "no-duplicates"] {
        let tradeoff = format!("delivery.tradeoff={tradeoff}");
        let lines = [URL, NAME, version, field, &tradeoff];
        assert_eq!(built(&lines), Ok(()));
        let plan = plan(&settings(&lines).unwrap(), &mut Vec::new()).unwrap();
        assert!(plan.later_wins);
    }
    for (lines, words) in [
        (
            vec![version],
            "sink.elasticsearch.id gives each event its own",
        ),
        (
            vec![version, field, "sink.elasticsearch.op.type=create"],
            "create lets the first one win",
        ),
    ] {
        let problems = built(&[&[URL, NAME], lines.as_slice()].concat()).unwrap_err();
        assert!(
            problems.contains("sink.elasticsearch.version"),
            "{problems}"
        );
        assert!(problems.contains(words), "{problems}");
    }
}

#[test]
fn a_ca_file_must_hold_certificates() {
    for content in [
        "",
        "no certificate",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content.as_bytes()).unwrap();
        let line = format!("sink.elasticsearch.tls.ca.file={}", file.path().display());
        let problems = built(&["sink.elasticsearch.urls=https://es1", NAME, &line]).unwrap_err();
        assert!(problems.contains(CA_FILE), "{content}: {problems}");
    }
}

#[test]
fn all_problems_are_told_at_once() {
    let problems = built(&[
        "sink.elasticsearch.urls=es1, ftp://es2",
        NAME,
        "sink.elasticsearch.username=u",
        "sink.elasticsearch.tls.ca.file=/no/such/file",
    ])
    .unwrap_err();
    for words in ["es1", "ftp://es2", USERNAME, CA_FILE] {
        assert!(problems.contains(words), "{words}: {problems}");
    }
}
