//! Tuning.
//!
//! | to get | do |
//! |---|---|
//! | throughput of enqueues | [`enqueue_batch`](crate::Workpool::enqueue_batch): one message and one commit for all; or many callers at once, whose enqueues share a commit |
//! | throughput of short jobs | a `max_parallelism` well above the number of cores: a pool starts and completes up to 1,000 jobs per turn |
//! | limits for a service that is called | a pool of its own with a small `max_parallelism` |
//! | quick jobs beside slow ones | a pool each: pools do not wait for each other |
//! | an upper bound of memory | [`PoolConfig::max_pending`](crate::PoolConfig::max_pending); a full pool refuses with [`EnqueueError::Overloaded`](crate::EnqueueError::Overloaded). A waiting job takes about 214 bytes and its arguments |
//! | a file instead of memory at a small price | [`Durability::Process`](crate::storage::Durability::Process): no fsync; only a power loss loses the last moments |
//! | lower latency with a file | a disk with a fast fsync: an acknowledgement costs one |
//! | fewer threads | [`RuntimeBuilder::worker_arbiters`](crate::RuntimeBuilder::worker_arbiters), [`RuntimeBuilder::blocking_threads`](crate::RuntimeBuilder::blocking_threads) |
//!
//! Change a running pool with [`Workpool::update`](crate::Workpool::update), or on the dashboard:
//!
//! ```
//! # use actix_workpool::doctest;
//! use actix_workpool::PoolConfig;
//!
//! # doctest::run(async {
//! # let runtime = doctest::runtime().await?;
//! let pool = runtime.pool("default")?;
//! pool.update(PoolConfig::default().max_parallelism(50)).await?;
//! assert_eq!(pool.settings().max_parallelism, 50);
//! # runtime.shutdown(std::time::Duration::ZERO).await;
//! # Ok(()) });
//! ```
//!
//! The change is stored with the pool. What the program passes at its next start wins over what is stored, field by field.
