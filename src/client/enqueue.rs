//! The builder of an enqueue: a job or a batch with its options.

use std::marker::PhantomData;
use std::time::{Duration, SystemTime};

use super::Function;
use crate::model::{
    Conflict, OnCompleteCall, Priority, RetryBehavior, RetryPolicy, Segment, Spec, Unique, WorkId,
};
use crate::protocol::OnFinish;

/// A job, or a batch of jobs of one function, that is about to be enqueued.
///
/// `T` is the target: a pool ([`Workpool::enqueue`](crate::Workpool::enqueue)), a pool that takes many jobs at once
/// ([`Workpool::enqueue_batch`](crate::Workpool::enqueue_batch)) or a transaction's pool
/// ([`TransactionPool::enqueue`](crate::TransactionPool::enqueue)).
///
/// ```
/// # use actix_workpool::doctest::{self, Double};
/// use std::time::Duration;
///
/// use actix_workpool::{RetryBehavior, WorkId};
/// # doctest::run(async {
/// # let runtime = doctest::runtime().await?;
/// # let pool = runtime.pool("default")?;
/// let work = pool
///     .enqueue(Double(21))
///     .id(WorkId::from_name("double 21"))
///     .run_after(Duration::from_millis(1))
///     .retry(RetryBehavior::default().max_attempts(3))
///     .timeout(Duration::from_secs(10))
///     .await?;
/// assert_eq!(work.join().await?, 42);
/// # runtime.shutdown(std::time::Duration::ZERO).await;
/// # Ok(()) });
/// ```
#[must_use = "a job is enqueued when this is awaited, or by `do_enqueue` or `submit`"]
pub struct Enqueue<T, F, K> {
    pub(crate) target: T,
    pub(crate) functions: Vec<F>,
    pub(crate) options: Options,
    kind: PhantomData<fn() -> K>,
}

/// Enqueue targets that take one job at a time, so that its id and its unique key can be chosen.
pub trait OneWork {}

/// Options of a job.
#[derive(Default)]
pub(crate) struct Options {
    pub(super) ids: Ids,
    pub(super) due: Due,
    pub(super) priority: Priority,
    pub(super) cost: Option<u32>,
    pub(super) keys: Keys,
    pub(super) weight: Option<u16>,
    pub(super) unique: Option<Unique>,
    pub(super) conflict: Option<Conflict>,
    pub(super) retry: RetryPolicy,
    pub(super) timeout: Option<Duration>,
    pub(crate) on_complete: Option<Result<OnCompleteCall, serde_json::Error>>,
    pub(super) on_finish: Option<OnFinish>,
}

impl Options {
    /// One id for each job, in order.
    pub(super) fn choose_ids(&mut self, ids: Vec<WorkId>) {
        self.ids = Ids::Chosen(ids);
    }
}

#[derive(Default)]
pub(super) enum Ids {
    /// Random ids, generated when the jobs are prepared.
    #[default]
    Fresh,
    /// One for each job, in order.
    Chosen(Vec<WorkId>),
}

/// The keys of the jobs of one enqueue.
#[derive(Default)]
pub(super) enum Keys {
    #[default]
    None,
    Same(Vec<u8>),
    /// One for each job, in order.
    Each(Vec<Vec<u8>>),
}

#[derive(Default)]
pub(super) enum Due {
    #[default]
    Now,
    After(Duration),
    At(SystemTime),
}

/// Jobs that are ready for the store.
pub(crate) struct Prepared {
    /// The jobs, each with the time before which it is not started.
    pub works: Vec<(Spec, Segment)>,
    /// `true` if the ids are newly generated, so that no other job can have them.
    pub fresh: bool,
    /// What happens if another job holds the unique key.
    pub conflict: Conflict,
    /// The failed job that these retry; then there is only one job.
    pub retry_of: Option<WorkId>,
    pub on_finish: Option<OnFinish>,
}

impl Prepared {
    /// Makes a job whose id may be known, and which replaces none.
    pub fn one(spec: Spec, due: Segment) -> Prepared {
        Prepared {
            works: vec![(spec, due)],
            fresh: false,
            conflict: Conflict::Keep,
            retry_of: None,
            on_finish: None,
        }
    }
}

