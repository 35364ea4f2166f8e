//! Shutdown and deploys.
//!
//! [`Runtime::shutdown`](crate::Runtime::shutdown) stops all enqueues and starts, and gives running attempts a grace. Then it
//! tells their functions, drops what is left half a second later, and returns those jobs to the queue. This does not use an
//! attempt. It returns when everything is written, and reports what it did.
//!
//! ```
//! # use actix_workpool::doctest;
//! use std::time::Duration;
//!
//! # doctest::run(async {
//! # let runtime = doctest::runtime().await?;
//! let report = runtime.shutdown(Duration::from_secs(10)).await;
//! println!("{} ended, {} returned, {} wait", report.finished, report.returned, report.pending);
//! # Ok(()) });
//! ```
//!
//! The runtime's threads are its own. It does not matter what has stopped before: an actix-web server, the actix `System`, or
//! the tokio runtime. In an actix-web service,
//! [`Runtime::serve`](https://docs.rs/actix-workpool/latest/actix_workpool/struct.Runtime.html#method.serve) (feature
//! `actix-web`) runs the server until Ctrl-C or SIGTERM, and then ends both in order.
//!
//! # A function that takes long
//!
//! Watch for the end, and leave in time. What the function returns after it was told still counts: a result completes the job,
//! and [`WorkError::canceled`](crate::WorkError::canceled) returns it to the queue if the reason was a shutdown.
//!
//! ```
//! use actix_workpool::{ActionContext, WorkError};
//!
//! async fn import(rows: Vec<u64>, cx: ActionContext) -> Result<u64, WorkError> {
//!     let mut sum = 0;
//!     for (done, row) in rows.iter().enumerate() {
//!         if cx.is_canceled() {
//!             return Err(WorkError::canceled());
//!         }
//!         sum += row;
//!         cx.progress(done as u64 + 1, Some(rows.len() as u64));
//!         tokio::task::yield_now().await;
//!     }
//!     Ok(sum)
//! }
//! ```
//!
//! # What ends how
//!
//! | the process ends by | running attempts | waiting jobs in a file |
//! |---|---|---|
//! | `shutdown(grace)` | may finish; the rest returns to the queue, without using an attempt | wait |
//! | dropping the last `Runtime` | are told and returned; a warning is logged | wait |
//! | a panic in `main` | as above, when the runtime is dropped while unwinding | wait |
//! | `std::process::exit`, `kill -9`, power loss | are lost: each counts as a failed attempt at the next start | wait |
//!
//! In the memory store every job is gone with the process; the log says how many at shutdown.
//!
//! # Containers and two replicas
//!
//! Give the container more time than the grace: `terminationGracePeriodSeconds` of 30 for `shutdown(20 s)`, for example.
//!
//! A file belongs to one process at a time. During a rolling deploy the new replica waits for the old one:
//! [`Redb::open`](crate::storage::Redb::open) fails with [`StorageError::InUse`](crate::storage::StorageError::InUse). Either
//! deploy with the strategy *recreate*, or open the file again until it is free, as below. Two replicas that run side by side need
//! a file each, and each runs the jobs that it took.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use actix_workpool::storage::{Redb, StorageError};
//!
//! async fn open(path: &str) -> Result<Redb, StorageError> {
//!     loop {
//!         match Redb::open(path) {
//!             Err(StorageError::InUse) => tokio::time::sleep(Duration::from_millis(200)).await,
//!             opened => return opened,
//!         }
//!     }
//! }
//! ```
