//! The runtime: what is registered, how it starts, how it ends.

use std::any::{Any, TypeId};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::{HashMap, HashSet};
use serde::{Serialize, de::DeserializeOwned};

use crate::actors::post::Post;
use crate::actors::{self, Actors};
use crate::clock::{Clock, Seams, SystemClock};
use crate::committer::Request;
use crate::config::{PoolConfig, Retention};
use crate::context::ActionContext;
use crate::error::{PoolError, QueryError, StartError, WorkError};
use crate::function::{Action, ActionKey, BlockingAction, Function, Mutation, OnComplete, Query};
use crate::list::{WorkFilter, WorkPage};
use crate::model::Name;
use crate::pool::{Workpool, list};
use crate::registry::{Registry, decode, validate_name};
use crate::shared::Shared;
use crate::storage::{Memory, Storage};
use crate::sync::oneshot;

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
    shared: Arc<Shared>,
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
    /// Attempts that were handed back; they are not charged, and run again when the store is opened again.
    pub handed_back: u64,
    /// Works without an outcome, those handed back included. In memory they are gone; a durable store has them.
    pub pending: u64,
}

impl ShutdownReport {
    fn count(&mut self, drained: actors::Drained) {
        self.finished += drained.finished;
        self.handed_back += drained.handed_back;
    }
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime").field("pools", &self.inner.shared.pools()).finish_non_exhaustive()
    }
}

impl Runtime {
    /// Describes a runtime; see [`RuntimeBuilder`].
    pub fn builder() -> RuntimeBuilder {
        RuntimeBuilder {
            registry: Registry::default(),
            data: HashMap::new(),
            storage: Box::new(Memory::new()),
            #[cfg(feature = "actix-web")]
            store_kind: name_of::<Memory>(),
            pools: Vec::new(),
            worker_arbiters: None,
            blocking_threads: 512,
            retention: Retention::default(),
            clock: None,
            seed: None,
            post: Post::default(),
        }
    }

    /// The pool of that name.
    ///
    /// # Errors
    /// When there is none.
    pub fn pool(&self, name: &str) -> Result<Workpool, PoolError> {
        Workpool::find(&self.inner.shared, name)
    }

    /// Every pool, in the order of their names.
    #[must_use]
    pub fn pools(&self) -> Vec<Workpool> {
        let shared = &self.inner.shared;
        let pools = shared.pools().into_iter();
        pools.map(|pool| Workpool { shared: shared.clone(), pool }).collect()
    }

