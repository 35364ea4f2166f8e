//! The tables, in redb. Only checkpoints write them.
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | name | the last commit they contain, the log's seed, highest `seq`, the store's clock, counts |
//! | `pools` | number | name and configuration |
//! | `state` | number | `internal_state` and how many rows the pool has |
//! | `work` | id | attempts, runs, place in `pending_start`, and what was enqueued |
//! | `pending_start` | pool, priority and segment, seq | id: the jobs in the queue, and the unregistered ones |
//! | `pending_ready` | pool, priority, tag, seq | id and segment: the jobs that are ready |
//! | `pending_lane` | pool, seq | id: the jobs in lanes |
//! | `lane_jobs` | pool, key, seq | id: the same jobs by key |
//! | `lanes` | pool, key | what the jobs of the key have in common |
//! | `running` | id | run, start, generation, attempts, canceled, and its `pending_completion` |
//! | `pending_cancelation` | pool, segment, seq | id |
//! | `finished` | id | outcome |
//! | `finished_order` | a number that counts up | times and ids of the jobs that finished, from this number on |
//! | `user` | table, key | value |
//! | `unique` | pool, unique key | the job that took the key last, for how long, and when it was enqueued |
//!
//! Each value ends with a checksum of its key and itself, because redb does not verify its own checksums when it reads
//! a page. A row of a table that only names jobs has none; the job holds the row's key.

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ::redb::{
    Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable,
    ReadableTableMetadata, TableDefinition, WriteTransaction,
};
use hashbrown::HashMap;
use twox_hash::XxHash3_64;

use super::codec::{self, Damaged, Head};
use super::disk::Rest;
use super::memtable::{Layer, Memtable, PoolEntry, Ready, Row, Sealed, UserKey};
use crate::model::{
    Finished, Key, LaneRow, Name, Payload, PoolId, Priority, Segment, Spec, StartKey, TableKey,
    UniqueKey, UniquePlace, UniqueRow, WorkId, WorkKey,
};
use crate::storage::StorageError;

const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const POOLS: TableDefinition<u32, &[u8]> = TableDefinition::new("pools");
const STATE: TableDefinition<u32, &[u8]> = TableDefinition::new("state");
const WORK: TableDefinition<Id, &[u8]> = TableDefinition::new("work");
const PENDING_START: TableDefinition<Place, Id> = TableDefinition::new("pending_start");
const PENDING_READY: TableDefinition<ReadyPlace, (Id, u64)> = TableDefinition::new("pending_ready");
const PENDING_LANE: TableDefinition<(u32, u64), Id> = TableDefinition::new("pending_lane");
const LANE_JOBS: TableDefinition<&[u8], Id> = TableDefinition::new("lane_jobs");
const LANES: TableDefinition<&[u8], &[u8]> = TableDefinition::new("lanes");
const RUNNING: TableDefinition<Id, &[u8]> = TableDefinition::new("running");
const PENDING_CANCELATION: TableDefinition<Place, Id> = TableDefinition::new("pending_cancelation");
const FINISHED: TableDefinition<Id, &[u8]> = TableDefinition::new("finished");
const FINISHED_ORDER: TableDefinition<u64, &[u8]> = TableDefinition::new("finished_order");
const USER: TableDefinition<&[u8], &[u8]> = TableDefinition::new("user");
const UNIQUE: TableDefinition<&[u8], &[u8]> = TableDefinition::new("unique");

/// A job's id as a number, which is faster to compare than bytes.
type Id = u128;

/// The key of a pending row: pool, segment, seq.
type Place = (u32, u64, u64);

/// The key of a row of `pending_ready`: pool, priority, tag, seq.
type ReadyPlace = (u32, i8, u64, u64);

/// The maximum number of jobs in a row of `finished_order`: with 24 bytes each, what fits in a page of 4 KiB.
const ORDER_CHUNK: usize = 160;

/// The length of an entry of `finished_order`.
const ORDER_ENTRY: usize = 24;

/// The length of a checksum.
const CHECKSUM: usize = 8;

/// The size of redb's cache of the tables. The operating system caches more if it has room.
const CACHE: usize = 64 << 20;

pub(super) struct Tables {
    db: Database,
    has_failed: Arc<AtomicBool>,
}

/// The position of the tables in the log.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Applied {
    /// The number of the last commit that is in the tables.
    pub last: u64,
    /// The seed of the frames behind it.
    pub seed: u64,
}

impl Tables {
    pub fn open(file: Rest) -> Result<Tables, StorageError> {
        let has_failed = file.failed();
        let mut builder = Database::builder();
        let db = builder.set_cache_size(CACHE).create_with_backend(file).map_err(failed)?;
        Ok(Tables { db, has_failed })
    }

    /// Returns `true` if the disk has failed under the tables, so that they must be reopened.
    pub fn have_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    /// Returns free pages to the file system.
    pub fn compact(&mut self) -> Result<(), StorageError> {
        while self.db.compact().map_err(failed)? {}
        // `compact` leaves tables that redb would scan as a whole after a crash.
        let mut txn = self.db.begin_write().map_err(failed)?;
        txn.set_quick_repair(true);
        txn.commit().map_err(failed)
    }

    pub fn applied(&self) -> Result<Applied, StorageError> {
        self.make()?;
        let meta = self.read()?.open(META)?;
        let number = |name| number(&meta, name);
        Ok(Applied { last: number("last")?, seed: number("seed")? })
    }

