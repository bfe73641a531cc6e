//! Text to checked values: the grammar of property files, options as data, layers with origins, and errors.
//!
//! [`resolve`] takes the [`Table`] of all options and the [`Sources`] of one run and answers with [`Settings`], or with
//! everything that is wrong at once.
//!
//! # Layers, later wins
//!
//! 1. built-in defaults ([`Default::Value`])
//! 2. defaults set by `delivery.tradeoff` ([`Default::ByTradeoff`]), chosen by its resolved value
//! 3. managed defaults (`--defaults FILE`)
//! 4. the route's file (`--config FILE`)
//! 5. the environment: `source.topics` is `KEYSTONE_SOURCE_TOPICS`; an empty variable counts as not set
//! 6. `--set key=value`; of two for one key the later wins
//!
//! This crate knows nothing of Kafka or of any sink: it is told by the table.
#![forbid(unsafe_code)]

#[cfg(test)]
mod fixture;
mod kind;
mod layers;
mod nearest;
mod option;
mod problem;
mod properties;
mod reference;
pub mod render;
mod resolve;
mod secret;
mod settings;
mod table;

pub use layers::{Sources, environment_name, read_file};
pub use nearest::nearest;
pub use option::*;
pub use problem::{Origin, Problem, Problems};
pub use resolve::{resolve, resolve_elsewhere, resolve_partly, resolve_without_secrets};
pub use secret::Secret;
pub use settings::{Effective, Settings};
pub use table::flaws;
