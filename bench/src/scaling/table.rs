//! The table of how costs grow.

use std::fmt::Write;

use super::{EMPTY, Row, Scaling};
use crate::measure::Cost;
use crate::table::{MEBIBYTE, Spread};

const HEAD: &str = "\
| varied | | events | CPU-seconds per million: median (least to most) | `kcat -C` | × `kcat -C` | CPU-seconds per GB | events a second | peak memory | delivered set |
|---|---|---|---|---|---|---|---|---|---|
";

/// The table, with what it says of itself.
pub(crate) fn render(scaling: &Scaling, repeats: u32) -> String {
    let mut text = format!("\nRuns of each line: {repeats}.\n\n{HEAD}");
    for row in &scaling.rows {
        let _ = writeln!(text, "{}", line(row));
    }
    text.push('\n');
    let of = |figures: Vec<f64>| Spread::of(figures).unwrap_or_default();
    let idle = |costs: &Vec<Cost>| of(costs.iter().map(|cost| cost.cpu_seconds).collect()).median;
    let [few, many] = scaling.idle.each_ref().map(idle);
    let milliseconds = |spread: Spread| {
        let [median, least, most] =
            [spread.median, spread.least, spread.most].map(|seconds| seconds * 1_000.0);
        format!("{median:.0} ms ({least:.0} to {most:.0})")
    };
    let starts = || scaling.starts.iter();
    let assigned = of(starts().map(|start| start.assigned.as_secs_f64()).collect());
    let delivered = of(starts()
        .map(|start| start.delivered.as_secs_f64())
        .collect());
    let after = starts().map(|start| (start.delivered - start.assigned).as_secs_f64());
    let _ = match &scaling.wrong {
        Some(wrong) => writeln!(text, "The start of a worker was not measured: {wrong}\n"),
        None => writeln!(
            text,
            "From the start of the process, medians: its partitions are assigned after {}, the first events count as delivered after {}, \
             that is {} after the assignment. A worker that starts, joins, finds nothing and ends costs {few:.2} CPU-seconds with {} partitions and {many:.2} with {}; that is in every line.\n",
            milliseconds(assigned),
            milliseconds(delivered),
            milliseconds(of(after.collect())),
            EMPTY[0],
            EMPTY[1],
        ),
    };
    text
}

fn line(row: &Row) -> String {
    let what = format!(
        "| {} | {} | {}",
        row.setting.varied,
        row.setting.value(),
        row.count
    );
    let cpu = |cost: &Cost| cost.cpu_seconds * 1e6 / row.count as f64;
    let spread = |costs: &[Cost], figure: &dyn Fn(&Cost) -> f64| {
        Spread::of(costs.iter().map(figure).collect())
    };
    let wall = spread(&row.costs, &|cost| cost.wall_seconds);
    let (Some(floor), Some(cpu), Some(wall), None) = (
        spread(&row.floor, &cpu),
        spread(&row.costs, &cpu),
        wall,
        &row.wrong,
    ) else {
        let wrong = row.wrong.as_deref().unwrap_or("not run");
        return format!("{what} | - | - | - | - | - | - | wrong: {wrong} |");
    };
    let peak = row.costs.iter().map(|cost| cost.peak_bytes).max();
    format!(
        "{what} | {:.2} ({:.2} to {:.2}) | {:.2} | {:.2} | {:.2} | {:.0} | {:.0} MiB | exact |",
        cpu.median,
        cpu.least,
        cpu.most,
        floor.median,
        cpu.median / floor.median,
        // A million events of so many bytes are so many megabytes.
        cpu.median * 1e3 / row.setting.shape.bytes as f64,
        row.count as f64 / wall.median,
        peak.unwrap_or(0) as f64 / MEBIBYTE,
    )
}
