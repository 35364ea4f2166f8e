//! The memtable: running jobs, the counts of each pool, and the rows that the tables do not have yet.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use super::codec::{Head, LevelCounts, Logged, RowCounts, RunRow};
use crate::model::PoolConfig;
use crate::model::{
    Change, Finished, Key, LaneRow, Name, Payload, PoolId, Priority, Retry, Running, Segment, Spec,
    StartKey, StateRow, TableKey, UniquePlace, UniqueRow, WorkFact, WorkId, WorkKey,
};
use crate::storage::shrink;

/// A row of a user table: its table's name and its key.
pub(super) type UserKey = (Name, TableKey);

/// A cache of jobs that were read from the tables, for upcoming changes.
#[derive(Default)]
pub(super) struct Known {
    works: HashMap<WorkId, (Head, Spec)>,
    /// Rows of `unique` that the tables have, for the changes at hand.
    pub unique: HashMap<UniquePlace, UniqueRow>,
    /// Their approximate size in memory.
    bytes: usize,
}

impl Known {
    pub fn get(&self, work_id: WorkId) -> Option<&(Head, Spec)> {
        self.works.get(&work_id)
    }

    pub fn put(&mut self, head: Head, spec: Spec) {
        self.bytes += size(&head, &spec);
        if let Some((head, spec)) = self.works.insert(spec.work_id, (head, spec)) {
            self.bytes -= size(&head, &spec);
        }
    }

    pub fn remove(&mut self, work_id: WorkId) {
        if let Some((head, spec)) = self.works.remove(&work_id) {
            self.bytes -= size(&head, &spec);
        }
    }

    /// Removes all jobs.
    pub fn clear(&mut self) {
        self.works.clear();
        self.bytes = 0;
    }

    /// Removes all jobs if they take more than `most` bytes.
    pub fn bound(&mut self, most: usize) {
        if self.bytes > most {
            self.clear();
        }
    }
}

/// The approximate size of a job in memory.
fn size(head: &Head, spec: &Spec) -> usize {
    size_of::<Spec>() + spec.bytes() + head.history.bytes()
}

/// Rows that the tables do not have yet, and deletions (`None`) of rows that they have.
#[derive(Clone, Default)]
pub(super) struct Layer {
    pub works: HashMap<WorkId, Option<WorkRow>>,
    pub queue: BTreeMap<QueuePlace, Option<Row<WorkId>>>,
    pub ready: BTreeMap<ReadyPlace, Option<Row<Ready>>>,
    /// The jobs in lanes, by pool and `seq`.
    pub in_lanes: BTreeMap<(PoolId, u64), Option<Row<WorkId>>>,
    /// The same jobs, by key.
    pub lane_jobs: BTreeMap<(PoolId, WorkKey, u64), Option<Row<WorkId>>>,
    pub lanes: BTreeMap<(PoolId, WorkKey), Option<LaneRow>>,
    pub finished: HashMap<WorkId, Option<Arc<Finished>>>,
    /// Jobs that finished again under an id whose older row is in a layer below.
    finished_again: HashSet<WorkId>,
    /// Jobs in the order of finishing; the first one has the number `order_from`.
    pub order: VecDeque<(Segment, WorkId)>,
    pub order_from: u64,
    pub user: BTreeMap<UserKey, Option<Payload>>,
    pub unique: BTreeMap<UniquePlace, Option<UniqueRow>>,
}

#[derive(Clone)]
pub(super) struct WorkRow {
    pub head: Head,
    pub spec: Spec,
    /// `true` if a layer below has older rows of this job, so that its deletion must be recorded.
    covers: bool,
}

/// The place of a job in the queue, or of an unregistered one: both are in one table.
pub(super) type QueuePlace = (PoolId, Priority, Key);

/// The place of a job that is ready: pool, priority, tag and `seq`.
pub(super) type ReadyPlace = (PoolId, Priority, u64, u64);

/// A job that is ready, and the time at which it was due.
pub(super) type Ready = (WorkId, Segment);

/// Returns the place of a job in the queue. Unregistered jobs are behind those of the normal priority.
pub(super) fn queue_place(pool: PoolId, key: StartKey) -> QueuePlace {
    let priority = if key.is_unregistered() { Priority::NORMAL } else { key.priority };
    (pool, priority, key.key())
}

