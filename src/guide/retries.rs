//! Retries and errors.
//!
//! A function fails an attempt by returning a [`WorkError`](crate::WorkError), by a panic, or by exceeding its timeout. By default a
//! job has one attempt. A retry policy gives it more: that of the enqueue wins over that of the function, and that over the pool's.
//!
//! ```
//! # use actix_workpool::doctest;
//! use std::time::Duration;
//!
//! use actix_workpool::{ActionKey, JoinError, PoolConfig, RetryBehavior, Runtime, WorkError};
//!
//! const CALL: ActionKey<String, ()> = ActionKey::new("call_webhook");
//!
//! # doctest::run(async {
//! let retry = RetryBehavior::default().max_attempts(3).initial_backoff(Duration::from_millis(5));
//! let runtime = Runtime::builder()
//!     .action_fn(CALL, |url, _| async move {
//!         match url.as_str() {
//!             // No retry can mend this.
//!             "" => Err(WorkError::non_retryable("the URL is empty")),
//!             // The server has said when to come back.
//!             "busy" => Err(WorkError::retry_after(Duration::from_millis(1), "429")),
//!             // `?` and `into` take every error, and may be retried.
//!             url => Err(format!("{url}: connection refused").into()),
//!         }
//!     })
//!     .pool("webhooks", PoolConfig::default().default_retry(retry))
//!     .start()
//!     .await?;
//! let pool = runtime.pool("webhooks")?;
//!
//! let outcome = pool.enqueue(CALL.call(String::new())).await?.join().await;
//! assert!(matches!(outcome, Err(JoinError::Failed { attempts: 1, .. })));
//! let outcome = pool.enqueue(CALL.call("https://example.org".into())).await?.join().await;
//! assert!(matches!(outcome, Err(JoinError::Failed { attempts: 3, .. })));
//! # runtime.shutdown(Duration::ZERO).await;
//! # Ok(()) });
//! ```
//!
//! # Backoff
//!
//! Retry *n* waits `initial_backoff · base^(n-1) · U[0.5, 1.5)`, at most [`RetryBehavior::MAX_BACKOFF`](crate::RetryBehavior::MAX_BACKOFF).
//! By default that is 250 ms and base 2, with 5 attempts in all. The random factor keeps jobs that failed together apart.
//!
//! # What counts as an attempt
//!
//! | what happens | counts | another attempt |
//! |---|---|---|
//! | an error, a panic, a timeout | yes | if attempts are left |
//! | [`WorkError::non_retryable`](crate::WorkError::non_retryable), arguments that do not decode, missing `data` | yes | no |
//! | [`WorkError::snooze`](crate::WorkError::snooze): "come back later" | no | yes |
//! | a shutdown returns the job | no | yes, at the next start |
//! | the process dies | yes | if attempts are left |
//! | a mutation was running when the process died | no | yes; after 16 crashes the job fails |
//!
//! # Timeouts
//!
//! [`PoolConfig::attempt_timeout`](crate::PoolConfig::attempt_timeout), `TIMEOUT` of the function, or
//! [`Enqueue::timeout`](crate::Enqueue::timeout) end an attempt. The future is dropped, and the slot is free even if the function
//! blocks its thread and never comes back.
//!
//! # After the last attempt
//!
//! The job has failed: [`join`](crate::WorkHandle::join) returns the failure, the log has one warning, its `on_complete` is told, and
//! the last 16 failed attempts stay in its status until retention deletes it. [`Workpool::retry`](crate::Workpool::retry) or the
//! dashboard enqueues it once more, as a new job.
