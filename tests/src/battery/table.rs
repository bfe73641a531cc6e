//! The table of the battery, and its place in the documentation.

use std::path::Path;

use crate::{Doing, Error, Result};

use super::{Cell, Fault, Outcome, Sink};

const BEGIN: &str = "<!-- faults: written by `make faults`, don't edit by hand -->";
const END: &str = "<!-- end of faults -->";

/// The rows that were run, in order, with their cells.
pub type Rows = Vec<(Fault, Vec<(Cell, Outcome)>)>;

/// Writes the table between the two markers of a file.
pub fn write(path: &Path, rows: &Rows, seed: u64) -> Result<()> {
    let text = std::fs::read_to_string(path).doing(format!("reading {}", path.display()))?;
    let missing = || Error::new(format!("{} lacks the markers of the table", path.display()));
    let (before, rest) = text.split_once(BEGIN).ok_or_else(missing)?;
    let (_, after) = rest.split_once(END).ok_or_else(missing)?;
    let date = chrono::Utc::now().format("%Y-%m-%d");
    let table = table(rows);
    let text =
        format!("{before}{BEGIN}\n\nRun on {date} with seed {seed}.\n\n{table}\n{END}{after}");
    std::fs::write(path, text).doing(format!("writing {}", path.display()))
}

/// Each cell: lost / duplicates / longest stall in whole seconds.
fn table(rows: &Rows) -> String {
    let mut text = String::from("| fault |");
    for cell in Cell::all() {
        let sink = match cell.sink {
            Sink::Kafka => "Kafka",
            Sink::Elasticsearch => "Elasticsearch",
            Sink::Parquet => "Parquet",
        };
        text += &format!(" {sink} {} |", cell.tradeoff.name());
    }
    text += "\n|---|";
    text += &"---|".repeat(Cell::all().len());
    text.push('\n');
    for (fault, outcomes) in rows {
        text += &format!("| {} |", fault.title());
        for cell in Cell::all() {
            let found = outcomes.iter().find(|(found, _)| *found == cell);
            text += &found.map_or_else(|| " – |".to_owned(), |(_, outcome)| shown(outcome));
        }
        text.push('\n');
    }
    text
}

fn shown(outcome: &Outcome) -> String {
    let seconds = outcome.stall.as_secs_f64().ceil();
    let broken = if outcome.problems.is_empty() {
        ""
    } else {
        " (promise broken)"
    };
    format!(
        " {} / {} / {seconds} s{broken} |",
        outcome.lost, outcome.duplicates
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_table_replaces_what_stood_between_the_markers() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("before\n{BEGIN}\nold\n{END}\nafter\n")).unwrap();
        let outcome = Outcome {
            duplicates: 3,
            stall: Duration::from_millis(1_200),
            ..Outcome::default()
        };
        let rows = vec![(Fault::Kill, vec![(Cell::all()[1], outcome)])];
        write(file.path(), &rows, 7).unwrap();
        let text = std::fs::read_to_string(file.path()).unwrap();
        assert!(
            text.starts_with("before\n") && text.ends_with("\nafter\n"),
            "{text}"
        );
        assert!(text.contains("| – | 0 / 3 / 2 s | – |"), "{text}");
        assert!(text.contains("seed 7") && !text.contains("old"), "{text}");
        write(file.path(), &Vec::new(), 8).unwrap();
        assert!(
            !std::fs::read_to_string(file.path())
                .unwrap()
                .contains("0 / 3")
        );
    }

    #[test]
    fn a_file_without_markers_is_left_alone() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "no place").unwrap();
        let error = write(file.path(), &Vec::new(), 7).unwrap_err();
        assert!(error.to_string().contains("markers"), "{error}");
        assert_eq!(std::fs::read_to_string(file.path()).unwrap(), "no place");
    }
}
