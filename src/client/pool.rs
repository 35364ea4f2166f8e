//! The handle on a pool.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::{
    Client, Diagnostics, Enqueue, EnqueueError, Function, KeyStatus, OneWork, PoolError,
    PoolStatus, RunningWork, WorkBatch, WorkHandle, prepare,
};
use crate::engine::arrivals::{
    CancelAnswer, EnqueueAnswer, PriorityAnswer, RetryAnswer, RunNowAnswer,
};
use crate::engine::explain::Explanation;
use crate::model::{
    Counts, Name, PoolConfig, Priority, Segment, Settings, WorkFilter, WorkId, WorkPage, WorkStatus,
};
use crate::protocol::{Inspection, LoopMessage, Question, RunningAttempt};
use crate::shared::PoolShared;

/// A handle on one pool, to enqueue, cancel and inspect jobs.
///
/// It is cheap to clone, and usable from any thread and any actor. It does not keep the runtime alive: once the runtime
/// is gone, its calls fail as closed.
///
/// ```
/// # use actix_workpool::doctest::{self, Double};
/// # doctest::run(async {
/// # let runtime = doctest::runtime().await?;
/// let pool = runtime.pool("default")?;
/// let one = pool.enqueue(Double(1)).await?;
/// let many = pool.enqueue_batch((0..100).map(Double)).await?;
/// assert_eq!(one.join().await?, 2);
/// assert_eq!(many.join().await.len(), 100);
/// pool.idle().await?;
/// assert_eq!(pool.pending(), 0);
/// # runtime.shutdown(std::time::Duration::ZERO).await;
/// # Ok(()) });
/// ```
#[derive(Clone)]
pub struct Workpool {
    pub(crate) client: Client,
    pub(crate) pool: Arc<PoolShared>,
}

impl std::fmt::Debug for Workpool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workpool").field("name", &self.pool.name).finish_non_exhaustive()
    }
}

impl Workpool {
    pub(crate) fn new(client: Client, pool: Arc<PoolShared>) -> Workpool {
        Workpool { client, pool }
    }

    pub(crate) fn find(client: &Client, name: &str) -> Result<Workpool, PoolError> {
        match client.shared.pool(name) {
            Some(pool) => Ok(Workpool::new(client.clone(), pool)),
            None => {
                let pools = client.shared.pool_names();
                Err(PoolError::Unknown { name: name.to_owned(), pools })
            }
        }
    }

    /// Returns the pool's name.
    #[must_use]
    pub fn name(&self) -> Name {
        self.pool.name
    }

    /// Returns the current settings.
    #[must_use]
    pub fn settings(&self) -> Arc<Settings> {
        self.pool.settings()
    }

    /// Returns the number of jobs without an outcome, including those on their way to the store.
    #[must_use]
    pub fn pending(&self) -> u64 {
        self.pool.pending()
    }

    /// Waits until every job has an outcome, including delayed jobs. Cancel-safe.
    ///
    /// # Errors
    /// Fails if the runtime shuts down before that.
    pub async fn idle(&self) -> Result<(), PoolError> {
        self.pool.idle(&self.client.shared).await;
        // The count falls before the outcomes are sent. Once this question is answered, they have been sent.
        self.client.statuses(Vec::new()).await?;
        match self.client.shared.is_closed() && self.pool.pending() > 0 {
            true => Err(PoolError::Closed),
            false => Ok(()),
        }
    }

    /// Describes a job. Awaiting the description enqueues the job; once that returns, the job is acknowledged and will
    /// have exactly one outcome.
    ///
    /// If the future is dropped before it returns, the job may or may not be enqueued. Choose the id
    /// ([`Enqueue::id`]) to make the enqueue idempotent.
    ///
    /// ```
    /// # actix_workpool::doctest::run(async {
    /// # let runtime = actix_workpool::doctest::runtime().await?;
    /// # use actix_workpool::doctest::Double;
    /// # use std::time::Duration;
    /// let pool = runtime.pool("default")?;
    /// let work = pool.enqueue(Double(21)).run_after(Duration::from_millis(5)).await?;
    /// assert_eq!(work.join().await?, 42);
    /// # runtime.shutdown(Duration::ZERO).await;
    /// # Ok(()) });
    /// ```
    pub fn enqueue<F: Function<K>, K>(&self, function: F) -> Enqueue<&Workpool, F, K> {
        Enqueue::new(self, vec![function])
    }

