//! The errors of operations.

use crate::client::{EnqueueError, PoolError};
use crate::model::WorkId;

/// The reason why an operation failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpsError {
    #[error(transparent)]
    Pool(#[from] PoolError),
    #[error(transparent)]
    Enqueue(#[from] EnqueueError),
    #[error("job {0} is not known")]
    UnknownWork(WorkId),
    /// The store did not answer in time. The requested change may still happen.
    #[error("the pool has not answered in time; what was asked for may still happen")]
    TimedOut,
    #[error("name a pool, a function, or both")]
    NoFilter,
    #[error("{0}")]
    Invalid(String),
    /// An operation on many jobs failed midway.
    #[error("{cause}; {done} jobs were done before")]
    Partly { done: usize, cause: Box<OpsError> },
}

impl OpsError {
    pub fn invalid(problem: impl ToString) -> OpsError {
        OpsError::Invalid(problem.to_string())
    }
}
