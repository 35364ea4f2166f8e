//! The row of a job and everything known about it.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    ArgBytes, History, Key, Name, Payload, PoolId, RetryBehavior, RunNumber, Running, Segment,
    WorkId,
};

/// The kind of function that a job runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FunctionKind {
    /// Runs on a worker, may reach outside, may be retried.
    Action,
    /// Runs inside the store's transaction, exactly once.
    Mutation,
    /// Reads the store and writes nothing.
    Query,
    /// An `on_complete` that has failed in the commit that completed its job, and is tried again as a job of its own.
    OnComplete,
}

impl FunctionKind {
    /// Returns the word used in logs and rows.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            FunctionKind::Action => "action",
            FunctionKind::Mutation => "mutation",
            FunctionKind::Query => "query",
            FunctionKind::OnComplete => "on_complete",
        }
    }
}

/// The `on_complete` that a job was enqueued with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OnCompleteCall {
    /// The registered name.
    pub name: Name,
    /// The value that the caller gave along, encoded.
    pub context: Payload,
}

/// The rarely used parts of a [`Spec`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SpecOptions {
    /// The `on_complete`, which runs in the completing commit.
    pub on_complete: Option<OnCompleteCall>,
    /// The retry policy, already resolved: enqueue before function before pool.
    pub retry: Option<RetryBehavior>,
    /// The time that an attempt may take, already resolved.
    pub timeout: Option<Duration>,
    /// The span in which the job was enqueued. Not stored.
    #[serde(skip)]
    pub span: SpanLink,
}

/// The span that an attempt follows from, if spans are recorded.
#[derive(Clone, Debug, Default)]
pub struct SpanLink(pub Option<tracing::Span>);

impl PartialEq for SpanLink {
    /// Always `true`: a link says where a job came from, not what it is.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// The part of a `work` row that never changes after the enqueue. Made by the handle, then shared.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// The job's id.
    pub work_id: WorkId,
    /// The job's pool.
    pub pool: PoolId,
    /// The kind of function.
    pub kind: FunctionKind,
    /// The function's registered name.
    pub function: Name,
    /// Its arguments, encoded.
    pub args: ArgBytes,
    /// The time of the enqueue.
    pub enqueued_at: Segment,
    /// The options that most jobs do without.
    pub options: Option<Box<SpecOptions>>,
}

impl Spec {
    /// Returns the retry policy, if there is one.
    #[must_use]
    pub fn retry(&self) -> Option<&RetryBehavior> {
        self.options.as_ref()?.retry.as_ref()
    }

    /// Returns the `on_complete`, which runs in the completing commit, if there is one.
    #[must_use]
    pub fn on_complete(&self) -> Option<&OnCompleteCall> {
        self.options.as_ref()?.on_complete.as_ref()
    }

    /// Returns the time that an attempt may take, if that is limited.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        self.options.as_ref()?.timeout
    }

    /// Returns the number of bytes of its arguments and of the context of its `on_complete`.
    pub(crate) fn bytes(&self) -> usize {
        self.args.as_bytes().len() + self.on_complete().map_or(0, |call| call.context.len())
    }

    /// Returns the number of attempts that may count in all.
    #[must_use]
    pub fn max_attempts(&self) -> u32 {
        self.retry().map_or(1, |retry| retry.max_attempts)
    }
}

/// Everything the tables say of one job, read together.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkFact {
    /// The job as it was enqueued.
    pub spec: Arc<Spec>,
    /// `work.attempts`: the number of finished attempts that counted.
    pub attempts: u32,
    /// `work.runs`: the number of launches.
    pub runs: RunNumber,
    /// `work.canceled`.
    pub canceled: bool,
    /// The row in `pending_start`, if there is one.
    pub pending_start: Option<Key>,
    /// The row in `running`, if there is one.
    pub running: Option<Running>,
    /// The row in `pending_completion`, if there is one; with `true` if the job will be retried.
    pub pending_completion: Option<(Key, bool)>,
    /// The row in `pending_cancelation`, if there is one.
    pub pending_cancelation: Option<Key>,
    /// `work.history`: its failed attempts.
    pub history: History,
}

impl WorkFact {
    /// Makes the facts of a job that is in no table but `work`.
    #[must_use]
    pub fn new(spec: Arc<Spec>) -> WorkFact {
        WorkFact {
            spec,
            attempts: 0,
            runs: 0,
            canceled: false,
            pending_start: None,
            running: None,
            pending_completion: None,
            pending_cancelation: None,
            history: History::default(),
        }
    }

    /// Returns `true` if the job was canceled, whether or not its pool has handled that yet.
    #[must_use]
    pub fn is_canceled(&self) -> bool {
        self.canceled || self.pending_cancelation.is_some()
    }

    /// Returns `true` if this run of the job is running and has not reported.
    #[must_use]
    pub fn awaits_report_of(&self, run: RunNumber) -> bool {
        self.running.is_some() && self.runs == run && self.pending_completion.is_none()
    }

    /// Returns the time at which the job is due, if it waits for that; `None` while its function is not registered.
    #[must_use]
    pub fn due(&self) -> Option<Segment> {
        let due = self.pending_start.map(|key| key.segment);
        due.filter(|due| *due != Segment::UNREGISTERED)
    }
}
