//! The route's own options, and the table of all options of the program.

use keystone_config::{Default, Kind, OptionSpec, Passthrough, Section, Table, Tradeoff3};
use keystone_sinks::kafka::client::{SOURCE_PASSTHROUGH, check_servers};

const ROUTE: &[OptionSpec] = &[OptionSpec {
    key: "route.name",
    kind: Kind::Checked {
        form: "1 to 200 letters, digits, `.`, `_` or `-`",
        check: check_name,
    },
    default: Default::Required,
    secret: false,
    doc: "The name of the route. It names the consumer group (unless `kafka.group.id` is set), the `route` label of every metric, and the dead-letter topic.",
    example: "plays-to-search",
}];

const SOURCE: &[OptionSpec] = &[
    OptionSpec {
        key: "source.topics",
        kind: Kind::List,
        default: Default::Required,
        secret: false,
        doc: "The topics to read: names, or regular expressions that begin with `^` (topics that match later are picked up within `kafka.topic.metadata.refresh.interval.ms`). \
              An expression is POSIX extended (`[0-9]`, not `\\d`), has no comma, and matches a name that begins as it says; with `kafka.group.protocol=consumer` the brokers want the whole name to match: write `^plays-.*`. \
              It must not match the topics that the route writes to.",
        example: "events",
    },
    OptionSpec {
        key: "kafka.bootstrap.servers",
        kind: Kind::Checked {
            form: "`host:port`, separated by commas",
            check: check_servers,
        },
        default: Default::Required,
        secret: false,
        doc: "Some of the Kafka brokers to read from: `host:port`, separated by commas.",
        example: "localhost:9092",
    },
    OptionSpec {
        key: "source.start",
        kind: Kind::Checked {
            form: "`earliest`, `latest` or an RFC 3339 time such as `2026-11-23T11:00:00Z`",
            check: check_start,
        },
        default: Default::Value("earliest"),
        secret: false,
        doc: "Where a group without commits begins. A partition added to a topic later is always read from its beginning, so nothing in it is missed; \
              with `latest`, so is a topic that a pattern of `source.topics` comes to match when the group has read others that it matches, and a topic that \
              a worker found missing or has committed offsets of: it was made, or made anew, while the worker ran.",
        example: "",
    },
    OptionSpec {
        key: "source.fetch.min.bytes",
        kind: Kind::Bytes {
            min: 1,
            max: 64 << 20,
        },
        default: Default::ByTradeoff(Tradeoff3 {
            low_latency: "1",
            balanced: "256kb",
            no_duplicates: "1mb",
        }),
        secret: false,
        doc: "A broker answers a fetch when it has this many bytes, as they are on its disk, or after `source.fetch.max.wait.ms`. \
              Fewer and larger answers are what makes an event cheap where topics are not behind.",
        example: "",
    },
    OptionSpec {
        key: "source.fetch.max.wait.ms",
        kind: Kind::Millis {
            min: 1,
            max: 10_000,
        },
        default: Default::ByTradeoff(Tradeoff3 {
            low_latency: "100",
            balanced: "100",
            no_duplicates: "200",
        }),
        secret: false,
        doc: "How long a broker holds a fetch back while it has less than `source.fetch.min.bytes`: what it adds to the latency, at most.",
        example: "",
    },
    OptionSpec {
        key: "source.format",
        kind: Kind::Choice(&["json", "raw"]),
        default: Default::Value("json"),
        secret: false,
        doc: "`json`: every payload is checked to be valid JSON, and is a dead letter if it is not. `raw`: payloads are any bytes, copied as they are; no filter or projection, and only to the sinks `kafka` and `blackhole`.",
        example: "",
    },
    OptionSpec {
        key: "source.null.payload",
        kind: Kind::Choice(&["dead-letter", "discard", "deliver"]),
        default: Default::Value("dead-letter"),
        secret: false,
        doc: "What becomes of a tombstone, a record without a value. `deliver` hands it on past filter and projection and is for `sink.type = kafka`, for example to copy a compacted topic.",
        example: "",
    },
    OptionSpec {
        key: "source.max.depth",
        kind: Kind::Count { min: 1, max: 1_000 },
        default: Default::Value("128"),
        secret: false,
        doc: "How deep arrays and objects of an event may be nested; a deeper one is a dead letter.",
        example: "",
    },
    OptionSpec {
        key: "source.validation",
        kind: Kind::Choice(&["full", "lazy"]),
        default: Default::Value("full"),
        secret: false,
        doc: "`full`: each event is checked to be JSON to its last byte. `lazy`: only as far as filter and projection have to read it, which costs less; what follows may be no JSON, and a key that is repeated there isn't seen. Without filter and projection it is checked all the same.",
        example: "",
    },
];

