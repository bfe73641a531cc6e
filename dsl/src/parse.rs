//! Parses an expression: a Pratt parser with the binding powers of the JMESPath grammar.
//!
//! An own parser, because the one of the `jmespath` crate overflows the stack on deep expressions, keeps neither the
//! digits of a literal's numbers nor the order of its keys, and yields a tree that can't be shared between threads.
//! Tests compare the two.

use std::mem;

use crate::error::{ExpressionError, position};
use crate::function;
use crate::function::argument::with_article;
use crate::node::{Node, Operator};
use crate::settings::Settings;
use crate::token::{Fault, Token, tokens};
use crate::value::{Text, Value};

/// The deepest nesting of an expression. Evaluation recurses this deep.
const MAX_NESTING: usize = 100;

/// How much deeper than the event a result may be nested. Values are dropped and written recursively.
const MAX_GROWTH: usize = 400;

/// The binding power below which a token ends what is applied to each item of a list.
const PROJECTION_STOP: u8 = 10;
const EACH_BINDING: u8 = 20;
const NOT_BINDING: u8 = 45;

/// An expression as JMESPath has it.
pub(crate) fn parse(
    which: &'static str,
    expression: &str,
    settings: &Settings,
) -> Result<Node, ExpressionError> {
    parse_as(which, expression, settings, false)
}

/// A route's filter or projection: what JMESPath allows and can only be a mistake is refused besides.
pub(crate) fn parse_for_route(
    which: &'static str,
    expression: &str,
    settings: &Settings,
) -> Result<Node, ExpressionError> {
    parse_as(which, expression, settings, true)
}

fn parse_as(
    which: &'static str,
    expression: &str,
    settings: &Settings,
    strict: bool,
) -> Result<Node, ExpressionError> {
    let tree = tokens(expression).and_then(|tokens| {
        let mut parser = Parser {
            expression,
            settings,
            strict,
            tokens,
            next: 0,
            depth: 0,
            height: 0,
        };
        let node = parser.value(0)?;
        match parser.peek() {
            Token::End => parser.check_growth(&node).map(|()| node),
            _ => Err(parser.unexpected("after the end of the expression")),
        }
    });
    tree.map_err(|Fault { at, message, hint }| ExpressionError {
        which,
        expression: expression.to_owned(),
        position: position(expression, at),
        message,
        hint,
    })
}

struct Parser<'e> {
    expression: &'e str,
    settings: &'e Settings,
    /// Whether what no event makes true is refused, see [`check_operand`].
    strict: bool,
    tokens: Vec<(usize, Token)>,
    next: usize,
    /// Calls of [`Parser::expression`] inside each other.
    depth: usize,
    /// The height of the tallest tree made since the innermost call began.
    height: usize,
}

