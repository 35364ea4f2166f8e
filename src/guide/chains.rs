//! Chains: one job after another.
//!
//! # `on_complete`
//!
//! [`OnComplete`](crate::OnComplete) runs in the commit that completes a job, exactly once, whatever the outcome. It can write tables
//! and enqueue the next job, and both happen with the completion or not at all.
//!
//! ```
//! # use actix_workpool::doctest::{self, Double};
//! use actix_workpool::{
//!     Completion, CompletionResult, OnComplete, PoolConfig, Query, Reader, Runtime, Transaction,
//!     WorkError,
//! };
//! use serde::{Deserialize, Serialize};
//!
//! /// Doubles again, until the number is large enough.
//! struct Again;
//!
//! impl OnComplete for Again {
//!     const NAME: &'static str = "again";
//!     type Context = u64;
//!     type Output = u64;
//!     fn apply(tx: &mut Transaction<'_>, done: Completion<u64, u64>) -> Result<(), WorkError> {
//!         match done.result {
//!             CompletionResult::Success(number) if number < done.context => {
//!                 let next = tx.pool("default")?.enqueue(Double(number));
//!                 next.on_complete::<Again>(done.context).submit()?;
//!             }
//!             CompletionResult::Success(number) => tx.put("results", "last", &number)?,
//!             CompletionResult::Failed(_) | CompletionResult::Canceled => {}
//!         }
//!         Ok(())
//!     }
//! }
//!
//! #[derive(Serialize, Deserialize)]
//! struct Last;
//!
//! impl Query for Last {
//!     const NAME: &'static str = "last";
//!     type Output = Option<u64>;
//!     fn read(self, reader: &mut Reader<'_>) -> Result<Option<u64>, WorkError> {
//!         Ok(reader.get("results", "last")?)
//!     }
//! }
//!
//! # doctest::run(async {
//! let runtime = Runtime::builder()
//!     .action::<Double>()
//!     .on_complete::<Again>()
//!     .query::<Last>()
//!     .pool("default", PoolConfig::default())
//!     .start()
//!     .await?;
//! let pool = runtime.pool("default")?;
//! pool.enqueue(Double(3)).on_complete::<Again>(50).await?;
//! pool.idle().await?; // No job is left, the whole chain included.
//! assert_eq!(runtime.query(Last).await?, Some(96));
//! # runtime.shutdown(std::time::Duration::ZERO).await;
//! # Ok(()) });
//! ```
//!
//! If an `on_complete` fails or panics, its own writes are undone, the job still completes, and the call becomes a job of its own,
//! which is retried.
//!
//! # From an action
//!
//! An action enqueues through [`ActionContext::pool`](crate::ActionContext::pool). Those jobs stay, whatever becomes of the attempt, and
//! a second attempt enqueues them again: choose their ids, for example `WorkId::from_name(&format!("{}/2", cx.work_id()))`.
//!
//! # Fan-out with a last step
//!
//! Count in a table: each part's `on_complete` decrements the counter, and the one that reaches zero enqueues the last step. Because
//! it runs exactly once per job, the count is right.
