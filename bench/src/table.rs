//! Figures to a table in Markdown: medians, spread, and ratios to the floors of the same run.

use std::fmt::Write;

use keystone_tests::{Error, Result};

use crate::jobs::Job;
use crate::measure::Cost;

pub(crate) const MEBIBYTE: f64 = 1024.0 * 1024.0;

/// One line of the table.
pub(crate) struct Line {
    pub(crate) name: &'static str,
    pub(crate) label: &'static str,
    pub(crate) costs: Vec<Cost>,
    /// What was wrong with the delivered set of a run; such a job is reported, not timed.
    pub(crate) wrong: Option<String>,
}

impl Line {
    pub(crate) fn new(job: &Job) -> Line {
        Line {
            name: job.name,
            label: job.label,
            costs: Vec::new(),
            wrong: None,
        }
    }
}

/// Median, least and most.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// `None` without figures. An even number of figures has the mean of the middle two as its median.
    pub(crate) fn of(mut figures: Vec<f64>) -> Option<Spread> {
        figures.sort_by(f64::total_cmp);
        let (least, most) = (*figures.first()?, *figures.last()?);
        let (low, high) = ((figures.len() - 1) / 2, figures.len() / 2);
        Some(Spread {
            median: (figures[low] + figures[high]) / 2.0,
            least,
            most,
        })
    }
}

/// The table; `floors` are the jobs that the others are compared with, by name and heading, in the order of their columns.
pub(crate) fn render(lines: &[Line], events: u64, floors: &[(&str, &str)]) -> String {
    let per_million = |line: &Line| {
        let figures = line.costs.iter();
        Spread::of(
            figures
                .map(|cost| cost.cpu_seconds * 1e6 / events as f64)
                .collect(),
        )
    };
    let floor = |name: &str| {
        lines
            .iter()
            .find(|line| line.name == name && line.wrong.is_none())
            .and_then(per_million)
    };
    let headings: String = floors
        .iter()
        .map(|(_, heading)| format!("× {heading} | "))
        .collect();
    let columns = "---|".repeat(5 + floors.len());
    let mut table = format!(
        "| job | CPU-seconds per million: median (least to most) | wall: median (least to most) | peak memory | {headings}delivered set |\n|{columns}\n"
    );
    let floors: Vec<Option<Spread>> = floors.iter().map(|(name, _)| floor(name)).collect();
    for line in lines {
        let name = format!("{} (`{}`)", line.label, line.name);
        let wall = Spread::of(line.costs.iter().map(|cost| cost.wall_seconds).collect());
        let (Some(cpu), Some(wall), None) = (per_million(line), wall, &line.wrong) else {
            let wrong = line.wrong.as_deref();
            let why = wrong.map_or("not run".to_owned(), |wrong| format!("wrong: {wrong}"));
            let dashes = "- | ".repeat(3 + floors.len());
            let _ = writeln!(table, "| {name} | {dashes}{why} |");
            continue;
        };
        let peak = line
            .costs
            .iter()
            .map(|cost| cost.peak_bytes)
            .max()
            .unwrap_or(0);
        let ratio = |floor: &Option<Spread>| match floor {
            Some(floor) if floor.median > 0.0 => format!("{:.2} | ", cpu.median / floor.median),
            _ => "- | ".to_owned(),
        };
        let ratios: String = floors.iter().map(ratio).collect();
        let set = if line.name == "kcat" { "-" } else { "exact" };
        let _ = writeln!(
            table,
            "| {name} | {:.2} ({:.2} to {:.2}) | {:.1} s ({:.1} to {:.1}) | {:.0} MiB | {ratios}{set} |",
            cpu.median,
            cpu.least,
            cpu.most,
            wall.median,
            wall.least,
            wall.most,
            peak as f64 / MEBIBYTE,
        );
    }
    table
}

/// Puts `table` between the two marker comments of this name, in place of what is there.
pub(crate) fn insert(page: &str, place: &str, table: &str) -> Result<String> {
    let (begin, end) = (marker(place, "begin"), marker(place, "end"));
    let parts = page
        .split_once(&begin)
        .and_then(|(before, rest)| Some((before, rest.split_once(&end)?.1)));
    let (before, after) = parts.ok_or_else(|| {
        Error::new(format!(
            "docs/benchmarks.md lacks the line `{begin}`, or `{end}` after it, between which the table goes"
        ))
    })?;
    Ok(format!("{before}{begin}\n{table}{end}{after}"))
}

fn marker(place: &str, which: &str) -> String {
    format!("<!-- {place}: {which} -->")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &'static str, seconds: &[f64], wrong: Option<&str>) -> Line {
        let cost = |cpu_seconds: &f64| Cost {
            cpu_seconds: *cpu_seconds,
            wall_seconds: 1.0,
            peak_bytes: 50 * 1024 * 1024,
        };
        Line {
            name,
            label: "a job",
            costs: seconds.iter().map(cost).collect(),
            wrong: wrong.map(str::to_owned),
        }
    }

    #[test]
    fn the_median_of_odd_and_even_numbers_of_runs() {
        let odd = Spread::of(vec![3.0, 1.0, 2.5]).unwrap();
        assert_eq!((odd.median, odd.least, odd.most), (2.5, 1.0, 3.0));
        assert_eq!(Spread::of(vec![1.0, 2.0]).unwrap().median, 1.5);
        assert_eq!(Spread::of(Vec::new()), None);
    }

    #[test]
    fn ratios_are_of_medians_and_a_wrong_set_is_not_timed() {
        let lines = [
            line("kcat", &[0.25, 0.2, 0.9], None),
            line("worker", &[0.5, 0.6, 0.4], None),
            line("bad", &[0.1], Some("3 lost")),
        ];
        let table = render(&lines, 500_000, &[("kcat", "kcat"), ("mirror-c", "C")]);
        let rows: Vec<&str> = table.lines().collect();
        assert!(rows[3].contains("| 1.00 (0.80 to 1.20) |"), "{table}");
        assert!(rows[3].contains("| 50 MiB | 2.00 | - | exact |"), "{table}");
        assert!(
            rows[4].contains("| - | - | - | - | - | wrong: 3 lost |"),
            "{table}"
        );
    }

    #[test]
    fn only_what_stands_between_the_markers_is_replaced() {
        let page = "a\n<!-- x: begin -->\nold\n<!-- x: end -->\nb\n";
        let new = insert(page, "x", "new\n").unwrap();
        assert_eq!(new, page.replace("old", "new"));
        assert!(insert(page, "y", "new\n").is_err());
    }
}
