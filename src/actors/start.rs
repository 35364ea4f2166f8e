//! Starts and stops the actors: threads, arbiters, loops.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::time::Instant;

use super::alarm::Alarm;
use super::hosts::{Hosts, Spawner};
use super::main_loop::{MainActor, WATCHDOG_INTERVAL};
use super::messages::{AddMain, Close, Watch};
use super::network::{Network, ToStore};
use super::scheduler::{Scheduler, StopScheduler};
use super::spin::Spin;
use super::store::StoreActor;
use super::worker::Workshop;
use crate::client::{Client, PoolError};
use crate::functions::Program;
use crate::model::{Claimed, Name, PoolConfig, ScheduleRow, Segment};
use crate::observe::metrics;
use crate::protocol::{
    Command, LoopMessage, LoopPort, PoolOpened, PoolRequest, RegisterSchedules, Request,
};
use crate::shared::PoolShared;
use crate::shared::sync::oneshot;
use crate::storage::{Storage, StorageError};
use crate::store::Store;

/// The reason why the actors did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RingError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Thread(#[from] std::io::Error),
    /// The system stopped during the start.
    #[error("the actix system stopped")]
    Closed,
}

/// Everything needed to build the actors.
pub(crate) struct Parts {
    pub program: Arc<Program>,
    pub storage: Box<dyn Storage>,
    pub worker_arbiters: usize,
    pub blocking: tokio::runtime::Handle,
    pub network: Network,
}

/// The running actors, as their runtime holds them. Dropping it stops them at once.
pub(crate) struct Actors {
    client: Client,
    store: Addr<StoreActor>,
    conductor: Addr<Conductor>,
    // Last: its thread handles the messages that `drop` sends.
    home: Option<Home>,
}

/// The actors' own actix system, on its own thread: the store and the loops run there, and it owns the worker arbiters.
/// So the actors outlive any system of the program. Dropping it stops the system, after everything that was sent
/// before.
struct Home(System);

impl Home {
    fn arbiter(&self) -> &ArbiterHandle {
        self.0.arbiter()
    }

    /// Returns `true` if the caller runs on a thread of this system.
    fn is_here(&self) -> bool {
        System::try_current().is_some_and(|here| here.id() == self.0.id())
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let system = self.0.clone();
        self.arbiter().spawn(async move {
            tokio::task::yield_now().await;
            system.stop();
        });
    }
}

/// Builds the actors. Without worker arbiters, everything runs on the caller's own thread if that is an actix arbiter.
///
/// If this is dropped before it ends, it stops everything that was built.
pub(crate) async fn start(parts: Parts) -> Result<Actors, RingError> {
    #[cfg(shuttle)]
    if parts.worker_arbiters == 0 {
        return start_here(parts);
    }
    let Parts { program, storage, worker_arbiters, blocking, network } = parts;
    let may_block = storage.may_block();
    let store = {
        let program = program.clone();
        let open = move || Store::open(metrics::metered(storage), program);
        match may_block {
            true => on_a_thread(open).await??,
            false => open()?,
        }
    };
    let mut home = None;
    let control = match arbiter_here() {
        Some(here) if worker_arbiters == 0 => here,
        _ => {
            let (started, begun) = start_system(worker_arbiters == 0).await?;
            program.shared().seams.align(begun);
            home.insert(started).arbiter().clone()
        }
    };
    let workshop = Workshop { program: program.clone(), blocking, network };
    let ring = move || build(program, workshop, store, may_block, worker_arbiters);
    let mut actors = on(&control, ring).await??;
    actors.home = home;
    Ok(actors)
}

/// Builds the actors on a thread of shuttle, which has no arbiter.
#[cfg(shuttle)]
fn start_here(parts: Parts) -> Result<Actors, RingError> {
    let Parts { program, storage, blocking, network, .. } = parts;
    let store = Store::open(storage, program.clone())?;
    let workshop = Workshop { program: program.clone(), blocking, network };
    build(program, workshop, store, false, 0)
}

/// Runs code that may block on its own thread.
async fn on_a_thread<T: Send + 'static>(
    code: impl FnOnce() -> T + Send + 'static,
) -> Result<T, RingError> {
    let (reply, receiver) = oneshot::channel();
    std::thread::Builder::new()
        .name("workpool-open".into())
        .spawn(move || drop(reply.send(code())))?;
    receiver.await.map_err(|_| RingError::Closed)
}

/// Runs code on the thread of an arbiter.
async fn on<T: Send + 'static>(
    arbiter: &ArbiterHandle,
    code: impl FnOnce() -> T + Send + 'static,
) -> Result<T, RingError> {
    let (reply, receiver) = oneshot::channel();
    arbiter.spawn_fn(move || drop(reply.send(code())));
    receiver.await.map_err(|_| RingError::Closed)
}

