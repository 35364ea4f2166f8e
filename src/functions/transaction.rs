//! Access to user tables for mutations, queries and `on_complete`.

use std::collections::BTreeMap;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use serde::{Serialize, de::DeserializeOwned};

use crate::client::{Enqueue, EnqueueError, Function, OneWork, prepare, those};
use crate::model::{
    Change, Conflict, Failure, Name, Payload, PoolId, Segment, Spec, TableKey, WorkId, decode,
    encode,
};
use crate::shared::{PoolShared, Shared};
use crate::storage::{KeyRange, Storage, StorageError};

/// An error in a transaction. With `?` it fails the function.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransactionError {
    /// The row does not decode into the requested type.
    #[error("failed to decode a row of table {table}: {failure}")]
    Decode {
        /// The table.
        table: Name,
        /// The failure.
        failure: Failure,
    },
    /// The value does not encode as JSON.
    #[error("failed to encode a row of table {table}: {error}")]
    Encode {
        /// The table.
        table: Name,
        /// The error.
        error: serde_json::Error,
    },
    /// The table is one of the pool's own.
    #[error("table {0} is the pool's own, choose a name that does not begin with \"workpool.\"")]
    ReservedTable(Name),
    /// No pool has this name.
    #[error("pool {name:?} does not exist; {}", those(pools))]
    UnknownPool {
        /// The name.
        name: String,
        /// The names of all pools, in order.
        pools: Vec<Name>,
    },
    /// The job cannot be enqueued.
    #[error(transparent)]
    Enqueue(#[from] EnqueueError),
    /// The storage failed. The function is retried later; this does not count as an attempt.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Uncommitted writes; `None` is a deleted row. Ordered, so that runs are reproducible.
#[derive(Default)]
pub(crate) struct Writes(BTreeMap<Name, BTreeMap<TableKey, Option<Payload>>>);

impl Writes {
    fn get(&self, table: Name, key: &TableKey) -> Option<&Option<Payload>> {
        self.0.get(&table)?.get(key)
    }

    pub fn put(&mut self, table: Name, key: TableKey, value: Option<Payload>) {
        self.0.entry(table).or_default().insert(key, value);
    }

    /// Adds the writes of a later transaction.
    pub fn merge(&mut self, later: Writes) {
        for (table, rows) in later.0 {
            self.0.entry(table).or_default().extend(rows);
        }
    }

    pub fn into_changes(self) -> impl Iterator<Item = Change> {
        self.0.into_iter().flat_map(|(table, rows)| {
            rows.into_iter().map(move |(key, value)| match value {
                Some(value) => Change::PutRow { table, key, value },
                None => Change::DeleteRow { table, key },
            })
        })
    }
}

/// Reads a snapshot of the user tables. Passed to queries; a [`Transaction`] reads in the same way.
///
/// Tables need not be declared: one that was never written is empty. Do not take table names from user input: each
/// distinct name stays in memory until the process ends.
pub struct Reader<'a> {
    storage: &'a mut dyn Storage,
    group: &'a Writes,
    local: Writes,
    /// An error of the storage itself, which must not fail the function's attempt.
    failed: Option<StorageError>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(storage: &'a mut dyn Storage, group: &'a Writes) -> Self {
        Reader { storage, group, local: Writes::default(), failed: None }
    }

    /// Returns the error of the storage, if one occurred.
    pub(crate) fn failure(&self) -> Option<StorageError> {
        self.failed.clone()
    }

    /// Returns the row at `key`, if there is one.
    ///
    /// # Errors
    /// Fails if the row is not a `T`, or the storage failed.
    pub fn get<T: DeserializeOwned>(
        &mut self,
        table: &str,
        key: impl Into<TableKey>,
    ) -> Result<Option<T>, TransactionError> {
        let (table, key) = (Name::intern(table), key.into());
        let written = self.local.get(table, &key).or_else(|| self.group.get(table, &key));
        let value = match written {
            Some(value) => value.clone(),
            None => {
                let read = self.storage.get(table, &key);
                self.note(read)?
            }
        };
        value.map(|value| decode_row(table, &value)).transpose()
    }

    /// Returns all rows of a table, in the order of their keys.
    ///
    /// # Errors
    /// Fails if a row is not a `T`, or the storage failed.
    pub fn scan<T: DeserializeOwned>(
        &mut self,
        table: &str,
    ) -> Result<Vec<(TableKey, T)>, TransactionError> {
        self.range(table, .., usize::MAX)
    }

    /// Returns up to `limit` rows whose keys lie in `range`, in order.
    ///
    /// # Errors
    /// Fails if a row is not a `T`, or the storage failed.
    pub fn range<T: DeserializeOwned>(
        &mut self,
        table: &str,
        range: impl RangeBounds<TableKey>,
        limit: usize,
    ) -> Result<Vec<(TableKey, T)>, TransactionError> {
        let table = Name::intern(table);
        let range: KeyRange = (range.start_bound().cloned(), range.end_bound().cloned());
        if crate::storage::range_is_empty(&range) {
            return Ok(Vec::new());
        }
        let overlay = self.overlay(table, &range);
        // A row that the overlay deletes does not count towards the limit.
        let deleted = overlay.values().filter(|value| value.is_none()).count();
        let stored = self.storage.scan(table, &range, limit.saturating_add(deleted));
        let stored = self.note(stored)?;
        let mut rows: Vec<(TableKey, Payload)> = match overlay.is_empty() {
            true => stored,
            false => {
                let mut merged: BTreeMap<_, _> =
                    stored.into_iter().map(|(key, value)| (key, Some(value))).collect();
                merged.extend(overlay);
                merged.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
            }
        };
        rows.truncate(limit);
        rows.into_iter().map(|(key, value)| Ok((key, decode_row(table, &value)?))).collect()
    }

    /// Returns all rows whose keys begin with `prefix`, in order.
    ///
    /// # Errors
    /// Fails if a row is not a `T`, or the storage failed.
    pub fn prefix<T: DeserializeOwned>(
        &mut self,
        table: &str,
        prefix: impl Into<TableKey>,
    ) -> Result<Vec<(TableKey, T)>, TransactionError> {
        let prefix = prefix.into();
        let end = prefix.end_of_prefix().map_or(Bound::Unbounded, Bound::Excluded);
        self.range(table, (Bound::Included(prefix), end), usize::MAX)
    }

    fn overlay(&self, table: Name, range: &KeyRange) -> BTreeMap<TableKey, Option<Payload>> {
        let mut overlay = BTreeMap::new();
        for writes in [self.group, &self.local] {
            if let Some(rows) = writes.0.get(&table) {
                let rows = rows.range((range.0.as_ref(), range.1.as_ref()));
                overlay.extend(rows.map(|(key, value)| (key.clone(), value.clone())));
            }
        }
        overlay
    }

    fn note<T>(&mut self, read: Result<T, StorageError>) -> Result<T, StorageError> {
        if let Err(error) = &read {
            self.failed = Some(error.clone());
        }
        read
    }
}

