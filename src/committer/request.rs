//! What the store is asked, and what it has to say.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::board::WorkStatus;
use crate::config::PoolConfig;
use crate::engine::arrivals::{AttemptReport, CancelAnswer, EnqueueAnswer, RunNowAnswer};
use crate::engine::run_status::KickSource;
use crate::explain::Found;
use crate::list::{WorkFilter, WorkPage};
use crate::metrics::Tally;
use crate::model::{
    Batch, Change, Claimed, Counts, Demand, Failure, Finished, Name, Payload, PoolId, RunNumber,
    Segment, Spec, Turn, WorkId,
};
use crate::shared::Admitted;
use crate::storage::StorageError;
use crate::sync::oneshot;

/// Called once with the outcome of a work.
pub(crate) type OnFinish = Box<dyn FnOnce(&Arc<Finished>) + Send>;

/// Carries an answer to whoever awaits it; one who went away is no error.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, StorageError>>;

/// A message to the store.
pub(crate) enum Request {
    Enqueue(Enqueue),
    Cancel {
        work_ids: Vec<WorkId>,
        reply: Reply<Vec<CancelAnswer>>,
    },
    CancelAll(CancelAll),
    /// Ends the wait of a work.
    RunNow {
        work_id: WorkId,
        reply: Reply<RunNowAnswer>,
    },
    AttemptsFinished(Vec<AttemptReport>),
    RunInStore(RunInStore),
    Advance(Advance),
    /// Begins or renews a reign over a pool.
    Claim {
        pool: PoolId,
        reply: Reply<Claimed>,
    },
    OpenPool {
        name: Name,
        config: PoolConfig,
        reply: Reply<PoolOpened>,
    },
    Statuses {
        work_ids: Vec<WorkId>,
        reply: Reply<Vec<WorkStatus>>,
    },
    /// Asks everything that the store knows of why a work waits.
    Explain {
        work_id: WorkId,
        reply: Reply<Found>,
    },
    Works {
        filter: WorkFilter,
        reply: Reply<Listing>,
    },
    /// Asks to be told the outcome of a work, now or when it has one; `None` when the work is not known.
    Listen {
        work_id: WorkId,
        listener: Listener,
    },
    /// Asks that the board's watchers of a work be told its status.
    Observe {
        work_id: WorkId,
    },
    Query {
        function: Name,
        args: Vec<u8>,
        reply: Reply<Result<Payload, Failure>>,
    },
    Counts {
        pool: PoolId,
        reply: Reply<(Counts, Vec<Name>)>,
    },
    /// Forgets finished works that are old enough.
    Forget,
}

impl Request {
    /// Whether it changes no work, so that it can wait for the commit and see what that did.
    pub(super) fn only_reads(&self) -> bool {
        !matches!(
            self,
            Request::Enqueue(_)
                | Request::Cancel { .. }
                | Request::CancelAll(_)
                | Request::RunNow { .. }
                | Request::AttemptsFinished(_)
                | Request::RunInStore(_)
                | Request::Advance(_)
        )
    }

    /// Whether it is a question that nobody waits for any more. While a storage stands still, many may gather.
    pub(super) fn is_abandoned(&self) -> bool {
        match self {
            Request::Statuses { reply, .. } => reply.is_closed(),
            Request::Explain { reply, .. } => reply.is_closed(),
            Request::Works { reply, .. } => reply.is_closed(),
            Request::Query { reply, .. } => reply.is_closed(),
            Request::Counts { reply, .. } => reply.is_closed(),
            _ => false,
        }
    }
}

/// Who waits for the outcome of a work.
pub(crate) enum Listener {
    /// A join: told the outcome, or that the work is not known.
    Join(Reply<Option<Arc<Finished>>>),
    /// A notification: told the outcome.
    Notify(OnFinish),
}

impl Listener {
    /// Tells the outcome. What a listener does on hearing it is user code, whose panic is its own affair.
    pub fn tell(self, row: Option<&Arc<Finished>>) {
        match (self, row) {
            (Listener::Join(reply), row) => drop(reply.send(Ok(row.cloned()))),
            (Listener::Notify(on_finish), Some(row)) => {
                let _ = catch_unwind(AssertUnwindSafe(|| on_finish(row)));
            }
            (Listener::Notify(_), None) => {}
        }
    }

    /// Tells that nothing more will be known.
    pub fn fail(self, error: &StorageError) {
        if let Listener::Join(reply) = self {
            let _ = reply.send(Err(error.clone()));
        }
    }

