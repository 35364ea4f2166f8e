//! The row that is kept of a job that has ended.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Serialize, Serializer};

use super::{FailedAttempt, History, Name, Outcome, PoolId, Segment, Spec, WorkId};

/// The details that most rows of `finished` do without.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct FinishedDetails {
    /// Its failed attempts.
    pub history: History,
    /// Its `on_complete`.
    pub on_complete: Option<Name>,
    /// The follow-up job that the `on_complete` became because it failed in the commit that completed this job.
    pub follow_up: Option<WorkId>,
    /// The new job as which this failed job was enqueued once more.
    pub retried_as: Option<WorkId>,
    /// The job as it was enqueued: kept of a job that failed, so that it can be enqueued again.
    pub spec: Option<Spec>,
}

impl FinishedDetails {
    /// Returns `None` if there is nothing to keep.
    #[must_use]
    pub fn if_any(self) -> Option<Box<FinishedDetails>> {
        (self != FinishedDetails::default()).then(|| Box::new(self))
    }
}

/// A row of `finished`. Written by the completing commit, deleted by retention.
#[derive(Clone, Debug, PartialEq)]
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

/// A job that has an outcome.
///
/// Cheap to clone. It serializes with times in milliseconds since the Unix epoch.
#[derive(Clone, PartialEq)]
pub struct FinishedWork(Arc<Finished>);

impl FinishedWork {
    /// Returns the job's id.
    #[must_use]
    pub fn id(&self) -> WorkId {
        self.0.work_id
    }

    /// Returns the name of its function.
    #[must_use]
    pub fn function(&self) -> Name {
        self.0.function
    }

    /// Returns the outcome.
    #[must_use]
    pub fn outcome(&self) -> &Outcome {
        &self.0.outcome
    }

    /// Returns the number of attempts that counted.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.0.attempts
    }

    /// Returns the time of the enqueue.
    #[must_use]
    pub fn enqueued_at(&self) -> SystemTime {
        self.0.enqueued_at.time()
    }

    /// Returns the time at which its last attempt started; `None` if it had none.
    #[must_use]
    pub fn started(&self) -> Option<SystemTime> {
        self.0.started.map(Segment::time)
    }

    /// Returns the time at which it completed.
    #[must_use]
    pub fn finished_at(&self) -> SystemTime {
        self.0.finished_at.time()
    }

    /// Returns its last failed attempts, the oldest first; at most [`History::MOST`].
    #[must_use]
    pub fn failed_attempts(&self) -> &[FailedAttempt] {
        self.0.failed_attempts()
    }

    /// Returns the name of its `on_complete`, if it had one.
    #[must_use]
    pub fn on_complete(&self) -> Option<Name> {
        self.0.details.as_ref()?.on_complete
    }

    /// Returns the job that its `on_complete` became because it failed in the commit that completed this job.
    #[must_use]
    pub fn follow_up(&self) -> Option<WorkId> {
        self.0.details.as_ref()?.follow_up
    }

    /// Returns `true` if it has failed and can be enqueued once more ([`Workpool::retry`](crate::Workpool::retry)).
    #[must_use]
    pub fn can_be_retried(&self) -> bool {
        self.0.can_be_retried()
    }

    /// Returns the new job as which it was enqueued once more, if it was.
    #[must_use]
    pub fn retried_as(&self) -> Option<WorkId> {
        self.0.retried_as()
    }

    /// Returns the row.
    pub(crate) fn row(&self) -> &Arc<Finished> {
        &self.0
    }
}

impl From<Arc<Finished>> for FinishedWork {
    fn from(row: Arc<Finished>) -> FinishedWork {
        FinishedWork(row)
    }
}

impl fmt::Debug for FinishedWork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FinishedWork")
            .field("id", &self.id())
            .field("function", &self.function())
            .field("outcome", self.outcome())
            .field("attempts", &self.attempts())
            .field("failed_attempts", &self.failed_attempts())
            .finish_non_exhaustive()
    }
}

impl Serialize for FinishedWork {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Fields<'a> {
            work_id: WorkId,
            function: Name,
            outcome: &'a Outcome,
            attempts: u32,
            enqueued_at: Segment,
            started: Option<Segment>,
            finished_at: Segment,
            failed_attempts: &'a [FailedAttempt],
            on_complete: Option<Name>,
            follow_up: Option<WorkId>,
            retried_as: Option<WorkId>,
        }
        let Finished { work_id, function, ref outcome, attempts, .. } = *self.0;
        let Finished { enqueued_at, started, finished_at, .. } = *self.0;
        let fields = Fields {
            work_id,
            function,
            outcome,
            attempts,
            enqueued_at,
            started,
            finished_at,
            failed_attempts: self.failed_attempts(),
            on_complete: self.on_complete(),
            follow_up: self.follow_up(),
            retried_as: self.retried_as(),
        };
        fields.serialize(serializer)
    }
}
