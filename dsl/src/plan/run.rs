//! Runs compiled expressions over what was found in one payload.

use std::borrow::Cow;

use crate::context::Context;
use crate::evaluate::{compare, evaluate, located};
use crate::function::{Function, Prepared};
use crate::node::Operator;
use crate::paths::{PathId, Paths, Span};
use crate::scan::{Early, Keyring, Raw, lone_number};
use crate::value::{TOO_LARGE, Text, Value};

use super::text;
use super::view::{Digits, View};
use super::{How, Op};

/// Why there is no result.
#[derive(Debug)]
pub(super) enum Stop {
    /// It depends on what is not read yet.
    Unread,
    Failed(String),
}

impl From<String> for Stop {
    fn from(reason: String) -> Self {
        Stop::Failed(reason)
    }
}

impl Stop {
    pub(super) fn reason(self) -> String {
        match self {
            Stop::Unread => "the event was not read to its end".to_owned(),
            Stop::Failed(reason) => reason,
        }
    }
}

pub(super) struct Run<'a, 's> {
    text: &'a str,
    spans: &'s [Span],
    /// While the payload is being read: where to see whether a path's value may still come.
    unread: Option<&'s Paths>,
    context: &'s Context<'a>,
    keyring: &'s mut Keyring,
    /// The length that the output may grow to.
    end: usize,
}

type Outcome<T> = Result<T, Stop>;

impl<'a, 's> Run<'a, 's> {
    /// After the payload was read.
    pub(super) fn new(
        text: &'a str,
        spans: &'s [Span],
        context: &'s Context<'a>,
        keyring: &'s mut Keyring,
    ) -> Self {
        Run {
            text,
            spans,
            unread: None,
            context,
            keyring,
            end: usize::MAX,
        }
    }

    /// While the payload is being read.
    pub(super) fn early(
        text: &'a str,
        spans: &'s [Span],
        paths: &'s Paths,
        context: &'s Context<'a>,
        keyring: &'s mut Keyring,
    ) -> Self {
        Run {
            unread: Some(paths),
            ..Run::new(text, spans, context, keyring)
        }
    }

    /// What the filter says as far as it can be known. An error is reported only when it is one at the end.
    pub(super) fn decide(&mut self, filter: &'a Op) -> Early {
        match self.truth(filter) {
            Ok(true) => Early::Accepted,
            Ok(false) => Early::Rejected,
            Err(_) => Early::Undecided,
        }
    }