/// A row of `pending_start`.
#[derive(Clone, Copy)]
pub(super) struct Row<T> {
    pub value: T,
    /// `true` if a layer below may have an older row of this key, so that its deletion must be recorded. Most keys are
    /// used once, but a job may leave its lane and come back.
    covers: bool,
}

/// Inserts a row of a key that may have been used before.
fn put<K: Ord, T>(rows: &mut BTreeMap<K, Option<Row<T>>>, key: K, value: T) {
    match rows.entry(key) {
        Entry::Vacant(new) => drop(new.insert(Some(Row { value, covers: false }))),
        Entry::Occupied(mut old) => {
            let covers = old.get().as_ref().is_none_or(|old| old.covers);
            old.insert(Some(Row { value, covers }));
        }
    }
}

fn remove<K: Ord, T>(rows: &mut BTreeMap<K, Option<Row<T>>>, key: K) {
    match rows.entry(key) {
        // A row found here that covers none is in no other layer.
        Entry::Occupied(row) if row.get().as_ref().is_some_and(|row| !row.covers) => {
            row.remove();
        }
        Entry::Occupied(mut row) => drop(row.insert(None)),
        Entry::Vacant(gone) => drop(gone.insert(None)),
    }
}

impl Layer {
    /// Returns the number of rows in the layer.
    pub fn len(&self) -> usize {
        let starts = self.queue.len() + self.ready.len() + self.in_lanes.len();
        let of_keys = self.unique.len() + self.lanes.len() + self.lane_jobs.len();
        self.works.len() + starts + self.finished.len() + self.user.len() + of_keys
    }

    pub fn order_until(&self) -> u64 {
        self.order_from + self.order.len() as u64
    }

    fn put_work(&mut self, head: Head, spec: &Spec, covers: bool) {
        let row = WorkRow { head, spec: spec.clone(), covers };
        match self.works.entry(spec.work_id) {
            hashbrown::hash_map::Entry::Occupied(mut old) => {
                let covers = old.get().as_ref().is_none_or(|old| old.covers);
                old.insert(Some(WorkRow { covers, ..row }));
            }
            hashbrown::hash_map::Entry::Vacant(new) => drop(new.insert(Some(row))),
        }
    }

    fn remove_work(&mut self, work_id: WorkId) {
        match self.works.get(&work_id) {
            Some(Some(row)) if !row.covers => drop(self.works.remove(&work_id)),
            _ => drop(self.works.insert(work_id, None)),
        }
    }

    fn put_unique(&mut self, spec: &Spec) {
        if let Some((place, row)) = spec.unique_row() {
            self.unique.insert(place, Some(row));
        }
    }

    fn put_finished(&mut self, finished: &Arc<Finished>) {
        let work_id = finished.work_id;
        if let Some(None) = self.finished.insert(work_id, Some(finished.clone())) {
            self.finished_again.insert(work_id);
        }
        self.order.push_back((finished.finished_at, work_id));
    }

    /// Replaces a row of this layer or of a layer below.
    fn replace_finished(&mut self, finished: &Arc<Finished>) {
        self.finished.insert(finished.work_id, Some(finished.clone()));
    }

    /// Removes the first job of the order.
    fn forget_first(&mut self, work_id: WorkId) {
        let first = self.order.pop_front();
        debug_assert_eq!(first.map(|(_, first)| first), Some(work_id), "the oldest first");
        self.order_from += 1;
        match self.finished_again.remove(&work_id) {
            true => drop(self.finished.insert(work_id, None)),
            false => drop(self.finished.remove(&work_id)),
        }
    }

    /// `of` is the key of a job that is in a lane.
    fn put_start(&mut self, pool: PoolId, key: StartKey, of: Option<&WorkKey>, work_id: WorkId) {
        match key.tag() {
            Some(tag) => {
                let place = (pool, key.priority, tag, key.seq);
                put(&mut self.ready, place, (work_id, key.segment));
            }
            None if key.is_in_lane() => put(&mut self.in_lanes, (pool, key.seq), work_id),
            None => put(&mut self.queue, queue_place(pool, key), work_id),
        }
        if let Some(of) = of {
            put(&mut self.lane_jobs, (pool, of.clone(), key.seq), work_id);
        }
    }

