//! Writes each event as a line to standard output: for looking at a route by hand.

use std::io::Write;

use keystone_config::{Problem, Settings};

use crate::{Answer, Batch, BoxFuture, Context, Sink, SinkError};

/// Builds the sink; it has no options.
pub fn build(_settings: &Settings, _context: &Context) -> Result<Box<dyn Sink>, Vec<Problem>> {
    Ok(Box::new(Stdout))
}

struct Stdout;

impl Sink for Stdout {
    fn deliver<'a>(&'a self, batch: &'a Batch) -> BoxFuture<'a, Result<Answer, SinkError>> {
        Box::pin(async move {
            let lines = lines(batch);
            // A reader that does not keep up holds the batch back, not the runtime.
            let written = tokio::task::spawn_blocking(move || {
                let mut out = std::io::stdout().lock();
                out.write_all(&lines).and_then(|()| out.flush())
            })
            .await;
            match written {
                Ok(Ok(())) => Ok(Answer::done()),
                Ok(Err(error)) => Err(SinkError::Fatal(format!(
                    "standard output can't be written (sink.type = stdout): {error}"
                ))),
                Err(error) => Err(SinkError::Fatal(format!(
                    "writing to standard output broke off: {error}"
                ))),
            }
        })
    }
}

/// One line an event. A line break inside a JSON payload is white space between tokens, so a space says the same.
fn lines(batch: &Batch) -> Vec<u8> {
    let mut lines = Vec::with_capacity(batch.bytes() + batch.len());
    for event in batch.events() {
        let payload = event.payload.unwrap_or(b"null");
        lines.extend(payload.iter().map(|&byte| {
            if matches!(byte, b'\n' | b'\r') {
                b' '
            } else {
                byte
            }
        }));
        lines.push(b'\n');
    }
    lines
}
