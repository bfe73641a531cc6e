//! Records from librdkafka many at a time, by `rd_kafka_consume_batch_queue`. The only `unsafe` code of the program.
//!
//! Why: rdkafka's `poll` makes each record an event of its own: an allocation, two looks at the clock and a turn of the queue's lock. The
//! batch call spares these: with it a worker with filter and projection took 2.49 times what `kcat -C` takes, with `poll` 2.77 (one run).
//!
//! Why it is sound:
//! - The batch call is not for the consumer's own queue: it would answer each rebalance by itself. So there is a queue of our own, and each
//!   partition is forwarded to it before it is assigned. `poll` goes on serving rebalances, errors and statistics. librdkafka drops what was
//!   fetched before a seek, a pause or a revocation by the version of the partition, in this queue as in its own.
//! - librdkafka wants the queue gone before the consumer: a [`RecordQueue`] borrows the consumer, and the callbacks have a weak reference.
//! - Each pointer that the batch call writes is a message of ours until `rd_kafka_message_destroy`, whose fields nobody writes to meanwhile.
//!   A [`Record`] is its only owner and destroys it once; any thread may do both. It borrows the consumer, which librdkafka needs longer.
//! - Parts of a record (payload, key, headers, the topic's name) live as long as it does, and are borrowed from it.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_void};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::{Arc, Weak};
use std::time::Duration;

use rdkafka::bindings as native;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::types::RDKafkaRespErr;

use crate::offsets::PartitionKey;

/// The most records that one call takes.
pub const MOST: usize = 1024;

/// A queue of librdkafka's that is ours.
struct NativeQueue(NonNull<native::rd_kafka_queue_t>);

// SAFETY: librdkafka's queues lock themselves.
unsafe impl Send for NativeQueue {}
// SAFETY: as above.
unsafe impl Sync for NativeQueue {}

impl Drop for NativeQueue {
    fn drop(&mut self) {
        // SAFETY: made by `rd_kafka_queue_new` or `rd_kafka_queue_get_partition`, and destroyed here only.
        unsafe { native::rd_kafka_queue_destroy(self.0.as_ptr()) }
    }
}

/// What came in place of a record.
#[derive(Debug)]
pub struct Fault {
    pub error: KafkaError,
    /// The partition that it is of, where librdkafka names one. The batch call then takes the error's offset for read (librdkafka's
    /// `rd_kafka_q_serve_rkmessages`), be it the one that was to be read or 0: after a pause, the consumer's own or one in a rebalance, it
    /// goes on behind that.
    pub partition: Option<PartitionKey>,
    /// How many of the records came before it.
    pub after: usize,
}

/// Where the records of all partitions arrive.
pub struct RecordQueue<'c> {
    queue: Arc<NativeQueue>,
    taken: Vec<*mut native::rd_kafka_message_t>,
    consumer: PhantomData<&'c ()>,
}

