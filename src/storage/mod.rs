//! Rows: where jobs are kept. A backend is an implementation of [`Storage`].
//!
//! The trait knows tables and nothing of what they are for. It is called by one thread at a time, for one group of
//! messages after another: read the facts of all jobs that the group is about, decide elsewhere, commit once.

mod memory;
#[cfg(feature = "redb")]
mod redb;

use std::collections::BinaryHeap;
use std::ops::Bound;
use std::sync::Arc;

#[cfg(all(feature = "redb", feature = "conformance"))]
#[doc(hidden)]
pub use self::redb::sim as simulated;
#[cfg(feature = "redb")]
pub use self::redb::{Durability, Redb};
pub use memory::Memory;
pub(crate) use memory::range_is_empty;

use crate::model::PoolConfig;
use crate::model::{
    Batch, Change, Counts, Cursors, Demand, Finished, Key, Name, Payload, PoolId, RunningRow,
    Segment, Spec, StateRow, TableKey, WorkFact, WorkId,
};

/// A storage that failed, and whether it can be asked again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// Another runtime is using it. Shut that one down first.
    #[error("storage is in use by another runtime")]
    InUse,
    /// The operation failed; the same may work later. A commit that fails so may have happened all the same: it is
    /// looked for before it is given up.
    #[error("storage failed, will be tried again: {0}")]
    Unavailable(String),
    /// A concurrent writer was faster, and nothing was written.
    #[error("storage was changed by another writer")]
    Conflict,
    /// A newer version of this crate has written it. Update the program; nothing in the storage was changed.
    #[error(
        "written by a newer version of actix-workpool (format {found}, this program reads up to {known}); update the program"
    )]
    TooNew {
        /// The format of the storage.
        found: u32,
        /// The newest format that this program reads.
        known: u32,
    },
    /// The storage cannot be trusted any more and must be opened anew.
    #[error("storage must be reopened: {0}")]
    Poisoned(String),
}

/// What a store holds about its pools when it is opened.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Opened {
    /// Every pool that was ever created here.
    pub pools: Vec<PoolRow>,
    /// The highest `seq` in use.
    pub last_seq: u64,
    /// A time that the store's clock has reached before. It goes on from there.
    pub clock: Segment,
}

/// A row of `globals` together with the pool's `internal_state`.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolRow {
    /// Its number here.
    pub pool: PoolId,
    /// Its name.
    pub name: Name,
    /// Its stored configuration.
    pub config: PoolConfig,
    /// Its state.
    pub state: StateRow,
    /// Jobs of this pool that have no outcome yet.
    pub pending: u64,
}

/// When a commit must be safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// When the call returns: somebody is told.
    Now,
    /// With the next commit that is synced: so far nobody is told. A crash may lose it, but not a part of it, and
    /// nothing that comes later without it.
    WithNext,
}

/// The rows of a user table that a scan may return.
pub type KeyRange = (Bound<TableKey>, Bound<TableKey>);

/// The lowest of these, in order.
///
/// The order of what runs is asked for only when somebody looks. To keep it would cost every job that starts; to go
/// through 65,536 running attempts, as many as a pool may have, takes a millisecond or so.
fn lowest<T: Ord>(rows: impl Iterator<Item = T>, limit: usize) -> Vec<T> {
    let mut found = BinaryHeap::new();
    for row in rows {
        if found.len() < limit {
            found.push(row);
        } else if let Some(mut highest) = found.peek_mut()
            && row < *highest
        {
            *highest = row;
        }
    }
    found.into_sorted_vec()
}

/// Tables are not made smaller below so many rows.
const SMALL: usize = 16_384;

/// Whether a table for so many rows is to be made smaller: it had many more than it has now. What it costs to make it
/// smaller is paid by the rows that went.
pub(crate) fn is_oversized(capacity: usize, rows: usize) -> bool {
    capacity > SMALL && capacity / 4 > rows
}

/// Gives memory back after a flood.
pub(crate) fn shrink<K: Eq + std::hash::Hash, V>(map: &mut hashbrown::HashMap<K, V>) {
    if is_oversized(map.capacity(), map.len()) {
        map.shrink_to(2 * map.len());
    }
}

