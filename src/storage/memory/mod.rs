//! Tables in memory: the default. Fast, bounded by what is enqueued, lost when the process ends.

mod finished;
mod lanes;
mod pending;
mod running;
mod starts;
mod works;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;

use super::{
    Fsync, KeyRange, Opened, PoolRow, Storage, StorageError, is_oversized, lowest, shrink,
};
use crate::model::PoolConfig;
use crate::model::{
    Batch, CancelationRow, Change, CompletionRow, Counts, Cursors, Demand, Finished, Key,
    LanePlace, LaneRow, Name, Payload, PoolId, Retry, RunNumber, RunResult, Running, RunningRow,
    Segment, Spec, StartKey, StartRow, StateRow, TableKey, UniquePlace, UniqueRow, WorkFact,
    WorkId, WorkKey,
};
use finished::FinishedTable;
use lanes::Lanes;
use pending::Pending;
use running::RunningTable;
use starts::Starts;
use works::{Place, Row, Slot, Works};

/// Keeps every table in memory.
///
/// A clone is another handle to the same tables: the next runtime finds what an earlier one left. Only one runtime at a
/// time can use them.
///
/// ```
/// # actix_workpool::doctest::run(async {
/// use actix_workpool::{PoolConfig, Runtime, storage::Memory};
///
/// let tables = Memory::new();
/// let runtime = Runtime::builder()
///     .storage(tables.clone())
///     .pool("mail", PoolConfig::default())
///     .start()
///     .await?;
/// # runtime.shutdown(std::time::Duration::ZERO).await;
/// # Ok(()) });
/// ```
#[derive(Clone, Default)]
pub struct Memory {
    tables: Arc<Mutex<Tables>>,
}

impl Memory {
    /// Creates empty tables.
    #[must_use]
    pub fn new() -> Memory {
        Memory::default()
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        // A panic under the lock cannot leave half a commit: applying changes calls no user code.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory").field("works", &self.tables().works.len()).finish()
    }
}

impl Storage for Memory {
    fn may_block(&self) -> bool {
        false
    }

    fn open(&mut self) -> Result<Opened, StorageError> {
        let mut tables = self.tables();
        if std::mem::replace(&mut tables.open, true) {
            return Err(StorageError::InUse);
        }
        let pools = tables.pools.iter().enumerate().map(|(number, pool)| PoolRow {
            pool: PoolId(number as u32),
            name: pool.name,
            config: pool.config.clone(),
            state: pool.state,
            pending: pool.works,
        });
        Ok(Opened { pools: pools.collect(), last_seq: tables.last_seq, clock: tables.clock })
    }

    fn close(&mut self) {
        self.tables().open = false;
    }

    fn facts(&mut self, work_ids: &[WorkId]) -> Result<Vec<Option<WorkFact>>, StorageError> {
        let tables = self.tables();
        tables.works.warm(work_ids.iter().copied());
        Ok(work_ids.iter().map(|id| tables.fact(*id)).collect())
    }

    fn finished(
        &mut self,
        work_ids: &[WorkId],
    ) -> Result<Vec<Option<Arc<Finished>>>, StorageError> {
        let tables = self.tables();
        Ok(work_ids.iter().map(|id| tables.finished.get(*id)).collect())
    }

    fn unique(&mut self, places: &[UniquePlace]) -> Result<Vec<Option<UniqueRow>>, StorageError> {
        let tables = self.tables();
        Ok(places.iter().map(|place| tables.unique.get(place).copied()).collect())
    }

    fn unique_rows(
        &mut self,
        after: Option<&UniquePlace>,
        limit: usize,
    ) -> Result<Vec<(UniquePlace, UniqueRow)>, StorageError> {
        let tables = self.tables();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rows = tables.unique.range((from, Bound::Unbounded)).take(limit);
        Ok(rows.map(|(place, row)| (place.clone(), *row)).collect())
    }

    fn lanes(
        &mut self,
        pool: PoolId,
        keys: &[WorkKey],
    ) -> Result<Vec<Option<LaneRow>>, StorageError> {
        let tables = self.tables();
        let table = tables.pools.get(pool.0 as usize);
        Ok(keys.iter().map(|key| table.and_then(|pool| pool.lanes.get(key.as_bytes()))).collect())
    }

