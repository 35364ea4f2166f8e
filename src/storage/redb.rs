//! Tables in one file: durable, crash-safe, pure Rust. See [`Redb`].
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | name | format version, highest `seq`, the store's clock |
//! | `pools` | number | name and configuration |
//! | `state` | number | `internal_state` and how many rows the pool has |
//! | `work` | id | attempts, runs, place in `pending_start`, and what was enqueued |
//! | `pending_start` | pool, segment, seq | id |
//! | `running` | id | run, start, generation, attempts, canceled, and its `pending_completion` |
//! | `pending_cancelation` | pool, segment, seq | id |
//! | `finished` | id | place in `finished_order`, outcome |
//! | `finished_order` | a number that counts up | time, id |
//! | `user` | table, key | value |
//!
//! What is bounded by the number of running attempts (`running`, with the completions, and the cancelations) is also
//! kept in memory, so that a turn reads the file only for what it starts.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    TableDefinition, WriteTransaction,
};
use hashbrown::{HashMap, HashSet};

use super::codec::{self, Damaged, Head, RunRow};
use super::{Fsync, KeyRange, Opened, PoolRow, Storage, StorageError};
use crate::config::PoolConfig;
use crate::model::{
    Batch, CancelationRow, Change, CompletionRow, Counts, Cursors, Demand, Finished, Key, Name,
    Payload, PoolId, Retry, Running, RunningRow, Segment, Spec, StartRow, StateRow, TableKey,
    WorkFact, WorkId,
};

const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const POOLS: TableDefinition<u32, &[u8]> = TableDefinition::new("pools");
const STATE: TableDefinition<u32, &[u8]> = TableDefinition::new("state");
const WORK: TableDefinition<[u8; 16], &[u8]> = TableDefinition::new("work");
const PENDING_START: TableDefinition<[u8; 20], [u8; 16]> = TableDefinition::new("pending_start");
const RUNNING: TableDefinition<[u8; 16], &[u8]> = TableDefinition::new("running");
const PENDING_CANCELATION: TableDefinition<[u8; 20], [u8; 16]> =
    TableDefinition::new("pending_cancelation");
const FINISHED: TableDefinition<[u8; 16], &[u8]> = TableDefinition::new("finished");
const FINISHED_ORDER: TableDefinition<u64, [u8; 24]> = TableDefinition::new("finished_order");
const USER: TableDefinition<&[u8], &[u8]> = TableDefinition::new("user");

/// The layout of the rows. A file with another number is refused.
const FORMAT: u64 = 1;

/// Keeps every table in one file, with [redb](https://docs.rs/redb). One process at a time uses it.
///
/// `enqueue(..).await` returning means that the work is on disk. One fsync serves everything that gathered while the
/// one before it was under way.
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
    path: PathBuf,
    /// Taken when the storage is closed, which frees the file.
    db: Option<Database>,
    /// Whether commits wait to be synced.
    unsynced: bool,
    mirror: Mirror,
}

/// What is kept in memory as well. Written after each commit.
#[derive(Default)]
struct Mirror {
    running: HashMap<WorkId, RunRow>,
    /// The completions that wait, in order.
    completions: BTreeMap<(PoolId, Key), WorkId>,
    cancelations: BTreeMap<(PoolId, Key), WorkId>,
    cancelation_keys: HashMap<WorkId, Key>,
    /// Rows of `running` whose completion is only here so far. Most are gone before the next commit writes them.
    unwritten: HashSet<WorkId>,
    pools: Vec<PoolMirror>,
    last_seq: u64,
    clock: Segment,
    /// How many rows `finished` has.
    finished: u64,
    /// The highest number in `finished_order`.
    last_finished: u64,
}

struct PoolMirror {
    name: Name,
    config: PoolConfig,
    state: StateRow,
    works: u64,
    waiting: u64,
    lane: u64,
}

impl Default for PoolMirror {
    fn default() -> Self {
        PoolMirror {
            name: Name::from_static(""),
            config: PoolConfig::default(),
            state: StateRow::default(),
            works: 0,
            waiting: 0,
            lane: 0,
        }
    }
}

impl Redb {
    /// Opens the file, or makes it. Works that were running when its last process ended are recovered when their pool
    /// is started.
    ///
    /// # Errors
    /// [`StorageError::InUse`] when another process or runtime has it, [`StorageError::Poisoned`] when it cannot be
    /// read or written, is damaged, or has a layout that this version does not know.
    pub fn open(path: impl AsRef<Path>) -> Result<Redb, StorageError> {
        let path = path.as_ref().to_owned();
        let named = |error: &dyn std::fmt::Display| {
            StorageError::Poisoned(format!("failed to open {}: {error}", path.display()))
        };
        let db = match Database::create(&path) {
            Ok(db) => db,
            Err(DatabaseError::DatabaseAlreadyOpen) => return Err(StorageError::InUse),
            Err(error) => return Err(named(&error)),
        };
        let mut storage =
            Redb { path: path.clone(), db: Some(db), unsynced: false, mirror: Mirror::default() };
        storage.mirror = storage.read_mirror().map_err(|error| named(&error))?;
        Ok(storage)
    }