const EXPRESSIONS: &[OptionSpec] = &[
    OptionSpec {
        key: "filter",
        kind: Kind::Text,
        default: Default::Absent,
        secret: false,
        doc: "A JMESPath expression. Events for which it is true (not `null`, `false`, an empty list, hash or string) are kept, the others are counted as filtered. Absent: every event is kept. See [the language](dsl.md).",
        example: "type == 'play' && duration_ms > `30000`",
    },
    OptionSpec {
        key: "projection",
        kind: Kind::Text,
        default: Default::Absent,
        secret: false,
        doc: "A JMESPath expression whose result is delivered instead of the event. An event for which it is `null` is counted as discarded. Absent: the payload is delivered byte for byte.",
        example: "{event_id: id, user: user.id, duration_ms: duration_ms}",
    },
    OptionSpec {
        key: "dsl.max.output.bytes",
        kind: Kind::Bytes {
            min: 1_024,
            max: 1 << 30,
        },
        default: Default::Value("16mb"),
        secret: false,
        doc: "How large the projection's result may be; an event for which it is larger is a dead letter. What an expression makes on the way may take four times as much memory, for each lane.",
        example: "",
    },
];

const HYGIENE: &[OptionSpec] = &[
    OptionSpec {
        key: "hygiene.required",
        kind: Kind::Text,
        default: Default::Absent,
        secret: false,
        doc: "Fields that every event to deliver must have, not `null`: a comma-separated list of fields, written as in an expression. Checked, as all hygiene rules, after the projection. See [the language](dsl.md#hygiene).",
        example: "event_id, user.id",
    },
    OptionSpec {
        key: "hygiene.types",
        kind: Kind::Text,
        default: Default::Absent,
        secret: false,
        doc: "Fields with the type of their value: `string`, `integer`, `number`, `boolean`, `object`, `array` or `timestamp`. A field that is absent or `null` has no wrong type. A field is named once.",
        example: "duration_ms: integer, ts: timestamp",
    },
    OptionSpec {
        key: "hygiene.max.event.bytes",
        kind: Kind::Bytes {
            min: 1,
            max: 1 << 30,
        },
        default: Default::Absent,
        secret: false,
        doc: "The most bytes that an event to deliver may have.",
        example: "256k",
    },
    OptionSpec {
        key: "hygiene.drop.nulls",
        kind: Kind::Bool,
        default: Default::Value("false"),
        secret: false,
        doc: "Whether members of objects that are `null` are left out, at every depth. Nulls in lists stay.",
        example: "",
    },
    OptionSpec {
        key: "hygiene.trim.strings",
        kind: Kind::Bool,
        default: Default::Value("false"),
        secret: false,
        doc: "Whether white space at both ends of strings is left out, at every depth.",
        example: "",
    },
    OptionSpec {
        key: "hygiene.on.violation",
        kind: Kind::Choice(&["dead-letter", "discard"]),
        default: Default::Value("dead-letter"),
        secret: false,
        doc: "What becomes of an event that breaks a rule: it is a dead letter that names the rule, the field and what was found, or it is dropped and counted as discarded. Both are counted by rule.",
        example: "",
    },
];

/// The keys of `hmac_sha256`.
const SECRETS: Passthrough = Passthrough {
    prefix: SECRET_PREFIX,
    doc: "The key that `hmac_sha256(text, '<name>')` uses: any text, best one in a file: `dsl.secret.users=${file:/etc/keystone-secrets/users}`. \
          Who knows the key can tell whose hash it is, so make it long and random: `openssl rand -hex 32`. \
          A name that a variable sets has lower-case letters, digits and dots only.",
    secret: |_| true,
    reserved: &[],
};

/// What differs between the workers of one route: the hash of the configuration leaves it out, as it tells whether they run the same.
pub const PER_WORKER: &[&str] = &[
    "admin.listen",
    "kafka.client.id",
    "kafka.client.rack",
    "kafka.group.instance.id",
    "sink.kafka.client.id",
];

/// Secrets of the language are set below this.
pub const SECRET_PREFIX: &str = "dsl.secret.";