    fn lane_rows(
        &mut self,
        pool: PoolId,
        after: Option<&LanePlace>,
        limit: usize,
    ) -> Result<Vec<(LanePlace, LaneRow)>, StorageError> {
        let tables = self.tables();
        let table = tables.pools.get(pool.0 as usize);
        Ok(table.map_or(Vec::new(), |pool| pool.lanes.rows(after, limit)))
    }

    fn lane_jobs(
        &mut self,
        pool: PoolId,
        key: &WorkKey,
        limit: usize,
    ) -> Result<Vec<(StartKey, Spec)>, StorageError> {
        let tables = self.tables();
        let Some(table) = tables.pools.get(pool.0 as usize) else { return Ok(Vec::new()) };
        let rows = table.lanes.jobs(key.as_bytes()).take(limit).map(|slot| tables.works.at(slot));
        Ok(rows.map(|row| (row.start_key(), row.spec.clone())).collect())
    }

    fn read_batch(
        &mut self,
        pool: PoolId,
        demand: Demand,
        now: Segment,
    ) -> Result<Batch, StorageError> {
        Ok(self.tables().read_batch(pool, demand, now))
    }

    fn state(&mut self, pool: PoolId) -> Result<StateRow, StorageError> {
        let tables = self.tables();
        Ok(tables.pools.get(pool.0 as usize).map(|pool| pool.state).unwrap_or_default())
    }

    fn running(&mut self, pool: PoolId) -> Result<Vec<RunningRow>, StorageError> {
        let tables = self.tables();
        let Some(table) = tables.pools.get(pool.0 as usize) else { return Ok(Vec::new()) };
        let row = |(slot, running): (Slot, &Running)| {
            let work = tables.fact_of(tables.works.at(slot));
            RunningRow { running: *running, work }
        };
        let mut rows: Vec<_> = table.running.rows().map(row).collect();
        rows.sort_unstable_by_key(|row| (row.running.started, row.work.spec.work_id));
        Ok(rows)
    }

    fn running_places(
        &mut self,
        pool: Option<PoolId>,
        after: Option<(Segment, WorkId)>,
        limit: usize,
    ) -> Result<Vec<(Segment, WorkId)>, StorageError> {
        let tables = self.tables();
        let pools = match pool {
            Some(pool) => tables.pools.get(pool.0 as usize).map_or(&[][..], std::slice::from_ref),
            None => &tables.pools[..],
        };
        let rows = pools.iter().flat_map(|pool| pool.running.rows());
        let id = |slot| tables.works.at(slot).spec.work_id;
        let places = rows.map(|(slot, row)| (row.started, id(slot)));
        Ok(lowest(places.filter(|place| Some(*place) > after), limit))
    }

    fn works(
        &mut self,
        pool: PoolId,
        after: Option<WorkId>,
        limit: usize,
    ) -> Result<Vec<WorkId>, StorageError> {
        let tables = self.tables();
        let in_page = |row: &&Row| {
            row.spec.pool == pool && after.is_none_or(|after| row.spec.work_id > after)
        };
        let mut ids: Vec<_> =
            tables.works.rows().filter(in_page).map(|row| row.spec.work_id).collect();
        if ids.len() > limit {
            ids.select_nth_unstable(limit);
            ids.truncate(limit);
        }
        ids.sort_unstable();
        Ok(ids)
    }

    fn unregistered(
        &mut self,
        pool: PoolId,
        after: Option<StartKey>,
        limit: usize,
    ) -> Result<Vec<(StartKey, Spec)>, StorageError> {
        let tables = self.tables();
        let Some(table) = tables.pools.get(pool.0 as usize) else { return Ok(Vec::new()) };
        let rows = table.pending_start.unregistered_from(after).take(limit);
        Ok(rows.map(|(key, slot)| (key, tables.works.at(slot).spec.clone())).collect())
    }

