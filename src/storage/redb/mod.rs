//! Tables in one file: durable, crash-safe. See [`Redb`].
//!
//! ```text
//!  commit ──► WAL ───────────────► acknowledged
//!              │ and in memory: memtable ─────── read first
//!              │      checkpoint, from time to time, on its own thread
//!              ▼                                  │
//!            tables (redb) ───────────────────── read for rows that are not in memory
//! ```
//!
//! The file is log-structured. The *write-ahead log* (WAL) has one frame per commit, which is synced before the commit
//! is acknowledged. The *memtable* holds in memory what is in the log and not yet in the tables. A *checkpoint* (a
//! flush) seals the memtable, writes it to the tables, and frees its half of the log. The *merge iterator* reads
//! memtable, sealed memtable and tables as one.
//!
//! | file | what |
//! |---|---|
//! | `disk.rs` | the bytes: a file, and how it is shared |
//! | `wal.rs` | the write-ahead log: one frame per commit, synced |
//! | `memtable.rs` | the state in memory: running jobs, and the rows that the tables do not have yet |
//! | `tables.rs` | the tables, written by checkpoints |
//! | `checkpoint.rs` | a checkpoint in progress |
//! | `merge_iter.rs` | a merged view of all layers |
//! | `codec/` | encodes rows and changes as bytes |
//! | `upgrade.rs` | upgrades the file from one format to the next |

mod checkpoint;
mod codec;
mod disk;
mod memtable;
mod merge_iter;
mod tables;
#[cfg(all(test, feature = "unstable-storage"))]
mod tests;
mod upgrade;
mod wal;

use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

pub(crate) use self::checkpoint::Checkpoints;
use self::checkpoint::{Checkpoint, Written};
use self::codec::{Head, Input, Logged};
use self::disk::{CheckedDisk, FileDisk, Rest};
use self::memtable::{Known, Level, Memtable, Sealed, UserKey, queue_place};
use self::merge_iter::MergeIter;
use self::tables::{Filled, Rows, Tables, Works};
use self::wal::{Room, Wal};
use super::{ByRank, Fsync, KeyRange, Opened, PoolRow, Storage, StorageError, lowest};
use crate::model::{
    Batch, CancelationRow, Change, CompletionRow, Counts, Cursors, Demand, Finished, Key,
    LanePlace, LaneRow, Name, Payload, PoolId, Running, RunningRow, Segment, Spec, StartKey,
    StartPlace, StartRow, StateRow, TableKey, UniquePlace, UniqueRow, WorkFact, WorkId, WorkKey,
};

pub use self::disk::Disk;

/// The number of rows in the memtable at which a checkpoint is due, however few bytes they take in the log.
const MEMTABLE_ROWS: usize = 200_000;

/// The maximum size, in bytes, of the cache of jobs that were read for upcoming changes.
const MOST_KNOWN: usize = 4 << 20;

/// Rows of `pending_start`, in order.
trait Starts: Iterator<Item = Result<(StartKey, WorkId), StorageError>> {}

impl<I: Iterator<Item = Result<(StartKey, WorkId), StorageError>>> Starts for I {}

type Started<I> = Result<I, StorageError>;

/// Rows of `pending_start` that were read.
type Read = Vec<(StartKey, WorkId)>;

/// The length of the store's clock, which precedes the changes in a frame.
const CLOCK: usize = 8;

/// The wait before a failed checkpoint is retried.
const CHECKPOINT_PAUSE_MS: u64 = 1_000;

/// The events that a commit survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// Power failure: each commit is synced to the disk before it is acknowledged.
    #[default]
    Disk,
    /// A crash or kill of the process, but not of the machine: the operating system writes commits to the disk within a
    /// minute or so. After a power failure the file holds a complete earlier state.
    Process,
}

/// Keeps every table in one file, with its own log and [redb](https://docs.rs/redb). Only one process at a time can use
/// it.
///
/// When `enqueue(..).await` returns, the job is on disk. One sync covers all commits that arrived during the previous
/// sync. The log has 16 MiB, which the file reserves when it is created; checkpoints move committed rows from the log
/// to the tables in large steps, concurrently with later commits.
///
/// Memory is bounded by the running jobs, the size of the log, a cache of 64 MiB, and 4 MiB of jobs that were read to
/// be started. It does not grow with the number of waiting jobs.
///
/// ```
/// # actix_workpool::doctest::run(async {
/// use actix_workpool::{PoolConfig, Runtime, storage::Redb};
///
/// # let folder = std::env::temp_dir().join(format!("workpool-doc-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder)?;
/// # let path = folder.join("work.redb");
/// let runtime = Runtime::builder()
///     .storage(Redb::open(&path)?)
///     .pool("mail", PoolConfig::default())
///     .start()
///     .await?;
/// # runtime.shutdown(std::time::Duration::ZERO).await;
/// # std::fs::remove_dir_all(&folder)?;
/// # Ok(()) });
/// ```
pub struct Redb {
    /// `None` once the storage is closed, which frees the file.
    store: Option<Store>,
    /// The error after which the storage refuses every call.
    poisoned: Option<StorageError>,
}

struct Store {
    disk: Arc<CheckedDisk>,
    wal: Wal,
    memtable: Memtable,
    /// `None` while the tables cannot be reopened after a failure.
    tables: Option<Arc<Tables>>,
    /// The number of the last commit that is in the tables.
    applied: u64,
    /// The tables that have rows.
    filled: Filled,
    /// Jobs that were read from the tables.
    known: Known,
    /// The next frame: the clock, then changes. Reports that were not synced wait here for the next commit.
    frame: Vec<u8>,
    checkpoint: Option<Checkpoint>,
    checkpoints: Checkpoints,
    /// The error that made the tables unusable, and the time, by the store's clock, at which the checkpoint is retried.
    setback: Option<(StorageError, Segment)>,
    /// The memtable to use if a failed commit that was written directly to the tables turns out to be there.
    in_doubt: Option<Box<Memtable>>,
    /// A layer that is in the tables. The next checkpoint's thread frees it, because that takes a while.
    done: Option<Arc<Sealed>>,
}

impl Redb {
    /// Opens the file, or creates it. Jobs that were running when the last process ended are recovered when their pool
    /// starts.
    ///
    /// # Errors
    /// [`StorageError::InUse`] when another process or runtime has it open, [`StorageError::NotOpened`] when it cannot
    /// be read or written, is damaged, or is not a workpool file, [`StorageError::TooNew`] when a newer version has
    /// written it. A damaged last commit looks like one that was cut short, and is dropped.
    pub fn open(path: impl AsRef<Path>) -> Result<Redb, StorageError> {
        Redb::open_with_log(path, wal::LENGTH)
    }

