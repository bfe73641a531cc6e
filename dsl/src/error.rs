//! The two kinds of error: an expression that can't be used, and an event that an expression can't be applied to.

use std::fmt;

/// A line and a column in an expression, both counted from 1, the column in characters.
pub type Position = (usize, usize);

/// An expression that is not valid. `Display` shows the expression with a caret under the place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpressionError {
    /// `"filter"`, `"projection"` or `"expression"`; or the option of a hygiene rule.
    pub which: &'static str,
    pub expression: String,
    pub position: Position,
    pub message: String,
    pub hint: Option<String>,
}

impl std::error::Error for ExpressionError {}

impl fmt::Display for ExpressionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.which)?;
        self.explain(f)
    }
}

impl ExpressionError {
    /// The error without the name of the expression, for a caller that has named it already.
    pub fn unnamed(&self) -> impl fmt::Display + '_ {
        Unnamed(self)
    }

    fn explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = self.position;
        write!(f, "{} (line {line}, column {column})", self.message)?;
        let (shown, caret) = excerpt(&self.expression, line, column);
        write!(f, "\n    {shown}\n    {:caret$}^", "")?;
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

/// See [`ExpressionError::unnamed`].
struct Unnamed<'e>(&'e ExpressionError);

impl fmt::Display for Unnamed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.explain(f)
    }
}

/// The part of the line around the column that fits a terminal, and how far in the caret stands.
/// Tabs and other control characters are shown as spaces, so that the caret stays in place.
fn excerpt(expression: &str, line: usize, column: usize) -> (String, usize) {
    const WIDTH: usize = 100;
    let line = expression.split('\n').nth(line - 1).unwrap_or_default();
    let start = (column - 1).saturating_sub(WIDTH / 2);
    let mut shown = String::new();
    if start > 0 {
        shown.push('…');
    }
    let caret = column - 1 - start + usize::from(start > 0);
    let mut rest = line.chars().skip(start);
    shown.extend(
        rest.by_ref()
            .take(WIDTH)
            .map(|c| if c.is_control() { ' ' } else { c }),
    );
    if rest.next().is_some() {
        shown.push('…');
    }
    (shown, caret)
}

/// The line and column of a byte offset in an expression.
pub(crate) fn position(expression: &str, offset: usize) -> Position {
    let before = expression.get(..offset).unwrap_or(expression);
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    (line, column)
}

/// Where an event failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The payload is not JSON.
    Decode,
    Filter,
    /// The projection, or the expression of [`Expression::search`](crate::Expression::search).
    Projection,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Decode => "decode",
            Stage::Filter => "filter",
            Stage::Projection => "projection",
        })
    }
}

/// An event that can't be decoded or evaluated. It holds no part of the payload but, for bad JSON, the byte found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventError {
    pub stage: Stage,
    /// For the owner of the route: what is wrong and where.
    pub reason: String,
}

impl std::error::Error for EventError {}

impl fmt::Display for EventError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.stage, self.reason)
    }
}