    fn pending_starts(
        &mut self,
        pool: PoolId,
        after: Option<StartKey>,
        until: StartKey,
        limit: usize,
    ) -> Result<Vec<(StartKey, WorkId)>, StorageError> {
        let tables = self.tables();
        let Some(table) = tables.pools.get(pool.0 as usize) else { return Ok(Vec::new()) };
        if after.is_some_and(|after| after >= until) {
            return Ok(Vec::new());
        }
        let rows = table.pending_start.range(after, until).take(limit);
        let rows = rows.map(|(_, slot)| tables.works.at(slot));
        Ok(rows.map(|row| (row.start_key(), row.spec.work_id)).collect())
    }

    fn counts(&mut self, pool: PoolId, _: &Cursors) -> Result<Counts, StorageError> {
        let tables = self.tables();
        let Some(table) = tables.pools.get(pool.0 as usize) else { return Ok(Counts::default()) };
        Ok(Counts {
            waiting: table.pending_start.waiting() as u64,
            running: table.running.len() as u64,
            completing: table.pending_completion.len() as u64,
            canceling: table.pending_cancelation.len() as u64,
            unregistered: table.pending_start.unregistered() as u64,
            oldest_due: table.pending_start.first_due(),
        })
    }

    fn expired(
        &mut self,
        before: Segment,
        keep: u64,
        limit: usize,
    ) -> Result<Vec<WorkId>, StorageError> {
        Ok(self.tables().finished.expired(before, keep, limit))
    }

