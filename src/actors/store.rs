//! The StoreActor: everything that is written goes through here, in groups.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use hashbrown::HashMap;

use super::messages::{AddMain, Close, Flush, GroupSettled};
use super::network::Network;
use super::spin::{self, Spin};
use crate::model::{PoolId, WorkId};
use crate::observe::{metrics, telemetry};
use crate::protocol::{BatchReady, Command, Event, Listener, Question, Request};
use crate::shared::sync::oneshot;
use crate::shared::{FinishedOrder, STALLED_AFTER, Shared};
use crate::storage::StorageError;
use crate::store::{Settled, Store};

/// The wait after a failed commit, doubled each time up to the second.
const RETRY_BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(5));

/// The time for which leftovers are tried again while the store is to be closed.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// So many requests are enough for a group: it does not wait for what comes behind them.
const ENOUGH: usize = 64;

/// The interval at which finished jobs are checked for their age, also when nothing completes.
const FORGET_INTERVAL: Duration = Duration::from_secs(60);

/// Holds the job and pending tables.
///
/// Promises: what it answers is committed; later messages see earlier ones; a loop that rests is woken; a report that a
/// failed commit could not take is tried again. Its handlers only gather; one [`Flush`] decides everything that has
/// gathered, or what is enough for a group, if the storage's thread has none. It never waits for a storage: one that
/// may block has a thread of its own.
pub(super) struct StoreActor {
    shared: Arc<Shared>,
    network: Network,
    driver: Driver,
    inbox: Vec<Request>,
    /// Leftovers of a group: they go before the inbox.
    kept: Vec<Request>,
    /// `true` if a flush is on its way or under way.
    flushing: bool,
    /// The storage's thread has a group.
    under_way: bool,
    /// `true` if a caller who asks for an explanation may have to be told that the storage stalls.
    looks_for_stall: bool,
    mains: HashMap<PoolId, Recipient<BatchReady>>,
    /// The callers that are told of a completion, once. Written by enqueue and join, deleted by the completion.
    /// Ordered, so that they hear of an end in an order that a seed repeats.
    listeners: BTreeMap<WorkId, Vec<Listener>>,
    order: FinishedOrder,
    /// Failed commits in a row.
    failures: u32,
    /// The last failure of the storage, until it has done the same successfully.
    ailing: Option<Ailing>,
    /// `true` if a group is left that is to be tried again or gone on with.
    unfinished: bool,
    closing: Option<oneshot::Sender<()>>,
    spin: Spin,
}

/// The last failure of the storage. A write shows that it can do both, a read only that it can be read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ailing {
    Reads,
    Writes,
}

/// The thread on which groups are decided.
enum Driver {
    /// Here, at once.
    Inline(Box<Store>),
    /// On the storage's own thread, which answers with [`GroupSettled`].
    Thread(std::sync::mpsc::Sender<Job>),
    /// Nowhere any more.
    Closed,
}

enum Job {
    Run(Vec<Request>),
    Close(oneshot::Sender<()>),
}

impl StoreActor {
    /// `decider` runs on a thread of its own if `may_block`.
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
            flushing: false,
            under_way: false,
            looks_for_stall: false,
            mains: HashMap::new(),
            listeners: BTreeMap::new(),
            order: FinishedOrder::default(),
            failures: 0,
            ailing: None,
            unfinished: false,
            closing: None,
            spin,
        }))
    }

    fn flush_soon(&mut self, ctx: &mut Context<Self>) {
        if !self.flushing {
            self.flushing = true;
            ctx.address().do_send(Flush);
        }
    }

    /// Tells those who ask for explanations when the storage does not answer: whoever asks why nothing happens is not
    /// to wait for it.
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

    /// Decides everything that has gathered.
    fn flush(&mut self, ctx: &mut Context<Self>) {
        self.flushing = true;
        self.spin.touch();
        let mut group = std::mem::take(&mut self.kept);
        group.append(&mut self.inbox);
        match &mut self.driver {
            Driver::Inline(decider) => {
                let settled = decider.run(group);
                self.settle(settled, ctx);
            }
            Driver::Thread(jobs) => {
                self.under_way = true;
                self.shared.health.set_busy(Some(self.shared.seams.segment()));
                if jobs.send(Job::Run(group)).is_err() {
                    telemetry::storage_thread_gone();
                    ctx.stop();
                }
            }
            Driver::Closed => {}
        }
    }

    fn settle(&mut self, settled: Settled, ctx: &mut Context<Self>) {
        (self.flushing, self.under_way) = (false, false);
        if let Driver::Thread(_) = self.driver {
            self.shared.health.set_busy(None);
        }
        // Counts first, then the board, then everybody: one who is told finds room, and the board as it was told.
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
        for (pool, batch) in batches {
            if let Some(main) = self.mains.get(&pool) {
                self.network.to_main(main, batch);
            }
        }
        for answer in answers {
            answer.give();
        }
        self.go_on(again, failed, unfinished, ctx);
    }

    /// Writes on the board what the group has done.
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

    /// Takes up what is left over, after a pause if the storage failed. What was kept goes before what comes later:
    /// an attempt that ended in time must not be overtaken by its own deadline.
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
                // A mailbox is drained before any other actor of the thread is polled: the loops come first.
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

    /// Nothing will complete any more: the storage must be opened again, by another runtime.
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

    /// Closes the storage when somebody waits for that and nothing is left to write.
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
        // What nobody will hear any more ends here: joins see that the runtime is gone.
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
        // Here the runtime went away without a shutdown.
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
    /// However it ends: nothing more will be heard.
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
        if !self.under_way {
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
        // A storage that stays broken takes nothing any more.
        ctx.run_later(CLOSE_LIMIT, |store, ctx| store.close(ctx));
        self.flush_soon(ctx);
    }
}
