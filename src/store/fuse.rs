//! Fused groups: a group that wakes resting loops waits for their turns, and commits everything at once.
//!
//! Without that, a job would be committed when it is enqueued and again when it is started: two waits for the disk before
//! it runs. The group reads each loop's batch before it commits, from the tables and from its own changes. The loop
//! decides on it as on any other batch. Its launches wait for the commit, as always, so nothing happens that could be
//! undone. A turn that comes too late goes into a later group; if the group was not committed, the turn is refused.
//!
//! What a turn does to a row that the group has just inserted replaces the insertion ([`Group::fold`]).

use std::collections::BTreeMap;

use super::Store;
use super::group::{Early, Group};
use super::wake::Parked;
use crate::model::{
    Batch, CancelationRow, Change, CompletionRow, Demand, Key, PoolId, Segment, StartKey, StartRow,
    WorkFact, WorkId,
};
use crate::protocol::{BatchReady, Request};
use crate::storage::{ByRank, StorageError};

/// The number of groups that are not fused after another writer was faster: a fused turn is lost with its group.
const AFTER_CONFLICT: u32 = 1_000;

/// A decided group that waits for turns.
pub(super) struct Open {
    pub group: Group,
    /// Questions and claims, to be answered behind the group.
    pub others: Vec<Request>,
}

impl Store {
    /// Reads early batches for the loops that a group wakes. Returns them, to be sent at once.
    pub(super) fn early_batches(&mut self, group: &mut Group) -> Vec<(PoolId, BatchReady)> {
        if !self.is_costly || self.unfused > 0 {
            self.unfused = self.unfused.saturating_sub(1);
            return Vec::new();
        }
        let mut batches = Vec::new();
        for pool in group.touched.clone() {
            let entry = &self.pools[pool.0 as usize];
            let Some((source, parked)) = entry.wakeup.would_wake() else { continue };
            // A loop that asks in this very group gets its answer behind it.
            if group.has_turn_of(pool) {
                continue;
            }
            // Behind the commit the batch is read once more, and the loop told if that fails.
            let Ok(batch) = self.early_batch(group, pool, parked) else { break };
            if batch.is_empty() {
                continue;
            }
            let entry = &mut self.pools[pool.0 as usize];
            entry.wakeup.wake();
            entry.read_until = group.now;
            let turn = entry.fence;
            group.early.push(Early { pool, turn, joined: false });
            let kick = Some(source);
            let ready = BatchReady::answer(turn, Ok(batch));
            batches.push((pool, BatchReady { kick, is_early: true, ..ready }));
        }
        batches
    }

    /// Reads the batch of a loop that rests, as it would be behind the commit of the group.
    fn early_batch(
        &mut self,
        group: &Group,
        pool: PoolId,
        parked: Parked,
    ) -> Result<Batch, StorageError> {
        let (demand, now) = (parked.demand, group.now);
        let NewRows { completions, cancelations, mut starts, due_later, .. } =
            group.new_rows(pool, demand.batch_size);
        let slots = demand.slots(completions.len());
        let mut next_due = parked.next_due;
        // A loop that rests has seen all rows that it could start, unless its slots were taken or time has passed.
        let has_seen_all = demand.slots(0) > 0 && next_due.is_none_or(|due| due > now);
        if !has_seen_all {
            self.has_read = true;
            // Rows that the group moves are not there any more; as many are read behind them.
            let moved = group.moved.len();
            let free_slots = i64::try_from(slots + moved).unwrap_or(i64::MAX);
            let max_starts = match demand.max_starts {
                0 => 0,
                starts => starts.saturating_add(moved),
            };
            let demand = Demand { free_slots, max_starts, ..demand };
            let rest = self.storage.read_batch(pool, demand, now)?;
            // None are left when a loop rests.
            if !(rest.completions.is_empty() && rest.cancelations.is_empty()) {
                return Err(StorageError::Conflict);
            }
            let is_there = |row: &StartRow| !group.moves(row.spec.work_id, row.key);
            let as_now = |row: StartRow| {
                let lane = group.lanes.row_of(&row.spec).or(row.lane);
                StartRow { lane, ..row }
            };
            starts.extend(rest.starts.into_iter().filter(is_there).map(as_now));
            next_due = rest.next_due;
        }
        // The lane of a job that was only moved is not known to the group.
        for row in starts.iter_mut().filter(|row| row.lane.is_none()) {
            let Some(key) = row.spec.work_key() else { continue };
            let lane = self.storage.lanes(pool, &[key])?.pop().flatten();
            row.lane = Some(lane.unwrap_or_default());
        }
        let mut starts = in_turn(starts, demand, now);
        let unread = starts.iter().skip(slots).map(|row| row.key.segment).min();
        starts.truncate(slots);
        let next_due = next_due.into_iter().chain(unread).chain(due_later).min();
        let next_due = next_due.filter(|due| *due != Segment::UNREGISTERED);
        Ok(Batch { read_at: now, completions, cancelations, starts, next_due })
    }

