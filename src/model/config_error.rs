//! Values that are out of their range.

/// A value of a configuration or a retry policy that is out of its range.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// More attempts at once than a pool can have.
    #[error("max_parallelism is {given}, at most {max} attempts can run at once in a pool")]
    MaxParallelism {
        /// The value that was given.
        given: usize,
        /// The maximum.
        max: usize,
    },
    /// A retry policy that makes no attempt.
    #[error("max_attempts is 0, it must be at least 1: the first attempt counts")]
    NoAttempts,
    /// A backoff that shrinks, or is not a number.
    #[error("base is {given}, it must be a finite number of at least 1")]
    Base {
        /// The value that was given.
        given: f64,
    },
    /// A rate at which nothing could start, or everything at once.
    #[error(
        "a rate of {given} is out of range: it needs at least 1 start in a span longer than zero, at most a year between \
         two starts, and a burst of at least 1, at most what it admits in 100 years"
    )]
    Rate {
        /// The rate, in words.
        given: String,
    },
    /// A job that costs nothing, or more than a burst of the pool's rate.
    #[error(
        "cost is {given}, it must be 1 to {max}, the burst of the rate of the pool or of its keys; it could never start"
    )]
    Cost {
        /// The value that was given.
        given: u32,
        /// The maximum.
        max: u32,
    },
    /// An aging of less than a millisecond.
    #[error(
        "aging is less than 1 ms, every job would be of the best priority at once; leave it unset for none"
    )]
    Aging,
    /// A key that is empty or too long.
    #[error("a key has {len} bytes, it must have 1 to {max}; leave it out for a job without one")]
    WorkKey {
        /// The length of the key that was given.
        len: usize,
        /// The maximum.
        max: usize,
    },
    /// A weight of 0, or above the maximum.
    #[error("weight is {given}, it must be 1 to {max}")]
    Weight {
        /// The value that was given.
        given: u16,
        /// The maximum.
        max: u16,
    },
    /// A weight without a key.
    #[error("weight needs a key, a job without one has no turns to share")]
    WeightWithoutKey,
    /// A rule for keys that starts nothing.
    #[error(
        "the parallelism of a key is 0, none of its jobs could start; pause the pool to start nothing"
    )]
    KeyParallelism,
    /// A unique key that is empty or too long.
    #[error("a unique key has {len} bytes, it must have 1 to {max}")]
    UniqueKey {
        /// The length of the key that was given.
        len: usize,
        /// The maximum.
        max: usize,
    },
    /// A unique key that is held for no time or for too long, or a debounce of such a length.
    #[error(
        "a unique key is held or debounced for {given:?}, it must be longer than zero and at most {} s", max.as_secs()
    )]
    UniquePeriod {
        /// The value that was given.
        given: std::time::Duration,
        /// The maximum.
        max: std::time::Duration,
    },
    /// A rule for conflicts without a unique key.
    #[error("on_conflict needs a unique key, without one there is no conflict")]
    ConflictWithoutKey,
    /// A timeout of zero.
    #[error("attempt_timeout is zero, no attempt could finish; leave it unset for no timeout")]
    NoTimeToRun,
    /// Larger arguments than can be kept.
    #[error("max_payload_bytes is {given}, at most {max} can be kept")]
    MaxPayloadBytes {
        /// The value that was given.
        given: usize,
        /// The maximum.
        max: usize,
    },
    /// A pool that takes no job.
    #[error("max_pending is 0, nothing could be enqueued; pause the pool to start nothing")]
    NothingMayBePending,
    /// A name that is empty or too long.
    #[error("name {given:?} has {len} bytes, it must have 1 to 200", len = given.len())]
    NameLength {
        /// The name.
        given: String,
    },
    /// A page of a listing that is empty or too long.
    #[error("a page of {given} jobs was asked for, it may have 1 to {max}")]
    PageSize {
        /// The value that was given.
        given: usize,
        /// The maximum.
        max: usize,
    },
    /// A listing of finished jobs by priority.
    #[error("finished jobs have no priority, list them without one")]
    PriorityOfFinished,
    /// A listing of finished jobs by key.
    #[error("the keys of finished jobs are not kept, list them without one")]
    KeyOfFinished,
    /// A cursor that is invalid, or of a listing of another state.
    #[error("cursor {given:?} is not one of this listing")]
    Cursor {
        /// The cursor.
        given: String,
    },
}