    /// Gives pages that are free back to the file system. Takes a while on a large file; do it before the runtime
    /// starts.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn compact(&mut self) -> Result<(), StorageError> {
        loop {
            match self.db.as_mut().ok_or_else(closed)?.compact() {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) => return Err(poisoned(error)),
            }
        }
    }

    fn db(&self) -> Result<&Database, StorageError> {
        self.db.as_ref().ok_or_else(closed)
    }

    fn read_mirror(&mut self) -> Result<Mirror, StorageError> {
        let txn = self.db()?.begin_write().map_err(poisoned)?;
        {
            let mut meta = txn.open_table(META).map_err(poisoned)?;
            let format = meta.get("format").map_err(poisoned)?.map(|format| format.value());
            match format {
                Some(FORMAT) => {}
                None => drop(meta.insert("format", FORMAT).map_err(poisoned)?),
                Some(other) => {
                    return Err(StorageError::Poisoned(format!(
                        "the file has layout {other}, this version knows {FORMAT}"
                    )));
                }
            }
            txn.open_table(POOLS).map_err(poisoned)?;
            txn.open_table(STATE).map_err(poisoned)?;
            txn.open_table(WORK).map_err(poisoned)?;
            txn.open_table(PENDING_START).map_err(poisoned)?;
            txn.open_table(RUNNING).map_err(poisoned)?;
            txn.open_table(PENDING_CANCELATION).map_err(poisoned)?;
            txn.open_table(FINISHED).map_err(poisoned)?;
            txn.open_table(FINISHED_ORDER).map_err(poisoned)?;
            txn.open_table(USER).map_err(poisoned)?;
        }
        txn.commit().map_err(poisoned)?;

        let mut mirror = Mirror::default();
        let txn = self.db()?.begin_read().map_err(poisoned)?;
        let meta = txn.open_table(META).map_err(poisoned)?;
        let number = |name: &str| -> Result<u64, StorageError> {
            Ok(meta.get(name).map_err(poisoned)?.map_or(0, |number| number.value()))
        };
        mirror.last_seq = number("last_seq")?;
        mirror.clock = Segment(number("clock")?);
        let state = txn.open_table(STATE).map_err(poisoned)?;
        for row in txn.open_table(POOLS).map_err(poisoned)?.iter().map_err(poisoned)? {
            let (pool, row) = row.map_err(poisoned)?;
            if pool.value() as usize != mirror.pools.len() {
                return Err(StorageError::Poisoned("a pool is missing".into()));
            }
            let (name, config): (Name, PoolConfig) =
                serde_json::from_slice(row.value()).map_err(poisoned)?;
            let (state, [works, waiting, lane]) = match state.get(pool.value()).map_err(poisoned)? {
                Some(row) => codec::decode_state(row.value())?,
                None => Default::default(),
            };
            mirror.pools.push(PoolMirror { name, config, state, works, waiting, lane });
        }
        for row in txn.open_table(RUNNING).map_err(poisoned)?.iter().map_err(poisoned)? {
            let (work_id, row) = row.map_err(poisoned)?;
            mirror.put_running(id(work_id.value()), codec::decode_running(row.value())?);
        }
        mirror.finished = txn.open_table(FINISHED).map_err(poisoned)?.len().map_err(poisoned)?;
        let order = txn.open_table(FINISHED_ORDER).map_err(poisoned)?;
        mirror.last_finished =
            order.last().map_err(poisoned)?.map_or(0, |(place, _)| place.value());
        let cancelations = txn.open_table(PENDING_CANCELATION).map_err(poisoned)?;
        for row in cancelations.iter().map_err(poisoned)? {
            let (place, work_id) = row.map_err(poisoned)?;
            let (pool, key) = place_of(place.value());
            mirror.put_cancelation(pool, key, id(work_id.value()));
        }
        Ok(mirror)
    }

    /// Keeps changes in memory until the next commit, if they are such that reads find them there.
    fn defer(&mut self, changes: &[Change], now: Segment) -> bool {
        let deferred = |change: &Change| matches!(change, Change::InsertPendingCompletion { .. });
        if !changes.iter().all(deferred) {
            return false;
        }
        for change in changes {
            self.mirror.take_completion(change);
        }
        self.mirror.clock = self.mirror.clock.max(now);
        self.unsynced = true;
        true
    }

    /// Writes everything in one transaction. The mirror goes along, and is read anew if that fails.
    fn write(
        &mut self,
        changes: &[Change],
        now: Segment,
        fsync: Fsync,
    ) -> Result<(), StorageError> {
        let mut txn = self.db()?.begin_write().map_err(poisoned)?;
        let deferred = fsync == Fsync::WithNext;
        if deferred {
            txn.set_durability(::redb::Durability::None).map_err(poisoned)?;
        } else {
            // A crash is then repaired at once, whatever the size of the file.
            txn.set_quick_repair(true);
        }
        let mirror = &mut self.mirror;
        mirror.clock = mirror.clock.max(now);
        {
            let mut tables = Tables::open(&txn)?;
            for change in changes {
                tables.apply(mirror, change)?;
            }
            tables.write_completions(mirror)?;
            tables.put_states(mirror)?;
        }
        txn.commit().map_err(poisoned)?;
        self.unsynced = deferred;
        Ok(())
    }
}

