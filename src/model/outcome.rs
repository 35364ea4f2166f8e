//! What comes of an attempt and of a work.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::{Name, PoolId, Segment, WorkId};

/// Encoded JSON that is shared, not copied. JSON's `null` takes no memory.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Payload(Option<Arc<[u8]>>);

impl Payload {
    /// JSON `null`.
    pub const NULL: Payload = Payload(None);

    /// Wraps encoded JSON.
    #[must_use]
    pub fn new(json: &[u8]) -> Payload {
        match json {
            b"null" => Payload::NULL,
            json => Payload(Some(json.into())),
        }
    }

    /// The encoded JSON.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_deref().unwrap_or(b"null")
    }

    /// How many bytes the JSON has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.as_bytes().len()
    }

    /// Whether this is JSON `null`.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

impl Serialize for Payload {
    /// As the JSON that it is.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let json = std::str::from_utf8(self.as_bytes()).map_err(serde::ser::Error::custom)?;
        let raw: &RawValue = serde_json::from_str(json).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Ok(Payload::new(raw.get().as_bytes()))
    }
}

impl fmt::Debug for Payload {
    /// Shows the size only: arguments and results stay out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.len())
    }
}

/// Why an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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

/// A failed attempt: what happened, in words, and whether trying again may help.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind of failure it was.
    pub kind: FailureKind,
    /// What the function said, or what the pool saw.
    pub message: String,
    /// Whether another attempt may be made.
    pub retryable: bool,
    /// What the function asked to wait before the next attempt, in place of the backoff.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// A failure that may be retried.
    #[must_use]
    pub fn retryable(kind: FailureKind, message: impl Into<String>) -> Failure {
        Failure { kind, message: message.into(), retryable: true, retry_after: None }
    }

    /// A failure that ends the work.
    #[must_use]
    pub fn permanent(kind: FailureKind, message: impl Into<String>) -> Failure {
        Failure { kind, message: message.into(), retryable: false, retry_after: None }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            FailureKind::Error => f.write_str(&self.message),
            FailureKind::Panic => write!(f, "panicked: {}", self.message),
            FailureKind::Timeout => write!(f, "timed out: {}", self.message),
            FailureKind::Lost => write!(f, "lost: {}", self.message),
            FailureKind::Decode => write!(f, "arguments do not decode: {}", self.message),
            FailureKind::Encode => write!(f, "result does not encode: {}", self.message),
        }
    }
}

/// What a worker reports of its attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunResult {
    /// The function returned.
    Success(Payload),
    /// The attempt failed.
    Failed(Failure),
    /// The function stopped because it was asked to, or ended its work itself.
    Canceled,
    /// The function asked to be run again later; the attempt is not charged.
    Snoozed(Duration),
    /// The attempt was given back before it could finish; it is not charged.
    HandedBack,
}

/// How a work ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The function succeeded, with this result.
    Success(Payload),
    /// The last attempt failed and there is no other.
    Failed(Failure),
    /// The work was canceled.
    Canceled,
}

impl Outcome {
    /// The word used in logs, metrics and JSON: `success`, `failed` or `canceled`.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Outcome::Success(_) => "success",
            Outcome::Failed(_) => "failed",
            Outcome::Canceled => "canceled",
        }
    }
}

/// A row of `finished`. Written by the completing commit, deleted by retention.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finished {
    /// Which work.
    pub work_id: WorkId,
    /// In which pool it was.
    pub pool: PoolId,
    /// Its function.
    pub function: Name,
    /// How it ended.
    pub outcome: Outcome,
    /// How many attempts were charged.
    pub attempts: u32,
    /// When it was enqueued.
    pub enqueued_at: Segment,
    /// When it completed.
    pub finished_at: Segment,
}
