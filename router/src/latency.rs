//! The histogram of delivery latency, and its recent maximum.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use metrics_exporter_prometheus::formatting::sanitize_label_value;

use crate::metrics::head;

/// Upper bounds of the latency histogram, in seconds.
pub const LATENCY_BOUNDS: [f64; 30] = [
    0.001, 0.0025, 0.005, 0.0075, 0.01, 0.0125, 0.015, 0.0175, 0.02, 0.025, 0.03, 0.04, 0.05,
    0.075, 0.1, 0.15, 0.25, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0, 300.0, 1_800.0,
    7_200.0,
];

/// A histogram of latencies with a count for each event but the cost of one for each run of equal timestamps, and their recent maximum.
#[derive(Debug)]
pub struct Latency {
    buckets: [AtomicU64; LATENCY_BOUNDS.len() + 1],
    /// Bits of an `f64`, in milliseconds: of an odd clock's timestamps a whole number would be full soon, and begin anew.
    sum_ms: AtomicU64,
    begun: Instant,
    recent: RecentMax,
}

impl Default for Latency {
    fn default() -> Latency {
        Latency {
            buckets: Default::default(),
            sum_ms: AtomicU64::default(),
            begun: Instant::now(),
            recent: RecentMax::default(),
        }
    }
}

/// The maximum of each of two minutes, those with an even and those with an odd number: the minute in the upper half, milliseconds in the
/// lower, so that the first value of a minute replaces what the slot had.
#[derive(Debug, Default)]
struct RecentMax([AtomicU64; 2]);

impl RecentMax {
    fn note(&self, minute: u32, ms: u64) {
        let slot = &self.0[minute as usize % 2];
        let ms = u32::try_from(ms).unwrap_or(u32::MAX);
        slot.fetch_max(u64::from(minute) << 32 | u64::from(ms), Ordering::Relaxed);
    }

    /// In milliseconds, of this minute and the one before.
    fn get(&self, minute: u32) -> u32 {
        let slots = self.0.iter().map(|slot| slot.load(Ordering::Relaxed));
        let recent = slots.filter(|slot| (slot >> 32) as u32 + 1 >= minute);
        recent.map(|slot| slot as u32).max().unwrap_or_default()
    }
}

impl Latency {
    /// Records events by their record timestamps (milliseconds since the epoch, with counts), settled at `now`.
    /// A timestamp in the future counts as no latency.
    pub fn record_all(&self, now: i64, timestamps: &[(i64, u64)]) {
        let oldest = timestamps.iter().map(|(timestamp, _)| *timestamp).min();
        let highest = oldest.map_or(0, |oldest| now.saturating_sub(oldest).max(0));
        self.recent.note(self.minute(), highest as u64);
        let mut sum = 0.0;
        for (timestamp, count) in timestamps {
            let latency = now.saturating_sub(*timestamp).max(0) as f64;
            let seconds = latency / 1_000.0;
            let bucket = LATENCY_BOUNDS.partition_point(|bound| *bound < seconds);
            self.buckets[bucket].fetch_add(*count, Ordering::Relaxed);
            sum += latency * *count as f64;
        }
        let add = |before| Some((f64::from_bits(before) + sum).to_bits());
        let _always = self
            .sum_ms
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// Of the last one to two minutes.
    pub fn recent_max(&self) -> Duration {
        Duration::from_millis(self.recent.get(self.minute()).into())
    }

    /// Whole minutes since the worker started: a clock that is set does not matter.
    fn minute(&self) -> u32 {
        (self.begun.elapsed().as_secs() / 60) as u32
    }

    /// In Prometheus' text format.
    pub fn render(&self, route: &str) -> String {
        let name = "keystone_delivery_latency_seconds";
        let route = sanitize_label_value(route);
        let mut text = head(name, "histogram");
        let mut total = 0;
        let bounds = LATENCY_BOUNDS
            .iter()
            .map(f64::to_string)
            .chain(["+Inf".to_owned()]);
        for (bucket, bound) in self.buckets.iter().zip(bounds) {
            total += bucket.load(Ordering::Relaxed);
            let _written = writeln!(
                text,
                "{name}_bucket{{route=\"{route}\",le=\"{bound}\"}} {total}"
            );
        }
        let sum = f64::from_bits(self.sum_ms.load(Ordering::Relaxed)) / 1_000.0;
        let _written = writeln!(
            text,
            "{name}_sum{{route=\"{route}\"}} {sum}\n{name}_count{{route=\"{route}\"}} {total}"
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recent_maximum_is_of_this_minute_and_the_one_before() {
        let recent = RecentMax::default();
        recent.note(0, 70);
        recent.note(0, 50);
        assert_eq!((recent.get(0), recent.get(1), recent.get(2)), (70, 70, 0));
        recent.note(1, 20);
        assert_eq!((recent.get(1), recent.get(2), recent.get(3)), (70, 20, 0));
        recent.note(2, 10);
        assert_eq!((recent.get(2), recent.get(3)), (20, 10));
        // Whoever read the clock before the minute ended.
        recent.note(0, 90);
        assert_eq!(recent.get(2), 20);
        recent.note(5, u64::MAX);
        assert_eq!(recent.get(5), u32::MAX);
    }

    #[test]
    fn odd_timestamps_do_not_bring_the_sum_down() {
        let latency = Latency::default();
        let mut before = 0.0;
        for timestamp in [1_700_000_000, -9_000_000_000_000_000_000, i64::MIN] {
            latency.record_all(1_700_000_000_000, &[(timestamp, 100_000_000)]);
            let sum = f64::from_bits(latency.sum_ms.load(Ordering::Relaxed));
            assert!(sum > before, "{sum}");
            before = sum;
        }
    }

    #[test]
    fn the_latency_histogram_counts_every_event() {
        let latency = Latency::default();
        latency.record_all(10_000, &[(10_000, 2), (9_900, 3), (0, 1), (20_000, 1)]);
        assert_eq!(latency.recent_max(), Duration::from_secs(10));
        let text = latency.render("a \"route\"");
        assert!(
            text.contains("_bucket{route=\"a \\\"route\\\"\",le=\"0.005\"} 3"),
            "{text}"
        );
        assert!(text.contains("le=\"0.1\"} 6"), "{text}");
        assert!(text.contains("le=\"10\"} 7"), "{text}");
        assert!(text.contains("le=\"+Inf\"} 7"), "{text}");
        assert!(
            text.contains("_sum{route=\"a \\\"route\\\"\"} 10.3"),
            "{text}"
        );
        assert!(
            text.contains("_count{route=\"a \\\"route\\\"\"} 7"),
            "{text}"
        );
    }
}