/// The tables of one transaction.
struct Tables<'t> {
    meta: ::redb::Table<'t, &'static str, u64>,
    pools: ::redb::Table<'t, u32, &'static [u8]>,
    state: ::redb::Table<'t, u32, &'static [u8]>,
    work: ::redb::Table<'t, [u8; 16], &'static [u8]>,
    pending_start: ::redb::Table<'t, [u8; 20], [u8; 16]>,
    running: ::redb::Table<'t, [u8; 16], &'static [u8]>,
    pending_cancelation: ::redb::Table<'t, [u8; 20], [u8; 16]>,
    finished: ::redb::Table<'t, [u8; 16], &'static [u8]>,
    finished_order: ::redb::Table<'t, u64, [u8; 24]>,
    user: ::redb::Table<'t, &'static [u8], &'static [u8]>,
    /// Pools whose row of `state` is to be written.
    touched: Vec<PoolId>,
}

impl<'t> Tables<'t> {
    fn open(txn: &'t WriteTransaction) -> Result<Self, StorageError> {
        Ok(Tables {
            meta: txn.open_table(META).map_err(poisoned)?,
            pools: txn.open_table(POOLS).map_err(poisoned)?,
            state: txn.open_table(STATE).map_err(poisoned)?,
            work: txn.open_table(WORK).map_err(poisoned)?,
            pending_start: txn.open_table(PENDING_START).map_err(poisoned)?,
            running: txn.open_table(RUNNING).map_err(poisoned)?,
            pending_cancelation: txn.open_table(PENDING_CANCELATION).map_err(poisoned)?,
            finished: txn.open_table(FINISHED).map_err(poisoned)?,
            finished_order: txn.open_table(FINISHED_ORDER).map_err(poisoned)?,
            user: txn.open_table(USER).map_err(poisoned)?,
            touched: Vec::new(),
        })
    }

