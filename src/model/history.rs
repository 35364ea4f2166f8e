//! The failed attempts of a job.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Serialize, Serializer};

use super::{FailureKind, millis};

/// An attempt that has failed, as it is remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct FailedAttempt {
    /// The number of the attempt; the first is 1.
    pub attempt: u32,
    /// The time of its start.
    #[serde(serialize_with = "millis")]
    pub started: SystemTime,
    /// The time of its end.
    #[serde(serialize_with = "millis")]
    pub ended: SystemTime,
    /// The kind of failure.
    pub kind: FailureKind,
    /// The message of the function or the pool, cut to [`History::LONGEST_MESSAGE`] bytes.
    pub message: String,
}

impl fmt::Display for FailedAttempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.kind.prefix(), self.message)
    }
}

/// The failed attempts of a job: the last [`History::MOST`] of them, the oldest first.
///
/// Most jobs have none, which takes no memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History(Option<Arc<Vec<FailedAttempt>>>);

impl History {
    /// The maximum number of failed attempts that are remembered.
    pub const MOST: usize = 16;

    /// The length to which messages are cut, in bytes.
    pub const LONGEST_MESSAGE: usize = 500;

    /// Returns the failed attempts, the oldest first.
    #[must_use]
    pub fn attempts(&self) -> &[FailedAttempt] {
        self.0.as_deref().map_or(&[], Vec::as_slice)
    }

    /// Returns about how much memory the attempts take, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let attempts = self.attempts().iter();
        attempts.map(|attempt| size_of::<FailedAttempt>() + attempt.message.len()).sum()
    }

    /// Returns the history with one more attempt; the oldest is forgotten if there are too many.
    #[must_use]
    pub fn with(&self, mut attempt: FailedAttempt) -> History {
        cut(&mut attempt.message, History::LONGEST_MESSAGE);
        let before = self.attempts();
        let kept = &before[(before.len() + 1).saturating_sub(History::MOST)..];
        kept.iter().cloned().chain([attempt]).collect()
    }
}

/// Cuts a text to `longest` bytes; a text that was cut ends with an ellipsis.
pub(crate) fn cut(text: &mut String, longest: usize) {
    if text.len() > longest {
        // A new allocation, so that the part that was cut off is freed.
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
    /// Serializes the list of attempts.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.attempts().serialize(serializer)
    }
}