    fn remove_start(&mut self, pool: PoolId, key: StartKey, of: Option<&WorkKey>) {
        match key.tag() {
            Some(tag) => remove(&mut self.ready, (pool, key.priority, tag, key.seq)),
            None if key.is_in_lane() => remove(&mut self.in_lanes, (pool, key.seq)),
            None => remove(&mut self.queue, queue_place(pool, key)),
        }
        if let Some(of) = of {
            remove(&mut self.lane_jobs, (pool, of.clone(), key.seq));
        }
    }
}

/// A layer that is being written to the tables, with everything else that is written with it.
pub(super) struct Sealed {
    pub layer: Layer,
    /// The number of the last commit in it.
    pub last: u64,
    pub last_seq: u64,
    pub clock: Segment,
    pub finished: u64,
    pub forgotten: u64,
    pub pools: Vec<(PoolId, PoolEntry)>,
    pub running: Vec<(WorkId, Option<RunRow>)>,
    pub cancelations: Vec<((PoolId, Key), Option<WorkId>)>,
}

#[derive(Clone)]
pub(super) struct PoolEntry {
    pub name: Name,
    pub config: PoolConfig,
    pub state: StateRow,
    pub works: u64,
    /// The rows of `pending_start` that are in the queue or ready, in the order of their priorities.
    pub levels: Vec<Level>,
    /// The number of rows in lanes.
    pub in_lanes: u64,
    /// The number of unregistered jobs.
    pub unregistered: u64,
    /// The number of rows of `running`. They are in memory: the tables do not count them.
    pub running: u64,
    /// `true` if the tables have its current value.
    saved: bool,
}

/// The jobs of one priority that wait for their time or for a slot.
#[derive(Clone)]
pub(super) struct Level {
    pub counts: LevelCounts,
    /// No row of the queue lies before this key, so that reads can skip the rows that were started.
    pub queue_from: Key,
    /// No ready row lies before this tag and `seq`.
    pub ready_from: (u64, u64),
}

impl Level {
    fn new(counts: LevelCounts) -> Level {
        Level { counts, queue_from: Key::default(), ready_from: (0, 0) }
    }

    pub fn priority(&self) -> Priority {
        self.counts.priority
    }

    fn count(&mut self, key: StartKey) -> &mut u64 {
        match key.tag() {
            None => &mut self.counts.queue,
            Some(_) => &mut self.counts.ready,
        }
    }
}

impl PoolEntry {
    pub fn new(name: Name, config: PoolConfig, state: StateRow, counts: RowCounts) -> PoolEntry {
        let RowCounts { works, levels, in_lanes, unregistered } = counts;
        let levels = levels.into_iter().map(Level::new).collect();
        let (running, saved) = (0, true);
        PoolEntry { name, config, state, works, levels, in_lanes, unregistered, running, saved }
    }

    pub fn counts(&self) -> RowCounts {
        RowCounts {
            works: self.works,
            levels: self.levels.iter().map(|level| level.counts).collect(),
            in_lanes: self.in_lanes,
            unregistered: self.unregistered,
        }
    }

    /// Returns the number of rows of `pending_start` but for the unregistered jobs.
    pub fn waiting(&self) -> u64 {
        let levels = self.levels.iter().map(|level| level.counts.queue + level.counts.ready);
        levels.sum::<u64>() + self.in_lanes
    }

    /// Returns the count of rows outside of the order of priorities that a row belongs to.
    fn outside(&mut self, key: StartKey) -> Option<&mut u64> {
        match key {
            _ if key.is_unregistered() => Some(&mut self.unregistered),
            _ if key.is_in_lane() => Some(&mut self.in_lanes),
            _ => None,
        }
    }

    /// Notes that a row was inserted into `pending_start`.
    fn start_added(&mut self, key: StartKey) {
        if let Some(count) = self.outside(key) {
            *count += 1;
            return;
        }
        let place = self.levels.binary_search_by_key(&key.priority, Level::priority);
        let place = place.unwrap_or_else(|place| {
            let counts = LevelCounts { priority: key.priority, ..LevelCounts::default() };
            self.levels.insert(place, Level::new(counts));
            place
        });
        let level = &mut self.levels[place];
        *level.count(key) += 1;
        match key.tag() {
            None => level.queue_from = level.queue_from.min(key.key()),
            Some(tag) => level.ready_from = level.ready_from.min((tag, key.seq)),
        }
    }

