//! What can go wrong, named for the situation.

use std::time::Duration;

use crate::model::{Failure, FailureKind, Name, WorkId};
use crate::storage::StorageError;

/// A value of a configuration or a retry policy that is out of its range.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// More attempts at once than a pool can have.
    #[error("max_parallelism is {given}, at most {max} attempts can run at once in a pool")]
    MaxParallelism {
        /// What was asked for.
        given: usize,
        /// What can be had.
        max: usize,
    },
    /// A retry policy that makes no attempt.
    #[error("max_attempts is 0, it must be at least 1: the first attempt counts")]
    NoAttempts,
    /// A backoff that shrinks, or is not a number.
    #[error("base is {given}, it must be a finite number of at least 1")]
    Base {
        /// What was asked for.
        given: f64,
    },
    /// A timeout of zero.
    #[error("attempt_timeout is zero, no attempt could finish; leave it unset for no timeout")]
    NoTimeToRun,
    /// Larger arguments than can be kept.
    #[error("max_payload_bytes is {given}, at most {max} can be kept")]
    MaxPayloadBytes {
        /// What was asked for.
        given: usize,
        /// What can be had.
        max: usize,
    },
    /// A pool that takes no work.
    #[error("max_pending is 0, nothing could be enqueued; pause the pool to start nothing")]
    NothingMayBePending,
    /// A name that is empty or too long.
    #[error("name {given:?} has {len} bytes, it must have 1 to 200", len = given.len())]
    NameLength {
        /// The name.
        given: String,
    },
    /// A page of a listing that is empty or too long.
    #[error("a page of {given} works was asked for, it may have 1 to {max}")]
    PageSize {
        /// What was asked for.
        given: usize,
        /// What can be had.
        max: usize,
    },
    /// A cursor that is none, or of a listing of another state.
    #[error("cursor {given:?} is not one of this listing")]
    Cursor {
        /// The cursor.
        given: String,
    },
}

/// Why a runtime did not start. Nothing is left running.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Two functions have one name.
    #[error("function {0} is registered twice")]
    DuplicateFunction(Name),
    /// Two pools have one name.
    #[error("pool {0} is configured twice")]
    DuplicatePool(Name),
    /// A value is out of its range.
    #[error("pool {pool}: {error}")]
    Config {
        /// Which pool it was meant for.
        pool: Name,
        /// What is wrong.
        error: ConfigError,
    },
    /// A function's own defaults are out of range.
    #[error("function {function}: {error}")]
    Function {
        /// Which function.
        function: Name,
        /// What is wrong.
        error: ConfigError,
    },
    /// The storage could not be opened.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A thread could not be started.
    #[error("failed to start a thread: {0}")]
    Thread(#[from] std::io::Error),
    /// The actix system went away while the runtime was starting.
    #[error("the actix system stopped while the runtime was starting")]
    Closed,
}

