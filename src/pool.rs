//! The handle on a pool.

use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use serde::Serialize;

use crate::actors::{Inspection, Recipient};
use crate::board::{Progress, WorkStatus};
use crate::committer::{CancelAll, Enqueue as EnqueueRequest, Listing, Reply, Request};
use crate::config::{PoolConfig, Settings};
use crate::engine::arrivals::{CancelAnswer, EnqueueAnswer, RetryAnswer, RunNowAnswer};
use crate::enqueue::{Batch, Enqueue, Prepared, prepare};
use crate::error::{EnqueueError, PoolError};
use crate::explain::{self, Explanation, Found, Why};
use crate::function::{Completed, Function};
use crate::handle::{WorkBatch, WorkHandle};
use crate::list::{WorkFilter, WorkPage};
use crate::model::{Counts, Name, Report, RunStatus, Segment, Spec, WorkId};
use crate::shared::{Admitted, PoolShared, Shared};
use crate::sync::oneshot;

/// A handle on one pool: enqueue, cancel, look.
///
/// Cheap to clone, usable from any thread and any actor. It does not keep the runtime alive: when that is gone, every
/// call answers that it is closed.
#[derive(Clone)]
pub struct Workpool {
    pub(crate) shared: Arc<Shared>,
    pub(crate) pool: Arc<PoolShared>,
}

impl std::fmt::Debug for Workpool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workpool").field("name", &self.pool.name).finish_non_exhaustive()
    }
}

impl Workpool {
    pub(crate) fn find(shared: &Arc<Shared>, name: &str) -> Result<Workpool, PoolError> {
        match shared.pool(name) {
            Some(pool) => Ok(Workpool { shared: shared.clone(), pool }),
            None => Err(PoolError::Unknown(name.to_owned())),
        }
    }

    /// The pool's name.
    #[must_use]
    pub fn name(&self) -> Name {
        self.pool.name
    }

    /// The settings in force.
    #[must_use]
    pub fn settings(&self) -> Arc<Settings> {
        self.pool.settings()
    }

    /// How many works have no outcome yet, those on their way to the store included.
    #[must_use]
    pub fn pending(&self) -> u64 {
        self.pool.pending()
    }

    /// Waits until every work has an outcome, delayed ones included. Cancel-safe.
    ///
    /// # Errors
    /// When the runtime shuts down before that.
    pub async fn idle(&self) -> Result<(), PoolError> {
        self.pool.idle(&self.shared).await;
        // The count falls before everybody is told; behind this question they have been.
        self.statuses(Vec::new()).await?;
        match self.shared.is_closed() && self.pool.pending() > 0 {
            true => Err(PoolError::Closed),
            false => Ok(()),
        }
    }

    /// Describes a work; awaiting it enqueues it, and when that returns it is acknowledged: it will have exactly one
    /// outcome.
    ///
    /// A future that is dropped before it returned may or may not have enqueued. Choose the id to be able to tell.
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
    /// What is wrong with the work itself or with the pool. An error of the storage is not seen here; ask the handle.
    pub fn do_enqueue<F: Function<K>, K>(
        &self,
        function: F,
    ) -> Result<WorkHandle<F::Output>, EnqueueError> {
        self.enqueue(function).do_enqueue()
    }

