//! Tables in memory: the default. Fast, bounded by what is enqueued, lost when the process ends.

use std::collections::{BTreeMap, VecDeque};
use std::hash::BuildHasher;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};

use super::{
    Fsync, KeyRange, Opened, PoolRow, Storage, StorageError, is_oversized, lowest, shrink,
};
use crate::model::PoolConfig;
use crate::model::{
    Batch, CancelationRow, Change, CompletionRow, Counts, Cursors, Demand, Finished, History, Key,
    Name, Payload, PoolId, Retry, RunNumber, RunResult, Running, RunningRow, Segment, Spec,
    StartRow, StateRow, TableKey, WorkFact, WorkId,
};

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
        Ok(work_ids.iter().map(|id| tables.finished.get(id).cloned()).collect())
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
        let row = |(work_id, running): (&WorkId, &Running)| {
            let work = tables.fact(*work_id)?;
            Some(RunningRow { running: *running, work })
        };
        let mut rows: Vec<_> = table.running.iter().filter_map(row).collect();
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
        let rows = pools.iter().flat_map(|pool| &pool.running);
        let places = rows.map(|(work_id, row)| (row.started, *work_id));
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
        after: Option<Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Arc<Spec>)>, StorageError> {
        let tables = self.tables();
        let Some(table) = tables.pools.get(pool.0 as usize) else { return Ok(Vec::new()) };
        let lane = Bound::Included(Key { segment: Segment::UNREGISTERED, seq: 0 });
        let from = after.map_or(lane, Bound::Excluded);
        let rows = table.pending_start.range((from, Bound::Unbounded)).take(limit);
        Ok(rows.map(|(key, slot)| (*key, tables.works.at(*slot).spec.clone())).collect())
    }

    fn pending_starts(
        &mut self,
        pool: PoolId,
        after: Option<Key>,
        until: Key,
        limit: usize,
    ) -> Result<Vec<(Key, WorkId)>, StorageError> {
        let tables = self.tables();
        let Some(table) = tables.pools.get(pool.0 as usize) else { return Ok(Vec::new()) };
        if after.is_some_and(|after| after >= until) {
            return Ok(Vec::new());
        }
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rows = table.pending_start.range((from, Bound::Excluded(until))).take(limit);
        Ok(rows.map(|(key, slot)| (*key, tables.works.at(*slot).spec.work_id)).collect())
    }

    fn counts(&mut self, pool: PoolId, _: &Cursors) -> Result<Counts, StorageError> {
        let tables = self.tables();
        let Some(table) = tables.pools.get(pool.0 as usize) else { return Ok(Counts::default()) };
        let oldest = table.pending_start.keys().next().map(|key| key.segment);
        Ok(Counts {
            waiting: table.pending_start.len() as u64 - table.lane,
            running: table.running.len() as u64,
            completing: table.pending_completion.len() as u64,
            canceling: table.pending_cancelation.len() as u64,
            unregistered: table.lane,
            oldest_due: oldest.filter(|segment| *segment != Segment::UNREGISTERED),
        })
    }

    fn expired(
        &mut self,
        before: Segment,
        keep: u64,
        limit: usize,
    ) -> Result<Vec<WorkId>, StorageError> {
        let tables = self.tables();
        let surplus = (tables.finished_order.len() as u64).saturating_sub(keep);
        let rows = tables.finished_order.iter().enumerate().take(limit);
        let expired =
            rows.take_while(|(place, row)| (*place as u64) < surplus || row.finished_at < before);
        Ok(expired.map(|(_, row)| row.work_id).collect())
    }

    fn last_finished(
        &mut self,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<(u64, Arc<Finished>)>, StorageError> {
        let tables = self.tables();
        let end = before.map_or(u64::MAX, |before| before.saturating_sub(tables.forgotten));
        let end = usize::try_from(end).unwrap_or(usize::MAX).min(tables.finished_order.len());
        let from = end.saturating_sub(limit);
        let rows = (tables.forgotten + from as u64..).zip(tables.finished_order.range(from..end));
        let mut page: Vec<_> = rows.map(|(number, row)| (number, row.clone())).collect();
        page.reverse();
        Ok(page)
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
            Change::InsertWork { spec, .. } => Some(spec.work_id),
            _ => None,
        }));
        for change in changes.drain(..) {
            tables.apply(change);
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
    finished: HashMap<WorkId, Arc<Finished>>,
    finished_order: VecDeque<Arc<Finished>>,
    /// The number of deleted finished jobs, which is the number of the first one in the order of finishing.
    forgotten: u64,
    user: HashMap<Name, BTreeMap<TableKey, Payload>>,
}

