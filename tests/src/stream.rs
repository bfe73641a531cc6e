//! Events that come at a steady rate.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::producer::{BaseRecord, Producer as _};

use crate::events::{self, BATCH_RECORDS, Failures, producer};
use crate::{Doing, Error, Events, Result};

/// What is due is sent this often: events come in small groups.
const TICK: Duration = Duration::from_millis(5);
/// More than of this time is never due at once: what a stall of the machine has left out is not made up for.
const MOST_DUE: Duration = Duration::from_secs(1);
/// For a full queue to have room again.
const FULL: Duration = Duration::from_secs(240);
/// For what is not acknowledged when the stream ends.
const FLUSH: Duration = Duration::from_secs(240);
/// Milliseconds that an event waits for others in the producer.
const LINGER: u32 = 1;

/// Sends events on a thread of its own until it is stopped.
pub struct Stream {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<Result<u64>>,
}

impl Stream {
    /// Sends the events in their order, `rate` a second, as long as there are any. `also` is asked after each event, with the number of
    /// events sent, for the key and payload of a record to send besides.
    pub fn start(
        events: Events,
        bootstrap: &str,
        topic: &str,
        rate: u64,
        also: impl Fn(u64) -> Option<(String, String)> + Send + 'static,
    ) -> Result<Stream> {
        let ended = Arc::new(AtomicBool::new(false));
        let failures = Failures::default();
        let producer = producer(bootstrap, LINGER, BATCH_RECORDS, failures.clone())?;
        let (stop, topic) = (ended.clone(), topic.to_owned());
        let thread = std::thread::spawn(move || {
            let send = |partition: i32, key: &str, event: &str| -> Result<()> {
                let record = BaseRecord::to(&topic)
                    .partition(partition)
                    .key(key)
                    .payload(event);
                events::send(&producer, record, Instant::now() + FULL).doing("producing an event")
            };
            let (mut last, mut count) = (Instant::now(), 0);
            // In millionths of an event.
            let mut due = 0;
            while !stop.load(Ordering::SeqCst) {
                let now = Instant::now();
                due += (now - last).min(MOST_DUE).as_micros() as u64 * rate;
                last = now;
                while due >= 1_000_000 && count < events.count() {
                    due -= 1_000_000;
                    let partition = events.partition(count);
                    send(partition, &events.id(count), &events.event(count))?;
                    count += 1;
                    if let Some((key, payload)) = also(count) {
                        send(partition, &key, &payload)?;
                    }
                }
                std::thread::sleep(TICK);
            }
            producer.flush(FLUSH)?;
            match failures.0.load(Ordering::SeqCst) {
                0 => Ok(count),
                lost => Err(Error::new(format!(
                    "Kafka did not take {lost} events of {topic}"
                ))),
            }
        });
        Ok(Stream { ended, thread })
    }

    /// Ends it when all is acknowledged: how many events were sent, the first ones of the sequence.
    pub fn stop(self) -> Result<u64> {
        self.ended.store(true, Ordering::SeqCst);
        self.thread
            .join()
            .map_err(|_| Error::new("the producer panicked"))?
    }
}
