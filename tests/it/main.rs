//! The end-to-end tests, on real servers.
//!
//! - [`servers`]: what the other tests take for granted of the servers and of the judge.
//! - [`main_job`]: a million events through each sink, exactly.
//! - [`faults`]: killed workers, drained workers, servers that go away and come back.
//! - [`leftovers`]: what killed workers leave at the location of Parquet files.
//! - [`signals`]: what ends a worker at once, and after a drain.
//! - [`stalls`]: a part of the worker that stands still.
//! - [`overload`]: Elasticsearch refuses what it has no room for.
//! - [`battery`]: the battery of faults, in short.
//! - [`bad_events`], [`unfit_events`]: every kind of bad event, and of one that its target does not take, and what becomes of it.
//! - [`indices`]: what an index does not let a route do.
//! - [`limits`]: what a Kafka cluster does not let a route do.
//! - [`dead_letters`]: the dead-letter topic where Kafka stands in the way.
//! - [`transactions`]: Kafka to Kafka without duplicates, whatever is killed.
//! - [`source`], [`transactional_source`]: topics, starts, groups, and what others write in transactions.
//! - [`sinks`]: what each sink can do beyond the main job.
//! - [`cli`], [`check`]: the commands.
//!
//! [`scenario`] and [`by_hand`] are what they share.

mod bad_events;
mod battery;
mod by_hand;
mod check;
mod cli;
mod dead_letters;
mod faults;
mod indices;
mod leftovers;
mod limits;
mod main_job;
mod overload;
mod scenario;
mod servers;
mod signals;
mod sinks;
mod source;
mod stalls;
mod transactional_source;
mod transactions;
mod unfit_events;
