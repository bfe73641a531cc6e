//! What all parts of an expression share while it is evaluated on one event.

use std::cell::Cell;
use std::mem::size_of;

use crate::Limits;
use crate::record::Record;
use crate::value::{Member, Value};

/// What may be made on the way, in times of what may be delivered.
const WORKING_FACTOR: usize = 4;

/// What may be gone through of any event at least, and besides for each of its bytes, so that no event is too long for one pass.
const PASSED: usize = 64 << 20;
const PASSED_PER_BYTE: usize = 64;

/// The record, and what may still be made of it and gone through.
pub(crate) struct Context<'a> {
    pub(crate) record: Record<'a>,
    limits: Limits,
    /// Bytes that may still be made. Nothing is given back: it is a bound on memory and on work.
    left: Cell<usize>,
    /// The same for what is only looked at, which may be the same part again and again: `[?[?…]]` keeps nothing of it.
    /// An item of a list counts as the bytes of a value, a member or a byte of a text as one.
    unpassed: Cell<usize>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(record: &Record<'a>, limits: Limits) -> Context<'a> {
        Context {
            record: *record,
            limits,
            left: Cell::new(most_made(limits)),
            unpassed: Cell::new(most_passed(record, limits)),
        }
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    /// Counts bytes that are about to be made.
    pub(crate) fn spend(&self, bytes: usize) -> Result<(), String> {
        take(&self.left, bytes).ok_or_else(|| {
            format!(
                "the expression makes more of the event than {} bytes, {WORKING_FACTOR} times the limit of its output",
                most_made(self.limits)
            )
        })
    }

    /// Counts what is about to be gone through, where that is not what is made.
    fn pass(&self, amount: usize) -> Result<(), String> {
        take(&self.unpassed, amount).ok_or_else(|| {
            format!(
                "the expression goes through the same parts of the event too often: more than {} bytes, each counted as often as it is looked at",
                most_passed(&self.record, self.limits)
            )
        })
    }

    /// Counts the items of a list that are about to be gone through.
    pub(crate) fn pass_items(&self, items: usize) -> Result<(), String> {
        self.pass(items.saturating_mul(size_of::<Value<'_>>()))
    }

    /// Counts what a function may look at of an argument, parts of its parts aside.
    pub(crate) fn pass_value(&self, value: &Value<'_>) -> Result<(), String> {
        match value {
            Value::Array(items) => self.pass_items(items.len()),
            Value::Object(members) => {
                self.pass(members.len().saturating_mul(size_of::<Member<'_>>()))
            }
            Value::String(text) => self.pass(text.bytes()),
            Value::Number(text) => self.pass(text.len()),
            Value::Null | Value::Bool(_) | Value::Reference(_) => Ok(()),
        }
    }

    /// [`Value::field`], counted.
    pub(crate) fn field(&self, value: &Value<'a>, name: &str) -> Result<Value<'a>, String> {
        if let Value::Object(members) = value {
            self.pass(members.len())?;
        }
        Ok(value.field(name))
    }

    /// [`Value::equals`], counted: small values can hold one part so many times that a comparison never ends.
    pub(crate) fn equal(&self, a: &Value<'_>, b: &Value<'_>) -> Result<bool, String> {
        if let (Value::String(a), Value::String(b)) = (a, b) {
            self.pass(a.bytes().min(b.bytes()))?;
        }
        if matches!(a, Value::Array(_) | Value::Object(_)) && a.type_name() == b.type_name() {
            // As if each value visited were a byte made.
            let mut left = self.left.get();
            if !a.is_within(&mut left) {
                self.spend(usize::MAX)?;
            }
            self.left.set(left);
        }
        Ok(a.equals(b))
    }

    /// Whether one of the items equals the value.
    pub(crate) fn is_among(&self, value: &Value<'_>, items: &[Value<'_>]) -> Result<bool, String> {
        self.pass_items(items.len())?;
        for item in items {
            if self.equal(value, item)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Counts the items of a list that are about to be made.
    pub(crate) fn spend_items(&self, items: usize) -> Result<(), String> {
        self.spend(items.saturating_mul(size_of::<Value<'_>>()))
    }

    /// Counts a list that was made from one no smaller, so that there was no need to ask before.
    pub(crate) fn list(&self, items: Vec<Value<'a>>) -> Result<Value<'a>, String> {
        self.spend_items(items.len())?;
        Ok(Value::array(items))
    }

    /// The same for an object.
    pub(crate) fn object(&self, members: Vec<Member<'a>>) -> Result<Value<'a>, String> {
        self.spend(members.len().saturating_mul(size_of::<Member<'_>>()))?;
        Ok(Value::object(members))
    }

    /// The same for a text.
    pub(crate) fn text(&self, text: String) -> Result<Value<'a>, String> {
        self.spend(text.len())?;
        Ok(Value::text(text))
    }
}

/// Takes so much off what is left; `None` where less is.
fn take(left: &Cell<usize>, amount: usize) -> Option<()> {
    left.set(left.get().checked_sub(amount)?);
    Some(())
}

fn most_made(limits: Limits) -> usize {
    limits.max_output_bytes.saturating_mul(WORKING_FACTOR)
}

/// What is made may be gone through as well.
fn most_passed(record: &Record<'_>, limits: Limits) -> usize {
    let made = most_made(limits);
    let event = record.payload.len().saturating_mul(PASSED_PER_BYTE);
    PASSED.max(made).saturating_add(event)
}
