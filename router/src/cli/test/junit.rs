//! Results in the XML that JUnit made common, for the pages of a CI system.

use std::fmt::Write as _;
use std::time::Duration;

/// The cases of one route.
pub(super) struct Suite {
    pub(super) name: String,
    pub(super) cases: Vec<Reported>,
}

pub(super) struct Reported {
    pub(super) name: String,
    pub(super) took: Duration,
    pub(super) failure: Option<String>,
}

pub(super) fn xml(suites: &[Suite]) -> String {
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let all = || suites.iter().flat_map(|suite| &suite.cases);
    let _written = writeln!(
        text,
        "<testsuites tests=\"{}\" failures=\"{}\">",
        all().count(),
        failures(all())
    );
    for Suite { name, cases } in suites {
        let suite = escaped(name);
        let took: Duration = cases.iter().map(|case| case.took).sum();
        let _written = writeln!(
            text,
            "  <testsuite name=\"{suite}\" tests=\"{}\" failures=\"{}\" errors=\"0\" time=\"{:.3}\">",
            cases.len(),
            failures(cases.iter()),
            took.as_secs_f64()
        );
        for case in cases {
            let _written = write!(
                text,
                "    <testcase classname=\"{suite}\" name=\"{}\" time=\"{:.3}\"",
                escaped(&case.name),
                case.took.as_secs_f64()
            );
            let _written = match &case.failure {
                None => writeln!(text, "/>"),
                Some(failure) => writeln!(
                    text,
                    ">\n      <failure message=\"{}\">{}</failure>\n    </testcase>",
                    escaped(failure.lines().next().unwrap_or_default()),
                    escaped(failure)
                ),
            };
        }
        text.push_str("  </testsuite>\n");
    }
    text.push_str("</testsuites>\n");
    text
}

fn failures<'c>(cases: impl Iterator<Item = &'c Reported>) -> usize {
    cases.filter(|case| case.failure.is_some()).count()
}

/// Characters that XML has no way to write become `\u{fffd}`.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\t' => escaped.push(c),
            c if c < ' ' || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_as_xml() {
        let case = |name: &str, failure: Option<&str>| Reported {
            name: name.to_owned(),
            took: Duration::from_millis(2),
            failure: failure.map(str::to_owned),
        };
        let suites = [Suite {
            name: "a.properties".to_owned(),
            cases: vec![
                case("good", None),
                case("bad", Some("<a> & \"b\"\u{1}\n- c")),
            ],
        }];
        let expected = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
            <testsuites tests=\"2\" failures=\"1\">\n\
            \x20 <testsuite name=\"a.properties\" tests=\"2\" failures=\"1\" errors=\"0\" time=\"0.004\">\n\
            \x20   <testcase classname=\"a.properties\" name=\"good\" time=\"0.002\"/>\n\
            \x20   <testcase classname=\"a.properties\" name=\"bad\" time=\"0.002\">\n\
            \x20     <failure message=\"&lt;a&gt; &amp; &quot;b&quot;\u{fffd}\">&lt;a&gt; &amp; &quot;b&quot;\u{fffd}\n- c</failure>\n\
            \x20   </testcase>\n  </testsuite>\n</testsuites>\n";
        assert_eq!(xml(&suites), expected);
    }
}
