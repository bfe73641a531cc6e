//! The options of the Parquet sink, and what is read from them.

use std::sync::Arc;
use std::time::Duration;

use keystone_config::{Default, Kind, OptionSpec, Problem, Section, Settings, Tradeoff3};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::client::HttpConnector as _;
use object_store::{BackoffConfig, ClientOptions, RetryConfig};

use super::encoder::Codec;
use super::files::Rolling;
use super::partition::{self, Partitioning};
use super::s3::Steps;
use super::schema::{self, Column, parse_columns};
use super::store::Store;
use super::uploads::Uploads;
use crate::Context;
use crate::kafka::client::without_credentials;
use crate::metric::{Metric, MetricKind};

/// How long one attempt of a request may take.
const ATTEMPT: Duration = Duration::from_secs(60);
/// The longest pause between two attempts. An attempt and a pause are within [`LONGEST_STEP`](super::LONGEST_STEP).
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
/// How long a request is tried again. A failure for good has all that is unpublished read and written once more, so a bucket that throttles or
/// restarts is waited out here; and longer than an attempt, so that one that hangs is tried again, too. Nobody else waits for so long (138 s
/// with the last attempt, and a call of the sink may be many requests): a rewind and the end of the worker cut the call off, a drain goes on
/// without it.
const PATIENCE: Duration = Duration::from_secs(75);
/// The same where a failure costs nothing, and is the answer that somebody waits for.
pub(super) const SHORT_PATIENCE: Duration = Duration::from_secs(4);

/// Where credentials belong.
const KEY_ID: &str = "sink.parquet.s3.access.key.id";
const SECRET_KEY: &str = "sink.parquet.s3.secret.access.key";

