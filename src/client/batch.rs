//! Handles on jobs that were enqueued together.

use std::marker::PhantomData;

use serde::de::DeserializeOwned;

use super::{Client, JoinError, PoolError, WorkHandle};
use crate::engine::arrivals::{CancelAnswer, EnqueueAnswer};
use crate::model::{WorkId, WorkStatus};

/// Handles on jobs that were enqueued together. Made by awaiting
/// [`Workpool::enqueue_batch`](crate::Workpool::enqueue_batch).
///
/// ```
/// # use actix_workpool::doctest::{self, Double};
/// # doctest::run(async {
/// # let runtime = doctest::runtime().await?;
/// # let pool = runtime.pool("default")?;
/// let works = pool.enqueue_batch([Double(1), Double(2)]).await?;
/// let results = works.join().await;
/// assert_eq!(results, [Ok(2), Ok(4)]);
/// assert_eq!((works.ids().len(), works.duplicates()), (2, 0));
/// # runtime.shutdown(std::time::Duration::ZERO).await;
/// # Ok(()) });
/// ```
pub struct WorkBatch<O> {
    client: Client,
    ids: Vec<WorkId>,
    /// Whether each job was there before; empty if none was.
    existed: Vec<bool>,
    output: PhantomData<fn() -> O>,
}

impl<O> std::fmt::Debug for WorkBatch<O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkBatch").field("works", &self.ids.len()).finish_non_exhaustive()
    }
}

impl<O> WorkBatch<O> {
    pub(super) fn new(client: Client, ids: Vec<WorkId>, answers: &[EnqueueAnswer]) -> Self {
        let is_duplicate = |answer: &EnqueueAnswer| *answer == EnqueueAnswer::Duplicate;
        let existed = match answers.iter().any(is_duplicate) {
            true => answers.iter().map(is_duplicate).collect(),
            false => Vec::new(),
        };
        WorkBatch { client, ids, existed, output: PhantomData }
    }

    /// Returns the number of jobs that the enqueue found under their chosen ids and did not enqueue again.
    /// [`WorkHandle::is_new`] tells which.
    #[must_use]
    pub fn duplicates(&self) -> usize {
        self.existed.iter().filter(|existed| **existed).count()
    }

    /// Returns the ids, in the order of the jobs.
    #[must_use]
    pub fn ids(&self) -> &[WorkId] {
        &self.ids
    }

    /// Returns a handle on each job, in order.
    pub fn handles(&self) -> impl ExactSizeIterator<Item = WorkHandle<O>> + '_ {
        self.ids.iter().enumerate().map(|(at, work_id)| {
            let existed = self.existed.get(at).copied().unwrap_or(false);
            WorkHandle::new(self.client.clone(), *work_id).new_if(!existed)
        })
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