impl std::fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

fn decode_row<T: DeserializeOwned>(table: Name, value: &Payload) -> Result<T, TransactionError> {
    decode(value.as_bytes()).map_err(|failure| TransactionError::Decode { table, failure })
}

/// A job that a transaction enqueues: when it is due, and what happens if another job holds its unique key.
type Enqueued = (Spec, Segment, Conflict);

/// Reads and writes user tables and enqueues jobs, all or nothing.
///
/// It reads its own writes and everything committed before. If its function fails or panics, it is rolled back.
///
/// It dereferences to a [`Reader`] for reading.
///
/// ```
/// use actix_workpool::{Transaction, WorkError, doctest::Double};
///
/// fn close(tx: &mut Transaction<'_>, account: &str) -> Result<(), WorkError> {
///     let cents: u64 = tx.get("accounts", account)?.unwrap_or(0);
///     tx.delete("accounts", account);
///     tx.put("closed", account, &cents)?;
///     // This job exists only if the transaction is committed.
///     tx.pool("default")?.enqueue(Double(cents)).submit()?;
///     Ok(())
/// }
/// ```
pub struct Transaction<'a> {
    reader: Reader<'a>,
    shared: &'a Shared,
    /// The number by which the group decreases each pool's count of pending jobs; negative if the group enqueues jobs.
    group_left: &'a BTreeMap<PoolId, i64>,
    enqueued: Vec<Enqueued>,
}