    /// Enqueues without waiting for the acknowledgement, for use where nothing can be awaited, as in a `Handler`.
    ///
    /// # Errors
    /// Fails if the job is invalid or the pool cannot take it. Errors of the storage are not returned here; the handle
    /// returns them.
    pub fn do_enqueue<F: Function<K>, K>(
        &self,
        function: F,
    ) -> Result<WorkHandle<F::Output>, EnqueueError> {
        self.enqueue(function).do_enqueue()
    }

    /// Describes many jobs of one function. Awaiting the description enqueues all of them or none, in one commit and in
    /// order.
    ///
    /// Choose their ids ([`Enqueue::ids`]) to make the enqueue idempotent.
    pub fn enqueue_batch<F: Function<K>, K>(
        &self,
        functions: impl IntoIterator<Item = F>,
    ) -> Enqueue<Batch<'_>, F, K> {
        Enqueue::new(Batch(self), functions.into_iter().collect())
    }

    /// Returns a handle on the job of this pool with that id, whether or not the job exists.
    #[must_use]
    pub fn work<O>(&self, work_id: WorkId) -> WorkHandle<O> {
        WorkHandle::new(self.client.clone(), work_id)
    }

    /// Returns the status of a job. For a running or recently finished job, the store is not asked.
    ///
    /// # Errors
    /// Fails if the runtime is gone or the storage failed.
    pub async fn status(&self, work_id: WorkId) -> Result<WorkStatus, PoolError> {
        self.client.status(work_id).await
    }

    /// Returns the statuses of many jobs, in the given order, as [`status`](Self::status) does for one.
    ///
    /// # Errors
    /// Fails if the runtime is gone or the storage failed.
    pub async fn status_batch(&self, work_ids: &[WorkId]) -> Result<Vec<WorkStatus>, PoolError> {
        self.client.status_batch(work_ids).await
    }

    /// Explains why a job of any pool waits or runs, and when it is expected to start.
    ///
    /// This costs the store one search and some 1,000 steps, whatever the length of the queue, and does not load the
    /// pool's loop. If the store fails or does not answer, the explanation says so, after two seconds at most.
    ///
    /// ```
    /// # actix_workpool::doctest::run(async {
    /// # let runtime = actix_workpool::doctest::runtime().await?;
    /// # use actix_workpool::{Why, doctest::Double};
    /// # use std::time::Duration;
    /// let pool = runtime.pool("default")?;
    /// let work = pool.enqueue(Double(21)).run_after(Duration::from_secs(3600)).await?;
    /// let explanation = work.explain().await?;
    /// assert_eq!(explanation.why, Why::NotDue);
    /// println!("{explanation}"); // job 0197… (double in pool default) waits for its time; expected to start in 59 min 59 s
    /// # runtime.shutdown(Duration::ZERO).await;
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// Fails if the runtime is gone.
    pub async fn explain(&self, work_id: WorkId) -> Result<Explanation, PoolError> {
        self.client.explain(work_id).await
    }

    /// Lists jobs of this pool by state, a page at a time.
    ///
    /// A page costs the store one search and a step for each job that it reads, however many jobs there are: some 2,000
    /// jobs at most, or 8 MiB of arguments and results. A cursor marks where the next page begins. A page of running
    /// jobs also reads the start times of all of them. Each page is a snapshot; jobs may move between two pages, but a
    /// job that keeps its place is listed once.
    ///
    /// ```
    /// # actix_workpool::doctest::run(async {
    /// # let runtime = actix_workpool::doctest::runtime().await?;
    /// # use actix_workpool::{WorkFilter, doctest::Double};
    /// # use std::time::Duration;
    /// let pool = runtime.pool("default")?;
    /// for hours in 1..=3 {
    ///     pool.enqueue(Double(hours)).run_after(Duration::from_secs(hours * 3600)).await?;
    /// }
    /// let first = pool.works(WorkFilter::pending().limit(2)).await?;
    /// assert_eq!(first.works.len(), 2);
    /// let cursor = first.next.ok_or("there is more")?;
    /// let second = pool.works(WorkFilter::pending().after(cursor)?).await?;
    /// assert_eq!((second.works.len(), second.next), (1, None));
    /// # runtime.shutdown(Duration::ZERO).await;
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// Fails if the page's limit is out of range, the runtime is gone, or the storage failed.
    pub async fn works(&self, filter: WorkFilter) -> Result<WorkPage, PoolError> {
        Ok(self.client.list(filter.pool(self.pool.name.as_str())).await?.page)
    }

    /// Cancels a job: once this returns, the job does not start again. A running attempt is told, and may run to its
    /// end; if it still returns a result, the result counts.
    ///
    /// # Errors
    /// Fails if the runtime is gone or the storage failed.
    pub async fn cancel(&self, work_id: WorkId) -> Result<CancelAnswer, PoolError> {
        self.client.cancel(work_id).await
    }

    /// Cancels many jobs, of any pool, in one commit.
    ///
    /// # Errors
    /// Fails if the runtime is gone or the storage failed.
    pub async fn cancel_batch(
        &self,
        work_ids: Vec<WorkId>,
    ) -> Result<Vec<CancelAnswer>, PoolError> {
        self.client.cancel_batch(work_ids).await
    }

    /// Cancels every job of this pool that was enqueued before now, and returns their number.
    ///
    /// It cancels the jobs page by page, so that it does not block other requests. It does not cancel the follow-up job
    /// of a failed `on_complete`, since that belongs to a job that has ended. Cancel a follow-up job by its id.
    ///
    /// # Errors
    /// Fails if the runtime is gone or the storage failed; some of the jobs may be canceled then.
    pub async fn cancel_all(&self) -> Result<u64, PoolError> {
        self.client.cancel_all(self.pool.id).await
    }

    /// Cancels a job of this pool, and drops its running attempt if the attempt has not ended after `grace`.
    ///
    /// # Errors
    /// Fails if the runtime is gone or the storage failed.
    pub async fn abort(&self, work_id: WorkId, grace: Duration) -> Result<CancelAnswer, PoolError> {
        self.client.abort(work_id, grace).await
    }

    /// Makes a delayed job or a waiting retry of any pool due now. The job queues behind the jobs that are already due,
    /// and waits for a slot as usual.
    ///
    /// Once this returns, the change is committed, or nothing has changed.
    ///
    /// ```
    /// # actix_workpool::doctest::run(async {
    /// # let runtime = actix_workpool::doctest::runtime().await?;
    /// # use actix_workpool::{RunNowAnswer, doctest::Double};
    /// # use std::time::Duration;
    /// let pool = runtime.pool("default")?;
    /// let work = pool.enqueue(Double(21)).run_after(Duration::from_secs(3600)).await?;
    /// assert_eq!(pool.run_now(work.id()).await?, RunNowAnswer::Moved);
    /// assert_eq!(work.join().await?, 42);
    /// assert_eq!(pool.run_now(work.id()).await?, RunNowAnswer::AlreadyFinished);
    /// # runtime.shutdown(Duration::ZERO).await;
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// Fails if the runtime is gone or the storage failed.
    pub async fn run_now(&self, work_id: WorkId) -> Result<RunNowAnswer, PoolError> {
        self.client.run_now(work_id).await
    }

    /// Returns the time before which the pool's rate admits no start, if that is more than a second from now.
    #[cfg(feature = "ops")]
    pub(crate) fn limited_for_long(&self) -> Option<Segment> {
        let until = self.pool.gauge.limited_until();
        let soon = self.client.shared.seams.segment().after(Duration::from_secs(1));
        Some(until).filter(|until| *until > soon)
    }

    /// Changes the priority of a job of any pool while it waits. A job that is due goes behind the jobs of the new
    /// priority that are due; a delayed job stays delayed.
    ///
    /// Once this returns, the change is committed, or nothing has changed.
    ///
    /// ```
    /// # actix_workpool::doctest::run(async {
    /// # let runtime = actix_workpool::doctest::runtime().await?;
    /// # use actix_workpool::{Priority, PriorityAnswer, doctest::Double};
    /// # use std::time::Duration;
    /// let pool = runtime.pool("default")?;
    /// let work = pool.enqueue(Double(21)).run_after(Duration::from_secs(3600)).await?;
    /// assert_eq!(pool.set_priority(work.id(), Priority::HIGH).await?, PriorityAnswer::Changed);
    /// # runtime.shutdown(Duration::ZERO).await;
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// Fails if the runtime is gone or the storage failed.
    pub async fn set_priority(
        &self,
        work_id: WorkId,
        priority: Priority,
    ) -> Result<PriorityAnswer, PoolError> {
        self.client.set_priority(work_id, priority).await
    }

    /// Enqueues a failed job of any pool once more, as a new job that is due now, with the same function, arguments,
    /// retry policy and `on_complete`. The failed job keeps its outcome.
    ///
    /// This is idempotent: the id of the new job is derived from the id of the failed one, so that repeated calls
    /// enqueue one job. If the new job fails too, retry it by its own id.
    ///
    /// ```
    /// # actix_workpool::doctest::run(async {
    /// # let runtime = actix_workpool::doctest::runtime().await?;
    /// # use actix_workpool::{RetryAnswer, doctest::Double};
    /// # use std::time::Duration;
    /// let pool = runtime.pool("default")?;
    /// let work = pool.enqueue(Double(u64::MAX)).await?; // fails: twice that is too much
    /// assert!(work.join().await.is_err());
    /// let RetryAnswer::Enqueued(again) = pool.retry(work.id()).await? else { return Err("lost".into()) };
    /// assert_eq!(pool.retry(work.id()).await?, RetryAnswer::AlreadyEnqueued(again));
    /// assert!(pool.work::<u64>(again).join().await.is_err());
    /// # runtime.shutdown(Duration::ZERO).await;
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// Fails if its pool is full, the runtime is gone or the storage failed.
    pub async fn retry(&self, work_id: WorkId) -> Result<RetryAnswer, EnqueueError> {
        self.client.retry(work_id).await
    }

    /// Changes the values that are set in `config` and stores them. They apply from the next start of a job on.
    ///
    /// Returns only when the outcome is certain: it waits as long as the storage does not answer and, if the loop's
    /// turn was given up meanwhile, until the loop has read the stored configuration.
    ///
    /// # Errors
    /// Fails if a value is out of range or the storage failed; then nothing has changed. If the runtime goes away
    /// meanwhile, or the storage must be reopened, the change may or may not be stored: the next start shows which.
    pub async fn update(&self, config: PoolConfig) -> Result<(), PoolError> {
        config.validate()?;
        if self.client.shared.is_closed() {
            return Err(PoolError::Closed);
        }
        let configured = self
            .client
            .ask_loop(self.pool.id, |reply| LoopMessage::Configure { config, reply })
            .await?;
        Ok(configured?)
    }

    /// Pauses the pool: no job starts until [`resume`](Self::resume). Running attempts go on, and enqueues still work.
    ///
    /// # Errors
    /// See [`update`](Self::update).
    pub async fn pause(&self) -> Result<(), PoolError> {
        self.update(PoolConfig::default().paused(true)).await
    }

    /// Resumes a paused pool: jobs start again.
    ///
    /// # Errors
    /// See [`update`](Self::update).
    pub async fn resume(&self) -> Result<(), PoolError> {
        self.update(PoolConfig::default().paused(false)).await
    }

    /// Returns the state of the pool, in numbers.
    ///
    /// # Errors
    /// Fails if the runtime is gone or the storage failed.
    pub async fn diagnostics(&self) -> Result<Diagnostics, PoolError> {
        Ok(self.diagnosed().await?.0)
    }

    /// Returns the diagnostics, with the loop's own inspection.
    pub(crate) async fn diagnosed(&self) -> Result<(Diagnostics, Inspection), PoolError> {
        let pool = self.pool.id;
        let inspection = self.client.inspect(pool).await?;
        let (counts, unregistered_names) =
            self.client.ask(|reply| Question::Counts { pool, reply }).await?;
        let Counts { waiting, running, completing, canceling, unregistered, oldest_due } = counts;
        let slots = inspection.slots as u64;
        let now = self.client.shared.seams.segment();
        let diagnostics = Diagnostics {
            pool: self.pool.name,
            waiting,
            running,
            completing,
            canceling,
            unregistered,
            unregistered_names,
            oldest_due: oldest_due.map(Segment::time),
            spare_capacity: slots.saturating_sub(running),
            status: PoolStatus::of(slots, running, oldest_due.is_some_and(|due| due <= now)),
            report: inspection.report,
        };
        Ok((diagnostics, inspection))
    }

    /// Returns the [keys](crate::Enqueue::key) with the most waiting jobs, at most `limit` of them, the busiest first. In a
    /// pool with more than 10,000 keys, they are those of the keys that were looked at.
    ///
    /// ```
    /// # use actix_workpool::{PoolConfig, doctest::{self, Double}};
    /// # doctest::run(async {
    /// # let runtime = doctest::runtime().await?;
    /// # let pool = runtime.pool("default")?;
    /// pool.pause().await?;
    /// pool.enqueue_batch((0..5).map(Double)).key("user-42").await?;
    /// let keys = pool.busiest_keys(10).await?;
    /// assert_eq!((keys[0].key(), keys[0].ready), (&b"user-42"[..], 5));
    /// # runtime.shutdown(std::time::Duration::ZERO).await;
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// Fails if the runtime is gone or the storage failed.
    pub async fn busiest_keys(&self, limit: usize) -> Result<Vec<KeyStatus>, PoolError> {
        let pool = self.pool.id;
        let rows = self.client.ask(|reply| Question::Keys { pool, limit, reply }).await?;
        let now = self.client.shared.seams.segment();
        Ok(rows.into_iter().map(|(key, row)| KeyStatus::new(key, row, now)).collect())
    }

    /// Returns the running attempts, in the order of their starts.
    ///
    /// # Errors
    /// Fails if the runtime is gone.
    pub async fn running(&self) -> Result<Vec<RunningWork>, PoolError> {
        let inspection = self.client.inspect(self.pool.id).await?;
        let work = |attempt: RunningAttempt| RunningWork {
            work_id: attempt.work_id,
            function: attempt.function,
            attempt: attempt.attempt,
            started: attempt.started.time(),
            progress: self.client.shared.board.progress_of(attempt.work_id),
        };
        Ok(inspection.running.into_iter().map(work).collect())
    }
}

