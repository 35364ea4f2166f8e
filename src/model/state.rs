//! The state that a MainActor owns: `internal_state` and `run_status`.

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::{Epoch, Generation, RunNumber, Segment, Turn, WorkId};

/// The segments up to which the pending tables are drained. They only advance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursors {
    /// The cursor of `pending_start`.
    pub incoming: Segment,
    /// The cursor of `pending_completion`.
    pub completion: Segment,
    /// The cursor of `pending_cancelation`.
    pub cancelation: Segment,
}

/// Totals of a pool since it was first created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Report {
    /// Attempts that finished running, retries and failures included.
    pub completed: u64,
    /// Jobs that succeeded, however many attempts that took.
    pub succeeded: u64,
    /// Jobs that failed for good.
    pub failed: u64,
    /// Failures that turned into a retry.
    pub retries: u64,
    /// Jobs that ended canceled.
    pub canceled: u64,
}

/// A row of `running`. Written when a job starts, deleted when its attempt's completion is handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// The number of the run.
    pub run: RunNumber,
    /// The time at which the start was decided.
    pub started: Segment,
    /// The generation that started it.
    pub generation: Generation,
}

/// The state that the engine steps. Only the pool's MainActor has it; the store keeps it across restarts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InternalState {
    /// The number of the generation.
    pub generation: Generation,
    /// The start of a runtime that the generation belongs to.
    pub epoch: Epoch,
    /// The number of the last turn that was committed.
    pub turn: u64,
    /// The cursors: how far each table is drained.
    pub cursors: Cursors,
    /// The time at which running attempts were last checked against live workers.
    pub last_recovery: Segment,
    /// The time at which the last report was logged.
    pub last_report: Segment,
    /// Counters.
    pub report: Report,
    /// The time from which the pool's rate has its whole burst again, in nanoseconds since the epoch. (The *theoretical
    /// arrival time* of the generic cell rate algorithm.) While the pool rests, a little behind the end of the rest.
    pub tat: u64,
    /// The time before which the rate admits no start, as far as the loop knows. Not stored.
    pub limited_until: Segment,
    /// Every attempt that occupies a slot.
    pub running: HashMap<WorkId, Running>,
}

impl InternalState {
    /// Returns the last committed turn, in the form of the fence.
    #[must_use]
    pub fn fence(&self) -> Turn {
        Turn { generation: self.generation, epoch: self.epoch, number: self.turn }
    }
}

/// The state of the loop: running, or what it waits for. Only the MainActor has it, in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum RunStatus {
    /// A turn is on its way through the store.
    Running,
    /// Nothing can be done before `segment`, or before a slot is free.
    Scheduled {
        /// The time at which something will be due; the far future when only a free slot is awaited.
        segment: Segment,
        /// `true` if all slots are taken: then an enqueue is no reason to look again.
        saturated: bool,
        /// The generation that waits.
        generation: Generation,
    },
    /// There is nothing to do and nothing scheduled.
    Idle {
        /// The generation that waits.
        generation: Generation,
    },
}
