//! The worker's metrics: their table, and the text for Prometheus.
//!
//! Counters of the hot path live in the ledger and are read when Prometheus asks, so an event costs nothing here.

use std::fmt::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use keystone_dsl::Rule;
use keystone_sinks::metric::{Metric, MetricKind};
use keystone_sinks::{Batch, Stage};
use metrics::{counter, gauge, histogram};
use metrics_exporter_prometheus::formatting::sanitize_label_value;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::latency::LATENCY_BOUNDS;
use crate::ledger::LedgerView;
use crate::offsets::WindowView;
use crate::route::Route;
use crate::state::{Shared, lock};

const fn metric(
    name: &'static str,
    kind: MetricKind,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric {
        name,
        kind,
        labels,
        help,
    }
}

use MetricKind::{Counter, Gauge, Histogram};

/// The one metric with the name that every client of Prometheus gives it, and dashboards know.
const START_TIME: &str = "process_start_time_seconds";

/// Every metric of the worker itself; each sink has a table of its own.
pub const METRICS: &[Metric] = &[
    metric(
        "keystone_events_consumed_total",
        Counter,
        &[],
        "Events read from Kafka. consumed = filtered + discarded + delivered + dead-lettered + abandoned + in flight, at every moment.",
    ),
    metric(
        "keystone_events_filtered_total",
        Counter,
        &[],
        "Events for which the filter was not true.",
    ),
    metric(
        "keystone_events_discarded_total",
        Counter,
        &[],
        "Events whose projection was null, tombstones under `source.null.payload = discard`, events that broke a rule under `hygiene.on.violation = discard`, and bad events under `dead.letter.policy = discard`.",
    ),
    metric(
        "keystone_events_delivered_total",
        Counter,
        &[],
        "Events that the sink has durably taken.",
    ),
    metric(
        "keystone_events_dead_lettered_total",
        Counter,
        &["stage"],
        "Events that are durable in the dead-letter topic, by the stage that found them bad. A rise deserves a look at the reasons in their headers.",
    ),
    metric(
        "keystone_hygiene_violations_total",
        Counter,
        &["rule"],
        "Events that broke a hygiene rule, by rule (`required`, `types`, `max.event.bytes`); one that breaks two counts for both. An event that is read again is counted again. A rise means that a producer has changed: the reason in the dead letter names the field.",
    ),
    metric(
        "keystone_events_abandoned_total",
        Counter,
        &[],
        "Events given up unsettled because their partition moved to another worker or was rewound; they are read again there. They may have been delivered: duplicates come from here and from crashes.",
    ),
    metric(
        "keystone_events_in_flight",
        Gauge,
        &[],
        "Events read and not settled.",
    ),
    metric(
        "keystone_batches_closed_total",
        Counter,
        &[],
        "Batches closed by the lanes.",
    ),
    metric(
        "keystone_batch_events",
        Histogram,
        &[],
        "Events of a batch to be delivered.",
    ),
    metric(
        "keystone_batch_bytes",
        Histogram,
        &[],
        "Bytes of a batch: payloads, originals, keys and headers.",
    ),
    metric(
        "keystone_batches_held",
        Gauge,
        &[],
        "Batches that the sink has taken over and not yet made durable (rows of open files).",
    ),
    metric(
        "keystone_batch_age_seconds",
        Histogram,
        &[],
        "Age of a batch when it was closed: at most `delivery.batch.max.age.ms` unless delivery is behind.",
    ),
    metric(
        "keystone_sink_request_seconds",
        Histogram,
        &["outcome"],
        "Time of one call of the sink for one batch, by outcome (`answered`, `failed`).",
    ),
    metric(
        "keystone_sink_concurrency_limit",
        Gauge,
        &[],
        "Calls of the sink that may be under way at once now, of `delivery.lanes` x `delivery.max.in.flight`; only with a sink that adapts (`elasticsearch`).",
    ),
    metric(
        "keystone_sink_concurrency_decreases_total",
        Counter,
        &["reason"],
        "How often that limit was lowered, by reason: `http_429`, `http_5xx`, `timeout`, `slow`. Steady growth means that the sink is overloaded.",
    ),
    metric(
        "keystone_retries_total",
        Counter,
        &["part", "reason"],
        "Calls that have to be repeated, by part (`sink`, `dead_letters`) and reason. Steady growth means that something is down: see `/readyz`.",
    ),
    metric(
        "keystone_delivery_latency_seconds",
        Histogram,
        &[],
        "From an event's record timestamp to the moment it was settled as delivered.",
    ),
    metric(
        "keystone_delivery_latency_max_seconds",
        Gauge,
        &[],
        "The highest latency of the last one to two minutes, to the millisecond: of the minute that is under way since the worker started, and of the one before. 0 when nothing was delivered in that time. Scrape at least once a minute and no maximum is missed.",
    ),
    metric(
        "keystone_partition_lag_events",
        Gauge,
        &["topic", "partition"],
        "Offsets between the lowest unsettled one and the log's end, for each partition that this worker holds now.",
    ),
    metric(
        "keystone_lag_events",
        Gauge,
        &[],
        "The sum of the lag over the partitions of this worker.",
    ),
    metric(
        "keystone_partition_committed_offset",
        Gauge,
        &["topic", "partition"],
        "The offset last committed, for each partition that this worker holds now.",
    ),
    metric(
        "keystone_partitions_assigned",
        Gauge,
        &[],
        "Partitions that this worker holds.",
    ),
    metric(
        "keystone_lanes_paused",
        Gauge,
        &[],
        "Lanes whose partitions are paused because the sink is slower than the source.",
    ),
    metric(
        "keystone_events_expired_total",
        Counter,
        &[],
        "Events that Kafka deleted, by the topic's retention or on request, before this worker had read them: the route has lost them. About, where the topic is compacted or written in transactions.",
    ),
    metric(
        "keystone_rebalances_total",
        Counter,
        &[],
        "Assignments that this worker was given by its consumer group, those without partitions and those without a change included: one in each rebalance. With `kafka.group.protocol = consumer` those alone that change something.",
    ),
    metric(
        "keystone_commits_total",
        Counter,
        &[],
        "Commits of offsets that Kafka has acknowledged.",
    ),
    metric(
        "keystone_commit_failures_total",
        Counter,
        &[],
        "Commits of offsets that failed; they are repeated with the next commit.",
    ),
    metric(
        "keystone_duplicate_exposure_events",
        Gauge,
        &[],
        "Events that a crash at this moment could deliver again: handed to the sink and not committed.",
    ),
    metric("keystone_ready", Gauge, &[], "1 when `/readyz` says so."),
    metric(
        "keystone_consumer_heartbeat_age_seconds",
        Gauge,
        &[],
        "Since the consumer thread last went round. It grows during a rebalance.",
    ),
    metric(
        START_TIME,
        Gauge,
        &[],
        "When the worker started, in seconds since 1970. It changes with each restart.",
    ),
    metric(
        "keystone_build_info",
        Gauge,
        &["version", "config_hash", "sink", "tradeoff"],
        "Always 1; the labels tell which build and configuration run. `config_hash` leaves out what may differ between workers: `admin.listen`, `kafka.client.id`, `kafka.client.rack`, `kafka.group.instance.id` and `sink.kafka.client.id`.",
    ),
];

