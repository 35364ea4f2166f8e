//! The builder of an enqueue: a job or a batch with its options.

use std::marker::PhantomData;
use std::time::{Duration, SystemTime};

use super::Function;
use crate::model::{OnCompleteCall, Priority, RetryBehavior, RetryPolicy, Segment, Spec, WorkId};
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

/// Enqueue targets that take one job at a time, so that its id can be chosen.
pub trait OneWork {}

/// Options of a job.
#[derive(Default)]
pub(crate) struct Options {
    pub(super) ids: Ids,
    pub(super) due: Due,
    pub(super) priority: Priority,
    pub(super) cost: Option<u32>,
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
    /// The failed job that these retry; then there is only one job.
    pub retry_of: Option<WorkId>,
    pub on_finish: Option<OnFinish>,
}

impl<T, F: Function<K>, K> Enqueue<T, F, K> {
    pub(crate) fn new(target: T, functions: Vec<F>) -> Self {
        Enqueue { target, functions, options: Options::default(), kind: PhantomData }
    }

    /// Sets the job's id, which makes the enqueue idempotent: if a job of this id exists, or existed and its outcome is
    /// still stored, nothing is enqueued and the handle is on that job.
    pub fn id(mut self, work_id: WorkId) -> Self
    where
        T: OneWork,
    {
        self.options.ids = Ids::Chosen(vec![work_id]);
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
