//! What a run asked of Elasticsearch itself: whether the server was kept busy, and whether it had to turn requests away.

use keystone_tests::{Elasticsearch, Error, Result};
use serde_json::Value;

use crate::table::Spread;

/// What the server has counted since its start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counted {
    cpu_seconds: f64,
    /// Requests, or parts of them, that were turned away (429).
    rejected: u64,
}

/// What it counted in one run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    cpu_seconds: f64,
    wall_seconds: f64,
    rejected: u64,
}

impl Counted {
    pub(crate) fn of(server: &Elasticsearch) -> Result<Counted> {
        let path = "/_nodes/stats/process,thread_pool,indexing_pressure";
        counted(&server.request("GET", path, None)?)
            .ok_or_else(|| Error::new(format!("Elasticsearch does not tell its load at {path}")))
    }

    pub(crate) fn until(self, end: Counted, wall_seconds: f64) -> Load {
        Load {
            cpu_seconds: end.cpu_seconds - self.cpu_seconds,
            wall_seconds,
            rejected: end.rejected - self.rejected,
        }
    }
}

/// The sum over the nodes.
fn counted(answer: &Value) -> Option<Counted> {
    let nodes = answer["nodes"].as_object()?;
    let (mut cpu_ms, mut rejected) = (0, 0);
    for node in nodes.values() {
        cpu_ms += node["process"]["cpu"]["total_in_millis"].as_u64()?;
        rejected += node["thread_pool"]["write"]["rejected"].as_u64()?;
        let pressure = &node["indexing_pressure"]["memory"]["total"];
        for stage in ["coordinating", "primary"] {
            rejected += pressure[format!("{stage}_rejections")].as_u64()?;
        }
    }
    Some(Counted {
        cpu_seconds: cpu_ms as f64 / 1e3,
        rejected,
    })
}

/// A paragraph below the table; empty without runs.
pub(crate) fn render(loads: &[Load], events: u64) -> String {
    let spread = |figure: fn(&Load) -> f64| Spread::of(loads.iter().map(figure).collect());
    let (Some(cpu), Some(busy)) = (
        spread(|load| load.cpu_seconds),
        spread(|load| load.cpu_seconds / load.wall_seconds),
    ) else {
        return String::new();
    };
    let million = events as f64 / 1e6;
    let rejected: u64 = loads.iter().map(|load| load.rejected).sum();
    format!(
        "\nElasticsearch itself took {:.1} ({:.1} to {:.1}) CPU-seconds per million events consumed in the worker's runs: {:.1} ({:.1} to {:.1}) cores for as \
         long as they lasted. It turned away {rejected} requests or parts of them (429) in all of them.\n",
        cpu.median / million,
        cpu.least / million,
        cpu.most / million,
        busy.median,
        busy.least,
        busy.most
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nodes_are_added() {
        let node = |cpu: u64, rejected: u64| {
            serde_json::json!({
                "process": {"cpu": {"total_in_millis": cpu}},
                "thread_pool": {"write": {"rejected": rejected}},
                "indexing_pressure": {"memory": {"total": {"coordinating_rejections": 1, "primary_rejections": 2}}},
            })
        };
        let answer = serde_json::json!({"nodes": {"a": node(1_500, 4), "b": node(500, 0)}});
        let counted = counted(&answer).unwrap();
        assert_eq!((counted.cpu_seconds, counted.rejected), (2.0, 10));
    }
}