    /// Describes many works of one function; awaiting it enqueues all of them or none, in one commit and in order.
    ///
    /// Choose their ids ([`Enqueue::ids`]) to be able to enqueue them again.
    pub fn enqueue_batch<F: Function<K>, K>(
        &self,
        functions: impl IntoIterator<Item = F>,
    ) -> Enqueue<Batch<'_>, F, K> {
        Enqueue::new(Batch(self), functions.into_iter().collect())
    }

    /// The handle on a work of this pool with that id, whether or not there is one.
    #[must_use]
    pub fn work<O>(&self, work_id: WorkId) -> WorkHandle<O> {
        WorkHandle { pool: self.clone(), work_id, output: PhantomData }
    }

    /// Where a work is in its life. A work that runs or has finished lately is answered without asking the store.
    ///
    /// # Errors
    /// When the runtime is gone or the storage failed.
    pub async fn status(&self, work_id: WorkId) -> Result<WorkStatus, PoolError> {
        match self.shared.board.status(work_id) {
            Some(status) => Ok(status),
            None => {
                let mut statuses = self.statuses(vec![work_id]).await?;
                Ok(statuses.pop().unwrap_or(WorkStatus::Unknown))
            }
        }
    }

    /// As [`status`](Self::status) for many works, in the order asked.
    ///
    /// # Errors
    /// When the runtime is gone or the storage failed.
    pub async fn status_batch(&self, work_ids: &[WorkId]) -> Result<Vec<WorkStatus>, PoolError> {
        let mut statuses: Vec<_> =
            work_ids.iter().map(|work_id| self.shared.board.status(*work_id)).collect();
        let missing: Vec<_> = work_ids
            .iter()
            .zip(&statuses)
            .filter(|(_, status)| status.is_none())
            .map(|(work_id, _)| *work_id)
            .collect();
        if !missing.is_empty() {
            let mut found = self.statuses(missing).await?.into_iter();
            for status in statuses.iter_mut().filter(|status| status.is_none()) {
                *status = found.next();
            }
        }
        Ok(statuses.into_iter().map(|status| status.unwrap_or(WorkStatus::Unknown)).collect())
    }

    async fn statuses(&self, work_ids: Vec<WorkId>) -> Result<Vec<WorkStatus>, PoolError> {
        self.ask(|reply| Request::Statuses { work_ids, reply }).await
    }

    /// Why a work of any pool is where it is, and when it is expected to start.
    ///
    /// Costs the store one search and some 1,000 steps, whatever the length of the queue, and the pool's loop
    /// nothing. A store that fails or does not answer is an explanation too, after two seconds at most.
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
    /// println!("{explanation}"); // work 0197… (double in pool default) waits for its time; expected to start in 59 min 59 s
    /// # runtime.shutdown(Duration::ZERO).await;
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the runtime is gone.
    pub async fn explain(&self, work_id: WorkId) -> Result<Explanation, PoolError> {
        let shared = &self.shared;
        if let Some(row) = shared.board.finished(work_id) {
            return Ok(explain::explain(shared, work_id, Found::Finished(row), None));
        }
        // Before the question: its answer would be the first thing that the store does well again.
        let trouble = shared.health.trouble();
        let stalled = shared.health.stalled.notified();
        tokio::pin!(stalled);
        stalled.as_mut().enable();
        let asked = self.ask(|reply| Request::Explain { work_id, reply });
        tokio::pin!(asked);
        let found = std::future::poll_fn(|cx| {
            if let Poll::Ready(found) = asked.as_mut().poll(cx) {
                return Poll::Ready(Some(found));
            }
            let is_stalled = stalled.as_mut().poll(cx).is_ready()
                || shared.health.stalled_since(shared.seams.segment()).is_some();
            if is_stalled { Poll::Ready(None) } else { Poll::Pending }
        })
        .await;
        match found {
            Some(Ok(found)) => Ok(explain::explain(shared, work_id, found, trouble)),
            Some(Err(PoolError::Storage(error))) => {
                let (since, error) = (shared.seams.segment(), error.to_string());
                let why = trouble.unwrap_or(Why::StoreFailing { since, error });
                Ok(explain::without_store(shared, work_id, why))
            }
            Some(Err(error)) => Err(error),
            None => {
                let now = shared.seams.segment();
                let since = shared.health.stalled_since(now).unwrap_or(now);
                Ok(explain::without_store(shared, work_id, Why::StoreStalled { since }))
            }
        }
    }

    /// Works of this pool by state, a page at a time.
    ///
    /// A page costs the store one search and its length, however many works there are; it looks at some 2,000 works
    /// at most, or at 8 MiB of arguments and results, and a cursor tells where to go on. For a page of what runs, the
    /// times at which all of it has started are gone through. A page is what was committed at one moment; between two of
    /// them works come and go, but one that stays in its place is listed once.
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
    /// When the page's limit is out of its range, the runtime is gone, or the storage failed.
    pub async fn works(&self, filter: WorkFilter) -> Result<WorkPage, PoolError> {
        Ok(list(&self.shared, filter.pool(self.pool.name.as_str())).await?.page)
    }

    /// Cancels a work; when this returns, it will not be started again. One that is running is told and may go on to
    /// its end; a result that it still has counts.
    ///
    /// # Errors
    /// When the runtime is gone or the storage failed.
    pub async fn cancel(&self, work_id: WorkId) -> Result<CancelAnswer, PoolError> {
        let mut answers = self.cancel_batch(vec![work_id]).await?;
        Ok(answers.pop().unwrap_or(CancelAnswer::AlreadyFinished))
    }

    /// Cancels many works, of any pool, in one commit.
    ///
    /// # Errors
    /// When the runtime is gone or the storage failed.
    pub async fn cancel_batch(
        &self,
        work_ids: Vec<WorkId>,
    ) -> Result<Vec<CancelAnswer>, PoolError> {
        self.ask(|reply| Request::Cancel { work_ids, reply }).await
    }

    /// Cancels every work of this pool that was enqueued before now. Answers how many there were.
    ///
    /// It goes through them page by page, so that other requests get their turn. An `on_complete` that has failed and is
    /// tried again as a work of its own is not among them: it belongs to a work that has ended. Cancel
    /// it by its id.
    ///
    /// # Errors
    /// When the runtime is gone or the storage failed; a part may be canceled then.
    pub async fn cancel_all(&self) -> Result<u64, PoolError> {
        let until = self.shared.seams.segment();
        let pool = self.pool.id;
        self.ask(|reply| {
            let (found, search) = (Vec::new(), Some(None));
            Request::CancelAll(CancelAll { pool, until, found, search, requested: 0, reply })
        })
        .await
    }

    /// Cancels a work of this pool, and if it is running drops its attempt when it has not ended after `grace`.
    ///
    /// # Errors
    /// When the runtime is gone or the storage failed.
    pub async fn abort(&self, work_id: WorkId, grace: Duration) -> Result<CancelAnswer, PoolError> {
        let answer = self.cancel(work_id).await?;
        if answer != CancelAnswer::AlreadyFinished
            && let Some(main) = self.pool.main.get()
        {
            main.abort(work_id, grace);
        }
        Ok(answer)
    }

    /// Ends the wait of a work of any pool, for its time or for its retry: it is due now. Only its wait ends: it takes
    /// its place behind what is due already, and there is a slot to wait for as ever.
    ///
    /// When this returns, the work has moved for good, or is as it was.
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
    /// assert_eq!(pool.run_now(work.id()).await?, RunNowAnswer::NotFound);
    /// # runtime.shutdown(Duration::ZERO).await;
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the runtime is gone or the storage failed.
    pub async fn run_now(&self, work_id: WorkId) -> Result<RunNowAnswer, PoolError> {
        self.ask(|reply| Request::RunNow { work_id, reply }).await
    }

    /// Enqueues a failed work of any pool once more, due now: the same function, arguments, retry policy and
    /// `on_complete`, as a work of its own. The failed one keeps its outcome.
    ///
    /// The id of the new work is made of that of the failed one. So this happens once, however often it is asked for;
    /// a work that has failed again is tried again by its own id.
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
    /// When its pool is full, the runtime is gone or the storage failed.
    pub async fn retry(&self, work_id: WorkId) -> Result<RetryAnswer, EnqueueError> {
        let status = self.status(work_id).await.map_err(|error| match error {
            PoolError::Storage(error) => EnqueueError::Storage(error),
            _ => EnqueueError::Closed,
        });
        let row = match status? {
            WorkStatus::Finished(row) => row,
            WorkStatus::Unknown => return Ok(RetryAnswer::NotFound),
            WorkStatus::Pending { .. } | WorkStatus::Running { .. } => {
                return Ok(RetryAnswer::NotFailed);
            }
        };
        let Some(failed) = row.details.as_ref().and_then(|details| details.spec.as_ref()) else {
            return Ok(RetryAnswer::NotFailed);
        };
        let Some(pool) = self.shared.pool_by_id(row.pool) else {
            return Ok(RetryAnswer::PoolNotStarted);
        };
        if !self.shared.registry.can_run(failed) {
            return Ok(RetryAnswer::NotRegistered);
        }
        let (work_id, now) = (work_id.once_more(), self.shared.seams.segment());
        let spec = Arc::new(Spec { work_id, enqueued_at: now, ..Spec::clone(failed) });
        let once = Prepared { works: vec![(spec, now)], fresh: false, on_finish: None };
        let pool = Workpool { shared: self.shared.clone(), pool };
        Ok(match pool.send_and_wait(once).await?[..] {
            [EnqueueAnswer::Enqueued] => RetryAnswer::Enqueued(work_id),
            _ => RetryAnswer::AlreadyEnqueued(work_id),
        })
    }

    /// Changes what is set in `config`, from the next start on, and keeps it in the store.
    ///
    /// The answer comes when it is certain: while the storage does not answer, and until the loop has read what is there
    /// if its turn was given up meanwhile.
    ///
    /// # Errors
    /// When a value is out of its range or the storage failed; then nothing has changed. When the runtime goes away
    /// meanwhile, or the storage must be reopened, it is not known whether the change is there: the next start tells.
    pub async fn update(&self, config: PoolConfig) -> Result<(), PoolError> {
        config.validate()?;
        if self.shared.is_closed() {
            return Err(PoolError::Closed);
        }
        let main = self.pool.main.get().ok_or(PoolError::Closed)?;
        main.configure(config).await.map_err(|_| PoolError::Closed)?
    }

    /// Starts nothing more until [`resume`](Self::resume). What is running goes on, and works are still taken.
    ///
    /// # Errors
    /// As [`update`](Self::update).
    pub async fn pause(&self) -> Result<(), PoolError> {
        self.update(PoolConfig::default().paused(true)).await
    }

    /// Starts works again.
    ///
    /// # Errors
    /// As [`update`](Self::update).
    pub async fn resume(&self) -> Result<(), PoolError> {
        self.update(PoolConfig::default().paused(false)).await
    }

    /// What the pool is doing, in numbers.
    ///
    /// # Errors
    /// When the runtime is gone or the storage failed.
    pub async fn diagnostics(&self) -> Result<Diagnostics, PoolError> {
        Ok(self.diagnosed().await?.0)
    }

    /// The same, with what its loop says of itself.
    pub(crate) async fn diagnosed(&self) -> Result<(Diagnostics, Inspection), PoolError> {
        let main = self.pool.main.get().ok_or(PoolError::Closed)?;
        let inspection = main.inspect().await.map_err(|_| PoolError::Closed)?;
        let pool = self.pool.id;
        let (counts, unregistered_names) =
            self.ask(|reply| Request::Counts { pool, reply }).await?;
        let Counts { waiting, running, completing, canceling, unregistered, oldest_due } = counts;
        let diagnostics = Diagnostics {
            pool: self.pool.name,
            waiting,
            running,
            completing,
            canceling,
            unregistered,
            unregistered_names,
            oldest_due,
            spare_capacity: (inspection.slots as u64).saturating_sub(running),
            run_status: inspection.status,
            turn: inspection.turn,
            report: inspection.report,
        };
        Ok((diagnostics, inspection))
    }

    /// The attempts that are running, those that started first in front.
    ///
    /// # Errors
    /// When the runtime is gone.
    pub async fn running(&self) -> Result<Vec<RunningWork>, PoolError> {
        let main = self.pool.main.get().ok_or(PoolError::Closed)?;
        let inspection = main.inspect().await.map_err(|_| PoolError::Closed)?;
        let work = |attempt: crate::actors::RunningAttempt| RunningWork {
            work_id: attempt.work_id,
            function: attempt.function,
            attempt: attempt.attempt,
            started: attempt.started,
            progress: self.shared.board.progress_of(attempt.work_id),
        };
        Ok(inspection.running.into_iter().map(work).collect())
    }

    /// Sends a request to the store and waits for its answer.
    pub(crate) async fn ask<T>(
        &self,
        request: impl FnOnce(Reply<T>) -> Request,
    ) -> Result<T, PoolError> {
        ask(&self.shared, request).await
    }

    fn send(
        &self,
        prepared: Prepared,
        reply: Option<Reply<Vec<EnqueueAnswer>>>,
    ) -> Result<(), EnqueueError> {
        if self.shared.is_closed() {
            return Err(EnqueueError::Closed);
        }
        self.hand_over(prepared, reply)
    }

    /// The runtime may end meanwhile: a store that is gone drops what it is sent.
    fn hand_over(
        &self,
        prepared: Prepared,
        reply: Option<Reply<Vec<EnqueueAnswer>>>,
    ) -> Result<(), EnqueueError> {
        let Prepared { works, fresh, on_finish } = prepared;
        let store = self.shared.store().ok_or(EnqueueError::Closed)?;
        let counted = Admitted::new(self.pool.clone(), works.len() as u64)?;
        let request = EnqueueRequest { works, fresh, on_finish, counted, reply };
        store.send(Request::Enqueue(request));
        Ok(())
    }

    async fn send_and_wait(&self, prepared: Prepared) -> Result<Vec<EnqueueAnswer>, EnqueueError> {
        let (reply, answer) = oneshot::channel();
        self.send(prepared, Some(reply))?;
        Ok(answer.await.map_err(|_| EnqueueError::Closed)??)
    }
}