impl<'a> Transaction<'a> {
    pub(crate) fn new(
        reader: Reader<'a>,
        shared: &'a Shared,
        group_left: &'a BTreeMap<PoolId, i64>,
    ) -> Self {
        Transaction { reader, shared, group_left, enqueued: Vec::new() }
    }

    /// Returns all writes and enqueued jobs, for the commit.
    pub(crate) fn into_effects(self) -> (Writes, Vec<Enqueued>) {
        (self.reader.local, self.enqueued)
    }

    /// Writes a row, replacing an existing one.
    ///
    /// # Errors
    /// Fails if the value does not encode as JSON, or the table is one of the pool's own, whose names begin with
    /// `workpool.`.
    pub fn put<T: Serialize + ?Sized>(
        &mut self,
        table: &str,
        key: impl Into<TableKey>,
        value: &T,
    ) -> Result<(), TransactionError> {
        let table = Name::intern(table);
        if is_reserved(table) {
            return Err(TransactionError::ReservedTable(table));
        }
        let value = encode(value).map_err(|error| TransactionError::Encode { table, error })?;
        self.reader.local.put(table, key.into(), Some(value));
        Ok(())
    }

    /// Deletes a row, if there is one. Leaves the pool's own tables, whose names begin with `workpool.`, as they are.
    pub fn delete(&mut self, table: &str, key: impl Into<TableKey>) {
        if is_reserved(Name::intern(table)) {
            return;
        }
        self.reader.local.put(Name::intern(table), key.into(), None);
    }

    /// Returns the pool of that name, to enqueue jobs that exist if and only if this transaction is committed.
    ///
    /// # Errors
    /// Fails if there is no pool of that name.
    pub fn pool(&mut self, name: &str) -> Result<TransactionPool<'_, 'a>, TransactionError> {
        match self.shared.pool(name) {
            Some(pool) => Ok(TransactionPool { transaction: self, pool }),
            None => {
                let pools = self.shared.pool_names();
                Err(TransactionError::UnknownPool { name: name.to_owned(), pools })
            }
        }
    }
}

impl<'a> std::ops::Deref for Transaction<'a> {
    type Target = Reader<'a>;

    fn deref(&self) -> &Self::Target {
        &self.reader
    }
}

impl std::ops::DerefMut for Transaction<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.reader
    }
}

impl std::fmt::Debug for Transaction<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transaction")
            .field("enqueued", &self.enqueued.len())
            .finish_non_exhaustive()
    }
}

/// Returns `true` if a table is the pool's own.
fn is_reserved(table: Name) -> bool {
    table.as_str().starts_with("workpool.")
}

/// A pool in a transaction, to enqueue jobs. Made by [`Transaction::pool`].
#[derive(Debug)]
pub struct TransactionPool<'t, 'a> {
    transaction: &'t mut Transaction<'a>,
    pool: Arc<PoolShared>,
}

impl OneWork for TransactionPool<'_, '_> {}

impl<'t, 'a> TransactionPool<'t, 'a> {
    /// Describes a job; [`Enqueue::submit`] enqueues it.
    pub fn enqueue<F: Function<K>, K>(self, function: F) -> Enqueue<Self, F, K> {
        Enqueue::new(self, vec![function])
    }
}

impl<'t, 'a, F: Function<K>, K> Enqueue<TransactionPool<'t, 'a>, F, K> {
    /// Enqueues the job with the transaction's commit.
    ///
    /// # Errors
    /// Fails if the job cannot be enqueued; see [`EnqueueError`].
    pub fn submit(self) -> Result<WorkId, TransactionError> {
        let TransactionPool { transaction, pool } = self.target;
        let prepared = prepare(&self.functions, self.options, transaction.shared, &pool)?;
        // Jobs are counted at the commit, so uncommitted ones are added here.
        let own = transaction.enqueued.iter().filter(|(spec, ..)| spec.pool == pool.id).count();
        let group = transaction.group_left.get(&pool.id).map_or(0, |left| (-left).max(0));
        pool.check_room(1 + own as u64 + group.unsigned_abs()).map_err(EnqueueError::from)?;
        let work_id = prepared.works[0].0.work_id;
        let conflict = prepared.conflict;
        let works = prepared.works.into_iter();
        transaction.enqueued.extend(works.map(|(spec, due)| (spec, due, conflict)));
        Ok(work_id)
    }
}
