//! The handle on a job: status, watch, cancel, join.

use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio_stream::Stream;

use super::{Client, EnqueueError, JoinError, PoolError};
use crate::engine::arrivals::{CancelAnswer, PriorityAnswer, RetryAnswer, RunNowAnswer};
use crate::engine::explain::Explanation;
use crate::model::{Outcome, Priority, WorkId, WorkStatus, decode};
use crate::protocol::Question;
use crate::shared::sync::WatchStream;

/// A handle on one job. Dropping it does not affect the job.
///
/// ```
/// # use actix_workpool::doctest::{self, Double};
/// use std::time::Duration;
/// # doctest::run(async {
/// # let runtime = doctest::runtime().await?;
/// # let pool = runtime.pool("default")?;
/// let work = pool.enqueue(Double(21)).run_after(Duration::from_secs(60)).await?;
/// println!("{}", work.explain().await?);
/// work.run_now().await?;
/// assert_eq!(work.join().await?, 42);
/// assert!(work.status().await?.is_final());
/// # runtime.shutdown(std::time::Duration::ZERO).await;
/// # Ok(()) });
/// ```
pub struct WorkHandle<O> {
    client: Client,
    work_id: WorkId,
    is_new: bool,
    output: PhantomData<fn() -> O>,
}

impl<O> Clone for WorkHandle<O> {
    fn clone(&self) -> Self {
        WorkHandle { client: self.client.clone(), ..*self }
    }
}

impl<O> std::fmt::Debug for WorkHandle<O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkHandle").field("work_id", &self.work_id).finish_non_exhaustive()
    }
}

impl<O> WorkHandle<O> {
    pub(super) fn new(client: Client, work_id: WorkId) -> WorkHandle<O> {
        WorkHandle { client, work_id, is_new: false, output: PhantomData }
    }

    /// Notes whether the enqueue has made the job.
    pub(super) fn new_if(self, is_new: bool) -> WorkHandle<O> {
        WorkHandle { is_new, ..self }
    }

    /// Returns `true` if the awaited enqueue that this handle comes from has enqueued the job.
    ///
    /// `false` if it found a job of the chosen id, waiting, running or finished, or one that holds the
    /// [unique key](crate::Unique), and the handle is on that job: the job may be of another function or have other
    /// arguments. Also `false` for all other handles, as those of [`do_enqueue`](crate::Workpool::do_enqueue), which
    /// does not wait for the answer.
    ///
    /// ```
    /// # actix_workpool::doctest::run(async {
    /// # let runtime = actix_workpool::doctest::runtime().await?;
    /// # use actix_workpool::{WorkId, doctest::Double};
    /// # use std::time::Duration;
    /// let pool = runtime.pool("default")?;
    /// let id = WorkId::from_name("invoice-2026-07");
    /// assert!(pool.enqueue(Double(21)).id(id).await?.is_new());
    /// assert!(!pool.enqueue(Double(21)).id(id).await?.is_new());
    /// # runtime.shutdown(Duration::ZERO).await;
    /// # Ok(()) });
    /// ```
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Returns the job's id.
    #[must_use]
    pub fn id(&self) -> WorkId {
        self.work_id
    }

    /// Returns the status of the job. See [`Workpool::status`](crate::Workpool::status).
    ///
    /// # Errors
    /// Fails if the runtime is gone or the storage failed.
    pub async fn status(&self) -> Result<WorkStatus, PoolError> {
        self.client.status(self.work_id).await
    }

    /// Explains why the job waits or runs. See [`Workpool::explain`](crate::Workpool::explain).
    ///
    /// # Errors
    /// Fails if the runtime is gone.
    pub async fn explain(&self) -> Result<Explanation, PoolError> {
        self.client.explain(self.work_id).await
    }

    /// Returns a stream of statuses: the current one, then each change. It ends after a final status, or with the
    /// runtime.
    ///
    /// A slow reader sees the latest status, not every one.
    #[must_use]
    pub fn watch(&self) -> Watch {
        let receiver = self.client.shared.board.watch(self.work_id);
        // If the runtime is gone, the watch has already ended.
        let _ = self.client.send(Question::Observe { work_id: self.work_id });
        Watch {
            changes: Some(WatchStream::new(receiver)),
            last: None,
            client: self.client.clone(),
            work_id: self.work_id,
        }
    }