impl<'c> RecordQueue<'c> {
    /// `None` where librdkafka makes none.
    pub fn new<C: ConsumerContext>(consumer: &'c BaseConsumer<C>) -> Option<RecordQueue<'c>> {
        // SAFETY: the client lives as long as the consumer.
        let queue = unsafe { native::rd_kafka_queue_new(consumer.client().native_ptr()) };
        Some(RecordQueue {
            queue: Arc::new(NativeQueue(NonNull::new(queue)?)),
            taken: vec![ptr::null_mut(); MOST],
            consumer: PhantomData,
        })
    }

    /// For the rebalance callback. It leads nowhere once the queue is gone.
    pub fn entrance(&self) -> Entrance {
        Entrance(Arc::downgrade(&self.queue))
    }

    /// Appends at most `most` records and one: those at hand, or else what comes first within `wait`. Errors are returned beside them.
    pub fn read(
        &mut self,
        most: usize,
        wait: Duration,
        records: &mut Vec<Record<'c>>,
    ) -> Vec<Fault> {
        let before = records.len();
        let mut faults = Vec::new();
        self.take(most, Duration::ZERO, records, &mut faults);
        if records.len() == before && faults.is_empty() && !wait.is_zero() {
            // With a limit of time the call waits until it has all that it is asked for: so, for one, and then what came with it.
            self.take(1, wait, records, &mut faults);
            self.take(most, Duration::ZERO, records, &mut faults);
        }
        faults
    }

    /// Takes what one call answers with.
    fn take(
        &mut self,
        most: usize,
        wait: Duration,
        records: &mut Vec<Record<'c>>,
        faults: &mut Vec<Fault>,
    ) {
        let count = self.call(most, wait);
        for message in &self.taken[..count] {
            let Some(message) = NonNull::new(*message) else {
                continue;
            };
            let record = Record {
                message,
                consumer: PhantomData,
            };
            match record.error() {
                RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => records.push(record),
                code => faults.push(Fault {
                    error: KafkaError::MessageConsumption(code.into()),
                    partition: record.partition_of_error(),
                    after: records.len(),
                }),
            }
        }
    }

    /// How many messages are in `taken` now.
    fn call(&mut self, most: usize, wait: Duration) -> usize {
        let most = most.clamp(1, MOST);
        let wait = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
        let (queue, taken) = (self.queue.0.as_ptr(), self.taken.as_mut_ptr());
        // SAFETY: `taken` has room for MOST pointers, and `most` is at most that.
        let count = unsafe { native::rd_kafka_consume_batch_queue(queue, wait, taken, most) };
        usize::try_from(count).unwrap_or(0)
    }
}

/// The way into a [`RecordQueue`].
pub struct Entrance(Weak<NativeQueue>);

impl Entrance {
    /// Has the records of a partition arrive in the queue. To be called before each assignment of it: librdkafka forgets it at a revocation.
    /// Answers whether that was done.
    pub fn lead<C: ConsumerContext>(
        &self,
        consumer: &BaseConsumer<C>,
        topic: &str,
        partition: i32,
    ) -> bool {
        let (Some(queue), Ok(topic)) = (self.0.upgrade(), CString::new(topic)) else {
            return false;
        };
        let client = consumer.client().native_ptr();
        // SAFETY: the client lives, the name ends with a zero byte; what comes back is ours to destroy.
        let partition =
            unsafe { native::rd_kafka_queue_get_partition(client, topic.as_ptr(), partition) };
        let Some(partition) = NonNull::new(partition).map(NativeQueue) else {
            return false;
        };
        // SAFETY: both queues live; librdkafka keeps a reference of its own to the target.
        unsafe { native::rd_kafka_queue_forward(partition.0.as_ptr(), queue.0.as_ptr()) };
        true
    }
}

/// A record as librdkafka holds it.
pub struct Record<'c> {
    message: NonNull<native::rd_kafka_message_t>,
    consumer: PhantomData<&'c ()>,
}

impl std::fmt::Debug for Record<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let topic = String::from_utf8_lossy(self.topic());
        write!(out, "{topic}-{} offset {}", self.partition(), self.offset())
    }
}

// SAFETY: a message belongs to whoever holds it; librdkafka takes it back from any thread.
unsafe impl Send for Record<'_> {}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        // SAFETY: its only owner ends.
        unsafe { native::rd_kafka_message_destroy(self.message.as_ptr()) }
    }
}