    /// Notes that a row was deleted from `pending_start`.
    fn start_removed(&mut self, key: StartKey) {
        if let Some(count) = self.outside(key) {
            *count = count.saturating_sub(1);
            return;
        }
        if let Ok(place) = self.levels.binary_search_by_key(&key.priority, Level::priority) {
            let level = &mut self.levels[place];
            let count = level.count(key);
            *count = count.saturating_sub(1);
            // The place of the normal priority stays, with what is known of it.
            let is_empty = level.counts.queue == 0 && level.counts.ready == 0;
            if is_empty && key.priority != Priority::NORMAL {
                self.levels.remove(place);
            }
        }
    }
}

impl Default for PoolEntry {
    fn default() -> Self {
        let (name, config) = (Name::from_static(""), PoolConfig::default());
        PoolEntry::new(name, config, StateRow::default(), RowCounts::default())
    }
}

#[derive(Clone)]
pub(super) struct RunningWork {
    pub row: RunRow,
    pub spec: Spec,
    /// `true` if the tables have its current value.
    pub saved: bool,
}

/// The whole state in memory.
#[derive(Clone, Default)]
pub(super) struct Memtable {
    pub pools: Vec<PoolEntry>,
    pub running: HashMap<WorkId, RunningWork>,
    /// The waiting completions, in order.
    pub completions: BTreeMap<(PoolId, Key), WorkId>,
    pub cancelations: BTreeMap<(PoolId, Key), WorkId>,
    pub cancelation_keys: HashMap<WorkId, Key>,
    pub last_seq: u64,
    pub clock: Segment,
    /// The number of rows of `finished`.
    pub finished: u64,
    /// The number of deleted finished jobs, which is the number of the oldest one in the order of finishing.
    pub forgotten: u64,
    /// No job of a lane has a lower `seq`, so that reads can skip the jobs that have left. Has the lanes that were read
    /// since the last checkpoint began.
    pub lanes_from: HashMap<(PoolId, WorkKey), u64>,
    pub layer: Layer,
    /// The layer below, while it is written to the tables.
    pub sealed: Option<Arc<Sealed>>,
    /// The rows of `running` and `pending_cancelation` that the tables have.
    pub tables_running: HashSet<WorkId>,
    pub tables_cancelations: HashSet<(PoolId, Key)>,
}

impl Memtable {
    /// Returns the layers, the newest first.
    pub fn layers(&self) -> impl Iterator<Item = &Layer> {
        std::iter::once(&self.layer).chain(self.sealed.as_ref().map(|sealed| &sealed.layer))
    }

    /// Returns the row of `work`, if a layer has a newer one than the tables.
    pub fn work(&self, work_id: WorkId) -> Option<Option<&WorkRow>> {
        self.layers().find_map(|layer| layer.works.get(&work_id)).map(Option::as_ref)
    }

    /// Returns the row of `unique`, if a layer has a newer one than the tables.
    pub fn unique(&self, place: &UniquePlace) -> Option<Option<UniqueRow>> {
        self.layers().find_map(|layer| layer.unique.get(place)).copied()
    }

    /// Returns the row of `lanes`, if a layer has a newer one than the tables.
    pub fn lane(&self, place: &(PoolId, WorkKey)) -> Option<Option<LaneRow>> {
        self.layers().find_map(|layer| layer.lanes.get(place)).copied()
    }