    fn apply(&mut self, mirror: &mut Mirror, change: &Change) -> Result<(), StorageError> {
        match change {
            Change::InsertWork { spec, key } => {
                let head = Head { attempts: 0, runs: 0, key: *key };
                let row = codec::work(head, spec);
                self.work.insert(raw(spec.work_id), row.as_slice()).map_err(poisoned)?;
                self.put_start(mirror, spec.pool, *key, spec.work_id)?;
                self.pool(mirror, spec.pool).works += 1;
            }
            Change::InsertPendingCompletion { .. } => mirror.take_completion(change),
            Change::InsertPendingCancelation { work_id, pool, key } => {
                mirror.last_seq = mirror.last_seq.max(key.seq);
                let place = place(*pool, *key);
                self.pending_cancelation.insert(place, raw(*work_id)).map_err(poisoned)?;
                mirror.put_cancelation(*pool, *key, *work_id);
            }
            Change::StartWork { work_id, pool, key, run, started, generation } => {
                let head = self.head(*work_id)?;
                self.remove_start(mirror, *pool, *key)?;
                let row = RunRow {
                    pool: *pool,
                    run: *run,
                    started: *started,
                    generation: *generation,
                    attempts: head.attempts,
                    canceled: false,
                    completion: None,
                };
                self.put_running(mirror, *work_id, row)?;
            }
            Change::MovePendingStart { work_id, pool, from, to } => {
                let head = self.head(*work_id)?;
                self.remove_start(mirror, *pool, *from)?;
                self.put_start(mirror, *pool, *to, *work_id)?;
                self.put_head(*work_id, Head { key: *to, ..head })?;
            }
            Change::RetryWork { work_id, pool, key, attempts, .. } => {
                let runs = mirror.running.get(work_id).map_or(0, |row| row.run);
                self.remove_running(mirror, *work_id)?;
                self.put_start(mirror, *pool, *key, *work_id)?;
                self.put_head(*work_id, Head { attempts: *attempts, runs, key: *key })?;
            }
            Change::CompleteWork { finished, spec } => {
                let work_id = finished.work_id;
                if mirror.running.contains_key(&work_id) {
                    self.remove_running(mirror, work_id)?;
                } else {
                    let head = self.head(work_id)?;
                    self.remove_start(mirror, spec.pool, head.key)?;
                }
                if let Some(key) = mirror.cancelation_keys.get(&work_id).copied() {
                    self.remove_cancelation(mirror, spec.pool, key)?;
                }
                self.work.remove(raw(work_id)).map_err(poisoned)?;
                self.pool(mirror, spec.pool).works -= 1;
                mirror.last_finished += 1;
                let row = codec::finished(mirror.last_finished, finished);
                self.finished.insert(raw(work_id), row.as_slice()).map_err(poisoned)?;
                let order = order(finished.finished_at, work_id);
                self.finished_order.insert(mirror.last_finished, order).map_err(poisoned)?;
                mirror.finished += 1;
            }
            Change::MarkCanceled { work_id, pool, key } => {
                self.remove_cancelation(mirror, *pool, *key)?;
                if let Some(row) = mirror.running.get(work_id) {
                    let row = RunRow { canceled: true, ..row.clone() };
                    self.put_running(mirror, *work_id, row)?;
                }
            }
            Change::DeletePendingCancelation { pool, key } => {
                self.remove_cancelation(mirror, *pool, *key)?;
            }
            Change::PutState { pool, state } => self.pool(mirror, *pool).state = *state,
            Change::PutGlobals { pool, name, config } => {
                let entry = self.pool(mirror, *pool);
                entry.name = *name;
                entry.config = config.clone();
                let row = serde_json::to_vec(&(name, config)).map_err(poisoned)?;
                self.pools.insert(pool.0, row.as_slice()).map_err(poisoned)?;
            }
            Change::DeleteFinished { work_id } => {
                let row = self.finished.remove(raw(*work_id)).map_err(poisoned)?;
                if let Some(row) = row {
                    let (place, _) = codec::decode_finished(*work_id, row.value())?;
                    self.finished_order.remove(place).map_err(poisoned)?;
                    mirror.finished -= 1;
                }
            }
            Change::PutRow { table, key, value } => {
                let key = user_key(*table, key.as_bytes());
                self.user.insert(key.as_slice(), value.as_bytes()).map_err(poisoned)?;
            }
            Change::DeleteRow { table, key } => {
                let key = user_key(*table, key.as_bytes());
                self.user.remove(key.as_slice()).map_err(poisoned)?;
            }
        }
        Ok(())
    }

