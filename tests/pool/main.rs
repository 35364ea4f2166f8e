//! What a pool does: the life of a job, through the public API, mostly in paused time.
//!
//! Tests that say nothing of where jobs are kept run in memory and in a file: see `on_each_store`.

#[path = "../common/mod.rs"]
mod common;

mod actors;
mod cancel;
mod embedding;
mod enqueue;
mod explain;
mod functions;
mod fuzz;
mod keys;
mod limits;
mod listing;
#[cfg(feature = "metrics")]
mod metrics;
mod recovery;
mod retry;
mod run_now;
mod schedules;
mod scheduling;
mod scripts;
mod settings;
mod shutdown;
mod state_table;
mod status;
mod storage_fails;
mod support;
mod timeout;
mod transactions;
mod unique;
mod watchdog;
