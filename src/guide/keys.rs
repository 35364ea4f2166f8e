//! Keys: order, limits and fair turns of each customer, tenant or account.
//!
//! A job may have a key: whom or what it is for. Jobs of one key share what the pool sets for each key, and have turns with those
//! of other keys.
//!
//! ```
//! # use actix_workpool::{Runtime, doctest::{self, Double}};
//! # doctest::run(async {
//! use actix_workpool::{KeyRule, PoolConfig, Rate};
//!
//! let rule = KeyRule::default().parallelism(2).rate(Rate::per_minute(60));
//! let runtime = Runtime::builder()
//!     .action::<Double>()
//!     .pool("sync", PoolConfig::default().max_parallelism(50).per_key(rule))
//!     .start()
//!     .await?;
//! let pool = runtime.pool("sync")?;
//! pool.enqueue(Double(1)).key("user-42").await?;
//! pool.enqueue_batch((0..100).map(Double)).keyed_by(|Double(n)| format!("user-{}", n % 7)).await?;
//! pool.enqueue(Double(2)).key("company-7").weight(3).await?; // pays for three turns in each round
//! # pool.idle().await?;
//! # runtime.shutdown(std::time::Duration::ZERO).await;
//! # Ok(()) });
//! ```
//!
//! | rule | what holds |
//! |---|---|
//! | none | fair turns: while several keys have jobs, these start in turn, so that a key with a million jobs delays a job of another key by one round at most |
//! | [`parallelism(n)`](crate::KeyRule::parallelism) | at most n jobs of a key run at once; a job that waits for a retry lets others pass |
//! | [`ordered()`](crate::KeyRule::ordered) | one after another, strictly in the order of their enqueues: the next one starts when the one before has its outcome, also across retries, snoozes, delays and crashes |
//! | [`rate(..)`](crate::KeyRule::rate) | attempts of a key start no faster |
//!
//! What waits for its key takes no slot, and slows down nobody else, however much of it there is. The rules can be changed by
//! [`update`](crate::Workpool::update); they hold from the next start on. They are exact, across restarts as well.
//!
//! Any bytes may be a key, 1 to 256 of them; keys need not be registered, and a pool may have millions. A key without jobs takes no
//! memory. A key is stored with its job and shown on the dashboard, where it can be redacted; it is in no log and no metric. A
//! [unique key](crate::Unique) is something else: it says that there is one job of it, and has no turns.
//!
//! # Turns
//! Turns are among jobs of the same [priority](super::priorities): a better priority comes first, whatever its key. Jobs without a
//! key, and those that have waited for their time, take turns with all the others: one of these starts, then one of those. The
//! [weight](crate::Enqueue::weight) of a key, 1 to 1,000, is the number of
//! its turns in a round.
//!
//! # Keys that rest
//! "429 Too Many Requests, Retry-After: 30" for one customer: return [`WorkError::limit_key`](crate::WorkError::limit_key), and no
//! job of this key starts until then. The attempt does not count, and other keys go on.
//!
//! ```
//! use std::time::Duration;
//!
//! use actix_workpool::WorkError;
//!
//! fn check(status: u16) -> Result<(), WorkError> {
//!     match status {
//!         429 => Err(WorkError::limit_key(Duration::from_secs(30))),
//!         _ => Ok(()),
//!     }
//! }
//! # assert!(check(200).is_ok() && check(429).is_err());
//! ```
//!
//! # A job that blocks its key
//! In an ordered key everything waits for the job at the head: give it a timeout, and not too many attempts. If its function is not
//! registered, its key waits for that. [`explain`](crate::Workpool::explain) tells of a job which one of its key runs and how many
//! are ahead; [`busiest_keys`](crate::Workpool::busiest_keys) lists the keys with the most waiting jobs. Cancel the job at the
//! head, and the next one starts.
