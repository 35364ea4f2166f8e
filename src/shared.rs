//! What every part of a runtime has a hold of.

use std::any::{Any, TypeId};
use std::sync::{Arc, OnceLock, PoisonError};

use hashbrown::HashMap;

use crate::actors::post::Post;
use crate::actors::{MainPort, StorePort};
use crate::board::Board;
use crate::clock::Seams;
use crate::config::{Retention, Settings};
use crate::error::EnqueueError;
use crate::explain::{Gauge, StoreHealth};
use crate::model::{Epoch, Name, PoolId};
use crate::registry::Registry;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Notify, RwLock};

/// One per runtime.
pub(crate) struct Shared {
    pub registry: Registry,
    pub data: HashMap<TypeId, Arc<dyn Any + Send + Sync>>,
    pub seams: Seams,
    /// How messages travel.
    pub post: Post,
    pub epoch: Epoch,
    pub retention: Retention,
    /// The name of the storage's type.
    #[cfg(feature = "actix-web")]
    pub store_kind: &'static str,
    pub board: Board,
    pub health: StoreHealth,
    /// Runs blocking actions.
    pub blocking: tokio::runtime::Handle,
    /// Where messages to the store go. Set once, when its actor is there.
    pub store: OnceLock<StorePort>,
    /// Set by shutdown: nothing is enqueued any more.
    closed: AtomicBool,
    pools: RwLock<Pools>,
}

#[derive(Default)]
struct Pools {
    by_name: HashMap<&'static str, Arc<PoolShared>>,
    by_id: HashMap<PoolId, Arc<PoolShared>>,
}

impl Shared {
    pub fn new(
        registry: Registry,
        data: HashMap<TypeId, Arc<dyn Any + Send + Sync>>,
        seams: Seams,
        retention: Retention,
        blocking: tokio::runtime::Handle,
    ) -> Shared {
        let epoch = Epoch(seams.rng().u64(..));
        Shared {
            registry,
            data,
            seams,
            post: Post::default(),
            epoch,
            retention,
            #[cfg(feature = "actix-web")]
            store_kind: "",
            board: Board::new(),
            health: StoreHealth::default(),
            blocking,
            store: OnceLock::new(),
            closed: AtomicBool::new(false),
            pools: RwLock::default(),
        }
    }

    /// The store, unless the runtime is gone or did not get that far.
    pub fn store(&self) -> Option<&StorePort> {
        self.store.get()
    }

    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        for pool in self.pools() {
            pool.wake_idle();
        }
    }

    pub fn pool(&self, name: &str) -> Option<Arc<PoolShared>> {
        let pools = self.pools.read().unwrap_or_else(PoisonError::into_inner);
        pools.by_name.get(name).cloned()
    }

    pub fn pool_by_id(&self, id: PoolId) -> Option<Arc<PoolShared>> {
        let pools = self.pools.read().unwrap_or_else(PoisonError::into_inner);
        pools.by_id.get(&id).cloned()
    }

    /// Every pool, in the order of their names.
    pub fn pools(&self) -> Vec<Arc<PoolShared>> {
        let pools = self.pools.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = pools.by_name.values().cloned().collect();
        all.sort_by_key(|pool| pool.name);
        all
    }

    pub fn add_pool(&self, pool: Arc<PoolShared>) {
        let mut pools = self.pools.write().unwrap_or_else(PoisonError::into_inner);
        pools.by_name.insert(pool.name.as_str(), pool.clone());
        pools.by_id.insert(pool.id, pool);
    }
}

/// One per pool: what its handles need to know.
pub(crate) struct PoolShared {
    pub id: PoolId,
    pub name: Name,
    /// Works without an outcome, those on their way to the store included. Added to by handles and transactions,
    /// taken from by the store.
    pending: AtomicU64,
    /// Told when `pending` has become zero.
    idle: Notify,
    settings: RwLock<Arc<Settings>>,
    pub gauge: Gauge,
    /// Where messages to the pool's loop go. Set once, when its actor is there.
    pub main: OnceLock<MainPort>,
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
            main: OnceLock::new(),
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

    /// Errs when `works` more would be too many; counts nothing.
    pub fn check_room(&self, works: u64) -> Result<(), EnqueueError> {
        let (pending, max) = (self.pending(), self.settings().max_pending);
        match pending.saturating_add(works) > max {
            true => Err(EnqueueError::Overloaded { pending, max }),
            false => Ok(()),
        }
    }

    /// Counts `works` more, if they may come. What is not enqueued after all is given back with `leave`.
    pub fn admit(&self, works: u64) -> Result<(), EnqueueError> {
        let max = self.settings().max_pending;
        let pending = self.pending.fetch_add(works, Ordering::Relaxed);
        if pending.saturating_add(works) > max {
            self.leave(works);
            return Err(EnqueueError::Overloaded { pending, max });
        }
        Ok(())
    }

    /// Counts works that a transaction has enqueued: they are there already.
    pub fn enter(&self, works: u64) {
        self.pending.fetch_add(works, Ordering::Relaxed);
    }

    /// Works have completed, or were not enqueued after all.
    pub fn leave(&self, works: u64) {
        if self.pending.fetch_sub(works, Ordering::SeqCst) == works {
            self.wake_idle();
        }
    }

    /// Waits until there is no work without an outcome, or the runtime shuts down.
    pub async fn idle(&self, shared: &Shared) {
        loop {
            let idle = self.idle.notified();
            tokio::pin!(idle);
            // Registered before the look, so that the last completion cannot fall between the two.
            idle.as_mut().enable();
            if self.pending.load(Ordering::SeqCst) == 0 || shared.is_closed() {
                return;
            }
            idle.await;
        }
    }

    /// Lets whoever waits for an idle pool look again.
    pub fn wake_idle(&self) {
        self.idle.notify_waiters();
    }
}

/// Works that were admitted and are on their way to the store. Those that do not get there, or that the store does not
/// enqueue, are counted no more when this is dropped.
pub(crate) struct Admitted {
    pool: Arc<PoolShared>,
    works: u64,
}

impl Admitted {
    pub fn new(pool: Arc<PoolShared>, works: u64) -> Result<Admitted, EnqueueError> {
        pool.admit(works)?;
        Ok(Admitted { pool, works })
    }

    /// So many of them were enqueued: from now on their completion counts them off.
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