const SIZE_BOUNDS: [f64; 10] = [
    1.0, 10.0, 100.0, 500.0, 1_000.0, 2_000.0, 5_000.0, 10_000.0, 50_000.0, 100_000.0,
];
const BYTES_BOUNDS: [f64; 9] = [1e3, 1e4, 1e5, 2.5e5, 5e5, 1e6, 2.5e6, 5e6, 2.5e7];

/// A batch was closed.
pub fn batch_closed(batch: &Batch) {
    histogram!("keystone_batch_events").record(batch.len() as f64);
    histogram!("keystone_batch_bytes").record(batch.bytes() as f64);
}

/// The sink was called once.
pub fn sink_request(took: Duration, answered: bool) {
    let outcome = if answered { "answered" } else { "failed" };
    histogram!("keystone_sink_request_seconds", "outcome" => outcome).record(took.as_secs_f64());
}

static EXPORTER: OnceLock<Result<PrometheusHandle, String>> = OnceLock::new();

/// Installs the exporter, once a process.
pub fn install(route: &Route) -> Result<PrometheusHandle, String> {
    EXPORTER
        .get_or_init(|| {
            build(route).map_err(|error| format!("the metrics exporter can't be set up: {error}"))
        })
        .clone()
}

fn build(route: &Route) -> Result<PrometheusHandle, metrics_exporter_prometheus::BuildError> {
    let seconds = Matcher::Suffix("_seconds".to_owned());
    let handle = PrometheusBuilder::new()
        .add_global_label("route", &route.name)
        .set_buckets_for_metric(seconds, &LATENCY_BOUNDS)?
        .set_buckets_for_metric(Matcher::Suffix("_events".to_owned()), &SIZE_BOUNDS)?
        .set_buckets_for_metric(Matcher::Suffix("_bytes".to_owned()), &BYTES_BOUNDS)?
        .install_recorder()?;
    for metric in all() {
        match metric.kind {
            Counter => metrics::describe_counter!(metric.name, metric.help),
            Gauge => metrics::describe_gauge!(metric.name, metric.help),
            Histogram => metrics::describe_histogram!(metric.name, metric.help),
        }
    }
    Ok(handle)
}