    /// Opens the file like [`Redb::open`], but creates a new one with a log of about `length` bytes, at least 8 KiB.
    /// The log holds commits until a checkpoint writes them to the tables: a small log makes a small file, a large one
    /// makes checkpoints cheaper. An existing file keeps its log.
    ///
    /// # Errors
    /// As [`Redb::open`].
    pub fn open_with_log(path: impl AsRef<Path>, length: u64) -> Result<Redb, StorageError> {
        let path = path.as_ref();
        Redb::on(FileDisk::open(path)?, length, Checkpoints::OnThread).map_err(
            |error| match error {
                StorageError::Poisoned(problem) | StorageError::Unavailable(problem) => {
                    StorageError::NotOpened { path: path.to_owned(), problem }
                }
                error => error,
            },
        )
    }

    /// Opens a store on any disk.
    pub(crate) fn on(
        disk: impl Disk,
        length: u64,
        checkpoints: Checkpoints,
    ) -> Result<Redb, StorageError> {
        let open = || Store::open(CheckedDisk::new(disk), length, checkpoints);
        let store = catch_unwind(AssertUnwindSafe(open)).unwrap_or_else(|_| Err(damaged()))?;
        Ok(Redb { store: Some(store), poisoned: None })
    }

    /// Sets which events a commit survives. The default is [`Durability::Disk`].
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Redb {
        if let Some(store) = &mut self.store {
            store.wal.relax(durability == Durability::Process);
        }
        self
    }

    /// Makes checkpoints on the commit thread and reports that the storage does not block, for tests whose steps must
    /// not depend on threads.
    #[cfg(feature = "unstable-storage")]
    #[doc(hidden)]
    #[must_use]
    pub fn on_one_thread(mut self) -> Redb {
        if let Some(store) = &mut self.store {
            store.checkpoints = Checkpoints::Within(0);
        }
        self
    }

    /// Returns free pages to the file system. Slow on a large file; call it before the runtime starts.
    ///
    /// # Errors
    /// Fails if the file cannot be written.
    pub fn compact(&mut self) -> Result<(), StorageError> {
        self.ask(Store::compact)
    }
}

impl Store {
    fn open(
        disk: Arc<CheckedDisk>,
        length: u64,
        checkpoints: Checkpoints,
    ) -> Result<Store, StorageError> {
        let mut wal = Wal::open(&disk, length)?;
        let tables = Tables::open(Rest::of(&disk, wal.tables_from()))?;
        let applied = tables.applied()?;
        upgrade::run(wal.format(), &tables)?;
        let mut memtable = tables.load()?;
        let rows = tables.read()?;
        let works = rows.works()?;
        wal.replay(applied.last, applied.seed, |frame| {
            let (clock, changes) = frame.split_at_checked(CLOCK).ok_or_else(closed)?;
            let mut time = [0; CLOCK];
            time.copy_from_slice(clock);
            let clock = if planted!(ClockForgotten) { 0 } else { u64::from_le_bytes(time) };
            memtable.clock = memtable.clock.max(Segment(clock));
            let mut changes = Input(changes);
            while let Some(change) = changes.change()? {
                let mut known = Known::default();
                let needed = match &change {
                    Logged::Change(change) => needs_work(change),
                    Logged::Complete(finished) => Some(finished.work_id),
                    Logged::Retried(_) => None,
                };
                if let Some(work_id) = needed
                    && memtable.work(work_id).is_none()
                    && let Some((head, spec)) = works.get(work_id)?
                {
                    known.put(head, spec);
                }
                if let Logged::Complete(finished) = &change
                    && let Some(place) = memtable.key_of(finished.work_id, &known)
                    && memtable.unique(&place).is_none()
                    && let Some(row) = rows.unique(std::slice::from_ref(&place))?.pop().flatten()
                {
                    known.unique.insert(place, row);
                }
                memtable.replay(&change, &known);
            }
            Ok(())
        })?;
        drop((works, rows));
        // Replayed frames may exist only in the system's cache, if another process failed to sync them. Write them to
        // the tables and start the log anew.
        let seed = fastrand::u64(1..);
        let sealed = memtable.seal(wal.last());
        tables.checkpoint(&sealed, Some(seed))?;
        memtable.sealed = None;
        wal.restart(seed);
        // Also for an existing store: its header, too, may exist only in the system's cache.
        wal.made()?;
        let filled = tables.read()?.filled()?;
        Ok(Store {
            disk,
            applied: wal.last(),
            wal,
            memtable,
            tables: Some(Arc::new(tables)),
            filled,
            known: Known::default(),
            frame: vec![0; CLOCK],
            checkpoint: None,
            checkpoints,
            setback: None,
            in_doubt: None,
            done: None,
        })
    }

    /// Makes every error permanent once a sync has failed.
    fn judge(&self, error: StorageError) -> StorageError {
        match error {
            StorageError::Unavailable(error) if self.disk.is_lost() => {
                StorageError::Poisoned(error)
            }
            error => error,
        }
    }

    fn compact(&mut self) -> Result<(), StorageError> {
        self.checkpoint_all()?;
        self.done = None;
        match self.tables.as_mut().and_then(Arc::get_mut) {
            Some(tables) => tables.compact(),
            None => Err(closed()),
        }
    }

    fn tables(&self) -> Result<&Tables, StorageError> {
        let unavailable = || match &self.setback {
            Some((error, _)) => error.clone(),
            None => closed(),
        };
        self.tables.as_deref().ok_or_else(unavailable)
    }

    fn rows(&self) -> Result<Rows, StorageError> {
        self.tables()?.read()
    }

    /// Rows of `work`, from memory or the tables.
    fn work(
        &self,
        works: &mut Option<Works>,
        work_id: WorkId,
    ) -> Result<Option<(Head, Spec)>, StorageError> {
        if let Some(row) = self.memtable.work(work_id) {
            return Ok(row.map(|row| (row.head.clone(), row.spec.clone())));
        }
        if let Some(work) = self.known.get(work_id) {
            return Ok(Some(work.clone()));
        }
        let works = match works {
            Some(works) => works,
            None => works.insert(self.rows()?.works()?),
        };
        works.get(work_id)
    }

    fn facts(&self, work_ids: &[WorkId]) -> Result<Vec<Option<WorkFact>>, StorageError> {
        let mut works = None;
        let mut facts = Vec::with_capacity(work_ids.len());
        for work_id in work_ids {
            let running = self.memtable.running_fact(*work_id);
            facts.push(match running {
                Some(fact) => Some(fact),
                None => self
                    .work(&mut works, *work_id)?
                    .map(|(head, spec)| self.memtable.fact(head, spec)),
            });
        }
        Ok(facts)
    }

