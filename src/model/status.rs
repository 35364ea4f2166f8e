//! The status of a job.

use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;

use super::{FinishedWork, millis};

/// The progress that an attempt has reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Progress {
    /// The part that is done, in units of the function's choice.
    pub done: u64,
    /// The whole, if that is known.
    pub total: Option<u64>,
    /// A note on the current step.
    pub note: Option<String>,
}

/// The status of a job.
///
/// ```
/// # use actix_workpool::doctest::{self, Double};
/// use actix_workpool::WorkStatus;
/// # doctest::run(async {
/// # let runtime = doctest::runtime().await?;
/// # let pool = runtime.pool("default")?;
/// let work = pool.enqueue(Double(21)).await?;
/// work.join().await?;
/// match work.status().await? {
///     WorkStatus::Pending { due, .. } => println!("waits until {due:?}"),
///     WorkStatus::Running { progress, .. } => println!("runs: {progress:?}"),
///     WorkStatus::Finished(done) => assert_eq!((done.outcome().as_str(), done.attempts()), ("success", 1)),
///     status => println!("{status:?}"),
/// }
/// # runtime.shutdown(std::time::Duration::ZERO).await;
/// # Ok(()) });
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
#[non_exhaustive]
pub enum WorkStatus {
    /// The job waits for its time or for a slot.
    Pending {
        /// The number of attempts that counted before.
        previous_attempts: u32,
        /// The time before which it is not started; `None` while that is not settled, or if its function is not
        /// registered here.
        #[serde(serialize_with = "millis")]
        due: Option<SystemTime>,
    },
    /// An attempt is running.
    Running {
        /// The number of attempts that counted before this one.
        previous_attempts: u32,
        /// The time of its start.
        #[serde(serialize_with = "millis")]
        started: SystemTime,
        /// The last progress that it has reported.
        progress: Option<Arc<Progress>>,
    },
    /// The job has an outcome.
    Finished(FinishedWork),
    /// No job of this id was ever enqueued here, or its outcome is forgotten.
    Unknown,
}

impl WorkStatus {
    /// Returns `true` if the status will not change any more.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, WorkStatus::Finished(_) | WorkStatus::Unknown)
    }
}
