//! The parts of a runtime that functions can use.

use std::any::{Any, TypeId};
use std::sync::Arc;

use hashbrown::HashMap;

use crate::client::Client;

/// Shared values of the program, one of each type.
pub(crate) type Data = HashMap<TypeId, Arc<dyn Any + Send + Sync>>;

/// The parts of a runtime that functions can use. One per runtime.
pub(crate) struct Lent {
    /// The client of the runtime, to enqueue more jobs.
    pub client: Client,
    data: Data,
}

impl Lent {
    pub fn new(client: Client, data: Data) -> Lent {
        Lent { client, data }
    }

    pub fn data<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.data.get(&TypeId::of::<T>())?.clone().downcast().ok()
    }
}
