//! Handles on jobs that were enqueued together.

use std::marker::PhantomData;

use serde::de::DeserializeOwned;

use super::{Client, JoinError, PoolError, WorkHandle};
use crate::engine::arrivals::CancelAnswer;
use crate::model::{WorkId, WorkStatus};

/// Handles on jobs that were enqueued together. Made by awaiting
/// [`Workpool::enqueue_batch`](crate::Workpool::enqueue_batch).
pub struct WorkBatch<O> {
    client: Client,
    ids: Vec<WorkId>,
    output: PhantomData<fn() -> O>,
}

impl<O> std::fmt::Debug for WorkBatch<O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkBatch").field("works", &self.ids.len()).finish_non_exhaustive()
    }
}

impl<O> WorkBatch<O> {
    pub(crate) fn new(client: Client, ids: Vec<WorkId>) -> Self {
        WorkBatch { client, ids, output: PhantomData }
    }

    /// Returns the ids, in the order in which the jobs were given.
    #[must_use]
    pub fn ids(&self) -> &[WorkId] {
        &self.ids
    }

    /// Returns a handle on each job, in order.
    pub fn handles(&self) -> impl ExactSizeIterator<Item = WorkHandle<O>> + '_ {
        self.ids.iter().map(|work_id| WorkHandle::new(self.client.clone(), *work_id))
    }

    /// Returns the status of each job, in order.
    ///
    /// # Errors
    /// Fails if the runtime is gone or the storage failed.
    pub async fn status(&self) -> Result<Vec<WorkStatus>, PoolError> {
        self.client.status_batch(&self.ids).await
    }

    /// Cancels all jobs in one commit.
    ///
    /// # Errors
    /// Fails if the runtime is gone or the storage failed.
    pub async fn cancel(&self) -> Result<Vec<CancelAnswer>, PoolError> {
        self.client.cancel_batch(self.ids.clone()).await
    }
}

impl<O: DeserializeOwned> WorkBatch<O> {
    /// Waits for all outcomes, and returns them in order. Cancel-safe.
    pub async fn join(&self) -> Vec<Result<O, JoinError>> {
        let mut outcomes = Vec::with_capacity(self.ids.len());
        for work in self.handles() {
            outcomes.push(work.join().await);
        }
        outcomes
    }
}