/// The tables of one pool.
struct Pool {
    name: Name,
    config: PoolConfig,
    state: StateRow,
    works: u64,
    pending_start: BTreeMap<Key, Slot>,
    /// The number of its rows in the unregistered lane.
    lane: u64,
    running: HashMap<WorkId, Running>,
    pending_completion: BTreeMap<Key, Completion>,
    pending_cancelation: BTreeMap<Key, WorkId>,
    /// The keys of the same rows by job.
    cancelation_keys: HashMap<WorkId, Key>,
}

struct Completion {
    work_id: WorkId,
    run: RunNumber,
    result: RunResult,
    retry: Retry,
}

/// A row of `work`. Small, because there may be millions.
struct Row {
    spec: Arc<Spec>,
    attempts: u32,
    runs: RunNumber,
    /// The row's key in the pending table named by `place`.
    key: Key,
    place: Place,
    canceled: bool,
    canceling: bool,
    history: History,
}

/// The table that holds a job besides `work`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// `pending_start`.
    Waiting,
    /// `running`.
    Running,
    /// `running` and `pending_completion`, and whether the job will be retried.
    Completing { retry: bool },
}

impl Tables {
    /// Frees memory after a peak.
    fn shrink(&mut self) {
        if is_oversized(self.works.slab.len(), self.works.len()) {
            let pools = &mut self.pools;
            self.works.compact(|row, slot| {
                let pool = pools.get_mut(row.spec.pool.0 as usize);
                if row.place == Place::Waiting
                    && let Some(start) = pool.and_then(|pool| pool.pending_start.get_mut(&row.key))
                {
                    *start = slot;
                }
            });
        }
        shrink(&mut self.finished);
        let rows = self.finished_order.len();
        if is_oversized(self.finished_order.capacity(), rows) {
            self.finished_order.shrink_to(2 * rows);
        }
    }

