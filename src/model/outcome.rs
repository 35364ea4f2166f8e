//! The outcomes of attempts and jobs.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Payload;

/// The kind of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FailureKind {
    /// The function returned an error.
    Error,
    /// The function panicked.
    Panic,
    /// The attempt took longer than its timeout.
    Timeout,
    /// The worker went away without a report: its thread ended, or the process did.
    Lost,
    /// The stored arguments do not decode into what the function takes.
    Decode,
    /// The result could not be encoded, or is too large to keep.
    Encode,
}

/// The failure of an attempt: its kind and message, and whether another attempt may be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Failure {
    /// The kind of failure.
    pub kind: FailureKind,
    /// The message of the function, or of the pool.
    pub message: String,
    /// `true` if another attempt may be made.
    pub retryable: bool,
    /// The wait before the next attempt that the function asked for, in place of the backoff.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// Makes a failure that may be retried.
    #[must_use]
    pub fn retryable(kind: FailureKind, message: impl Into<String>) -> Failure {
        Failure { kind, message: message.into(), retryable: true, retry_after: None }
    }

    /// Makes a failure that ends the job.
    #[must_use]
    pub fn permanent(kind: FailureKind, message: impl Into<String>) -> Failure {
        Failure { kind, message: message.into(), retryable: false, retry_after: None }
    }
}

impl FailureKind {
    /// Returns the text that precedes the message where people read it.
    pub(super) fn prefix(self) -> &'static str {
        match self {
            FailureKind::Error => "",
            FailureKind::Panic => "panicked: ",
            FailureKind::Timeout => "timed out: ",
            FailureKind::Lost => "lost: ",
            FailureKind::Decode => "arguments do not decode: ",
            FailureKind::Encode => "result does not encode: ",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.kind.prefix(), self.message)
    }
}

/// The result of an attempt, as its worker reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunResult {
    /// The function returned.
    Success(Payload),
    /// The attempt failed.
    Failed(Failure),
    /// The function stopped because it was asked to, or ended its job itself.
    Canceled,
    /// The function asked to be run again later; this does not count as an attempt.
    Snoozed(Duration),
    /// The function asked that no job of its pool starts for so long, and to be run again then; this does not count as an
    /// attempt.
    PoolLimited(Duration),
    /// The function asked that no job of its key starts for so long, and to be run again then; this does not count as an
    /// attempt.
    KeyLimited(Duration),
    /// The attempt was returned to the queue before it could finish; it does not count as an attempt.
    Returned,
}

/// The outcome of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The function succeeded, with this result.
    Success(Payload),
    /// The last attempt failed and there is no other.
    Failed(Failure),
    /// The job was canceled.
    Canceled,
}

impl Outcome {
    /// Returns the word used in logs, metrics and JSON: `success`, `failed` or `canceled`.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Outcome::Success(_) => "success",
            Outcome::Failed(_) => "failed",
            Outcome::Canceled => "canceled",
        }
    }
}
