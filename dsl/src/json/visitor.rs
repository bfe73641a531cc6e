//! What may be done with a payload while it is read.

use crate::value::{Member, Text, Value};

/// Told what the reader finds, in the order of the payload.
pub(super) trait Visitor<'a> {
    fn value(&mut self, value: Value<'a>);
    fn key(&mut self, key: Text<'a>);
    fn begin(&mut self, container: Container);
    fn end(&mut self);
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Container {
    Array,
    Object,
}

/// Keeps nothing.
pub(super) struct Ignore;

impl Visitor<'_> for Ignore {
    fn value(&mut self, _: Value<'_>) {}
    fn key(&mut self, _: Text<'_>) {}
    fn begin(&mut self, _: Container) {}
    fn end(&mut self) {}
}

/// Builds the value.
#[derive(Default)]
pub(super) struct Tree<'a> {
    open: Vec<Branch<'a>>,
    done: Option<Value<'a>>,
}

impl<'a> Tree<'a> {
    /// After the whole payload.
    pub(super) fn into_value(self) -> Value<'a> {
        self.done.unwrap_or(Value::Null)
    }
}

enum Branch<'a> {
    Array(Vec<Value<'a>>),
    /// With the key whose value comes next.
    Object(Vec<Member<'a>>, Option<Text<'a>>),
}

impl<'a> Visitor<'a> for Tree<'a> {
    fn value(&mut self, value: Value<'a>) {
        match self.open.last_mut() {
            Some(Branch::Array(items)) => items.push(value),
            Some(Branch::Object(members, key)) => {
                members.extend(key.take().map(|key| (key, value)))
            }
            None => self.done = Some(value),
        }
    }

    fn key(&mut self, next: Text<'a>) {
        if let Some(Branch::Object(_, key)) = self.open.last_mut() {
            *key = Some(next);
        }
    }

    fn begin(&mut self, container: Container) {
        self.open.push(match container {
            Container::Array => Branch::Array(Vec::new()),
            Container::Object => Branch::Object(Vec::new(), None),
        });
    }

    fn end(&mut self) {
        match self.open.pop() {
            Some(Branch::Array(items)) => self.value(Value::array(items)),
            Some(Branch::Object(members, _)) => self.value(Value::object(members)),
            None => {}
        }
    }
}
