//! Events, for the board, the listeners and the log.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{Finished, Name, PoolId, RunNumber, Segment, Spec, WorkId};

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
