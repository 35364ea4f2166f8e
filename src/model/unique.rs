//! Unique keys: which of several enqueues of one key is a job.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{ConfigError, MAX_DELAY, PoolId, Segment, WorkId};

/// Makes a job unique: while a job of the pool holds the key, an enqueue of the same key enqueues no second one.
///
/// The key is yours: bytes, 1 to 256 of them, that say what the job is about. It is in no log and no metric. How long a
/// job holds it is up to the job:
///
/// | | holds the key | for |
/// |---|---|---|
/// | [`while_waiting`](Unique::while_waiting) | until its first attempt starts | "look at it again": the run that comes sees everything that was there before it |
/// | [`until_finished`](Unique::until_finished), the default | until its last attempt has ended, or it is canceled before the first | "one at a time" |
/// | [`within`](Unique::within) | for a time from the enqueue, whatever becomes of the job | "at most once an hour" |
///
/// [`Enqueue::on_conflict`](crate::Enqueue::on_conflict) says what an enqueue does that finds its key held. Two enqueues
/// of one key at the same moment never both enqueue a job.
///
/// ```
/// # use actix_workpool::doctest::{self, Double};
/// use std::time::Duration;
///
/// use actix_workpool::Unique;
/// # doctest::run(async {
/// # let runtime = doctest::runtime().await?;
/// # let pool = runtime.pool("default")?;
/// let sync = || Unique::key("sync:42").while_waiting();
/// let soon = Duration::from_secs(60);
/// let first = pool.enqueue(Double(21)).run_after(soon).unique(sync()).await?;
/// let second = pool.enqueue(Double(21)).run_after(soon).unique(sync()).await?;
/// assert!(first.is_new() && !second.is_new());
/// assert_eq!(first.id(), second.id());
/// # runtime.shutdown(Duration::ZERO).await;
/// # Ok(()) });
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unique {
    /// The key.
    pub(crate) key: UniqueKey,
    /// How long the job holds it.
    pub(crate) hold: UniqueHold,
}

impl Unique {
    /// The maximum length of a key in bytes.
    pub(crate) const MAX_KEY: usize = 256;

    /// Makes a job unique by this key. It holds the key until it has finished, unless one of the other methods says
    /// otherwise.
    pub fn key(key: impl Into<Vec<u8>>) -> Unique {
        let key: Vec<u8> = key.into();
        Unique { key: UniqueKey(key.into()), hold: UniqueHold::UntilFinished }
    }

    /// Holds the key until the first attempt starts.
    #[must_use]
    pub fn while_waiting(self) -> Unique {
        Unique { hold: UniqueHold::WhileWaiting, ..self }
    }

    /// Holds the key until the job's last attempt has ended. A job that is canceled before its first attempt holds it no
    /// longer.
    #[must_use]
    pub fn until_finished(self) -> Unique {
        Unique { hold: UniqueHold::UntilFinished, ..self }
    }

    /// Holds the key for this time from the enqueue, whatever becomes of the job: also when the job is finished, and
    /// when its outcome is forgotten. At most [`MAX_DELAY`](crate::MAX_DELAY).
    #[must_use]
    pub fn within(self, period: Duration) -> Unique {
        Unique { hold: UniqueHold::Within(period), ..self }
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        let (len, max) = (self.key.0.len(), Unique::MAX_KEY);
        if len == 0 || len > max {
            return Err(ConfigError::UniqueKey { len, max });
        }
        match self.hold {
            UniqueHold::Within(period) => validate_period(period),
            UniqueHold::WhileWaiting | UniqueHold::UntilFinished => Ok(()),
        }
    }
}

fn validate_period(given: Duration) -> Result<(), ConfigError> {
    match given.is_zero() || given > MAX_DELAY {
        true => Err(ConfigError::UniquePeriod { given, max: MAX_DELAY }),
        false => Ok(()),
    }
}

/// What an enqueue does that finds its [unique key](Unique) held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Conflict {
    /// Enqueues nothing. The handle is on the job that holds the key.
    #[default]
    Keep,
    /// Gives the job that holds the key the arguments, the options and the due time of this enqueue, if it still waits
    /// for its first attempt; otherwise does what `Keep` does. A job that is due keeps its place in the queue.
    Replace,
    /// Does what `Replace` does, and makes the job due this long from now: a burst of enqueues becomes one job, which is
    /// due when nothing has come for that long. The first one waits as long, unless a due time is set. At most
    /// [`MAX_DELAY`](crate::MAX_DELAY).
    Debounce(Duration),
}

impl Conflict {
    pub(crate) fn validate(self) -> Result<(), ConfigError> {
        match self {
            Conflict::Keep | Conflict::Replace => Ok(()),
            Conflict::Debounce(wait) => validate_period(wait),
        }
    }
}

/// The bytes of a unique key. Shown as their number only.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UniqueKey(Arc<[u8]>);

impl UniqueKey {
    /// Makes a key of bytes.
    #[must_use]
    pub fn new(bytes: &[u8]) -> UniqueKey {
        UniqueKey(bytes.into())
    }

    /// Returns the bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for UniqueKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// How long a job holds its unique key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UniqueHold {
    /// Until its first attempt starts.
    WhileWaiting,
    /// Until its last attempt has ended.
    UntilFinished,
    /// For this time from the enqueue.
    Within(Duration),
}

/// The key of a row of `unique`.
pub type UniquePlace = (PoolId, UniqueKey);

/// A row of `unique`: the job that took the key last. Whether the job still holds the key is decided from the facts of
/// the job.
///
/// Written with the job. Deleted with it, unless a period goes on; then retention deletes it later. One that is left
/// over is harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UniqueRow {
    /// The job.
    pub work_id: WorkId,
    /// How long it holds the key.
    pub hold: UniqueHold,
    /// The time of its enqueue.
    pub enqueued_at: Segment,
}

impl UniqueRow {
    /// Returns the time at which its period ends, if it holds the key for one.
    #[must_use]
    pub fn until(&self) -> Option<Segment> {
        match self.hold {
            UniqueHold::Within(period) => Some(self.enqueued_at.after(period)),
            UniqueHold::WhileWaiting | UniqueHold::UntilFinished => None,
        }
    }

    /// Returns `true` if the row goes with this job when it finishes.
    #[must_use]
    pub fn ends_with(&self, work_id: WorkId, finished_at: Segment) -> bool {
        self.work_id == work_id && self.until().is_none_or(|until| until <= finished_at)
    }
}
