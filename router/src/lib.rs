//! The worker and what surrounds it. In reading order:
//!
//! - [`options`], [`route`]: from text to a route that can run
//! - [`worker`]: threads and tasks, set up and taken down; [`signals`] that end it
//! - [`consumer`] -> [`lane`] -> [`delivery`]: the path of an event; [`records`] is how librdkafka hands them over, [`decision`] what a
//!   lane does to each, [`dead_letters`] and [`limiter`] beside it
//! - [`group`], [`list`], [`joint`], [`transaction`], [`named`], [`start`], [`rewind`]: the consumer group: assignment, revocation, commits,
//!   where to begin, and reading again
//! - [`offsets`], [`held`], [`trigger`], [`backoff`], [`limit`], [`stall`]: pure state machines: what may be committed, what the
//!   sink has yet to make durable, when a batch closes, how long to wait, how many calls at once, what stands still; [`membership`],
//!   [`lasting`]: whether the worker is in its group, and what is trouble only where it lasts; [`unread`], [`expired`], [`bad_events`]:
//!   partitions that could not be read, events that were deleted before, and what is said of bad ones
//! - [`state`], [`troubles`], [`ledger`], [`metrics`], [`latency`], [`log`], [`admin`], [`watchdog`]: what the threads share, and how it is watched
//! - [`cli`]: the commands

pub mod admin;
pub mod backoff;
pub mod bad_events;
pub mod cli;
pub mod consumer;
pub mod dead_letters;
pub mod decision;
pub mod delivery;
pub mod expired;
pub mod group;
pub mod held;
pub mod joint;
pub mod lane;
pub mod lasting;
pub mod latency;
pub mod ledger;
pub mod limit;
pub mod limiter;
pub mod list;
pub mod log;
pub mod membership;
pub mod metrics;
pub mod named;
pub mod offsets;
pub mod options;
pub mod records;
pub mod rewind;
pub mod route;
pub mod signals;
pub mod stall;
pub mod start;
pub mod state;
pub mod transaction;
pub mod trigger;
pub mod troubles;
pub mod unread;
pub mod watchdog;
pub mod worker;
