//! Events, for the board, the listeners and the log.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{Finished, LogLevel, Name, PoolId, RunNumber, Segment, Spec, WorkId};

/// Something that a group has done, told when the group is committed.
pub(crate) enum Event {
    Enqueued {
        spec: Arc<Spec>,
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
    /// A failed job was enqueued once more: its row says so.
    Retried {
        finished: Arc<Finished>,
    },
    /// Its wait was ended.
    Moved {
        work_id: WorkId,
        due: Segment,
        attempts: u32,
    },
}

/// The level at which a pool's events about single jobs are logged; `None` if they are not.
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
