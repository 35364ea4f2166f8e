//! The users' handles on pools and jobs, and the builder of an enqueue.
//!
//! All handles hold one [`Client`], which sends requests to the store and to the loops and waits for the answers.

mod batch;
mod by_id;
mod diagnostics;
mod enqueue;
mod errors;
mod function;
mod keys;
mod pool;
mod prepare;
mod schedule;
mod schedules;
mod work;

pub use batch::WorkBatch;
pub(crate) use by_id::Client;
pub use diagnostics::{Diagnostics, PoolStatus, RunningWork};
pub use enqueue::{Enqueue, OneWork};
pub(crate) use errors::those;
pub use errors::{EnqueueError, JoinError, PoolError, QueryError};
pub use function::{ActionKey, Call, Function, kind};
pub use keys::KeyStatus;
pub use pool::{Batch, Workpool};
pub(crate) use prepare::{follow_up, prepare};
pub use schedule::{Schedule, ScheduleError};
pub use schedules::{ScheduleHandle, ScheduleStatus};
pub use work::{Watch, WorkHandle};
