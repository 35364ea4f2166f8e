//! A batch: the part of the tables that the store shows the main loop, the input of one turn.

use std::time::Duration;

use super::{
    Cursors, InternalState, Key, LaneRow, PoolConfig, PoolId, Retry, RunNumber, RunResult, Running,
    Segment, Spec, StartKey, WorkFact, WorkId,
};

/// The part of the tables that the main loop wants to see next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// The cursors to read from.
    pub cursors: Cursors,
    /// The number of free slots; below zero when the limit was lowered under what is running.
    /// Each completion that is read frees one more.
    pub free_slots: i64,
    /// The number of starts that the pool's rate admits.
    pub max_starts: usize,
    /// The time after which a job that is due gains a priority.
    pub aging: Option<Duration>,
    /// `true` if, of jobs of equal priority, one that is ready comes first, and one of the queue then; they take turns.
    pub ready_first: bool,
    /// At most this many rows of each pending table.
    pub batch_size: usize,
}

impl Default for Demand {
    /// Makes a demand for nothing, in a pool without a rate and aging.
    fn default() -> Demand {
        Demand {
            cursors: Cursors::default(),
            free_slots: 0,
            max_starts: usize::MAX,
            aging: None,
            ready_first: false,
            batch_size: 0,
        }
    }
}

impl Demand {
    /// Returns the number of starts that may be read along with `completions` completions, each of which frees a slot, as
    /// far as the rate admits them.
    pub(crate) fn slots(&self, completions: usize) -> usize {
        let slots = self.free_slots.saturating_add(completions as i64).max(0);
        usize::try_from(slots).unwrap_or(usize::MAX).min(self.max_starts).min(self.batch_size)
    }
}

/// Rows that are due, with all the facts a decision needs, and the time at which they were read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// The store's clock.
    pub read_at: Segment,
    /// In order, from `pending_completion`.
    pub completions: Vec<CompletionRow>,
    /// In order, from `pending_cancelation`.
    pub cancelations: Vec<CancelationRow>,
    /// From `pending_start`, in the order of their ranks ([`StartKey::rank`]); only rows that are due.
    pub starts: Vec<StartRow>,
    /// The time at which the first of the other rows of `pending_start` is due, if there is one outside the unregistered
    /// lane.
    pub next_due: Option<Segment>,
}

impl Batch {
    /// Returns `true` if there is nothing to decide.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.completions.is_empty() && self.cancelations.is_empty() && self.starts.is_empty()
    }
}

/// A row of `pending_completion`. Written when an attempt finished, deleted by the turn that handles it.
#[derive(Clone, Debug, PartialEq)]
pub struct CompletionRow {
    /// The row's place in its table.
    pub key: Key,
    /// The run that finished.
    pub run: RunNumber,
    /// The worker's report.
    pub result: RunResult,
    /// The decision on its arrival.
    pub retry: Retry,
    /// The job as it is now.
    pub work: WorkFact,
}

/// A row of `pending_cancelation`. Written by cancel, deleted by the turn that handles it.
#[derive(Clone, Debug, PartialEq)]
pub struct CancelationRow {
    /// The row's place in its table.
    pub key: Key,
    /// The job's pool.
    pub pool: PoolId,
    /// The job's id.
    pub work_id: WorkId,
    /// The job as it is now; `None` when it has completed meanwhile.
    pub work: Option<WorkFact>,
}

/// A row of `pending_start` with what is needed to launch it.
#[derive(Clone, Debug, PartialEq)]
pub struct StartRow {
    /// The row's place in its table.
    pub key: StartKey,
    /// The job.
    pub spec: Spec,
    /// The number of attempts that counted before.
    pub attempts: u32,
    /// The number of launches before.
    pub runs: RunNumber,
    /// The row of its key's lane, if it has a key; the default if there is none.
    pub lane: Option<LaneRow>,
}

/// An attempt that was running when its pool was claimed.
#[derive(Clone, Debug, PartialEq)]
pub struct RunningRow {
    /// The row itself.
    pub running: Running,
    /// Its job.
    pub work: WorkFact,
}

/// Everything that a main loop gets when it takes over a pool.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Claimed {
    /// The state to continue from, with the new generation.
    pub state: InternalState,
    /// The facts of every running row.
    pub running: Vec<RunningRow>,
    /// The stored configuration.
    pub config: PoolConfig,
}