    fn last_finished(
        &mut self,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<(u64, Arc<Finished>)>, StorageError> {
        Ok(self.tables().finished.last(before, limit))
    }

    fn get(&mut self, table: Name, key: &TableKey) -> Result<Option<Payload>, StorageError> {
        Ok(self.tables().user.get(&table).and_then(|rows| rows.get(key)).cloned())
    }

    fn scan(
        &mut self,
        table: Name,
        range: &KeyRange,
        limit: usize,
    ) -> Result<Vec<(TableKey, Payload)>, StorageError> {
        let tables = self.tables();
        if range_is_empty(range) {
            return Ok(Vec::new());
        }
        let Some(rows) = tables.user.get(&table) else { return Ok(Vec::new()) };
        let rows = rows.range((range.0.as_ref(), range.1.as_ref())).take(limit);
        Ok(rows.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn commit(
        &mut self,
        changes: &mut Vec<Change>,
        now: Segment,
        _: Fsync,
    ) -> Result<(), StorageError> {
        let mut tables = self.tables();
        tables.clock = tables.clock.max(now);
        tables.works.warm(changes.iter().filter_map(|change| match change {
            Change::InsertWork { spec, .. } | Change::InsertRunning { spec, .. } => {
                Some(spec.work_id)
            }
            _ => None,
        }));
        for change in changes.drain(..) {
            tables.apply(change, now);
        }
        tables.shrink();
        Ok(())
    }
}

/// Returns `true` if the range contains no key; `BTreeMap::range` panics on some of those.
pub(crate) fn range_is_empty(range: &KeyRange) -> bool {
    use Bound::{Excluded, Included};
    match (&range.0, &range.1) {
        (Included(from), Included(to)) => from > to,
        (Included(from) | Excluded(from), Excluded(to)) | (Excluded(from), Included(to)) => {
            from >= to
        }
        _ => false,
    }
}

#[derive(Default)]
struct Tables {
    open: bool,
    clock: Segment,
    last_seq: u64,
    works: Works,
    pools: Vec<Pool>,
    finished: FinishedTable,
    user: HashMap<Name, BTreeMap<TableKey, Payload>>,
    unique: BTreeMap<UniquePlace, UniqueRow>,
}

/// The tables of one pool.
struct Pool {
    name: Name,
    config: PoolConfig,
    state: StateRow,
    works: u64,
    pending_start: Starts,
    lanes: Lanes,
    running: RunningTable,
    pending_completion: Pending<Completion>,
    pending_cancelation: BTreeMap<Key, WorkId>,
    /// The keys of the same rows by job.
    cancelation_keys: HashMap<WorkId, Key>,
}

struct Completion {
    slot: Slot,
    run: RunNumber,
    result: RunResult,
    retry: Retry,
}

impl Tables {
    /// Frees memory after a peak.
    fn shrink(&mut self) {
        if is_oversized(self.works.capacity(), self.works.len()) {
            let pools = &mut self.pools;
            self.works.compact(|row, slot| {
                if let Some(pool) = pools.get_mut(row.spec.pool.0 as usize) {
                    pool.row_moved(row, slot);
                }
            });
        }
        self.finished.shrink();
    }

    fn pool(&mut self, pool: PoolId) -> &mut Pool {
        let number = pool.0 as usize;
        while self.pools.len() <= number {
            self.pools.push(Pool {
                name: Name::from_static(""),
                config: PoolConfig::default(),
                state: StateRow::default(),
                works: 0,
                pending_start: Starts::default(),
                lanes: Lanes::default(),
                running: RunningTable::default(),
                pending_completion: Pending::default(),
                pending_cancelation: BTreeMap::new(),
                cancelation_keys: HashMap::new(),
            });
        }
        &mut self.pools[number]
    }

    fn fact(&self, work_id: WorkId) -> Option<WorkFact> {
        self.works.get(work_id).map(|row| self.fact_of(row))
    }

    fn fact_of(&self, row: &Row) -> WorkFact {
        let pool = &self.pools[row.spec.pool.0 as usize];
        let work_id = row.spec.work_id;
        let running = match row.place {
            Place::Waiting(_) => None,
            _ => pool.running.get(row.running),
        };
        WorkFact {
            spec: row.spec.clone(),
            attempts: row.attempts,
            runs: row.runs,
            canceled: row.canceled,
            priority: row.priority,
            pending_start: row.is_waiting().then(|| row.start_key()),
            running,
            pending_completion: match row.place {
                Place::Completing { retry } => Some((row.key, retry)),
                _ => None,
            },
            pending_cancelation: match row.canceling {
                true => pool.cancelation_keys.get(&work_id).copied(),
                false => None,
            },
            history: row.history.clone(),
        }
    }

    fn read_batch(&self, pool: PoolId, demand: Demand, now: Segment) -> Batch {
        let pool_id = pool;
        let Some(pool) = self.pools.get(pool.0 as usize) else {
            return Batch { read_at: now, ..Batch::default() };
        };
        let until = Key { segment: now, seq: u64::MAX };
        let from = |segment| Key { segment, seq: 0 };

        let waiting = pool.pending_completion.len().min(demand.batch_size);
        let mut completions = Vec::with_capacity(waiting);
        let rows = pool.pending_completion.from(Bound::Included(from(demand.cursors.completion)));
        let rows = rows.take_while(|(key, _)| *key <= until).take(demand.batch_size);
        completions.extend(rows.map(|(key, row)| CompletionRow {
            key,
            run: row.run,
            result: row.result.clone(),
            retry: row.retry,
            work: self.fact_of(self.works.at(row.slot)),
        }));

        let rows = pool.pending_cancelation.range(from(demand.cursors.cancelation)..=until);
        let cancelations = rows.take(demand.batch_size).map(|(key, work_id)| CancelationRow {
            key: *key,
            pool: pool_id,
            work_id: *work_id,
            work: self.fact(*work_id),
        });
        let cancelations = cancelations.collect();

        let slots = demand.slots(completions.len());
        let mut waiting = pool.pending_start.due(&demand, now);
        let mut due = Vec::with_capacity(slots.min(pool.pending_start.startable()));
        due.extend(waiting.by_ref().take(slots));
        self.works.warm_slots(due.iter().map(|(_, slot)| *slot));
        let starts = due.into_iter().map(|(_, slot)| {
            let row = self.works.at(slot);
            let (key, spec) = (row.start_key(), row.spec.clone());
            let lane = spec.key().map(|key| pool.lanes.get(key).unwrap_or_default());
            StartRow { key, spec, attempts: row.attempts, runs: row.runs, lane }
        });
        let starts = starts.collect();
        let next_due = waiting.next_due();
        Batch { read_at: now, completions, cancelations, starts, next_due }
    }

    fn insert_work(&mut self, spec: Spec, key: StartKey) -> Slot {
        self.last_seq = self.last_seq.max(key.seq);
        self.pool(spec.pool).works += 1;
        self.works.insert(Row::new(spec, key))
    }

    fn insert_start(&mut self, pool: PoolId, key: StartKey, slot: Slot, now: Segment) {
        self.pool(pool).pending_start.insert(key, slot, now);
        if key.is_in_lane() {
            let spec = self.works.at(slot).spec.clone();
            if let Some(of) = spec.key() {
                self.pool(pool).lanes.insert(of, key.seq, slot);
            }
        }
    }

    fn remove_start(&mut self, pool: PoolId, key: StartKey) -> Option<Slot> {
        let slot = self.pool(pool).pending_start.remove(key)?;
        if key.is_in_lane() {
            let spec = self.works.at(slot).spec.clone();
            if let Some(of) = spec.key() {
                self.pool(pool).lanes.remove_job(of, key.seq);
            }
        }
        Some(slot)
    }

    fn take_key(&mut self, spec: &Spec) {
        if let Some((place, row)) = spec.unique_row() {
            self.unique.insert(place, row);
        }
    }

    /// Deletes the row of the unique key of a job that has finished, if it goes with the job.
    fn free_key(&mut self, spec: &Spec, finished_at: Segment) {
        if let Some((place, _)) = spec.unique_row()
            && self.unique.get(&place).is_some_and(|row| row.ends_with(spec.work_id, finished_at))
        {
            self.unique.remove(&place);
        }
    }

    fn set_running(&mut self, pool: PoolId, slot: Slot, running: Running) {
        let place = self.pool(pool).running.insert(slot, running);
        let row = self.works.at_mut(slot);
        row.runs = running.run;
        row.running = place;
        row.place = Place::Running;
    }

    fn apply(&mut self, change: Change, now: Segment) {
        match change {
            Change::InsertWork { spec, key } => {
                let pool = spec.pool;
                self.take_key(&spec);
                let slot = self.insert_work(spec, key);
                self.insert_start(pool, key, slot, now);
            }
            Change::InsertRunning { spec, key, run, started, generation } => {
                let pool = spec.pool;
                self.take_key(&spec);
                let slot = self.insert_work(spec, key);
                self.set_running(pool, slot, Running { run, started, generation });
            }
            Change::InsertPendingCompletion {
                work_id,
                pool,
                key,
                run,
                result,
                retry,
                attempts,
            } => {
                self.last_seq = self.last_seq.max(key.seq);
                if let Some(slot) = self.works.slot(work_id) {
                    let row = self.works.at_mut(slot);
                    row.attempts = attempts;
                    row.key = key;
                    row.place = Place::Completing { retry: retry != Retry::No };
                    let completion = Completion { slot, run, result, retry };
                    self.pool(pool).pending_completion.insert(key, completion, now);
                }
            }
            Change::InsertPendingCancelation { work_id, pool, key } => {
                self.last_seq = self.last_seq.max(key.seq);
                if let Some(row) = self.works.get_mut(work_id) {
                    row.canceling = true;
                    let pool = self.pool(pool);
                    pool.pending_cancelation.insert(key, work_id);
                    pool.cancelation_keys.insert(work_id, key);
                }
            }
            Change::StartWork { work_id: _, pool, key, run, started, generation } => {
                if let Some(slot) = self.pool(pool).pending_start.remove(key) {
                    self.set_running(pool, slot, Running { run, started, generation });
                }
            }
            Change::MovePendingStart { work_id: _, pool, from, to } => {
                self.last_seq = self.last_seq.max(to.seq);
                if let Some(slot) = self.remove_start(pool, from) {
                    self.insert_start(pool, to, slot, now);
                    self.works.at_mut(slot).wait_at(to);
                }
            }
            Change::ReplaceWork { spec, from, to } => {
                self.take_key(&spec);
                self.last_seq = self.last_seq.max(to.seq);
                let pool = spec.pool;
                // Equal keys may differ in what is no part of the order.
                let stays = from.is_same(to);
                let slot = match stays {
                    true => self.pool(pool).pending_start.get_mut(from).copied(),
                    false => self.remove_start(pool, from),
                };
                if let Some(slot) = slot {
                    if !stays {
                        self.insert_start(pool, to, slot, now);
                    }
                    let row = self.works.at_mut(slot);
                    row.wait_at(to);
                    row.spec = spec;
                }
            }
            Change::RetryWork { work_id, pool, completion, key, attempts, history } => {
                self.last_seq = self.last_seq.max(key.seq);
                if let Some(completion) = completion {
                    self.pool(pool).pending_completion.remove(completion);
                }
                if let Some(slot) = self.works.slot(work_id) {
                    let row = self.works.at(slot);
                    let (waits, running) = (row.is_waiting(), row.running);
                    if !waits {
                        self.pool(pool).running.remove(running);
                    }
                    self.insert_start(pool, key, slot, now);
                    let row = self.works.at_mut(slot);
                    row.attempts = attempts;
                    row.wait_at(key);
                    row.history = history;
                }
            }
            Change::CompleteWork { finished, spec: _ } => {
                if let Some(row) = self.works.remove(finished.work_id) {
                    self.free_key(&row.spec, finished.finished_at);
                    let pool = self.pool(finished.pool);
                    pool.works -= 1;
                    match row.place {
                        Place::Waiting(_) => {
                            let key = row.start_key();
                            pool.pending_start.remove(key);
                            if let Some(of) = row.spec.key().filter(|_| key.is_in_lane()) {
                                pool.lanes.remove_job(of, key.seq);
                            }
                        }
                        Place::Running => pool.running.remove(row.running),
                        Place::Completing { .. } => {
                            pool.running.remove(row.running);
                            pool.pending_completion.remove(row.key);
                        }
                    }
                    if row.canceling {
                        pool.remove_cancelation_of(finished.work_id);
                    }
                }
                self.finished.push(&finished);
            }
            Change::MarkCanceled { work_id, pool, key } => {
                self.pool(pool).remove_cancelation(key);
                if let Some(row) = self.works.get_mut(work_id) {
                    row.canceled = true;
                    row.canceling = false;
                }
            }
            Change::DeletePendingCancelation { pool, key } => {
                self.pool(pool).remove_cancelation(key);
            }
            Change::PutState { pool, state } => self.pool(pool).state = state,
            Change::PutGlobals { pool, name, config } => {
                let pool = self.pool(pool);
                pool.name = name;
                pool.config = config;
            }
            Change::MarkRetried { finished } => self.finished.replace(finished),
            Change::DeleteFinished { work_id } => self.finished.remove(work_id),
            Change::DeleteUnique { place } => drop(self.unique.remove(&place)),
            Change::PutLane { pool, key, row } => self.pool(pool).lanes.put(&key, row),
            Change::PutRow { table, key, value } => {
                self.user.entry(table).or_default().insert(key, value);
            }
            Change::DeleteRow { table, key } => {
                if let Some(rows) = self.user.get_mut(&table) {
                    rows.remove(&key);
                }
            }
        }
    }
}

impl Pool {
    /// Notes that a row of `work` has moved to another slot.
    fn row_moved(&mut self, row: &Row, slot: Slot) {
        if !row.is_waiting() {
            self.running.row_moved(row.running, slot);
        }
        match row.place {
            Place::Waiting(_) => {
                let key = row.start_key();
                if let Some(start) = self.pending_start.get_mut(key) {
                    *start = slot;
                }
                if let Some(of) = row.spec.key().filter(|_| key.is_in_lane())
                    && let Some(job) = self.lanes.job_mut(of, key.seq)
                {
                    *job = slot;
                }
            }
            Place::Running => {}
            Place::Completing { .. } => {
                if let Some(completion) = self.pending_completion.get_mut(row.key) {
                    completion.slot = slot;
                }
            }
        }
    }

    fn remove_cancelation(&mut self, key: Key) {
        if let Some(work_id) = self.pending_cancelation.remove(&key) {
            self.cancelation_keys.remove(&work_id);
            shrink(&mut self.cancelation_keys);
        }
    }

    fn remove_cancelation_of(&mut self, work_id: WorkId) {
        if let Some(key) = self.cancelation_keys.remove(&work_id) {
            self.pending_cancelation.remove(&key);
            shrink(&mut self.cancelation_keys);
        }
    }
}
