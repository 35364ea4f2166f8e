//! The results of a group: everything to send.

use std::collections::BTreeMap;

use super::tally::Tally;
use crate::model::{PoolId, WorkId, WorkStatus};
use crate::protocol::{BatchReady, Command, Event, Listener, Request};
use crate::storage::StorageError;

/// Everything to send once a group is decided.
#[derive(Default)]
pub(crate) struct Settled {
    pub events: Vec<Event>,
    pub listeners: Vec<(WorkId, Listener)>,
    pub batches: Vec<(PoolId, BatchReady)>,
    /// The decrease of each pool's count of jobs without an outcome; negative where transactions have enqueued.
    pub left: BTreeMap<PoolId, i64>,
    /// Jobs that were enqueued under the id of a deleted finished job.
    pub revived: Vec<WorkId>,
    /// Canceled jobs: once the cancel is answered, no attempt of them begins.
    pub canceling: Vec<WorkId>,
    /// Answers, given last: the board and the tables must match what a caller is told.
    pub answers: Vec<Answer>,
    /// Statuses to report to the watchers of these jobs.
    pub observed: Vec<(WorkId, WorkStatus)>,
    /// Requests for a later group: pages that follow, and what a failed commit could not take.
    pub again: Vec<Request>,
    /// The counts of the group.
    pub tally: Tally,
    /// `true` if the group is not committed yet, and waits for the turns of the loops to which the batches go.
    pub is_open: bool,
    /// `true` if something was committed.
    pub wrote: bool,
    /// `true` if something was read.
    pub read: bool,
    /// `true` if it was a commit that failed, rather than a read.
    pub write_failed: bool,
    /// The reason why the commit or the read failed.
    pub failed: Option<StorageError>,
    /// `true` if the store must be called again even without a message, because a group is in doubt.
    pub unfinished: bool,
}

/// Tells a caller the result of a command. Returns the command if it must be decided again.
pub(crate) type Receipt = Box<dyn FnOnce(Ending) -> Option<Command> + Send>;

/// The ending of a group.
pub(crate) enum Ending {
    Committed,
    Failed(StorageError),
    /// Another writer was faster: nothing was written, and nobody is told.
    Again,
}

/// An answer that was not given yet.
pub(crate) enum Answer {
    /// A command, and the ending of its group.
    Receipt(Receipt, Ending),
    Say(Box<dyn FnOnce() + Send>),
}

impl Answer {
    pub fn give(self) {
        match self {
            Answer::Receipt(receipt, ending) => drop(receipt(ending)),
            Answer::Say(say) => say(),
        }
    }
}

impl Settled {
    pub(super) fn say(&mut self, say: impl FnOnce() + Send + 'static) {
        self.answers.push(Answer::Say(Box::new(say)));
    }
}