    /// Whether nobody waits any more.
    pub fn is_gone(&self) -> bool {
        matches!(self, Listener::Join(reply) if reply.is_closed())
    }
}

pub(crate) struct Enqueue {
    pub works: Vec<(Arc<Spec>, Segment)>,
    /// Whether no other work can have these ids.
    pub fresh: bool,
    pub on_finish: Option<OnFinish>,
    pub counted: Admitted,
    pub reply: Option<Reply<Vec<EnqueueAnswer>>>,
}

/// Cancels page by page, so that others get their turn.
pub(crate) struct CancelAll {
    pub pool: PoolId,
    /// Works enqueued later than this are left alone.
    pub until: Segment,
    /// Works that were found and not gone through yet, the next one last.
    pub found: Vec<WorkId>,
    /// Where the next search begins; `None` when everything was found.
    pub search: Option<Option<WorkId>>,
    pub requested: u64,
    pub reply: Reply<u64>,
}

/// An attempt of a mutation or a query: the store runs it.
#[derive(Clone)]
pub(crate) struct RunInStore {
    pub spec: Arc<Spec>,
    pub run: RunNumber,
}

/// Commits what a loop decided and asks for its next batch.
pub(crate) struct Advance {
    pub pool: PoolId,
    /// The turn that the changes belong to; with no changes, the last one that was committed.
    pub turn: Turn,
    pub changes: Vec<Change>,
    pub demand: Demand,
    /// Whether all slots are taken, as far as the loop knows.
    pub saturated: bool,
}

/// The answer to an [`Advance`]: receipt of the commit and input of the next turn. A loop that was left with an empty
/// batch rests, and gets another when there is news for it.
#[derive(Debug)]
pub(crate) struct BatchReady {
    pub turn: Turn,
    /// Set when nobody asked: the loop rests, and this is why it should look again.
    pub kick: Option<KickSource>,
    pub batch: Result<Batch, AdvanceError>,
}

/// Why there is no batch. The loop claims its pool anew and goes on from the tables.
///
/// Unless it says otherwise, the commit did not happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AdvanceError {
    /// Another generation reigns, or the turn was committed already.
    Fenced,
    Storage(StorageError),
    /// It did happen, but the next batch could not be read.
    Unread(StorageError),
}

/// The answer to [`Request::Works`].
#[derive(Debug)]
pub(crate) struct Listing {
    pub page: WorkPage,
    /// For how long whoever asks for many pages should leave the store to the pools before the next one.
    #[cfg_attr(not(feature = "actix-web"), allow(dead_code))]
    pub pause: Duration,
}

/// The answer to [`Request::OpenPool`].
#[derive(Debug)]
pub(crate) struct PoolOpened {
    pub pool: PoolId,
    pub config: PoolConfig,
    pub pending: u64,
    pub claimed: Claimed,
}

/// What happened, for the board, the listeners and the log.
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
    /// Its wait was ended.
    Moved {
        work_id: WorkId,
        due: Segment,
        attempts: u32,
    },
}

/// What is to be sent once a group is decided.
#[derive(Default)]
pub(crate) struct Settled {
    pub events: Vec<Event>,
    pub listeners: Vec<(WorkId, Listener)>,
    pub batches: Vec<(PoolId, BatchReady)>,
    /// By how much each pool's count of works without an outcome falls; negative where transactions have enqueued.
    pub left: BTreeMap<PoolId, i64>,
    /// Works that were enqueued under an id that was in use before and forgotten.
    pub revived: Vec<WorkId>,
    /// Works that were canceled: no attempt of them begins any more once that is answered.
    pub canceling: Vec<WorkId>,
    /// Run last: an answered caller finds board and tables as it was told.
    pub answers: Vec<Box<dyn FnOnce() + Send>>,
    /// Watchers of these works are told these statuses.
    pub observed: Vec<(WorkId, WorkStatus)>,
    /// To be decided in a later group: pages that follow, and reports that a failed commit could not take.
    pub again: Vec<Request>,
    /// What the group counts.
    pub tally: Tally,
    /// Whether something was committed.
    pub wrote: bool,
    /// Whether something was read.
    pub read: bool,
    /// Whether it was a commit that failed, rather than a read.
    pub write_failed: bool,
    /// Why nothing was committed, or what could not be read.
    pub failed: Option<StorageError>,
    /// Whether the committer needs another call, also if there is no message: a group is in limbo.
    pub unfinished: bool,
}

impl Settled {
    pub(super) fn answer(&mut self, answer: impl FnOnce() + Send + 'static) {
        self.answers.push(Box::new(answer));
    }
}