/// Returns the arbiter of the caller's thread, if it can run the actors.
fn arbiter_here() -> Option<ArbiterHandle> {
    // A thread keeps the arbiter of a system that has stopped.
    Arbiter::try_current().filter(|here| System::is_registered() && here.alive())
}

/// Panics if the caller's thread has no place for the actors.
#[cfg(feature = "testing")]
pub(crate) fn assert_in_a_system() {
    assert!(
        arbiter_here().is_some(),
        "a TestRuntime needs an actix system: use testing::run or #[actix::test]"
    );
}

/// Runs a future in a system of its own, on a clock that stands still.
#[cfg(feature = "testing")]
pub(crate) fn run_paused<T>(future: impl Future<Output = T>) -> T {
    let system = System::with_tokio_rt(|| {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().start_paused(true).build().expect("a tokio runtime can be made")
    });
    system.block_on(future)
}

/// Starts a system on its own thread. The store and the loops do no I/O, and a thread without an I/O driver is cheaper
/// to wake; actions that run there need the driver. Returns the time from which its timers count, too.
async fn start_system(runs_actions: bool) -> Result<(Home, Instant), RingError> {
    let (reply, receiver) = oneshot::channel();
    std::thread::Builder::new().name("workpool".into()).spawn(move || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_time();
        if runs_actions {
            builder.enable_io();
        }
        let begun = Instant::now();
        let runtime = match builder.build() {
            Ok(runtime) => runtime,
            Err(error) => return drop(reply.send(Err(error))),
        };
        let runner = System::with_tokio_rt(|| runtime);
        let _ = reply.send(Ok((Home(System::current()), begun)));
        // Ends when the runtime stops the system; nobody uses the exit code.
        let _ = runner.run();
    })?;
    Ok(receiver.await.map_err(|_| RingError::Closed)??)
}

/// Starts the store and the conductor, and connects the client to the store.
fn build(
    program: Arc<Program>,
    workshop: Workshop,
    store: Store,
    may_block: bool,
    worker_arbiters: usize,
) -> Result<Actors, RingError> {
    let network = workshop.network.clone();
    let client = program.client().clone();
    let spin = Spin::new(worker_arbiters > 0);
    let store = StoreActor::start(client.shared.clone(), network.clone(), store, may_block, spin)?;
    let close = |_: &_| store.do_send(Close(oneshot::channel().0));
    let hosts = Hosts::new(workshop, worker_arbiters).inspect_err(close)?;
    let port = ToStore { store: store.clone().recipient(), network };
    if !client.ports.set_store(port) {
        return Err(RingError::Closed);
    }
    let hosts = Rc::new(RefCell::new(hosts));
    // Rings from another thread would make a run on one thread unrepeatable.
    let alarm = (worker_arbiters > 0).then(Alarm::default);
    let (store_port, loops, scheduler) = (store.clone(), Vec::new(), None);
    let conductor = Conductor { program, store: store_port, hosts, alarm, loops, scheduler };
    let conductor = conductor.start();
    Ok(Actors { client, store, conductor, home: None })
}

impl Actors {
    /// Opens pools, creating those that the store does not have, and then starts their loops, so that the first job to
    /// run can enqueue into any of them.
    pub async fn add_pools(&self, pools: Vec<(Name, PoolConfig)>) -> Result<(), PoolError> {
        let mut opened = Vec::with_capacity(pools.len());
        for (name, config) in pools {
            let (reply, answer) = oneshot::channel();
            let request = PoolRequest::Open { name, config, reply };
            self.store.do_send(Request::from(request));
            let PoolOpened { pool, config, pending, claimed } =
                answer.await.map_err(|_| PoolError::Closed)??;
            let pool = Arc::new(PoolShared::new(pool, name, pending, config.settings()));
            self.client.shared.add_pool(pool.clone());
            opened.push((pool, claimed));
        }
        for (pool, claimed) in opened {
            let (reply, started) = oneshot::channel();
            self.conductor.do_send(StartMain { pool, claimed, reply });
            started.await.map_err(|_| PoolError::Closed)?;
        }
        Ok(())
    }

    /// Stores the schedules of this process, and starts the actor that watches their times, if there are any.
    pub async fn start_schedules(&self) -> Result<(), PoolError> {
        let client = &self.client;
        if client.schedules.is_empty() {
            return Ok(());
        }
        let times = client.schedules.iter().map(|it| (it.id, it.times.to_string()));
        let (schedules, now) = (times.collect(), Segment::of(client.shared.seams.wall()));
        let rows = client
            .ask(|reply| Command::RegisterSchedules(RegisterSchedules { schedules, now, reply }))
            .await?;
        let (reply, started) = oneshot::channel();
        self.conductor.do_send(StartSchedules { rows, reply });
        started.await.map_err(|_| PoolError::Closed)
    }

