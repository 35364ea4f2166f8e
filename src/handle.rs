//! Handles on works: status, watch, cancel, join.

use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio_stream::Stream;

use crate::board::WorkStatus;
use crate::committer::{Listener, Request};
use crate::engine::arrivals::CancelAnswer;
use crate::error::{JoinError, PoolError};
use crate::explain::Explanation;
use crate::model::{Finished, Outcome, WorkId};
use crate::pool::Workpool;
use crate::registry::decode;
use crate::sync::{WatchStream, oneshot};

/// A handle on one work. Dropping it changes nothing for the work.
pub struct WorkHandle<O> {
    pub(crate) pool: Workpool,
    pub(crate) work_id: WorkId,
    pub(crate) output: PhantomData<fn() -> O>,
}

impl<O> Clone for WorkHandle<O> {
    fn clone(&self) -> Self {
        WorkHandle { pool: self.pool.clone(), work_id: self.work_id, output: PhantomData }
    }
}

impl<O> std::fmt::Debug for WorkHandle<O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkHandle").field("work_id", &self.work_id).finish_non_exhaustive()
    }
}

impl<O> WorkHandle<O> {
    /// The work's id.
    #[must_use]
    pub fn id(&self) -> WorkId {
        self.work_id
    }

    /// Where the work is in its life. See [`Workpool::status`].
    ///
    /// # Errors
    /// When the runtime is gone or the storage failed.
    pub async fn status(&self) -> Result<WorkStatus, PoolError> {
        self.pool.status(self.work_id).await
    }

    /// Why the work is where it is. See [`Workpool::explain`].
    ///
    /// # Errors
    /// When the runtime is gone.
    pub async fn explain(&self) -> Result<Explanation, PoolError> {
        self.pool.explain(self.work_id).await
    }

    /// What becomes of the work, as a stream: the status now, then each change, and the end after a final one.
    ///
    /// One who reads slowly sees the latest status, not each. The stream also ends when the runtime does.
    #[must_use]
    pub fn watch(&self) -> Watch {
        let receiver = self.pool.shared.board.watch(self.work_id);
        if let Some(store) = self.pool.shared.store() {
            store.send(Request::Observe { work_id: self.work_id });
        }
        Watch {
            changes: Some(WatchStream::new(receiver)),
            last: None,
            pool: self.pool.clone(),
            work_id: self.work_id,
        }
    }

    /// Cancels the work. See [`Workpool::cancel`].
    ///
    /// # Errors
    /// When the runtime is gone or the storage failed.
    pub async fn cancel(&self) -> Result<CancelAnswer, PoolError> {
        self.pool.cancel(self.work_id).await
    }

    /// Cancels the work, and drops a running attempt after `grace`. See [`Workpool::abort`].
    ///
    /// # Errors
    /// When the runtime is gone or the storage failed.
    pub async fn abort(&self, grace: Duration) -> Result<CancelAnswer, PoolError> {
        self.pool.abort(self.work_id, grace).await
    }
}

impl<O: DeserializeOwned> WorkHandle<O> {
    /// Waits for the outcome. Cancel-safe: dropping the future changes nothing, and joining again is fine.
    ///
    /// # Errors
    /// When the work failed or was canceled, is not known, or the runtime is gone.
    pub async fn join(&self) -> Result<O, JoinError> {
        let row = match self.pool.shared.board.finished(self.work_id) {
            Some(row) => row,
            None => self.outcome().await?,
        };
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

    async fn outcome(&self) -> Result<std::sync::Arc<Finished>, JoinError> {
        let (reply, outcome) = oneshot::channel();
        let listener = Listener::Join(reply);
        let request = Request::Listen { work_id: self.work_id, listener };
        self.pool.shared.store().ok_or(JoinError::Closed)?.send(request);
        outcome.await.map_err(|_| JoinError::Closed)??.ok_or(JoinError::Unknown(self.work_id))
    }
}

/// The changes of one work's status, as a [`Stream`]. Made by [`WorkHandle::watch`].
pub struct Watch {
    changes: Option<WatchStream<Option<WorkStatus>>>,
    last: Option<WorkStatus>,
    pool: Workpool,
    work_id: WorkId,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("work_id", &self.work_id).finish_non_exhaustive()
    }
}

impl Watch {
    /// The next change; `None` after a final status or when the runtime is gone. Cancel-safe.
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
                // The store has not looked yet.
                Some(None) => {}
                // The store's first look may come after the change that it sees.
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
        self.pool.shared.board.unwatch(self.work_id);
    }
}

/// Handles on works that were enqueued together. Made by awaiting
/// [`Workpool::enqueue_batch`].
pub struct WorkBatch<O> {
    pool: Workpool,
    ids: Vec<WorkId>,
    output: PhantomData<fn() -> O>,
}

impl<O> std::fmt::Debug for WorkBatch<O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkBatch").field("works", &self.ids.len()).finish_non_exhaustive()
    }
}

impl<O> WorkBatch<O> {
    pub(crate) fn new(pool: Workpool, ids: Vec<WorkId>) -> Self {
        WorkBatch { pool, ids, output: PhantomData }
    }

    /// The ids, in the order in which the works were given.
    #[must_use]
    pub fn ids(&self) -> &[WorkId] {
        &self.ids
    }

    /// A handle on each work, in order.
    pub fn handles(&self) -> impl ExactSizeIterator<Item = WorkHandle<O>> + '_ {
        self.ids.iter().map(|work_id| self.pool.work(*work_id))
    }

    /// The status of each work, in order.
    ///
    /// # Errors
    /// When the runtime is gone or the storage failed.
    pub async fn status(&self) -> Result<Vec<WorkStatus>, PoolError> {
        self.pool.status_batch(&self.ids).await
    }

    /// Cancels all of them in one commit.
    ///
    /// # Errors
    /// When the runtime is gone or the storage failed.
    pub async fn cancel(&self) -> Result<Vec<CancelAnswer>, PoolError> {
        self.pool.cancel_batch(self.ids.clone()).await
    }
}

impl<O: DeserializeOwned> WorkBatch<O> {
    /// Waits for all outcomes, and answers them in order. Cancel-safe.
    pub async fn join(&self) -> Vec<Result<O, JoinError>> {
        let mut outcomes = Vec::with_capacity(self.ids.len());
        for work in self.handles() {
            outcomes.push(work.join().await);
        }
        outcomes
    }
}