/// Sends a request to the store and waits for its answer.
async fn ask<T>(
    shared: &Shared,
    request: impl FnOnce(Reply<T>) -> Request,
) -> Result<T, PoolError> {
    let (reply, answer) = oneshot::channel();
    shared.store().ok_or(PoolError::Closed)?.send(request(reply));
    Ok(answer.await.map_err(|_| PoolError::Closed)??)
}

/// A page of works of one pool or all.
pub(crate) async fn list(shared: &Shared, filter: WorkFilter) -> Result<Listing, PoolError> {
    filter.validate()?;
    ask(shared, |reply| Request::Works { filter, reply }).await
}

/// What a pool is doing. Made by [`Workpool::diagnostics`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Diagnostics {
    /// Which pool.
    pub pool: Name,
    /// Works that wait for their time or for a slot.
    pub waiting: u64,
    /// Attempts that occupy a slot.
    pub running: u64,
    /// Attempts that finished and were not handled yet.
    pub completing: u64,
    /// Cancelations that were not handled yet.
    pub canceling: u64,
    /// Works whose function is not registered in this process.
    pub unregistered: u64,
    /// The names of those functions.
    pub unregistered_names: Vec<Name>,
    /// When the oldest waiting work was or will be due.
    pub oldest_due: Option<Segment>,
    /// How many more attempts could run at once.
    pub spare_capacity: u64,
    /// Whether the loop runs, and what it waits for.
    pub run_status: RunStatus,
    /// The number of the last turn.
    pub turn: u64,
    /// What the pool has done since it was created.
    pub report: Report,
}

