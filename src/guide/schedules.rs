//! Schedules.
//!
//! A [`Schedule`](crate::Schedule) enqueues a job at the times of a cron expression, or of a fixed period. It belongs to the program: give
//! it to the builder at every start. What is stored of it is the last time that it has handled, and whether it is paused.
//!
//! ```
//! # actix_workpool::doctest::run(async {
//! use std::time::Duration;
//!
//! use actix_workpool::{ActionKey, PoolConfig, Runtime, Schedule};
//!
//! const CLEAN: ActionKey<(), ()> = ActionKey::new("clean");
//!
//! let runtime = Runtime::builder()
//!     .action_fn(CLEAN, |(), _| async { Ok(()) })
//!     .pool("upkeep", PoolConfig::default())
//!     .schedule(Schedule::every("clean", Duration::from_secs(15 * 60))?.job("upkeep", CLEAN.call(())))
//!     .schedule(
//!         Schedule::cron("deep clean", "30 3 * * SUN")?
//!             .zone("America/New_York")?
//!             .job("upkeep", CLEAN.call(())),
//!     )
//!     .start()
//!     .await?;
//! println!("{:?}", runtime.schedule("deep clean")?.next(3));
//! # runtime.shutdown(Duration::ZERO).await;
//! # Ok(()) });
//! ```
//!
//! # Each time once
//! The job and the note that its time was handled are one commit, and the job's id is made of the schedule's id and the time. So no time is
//! enqueued twice: not after a crash, not by two processes, not when the wall clock is set back. (A clock that was far ahead has handled
//! the times up to there; when it is set right, the schedule goes on from them.) What the job *does* is subject to the usual
//! rules: see [`idempotency`](super::idempotency).
//!
//! # Time zones
//! A cron expression is read in the schedule's zone, UTC by default. When clocks go forward, a time that is skipped fires at the first
//! instant after the gap; when they go back, a time that is repeated fires the first time. Expressions of every hour follow elapsed time
//! instead. [`Cron`](crate::Cron) says it precisely. The tz database is built into the program.
//!
//! # Overlaps
//! If the job of the time before has no outcome yet, [`Overlap`](crate::Overlap) decides: skip this time (the default), let one wait, let all
//! wait, or cancel the one before.
//!
//! # Missed times
//! If no process ran, times are missed. [`CatchUp`](crate::CatchUp) decides what happens at the next start: by default the last missed time
//! runs, if it was missed by no more than an hour. A new schedule has missed nothing, nor has one whose times were changed, or one that was
//! paused.
//!
//! # Watch and change
//! [`Runtime::schedules`](crate::Runtime::schedules) lists them, with their next times and last jobs; the dashboard has a page for them.
//! [`Runtime::schedule`](crate::Runtime::schedule) pauses, resumes and triggers one. One that the program no longer has is listed and does not
//! fire.
//!
//! A job that needs to know its time is made for it: [`Schedule::job_with`](crate::Schedule::job_with).