    /// Refuses the turns of loops that were sent a batch of a group that was not committed, and tells these loops.
    pub(super) fn void_early(
        &mut self,
        early: Vec<Early>,
        batches: &mut Vec<(PoolId, BatchReady)>,
        error: &StorageError,
    ) {
        for Early { pool, turn, .. } in early.into_iter().filter(|early| !early.joined) {
            self.pools[pool.0 as usize].is_void = !planted!(EarlyTurnTrusted);
            // The turn before is committed: the loop may still wait for its receipt.
            self.fail_turn(batches, pool, turn, error);
            if let Some((_, ready)) = batches.last_mut() {
                ready.is_early = true;
            }
        }
    }

    /// Does without fused groups for a while.
    pub(super) fn stop_fusing(&mut self) {
        self.unfused = AFTER_CONFLICT;
    }

    /// Fuses groups again, for the conformance tests of backends.
    #[cfg(feature = "unstable-storage")]
    pub fn fuse_again(&mut self) {
        self.unfused = 0;
    }
}

/// Returns rows in the order of their ranks, as a batch of the storage has them.
fn in_turn(mut rows: Vec<StartRow>, demand: Demand, now: Segment) -> Vec<StartRow> {
    let rank = |row: &StartRow| row.key.rank(now, demand.aging);
    if !rows.is_sorted_by_key(rank) {
        rows.sort_unstable_by_key(rank);
    }
    if rows.iter().all(|row| row.key.tag().is_none()) {
        return rows;
    }
    let mut parts = BTreeMap::<_, Vec<_>>::new();
    for row in rows {
        let part = (row.key.priority, row.key.tag().is_some());
        parts.entry(part).or_default().push((row.key, row));
    }
    let parts = parts.into_values().map(Vec::into_iter);
    let rows = ByRank::new(parts, now, demand.aging, demand.ready_first);
    rows.map(|(_, row)| row).collect()
}

/// The rows of a pool that a group inserts into the pending tables, as far as a batch may have them.
#[derive(Default)]
struct NewRows {
    completions: Vec<CompletionRow>,
    cancelations: Vec<CancelationRow>,
    /// Rows that are due.
    starts: Vec<StartRow>,
    /// `true` if they are not in the order of their keys.
    is_mixed: bool,
    /// The time at which the first of the other starts is due.
    due_later: Option<Segment>,
}

impl NewRows {
    /// Adds a start. Of very many, those behind the first ones are left out.
    fn add_start(&mut self, row: StartRow, now: Segment, limit: usize) {
        if row.key.is_in_lane() {
            return;
        }
        let last = self.starts.last().map(|last| last.key);
        let is_last = last.is_none_or(|last| last < row.key);
        let is_behind = self.starts.len() > limit && is_last && !self.is_mixed;
        match row.key.segment <= now && !is_behind {
            true => {
                self.is_mixed |= !is_last;
                self.starts.push(row);
            }
            false => {
                let due = row.key.segment;
                self.due_later = Some(self.due_later.map_or(due, |earliest| earliest.min(due)));
            }
        }
    }
}

impl Group {
    /// Returns the row of a job that waits at this place.
    fn start_row(&self, work: &WorkFact, key: StartKey) -> StartRow {
        let (spec, lane) = (work.spec.clone(), self.lanes.row_of(&work.spec));
        StartRow { key, spec, attempts: work.attempts, runs: work.runs, lane }
    }