    /// Creates the tables that do not exist.
    fn make(&self) -> Result<(), StorageError> {
        if self.read()?.0.list_tables().map_err(failed)?.next().is_some() {
            return Ok(());
        }
        let txn = self.db.begin_write().map_err(failed)?;
        txn.open_table(META).map_err(failed)?;
        txn.open_table(POOLS).map_err(failed)?;
        txn.open_table(STATE).map_err(failed)?;
        txn.open_table(WORK).map_err(failed)?;
        txn.open_table(PENDING_START).map_err(failed)?;
        txn.open_table(RUNNING).map_err(failed)?;
        txn.open_table(PENDING_CANCELATION).map_err(failed)?;
        txn.open_table(FINISHED).map_err(failed)?;
        txn.open_table(FINISHED_ORDER).map_err(failed)?;
        txn.open_table(USER).map_err(failed)?;
        txn.open_table(UNIQUE).map_err(failed)?;
        open_lanes(&txn)?;
        txn.commit().map_err(failed)
    }

    /// Creates the table of unique keys in a file that does not have it.
    pub fn make_unique(&self) -> Result<(), StorageError> {
        let txn = self.db.begin_write().map_err(failed)?;
        txn.open_table(UNIQUE).map_err(failed)?;
        txn.commit().map_err(failed)
    }

    /// Creates the tables of jobs with keys in a file that does not have them.
    pub fn make_lanes(&self) -> Result<(), StorageError> {
        let txn = self.db.begin_write().map_err(failed)?;
        open_lanes(&txn)?;
        txn.commit().map_err(failed)
    }

    /// Reads what is always in memory.
    pub fn load(&self) -> Result<Memtable, StorageError> {
        let rows = self.read()?;
        let mut memtable = Memtable::default();
        let meta = rows.open(META)?;
        let number = |name| number(&meta, name);
        memtable.last_seq = number("last_seq")?;
        memtable.clock = Segment(number("clock")?);
        memtable.finished = number("finished")?;
        memtable.forgotten = number("forgotten")?;
        memtable.layer.order_from = memtable.forgotten + memtable.finished;
        let state = rows.open(STATE)?;
        for row in rows.open(POOLS)?.iter().map_err(failed)? {
            let (pool, row) = row.map_err(failed)?;
            if pool.value() as usize != memtable.pools.len() {
                return Err(StorageError::Poisoned("a pool is missing".into()));
            }
            let check = u64::from(pool.value());
            let (name, config) = codec::decode_globals(whole(check, row.value())?)?;
            let (state, counts) = match state.get(pool.value()).map_err(failed)? {
                Some(row) => codec::decode_state(whole(check, row.value())?)?,
                None => Default::default(),
            };
            memtable.pools.push(PoolEntry::new(name, config, state, counts));
        }
        let work = rows.open(WORK)?;
        for row in rows.open(RUNNING)?.iter().map_err(failed)? {
            let (work_id, row) = row.map_err(failed)?;
            let row = codec::decode_running(whole(of_id(work_id.value()), row.value())?)?;
            let Some((_, spec)) = work_in(&work, id(work_id.value()))? else {
                return Err(StorageError::Poisoned("a running job is missing".into()));
            };
            memtable.put_running(row, spec);
        }
        for row in rows.open(PENDING_CANCELATION)?.iter().map_err(failed)? {
            let (place, work_id) = row.map_err(failed)?;
            let (pool, key) = place_of(place.value());
            memtable.put_cancelation(pool, key, id(work_id.value()));
            memtable.tables_cancelations.insert((pool, key));
        }
        Ok(memtable)
    }

