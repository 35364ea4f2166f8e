//! What a pool does: the life of a job, through the public API, mostly in paused time.
//!
//! Tests that say nothing of where jobs are kept run in memory and in a file: see `on_each_store`.

#[path = "../common/mod.rs"]
mod common;

mod api;
mod controls;
mod embedding;
mod explain;
mod fuzz;
mod incidents;
mod limits;
mod listing;
#[cfg(feature = "metrics")]
mod metrics;
mod recovery;
mod regressions;
mod retry;
mod scripts;
mod state_table;
mod transactions;