    /// The pool's entry, whose row of `state` is to be written.
    fn pool<'m>(&mut self, mirror: &'m mut Mirror, pool: PoolId) -> &'m mut PoolMirror {
        if !self.touched.contains(&pool) {
            self.touched.push(pool);
        }
        let number = pool.0 as usize;
        while mirror.pools.len() <= number {
            mirror.pools.push(PoolMirror::default());
        }
        &mut mirror.pools[number]
    }

    /// Writes the completions that were deferred, but for those that this transaction has handled already.
    fn write_completions(&mut self, mirror: &mut Mirror) -> Result<(), StorageError> {
        for work_id in mirror.unwritten.drain() {
            if let Some(row) = mirror.running.get(&work_id) {
                let bytes = codec::running(row);
                self.running.insert(raw(work_id), bytes.as_slice()).map_err(poisoned)?;
            }
        }
        Ok(())
    }

    fn put_states(&mut self, mirror: &Mirror) -> Result<(), StorageError> {
        for pool in &self.touched {
            let entry = &mirror.pools[pool.0 as usize];
            let row = codec::state(&entry.state, [entry.works, entry.waiting, entry.lane]);
            self.state.insert(pool.0, row.as_slice()).map_err(poisoned)?;
        }
        self.meta.insert("last_seq", mirror.last_seq).map_err(poisoned)?;
        self.meta.insert("clock", mirror.clock.0).map_err(poisoned)?;
        Ok(())
    }

    fn head(&self, work_id: WorkId) -> Result<Head, StorageError> {
        match self.work.get(raw(work_id)).map_err(poisoned)? {
            Some(row) => Ok(codec::decode_head(row.value())?),
            None => Ok(Head::default()),
        }
    }

    fn put_head(&mut self, work_id: WorkId, head: Head) -> Result<(), StorageError> {
        let row = match self.work.get(raw(work_id)).map_err(poisoned)? {
            Some(row) => codec::replace_head(row.value(), head)?,
            None => return Ok(()),
        };
        self.work.insert(raw(work_id), row.as_slice()).map_err(poisoned)?;
        Ok(())
    }

    fn put_start(
        &mut self,
        mirror: &mut Mirror,
        pool: PoolId,
        key: Key,
        work_id: WorkId,
    ) -> Result<(), StorageError> {
        mirror.last_seq = mirror.last_seq.max(key.seq);
        self.pending_start.insert(place(pool, key), raw(work_id)).map_err(poisoned)?;
        let entry = self.pool(mirror, pool);
        match key.segment {
            Segment::UNREGISTERED => entry.lane += 1,
            _ => entry.waiting += 1,
        }
        Ok(())
    }

    fn remove_start(
        &mut self,
        mirror: &mut Mirror,
        pool: PoolId,
        key: Key,
    ) -> Result<(), StorageError> {
        if self.pending_start.remove(place(pool, key)).map_err(poisoned)?.is_some() {
            let entry = self.pool(mirror, pool);
            match key.segment {
                Segment::UNREGISTERED => entry.lane -= 1,
                _ => entry.waiting -= 1,
            }
        }
        Ok(())
    }

    fn put_running(
        &mut self,
        mirror: &mut Mirror,
        work_id: WorkId,
        row: RunRow,
    ) -> Result<(), StorageError> {
        let bytes = codec::running(&row);
        self.running.insert(raw(work_id), bytes.as_slice()).map_err(poisoned)?;
        mirror.put_running(work_id, row);
        Ok(())
    }

    fn remove_running(&mut self, mirror: &mut Mirror, work_id: WorkId) -> Result<(), StorageError> {
        self.running.remove(raw(work_id)).map_err(poisoned)?;
        if let Some(RunRow { pool, completion: Some((key, ..)), .. }) =
            mirror.running.remove(&work_id)
        {
            mirror.completions.remove(&(pool, key));
        }
        Ok(())
    }

    fn remove_cancelation(
        &mut self,
        mirror: &mut Mirror,
        pool: PoolId,
        key: Key,
    ) -> Result<(), StorageError> {
        self.pending_cancelation.remove(place(pool, key)).map_err(poisoned)?;
        if let Some(work_id) = mirror.cancelations.remove(&(pool, key)) {
            mirror.cancelation_keys.remove(&work_id);
        }
        Ok(())
    }
}

impl Mirror {
    fn put_running(&mut self, work_id: WorkId, row: RunRow) {
        if let Some((key, ..)) = &row.completion {
            self.completions.insert((row.pool, *key), work_id);
        }
        self.running.insert(work_id, row);
    }

    /// Takes a completion, which is written with the next commit: nobody is told of it before.
    fn take_completion(&mut self, change: &Change) {
        let Change::InsertPendingCompletion { work_id, key, run, result, retry, attempts, .. } =
            change
        else {
            return;
        };
        self.last_seq = self.last_seq.max(key.seq);
        let Some(row) = self.running.get_mut(work_id) else { return };
        debug_assert_eq!(row.run, *run, "a completion is of the run that occupies the slot");
        row.attempts = *attempts;
        row.completion = Some((*key, result.clone(), *retry));
        self.completions.insert((row.pool, *key), *work_id);
        self.unwritten.insert(*work_id);
    }

    fn put_cancelation(&mut self, pool: PoolId, key: Key, work_id: WorkId) {
        self.cancelations.insert((pool, key), work_id);
        self.cancelation_keys.insert(work_id, key);
    }

    /// Everything known of a work, from its row and from memory.
    fn fact(&self, head: Head, spec: Arc<Spec>) -> WorkFact {
        let work_id = spec.work_id;
        let pending_cancelation = self.cancelation_keys.get(&work_id).copied();
        match self.running.get(&work_id) {
            None => WorkFact {
                attempts: head.attempts,
                runs: head.runs,
                pending_start: Some(head.key),
                pending_cancelation,
                ..WorkFact::new(spec)
            },
            Some(row) => WorkFact {
                attempts: row.attempts,
                runs: row.run,
                canceled: row.canceled,
                running: Some(row.generation),
                pending_completion: row
                    .completion
                    .as_ref()
                    .map(|(key, _, retry)| (*key, *retry != Retry::No)),
                pending_cancelation,
                ..WorkFact::new(spec)
            },
        }
    }
}

impl Storage for Redb {
    fn may_block(&self) -> bool {
        true
    }

    fn open(&mut self) -> Result<Opened, StorageError> {
        let pools = self.mirror.pools.iter().enumerate().map(|(number, pool)| PoolRow {
            pool: PoolId(number as u32),
            name: pool.name,
            config: pool.config.clone(),
            state: pool.state,
            pending: pool.works,
        });
        Ok(Opened {
            pools: pools.collect(),
            last_seq: self.mirror.last_seq,
            clock: self.mirror.clock,
        })
    }

