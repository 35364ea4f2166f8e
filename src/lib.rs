//! Background jobs for actix-web and tokio, in your process: crash-safe, without Redis or Postgres.
//!
//! Your code enqueues a *job*; a *pool* runs it with bounded parallelism, retries it, cancels it, tells you when it is done, and never
//! loses a job that it has accepted. Jobs live in memory, or in one file that survives crashes. There is nothing to deploy.
//!
//! ```
//! # actix_workpool::doctest::run(async {
//! use actix_workpool::{Action, ActionContext, PoolConfig, Runtime, WorkError};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Greet { name: String }
//!
//! impl Action for Greet {
//!     const NAME: &'static str = "greet";
//!     type Output = String;
//!     async fn run(self, _: ActionContext) -> Result<String, WorkError> {
//!         Ok(format!("hello {}", self.name))
//!     }
//! }
//!
//! let runtime = Runtime::builder()
//!     .action::<Greet>()
//!     .pool("default", PoolConfig::default().max_parallelism(4))
//!     .start()
//!     .await?;
//! let work = runtime.pool("default")?.enqueue(Greet { name: "Ada".into() }).await?;
//! assert_eq!(work.join().await?, "hello Ada");
//! runtime.shutdown(std::time::Duration::from_secs(5)).await;
//! # Ok(()) });
//! ```
//!
//! # Where to begin
//!
//! | to | see |
//! |---|---|
//! | define what a job does | [`Action`], [`BlockingAction`], [`Mutation`], [`Query`], closures by [`ActionKey`], [`OnComplete`] |
//! | start | [`Runtime::builder`], [`PoolConfig`], [`RetryBehavior`], [`Retention`], [`storage::Redb`] |
//! | enqueue | [`Workpool::enqueue`], [`Workpool::enqueue_batch`], [`Enqueue`] (id, delay, retry, timeout, `on_complete`), [`WorkId`] |
//! | follow a job | [`WorkHandle`]: `join`, `status`, `watch`, `explain`, `cancel`, `abort`, `retry`; [`WorkBatch`] |
//! | look at a pool | [`Workpool::works`], [`Workpool::diagnostics`], [`Workpool::running`], [`Workpool::update`] |
//! | end | [`Runtime::shutdown`] |
//! | test | [`testing`] |
//! | learn more | the [`guide`], one topic a page |
//!
//! # Guarantees
//!
//! - When `enqueue` has returned, the job is in the tables; with a file, it is synced to disk.
//! - Each job gets exactly one outcome: success, failed or canceled.
//! - Without retries an action runs at most once; with retries at least once, at most `max_attempts` times. A [`Mutation`] takes effect
//!   exactly once, and an [`OnComplete`] runs exactly once.
//! - No job starts before it is due. At most `max_parallelism` attempts of a pool run, also while that is changed.
//! - A panic, a hang and a thread that ends are failed attempts; none of them stops a pool or keeps a slot.
//! - A shutdown returns what runs to the queue without using an attempt.
//!
//! A simulation, a model checker and tests that kill real processes check this; `ARCHITECTURE.md` in the repository tells how.
//!
//! # Features
//!
//! | feature | |
//! |---|---|
//! | `redb` (default) | [`storage::Redb`], the durable file |
//! | `actix-web` | `web`: the dashboard, its JSON API, extractors, `Runtime::serve` |
//! | `metrics` | `metrics`: counters, gauges and histograms through the `metrics` facade |
//! | `testing` | [`testing`]: tools for your tests, for `[dev-dependencies]` |
//! | `unstable-storage` | the contract of a storage and its conformance suite, for authors of backends; may change in any release |
//!
//! `ops` is a part of `actix-web`, and `planted` is for this crate's own tests.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

/// `true` if that bug of [`testing::planted`] is switched on.
#[cfg(feature = "planted")]
macro_rules! planted {
    ($bug:ident) => {
        crate::testing::planted::is(crate::testing::planted::Bug::$bug)
    };
}
#[cfg(not(feature = "planted"))]
macro_rules! planted {
    ($bug:ident) => {
        false
    };
}

mod actors;
mod client;
#[cfg(feature = "unstable-storage")]
#[doc(hidden)]
pub mod engine;
#[cfg(not(feature = "unstable-storage"))]
mod engine;
mod functions;
pub mod guide;
#[cfg(feature = "unstable-storage")]
pub mod model;
#[cfg(not(feature = "unstable-storage"))]
mod model;
mod observe;
#[cfg(feature = "ops")]
mod ops;
mod protocol;
mod runtime;
mod shared;
pub mod storage;
mod store;
pub mod testing;
#[cfg(feature = "actix-web")]
pub mod web;

pub use actors::Recipient;
pub use client::{
    ActionKey, Batch, Call, Diagnostics, Enqueue, EnqueueError, Function, JoinError, KeyStatus,
    OneWork, PoolError, PoolStatus, QueryError, RunningWork, Schedule, ScheduleError,
    ScheduleHandle, ScheduleStatus, Watch, WorkBatch, WorkHandle, Workpool,
};
pub use engine::arrivals::{CancelAnswer, PriorityAnswer, RetryAnswer, RunNowAnswer};
pub use engine::{Ahead, Basis, Expected, Explanation, Why};
pub use functions::{
    Action, ActionContext, BlockingAction, Completed, Completion, CompletionResult, Mutation,
    OnComplete, Query, Reader, Transaction, TransactionError, TransactionPool, WorkError,
};
pub use model::{
    Bytes, CatchUp, ConfigError, Conflict, Cron, CronError, Cursor, Every, EveryError,
    FailedAttempt, Failure, FailureKind, FinishedWork, FunctionKind, History, KeyRule, ListedWork,
    LogLevel, MAX_DELAY, MAX_PARALLELISM, MAX_PAYLOAD_BYTES, Name, Outcome, OutcomeKind, Overlap,
    Payload, PoolConfig, Priority, Progress, Rate, Report, Retention, RetryBehavior, RetryPolicy,
    Settings, TableKey, Unique, WorkFilter, WorkId, WorkPage, WorkStatus,
};
#[cfg(feature = "metrics")]
pub use observe::metrics;
pub use observe::telemetry;
pub use runtime::{Runtime, RuntimeBuilder, ShutdownReport, StartError};
#[doc(hidden)]
pub use testing::doctest;