/// Why a work was not enqueued. It is not in the store.
#[derive(Debug, thiserror::Error)]
pub enum EnqueueError {
    /// The arguments and the context of `on_complete` are too large. Store them elsewhere and pass a reference.
    #[error("arguments and context have {size} bytes, at most {max} are taken")]
    TooLarge {
        /// How large they are.
        size: usize,
        /// How large they may be.
        max: usize,
    },
    /// The pool has as many works without an outcome as it may have. Try again later, or raise `max_pending`.
    #[error("pool has {pending} works pending, at most {max} are taken; try again later")]
    Overloaded {
        /// How many are pending.
        pending: u64,
        /// How many may be.
        max: u64,
    },
    /// The time is further ahead than [`MAX_DELAY`](crate::MAX_DELAY).
    #[error("delay of {} s is too long, at most {} s are taken", given.as_secs(), max.as_secs())]
    TooFarAhead {
        /// What was asked for.
        given: Duration,
        /// What can be had.
        max: Duration,
    },
    /// The arguments or the context do not encode as JSON.
    #[error("failed to encode arguments: {0}")]
    Encode(#[from] serde_json::Error),
    /// The function or `on_complete` was not registered when the runtime was built.
    #[error("function {0} is not registered with this runtime")]
    UnknownFunction(Name),
    /// The retry policy or the timeout is out of its range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The runtime shuts down or is gone.
    #[error("runtime is shut down")]
    Closed,
    /// The storage failed; the work is not there.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Why a request to a pool or a runtime was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// No pool has this name. Configure it in the builder, or create it.
    #[error("pool {0:?} does not exist")]
    Unknown(String),
    /// A pool of this name is there already.
    #[error("pool {0} exists already")]
    Duplicate(Name),
    /// A value is out of its range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The runtime shuts down or is gone.
    #[error("runtime is shut down")]
    Closed,
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Why a query has no result.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The query was not registered when the runtime was built.
    #[error("query {0} is not registered with this runtime")]
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

/// Why a join has no result.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum JoinError {
    /// The work failed.
    #[error("work failed in attempt {attempts}: {failure}")]
    Failed {
        /// How many attempts were charged.
        attempts: u32,
        /// What happened in the last one.
        failure: Failure,
    },
    /// The work was canceled.
    #[error("work was canceled")]
    Canceled,
    /// No work of this id was ever enqueued here, or its outcome is forgotten by now.
    #[error("work {0} is not known, or its outcome is forgotten")]
    Unknown(WorkId),
    /// The result is not of the type asked for.
    #[error("failed to decode result: {0}")]
    Decode(String),
    /// The runtime shuts down or is gone; the work may still be in the store.
    #[error("runtime is shut down")]
    Closed,
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// What a function says when it does not succeed.
///
/// Any error becomes a retryable one with `?`, so that a function says only what is special:
///
/// ```
/// use actix_workpool::WorkError;
/// fn charge(amount: &str) -> Result<u64, WorkError> {
///     let cents: u64 = amount.parse()?; // retryable, as any error
///     if cents == 0 {
///         return Err(WorkError::non_retryable("nothing to charge"));
///     }
///     Ok(cents)
/// }
/// assert!(charge("12").is_ok());
/// assert_eq!(charge("0").unwrap_err().to_string(), "nothing to charge");
/// ```
#[derive(Debug)]
pub struct WorkError(pub(crate) WorkErrorKind);

#[derive(Debug)]
pub(crate) enum WorkErrorKind {
    Failed(Failure),
    Canceled,
    Snooze(Duration),
}

impl WorkError {
    /// The attempt failed; another may succeed.
    #[must_use]
    pub fn retryable(message: impl Into<String>) -> WorkError {
        WorkError(WorkErrorKind::Failed(Failure::retryable(FailureKind::Error, message)))
    }

    /// The attempt failed, and so would any other: the work fails now.
    #[must_use]
    pub fn non_retryable(message: impl Into<String>) -> WorkError {
        WorkError(WorkErrorKind::Failed(Failure::permanent(FailureKind::Error, message)))
    }

    /// The attempt failed; the next one is made after `wait` in place of the backoff. The attempt is charged.
    #[must_use]
    pub fn retry_after(wait: Duration, message: impl Into<String>) -> WorkError {
        let failure = Failure::retryable(FailureKind::Error, message);
        WorkError(WorkErrorKind::Failed(Failure { retry_after: Some(wait), ..failure }))
    }

    /// The work ends as canceled, whether anybody asked for it or not.
    #[must_use]
    pub fn canceled() -> WorkError {
        WorkError(WorkErrorKind::Canceled)
    }

    /// It is too early: run the work again after `wait`, and charge no attempt for this one.
    #[must_use]
    pub fn snooze(wait: Duration) -> WorkError {
        WorkError(WorkErrorKind::Snooze(wait))
    }
}

impl std::fmt::Display for WorkError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            WorkErrorKind::Failed(failure) => failure.fmt(f),
            WorkErrorKind::Canceled => f.write_str("canceled"),
            WorkErrorKind::Snooze(wait) => write!(f, "snoozed for {wait:?}"),
        }
    }
}

/// `WorkError` itself is no `std::error::Error`, so that every other error converts into it.
impl<E: std::error::Error> From<E> for WorkError {
    fn from(error: E) -> Self {
        WorkError::retryable(chain(&error))
    }
}

/// An error and its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Transparent wrappers repeat what they wrap.
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

/// The message of a panic.
pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(message), _) => (*message).to_owned(),
        (_, Some(message)) => message.clone(),
        _ => "a value that is no text".to_owned(),
    }
}
