//! The row of a work and everything known about it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Generation, History, Key, Name, Payload, PoolId, Segment};
use crate::error::ConfigError;
use std::sync::Arc;

/// The identity of a work: a UUID, version 7 when the handle makes it.
///
/// Enqueueing the same id twice enqueues once, so an id chosen by the caller makes a repeated request harmless.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WorkId(Uuid);

impl WorkId {
    /// The id with these bits. Any UUID will do.
    #[must_use]
    pub const fn from_uuid(uuid: Uuid) -> WorkId {
        WorkId(uuid)
    }

    /// The id as a UUID.
    #[must_use]
    pub const fn as_uuid(&self) -> Uuid {
        self.0
    }

    /// The id as a number, for hashing and for rows.
    #[must_use]
    pub const fn as_u128(&self) -> u128 {
        self.0.as_u128()
    }
}

impl WorkId {
    /// The id under which a failed work is enqueued once more. Always the same, so that it happens once.
    pub(crate) fn once_more(self) -> WorkId {
        const ODD: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
        let mixed = (self.as_u128() ^ ODD.rotate_left(64)).wrapping_mul(ODD);
        let mixed = mixed ^ (mixed >> 67);
        let bytes = mixed.wrapping_mul(ODD).to_be_bytes();
        WorkId(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }
}

impl fmt::Debug for WorkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for WorkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for WorkId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(WorkId)
    }
}

impl From<Uuid> for WorkId {
    fn from(uuid: Uuid) -> Self {
        WorkId(uuid)
    }
}

/// What kind of function a work runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FunctionKind {
    /// Runs on a worker, may reach outside, may be retried.
    Action,
    /// Runs inside the store's transaction, exactly once.
    Mutation,
    /// Reads the store and writes nothing.
    Query,
    /// An `on_complete` that has failed in the commit that completed its work, and is tried again as a work of its own.
    OnComplete,
}

impl FunctionKind {
    /// The word used in logs and rows.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            FunctionKind::Action => "action",
            FunctionKind::Mutation => "mutation",
            FunctionKind::Query => "query",
            FunctionKind::OnComplete => "on_complete",
        }
    }
}

/// When and how often a failed attempt is tried again.
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
pub struct RetryBehavior {
    /// How many attempts are made in all, the first included. At least 1.
    pub max_attempts: u32,
    /// The wait before the first retry, before jitter. Whole milliseconds.
    pub initial_backoff_ms: u64,
    /// What each further wait is multiplied by. Finite, at least 1.
    pub base: f64,
}

impl RetryBehavior {
    /// No wait is longer than a day: a longer one is a schedule, not a retry.
    pub const MAX_BACKOFF: Duration = Duration::from_secs(24 * 60 * 60);

    /// Sets how many attempts are made in all, the first included.
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts;
        self
    }

    /// Sets the wait before the first retry, rounded up to whole milliseconds.
    #[must_use]
    pub fn initial_backoff(mut self, backoff: Duration) -> Self {
        self.initial_backoff_ms =
            u64::try_from(backoff.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        self
    }

    /// Sets what each further wait is multiplied by.
    #[must_use]
    pub fn base(mut self, base: f64) -> Self {
        self.base = base;
        self
    }

    /// Checks the values; the pool does so wherever it is given one.
    ///
    /// # Errors
    /// When no attempt would be made, or `base` is not a finite number of at least 1.
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
        RetryBehavior { max_attempts: 5, initial_backoff_ms: 250, base: 2.0 }
    }
}

/// The `on_complete` that a work was enqueued with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OnCompleteCall {
    /// The registered name.
    pub name: Name,
    /// What the caller gave along, encoded.
    pub context: Payload,
}

/// The rarely used parts of a [`Spec`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SpecOptions {
    /// What runs in the completing commit.
    pub on_complete: Option<OnCompleteCall>,
    /// The retry policy, already resolved: enqueue before function before pool.
    pub retry: Option<RetryBehavior>,
    /// How long an attempt may take, already resolved.
    pub timeout: Option<Duration>,
    /// The span in which the work was enqueued. Not stored.
    #[serde(skip)]
    pub span: SpanLink,
}

/// The span that an attempt follows from, if somebody records spans.
#[derive(Clone, Debug, Default)]
pub struct SpanLink(pub Option<tracing::Span>);

impl PartialEq for SpanLink {
    /// A link says where a work came from, not what it is.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// The part of a `work` row that never changes after enqueue. Written by the handle, shared by everybody.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// Which work.
    pub work_id: WorkId,
    /// In which pool.
    pub pool: PoolId,
    /// What kind of function.
    pub kind: FunctionKind,
    /// The function's registered name.
    pub function: Name,
    /// Its arguments, encoded.
    pub args: ArgBytes,
    /// When it was enqueued.
    pub enqueued_at: Segment,
    /// What most works do without.
    pub options: Option<Box<SpecOptions>>,
}