impl OneWork for &Workpool {}

/// An enqueue target that takes many jobs at once. See [`Workpool::enqueue_batch`](crate::Workpool::enqueue_batch).
#[derive(Debug)]
pub struct Batch<'p>(&'p Workpool);

impl<F: Function<K>, K> Enqueue<Batch<'_>, F, K> {
    /// Sets the id of each job, as [`id`](Self::id) does for one: an id that was enqueued before, or that occurs twice
    /// in the batch, is not enqueued again. This makes the enqueue idempotent: you can repeat a batch safely.
    ///
    /// If the ids are derived from the content of the jobs, you need no list of the jobs enqueued so far:
    ///
    /// ```
    /// # actix_workpool::doctest::run(async {
    /// # let runtime = actix_workpool::doctest::runtime().await?;
    /// # use actix_workpool::{WorkId, doctest::Double};
    /// # use uuid::Uuid;
    /// let pool = runtime.pool("default")?;
    /// let id = |work: &Double| WorkId::from_uuid(Uuid::from_u128(work.0.into()));
    /// pool.enqueue_batch([Double(1), Double(2)]).ids(id).await?;
    /// let works = pool.enqueue_batch([Double(2), Double(3)]).ids(id).await?; // enqueues 3
    /// assert_eq!(works.join().await, [Ok(4), Ok(6)]);
    /// assert_eq!(pool.diagnostics().await?.report.succeeded, 3);
    /// # runtime.shutdown(std::time::Duration::ZERO).await;
    /// # Ok(()) });
    /// ```
    pub fn ids(mut self, id: impl FnMut(&F) -> WorkId) -> Self {
        self.options.choose_ids(self.functions.iter().map(id).collect());
        self
    }
}