    /// Applies a change. `known` has the jobs that the change is about and that are found nowhere else.
    pub fn apply(&mut self, change: &Change, known: &Known) {
        match change {
            Change::InsertWork { spec, key } => {
                self.layer.put_unique(spec);
                self.layer.put_work(Head::new(*key), spec, false);
                self.put_start(spec.pool, *key, Some(spec), spec.work_id);
                self.pool(spec.pool).works += 1;
            }
            Change::InsertRunning { spec, key, run, started, generation } => {
                self.layer.put_unique(spec);
                self.layer.put_work(Head::new(*key), spec, false);
                self.last_seq = self.last_seq.max(key.seq);
                self.pool(spec.pool).works += 1;
                let (run, started, generation) = (*run, *started, *generation);
                self.start(Head::new(*key), spec.clone(), Running { run, started, generation });
            }
            Change::InsertPendingCompletion { .. } => self.take_completion(change),
            Change::InsertPendingCancelation { work_id, pool, key } => {
                self.last_seq = self.last_seq.max(key.seq);
                self.put_cancelation(*pool, *key, *work_id);
            }
            Change::StartWork { work_id, pool, key, run, started, generation } => {
                let work = self.find(*work_id, known);
                self.remove_start(*pool, *key, work.as_ref().map(|(_, spec)| spec));
                let Some((head, spec)) = work else { return };
                let (run, started, generation) = (*run, *started, *generation);
                self.start(head, spec, Running { run, started, generation });
            }
            Change::MovePendingStart { work_id, pool, from, to } => {
                let Some((head, spec)) = self.find(*work_id, known) else { return };
                self.remove_start(*pool, *from, Some(&spec));
                self.put_start(*pool, *to, Some(&spec), *work_id);
                self.layer.put_work(head.at(*to), &spec, true);
            }
            Change::ReplaceWork { spec, from, to } => {
                self.layer.put_unique(spec);
                if !from.is_same(*to) {
                    self.remove_start(spec.pool, *from, Some(spec));
                    self.put_start(spec.pool, *to, Some(spec), spec.work_id);
                }
                self.layer.put_work(Head::new(*to), spec, true);
            }
            Change::RetryWork { work_id, pool, key, attempts, history, .. } => {
                let work = self.remove_running(*work_id);
                self.put_start(*pool, *key, work.as_ref().map(|work| &work.spec), *work_id);
                let Some(RunningWork { row, spec, .. }) = work else { return };
                let (attempts, history) = (*attempts, history.clone());
                let head = Head { attempts, runs: row.run, history, ..Head::new(*key) };
                self.layer.put_work(head, &spec, true);
            }
            Change::CompleteWork { finished, .. } => self.complete(finished, known),
            Change::MarkCanceled { work_id, pool, key } => {
                self.remove_cancelation(*pool, *key);
                if let Some(work) = self.running.get_mut(work_id) {
                    work.row.canceled = true;
                    work.saved = false;
                }
            }
            Change::DeletePendingCancelation { pool, key } => self.remove_cancelation(*pool, *key),
            Change::PutState { pool, state } => self.pool(*pool).state = *state,
            Change::PutGlobals { pool, name, config } => {
                let entry = self.pool(*pool);
                entry.name = *name;
                entry.config = config.clone();
            }
            Change::MarkRetried { finished } => self.layer.replace_finished(finished),
            Change::DeleteFinished { work_id } => self.forget(*work_id),
            Change::DeleteUnique { place } => drop(self.layer.unique.insert(place.clone(), None)),
            Change::PutLane { pool, key, row } => {
                self.layer.lanes.insert((*pool, key.clone()), *row);
            }
            Change::PutRow { table, key, value } => {
                self.layer.user.insert((*table, key.clone()), Some(value.clone()));
            }
            Change::DeleteRow { table, key } => {
                self.layer.user.insert((*table, key.clone()), None);
            }
        }
    }

    /// Applies a change from the log.
    pub fn replay(&mut self, change: &Logged, known: &Known) {
        match change {
            Logged::Change(change) => self.apply(change, known),
            Logged::Complete(finished) => self.complete(finished, known),
            Logged::Retried(finished) => self.layer.replace_finished(finished),
        }
    }

    fn complete(&mut self, finished: &Arc<Finished>, known: &Known) {
        let (work_id, pool) = (finished.work_id, finished.pool);
        let running = self.remove_running(work_id).map(|work| work.spec);
        let spec = running.or_else(|| {
            let (head, spec) = self.find(work_id, known)?;
            self.remove_start(pool, head.start_key(), Some(&spec));
            Some(spec)
        });
        if let Some((place, _)) = spec.as_ref().and_then(Spec::unique_row) {
            let row = self.unique(&place).unwrap_or_else(|| known.unique.get(&place).copied());
            if row.is_some_and(|row| row.ends_with(work_id, finished.finished_at)) {
                self.layer.unique.insert(place, None);
            }
        }
        if let Some(key) = self.cancelation_keys.get(&work_id).copied() {
            self.remove_cancelation(pool, key);
        }
        self.layer.remove_work(work_id);
        let entry = self.pool(pool);
        entry.works = entry.works.saturating_sub(1);
        self.layer.put_finished(finished);
        self.finished += 1;
    }