/// The tables of the worker and of all sinks.
pub fn all() -> impl Iterator<Item = &'static Metric> {
    METRICS
        .iter()
        .chain(keystone_sinks::elasticsearch::METRICS)
        .chain(keystone_sinks::parquet::METRICS)
        .chain(keystone_sinks::hive::METRICS)
}

/// Everything, as Prometheus wants it: reads the shared state into the recorder, then renders.
pub fn render(handle: &PrometheusHandle, shared: &Shared, ready: bool) -> String {
    observe(shared, ready);
    let mut text = handle.render();
    text.push_str(&render_partitions(shared));
    text.push_str(&shared.latency.render(&shared.route.name));
    text
}

fn observe(shared: &Shared, ready: bool) {
    let LedgerView {
        consumed,
        filtered,
        discarded,
        delivered,
        abandoned,
        in_flight,
        ..
    } = shared.ledger.view();
    counter!("keystone_events_consumed_total").absolute(consumed);
    counter!("keystone_events_filtered_total").absolute(filtered);
    counter!("keystone_events_discarded_total").absolute(discarded);
    counter!("keystone_events_delivered_total").absolute(delivered);
    counter!("keystone_events_abandoned_total").absolute(abandoned);
    gauge!("keystone_events_in_flight").set(in_flight as f64);
    for stage in Stage::ALL {
        let count = shared.ledger.dead_lettered(stage).load(Ordering::Relaxed);
        counter!("keystone_events_dead_lettered_total", "stage" => stage.as_str()).absolute(count);
    }
    for (rule, count) in Rule::ALL.iter().zip(&shared.violations) {
        let count = count.load(Ordering::Relaxed);
        counter!("keystone_hygiene_violations_total", "rule" => rule.as_str()).absolute(count);
    }
    for ((part, reason), count) in shared.retries() {
        counter!("keystone_retries_total", "part" => part, "reason" => reason).absolute(count);
    }
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    counter!("keystone_batches_closed_total").absolute(read(&shared.batches));
    counter!("keystone_events_expired_total").absolute(read(&shared.expired));
    counter!("keystone_rebalances_total").absolute(read(&shared.rebalances));
    counter!("keystone_commits_total").absolute(read(&shared.commits));
    counter!("keystone_commit_failures_total").absolute(read(&shared.commit_failures));
    if let Some(limiter) = &shared.limiter {
        gauge!("keystone_sink_concurrency_limit").set(limiter.limit() as f64);
    }
    gauge!("keystone_batches_held").set(shared.held().len() as f64);
    gauge!("keystone_lanes_paused").set(shared.paused_lanes.load(Ordering::Relaxed) as f64);
    gauge!("keystone_ready").set(f64::from(u8::from(ready)));
    gauge!("keystone_delivery_latency_max_seconds").set(shared.latency.recent_max().as_secs_f64());
    gauge!("keystone_consumer_heartbeat_age_seconds").set(shared.heartbeat_age().as_secs_f64());
    let started = shared.started.duration_since(UNIX_EPOCH);
    gauge!(START_TIME).set(started.unwrap_or_default().as_secs_f64());
    let route = &shared.route;
    gauge!(
        "keystone_build_info",
        "version" => env!("CARGO_PKG_VERSION"),
        "config_hash" => route.config_hash.clone(),
        "sink" => route.sink_type.clone(),
        "tradeoff" => route.tradeoff.clone(),
    )
    .set(1.0);
    observe_partitions(shared);
}

