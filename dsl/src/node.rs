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

/// How much deeper than what an expression is applied to values may be nested, at most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Growth {
    /// The result.
    pub(crate) result: usize,
    /// Any value on the way to it, the result among them.
    pub(crate) most: usize,
}

impl Growth {
    /// Of a result that is no part of what is left behind.
    fn flat(of: Growth) -> Growth {
        Growth { result: 0, ..of }
    }

    /// The same, so much deeper.
    fn inside(self, levels: usize) -> Growth {
        let result = self.result + levels;
        Growth {
            result,
            most: self.most.max(result),
        }
    }

    /// `next` applied to this result.
    fn then(self, next: Growth) -> Growth {
        Growth {
            result: self.result + next.result,
            most: self.most.max(self.result + next.most),
        }
    }

    /// Either of the two, or both beside each other.
    fn or(self, other: Growth) -> Growth {
        Growth {
            result: self.result.max(other.result),
            most: self.most.max(other.most),
        }
    }
}

impl Node {
    /// Whether it yields true or false, or null.
    pub(crate) fn is_truth(&self) -> bool {
        matches!(self, Node::Not(_) | Node::Compare { .. })
    }

    pub(crate) fn growth(&self) -> Growth {
        let any = |nodes: &[Node]| {
            nodes
                .iter()
                .map(Node::growth)
                .fold(Growth::default(), Growth::or)
        };
        match self {
            Node::Current | Node::Field(_) | Node::Index(_) | Node::Slice { .. } => {
                Growth::default()
            }
            Node::Not(inner) => Growth::flat(inner.growth()),
            Node::Compare { left, right, .. } => Growth::flat(left.growth().or(right.growth())),
            Node::Literal(value) => Growth::default().inside(value.depth()),
            Node::Chain(steps) => steps
                .iter()
                .map(Node::growth)
                .fold(Growth::default(), Growth::then),
            Node::Each { list, each } => list.growth().then(each.growth()),
            Node::Members(inner) | Node::Flatten(inner) | Node::Reference(inner) => inner.growth(),
            Node::Where { test, then } => Growth::flat(test.growth()).or(then.growth()),
            Node::List(items) => any(items).inside(1),
            Node::Object(members) => members
                .iter()
                .map(|(_, node)| node.growth())
                .fold(Growth::default(), Growth::or)
                .inside(1),
            Node::Or(choices) | Node::And(choices) => any(choices),
            Node::Call {
                function,
                arguments,
                ..
            } => {
                let (mut given, mut applied) = (Growth::default(), Growth::default());
                for argument in arguments {
                    match argument {
                        // It is applied to what another argument yields.
                        Node::Reference(_) => applied = applied.then(argument.growth()),
                        _ => given = given.or(argument.growth()),
                    }
                }
                let result = given.then(applied);
                match function.reads_anew() {
                    true => Growth::flat(result),
                    false => result,
                }
                .inside(function.growth(arguments))
            }
        }
    }
}
