//! The StoreActor: makes all writes, in groups.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use hashbrown::HashMap;

use super::messages::{AddMain, Close, Flush, GroupSettled};
use super::network::Network;
use super::spin::{self, Spin};
use super::wave::Wave;
use crate::model::{PoolId, WorkId};
use crate::observe::{metrics, telemetry};
use crate::protocol::{Advance, BatchReady, Command, Event, Listener, Question, Request};
use crate::shared::sync::oneshot;
use crate::shared::{FinishedOrder, STALLED_AFTER, Shared};
use crate::storage::StorageError;
use crate::store::{Settled, Store};

/// The first and the longest wait after a failed commit; each wait is twice the last.
const RETRY_BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(5));

/// The time for which requests are retried while the store is closing.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// The time that a group waits for the turns of loops, which take microseconds, at least; at most twice as long.
const PATIENCE: Duration = Duration::from_millis(1);

/// The number of requests that is enough for a group, which then waits for no more.
const ENOUGH: usize = 64;

/// The interval at which retention runs even if nothing completes.
const FORGET_INTERVAL: Duration = Duration::from_secs(60);

/// Owns the job and pending tables.
///
/// Guarantees: what it answers is committed; later messages see earlier ones; a resting loop is woken; a report that a
/// failed commit could not take is retried. Its handlers only collect requests; one [`Flush`] decides all of them, or
/// enough for a group, unless the storage's thread is busy, or reports wait for the rest of their wave. It never waits
/// for a storage: one that may block has its own thread.
pub(super) struct StoreActor {
    shared: Arc<Shared>,
    network: Network,
    driver: Driver,
    inbox: Vec<Request>,
    /// Requests left over from a group. They go before the inbox.
    kept: Vec<Request>,
    /// The loops whose turns the group under way waits for, with those that have come.
    awaited: Option<Awaited>,
    /// `true` if a flush is queued or in progress.
    flushing: bool,
    /// `true` while the storage's thread has a group.
    under_way: bool,
    /// `true` while a timer checks for a stalled storage, on behalf of callers that ask for an explanation.
    looks_for_stall: bool,
    mains: HashMap<PoolId, Recipient<BatchReady>>,
    /// The callers to tell of a completion, once each. Added by enqueue and join, removed by the completion. Ordered,
    /// so that a simulation with the same seed tells them in the same order.
    listeners: BTreeMap<WorkId, Vec<Listener>>,
    /// The number of groups that have waited for turns.
    groups: u64,
    /// `true` while a timer looks for a group that waits for too long.
    has_patience: bool,
    order: FinishedOrder,
    /// The number of failed commits in a row.
    failures: u32,
    /// The last failure of the storage, until the same operation succeeds.
    ailing: Option<Ailing>,
    /// `true` if a group or its remaining requests must be continued or retried.
    unfinished: bool,
    closing: Option<oneshot::Sender<()>>,
    spin: Spin,
    /// The attempts that were started last.
    wave: Wave,
}

/// The kind of the last failure. A successful write clears both kinds, a successful read only `Reads`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ailing {
    Reads,
    Writes,
}

/// The thread on which groups are decided.
enum Driver {
    /// The actor's own thread, which decides groups immediately.
    Inline(Box<Store>),
    /// The storage's own thread, which answers with [`GroupSettled`].
    Thread(std::sync::mpsc::Sender<Job>),
    /// None: the storage is closed.
    Closed,
}

enum Job {
    Run(Vec<Request>),
    Close(oneshot::Sender<()>),
}

/// The turns that a group waits for.
struct Awaited {
    /// The number of the group.
    group: u64,
    pools: Vec<PoolId>,
    turns: Vec<Request>,
}

impl StoreActor {
    /// Runs `decider` on its own thread if `may_block`.
    pub fn start(
        shared: Arc<Shared>,
        network: Network,
        decider: Store,
        may_block: bool,
        spin: Spin,
    ) -> std::io::Result<Addr<Self>> {
        let context = Context::<Self>::new();
        let driver = match may_block {
            false => Driver::Inline(Box::new(decider)),
            true => Driver::Thread(spawn_thread(decider, context.address().recipient())?),
        };
        Ok(context.run(StoreActor {
            shared,
            network,
            driver,
            inbox: Vec::new(),
            kept: Vec::new(),
            awaited: None,
            flushing: false,
            under_way: false,
            looks_for_stall: false,
            mains: HashMap::new(),
            listeners: BTreeMap::new(),
            groups: 0,
            has_patience: false,
            order: FinishedOrder::default(),
            failures: 0,
            ailing: None,
            unfinished: false,
            closing: None,
            spin,
            wave: Wave::default(),
        }))
    }

