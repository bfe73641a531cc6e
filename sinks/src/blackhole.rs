//! Takes every event and forgets it: for measuring what comes before a sink, and the smallest example of one.

use std::time::Duration;

use keystone_config::{Problem, Settings};

use crate::{Answer, Batch, BoxFuture, Context, Sink, SinkError};

/// Builds the sink; it has no options.
pub fn build(_settings: &Settings, _context: &Context) -> Result<Box<dyn Sink>, Vec<Problem>> {
    Ok(Box::new(Blackhole))
}

struct Blackhole;

impl Sink for Blackhole {
    fn longest_step(&self) -> Option<Duration> {
        Some(Duration::ZERO)
    }

    fn deliver<'a>(&'a self, _batch: &'a Batch) -> BoxFuture<'a, Result<Answer, SinkError>> {
        Box::pin(async { Ok(Answer::done()) })
    }
}
