//! Reads the text that Prometheus scrapes.

use crate::{Error, Result};

/// The samples of one scrape.
#[derive(Debug, Clone, Default)]
pub struct Metrics(Vec<Sample>);

/// One line of a scrape.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// For a histogram with `_bucket`, `_sum` or `_count`.
    pub name: String,
    pub labels: Vec<(String, String)>,
    pub value: f64,
}

impl Metrics {
    pub fn parse(text: &str) -> Result<Metrics> {
        let lines = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let sample = |line| {
            sample(line)
                .ok_or_else(|| Error::new(format!("not a line of Prometheus' text format: {line}")))
        };
        Ok(Metrics(lines.map(sample).collect::<Result<_>>()?))
    }

    pub fn samples(&self) -> &[Sample] {
        &self.0
    }

    /// The sum over all samples of this name that have at least these labels; 0 where there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.select(name, labels).map(|sample| sample.value).sum()
    }

    /// The sum, or `None` where no sample fits.
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.select(name, labels)
            .next()
            .map(|_| self.sum(name, labels))
    }

    fn select<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a Sample> {
        let has = |sample: &Sample, (key, value): &(&str, &str)| {
            sample.labels.iter().any(|(k, v)| k == key && v == value)
        };
        self.0.iter().filter(move |sample| {
            sample.name == name && labels.iter().all(|label| has(sample, label))
        })
    }
}

fn sample(line: &str) -> Option<Sample> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (key, after) = rest.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            labels.push((key.trim_start_matches(',').trim().to_owned(), value));
            rest = after;
        }
        rest = &rest[1..];
    }
    // A timestamp may follow the value.
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample {
        name: name.to_owned(),
        labels,
        value,
    })
}

/// A label's value up to its closing quote, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_found_by_name_and_labels() {
        let text = "# TYPE a counter\na 3\nb{x=\"1\",y=\"q\\\"}, {\"} 2.5\nb{x=\"2\"} 1e3 1700000000\nc_bucket{le=\"+Inf\"} NaN\n";
        let metrics = Metrics::parse(text).unwrap();
        assert_eq!(metrics.get("a", &[]), Some(3.0));
        assert_eq!(metrics.get("b", &[]), Some(1002.5));
        assert_eq!(metrics.get("b", &[("x", "1"), ("y", "q\"}, {")]), Some(2.5));
        assert_eq!(metrics.get("b", &[("x", "3")]), None);
        assert_eq!(metrics.sum("b", &[("x", "3")]), 0.0);
        assert!(metrics.get("c_bucket", &[("le", "+Inf")]).unwrap().is_nan());
    }

    #[test]
    fn what_is_not_a_sample_is_an_error() {
        for text in ["<html>", "a", "a{x=\"1} 2", "a{x=1} 2", "a two"] {
            let error = Metrics::parse(text).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }
}
