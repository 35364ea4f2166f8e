//! The contract of a storage, and hooks that wrap one.

use std::ops::Bound;
use std::sync::Arc;

use super::StorageError;
use crate::model::{
    Batch, Change, Counts, Cursors, Demand, Finished, LanePlace, LaneRow, Name, Payload,
    PoolConfig, PoolId, RunningRow, Segment, Spec, StartKey, StateRow, TableKey, UniquePlace,
    UniqueRow, WorkFact, WorkId, WorkKey,
};

/// Generates [`Storage`], [`Hook`], and the `Storage` implementation of every hook from one list of signatures.
macro_rules! storage {
    (
        $(#[$about:meta])*
        trait Storage;
        $(
            $(#[$doc:meta])*
            fn $name:ident(&mut self $(, $argument:ident: $type:ty)* $(,)?)
                -> Result<$answer:ty, StorageError>;
        )*
    ) => {
        $(#[$about])*
        pub trait Storage: Send + 'static {
            /// Returns `true` if calls may wait for a disk or a network; the runtime then makes them on a separate
            /// thread.
            fn may_block(&self) -> bool;

            /// Returns `true` if a commit costs much more than its changes, and this process is the only writer. A
            /// group then waits some microseconds for the turns that follow from it, and commits them with it. These
            /// turns do not see rows that others have written since the loop last read. The default is `false`.
            fn is_costly(&self) -> bool {
                false
            }

            /// Closes the storage. Called once, after the last commit.
            fn close(&mut self);

            $(
                $(#[$doc])*
                fn $name(&mut self $(, $argument: $type)*) -> Result<$answer, StorageError>;
            )*
        }

        /// Wraps a storage and intercepts each call: to measure it, to count it, or to make it fail. Every type that
        /// implements `Hook` is a [`Storage`].
        ///
        /// [`Hook::call`] receives every call whose method is not overridden.
        ///
        /// ```
        /// use actix_workpool::storage::{Hook, Memory, Storage, StorageError};
        ///
        /// /// Counts calls.
        /// struct Counted(Memory, u64);
        ///
        /// impl Hook for Counted {
        ///     fn may_block(&self) -> bool {
        ///         self.0.may_block()
        ///     }
        ///
        ///     fn call<T: 'static>(
        ///         &mut self,
        ///         _operation: &'static str,
        ///         call: impl FnOnce(&mut dyn Storage) -> Result<T, StorageError>,
        ///     ) -> Result<T, StorageError> {
        ///         self.1 += 1;
        ///         call(&mut self.0)
        ///     }
        /// }
        ///
        /// let mut counted = Counted(Memory::new(), 0);
        /// Storage::open(&mut counted)?;
        /// Storage::finished(&mut counted, &[])?;
        /// assert_eq!(counted.1, 2);
        /// # Ok::<(), StorageError>(())
        /// ```
        pub trait Hook: Send + 'static {
            /// Returns the same as [`Storage::may_block`].
            fn may_block(&self) -> bool;

            /// Returns the same as [`Storage::is_costly`].
            fn is_costly(&self) -> bool {
                false
            }

            /// Calls the wrapped storage, or fails. `operation` is the name of the method.
            ///
            /// # Errors
            /// Those of the wrapped storage, and the hook's own.
            fn call<T: 'static>(
                &mut self,
                operation: &'static str,
                call: impl FnOnce(&mut dyn Storage) -> Result<T, StorageError>,
            ) -> Result<T, StorageError>;

            /// Closes the wrapped storage.
            fn close(&mut self) {
                let _ = self.call("close", |storage| {
                    storage.close();
                    Ok(())
                });
            }

            $(
                #[doc = concat!("Stands in front of [`Storage::", stringify!($name), "`].")]
                ///
                /// # Errors
                /// Those of [`Hook::call`].
                fn $name(&mut self $(, $argument: $type)*) -> Result<$answer, StorageError> {
                    self.call(stringify!($name), |storage| storage.$name($($argument),*))
                }
            )*
        }

        impl<H: Hook> Storage for H {
            fn may_block(&self) -> bool {
                Hook::may_block(self)
            }

            fn is_costly(&self) -> bool {
                Hook::is_costly(self)
            }

            fn close(&mut self) {
                Hook::close(self);
            }

            $(
                fn $name(&mut self $(, $argument: $type)*) -> Result<$answer, StorageError> {
                    Hook::$name(self $(, $argument)*)
                }
            )*
        }
    };
}

storage! {
    /// A storage of jobs, implemented by each backend.
    ///
    /// Only one thread at a time makes calls. Reads see the last commit. Implementations hold rows and make no
    /// decisions: each [`Change`] says exactly which rows it touches.
    ///
    /// # Writers
    /// A storage with several writing processes returns [`StorageError::Conflict`] from [`Storage::commit`], and writes
    /// nothing, when another writer was faster: the store then decides the group again. It rereads fences, states and
    /// cursors. The following it keeps in memory, which is correct with a single writer only: the highest `seq`, a
    /// pool's count of jobs without an outcome, the time up to which its starts have been read, and its configuration
    /// between two claims.
    ///
    /// # Errors
    /// Every method returns a [`StorageError`] when the storage cannot be read or written. After an error of
    /// [`Storage::commit`] none of the changes was applied, unless the answer was lost on the way; the fences of the
    /// changes make that harmless.
    trait Storage;

    /// Takes the storage for one runtime.
    fn open(&mut self) -> Result<Opened, StorageError>;

    /// Returns all rows of these jobs, in the order asked.
    fn facts(&mut self, work_ids: &[WorkId]) -> Result<Vec<Option<WorkFact>>, StorageError>;

    /// Returns rows of `finished`, in the order asked.
    fn finished(&mut self, work_ids: &[WorkId])
    -> Result<Vec<Option<Arc<Finished>>>, StorageError>;

    /// Returns rows of `unique`, in the order asked.
    fn unique(&mut self, places: &[UniquePlace]) -> Result<Vec<Option<UniqueRow>>, StorageError>;

    /// Returns up to `limit` rows of `unique` behind `after`, in the order of pools and keys.
    fn unique_rows(
        &mut self,
        after: Option<&UniquePlace>,
        limit: usize,
    ) -> Result<Vec<(UniquePlace, UniqueRow)>, StorageError>;

    /// Returns rows of `lanes` of a pool, in the order asked.
    fn lanes(
        &mut self,
        pool: PoolId,
        keys: &[WorkKey],
    ) -> Result<Vec<Option<LaneRow>>, StorageError>;

    /// Returns up to `limit` rows of `lanes` of a pool behind `after`, in an order of the storage's own: a row that is
    /// there from the first page to the last is on one of them at least. Returns fewer only at the end.
    fn lane_rows(
        &mut self,
        pool: PoolId,
        after: Option<&LanePlace>,
        limit: usize,
    ) -> Result<Vec<(LanePlace, LaneRow)>, StorageError>;

    /// Returns up to `limit` jobs in the lane of a key ([`StartPlace::Lane`](crate::model::StartPlace::Lane)), in order.
    /// Costs no more than these, however many there are in this and in other lanes.
    fn lane_jobs(
        &mut self,
        pool: PoolId,
        key: &WorkKey,
        limit: usize,
    ) -> Result<Vec<(StartKey, Spec)>, StorageError>;

    /// Returns the rows that a pool's loop decides next: from the demand's cursors up to `now`, in order; those of
    /// `pending_start` in the order of their ranks ([`StartKey::rank`]): those in the queue that are due, and those that
    /// are ready, which take turns. Jobs in lanes are not among them, and are not looked at. With a job that has a key, also returns the
    /// row of its lane.
    ///
    /// Returns at most `batch_size` rows of each table, and of `pending_start` at most as many as there will be free
    /// slots, `free_slots` and one for each completion returned, and at most `max_starts`.
    fn read_batch(
        &mut self,
        pool: PoolId,
        demand: Demand,
        now: Segment,
    ) -> Result<Batch, StorageError>;

    /// Returns a pool's `internal_state`; the default when there is none.
    fn state(&mut self, pool: PoolId) -> Result<StateRow, StorageError>;

    /// Returns the rows of `running` of a pool, with their jobs.
    fn running(&mut self, pool: PoolId) -> Result<Vec<RunningRow>, StorageError>;

    /// Returns up to `limit` keys of rows of `running` behind `after`, of one pool or of all, in order: the start times
    /// and ids.
    ///
    /// A storage that keeps `running` in memory may scan all of it, because `max_parallelism` bounds its size. It reads
    /// nothing else, in particular not the jobs.
    fn running_places(
        &mut self,
        pool: Option<PoolId>,
        after: Option<(Segment, WorkId)>,
        limit: usize,
    ) -> Result<Vec<(Segment, WorkId)>, StorageError>;

    /// Returns the jobs of a pool that have no outcome, in the order of their ids, behind `after`.
    fn works(
        &mut self,
        pool: PoolId,
        after: Option<WorkId>,
        limit: usize,
    ) -> Result<Vec<WorkId>, StorageError>;

    /// Returns rows of the unregistered lane, in order, behind `after`.
    fn unregistered(
        &mut self,
        pool: PoolId,
        after: Option<StartKey>,
        limit: usize,
    ) -> Result<Vec<(StartKey, Spec)>, StorageError>;

    /// Returns rows of `pending_start`, including the unregistered lane, in order: those behind `after` and before
    /// `until`. A job that holds a place of its key may be told as one in the queue, which has the same place in the
    /// order.
    ///
    /// Costs one search and one step for each returned row, however many rows there are; jobs in lanes and unregistered
    /// ones may be looked up one by one. A storage that collects
    /// changes before it writes them to its tables also steps over the rows deleted since then.
    fn pending_starts(
        &mut self,
        pool: PoolId,
        after: Option<StartKey>,
        until: StartKey,
        limit: usize,
    ) -> Result<Vec<(StartKey, WorkId)>, StorageError>;

    /// Returns the number of rows that a pool has in each table.
    fn counts(&mut self, pool: PoolId, cursors: &Cursors) -> Result<Counts, StorageError>;

    /// Returns up to `limit` rows of `finished` that are older than `before`, or more than `keep` back; the oldest
    /// first.
    fn expired(
        &mut self,
        before: Segment,
        keep: u64,
        limit: usize,
    ) -> Result<Vec<WorkId>, StorageError>;

    /// Returns up to `limit` rows of `finished` that are numbered below `before`, the last one first, each with its
    /// number in the order of finishing, which never changes. Returns fewer only at the end. Costs no more than the
    /// rows.
    fn last_finished(
        &mut self,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<(u64, Arc<Finished>)>, StorageError>;

    /// Returns a row of a user table.
    fn get(&mut self, table: Name, key: &TableKey) -> Result<Option<Payload>, StorageError>;

    /// Returns rows of a user table, in order of their keys.
    fn scan(
        &mut self,
        table: Name,
        range: &KeyRange,
        limit: usize,
    ) -> Result<Vec<(TableKey, Payload)>, StorageError>;

    /// Applies all changes in order, or none. Empties the list if it applied them. `now` is the store's clock.
    fn commit(
        &mut self,
        changes: &mut Vec<Change>,
        now: Segment,
        fsync: Fsync,
    ) -> Result<(), StorageError>;
}

/// The pools and counters of a storage when it is opened.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Opened {
    /// Every pool that was ever created in this storage.
    pub pools: Vec<PoolRow>,
    /// The highest `seq` in use.
    pub last_seq: u64,
    /// A time that the store's clock has reached before. The clock continues from there.
    pub clock: Segment,
}

/// A row of `globals` together with the pool's `internal_state`.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolRow {
    /// Its number in this storage.
    pub pool: PoolId,
    /// Its name.
    pub name: Name,
    /// Its stored configuration.
    pub config: PoolConfig,
    /// Its state.
    pub state: StateRow,
    /// The number of its jobs that have no outcome yet.
    pub pending: u64,
}

/// The time by which a commit must be durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// Before the call returns, because somebody is told.
    Now,
    /// With the next commit that is synced, because nobody is told yet. A crash may lose the commit, but only as a
    /// whole, and together with everything after it.
    WithNext,
}

/// The rows of a user table that a scan may return.
pub type KeyRange = (Bound<TableKey>, Bound<TableKey>);
