//! The health of the store.

use std::time::Duration;

use super::sync::atomic::{AtomicU64, Ordering};
use super::sync::{Mutex, MutexGuard, Notify};
use crate::model::Segment;
use crate::storage::StorageError;

/// The time after which a group of the store counts as stalled.
pub(crate) const STALLED_AFTER: Duration = Duration::from_secs(1);

/// The health of the store, readable by all threads. Written by the StoreActor.
#[derive(Default)]
pub(crate) struct StoreHealth {
    /// The time at which the current group was sent to the storage's thread; zero if there is none.
    busy_since: AtomicU64,
    /// The time since which the storage fails, and the last error. Seldom written, read by `explain` only.
    failing: Mutex<Option<(Segment, StorageError)>>,
    /// Notified when a group takes too long while a caller waits.
    pub stalled: Notify,
}

impl StoreHealth {
    pub fn set_busy(&self, since: Option<Segment>) {
        self.busy_since.store(since.map_or(0, |since| since.0.max(1)), Ordering::Relaxed);
    }

    /// Returns the time at which the current group began, if the group has stalled.
    pub fn stalled_since(&self, now: Segment) -> Option<Segment> {
        let since = Segment(self.busy_since.load(Ordering::Relaxed));
        (since.0 > 0 && now.since(since) >= STALLED_AFTER).then_some(since)
    }

    pub fn failed(&self, now: Segment, error: &StorageError) {
        let mut failing = self.failing();
        let since = failing.as_ref().map_or(now, |(since, _)| *since);
        *failing = Some((since, error.clone()));
    }

    pub fn recovered(&self) {
        *self.failing() = None;
    }

    /// Returns the time since which the storage fails, and the last error, if it fails.
    pub fn failing_since(&self) -> Option<(Segment, StorageError)> {
        self.failing().clone()
    }

    fn failing(&self) -> MutexGuard<'_, Option<(Segment, StorageError)>> {
        self.failing.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