    fn close(&mut self) {
        if self.unsynced && self.db.is_some() {
            // If the last sync fails, the next start finds what is there.
            let now = self.mirror.clock;
            let _ = self.write(&[], now, Fsync::Now);
        }
        self.db = None;
    }

    fn facts(&mut self, work_ids: &[WorkId]) -> Result<Vec<Option<WorkFact>>, StorageError> {
        let txn = self.db()?.begin_read().map_err(poisoned)?;
        let work = txn.open_table(WORK).map_err(poisoned)?;
        let mut facts = Vec::with_capacity(work_ids.len());
        for work_id in work_ids {
            facts.push(match work.get(raw(*work_id)).map_err(poisoned)? {
                Some(row) => {
                    let (head, spec) = codec::decode_work(*work_id, row.value())?;
                    Some(self.mirror.fact(head, spec))
                }
                None => None,
            });
        }
        Ok(facts)
    }

    fn finished(
        &mut self,
        work_ids: &[WorkId],
    ) -> Result<Vec<Option<Arc<Finished>>>, StorageError> {
        let txn = self.db()?.begin_read().map_err(poisoned)?;
        let finished = txn.open_table(FINISHED).map_err(poisoned)?;
        let mut rows = Vec::with_capacity(work_ids.len());
        for work_id in work_ids {
            rows.push(match finished.get(raw(*work_id)).map_err(poisoned)? {
                Some(row) => Some(Arc::new(codec::decode_finished(*work_id, row.value())?.1)),
                None => None,
            });
        }
        Ok(rows)
    }

    fn read_batch(
        &mut self,
        pool: PoolId,
        demand: Demand,
        now: Segment,
    ) -> Result<Batch, StorageError> {
        let mut batch = Batch { read_at: now, ..Batch::default() };
        let from = |segment| (pool, Key { segment, seq: 0 });
        let until = (pool, Key { segment: now, seq: u64::MAX });

        let rows = self.mirror.completions.range(from(demand.cursors.completion)..=until);
        let completing: Vec<_> =
            rows.take(demand.batch_size).map(|((_, key), work_id)| (*key, *work_id)).collect();
        let rows = self.mirror.cancelations.range(from(demand.cursors.cancelation)..=until);
        let canceling: Vec<_> =
            rows.take(demand.batch_size).map(|((_, key), work_id)| (*key, *work_id)).collect();
        let ids: Vec<_> =
            completing.iter().chain(&canceling).map(|(_, work_id)| *work_id).collect();
        let mut facts = match ids.is_empty() {
            true => Vec::new(),
            false => self.facts(&ids)?,
        }
        .into_iter();
        for (key, work_id) in completing {
            let work = facts.next().flatten();
            let row = self.mirror.running.get(&work_id);
            if let (Some(work), Some(RunRow { run, completion: Some((_, result, retry)), .. })) =
                (work, row)
            {
                let (run, result, retry) = (*run, result.clone(), *retry);
                batch.completions.push(CompletionRow { key, run, result, retry, work });
            }
        }
        for (key, work_id) in canceling {
            let work = facts.next().flatten();
            batch.cancelations.push(CancelationRow { key, pool, work_id, work });
        }

        let slots = demand.free_slots.saturating_add(batch.completions.len() as i64).max(0);
        let slots = usize::try_from(slots).unwrap_or(usize::MAX).min(demand.batch_size);
        let txn = self.db()?.begin_read().map_err(poisoned)?;
        let pending_start = txn.open_table(PENDING_START).map_err(poisoned)?;
        let work = txn.open_table(WORK).map_err(poisoned)?;
        let first = place(pool, Key { segment: demand.cursors.incoming, seq: 0 });
        let last = place(pool, Key { segment: Segment::UNREGISTERED, seq: 0 });
        for row in pending_start.range(first..last).map_err(poisoned)? {
            let (at, work_id) = row.map_err(poisoned)?;
            let (_, key) = place_of(at.value());
            if key.segment > now || batch.starts.len() == slots {
                batch.next_due = Some(key.segment);
                break;
            }
            let work_id = id(work_id.value());
            let Some(row) = work.get(raw(work_id)).map_err(poisoned)? else { continue };
            let (Head { attempts, runs, .. }, spec) = codec::decode_work(work_id, row.value())?;
            batch.starts.push(StartRow { key, spec, attempts, runs });
        }
        Ok(batch)
    }

    fn state(&mut self, pool: PoolId) -> Result<StateRow, StorageError> {
        Ok(self.mirror.pools.get(pool.0 as usize).map(|pool| pool.state).unwrap_or_default())
    }

