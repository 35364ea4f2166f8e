//! Storage of jobs: [`Memory`], the default, and `Redb`, a file that survives crashes. Give one to
//! [`RuntimeBuilder::storage`](crate::RuntimeBuilder::storage).
//!
//! A backend is an implementation of [`Storage`]. To write one, switch on the feature `unstable-storage`, which makes the
//! types of the contract public; they may change in any release. The trait knows tables and nothing of their purpose. One thread at a time calls it, for one group of messages after
//! another: read the facts of all jobs that the group is about, decide elsewhere, commit once.

mod contract;
mod memory;
#[cfg(feature = "redb")]
mod redb;

use std::collections::BinaryHeap;
use std::iter::Peekable;
use std::path::PathBuf;
use std::time::Duration;

use crate::model::{Segment, StartKey};

#[cfg(all(feature = "redb", feature = "unstable-storage"))]
pub(crate) use self::redb::{Checkpoints, Disk};
#[cfg(feature = "redb")]
pub use self::redb::{Durability, Redb};
#[cfg(all(feature = "metrics", not(feature = "unstable-storage")))]
pub(crate) use contract::Hook;
pub use contract::Storage;
#[cfg(feature = "unstable-storage")]
pub use contract::{Fsync, Hook, KeyRange, Opened, PoolRow};
#[cfg(not(feature = "unstable-storage"))]
pub(crate) use contract::{Fsync, KeyRange, Opened, PoolRow};
pub use memory::Memory;
pub(crate) use memory::range_is_empty;

/// An error of a storage; it says whether the storage can be used again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// Another runtime is using it. Shut that one down first.
    #[error("storage is in use by another runtime")]
    InUse,
    /// The file could not be opened: the path is wrong, the file is not a storage of this crate, or it is damaged. The
    /// file is unchanged.
    #[error("failed to open {}: {problem}", path.display())]
    NotOpened {
        /// The path.
        path: PathBuf,
        /// What was found there, and what to do.
        problem: String,
    },
    /// The operation failed; a retry may succeed. A failed commit may still have been written: the store checks that
    /// before it gives the commit up.
    #[error("storage failed, will be tried again: {0}")]
    Unavailable(String),
    /// A concurrent writer was faster, and nothing was written.
    #[error("storage was changed by another writer")]
    Conflict,
    /// A newer version of this crate has written the storage, which is unchanged. Update the program.
    #[error(
        "written by a newer version of actix-workpool (format {found}, this program reads up to {known}); update the program"
    )]
    TooNew {
        /// The format of the storage.
        found: u32,
        /// The newest format that this program reads.
        known: u32,
    },
    /// The storage cannot be trusted any more and must be reopened.
    #[error("storage must be reopened: {0}")]
    Poisoned(String),
}

/// The `limit` lowest rows, in order.
///
/// Running jobs are sorted only on request: to keep them in order would cost every job that starts, while a scan of
/// 65,536 running attempts, the maximum of a pool, takes about a millisecond.
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

/// Rows of `pending_start` that are due, in the order of their ranks ([`StartKey::rank`]). Of equal priority, those that are
/// ready and those of the queue take turns: neither waits for all of the others.
pub(crate) struct ByRank<I: Iterator> {
    parts: Vec<Peekable<I>>,
    /// `true` if one that is ready comes next.
    ready_next: bool,
    now: Segment,
    aging: Option<Duration>,
}

impl<I: Iterator<Item = (StartKey, V)>, V> ByRank<I> {
    /// Merges the rows of each priority in the queue, and those of each that are ready. Those of a part are in order.
    pub fn new(
        parts: impl Iterator<Item = I>,
        now: Segment,
        aging: Option<Duration>,
        ready_next: bool,
    ) -> ByRank<I> {
        ByRank { parts: parts.map(Iterator::peekable).collect(), ready_next, now, aging }
    }

    /// Returns the time at which the first of the remaining rows is due.
    fn next_due(&mut self) -> Option<Segment> {
        let heads = self.parts.iter_mut().filter_map(Peekable::peek);
        heads.map(|(key, _)| key.segment).min()
    }
}

impl<I: Iterator<Item = (StartKey, V)>, V> Iterator for ByRank<I> {
    type Item = (StartKey, V);

    fn next(&mut self) -> Option<(StartKey, V)> {
        let mut first = None;
        for (part, rows) in self.parts.iter_mut().enumerate() {
            let Some((key, _)) = rows.peek() else { continue };
            if key.segment > self.now {
                continue;
            }
            let (level, tag, segment, seq) = key.rank(self.now, self.aging);
            let is_turn = key.tag().is_some() == self.ready_next;
            let rank = (level, !is_turn, tag, segment, seq);
            let is_better = |before| match planted!(PriorityIgnored) {
                true => rank >= before,
                false => rank < before,
            };
            if first.is_none_or(|(before, _)| is_better(before)) {
                first = Some((rank, part));
            }
        }
        let row = self.parts[first?.1].next()?;
        self.ready_next = row.0.tag().is_none();
        Some(row)
    }
}

/// The number of rows below which tables are not shrunk.
const SMALL: usize = 16_384;

/// Returns `true` if a table with so many rows should be shrunk: it had many more than it has now. The removed rows pay
/// for the cost of shrinking.
pub(crate) fn is_oversized(capacity: usize, rows: usize) -> bool {
    capacity > SMALL && capacity / 4 > rows
}

/// Frees memory after a peak.
pub(crate) fn shrink<K: Eq + std::hash::Hash, V>(map: &mut hashbrown::HashMap<K, V>) {
    if is_oversized(map.capacity(), map.len()) {
        map.shrink_to(2 * map.len());
    }
}