pub const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        key: "sink.parquet.location",
        kind: Kind::Checked {
            form: "`file:///directory` or `s3://bucket/path`",
            check: check_location,
        },
        default: Default::Required,
        secret: false,
        doc: "Where the table's files go. A file is hidden until it is complete.",
        example: "s3://lake/plays",
    },
    OptionSpec {
        key: "sink.parquet.schema",
        kind: Kind::Checked {
            form: schema::FORM,
            check: |text| {
                parse_columns(text)
                    .map(drop)
                    .map_err(|error| error.to_string())
            },
        },
        default: Default::Absent,
        secret: false,
        doc: "The columns, in Hive's words. A column takes the event's field of exactly its name, else one that differs only in case; a missing field is null, a field without a column is ignored, and an event with a value that does not fit is a dead letter. A `timestamp` is written as INT64 in microseconds, a `decimal` of up to 18 digits as INT32 or INT64. Spark, DuckDB, polars and pyarrow read both; Hive 2 (and probably each before 4) takes no timestamp but INT96, and older ones no decimal but of bytes: declare `bigint` or `string` in their place for such a reader, or the decimal with 19 digits or more. Absent: the columns of the table `sink.hive.table`, which must exist and whose metastore must be up when the worker starts.",
        example: "event_id string, ts timestamp, duration_ms bigint",
    },
    OptionSpec {
        key: "sink.parquet.partition.by",
        kind: Kind::Checked {
            form: partition::FORM,
            check: |text| Partitioning::parse(text).map(drop),
        },
        default: Default::Absent,
        secret: false,
        doc: "The partition columns, from left to right. `dt={ts:%Y-%m-%d}` takes the event time in field `ts` (UTC, strftime), `dt={day}` a field as it is, `country` alone is `country={country}`; `{a.b}` is field `b` of field `a`. An event whose time is missing or bad is a dead letter; a plain field that is missing, null or empty gives `__HIVE_DEFAULT_PARTITION__`. Absent: the table has no partitions.",
        example: "dt={ts:%Y-%m-%d}, hour={ts:%H}",
    },
    OptionSpec {
        key: "sink.parquet.roll.max.bytes",
        kind: Kind::Bytes {
            min: 64 << 10,
            max: 16 << 30,
        },
        default: Default::Value("128mb"),
        secret: false,
        doc: "A file is published when it reaches about this size. Its row groups are 16 MB at most, whatever the size of the file.",
        example: "",
    },
    OptionSpec {
        key: "sink.parquet.roll.max.rows",
        kind: Kind::Count {
            min: 1,
            max: 10_000_000_000,
        },
        default: Default::Value("10000000"),
        secret: false,
        doc: "A file is published when it has this many rows.",
        example: "",
    },
    OptionSpec {
        key: "sink.parquet.roll.max.age.ms",
        kind: Kind::Millis {
            min: 10,
            max: 86_400_000,
        },
        default: Default::ByTradeoff(Tradeoff3 {
            low_latency: "60000",
            balanced: "300000",
            no_duplicates: "600000",
        }),
        secret: false,
        doc: "A file is published at this age, counted by the clock from its first row. It bounds the delivery latency and what a crash makes the worker read again; smaller values make more and smaller files.",
        example: "",
    },
    OptionSpec {
        key: "sink.parquet.publish",
        kind: Kind::Choice(&["direct", "two-phase"]),
        default: Default::ByTradeoff(Tradeoff3 {
            low_latency: "direct",
            balanced: "two-phase",
            no_duplicates: "two-phase",
        }),
        secret: false,
        doc: "`direct`: a file is published as soon as it ends, and its offsets are committed afterwards; a crash in between repeats its rows. `two-phase`: files that end wait, hidden; a commit names them, and then they are published: no row is there twice, whatever is killed. All files go out together when the oldest reaches its age, or when as many are full as are open.",
        example: "",
    },
    OptionSpec {
        key: "sink.parquet.max.open.files",
        kind: Kind::Count { min: 1, max: 1_000 },
        default: Default::Value("64"),
        secret: false,
        doc: "Files open at once, one for each partition of the table that events arrive for. One more, and the file that was idle for longest is published first. Memory is bounded apart from this: 40 MB of rows in all open files together.",
        example: "",
    },
    OptionSpec {
        key: "sink.parquet.compression",
        kind: Kind::Choice(&["zstd", "snappy", "none"]),
        default: Default::Value("zstd"),
        secret: false,
        doc: "How the files are compressed. Every reader of this century knows `snappy`, most know `zstd`, which makes files about a third smaller.",
        example: "",
    },
    OptionSpec {
        key: "sink.parquet.compression.level",
        kind: Kind::Count { min: 1, max: 22 },
        default: Default::Value("3"),
        secret: false,
        doc: "The level of `zstd`. Above 9 it costs much time for little space, and memory: for each column up to 1.5 MB at level 3, 15 MB at 9 and 20 MB above, so that row groups end early where all open files together would have more than 40 MB.",
        example: "",
    },
    OptionSpec {
        key: "sink.parquet.s3.endpoint",
        kind: Kind::Checked {
            form: "`http://host:port` or `https://host`",
            check: check_endpoint,
        },
        default: Default::Absent,
        secret: false,
        doc: "The server of an S3-compatible store. Absent: Amazon's own for the region. Variables such as `AWS_ENDPOINT_URL` don't count; where one is set and this is not, the route is refused.",
        example: "https://minio.example.org:9000",
    },
    OptionSpec {
        key: "sink.parquet.s3.region",
        kind: Kind::Text,
        default: Default::Absent,
        secret: false,
        doc: "The bucket's region. Absent: `AWS_REGION` or `AWS_DEFAULT_REGION`, else `us-east-1`.",
        example: "eu-north-1",
    },
    OptionSpec {
        key: KEY_ID,
        kind: Kind::Text,
        default: Default::Absent,
        secret: false,
        doc: "The access key's id. Absent: the usual `AWS_…` variables, then the identity of the pod, task or machine.",
        example: "",
    },
    OptionSpec {
        key: SECRET_KEY,
        kind: Kind::Text,
        default: Default::Absent,
        secret: true,
        doc: "The secret of the access key.",
        example: "${file:/etc/keystone-secrets/s3-secret-key}",
    },
    OptionSpec {
        key: "sink.parquet.s3.session.token",
        kind: Kind::Text,
        default: Default::Absent,
        secret: true,
        doc: "The session token, with temporary credentials.",
        example: "",
    },
    OptionSpec {
        key: "sink.parquet.s3.path.style",
        kind: Kind::Bool,
        default: Default::Derived("`true` with `sink.parquet.s3.endpoint`, else `false`"),
        secret: false,
        doc: "Whether the bucket stands in the path (`https://host/bucket`) instead of the host name.",
        example: "",
    },
];

