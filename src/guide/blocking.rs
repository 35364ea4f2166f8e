//! Code that computes or blocks.
//!
//! An async [`Action`](crate::Action) shares its thread with others, one thread per core. Between two `.await`s it should take less than
//! about a millisecond. For everything else there is [`BlockingAction`](crate::BlockingAction), a plain function on a thread for
//! blocking work: hashing, compression, image processing, file I/O, a synchronous database driver.
//!
//! ```
//! # use actix_workpool::doctest;
//! use actix_workpool::{ActionContext, BlockingAction, PoolConfig, Runtime, WorkError};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct CountPrimes { below: u64 }
//!
//! impl BlockingAction for CountPrimes {
//!     const NAME: &'static str = "count_primes";
//!     type Output = u64;
//!     fn run(self, cx: &ActionContext) -> Result<u64, WorkError> {
//!         let mut count = 0;
//!         for number in 2..self.below {
//!             // A blocking function cannot be dropped: it must look for itself.
//!             if cx.is_canceled() {
//!                 return Err(WorkError::canceled());
//!             }
//!             count += u64::from((2..number).all(|divisor| number % divisor != 0));
//!         }
//!         Ok(count)
//!     }
//! }
//!
//! # doctest::run(async {
//! let cores = std::thread::available_parallelism()?.get();
//! let runtime = Runtime::builder()
//!     .blocking_action::<CountPrimes>()
//!     .pool("cpu", PoolConfig::default().max_parallelism(cores))
//!     .start()
//!     .await?;
//! assert_eq!(runtime.pool("cpu")?.enqueue(CountPrimes { below: 100 }).await?.join().await?, 25);
//! # runtime.shutdown(std::time::Duration::ZERO).await;
//! # Ok(()) });
//! ```
//!
//! # If an async action blocks all the same
//!
//! Others are not delayed: attempts that wait on a thread that does not turn go to another thread, and if there is none, the runtime
//! makes one (64 at most; they end when they are idle). The log names the function and how long it blocked, once a minute at most, and
//! `workpool_blocked_threads_total` counts. Treat that as a bug to fix: the blocked thread also holds up the other futures that have
//! begun on it.
//!
//! # Inside an async action
//!
//! For one blocking call in the middle of an async action, `tokio::task::spawn_blocking` does as well.