/// An attempt that is running. Made by [`Workpool::running`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunningWork {
    /// Which work.
    pub work_id: WorkId,
    /// Its function.
    pub function: Name,
    /// Which attempt it is; the first is 1.
    pub attempt: u32,
    /// When it started.
    pub started: Segment,
    /// What it last said.
    pub progress: Option<Arc<Progress>>,
}

type EnqueueFuture<T> = Pin<Box<dyn Future<Output = Result<T, EnqueueError>> + Send>>;

impl<F: Function<K>, K> Enqueue<&Workpool, F, K> {
    /// Sends the actor a [`Completed`] message when the work completes. By this process only: after a restart nobody
    /// is told.
    pub fn notify(self, recipient: impl Into<Recipient<Completed<F, F::Output>>>) -> Self
    where
        F: 'static,
        F::Output: Send,
    {
        self.on_finish(crate::actors::notifier::<F, K>(recipient.into()))
    }

    /// As [`Workpool::do_enqueue`], with everything that was said about the work.
    ///
    /// # Errors
    /// See [`Workpool::do_enqueue`].
    pub fn do_enqueue(self) -> Result<WorkHandle<F::Output>, EnqueueError> {
        let pool = self.target;
        let prepared = prepare(&self.functions, self.options, &pool.shared, &pool.pool)?;
        let work_id = prepared.works[0].0.work_id;
        pool.send(prepared, None)?;
        Ok(pool.work(work_id))
    }
}

