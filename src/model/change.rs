//! Changes: every write that a commit can make.

use std::sync::Arc;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::{
    Cursors, Epoch, Finished, Generation, History, InternalState, Key, LaneRow, Name, Payload,
    PoolConfig, PoolId, Report, Retry, RunNumber, RunResult, Segment, Spec, StartKey, StartPlace,
    TableKey, Turn, UniquePlace, WorkId, WorkKey,
};

/// One write, named for what it does to the tables. A commit applies a list of them, all or none.
///
/// Each change stands for one transition of the state table in ARCHITECTURE.md, and says which rows it touches.
/// The engine chooses the segment of a new row's key; the store clamps it to the table's cursor and assigns `seq`
/// just before the commit.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Inserts into `work` and `pending_start` (→ S1). For a unique job, also writes the row of its key in `unique`.
    InsertWork {
        /// The job.
        spec: Spec,
        /// Its place in `pending_start`.
        key: StartKey,
    },
    /// Inserts into `work` and `running`: enqueued and started in one commit (→ S2). For a unique job, also writes the
    /// row of its key in `unique`.
    InsertRunning {
        /// The job.
        spec: Spec,
        /// The place in `pending_start` that it would have had.
        key: StartKey,
        /// `work.runs`.
        run: RunNumber,
        /// The time of the decision.
        started: Segment,
        /// The generation that decided it.
        generation: Generation,
    },
    /// Inserts into `pending_completion`, sets `work.attempts` (S2 → S3 or S5).
    InsertPendingCompletion {
        /// The job's id.
        work_id: WorkId,
        /// Its pool.
        pool: PoolId,
        /// The place of the new row.
        key: Key,
        /// The run that finished.
        run: RunNumber,
        /// Its result.
        result: RunResult,
        /// The decision whether the job is retried.
        retry: Retry,
        /// The new `work.attempts`.
        attempts: u32,
    },
    /// Inserts into `pending_cancelation` (→ S7 or S8).
    InsertPendingCancelation {
        /// The job's id.
        work_id: WorkId,
        /// Its pool.
        pool: PoolId,
        /// The place of the new row.
        key: Key,
    },
    /// Moves the job from `pending_start` to `running`, sets `work.runs` (S1, S10 → S2).
    StartWork {
        /// The job's id.
        work_id: WorkId,
        /// Its pool.
        pool: PoolId,
        /// The row in `pending_start`.
        key: StartKey,
        /// The new `work.runs`.
        run: RunNumber,
        /// The time of the decision.
        started: Segment,
        /// The generation that decided it.
        generation: Generation,
    },
    /// Moves the job within `pending_start`: into or out of the unregistered lane, to where it is due now, or to another
    /// priority.
    MovePendingStart {
        /// The job's id.
        work_id: WorkId,
        /// Its pool.
        pool: PoolId,
        /// Its old place.
        from: StartKey,
        /// Its new place.
        to: StartKey,
    },
    /// Replaces the spec of a job that was never started, and moves it within `pending_start` if the two places differ
    /// (S1 → S1). The job keeps its key. Also writes the row of its unique key in `unique`.
    ReplaceWork {
        /// The job, with its id and its new content.
        spec: Spec,
        /// Its old place.
        from: StartKey,
        /// Its new place.
        to: StartKey,
    },
    /// Deletes from `running` and `pending_completion`, inserts into `pending_start` (S5 → S10).
    RetryWork {
        /// The job's id.
        work_id: WorkId,
        /// Its pool.
        pool: PoolId,
        /// The row in `pending_completion`; `None` when the attempt was recovered without one.
        completion: Option<Key>,
        /// Its new place in `pending_start`.
        key: StartKey,
        /// The new `work.attempts`.
        attempts: u32,
        /// The new `work.history`.
        history: History,
    },
    /// Deletes the job from every table and inserts into `finished` (S3, S7, S9 → gone). For a unique job, also deletes
    /// the row of its key in `unique` if it [ends with](super::UniqueRow::ends_with) the job.
    CompleteWork {
        /// The row that is kept of it.
        finished: Arc<Finished>,
        /// The job as it was enqueued: the store runs its `on_complete` in the same commit.
        spec: Spec,
    },
    /// Sets `work.canceled`, deletes from `pending_cancelation` (S8 → S12, and S5 → S9).
    MarkCanceled {
        /// The job's id.
        work_id: WorkId,
        /// Its pool.
        pool: PoolId,
        /// The row in `pending_cancelation`.
        key: Key,
    },
    /// Deletes from `pending_cancelation` only: there was nothing left to cancel.
    DeletePendingCancelation {
        /// Its pool.
        pool: PoolId,
        /// The row.
        key: Key,
    },
    /// Writes `internal_state` without `running`, which has rows of its own.
    PutState {
        /// The pool.
        pool: PoolId,
        /// The new state.
        state: StateRow,
    },
    /// Writes `globals`.
    PutGlobals {
        /// The pool.
        pool: PoolId,
        /// The pool's name.
        name: Name,
        /// The new configuration.
        config: PoolConfig,
    },
    /// Replaces an existing row of `finished`: the job was enqueued once more.
    MarkRetried {
        /// The row, with [`FinishedDetails::retried_as`](super::FinishedDetails::retried_as).
        finished: Arc<Finished>,
    },
    /// Deletes from `finished`.
    DeleteFinished {
        /// The row's key.
        work_id: WorkId,
    },
    /// Deletes from `unique`: nothing holds the key.
    DeleteUnique {
        /// The row's key.
        place: UniquePlace,
    },
    /// Writes a row of `lanes`, or deletes it.
    PutLane {
        /// The pool.
        pool: PoolId,
        /// The key.
        key: WorkKey,
        /// The row; `None` when the key has neither jobs nor debts.
        row: Option<LaneRow>,
    },
    /// Writes a row of a user table.
    PutRow {
        /// The table.
        table: Name,
        /// The row's key.
        key: TableKey,
        /// Its value, encoded.
        value: Payload,
    },
    /// Deletes a row of a user table, if there is one.
    DeleteRow {
        /// The table.
        table: Name,
        /// The row's key.
        key: TableKey,
    },
}