    fn flush_soon(&mut self, ctx: &mut Context<Self>) {
        if !self.flushing {
            self.flushing = true;
            ctx.address().do_send(Flush);
        }
    }

    /// Tells callers that ask for an explanation when the storage stalls, so that they need not wait for it.
    fn look_for_stall(&mut self, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.looks_for_stall, true) {
            return;
        }
        ctx.run_later(STALLED_AFTER, |store, ctx| {
            store.looks_for_stall = false;
            if store.shared.health.stalled_since(store.shared.seams.segment()).is_some() {
                store.shared.health.stalled.notify_waiters();
            } else if store.under_way {
                // This group has begun since.
                store.look_for_stall(ctx);
            }
        });
    }

    /// Decides all waiting requests.
    fn flush(&mut self, ctx: &mut Context<Self>) {
        self.flushing = true;
        self.spin.touch();
        self.wave.take();
        let mut group = std::mem::take(&mut self.kept);
        group.append(&mut self.inbox);
        if let Driver::Thread(_) = self.driver {
            self.under_way = true;
            self.shared.health.set_busy(Some(self.shared.seams.segment()));
        }
        self.run(group, ctx);
    }

    /// Has requests decided: a group, or the turns that the group under way waits for.
    fn run(&mut self, requests: Vec<Request>, ctx: &mut Context<Self>) {
        match &mut self.driver {
            Driver::Inline(decider) => {
                let settled = decider.run(requests);
                self.settle(settled, ctx);
            }
            Driver::Thread(jobs) => {
                if jobs.send(Job::Run(requests)).is_err() {
                    telemetry::storage_thread_gone();
                    ctx.stop();
                }
            }
            Driver::Closed => {}
        }
    }

    /// Sends loops the batches that a group has read for them, and waits for their turns. Loops take microseconds; the
    /// group does not wait for one that takes longer.
    fn await_turns(&mut self, batches: Vec<(PoolId, BatchReady)>, ctx: &mut Context<Self>) {
        self.groups += 1;
        let group = self.groups;
        let pools = batches.iter().map(|(pool, _)| *pool).collect();
        self.awaited = Some(Awaited { group, pools, turns: Vec::new() });
        self.send_batches(batches);
        self.be_patient(ctx);
    }

    /// Ends the wait for turns when it takes too long. One timer serves many groups.
    fn be_patient(&mut self, ctx: &mut Context<Self>) {
        let Some(Awaited { group, .. }) = self.awaited else { return };
        if std::mem::replace(&mut self.has_patience, true) {
            return;
        }
        ctx.run_later(PATIENCE, move |store, ctx| {
            store.has_patience = false;
            match &store.awaited {
                Some(awaited) if awaited.group == group => store.finish(ctx),
                _ => store.be_patient(ctx),
            }
        });
    }

    /// Takes a turn that the group under way waits for; returns any other request.
    fn take_turn(&mut self, request: Request, ctx: &mut Context<Self>) -> Option<Request> {
        let (pool, is_turn) = match &request {
            Request::Command(Command::Advance(Advance { pool, .. })) => (*pool, true),
            Request::Pass(pool) => (*pool, false),
            _ => return Some(request),
        };
        let request = is_turn.then_some(request);
        let Some(awaited) = &mut self.awaited else { return request };
        let Some(place) = awaited.pools.iter().position(|awaited| *awaited == pool) else {
            return request;
        };
        awaited.pools.swap_remove(place);
        awaited.turns.extend(request);
        if awaited.pools.is_empty() {
            self.finish(ctx);
        }
        None
    }

    /// Goes on with the group under way.
    fn finish(&mut self, ctx: &mut Context<Self>) {
        let Some(Awaited { turns, .. }) = self.awaited.take() else { return };
        self.run(turns, ctx);
        self.close_if_done(ctx);
    }

    fn send_batches(&self, batches: Vec<(PoolId, BatchReady)>) {
        for (pool, batch) in batches {
            if let Some(main) = self.mains.get(&pool) {
                self.network.to_main(main, batch);
            }
        }
    }

    fn settle(&mut self, settled: Settled, ctx: &mut Context<Self>) {
        if settled.is_open {
            return self.await_turns(settled.batches, ctx);
        }
        (self.flushing, self.under_way) = (false, false);
        self.wave.begin();
        if let Driver::Thread(_) = self.driver {
            self.shared.health.set_busy(None);
        }
        // Counts first, then the board, then messages: a caller that is told must find room, and a matching board.
        for (pool, left) in &settled.left {
            let Some(pool) = self.shared.pool_by_id(*pool) else { continue };
            match u64::try_from(*left) {
                Ok(left) => pool.leave(left),
                Err(_) => pool.enter(left.unsigned_abs()),
            }
        }
        metrics::tell(&settled.tally, &self.shared);
        self.write_board(&settled);
        let Settled {
            events,
            listeners,
            batches,
            left,
            answers,
            observed,
            again,
            failed,
            unfinished,
            wrote,
            read,
            write_failed,
            ..
        } = settled;
        let is_well = match self.ailing {
            Some(Ailing::Reads) => wrote || read && failed.is_none(),
            Some(Ailing::Writes) => wrote,
            None => false,
        };
        if is_well {
            self.ailing = None;
            self.shared.health.recovered();
        }
        if failed.is_some() && self.ailing != Some(Ailing::Writes) {
            self.ailing = Some(if write_failed { Ailing::Writes } else { Ailing::Reads });
        }
        for (work_id, listener) in listeners {
            let waiting = self.listeners.entry(work_id).or_default();
            waiting.retain(|listener| !listener.is_gone());
            waiting.push(listener);
        }
        for event in events {
            telemetry::store_event(&self.shared, &event);
            if let Event::Completed { finished } = event
                && !self.listeners.is_empty()
                && !planted!(ListenersForgotten)
            {
                for listener in self.listeners.remove(&finished.work_id).into_iter().flatten() {
                    listener.tell(Some(&finished));
                }
            }
        }
        for pool in left.into_keys().filter_map(|pool| self.shared.pool_by_id(pool)) {
            pool.wake_idle();
        }
        for (work_id, status) in observed {
            // The board knows more of a running job than its row does.
            self.shared.board.observe(work_id, status);
        }
        self.send_batches(batches);
        for answer in answers {
            answer.give();
        }
        self.go_on(again, failed, unfinished, ctx);
    }

    /// Records on the board what the group has done.
    fn write_board(&mut self, settled: &Settled) {
        let board = &self.shared.board;
        for work_id in &settled.revived {
            board.forget(*work_id);
        }
        for work_id in &settled.canceling {
            board.set_canceling(*work_id);
        }
        for event in &settled.events {
            match event {
                Event::Completed { finished } => board.set_finished(finished, &mut self.order),
                Event::Retried { finished } => board.replace_finished(finished),
                Event::Retrying { work_id, due, attempts, .. }
                | Event::Moved { work_id, due, attempts } => {
                    board.set_pending(*work_id, *attempts, Some(*due));
                }
                _ => {}
            }
        }
    }

    /// Continues with what is left over, after a pause if the storage failed. Kept requests go before later ones: the
    /// report of an attempt that ended in time must not come after its deadline.
    fn go_on(
        &mut self,
        again: Vec<Request>,
        failed: Option<StorageError>,
        unfinished: bool,
        ctx: &mut Context<Self>,
    ) {
        let keeps = !again.is_empty() || unfinished;
        let count = again.len();
        self.kept = again;
        self.unfinished = keeps;
        let Some(error) = failed else {
            self.failures = 0;
            if !self.inbox.is_empty() {
                self.flush_soon(ctx);
            } else if keeps {
                // Yield to the loops: a mailbox is drained before the thread polls any other actor.
                let others = tokio::task::yield_now().into_actor(self);
                ctx.spawn(others.map(|(), store, ctx| store.flush_soon(ctx)));
            }
            return;
        };
        telemetry::storage_failed(&error, count);
        self.shared.health.failed(self.shared.seams.segment(), &error);
        if let StorageError::Poisoned(_) = error {
            self.give_up(&error);
        }
        if !self.inbox.is_empty() {
            self.flush_soon(ctx);
        } else if keeps {
            let (first, longest) = match self.closing {
                Some(_) => (RETRY_BACKOFF.0, CLOSE_LIMIT / 10),
                None => RETRY_BACKOFF,
            };
            let pause = (first * 2u32.saturating_pow(self.failures)).min(longest);
            self.failures = (self.failures + 1).min(16);
            ctx.run_later(pause, |store, ctx| store.flush_soon(ctx));
        }
    }

    /// Fails all listeners: nothing will complete until another runtime reopens the storage.
    fn give_up(&mut self, error: &StorageError) {
        for request in std::mem::take(&mut self.kept) {
            if let Request::Question(Question::Listen { listener, .. }) = request {
                listener.fail(error);
            }
        }
        for listener in std::mem::take(&mut self.listeners).into_values().flatten() {
            listener.fail(error);
        }
        self.unfinished = false;
        self.shared.board.close();
    }

    /// Closes the storage if a caller waits for that and nothing is left to write.
    fn close_if_done(&mut self, ctx: &mut Context<Self>) {
        let is_done = !self.flushing && !self.unfinished && self.inbox.is_empty();
        if self.closing.is_some() && is_done {
            self.close(ctx);
        }
    }

    fn close(&mut self, ctx: &mut Context<Self>) {
        let Some(reply) = self.closing.take() else { return };
        match std::mem::replace(&mut self.driver, Driver::Closed) {
            Driver::Inline(mut decider) => {
                decider.close();
                let _ = reply.send(());
            }
            Driver::Thread(jobs) => {
                let _ = jobs.send(Job::Close(reply));
            }
            Driver::Closed => drop(reply),
        }
        // Drops the remaining listeners: their joins see that the runtime is gone.
        self.listeners.clear();
        self.shared.board.close();
        ctx.stop();
    }
}

