//! The runtime: its builder, start and shutdown.

mod blocking;
mod builder;
mod error;
mod shutdown;

use std::sync::Arc;
use std::time::Duration;

use crate::actors::Actors;
use crate::client::{
    Client, EnqueueError, PoolError, QueryError, ScheduleHandle, ScheduleStatus, Workpool,
};
use crate::engine::arrivals::{CancelAnswer, RetryAnswer, RunNowAnswer};
use crate::engine::explain::Explanation;
use crate::functions::Query;
use crate::model::{
    Name, PoolConfig, WorkFilter, WorkId, WorkPage, WorkStatus, decode, validate_name, write_typed,
};
use crate::protocol::Question;
use blocking::BlockingThreads;

pub use builder::RuntimeBuilder;
pub use error::StartError;
pub use shutdown::ShutdownReport;

/// A runtime: running pools over one store.
///
/// Cheap to clone. It has its own threads, which outlive the actix `System` or tokio runtime that it was started in, so
/// that [`shutdown`](Runtime::shutdown) works even after these have stopped. Dropping the last clone without a
/// shutdown ends everything: running attempts are told and then dropped, and their jobs return to the queue.
///
/// ```
/// # use actix_workpool::doctest::{self, Double};
/// use std::time::Duration;
///
/// use actix_workpool::{PoolConfig, Runtime};
/// # doctest::run(async {
/// let runtime = Runtime::builder()
///     .action::<Double>()
///     .pool("numbers", PoolConfig::default().max_parallelism(4))
///     .start()
///     .await?;
/// let work = runtime.pool("numbers")?.enqueue(Double(21)).await?;
/// assert_eq!(work.join().await?, 42);
/// let report = runtime.shutdown(Duration::from_secs(10)).await;
/// assert_eq!(report.pending, 0);
/// # Ok(()) });
/// ```
#[derive(Clone)]
pub struct Runtime {
    client: Client,
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    actors: Arc<Actors>,
    _blocking: BlockingThreads,
    /// The report, once the runtime is shut down. Locked by the first shutdown, so that a second one waits for it.
    shutdown: tokio::sync::Mutex<Option<ShutdownReport>>,
    /// Serializes the creation of pools.
    creating: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime")
            .field("pools", &self.client.shared.pools())
            .finish_non_exhaustive()
    }
}

impl Runtime {
    fn new(client: Client, actors: Actors, blocking: BlockingThreads) -> Runtime {
        let inner = Inner {
            client: client.clone(),
            actors: Arc::new(actors),
            _blocking: blocking,
            shutdown: tokio::sync::Mutex::new(None),
            creating: tokio::sync::Mutex::new(()),
        };
        Runtime { client, inner: Arc::new(inner) }
    }

    /// Returns a builder; see [`RuntimeBuilder`].
    pub fn builder() -> RuntimeBuilder {
        RuntimeBuilder::new()
    }

    /// Returns the pool of that name.
    ///
    /// # Errors
    /// Fails if there is no such pool.
    pub fn pool(&self, name: &str) -> Result<Workpool, PoolError> {
        Workpool::find(&self.client, name)
    }

    /// Returns every pool, in the order of their names.
    #[must_use]
    pub fn pools(&self) -> Vec<Workpool> {
        let client = &self.client;
        let pools = client.shared.pools().into_iter();
        pools.map(|pool| Workpool::new(client.clone(), pool)).collect()
    }

    /// Returns the same runtime, whose enqueues return only when the jobs have their outcome.
    #[cfg(feature = "testing")]
    pub(crate) fn inline(&self) -> Runtime {
        Runtime { client: self.client.inline(), ..self.clone() }
    }

    /// Returns the client of the runtime.
    #[cfg_attr(not(feature = "ops"), allow(dead_code))]
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Returns the status of a job of any pool. See [`Workpool::status`].
    ///
    /// # Errors
    /// Fails if the runtime is gone or the storage failed.
    pub async fn status(&self, work_id: WorkId) -> Result<WorkStatus, PoolError> {
        self.client.status(work_id).await
    }

