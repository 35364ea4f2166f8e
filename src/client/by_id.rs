//! Operations on any job by its id, shared by all handles.

use std::future::Future;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::enqueue::Prepared;
use super::{EnqueueError, JoinError, PoolError, Schedule};
use crate::engine::arrivals::{
    CancelAnswer, EnqueueAnswer, PriorityAnswer, RetryAnswer, RunNowAnswer,
};
use crate::engine::explain::{self, Explanation, Found, PoolNow, Surroundings, Why};
use crate::model::{Finished, PoolId, Priority, Segment, WorkFilter, WorkId, WorkStatus};
use crate::protocol::{
    CancelAll, Canceled, Command, Enqueue, Inspection, Listener, Listing, LoopMessage, Ports,
    Question, Reply, Request,
};
use crate::shared::sync::oneshot;
use crate::shared::{Admitted, PoolShared, Shared};

/// The client of a runtime. `Runtime`, `Workpool` and `WorkHandle` hold one and use its operations.
///
/// It does not keep the runtime alive: once the runtime is gone, every call fails as closed.
#[derive(Clone)]
pub(crate) struct Client {
    pub shared: Arc<Shared>,
    pub ports: Arc<Ports>,
    /// The schedules of this process, in the order of their ids.
    pub schedules: Arc<[Arc<Schedule>]>,
    /// `true` if an enqueue returns only when its jobs have their outcome.
    #[cfg(feature = "testing")]
    is_inline: bool,
}

impl Client {
    pub fn new(shared: Arc<Shared>, schedules: Vec<Schedule>) -> Client {
        let mut schedules: Vec<_> = schedules.into_iter().map(Arc::new).collect();
        schedules.sort_by_key(|schedule| schedule.id);
        Client {
            shared,
            ports: Arc::default(),
            schedules: schedules.into(),
            #[cfg(feature = "testing")]
            is_inline: false,
        }
    }

    /// Returns a client whose enqueues return only when their jobs have their outcome.
    #[cfg(feature = "testing")]
    pub fn inline(&self) -> Client {
        Client { is_inline: true, ..self.clone() }
    }

    /// Returns the jobs whose outcomes an inline enqueue waits for if they are new: those that are due, unless the pool
    /// is paused.
    #[cfg(feature = "testing")]
    fn awaited(&self, pool: &PoolShared, prepared: &Prepared) -> Vec<WorkId> {
        // All of them are due at the same time.
        let now = self.shared.seams.segment();
        let is_due = prepared.works.first().is_some_and(|(_, due)| *due <= now);
        match self.is_inline && is_due && pool.settings().slots() > 0 {
            true => prepared.works.iter().map(|(spec, _)| spec.work_id).collect(),
            false => Vec::new(),
        }
    }

    /// Waits for the outcomes of new jobs.
    #[cfg(feature = "testing")]
    async fn run_inline(&self, awaited: Vec<WorkId>, answers: &[EnqueueAnswer]) {
        for (work_id, answer) in awaited.into_iter().zip(answers) {
            let work_id = match *answer {
                EnqueueAnswer::Enqueued => work_id,
                EnqueueAnswer::Replaced(holder) => holder,
                EnqueueAnswer::Duplicate | EnqueueAnswer::Kept(_) => continue,
            };
            // The caller learns the outcome from its handle.
            let _ = self.outcome(work_id).await;
        }
    }

    /// Waits until a job has its outcome.
    pub async fn outcome(&self, work_id: WorkId) -> Result<Arc<Finished>, JoinError> {
        if let Some(row) = self.shared.board.finished(work_id) {
            return Ok(row);
        }
        let (reply, outcome) = oneshot::channel();
        let listener = Listener::Join(reply);
        self.send(Question::Listen { work_id, listener }).map_err(|_| JoinError::Closed)?;
        outcome.await.map_err(|_| JoinError::Closed)??.ok_or(JoinError::Unknown(work_id))
    }

    /// Sends a request to the store, without waiting.
    pub fn send(&self, request: impl Into<Request>) -> Result<(), PoolError> {
        self.ports.store().ok_or(PoolError::Closed)?.send(request.into());
        Ok(())
    }

    /// Sends a request to the store and waits for its answer.
    pub async fn ask<T, R: Into<Request>>(
        &self,
        request: impl FnOnce(Reply<T>) -> R,
    ) -> Result<T, PoolError> {
        let (reply, answer) = oneshot::channel();
        self.send(request(reply))?;
        Ok(answer.await.map_err(|_| PoolError::Closed)??)
    }

    /// Sends a message to a pool's loop.
    pub fn tell_loop(&self, pool: PoolId, message: LoopMessage) -> Result<(), PoolError> {
        self.ports.pool(pool).ok_or(PoolError::Closed)?.send(message);
        Ok(())
    }

