//! The real worker against scripted sinks that fail in every way, on librdkafka's mock cluster in this process.
//!
//! Each event is known by its place (partition and offset). The sink records which events it answered for as delivered, the judge
//! compares that with what was produced, and the group's commits are read back by a consumer of their own. While a worker runs, a watcher
//! checks all the time that its offset windows never pass an event that the sink has not answered for.
//!
//! A group's first join takes 3 s on the mock cluster, so each test runs its scenarios side by side.

mod bench;
mod cluster;
mod endings;
mod flow;
mod held;
mod judge;
mod membership;
mod outcomes;
mod payloads;
mod random;
mod scripted;
mod stalls;