    /// Removes the job that finished first.
    fn forget(&mut self, work_id: WorkId) {
        match self.forgotten == self.layer.order_from {
            true => self.layer.forget_first(work_id),
            false => drop(self.layer.finished.insert(work_id, None)),
        }
        self.forgotten += 1;
        self.finished = self.finished.saturating_sub(1);
    }

    /// Applies a completion. It need not be in the log yet: nobody is told of it before that.
    pub fn take_completion(&mut self, change: &Change) {
        let Change::InsertPendingCompletion { work_id, key, run, result, retry, attempts, .. } =
            change
        else {
            return;
        };
        self.last_seq = self.last_seq.max(key.seq);
        let Some(RunningWork { row, saved, .. }) = self.running.get_mut(work_id) else { return };
        debug_assert_eq!(row.run, *run, "a completion is of the run that occupies the slot");
        row.attempts = *attempts;
        row.completion = Some((*key, result.clone(), *retry));
        *saved = false;
        self.completions.insert((row.pool, *key), *work_id);
    }

    /// Adds a row of `running` that the tables have.
    pub fn put_running(&mut self, row: RunRow, spec: Spec) {
        let work_id = spec.work_id;
        if let Some((key, ..)) = &row.completion {
            self.completions.insert((row.pool, *key), work_id);
        }
        self.insert_running(RunningWork { row, spec, saved: true });
        self.tables_running.insert(work_id);
    }

    pub fn put_cancelation(&mut self, pool: PoolId, key: Key, work_id: WorkId) {
        self.cancelations.insert((pool, key), work_id);
        self.cancelation_keys.insert(work_id, key);
    }

    fn remove_cancelation(&mut self, pool: PoolId, key: Key) {
        if let Some(work_id) = self.cancelations.remove(&(pool, key)) {
            self.cancelation_keys.remove(&work_id);
            shrink(&mut self.cancelation_keys);
        }
    }

    /// Inserts the row of a job that starts.
    fn start(&mut self, head: Head, spec: Spec, running: Running) {
        let Running { run, started, generation } = running;
        let row = RunRow {
            pool: spec.pool,
            run,
            started,
            generation,
            attempts: head.attempts,
            canceled: false,
            priority: head.priority,
            completion: None,
            history: head.history,
        };
        self.insert_running(RunningWork { row, spec, saved: false });
    }

    fn insert_running(&mut self, work: RunningWork) {
        let pool = work.row.pool;
        if self.running.insert(work.spec.work_id, work).is_none() {
            self.pool(pool).running += 1;
        }
    }

    fn remove_running(&mut self, work_id: WorkId) -> Option<RunningWork> {
        let work = self.running.remove(&work_id)?;
        let entry = self.pool(work.row.pool);
        entry.running = entry.running.saturating_sub(1);
        if let Some((key, ..)) = &work.row.completion {
            self.completions.remove(&(work.row.pool, *key));
        }
        Some(work)
    }

    /// `spec` is of the job, if it is known.
    fn put_start(&mut self, pool: PoolId, key: StartKey, spec: Option<&Spec>, work_id: WorkId) {
        self.last_seq = self.last_seq.max(key.seq);
        let of = key_of_lane(key, spec);
        self.layer.put_start(pool, key, of.as_ref(), work_id);
        self.pool(pool).start_added(key);
        if let Some(of) = of
            && let Some(from) = self.lanes_from.get_mut(&(pool, of))
        {
            *from = key.seq.min(*from);
        }
    }

    fn remove_start(&mut self, pool: PoolId, key: StartKey, spec: Option<&Spec>) {
        self.layer.remove_start(pool, key, key_of_lane(key, spec).as_ref());
        self.pool(pool).start_removed(key);
    }

