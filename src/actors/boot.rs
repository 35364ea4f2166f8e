//! How the ring comes to life and how it ends: threads, arbiters, actors.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use actix::prelude::*;

use super::hosts::{Hosts, Spawner};
use super::linger::Linger;
use super::main_loop::MainActor;
use super::messages::{AddMain, Close, MainPort, StorePort};
use super::store::StoreActor;
use crate::committer::{Committer, PoolOpened, Request};
use crate::config::PoolConfig;
use crate::error::{PoolError, StartError};
use crate::model::{Claimed, Name};
use crate::shared::{PoolShared, Shared};
use crate::storage::Storage;
use crate::sync::oneshot;

/// The running ring, as its runtime holds it. Dropped, it ends at once.
pub(crate) struct Actors {
    shared: Arc<Shared>,
    store: Addr<StoreActor>,
    conductor: Addr<Conductor>,
    // Last: it ends the threads on which the messages sent by `drop` are handled.
    _threads: Threads,
}

/// The threads that are the ring's own. Dropped, they end, behind everything that was sent before.
#[derive(Default)]
struct Threads {
    control: Option<ArbiterHandle>,
    /// Set when the ring has a system of its own.
    system: Option<System>,
}

impl Drop for Threads {
    fn drop(&mut self) {
        let (control, system) = (self.control.take(), self.system.take());
        let Some(last) =
            control.clone().or_else(|| system.as_ref().map(|own| own.arbiter().clone()))
        else {
            return;
        };
        last.spawn(async move {
            tokio::task::yield_now().await;
            if let Some(control) = control {
                control.stop();
            }
            if let Some(system) = system {
                system.stop();
            }
        });
    }
}

/// Builds the ring. With no worker arbiters, everything lives on the caller's own thread.
///
/// When this is abandoned midway, everything that was built is taken down again.
pub(crate) async fn start(
    shared: Arc<Shared>,
    storage: Box<dyn Storage>,
    worker_arbiters: usize,
) -> Result<Actors, StartError> {
    #[cfg(shuttle)]
    if worker_arbiters == 0 {
        return start_here(shared, storage);
    }
    let may_block = storage.may_block();
    let committer = {
        let shared = shared.clone();
        let open = move || Committer::open(storage, shared);
        match may_block {
            true => on_a_thread(open).await??,
            false => open()?,
        }
    };
    let mut threads = Threads::default();
    let origin = match Arbiter::try_current() {
        // A thread remembers the arbiter of a system that has ended.
        Some(here) if System::is_registered() && here.alive() => here,
        _ => {
            let system = threads.system.insert(start_system().await?);
            system.arbiter().clone()
        }
    };
    let control = match worker_arbiters {
        0 => origin,
        _ => threads.control.insert(on(&origin, control_arbiter).await??.handle()).clone(),
    };
    let (store, conductor) = {
        let shared = shared.clone();
        on(&control, move || build(shared, committer, may_block, worker_arbiters)).await??
    };
    let port = StorePort::new(store.clone().recipient(), shared.post.clone());
    if shared.store.set(port).is_err() {
        return Err(StartError::Closed);
    }
    Ok(Actors { shared, store, conductor, _threads: threads })
}

/// Builds the ring on a thread of shuttle's, which has no arbiter.
#[cfg(shuttle)]
fn start_here(shared: Arc<Shared>, storage: Box<dyn Storage>) -> Result<Actors, StartError> {
    let committer = Committer::open(storage, shared.clone())?;
    let (store, conductor) = build(shared.clone(), committer, false, 0)?;
    let port = StorePort::new(store.clone().recipient(), shared.post.clone());
    shared.store.set(port).map_err(|_| StartError::Closed)?;
    Ok(Actors { shared, store, conductor, _threads: Threads::default() })
}

/// The arbiter of store and loops. They do no I/O, and without an I/O driver the thread is cheaper to wake.
fn control_arbiter() -> std::io::Result<Arbiter> {
    Arbiter::try_with_tokio_rt(|| {
        tokio::runtime::Builder::new_current_thread().enable_time().build()
    })
}

/// Runs code that may block on a thread of its own.
async fn on_a_thread<T: Send + 'static>(
    code: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StartError> {
    let (reply, receiver) = oneshot::channel();
    std::thread::Builder::new()
        .name("workpool-open".into())
        .spawn(move || drop(reply.send(code())))?;
    receiver.await.map_err(|_| StartError::Closed)
}

