//! The guide: how to use the library well, one topic a page. Every example on these pages runs as a test.
//!
//! | page | |
//! |---|---|
//! | [`shutdown`] | deploys: what happens to running jobs, two replicas, containers |
//! | [`retries`] | errors, retries, backoff, timeouts, panics |
//! | [`idempotency`] | actions that may run twice, and enqueues that may be repeated |
//! | [`ordering`] | in which order jobs start, and how to keep an order |
//! | [`priorities`] | what starts first, and how fast: priorities, aging, rates, pools that rest |
//! | [`keys`] | order, limits and fair turns of each customer |
//! | [`schedules`] | cron expressions, time zones, overlaps, missed times |
//! | [`large_arguments`] | bytes, files, and the limits of arguments and results |
//! | [`chains`] | one job after another, and fan-out with a last step |
//! | [`actors`] | jobs from actix actors, and outcomes as messages |
//! | [`blocking`] | code that computes or blocks: when to use [`BlockingAction`](crate::BlockingAction) |
//! | [`tests`] | how to test code that enqueues, and functions |
//! | [`tuning`] | parallelism, batches, threads, what costs what |
//! | [`file`](mod@file) | the durable file: where to put it, backups, full disks, upgrades |
//! | [`operations`] | logs, metrics, the dashboard, why a job waits |

pub mod actors;
pub mod blocking;
pub mod chains;
pub mod file;
pub mod idempotency;
pub mod keys;
pub mod large_arguments;
pub mod operations;
pub mod ordering;
pub mod priorities;
pub mod retries;
pub mod schedules;
pub mod shutdown;
pub mod tests;
pub mod tuning;