    /// Writes a layer, in one transaction. `seed` is the new seed of the frames behind it, if it changes.
    pub fn checkpoint(&self, sealed: &Sealed, seed: Option<u64>) -> Result<(), StorageError> {
        let mut txn = self.db.begin_write().map_err(failed)?;
        // Makes the repair after a crash immediate, whatever the size of the file.
        txn.set_quick_repair(true);
        if planted!(LogRetiredEarly) && seed.is_none() {
            txn.set_durability(::redb::Durability::None).map_err(failed)?;
        }
        let layer = &sealed.layer;
        let mut bytes = Vec::new();
        {
            let mut meta = txn.open_table(META).map_err(failed)?;
            for (name, value) in [
                ("last", Some(sealed.last).filter(|_| !planted!(CheckpointUnnoted))),
                ("seed", seed),
                ("last_seq", Some(sealed.last_seq)),
                ("clock", Some(sealed.clock.0)),
                ("finished", Some(sealed.finished)),
                ("forgotten", Some(sealed.forgotten)),
            ] {
                if let Some(value) = value {
                    let row = fresh(&mut bytes, of_bytes(name.as_bytes()), |out| {
                        out.extend_from_slice(&value.to_le_bytes());
                    });
                    meta.insert(name, row).map_err(failed)?;
                }
            }
        }
        {
            let mut pools = txn.open_table(POOLS).map_err(failed)?;
            let mut state = txn.open_table(STATE).map_err(failed)?;
            for (pool, entry) in &sealed.pools {
                let check = u64::from(pool.0);
                let row =
                    fresh(&mut bytes, check, |out| codec::globals(out, entry.name, &entry.config));
                pools.insert(pool.0, row).map_err(failed)?;
                let row = fresh(&mut bytes, check, |out| {
                    codec::state(out, &entry.state, &entry.counts())
                });
                state.insert(pool.0, row).map_err(failed)?;
            }
        }
        let works = in_order(&layer.works);
        put_rows(&txn, WORK, &mut bytes, works, |out, row| codec::work(out, &row.head, &row.spec))?;
        put_starts(&txn, layer)?;
        put_lanes(&txn, &mut bytes, layer)?;
        let running = sealed.running.iter().map(|(work_id, row)| (*work_id, row));
        put_rows(&txn, RUNNING, &mut bytes, running, codec::running)?;
        let cancelations = sealed.cancelations.iter();
        let cancelations = cancelations.map(|((pool, key), id)| (place(*pool, *key), id.map(raw)));
        put_places(&txn, PENDING_CANCELATION, cancelations.collect())?;
        if !layer.finished.is_empty() {
            let finished = in_order(&layer.finished);
            put_rows(&txn, FINISHED, &mut bytes, finished, |out, row| codec::finished(out, row))?;
            let mut order = txn.open_table(FINISHED_ORDER).map_err(failed)?;
            let mut from = layer.order_from;
            let mut entries = layer.order.iter().peekable();
            while entries.peek().is_some() {
                let row = fresh(&mut bytes, from, |out| {
                    for (finished_at, work_id) in entries.by_ref().take(ORDER_CHUNK) {
                        out.extend_from_slice(&finished_at.0.to_be_bytes());
                        out.extend_from_slice(&raw(*work_id).to_be_bytes());
                    }
                });
                order.insert(from, row).map_err(failed)?;
                from += (row.len() / ORDER_ENTRY) as u64;
            }
            // Remove a row when the next one begins at or before the oldest remaining job.
            while let Some((first, second)) = first_two(&order)?
                && second.unwrap_or(from) <= sealed.forgotten
            {
                order.remove(first).map_err(failed)?;
            }
        }
        if !layer.user.is_empty() {
            let mut user = txn.open_table(USER).map_err(failed)?;
            for ((table, key), value) in &layer.user {
                let key = user_key(*table, key.as_bytes());
                match value {
                    Some(value) => {
                        let row = fresh(&mut bytes, of_bytes(&key), |out| {
                            out.extend_from_slice(value.as_bytes());
                        });
                        drop(user.insert(key.as_slice(), row).map_err(failed)?);
                    }
                    None => drop(user.remove(key.as_slice()).map_err(failed)?),
                }
            }
        }
        if !layer.unique.is_empty() {
            let mut unique = txn.open_table(UNIQUE).map_err(failed)?;
            for ((pool, key), row) in &layer.unique {
                let key = pool_key(*pool, key.as_bytes());
                match row {
                    Some(row) => {
                        let row = fresh(&mut bytes, of_bytes(&key), |out| codec::unique(out, row));
                        drop(unique.insert(key.as_slice(), row).map_err(failed)?);
                    }
                    None => drop(unique.remove(key.as_slice()).map_err(failed)?),
                }
            }
        }
        txn.commit().map_err(failed)
    }

    pub fn read(&self) -> Result<Rows, StorageError> {
        Ok(Rows(self.db.begin_read().map_err(failed)?))
    }
}

