//! One file for each peer.

pub use apalis_memory::ApalisMemory;
pub use apalis_sqlite::ApalisSqlite;
pub use by_hand::ByHand;
pub use kameo::Kameo;
pub use ractor::Ractor;
pub use riverqueue::Riverqueue;
pub use workpool::{InFile, InMemory};

mod apalis_memory;
mod apalis_sqlite;
mod by_hand;
mod kameo;
mod ractor;
mod riverqueue;
mod sqlite;
mod workpool;