const DELIVERY: &[OptionSpec] = &[
    OptionSpec {
        key: "sink.type",
        kind: Kind::Choice(&["elasticsearch", "parquet", "kafka", "stdout", "blackhole"]),
        default: Default::Required,
        secret: false,
        doc: "Where events go. `stdout` prints them, `blackhole` forgets them.",
        example: "kafka",
    },
    OptionSpec {
        key: "delivery.tradeoff",
        kind: Kind::Choice(&["low-latency", "balanced", "no-duplicates"]),
        default: Default::Value("balanced"),
        secret: false,
        doc: "Whether low latency or few duplicates matters more. It sets the default of several other options, each of which can still be set by itself. See [delivery](delivery.md).",
        example: "",
    },
    OptionSpec {
        key: "delivery.batch.max.events",
        kind: Kind::Count {
            min: 1,
            max: 1_000_000,
        },
        default: Default::ByTradeoff(Tradeoff3 {
            low_latency: "500",
            balanced: "2000",
            no_duplicates: "5000",
        }),
        secret: false,
        doc: "A batch is sent when it holds this many events.",
        example: "",
    },
    OptionSpec {
        key: "delivery.batch.max.bytes",
        kind: Kind::Bytes {
            min: 1_024,
            max: 1 << 30,
        },
        default: Default::ByTradeoff(Tradeoff3 {
            low_latency: "1mb",
            balanced: "2mb",
            no_duplicates: "4mb",
        }),
        secret: false,
        doc: "A batch is sent when its events hold this many bytes, originals and projected payloads together. The event that passes the limit still belongs to it. \
              Memory: about lanes × (`delivery.max.in.flight` + 2) × this.",
        example: "",
    },
    OptionSpec {
        key: "delivery.batch.max.age.ms",
        kind: Kind::Millis {
            min: 1,
            max: 600_000,
        },
        default: Default::ByTradeoff(Tradeoff3 {
            low_latency: "1",
            balanced: "200",
            no_duplicates: "1000",
        }),
        secret: false,
        doc: "A batch is sent at the latest this long after its first event was read.",
        example: "",
    },
    OptionSpec {
        key: "delivery.max.in.flight",
        kind: Kind::Count { min: 1, max: 256 },
        default: Default::Value("4"),
        secret: false,
        doc: "How many batches of a lane are on their way to the sink at once.",
        example: "",
    },
    OptionSpec {
        key: "delivery.lanes",
        kind: Kind::Count { min: 1, max: 256 },
        default: Default::Derived("the number of processors"),
        secret: false,
        doc: "Threads that filter and project, each with its share of the partitions. In a container without a CPU limit the default counts all processors of the node, and memory grows with the lanes: set it to the processors that the container is to have.",
        example: "",
    },
    OptionSpec {
        key: "delivery.commit.interval.ms",
        kind: Kind::Millis {
            min: 10,
            max: 600_000,
        },
        default: Default::Value("1000"),
        secret: false,
        doc: "How often offsets are committed. What was delivered since the last commit is delivered again after a crash.",
        example: "",
    },
    OptionSpec {
        key: "delivery.retry.backoff.ms",
        kind: Kind::Millis {
            min: 1,
            max: 600_000,
        },
        default: Default::Value("200"),
        secret: false,
        doc: "The first pause before a batch is sent again; it doubles with each attempt, with jitter.",
        example: "",
    },
    OptionSpec {
        key: "delivery.retry.backoff.max.ms",
        kind: Kind::Millis {
            min: 1,
            max: 3_600_000,
        },
        default: Default::Value("10000"),
        secret: false,
        doc: "The longest pause between attempts. There is no limit to the number of attempts: an outage of the sink is waited out.",
        example: "",
    },
    OptionSpec {
        key: "delivery.rebalance.drain.max.ms",
        kind: Kind::Millis {
            min: 0,
            max: 240_000,
        },
        default: Default::ByTradeoff(Tradeoff3 {
            low_latency: "500",
            balanced: "5000",
            no_duplicates: "60000",
        }),
        secret: false,
        doc: "How long the worker may take to deliver and commit what it has read of partitions that move to another worker. What is not settled by then is delivered again by the other worker. Keep it below `kafka.max.poll.interval.ms`.",
        example: "",
    },
    OptionSpec {
        key: "delivery.shutdown.drain.max.ms",
        kind: Kind::Millis {
            min: 0,
            max: 3_600_000,
        },
        default: Default::ByTradeoff(Tradeoff3 {
            low_latency: "2000",
            balanced: "10000",
            no_duplicates: "120000",
        }),
        secret: false,
        doc: "How long the worker may take after SIGTERM to deliver and commit what it has read. The container platform's grace period must be longer, and so should `kafka.max.poll.interval.ms`: the group throws out who is silent for as long.",
        example: "",
    },
    OptionSpec {
        key: "delivery.stall.max.ms",
        kind: Kind::Millis {
            min: 1_000,
            max: 86_400_000,
        },
        default: Default::Value("300000"),
        secret: false,
        doc: "How long a part of the worker may stand still, beyond the time that its step may take by design, before `/livez` turns red; after twice this the worker stops with exit code 1. An outage of Kafka or of the sink is no stall: it is waited out.",
        example: "",
    },
];