    /// Asks a pool's loop and waits for its answer.
    pub async fn ask_loop<T>(
        &self,
        pool: PoolId,
        message: impl FnOnce(oneshot::Sender<T>) -> LoopMessage,
    ) -> Result<T, PoolError> {
        let (reply, answer) = oneshot::channel();
        self.tell_loop(pool, message(reply))?;
        answer.await.map_err(|_| PoolError::Closed)
    }

    pub async fn inspect(&self, pool: PoolId) -> Result<Inspection, PoolError> {
        self.ask_loop(pool, LoopMessage::Inspect).await
    }

    /// Sends prepared jobs to the store. If the runtime ends meanwhile, they are dropped with the message.
    pub fn hand_over(
        &self,
        pool: &Arc<PoolShared>,
        prepared: Prepared,
        reply: Option<Reply<Vec<EnqueueAnswer>>>,
    ) -> Result<(), EnqueueError> {
        let Prepared { works, fresh, conflict, retry_of, on_finish } = prepared;
        let store = self.ports.store().ok_or(EnqueueError::Closed)?;
        let counted = Admitted::new(pool.clone(), works.len() as u64)?;
        let enqueue = Enqueue { works, fresh, conflict, retry_of, on_finish, counted, reply };
        store.send(Command::Enqueue(enqueue).into());
        Ok(())
    }

    /// Enqueues prepared jobs, without waiting for the acknowledgement.
    pub fn submit(
        &self,
        pool: &Arc<PoolShared>,
        prepared: Prepared,
        reply: Option<Reply<Vec<EnqueueAnswer>>>,
    ) -> Result<(), EnqueueError> {
        match self.shared.is_closed() {
            true => Err(EnqueueError::Closed),
            false => self.hand_over(pool, prepared, reply),
        }
    }

    /// Enqueues prepared jobs and waits until they are acknowledged.
    pub async fn enqueue(
        &self,
        pool: &Arc<PoolShared>,
        prepared: Prepared,
    ) -> Result<Vec<EnqueueAnswer>, EnqueueError> {
        let (reply, answer) = oneshot::channel();
        #[cfg(feature = "testing")]
        let awaited = self.awaited(pool, &prepared);
        self.submit(pool, prepared, Some(reply))?;
        let answers = answer.await.map_err(|_| EnqueueError::Closed)??;
        #[cfg(feature = "testing")]
        self.run_inline(awaited, &answers).await;
        Ok(answers)
    }

    pub async fn status(&self, work_id: WorkId) -> Result<WorkStatus, PoolError> {
        match self.shared.board.status(work_id) {
            Some(status) => Ok(status),
            None => {
                let mut statuses = self.statuses(vec![work_id]).await?;
                Ok(statuses.pop().unwrap_or(WorkStatus::Unknown))
            }
        }
    }

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

    /// Reads the statuses of these jobs from the tables.
    pub async fn statuses(&self, work_ids: Vec<WorkId>) -> Result<Vec<WorkStatus>, PoolError> {
        self.ask(|reply| Question::Statuses { work_ids, reply }).await
    }

    /// Returns a page of jobs of one pool or of all.
    pub async fn list(&self, filter: WorkFilter) -> Result<Listing, PoolError> {
        filter.validate()?;
        self.ask(|reply| Question::Works { filter, reply }).await
    }

    pub async fn cancel(&self, work_id: WorkId) -> Result<CancelAnswer, PoolError> {
        Ok(self.cancel_one(work_id).await?.answer)
    }

    pub async fn cancel_batch(
        &self,
        work_ids: Vec<WorkId>,
    ) -> Result<Vec<CancelAnswer>, PoolError> {
        let canceled = self.ask(|reply| Command::Cancel { work_ids, reply }).await?;
        Ok(canceled.into_iter().map(|canceled| canceled.answer).collect())
    }

    async fn cancel_one(&self, work_id: WorkId) -> Result<Canceled, PoolError> {
        let work_ids = vec![work_id];
        let mut canceled = self.ask(|reply| Command::Cancel { work_ids, reply }).await?;
        let unknown = Canceled { answer: CancelAnswer::NotFound, pool: None };
        Ok(canceled.pop().unwrap_or(unknown))
    }

    pub async fn cancel_all(&self, pool: PoolId) -> Result<u64, PoolError> {
        let until = self.shared.seams.segment();
        self.ask(|reply| {
            let (found, search) = (Vec::new(), Some(None));
            Command::CancelAll(CancelAll { pool, until, found, search, requested: 0, reply })
        })
        .await
    }

    pub async fn abort(&self, work_id: WorkId, grace: Duration) -> Result<CancelAnswer, PoolError> {
        let Canceled { answer, pool } = self.cancel_one(work_id).await?;
        if let Some(pool) = pool {
            // A pool that this process has not started has no attempt to drop.
            let _ = self.tell_loop(pool, LoopMessage::Abort { work_id, after: grace });
        }
        Ok(answer)
    }