pub const SECTION: Section = Section {
    title: "Sink: Parquet files",
    when: Some(("sink.type", "parquet")),
    options: OPTIONS,
    passthrough: None,
};

pub const METRICS: &[Metric] = &[
    Metric {
        name: "keystone_parquet_files_published_total",
        kind: MetricKind::Counter,
        labels: &["cause"],
        help: "Files published, by what ended them: bytes, rows, age, open_files, memory, flush or commit (taken along by the commit of others). Worry when open_files or memory dominate: events arrive for many partitions at once, and files are small.",
    },
    Metric {
        name: "keystone_parquet_published_bytes_total",
        kind: MetricKind::Counter,
        labels: &[],
        help: "Bytes of the files published.",
    },
    Metric {
        name: "keystone_parquet_published_rows_total",
        kind: MetricKind::Counter,
        labels: &[],
        help: "Rows in the files published.",
    },
    Metric {
        name: "keystone_parquet_open_files",
        kind: MetricKind::Gauge,
        labels: &[],
        help: "Files being written, hidden from readers.",
    },
    Metric {
        name: "keystone_parquet_open_rows",
        kind: MetricKind::Gauge,
        labels: &[],
        help: "Rows that readers don't see yet, in files being written or waiting: what a crash makes the worker read again.",
    },
    Metric {
        name: "keystone_parquet_waiting_files",
        kind: MetricKind::Gauge,
        labels: &[],
        help: "Files that have ended and wait, hidden, for the commit that names them (two-phase publication).",
    },
    Metric {
        name: "keystone_parquet_buffered_bytes",
        kind: MetricKind::Gauge,
        labels: &[],
        help: "Memory held by files being written.",
    },
    Metric {
        name: "keystone_parquet_failed_requests_total",
        kind: MetricKind::Counter,
        labels: &["reason"],
        help: "Attempts of requests to a bucket that failed and may pass, by reason: http_429, http_5xx, timeout or unreachable. A request is tried again for 75 s, and delivery waits; only what lasts longer is a retry of the sink.",
    },
    Metric {
        name: "keystone_parquet_swept_files_total",
        kind: MetricKind::Counter,
        labels: &[],
        help: "Hidden files that crashed workers had left in a directory, removed, and uploads to a bucket, aborted when they were a month old. At the start, and every 6 hours.",
    },
    Metric {
        name: "keystone_parquet_abandoned_rows_total",
        kind: MetricKind::Counter,
        labels: &[],
        help: "Rows dropped from files being written, to be read again: after a write error, or partitions that were lost.",
    },
];

fn check_location(text: &str) -> Result<(), String> {
    let shown = without_credentials(text);
    match text.split_once("://") {
        Some(("file", path)) if path.starts_with('/') && path.len() > 1 => Ok(()),
        Some(("file", _)) => Err(format!(
            "`{shown}` is not an absolute path, which has three slashes: file:///directory"
        )),
        Some(("s3", rest)) => match rest.split('/').next().unwrap_or_default() {
            "" => Err(format!("`{shown}` names no bucket")),
            // A secret may hold a slash, so that the `@` comes later; the text is not repeated then.
            bucket if bucket.contains(['@', ':']) => Err(format!(
                "the bucket's name has a `:` or `@`; credentials belong into {KEY_ID} and {SECRET_KEY}"
            )),
            _ => Ok(()),
        },
        _ => Err(format!("`{shown}` is neither")),
    }
}

fn check_endpoint(text: &str) -> Result<(), String> {
    if text.contains('@') {
        let shown = without_credentials(text);
        return Err(format!(
            "`{shown}` holds credentials, which belong into {KEY_ID} and {SECRET_KEY}"
        ));
    }
    match url::Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(()),
        _ => Err(format!("`{text}` is not such a URL")),
    }
}

fn client_options() -> ClientOptions {
    ClientOptions::new()
        .with_allow_http(true)
        .with_connect_timeout(Duration::from_secs(5))
        .with_timeout(ATTEMPT)
}

