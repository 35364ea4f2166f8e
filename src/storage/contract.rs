//! What a backend promises, and how to stand in front of one.

use std::sync::Arc;

use super::{Fsync, KeyRange, Opened, StorageError};
use crate::model::{
    Batch, Change, Counts, Cursors, Demand, Finished, Key, Name, Payload, PoolId, RunningRow,
    Segment, Spec, StateRow, TableKey, WorkFact, WorkId,
};

/// Writes each signature of [`Storage`] into the trait itself, into [`Hook`], and into the storage that a hook is.
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
            /// Returns `true` if calls may wait for a disk or a network: then they are made on a thread of their own.
            fn may_block(&self) -> bool;

            /// Gives the storage back. Called once, after the last commit.
            fn close(&mut self);

            $(
                $(#[$doc])*
                fn $name(&mut self $(, $argument: $type)*) -> Result<$answer, StorageError>;
            )*
        }

        /// Stands in front of a storage and sees each call: to measure it, to count it, or to make it fail.
        /// Whatever implements this is a [`Storage`].
        ///
        /// [`Hook::call`] sees every call whose own method here is not replaced.
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
            /// Answers as [`Storage::may_block`] does.
            fn may_block(&self) -> bool;

            /// Makes a call of the storage behind, or fails. `operation` is the name of the method.
            ///
            /// # Errors
            /// Those of the storage behind, and the hook's own.
            fn call<T: 'static>(
                &mut self,
                operation: &'static str,
                call: impl FnOnce(&mut dyn Storage) -> Result<T, StorageError>,
            ) -> Result<T, StorageError>;

            /// Closes the storage behind.
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
    /// All calls come from one thread at a time. Reads see the last commit. Implementations hold rows and decide
    /// nothing: each [`Change`] says exactly which rows it touches.
    ///
    /// # Writers
    /// A storage that several processes write answers [`StorageError::Conflict`] from [`Storage::commit`] when another
    /// writer was faster, and has written nothing then: the store decides the group again from what it reads. Fences,
    /// states and cursors are read again with that. These the store keeps in memory instead, and they are right with
    /// one writer only: the highest `seq`, a pool's count of jobs without an outcome, up to where its starts have been
    /// read, and its configuration between two claims.
    ///
    /// # Errors
    /// Every method answers with a [`StorageError`] when the storage cannot be read or written; after an error of
    /// [`Storage::commit`] none of the changes is there, unless the answer was lost on the way, which the fences of the
    /// changes make harmless.
    trait Storage;

    /// Takes the storage for one runtime.
    fn open(&mut self) -> Result<Opened, StorageError>;

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

    /// The rows of `running` of a pool, with their jobs.
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

    /// Returns the number of rows that a pool has in each table.
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