const DEAD_LETTERS: &[OptionSpec] = &[
    OptionSpec {
        key: "dead.letter.policy",
        kind: Kind::Choice(&["topic", "stop", "discard"]),
        default: Default::Value("topic"),
        secret: false,
        doc: "What becomes of an event that can never be delivered: it goes to the dead-letter topic, or the worker stops with exit code 1 and its offset uncommitted, or it is dropped and counted as discarded.",
        example: "",
    },
    OptionSpec {
        key: "dead.letter.topic",
        kind: Kind::Text,
        default: Default::Derived("`<route.name>.dead-letters`"),
        secret: false,
        doc: "The dead-letter topic, on the source cluster. It is created with the first dead letter if the brokers let us; `keystone check` says whether they do. Each record keeps key, value and headers, and says in further headers where it came from and what is wrong with it.",
        example: "",
    },
];

const WATCHING: &[OptionSpec] = &[
    OptionSpec {
        key: "admin.listen",
        kind: Kind::Checked {
            form: "an address and port such as `0.0.0.0:9464`, or `127.0.0.1:0` for any free port",
            check: check_address,
        },
        default: Default::Value("0.0.0.0:9464"),
        secret: false,
        doc: "Where `/metrics`, `/livez`, `/readyz` and `/status` are served.",
        example: "",
    },
    OptionSpec {
        key: "log.format",
        kind: Kind::Choice(&["text", "json"]),
        default: Default::Value("text"),
        secret: false,
        doc: "The form of log lines on standard error.",
        example: "",
    },
    OptionSpec {
        key: "log.level",
        kind: Kind::Choice(&["error", "warn", "info", "debug", "trace"]),
        default: Default::Value("info"),
        secret: false,
        doc: "Log lines below this level are left out; with `info`, those of libraries below `warn`.",
        example: "",
    },
    OptionSpec {
        key: "log.event.values",
        kind: Kind::Bool,
        default: Default::Value("false"),
        secret: false,
        doc: "Whether the log and `/status` give the reasons for which a sink or its server refused an event, which quote its values (stage `sink`; the other stages quote none). \
              With `false` they stand in the dead letter alone; where `dead.letter.policy` is `stop` or `discard`, set `true` to learn them.",
        example: "",
    },
];

/// Every option of the program, in the order of `docs/options.md`.
pub fn table() -> Table {
    let section = |title, options, passthrough| Section {
        title,
        when: None,
        options,
        passthrough,
    };
    Table {
        sections: vec![
            section("Route", ROUTE, None),
            section("Source", SOURCE, Some(SOURCE_PASSTHROUGH)),
            section("Filter and projection", EXPRESSIONS, Some(SECRETS)),
            section("Hygiene", HYGIENE, None),
            section("Delivery", DELIVERY, None),
            section("Dead letters", DEAD_LETTERS, None),
            keystone_sinks::elasticsearch::SECTION,
            keystone_sinks::parquet::SECTION,
            keystone_sinks::hive::SECTION,
            keystone_sinks::kafka::SECTION,
            section("Watching", WATCHING, None),
        ],
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match name.chars().find(|c| !fits(*c)) {
        Some(bad) => Err(format!("{bad:?} is not allowed in a name")),
        None if name.len() > 200 => Err(format!("it has {} characters", name.len())),
        None => Ok(()),
    }
}

fn check_start(text: &str) -> Result<(), String> {
    crate::route::Start::parse(text).map(|_| ())
}

fn check_address(text: &str) -> Result<(), String> {
    text.parse::<std::net::SocketAddr>()
        .map(|_| ())
        .map_err(|error| error.to_string())
}
