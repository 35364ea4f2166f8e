//! How the ring comes to life and how it ends: threads, arbiters, actors.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::oneshot;

use super::linger::Linger;
use super::main_loop::MainActor;
use super::messages::{AddMain, Close, MainPort, Retire, StartWorkers, StorePort};
use super::store::StoreActor;
use super::worker::{Attempt, WorkerHost};
use crate::committer::{Committer, PoolOpened, Request};
use crate::config::PoolConfig;
use crate::error::{PoolError, StartError};
use crate::model::{Claimed, Name};
use crate::shared::{PoolShared, Shared};
use crate::storage::Storage;

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
    let port = StorePort::new(store.clone().recipient());
    if shared.store.set(port).is_err() {
        return Err(StartError::Closed);
    }
    Ok(Actors { shared, store, conductor, _threads: threads })
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

/// Where attempts are started. All loops share the hosts; they live on one thread.
pub(super) struct Spawner {
    hosts: Rc<RefCell<Hosts>>,
}

impl Spawner {
    /// Hands each host its share, in one message.
    pub fn start(&self, attempts: Vec<Attempt>) {
        self.hosts.borrow_mut().start(attempts);
    }

    /// Puts a new host in the place of one whose thread does not come back. The old one goes on with what it has.
    pub fn replace_stuck(&self, host: usize) {
        self.hosts.borrow_mut().replace(host);
    }
}

struct Hosts {
    shared: Arc<Shared>,
    hosts: Vec<Host>,
    /// Hosts that were replaced: to be stopped in the end.
    retired: Vec<ArbiterHandle>,
    /// Whose turn it is.
    next: usize,
}

struct Host {
    addr: Addr<WorkerHost>,
    /// `None` for the one on the caller's own thread.
    arbiter: Option<ArbiterHandle>,
    since: std::time::Instant,
}

/// A stuck host that was just replaced is not replaced again for this long: its attempts are given up one by one.
const REPLACE_PAUSE: Duration = Duration::from_secs(1);

impl Hosts {
    fn new(shared: Arc<Shared>, arbiters: usize) -> std::io::Result<Hosts> {
        let mut hosts = Hosts { shared, hosts: Vec::new(), retired: Vec::new(), next: 0 };
        for _ in 0..arbiters {
            let host = hosts.new_host()?;
            hosts.hosts.push(host);
        }
        if arbiters == 0 {
            let addr = WorkerHost::new(hosts.shared.clone(), Linger::new(false)).start();
            hosts.hosts.push(Host { addr, arbiter: None, since: std::time::Instant::now() });
        }
        Ok(hosts)
    }

    fn new_host(&self) -> std::io::Result<Host> {
        let arbiter = Arbiter::try_new()?.handle();
        let shared = self.shared.clone();
        let addr =
            WorkerHost::start_in_arbiter(&arbiter, |_| WorkerHost::new(shared, Linger::new(true)));
        Ok(Host { addr, arbiter: Some(arbiter), since: std::time::Instant::now() })
    }

    fn start(&mut self, attempts: Vec<Attempt>) {
        let count = self.hosts.len();
        let share = attempts.len().div_ceil(count);
        let mut attempts = attempts.into_iter();
        while attempts.len() > 0 {
            let host = self.next % count;
            self.next = self.next.wrapping_add(1);
            if !self.hosts[host].addr.connected() {
                self.replace(host);
            }
            let part: Vec<_> = attempts.by_ref().take(share).collect();
            for attempt in &part {
                attempt.set_host(host);
            }
            // To a host that is gone this drops the attempts, and they report themselves as lost.
            self.hosts[host].addr.do_send(StartWorkers(part));
        }
    }

    fn replace(&mut self, host: usize) {
        let Host { addr, arbiter, since } = &self.hosts[host];
        let just_replaced = addr.connected() && since.elapsed() < REPLACE_PAUSE;
        if arbiter.is_none() || just_replaced {
            return;
        }
        match self.new_host() {
            Ok(new) => {
                let old = std::mem::replace(&mut self.hosts[host], new);
                crate::telemetry::host_replaced(host, old.addr.connected());
                old.addr.do_send(Retire);
                self.retired.retain(ArbiterHandle::alive);
                self.retired.extend(old.arbiter);
            }
            Err(error) => crate::telemetry::host_not_replaced(host, &error),
        }
    }

    /// Stops every thread. The host on the caller's own thread ends with its last address.
    fn end(&mut self) {
        for arbiter in
            self.hosts.drain(..).filter_map(|host| host.arbiter).chain(self.retired.drain(..))
        {
            arbiter.stop();
        }
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        self.end();
    }
}
