//! Retries: the policies, and the decision on a failed attempt.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ConfigError, Segment};

/// The retry policy of a function. That of the enqueue goes before it.
///
/// ```
/// use actix_workpool::{Action, ActionContext, RetryPolicy, WorkError};
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Charge { cents: u64 }
///
/// impl Action for Charge {
///     const NAME: &'static str = "charge";
///     // Never twice, whatever the pool says.
///     const RETRY: RetryPolicy = RetryPolicy::Never;
///     type Output = ();
///     async fn run(self, _: ActionContext) -> Result<(), WorkError> {
///         Ok(())
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum RetryPolicy {
    /// The pool's policy.
    #[default]
    Inherit,
    /// One attempt only.
    Never,
    /// This policy.
    With(RetryBehavior),
}

/// The number of attempts and the waits between them.
///
/// Retry *n* waits `initial_backoff · base^(n-1) · U[0.5, 1.5)`, at most [`RetryBehavior::MAX_BACKOFF`].
/// The defaults are 5 attempts, 250 ms and base 2.
///
/// ```
/// # use actix_workpool::RetryBehavior;
/// # use std::time::Duration;
/// let patient = RetryBehavior::default().max_attempts(10).initial_backoff(Duration::from_secs(1));
/// assert!(patient.validate().is_ok());
/// assert!(patient.base(f64::NAN).validate().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RetryBehavior {
    /// The number of attempts in all, the first included. At least 1.
    pub max_attempts: u32,
    /// The wait before the first retry, before jitter. Whole milliseconds.
    pub initial_backoff_ms: u64,
    /// The factor of each further wait. Finite, at least 1.
    pub base: f64,
}

impl RetryBehavior {
    /// The maximum wait, one day: a longer one is a schedule, not a retry.
    pub const MAX_BACKOFF: Duration = Duration::from_secs(24 * 60 * 60);

    /// Makes the default policy: 5 attempts, 250 ms, base 2. `const`, so that a function can have its own:
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use actix_workpool::{RetryBehavior, RetryPolicy};
    ///
    /// const RETRY: RetryPolicy = RetryPolicy::With(
    ///     RetryBehavior::new().max_attempts(10).initial_backoff(Duration::from_secs(1)),
    /// );
    /// ```
    #[must_use]
    pub const fn new() -> Self {
        RetryBehavior { max_attempts: 5, initial_backoff_ms: 250, base: 2.0 }
    }

    /// Sets the number of attempts in all, the first included.
    #[must_use]
    pub const fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts;
        self
    }

    /// Sets the wait before the first retry, rounded up to whole milliseconds.
    #[must_use]
    pub const fn initial_backoff(mut self, backoff: Duration) -> Self {
        let millis = backoff.as_nanos().div_ceil(1_000_000);
        self.initial_backoff_ms = if millis > u64::MAX as u128 { u64::MAX } else { millis as u64 };
        self
    }

    /// Sets the factor of each further wait.
    #[must_use]
    pub const fn base(mut self, base: f64) -> Self {
        self.base = base;
        self
    }

    /// Checks the values. The pool does so as well, wherever it is given a policy.
    ///
    /// # Errors
    /// Fails if `max_attempts` is 0, or `base` is not a finite number of at least 1.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.max_attempts == 0 {
            return Err(ConfigError::NoAttempts);
        }
        if !self.base.is_finite() || self.base < 1.0 {
            return Err(ConfigError::Base { given: self.base });
        }
        Ok(())
    }
}

impl Default for RetryBehavior {
    fn default() -> Self {
        RetryBehavior::new()
    }
}

/// The decision whether another attempt follows a finished one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Retry {
    /// The job completes.
    No,
    /// The job is enqueued again, for this segment.
    At(Segment),
}