    fn pool(&mut self, pool: PoolId) -> &mut Pool {
        let number = pool.0 as usize;
        while self.pools.len() <= number {
            self.pools.push(Pool {
                name: Name::from_static(""),
                config: PoolConfig::default(),
                state: StateRow::default(),
                works: 0,
                pending_start: BTreeMap::new(),
                lane: 0,
                running: HashMap::new(),
                pending_completion: BTreeMap::new(),
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
            Place::Waiting => None,
            _ => pool.running.get(&work_id).copied(),
        };
        WorkFact {
            spec: row.spec.clone(),
            attempts: row.attempts,
            runs: row.runs,
            canceled: row.canceled,
            pending_start: (row.place == Place::Waiting).then_some(row.key),
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
        let rows = pool.pending_completion.range(from(demand.cursors.completion)..=until);
        for (key, row) in rows.take(demand.batch_size) {
            let Some(work) = self.fact(row.work_id) else { continue };
            let result = row.result.clone();
            completions.push(CompletionRow {
                key: *key,
                run: row.run,
                result,
                retry: row.retry,
                work,
            });
        }

        let rows = pool.pending_cancelation.range(from(demand.cursors.cancelation)..=until);
        let cancelations = rows.take(demand.batch_size).map(|(key, work_id)| CancelationRow {
            key: *key,
            pool: pool_id,
            work_id: *work_id,
            work: self.fact(*work_id),
        });
        let cancelations = cancelations.collect();

        let slots = demand.slots(completions.len());
        let mut starts = Vec::with_capacity(slots.min(pool.pending_start.len()));
        let mut next_due = None;
        let waiting = pool.pending_start.range(from(demand.cursors.incoming)..);
        self.works.warm_slots(waiting.clone().take(slots).map(|(_, slot)| *slot));
        for (key, slot) in waiting {
            if key.segment > now || starts.len() == slots {
                next_due = Some(key.segment).filter(|due| *due != Segment::UNREGISTERED);
                break;
            }
            let row = self.works.at(*slot);
            let spec = row.spec.clone();
            starts.push(StartRow { key: *key, spec, attempts: row.attempts, runs: row.runs });
        }
        Batch { read_at: now, completions, cancelations, starts, next_due }
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::InsertWork { spec, key } => {
                let pool = spec.pool;
                let slot = self.works.insert(Row {
                    spec,
                    attempts: 0,
                    runs: 0,
                    key,
                    place: Place::Waiting,
                    canceled: false,
                    canceling: false,
                    history: History::default(),
                });
                self.last_seq = self.last_seq.max(key.seq);
                let pool = self.pool(pool);
                pool.works += 1;
                pool.insert_start(key, slot);
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
                if let Some(row) = self.works.get_mut(work_id) {
                    row.attempts = attempts;
                    row.key = key;
                    row.place = Place::Completing { retry: retry != Retry::No };
                    let completion = Completion { work_id, run, result, retry };
                    self.pool(pool).pending_completion.insert(key, completion);
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
            Change::StartWork { work_id, pool, key, run, started, generation } => {
                let pool = self.pool(pool);
                let slot = pool.remove_start(key);
                pool.running.insert(work_id, Running { run, started, generation });
                if let Some(slot) = slot {
                    let row = self.works.at_mut(slot);
                    row.runs = run;
                    row.place = Place::Running;
                }
            }
            Change::MovePendingStart { work_id: _, pool, from, to } => {
                self.last_seq = self.last_seq.max(to.seq);
                let pool = self.pool(pool);
                if let Some(slot) = pool.remove_start(from) {
                    pool.insert_start(to, slot);
                    self.works.at_mut(slot).key = to;
                }
            }
            Change::RetryWork { work_id, pool, completion, key, attempts, history } => {
                self.last_seq = self.last_seq.max(key.seq);
                let slot = self.works.slot(work_id);
                let pool = self.pool(pool);
                pool.running.remove(&work_id);
                if let Some(completion) = completion {
                    pool.pending_completion.remove(&completion);
                }
                if let Some(slot) = slot {
                    pool.insert_start(key, slot);
                    let row = self.works.at_mut(slot);
                    row.attempts = attempts;
                    row.key = key;
                    row.place = Place::Waiting;
                    row.history = history;
                }
            }
            Change::CompleteWork { finished, spec: _ } => {
                if let Some(row) = self.works.remove(finished.work_id) {
                    let pool = self.pool(finished.pool);
                    pool.works -= 1;
                    match row.place {
                        Place::Waiting => drop(pool.remove_start(row.key)),
                        Place::Running => drop(pool.running.remove(&finished.work_id)),
                        Place::Completing { .. } => {
                            pool.running.remove(&finished.work_id);
                            pool.pending_completion.remove(&row.key);
                        }
                    }
                    if row.canceling {
                        pool.remove_cancelation_of(finished.work_id);
                    }
                }
                self.finished_order.push_back(finished.clone());
                self.finished.insert(finished.work_id, finished);
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
            Change::MarkRetried { finished } => {
                let Some(row) = self.finished.get_mut(&finished.work_id) else { return };
                let order = &mut self.finished_order;
                let from = order.partition_point(|other| other.finished_at < row.finished_at);
                let same = |other: &&mut Arc<Finished>| Arc::ptr_eq(other, row);
                if let Some(place) = order.range_mut(from..).find(same) {
                    *place = finished.clone();
                }
                *row = finished;
            }
            Change::DeleteFinished { work_id } => {
                if self.finished.remove(&work_id).is_some() {
                    self.forgotten += 1;
                }
                let oldest = self.finished_order.front();
                if oldest.is_some_and(|row| row.work_id == work_id) {
                    self.finished_order.pop_front();
                } else {
                    self.finished_order.retain(|row| row.work_id != work_id);
                }
            }
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
    fn insert_start(&mut self, key: Key, slot: Slot) {
        self.pending_start.insert(key, slot);
        self.lane += u64::from(key.segment == Segment::UNREGISTERED);
    }

    fn remove_start(&mut self, key: Key) -> Option<Slot> {
        let slot = self.pending_start.remove(&key)?;
        self.lane -= u64::from(key.segment == Segment::UNREGISTERED);
        Some(slot)
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

/// The index of a row in [`Works`]. Four bytes, so that a pending row of another table is small.
type Slot = u32;

/// The `work` table: rows in a slab, found by id through a table of slots.
///
/// At a million pending jobs it takes about half the memory of a map that contains the rows.
#[derive(Default)]
struct Works {
    slab: Vec<Option<Row>>,
    free: Vec<Slot>,
    index: HashTable<Slot>,
    hasher: DefaultHashBuilder,
}

impl Works {
    fn len(&self) -> usize {
        self.index.len()
    }

    fn rows(&self) -> impl Iterator<Item = &Row> {
        self.slab.iter().flatten()
    }

    fn hash(&self, work_id: WorkId) -> u64 {
        self.hasher.hash_one(work_id.as_u128())
    }

    fn slot(&self, work_id: WorkId) -> Option<Slot> {
        let is_it = |slot: &Slot| self.at(*slot).spec.work_id == work_id;
        self.index.find(self.hash(work_id), is_it).copied()
    }

    fn at(&self, slot: Slot) -> &Row {
        self.slab[slot as usize].as_ref().expect("the index names occupied slots")
    }

    fn at_mut(&mut self, slot: Slot) -> &mut Row {
        self.slab[slot as usize].as_mut().expect("the index names occupied slots")
    }

    /// Reads a few bytes of each of these rows, so that they are in the CPU cache when they are needed.
    ///
    /// Rows of a large table that lie far apart cost a memory access each. These accesses overlap when they are made in
    /// a row, but not when they are spread over everything else that happens to a job.
    fn warm(&self, work_ids: impl Iterator<Item = WorkId>) {
        let mut read = 0;
        for work_id in work_ids {
            let _ = self.index.find(self.hash(work_id), |slot| {
                read ^= self.slab[*slot as usize].as_ref().map_or(0, |row| row.attempts);
                false
            });
        }
        std::hint::black_box(read);
    }

    /// Does the same as [`Works::warm`] for rows whose slot is known, and also reads what was enqueued.
    fn warm_slots(&self, slots: impl Iterator<Item = Slot>) {
        let read = slots.fold(0, |read, slot| {
            let row = self.slab[slot as usize].as_ref();
            read ^ row.map_or(0, |row| row.spec.enqueued_at.0)
        });
        std::hint::black_box(read);
    }

    fn get(&self, work_id: WorkId) -> Option<&Row> {
        self.slot(work_id).map(|slot| self.at(slot))
    }

    fn get_mut(&mut self, work_id: WorkId) -> Option<&mut Row> {
        self.slot(work_id).map(|slot| self.at_mut(slot))
    }

    /// Moves all rows to the front and frees the space behind them. Calls `moved` for each.
    fn compact(&mut self, mut moved: impl FnMut(&Row, Slot)) {
        let rows = std::mem::take(&mut self.slab).into_iter().flatten();
        let mut slab = Vec::with_capacity(2 * self.index.len());
        slab.extend(rows.map(Some));
        let mut index = HashTable::with_capacity(slab.len());
        let hash = |slot: &Slot, slab: &[Option<Row>]| {
            let row = slab[*slot as usize].as_ref().expect("every slot is occupied");
            self.hasher.hash_one(row.spec.work_id.as_u128())
        };
        for (slot, row) in (0..).zip(&slab) {
            moved(row.as_ref().expect("every slot is occupied"), slot);
            index.insert_unique(hash(&slot, &slab), slot, |slot| hash(slot, &slab));
        }
        (self.slab, self.index, self.free) = (slab, index, Vec::new());
    }

    fn insert(&mut self, row: Row) -> Slot {
        let hash = self.hash(row.spec.work_id);
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slab[slot as usize] = Some(row);
                slot
            }
            None => {
                self.slab.push(Some(row));
                (self.slab.len() - 1) as Slot
            }
        };
        let (slab, hasher) = (&self.slab, &self.hasher);
        self.index.insert_unique(hash, slot, |slot| {
            let row = slab[*slot as usize].as_ref().expect("the index names occupied slots");
            hasher.hash_one(row.spec.work_id.as_u128())
        });
        slot
    }

    fn remove(&mut self, work_id: WorkId) -> Option<Row> {
        let hash = self.hash(work_id);
        let slab = &self.slab;
        let is_it = |slot: &Slot| {
            slab[*slot as usize].as_ref().is_some_and(|row| row.spec.work_id == work_id)
        };
        let (slot, _) = self.index.find_entry(hash, is_it).ok()?.remove();
        let row = self.slab[slot as usize].take();
        self.free.push(slot);
        row
    }
}
