//! The table of the peers.

use std::fmt::Write;

use super::wait::LOOK;
use super::{Row, WORKER};
use crate::table::{MEBIBYTE, Spread};

/// The table, with what it says of itself.
pub(crate) fn render(rows: &[Row], events: u64, repeats: u32) -> String {
    let mut text = format!(
        "\n{events} events; runs of each line: {repeats}. Each program, the worker like the others, gets SIGTERM once its sink holds all that it \
         must; that is looked at every {} ms, and wall times are no finer.\n\n\
         | program | to | CPU-seconds per million: median (least to most) | wall | peak memory | × worker | at least once | delivered set |\n\
         |---|---|---|---|---|---|---|---|\n",
        LOOK.as_millis()
    );
    for row in rows {
        let _ = writeln!(text, "{}", line(row, rows, events));
    }
    text.push('\n');
    text
}

fn line(row: &Row, rows: &[Row], events: u64) -> String {
    let peer = &row.peer;
    let what = format!("| {} | {:?}", peer.name, peer.sink);
    let promise = if peer.at_least_once { "yes" } else { "no" };
    let (Some(cpu), None) = (cpu(row, events), &row.wrong) else {
        let why = match (&row.wrong, &row.needs) {
            (Some(wrong), _) => format!("wrong: {wrong}"),
            (None, Some(needs)) => format!("not run; {needs}"),
            (None, None) => "not run".to_owned(),
        };
        return format!("{what} | - | - | - | - | {promise} | {why} |");
    };
    let mine = rows
        .iter()
        .find(|other| other.peer.name == WORKER && other.peer.sink == peer.sink)
        .and_then(|worker| self::cpu(worker, events));
    let ratio = mine.map_or_else(
        || "-".to_owned(),
        |mine| format!("{:.1}", cpu.median / mine.median),
    );
    let walls = row.costs.iter().map(|cost| cost.wall_seconds).collect();
    let wall = Spread::of(walls).unwrap_or_default();
    let peak = row.costs.iter().map(|cost| cost.peak_bytes).max();
    format!(
        "{what} | {:.2} ({:.2} to {:.2}) | {:.1} s | {:.0} MiB | {ratio} | {promise} | exact |",
        cpu.median,
        cpu.least,
        cpu.most,
        wall.median,
        peak.unwrap_or(0) as f64 / MEBIBYTE,
    )
}

/// CPU-seconds per million events.
fn cpu(row: &Row, events: u64) -> Option<Spread> {
    let figures = row.costs.iter();
    Spread::of(
        figures
            .map(|cost| cost.cpu_seconds * 1e6 / events as f64)
            .collect(),
    )
}
