//! What an expression becomes. Chains are flat, so that the tree is no deeper than the expression is nested.

use crate::error::Position;
use crate::function::{Function, Prepared};
use crate::value::{Text, Value};

#[derive(Debug)]
pub(crate) enum Node {
    /// `@`
    Current,
    Literal(Value<'static>),
    Field(String),
    /// `[n]`, from the end where negative.
    Index(i32),
    /// `[start:stop:step]`; the step isn't 0.
    Slice {
        start: Option<i32>,
        stop: Option<i32>,
        step: i32,
    },
    /// `a.b` and `a | b`: each step on the result of the one before.
    Chain(Vec<Node>),
    /// `[*]` and what follows it: `each` on every item of `list`, nulls left out.
    Each {
        list: Box<Node>,
        each: Box<Node>,
    },
    /// `*`: the values of an object.
    Members(Box<Node>),
    /// `[]`: lists inside a list opened by one level.
    Flatten(Box<Node>),
    /// `[?test]` for one item of its list: `then` where the test is true, else null.
    Where {
        test: Box<Node>,
        then: Box<Node>,
    },
    /// `[a, b]`
    List(Vec<Node>),
    /// `{a: b}`
    Object(Vec<(Text<'static>, Node)>),
    Or(Vec<Node>),
    And(Vec<Node>),
    Not(Box<Node>),
    Compare {
        operator: Operator,
        left: Box<Node>,
        right: Box<Node>,
    },
    Call {
        function: &'static Function,
        arguments: Vec<Node>,
        prepared: Prepared,
        position: Position,
    },
    /// `&a`, a function's argument.
    Reference(Box<Node>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}