fn observe_partitions(shared: &Shared) {
    let views = shared.windows();
    let exposed: u64 = views.iter().map(|view| view.exposed).sum();
    let lag: i64 = lags(shared, &views).into_iter().flatten().sum();
    gauge!("keystone_lag_events").set(lag as f64);
    gauge!("keystone_duplicate_exposure_events").set(exposed as f64);
    gauge!("keystone_partitions_assigned").set(views.len() as f64);
}

/// The lag of each window, where the log is known.
fn lags(shared: &Shared, views: &[WindowView]) -> Vec<Option<i64>> {
    let logs = lock(&shared.logs);
    let lag = |view: &WindowView| logs.get(&view.key)?.lag(view.settled);
    views.iter().map(lag).collect()
}

/// The gauges of the partitions that are held now. The exporter would keep those of partitions that have moved away.
fn render_partitions(shared: &Shared) -> String {
    let views = shared.windows();
    let lags = lags(shared, &views);
    let committed = views.iter().map(|view| view.committed).collect();
    let mut text = String::new();
    for (name, values) in [
        ("keystone_partition_lag_events", lags),
        ("keystone_partition_committed_offset", committed),
    ] {
        text.push_str(&head(name, "gauge"));
        for (view, value) in views.iter().zip::<Vec<Option<i64>>>(values) {
            let Some(value) = value else { continue };
            let route = sanitize_label_value(&shared.route.name);
            let topic = sanitize_label_value(&view.key.topic);
            let partition = view.key.partition;
            let _written = writeln!(
                text,
                "{name}{{route=\"{route}\",topic=\"{topic}\",partition=\"{partition}\"}} {value}"
            );
        }
    }
    text
}

/// The lines before a metric's samples.
pub(crate) fn head(name: &str, kind: &str) -> String {
    let help = METRICS
        .iter()
        .find(|metric| metric.name == name)
        .map_or("", |metric| metric.help);
    format!("# HELP {name} {help}\n# TYPE {name} {kind}\n")
}

/// `docs/metrics.md`.
pub fn markdown() -> String {
    let mut page = String::from(
        "# Metrics\n\nWritten by a test from the tables in the code (`router/src/metrics.rs`, `sinks/src/*/`); don't edit by hand.\n\n\
         Served at `/metrics` on `admin.listen`, in Prometheus' text format. Every metric has the label `route`.\n\n\
         | metric | type | labels | meaning |\n|---|---|---|---|\n",
    );
    for metric in all() {
        let kind = match metric.kind {
            Counter => "counter",
            Gauge => "gauge",
            Histogram => "histogram",
        };
        let labels: Vec<String> = metric
            .labels
            .iter()
            .map(|label| format!("`{label}`"))
            .collect();
        let _written = writeln!(
            page,
            "| `{}` | {kind} | {} | {} |",
            metric.name,
            labels.join(", "),
            metric.help
        );
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_conventions_of_prometheus() {
        let mut seen = std::collections::BTreeSet::new();
        for metric in all() {
            assert!(seen.insert(metric.name), "{} stands twice", metric.name);
            assert!(
                metric.name.starts_with("keystone_") || metric.name == START_TIME,
                "{}",
                metric.name
            );
            assert_eq!(
                metric.name.ends_with("_total"),
                metric.kind == Counter,
                "{}",
                metric.name
            );
            assert!(!metric.help.is_empty() && !metric.help.contains('\n'));
        }
    }
}
