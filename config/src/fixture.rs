//! A table with every kind, default and section that the tests of this crate need.

use crate::{
    Default, Kind, OptionSpec, Passthrough, Problems, Section, Settings, Sources, Table, Tradeoff3,
    resolve,
};

const fn option(key: &'static str, kind: Kind, default: Default) -> OptionSpec {
    OptionSpec {
        key,
        kind,
        default,
        secret: false,
        doc: "What it does.",
        example: "",
    }
}

const fn example(spec: OptionSpec, example: &'static str) -> OptionSpec {
    OptionSpec { example, ..spec }
}

const fn secret(key: &'static str, kind: Kind) -> OptionSpec {
    OptionSpec {
        secret: true,
        ..option(key, kind, Default::Absent)
    }
}

fn has_colon(value: &str) -> Result<(), String> {
    match value.contains(':') {
        true => Ok(()),
        false => Err(format!("`{value}` has no colon")),
    }
}

const COLON: Kind = Kind::Checked {
    form: "host:port",
    check: has_colon,
};

const ROUTE: &[OptionSpec] = &[
    example(
        option("route.name", Kind::Text, Default::Required),
        "clicks",
    ),
    example(
        option("source.topics", Kind::List, Default::Required),
        "^events\\..*",
    ),
    example(
        option("filter", Kind::Text, Default::Absent),
        "type == 'click'",
    ),
    option(
        "dead-letter.topic",
        Kind::Text,
        Default::Derived("`<route.name>.dead-letters`"),
    ),
    option("admin.listen", COLON, Default::Value("0.0.0.0:9464")),
    option("admin.enabled", Kind::Bool, Default::Value("true")),
    secret("admin.password", Kind::Text),
    secret("admin.token", COLON),
];

const DELIVERY: &[OptionSpec] = &[
    option(
        "delivery.tradeoff",
        Kind::Choice(&["low-latency", "balanced", "no-duplicates"]),
        Default::Value("balanced"),
    ),
    option(
        "delivery.batch.max.events",
        Kind::Count {
            min: 1,
            max: 100_000,
        },
        Default::Value("5000"),
    ),
    option(
        "delivery.batch.max.bytes",
        Kind::Bytes {
            min: 1024,
            max: 64 << 20,
        },
        Default::Value("4m"),
    ),
    option(
        "delivery.batch.max.age.ms",
        Kind::Millis {
            min: 1,
            max: 600_000,
        },
        Default::ByTradeoff(Tradeoff3 {
            low_latency: "5",
            balanced: "500",
            no_duplicates: "5000",
        }),
    ),
    example(
        option(
            "sink.type",
            Kind::Choice(&["kafka", "parquet"]),
            Default::Required,
        ),
        "kafka",
    ),
];

const SINK_KAFKA: &[OptionSpec] = &[
    example(
        option("sink.kafka.topic", Kind::Text, Default::Required),
        "clicks-clean",
    ),
    option("sink.kafka.partitioner", Kind::Text, Default::Absent),
];

const SINK_PARQUET: &[OptionSpec] = &[
    example(
        option("sink.parquet.location", Kind::Text, Default::Required),
        "file:///data",
    ),
    option(
        "sink.parquet.rows",
        Kind::Count {
            min: 1,
            max: u64::MAX,
        },
        Default::Value("1000"),
    ),
];

fn is_secret(name: &str) -> bool {
    name.contains("password")
}

fn section(
    title: &'static str,
    when: Option<(&'static str, &'static str)>,
    options: &'static [OptionSpec],
    prefix: &'static str,
) -> Section {
    let passthrough = (!prefix.is_empty()).then_some(Passthrough {
        prefix,
        doc: "Any property of the client.",
        secret: is_secret,
        reserved: &[("enable.auto.commit", "the worker commits what is settled")],
    });
    Section {
        title,
        when,
        options,
        passthrough,
    }
}

pub(crate) fn table() -> Table {
    Table {
        sections: vec![
            section("Route", None, ROUTE, "kafka."),
            section("Delivery", None, DELIVERY, ""),
            section(
                "Sink: Kafka",
                Some(("sink.type", "kafka")),
                SINK_KAFKA,
                "sink.kafka.",
            ),
            section(
                "Sink: Parquet",
                Some(("sink.type", "parquet")),
                SINK_PARQUET,
                "",
            ),
        ],
    }
}

/// What every route must have.
pub(crate) const BASE: &str =
    "route.name=clicks\nsource.topics=a, b\nsink.type=kafka\nsink.kafka.topic=out\n";

/// [`BASE`] and more lines, as the route's file.
pub(crate) fn file(more: &str) -> Sources {
    Sources {
        file: Some(("route.properties".into(), format!("{BASE}{more}"))),
        ..Sources::default()
    }
}

pub(crate) fn with_env(more: &str, env: &[(&str, &str)]) -> Sources {
    let env = env
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect();
    Sources { env, ..file(more) }
}

pub(crate) fn with_sets(more: &str, sets: &[&str]) -> Sources {
    Sources {
        sets: sets.iter().map(|set| set.to_string()).collect(),
        ..file(more)
    }
}

pub(crate) fn good(sources: &Sources) -> Settings {
    resolve(&table(), sources).unwrap_or_else(|problems| panic!("{problems}"))
}

/// The problems, one a line.
pub(crate) fn bad(sources: &Sources) -> String {
    problems(sources).to_string()
}

pub(crate) fn problems(sources: &Sources) -> Problems {
    resolve(&table(), sources).expect_err("must be refused")
}