    /// Cancels the job. See [`Workpool::cancel`](crate::Workpool::cancel).
    ///
    /// # Errors
    /// Fails if the runtime is gone or the storage failed.
    pub async fn cancel(&self) -> Result<CancelAnswer, PoolError> {
        self.client.cancel(self.work_id).await
    }

    /// Cancels the job, and drops a running attempt after `grace`. See [`Workpool::abort`](crate::Workpool::abort).
    ///
    /// # Errors
    /// Fails if the runtime is gone or the storage failed.
    pub async fn abort(&self, grace: Duration) -> Result<CancelAnswer, PoolError> {
        self.client.abort(self.work_id, grace).await
    }

    /// Makes the job due now. See [`Workpool::run_now`](crate::Workpool::run_now).
    ///
    /// # Errors
    /// Fails if the runtime is gone or the storage failed.
    pub async fn run_now(&self) -> Result<RunNowAnswer, PoolError> {
        self.client.run_now(self.work_id).await
    }

    /// Changes the job's priority while it waits. See [`Workpool::set_priority`](crate::Workpool::set_priority).
    ///
    /// # Errors
    /// Fails if the runtime is gone or the storage failed.
    pub async fn set_priority(&self, priority: Priority) -> Result<PriorityAnswer, PoolError> {
        self.client.set_priority(self.work_id, priority).await
    }

    /// Enqueues a failed job once more. See [`Workpool::retry`](crate::Workpool::retry).
    ///
    /// # Errors
    /// Fails if its pool is full, the runtime is gone or the storage failed.
    pub async fn retry(&self) -> Result<RetryAnswer, EnqueueError> {
        self.client.retry(self.work_id).await
    }
}

impl<O: DeserializeOwned> WorkHandle<O> {
    /// Waits for the outcome. Cancel-safe: you can drop the future and join again.
    ///
    /// # Errors
    /// Fails if the job failed or was canceled, is not known, or the runtime is gone.
    pub async fn join(&self) -> Result<O, JoinError> {
        let row = self.client.outcome(self.work_id).await?;
        match &row.outcome {
            Outcome::Success(output) => {
                decode(output.as_bytes()).map_err(|failure| JoinError::Decode(failure.message))
            }
            Outcome::Failed(failure) => {
                Err(JoinError::Failed { attempts: row.attempts, failure: failure.clone() })
            }
            Outcome::Canceled => Err(JoinError::Canceled),
        }
    }
}

/// The changes of one job's status, as a [`Stream`]. Made by [`WorkHandle::watch`].
///
/// ```
/// # use actix_workpool::doctest::{self, Double};
/// # doctest::run(async {
/// # let runtime = doctest::runtime().await?;
/// # let pool = runtime.pool("default")?;
/// let work = pool.enqueue(Double(21)).await?;
/// let mut watch = work.watch();
/// while let Some(status) = watch.next().await {
///     println!("{status:?}"); // Pending, Running, Finished; some may be skipped.
/// }
/// assert!(work.status().await?.is_final());
/// # runtime.shutdown(std::time::Duration::ZERO).await;
/// # Ok(()) });
/// ```
pub struct Watch {
    changes: Option<WatchStream<Option<WorkStatus>>>,
    last: Option<WorkStatus>,
    client: Client,
    work_id: WorkId,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("work_id", &self.work_id).finish_non_exhaustive()
    }
}

impl Watch {
    /// Returns the next change; `None` after a final status or when the runtime is gone. Cancel-safe.
    pub async fn next(&mut self) -> Option<WorkStatus> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl Stream for Watch {
    type Item = WorkStatus;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<WorkStatus>> {
        loop {
            let Some(changes) = &mut self.changes else { return Poll::Ready(None) };
            match ready!(Pin::new(changes).poll_next(cx)) {
                // The store has not answered yet.
                Some(None) => {}
                // The store's first answer may come after the change that it reports.
                Some(status) if status == self.last => {}
                Some(Some(status)) => {
                    if status.is_final() {
                        self.changes = None;
                    }
                    self.last = Some(status.clone());
                    return Poll::Ready(Some(status));
                }
                None => {
                    self.changes = None;
                    return Poll::Ready(None);
                }
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.changes = None;
        self.client.shared.board.unwatch(self.work_id);
    }
}
