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
//! # Several enqueues, one job
//!
//! An id is for *one* enqueue that may be repeated. Often several enqueues mean the same thing, and one job is enough: ten changes of
//! a document, one rebuild of its index. Give them a [unique key](crate::Unique):
//!
//! | | [`id`](crate::Enqueue::id) | [`unique`](crate::Enqueue::unique) |
//! |---|---|---|
//! | names | one job, for ever | what jobs are about; one job after the other has it |
//! | is taken | while the job or its outcome is known | while the job waits, until it has finished, or for a time |
//! | found taken | nothing is enqueued | nothing is enqueued, or the job that waits is replaced or debounced |
//! | scope | the whole store | the pool |
//!
//! Both can be combined. Decided in the commit, two enqueues at the same moment never both win: also not from two transactions.
//!
//! ```
//! # use actix_workpool::doctest::{self, Double};
//! use actix_workpool::{Conflict, Unique};
//! use std::time::Duration;
//!
//! # doctest::run(async {
//! # let runtime = doctest::runtime().await?;
//! let pool = runtime.pool("default")?;
//! let index = || Unique::key("index of document 7").while_waiting();
//! let soon = Duration::from_millis(20);
//! pool.enqueue(Double(1)).run_after(soon).unique(index()).await?;
//! // The newest arguments win.
//! let newest = pool.enqueue(Double(2)).unique(index()).on_conflict(Conflict::Replace).await?;
//! assert!(!newest.is_new());
//! assert_eq!(newest.join().await?, 4);
//! # runtime.shutdown(std::time::Duration::ZERO).await;
//! # Ok(()) });
//! ```
//!
//! With [`while_waiting`](crate::Unique::while_waiting), a change during the run enqueues the next run: nothing is missed. With
//! [`until_finished`](crate::Unique::until_finished) such a change is not seen, and nothing of a key runs beside another.
//!
//! [`Retention`](crate::Retention) sets how long finished jobs are known: a day and 100,000 jobs by default.
