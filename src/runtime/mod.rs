//! The runtime: what is registered, how it starts, how it ends.

mod blocking;
mod builder;
mod error;

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::actors::Actors;
use crate::client::{Client, EnqueueError, PoolError, QueryError, Workpool};
use crate::engine::arrivals::{CancelAnswer, RetryAnswer, RunNowAnswer};
use crate::engine::explain::Explanation;
use crate::functions::Query;
use crate::model::{
    Name, PoolConfig, WorkFilter, WorkId, WorkPage, WorkStatus, decode, validate_name,
};
use crate::protocol::{Drained, LoopMessage, Question};
use crate::shared::sync::oneshot;
use blocking::BlockingThreads;

pub use builder::RuntimeBuilder;
pub use error::StartError;

/// How long functions are given to end, once they are told at the end of a shutdown's grace, before they are dropped.
const NOTICE: Duration = Duration::from_millis(500);

/// How long handing back may take after that.
const HAND_BACK_LIMIT: Duration = Duration::from_secs(10);

/// Running pools over one store.
///
/// Cheap to clone. When the last clone is dropped without [`shutdown`](Runtime::shutdown), everything ends at once:
/// running attempts are dropped, and a durable store recovers them as lost when it is opened again.
#[derive(Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    actors: Actors,
    _blocking: BlockingThreads,
    /// Taken by the first shutdown; a second one waits for it.
    shutdown: tokio::sync::Mutex<Option<ShutdownReport>>,
    /// Serializes the creation of pools.
    creating: tokio::sync::Mutex<()>,
}

/// What a shutdown has left. Made by [`Runtime::shutdown`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ShutdownReport {
    /// Attempts that ended in the time they were given.
    pub finished: u64,
    /// Attempts that were returned to the queue; they are not counted as an attempt, and run again when the store is opened again.
    pub returned: u64,
    /// Jobs without an outcome, those returned to the queue included. In memory they are gone; a durable store has them.
    pub pending: u64,
}

impl ShutdownReport {
    fn count(&mut self, drained: Drained) {
        self.finished += drained.finished;
        self.returned += drained.returned;
    }
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime")
            .field("pools", &self.inner.client.shared.pools())
            .finish_non_exhaustive()
    }
}

impl Runtime {
    fn new(client: Client, actors: Actors, blocking: BlockingThreads) -> Runtime {
        let inner = Inner {
            client,
            actors,
            _blocking: blocking,
            shutdown: tokio::sync::Mutex::new(None),
            creating: tokio::sync::Mutex::new(()),
        };
        Runtime { inner: Arc::new(inner) }
    }

    /// Describes a runtime; see [`RuntimeBuilder`].
    pub fn builder() -> RuntimeBuilder {
        RuntimeBuilder::new()
    }

    /// The pool of that name.
    ///
    /// # Errors
    /// When there is none.
    pub fn pool(&self, name: &str) -> Result<Workpool, PoolError> {
        Workpool::find(&self.inner.client, name)
    }

    /// Every pool, in the order of their names.
    #[must_use]
    pub fn pools(&self) -> Vec<Workpool> {
        let client = &self.inner.client;
        let pools = client.shared.pools().into_iter();
        pools.map(|pool| Workpool::new(client.clone(), pool)).collect()
    }

    /// The way into the runtime.
    #[cfg_attr(not(feature = "ops"), allow(dead_code))]
    pub(crate) fn client(&self) -> &Client {
        &self.inner.client
    }

    /// Where a job of any pool is in its life. See [`Workpool::status`].
    ///
    /// # Errors
    /// When the runtime is gone or the storage failed.
    pub async fn status(&self, work_id: WorkId) -> Result<WorkStatus, PoolError> {
        self.inner.client.status(work_id).await
    }

    /// Why a job of any pool is where it is. See [`Workpool::explain`].
    ///
    /// # Errors
    /// When the runtime is gone.
    pub async fn explain(&self, work_id: WorkId) -> Result<Explanation, PoolError> {
        self.inner.client.explain(work_id).await
    }

    /// Cancels a job of any pool. See [`Workpool::cancel`].
    ///
    /// # Errors
    /// When the runtime is gone or the storage failed.
    pub async fn cancel(&self, work_id: WorkId) -> Result<CancelAnswer, PoolError> {
        self.inner.client.cancel(work_id).await
    }

    /// Cancels a job of any pool, and drops a running attempt after `grace`. See [`Workpool::abort`].
    ///
    /// # Errors
    /// When the runtime is gone or the storage failed.
    pub async fn abort(&self, work_id: WorkId, grace: Duration) -> Result<CancelAnswer, PoolError> {
        self.inner.client.abort(work_id, grace).await
    }

