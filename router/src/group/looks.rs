//! What Kafka is asked for now and then, on a thread of its own: nobody waits for the answers.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use rdkafka::consumer::Consumer;

use super::GroupConsumer;
use super::absent::look_at_topics;
use super::ends::look_at_ends;
use crate::route::topics;
use crate::state::lock;

/// How late it is noticed that there is something to ask for.
const TURN: Duration = Duration::from_millis(500);
/// How often the same is asked.
const LOOK: Duration = Duration::from_secs(5);

/// Asks for what librdkafka does not tell at the moment, until `end` is dropped.
pub fn look_regularly(consumer: &GroupConsumer, end: &Receiver<()>) {
    let shared = &consumer.context().shared;
    let (mut ends, mut asked) = (None, None);
    let mut was_asked = false;
    let new_protocol = topics::is_new_protocol(&shared.route.settings);
    while end.recv_timeout(TURN) == Err(RecvTimeoutError::Timeout) {
        if shared.stop_requested() {
            continue;
        }
        if is_due(&mut ends, shared.is_paused()) {
            look_at_ends(consumer);
        }
        // With the new protocol librdkafka says nothing of a topic that is missing.
        let is_silent =
            new_protocol && (!was_asked || lock(&consumer.context().assigned).is_empty());
        let is_missing = shared.troubles.now().contains_key("topics");
        if is_due(&mut asked, is_silent || is_missing) {
            look_at_topics(consumer);
            was_asked = true;
        }
    }
}

/// Whether to ask now what is to be asked for while there is need: at once, and then every now and then.
fn is_due(asked: &mut Option<Instant>, is_needed: bool) -> bool {
    if !is_needed {
        *asked = None;
        return false;
    }
    let is_due = asked.is_none_or(|asked| asked.elapsed() >= LOOK);
    if is_due {
        *asked = Some(Instant::now());
    }
    is_due
}
