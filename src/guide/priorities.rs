//! Priorities and rates.
//!
//! # Priorities
//! Of the jobs of a pool that are due, the one with the smallest [`Priority`](crate::Priority) starts first. There are three with
//! names, and 256 in all. A job keeps its priority across retries; [`set_priority`](crate::WorkHandle::set_priority) changes it while
//! the job waits.
//!
//! ```
//! # use actix_workpool::doctest::{self, Double};
//! # doctest::run(async {
//! # let runtime = doctest::runtime().await?;
//! # let pool = runtime.pool("default")?;
//! use actix_workpool::Priority;
//!
//! pool.enqueue(Double(1)).priority(Priority::HIGH).await?;
//! pool.enqueue_batch([Double(2), Double(3)]).priority(Priority::new(40)).await?;
//! # runtime.shutdown(std::time::Duration::ZERO).await;
//! # Ok(()) });
//! ```
//!
//! Priorities are strict: while better jobs keep coming, worse ones wait. Where that is not wanted, let jobs gain a priority for each
//! span that they wait, or give each kind a pool of its own: a pool's slots are its own.
//!
//! ```
//! use std::time::Duration;
//!
//! use actix_workpool::PoolConfig;
//!
//! // A job of Priority::LOW is as good as a new normal one after ten minutes.
//! let config = PoolConfig::default().aging(Duration::from_secs(60));
//! # assert!(config.validate().is_ok());
//! ```
//!
//! # Rates
//! [`PoolConfig::rate`](crate::PoolConfig::rate) limits how fast jobs *start*: every attempt counts, also a retry. A job that has to
//! wait is started when the rate admits it; no attempt is made before to find out, and none is charged. The rate holds across restarts,
//! and [`update`](crate::Workpool::update) changes it for the next start. A job that costs more than the rate admits at the moment waits
//! at the head of the pool, and those behind it, until the rate admits it: nothing overtakes it, so that it is not overtaken for ever.
//!
//! ```
//! # use actix_workpool::doctest::{self, Double};
//! # doctest::run(async {
//! # let runtime = doctest::runtime().await?;
//! use actix_workpool::{PoolConfig, Rate};
//!
//! // What the partner allows: 5 requests in a second, 10 at once after a pause.
//! let config = PoolConfig::default().rate(Rate::per_second(5).burst(10));
//! let partner = runtime.create_pool("partner", config).await?;
//! partner.enqueue(Double(1)).await?;
//! partner.enqueue(Double(2)).cost(3).await?; // counts as three
//! # runtime.shutdown(std::time::Duration::ZERO).await;
//! # Ok(()) });
//! ```
//!
//! A server that has had enough says so: "429 Too Many Requests", with `Retry-After`. Return
//! [`WorkError::limit_pool`](crate::WorkError::limit_pool), and no job of the pool starts until then; this attempt does not count. To
//! delay only the job itself, return [`WorkError::snooze`](crate::WorkError::snooze).
//!
//! ```
//! use std::time::Duration;
//!
//! use actix_workpool::WorkError;
//!
//! fn check(status: u16, retry_after: Option<u64>) -> Result<(), WorkError> {
//!     match status {
//!         200..300 => Ok(()),
//!         429 => Err(WorkError::limit_pool(Duration::from_secs(retry_after.unwrap_or(30)))),
//!         _ => Err(WorkError::retryable(format!("the partner answers {status}"))),
//!     }
//! }
//! # assert!(check(200, None).is_ok() && check(429, None).is_err() && check(500, None).is_err());
//! ```
//!
//! [`explain`](crate::Workpool::explain) tells of a job that waits that it waits for the rate, and until when.
