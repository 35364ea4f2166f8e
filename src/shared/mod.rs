//! State that all threads of a runtime read: time and random numbers, the board, pools, the store's health, the catalog
//! of functions.
//!
//! Nothing here sends a message or runs user code.

mod board;
mod catalog;
mod gauge;
mod health;
mod pool;
pub(crate) mod rates;
mod seams;
pub(crate) mod sync;

use std::sync::{Arc, PoisonError};

use hashbrown::HashMap;

use crate::model::{Epoch, Name, PoolId, Retention};
use sync::RwLock;
use sync::atomic::{AtomicBool, Ordering};

pub(crate) use board::{Board, FinishedOrder};
pub(crate) use catalog::{Catalog, Registered};
pub(crate) use gauge::Gauge;
pub(crate) use health::{STALLED_AFTER, StoreHealth};
pub(crate) use pool::{Admitted, Overloaded, PoolShared};
pub(crate) use seams::Seams;
pub use seams::{Clock, SystemClock};

/// The state shared by all threads. One per runtime.
pub(crate) struct Shared {
    pub catalog: Catalog,
    pub seams: Seams,
    pub epoch: Epoch,
    pub retention: Retention,
    /// The name of the storage's type.
    pub store_kind: &'static str,
    /// `true` if the messages of failed jobs are logged, whatever their pools say.
    pub log_error_messages: bool,
    pub board: Board,
    pub health: StoreHealth,
    /// Set by tests: nothing starts.
    #[cfg(feature = "testing")]
    held: AtomicBool,
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
        catalog: Catalog,
        seams: Seams,
        retention: Retention,
        store_kind: &'static str,
    ) -> Shared {
        let epoch = Epoch(seams.rng().u64(..));
        Shared {
            catalog,
            seams,
            epoch,
            retention,
            store_kind,
            log_error_messages: false,
            board: Board::new(),
            health: StoreHealth::default(),
            #[cfg(feature = "testing")]
            held: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            pools: RwLock::default(),
        }
    }

    /// Returns `true` if jobs are lost when the process ends.
    pub fn is_in_memory(&self) -> bool {
        self.store_kind == "Memory"
    }

    /// Returns `true` if a test holds all pools.
    pub fn is_held(&self) -> bool {
        #[cfg(feature = "testing")]
        return self.held.load(Ordering::SeqCst);
        #[cfg(not(feature = "testing"))]
        false
    }

    #[cfg(feature = "testing")]
    pub fn set_held(&self, held: bool) {
        self.held.store(held, Ordering::SeqCst);
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

    /// Returns the names of all pools, in order.
    pub fn pool_names(&self) -> Vec<Name> {
        self.pools().iter().map(|pool| pool.name).collect()
    }

    pub fn pool_by_id(&self, id: PoolId) -> Option<Arc<PoolShared>> {
        let pools = self.pools.read().unwrap_or_else(PoisonError::into_inner);
        pools.by_id.get(&id).cloned()
    }

    /// Returns every pool, in the order of their names.
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
