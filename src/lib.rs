//! An actor-based work pool that lives inside your program.
//!
//! Other code enqueues *work*; the pool runs it with bounded parallelism, retries it, cancels it, tells someone when it
//! is done, and forgets nothing that it acknowledged.
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
//! Begin with [`Runtime::builder`], [`Action`] and [`Workpool::enqueue`].
//!
//! `ARCHITECTURE.md` tells how it is built.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

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
    ActionKey, Batch, Call, Diagnostics, Enqueue, EnqueueError, Function, JoinError, OneWork,
    PoolError, PoolStatus, QueryError, RunningWork, Watch, WorkBatch, WorkHandle, Workpool,
};
pub use engine::arrivals::{CancelAnswer, RetryAnswer, RunNowAnswer};
pub use engine::{Ahead, Basis, Expected, Explanation, Why};
pub use functions::{
    Action, ActionContext, BlockingAction, Completed, Completion, CompletionResult, Mutation,
    OnComplete, Query, Reader, Transaction, TransactionError, TransactionPool, WorkError,
};
pub use model::{
    Bytes, ConfigError, Cursor, FailedAttempt, Failure, FailureKind, FinishedWork, FunctionKind,
    History, ListedWork, LogLevel, MAX_DELAY, MAX_PARALLELISM, MAX_PAYLOAD_BYTES, Name, Outcome,
    OutcomeKind, Payload, PoolConfig, Progress, Report, Retention, RetryBehavior, RetryPolicy,
    Settings, TableKey, WorkFilter, WorkId, WorkPage, WorkStatus,
};
#[cfg(feature = "metrics")]
pub use observe::metrics;
pub use observe::telemetry;
pub use runtime::{Runtime, RuntimeBuilder, ShutdownReport, StartError};
#[doc(hidden)]
pub use testing::doctest;
