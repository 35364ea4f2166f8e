//! The row of a job and everything known about it.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    History, Key, Name, Payload, PoolId, Priority, RetryBehavior, RunNumber, Running, Segment,
    StartKey, Unique, UniquePlace, UniqueRow, WorkId, WorkKey,
};

/// The kind of function that a job runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FunctionKind {
    /// Runs on a worker, may reach outside, may be retried.
    Action,
    /// Runs inside the store's transaction, exactly once.
    Mutation,
    /// Reads the store and writes nothing.
    Query,
    /// An `on_complete` that has failed in the commit that completed its job, and is tried again as a job of its own.
    OnComplete,
}

impl FunctionKind {
    /// Returns the word used in logs and rows.
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

/// The `on_complete` that a job was enqueued with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OnCompleteCall {
    /// The registered name.
    pub name: Name,
    /// The value that the caller gave along, encoded.
    pub context: Payload,
}

/// The rarely used parts of a [`Spec`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SpecOptions {
    /// The `on_complete`, which runs in the completing commit.
    pub on_complete: Option<OnCompleteCall>,
    /// The retry policy, already resolved: enqueue before function before pool.
    pub retry: Option<RetryBehavior>,
    /// The time that an attempt may take, already resolved.
    pub timeout: Option<Duration>,
    /// The number of starts that a start counts as, less one.
    pub extra_cost: u32,
    /// The unique key that it holds, and for how long.
    #[serde(skip)]
    pub unique: Option<Unique>,
    /// The span in which the job was enqueued. Not stored.
    #[serde(skip)]
    pub span: SpanLink,
}

/// The span that an attempt follows from, if spans are recorded.
#[derive(Clone, Debug, Default)]
pub struct SpanLink(pub Option<tracing::Span>);

impl PartialEq for SpanLink {
    /// Always `true`: a link says where a job came from, not what it is.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// The part of a `work` row that never changes after the enqueue: an id, the arguments, and what the job has in common
/// with those that were enqueued together with it ([`SpecHead`], whose fields a spec has).
///
/// Jobs that are enqueued together share blocks of memory, so a clone is cheap, and thousands of jobs are made and
/// freed with few allocations. That matters because another thread frees them than the one that made them. A block
/// holds at most [`Spec::BLOCK`] bytes of arguments, or one job's if those are larger, so that a job that stays for
/// long keeps little other memory.
#[derive(Clone)]
pub struct Spec {
    /// The job's id.
    pub work_id: WorkId,
    block: Arc<Block>,
    from: u32,
    /// The length of its content. The highest bit says that the content begins with a key.
    len: u32,
}

/// The bit of [`Spec::len`] that says that the job has a key.
const KEYED: u32 = 1 << 31;

/// The bytes in front of a key: its length and its weight.
const KEY_HEAD: usize = 4;

/// The part of a spec that jobs have in common when they are enqueued together.
#[derive(Clone, Debug, PartialEq)]
pub struct SpecHead {
    /// The job's pool.
    pub pool: PoolId,
    /// The kind of function.
    pub kind: FunctionKind,
    /// The function's registered name.
    pub function: Name,
    /// The time of the enqueue.
    pub enqueued_at: Segment,
    /// The priority that it was enqueued with.
    pub priority: Priority,
    /// The options that most jobs do without.
    pub options: Option<Box<SpecOptions>>,
}

struct Block {
    head: SpecHead,
    args: Box<[u8]>,
}

impl Deref for Spec {
    type Target = SpecHead;

    fn deref(&self) -> &SpecHead {
        &self.block.head
    }
}

impl PartialEq for Spec {
    fn eq(&self, other: &Spec) -> bool {
        self.work_id == other.work_id
            && **self == **other
            && self.is_keyed() == other.is_keyed()
            && self.content() == other.content()
    }
}

impl fmt::Debug for Spec {
    /// Shows the size of the arguments only: they stay out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spec")
            .field("work_id", &self.work_id)
            .field("head", &**self)
            .field("key_bytes", &self.key().map(<[u8]>::len))
            .field("args_bytes", &self.args().len())
            .finish()
    }
}

impl Spec {
    /// The maximum size of the arguments that share a block.
    pub const BLOCK: usize = 8 * 1024;

    /// Makes the spec of one job, with its encoded arguments.
    #[must_use]
    pub fn new(work_id: WorkId, head: SpecHead, args: &[u8]) -> Spec {
        Spec::of_content(work_id, head, false, args)
    }