    /// Whether the result is true, without making it where it can be seen from the payload's text.
    pub(super) fn truth(&mut self, op: &'a Op) -> Outcome<bool> {
        match op {
            Op::Path(path) => Ok(text::is_true(self.found(*path)?)),
            Op::Not(op) => Ok(!self.truth(op)?),
            Op::Or(choices) => {
                for choice in choices {
                    if self.truth(choice)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Op::And(conditions) => {
                for condition in conditions {
                    if !self.truth(condition)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Op::Compare {
                operator,
                left,
                right,
            } => Ok(self.compare(*operator, left, right)? == Some(true)),
            other => Ok(self.view(other)?.is_true()),
        }
    }

    /// Nothing where numbers are needed and something else is found.
    fn compare(
        &mut self,
        operator: Operator,
        left: &'a Op,
        right: &'a Op,
    ) -> Outcome<Option<bool>> {
        if let (Some(left), Some(right)) = (self.text_of(left)?, self.text_of(right)?)
            && let Some(result) = text::compare(operator, left, right)
        {
            return Ok(result);
        }
        let (left, right) = (self.view(left)?, self.view(right)?);
        Ok(match compared(operator, left, right, self.context)? {
            Value::Bool(result) => Some(result),
            _ => None,
        })
    }

    /// The JSON text of what need not be computed.
    #[inline]
    fn text_of(&self, op: &'a Op) -> Outcome<Option<&'a str>> {
        match op {
            Op::Path(path) => self.found(*path).map(Some),
            Op::Literal(_, text) => Ok(Some(text)),
            _ => Ok(None),
        }
    }

    fn view(&mut self, op: &'a Op) -> Outcome<View<'a>> {
        Ok(match op {
            Op::Path(path) => View::of(self.found(*path)?),
            Op::Literal(value, _) => View::Value(value.borrowed()),
            Op::Or(choices) => self.first(choices, true)?,
            Op::And(conditions) => self.first(conditions, false)?,
            Op::Not(op) => View::Value(Value::Bool(!self.truth(op)?)),
            Op::Compare {
                operator,
                left,
                right,
            } => {
                let result = self.compare(*operator, left, right)?;
                View::Value(result.map_or(Value::Null, Value::Bool))
            }
            Op::List { of, .. } | Op::Object { of, .. } if self.is_null(*of)? => View::NULL,
            Op::List { items, .. } => {
                let mut values = Vec::with_capacity(items.len());
                for item in items {
                    values.push(self.view(item)?.into_value()?);
                }
                View::Value(Value::array(values))
            }
            Op::Object { members, .. } => {
                let mut values = Vec::with_capacity(members.len());
                for member in members {
                    let key = Text::Plain(Cow::Borrowed(member.key.as_str()));
                    values.push((key, self.view(&member.value)?.into_value()?));
                }
                View::Value(Value::object(values))
            }
            Op::Call {
                function,
                how,
                arguments,
                prepared,
                position,
            } => {
                let result = self.call(function, *how, prepared, arguments)?;
                result.map_err(|reason| located(function.name, *position, &reason))?
            }
            Op::Reference(node) => View::Value(Value::Reference(node)),
            Op::Interpret { on, steps } => {
                let mut value = self.view(on)?.into_value()?;
                for step in steps {
                    value = evaluate(step, &value, self.context)?;
                }
                View::Value(value)
            }
        })
    }

    /// The text of a path's value, empty if it has none.
    #[inline]
    fn found(&self, path: PathId) -> Outcome<&'a str> {
        let span = self.spans[path];
        match self.unread {
            Some(paths) if self.spans[paths.get(path).first].is_none() => Err(Stop::Unread),
            _ => Ok(&self.text[span.start..span.end]),
        }
    }

    fn is_null(&self, path: PathId) -> Outcome<bool> {
        Ok(matches!(
            self.found(path)?.as_bytes().first(),
            None | Some(b'n')
        ))
    }

    /// The first result whose truth is the one looked for, else the last result.
    fn first(&mut self, ops: &'a [Op], truth: bool) -> Outcome<View<'a>> {
        let mut result = View::NULL;
        for op in ops {
            result = self.view(op)?;
            if result.is_true() == truth {
                break;
            }
        }
        Ok(result)
    }

    /// The outer error is an argument's, the inner one the function's own.
    fn call(
        &mut self,
        function: &Function,
        how: How,
        prepared: &'a Prepared,
        arguments: &'a [Op],
    ) -> Outcome<Result<View<'a>, String>> {
        let context = self.context;
        let with_values = |values: &[Value<'a>]| {
            Ok(function
                .call_with(values, prepared, context)
                .map(View::Value))
        };
        match arguments {
            [only] if how != How::WithValues => {
                let argument = self.view(only)?;
                match self.quick(how, &argument) {
                    Some(result) => Ok(Ok(result)),
                    None if how == How::NotNull => Ok(Ok(argument)),
                    None => with_values(&[argument.into_value()?]),
                }
            }
            [list, wanted] if how == How::Contains => {
                let (list, wanted) = (self.view(list)?, self.view(wanted)?);
                match list {
                    View::Raw(raw) if raw.is_array() => {
                        Ok(contains(raw, wanted.into_value()?, context)
                            .map(Value::Bool)
                            .map(View::Value))
                    }
                    list => with_values(&[list.into_value()?, wanted.into_value()?]),
                }
            }
            all if how == How::NotNull => {
                let mut first = View::NULL;
                for argument in all {
                    let view = self.view(argument)?;
                    if first.is_null() {
                        first = view;
                    }
                }
                Ok(Ok(first))
            }
            [a] => {
                let values = [self.view(a)?.into_value()?];
                with_values(&values)
            }
            [a, b] => {
                let values = [self.view(a)?.into_value()?, self.view(b)?.into_value()?];
                with_values(&values)
            }
            many => {
                let mut values = Vec::with_capacity(many.len());
                for argument in many {
                    values.push(self.view(argument)?.into_value()?);
                }
                with_values(&values)
            }
        }
    }

    /// The functions that look at one value without building it; whatever is out of the ordinary is left to the function.
    fn quick(&mut self, how: How, argument: &View<'a>) -> Option<View<'a>> {
        let plain = |text: &Cow<'a, str>| match text {
            Cow::Borrowed(text) => Some(*text),
            Cow::Owned(_) => None,
        };
        match (how, argument) {
            (How::Type, _) => Some(View::Value(Value::text(argument.type_name()))),
            (How::Length, View::Raw(raw)) => raw.count(self.keyring).map(View::Count),
            (How::Length, View::Value(Value::String(text))) => Some(View::Count(text.length())),
            (How::ToNumber, View::Value(Value::String(Text::Plain(text)))) => {
                plain(text).map(|text| {
                    let number = lone_number(text).map(|text| Value::Number(Cow::Borrowed(text)));
                    View::Value(number.unwrap_or(Value::Null))
                })
            }
            (How::ToString, View::Value(Value::Number(text))) => {
                plain(text).map(|text| View::Value(Value::text(text)))
            }
            (How::ToString, View::Value(Value::Null)) => Some(View::Value(Value::text("null"))),
            (How::ToString, View::Value(Value::Bool(flag))) => {
                Some(View::Value(Value::text(if *flag {
                    "true"
                } else {
                    "false"
                })))
            }
            _ => None,
        }
    }

    /// [`Run::write`], at most as much as the limits allow.
    pub(super) fn write_all(&mut self, op: &'a Op, out: &mut Vec<u8>) -> Outcome<bool> {
        self.end = out
            .len()
            .saturating_add(self.context.limits().max_output_bytes);
        let written = self.write(op, out)?;
        self.check_size(out)?;
        Ok(written)
    }

    fn check_size(&self, out: &[u8]) -> Outcome<()> {
        if out.len() > self.end {
            return Err(Stop::Failed(TOO_LARGE.to_owned()));
        }
        Ok(())
    }

    /// Appends the result as JSON. False, with nothing appended, if it is null. After an error a part may be appended.
    fn write(&mut self, op: &'a Op, out: &mut Vec<u8>) -> Outcome<bool> {
        match op {
            Op::Path(path) => match self.found(*path)? {
                container if matches!(container.as_bytes().first(), Some(b'{' | b'[')) => {
                    Ok(View::of(container).write(self.keyring, self.most(), out)?)
                }
                "" | "null" => Ok(false),
                scalar => {
                    out.extend_from_slice(scalar.as_bytes());
                    Ok(true)
                }
            },
            Op::List { of, .. } | Op::Object { of, .. } if self.is_null(*of)? => Ok(false),
            Op::List { items, .. } => {
                for (index, item) in items.iter().enumerate() {
                    out.push(if index == 0 { b'[' } else { b',' });
                    self.write_part(item, out)?;
                }
                out.push(b']');
                Ok(true)
            }
            Op::Object { members, .. } => {
                for (index, member) in members.iter().enumerate() {
                    out.push(if index == 0 { b'{' } else { b',' });
                    out.extend_from_slice(member.written.as_bytes());
                    self.write_part(&member.value, out)?;
                }
                out.push(b'}');
                Ok(true)
            }
            other => {
                let view = self.view(other)?;
                Ok(view.write(self.keyring, self.most(), out)?)
            }
        }
    }

    fn write_part(&mut self, op: &'a Op, out: &mut Vec<u8>) -> Outcome<()> {
        if !self.write(op, out)? {
            out.extend_from_slice(b"null");
        }
        // One part may be written many times.
        self.check_size(out)
    }

    /// Bytes that a value may be written in.
    fn most(&self) -> usize {
        self.context.limits().max_output_bytes
    }
}

/// As `contains` does with an array of values.
fn contains(list: Raw<'_>, wanted: Value<'_>, context: &Context<'_>) -> Result<bool, String> {
    let same_type = |item: &View<'_>| item.type_name() == wanted.type_name();
    for item in list.items().map(View::of).filter(same_type) {
        if context.equal(&item.into_value()?, &wanted)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn compared<'a>(
    operator: Operator,
    left: View<'_>,
    right: View<'_>,
    context: &Context<'_>,
) -> Result<Value<'a>, String> {
    if left.type_name() != right.type_name() {
        // Values of different types are all different in the same way.
        return compare(operator, &Value::Null, &Value::Bool(false), context);
    }
    let mut digits = (None, None);
    let (left, right) = (number(left, &mut digits.0)?, number(right, &mut digits.1)?);
    compare(operator, &left, &right, context)
}

/// The value; the digits of a computed integer are kept beside it.
fn number<'v>(view: View<'v>, digits: &'v mut Option<Digits>) -> Result<Value<'v>, String> {
    match view {
        View::Count(count) => {
            let digits = digits.insert(Digits::of(count));
            Ok(Value::Number(Cow::Borrowed(digits.as_str())))
        }
        other => other.into_value(),
    }
}
