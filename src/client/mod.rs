//! What users hold: handles on pools and jobs, and what is said about a job when it is enqueued.
//!
//! All handles hold one [`Client`], which sends requests to the store and to the loops and waits for the answers.

mod batch;
mod by_id;
mod diagnostics;
mod enqueue;
mod errors;
mod function;
mod pool;
mod prepare;
mod work;

pub use batch::WorkBatch;
pub(crate) use by_id::Client;
pub use diagnostics::{Diagnostics, RunningWork};
pub use enqueue::{Enqueue, OneWork};
pub use errors::{EnqueueError, JoinError, PoolError, QueryError};
pub use function::{ActionKey, Call, Function, kind};
pub use pool::{Batch, Workpool};
pub(crate) use prepare::{follow_up, prepare};
pub use work::{Watch, WorkHandle};