    fn running(&mut self, pool: PoolId) -> Result<Vec<RunningRow>, StorageError> {
        let of_pool = self.mirror.running.iter().filter(|(_, row)| row.pool == pool);
        let ids: Vec<_> = of_pool.map(|(work_id, _)| *work_id).collect();
        let facts = self.facts(&ids)?;
        let row = |work: WorkFact| {
            let RunRow { run, started, generation, .. } =
                *self.mirror.running.get(&work.spec.work_id)?;
            Some(RunningRow { running: Running { run, started, generation }, work })
        };
        let mut rows: Vec<_> = facts.into_iter().flatten().filter_map(row).collect();
        rows.sort_unstable_by_key(|row| (row.running.started, row.work.spec.work_id));
        Ok(rows)
    }

    fn works(
        &mut self,
        pool: PoolId,
        after: Option<WorkId>,
        limit: usize,
    ) -> Result<Vec<WorkId>, StorageError> {
        let txn = self.db()?.begin_read().map_err(poisoned)?;
        let work = txn.open_table(WORK).map_err(poisoned)?;
        let from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(raw(after)));
        let mut ids = Vec::new();
        for row in work.range::<[u8; 16]>((from, Bound::Unbounded)).map_err(poisoned)? {
            if ids.len() == limit {
                break;
            }
            let (work_id, row) = row.map_err(poisoned)?;
            if codec::decode_pool(row.value())? == pool {
                ids.push(id(work_id.value()));
            }
        }
        Ok(ids)
    }

    fn unregistered(
        &mut self,
        pool: PoolId,
        after: Option<Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Arc<Spec>)>, StorageError> {
        let txn = self.db()?.begin_read().map_err(poisoned)?;
        let pending_start = txn.open_table(PENDING_START).map_err(poisoned)?;
        let work = txn.open_table(WORK).map_err(poisoned)?;
        let lane = Bound::Included(place(pool, Key { segment: Segment::UNREGISTERED, seq: 0 }));
        let from = after.map_or(lane, |after| Bound::Excluded(place(pool, after)));
        let until = place(pool, Key { segment: Segment::UNREGISTERED, seq: u64::MAX });
        let rows =
            pending_start.range::<[u8; 20]>((from, Bound::Included(until))).map_err(poisoned)?;
        let mut found = Vec::new();
        for row in rows.take(limit) {
            let (at, work_id) = row.map_err(poisoned)?;
            let work_id = id(work_id.value());
            if let Some(row) = work.get(raw(work_id)).map_err(poisoned)? {
                found.push((place_of(at.value()).1, codec::decode_work(work_id, row.value())?.1));
            }
        }
        Ok(found)
    }

    fn counts(&mut self, pool: PoolId, cursors: &Cursors) -> Result<Counts, StorageError> {
        let Some(entry) = self.mirror.pools.get(pool.0 as usize) else {
            return Ok(Counts::default());
        };
        let txn = self.db()?.begin_read().map_err(poisoned)?;
        let pending_start = txn.open_table(PENDING_START).map_err(poisoned)?;
        let first = place(pool, Key { segment: cursors.incoming, seq: 0 });
        let last = place(pool, Key { segment: Segment::UNREGISTERED, seq: 0 });
        let oldest_due = match pending_start.range(first..last).map_err(poisoned)?.next() {
            Some(row) => Some(place_of(row.map_err(poisoned)?.0.value()).1.segment),
            None => None,
        };
        let all =
            (pool, Key::default())..=(pool, Key { segment: Segment(u64::MAX), seq: u64::MAX });
        Ok(Counts {
            waiting: entry.waiting,
            running: self.mirror.running.values().filter(|row| row.pool == pool).count() as u64,
            completing: self.mirror.completions.range(all.clone()).count() as u64,
            canceling: self.mirror.cancelations.range(all).count() as u64,
            unregistered: entry.lane,
            oldest_due,
        })
    }

    fn expired(
        &mut self,
        before: Segment,
        keep: u64,
        limit: usize,
    ) -> Result<Vec<WorkId>, StorageError> {
        let surplus = self.mirror.finished.saturating_sub(keep);
        let txn = self.db()?.begin_read().map_err(poisoned)?;
        let order = txn.open_table(FINISHED_ORDER).map_err(poisoned)?;
        let mut ids = Vec::new();
        for row in order.iter().map_err(poisoned)?.take(limit) {
            let (finished_at, work_id) = order_of(row.map_err(poisoned)?.1.value());
            if ids.len() as u64 >= surplus && finished_at >= before {
                break;
            }
            ids.push(work_id);
        }
        Ok(ids)
    }

    fn get(&mut self, table: Name, key: &TableKey) -> Result<Option<Payload>, StorageError> {
        let txn = self.db()?.begin_read().map_err(poisoned)?;
        let user = txn.open_table(USER).map_err(poisoned)?;
        let row = user.get(user_key(table, key.as_bytes()).as_slice()).map_err(poisoned)?;
        Ok(row.map(|row| Payload::new(row.value())))
    }

    fn scan(
        &mut self,
        table: Name,
        range: &KeyRange,
        limit: usize,
    ) -> Result<Vec<(TableKey, Payload)>, StorageError> {
        let whole = user_key(table, &[]);
        let bound = |bound: &Bound<TableKey>| match bound {
            Bound::Included(key) => Bound::Included(user_key(table, key.as_bytes())),
            Bound::Excluded(key) => Bound::Excluded(user_key(table, key.as_bytes())),
            Bound::Unbounded => Bound::Unbounded,
        };
        let from = match bound(&range.0) {
            Bound::Unbounded => Bound::Included(whole.clone()),
            from => from,
        };
        let to = bound(&range.1);
        let txn = self.db()?.begin_read().map_err(poisoned)?;
        let user = txn.open_table(USER).map_err(poisoned)?;
        let range = (slice(&from), slice(&to));
        let mut rows = Vec::new();
        for row in user.range::<&[u8]>(range).map_err(poisoned)?.take(limit) {
            let (key, value) = row.map_err(poisoned)?;
            // Without an upper bound the range runs into the tables behind.
            let Some(key) = key.value().strip_prefix(whole.as_slice()) else { break };
            rows.push((TableKey::from(key), Payload::new(value.value())));
        }
        Ok(rows)
    }

    fn commit(
        &mut self,
        changes: &mut Vec<Change>,
        now: Segment,
        fsync: Fsync,
    ) -> Result<(), StorageError> {
        if fsync == Fsync::WithNext && self.defer(changes, now) {
            changes.clear();
            return Ok(());
        }
        match self.write(changes, now, fsync) {
            Ok(()) => {
                changes.clear();
                Ok(())
            }
            Err(error) => {
                // What the failed transaction has put into the mirror is not in the file.
                self.mirror = self.read_mirror()?;
                Err(error)
            }
        }
    }
}