impl Parser<'_> {
    fn peek(&self) -> &Token {
        &self.tokens[self.next].1
    }

    fn at(&self) -> usize {
        self.tokens[self.next].0
    }

    /// The next token; [`Token::End`] again and again.
    fn advance(&mut self) -> Token {
        let last = self.tokens.len() - 1;
        let token = mem::replace(&mut self.tokens[self.next].1, Token::End);
        self.next = (self.next + 1).min(last);
        token
    }

    fn unexpected(&self, place: &str) -> Fault {
        Fault::new(
            self.at(),
            format!("unexpected {} {place}", self.peek().shown()),
        )
    }

    fn expect(&mut self, is_expected: fn(&Token) -> bool, place: &str) -> Result<(), Fault> {
        if !is_expected(self.peek()) {
            return Err(self.unexpected(place));
        }
        self.advance();
        Ok(())
    }

    /// The next token where it is a value's name in most languages, and a field's in this one. (`null` is a field, too, and null where no
    /// event has it: what was meant.)
    fn word(&self) -> Option<&'static str> {
        match self.peek() {
            Token::Name(name) => ["true", "false"].into_iter().find(|word| name == word),
            _ => None,
        }
    }

    fn check_nesting(&self, levels: usize) -> Result<(), Fault> {
        if levels < MAX_NESTING {
            return Ok(());
        }
        Err(Fault::new(
            self.at(),
            format!("the expression is nested deeper than {MAX_NESTING}"),
        ))
    }

    /// A chain is not nested, but what it makes may be: `[@] | [@] | …`.
    fn check_growth(&self, node: &Node) -> Result<(), Fault> {
        if node.growth().most <= MAX_GROWTH {
            return Ok(());
        }
        let message = format!("a value may be nested {MAX_GROWTH} deeper than the event");
        Err(Fault::new(0, message)
            .hint("a list or object in each step of a long chain nests deeper and deeper"))
    }

    /// The same where a value is meant and no member of one: a bare `true` is a mistake there.
    fn value(&mut self, binding: u8) -> Result<Node, Fault> {
        let (start, word) = (self.at(), self.word());
        let value = self.expression(binding)?;
        if self.strict {
            check_word(&value, start, word)?;
        }
        Ok(value)
    }

    /// An expression up to the first token that binds no tighter than `binding`.
    fn expression(&mut self, binding: u8) -> Result<Node, Fault> {
        self.check_nesting(self.depth)?;
        self.depth += 1;
        let outer = mem::take(&mut self.height);
        let start = self.at();
        let word = self.word();
        let mut left = self.first()?;
        while binding < self.peek().binding() {
            if self.strict {
                match *self.peek() {
                    Token::Compare(operator) => check_operand(operator, &left, start, word)?,
                    Token::And | Token::Or => check_word(&left, start, word)?,
                    _ => {}
                }
            }
            let flat = matches!(
                (&left, self.peek()),
                (
                    Node::Chain(_),
                    Token::Dot | Token::Pipe | Token::LeftBracket
                ) | (Node::Or(_), Token::Or)
                    | (Node::And(_), Token::And)
            );
            left = self.following(left)?;
            self.height += usize::from(!flat);
            self.check_nesting(self.height)?;
        }
        self.height = outer.max(self.height + 1);
        self.depth -= 1;
        Ok(left)
    }

    /// What can begin an expression.
    fn first(&mut self) -> Result<Node, Fault> {
        let at = self.at();
        Ok(match self.peek() {
            Token::Star => {
                self.advance();
                self.each(Node::Members(Box::new(Node::Current)), EACH_BINDING)?
            }
            Token::Flatten => {
                self.advance();
                self.each(
                    Node::Flatten(Box::new(Node::Current)),
                    Token::Flatten.binding(),
                )?
            }
            Token::Filter => {
                self.advance();
                self.filter(Node::Current)?
            }
            Token::LeftBracket => {
                self.advance();
                match (self.peek(), &self.tokens.get(self.next + 1)) {
                    (Token::Number(_) | Token::Colon, _) => self.index()?,
                    (Token::Star, Some((_, Token::RightBracket))) => self.every(Node::Current)?,
                    _ => {
                        Node::List(self.list(|token| matches!(token, Token::RightBracket), "']'")?)
                    }
                }
            }
            Token::LeftBrace => {
                self.advance();
                self.object()?
            }
            Token::LeftParenthesis => {
                self.advance();
                let inside = self.value(0)?;
                self.expect(
                    |token| matches!(token, Token::RightParenthesis),
                    "where ')' was expected",
                )?;
                inside
            }
            Token::Not => {
                self.advance();
                Node::Not(Box::new(self.value(NOT_BINDING)?))
            }
            Token::At | Token::Literal(_) | Token::Name(_) | Token::QuotedName(_) => {
                self.operand()?
            }
            Token::Ampersand => {
                return Err(
                    Fault::new(at, "'&' is allowed only before a function's argument")
                        .hint("the logical and is written &&"),
                );
            }
            Token::Number(number) => {
                let hint = format!("a number is written `{number}`, in backticks");
                return Err(self.unexpected("where a value was expected").hint(hint));
            }
            _ => return Err(self.unexpected("where a value was expected")),
        })
    }

    /// A name, a literal, `@` or a call of a function.
    fn operand(&mut self) -> Result<Node, Fault> {
        let at = self.at();
        let token = self.advance();
        let called = matches!(self.peek(), Token::LeftParenthesis);
        Ok(match token {
            Token::Literal(value) => Node::Literal(value),
            Token::Name(name) if called => self.call(at, &name)?,
            Token::QuotedName(_) if called => {
                return Err(Fault::new(at, "a function's name is not quoted"));
            }
            Token::Name(name) | Token::QuotedName(name) => Node::Field(name),
            _ => Node::Current,
        })
    }

    /// What can follow a value.
    fn following(&mut self, left: Node) -> Result<Node, Fault> {
        let at = self.at();
        let token = self.advance();
        let binding = token.binding();
        if self.strict && left.is_truth() && self.looks_inside(&token) {
            return Err(Fault::new(
                at,
                "what stands before is true or false and has neither members nor items: it is always null",
            )
            .hint("! binds tighter than what follows: !a.b is (!a).b; write !(a.b)"));
        }
        Ok(match token {
            Token::Dot if matches!(self.peek(), Token::Star) => {
                self.advance();
                self.each(Node::Members(Box::new(left)), EACH_BINDING)?
            }
            Token::Dot => then(left, self.after_dot(binding)?),
            Token::Pipe => then(left, self.expression(binding)?),
            Token::Or => match left {
                Node::Or(mut choices) => {
                    choices.push(self.value(binding)?);
                    Node::Or(choices)
                }
                left => Node::Or(vec![left, self.value(binding)?]),
            },
            Token::And => match left {
                Node::And(mut conditions) => {
                    conditions.push(self.value(binding)?);
                    Node::And(conditions)
                }
                left => Node::And(vec![left, self.value(binding)?]),
            },
            Token::Compare(operator) => {
                let (start, word) = (self.at(), self.word());
                let right = self.expression(binding)?;
                if self.strict {
                    check_operand(operator, &right, start, word)?;
                    check_truths(operator, &left, &right, at)?;
                }
                Node::Compare {
                    operator,
                    left: Box::new(left),
                    right: Box::new(right),
                }
            }
            Token::Flatten => self.each(Node::Flatten(Box::new(left)), binding)?,
            Token::Filter => self.filter(left)?,
            // Only a bracket binds and is none of the above.
            _ => match self.peek() {
                Token::Number(_) | Token::Colon => then(left, self.index()?),
                Token::Star => self.every(left)?,
                _ => return Err(self.unexpected("where a number, ':' or '*' was expected")),
            },
        })
    }

    fn after_dot(&mut self, binding: u8) -> Result<Node, Fault> {
        match self.peek() {
            Token::LeftBracket => {
                self.advance();
                Ok(Node::List(self.list(
                    |token| matches!(token, Token::RightBracket),
                    "']'",
                )?))
            }
            Token::Name(_) | Token::QuotedName(_) | Token::Star | Token::LeftBrace => {
                self.expression(binding)
            }
            _ => Err(self
                .unexpected("after '.'")
                .hint("a name, a function, '*', '[' or '{' can follow")),
        }
    }

    /// Whether a token, just taken, asks for a member or items of what stands before it.
    fn looks_inside(&self, token: &Token) -> bool {
        match token {
            Token::LeftBracket | Token::Flatten | Token::Filter => true,
            Token::Dot => match self.peek() {
                Token::Star | Token::QuotedName(_) => true,
                Token::Name(_) => {
                    let next = self.tokens.get(self.next + 1);
                    next.is_none_or(|(_, token)| !matches!(token, Token::LeftParenthesis))
                }
                _ => false,
            },
            _ => false,
        }
    }

    /// A list, with what is to be done to each of its items.
    fn each(&mut self, list: Node, binding: u8) -> Result<Node, Fault> {
        let each = Box::new(self.rest_of_each(binding)?);
        Ok(Node::Each {
            list: Box::new(list),
            each,
        })
    }

    fn rest_of_each(&mut self, binding: u8) -> Result<Node, Fault> {
        match self.peek() {
            Token::Dot => {
                self.advance();
                self.after_dot(binding)
            }
            Token::LeftBracket | Token::Filter => self.expression(binding),
            token if token.binding() < PROJECTION_STOP => Ok(Node::Current),
            _ => Err(self.unexpected("where '.' or '[' was expected")),
        }
    }

    /// After `[` and before `*]`.
    fn every(&mut self, left: Node) -> Result<Node, Fault> {
        self.advance();
        self.expect(
            |token| matches!(token, Token::RightBracket),
            "where ']' was expected",
        )?;
        self.each(left, EACH_BINDING)
    }

    fn filter(&mut self, list: Node) -> Result<Node, Fault> {
        let test = Box::new(self.value(0)?);
        self.expect(
            |token| matches!(token, Token::RightBracket),
            "where ']' was expected",
        )?;
        let then = Box::new(self.rest_of_each(Token::Filter.binding())?);
        Ok(Node::Each {
            list: Box::new(list),
            each: Box::new(Node::Where { test, then }),
        })
    }

    /// After `[`: an index, or a slice with what is to be done to each of its items.
    fn index(&mut self) -> Result<Node, Fault> {
        let start = self.at();
        let mut parts = [None; 3];
        let mut colons = 0;
        loop {
            if let Token::Number(number) = self.peek() {
                parts[colons] = Some(*number);
                self.advance();
            }
            match self.peek() {
                Token::Colon if colons < 2 => colons += 1,
                Token::RightBracket => break,
                _ => return Err(self.unexpected("where a number, ':' or ']' was expected")),
            }
            self.advance();
        }
        self.advance();
        match (colons, parts) {
            (0, [Some(index), ..]) => Ok(Node::Index(index)),
            (_, [.., Some(0)]) => Err(Fault::new(start, "a slice's step can't be 0")),
            (_, [start, stop, step]) => self.each(
                Node::Slice {
                    start,
                    stop,
                    step: step.unwrap_or(1),
                },
                EACH_BINDING,
            ),
        }
    }

    /// After `{`.
    fn object(&mut self) -> Result<Node, Fault> {
        let mut members = Vec::new();
        loop {
            let key = match self.peek() {
                Token::Name(_) | Token::QuotedName(_) => match self.advance() {
                    Token::Name(key) | Token::QuotedName(key) => key,
                    _ => String::new(),
                },
                _ => return Err(self.unexpected("where a key was expected")),
            };
            self.expect(
                |token| matches!(token, Token::Colon),
                "where ':' was expected",
            )?;
            members.push((Text::Plain(key.into()), self.value(0)?));
            match self.peek() {
                Token::Comma => self.advance(),
                Token::RightBrace => {
                    self.advance();
                    return Ok(Node::Object(members));
                }
                _ => return Err(self.unexpected("where ',' or '}' was expected")),
            };
        }
    }

    /// Expressions up to the closing token, at least one.
    fn list(&mut self, closes: fn(&Token) -> bool, closing: &str) -> Result<Vec<Node>, Fault> {
        let mut items = Vec::new();
        loop {
            items.push(self.value(0)?);
            match self.peek() {
                Token::Comma => self.advance(),
                token if closes(token) => {
                    self.advance();
                    return Ok(items);
                }
                _ => return Err(self.unexpected(&format!("where ',' or {closing} was expected"))),
            };
        }
    }

    /// After the function's name.
    fn call(&mut self, at: usize, name: &str) -> Result<Node, Fault> {
        let Some(function) = function::find(name) else {
            let fault = Fault::new(at, format!("there is no function '{name}'"));
            return Err(match function::nearest(name) {
                Some(nearest) => fault.hint(format!("did you mean '{nearest}'?")),
                None => fault.hint(format!(
                    "the functions are {}",
                    function::names().join(", ")
                )),
            });
        };
        self.advance();
        let (mut arguments, mut places) = (Vec::new(), Vec::new());
        if matches!(self.peek(), Token::RightParenthesis) {
            self.advance();
        } else {
            loop {
                places.push(self.at());
                arguments.push(self.argument()?);
                match self.peek() {
                    Token::Comma => self.advance(),
                    Token::RightParenthesis => {
                        self.advance();
                        break;
                    }
                    _ => return Err(self.unexpected("where ',' or ')' was expected")),
                };
            }
        }
        function
            .check_count(arguments.len())
            .map_err(|message| Fault::new(at, message))?;
        let prepared = function
            .prepare(&arguments, self.settings)
            .map_err(|(index, message)| Fault::new(places[index], message))?;
        Ok(Node::Call {
            function,
            arguments,
            prepared,
            position: position(self.expression, at),
        })
    }

    fn argument(&mut self) -> Result<Node, Fault> {
        if !matches!(self.peek(), Token::Ampersand) {
            return self.value(0);
        }
        self.advance();
        let reference = Node::Reference(Box::new(self.value(0)?));
        self.height += 1;
        Ok(reference)
    }
}

