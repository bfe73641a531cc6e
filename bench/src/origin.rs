//! What a table is of: the machine, and the commit of the worker that ran on it.

use std::path::Path;
use std::process::Command;

/// What a worker is built from.
const SOURCES: [&str; 6] = [
    "router",
    "sinks",
    "dsl",
    "config",
    "Cargo.toml",
    "Cargo.lock",
];

/// A line for each table; a `+` stands for changes to the worker that are not committed.
pub(crate) fn line(root: &Path) -> String {
    let cores = std::thread::available_parallelism().map_or(0, |cores| cores.get());
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    format!(
        "{}, {cores} cores, Linux {}; commit {}.",
        model(&info).unwrap_or(std::env::consts::ARCH),
        kernel.trim(),
        commit(root).unwrap_or_else(|| "unknown".to_owned())
    )
}

/// Not every processor names its model.
fn model(info: &str) -> Option<&str> {
    let mut lines = info.lines();
    let line = lines.find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim())
}

fn commit(root: &Path) -> Option<String> {
    let head = git(root, &["rev-parse", "--short", "HEAD"])?;
    let mut status = vec!["status", "--porcelain", "--"];
    status.extend(SOURCES);
    let mark = match git(root, &status)?.is_empty() {
        true => "",
        false => "+",
    };
    Some(head + mark)
}

/// What git says; without locks, since others may work in the same tree.
fn git(root: &Path, arguments: &[&str]) -> Option<String> {
    let mut git = Command::new("git");
    git.arg("-C").arg(root).arg("--no-optional-locks");
    let output = git.args(arguments).output().ok()?;
    let said = String::from_utf8_lossy(&output.stdout);
    output.status.success().then(|| said.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_of_the_first_core_is_named() {
        let info =
            "processor\t: 0\nmodel name\t: Some CPU: fast\nprocessor\t: 1\nmodel name\t: other\n";
        assert_eq!(model(info), Some("Some CPU: fast"));
        assert_eq!(model("processor\t: 0\n"), None);
    }
}
