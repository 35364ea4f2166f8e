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
//! How it is built is told in `ARCHITECTURE.md`.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// Whether that bug of [`planted`] is switched on.
#[cfg(feature = "planted")]
macro_rules! planted {
    ($bug:ident) => {
        crate::planted::is(crate::planted::Bug::$bug)
    };
}
#[cfg(not(feature = "planted"))]
macro_rules! planted {
    ($bug:ident) => {
        false
    };
}

mod actors;
mod board;
mod clock;
mod committer;
mod config;
mod context;
#[doc(hidden)]
pub mod doctest;
#[doc(hidden)]
pub mod engine;
mod enqueue;
mod error;
mod explain;
mod figures;
mod function;
mod handle;
mod list;
#[cfg(feature = "metrics")]
pub mod metrics;
#[cfg(not(feature = "metrics"))]
mod metrics;
pub mod model;
#[cfg(feature = "planted")]
#[doc(hidden)]
pub mod planted;
mod pool;
mod registry;
mod runtime;
mod shared;
pub mod storage;
mod sync;
pub mod telemetry;
#[cfg(all(test, shuttle))]
mod threads;
mod transaction;
#[cfg(feature = "actix-web")]
pub mod web;

pub use actors::Recipient;
#[cfg(feature = "conformance")]
#[doc(hidden)]
pub use actors::post;
pub use board::{Progress, WorkStatus};
pub use clock::{Clock, SystemClock};
pub use config::{
    LogLevel, MAX_DELAY, MAX_PARALLELISM, MAX_PAYLOAD_BYTES, PoolConfig, Retention, Settings,
};
pub use context::ActionContext;
pub use engine::arrivals::{CancelAnswer, RetryAnswer, RunNowAnswer};
pub use enqueue::{Batch, Enqueue, OneWork};
pub use error::{
    ConfigError, EnqueueError, JoinError, PoolError, QueryError, StartError, WorkError,
};
pub use explain::{Ahead, Basis, Expected, Explanation, Why};
pub use function::{
    Action, ActionKey, BlockingAction, Call, Completed, Completion, CompletionResult, Function,
    Mutation, OnComplete, Query, RetryPolicy, kind,
};
pub use handle::{Watch, WorkBatch, WorkHandle};
pub use list::{Cursor, ListedWork, OutcomeKind, WorkFilter, WorkPage};
pub use model::{
    FailedAttempt, Failure, FailureKind, Finished, FinishedDetails, FunctionKind, History, Name,
    Outcome, Payload, PoolId, Report, RetryBehavior, RunStatus, Segment, TableKey, WorkId,
};
pub use pool::{Diagnostics, RunningWork, Workpool};
pub use runtime::{Runtime, RuntimeBuilder, ShutdownReport};
pub use transaction::{Reader, Transaction, TransactionError, TransactionPool};
