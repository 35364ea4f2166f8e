//! The ways to the store and to the loops, from any thread.

use std::sync::{Arc, OnceLock, PoisonError};

use hashbrown::HashMap;

use super::{LoopMessage, Request};
use crate::model::PoolId;
use crate::shared::sync::RwLock;

/// The way to the store.
pub(crate) trait StorePort: Send + Sync {
    /// Sends without waiting. A store that is gone drops the message, and with it the reply channel.
    fn send(&self, request: Request);
}

/// The way to a pool's loop.
pub(crate) trait LoopPort: Send + Sync {
    /// Sends without waiting. A loop that is gone drops the message, and with it the reply channel.
    fn send(&self, message: LoopMessage);
}

/// The ways of messages. One set per runtime.
#[derive(Default)]
pub(crate) struct Ports {
    /// Set once, when the store is there.
    store: OnceLock<Box<dyn StorePort>>,
    /// Written when a pool's loop has started; never taken from.
    loops: RwLock<HashMap<PoolId, Arc<dyn LoopPort>>>,
}

impl Ports {
    /// The store, unless the runtime is gone or has not got that far.
    pub fn store(&self) -> Option<&dyn StorePort> {
        self.store.get().map(|store| &**store)
    }

    /// Says whether it is the first one.
    pub fn set_store(&self, store: impl StorePort + 'static) -> bool {
        self.store.set(Box::new(store)).is_ok()
    }

    /// The loop of a pool, if it has started.
    pub fn pool(&self, pool: PoolId) -> Option<Arc<dyn LoopPort>> {
        self.loops.read().unwrap_or_else(PoisonError::into_inner).get(&pool).cloned()
    }

    /// Says whether it is the first one of its pool.
    pub fn set_pool(&self, pool: PoolId, port: Arc<dyn LoopPort>) -> bool {
        let mut loops = self.loops.write().unwrap_or_else(PoisonError::into_inner);
        loops.insert(pool, port).is_none()
    }
}
