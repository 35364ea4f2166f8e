//! Events of the store, for the board, the listeners and the log.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{Finished, LogLevel, Name, PoolId, RunNumber, Segment, Spec, WorkId};

/// A change that a group has made, reported when the group is committed.
pub(crate) enum Event {
    Enqueued {
        spec: Spec,
        due: Segment,
    },
    Retrying {
        work_id: WorkId,
        pool: PoolId,
        function: Option<Name>,
        due: Segment,
        attempts: u32,
    },
    Completed {
        finished: Arc<Finished>,
    },
    Stale {
        work_id: WorkId,
        run: RunNumber,
    },
    OnCompleteFailed {
        work_id: WorkId,
        pool: PoolId,
        name: Name,
        follow_up: WorkId,
    },
    SlowMutation {
        function: Name,
        took: Duration,
    },
    Unregistered {
        work_id: WorkId,
        pool: PoolId,
    },
    /// A failed job was enqueued once more, and its row was updated.
    Retried {
        finished: Arc<Finished>,
    },
    /// The job's wait was ended by `run_now`.
    Moved {
        work_id: WorkId,
        due: Segment,
        attempts: u32,
    },
}

/// Returns the log level of a pool's events about single jobs; `None` if they are not logged.
pub(crate) fn job_level(pool: LogLevel) -> Option<tracing::Level> {
    let level = match pool {
        LogLevel::Trace | LogLevel::Debug | LogLevel::Info => tracing::Level::INFO,
        LogLevel::Report => tracing::Level::DEBUG,
        LogLevel::Warn | LogLevel::Error => return None,
    };
    let is_seen = match level {
        tracing::Level::INFO => tracing::enabled!(target: "actix_workpool", tracing::Level::INFO),
        _ => tracing::enabled!(target: "actix_workpool", tracing::Level::DEBUG),
    };
    is_seen.then_some(level)
}
