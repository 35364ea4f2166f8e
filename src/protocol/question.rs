//! Requests that change no job.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::Reply;
use crate::engine::explain::Found;
use crate::model::{
    Counts, Failure, Finished, LaneRow, Name, Payload, PoolId, ScheduleRow, WorkFilter, WorkId,
    WorkKey, WorkPage, WorkStatus,
};
use crate::storage::StorageError;

/// Called once with the outcome of a job.
pub(crate) type OnFinish = Box<dyn FnOnce(&Arc<Finished>) + Send>;

/// A request that changes nothing. The store answers it after the group that it arrives with.
///
/// A new question needs a variant here, an arm in [`Question::is_abandoned`] and [`Question::refuse`], an answer in
/// `store/answer.rs`, and an operation of the `Client`.
pub(crate) enum Question {
    Statuses {
        work_ids: Vec<WorkId>,
        reply: Reply<Vec<WorkStatus>>,
    },
    /// Asks for all facts in the tables about why a job waits.
    Explain {
        work_id: WorkId,
        reply: Reply<Found>,
    },
    Works {
        filter: WorkFilter,
        reply: Reply<Listing>,
    },
    /// Asks for the outcome of a job, now or when it has one; `None` if the job is not known.
    Listen {
        work_id: WorkId,
        listener: Listener,
    },
    /// Asks the store to send a job's status to its watchers on the board.
    Observe {
        work_id: WorkId,
    },
    Query {
        function: Name,
        args: Vec<u8>,
        reply: Reply<Result<Payload, Failure>>,
    },
    /// Asks for the number of a pool's rows, and for its functions that are not registered here.
    Counts {
        pool: PoolId,
        reply: Reply<(Counts, Vec<Name>)>,
    },
    /// Asks for the keys of a pool with the most waiting jobs.
    Keys {
        pool: PoolId,
        limit: usize,
        reply: Reply<Vec<(WorkKey, LaneRow)>>,
    },
    /// Asks for all schedules that are stored.
    Schedules {
        reply: Reply<Vec<(String, ScheduleRow)>>,
    },
}

impl Question {
    /// Returns `true` if nobody waits for the answer any more.
    pub fn is_abandoned(&self) -> bool {
        match self {
            Question::Statuses { reply, .. } => reply.is_closed(),
            Question::Explain { reply, .. } => reply.is_closed(),
            Question::Works { reply, .. } => reply.is_closed(),
            Question::Query { reply, .. } => reply.is_closed(),
            Question::Counts { reply, .. } => reply.is_closed(),
            Question::Keys { reply, .. } => reply.is_closed(),
            Question::Schedules { reply } => reply.is_closed(),
            Question::Listen { .. } | Question::Observe { .. } => false,
        }
    }

    /// Tells the caller that the storage failed. Returns the question if it must be asked again.
    pub fn refuse(self, error: StorageError) -> Option<Question> {
        match self {
            Question::Statuses { reply, .. } => drop(reply.send(Err(error))),
            Question::Explain { reply, .. } => drop(reply.send(Err(error))),
            Question::Works { reply, .. } => drop(reply.send(Err(error))),
            Question::Query { reply, .. } => drop(reply.send(Err(error))),
            Question::Counts { reply, .. } => drop(reply.send(Err(error))),
            Question::Keys { reply, .. } => drop(reply.send(Err(error))),
            Question::Schedules { reply } => drop(reply.send(Err(error))),
            kept @ (Question::Listen { .. } | Question::Observe { .. }) => return Some(kept),
        }
        None
    }
}

/// A caller that waits for the outcome of a job.
pub(crate) enum Listener {
    /// A join: gets the outcome, or `None` if the job is not known.
    Join(Reply<Option<Arc<Finished>>>),
    /// A notification: gets the outcome.
    Notify(OnFinish),
}

impl Listener {
    /// Sends the outcome. A notification runs user code; a panic there is caught.
    pub fn tell(self, row: Option<&Arc<Finished>>) {
        match (self, row) {
            (Listener::Join(reply), row) => drop(reply.send(Ok(row.cloned()))),
            (Listener::Notify(on_finish), Some(row)) => {
                let _ = catch_unwind(AssertUnwindSafe(|| on_finish(row)));
            }
            (Listener::Notify(_), None) => {}
        }
    }

    /// Sends the error: the outcome cannot be determined.
    pub fn fail(self, error: &StorageError) {
        if let Listener::Join(reply) = self {
            let _ = reply.send(Err(error.clone()));
        }
    }

    /// Returns `true` if the caller is gone.
    pub fn is_gone(&self) -> bool {
        matches!(self, Listener::Join(reply) if reply.is_closed())
    }
}

/// The answer to [`Question::Works`].
#[derive(Debug)]
pub(crate) struct Listing {
    pub page: WorkPage,
    /// The pause that a caller of many pages should make before the next one, so that the pools can use the store.
    #[cfg_attr(not(feature = "ops"), allow(dead_code))]
    pub pause: Duration,
}
