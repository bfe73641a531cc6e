//! The checked-in counts, and how new ones compare with them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// Instructions for each event, by case.
pub(crate) type Counts = BTreeMap<String, u64>;

const HEAD: &str = "\
# Instructions for each event in the hot path, by callgrind (`make bench-guard`). Written by `make bench-guard GUARD=--accept`.
";
const COMPILER: &str = "# compiler: ";

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Baseline {
    pub(crate) compiler: String,
    pub(crate) counts: Counts,
}

/// What a comparison says.
pub(crate) struct Report {
    pub(crate) text: String,
    /// A count has grown too much, or there is none to compare with.
    pub(crate) failed: bool,
}

impl Baseline {
    pub(crate) fn read(path: &Path) -> Result<Baseline, String> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("reading {}: {error}", path.display()))?;
        Baseline::parse(&text).map_err(|problem| format!("{}: {problem}", path.display()))
    }

    pub(crate) fn write(&self, path: &Path) -> Result<(), String> {
        let text = self.to_text();
        std::fs::write(path, &text)
            .map_err(|error| format!("writing {}: {error}", path.display()))?;
        println!("{text}");
        Ok(())
    }

    fn to_text(&self) -> String {
        let mut text = format!("{HEAD}{COMPILER}{}\n", self.compiler);
        for (case, count) in &self.counts {
            // Writing to memory can't fail, here and below.
            let _ = writeln!(text, "{case} {count}");
        }
        text
    }

    fn parse(text: &str) -> Result<Baseline, String> {
        let mut baseline = Baseline {
            compiler: String::new(),
            counts: Counts::new(),
        };
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(compiler) = line.strip_prefix(COMPILER) {
                compiler.clone_into(&mut baseline.compiler);
            } else if !line.starts_with('#') {
                let entry = line
                    .split_once(' ')
                    .and_then(|(case, count)| Some((case.to_owned(), count.parse().ok()?)));
                let (case, count) =
                    entry.ok_or_else(|| format!("not a case and its count: {line}"))?;
                baseline.counts.insert(case, count);
            }
        }
        Ok(baseline)
    }

    /// `allow` is the percentage by which a count may grow.
    pub(crate) fn compare(&self, found: &Baseline, allow: f64) -> Report {
        let mut text = String::from(
            "| case | instructions an event | baseline | change |\n|---|---|---|---|\n",
        );
        let mut failed = false;
        for (case, &count) in &found.counts {
            let Some(&before) = self.counts.get(case) else {
                failed = true;
                let _ = writeln!(text, "| {case} | {count} | none | **new** |");
                continue;
            };
            // In this order what has grown by just so much compares as equal.
            let change = (count as f64 - before as f64) * 100.0 / before.max(1) as f64;
            let word = match change {
                change if change > allow => "**more**",
                change if change < -allow => "less: accept it, so that it stays",
                _ => "",
            };
            failed |= change > allow;
            let _ = writeln!(
                text,
                "| {case} | {count} | {before} | {change:+.1} % {word} |"
            );
        }
        for case in self
            .counts
            .keys()
            .filter(|case| !found.counts.contains_key(*case))
        {
            failed = true;
            let _ = writeln!(text, "| {case} | not counted | | **gone** |");
        }
        if self.compiler != found.compiler {
            let _ = writeln!(
                text,
                "\nThe baseline is of {}, this build of {}: some of the change may be the compiler's.",
                self.compiler, found.compiler
            );
        }
        Report { text, failed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn baseline(counts: &[(&str, u64)]) -> Baseline {
        Baseline {
            compiler: "rustc 1".to_owned(),
            counts: counts
                .iter()
                .map(|(case, count)| ((*case).to_owned(), *count))
                .collect(),
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let written = baseline(&[("a", 1), ("b-c", 20_000)]);
        assert_eq!(Baseline::parse(&written.to_text()), Ok(written));
        assert!(Baseline::parse("a one").is_err());
    }

    #[test]
    fn only_a_count_that_has_grown_too_much_fails() {
        let before = baseline(&[("a", 1_000), ("b", 1_000)]);
        let grown = before.compare(&baseline(&[("a", 1_031), ("b", 1_000)]), 3.0);
        assert!(grown.failed && grown.text.contains("| a | 1031 | 1000 | +3.1 % **more** |"));
        for fine in [1_030, 900] {
            let report = before.compare(&baseline(&[("a", fine), ("b", 1_000)]), 3.0);
            assert!(!report.failed, "{}", report.text);
        }
    }

    #[test]
    fn a_case_without_a_baseline_or_without_a_count_fails() {
        let before = baseline(&[("a", 1_000)]);
        assert!(before.compare(&baseline(&[]), 3.0).failed);
        assert!(
            before
                .compare(&baseline(&[("a", 1_000), ("b", 1)]), 3.0)
                .failed
        );
    }

    #[test]
    fn another_compiler_is_named() {
        let other = Baseline {
            compiler: "rustc 2".to_owned(),
            ..baseline(&[])
        };
        let report = baseline(&[]).compare(&other, 3.0);
        assert!(report.text.contains("rustc 1") && report.text.contains("rustc 2"));
        assert!(!report.failed);
    }
}
