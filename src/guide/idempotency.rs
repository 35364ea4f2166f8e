//! Idempotent actions and enqueues.
//!
//! # An action may run twice
//!
//! No queue can run code that reaches outside exactly once: if the process dies after the mail was sent and before that is
//! recorded, nobody knows. A job with retries runs *at least once*. Make its action idempotent, so that a second run does no harm.
//! The id of the job is the same in every attempt, which makes it a good key:
//!
//! ```
//! use actix_workpool::{Action, ActionContext, WorkError};
//! use serde::{Deserialize, Serialize};
//!
//! # struct Bank;
//! # impl Bank { async fn pay(&self, _: u64, _: &str) -> Result<(), String> { Ok(()) } }
//! #[derive(Serialize, Deserialize)]
//! struct Pay { cents: u64 }
//!
//! impl Action for Pay {
//!     const NAME: &'static str = "pay";
//!     type Output = ();
//!     async fn run(self, cx: ActionContext) -> Result<(), WorkError> {
//!         // The bank ignores a request whose key it knows.
//!         let key = cx.work_id().to_string();
//!         cx.data::<Bank>().pay(self.cents, &key).await?;
//!         Ok(())
//!     }
//! }
//! ```
//!
//! A job without retries runs *at most once*, apart from one that a shutdown drops midway and returns to the queue.
//!
//! # Exactly once: mutations
//!
//! A [`Mutation`](crate::Mutation) changes tables that live beside the jobs. Its writes, the jobs that it enqueues, and its completion
//! are one commit: all of it happens, or none, and it never happens twice.
//!
//! ```
//! use actix_workpool::{Mutation, Transaction, WorkError};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Deposit { account: String, cents: u64 }
//!
//! impl Mutation for Deposit {
//!     const NAME: &'static str = "deposit";
//!     type Output = u64;
//!     fn apply(self, tx: &mut Transaction<'_>) -> Result<u64, WorkError> {
//!         let balance = tx.get::<u64>("accounts", &self.account)?.unwrap_or(0) + self.cents;
//!         tx.put("accounts", &self.account, &balance)?;
//!         Ok(balance)
//!     }
//! }
//! ```
//!
//! # An enqueue may be repeated
//!
//! If the process dies before the answer to an enqueue, the caller cannot know whether the job is there. Choose the id, and enqueue
//! again: a job whose id is known, waiting or finished, is not enqueued a second time.
//!
//! ```
//! # use actix_workpool::doctest::{self, Double};
//! use actix_workpool::WorkId;
//!
//! # doctest::run(async {
//! # let runtime = doctest::runtime().await?;
//! let pool = runtime.pool("default")?;
//! let id = WorkId::from_name("invoice 2026-07");
//! let first = pool.enqueue(Double(21)).id(id).await?;
//! let second = pool.enqueue(Double(21)).id(id).await?;
//! assert!(first.is_new() && !second.is_new());
//! assert_eq!(second.join().await?, 42);
//! # runtime.shutdown(std::time::Duration::ZERO).await;
//! # Ok(()) });
//! ```
//!
//! [`Retention`](crate::Retention) sets how long finished jobs are known: a day and 100,000 jobs by default.