/// Runs code on an arbiter's thread.
async fn on<T: Send + 'static>(
    arbiter: &ArbiterHandle,
    code: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StartError> {
    let (reply, receiver) = oneshot::channel();
    arbiter.spawn_fn(move || drop(reply.send(code())));
    receiver.await.map_err(|_| StartError::Closed)
}

/// A system on a thread of its own, for programs that have none.
async fn start_system() -> Result<System, StartError> {
    let (reply, receiver) = oneshot::channel();
    std::thread::Builder::new().name("workpool-system".into()).spawn(move || {
        let runner = System::new();
        let _ = reply.send(System::current());
        // Ends when the runtime stops the system; there is nobody to hand an exit code to.
        let _ = runner.run();
    })?;
    receiver.await.map_err(|_| StartError::Closed)
}

fn build(
    shared: Arc<Shared>,
    committer: Committer,
    may_block: bool,
    worker_arbiters: usize,
) -> std::io::Result<(Addr<StoreActor>, Addr<Conductor>)> {
    let store =
        StoreActor::start(shared.clone(), committer, may_block, Linger::new(worker_arbiters > 0))?;
    let hosts = Hosts::new(shared.clone(), worker_arbiters)?;
    let conductor = Conductor { shared, store: store.clone(), hosts: Rc::new(RefCell::new(hosts)) };
    Ok((store, conductor.start()))
}

impl Actors {
    /// Opens pools, creating those that the store does not have, and then starts their loops: a work that one of them
    /// runs at once may enqueue into any other.
    pub async fn add_pools(&self, pools: Vec<(Name, PoolConfig)>) -> Result<(), PoolError> {
        let mut opened = Vec::with_capacity(pools.len());
        for (name, config) in pools {
            let (reply, answer) = oneshot::channel();
            self.store.do_send(Request::OpenPool { name, config, reply });
            let PoolOpened { pool, config, pending, claimed } =
                answer.await.map_err(|_| PoolError::Closed)??;
            let pool = Arc::new(PoolShared::new(pool, name, pending, config.settings()));
            self.shared.add_pool(pool.clone());
            opened.push((pool, claimed));
        }
        for (pool, claimed) in opened {
            let (reply, started) = oneshot::channel();
            self.conductor.do_send(StartMain { pool, claimed, reply });
            started.await.map_err(|_| PoolError::Closed)?;
        }
        Ok(())
    }

    /// Writes everything that is under way, and ends the ring.
    pub async fn close(&self) {
        for pool in self.shared.pools() {
            if let Some(main) = pool.main.get() {
                main.stop();
            }
        }
        let (reply, closed) = oneshot::channel();
        self.store.do_send(Close(reply));
        let _ = closed.await;
    }
}

impl Drop for Actors {
    fn drop(&mut self) {
        for pool in self.shared.pools() {
            if let Some(main) = pool.main.get() {
                main.stop();
            }
        }
        let (reply, _) = oneshot::channel();
        self.store.do_send(Close(reply));
        self.conductor.do_send(End);
    }
}

/// Starts loops on the control arbiter.
///
/// It knows store and loops, so that these need not know each other: each gets a recipient of the other's messages.
struct Conductor {
    shared: Arc<Shared>,
    store: Addr<StoreActor>,
    hosts: Rc<RefCell<Hosts>>,
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
}

impl Handler<StartMain> for Conductor {
    type Result = ();

    fn handle(&mut self, start: StartMain, _: &mut Self::Context) {
        let StartMain { pool, claimed, reply } = start;
        let spawner = Spawner { hosts: self.hosts.clone() };
        let main = MainActor::new(self.shared.clone(), pool.clone(), spawner, claimed).start();
        self.store.do_send(AddMain { pool: pool.id, main: main.clone().recipient() });
        let port = MainPort {
            configure: main.clone().recipient(),
            abort: main.clone().recipient(),
            inspect: main.clone().recipient(),
            drain: main.clone().recipient(),
            hand_back: main.clone().recipient(),
            stop: main.recipient(),
        };
        let fresh = pool.main.set(port).is_ok();
        debug_assert!(fresh, "a pool has one loop");
        let _ = reply.send(());
    }
}

impl Handler<End> for Conductor {
    type Result = ();

    fn handle(&mut self, _: End, ctx: &mut Self::Context) {
        self.hosts.borrow_mut().end();
        ctx.stop();
    }
}
