//! Ordering.
//!
//! Jobs of a pool *start* in the order of their [priorities](super::priorities), of each in the order of the time for which they
//! are due, then in the order in which they were committed. Jobs with [keys](super::keys) start in turn. No job starts before its
//! time. Several run side by side, so they *end* in any order, and a retry comes later than the jobs that were enqueued meanwhile.
//! Pools know nothing of each other.
//!
//! For a strict order of the jobs of each customer, account or file, set [`KeyRule::ordered`](crate::KeyRule::ordered) for the pool
//! and give the jobs [keys](super::keys): jobs of different keys still run side by side. For a strict order of all jobs of a pool,
//! use a pool with one slot and no retries, or retries within the function:
//!
//! ```
//! # use actix_workpool::doctest;
//! use std::sync::{Arc, Mutex};
//!
//! use actix_workpool::{ActionKey, PoolConfig, Runtime};
//!
//! const APPEND: ActionKey<u32, ()> = ActionKey::new("append");
//!
//! # doctest::run(async {
//! let lines = Arc::new(Mutex::new(Vec::new()));
//! let log = lines.clone();
//! let runtime = Runtime::builder()
//!     .action_fn(APPEND, move |line, _| {
//!         log.lock().unwrap().push(line);
//!         async { Ok(()) }
//!     })
//!     .pool("log", PoolConfig::default().max_parallelism(1))
//!     .start()
//!     .await?;
//! let works = runtime.pool("log")?.enqueue_batch((0..100).map(|line| APPEND.call(line))).await?;
//! works.join().await;
//! assert!(lines.lock().unwrap().is_sorted());
//! # runtime.shutdown(std::time::Duration::ZERO).await;
//! # Ok(()) });
//! ```
//!
//! Mutations run one at a time, in the order of their starts, and see each other's writes.
//!
//! A job can also start the next one: see [`chains`](super::chains).
