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

impl Node {
    /// How much deeper than what it is applied to the result may be nested, at most.
    pub(crate) fn growth(&self) -> usize {
        let most = |nodes: &[Node]| nodes.iter().map(Node::growth).max().unwrap_or(0);
        match self {
            Node::Current | Node::Field(_) | Node::Index(_) | Node::Slice { .. } => 0,
            Node::Not(_) | Node::Compare { .. } => 0,
            Node::Literal(value) => value.depth(),
            Node::Chain(steps) => steps.iter().map(Node::growth).sum(),
            Node::Each { list, each } => list.growth() + each.growth(),
            Node::Members(inner) | Node::Flatten(inner) | Node::Reference(inner) => inner.growth(),
            Node::Where { then, .. } => then.growth(),
            Node::List(items) => 1 + most(items),
            Node::Object(members) => {
                1 + members
                    .iter()
                    .map(|(_, node)| node.growth())
                    .max()
                    .unwrap_or(0)
            }
            Node::Or(choices) | Node::And(choices) => most(choices),
            Node::Call {
                function,
                arguments,
                ..
            } => {
                // A reference is applied to what another argument yields.
                let (applied, given): (Vec<_>, Vec<_>) = arguments
                    .iter()
                    .partition(|node| matches!(node, Node::Reference(_)));
                let given = given.into_iter().map(Node::growth).max().unwrap_or(0);
                let applied: usize = applied.into_iter().map(Node::growth).sum();
                given + applied + function.growth(arguments)
            }
        }
    }
}