    /// Makes the spec of one job of a key.
    #[must_use]
    pub fn keyed(work_id: WorkId, head: SpecHead, key: &[u8], weight: u16, args: &[u8]) -> Spec {
        let mut content = Vec::with_capacity(KEY_HEAD + key.len() + args.len());
        Spec::put_key(&mut content, key, weight);
        content.extend_from_slice(args);
        Spec::of_content(work_id, head, true, &content)
    }

    fn of_content(work_id: WorkId, head: SpecHead, is_keyed: bool, content: &[u8]) -> Spec {
        let block = Arc::new(Block { head, args: content.into() });
        let flag = if is_keyed { KEYED } else { 0 };
        Spec { work_id, block, from: 0, len: content.len() as u32 | flag }
    }

    /// Writes a key in front of the arguments of its job, for [`Spec::of_block`].
    pub(crate) fn put_key(block: &mut Vec<u8>, key: &[u8], weight: u16) {
        block.extend_from_slice(&(key.len() as u16).to_le_bytes());
        block.extend_from_slice(&weight.to_le_bytes());
        block.extend_from_slice(key);
    }

    /// Makes the specs of jobs that share a block: each with its id and the length of its part of `args`, in order. If
    /// they have keys, each part begins with one.
    pub(crate) fn of_block(
        head: SpecHead,
        are_keyed: bool,
        args: &[u8],
        works: impl Iterator<Item = (WorkId, usize)>,
    ) -> impl Iterator<Item = Spec> {
        let block = Arc::new(Block { head, args: args.into() });
        let flag = if are_keyed { KEYED } else { 0 };
        let mut from = 0;
        works.map(move |(work_id, len)| {
            let (shared, start) = (block.clone(), from as u32);
            let spec = Spec { work_id, block: shared, from: start, len: len as u32 | flag };
            from += len;
            debug_assert!(from <= block.args.len());
            spec
        })
    }

    /// Returns the same spec in a block of its own, unless it fills at least half of its block. For jobs that stay for
    /// long.
    pub(crate) fn alone(&self) -> Spec {
        match self.block.args.len() > 2 * self.content().len() {
            true => self.with_head(self.work_id, SpecHead::clone(self)),
            false => self.clone(),
        }
    }

    /// Returns the same job under the id of its retry.
    pub(crate) fn once_more(&self, now: Segment) -> Spec {
        let head = SpecHead { enqueued_at: now, ..SpecHead::clone(self) };
        self.with_head(self.work_id.once_more(), head)
    }

    fn with_head(&self, work_id: WorkId, head: SpecHead) -> Spec {
        Spec::of_content(work_id, head, self.is_keyed(), self.content())
    }

    /// Returns the content of this spec for a job that exists: under its id, as old, and of its key.
    pub(crate) fn in_place_of(&self, before: &Spec) -> Spec {
        let head = SpecHead { enqueued_at: before.enqueued_at, ..SpecHead::clone(self) };
        match before.key() {
            Some(key) => Spec::keyed(before.work_id, head, key, before.weight(), self.args()),
            None => Spec::new(before.work_id, head, self.args()),
        }
    }

    /// Returns the row of its unique key, with the row's place, if it has one.
    #[must_use]
    pub fn unique_row(&self) -> Option<(UniquePlace, UniqueRow)> {
        let unique = self.unique()?;
        let (work_id, hold, enqueued_at) = (self.work_id, unique.hold, self.enqueued_at);
        Some(((self.pool, unique.key.clone()), UniqueRow { work_id, hold, enqueued_at }))
    }

    fn is_keyed(&self) -> bool {
        self.len & KEYED != 0
    }

    /// Returns the key, if there is one, and the arguments.
    fn content(&self) -> &[u8] {
        &self.block.args[self.from as usize..][..(self.len & !KEYED) as usize]
    }

    fn key_len(&self) -> usize {
        let content = self.content();
        usize::from(u16::from_le_bytes([content[0], content[1]]))
    }

