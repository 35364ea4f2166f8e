//! The errors of the client, one type for each situation.

use std::time::Duration;

use crate::model::{ConfigError, Failure, Name, WorkId};
use crate::shared::Overloaded;
use crate::storage::StorageError;

/// The reason why a job was not enqueued. The job is not in the store.
///
/// ```
/// # use actix_workpool::doctest::{self, Double};
/// use actix_workpool::{EnqueueError, PoolConfig};
/// # doctest::run(async {
/// # let runtime = doctest::runtime().await?;
/// let full = runtime.create_pool("small", PoolConfig::default().max_pending(1).paused(true)).await?;
/// full.enqueue(Double(1)).await?;
/// match full.enqueue(Double(2)).await {
///     Err(EnqueueError::Overloaded { .. }) => println!("come back later"),
///     other => panic!("{other:?}"),
/// }
/// # runtime.shutdown(std::time::Duration::ZERO).await;
/// # Ok(()) });
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnqueueError {
    /// The arguments and the context of `on_complete` are too large. Store them elsewhere and pass a reference.
    #[error("arguments and context have {size} bytes, at most {max} are taken")]
    TooLarge {
        /// The size in bytes.
        size: usize,
        /// The maximum, in bytes.
        max: usize,
    },
    /// The pool is full: it has `max_pending` jobs without an outcome. Try again later, or raise `max_pending`.
    #[error("pool has {pending} jobs pending, at most {max} are taken; try again later")]
    Overloaded {
        /// The number of pending jobs.
        pending: u64,
        /// The maximum.
        max: u64,
    },
    /// The delay is longer than [`MAX_DELAY`](crate::MAX_DELAY).
    #[error("delay of {} s is too long, at most {} s are taken", given.as_secs(), max.as_secs())]
    TooFarAhead {
        /// The value that was given.
        given: Duration,
        /// The maximum.
        max: Duration,
    },
    /// The arguments or the context do not encode as JSON.
    #[error("failed to encode arguments: {0}")]
    Encode(#[from] serde_json::Error),
    /// The function or `on_complete` was not registered when the runtime was built.
    #[error("function {function} is not registered: add `.{register}` to `Runtime::builder()`")]
    UnknownFunction {
        /// The name of the function.
        function: Name,
        /// The call of the builder that registers it.
        register: &'static str,
    },
    /// The retry policy or the timeout is out of range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The runtime shuts down or is gone.
    #[error("runtime is shut down")]
    Closed,
    /// The storage failed; the job is not in the store.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl From<Overloaded> for EnqueueError {
    fn from(Overloaded { pending, max }: Overloaded) -> EnqueueError {
        EnqueueError::Overloaded { pending, max }
    }
}

/// The reason why a request to a pool or a runtime failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// No pool has this name. Configure it in the builder, or create it.
    #[error("pool {name:?} does not exist; {}", those(pools))]
    Unknown {
        /// The name.
        name: String,
        /// The names of all pools, in order.
        pools: Vec<Name>,
    },
    /// No schedule of this process has this id.
    #[error("schedule {id:?} does not exist; {}", known(schedules))]
    UnknownSchedule {
        /// The id.
        id: String,
        /// The ids of all schedules, in order.
        schedules: Vec<Name>,
    },
    /// A pool of this name already exists.
    #[error("pool {0} exists already")]
    Duplicate(Name),
    /// A value is out of range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The runtime shuts down or is gone.
    #[error("runtime is shut down")]
    Closed,
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// The reason why a query failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The query was not registered when the runtime was built.
    #[error("query {0} is not registered: add `.query::<..>()` to `Runtime::builder()`")]
    UnknownFunction(Name),
    /// The query itself failed or panicked.
    #[error("{0}")]
    Failed(Failure),
    /// Its arguments or its result do not encode or decode.
    #[error("failed to encode or decode: {0}")]
    Json(#[from] serde_json::Error),
    /// The runtime shuts down or is gone.
    #[error("runtime is shut down")]
    Closed,
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// The reason why a join returns no output.
///
/// ```
/// # use actix_workpool::doctest::{self, Double};
/// use actix_workpool::JoinError;
/// # doctest::run(async {
/// # let runtime = doctest::runtime().await?;
/// # let pool = runtime.pool("default")?;
/// match pool.enqueue(Double(u64::MAX)).await?.join().await {
///     Err(JoinError::Failed { attempts: 1, failure }) => assert_eq!(failure.message, "too large"),
///     other => panic!("{other:?}"),
/// }
/// # runtime.shutdown(std::time::Duration::ZERO).await;
/// # Ok(()) });
/// ```
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The job failed.
    #[error("job failed in attempt {attempts}: {failure}")]
    Failed {
        /// The number of attempts that counted.
        attempts: u32,
        /// The failure of the last attempt.
        failure: Failure,
    },
    /// The job was canceled.
    #[error("job was canceled")]
    Canceled,
    /// No job of this id was ever enqueued here, or its outcome has been deleted after its retention.
    #[error("job {0} is not known, or its outcome is forgotten")]
    Unknown(WorkId),
    /// The result does not decode into the requested type.
    #[error("failed to decode result: {0}")]
    Decode(String),
    /// The runtime shuts down or is gone; the job may still be in the store.
    #[error("runtime is shut down")]
    Closed,
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Lists the pools that exist, for the message about one that does not.
pub(crate) fn those(pools: &[Name]) -> String {
    existing(pools, "existing pools", "there are no pools: add `.pool(..)` to `Runtime::builder()`")
}

/// Lists the schedules that exist, for the message about one that does not.
fn known(schedules: &[Name]) -> String {
    let none = "there are none: add `.schedule(..)` to `Runtime::builder()`";
    existing(schedules, "existing schedules", none)
}

fn existing(names: &[Name], title: &str, none: &str) -> String {
    let names: Vec<_> = names.iter().map(|name| name.as_str()).collect();
    match names.is_empty() {
        true => none.to_owned(),
        false => format!("{title}: {}", names.join(", ")),
    }
}