/// The time decides, not the number of attempts. `object_store` takes each pause between the first one and `base` times the one before: below
/// e they would stay as short as they begin.
fn retries(patience: Duration) -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: LONGEST_PAUSE,
            base: 4.0,
        },
        max_retries: 10_000,
        retry_timeout: patience,
    }
}

/// Where the files go.
pub(super) fn store(settings: &Settings) -> Result<Store, Problem> {
    let location = settings.get("sink.parquet.location");
    if let Some(path) = location.strip_prefix("file://") {
        let path = path.trim_end_matches('/');
        return Ok(Store::Local { root: path.into() });
    }
    let rest = location.strip_prefix("s3://").unwrap_or(location);
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let endpoint = settings.text("sink.parquet.s3.endpoint");
    // Credentials of a pod, task or machine come by the variables that the platform sets. A session token among them is of another key
    // than one that is set here. Where the bucket is is said by the options alone.
    let environment = std::env::vars_os().filter_map(|(name, value)| {
        let name = name.to_str().filter(|name| name.starts_with("AWS_"))?;
        let key: AmazonS3ConfigKey = name.to_ascii_lowercase().parse().ok()?;
        Some((key, value.into_string().ok()?))
    });
    let environment: Vec<_> = environment.collect();
    let elsewhere = |key| {
        matches!(
            key,
            AmazonS3ConfigKey::Endpoint | AmazonS3ConfigKey::S3Endpoint
        )
    };
    if endpoint.is_none() && environment.iter().any(|(key, _)| elsewhere(*key)) {
        return Err(settings.problem(
            "sink.parquet.location",
            "an environment variable AWS_ENDPOINT… names another place of the bucket, and is not read: a route says itself where its data goes",
            "set sink.parquet.s3.endpoint, or take that variable away",
        ));
    }
    let has_key = settings.text(KEY_ID).is_some();
    let environment = environment.into_iter().filter(|(key, _)| match key {
        AmazonS3ConfigKey::Token => !has_key,
        AmazonS3ConfigKey::Endpoint
        | AmazonS3ConfigKey::S3Endpoint
        | AmazonS3ConfigKey::Bucket
        | AmazonS3ConfigKey::VirtualHostedStyleRequest => false,
        _ => true,
    });
    let mut builder = environment
        .fold(AmazonS3Builder::new(), |builder, (key, value)| {
            builder.with_config(key, value)
        })
        .with_bucket_name(bucket)
        .with_http_connector(Steps)
        .with_client_options(client_options());
    let path_style = match settings.text("sink.parquet.s3.path.style") {
        Some(_) => settings.flag("sink.parquet.s3.path.style"),
        None => endpoint.is_some(),
    };
    builder = builder.with_virtual_hosted_style_request(!path_style);
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(region) = settings.text("sink.parquet.s3.region") {
        builder = builder.with_region(region);
    }
    if let Some(id) = settings.text(KEY_ID) {
        builder = builder.with_access_key_id(id);
    }
    if let Some(secret) = settings.secret(SECRET_KEY) {
        builder = builder.with_secret_access_key(secret.expose());
    }
    if let Some(token) = settings.secret("sink.parquet.s3.session.token") {
        builder = builder.with_token(token.expose());
    }
    let cant_be_made = |error| {
        settings.problem(
            "sink.parquet.location",
            format!("the client for the bucket can't be made: {error}"),
            "see the sink.parquet.s3.* options",
        )
    };
    // As `object_store` has it.
    let region = builder.get_config_value(&AmazonS3ConfigKey::Region);
    let region = region.unwrap_or_else(|| "us-east-1".to_owned());
    let patient = |patience| {
        let builder = builder.clone().with_retry(retries(patience));
        builder.build().map(Arc::new).map_err(cant_be_made)
    };
    let store = patient(PATIENCE)?;
    let client = Steps.connect(&client_options()).map_err(cant_be_made)?;
    Ok(Store::S3 {
        uploads: Uploads::new(store.clone(), client, region),
        store,
        impatient: patient(SHORT_PATIENCE)?,
        bucket: bucket.to_owned(),
        prefix: prefix.trim_matches('/').to_owned(),
    })
}

