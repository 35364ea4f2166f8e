//! Messages between a loop and the store.

use crate::engine::lanes::LaneStep;
use crate::engine::rest::KickSource;
use crate::model::{Batch, Change, Claimed, Demand, Name, PoolConfig, PoolId, Spec, Turn, WorkId};
use crate::storage::StorageError;

use super::Reply;

/// A loop's request to commit its decisions and read its next batch.
pub(crate) struct Advance {
    pub pool: PoolId,
    /// The turn that the changes belong to; with no changes, the last one that was committed.
    pub turn: Turn,
    pub changes: Vec<Change>,
    /// What the changes do to the lanes of keys.
    pub lanes: Vec<LaneStep>,
    pub demand: Demand,
    /// `true` if all slots are taken, as far as the loop knows.
    pub saturated: bool,
}

/// The answer to an [`Advance`]: the receipt of the commit and the input of the next turn. A loop that gets an empty
/// batch rests, and gets another batch when something changes.
#[derive(Debug)]
pub(crate) struct BatchReady {
    pub turn: Turn,
    /// The reason to wake the resting loop; set if the loop did not ask for this batch.
    pub kick: Option<KickSource>,
    /// `true` if the rows are not committed yet: the group waits for the loop's [`Advance`], or for word that it has
    /// nothing to decide ([`Request::Pass`](super::Request::Pass)). With an error: such a batch is void, and says nothing
    /// of the turn before it.
    pub is_early: bool,
    pub batch: Result<Batch, AdvanceError>,
    /// Starts of the committed turn that are not as it has decided them: the job was replaced since the loop was shown
    /// it. Each with what to launch instead; with `None` if the job is due later and was not started.
    pub replaced: Vec<(WorkId, Option<Spec>)>,
}

impl BatchReady {
    /// Makes the answer to a loop that waits for one.
    pub fn answer(turn: Turn, batch: Result<Batch, AdvanceError>) -> BatchReady {
        BatchReady { turn, kick: None, is_early: false, batch, replaced: Vec::new() }
    }
}

/// The reason why there is no batch. The loop claims its pool again and continues from the tables.
///
/// The commit did not happen, unless the variant says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AdvanceError {
    /// A newer generation owns the pool, or the turn was committed already.
    Fenced,
    Storage(StorageError),
    /// The commit did happen, but the next batch could not be read.
    Unread(StorageError),
}

/// A request that takes over a pool. It belongs to no group: it has its own commit, after the group.
pub(crate) enum PoolRequest {
    /// Begins a new generation.
    Claim { pool: PoolId, reply: Reply<Claimed> },
    /// Finds or creates a pool and claims it.
    Open { name: Name, config: PoolConfig, reply: Reply<PoolOpened> },
}

impl PoolRequest {
    /// Tells the caller that the storage failed.
    pub fn refuse(self, error: StorageError) {
        match self {
            PoolRequest::Claim { reply, .. } => drop(reply.send(Err(error))),
            PoolRequest::Open { reply, .. } => drop(reply.send(Err(error))),
        }
    }
}

/// The answer to [`PoolRequest::Open`].
#[derive(Debug)]
pub(crate) struct PoolOpened {
    pub pool: PoolId,
    pub config: PoolConfig,
    pub pending: u64,
    pub claimed: Claimed,
}