    /// Returns the key of the job.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        self.is_keyed().then(|| &self.content()[KEY_HEAD..][..self.key_len()])
    }

    /// Returns the key of the job, to be kept.
    #[must_use]
    pub fn work_key(&self) -> Option<WorkKey> {
        self.key().map(WorkKey::new)
    }

    /// Returns the weight of its key; 1 if there is none.
    #[must_use]
    pub fn weight(&self) -> u16 {
        let content = self.content();
        if self.is_keyed() { u16::from_le_bytes([content[2], content[3]]).max(1) } else { 1 }
    }

    /// Returns the arguments, encoded.
    #[must_use]
    pub fn args(&self) -> &[u8] {
        let content = self.content();
        if self.is_keyed() { &content[KEY_HEAD + self.key_len()..] } else { content }
    }

    /// Returns the number of bytes of its arguments and of the context of its `on_complete`.
    pub(crate) fn bytes(&self) -> usize {
        self.content().len() + self.on_complete().map_or(0, |call| call.context.len())
    }
}

impl SpecHead {
    /// Returns the retry policy, if there is one.
    #[must_use]
    pub fn retry(&self) -> Option<&RetryBehavior> {
        self.options.as_ref()?.retry.as_ref()
    }

    /// Returns the `on_complete`, which runs in the completing commit, if there is one.
    #[must_use]
    pub fn on_complete(&self) -> Option<&OnCompleteCall> {
        self.options.as_ref()?.on_complete.as_ref()
    }

    /// Returns the time that an attempt may take, if that is limited.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        self.options.as_ref()?.timeout
    }

    /// Returns the number of starts that a start counts as, in the pool's rate.
    #[must_use]
    pub fn cost(&self) -> u32 {
        let extra = self.options.as_ref().map_or(0, |options| options.extra_cost);
        extra.saturating_add(1)
    }

    /// Returns the unique key that it holds, if there is one.
    #[must_use]
    pub fn unique(&self) -> Option<&Unique> {
        self.options.as_ref()?.unique.as_ref()
    }

    /// Returns the number of attempts that may count in all.
    #[must_use]
    pub fn max_attempts(&self) -> u32 {
        self.retry().map_or(1, |retry| retry.max_attempts)
    }
}

/// Everything the tables say of one job, read together.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkFact {
    /// The job as it was enqueued.
    pub spec: Spec,
    /// `work.attempts`: the number of finished attempts that counted.
    pub attempts: u32,
    /// `work.runs`: the number of launches.
    pub runs: RunNumber,
    /// `work.canceled`.
    pub canceled: bool,
    /// `work.priority`: that of the enqueue, unless it was changed since.
    pub priority: Priority,
    /// The row in `pending_start`, if there is one.
    pub pending_start: Option<StartKey>,
    /// The row in `running`, if there is one.
    pub running: Option<Running>,
    /// The row in `pending_completion`, if there is one; with `true` if the job will be retried.
    pub pending_completion: Option<(Key, bool)>,
    /// The row in `pending_cancelation`, if there is one.
    pub pending_cancelation: Option<Key>,
    /// `work.history`: its failed attempts.
    pub history: History,
}

impl WorkFact {
    /// Makes the facts of a job that is in no table but `work`.
    #[must_use]
    pub fn new(spec: Spec) -> WorkFact {
        WorkFact {
            priority: spec.priority,
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

    /// Returns `true` if the job was canceled, whether or not its pool has handled that yet.
    #[must_use]
    pub fn is_canceled(&self) -> bool {
        self.canceled || self.pending_cancelation.is_some()
    }

    /// Returns `true` if this run of the job is running and has not reported.
    #[must_use]
    pub fn awaits_report_of(&self, run: RunNumber) -> bool {
        self.running.is_some() && self.runs == run && self.pending_completion.is_none()
    }

    /// Returns `true` if the job waits for its first attempt.
    #[must_use]
    pub fn is_unstarted(&self) -> bool {
        self.pending_start.is_some() && self.runs == 0 && !self.is_canceled()
    }

    /// Returns `true` if an attempt runs or will follow.
    #[must_use]
    pub fn is_unfinished(&self) -> bool {
        match (self.pending_start, self.pending_completion) {
            (None, None) => true,
            (Some(_), _) | (None, Some((_, true))) => !self.is_canceled(),
            (None, Some((_, false))) => false,
        }
    }

    /// Returns the time at which the job is due, if it waits for that; `None` while its function is not registered.
    #[must_use]
    pub fn due(&self) -> Option<Segment> {
        let due = self.pending_start.map(|key| key.segment);
        due.filter(|due| *due != Segment::UNREGISTERED)
    }
}
