//! Keys: jobs of one key share limits, an order, and turns.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{ConfigError, Priority, Rate, Segment};

/// The bytes of a key, 1 to [`WorkKey::MAX`] of them. Shown as their number only.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkKey(Arc<[u8]>);

impl WorkKey {
    /// The maximum length of a key in bytes.
    pub const MAX: usize = 256;

    /// Makes a key of bytes.
    #[must_use]
    pub fn new(bytes: &[u8]) -> WorkKey {
        WorkKey(bytes.into())
    }

    /// Returns the bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn validate(bytes: &[u8]) -> Result<(), ConfigError> {
        match bytes.len() {
            1..=WorkKey::MAX => Ok(()),
            len => Err(ConfigError::WorkKey { len, max: WorkKey::MAX }),
        }
    }
}

impl Borrow<[u8]> for WorkKey {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for WorkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// The maximum weight of a key.
pub(crate) const MAX_WEIGHT: u16 = 1_000;

/// The rules that hold for each key of a pool by itself. See [`Enqueue::key`](crate::Enqueue::key).
///
/// Keys have fair turns in any case: while jobs of several keys wait, they start in turn, so that a key with a million
/// jobs delays the job of another one by at most one round.
///
/// ```
/// use actix_workpool::{KeyRule, PoolConfig, Rate};
///
/// // The jobs of one customer run one after another, in the order in which they were enqueued.
/// let ordered = PoolConfig::default().per_key(KeyRule::ordered());
/// // At most two of a tenant run at once, and 60 start per minute.
/// let limited = PoolConfig::default()
///     .per_key(KeyRule::default().parallelism(2).rate(Rate::per_minute(60)));
/// assert!(ordered.validate().is_ok() && limited.validate().is_ok());
/// assert!(PoolConfig::default().per_key(KeyRule::default().parallelism(0)).validate().is_err());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeyRule {
    parallelism: Option<u32>,
    ordered: bool,
    rate: Option<Rate>,
}

impl KeyRule {
    /// Runs the jobs of a key one after another, strictly in the order in which they were enqueued. The next one waits
    /// until the one before it has its outcome: also while that one waits for its due time, for a retry or a snooze, and
    /// across crashes.
    #[must_use]
    pub const fn ordered() -> KeyRule {
        KeyRule { parallelism: None, ordered: true, rate: None }
    }

    /// Sets the number of jobs of a key that run at once. While a job waits for a retry, others of its key run. The
    /// default is no limit but that of the pool. Ordered jobs run one at a time, whatever is set here.
    #[must_use]
    pub const fn parallelism(mut self, jobs: u32) -> KeyRule {
        self.parallelism = Some(jobs);
        self
    }

    /// Limits the rate at which jobs of a key start. A [`cost`](crate::Enqueue::cost) counts here as well.
    #[must_use]
    pub const fn rate(mut self, rate: Rate) -> KeyRule {
        self.rate = Some(rate);
        self
    }

    /// Returns `true` if the jobs of a key run in the order of their enqueues.
    #[must_use]
    pub const fn is_ordered(&self) -> bool {
        self.ordered
    }

    /// Returns the number of jobs of a key that run at once, if it is limited.
    #[must_use]
    pub const fn max_parallelism(&self) -> Option<u32> {
        match self.ordered {
            true => Some(1),
            false => self.parallelism,
        }
    }

    /// Returns the rate at which jobs of a key start, if it is limited.
    #[must_use]
    pub const fn max_rate(&self) -> Option<Rate> {
        self.rate
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        if self.parallelism == Some(0) {
            return Err(ConfigError::KeyParallelism);
        }
        self.rate.map_or(Ok(()), |rate| rate.validate())
    }
}

/// A row of `lanes`: what the jobs of one key have in common. There is one while the key has jobs in the pool, or a debt
/// of its rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneRow {
    /// The number of jobs that hold a place of the key: those that run, that may start when a slot is free, or that
    /// wait for their time in place of all others.
    pub holders: u32,
    /// The number of them that run.
    pub running: u32,
    /// The number of jobs in the lane, behind the holders.
    pub waiting: u32,
    /// The tag of the last job that became ready.
    pub tag: u64,
    /// The priority of that job.
    pub tag_of: Priority,
    /// The theoretical arrival time of the key's rate, in nanoseconds since the epoch.
    pub tat: u64,
    /// The end of the key's rest: nothing of it starts before.
    pub rest: Segment,
}

/// The place of a row among those of its pool. The storage chooses `at`, to find the rows behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LanePlace {
    /// The key.
    pub key: WorkKey,
    /// A number of the storage's own.
    pub at: u64,
}

impl LaneRow {
    /// Returns `true` if the key has no jobs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.holders == 0 && self.running == 0 && self.waiting == 0
    }
}
