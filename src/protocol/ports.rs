//! Ports: the senders to the store and to the loops, usable from any thread.

use std::sync::{Arc, OnceLock, PoisonError};

use hashbrown::HashMap;

use super::{LoopMessage, Request};
use crate::model::PoolId;
use crate::shared::sync::RwLock;

/// The sender to the store.
pub(crate) trait StorePort: Send + Sync {
    /// Sends without waiting. A store that is gone drops the message, and with it the reply channel.
    fn send(&self, request: Request);
}

/// The sender to a pool's loop.
pub(crate) trait LoopPort: Send + Sync {
    /// Sends without waiting. A loop that is gone drops the message, and with it the reply channel.
    fn send(&self, message: LoopMessage);
}

/// All ports of a runtime.
#[derive(Default)]
pub(crate) struct Ports {
    /// Set once, when the store has started.
    store: OnceLock<Box<dyn StorePort>>,
    /// One port per started loop; never removed.
    loops: RwLock<HashMap<PoolId, Arc<dyn LoopPort>>>,
}

impl Ports {
    /// Returns the store's port, unless the runtime is gone or the store has not started.
    pub fn store(&self) -> Option<&dyn StorePort> {
        self.store.get().map(|store| &**store)
    }

    /// Sets the store's port. Returns `true` if it is the first one.
    pub fn set_store(&self, store: impl StorePort + 'static) -> bool {
        self.store.set(Box::new(store)).is_ok()
    }

    /// Returns the port of a pool's loop, if the loop has started.
    pub fn pool(&self, pool: PoolId) -> Option<Arc<dyn LoopPort>> {
        self.loops.read().unwrap_or_else(PoisonError::into_inner).get(&pool).cloned()
    }

    /// Adds the port of a pool's loop. Returns `true` if it is the pool's first one.
    pub fn set_pool(&self, pool: PoolId, port: Arc<dyn LoopPort>) -> bool {
        let mut loops = self.loops.write().unwrap_or_else(PoisonError::into_inner);
        loops.insert(pool, port).is_none()
    }
}