/// Writes and deletes rows that are keyed by a job's id, in the order of their ids.
fn put_rows<'r, T: 'r>(
    txn: &WriteTransaction,
    table: TableDefinition<'_, Id, &'static [u8]>,
    bytes: &mut Vec<u8>,
    rows: impl IntoIterator<Item = (WorkId, &'r Option<T>)>,
    encode: impl Fn(&mut Vec<u8>, &T),
) -> Edited {
    let (gone, rows) = parted(rows.into_iter().map(|(id, row)| (raw(id), row.as_ref())));
    if gone.is_empty() && rows.is_empty() {
        return Ok(());
    }
    let mut table = txn.open_table(table).map_err(failed)?;
    delete(&mut table, &gone)?;
    insert(&mut table, rows, |id, row, put| put(&fresh(bytes, of_id(id), |out| encode(out, row))))
}

/// Writes and deletes rows of `pending_start`, `pending_ready` and `pending_lane`.
fn put_starts(txn: &WriteTransaction, layer: &Layer) -> Edited {
    let queue = layer.queue.iter();
    let queue = queue.map(|((pool, priority, key), row)| {
        let place = start_place(*pool, StartKey::at(*priority, *key));
        (place, row.map(|row| raw(row.value)))
    });
    let mut queue: Vec<_> = queue.collect();
    if !queue.is_sorted_by_key(|(place, _)| *place) {
        queue.sort_unstable_by_key(|(place, _)| *place);
    }
    put_places(txn, PENDING_START, queue)?;
    let ready = layer.ready.iter();
    let ready = ready.map(|((pool, priority, tag, seq), row)| {
        let row = row.map(|Row { value: (work_id, due), .. }| (raw(work_id), due.0));
        ((pool.0, priority.number(), *tag, *seq), row)
    });
    put_places(txn, PENDING_READY, ready.collect())?;
    let in_lanes = layer.in_lanes.iter();
    let in_lanes =
        in_lanes.map(|((pool, seq), row)| ((pool.0, *seq), row.map(|row| raw(row.value))));
    put_places(txn, PENDING_LANE, in_lanes.collect())
}

/// Writes and deletes rows of `lanes` and `lane_jobs`.
fn put_lanes(txn: &WriteTransaction, bytes: &mut Vec<u8>, layer: &Layer) -> Edited {
    if !layer.lane_jobs.is_empty() {
        let mut jobs = txn.open_table(LANE_JOBS).map_err(failed)?;
        for ((pool, key, seq), row) in &layer.lane_jobs {
            let place = lane_place(*pool, key, *seq);
            match row {
                Some(row) => drop(jobs.insert(&*place, raw(row.value)).map_err(failed)?),
                None => drop(jobs.remove(&*place).map_err(failed)?),
            }
        }
    }
    if !layer.lanes.is_empty() {
        let mut lanes = txn.open_table(LANES).map_err(failed)?;
        for ((pool, key), row) in &layer.lanes {
            let key = pool_key(*pool, key.as_bytes());
            match row {
                Some(row) => {
                    let row = fresh(bytes, of_bytes(&key), |out| codec::lane(out, row));
                    drop(lanes.insert(key.as_slice(), row).map_err(failed)?);
                }
                None => drop(lanes.remove(key.as_slice()).map_err(failed)?),
            }
        }
    }
    Ok(())
}

fn open_lanes(txn: &WriteTransaction) -> Edited {
    txn.open_table(PENDING_READY).map_err(failed)?;
    txn.open_table(PENDING_LANE).map_err(failed)?;
    txn.open_table(LANE_JOBS).map_err(failed)?;
    txn.open_table(LANES).map_err(failed)?;
    Ok(())
}

/// Writes and deletes rows of a pending table, in the order of their keys.
fn put_places<K, V, S, T>(
    txn: &WriteTransaction,
    table: TableDefinition<'_, K, V>,
    rows: Vec<(S, Option<T>)>,
) -> Edited
where
    K: ::redb::Key + for<'k> ::redb::Value<SelfType<'k> = S> + 'static,
    V: for<'v> ::redb::Value<SelfType<'v> = T> + 'static,
    S: Copy + Ord + std::borrow::Borrow<S>,
{
    let (gone, rows) = parted(rows.into_iter());
    if gone.is_empty() && rows.is_empty() {
        return Ok(());
    }
    let mut table = txn.open_table(table).map_err(failed)?;
    delete(&mut table, &gone)?;
    insert(&mut table, rows, |_, id, put| put(&id))
}

/// Returns the keys of the rows to delete, and the rows to write.
fn parted<S, T>(edits: impl Iterator<Item = (S, Option<T>)>) -> (Vec<S>, Vec<(S, T)>) {
    let (mut gone, mut rows) = (Vec::new(), Vec::new());
    for (key, row) in edits {
        match row {
            Some(row) => rows.push((key, row)),
            None => gone.push(key),
        }
    }
    (gone, rows)
}

/// The number of rows between the rows of two edits that are stepped over, rather than skipped by a search.
const NEAR: usize = 8;

/// The number of edits that are made one by one after an edit that had none near it.
const ALONE: usize = 32;

/// Deletes rows, in the order of their keys.
///
/// A queue shrinks at its front, where rows that lie close together are deleted as one range: that costs a twentieth of
/// a deletion each.
fn delete<K, V, S>(table: &mut ::redb::Table<'_, K, V>, keys: &[S]) -> Edited
where
    K: ::redb::Key + for<'k> ::redb::Value<SelfType<'k> = S> + 'static,
    V: ::redb::Value + 'static,
    S: Copy + Ord + std::borrow::Borrow<S>,
{
    debug_assert!(keys.is_sorted(), "rows come in the order of their keys");
    let mut rest = keys;
    while let [first, ..] = rest {
        let (first, near) = (*first, near(table, rest)?);
        if near > 1 {
            let (run, behind) = rest.split_at(near);
            let mut gone = run.iter().copied().peekable();
            let stays = |key, _: V::SelfType<'_>| {
                while gone.next_if(|gone| *gone < key).is_some() {}
                gone.peek() != Some(&key)
            };
            table.retain_in(first..=run[near - 1], stays).map_err(failed)?;
            rest = behind;
        } else {
            let (alone, behind) = rest.split_at(ALONE.min(rest.len()));
            for key in alone {
                table.remove(*key).map_err(failed)?;
            }
            rest = behind;
        }
    }
    Ok(())
}

/// Returns the number of these keys, from the first on, whose rows lie close together.
fn near<K, V, S>(table: &::redb::Table<'_, K, V>, keys: &[S]) -> Result<usize, StorageError>
where
    K: ::redb::Key + for<'k> ::redb::Value<SelfType<'k> = S> + 'static,
    V: ::redb::Value + 'static,
    S: Copy + Ord + std::borrow::Borrow<S>,
{
    let (mut near, mut passed) = (0, 0);
    for row in table.range(keys[0]..).map_err(failed)? {
        let key = row.map_err(failed)?.0.value();
        // Rows that are not there, which a deletion may name.
        near += keys[near..].iter().take_while(|gone| **gone < key).count();
        match keys.get(near) {
            Some(gone) if *gone == key => (near, passed) = (near + 1, 0),
            Some(_) if passed < NEAR => passed += 1,
            _ => return Ok(near),
        }
    }
    Ok(keys.len())
}

/// Writes rows, in the order of their keys. `value` gives the value of a row.
///
/// While the keys lie close together, one cursor moves along them: a queue grows at its end, and a search for each key
/// costs several times as much.
fn insert<K, V, S, T>(
    table: &mut ::redb::Table<'_, K, V>,
    rows: Vec<(S, T)>,
    mut value: impl FnMut(S, T, &mut dyn FnMut(&V::SelfType<'_>) -> Edited) -> Edited,
) -> Edited
where
    K: ::redb::Key + for<'k> ::redb::Value<SelfType<'k> = S> + 'static,
    V: ::redb::Value + 'static,
    S: Copy + Ord,
{
    let mut rows = rows.into_iter().peekable();
    let mut alone = 0;
    while let Some((first, _)) = rows.peek() {
        let first = *first;
        if alone > 0 {
            alone -= 1;
            let Some((key, row)) = rows.next() else { break };
            value(key, row, &mut |value| table.insert(key, value).map(drop).map_err(failed))?;
            continue;
        }
        let mut cursor = table.lower_bound_mut(Bound::Included(first)).map_err(failed)?;
        let mut made = 0;
        while let Some((key, _)) = rows.peek() {
            let key = *key;
            let mut passed = 0;
            let next = loop {
                match cursor.peek_next().map_err(failed)?.map(|(next, _)| next.value()) {
                    Some(next) if next < key && passed < NEAR => passed += 1,
                    next => break next,
                }
                cursor.next().map_err(failed)?;
            };
            if next.is_some_and(|next| next < key) {
                break;
            }
            debug_assert!(first <= key, "rows come in the order of their keys");
            let Some((_, row)) = rows.next() else { break };
            if next == Some(key) {
                cursor.remove_next().map_err(failed)?;
            }
            value(key, row, &mut |value| cursor.insert_before(key, value).map_err(failed))?;
            made += 1;
        }
        cursor.close().map_err(failed)?;
        if made < 2 {
            alone = ALONE;
        }
    }
    Ok(())
}

type Edited = Result<(), StorageError>;

type OrderTable<'t> = ::redb::Table<'t, u64, &'static [u8]>;

/// The numbers of the first two rows.
fn first_two(order: &OrderTable<'_>) -> Result<Option<(u64, Option<u64>)>, StorageError> {
    let mut rows = order.iter().map_err(failed)?;
    let mut next = || rows.next().transpose().map_err(failed);
    let number = |row: (::redb::AccessGuard<'_, u64>, _)| row.0.value();
    let Some(first) = next()?.map(number) else { return Ok(None) };
    Ok(Some((first, next()?.map(number))))
}

fn number(
    meta: &ReadOnlyTable<&'static str, &'static [u8]>,
    name: &str,
) -> Result<u64, StorageError> {
    let Some(row) = meta.get(name).map_err(failed)? else { return Ok(0) };
    let row = whole(of_bytes(name.as_bytes()), row.value())?;
    Ok(u64::from_le_bytes(row.try_into().map_err(|_| damaged_row())?))
}

/// The rows of a layer in the order of their ids, which is the fastest order to write them in.
fn in_order<T>(rows: &HashMap<WorkId, Option<T>>) -> Vec<(WorkId, &Option<T>)> {
    let mut rows: Vec<_> = rows.iter().map(|(work_id, row)| (*work_id, row)).collect();
    rows.sort_unstable_by_key(|(work_id, _)| *work_id);
    rows
}

/// Encodes a row as it is stored, with a checksum that begins with `key`.
fn fresh(bytes: &mut Vec<u8>, key: u64, write: impl FnOnce(&mut Vec<u8>)) -> &[u8] {
    bytes.clear();
    write(bytes);
    let checksum = XxHash3_64::oneshot_with_seed(key, bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

/// Checks the checksum of a stored row and returns the row without it.
fn whole(key: u64, row: &[u8]) -> Result<&[u8], StorageError> {
    match row.split_last_chunk::<CHECKSUM>() {
        Some((row, checksum))
            if u64::from_le_bytes(*checksum) == XxHash3_64::oneshot_with_seed(key, row) =>
        {
            Ok(row)
        }
        _ => Err(damaged_row()),
    }
}

fn damaged_row() -> StorageError {
    StorageError::Poisoned("a row of the file's tables is damaged".into())
}

fn of_id(id: Id) -> u64 {
    (id >> 64) as u64 ^ id as u64
}

fn of_bytes(key: &[u8]) -> u64 {
    XxHash3_64::oneshot(key)
}

/// The tables that have rows: the others need not be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filled {
    /// `pending_start`
    pub starts: bool,
    /// `pending_ready`
    pub ready: bool,
    /// `pending_lane` and `lane_jobs`
    pub in_lanes: bool,
    /// `lanes`
    pub lanes: bool,
}

impl Filled {
    pub const ALL: Filled = Filled { starts: true, ready: true, in_lanes: true, lanes: true };
}

/// A job that is ready, behind its tag and `seq`.
type ReadyRow = ((u64, u64), Ready);

/// A snapshot of the tables.
pub(super) struct Rows(ReadTransaction);

impl Rows {
    fn open<K: ::redb::Key + 'static, V: ::redb::Value + 'static>(
        &self,
        table: TableDefinition<'_, K, V>,
    ) -> Result<ReadOnlyTable<K, V>, StorageError> {
        self.0.open_table(table).map_err(failed)
    }

    pub fn works(&self) -> Result<Works, StorageError> {
        Ok(Works(self.open(WORK)?))
    }

    pub fn filled(&self) -> Result<Filled, StorageError> {
        Ok(Filled {
            starts: !self.open(PENDING_START)?.is_empty().map_err(failed)?,
            ready: !self.open(PENDING_READY)?.is_empty().map_err(failed)?,
            in_lanes: !self.open(PENDING_LANE)?.is_empty().map_err(failed)?,
            lanes: !self.open(LANES)?.is_empty().map_err(failed)?,
        })
    }

    /// Returns the jobs of one priority in the queue, or unregistered ones, between two places of one kind, in order.
    pub fn queue(
        &self,
        pool: PoolId,
        from: StartKey,
        until: StartKey,
    ) -> Result<impl Iterator<Item = Result<(Key, WorkId), StorageError>> + use<>, StorageError>
    {
        let range = start_place(pool, from)..start_place(pool, until);
        let rows = self.open(PENDING_START)?.range(range).map_err(failed)?;
        Ok(rows.map(|row| {
            let (place, work_id) = row.map_err(failed)?;
            Ok((start_key_of(place.value()).key(), id(work_id.value())))
        }))
    }

    /// Returns the ready jobs of one priority from a tag and a `seq` on, in order.
    pub fn ready(
        &self,
        pool: PoolId,
        priority: Priority,
        (tag, seq): (u64, u64),
    ) -> Result<impl Iterator<Item = Result<ReadyRow, StorageError>> + use<>, StorageError> {
        let place = |tag, seq| (pool.0, priority.number(), tag, seq);
        let range = place(tag, seq)..=place(u64::MAX, u64::MAX);
        let rows = self.open(PENDING_READY)?.range(range).map_err(failed)?;
        Ok(rows.map(|row| {
            let (place, row) = row.map_err(failed)?;
            let ((_, _, tag, seq), (work_id, due)) = (place.value(), row.value());
            Ok(((tag, seq), (id(work_id), Segment(due))))
        }))
    }

    /// Returns the jobs in the lanes of a pool from a `seq` on, in order.
    pub fn in_lanes(
        &self,
        pool: PoolId,
        from: u64,
    ) -> Result<impl Iterator<Item = Result<(u64, WorkId), StorageError>> + use<>, StorageError>
    {
        let range = (pool.0, from)..=(pool.0, u64::MAX);
        let rows = self.open(PENDING_LANE)?.range(range).map_err(failed)?;
        Ok(rows.map(|row| {
            let (place, work_id) = row.map_err(failed)?;
            Ok((place.value().1, id(work_id.value())))
        }))
    }

    /// Returns the jobs in one lane from a `seq` on, in order.
    pub fn lane_jobs(
        &self,
        pool: PoolId,
        key: &WorkKey,
        from: u64,
    ) -> Result<impl Iterator<Item = Result<(u64, WorkId), StorageError>> + use<>, StorageError>
    {
        let (from, until) = (lane_place(pool, key, from), lane_place(pool, key, u64::MAX));
        let rows = self.open(LANE_JOBS)?.range::<&[u8]>(&*from..=&*until).map_err(failed)?;
        Ok(rows.map(|row| {
            let (place, work_id) = row.map_err(failed)?;
            let (_, seq) = place.value().split_last_chunk().ok_or_else(damaged_row)?;
            Ok((u64::from_be_bytes(*seq), id(work_id.value())))
        }))
    }

    pub fn lanes(
        &self,
        pool: PoolId,
        keys: &[&WorkKey],
    ) -> Result<Vec<Option<LaneRow>>, StorageError> {
        let lanes = self.open(LANES)?;
        let row = |key: &&WorkKey| {
            let key = pool_key(pool, key.as_bytes());
            match lanes.get(key.as_slice()).map_err(failed)? {
                Some(row) => Ok(Some(codec::decode_lane(whole(of_bytes(&key), row.value())?)?)),
                None => Ok(None),
            }
        };
        keys.iter().map(row).collect()
    }

    /// Returns the rows of `lanes` of a pool behind a key, in order.
    pub fn lane_rows(
        &self,
        pool: PoolId,
        after: Option<&WorkKey>,
    ) -> Result<impl Iterator<Item = Result<(WorkKey, LaneRow), StorageError>> + use<>, StorageError>
    {
        let first = pool_key(pool, after.map_or(&[], WorkKey::as_bytes));
        // No key is empty: the first one is behind the pool alone.
        let range = (Bound::Excluded(first.as_slice()), Bound::Unbounded);
        let rows = self.open(LANES)?.range::<&[u8]>(range).map_err(failed)?;
        let rows = rows.map(move |row| {
            let (place, row) = row.map_err(failed)?;
            // Without an upper bound the range extends into the pools behind.
            let Some(key) = place.value().strip_prefix(&pool.0.to_be_bytes()) else {
                return Ok(None);
            };
            let row = codec::decode_lane(whole(of_bytes(place.value()), row.value())?)?;
            Ok(Some((WorkKey::new(key), row)))
        });
        Ok(rows.map_while(Result::transpose))
    }

    pub fn finished(
        &self,
        work_ids: &[WorkId],
    ) -> Result<Vec<Option<Arc<Finished>>>, StorageError> {
        let finished = self.open(FINISHED)?;
        let row = |work_id: &WorkId| match finished.get(raw(*work_id)).map_err(failed)? {
            Some(row) => {
                let row = whole(of_id(raw(*work_id)), row.value())?;
                Ok(Some(Arc::new(codec::decode_finished(*work_id, row)?)))
            }
            None => Ok(None),
        };
        work_ids.iter().map(row).collect()
    }

    /// Returns up to `limit` jobs in the order of finishing, between two numbers.
    pub fn finished_order(
        &self,
        from: u64,
        until: u64,
        limit: usize,
    ) -> Result<Vec<(Segment, WorkId)>, StorageError> {
        let order = self.open(FINISHED_ORDER)?;
        let first = order.range(..=from).map_err(failed)?.next_back().transpose();
        let first = first.map_err(failed)?.map_or(from, |(number, _)| number.value());
        let mut found = Vec::new();
        for row in order.range(first..until).map_err(failed)? {
            let (number, row) = row.map_err(failed)?;
            let entries = whole(number.value(), row.value())?.chunks_exact(ORDER_ENTRY);
            for (number, entry) in (number.value()..until).zip(entries) {
                if number < from {
                    continue;
                }
                if found.len() == limit {
                    return Ok(found);
                }
                let (mut time, mut work_id) = ([0; 8], [0; 16]);
                time.copy_from_slice(&entry[..8]);
                work_id.copy_from_slice(&entry[8..]);
                found.push((Segment(u64::from_be_bytes(time)), id(u128::from_be_bytes(work_id))));
            }
        }
        Ok(found)
    }

    pub fn unique(&self, places: &[UniquePlace]) -> Result<Vec<Option<UniqueRow>>, StorageError> {
        let unique = self.open(UNIQUE)?;
        let row = |(pool, key): &UniquePlace| {
            let key = pool_key(*pool, key.as_bytes());
            match unique.get(key.as_slice()).map_err(failed)? {
                Some(row) => Ok(Some(codec::decode_unique(whole(of_bytes(&key), row.value())?)?)),
                None => Ok(None),
            }
        };
        places.iter().map(row).collect()
    }

    /// Returns the rows of `unique` behind one of them, in order.
    pub fn unique_rows(
        &self,
        after: Option<&UniquePlace>,
    ) -> Result<
        impl Iterator<Item = Result<(UniquePlace, UniqueRow), StorageError>> + use<>,
        StorageError,
    > {
        let after = after.map(|(pool, key)| pool_key(*pool, key.as_bytes()));
        let from = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let rows = self.open(UNIQUE)?.range::<&[u8]>((from, Bound::Unbounded)).map_err(failed)?;
        Ok(rows.map(|row| {
            let (key, row) = row.map_err(failed)?;
            let row = codec::decode_unique(whole(of_bytes(key.value()), row.value())?)?;
            let (pool, key) = key.value().split_first_chunk().ok_or_else(damaged_row)?;
            Ok(((PoolId(u32::from_be_bytes(*pool)), UniqueKey::new(key)), row))
        }))
    }

    pub fn user_row(&self, table: Name, key: &TableKey) -> Result<Option<Payload>, StorageError> {
        let user = self.open(USER)?;
        let row = user.get(user_key(table, key.as_bytes()).as_slice()).map_err(failed)?;
        let check = of_bytes(&user_key(table, key.as_bytes()));
        row.map(|row| Ok(Payload::new(whole(check, row.value())?))).transpose()
    }

    /// Returns rows of a user table from a key on, in order.
    pub fn user_rows(
        &self,
        table: Name,
        from: &TableKey,
    ) -> Result<
        impl Iterator<Item = Result<(UserKey, Option<Payload>), StorageError>> + use<>,
        StorageError,
    > {
        let prefix = user_key(table, &[]);
        let from = user_key(table, from.as_bytes());
        let rows = self.open(USER)?.range::<&[u8]>(from.as_slice()..).map_err(failed)?;
        let rows = rows.map(move |row| {
            let (key, value) = row.map_err(failed)?;
            // Without an upper bound the range extends into the tables behind.
            let Some(short) = key.value().strip_prefix(prefix.as_slice()) else { return Ok(None) };
            let value = Payload::new(whole(of_bytes(key.value()), value.value())?);
            Ok(Some(((table, TableKey::from(short)), Some(value))))
        });
        Ok(rows.map_while(Result::transpose))
    }
}

/// A snapshot of the `work` table.
pub(super) struct Works(ReadOnlyTable<Id, &'static [u8]>);

impl Works {
    pub fn get(&self, work_id: WorkId) -> Result<Option<(Head, Spec)>, StorageError> {
        work_in(&self.0, work_id)
    }

    /// Returns those of these jobs that exist. The ids are in order: neighbors are read along the table.
    pub fn get_all(&self, work_ids: &[WorkId]) -> Result<Vec<(Head, Spec)>, StorageError> {
        let mut found = Vec::with_capacity(work_ids.len());
        let mut wanted = work_ids.iter().map(|work_id| raw(*work_id)).peekable();
        while let Some(from) = wanted.peek() {
            let mut passed = 0;
            for row in self.0.range::<Id>(*from..).map_err(failed)? {
                let (key, row) = row.map_err(failed)?;
                let key = key.value();
                // The ids before this key do not exist.
                while wanted.next_if(|wanted| *wanted < key).is_some() {}
                if wanted.next_if_eq(&key).is_some() {
                    found.push(codec::decode_work(id(key), whole(of_id(key), row.value())?)?);
                    passed = 0;
                } else {
                    passed += 1;
                }
                if wanted.peek().is_none() || passed == NEAR {
                    break;
                }
            }
            if passed < NEAR {
                // The table ends before the remaining ids.
                break;
            }
        }
        Ok(found)
    }

    /// Returns the jobs of a pool behind `after`, in the order of their ids.
    pub fn of_pool(
        &self,
        pool: PoolId,
        after: Option<WorkId>,
    ) -> Result<impl Iterator<Item = Result<WorkId, StorageError>> + use<>, StorageError> {
        let from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(raw(after)));
        let rows = self.0.range::<Id>((from, Bound::Unbounded)).map_err(failed)?;
        let rows = rows.map(move |row| {
            let (work_id, row) = row.map_err(failed)?;
            let row = whole(of_id(work_id.value()), row.value())?;
            let of_pool = codec::decode_pool(row)? == pool;
            Ok(of_pool.then(|| id(work_id.value())))
        });
        Ok(rows.filter_map(Result::transpose))
    }
}

fn work_in(
    work: &ReadOnlyTable<Id, &'static [u8]>,
    work_id: WorkId,
) -> Result<Option<(Head, Spec)>, StorageError> {
    match work.get(raw(work_id)).map_err(failed)? {
        Some(row) => {
            let row = whole(of_id(raw(work_id)), row.value())?;
            Ok(Some(codec::decode_work(work_id, row)?))
        }
        None => Ok(None),
    }
}

impl From<Damaged> for StorageError {
    fn from(damaged: Damaged) -> Self {
        StorageError::Poisoned(damaged.to_string())
    }
}

/// Converts an error of redb: a disk error may be temporary, all others are permanent.
fn failed(error: impl Into<::redb::Error>) -> StorageError {
    match error.into() {
        error @ (::redb::Error::Io(_) | ::redb::Error::PreviousIo) => {
            StorageError::Unavailable(format!("failed to use the tables: {error}"))
        }
        ::redb::Error::DatabaseAlreadyOpen => StorageError::InUse,
        error => StorageError::Poisoned(format!("failed to use the tables: {error}")),
    }
}

fn raw(work_id: WorkId) -> Id {
    work_id.as_uuid().as_u128()
}

fn id(raw: Id) -> WorkId {
    WorkId::from_uuid(uuid::Uuid::from_u128(raw))
}

fn place(pool: PoolId, key: Key) -> Place {
    (pool.0, key.segment.0, key.seq)
}

fn place_of((pool, segment, seq): Place) -> (PoolId, Key) {
    (PoolId(pool), Key { segment: Segment(segment), seq })
}

/// The number of low bits of a place's second number that hold the segment; those above hold the priority. With the
/// normal priority, whose number is 0, the place is the same as up to format 4.
const SEGMENT_BITS: u32 = 56;

const SEGMENT: u64 = (1 << SEGMENT_BITS) - 1;

fn start_place(pool: PoolId, key: StartKey) -> Place {
    let time = match key.is_unregistered() {
        true => key.segment.0,
        false => {
            let level = u64::from(key.priority.number() as u8) << SEGMENT_BITS;
            // The year 2,285,000: no segment lies behind it but the unregistered lane.
            level | key.segment.0.min(SEGMENT - 1)
        }
    };
    (pool.0, time, key.seq)
}

fn start_key_of((_, time, seq): Place) -> StartKey {
    if Segment(time) == Segment::UNREGISTERED {
        return StartKey { seq, ..StartKey::END };
    }
    let priority = Priority::new((time >> SEGMENT_BITS) as u8 as i8);
    StartKey::at(priority, Key { segment: Segment(time & SEGMENT), seq })
}

/// The key of a row of `unique` or `lanes`, in the order of pools and keys.
fn pool_key(pool: PoolId, key: &[u8]) -> Vec<u8> {
    [pool.0.to_be_bytes().as_slice(), key].concat()
}

/// The key of a row of `lane_jobs`: the key's length comes before it, so that lanes do not overlap.
fn lane_place(pool: PoolId, key: &WorkKey, seq: u64) -> Vec<u8> {
    let key = key.as_bytes();
    let mut place = Vec::with_capacity(14 + key.len());
    place.extend_from_slice(&pool.0.to_be_bytes());
    place.extend_from_slice(&(key.len() as u16).to_be_bytes());
    place.extend_from_slice(key);
    place.extend_from_slice(&seq.to_be_bytes());
    place
}

/// The key of a user row: the table's name with its length before it, so that tables do not overlap.
fn user_key(table: Name, key: &[u8]) -> Vec<u8> {
    let name = table.as_str().as_bytes();
    let mut whole = Vec::with_capacity(4 + name.len() + key.len());
    whole.extend_from_slice(&(name.len() as u32).to_be_bytes());
    whole.extend_from_slice(name);
    whole.extend_from_slice(key);
    whole
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ::redb::backends::InMemoryBackend;

    use super::*;

    const TABLE: TableDefinition<u64, u64> = TableDefinition::new("table");

    #[test]
    fn rows_are_written_and_deleted_wherever_they_lie() {
        for seed in 0..200 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let db = Database::builder().create_with_backend(InMemoryBackend::new()).unwrap();
            let txn = db.begin_write().unwrap();
            let mut table = txn.open_table(TABLE).unwrap();
            let mut model = BTreeMap::new();
            for _ in 0..rng.usize(1..6) {
                // Keys that lie close together, far apart, and in clusters; some of them are not there.
                let spread = [1, 2, 5, 40, 400][rng.usize(..5)];
                let mut key = rng.u64(..500);
                let mut edits = Vec::new();
                for _ in 0..rng.usize(..300) {
                    key += 1 + rng.u64(..spread) + if rng.u8(..) < 8 { 2_000 } else { 0 };
                    edits.push((key, rng.bool().then(|| rng.u64(..))));
                }
                for (key, value) in &edits {
                    match value {
                        Some(value) => drop(model.insert(*key, *value)),
                        None => drop(model.remove(key)),
                    }
                }
                let (gone, rows) = parted(edits.into_iter());
                delete(&mut table, &gone).unwrap();
                insert(&mut table, rows, |_, value, put| put(&value)).unwrap();
            }
            let rows = table.iter().unwrap().map(Result::unwrap);
            let rows: BTreeMap<_, _> = rows.map(|(key, row)| (key.value(), row.value())).collect();
            assert_eq!(rows, model, "seed {seed}");
        }
    }
}
