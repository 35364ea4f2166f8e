//! The part of a pool that its handles need.

use std::sync::{Arc, PoisonError};

use super::sync::atomic::{AtomicU64, Ordering};
use super::sync::{Notify, RwLock};
use super::{Gauge, Shared};
use crate::model::{Name, PoolId, Settings};

/// The error of a full pool: it has the maximum number of jobs without an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Overloaded {
    pub pending: u64,
    pub max: u64,
}

/// The facts that a pool's handles need. One per pool.
pub(crate) struct PoolShared {
    pub id: PoolId,
    pub name: Name,
    /// The number of jobs without an outcome, including those on their way to the store. Handles and transactions
    /// increase it, the store decreases it.
    pending: AtomicU64,
    /// Notified when `pending` becomes zero.
    idle: Notify,
    settings: RwLock<Arc<Settings>>,
    pub gauge: Gauge,
}

impl std::fmt::Debug for PoolShared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PoolShared").field("name", &self.name).finish_non_exhaustive()
    }
}

impl PoolShared {
    pub fn new(id: PoolId, name: Name, pending: u64, settings: Settings) -> PoolShared {
        PoolShared {
            id,
            name,
            pending: AtomicU64::new(pending),
            idle: Notify::new(),
            settings: RwLock::new(Arc::new(settings)),
            gauge: Gauge::default(),
        }
    }

    pub fn settings(&self) -> Arc<Settings> {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_settings(&self, settings: Settings) {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }

    pub fn pending(&self) -> u64 {
        self.pending.load(Ordering::Relaxed)
    }

    /// Fails if `works` more jobs would be too many. Does not count them.
    pub fn check_room(&self, works: u64) -> Result<(), Overloaded> {
        let (pending, max) = (self.pending(), self.settings().max_pending);
        match pending.saturating_add(works) > max {
            true => Err(Overloaded { pending, max }),
            false => Ok(()),
        }
    }

    /// Counts `works` more jobs, if they are not too many. Call `leave` for those that are not enqueued after all.
    pub fn admit(&self, works: u64) -> Result<(), Overloaded> {
        let max = self.settings().max_pending;
        let pending = self.pending.fetch_add(works, Ordering::Relaxed);
        if pending.saturating_add(works) > max {
            self.leave(works);
            return Err(Overloaded { pending, max });
        }
        Ok(())
    }

    /// Counts jobs that a transaction has enqueued, without a limit since they are committed already.
    pub fn enter(&self, works: u64) {
        self.pending.fetch_add(works, Ordering::Relaxed);
    }

    /// Subtracts jobs that have completed, or were not enqueued after all.
    pub fn leave(&self, works: u64) {
        if self.pending.fetch_sub(works, Ordering::SeqCst) == works {
            self.wake_idle();
        }
    }

    /// Waits until every job has an outcome, or the runtime shuts down.
    pub async fn idle(&self, shared: &Shared) {
        loop {
            let idle = self.idle.notified();
            tokio::pin!(idle);
            // Registered before the check, so that the last completion cannot fall between the two.
            idle.as_mut().enable();
            if self.pending.load(Ordering::SeqCst) == 0 || shared.is_closed() {
                return;
            }
            idle.await;
        }
    }

    /// Wakes the callers of `idle`.
    pub fn wake_idle(&self) {
        self.idle.notify_waiters();
    }
}

/// Admitted jobs on their way to the store. On drop, the jobs that the store has not enqueued are subtracted from the
/// pool's count.
pub(crate) struct Admitted {
    pool: Arc<PoolShared>,
    works: u64,
}

impl Admitted {
    pub fn new(pool: Arc<PoolShared>, works: u64) -> Result<Admitted, Overloaded> {
        pool.admit(works)?;
        Ok(Admitted { pool, works })
    }

    /// Marks `works` of the jobs as enqueued: their completion subtracts them.
    pub fn enqueued(mut self, works: u64) {
        self.works = self.works.saturating_sub(works);
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if self.works > 0 && !planted!(PendingLeaks) {
            self.pool.leave(self.works);
        }
    }
}
