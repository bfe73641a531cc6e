//! What all parts of an expression share while it is evaluated on one event.

use std::cell::Cell;
use std::mem::size_of;

use crate::Limits;
use crate::record::Record;
use crate::value::{Member, Value};

/// What may be made on the way, in times of what may be delivered.
const WORKING_FACTOR: usize = 4;

/// The record, and what may still be made of it.
pub(crate) struct Context<'a> {
    pub(crate) record: Record<'a>,
    limits: Limits,
    /// Bytes that may still be made. Nothing is given back: it is a bound on memory and on work.
    left: Cell<usize>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(record: &Record<'a>, limits: Limits) -> Context<'a> {
        Context {
            record: *record,
            limits,
            left: Cell::new(limits.max_output_bytes.saturating_mul(WORKING_FACTOR)),
        }
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    /// Counts bytes that are about to be made.
    pub(crate) fn spend(&self, bytes: usize) -> Result<(), String> {
        match self.left.get().checked_sub(bytes) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None => Err(format!(
                "the expression makes more of the event than {} bytes, {WORKING_FACTOR} times the limit of its output",
                self.limits.max_output_bytes.saturating_mul(WORKING_FACTOR)
            )),
        }
    }

    /// [`Value::equals`], counted: small values can hold one part so many times that a comparison never ends.
    pub(crate) fn equal(&self, a: &Value<'_>, b: &Value<'_>) -> Result<bool, String> {
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
