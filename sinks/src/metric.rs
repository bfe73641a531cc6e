//! A metric as data. `docs/metrics.md` and the exporter's descriptions come from the tables of these.

/// One metric: its name by Prometheus' conventions, its labels and what it means.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    pub name: &'static str,
    pub kind: MetricKind,
    /// Label names beside `route`, which every metric has.
    pub labels: &'static [&'static str],
    /// One or two sentences: what is counted, in which unit, and when to worry.
    pub help: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}
