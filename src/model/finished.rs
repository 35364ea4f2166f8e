//! The row that is kept of a job that has ended.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{FailedAttempt, History, Name, Outcome, PoolId, Segment, Spec, WorkId};

/// The details that most rows of `finished` do without.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FinishedDetails {
    /// Its failed attempts.
    pub history: History,
    /// Its `on_complete`.
    pub on_complete: Option<Name>,
    /// The follow-up job that the `on_complete` became because it failed in the commit that completed this job.
    pub follow_up: Option<WorkId>,
    /// The new job as which this failed job was enqueued once more.
    #[serde(default)]
    pub retried_as: Option<WorkId>,
    /// The job as it was enqueued: kept of a job that failed, so that it can be enqueued again.
    #[serde(skip)]
    pub spec: Option<Arc<Spec>>,
}

impl FinishedDetails {
    /// Returns `None` if there is nothing to keep.
    #[must_use]
    pub fn if_any(self) -> Option<Box<FinishedDetails>> {
        (self != FinishedDetails::default()).then(|| Box::new(self))
    }
}

/// A row of `finished`. Written by the completing commit, deleted by retention.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    /// The job's id.
    pub work_id: WorkId,
    /// The job's pool.
    pub pool: PoolId,
    /// Its function.
    pub function: Name,
    /// The outcome.
    pub outcome: Outcome,
    /// The number of attempts that counted.
    pub attempts: u32,
    /// The time of the enqueue.
    pub enqueued_at: Segment,
    /// The time at which its last attempt started, if there was one.
    pub started: Option<Segment>,
    /// The time at which it completed.
    pub finished_at: Segment,
    /// The details that most jobs do without.
    pub details: Option<Box<FinishedDetails>>,
}

impl Finished {
    /// Returns `true` if the job has failed and its spec is kept.
    #[must_use]
    pub fn can_be_retried(&self) -> bool {
        self.details.as_ref().is_some_and(|details| details.spec.is_some())
    }

    /// Returns the new job as which this one was enqueued once more, if it was.
    #[must_use]
    pub fn retried_as(&self) -> Option<WorkId> {
        self.details.as_ref()?.retried_as
    }

    /// Returns the job's last failed attempts, the oldest first.
    #[must_use]
    pub fn failed_attempts(&self) -> &[FailedAttempt] {
        self.details.as_ref().map_or(&[], |details| details.history.attempts())
    }
}