fn spawn_thread(
    mut decider: Store,
    store: Recipient<GroupSettled>,
) -> std::io::Result<std::sync::mpsc::Sender<Job>> {
    let (jobs, queue) = std::sync::mpsc::channel();
    std::thread::Builder::new().name("workpool-storage".into()).spawn(move || {
        while let Some(job) = spin::receive(&queue) {
            match job {
                Job::Run(requests) => store.do_send(GroupSettled(decider.run(requests))),
                Job::Close(reply) => {
                    decider.close();
                    let _ = reply.send(());
                    return;
                }
            }
        }
        // The runtime was dropped without a shutdown.
    })?;
    Ok(jobs)
}

impl Actor for StoreActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(FORGET_INTERVAL, |store, ctx| {
            store.inbox.push(Command::Forget.into());
            store.flush_soon(ctx);
        });
    }
}

impl Drop for StoreActor {
    /// Closes the board, however the actor ends: no more results will come.
    fn drop(&mut self) {
        self.shared.board.close();
    }
}

impl Handler<Request> for StoreActor {
    type Result = ();

    fn handle(&mut self, request: Request, ctx: &mut Self::Context) {
        let asks_why = matches!(request, Request::Question(Question::Explain { .. }));
        if asks_why && matches!(self.driver, Driver::Thread(_)) {
            self.look_for_stall(ctx);
        }
        self.wave.note(&request);
        let Some(request) = self.take_turn(request, ctx) else { return };
        self.inbox.push(request);
        let thread_is_idle = matches!(self.driver, Driver::Thread(_)) && !self.under_way;
        match thread_is_idle && self.inbox.len() >= ENOUGH {
            true => self.flush(ctx),
            false => self.flush_soon(ctx),
        }
    }
}

