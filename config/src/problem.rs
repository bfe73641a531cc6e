//! What is wrong with a configuration, where it was set, and what is allowed.

use std::fmt;

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Built in.
    Default,
    /// Built in, chosen by this word of `delivery.tradeoff`.
    Tradeoff(String),
    /// The managed defaults (`--defaults FILE`). Lines count from 1; a continued value has the line of its key.
    Defaults { file: String, line: usize },
    /// The route's file (`--config FILE`).
    File { file: String, line: usize },
    /// The environment variable of this name.
    Env(String),
    /// `--set key=value`.
    Set,
}

impl Origin {
    /// Set by a user, not built in.
    pub(crate) fn is_user(&self) -> bool {
        !matches!(self, Origin::Default | Origin::Tradeoff(_))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::Tradeoff(word) => write!(f, "delivery.tradeoff={word}"),
            Origin::Defaults { file, line } | Origin::File { file, line } => {
                write!(f, "{file}:{line}")
            }
            Origin::Env(name) => f.write_str(name),
            Origin::Set => f.write_str("--set"),
        }
    }
}

/// One thing that is wrong. Displayed as `origin: key: problem; hint`, without what is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The option, or the environment variable where none is known; empty where the text could not be read that far.
    pub key: String,
    /// Where it was set; absent for what nobody set.
    pub origin: Option<Origin>,
    /// What is wrong. Never holds a secret value.
    pub problem: String,
    /// What is allowed or what to do; may be empty.
    pub hint: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = self.origin.as_ref().map(Origin::to_string);
        if let Some(origin) = &origin {
            write!(f, "{origin}: ")?;
        }
        if !self.key.is_empty() && origin.as_deref() != Some(&self.key) {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.problem)?;
        // An expression with a caret below it has lines of its own.
        match (self.hint.as_str(), self.problem.contains('\n')) {
            ("", _) => Ok(()),
            (hint, true) => write!(f, "\n{hint}"),
            (hint, false) => write!(f, "; {hint}"),
        }
    }
}

impl std::error::Error for Problem {}

/// All that is wrong, in the order of the sources. Displayed with one problem a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// In the order in which a person meets them: files from top to bottom, environment, `--set`, then what nobody set.
    pub fn in_order(mut self) -> Problems {
        self.0
            .sort_by_key(|problem| (problem.origin.is_none(), problem.origin.clone()));
        self
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

#[cfg(test)]
mod tests {
    use super::{Origin, Problem, Problems};

    #[test]
    fn a_problem_is_shown_without_what_is_not_known() {
        let problem = |key: &str, origin, problem: &str, hint: &str| Problem {
            key: key.into(),
            origin,
            problem: problem.into(),
            hint: hint.into(),
        };
        let file = Origin::File {
            file: "r.properties".into(),
            line: 3,
        };
        let problems = Problems(vec![
            problem("a.b", Some(file.clone()), "is wrong", "do this"),
            problem("", Some(file), "is wrong", ""),
            problem(
                "KEYSTONE_A",
                Some(Origin::Env("KEYSTONE_A".into())),
                "unknown",
                "",
            ),
            problem("a.b", None, "missing", "set it"),
            problem(
                "filter",
                Some(Origin::Set),
                "syntax:\n  a ==\n     ^",
                "allowed: JMESPath",
            ),
        ]);
        let expected = "\
r.properties:3: a.b: is wrong; do this
r.properties:3: is wrong
KEYSTONE_A: unknown
a.b: missing; set it
--set: filter: syntax:
  a ==
     ^
allowed: JMESPath";
        assert_eq!(problems.to_string(), expected);
    }
}
