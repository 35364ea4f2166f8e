//! The builder of a runtime.

use std::any::TypeId;
use std::future::Future;
use std::sync::Arc;

use hashbrown::HashSet;
use serde::{Serialize, de::DeserializeOwned};

use super::Runtime;
use super::blocking::BlockingThreads;
use super::error::StartError;
use crate::actors::network::Network;
use crate::actors::{self, Parts};
use crate::client::{ActionKey, Client, PoolError, Schedule};
use crate::functions::{
    Action, ActionContext, BlockingAction, Data, Lent, Mutation, OnComplete, Program, Query,
    Registry, WorkError,
};
use crate::model::{Name, PoolConfig, Retention, validate_name};
use crate::observe::{metrics, telemetry};
use crate::shared::{Clock, Seams, Shared, SystemClock};
use crate::storage::{Memory, Storage};

/// The builder of a runtime: functions, pools, storage.
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
    data: Data,
    storage: Box<dyn Storage>,
    store_kind: &'static str,
    pools: Vec<(Name, PoolConfig)>,
    schedules: Vec<Schedule>,
    worker_arbiters: Option<usize>,
    blocking_threads: usize,
    retention: Retention,
    log_error_messages: bool,
    /// `Some` for a test: the pools are held at the start or not.
    #[cfg(feature = "testing")]
    for_test: Option<bool>,
    clock: Option<Arc<dyn Clock>>,
    seed: Option<u64>,
    network: Network,
}

impl std::fmt::Debug for RuntimeBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RuntimeBuilder").field("pools", &self.pools).finish_non_exhaustive()
    }
}

impl RuntimeBuilder {
    pub(super) fn new() -> RuntimeBuilder {
        RuntimeBuilder {
            registry: Registry::default(),
            data: Data::new(),
            storage: Box::new(Memory::new()),
            store_kind: name_of::<Memory>(),
            pools: Vec::new(),
            schedules: Vec::new(),
            worker_arbiters: None,
            blocking_threads: 512,
            retention: Retention::default(),
            log_error_messages: false,
            #[cfg(feature = "testing")]
            for_test: None,
            clock: None,
            seed: None,
            network: Network::default(),
        }
    }

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

    /// Registers an `on_complete`.
    pub fn on_complete<C: OnComplete>(mut self) -> Self {
        self.registry.on_complete::<C>();
        self
    }

