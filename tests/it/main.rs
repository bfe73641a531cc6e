//! The end-to-end tests, on real servers.
//!
//! - [`servers`]: each server answers, keeps its data over a restart, and the judge reads it to the end.
//! - [`main_job`]: a million events through each sink, exactly.
//! - [`faults`]: killed workers, drained workers, servers that go away and come back.

mod faults;
mod main_job;
mod scenario;
mod servers;