    pub async fn run_now(&self, work_id: WorkId) -> Result<RunNowAnswer, PoolError> {
        self.ask(|reply| Command::RunNow { work_id, reply }).await
    }

    pub async fn set_priority(
        &self,
        work_id: WorkId,
        priority: Priority,
    ) -> Result<PriorityAnswer, PoolError> {
        self.ask(|reply| Command::SetPriority { work_id, priority, reply }).await
    }

    pub async fn retry(&self, work_id: WorkId) -> Result<RetryAnswer, EnqueueError> {
        let status = self.status(work_id).await.map_err(|error| match error {
            PoolError::Storage(error) => EnqueueError::Storage(error),
            _ => EnqueueError::Closed,
        });
        let row = match status? {
            WorkStatus::Finished(work) => work.row().clone(),
            WorkStatus::Unknown => return Ok(RetryAnswer::NotFound),
            WorkStatus::Pending { .. } | WorkStatus::Running { .. } => {
                return Ok(RetryAnswer::NotFailed);
            }
        };
        if let Some(again) = row.retried_as() {
            return Ok(RetryAnswer::AlreadyEnqueued(again));
        }
        let Some(failed) = row.details.as_ref().and_then(|details| details.spec.as_ref()) else {
            return Ok(RetryAnswer::NotFailed);
        };
        let Some(pool) = self.shared.pool_by_id(row.pool) else {
            return Ok(RetryAnswer::PoolNotStarted);
        };
        if !self.shared.catalog.can_run(failed) {
            return Ok(RetryAnswer::NotRegistered);
        }
        let (retry_of, now) = (Some(work_id), self.shared.seams.segment());
        let (spec, work_id) = (failed.once_more(now), work_id.once_more());
        let once = Prepared { retry_of, ..Prepared::one(spec, now) };
        Ok(match self.enqueue(&pool, once).await?[..] {
            [EnqueueAnswer::Enqueued] => RetryAnswer::Enqueued(work_id),
            [EnqueueAnswer::Kept(holder)] => RetryAnswer::AlreadyEnqueued(holder),
            _ => RetryAnswer::AlreadyEnqueued(work_id),
        })
    }

    pub async fn explain(&self, work_id: WorkId) -> Result<Explanation, PoolError> {
        let shared = &self.shared;
        if let Some(row) = shared.board.finished(work_id) {
            let found = Found::Finished(row);
            return Ok(explain::explain(work_id, &found, &self.surroundings(&found, None)));
        }
        // Read before the question is sent: its answer may be the first success after the failure, and would clear it.
        let trouble = shared.health.failing_since();
        let trouble = trouble.map(|(since, error)| Why::StoreFailing {
            since: since.time(),
            error: error.to_string(),
        });
        let stalled = shared.health.stalled.notified();
        tokio::pin!(stalled);
        stalled.as_mut().enable();
        let asked = self.ask(|reply| Question::Explain { work_id, reply });
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
        let now = shared.seams.segment();
        match found {
            Some(Ok(found)) => {
                let around = self.surroundings(&found, trouble);
                Ok(explain::explain(work_id, &found, &around))
            }
            Some(Err(PoolError::Storage(error))) => {
                let failing = Why::StoreFailing { since: now.time(), error: error.to_string() };
                Ok(explain::without_store(work_id, now, trouble.unwrap_or(failing)))
            }
            Some(Err(error)) => Err(error),
            None => {
                let since = shared.health.stalled_since(now).unwrap_or(now);
                Ok(explain::without_store(work_id, now, Why::StoreStalled { since: since.time() }))
            }
        }
    }

    /// Collects the facts for an explanation that are not in the tables.
    fn surroundings(&self, found: &Found, trouble: Option<Why>) -> Surroundings {
        let shared = &self.shared;
        let (pool, registered, board) = match found {
            Found::Work { work, .. } => (
                Some(work.spec.pool),
                shared.catalog.can_run(&work.spec),
                shared.board.status(work.spec.work_id),
            ),
            Found::Finished(row) => (Some(row.pool), true, None),
            Found::Nothing => (None, true, None),
        };
        let pool = pool.and_then(|pool| shared.pool_by_id(pool));
        Surroundings {
            at: shared.seams.segment(),
            trouble,
            shutting_down: shared.is_closed(),
            registered,
            pool: pool.map(|pool| PoolNow {
                name: pool.name,
                settings: pool.settings(),
                running: pool.gauge.running(),
                pace: pool.gauge.pace(),
                limited_until: pool.gauge.limited_until(),
            }),
            running: match board {
                Some(WorkStatus::Running { started, progress, .. }) => {
                    Some((Segment::of(started), progress))
                }
                _ => None,
            },
        }
    }
}