impl Record<'_> {
    fn message(&self) -> &native::rd_kafka_message_t {
        // SAFETY: valid until it is destroyed, and nobody writes to it.
        unsafe { self.message.as_ref() }
    }

    fn error(&self) -> RDKafkaRespErr {
        self.message().err
    }

    /// Not every error is one of a partition.
    fn partition_of_error(&self) -> Option<PartitionKey> {
        if self.message().rkt.is_null() || self.partition() < 0 {
            return None;
        }
        let topic = std::str::from_utf8(self.topic()).ok()?;
        Some(PartitionKey::new(topic, self.partition()))
    }

    /// The name of the topic; Kafka allows letters, digits, `.`, `_` and `-`.
    pub fn topic(&self) -> &[u8] {
        // SAFETY: a record of the consumer has a topic ([`Record::partition_of_error`] looks), whose name is a C string that lives as long.
        unsafe { CStr::from_ptr(native::rd_kafka_topic_name(self.message().rkt)) }.to_bytes()
    }

    pub fn partition(&self) -> i32 {
        self.message().partition
    }

    pub fn is_of(&self, key: &PartitionKey) -> bool {
        self.partition() == key.partition && self.topic() == key.topic.as_bytes()
    }

    pub fn offset(&self) -> i64 {
        self.message().offset
    }

    /// Milliseconds since the epoch; `None` where Kafka has none.
    pub fn timestamp(&self) -> Option<i64> {
        let mut kind = native::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: a message of ours, and a place for the answer.
        let millis =
            unsafe { native::rd_kafka_message_timestamp(self.message.as_ptr(), &raw mut kind) };
        // -1 also is what a producer sends that knows no time.
        (kind != native::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE
            && millis != -1)
            .then_some(millis)
    }

    pub fn payload(&self) -> Option<&[u8]> {
        let message = self.message();
        // SAFETY: librdkafka's pointer and length of the value.
        unsafe { slice(message.payload, message.len) }
    }

    pub fn key(&self) -> Option<&[u8]> {
        let message = self.message();
        // SAFETY: librdkafka's pointer and length of the key.
        unsafe { slice(message.key, message.key_len) }
    }

    /// Its headers; `None` where a header's name is not UTF-8.
    pub fn headers(&self) -> Option<HeaderList<'_>> {
        // SAFETY: what is borrowed lives as long as the message, which `self` keeps.
        unsafe { headers_of(self.message.as_ptr()) }
    }
}

/// The names and values of a record's headers, in their order; a value may be null.
pub type HeaderList<'m> = Vec<(&'m str, Option<&'m [u8]>)>;

/// The headers of a record that rdkafka read; `None` where a header's name is not UTF-8. (rdkafka's own access panics there.)
pub fn headers<'m>(record: &'m BorrowedMessage<'_>) -> Option<HeaderList<'m>> {
    // SAFETY: what is borrowed lives as long as the message, which `record` keeps.
    unsafe { headers_of(record.ptr()) }
}

/// # Safety
/// The message must live for `'m`.
unsafe fn headers_of<'m>(message: *mut native::rd_kafka_message_t) -> Option<HeaderList<'m>> {
    let mut headers = ptr::null_mut();
    // SAFETY: a living message. The headers stay its own.
    let found = unsafe { native::rd_kafka_message_headers(message, &raw mut headers) };
    let mut list = HeaderList::new();
    if found != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
        return Some(list); // It has none.
    }
    loop {
        let (mut name, mut value, mut len) = (ptr::null(), ptr::null(), 0);
        // SAFETY: the headers of a living message; past the last one the call answers with an error and writes nothing.
        let found = unsafe {
            native::rd_kafka_header_get_all(
                headers,
                list.len(),
                &raw mut name,
                &raw mut value,
                &raw mut len,
            )
        };
        if found != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Some(list);
        }
        // SAFETY: librdkafka ends each name with a zero byte; name and value live as long as the message.
        let (name, value) = unsafe { (CStr::from_ptr(name), slice(value, len)) };
        list.push((name.to_str().ok()?, value));
    }
}

/// # Safety
/// Where the pointer is not null, that many bytes must stand there for `'m`.
unsafe fn slice<'m>(start: *const c_void, len: usize) -> Option<&'m [u8]> {
    // SAFETY: as the caller promises.
    NonNull::new(start.cast_mut().cast::<u8>())
        .map(|start| unsafe { std::slice::from_raw_parts(start.as_ptr(), len) })
}