/// Refuses what makes a comparison null, or a comparison with a field that hardly any event has, whatever the event: such a
/// filter would keep nothing and say nothing. `word` is what the operand began with.
fn check_operand(
    operator: Operator,
    operand: &Node,
    start: usize,
    word: Option<&'static str>,
) -> Result<(), Fault> {
    check_word(operand, start, word)?;
    let literal = match operand {
        Node::Literal(Value::Number(_)) => return Ok(()),
        Node::Literal(literal) if !matches!(operator, Operator::Equal | Operator::NotEqual) => {
            literal
        }
        _ => return Ok(()),
    };
    let fault = Fault::new(
        start,
        format!(
            "{} takes numbers, and with {} it is always null, which is false",
            Token::Compare(operator).shown(),
            with_article(literal.type_name())
        ),
    );
    Err(match literal {
        Value::String(_) => fault.hint(
            "between(field, 'low', 'high') compares texts; convert_time(field, 'rfc3339', 'millis') makes a number of a time, to_number(field) of digits; a number itself is written in backticks: `250`",
        ),
        _ => fault.hint("a number is written in backticks: `250`"),
    })
}

/// Refuses a comparison of a comparison or negation that has one result whatever the event: `1 < a < 9`, `!a == 'x'`. `at` is its operator.
fn check_truths(operator: Operator, left: &Node, right: &Node, at: usize) -> Result<(), Fault> {
    if !left.is_truth() && !right.is_truth() {
        return Ok(());
    }
    let shown = Token::Compare(operator).shown();
    let is_equality = matches!(operator, Operator::Equal | Operator::NotEqual);
    if !is_equality {
        let message = format!(
            "{shown} takes numbers, and a comparison or negation is none: it is always null, which is false"
        );
        let hint = "a range is written a > `1` && a < `9`; ! binds tighter than a comparison: write !(a < `9`)";
        return Err(Fault::new(at, message).hint(hint));
    }
    let other = |node: &Node| match node {
        Node::Literal(Value::Bool(_) | Value::Null) => None,
        Node::Literal(literal) => Some(with_article(literal.type_name())),
        _ => None,
    };
    let Some(other) = other(left).or_else(|| other(right)) else {
        return Ok(());
    };
    let always = operator == Operator::NotEqual;
    let message = format!(
        "a comparison or negation is true or false: with {other}, {shown} is always {always}"
    );
    Err(Fault::new(at, message)
        .hint("! binds tighter than a comparison: write a != 'x', or !(a == 'x')"))
}

/// Refuses a bare `true` or `false` where a value was meant. `word` is what the operand began with.
fn check_word(operand: &Node, start: usize, word: Option<&'static str>) -> Result<(), Fault> {
    match (operand, word) {
        // Else the word was the beginning of more, a path or a call.
        (Node::Field(_), Some(word)) => {
            let message = format!("'{word}' is the name of a field here");
            Err(Fault::new(start, message).hint(format!(
                "write `{word}` in backticks; a field of this name is written \"{word}\", in double quotes"
            )))
        }
        _ => Ok(()),
    }
}

/// `right` on the result of `left`.
fn then(left: Node, right: Node) -> Node {
    match left {
        Node::Chain(mut steps) => {
            steps.push(right);
            Node::Chain(steps)
        }
        left => Node::Chain(vec![left, right]),
    }
}

#[cfg(test)]
mod tests;