    /// Returns the pool's entry to change it.
    fn pool(&mut self, pool: PoolId) -> &mut PoolEntry {
        let number = pool.0 as usize;
        while self.pools.len() <= number {
            self.pools.push(PoolEntry::default());
        }
        let entry = &mut self.pools[number];
        entry.saved = false;
        entry
    }

    fn find(&self, work_id: WorkId, known: &Known) -> Option<(Head, Spec)> {
        match self.work(work_id) {
            Some(row) => row.map(|row| (row.head.clone(), row.spec.clone())),
            None => known.get(work_id).cloned(),
        }
    }

    /// Returns the unique key of a job.
    pub fn key_of(&self, work_id: WorkId, known: &Known) -> Option<UniquePlace> {
        let running = self.running.get(&work_id).map(|work| work.spec.clone());
        let spec = running.or_else(|| Some(self.find(work_id, known)?.1))?;
        spec.unique_row().map(|(place, _)| place)
    }

    /// Returns everything known of a job.
    pub fn fact(&self, head: Head, spec: Spec) -> WorkFact {
        let pending_cancelation = self.cancelation_keys.get(&spec.work_id).copied();
        WorkFact {
            attempts: head.attempts,
            runs: head.runs,
            priority: head.priority,
            pending_start: Some(head.start_key()),
            pending_cancelation,
            history: head.history,
            ..WorkFact::new(spec)
        }
    }

    /// Returns everything known of a running job.
    pub fn running_fact(&self, work_id: WorkId) -> Option<WorkFact> {
        let RunningWork { row, spec, .. } = self.running.get(&work_id)?;
        let completion = row.completion.as_ref();
        Some(WorkFact {
            attempts: row.attempts,
            runs: row.run,
            canceled: row.canceled,
            priority: row.priority,
            running: Some(Running {
                run: row.run,
                started: row.started,
                generation: row.generation,
            }),
            pending_completion: completion.map(|(key, _, retry)| (*key, *retry != Retry::No)),
            pending_cancelation: self.cancelation_keys.get(&work_id).copied(),
            history: row.history.clone(),
            ..WorkFact::new(spec.clone())
        })
    }

    /// Closes the layer for a checkpoint and begins a new one over it. `last` is the number of the last commit.
    pub fn seal(&mut self, last: u64) -> Arc<Sealed> {
        debug_assert!(self.sealed.is_none(), "one checkpoint at a time");
        let mut running = Vec::new();
        for work_id in std::mem::take(&mut self.tables_running) {
            if !self.running.contains_key(&work_id) {
                running.push((work_id, None));
            }
        }
        for (work_id, work) in &mut self.running {
            self.tables_running.insert(*work_id);
            if !std::mem::replace(&mut work.saved, true) {
                running.push((*work_id, Some(work.row.clone())));
            }
        }
        let before = std::mem::take(&mut self.tables_cancelations);
        self.tables_cancelations = self.cancelations.keys().copied().collect();
        let gone = before.difference(&self.tables_cancelations).map(|place| (*place, None));
        let new = self.cancelations.iter().filter(|(place, _)| !before.contains(*place));
        let new = new.map(|(place, work_id)| (*place, Some(*work_id)));
        let mut cancelations: Vec<_> = gone.chain(new).collect();
        // The tables are written in the order of their keys.
        cancelations.sort_unstable_by_key(|(place, _)| *place);
        running.sort_unstable_by_key(|(work_id, _)| *work_id);
        let mut pools = Vec::new();
        for (pool, entry) in (0..).map(PoolId).zip(&mut self.pools) {
            if !std::mem::replace(&mut entry.saved, true) {
                pools.push((pool, entry.clone()));
            }
        }
        self.lanes_from = HashMap::new();
        let layer = std::mem::take(&mut self.layer);
        self.layer.order_from = layer.order_until();
        let sealed = Arc::new(Sealed {
            layer,
            last,
            last_seq: self.last_seq,
            clock: self.clock,
            finished: self.finished,
            forgotten: self.forgotten,
            pools,
            running,
            cancelations,
        });
        self.sealed = Some(sealed.clone());
        sealed
    }
}

/// Returns the key of a job that is in a lane at this place.
fn key_of_lane(key: StartKey, spec: Option<&Spec>) -> Option<WorkKey> {
    spec.filter(|_| key.is_in_lane())?.work_key()
}