/// Where jobs are kept.
///
/// All calls come from one thread at a time. Reads see the last commit. Implementations hold rows and decide nothing:
/// each [`Change`] says exactly which rows it touches.
///
/// # Errors
/// Every method answers with a [`StorageError`] when the storage cannot be read or written; after an error of
/// [`Storage::commit`] none of the changes is there, unless the answer was lost on the way, which the fences of the
/// changes make harmless.
pub trait Storage: Send + 'static {
    /// Whether calls may wait for a disk or a network: then they are made on a thread of their own.
    fn may_block(&self) -> bool;

    /// Takes the storage for one runtime.
    fn open(&mut self) -> Result<Opened, StorageError>;

    /// Gives it back. Called once, after the last commit.
    fn close(&mut self);

    /// Everything the tables say of these jobs, in the order asked.
    fn facts(&mut self, work_ids: &[WorkId]) -> Result<Vec<Option<WorkFact>>, StorageError>;

    /// Rows of `finished`, in the order asked.
    fn finished(&mut self, work_ids: &[WorkId])
    -> Result<Vec<Option<Arc<Finished>>>, StorageError>;

    /// What a pool's loop is to decide on: rows from the demand's cursors up to `now`, in order.
    ///
    /// At most `batch_size` rows of each table; of `pending_start` at most as many as there will be slots:
    /// `free_slots` and one for each completion returned.
    fn read_batch(
        &mut self,
        pool: PoolId,
        demand: Demand,
        now: Segment,
    ) -> Result<Batch, StorageError>;

    /// A pool's `internal_state`; the default when there is none.
    fn state(&mut self, pool: PoolId) -> Result<StateRow, StorageError>;

    /// The rows of `running` of a pool, with their works.
    fn running(&mut self, pool: PoolId) -> Result<Vec<RunningRow>, StorageError>;

    /// The places of rows of `running`, of one pool or of all: when they started and their ids. In order, up to `limit`
    /// of those behind `after`.
    ///
    /// A storage that has what runs in memory may go through all of it: that is bounded by what the pools may run. It
    /// touches nothing else for it, least of all the jobs.
    fn running_places(
        &mut self,
        pool: Option<PoolId>,
        after: Option<(Segment, WorkId)>,
        limit: usize,
    ) -> Result<Vec<(Segment, WorkId)>, StorageError>;

    /// The jobs of a pool that have no outcome, in the order of their ids, behind `after`.
    fn works(
        &mut self,
        pool: PoolId,
        after: Option<WorkId>,
        limit: usize,
    ) -> Result<Vec<WorkId>, StorageError>;

    /// Rows of the unregistered lane, in order, behind `after`.
    fn unregistered(
        &mut self,
        pool: PoolId,
        after: Option<Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Arc<Spec>)>, StorageError>;

    /// Rows of `pending_start`, the unregistered lane included, in order: those behind `after` and before `until`.
    ///
    /// Costs one search and a step for each row that is returned, however many there are. A storage that gathers
    /// what has changed before it touches its tables also passes the rows that went since then.
    fn pending_starts(
        &mut self,
        pool: PoolId,
        after: Option<Key>,
        until: Key,
        limit: usize,
    ) -> Result<Vec<(Key, WorkId)>, StorageError>;

    /// How many rows a pool has in each table.
    fn counts(&mut self, pool: PoolId, cursors: &Cursors) -> Result<Counts, StorageError>;

    /// Up to `limit` rows of `finished` that are older than `before`, or more than `keep` back; the oldest first.
    fn expired(
        &mut self,
        before: Segment,
        keep: u64,
        limit: usize,
    ) -> Result<Vec<WorkId>, StorageError>;

    /// Up to `limit` rows of `finished`, the last one first, that are numbered below `before`: each with its number in
    /// the order of finishing, which it keeps for ever. Fewer only at the end. Costs no more than the rows.
    fn last_finished(
        &mut self,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<(u64, Arc<Finished>)>, StorageError>;

    /// A row of a user table.
    fn get(&mut self, table: Name, key: &TableKey) -> Result<Option<Payload>, StorageError>;

    /// Rows of a user table, in order of their keys.
    fn scan(
        &mut self,
        table: Name,
        range: &KeyRange,
        limit: usize,
    ) -> Result<Vec<(TableKey, Payload)>, StorageError>;

    /// Applies all changes in order, or none, and empties the list when it did. `now` is the store's clock.
    fn commit(
        &mut self,
        changes: &mut Vec<Change>,
        now: Segment,
        fsync: Fsync,
    ) -> Result<(), StorageError>;
}

/// Hands the signature of every method that answers something, but for `commit`, to a macro that makes the methods of a
/// storage around another one: `fn name(argument: Type) -> Answer;`, without the error.
#[cfg(any(feature = "metrics", feature = "conformance"))]
macro_rules! each_answer {
    ($make:ident) => {
        $make! {
            fn open() -> $crate::storage::Opened;
            fn facts(ids: &[$crate::WorkId]) -> Vec<Option<$crate::model::WorkFact>>;
            fn finished(ids: &[$crate::WorkId]) -> Vec<Option<std::sync::Arc<$crate::Finished>>>;
            fn read_batch(
                pool: $crate::PoolId,
                demand: $crate::model::Demand,
                now: $crate::Segment
            ) -> $crate::model::Batch;
            fn state(pool: $crate::PoolId) -> $crate::model::StateRow;
            fn running(pool: $crate::PoolId) -> Vec<$crate::model::RunningRow>;
            fn running_places(
                pool: Option<$crate::PoolId>,
                after: Option<($crate::Segment, $crate::WorkId)>,
                limit: usize
            ) -> Vec<($crate::Segment, $crate::WorkId)>;
            fn works(
                pool: $crate::PoolId,
                after: Option<$crate::WorkId>,
                limit: usize
            ) -> Vec<$crate::WorkId>;
            fn unregistered(
                pool: $crate::PoolId,
                after: Option<$crate::model::Key>,
                limit: usize
            ) -> Vec<($crate::model::Key, std::sync::Arc<$crate::model::Spec>)>;
            fn pending_starts(
                pool: $crate::PoolId,
                after: Option<$crate::model::Key>,
                until: $crate::model::Key,
                limit: usize
            ) -> Vec<($crate::model::Key, $crate::WorkId)>;
            fn counts(
                pool: $crate::PoolId,
                cursors: &$crate::model::Cursors
            ) -> $crate::model::Counts;
            fn expired(before: $crate::Segment, keep: u64, limit: usize) -> Vec<$crate::WorkId>;
            fn last_finished(
                before: Option<u64>,
                limit: usize
            ) -> Vec<(u64, std::sync::Arc<$crate::Finished>)>;
            fn get(table: $crate::Name, key: &$crate::TableKey) -> Option<$crate::Payload>;
            fn scan(
                table: $crate::Name,
                range: &$crate::storage::KeyRange,
                limit: usize
            ) -> Vec<($crate::TableKey, $crate::Payload)>;
        }
    };
}
#[cfg(any(feature = "metrics", feature = "conformance"))]
pub(crate) use each_answer;