impl<T, F: Function<K>, K> Enqueue<T, F, K> {
    pub(crate) fn new(target: T, functions: Vec<F>) -> Self {
        Enqueue { target, functions, options: Options::default(), kind: PhantomData }
    }

    /// Sets the job's id, which makes the enqueue idempotent: if a job of this id exists, or existed and its outcome is
    /// still stored, nothing is enqueued and the handle is on that job.
    ///
    /// An id is for one enqueue that may be repeated, after a timeout for example. For several enqueues of which one job
    /// is enough, see [`unique`](Self::unique).
    pub fn id(mut self, work_id: WorkId) -> Self
    where
        T: OneWork,
    {
        self.options.ids = Ids::Chosen(vec![work_id]);
        self
    }

    /// Makes the job unique: while another job of the pool holds the key, nothing is enqueued, and the handle is on that
    /// job ([`WorkHandle::is_new`](crate::WorkHandle::is_new) is `false`). It may be of another function or have other
    /// arguments. If it held the key for a [period](Unique::within), it may be finished or forgotten.
    ///
    /// Where the answer is not awaited ([`do_enqueue`](crate::Workpool::do_enqueue), `submit` in a transaction), the id
    /// that is returned is that of the new job: nothing is known under it if another job holds the key.
    ///
    /// ```
    /// # use actix_workpool::{doctest::{self, Double}, Unique};
    /// # use std::time::Duration;
    /// # doctest::run(async {
    /// # let runtime = doctest::runtime().await?;
    /// # let pool = runtime.pool("default")?;
    /// let hourly = Unique::key("report").within(Duration::from_secs(3600));
    /// let report = pool.enqueue(Double(21)).unique(hourly.clone()).await?;
    /// assert_eq!(report.join().await?, 42);
    /// assert!(!pool.enqueue(Double(21)).unique(hourly).await?.is_new());
    /// # runtime.shutdown(Duration::ZERO).await;
    /// # Ok(()) });
    /// ```
    pub fn unique(mut self, unique: Unique) -> Self
    where
        T: OneWork,
    {
        self.options.unique = Some(unique);
        self
    }

    /// Sets what happens if another job holds the [unique key](Self::unique). The default is [`Conflict::Keep`].
    ///
    /// ```
    /// # use actix_workpool::{Conflict, doctest::{self, Double}, Unique};
    /// # use std::time::Duration;
    /// # doctest::run(async {
    /// # let runtime = doctest::runtime().await?;
    /// # let pool = runtime.pool("default")?;
    /// // The index is built once, 20 ms after the last change.
    /// let calm = Conflict::Debounce(Duration::from_millis(20));
    /// let index = || Unique::key("index").while_waiting();
    /// pool.enqueue(Double(1)).unique(index()).on_conflict(calm).await?;
    /// let last = pool.enqueue(Double(2)).unique(index()).on_conflict(calm).await?;
    /// assert_eq!(last.join().await?, 4);
    /// # runtime.shutdown(Duration::ZERO).await;
    /// # Ok(()) });
    /// ```
    pub fn on_conflict(mut self, conflict: Conflict) -> Self
    where
        T: OneWork,
    {
        self.options.conflict = Some(conflict);
        self
    }

    /// Starts the job after `delay` at the earliest; at most [`MAX_DELAY`](crate::MAX_DELAY).
    pub fn run_after(mut self, delay: Duration) -> Self {
        self.options.due = Due::After(delay);
        self
    }

    /// Starts the job at `time` at the earliest; a time in the past means now.
    pub fn run_at(mut self, time: SystemTime) -> Self {
        self.options.due = Due::At(time);
        self
    }