type EnqueueFuture<T> = Pin<Box<dyn Future<Output = Result<T, EnqueueError>> + Send>>;

impl<F: Function<K>, K> Enqueue<&Workpool, F, K> {
    /// Enqueues the job without waiting for the acknowledgement.
    ///
    /// # Errors
    /// See [`Workpool::do_enqueue`].
    pub fn do_enqueue(self) -> Result<WorkHandle<F::Output>, EnqueueError> {
        let pool = self.target;
        let prepared = prepare(&self.functions, self.options, &pool.client.shared, &pool.pool)?;
        let work_id = prepared.works[0].0.work_id;
        pool.client.submit(&pool.pool, prepared, None)?;
        Ok(pool.work(work_id))
    }
}

impl<F: Function<K>, K> IntoFuture for Enqueue<&Workpool, F, K> {
    type Output = Result<WorkHandle<F::Output>, EnqueueError>;
    type IntoFuture = EnqueueFuture<WorkHandle<F::Output>>;

    fn into_future(self) -> Self::IntoFuture {
        let pool = self.target.clone();
        let prepared = prepare(&self.functions, self.options, &pool.client.shared, &pool.pool);
        Box::pin(async move {
            let prepared = prepared?;
            let work_id = prepared.works[0].0.work_id;
            let answers = pool.client.enqueue(&pool.pool, prepared).await?;
            Ok(match answers[..] {
                [EnqueueAnswer::Enqueued] => pool.work(work_id).new_if(true),
                [EnqueueAnswer::Kept(holder) | EnqueueAnswer::Replaced(holder)] => {
                    pool.work(holder)
                }
                _ => pool.work(work_id),
            })
        })
    }
}