    /// Jobs of one priority in the queue, or unregistered ones, between two places of one kind.
    fn starts(
        &self,
        pool: PoolId,
        from: StartKey,
        until: StartKey,
    ) -> Result<MergeIter<'_, Key, WorkId>, StorageError> {
        if from >= until {
            return Ok(MergeIter::empty());
        }
        let mut rows = MergeIter::new();
        let (first, end) = (queue_place(pool, from), queue_place(pool, until));
        for layer in self.memtable.layers() {
            let range = layer.queue.range(first..end);
            rows.over(range.map(|((.., key), row)| Ok((*key, row.map(|row| row.value)))));
        }
        if self.filled.starts {
            rows.over(self.rows()?.queue(pool, from, until)?.map(of_tables));
        }
        Ok(rows)
    }

    /// Jobs of one priority in the queue.
    fn queue(&self, pool: PoolId, level: &Level, from: Key) -> Started<impl Starts> {
        let priority = level.priority();
        let from = StartKey::at(priority, level.queue_from.max(from));
        let end = StartKey { seq: u64::MAX, ..StartKey::new(priority, LAST_SEGMENT) };
        let rows = self.starts(pool, from, end)?;
        Ok(rows.map(move |row| row.map(|(key, work_id)| (StartKey::at(priority, key), work_id))))
    }

    /// Unregistered jobs behind one of them.
    fn unregistered_from(&self, pool: PoolId, after: Option<StartKey>) -> Started<impl Starts> {
        let seq = after.map_or(0, |after| after.seq.saturating_add(1));
        let rows = self.starts(pool, StartKey { seq, ..StartKey::END }, StartKey::END)?;
        let place = |seq| StartKey { seq, ..StartKey::END };
        Ok(rows.map(move |row| row.map(|(key, work_id)| (place(key.seq), work_id))))
    }

    /// Jobs of one priority that are ready, from a tag and a `seq` on.
    fn ready(&self, pool: PoolId, level: &Level, from: (u64, u64)) -> Started<impl Starts> {
        let (priority, from) = (level.priority(), level.ready_from.max(from));
        let mut rows = MergeIter::empty();
        if level.counts.ready > 0 {
            let place = |(tag, seq)| (pool, priority, tag, seq);
            for layer in self.memtable.layers() {
                let range = layer.ready.range(place(from)..=place(LAST_TAG));
                rows.over(
                    range.map(|((.., tag, seq), row)| Ok(((*tag, *seq), row.map(|row| row.value)))),
                );
            }
            if self.filled.ready {
                rows.over(self.rows()?.ready(pool, priority, from)?.map(of_tables));
            }
        }
        Ok(rows.map(move |row| {
            let ((tag, seq), (work_id, segment)) = row?;
            let key = StartKey::at(priority, Key { segment, seq });
            Ok((key.in_place(StartPlace::Ready { tag }), work_id))
        }))
    }

    /// Jobs in lanes, from a `seq` on.
    fn in_lanes(&self, pool: PoolId, from: u64) -> Started<impl Starts> {
        let mut rows = MergeIter::empty();
        for layer in self.memtable.layers() {
            let range = layer.in_lanes.range((pool, from)..=(pool, u64::MAX));
            rows.over(range.map(|((_, seq), row)| Ok((*seq, row.map(|row| row.value)))));
        }
        if self.filled.in_lanes {
            rows.over(self.rows()?.in_lanes(pool, from)?.map(of_tables));
        }
        let place = |seq| StartKey { seq, ..StartKey::LANES };
        Ok(rows.map(move |row| row.map(|(seq, work_id)| (place(seq), work_id))))
    }

    fn levels(&self, pool: PoolId) -> &[Level] {
        self.memtable.pools.get(pool.0 as usize).map_or(&[], |entry| &entry.levels)
    }

    /// Reads the rows of `pending_start` that are due, at most `slots`, in the order of their ranks. Returns the time at
    /// which the first of the others is due.
    fn due(
        &mut self,
        pool: PoolId,
        demand: Demand,
        now: Segment,
        slots: usize,
    ) -> Result<(Read, Option<Segment>), StorageError> {
        let from = Key { segment: demand.cursors.incoming, seq: 0 };
        let mut firsts = Vec::new();
        let mut parts = Vec::new();
        let mut found = 0;
        for level in self.levels(pool) {
            // One more shows when the next one is due. Without aging, what comes first takes the slots.
            let wanted = slots - if demand.aging.is_none() { found } else { 0 };
            let queue = until_due(self.queue(pool, level, from)?, now, wanted)?;
            let ready = until_due(self.ready(pool, level, (0, 0))?, now, wanted)?;
            for rows in [&queue, &ready] {
                let due = rows.iter().filter(|(key, _)| key.segment <= now).count();
                found = (found + due).min(slots);
            }
            let first = |rows: &[(StartKey, WorkId)]| rows.first().map(|(key, _)| *key);
            firsts.push((level.priority(), first(&queue), first(&ready)));
            let ready = Some(ready).filter(|rows| !rows.is_empty());
            parts.extend(std::iter::once(queue).chain(ready).map(Vec::into_iter));
        }
        let mut rows = ByRank::new(parts.into_iter(), now, demand.aging, demand.ready_first);
        let due = rows.by_ref().take(slots).collect();
        // No row of a queue is behind its cursor, and none was found before the first one.
        if let Some(entry) = self.memtable.pools.get_mut(pool.0 as usize) {
            for (level, (priority, queue, ready)) in entry.levels.iter_mut().zip(firsts) {
                debug_assert_eq!(level.priority(), priority);
                level.queue_from = queue.map_or(UNREGISTERED, StartKey::key);
                let tag = ready.and_then(StartKey::tag);
                level.ready_from = tag.zip(ready).map_or(LAST_TAG, |(tag, key)| (tag, key.seq));
            }
        }
        Ok((due, rows.next_due()))
    }

    fn read_batch(
        &mut self,
        pool: PoolId,
        demand: Demand,
        now: Segment,
    ) -> Result<Batch, StorageError> {
        let mut batch = Batch { read_at: now, ..Batch::default() };
        let memtable = &self.memtable;
        let from = |segment| (pool, Key { segment, seq: 0 });
        let until = (pool, Key { segment: now, seq: u64::MAX });

        let rows = memtable.completions.range(from(demand.cursors.completion)..=until);
        for ((_, key), work_id) in rows.take(demand.batch_size) {
            let Some(work) = memtable.running_fact(*work_id) else { continue };
            let row = memtable.running.get(work_id).map(|work| &work.row);
            let Some((_, result, retry)) = row.and_then(|row| row.completion.as_ref()) else {
                continue;
            };
            let (key, run, result, retry) = (*key, work.runs, result.clone(), *retry);
            batch.completions.push(CompletionRow { key, run, result, retry, work });
        }

        let rows = memtable.cancelations.range(from(demand.cursors.cancelation)..=until);
        let rows: Vec<_> = rows.take(demand.batch_size).collect();
        if !rows.is_empty() {
            let ids: Vec<_> = rows.iter().map(|(_, work_id)| **work_id).collect();
            for (((_, key), work_id), work) in rows.into_iter().zip(self.facts(&ids)?) {
                let (key, work_id) = (*key, *work_id);
                batch.cancelations.push(CancelationRow { key, pool, work_id, work });
            }
        }

        let slots = demand.slots(batch.completions.len());
        let (starts, next_due) = self.due(pool, demand, now, slots)?;
        batch.next_due = next_due;
        self.know(starts.iter().map(|(_, work_id)| *work_id))?;
        batch.starts.reserve(starts.len());
        let mut keys = Vec::new();
        for (key, work_id) in starts {
            let work = match self.memtable.work(work_id) {
                Some(row) => row.map(|row| (&row.head, &row.spec)),
                None => self.known.get(work_id).map(|(head, spec)| (head, spec)),
            };
            let (head, spec) =
                work.filter(|(head, _)| head.start_key() == key).ok_or_else(damaged)?;
            let (spec, attempts, runs) = (spec.clone(), head.attempts, head.runs);
            keys.extend(spec.work_key());
            batch.starts.push(StartRow { key: head.start_key(), spec, attempts, runs, lane: None });
        }
        if !keys.is_empty() {
            let mut lanes = self.lanes(pool, &keys)?.into_iter();
            for row in batch.starts.iter_mut().filter(|row| row.spec.key().is_some()) {
                row.lane = lanes.next().map(Option::unwrap_or_default);
            }
        }
        self.known.bound(MOST_KNOWN);
        Ok(batch)
    }

    /// Caches those of these jobs that are only in the tables.
    fn know(&mut self, work_ids: impl Iterator<Item = WorkId>) -> Result<(), StorageError> {
        let is_new =
            |id: &WorkId| self.memtable.work(*id).is_none() && self.known.get(*id).is_none();
        let mut missing: Vec<_> = work_ids.filter(is_new).collect();
        if missing.is_empty() {
            return Ok(());
        }
        missing.sort_unstable();
        for (head, spec) in self.rows()?.works()?.get_all(&missing)? {
            self.known.put(head, spec);
        }
        Ok(())
    }

    /// Caches the jobs that the changes need and that are only in the tables.
    fn learn(&mut self, changes: &[Change]) -> Result<(), StorageError> {
        let mut works = None;
        self.known.unique.clear();
        for change in changes {
            if let Change::CompleteWork { spec, .. } = change
                && let Some((place, _)) = spec.unique_row()
                && self.memtable.unique(&place).is_none()
                && let Some(row) =
                    self.rows()?.unique(std::slice::from_ref(&place))?.pop().flatten()
            {
                self.known.unique.insert(place, row);
            }
            let Some(work_id) = needs_work(change) else { continue };
            if !self.memtable.running.contains_key(&work_id)
                && self.memtable.work(work_id).is_none()
                && self.known.get(work_id).is_none()
                && let Some((head, spec)) = self.work(&mut works, work_id)?
            {
                self.known.put(head, spec);
            }
        }
        Ok(())
    }

    fn commit(
        &mut self,
        changes: &[Change],
        now: Segment,
        fsync: Fsync,
    ) -> Result<(), StorageError> {
        self.retry_checkpoint(now)?;
        let before = self.frame.len();
        for change in changes {
            codec::change(&mut self.frame, change);
        }
        let report = |change: &Change| matches!(change, Change::InsertPendingCompletion { .. });
        if fsync == Fsync::WithNext && changes.iter().all(report) {
            for change in changes {
                self.memtable.take_completion(change);
            }
            self.memtable.clock = self.memtable.clock.max(now);
            if planted!(DeferredReportLost) {
                self.frame.truncate(before);
            }
            return Ok(());
        }
        if let Err(error) = self.write(changes, now) {
            self.frame.truncate(before);
            return Err(error);
        }
        Ok(())
    }

    /// Writes the current frame and applies the changes at its end.
    fn write(&mut self, changes: &[Change], now: Segment) -> Result<(), StorageError> {
        let clock = self.memtable.clock.max(now);
        self.frame[..CLOCK].copy_from_slice(&clock.0.to_le_bytes());
        match self.wal.room(self.frame.len()) {
            Room::Here => {}
            Room::InEmptyHalf => {
                self.finish_checkpoint()?;
                self.begin_checkpoint()?;
                self.try_mend()?;
            }
            Room::Nowhere => return self.write_into_tables(changes, clock),
        }
        // Only now: a checkpoint that ended above moved jobs out of memory and cleared the cache.
        self.learn(changes)?;
        self.wal.append(&self.frame)?;
        self.written(changes, clock);
        if self.wal.wants_checkpoint() || self.memtable.layer.len() > MEMTABLE_ROWS {
            // If it cannot begin, the log is still usable until it is full.
            let _ = self.begin_checkpoint();
        }
        Ok(())
    }

    fn written(&mut self, changes: &[Change], clock: Segment) {
        for change in changes {
            self.memtable.apply(change, &self.known);
            if let Some(work_id) = needs_work(change) {
                self.known.remove(work_id);
            }
        }
        self.memtable.clock = clock;
        self.known.bound(MOST_KNOWN);
        self.frame.truncate(CLOCK);
        if self.frame.capacity() > 1 << 20 {
            self.frame.shrink_to(1 << 16);
        }
    }

    /// Writes a commit that is larger than the log.
    fn write_into_tables(
        &mut self,
        changes: &[Change],
        clock: Segment,
    ) -> Result<(), StorageError> {
        self.checkpoint_all()?;
        self.learn(changes)?;
        let before = (self.memtable.clone(), self.frame.clone());
        self.written(changes, clock);
        let sealed = self.memtable.seal(self.wal.last() + 1);
        let Err(error) = self.tables()?.checkpoint(&sealed, None) else {
            self.wal.skip();
            self.checkpoint_done();
            return Ok(());
        };
        let after = std::mem::replace(&mut self.memtable, before.0);
        self.frame = before.1;
        self.in_doubt = Some(Box::new(after));
        self.set_back(error.clone());
        // It may have been written despite the error.
        self.mend()?;
        if self.wal.last() == sealed.last { Ok(()) } else { Err(error) }
    }

    /// Writes everything to the tables.
    fn checkpoint_all(&mut self) -> Result<(), StorageError> {
        self.finish_checkpoint()?;
        self.begin_checkpoint()?;
        self.finish_checkpoint()
    }

    /// Begins a checkpoint of everything committed so far, unless one is in progress.
    fn begin_checkpoint(&mut self) -> Result<(), StorageError> {
        if self.memtable.sealed.is_some() {
            return Ok(());
        }
        self.wal.switch()?;
        // Without a new commit, its number could not tell the layer from what is in the tables.
        if self.wal.last() == self.applied {
            return Ok(());
        }
        self.memtable.seal(self.wal.last());
        self.run_checkpoint()
    }

    /// Writes the sealed layer to the tables, concurrently with commits.
    fn run_checkpoint(&mut self) -> Result<(), StorageError> {
        let (Some(tables), Some(sealed)) = (self.tables.clone(), self.memtable.sealed.clone())
        else {
            return Ok(());
        };
        let done = self.done.take();
        let write = move || {
            drop(done);
            tables.checkpoint(&sealed, None)
        };
        match self.checkpoints.begin(write) {
            Ok(checkpoint) => self.checkpoint = Some(checkpoint),
            Err(error) => self.set_back(StorageError::Unavailable(error.to_string())),
        }
        self.take_checkpoint()
    }

    /// Takes the result of the checkpoint in progress, if it has ended.
    fn take_checkpoint(&mut self) -> Result<(), StorageError> {
        let failed = self.tables_have_failed();
        match self.checkpoint.take_if(|checkpoint| checkpoint.has_ended(failed)) {
            Some(checkpoint) => self.end_checkpoint(checkpoint.end()),
            None => Ok(()),
        }
    }

    fn tables_have_failed(&self) -> bool {
        self.tables.as_ref().is_some_and(|tables| tables.have_failed())
    }

    /// Waits until the checkpoint in progress has ended, and retries it if it failed.
    fn finish_checkpoint(&mut self) -> Result<(), StorageError> {
        if let Some(checkpoint) = self.checkpoint.take() {
            self.end_checkpoint(checkpoint.end())?;
        }
        self.mend()?;
        let Some(sealed) = self.memtable.sealed.clone() else {
            self.setback = None;
            return Ok(());
        };
        let written = self.tables()?.checkpoint(&sealed, None);
        self.end_checkpoint(written)?;
        match &self.setback {
            Some((error, _)) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// Retries a failed checkpoint when it is due. Until then commits go to the log, until it is full.
    fn retry_checkpoint(&mut self, now: Segment) -> Result<(), StorageError> {
        match &self.setback {
            Some((_, again)) if now >= *again && self.checkpoint.is_none() => {}
            _ => return Ok(()),
        }
        if self.memtable.sealed.is_none() && self.tables.is_some() {
            self.setback = None;
        }
        self.run_checkpoint()
    }

    fn end_checkpoint(&mut self, written: Written) -> Result<(), StorageError> {
        match written.map_err(|error| self.judge(error)) {
            Ok(()) => self.checkpoint_done(),
            Err(error @ StorageError::Poisoned(_)) => return Err(error),
            Err(error) => self.set_back(error),
        }
        Ok(())
    }

    /// Closes the tables: redb must be reopened after an error.
    fn set_back(&mut self, error: StorageError) {
        let again = Segment(self.memtable.clock.0 + CHECKPOINT_PAUSE_MS);
        self.setback = Some((error, again));
        self.tables = None;
    }

    /// Takes the result of a checkpoint that has ended, and reopens the tables if they failed.
    fn mend(&mut self) -> Result<(), StorageError> {
        self.take_checkpoint()?;
        // A checkpoint in progress uses the tables, and fails as well.
        if self.checkpoint.is_none() && self.tables_have_failed() {
            self.set_back(StorageError::Unavailable("failed to use the tables".into()));
        }
        if self.tables.is_some() {
            return Ok(());
        }
        let tables = Tables::open(Rest::of(&self.disk, self.wal.tables_from()))?;
        let applied = tables.applied()?;
        self.tables = Some(Arc::new(tables));
        let is_in = |memtable: &Memtable| {
            memtable.sealed.as_ref().is_some_and(|sealed| sealed.last == applied.last)
        };
        // The failed commit may have been written despite the error.
        if let Some(after) = self.in_doubt.take()
            && is_in(&after)
        {
            self.memtable = *after;
            self.frame.truncate(CLOCK);
            self.wal.skip();
        }
        if is_in(&self.memtable) {
            self.checkpoint_done();
        }
        Ok(())
    }

    /// Does the same as [`Store::mend`], but succeeds while the tables cannot be opened: memory and the log may be
    /// enough. Calls that need the tables get the error.
    fn try_mend(&mut self) -> Result<(), StorageError> {
        match self.mend() {
            Err(StorageError::Unavailable(_)) if self.in_doubt.is_none() => Ok(()),
            mended => mended,
        }
    }

    /// Drops the sealed layer, which is now in the tables.
    fn checkpoint_done(&mut self) {
        // Reading tables without rows only costs time.
        self.filled = self.rows().and_then(|rows| rows.filled()).unwrap_or(Filled::ALL);
        self.done = self.memtable.sealed.take();
        if let Some(done) = &self.done {
            self.applied = done.last;
        }
        self.known.clear();
        self.setback = None;
    }

    fn finished(&self, work_ids: &[WorkId]) -> Result<Vec<Option<Arc<Finished>>>, StorageError> {
        let memtable =
            |work_id| self.memtable.layers().find_map(|layer| layer.finished.get(work_id)).cloned();
        let mut rows: Vec<_> = work_ids.iter().map(memtable).collect();
        let missing: Vec<_> = work_ids
            .iter()
            .zip(&rows)
            .filter(|(_, row)| row.is_none())
            .map(|(id, _)| *id)
            .collect();
        if !missing.is_empty() {
            let mut stored = self.rows()?.finished(&missing)?.into_iter();
            rows.iter_mut().filter(|row| row.is_none()).for_each(|row| *row = stored.next());
        }
        Ok(rows.into_iter().map(Option::flatten).collect())
    }

    fn expired(
        &self,
        before: Segment,
        keep: u64,
        limit: usize,
    ) -> Result<Vec<WorkId>, StorageError> {
        let surplus = self.memtable.finished.saturating_sub(keep);
        let oldest = self.finish_order(self.memtable.forgotten, limit)?;
        let expired = (0..)
            .zip(oldest)
            .take_while(|(number, (finished_at, _))| *number < surplus || *finished_at < before);
        Ok(expired.map(|(_, (_, work_id))| work_id).collect())
    }

    /// Returns up to `limit` jobs in the order of finishing, starting at a number.
    fn finish_order(
        &self,
        mut from: u64,
        limit: usize,
    ) -> Result<Vec<(Segment, WorkId)>, StorageError> {
        let layers: Vec<_> = self.memtable.layers().collect();
        let in_memory_from = layers.last().map_or(0, |layer| layer.order_from);
        let mut oldest = match from < in_memory_from {
            true => self.rows()?.finished_order(from, in_memory_from, limit)?,
            false => Vec::new(),
        };
        from += oldest.len() as u64;
        for layer in layers.into_iter().rev() {
            let passed =
                usize::try_from(from.saturating_sub(layer.order_from)).unwrap_or(usize::MAX);
            let left = limit - oldest.len();
            let more: Vec<_> = layer.order.iter().skip(passed).take(left).copied().collect();
            from += more.len() as u64;
            oldest.extend(more);
        }
        Ok(oldest)
    }

    fn last_finished(
        &self,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<(u64, Arc<Finished>)>, StorageError> {
        let first = self.memtable.forgotten;
        let end = before.unwrap_or(u64::MAX).min(self.memtable.layer.order_until());
        let from = end.saturating_sub(limit as u64).max(first);
        let count = usize::try_from(end.saturating_sub(from)).unwrap_or(limit);
        let order = self.finish_order(from, count)?;
        let ids: Vec<_> = order.into_iter().map(|(_, work_id)| work_id).collect();
        let rows = (from..).zip(self.finished(&ids)?);
        let mut rows: Vec<_> = rows.filter_map(|(number, row)| Some((number, row?))).collect();
        rows.reverse();
        Ok(rows)
    }

    fn unique(&self, places: &[UniquePlace]) -> Result<Vec<Option<UniqueRow>>, StorageError> {
        let mut rows: Vec<_> = places.iter().map(|place| self.memtable.unique(place)).collect();
        let is_missing = |(_, row): &(&UniquePlace, &Option<_>)| row.is_none();
        let missing: Vec<_> = places.iter().zip(&rows).filter(is_missing).collect();
        let missing: Vec<_> = missing.into_iter().map(|(place, _)| place.clone()).collect();
        if !missing.is_empty() {
            let mut stored = self.rows()?.unique(&missing)?.into_iter();
            for row in rows.iter_mut().filter(|row| row.is_none()) {
                *row = stored.next();
            }
        }
        Ok(rows.into_iter().map(Option::flatten).collect())
    }

    fn unique_rows(
        &self,
        after: Option<&UniquePlace>,
        limit: usize,
    ) -> Result<Vec<(UniquePlace, UniqueRow)>, StorageError> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rows = MergeIter::new();
        for layer in self.memtable.layers() {
            let of_layer = layer.unique.range((from, Bound::Unbounded));
            rows.over(of_layer.map(|(place, row)| Ok((place.clone(), *row))));
        }
        rows.over(self.rows()?.unique_rows(after)?.map(|row| row.map(|(at, row)| (at, Some(row)))));
        rows.take(limit).collect()
    }

    fn lanes(&self, pool: PoolId, keys: &[WorkKey]) -> Result<Vec<Option<LaneRow>>, StorageError> {
        let in_memory = |key: &WorkKey| self.memtable.lane(&(pool, key.clone()));
        let mut rows: Vec<_> = keys.iter().map(in_memory).collect();
        if self.filled.lanes && rows.iter().any(Option::is_none) {
            let is_missing = |(_, row): &(&WorkKey, &Option<_>)| row.is_none();
            let missing: Vec<_> = keys.iter().zip(&rows).filter(is_missing).collect();
            let missing: Vec<_> = missing.into_iter().map(|(key, _)| key).collect();
            let mut stored = self.rows()?.lanes(pool, &missing)?.into_iter();
            for row in rows.iter_mut().filter(|row| row.is_none()) {
                *row = stored.next();
            }
        }
        Ok(rows.into_iter().map(Option::flatten).collect())
    }

    fn lane_rows(
        &self,
        pool: PoolId,
        after: Option<&LanePlace>,
        limit: usize,
    ) -> Result<Vec<(LanePlace, LaneRow)>, StorageError> {
        let after = after.map(|after| &after.key);
        let first = (pool, after.cloned().unwrap_or_else(|| WorkKey::new(&[])));
        let mut rows = MergeIter::new();
        for layer in self.memtable.layers() {
            let behind = layer.lanes.range((Bound::Excluded(&first), Bound::Unbounded));
            let of_pool = behind.take_while(|((of, _), _)| *of == pool);
            rows.over(of_pool.map(|((_, key), row)| Ok((key.clone(), *row))));
        }
        if self.filled.lanes {
            let stored = self.rows()?.lane_rows(pool, after)?;
            rows.over(stored.map(|row| row.map(|(key, row)| (key, Some(row)))));
        }
        let place = |key| LanePlace { key, at: 0 };
        rows.take(limit).map(|row| row.map(|(key, row)| (place(key), row))).collect()
    }

    fn lane_jobs(
        &mut self,
        pool: PoolId,
        key: &WorkKey,
        limit: usize,
    ) -> Result<Vec<(StartKey, Spec)>, StorageError> {
        let lane = (pool, key.clone());
        let from = self.memtable.lanes_from.get(&lane).copied().unwrap_or(0);
        let place = |seq| (pool, key.clone(), seq);
        let mut rows = MergeIter::new();
        for layer in self.memtable.layers() {
            let of_layer = layer.lane_jobs.range(place(from)..=place(u64::MAX));
            rows.over(of_layer.map(|((.., seq), row)| Ok((*seq, row.map(|row| row.value)))));
        }
        if self.filled.in_lanes {
            let stored = self.rows()?.lane_jobs(pool, key, from)?;
            rows.over(stored.map(|row| row.map(|(seq, work_id)| (seq, Some(work_id)))));
        }
        let jobs = rows.take(limit).collect::<Result<Vec<_>, _>>()?;
        let mut works = None;
        let mut found = Vec::with_capacity(jobs.len());
        for (seq, work_id) in &jobs {
            let (head, spec) = self.work(&mut works, *work_id)?.ok_or_else(damaged)?;
            let start = head.start_key();
            let is_it = start.is_in_lane() && start.seq == *seq;
            if !is_it || spec.key() != Some(key.as_bytes()) {
                return Err(damaged());
            }
            found.push((start, spec));
        }
        if limit > 0 {
            let first = jobs.first().map_or(u64::MAX, |(seq, _)| *seq);
            self.memtable.lanes_from.insert(lane, first);
        }
        Ok(found)
    }

    fn get(&self, table: Name, key: &TableKey) -> Result<Option<Payload>, StorageError> {
        let place = (table, key.clone());
        match self.memtable.layers().find_map(|layer| layer.user.get(&place)) {
            Some(value) => Ok(value.clone()),
            None => self.rows()?.user_row(table, key),
        }
    }

    fn scan(
        &self,
        table: Name,
        range: &KeyRange,
        limit: usize,
    ) -> Result<Vec<(TableKey, Payload)>, StorageError> {
        let first = TableKey::from(Vec::new());
        let (Bound::Included(from) | Bound::Excluded(from)) = &range.0 else {
            return self.scan(table, &(Bound::Included(first), range.1.clone()), limit);
        };
        let mut rows: MergeIter<'_, UserKey, Payload> = MergeIter::new();
        for layer in self.memtable.layers() {
            let of_table = layer.user.range((table, from.clone())..);
            let of_table = of_table.take_while(move |((name, _), _)| *name == table);
            rows.over(of_table.map(|(key, value)| Ok((key.clone(), value.clone()))));
        }
        rows.over(self.rows()?.user_rows(table, from)?);
        let mut found = Vec::new();
        for row in rows {
            let ((_, key), value) = row?;
            if matches!(&range.0, Bound::Excluded(from) if *from == key) {
                continue;
            }
            let ends = match &range.1 {
                Bound::Included(last) => key > *last,
                Bound::Excluded(end) => key >= *end,
                Bound::Unbounded => false,
            };
            if ends || found.len() == limit {
                break;
            }
            found.push((key, value));
        }
        Ok(found)
    }

    fn works(
        &self,
        pool: PoolId,
        after: Option<WorkId>,
        limit: usize,
    ) -> Result<Vec<WorkId>, StorageError> {
        let mut rows = MergeIter::new();
        for layer in self.memtable.layers() {
            let of_layer =
                layer.works.iter().filter(|(id, _)| after.is_none_or(|after| **id > after));
            let mut ids: Vec<_> = of_layer
                .map(|(id, row)| {
                    (*id, row.as_ref().filter(|row| row.spec.pool == pool).map(|_| ()))
                })
                .collect();
            ids.sort_unstable();
            rows.over(ids.into_iter().map(Ok));
        }
        let stored = self.rows()?.works()?.of_pool(pool, after)?;
        rows.over(stored.map(|id| id.map(|id| (id, Some(())))));
        rows.take(limit).map(|row| row.map(|(id, ())| id)).collect()
    }

    fn unregistered(
        &self,
        pool: PoolId,
        after: Option<StartKey>,
        limit: usize,
    ) -> Result<Vec<(StartKey, Spec)>, StorageError> {
        let mut works = None;
        let mut found = Vec::new();
        for row in self.unregistered_from(pool, after)?.take(limit) {
            let (_, work_id) = row?;
            if let Some((head, spec)) = self.work(&mut works, work_id)? {
                found.push((head.start_key(), spec));
            }
        }
        Ok(found)
    }

    fn pending_starts(
        &self,
        pool: PoolId,
        after: Option<StartKey>,
        until: StartKey,
        limit: usize,
    ) -> Result<Vec<(StartKey, WorkId)>, StorageError> {
        let mut found = Vec::new();
        let add = |found: &mut Read, rows: &mut dyn Starts| {
            let left = limit - found.len();
            for row in rows.take(left) {
                let (key, work_id) = row?;
                if key >= until {
                    break;
                }
                found.push((key, work_id));
            }
            Ok::<_, StorageError>(())
        };
        let is_passed = |after: StartKey| after.is_in_lane() || after.is_unregistered();
        for level in self.levels(pool).iter().filter(|_| !after.is_some_and(is_passed)) {
            let (queue, ready) = match after.filter(|after| after.priority >= level.priority()) {
                None => (Key::default(), Some((0, 0))),
                Some(after) if after.priority > level.priority() => continue,
                Some(after) => match (after.tag(), after.seq.saturating_add(1)) {
                    (Some(tag), seq) => (Key::default(), Some((tag, seq))),
                    (None, seq) => (Key { seq, ..after.key() }, None),
                },
            };
            if let Some(from) = ready {
                add(&mut found, &mut self.ready(pool, level, from)?)?;
            }
            add(&mut found, &mut self.queue(pool, level, queue)?)?;
        }
        if !after.is_some_and(StartKey::is_unregistered) {
            let after = after.filter(|after| after.is_in_lane());
            let from = after.map_or(0, |after| after.seq.saturating_add(1));
            add(&mut found, &mut self.in_lanes(pool, from)?)?;
        }
        let after = after.filter(|after| after.is_unregistered());
        add(&mut found, &mut self.unregistered_from(pool, after)?)?;
        // The tables hold only their order.
        let mut works = None;
        let ordered = |key: &StartKey| key.is_in_lane() || key.is_unregistered();
        for (key, work_id) in found.iter_mut().filter(|(key, _)| ordered(key)) {
            if let Some((head, _)) = self.work(&mut works, *work_id)? {
                *key = head.start_key();
            }
        }
        Ok(found)
    }

    fn running(&self, pool: PoolId) -> Vec<RunningRow> {
        let of_pool = self.memtable.running.iter().filter(|(_, work)| work.row.pool == pool);
        let mut rows: Vec<_> = of_pool
            .filter_map(|(work_id, work)| {
                let codec::RunRow { run, started, generation, .. } = work.row;
                let running = Running { run, started, generation };
                Some(RunningRow { running, work: self.memtable.running_fact(*work_id)? })
            })
            .collect();
        rows.sort_unstable_by_key(|row| (row.running.started, row.work.spec.work_id));
        rows
    }

    fn running_places(
        &self,
        pool: Option<PoolId>,
        after: Option<(Segment, WorkId)>,
        limit: usize,
    ) -> Vec<(Segment, WorkId)> {
        let running = self.memtable.running.iter();
        let rows = running.filter(|(_, work)| pool.is_none_or(|pool| work.row.pool == pool));
        let places = rows.map(|(work_id, work)| (work.row.started, *work_id));
        lowest(places.filter(|place| Some(*place) > after), limit)
    }

    fn counts(&self, pool: PoolId, cursors: &Cursors) -> Result<Counts, StorageError> {
        let Some(entry) = self.memtable.pools.get(pool.0 as usize) else {
            return Ok(Counts::default());
        };
        let from = Key { segment: cursors.incoming, seq: 0 };
        let mut oldest = None;
        for level in &entry.levels {
            let queue = self.queue(pool, level, from)?.next().transpose()?;
            let ready = self.ready(pool, level, (0, 0))?.next().transpose()?;
            let firsts = queue.into_iter().chain(ready).map(|(key, _)| key.segment);
            oldest = firsts.chain(oldest).min();
        }
        let last = Key { segment: Segment(u64::MAX), seq: u64::MAX };
        let all = (pool, Key::default())..=(pool, last);
        Ok(Counts {
            waiting: entry.waiting(),
            running: entry.running,
            completing: self.memtable.completions.range(all.clone()).count() as u64,
            canceling: self.memtable.cancelations.range(all).count() as u64,
            unregistered: entry.unregistered,
            oldest_due: oldest,
        })
    }

    fn close(mut self) {
        // Writes reports that were not synced, and the clock. If a step fails, the next start finds the rest in the
        // log.
        let _ = self.write(&[], self.memtable.clock);
        let _ = self.checkpoint_all();
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Some(checkpoint) = self.checkpoint.take() {
            let _ = checkpoint.end();
        }
    }
}

/// Reads up to `wanted` rows that are due, and the one behind them.
fn until_due(rows: impl Starts, now: Segment, wanted: usize) -> Result<Read, StorageError> {
    let mut read = Read::new();
    for row in rows {
        let (key, work_id) = row?;
        read.push((key, work_id));
        if key.segment > now || read.len() > wanted {
            break;
        }
    }
    Ok(read)
}

/// A row of the tables, for [`MergeIter`].
fn of_tables<K, V>(row: Result<(K, V), StorageError>) -> Result<(K, Option<V>), StorageError> {
    row.map(|(key, value)| (key, Some(value)))
}

/// The last place among those that are ready.
const LAST_TAG: (u64, u64) = (u64::MAX, u64::MAX);

/// The first place of the unregistered lane.
const UNREGISTERED: Key = Key { segment: Segment::UNREGISTERED, seq: 0 };

/// The last segment before it.
const LAST_SEGMENT: Segment = Segment(Segment::UNREGISTERED.0 - 1);

/// The job of a change whose row must be looked up.
fn needs_work(change: &Change) -> Option<WorkId> {
    match change {
        Change::StartWork { work_id, .. } | Change::MovePendingStart { work_id, .. } => {
            Some(*work_id)
        }
        Change::CompleteWork { finished, .. } => Some(finished.work_id),
        _ => None,
    }
}

/// The error for a panic of redb, which panics on a damaged page.
fn damaged() -> StorageError {
    StorageError::Poisoned("the file's tables are damaged".into())
}

fn closed() -> StorageError {
    StorageError::Poisoned("the file is closed".into())
}

impl Redb {
    /// Calls the store, after reopening the tables if necessary. After a panic every call fails.
    fn ask<T>(
        &mut self,
        ask: impl FnOnce(&mut Store) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        if let Some(error) = &self.poisoned {
            return Err(error.clone());
        }
        let store = self.store.as_mut().ok_or_else(closed)?;
        let answer = catch_unwind(AssertUnwindSafe(|| {
            store.try_mend()?;
            ask(store)
        }));
        let answer = match answer {
            Ok(answer) => answer.map_err(|error| store.judge(error)),
            Err(_) => {
                let store = self.store.take();
                let _ = catch_unwind(AssertUnwindSafe(|| drop(store)));
                Err(damaged())
            }
        };
        if let Err(error @ StorageError::Poisoned(_)) = &answer {
            self.poisoned = Some(error.clone());
        }
        answer
    }
}

impl Storage for Redb {
    fn may_block(&self) -> bool {
        self.store.as_ref().is_none_or(|store| store.checkpoints == Checkpoints::OnThread)
    }

    fn is_costly(&self) -> bool {
        true
    }

    fn open(&mut self) -> Result<Opened, StorageError> {
        self.ask(|store| {
            let pools = (0..).map(PoolId).zip(&store.memtable.pools).map(|(pool, entry)| PoolRow {
                pool,
                name: entry.name,
                config: entry.config.clone(),
                state: entry.state,
                pending: entry.works,
            });
            Ok(Opened {
                pools: pools.collect(),
                last_seq: store.memtable.last_seq,
                clock: store.memtable.clock,
            })
        })
    }

    fn close(&mut self) {
        if let Some(store) = self.store.take() {
            // Rows that cannot be written to damaged tables are still in the log.
            let _ = catch_unwind(AssertUnwindSafe(|| store.close()));
        }
    }

    fn facts(&mut self, work_ids: &[WorkId]) -> Result<Vec<Option<WorkFact>>, StorageError> {
        self.ask(|store| store.facts(work_ids))
    }

    fn finished(
        &mut self,
        work_ids: &[WorkId],
    ) -> Result<Vec<Option<Arc<Finished>>>, StorageError> {
        self.ask(|store| store.finished(work_ids))
    }

    fn unique(&mut self, places: &[UniquePlace]) -> Result<Vec<Option<UniqueRow>>, StorageError> {
        self.ask(|store| store.unique(places))
    }

    fn unique_rows(
        &mut self,
        after: Option<&UniquePlace>,
        limit: usize,
    ) -> Result<Vec<(UniquePlace, UniqueRow)>, StorageError> {
        self.ask(|store| store.unique_rows(after, limit))
    }

    fn lanes(
        &mut self,
        pool: PoolId,
        keys: &[WorkKey],
    ) -> Result<Vec<Option<LaneRow>>, StorageError> {
        self.ask(|store| store.lanes(pool, keys))
    }

    fn lane_rows(
        &mut self,
        pool: PoolId,
        after: Option<&LanePlace>,
        limit: usize,
    ) -> Result<Vec<(LanePlace, LaneRow)>, StorageError> {
        self.ask(|store| store.lane_rows(pool, after, limit))
    }

    fn lane_jobs(
        &mut self,
        pool: PoolId,
        key: &WorkKey,
        limit: usize,
    ) -> Result<Vec<(StartKey, Spec)>, StorageError> {
        self.ask(|store| store.lane_jobs(pool, key, limit))
    }

    fn read_batch(
        &mut self,
        pool: PoolId,
        demand: Demand,
        now: Segment,
    ) -> Result<Batch, StorageError> {
        self.ask(|store| store.read_batch(pool, demand, now))
    }

    fn state(&mut self, pool: PoolId) -> Result<StateRow, StorageError> {
        self.ask(|store| {
            let entry = store.memtable.pools.get(pool.0 as usize);
            Ok(entry.map(|entry| entry.state).unwrap_or_default())
        })
    }

    fn running(&mut self, pool: PoolId) -> Result<Vec<RunningRow>, StorageError> {
        self.ask(|store| Ok(store.running(pool)))
    }

    fn running_places(
        &mut self,
        pool: Option<PoolId>,
        after: Option<(Segment, WorkId)>,
        limit: usize,
    ) -> Result<Vec<(Segment, WorkId)>, StorageError> {
        self.ask(|store| Ok(store.running_places(pool, after, limit)))
    }

    fn works(
        &mut self,
        pool: PoolId,
        after: Option<WorkId>,
        limit: usize,
    ) -> Result<Vec<WorkId>, StorageError> {
        self.ask(|store| store.works(pool, after, limit))
    }

    fn unregistered(
        &mut self,
        pool: PoolId,
        after: Option<StartKey>,
        limit: usize,
    ) -> Result<Vec<(StartKey, Spec)>, StorageError> {
        self.ask(|store| store.unregistered(pool, after, limit))
    }

    fn pending_starts(
        &mut self,
        pool: PoolId,
        after: Option<StartKey>,
        until: StartKey,
        limit: usize,
    ) -> Result<Vec<(StartKey, WorkId)>, StorageError> {
        self.ask(|store| store.pending_starts(pool, after, until, limit))
    }

    fn counts(&mut self, pool: PoolId, cursors: &Cursors) -> Result<Counts, StorageError> {
        self.ask(|store| store.counts(pool, cursors))
    }

    fn expired(
        &mut self,
        before: Segment,
        keep: u64,
        limit: usize,
    ) -> Result<Vec<WorkId>, StorageError> {
        self.ask(|store| store.expired(before, keep, limit))
    }

    fn last_finished(
        &mut self,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<(u64, Arc<Finished>)>, StorageError> {
        self.ask(|store| store.last_finished(before, limit))
    }

    fn get(&mut self, table: Name, key: &TableKey) -> Result<Option<Payload>, StorageError> {
        self.ask(|store| store.get(table, key))
    }

    fn scan(
        &mut self,
        table: Name,
        range: &KeyRange,
        limit: usize,
    ) -> Result<Vec<(TableKey, Payload)>, StorageError> {
        self.ask(|store| store.scan(table, range, limit))
    }

    fn commit(
        &mut self,
        changes: &mut Vec<Change>,
        now: Segment,
        fsync: Fsync,
    ) -> Result<(), StorageError> {
        self.ask(|store| store.commit(changes, now, fsync))?;
        changes.clear();
        Ok(())
    }
}

impl std::fmt::Debug for Redb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let memtable = self.store.as_ref().map(|store| store.memtable.layer.len());
        f.debug_struct("Redb").field("memtable", &memtable).finish_non_exhaustive()
    }
}