impl<F: Function<K>, K> IntoFuture for Enqueue<&Workpool, F, K> {
    type Output = Result<WorkHandle<F::Output>, EnqueueError>;
    type IntoFuture = EnqueueFuture<WorkHandle<F::Output>>;

    fn into_future(self) -> Self::IntoFuture {
        let pool = self.target.clone();
        let prepared = prepare(&self.functions, self.options, &pool.shared, &pool.pool);
        Box::pin(async move {
            let prepared = prepared?;
            let work_id = prepared.works[0].0.work_id;
            pool.send_and_wait(prepared).await?;
            Ok(pool.work(work_id))
        })
    }
}

impl<F: Function<K>, K> IntoFuture for Enqueue<Batch<'_>, F, K> {
    type Output = Result<WorkBatch<F::Output>, EnqueueError>;
    type IntoFuture = EnqueueFuture<WorkBatch<F::Output>>;

    fn into_future(self) -> Self::IntoFuture {
        let pool = self.target.0.clone();
        let prepared = prepare(&self.functions, self.options, &pool.shared, &pool.pool);
        Box::pin(async move {
            let prepared = prepared?;
            let ids: Vec<_> = prepared.works.iter().map(|(spec, _)| spec.work_id).collect();
            if !ids.is_empty() {
                pool.send_and_wait(prepared).await?;
            }
            Ok(WorkBatch::new(pool, ids))
        })
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use crate::doctest::{self, Double};

    #[test]
    fn works_that_a_store_that_is_gone_was_sent_are_counted_no_more() {
        doctest::run(async {
            let runtime = doctest::runtime().await?;
            let pool = runtime.pool("default")?;
            let work = pool.enqueue(Double(1));
            let prepared = prepare(&work.functions, work.options, &pool.shared, &pool.pool)?;
            // It was not closed when it was looked at.
            runtime.shutdown(Duration::ZERO).await;
            let (reply, answer) = oneshot::channel();
            pool.hand_over(prepared, Some(reply))?;
            assert!(answer.await.is_err());
            assert_eq!(pool.pending(), 0);
            Ok(())
        });
    }
}