    /// Shares a value with all attempts: see [`ActionContext::data`]. There is one value of each type; a second one
    /// replaces the first.
    pub fn data<T: Send + Sync + 'static>(mut self, value: T) -> Self {
        self.data.insert(TypeId::of::<T>(), Arc::new(value));
        self
    }

    /// Sets the storage of the jobs. The default is [`Memory`].
    pub fn storage<S: Storage>(mut self, storage: S) -> Self {
        self.storage = Box::new(storage);
        self.store_kind = name_of::<S>();
        self
    }

    /// Adds a pool that starts with the runtime.
    pub fn pool(mut self, name: &str, config: PoolConfig) -> Self {
        self.pools.push((Name::intern(name), config));
        self
    }

    /// Adds a schedule. See [`Schedule`].
    pub fn schedule(mut self, schedule: Schedule) -> Self {
        self.schedules.push(schedule);
        self
    }

    /// Sets the number of threads for actions, besides the thread of store and loops. The default is one per core. With
    /// 0, actions, store and loops share one thread: the caller's own if that is an actix arbiter, and the runtime ends
    /// with it.
    pub fn worker_arbiters(mut self, threads: usize) -> Self {
        self.worker_arbiters = Some(threads);
        self
    }

    /// Sets the maximum number of blocking actions that run at once, whatever the pools allow. At least 1; the default
    /// is 512.
    pub fn blocking_threads(mut self, threads: usize) -> Self {
        self.blocking_threads = threads.max(1);
        self
    }

    /// Sets how long finished jobs are kept.
    pub fn retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// Logs the messages of jobs that have failed for good, in all pools. They may contain what is secret, so the default
    /// is not to. [`PoolConfig::log_error_messages`] does it for one pool.
    pub fn log_error_messages(mut self, log: bool) -> Self {
        self.log_error_messages = log;
        self
    }

    /// Sets the clock. The default is [`SystemClock`].
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    /// Generates ids, jitter and epochs from this seed, so that runs are reproducible. For tests and simulations only,
    /// since ids can be guessed.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Runs blocking actions on threads of the caller's tokio runtime, whose clock waits for them, and holds all pools if
    /// `held`.
    #[cfg(feature = "testing")]
    pub(crate) fn for_test(mut self, held: bool) -> Self {
        self.for_test = Some(held);
        self
    }

    /// Sets the transport of messages between loops, workers and the store. For simulations.
    #[cfg(feature = "unstable-storage")]
    #[doc(hidden)]
    pub fn courier(mut self, courier: impl actors::network::Courier) -> Self {
        self.network = Network::by(courier);
        self
    }

    /// Opens the storage, and starts the runtime with every pool.
    ///
    /// The runtime has its own threads: they do not end with the program's actix `System` or tokio runtime.
    ///
    /// # Errors
    /// Fails if a registered function or a configured value is invalid, or the storage cannot be opened. Then nothing
    /// is left running.
    pub async fn start(self) -> Result<Runtime, StartError> {
        if let Some(name) = self.registry.duplicate() {
            return Err(StartError::DuplicateFunction(name));
        }
        self.registry
            .validate()
            .map_err(|(function, error)| StartError::Function { function, error })?;
        let mut names = HashSet::new();
        for (pool, config) in &self.pools {
            validate_name(pool.as_str())
                .and_then(|()| config.validate())
                .map_err(|error| StartError::Config { pool: *pool, error })?;
            if !names.insert(*pool) {
                return Err(StartError::DuplicatePool(*pool));
            }
        }
        let pools: Vec<_> = self.pools.iter().map(|(name, _)| *name).collect();
        let mut ids = HashSet::new();
        for schedule in &self.schedules {
            let id = schedule.id;
            if !ids.insert(id) {
                return Err(StartError::DuplicateSchedule(id));
            }
            schedule
                .validate(self.registry.catalog(), &pools)
                .map_err(|error| StartError::Schedule { schedule: id, error })?;
        }
        metrics::describe();
        let blocking = BlockingThreads::new(self.blocking_threads)?;
        let clock = self.clock.unwrap_or_else(|| Arc::new(SystemClock::new()));
        let seams = Seams::new(clock, self.seed);
        let (catalog, code) = self.registry.into_parts();
        let mut shared = Shared::new(catalog, seams, self.retention, self.store_kind);
        shared.log_error_messages = self.log_error_messages;
        #[cfg(feature = "testing")]
        shared.set_held(self.for_test == Some(true));
        let client = Client::new(Arc::new(shared), self.schedules);
        let program = Arc::new(Program::new(Lent::new(client.clone(), self.data), code));
        let worker_arbiters = self.worker_arbiters.unwrap_or_else(|| {
            std::thread::available_parallelism().map_or(2, std::num::NonZero::get)
        });
        #[cfg(feature = "testing")]
        let here = self.for_test.and_then(|_| tokio::runtime::Handle::try_current().ok());
        #[cfg(not(feature = "testing"))]
        let here = None;
        let blocking_handle = here.or_else(|| blocking.handle()).ok_or(StartError::Closed)?;
        let parts = Parts {
            program,
            storage: self.storage,
            worker_arbiters,
            blocking: blocking_handle,
            network: self.network,
        };
        let actors = actors::start(parts).await?;
        let failed = |error| match error {
            PoolError::Storage(error) => StartError::Storage(error),
            _ => StartError::Closed,
        };
        actors.add_pools(self.pools).await.map_err(failed)?;
        actors.start_schedules().await.map_err(failed)?;
        telemetry::runtime_started(&client.shared);
        Ok(Runtime::new(client, actors, blocking))
    }
}

/// Returns the last part of a type's name, such as `Redb`.
fn name_of<T>() -> &'static str {
    let name = std::any::type_name::<T>();
    let name = name.split('<').next().unwrap_or_default();
    name.rsplit("::").next().unwrap_or_default()
}