    /// Explains why a job of any pool waits or runs. See [`Workpool::explain`].
    ///
    /// # Errors
    /// Fails if the runtime is gone.
    pub async fn explain(&self, work_id: WorkId) -> Result<Explanation, PoolError> {
        self.client.explain(work_id).await
    }

    /// Cancels a job of any pool. See [`Workpool::cancel`].
    ///
    /// # Errors
    /// Fails if the runtime is gone or the storage failed.
    pub async fn cancel(&self, work_id: WorkId) -> Result<CancelAnswer, PoolError> {
        self.client.cancel(work_id).await
    }

    /// Cancels a job of any pool, and drops a running attempt after `grace`. See [`Workpool::abort`].
    ///
    /// # Errors
    /// Fails if the runtime is gone or the storage failed.
    pub async fn abort(&self, work_id: WorkId, grace: Duration) -> Result<CancelAnswer, PoolError> {
        self.client.abort(work_id, grace).await
    }

    /// Makes a job of any pool due now. See [`Workpool::run_now`].
    ///
    /// # Errors
    /// Fails if the runtime is gone or the storage failed.
    pub async fn run_now(&self, work_id: WorkId) -> Result<RunNowAnswer, PoolError> {
        self.client.run_now(work_id).await
    }

    /// Enqueues a failed job of any pool once more. See [`Workpool::retry`].
    ///
    /// # Errors
    /// Fails if its pool is full, the runtime is gone or the storage failed.
    pub async fn retry(&self, work_id: WorkId) -> Result<RetryAnswer, EnqueueError> {
        self.client.retry(work_id).await
    }

    /// Lists jobs of every pool by state, a page at a time, including stored pools of an earlier run that were not
    /// started. See [`Workpool::works`].
    ///
    /// # Errors
    /// Fails if the page's limit is out of range, the runtime is gone, or the storage failed.
    pub async fn works(&self, filter: WorkFilter) -> Result<WorkPage, PoolError> {
        Ok(self.client.list(filter).await?.page)
    }

    /// Creates a pool, or starts the stored pool of that name from an earlier run.
    ///
    /// # Errors
    /// Fails if a pool of that name is running, a value is out of range, or the storage failed.
    pub async fn create_pool(&self, name: &str, config: PoolConfig) -> Result<Workpool, PoolError> {
        validate_name(name)?;
        config.validate()?;
        let client = &self.client;
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

    /// Returns every schedule, in the order of their ids: those of this process, and those that are stored and no process
    /// has in its code any more.
    ///
    /// # Errors
    /// Fails if the runtime is gone or the storage failed.
    pub async fn schedules(&self) -> Result<Vec<ScheduleStatus>, PoolError> {
        self.client.schedule_statuses().await
    }

    /// Returns a handle on a schedule of this process.
    ///
    /// # Errors
    /// Fails if there is no schedule of that id.
    pub fn schedule(&self, id: &str) -> Result<ScheduleHandle, PoolError> {
        self.client.schedule_handle(id)
    }

    /// Runs a query at once, on the committed rows.
    ///
    /// # Errors
    /// Fails if the query is not registered, fails, or the runtime is gone.
    pub async fn query<Q: Query>(&self, query: Q) -> Result<Q::Output, QueryError> {
        let function = Name::from_static(Q::NAME);
        let client = &self.client;
        client.shared.catalog.get(function).ok_or(QueryError::UnknownFunction(function))?;
        let mut args = Vec::new();
        write_typed(&mut args, &query)?;
        let asked = client.ask(|reply| Question::Query { function, args, reply }).await;
        let output = asked.map_err(|error| match error {
            PoolError::Storage(error) => QueryError::Storage(error),
            _ => QueryError::Closed,
        })?;
        decode(output.map_err(QueryError::Failed)?.as_bytes()).map_err(QueryError::Failed)
    }
}
