//! The errors of functions.

use std::time::Duration;

use crate::model::{Failure, FailureKind};

/// The longest rest of a pool that one attempt can ask for.
const MAX_REST: Duration = Duration::from_secs(24 * 60 * 60);

/// The error of a function.
///
/// With `?` any error becomes a retryable one, also an `anyhow::Error` or a `Box<dyn Error + Send + Sync>`, so that a
/// function only marks the special cases:
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
    LimitPool(Duration),
    LimitKey(Duration),
}

impl WorkError {
    /// Fails the attempt; another may succeed.
    #[must_use]
    pub fn retryable(message: impl Into<String>) -> WorkError {
        WorkError(WorkErrorKind::Failed(Failure::retryable(FailureKind::Error, message)))
    }

    /// Fails the job now, without a retry: any other attempt would fail too.
    #[must_use]
    pub fn non_retryable(message: impl Into<String>) -> WorkError {
        WorkError(WorkErrorKind::Failed(Failure::permanent(FailureKind::Error, message)))
    }

    /// Fails the attempt, which counts; the next one starts after `wait` instead of the backoff.
    #[must_use]
    pub fn retry_after(wait: Duration, message: impl Into<String>) -> WorkError {
        let failure = Failure::retryable(FailureKind::Error, message);
        WorkError(WorkErrorKind::Failed(Failure { retry_after: Some(wait), ..failure }))
    }

    /// Ends the job as canceled, whether or not a cancel was requested.
    #[must_use]
    pub fn canceled() -> WorkError {
        WorkError(WorkErrorKind::Canceled)
    }

    /// Runs the job again after `wait`, since it is too early now; this attempt does not count.
    #[must_use]
    pub fn snooze(wait: Duration) -> WorkError {
        WorkError(WorkErrorKind::Snooze(wait))
    }

    /// Starts no job of the pool for `wait`, and runs this one again then; this attempt does not count. For a server that
    /// has had enough, and says for how long: "429 Too Many Requests", with `Retry-After`.
    ///
    /// The wait is at most 24 hours: a longer one counts as that. Jobs of the pool that run go on. Behind the rest the
    /// pool's [`rate`](crate::PoolConfig::rate) begins without a burst.
    #[must_use]
    pub fn limit_pool(wait: Duration) -> WorkError {
        WorkError(WorkErrorKind::LimitPool(wait.min(MAX_REST)))
    }

    /// Starts no job of this job's [key](crate::Enqueue::key) for `wait`, and runs this one again then; this attempt does
    /// not count. For a server that has had enough of one customer. A job without a key only waits itself, as with
    /// [`snooze`](WorkError::snooze).
    ///
    /// The wait is at most 24 hours: a longer one counts as that. Jobs of the key that run go on.
    #[must_use]
    pub fn limit_key(wait: Duration) -> WorkError {
        WorkError(WorkErrorKind::LimitKey(wait.min(MAX_REST)))
    }
}

impl std::fmt::Display for WorkError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            WorkErrorKind::Failed(failure) => failure.fmt(f),
            WorkErrorKind::Canceled => f.write_str("canceled"),
            WorkErrorKind::Snooze(wait) => write!(f, "snoozed for {wait:?}"),
            WorkErrorKind::LimitPool(wait) => write!(f, "pool rests for {wait:?}"),
            WorkErrorKind::LimitKey(wait) => write!(f, "key rests for {wait:?}"),
        }
    }
}

/// `WorkError` itself does not implement `std::error::Error`, so that everything else converts into it with `?`:
/// errors, `anyhow::Error`, `Box<dyn Error + Send + Sync>`, and texts.
impl<E: Into<Box<dyn std::error::Error + Send + Sync>>> From<E> for WorkError {
    fn from(error: E) -> Self {
        WorkError::retryable(chain(&*error.into()))
    }
}

/// Puts an error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Transparent wrappers have the same message as their source.
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_an_error_becomes_a_retryable_one() {
        fn boxed() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
            Err(std::io::Error::other("the disk is gone"))?
        }
        fn fails(text: bool) -> Result<(), WorkError> {
            match text {
                true => Err("in words")?,
                false => Ok(boxed()?),
            }
        }
        for (text, message) in [(true, "in words"), (false, "the disk is gone")] {
            let WorkError(WorkErrorKind::Failed(failure)) = fails(text).unwrap_err() else {
                panic!("it fails")
            };
            assert_eq!((failure.message.as_str(), failure.retryable), (message, true));
        }
    }
}