impl std::fmt::Debug for Redb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redb").field("path", &self.path).finish_non_exhaustive()
    }
}

impl From<Damaged> for StorageError {
    fn from(damaged: Damaged) -> Self {
        StorageError::Poisoned(damaged.to_string())
    }
}

fn closed() -> StorageError {
    StorageError::Poisoned("the file is closed".into())
}

/// After an error of the file nothing is certain: it must be opened again.
fn poisoned(error: impl std::fmt::Display) -> StorageError {
    StorageError::Poisoned(error.to_string())
}

fn raw(work_id: WorkId) -> [u8; 16] {
    work_id.as_uuid().into_bytes()
}

fn id(raw: [u8; 16]) -> WorkId {
    WorkId::from_uuid(uuid::Uuid::from_bytes(raw))
}

/// The key of a pending row: big-endian, so that rows lie in the order of pool, segment, seq.
fn place(pool: PoolId, key: Key) -> [u8; 20] {
    let mut place = [0; 20];
    place[..4].copy_from_slice(&pool.0.to_be_bytes());
    place[4..12].copy_from_slice(&key.segment.0.to_be_bytes());
    place[12..].copy_from_slice(&key.seq.to_be_bytes());
    place
}

fn place_of(place: [u8; 20]) -> (PoolId, Key) {
    let number = |from: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&place[from..from + 8]);
        u64::from_be_bytes(bytes)
    };
    let pool = PoolId((number(0) >> 32) as u32);
    (pool, Key { segment: Segment(number(4)), seq: number(12) })
}

fn order(finished_at: Segment, work_id: WorkId) -> [u8; 24] {
    let mut order = [0; 24];
    order[..8].copy_from_slice(&finished_at.0.to_be_bytes());
    order[8..].copy_from_slice(&raw(work_id));
    order
}

fn order_of(order: [u8; 24]) -> (Segment, WorkId) {
    let (mut time, mut work_id) = ([0; 8], [0; 16]);
    time.copy_from_slice(&order[..8]);
    work_id.copy_from_slice(&order[8..]);
    (Segment(u64::from_be_bytes(time)), id(work_id))
}

/// The key of a user row: the table's name with its length before it, so that no table runs into another.
fn user_key(table: Name, key: &[u8]) -> Vec<u8> {
    let name = table.as_str().as_bytes();
    let mut whole = Vec::with_capacity(4 + name.len() + key.len());
    whole.extend_from_slice(&(name.len() as u32).to_be_bytes());
    whole.extend_from_slice(name);
    whole.extend_from_slice(key);
    whole
}

fn slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    match bound {
        Bound::Included(key) => Bound::Included(key),
        Bound::Excluded(key) => Bound::Excluded(key),
        Bound::Unbounded => Bound::Unbounded,
    }
}
