//! What comes of an attempt and of a work.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::{Name, PoolId, Segment, Spec, WorkId};

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
#[cfg_attr(feature = "actix-web", derive(utoipa::ToSchema))]
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

impl FailureKind {
    /// What stands before the message where people read it.
    fn prefix(self) -> &'static str {
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

/// An attempt that has failed, as it is remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedAttempt {
    /// Which attempt; the first is 1.
    pub attempt: u32,
    /// When it started.
    pub started: Segment,
    /// When it ended.
    pub ended: Segment,
    /// What kind of failure it was.
    pub kind: FailureKind,
    /// The beginning of what the function said, or the pool saw: at most [`History::LONGEST_MESSAGE`] bytes.
    pub message: String,
}

impl fmt::Display for FailedAttempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.kind.prefix(), self.message)
    }
}

/// How the attempts of a work have failed: the last [`History::MOST`] of them, the oldest first.
///
/// Most works have none, which takes no memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History(Option<Arc<Vec<FailedAttempt>>>);

impl History {
    /// How many failed attempts are remembered.
    pub const MOST: usize = 16;

    /// How much of a message is remembered, in bytes.
    pub const LONGEST_MESSAGE: usize = 500;

    /// The failed attempts, the oldest first.
    #[must_use]
    pub fn attempts(&self) -> &[FailedAttempt] {
        self.0.as_deref().map_or(&[], Vec::as_slice)
    }

    /// About how much memory they take.
    pub(crate) fn bytes(&self) -> usize {
        let attempts = self.attempts().iter();
        attempts.map(|attempt| size_of::<FailedAttempt>() + attempt.message.len()).sum()
    }

    /// The same with one more; the oldest is forgotten if there are too many.
    #[must_use]
    pub fn with(&self, mut attempt: FailedAttempt) -> History {
        cut(&mut attempt.message, History::LONGEST_MESSAGE);
        let before = self.attempts();
        let kept = &before[(before.len() + 1).saturating_sub(History::MOST)..];
        kept.iter().cloned().chain([attempt]).collect()
    }
}

/// Cuts a text to so many bytes; where something is missing, it says so.
pub(crate) fn cut(text: &mut String, longest: usize) {
    if text.len() > longest {
        // In memory of its own: what was cut off is not kept.
        *text = format!("{}…", &text[..text.floor_char_boundary(longest)]);
    }
}

impl FromIterator<FailedAttempt> for History {
    fn from_iter<I: IntoIterator<Item = FailedAttempt>>(attempts: I) -> History {
        let attempts: Vec<_> = attempts.into_iter().collect();
        History((!attempts.is_empty()).then(|| Arc::new(attempts)))
    }
}

impl Serialize for History {
    /// As the list that it is.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.attempts().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for History {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::<FailedAttempt>::deserialize(deserializer).map(History::from_iter)
    }
}

/// What most rows of `finished` do without.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FinishedDetails {
    /// How its attempts have failed.
    pub history: History,
    /// Its `on_complete`.
    pub on_complete: Option<Name>,
    /// The work that the `on_complete` became, since it failed in the commit that completed this one.
    pub follow_up: Option<WorkId>,
    /// What was enqueued: kept of a work that failed, so that it can be enqueued again.
    #[serde(skip)]
    pub spec: Option<Arc<Spec>>,
}

impl FinishedDetails {
    /// Nothing at all where there is nothing to keep.
    #[must_use]
    pub fn if_any(self) -> Option<Box<FinishedDetails>> {
        (self != FinishedDetails::default()).then(|| Box::new(self))
    }
}

/// A row of `finished`. Written by the completing commit, deleted by retention.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    /// When its last attempt started, if there was one.
    pub started: Option<Segment>,
    /// When it completed.
    pub finished_at: Segment,
    /// What most works do without.
    pub details: Option<Box<FinishedDetails>>,
}

impl Finished {
    /// Whether it has failed, and what was enqueued is kept.
    #[must_use]
    pub fn can_be_retried(&self) -> bool {
        self.details.as_ref().is_some_and(|details| details.spec.is_some())
    }

    /// How its attempts have failed: the last of them, the oldest first.
    #[must_use]
    pub fn failed_attempts(&self) -> &[FailedAttempt] {
        self.details.as_ref().map_or(&[], |details| details.history.attempts())
    }
}