impl Spec {
    /// The retry policy, if there is one.
    #[must_use]
    pub fn retry(&self) -> Option<&RetryBehavior> {
        self.options.as_ref()?.retry.as_ref()
    }

    /// What runs in the completing commit, if anything does.
    #[must_use]
    pub fn on_complete(&self) -> Option<&OnCompleteCall> {
        self.options.as_ref()?.on_complete.as_ref()
    }

    /// How long an attempt may take, if that is limited.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        self.options.as_ref()?.timeout
    }

    /// How many bytes its arguments and the context of its `on_complete` have.
    pub(crate) fn bytes(&self) -> usize {
        self.args.as_bytes().len() + self.on_complete().map_or(0, |call| call.context.len())
    }

    /// How many attempts may be charged in all.
    #[must_use]
    pub fn max_attempts(&self) -> u32 {
        self.retry().map_or(1, |retry| retry.max_attempts)
    }
}

/// Encoded arguments; shown by their size only, so that they stay out of logs.
///
/// Works that are enqueued together share blocks of memory: one allocation for many, and one to free, which matters
/// since they are freed by another thread than the one that made them. A block is at most [`ArgBytes::BLOCK`] bytes, or
/// one work's arguments if those are larger, so that one work that stays keeps little else.
#[derive(Clone, Default)]
pub struct ArgBytes {
    block: Arc<[u8]>,
    from: u32,
    len: u32,
}

impl ArgBytes {
    /// How large a block that several works share may be.
    pub const BLOCK: usize = 8 * 1024;

    /// Arguments with a block of their own.
    #[must_use]
    pub fn new(json: &[u8]) -> ArgBytes {
        ArgBytes { block: json.into(), from: 0, len: json.len() as u32 }
    }

    /// The part of `block` that begins at `from` and has `len` bytes.
    #[must_use]
    pub(crate) fn part(block: &Arc<[u8]>, from: usize, len: usize) -> ArgBytes {
        debug_assert!(from + len <= block.len());
        ArgBytes { block: block.clone(), from: from as u32, len: len as u32 }
    }

    /// The same arguments, in a block of their own unless they fill most of theirs: for what stays for long.
    pub(crate) fn alone(&self) -> ArgBytes {
        match self.block.len() > 2 * self.as_bytes().len() {
            true => ArgBytes::new(self.as_bytes()),
            false => self.clone(),
        }
    }

    /// The encoded JSON.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.block[self.from as usize..][..self.len as usize]
    }
}

impl PartialEq for ArgBytes {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl fmt::Debug for ArgBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ArgBytes({} bytes)", self.len)
    }
}

/// The number of a run: counts every launch of a work, charged or not, and is never reset.
///
/// It is the fence of an attempt: a report that carries another number than the running row is stale.
pub type RunNumber = u32;

/// Everything the tables say of one work, read together.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkFact {
    /// What was enqueued.
    pub spec: Arc<Spec>,
    /// `work.attempts`: how many finished attempts were charged.
    pub attempts: u32,
    /// `work.runs`: how many launches there were.
    pub runs: RunNumber,
    /// `work.canceled`.
    pub canceled: bool,
    /// The row in `pending_start`, if there is one.
    pub pending_start: Option<Key>,
    /// The generation that started the running attempt, if one is running. Its number is `runs`.
    pub running: Option<Generation>,
    /// The row in `pending_completion`, if there is one, and whether it is a retry.
    pub pending_completion: Option<(Key, bool)>,
    /// The row in `pending_cancelation`, if there is one.
    pub pending_cancelation: Option<Key>,
    /// `work.history`: how its attempts have failed.
    pub history: History,
}

impl WorkFact {
    /// A work that is in no table but `work`.
    #[must_use]
    pub fn new(spec: Arc<Spec>) -> WorkFact {
        WorkFact {
            spec,
            attempts: 0,
            runs: 0,
            canceled: false,
            pending_start: None,
            running: None,
            pending_completion: None,
            pending_cancelation: None,
            history: History::default(),
        }
    }

    /// Whether it was canceled, and whether or not its pool has handled that yet.
    #[must_use]
    pub fn is_canceled(&self) -> bool {
        self.canceled || self.pending_cancelation.is_some()
    }

    /// Whether it runs, for the time of that number, and nothing was reported of it.
    #[must_use]
    pub fn awaits_report_of(&self, run: RunNumber) -> bool {
        self.running.is_some() && self.runs == run && self.pending_completion.is_none()
    }

    /// When it is due, if it waits for that; not while it waits for its function to be registered.
    #[must_use]
    pub fn due(&self) -> Option<Segment> {
        let due = self.pending_start.map(|key| key.segment);
        due.filter(|due| *due != Segment::UNREGISTERED)
    }
}