    /// Sets the priority. The default is [`Priority::NORMAL`].
    ///
    /// ```
    /// # use actix_workpool::{doctest::{self, Double}, Priority};
    /// # doctest::run(async {
    /// # let runtime = doctest::runtime().await?;
    /// # let pool = runtime.pool("default")?;
    /// let work = pool.enqueue(Double(21)).priority(Priority::HIGH).await?;
    /// # assert_eq!(work.join().await?, 42);
    /// # runtime.shutdown(std::time::Duration::ZERO).await;
    /// # Ok(()) });
    /// ```
    pub fn priority(mut self, priority: Priority) -> Self {
        self.options.priority = priority;
        self
    }

    /// Sets the number of starts that a start of the job counts as in the [rate](crate::PoolConfig::rate) of its pool: 1,
    /// the default, up to the burst of the rate.
    pub fn cost(mut self, starts: u32) -> Self {
        self.options.cost = Some(starts);
        self
    }

    /// Sets the key of the job: who or what it is for. Jobs of one key have fair turns with those of others, and share
    /// the limits and the order that the pool sets [for each key](crate::PoolConfig::per_key).
    ///
    /// A key is 1 to 256 bytes of your own. It is stored with the job, and is in no log and no metric. A job keeps its key
    /// for ever. All jobs of a batch have this key; see [`keyed_by`](Self::keyed_by) for one of each.
    ///
    /// ```
    /// # use actix_workpool::{KeyRule, PoolConfig, Runtime, doctest::{self, Double}};
    /// # doctest::run(async {
    /// let runtime = Runtime::builder()
    ///     .action::<Double>()
    ///     .pool("default", PoolConfig::default().per_key(KeyRule::ordered()))
    ///     .start()
    ///     .await?;
    /// let pool = runtime.pool("default")?;
    /// let first = pool.enqueue(Double(1)).key("user-42").await?;
    /// let second = pool.enqueue(Double(2)).key("user-42").await?; // starts when the first has its outcome
    /// assert_eq!(second.join().await?, 4);
    /// assert_eq!(first.join().await?, 2);
    /// # runtime.shutdown(std::time::Duration::ZERO).await;
    /// # Ok(()) });
    /// ```
    pub fn key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.options.keys = Keys::Same(key.into());
        self
    }

    /// Sets the [key](Self::key) of each job of a batch.
    ///
    /// ```
    /// # use actix_workpool::doctest::{self, Double};
    /// # doctest::run(async {
    /// # let runtime = doctest::runtime().await?;
    /// # let pool = runtime.pool("default")?;
    /// let works = pool
    ///     .enqueue_batch((0..10).map(Double))
    ///     .keyed_by(|Double(number)| format!("user-{}", number % 3))
    ///     .await?;
    /// assert_eq!(works.ids().len(), 10);
    /// # runtime.shutdown(std::time::Duration::ZERO).await;
    /// # Ok(()) });
    /// ```
    pub fn keyed_by<B: Into<Vec<u8>>>(mut self, key: impl FnMut(&F) -> B) -> Self {
        self.options.keys = Keys::Each(self.functions.iter().map(key).map(Into::into).collect());
        self
    }

    /// Sets the weight of the key: with the weight 3 it has three turns for each one of a key with the weight 1, which is
    /// the default. At most 1,000. For a customer who pays more.
    pub fn weight(mut self, weight: u16) -> Self {
        self.options.weight = Some(weight);
        self
    }

    /// Sets the retry policy, which overrides those of the function and the pool.
    pub fn retry(mut self, behavior: RetryBehavior) -> Self {
        self.options.retry = RetryPolicy::With(behavior);
        self
    }

    /// Disables retries: the job has one attempt only, whatever the policies of the function and the pool.
    pub fn no_retry(mut self) -> Self {
        self.options.retry = RetryPolicy::Never;
        self
    }

    /// Limits each attempt to `timeout`, which overrides the timeouts of the function and the pool. For actions only:
    /// mutations and queries run in the store and have no timeout.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = Some(timeout);
        self
    }

    pub(crate) fn on_finish(mut self, on_finish: OnFinish) -> Self {
        self.options.on_finish = Some(on_finish);
        self
    }
}

impl<T, F, K> std::fmt::Debug for Enqueue<T, F, K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Enqueue").field("works", &self.functions.len()).finish_non_exhaustive()
    }
}