/// The stored part of [`InternalState`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateRow {
    /// See [`InternalState::generation`].
    pub generation: Generation,
    /// See [`InternalState::epoch`].
    pub epoch: Epoch,
    /// See [`InternalState::turn`].
    pub turn: u64,
    /// See [`InternalState::cursors`].
    pub cursors: Cursors,
    /// See [`InternalState::last_recovery`].
    pub last_recovery: Segment,
    /// See [`InternalState::last_report`].
    pub last_report: Segment,
    /// See [`InternalState::report`].
    pub report: Report,
    /// See [`InternalState::tat`].
    pub tat: u64,
}

impl StateRow {
    /// Returns the last committed turn, in the form of the fence.
    #[must_use]
    pub fn fence(&self) -> Turn {
        Turn { generation: self.generation, epoch: self.epoch, number: self.turn }
    }
}

impl From<&InternalState> for StateRow {
    fn from(state: &InternalState) -> Self {
        StateRow {
            generation: state.generation,
            epoch: state.epoch,
            turn: state.turn,
            cursors: state.cursors,
            last_recovery: state.last_recovery,
            last_report: state.last_report,
            report: state.report,
            tat: state.tat,
        }
    }
}

impl From<StateRow> for InternalState {
    fn from(row: StateRow) -> Self {
        InternalState {
            generation: row.generation,
            epoch: row.epoch,
            turn: row.turn,
            cursors: row.cursors,
            last_recovery: row.last_recovery,
            last_report: row.last_report,
            report: row.report,
            tat: row.tat,
            limited_until: Segment::default(),
            running: HashMap::new(),
        }
    }
}

/// The number of rows that a pool has in each table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Jobs that are due or will be: the rows of `pending_start` outside the unregistered lane.
    pub waiting: u64,
    /// Attempts that occupy a slot.
    pub running: u64,
    /// Attempts that finished and were not handled yet.
    pub completing: u64,
    /// Cancelations that were not handled yet.
    pub canceling: u64,
    /// Jobs whose function is not registered in this process.
    pub unregistered: u64,
    /// The time at which the oldest waiting job was or will be due.
    pub oldest_due: Option<Segment>,
}

impl Change {
    /// Returns the key of the row that this change inserts into a pending table, for the store to stamp.
    pub(crate) fn new_key(&mut self) -> Option<NewKey<'_>> {
        let (pool, table, Key { segment, seq }) = match self {
            Change::InsertWork { spec, key } => {
                return Some(NewKey::of_start(spec.pool, key, true));
            }
            Change::RetryWork { pool, key, .. } => return Some(NewKey::of_start(*pool, key, true)),
            Change::ReplaceWork { from, to, .. } if from == to => return None,
            Change::ReplaceWork { spec, from, to } => {
                let is_new = to.tag().is_some() && to.priority != from.priority;
                return Some(NewKey::of_start(spec.pool, to, is_new));
            }
            Change::MovePendingStart { pool, from, to, .. } => {
                let is_new = to.tag().is_some() && to.priority != from.priority;
                return Some(NewKey::of_start(*pool, to, is_new));
            }
            Change::InsertPendingCompletion { pool, key, .. } => {
                (*pool, PendingTable::Completion, key)
            }
            Change::InsertPendingCancelation { pool, key, .. } => {
                (*pool, PendingTable::Cancelation, key)
            }
            _ => return None,
        };
        Some(NewKey { pool, table, segment, seq, is_stamped: true, wakes: true })
    }
}

/// The key of a row that a change inserts into a pending table.
pub(crate) struct NewKey<'a> {
    pub pool: PoolId,
    pub table: PendingTable,
    pub segment: &'a mut Segment,
    pub seq: &'a mut u64,
    /// `true` if the store gives it a new `seq`. A job keeps its own when it enters or leaves a lane.
    pub is_stamped: bool,
    /// `true` if a loop may have waited for the row.
    pub wakes: bool,
}

impl NewKey<'_> {
    fn of_start(pool: PoolId, key: &mut StartKey, is_new: bool) -> NewKey<'_> {
        NewKey {
            pool,
            table: PendingTable::Start,
            wakes: key.place != StartPlace::Lane,
            is_stamped: is_new || key.is_by_time() || key.is_unregistered(),
            segment: &mut key.segment,
            seq: &mut key.seq,
        }
    }
}

/// One of the three tables that the main loop drains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PendingTable {
    /// `pending_start`.
    Start,
    /// `pending_completion`.
    Completion,
    /// `pending_cancelation`.
    Cancelation,
}