    /// Returns the rows of a pool that the group inserts into the pending tables, at most `limit` of each; of starts a
    /// few more.
    fn new_rows(&self, pool: PoolId, limit: usize) -> NewRows {
        let mut rows = NewRows::default();
        for change in &self.changes {
            match change {
                Change::InsertPendingCompletion { work_id, pool: of, .. }
                    if *of == pool && rows.completions.len() < limit =>
                {
                    let Some(work) = self.fact(*work_id).cloned() else { continue };
                    rows.completions.extend(completion_row(change, work));
                }
                Change::InsertPendingCancelation { work_id, pool: of, key }
                    if *of == pool && rows.cancelations.len() < limit =>
                {
                    let (work_id, work) = (*work_id, self.fact(*work_id).cloned());
                    rows.cancelations.push(CancelationRow { key: *key, pool, work_id, work });
                }
                Change::InsertWork { spec, key }
                    if spec.pool == pool && !self.moves(spec.work_id, *key) =>
                {
                    let (spec, lane) = (spec.clone(), self.lanes.row_of(spec));
                    let row = StartRow { key: *key, spec, attempts: 0, runs: 0, lane };
                    rows.add_start(row, self.now, limit);
                }
                Change::MovePendingStart { work_id, pool: of, to, .. }
                    if *of == pool && !self.moves(*work_id, *to) =>
                {
                    let Some(work) = self.fact(*work_id) else { continue };
                    rows.add_start(self.start_row(work, *to), self.now, limit);
                }
                _ => {}
            }
        }
        let replaced = self.replaced.iter().filter_map(|work_id| self.fact(*work_id));
        for work in replaced.filter(|work| work.spec.pool == pool) {
            let Some(key) = work.pending_start else { continue };
            rows.add_start(self.start_row(work, key), self.now, limit);
        }
        rows
    }

    /// Returns `true` if the group moves a row of `pending_start` away from this place, or replaces its job.
    fn moves(&self, work_id: WorkId, from: StartKey) -> bool {
        let is_elsewhere = |work: &WorkFact| work.pending_start != Some(from);
        self.fact(work_id).is_some_and(is_elsewhere) || self.replaced.contains(&work_id)
    }

    /// Returns the place in the group's changes of the row that a turn's change is about, if the group has inserted it.
    pub(super) fn inserted_by(&self, change: &Change) -> Option<usize> {
        let mut place = None;
        let (work_id, key) = match change {
            Change::StartWork { work_id, key, .. } => {
                place = Some(*key);
                (*work_id, key.key())
            }
            Change::RetryWork { work_id, completion: Some(key), .. } => (*work_id, *key),
            Change::CompleteWork { finished, .. } => {
                (finished.work_id, self.fact(finished.work_id)?.pending_completion?.0)
            }
            _ => return None,
        };
        // What replaces it comes behind.
        if self.replaced.contains(&work_id) {
            return None;
        }
        // The row of its cancelation comes behind: it would be left over.
        if self.fact(work_id).is_some_and(|work| work.pending_cancelation.is_some()) {
            return None;
        }
        let number = key.seq.checked_sub(self.last_seq + 1)?;
        let inserted = *self.places.get(usize::try_from(number).ok()?)? as usize;
        let is_it = match self.changes.get(inserted)? {
            Change::InsertWork { spec, key: new } => {
                spec.work_id == work_id && new.key() == key && Some(*new) == place
            }
            Change::InsertPendingCompletion { work_id: of, key: new, .. } => {
                *of == work_id && *new == key
            }
            _ => false,
        };
        is_it.then_some(inserted)
    }

    /// Replaces the insertion of a row, if there is one, by what a turn does to the row. Returns the change otherwise.
    pub(super) fn fold(&mut self, place: Option<usize>, change: Change) -> Option<Change> {
        let Some(inserted) = place.and_then(|place| self.changes.get_mut(place)) else {
            return Some(change);
        };
        let inserted_before = std::mem::replace(inserted, change);
        match (inserted_before, &mut *inserted) {
            (
                Change::InsertWork { spec, key },
                Change::StartWork { run, started, generation, .. },
            ) => {
                let (run, started, generation) = (*run, *started, *generation);
                *inserted = Change::InsertRunning { spec, key, run, started, generation };
            }
            // Its row of `pending_completion` was never written.
            (_, Change::RetryWork { completion, .. }) => *completion = None,
            _ => {}
        }
        None
    }

    /// Returns the place of a key in the group's order of keys.
    pub(super) fn note_place(&mut self, key: Key, place: usize) {
        debug_assert_eq!(key.seq, self.last_seq + self.places.len() as u64 + 1);
        self.places.push(u32::try_from(place).unwrap_or(u32::MAX));
    }
}

/// Makes the row that a change inserts into `pending_completion`.
fn completion_row(change: &Change, work: WorkFact) -> Option<CompletionRow> {
    let Change::InsertPendingCompletion { key, run, result, retry, .. } = change else {
        return None;
    };
    Some(CompletionRow { key: *key, run: *run, result: result.clone(), retry: *retry, work })
}