/// The declared columns; `None` where the Hive table has them.
pub(super) fn columns(settings: &Settings) -> Result<Option<Vec<Column>>, Problem> {
    let Some(text) = settings.text("sink.parquet.schema") else {
        if settings.text("sink.hive.metastore.uri").is_some() {
            return Ok(None);
        }
        return Err(settings.problem(
            "sink.parquet.schema",
            "is missing",
            "list the columns, or name a table that has them by sink.hive.metastore.uri and sink.hive.table",
        ));
    };
    parse_columns(text)
        .map(Some)
        .map_err(|error| settings.problem("sink.parquet.schema", error.to_string(), schema::FORM))
}

pub(super) fn partitioning(settings: &Settings) -> Result<Partitioning, Problem> {
    match settings.text("sink.parquet.partition.by") {
        None => Ok(Partitioning::default()),
        Some(text) => Partitioning::parse(text).map_err(|problem| {
            settings.problem("sink.parquet.partition.by", problem, partition::FORM)
        }),
    }
}

pub(super) fn rolling(settings: &Settings, context: &Context, started_ms: i64) -> Rolling {
    Rolling {
        max_bytes: settings.bytes("sink.parquet.roll.max.bytes"),
        max_rows: settings.count("sink.parquet.roll.max.rows"),
        max_age: settings.millis("sink.parquet.roll.max.age.ms"),
        max_open: settings.count("sink.parquet.max.open.files") as usize,
        codec: match settings.get("sink.parquet.compression") {
            "snappy" => Codec::Snappy,
            "none" => Codec::None,
            _ => Codec::Zstd(settings.count("sink.parquet.compression.level") as i32),
        },
        two_phase: settings.get("sink.parquet.publish") == "two-phase",
        name: format!("{}{started_ms:x}", own_prefix(context)),
    }
}

/// What names of files of this worker begin with, whenever it was started: `<route>-<worker>-`.
pub(super) fn own_prefix(context: &Context) -> String {
    format!("{}-{}-", route_name(context), safe(&context.worker))
}

/// The route's name as part of a file's name. Readers skip names that begin with a dot or an underscore.
pub(super) fn route_name(context: &Context) -> String {
    safe(&context.route)
        .trim_start_matches(['.', '_'])
        .to_owned()
}

fn safe(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '_' | '-' => c,
            _ => '_',
        })
        .take(80)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parquet::LONGEST_STEP;

    #[test]
    fn a_blip_of_tens_of_seconds_is_waited_out_step_by_step() {
        assert!(ATTEMPT + LONGEST_PAUSE < LONGEST_STEP);
        let RetryConfig {
            backoff,
            max_retries,
            retry_timeout,
        } = retries(PATIENCE);
        assert!(retry_timeout > ATTEMPT);
        // Where every pause were the shortest, the time would still decide.
        assert!(backoff.init_backoff * max_retries as u32 > 10 * retry_timeout);
        assert!(backoff.base > std::f64::consts::E);
    }

    #[test]
    fn credentials_in_addresses_are_refused_and_not_repeated() {
        for location in [
            "s3://id:s3cret@bucket/path",
            "s3://id:s3/cret@bucket/path",
            "s3://s3cret@bucket",
            "id:s3cret@bucket",
            "file://id:s3cret@host/path",
        ] {
            let error = check_location(location).unwrap_err();
            assert!(
                !error.contains("id:") && !error.contains("s3cret"),
                "{error}"
            );
        }
        let error = check_location("s3://id:s3cret@bucket/path").unwrap_err();
        assert!(
            error.contains("sink.parquet.s3.secret.access.key"),
            "{error}"
        );
        for endpoint in [
            "http://id:s3cret@minio:9000",
            "http://id:1/s3cret@minio",
            "s3cret@minio",
        ] {
            let error = check_endpoint(endpoint).unwrap_err();
            assert!(
                error.contains("`…@minio") && !error.contains("s3cret"),
                "{error}"
            );
            assert!(
                error.contains("sink.parquet.s3.secret.access.key"),
                "{error}"
            );
        }
    }

    #[test]
    fn an_at_sign_in_a_path_is_no_credential() {
        assert_eq!(check_location("s3://bucket/a@b:c"), Ok(()));
        assert_eq!(check_location("file:///a@b"), Ok(()));
        assert_eq!(check_endpoint("https://minio:9000/path"), Ok(()));
    }
}