    /// Runs a future on the actors' own thread and waits for it; without one, on the caller's.
    pub async fn at_home<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let Some(home) = &self.home else { return Some(future.await) };
        let (reply, receiver) = oneshot::channel();
        home.arbiter().spawn(async move { drop(reply.send(future.await)) });
        receiver.await.ok()
    }

    /// Runs a future on the actors' own thread and blocks the caller until it ends, or for `limit`. Returns `None` if
    /// that is impossible: the actors have no thread of their own, or the caller is on one of theirs.
    pub fn block_at_home<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
        limit: Duration,
    ) -> Option<T> {
        let home = self.home.as_ref().filter(|home| !home.is_here())?;
        let (reply, receiver) = std::sync::mpsc::channel();
        home.arbiter().spawn(async move { drop(reply.send(future.await)) });
        receiver.recv_timeout(limit).ok()
    }

    /// Writes everything that is pending, and stops the actors.
    pub async fn close(&self) {
        self.stop_loops();
        let (reply, closed) = oneshot::channel();
        self.store.do_send(Close(reply));
        let _ = closed.await;
    }

    fn stop_loops(&self) {
        for pool in self.client.shared.pools() {
            // A pool without a loop has nothing to stop.
            let _ = self.client.tell_loop(pool.id, LoopMessage::Stop);
        }
    }
}

impl Drop for Actors {
    fn drop(&mut self) {
        self.stop_loops();
        let (reply, _) = oneshot::channel();
        self.store.do_send(Close(reply));
        self.conductor.do_send(End);
    }
}

/// Starts loops on the control arbiter. With one timer for all of them, it has those watched that may wait for
/// something, so that an idle pool never wakes up.
///
/// It gives each a recipient of the other's messages, so that store and loops need not know each other.
struct Conductor {
    program: Arc<Program>,
    store: Addr<StoreActor>,
    hosts: Rc<RefCell<Hosts>>,
    alarm: Option<Alarm>,
    loops: Vec<Watched>,
    scheduler: Option<Addr<Scheduler>>,
}

/// A loop, with what shows whether it may wait for something.
struct Watched {
    pool: Arc<PoolShared>,
    is_idle: Rc<Cell<bool>>,
    main: Recipient<Watch>,
}

impl Conductor {
    fn watch(&self) {
        for Watched { pool, is_idle, main } in &self.loops {
            if !is_idle.get() || pool.pending() > 0 {
                main.do_send(Watch);
            }
        }
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct StartSchedules {
    rows: Vec<ScheduleRow>,
    reply: oneshot::Sender<()>,
}

#[derive(Message)]
#[rtype(result = "()")]
struct StartMain {
    pool: Arc<PoolShared>,
    claimed: Claimed,
    reply: oneshot::Sender<()>,
}

#[derive(Message)]
#[rtype(result = "()")]
struct End;

impl Actor for Conductor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(WATCHDOG_INTERVAL, |conductor, _| conductor.watch());
    }
}

impl Handler<StartMain> for Conductor {
    type Result = ();

    fn handle(&mut self, start: StartMain, _: &mut Self::Context) {
        let StartMain { pool, claimed, reply } = start;
        let spawner = Spawner { hosts: self.hosts.clone() };
        let (program, alarm) = (self.program.clone(), self.alarm.clone());
        let main = MainActor::new(program, pool.clone(), spawner, alarm, claimed);
        let is_idle = main.idleness();
        let main = main.start();
        self.store.do_send(AddMain { pool: pool.id, main: main.clone().recipient() });
        let port: Arc<dyn LoopPort> = Arc::new(main.clone().recipient::<LoopMessage>());
        let fresh = self.program.client().ports.set_pool(pool.id, port);
        self.loops.push(Watched { pool, is_idle, main: main.recipient() });
        debug_assert!(fresh, "a pool has one loop");
        let _ = reply.send(());
    }
}

impl Handler<StartSchedules> for Conductor {
    type Result = ();

    fn handle(&mut self, start: StartSchedules, _: &mut Self::Context) {
        let client = self.program.client().clone();
        self.scheduler = Some(Scheduler::new(client, start.rows).start());
        let _ = start.reply.send(());
    }
}

impl Handler<End> for Conductor {
    type Result = ();

    fn handle(&mut self, _: End, ctx: &mut Self::Context) {
        if let Some(scheduler) = self.scheduler.take() {
            scheduler.do_send(StopScheduler);
        }
        self.hosts.borrow_mut().end();
        ctx.stop();
    }
}