    /// What its parts have a hold of, for those that have no pool at hand.
    #[cfg(feature = "actix-web")]
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }

    /// Works of every pool by state, a page at a time: see [`Workpool::works`]. Also of pools that the store has from an
    /// earlier run and that were not started.
    ///
    /// # Errors
    /// When the page's limit is out of its range, the runtime is gone, or the storage failed.
    pub async fn works(&self, filter: WorkFilter) -> Result<WorkPage, PoolError> {
        Ok(list(&self.inner.shared, filter).await?.page)
    }

    /// Creates a pool, or takes one of that name that the store has from an earlier run.
    ///
    /// # Errors
    /// When a pool of that name is running, a value is out of its range, or the storage failed.
    pub async fn create_pool(&self, name: &str, config: PoolConfig) -> Result<Workpool, PoolError> {
        validate_name(name)?;
        config.validate()?;
        let shared = &self.inner.shared;
        let _one_at_a_time = self.inner.creating.lock().await;
        if shared.is_closed() {
            return Err(PoolError::Closed);
        }
        let name = Name::intern(name);
        if shared.pool(name.as_str()).is_some() {
            return Err(PoolError::Duplicate(name));
        }
        self.inner.actors.add_pools(vec![(name, config)]).await?;
        Workpool::find(shared, name.as_str())
    }

    /// Runs a query now, on what is committed.
    ///
    /// # Errors
    /// When the query is not registered, fails, or the runtime is gone.
    pub async fn query<Q: Query>(&self, query: Q) -> Result<Q::Output, QueryError> {
        let function = Function::name(&query);
        let shared = &self.inner.shared;
        shared.registry.get(function).ok_or(QueryError::UnknownFunction(function))?;
        let args = serde_json::to_vec(&query)?;
        let (reply, answer) = oneshot::channel();
        let store = shared.store().ok_or(QueryError::Closed)?;
        store.send(Request::Query { function, args, reply });
        let output = answer.await.map_err(|_| QueryError::Closed)??.map_err(QueryError::Failed)?;
        decode(output.as_bytes()).map_err(QueryError::Failed)
    }

    /// Ends the runtime: nothing is enqueued or started any more; what runs may go on for `grace`; then functions are
    /// told ([`ActionContext::canceled`]), and a little later what is left is dropped and handed back to the store,
    /// uncharged. Returns when everything is written and the storage is free again.
    ///
    /// Calling it twice answers the same. Not cancel-safe: once begun, it should be awaited to the end.
    pub async fn shutdown(&self, grace: Duration) -> ShutdownReport {
        let mut done = self.inner.shutdown.lock().await;
        if let Some(report) = *done {
            return report;
        }
        let shared = &self.inner.shared;
        // A pool that is being created is either drained with the others or not created.
        let creating = self.inner.creating.lock().await;
        shared.close();
        drop(creating);
        let pools = shared.pools();
        let mains = pools.iter().filter_map(|pool| pool.main.get());
        let drained: Vec<_> = mains.map(|main| (main, main.drain())).collect();
        // A grace that never ends has no deadline.
        let deadline = tokio::time::Instant::now().checked_add(grace);
        let mut report = ShutdownReport::default();
        let mut late = Vec::new();
        for (main, mut drained) in drained {
            let in_time = match deadline {
                Some(deadline) => tokio::time::timeout_at(deadline, &mut drained).await.ok(),
                None => Some((&mut drained).await),
            };
            match in_time {
                Some(in_time) => report.count(in_time.unwrap_or_default()),
                None => {
                    main.hand_back(NOTICE);
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
        self.shared.close();
    }
}

/// The threads of blocking actions. Dropped, they end with what they are at, and nobody waits for them.
struct BlockingThreads(Option<tokio::runtime::Runtime>);

impl BlockingThreads {
    fn new(threads: usize) -> std::io::Result<BlockingThreads> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .thread_name("workpool-blocking")
            .max_blocking_threads(threads)
            .build()?;
        Ok(BlockingThreads(Some(runtime)))
    }

    fn handle(&self) -> Option<tokio::runtime::Handle> {
        self.0.as_ref().map(|runtime| runtime.handle().clone())
    }
}

impl Drop for BlockingThreads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Describes a runtime before it starts: functions, pools, storage.
///
/// ```
/// # actix_workpool::doctest::run(async {
/// # use actix_workpool::doctest::Double;
/// use actix_workpool::{PoolConfig, Runtime};
///
/// let runtime = Runtime::builder()
///     .action::<Double>()
///     .pool("math", PoolConfig::default().max_parallelism(4))
///     .start()
///     .await?;
/// assert_eq!(runtime.pool("math")?.enqueue(Double(4)).await?.join().await?, 8);
/// # runtime.shutdown(std::time::Duration::ZERO).await;
/// # Ok(()) });
/// ```
#[must_use = "nothing runs until `start` is awaited"]
pub struct RuntimeBuilder {
    registry: Registry,
    data: HashMap<TypeId, Arc<dyn Any + Send + Sync>>,
    storage: Box<dyn Storage>,
    #[cfg(feature = "actix-web")]
    store_kind: &'static str,
    pools: Vec<(Name, PoolConfig)>,
    worker_arbiters: Option<usize>,
    blocking_threads: usize,
    retention: Retention,
    clock: Option<Arc<dyn Clock>>,
    seed: Option<u64>,
    post: Post,
}

impl std::fmt::Debug for RuntimeBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RuntimeBuilder").field("pools", &self.pools).finish_non_exhaustive()
    }
}

impl RuntimeBuilder {
    /// Registers an action.
    pub fn action<A: Action>(mut self) -> Self {
        self.registry.action::<A>();
        self
    }

    /// Registers a blocking action.
    pub fn blocking_action<B: BlockingAction>(mut self) -> Self {
        self.registry.blocking_action::<B>();
        self
    }

    /// Registers a closure as an action. See [`ActionKey`].
    pub fn action_fn<I, O, F, Fut>(mut self, key: ActionKey<I, O>, closure: F) -> Self
    where
        I: DeserializeOwned + 'static,
        O: Serialize + 'static,
        F: Fn(I, ActionContext) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<O, WorkError>> + 'static,
    {
        self.registry.action_fn(key, closure);
        self
    }

    /// Registers a mutation.
    pub fn mutation<M: Mutation>(mut self) -> Self {
        self.registry.mutation::<M>();
        self
    }