    /// Ends the wait of a job of any pool: it is due now. See [`Workpool::run_now`].
    ///
    /// # Errors
    /// When the runtime is gone or the storage failed.
    pub async fn run_now(&self, work_id: WorkId) -> Result<RunNowAnswer, PoolError> {
        self.inner.client.run_now(work_id).await
    }

    /// Enqueues a failed job of any pool once more. See [`Workpool::retry`].
    ///
    /// # Errors
    /// When its pool is full, the runtime is gone or the storage failed.
    pub async fn retry(&self, work_id: WorkId) -> Result<RetryAnswer, EnqueueError> {
        self.inner.client.retry(work_id).await
    }

    /// Jobs of every pool by state, a page at a time: see [`Workpool::works`]. Also of pools that the store has from an
    /// earlier run and that were not started.
    ///
    /// # Errors
    /// When the page's limit is out of its range, the runtime is gone, or the storage failed.
    pub async fn works(&self, filter: WorkFilter) -> Result<WorkPage, PoolError> {
        Ok(self.inner.client.list(filter).await?.page)
    }

    /// Creates a pool, or takes one of that name that the store has from an earlier run.
    ///
    /// # Errors
    /// When a pool of that name is running, a value is out of its range, or the storage failed.
    pub async fn create_pool(&self, name: &str, config: PoolConfig) -> Result<Workpool, PoolError> {
        validate_name(name)?;
        config.validate()?;
        let client = &self.inner.client;
        let _one_at_a_time = self.inner.creating.lock().await;
        if client.shared.is_closed() {
            return Err(PoolError::Closed);
        }
        let name = Name::intern(name);
        if client.shared.pool(name.as_str()).is_some() {
            return Err(PoolError::Duplicate(name));
        }
        self.inner.actors.add_pools(vec![(name, config)]).await?;
        Workpool::find(client, name.as_str())
    }

    /// Runs a query now, on what is committed.
    ///
    /// # Errors
    /// When the query is not registered, fails, or the runtime is gone.
    pub async fn query<Q: Query>(&self, query: Q) -> Result<Q::Output, QueryError> {
        let function = Name::from_static(Q::NAME);
        let client = &self.inner.client;
        client.shared.catalog.get(function).ok_or(QueryError::UnknownFunction(function))?;
        let args = serde_json::to_vec(&query)?;
        let asked = client.ask(|reply| Question::Query { function, args, reply }).await;
        let output = asked.map_err(|error| match error {
            PoolError::Storage(error) => QueryError::Storage(error),
            _ => QueryError::Closed,
        })?;
        decode(output.map_err(QueryError::Failed)?.as_bytes()).map_err(QueryError::Failed)
    }

    /// Ends the runtime: nothing is enqueued or started any more; what runs may go on for `grace`; then functions are
    /// told ([`ActionContext::canceled`](crate::ActionContext::canceled)), and a little later what is left is dropped and returned to the queue,
    /// without using an attempt. Returns when everything is written and the storage is free again.
    ///
    /// Calling it twice answers the same. Not cancel-safe: once begun, it should be awaited to the end.
    pub async fn shutdown(&self, grace: Duration) -> ShutdownReport {
        let mut done = self.inner.shutdown.lock().await;
        if let Some(report) = *done {
            return report;
        }
        let client = &self.inner.client;
        // A pool that is being created is either drained with the others or not created.
        let creating = self.inner.creating.lock().await;
        client.shared.close();
        drop(creating);
        let pools = client.shared.pools();
        let mut draining = Vec::with_capacity(pools.len());
        for pool in &pools {
            let (reply, drained) = oneshot::channel();
            if client.tell_loop(pool.id, LoopMessage::Drain(reply)).is_ok() {
                draining.push((pool.id, drained));
            }
        }
        // A grace that never ends has no deadline.
        let deadline = tokio::time::Instant::now().checked_add(grace);
        let mut report = ShutdownReport::default();
        let mut late = Vec::new();
        for (pool, mut drained) in draining {
            let in_time = match deadline {
                Some(deadline) => tokio::time::timeout_at(deadline, &mut drained).await.ok(),
                None => Some((&mut drained).await),
            };
            match in_time {
                Some(in_time) => report.count(in_time.unwrap_or_default()),
                None => {
                    // A loop that is gone runs nothing.
                    let _ = client.tell_loop(pool, LoopMessage::ReturnRunning { notice: NOTICE });
                    late.push(drained);
                }
            }
        }
        // A loop whose storage is broken cannot hand anything back.
        let limit = tokio::time::Instant::now() + NOTICE + HAND_BACK_LIMIT;
        for drained in late {
            if let Ok(Ok(drained)) = tokio::time::timeout_at(limit, drained).await {
                report.count(drained);
            }
        }
        self.inner.actors.close().await;
        report.pending = pools.iter().map(|pool| pool.pending()).sum();
        *done = Some(report);
        report
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.client.shared.close();
    }
}
