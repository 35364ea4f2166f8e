//! The results of a group, to be sent.

use std::collections::BTreeMap;

use super::tally::Tally;
use crate::model::{PoolId, WorkId, WorkStatus};
use crate::protocol::{BatchReady, Command, Event, Listener, Request};
use crate::storage::StorageError;

/// Everything that is to be sent once a group is decided.
#[derive(Default)]
pub(crate) struct Settled {
    pub events: Vec<Event>,
    pub listeners: Vec<(WorkId, Listener)>,
    pub batches: Vec<(PoolId, BatchReady)>,
    /// By how much each pool's count of jobs without an outcome falls; negative where transactions have enqueued.
    pub left: BTreeMap<PoolId, i64>,
    /// Jobs that were enqueued under an id that was in use before and forgotten.
    pub revived: Vec<WorkId>,
    /// Jobs that were canceled: no attempt of them begins any more once that is answered.
    pub canceling: Vec<WorkId>,
    /// Given last: an answered caller finds board and tables as it was told.
    pub answers: Vec<Answer>,
    /// Watchers of these jobs are told these statuses.
    pub observed: Vec<(WorkId, WorkStatus)>,
    /// To be taken up in a later group: pages that follow, and what a failed commit could not take.
    pub again: Vec<Request>,
    /// The counts of the group.
    pub tally: Tally,
    /// `true` if something was committed.
    pub wrote: bool,
    /// `true` if something was read.
    pub read: bool,
    /// `true` if it was a commit that failed, rather than a read.
    pub write_failed: bool,
    /// The reason why nothing was committed, or what could not be read.
    pub failed: Option<StorageError>,
    /// `true` if the store needs another call, also if there is no message: a group is in doubt.
    pub unfinished: bool,
}

/// Tells a caller what became of a command. Answers with the command if it is to be decided anew.
pub(crate) type Receipt = Box<dyn FnOnce(Ending) -> Option<Command> + Send>;

/// The ending of a group.
pub(crate) enum Ending {
    Committed,
    Failed(StorageError),
    /// Another writer was faster: nothing has happened, and nobody is told.
    Again,
}

/// An answer that waits to be given.
pub(crate) enum Answer {
    /// A command, and what became of its group.
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