    /// Registers a query.
    pub fn query<Q: Query>(mut self) -> Self {
        self.registry.query::<Q>();
        self
    }

    /// Registers what works may be enqueued with as their `on_complete`.
    pub fn on_complete<C: OnComplete>(mut self) -> Self {
        self.registry.on_complete::<C>();
        self
    }

    /// Lends a value to all attempts: [`ActionContext::data`]. One of each type; a second replaces the first.
    pub fn data<T: Send + Sync + 'static>(mut self, value: T) -> Self {
        self.data.insert(TypeId::of::<T>(), Arc::new(value));
        self
    }

    /// Where works are kept; [`Memory`] if this is not called.
    pub fn storage<S: Storage>(mut self, storage: S) -> Self {
        self.storage = Box::new(storage);
        #[cfg(feature = "actix-web")]
        {
            self.store_kind = name_of::<S>();
        }
        self
    }

    /// A pool that is to be there from the start.
    pub fn pool(mut self, name: &str, config: PoolConfig) -> Self {
        self.pools.push((Name::intern(name), config));
        self
    }

    /// On how many threads actions run, besides the one of store and loops. By default one per core; with 0,
    /// everything runs on the caller's own thread, which must be an actix arbiter then (or gets one made).
    pub fn worker_arbiters(mut self, threads: usize) -> Self {
        self.worker_arbiters = Some(threads);
        self
    }

    /// At most how many blocking actions run at once, whatever the pools allow. 512 by default, at least 1.
    pub fn blocking_threads(mut self, threads: usize) -> Self {
        self.blocking_threads = threads.max(1);
        self
    }

    /// For how long finished works are remembered.
    pub fn retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// Where the time comes from; the system if this is not called.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    /// Draws ids, jitter and epochs from this seed, so that a run can be repeated. For tests and simulations: ids
    /// can be guessed.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// How messages travel between loops, workers and the store. For simulations.
    #[cfg(feature = "conformance")]
    #[doc(hidden)]
    pub fn courier(mut self, courier: impl actors::post::Courier) -> Self {
        self.post = Post::by(courier);
        self
    }

    /// Opens the storage, starts the ring and every pool.
    ///
    /// Inside an actix `System` its arbiters join that; elsewhere, as in a plain tokio program, the runtime brings a
    /// thread with a system of its own.
    ///
    /// # Errors
    /// When something that was registered or configured is wrong, or the storage cannot be opened. Nothing is left
    /// running then.
    pub async fn start(self) -> Result<Runtime, StartError> {
        self.registry.validate()?;
        let mut names = HashSet::new();
        for (pool, config) in &self.pools {
            validate_name(pool.as_str())
                .and_then(|()| config.validate())
                .map_err(|error| StartError::Config { pool: *pool, error })?;
            if !names.insert(*pool) {
                return Err(StartError::DuplicatePool(*pool));
            }
        }
        crate::metrics::describe();
        let blocking = BlockingThreads::new(self.blocking_threads)?;
        let clock = self.clock.unwrap_or_else(|| Arc::new(SystemClock::new()));
        let seams = Seams::new(clock, self.seed);
        let mut shared = Shared::new(
            self.registry,
            self.data,
            seams,
            self.retention,
            blocking.handle().ok_or(StartError::Closed)?,
        );
        shared.post = self.post;
        #[cfg(feature = "actix-web")]
        {
            shared.store_kind = self.store_kind;
        }
        let shared = Arc::new(shared);
        let worker_arbiters = self.worker_arbiters.unwrap_or_else(|| {
            std::thread::available_parallelism().map_or(2, std::num::NonZero::get)
        });
        let actors = actors::start(shared.clone(), self.storage, worker_arbiters).await?;
        actors.add_pools(self.pools).await.map_err(|error| match error {
            PoolError::Storage(error) => StartError::Storage(error),
            _ => StartError::Closed,
        })?;
        let inner = Inner {
            shared,
            actors,
            _blocking: blocking,
            shutdown: tokio::sync::Mutex::new(None),
            creating: tokio::sync::Mutex::new(()),
        };
        Ok(Runtime { inner: Arc::new(inner) })
    }
}

/// The last part of a type's name, as `Redb`.
#[cfg(feature = "actix-web")]
fn name_of<T>() -> &'static str {
    let name = std::any::type_name::<T>();
    let name = name.split('<').next().unwrap_or_default();
    name.rsplit("::").next().unwrap_or_default()
}
