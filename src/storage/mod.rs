//! Rows: where jobs are kept. A backend is an implementation of [`Storage`].
//!
//! The trait knows tables and nothing of what they are for. It is called by one thread at a time, for one group of
//! messages after another: read the facts of all jobs that the group is about, decide elsewhere, commit once.

mod contract;
mod memory;
#[cfg(feature = "redb")]
mod redb;

use std::collections::BinaryHeap;
use std::ops::Bound;

#[cfg(all(feature = "redb", feature = "conformance"))]
pub(crate) use self::redb::{Checkpoints, Disk};
#[cfg(feature = "redb")]
pub use self::redb::{Durability, Redb};
pub use contract::{Hook, Storage};
pub use memory::Memory;
pub(crate) use memory::range_is_empty;

use crate::model::{Name, PoolConfig, PoolId, Segment, StateRow, TableKey};

/// A storage that failed, and whether it can be asked again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
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

/// The time at which a commit must be safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// Before the call returns: somebody is told.
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

/// Returns `true` if a table for so many rows is to be made smaller: it had many more than it has now. What it costs to
/// make it smaller is paid by the rows that went.
pub(crate) fn is_oversized(capacity: usize, rows: usize) -> bool {
    capacity > SMALL && capacity / 4 > rows
}

/// Gives memory back after a flood.
pub(crate) fn shrink<K: Eq + std::hash::Hash, V>(map: &mut hashbrown::HashMap<K, V>) {
    if is_oversized(map.capacity(), map.len()) {
        map.shrink_to(2 * map.len());
    }
}
