//! What all parts of an expression share while it is evaluated on one event.

use std::cell::Cell;
use std::mem::size_of;

use crate::Limits;
use crate::record::Record;
use crate::value::Value;

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
                "the expression makes more than {} bytes of values of this event ({WORKING_FACTOR} times dsl.max.output.bytes)",
                self.limits.max_output_bytes.saturating_mul(WORKING_FACTOR)
            )),
        }
    }

    /// Counts a list or object of so many items that is about to be made.
    pub(crate) fn spend_items(&self, items: usize) -> Result<(), String> {
        self.spend(items.saturating_mul(size_of::<Value<'_>>()))
    }
}