impl Handler<Flush> for StoreActor {
    type Result = ();

    fn handle(&mut self, _: Flush, ctx: &mut Self::Context) {
        if !self.under_way && self.awaited.is_none() {
            if matches!(self.driver, Driver::Thread(_)) && self.wave.is_coming(Instant::now()) {
                // The workers may need this core.
                std::thread::yield_now();
                let others = tokio::task::yield_now().into_actor(self);
                ctx.spawn(others.map(|(), _, ctx| ctx.address().do_send(Flush)));
                return;
            }
            self.flush(ctx);
        }
        self.close_if_done(ctx);
    }
}

impl Handler<GroupSettled> for StoreActor {
    type Result = ();

    fn handle(&mut self, GroupSettled(settled): GroupSettled, ctx: &mut Self::Context) {
        self.settle(settled, ctx);
        self.close_if_done(ctx);
    }
}

impl Handler<AddMain> for StoreActor {
    type Result = ();

    fn handle(&mut self, AddMain { pool, main }: AddMain, _: &mut Self::Context) {
        self.mains.insert(pool, main);
    }
}

impl Handler<Close> for StoreActor {
    type Result = ();

    fn handle(&mut self, Close(reply): Close, ctx: &mut Self::Context) {
        self.closing = Some(reply);
        // A storage that keeps failing accepts no more writes.
        ctx.run_later(CLOSE_LIMIT, |store, ctx| store.close(ctx));
        self.flush_soon(ctx);
    }
}