impl<F: Function<K>, K> IntoFuture for Enqueue<Batch<'_>, F, K> {
    type Output = Result<WorkBatch<F::Output>, EnqueueError>;
    type IntoFuture = EnqueueFuture<WorkBatch<F::Output>>;

    fn into_future(self) -> Self::IntoFuture {
        let pool = self.target.0.clone();
        let prepared = prepare(&self.functions, self.options, &pool.client.shared, &pool.pool);
        Box::pin(async move {
            let prepared = prepared?;
            let ids: Vec<_> = prepared.works.iter().map(|(spec, _)| spec.work_id).collect();
            let answers = match ids.is_empty() {
                true => Vec::new(),
                false => pool.client.enqueue(&pool.pool, prepared).await?,
            };
            Ok(WorkBatch::new(pool.client, ids, &answers))
        })
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use crate::shared::sync::oneshot;
    use crate::testing::doctest::{self, Double};

    #[test]
    fn jobs_that_a_store_that_is_gone_was_sent_are_counted_no_more() {
        doctest::run(async {
            let runtime = doctest::runtime().await?;
            let pool = runtime.pool("default")?;
            let work = pool.enqueue(Double(1));
            let prepared = prepare(&work.functions, work.options, &pool.client.shared, &pool.pool)?;
            // Simulates a shutdown after the check that the runtime is open.
            runtime.shutdown(Duration::ZERO).await;
            let (reply, answer) = oneshot::channel();
            pool.client.hand_over(&pool.pool, prepared, Some(reply))?;
            assert!(answer.await.is_err());
            assert_eq!(pool.pending(), 0);
            Ok(())
        });
    }
}
