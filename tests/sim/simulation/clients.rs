//! What callers do, and what they are told.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use actix::prelude::*;
use actix_workpool::storage::StorageError;
use actix_workpool::{
    CancelAnswer, CatchUp, Completed, CompletionResult, Enqueue, EnqueueError, Function, JoinError,
    OneWork, Overlap, PoolConfig, PoolError, Priority, PriorityAnswer, RetryBehavior, RunNowAnswer,
    Runtime, Schedule, WorkHandle, WorkId, WorkStatus, Workpool,
};
use tokio::task::JoinHandle;

use super::functions::{Alt, Check, Done, Job, Output, Transfer, give_way};
use super::plan::{below, pick};
use super::world::{Ack, Code, Kind, Micros, OnDone, Work, World, millis, trace, with};

/// Tasks that wait for something the pool has promised. All must end when nothing goes wrong any more.
#[derive(Clone, Default)]
pub struct Tasks(Rc<RefCell<Vec<JoinHandle<()>>>>);

impl Tasks {
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let handle = actix::spawn(task);
        self.0.borrow_mut().push(handle);
    }

    pub fn abort(&self) {
        for task in self.0.take() {
            task.abort();
        }
    }

    pub async fn end(&self) {
        loop {
            let tasks = self.0.take();
            if tasks.is_empty() {
                return;
            }
            for task in tasks {
                let _ = task.await;
            }
        }
    }
}

/// What callers hold.
#[derive(Clone)]
pub struct Callers {
    pub runtime: Runtime,
    pub pools: Rc<Vec<Workpool>>,
    /// The callers themselves, each at one thing after the other.
    pub clients: Tasks,
    /// Those who wait for a job.
    pub tasks: Tasks,
    pub ear: Addr<Ear>,
}

/// Hears of completions.
pub struct Ear;

impl Actor for Ear {
    type Context = Context<Self>;
}

impl Handler<Completed<Job, Output>> for Ear {
    type Result = ();

    fn handle(&mut self, done: Completed<Job, Output>, _: &mut Self::Context) {
        with(|world| {
            let Some(number) = world.number_of(done.work_id) else { return };
            trace!(world, "notified of {number}");
            let code = match done.result {
                CompletionResult::Success((_, start)) => Code::Success(start),
                CompletionResult::Failed(failure) => Code::Failed(failure.kind),
                CompletionResult::Canceled => Code::Canceled,
            };
            world.saw(number, code, Some(done.attempts));
            let work = &mut world.works[number as usize];
            work.notified += 1;
            if work.notified > work.notifies {
                world.violate(format_args!("job {number} notifies more often than it was asked"));
            }
        });
    }
}

/// Whether an enqueue that was answered so may have happened.
fn is_unsure(error: &EnqueueError) -> bool {
    matches!(error, EnqueueError::Closed | EnqueueError::Storage(StorageError::Poisoned(_)))
}

/// How a job is enqueued.
pub struct Described {
    number: u32,
    pub pool: usize,
    id: Option<WorkId>,
    retry: Option<RetryBehavior>,
    timeout: Option<Micros>,
    delay: Micros,
    wall: Option<SystemTime>,
    on_complete: bool,
    priority: Priority,
    cost: u32,
    key: Option<u8>,
}

impl Described {
    pub fn of(world: &mut World, number: u32) -> Described {
        let wall = world.wall_now();
        let by_wall = world.rng.bool();
        let work = &world.works[number as usize];
        let at = UNIX_EPOCH + Duration::from_micros(wall + work.delay);
        Described {
            number,
            pool: work.pool,
            id: work.id,
            retry: work.retry,
            timeout: work.timeout,
            delay: work.delay,
            wall: (by_wall && work.delay > 0).then_some(at),
            on_complete: work.on_complete.is_some(),
            priority: work.priority,
            cost: world.plan.cost(work.pool, number),
            key: work.key,
        }
    }

    pub fn on<T, F, K>(&self, enqueue: Enqueue<T, F, K>) -> Enqueue<T, F, K>
    where
        T: OneWork,
        F: Function<K, Output = Output>,
    {
        let enqueue = self.all_but_id(enqueue);
        let enqueue = match self.key {
            Some(key) => enqueue.key([key]),
            None => enqueue,
        };
        match self.id {
            Some(id) => enqueue.id(id),
            None => enqueue,
        }
    }

    pub fn in_transaction<T, F, K>(&self, enqueue: Enqueue<T, F, K>) -> Enqueue<T, F, K>
    where
        T: OneWork,
        F: Function<K, Output = Output>,
    {
        self.on(enqueue)
    }

    fn all_but_id<T, F, K>(&self, enqueue: Enqueue<T, F, K>) -> Enqueue<T, F, K>
    where
        F: Function<K, Output = Output>,
    {
        let enqueue = match (self.priority, self.cost) {
            (Priority::NORMAL, 1) => enqueue,
            (priority, cost) => enqueue.priority(priority).cost(cost),
        };
        let enqueue = match self.retry {
            Some(retry) => enqueue.retry(retry),
            None => enqueue.no_retry(),
        };
        let enqueue = match (self.wall, self.delay) {
            (Some(at), _) => enqueue.run_at(at),
            (None, 0) => enqueue,
            (None, delay) => enqueue.run_after(Duration::from_micros(delay)),
        };
        let enqueue = match self.timeout {
            Some(timeout) => enqueue.timeout(Duration::from_micros(timeout)),
            None => enqueue,
        };
        match self.on_complete {
            true => enqueue.on_complete::<Done>(self.number),
            false => enqueue,
        }
    }
}

impl World {
    /// Draws a job. It is enqueued later, or by another job.
    fn new_work(&mut self, kind: Kind, pool: usize, parent: Option<u32>) -> u32 {
        let number = self.works.len() as u32;
        let plan = self.plan.clone();
        let rng = &mut self.rng;
        let has_timeout = kind.is_action() && below(rng, 3) == 0;
        let timeout = has_timeout.then(|| millis(pick(rng, &[20, 500, 4_000])));
        let fails = pick(rng, &[0, 0, 0, 1, 2, u32::MAX]);
        let fails = if plan.misbehaves > 0 { fails } else { 0 };
        let on_complete = below(rng, 100) < plan.on_completes;
        let on_complete = on_complete.then(|| OnDone { fails, panics: rng.bool(), calls: 0 });
        let delay = match below(rng, 4) {
            0 => rng.u64(1..1 + millis(plan.pause_ms * 8)),
            _ => 0,
        };
        let acts = plan.acts(rng, has_timeout);
        let retry = plan.retry(rng);
        let (from, to) = (below(rng, plan.accounts), below(rng, plan.accounts));
        let transfer = (from, to, rng.i64(1..100));
        // Code in the store is not told its id.
        let id = (parent.is_some() || !kind.is_action() || rng.bool()).then(|| {
            let random = rng.u128(..).to_be_bytes();
            WorkId::from_uuid(uuid::Builder::from_random_bytes(random).into_uuid())
        });
        self.works.push(Work {
            pool,
            kind,
            id: None,
            ack: Ack::Planned,
            sends: 0,
            refusals: 0,
            acts,
            retry,
            timeout,
            on_complete,
            child: None,
            transfer,
            due: 0,
            latest_due: 0,
            delay,
            sent_at: 0,
            sent_life: 0,
            sent_moment: 0,
            acked_moment: 0,
            order: 0,
            priority: plan.priority(self.seed, number),
            key: plan.key(self.seed, pool, number, kind),
            tick: None,
            starts: Vec::new(),
            calls: 0,
            cancel_sent: false,
            cancel_told: false,
            canceled_unstarted: false,
            told_finished: false,
            abort_by: None,
            hurrying: 0,
            moved: false,
            moved_at: None,
            seen: None,
            notifies: 0,
            notified: 0,
            sent_crashes: self.crashes,
        });
        if let Some(id) = id {
            self.bind(number, id);
        }
        // A job that makes another, which makes no third.
        let has_child = parent.is_none()
            && matches!(kind, Kind::Job | Kind::Transfer)
            && below(&mut self.rng, 6) == 0;
        if has_child {
            let pool = self.rng.usize(0..self.pools.len());
            let child = self.new_work(Kind::Job, pool, Some(number));
            self.works[number as usize].child = Some(child);
        }
        number
    }

    fn draw_kind(&mut self) -> Kind {
        match below(&mut self.rng, 10) {
            0..=5 => Kind::Job,
            6 if self.alt_registered => Kind::Alt,
            6..=8 => Kind::Transfer,
            _ => Kind::Check,
        }
    }

    /// A job is about to be sent to the store.
    pub fn sending(&mut self, number: u32) {
        let (now, by_pool_clock, moment) = (self.now(), self.pool_now(), self.tick());
        let (life, crashes, order) = (self.life, self.crashes, self.disorder);
        let kind = self.works[number as usize].kind;
        trace!(self, "enqueue {number}, {kind:?}");
        let work = &mut self.works[number as usize];
        let due = by_pool_clock + work.delay;
        work.sends += 1;
        if work.ack == Ack::Planned {
            work.ack = Ack::Sent;
            work.due = due;
            (work.sent_at, work.sent_life, work.sent_moment) = (now, life, moment);
            (work.sent_crashes, work.order) = (crashes, order);
        } else if work.ack == Ack::Refused {
            work.ack = Ack::Sent;
        }
        work.due = work.due.min(due);
        work.latest_due = work.latest_due.max(due);
    }

    pub fn enqueue_answered(&mut self, number: u32, answer: Result<WorkId, EnqueueError>) {
        if self.dead {
            return;
        }
        match answer {
            Ok(id) => {
                self.bind(number, id);
                trace!(self, "enqueue {number} is acknowledged");
                let moment = self.tick();
                let work = &mut self.works[number as usize];
                if !matches!(work.ack, Ack::Acked | Ack::With(_)) {
                    work.ack = Ack::Acked;
                    work.acked_moment = moment;
                    if work.delay == 0 && work.kind == Kind::Job && work.sends == 1 {
                        let pool = work.pool;
                        self.pools[pool].queue.push(number);
                    }
                }
            }
            Err(EnqueueError::Storage(StorageError::Conflict)) => {
                self.violate(format_args!("enqueue {number} is told of another writer"));
            }
            Err(error) => {
                trace!(self, "enqueue {number}: {error}");
                let unsure = is_unsure(&error);
                let quiet = self.quiet && !self.is_disturbed();
                let work = &mut self.works[number as usize];
                if !unsure {
                    work.refusals += 1;
                    if work.ack == Ack::Sent && work.refusals == work.sends {
                        work.ack = Ack::Refused;
                    }
                }
                let storage_failed = matches!(error, EnqueueError::Storage(_));
                if quiet && storage_failed {
                    self.violate(format_args!("enqueue {number} fails with nothing wrong"));
                }
            }
        }
    }

    /// Some job that was sent and has an id.
    fn some_work(&mut self) -> Option<(u32, WorkId, usize)> {
        let count = self.works.len();
        if count == 0 {
            return None;
        }
        let recent = below(&mut self.rng, 3) > 0;
        let from = if recent { count.saturating_sub(8) } else { 0 };
        let number = self.rng.usize(from..count);
        let work = &self.works[number];
        if work.ack == Ack::Planned {
            return None;
        }
        Some((number as u32, work.id?, work.pool))
    }
}

/// One caller, until there is nothing more to do.
pub async fn client(callers: Callers) {
    loop {
        let pause = with(|world| {
            if world.quiet || world.ops_left == 0 || world.shutting_down {
                return None;
            }
            world.ops_left -= 1;
            Some(match below(&mut world.rng, 4) {
                0 => Err(world.rng.u32(0..8)),
                _ => Ok(world.rng.u64(0..=world.plan.pause_ms)),
            })
        });
        match pause {
            None => return,
            Some(Ok(ms)) => tokio::time::sleep(Duration::from_millis(ms)).await,
            Some(Err(steps)) => {
                for _ in 0..steps {
                    give_way().await;
                }
            }
        }
        if with(|world| world.dead) {
            return std::future::pending().await;
        }
        act(&callers).await;
    }
}

async fn act(callers: &Callers) {
    let op = with(|world| {
        let total = world.plan.weights.iter().sum();
        let mut drawn = below(&mut world.rng, total);
        let is_it = |weight: &u64| match drawn.checked_sub(*weight) {
            Some(left) => {
                drawn = left;
                false
            }
            None => true,
        };
        world.plan.weights.clone().iter().position(is_it).unwrap_or(0)
    });
    let pool = with(|world| world.rng.usize(0..world.pools.len()));
    match op {
        0 => enqueue_one(callers, pool).await,
        1 => enqueue_batch(callers, pool).await,
        2 => enqueue_again(callers).await,
        3 => cancel(callers).await,
        4 => cancel_all(callers, pool).await,
        5 => abort(callers).await,
        6 | 7 => configure(callers, pool, op == 7).await,
        8 | 9 => status(callers, op == 9).await,
        10 => join(callers),
        11 => watch(callers),
        12 => query(callers).await,
        13 => do_enqueue(callers, pool).await,
        14 => run_now(callers).await,
        15 => set_priority(callers).await,
        16 => pause_schedule(callers).await,
        18 => super::keys::change(callers, pool).await,
        _ => super::unique::enqueue(callers, pool).await,
    }
}

async fn send(pool: &Workpool, kind: Kind, number: u32) {
    let described = with(|world| {
        world.sending(number);
        Described::of(world, number)
    });
    let answer = match kind {
        Kind::Job => described.on(pool.enqueue(Job(number))).await.map(|work| work.id()),
        Kind::Alt => described.on(pool.enqueue(Alt(number))).await.map(|work| work.id()),
        Kind::Transfer => described.on(pool.enqueue(Transfer(number))).await.map(|work| work.id()),
        Kind::Check => described.on(pool.enqueue(Check(number))).await.map(|work| work.id()),
    };
    with(|world| world.enqueue_answered(number, answer));
}

async fn enqueue_one(callers: &Callers, pool: usize) {
    let (kind, number, gives_up) = with(|world| {
        let kind = world.draw_kind();
        let number = world.new_work(kind, pool, None);
        let gives_up = (below(&mut world.rng, 12) == 0).then(|| world.rng.u32(0..6));
        (kind, number, gives_up)
    });
    let workpool = &callers.pools[pool];
    match gives_up {
        None => send(workpool, kind, number).await,
        Some(steps) => {
            // A caller that goes away before it is answered.
            let mut sending = Box::pin(send(workpool, kind, number));
            for _ in 0..steps {
                let done = std::future::poll_fn(|cx| {
                    std::task::Poll::Ready(sending.as_mut().poll(cx).is_ready())
                });
                if done.await {
                    return;
                }
                give_way().await;
            }
        }
    }
}

async fn enqueue_batch(callers: &Callers, pool: usize) {
    let numbers = with(|world| {
        let size = 1 + below(&mut world.rng, 12);
        let numbers: Vec<_> = (0..size).map(|_| world.new_work(Kind::Job, pool, None)).collect();
        // All of one enqueue are described alike, and their ids are made for them.
        let first = &world.works[numbers[0] as usize];
        let (retry, timeout, delay) = (first.retry, first.timeout, first.delay);
        let priority = first.priority;
        let has_keys = world.plan.pools[pool].key_rule.is_some();
        for number in &numbers {
            let work = &mut world.works[*number as usize];
            (work.retry, work.timeout, work.delay, work.on_complete) =
                (retry, timeout, delay, None);
            work.priority = priority;
            // All have one, or none has.
            work.key = has_keys.then_some(work.key.unwrap_or(0));
            if timeout.is_none() {
                work.acts.retain(|act| act.end != super::world::End::Hang);
            }
            if work.acts.is_empty() {
                let (polls, work_ms, end) = (0, 0, super::world::End::Success);
                work.acts.push(super::world::Act { polls, work_ms, heeds_cancel: false, end });
            }
            if let Some(id) = work.id.take() {
                world.by_id.remove(&id);
            }
            world.sending(*number);
        }
        numbers
    });
    let described = with(|world| Described::of(world, numbers[0]));
    let batch = callers.pools[pool].enqueue_batch(numbers.iter().map(|number| Job(*number)));
    let keys: Vec<_> = with(|world| {
        let key = |number: &u32| Some((*number, world.works[*number as usize].key?));
        numbers.iter().filter_map(key).collect()
    });
    let batch = described.all_but_id(batch);
    let batch = match keys.is_empty() {
        true => batch,
        false => batch.keyed_by(|Job(number)| {
            let of = keys.iter().find(|(it, _)| it == number);
            vec![of.map_or(0, |(_, key)| *key)]
        }),
    };
    let answer = batch.await;
    with(|world| match answer {
        Ok(batch) => {
            for (number, id) in numbers.iter().zip(batch.ids()) {
                world.enqueue_answered(*number, Ok(*id));
            }
        }
        Err(error) => {
            let unsure = is_unsure(&error);
            for number in &numbers {
                let error = match unsure {
                    true => EnqueueError::Closed,
                    false => EnqueueError::Overloaded { pending: 0, max: 0 },
                };
                world.enqueue_answered(*number, Err(error));
            }
        }
    });
}

/// The same work once more, under its id.
async fn enqueue_again(callers: &Callers) {
    let again = with(|world| {
        let (number, _, pool) = world.some_work()?;
        let remembered = world.plan.retention == actix_workpool::Retention::FOREVER;
        let work = &world.works[number as usize];
        let sent = matches!(work.ack, Ack::Sent | Ack::Acked) && work.sends > 0;
        let possible = work.kind != Kind::Alt || world.alt_registered;
        (remembered && sent && possible).then_some((number, work.kind, pool))
    });
    if let Some((number, kind, pool)) = again {
        send(&callers.pools[pool], kind, number).await;
    }
}

/// A job that a caller is about to cancel, and what callers knew of it before.
fn some_job_to_cancel(world: &mut World) -> Option<(u32, WorkId, usize, (bool, bool))> {
    let (number, id, pool) = world.some_work()?;
    world.canceling(number);
    Some((number, id, pool, world.before_cancel(number)))
}

async fn cancel(callers: &Callers) {
    let Some((number, id, pool, before)) = with(some_job_to_cancel) else { return };
    let answer = callers.pools[pool].cancel(id).await;
    with(|world| world.cancel_answered(number, before, &answer));
}

async fn abort(callers: &Callers) {
    let Some((number, id, pool, before)) = with(some_job_to_cancel) else { return };
    let grace = with(|world| pick(&mut world.rng, &[0, 10, 1_000]));
    let answer = callers.pools[pool].abort(id, Duration::from_millis(grace)).await;
    with(|world| {
        world.cancel_answered(number, before, &answer);
        let by = world.now() + millis(grace + 200);
        let work = &mut world.works[number as usize];
        let running = work.starts.last().is_some_and(|start| start.ended.is_none());
        if answer.is_ok() && running && work.abort_by.is_none() {
            work.abort_by = Some(by);
        }
    });
}

async fn cancel_all(callers: &Callers, pool: usize) {
    let before: Vec<_> = with(|world| {
        trace!(world, "cancel all of {pool}");
        world.uniques.cancel_all();
        for work in world.works.iter_mut().filter(|work| work.pool == pool) {
            // One that another caller, or a job, enqueues meanwhile may be found too.
            work.cancel_sent = true;
        }
        let numbers = 0..world.works.len() as u32;
        let mine = numbers.filter(|number| {
            let work = &world.works[*number as usize];
            work.pool == pool && work.ack == Ack::Acked
        });
        mine.collect()
    });
    let answer = callers.pools[pool].cancel_all().await;
    with(|world| {
        let dead = world.dead;
        trace!(world, "cancel all of {pool}: {answer:?}");
        if answer.is_ok() && !dead {
            for number in before {
                world.will_not_start(number);
            }
        }
        // Jobs that were planned meanwhile and are enqueued later are not meant.
        for work in world.works.iter_mut() {
            if work.pool == pool && work.ack == Ack::Planned {
                work.cancel_sent = false;
            }
        }
    });
}

impl World {
    fn canceling(&mut self, number: u32) {
        trace!(self, "cancel {number}");
        self.works[number as usize].cancel_sent = true;
    }

    /// What is known when a cancel is sent: whether the job is there, and whether it has its outcome.
    fn before_cancel(&self, number: u32) -> (bool, bool) {
        let work = &self.works[number as usize];
        (work.ack == Ack::Acked, work.seen.is_some())
    }

    fn cancel_answered(
        &mut self,
        number: u32,
        (acked, finished): (bool, bool),
        answer: &Result<CancelAnswer, PoolError>,
    ) {
        if self.dead {
            return;
        }
        trace!(self, "cancel {number}: {answer:?}");
        match answer {
            Ok(CancelAnswer::AlreadyFinished | CancelAnswer::NotFound) if acked => {
                self.works[number as usize].told_finished = true;
            }
            Ok(CancelAnswer::AlreadyFinished | CancelAnswer::NotFound) => {}
            Ok(_) if finished => {
                self.violate(format_args!("cancel {number} is granted, and it has its outcome"));
            }
            Ok(_) => self.will_not_start(number),
            Err(PoolError::Storage(StorageError::Conflict)) => {
                self.violate(format_args!("cancel {number} is told of another writer"));
            }
            Err(_) => {}
        }
    }

    fn will_not_start(&mut self, number: u32) {
        self.key_moved(number);
        let work = &mut self.works[number as usize];
        if !work.cancel_told && work.seen.is_none() {
            work.cancel_told = true;
            // What runs in the store may be under way, and nobody sees it start.
            work.canceled_unstarted = work.kind.is_action() && work.starts.is_empty();
        }
    }
}

/// Ends the wait of a job, or of one that nobody knows.
async fn run_now(callers: &Callers) {
    let drawn = with(|world| {
        if below(&mut world.rng, 20) == 0 {
            return Some((None, WorkId::from_uuid(uuid::Uuid::from_u128(world.rng.u128(..))), 0));
        }
        let (number, id, pool) = world.some_work()?;
        Some((Some(world.hurry(number)), id, pool))
    });
    let Some((asked, id, pool)) = drawn else { return };
    let answer = callers.pools[pool].run_now(id).await;
    with(|world| match asked {
        Some(asked) => world.hurry_answered(asked, &answer),
        None if world.dead || matches!(answer, Ok(RunNowAnswer::NotFound) | Err(_)) => {}
        None => world.violate(format_args!("a job that nobody knows is {answer:?}")),
    });
}

/// A job as it was when it was asked to be run now.
struct Hurried {
    number: u32,
    acked: bool,
    ended: bool,
    cancel_told: bool,
    starts: usize,
    runs: bool,
    moved: bool,
}

impl World {
    fn hurry(&mut self, number: u32) -> Hurried {
        trace!(self, "run {number} now");
        let work = &mut self.works[number as usize];
        work.hurrying += 1;
        Hurried {
            number,
            acked: work.ack == Ack::Acked,
            ended: work.seen.is_some(),
            cancel_told: work.cancel_told,
            starts: work.starts.len(),
            runs: work.runs(),
            moved: work.moved_at.is_some(),
        }
    }

    fn hurry_answered(&mut self, asked: Hurried, answer: &Result<RunNowAnswer, PoolError>) {
        if self.dead {
            return;
        }
        let number = asked.number;
        trace!(self, "run {number} now: {answer:?}");
        let (now, quiet) = (self.pool_now(), self.quiet && !self.is_disturbed());
        let work = &mut self.works[number as usize];
        let unsure = matches!(
            answer,
            Err(PoolError::Closed | PoolError::Storage(StorageError::Poisoned(_)))
        );
        work.hurrying -= u32::from(!unsure);
        let same = work.starts.len() == asked.starts;
        let hurried = work.is_hurried();
        // It has run all the time, and nothing else can have ended that.
        let runs = asked.runs && same && work.runs();
        let runs = runs && work.timeout.is_none() && !work.cancel_sent;
        // It has waited all the time for its first start.
        let waits = asked.acked && work.starts.is_empty() && work.kind == Kind::Job;
        let waits = waits && now < work.due && !hurried && !work.cancel_sent;
        let wrong = match answer {
            Ok(RunNowAnswer::Moved) if asked.ended => Some("and has its outcome"),
            Ok(RunNowAnswer::Moved) if asked.cancel_told => Some("and was canceled"),
            Ok(RunNowAnswer::Moved) if asked.runs && same && work.runs() => Some("and runs"),
            // One that its key's rate holds back may be moved again and again.
            Ok(RunNowAnswer::Moved)
                if work.kind == Kind::Job && asked.moved && same && work.key.is_none() =>
            {
                Some("and had been already")
            }
            Ok(RunNowAnswer::AlreadyDue | RunNowAnswer::Running) if waits => Some("and waits"),
            Ok(
                RunNowAnswer::AlreadyDue | RunNowAnswer::AlreadyFinished | RunNowAnswer::NotFound,
            ) if runs => Some("and runs"),
            Ok(RunNowAnswer::AlreadyFinished | RunNowAnswer::NotFound) if waits => {
                Some("and waits")
            }
            Ok(RunNowAnswer::NotRegistered) if work.kind != Kind::Alt => {
                Some("and its function is there")
            }
            Ok(RunNowAnswer::Canceled) if !work.cancel_sent => Some("and nobody has canceled it"),
            Err(PoolError::Storage(StorageError::Conflict)) => Some("told of another writer"),
            Err(PoolError::Storage(_)) if quiet => Some("with nothing wrong"),
            _ => None,
        };
        if matches!(answer, Ok(RunNowAnswer::Moved)) {
            work.moved = true;
            // It may have started for it before the answer came, and wait again.
            if same && work.kind == Kind::Job {
                work.moved_at.get_or_insert(now);
            }
        }
        if let Some(wrong) = wrong {
            self.violate(format_args!("run {number} now is answered {answer:?}, {wrong}"));
        }
    }
}

/// The schedules: one lets nothing overlap and catches up with nothing, the other does both.
pub const SCHEDULES: [&str; 2] = ["s0", "s1"];

/// How much later than its time a job is made at most, if nothing was missed: the clock is looked at each minute, and
/// what could not be stored is tried again.
const LATE: Micros = millis(61_000);

pub fn schedules(period: Duration) -> [Schedule; 2] {
    let make = |place: usize| {
        move |nominal: SystemTime| {
            let nominal = nominal.duration_since(UNIX_EPOCH).unwrap_or_default();
            Job(with(|world| world.tick_of(place, nominal.as_micros() as Micros)))
        }
    };
    let every = |place: usize| {
        let schedule = Schedule::every(SCHEDULES[place], period).expect("a period");
        schedule.job_with("p0", "job", make(place))
    };
    let all = CatchUp::All { within: Duration::from_secs(90) };
    let [first, second] = [every(0), every(1)];
    [
        first.overlap(Overlap::Skip).catch_up(CatchUp::Skip),
        second.overlap(Overlap::QueueAll).catch_up(all),
    ]
}

impl World {
    /// A schedule makes the job of a nominal time.
    fn tick_of(&mut self, place: usize, nominal: Micros) -> u32 {
        let late = self.wall_now().saturating_sub(nominal);
        let most = if place == 0 { LATE } else { millis(91_000) };
        if late > most && !self.dead {
            let seconds = late / 1_000_000;
            self.violate(format_args!("a schedule makes a job {seconds} s late"));
        }
        if let Some(number) = self.ticks.get(&(place, nominal)).copied() {
            // It was not stored before, and the pool's clock may have been set back since.
            let now = self.pool_now();
            let work = &mut self.works[number as usize];
            work.due = work.due.min(now);
            return number;
        }
        let number = self.new_work(Kind::Job, 0, None);
        self.ticks.insert((place, nominal), number);
        if let Some(id) = self.works[number as usize].id.take() {
            self.by_id.remove(&id);
        }
        let work = &mut self.works[number as usize];
        (work.tick, work.delay, work.retry, work.timeout) = (Some((place, nominal)), 0, None, None);
        (work.on_complete, work.priority, work.key) = (None, Priority::NORMAL, None);
        work.acts.retain(|act| act.end != super::world::End::Hang);
        if work.acts.is_empty() {
            let (polls, work_ms, end) = (0, 0, super::world::End::Success);
            work.acts.push(super::world::Act { polls, work_ms, heeds_cancel: false, end });
        }
        self.sending(number);
        // Nobody is told when it is enqueued.
        self.works[number as usize].latest_due = Micros::MAX / 2;
        number
    }
}

/// Pauses or resumes a schedule.
async fn pause_schedule(callers: &Callers) {
    let place = with(|world| below(&mut world.rng, 2) as usize);
    let Ok(schedule) = callers.runtime.schedule(SCHEDULES[place]) else { return };
    let (pauses, is_alone, asked) = with(|world| {
        let pauses = world.paused_since[place].is_none();
        // From now on nobody knows.
        world.paused_since[place] = None;
        let (asked, answered) = &mut world.pauses[place];
        let is_alone = asked == answered;
        *asked += 1;
        (pauses, is_alone, *asked)
    });
    let answer = match pauses {
        true => schedule.pause().await,
        false => schedule.resume().await,
    };
    with(|world| {
        trace!(world, "schedule {place}, paused {pauses}: {answer:?}");
        world.pauses[place].1 += 1;
        // Of two that ask at the same time, nobody knows which one was the last.
        if pauses && answer.is_ok() && is_alone && world.pauses[place].0 == asked {
            world.paused_since[place] = Some(world.tick());
        }
    });
}

/// Changes the priority of a job.
async fn set_priority(callers: &Callers) {
    let drawn = with(|world| {
        let (number, id, pool) = world.some_work()?;
        let priority = pick(&mut world.rng, &[-10, 0, 10, 127]);
        trace!(world, "priority of {number}: {priority}");
        // Nobody knows from when on it holds.
        world.works[number as usize].order = u64::MAX;
        let (acked, finished) = world.before_cancel(number);
        Some((number, id, pool, Priority::new(priority), acked, finished))
    });
    let Some((number, id, pool, priority, acked, finished)) = drawn else { return };
    let answer = callers.pools[pool].set_priority(id, priority).await;
    with(|world| {
        trace!(world, "priority of {number}: {answer:?}");
        let work = &world.works[number as usize];
        // An attempt that was lost with its process before it began has failed all the same.
        let is_here = work.sent_life == world.life && work.starts.is_empty();
        let waits = acked && is_here && work.kind == Kind::Job && !work.cancel_sent;
        let wrong = match answer {
            Ok(PriorityAnswer::Changed) => finished,
            Ok(PriorityAnswer::Canceled) => !work.cancel_sent,
            Ok(PriorityAnswer::NotFound | PriorityAnswer::AlreadyFinished) => {
                waits && work.seen.is_none()
            }
            _ => false,
        };
        if wrong && !world.dead {
            world.violate(format_args!("the priority of {number} is answered {answer:?}"));
        }
    });
}

async fn configure(callers: &Callers, pool: usize, pause: bool) {
    let asked = with(|world| {
        if world.pools[pool].asked.is_some() {
            return None;
        }
        let (limit, paused) = world.pools[pool].limit;
        let asked = match pause {
            true => (limit, !paused),
            false => (pick(&mut world.rng, &[0, 1, 1, 2, 3, 8, 20]), paused),
        };
        world.pools[pool].asked = Some(asked);
        trace!(world, "configure {pool}: {asked:?}");
        Some(asked)
    });
    if let Some((limit, paused)) = asked {
        set_limit(&callers.pools[pool], pool, limit, paused).await;
    }
}

pub async fn set_limit(workpool: &Workpool, pool: usize, limit: usize, paused: bool) {
    with(|world| world.pools[pool].was_full = world.now());
    let config = PoolConfig::default().max_parallelism(limit).paused(paused);
    let answer = workpool.update(config).await;
    with(|world| {
        if world.dead {
            return;
        }
        trace!(world, "configure {pool}: {answer:?}");
        let now = world.now();
        let settings = workpool.settings();
        let found = (settings.max_parallelism, settings.paused);
        let expected = match answer {
            Ok(()) => (limit, paused),
            Err(PoolError::Closed | PoolError::Storage(StorageError::Poisoned(_))) => found,
            Err(_) => world.pools[pool].limit,
        };
        if found != expected {
            world.violate(format_args!(
                "pool {pool} has {found:?} after {answer:?}, not {expected:?}"
            ));
        }
        let pool = &mut world.pools[pool];
        match answer {
            Ok(()) => {
                pool.limit = (limit, paused);
                pool.asked = None;
                pool.was_full = now;
            }
            // It may have been asked for and not refused: the next life tells.
            Err(PoolError::Closed | PoolError::Storage(StorageError::Poisoned(_))) => {}
            Err(_) => pool.asked = None,
        }
    });
}

async fn status(callers: &Callers, many: bool) {
    let asked: Vec<_> = with(|world| {
        let count = if many { 5 } else { 1 };
        let some = (0..count).filter_map(|_| world.some_work());
        some.collect::<Vec<_>>()
    });
    let Some((_, first, pool)) = asked.first().copied() else { return };
    let moment = with(|world| world.tick());
    let workpool = &callers.pools[pool];
    let answer = match many {
        false => workpool.status(first).await.map(|status| vec![status]),
        true => {
            let ids: Vec<_> = asked.iter().map(|(_, id, _)| *id).collect();
            workpool.status_batch(&ids).await
        }
    };
    let Ok(statuses) = answer else { return };
    let odd = with(|world| {
        for ((number, ..), status) in asked.iter().zip(&statuses) {
            world.saw_status(*number, status, moment);
        }
        let odd = |((number, ..), status): &(&(u32, WorkId, usize), &WorkStatus)| {
            world.is_odd(*number, status)
        };
        asked.iter().zip(&statuses).find(odd).map(|(asked, _)| *asked)
    });
    if let Some(odd) = odd {
        ask_again(callers, odd).await;
    }
}

/// A status that contradicts what the functions see does so only for a moment.
async fn ask_again(callers: &Callers, (number, id, pool): (u32, WorkId, usize)) {
    let starts = |world: &World| world.works[number as usize].starts.len();
    let before = with(|world| starts(world));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let Ok(status) = callers.pools[pool].status(id).await else { return };
    with(|world| {
        let same = starts(world) == before && !world.is_disturbed();
        if same && world.is_odd(number, &status) {
            world.violate(format_args!("job {number} is shown as {status:?} and is not"));
        }
    });
}

/// Waits for an outcome, and perhaps goes away before it comes.
fn join(callers: &Callers) {
    let drawn = with(|world| {
        let some = world.some_work()?;
        let patience = world.rng.bool().then(|| world.rng.u64(0..=world.plan.pause_ms * 2));
        Some((some, patience))
    });
    let Some(((number, id, pool), patience)) = drawn else { return };
    let work: WorkHandle<Output> = callers.pools[pool].work(id);
    let asked = with(|world| (world.works[number as usize].ack, world.tick()));
    callers.tasks.spawn(async move {
        let joined = match patience {
            None => work.join().await,
            Some(ms) => match tokio::time::timeout(Duration::from_millis(ms), work.join()).await {
                Ok(joined) => joined,
                Err(_) => return,
            },
        };
        with(|world| world.joined(number, asked, joined));
    });
}

impl World {
    pub fn joined(
        &mut self,
        number: u32,
        (ack, moment): (Ack, u64),
        joined: Result<Output, JoinError>,
    ) {
        if self.dead {
            return;
        }
        trace!(self, "join {number}: {joined:?}");
        match joined {
            Ok((of, start)) => {
                if of != number {
                    self.violate(format_args!("job {number} has the result of {of}"));
                }
                self.saw(number, Code::Success(start), None);
            }
            Err(JoinError::Failed { attempts, failure }) => {
                self.saw(number, Code::Failed(failure.kind), Some(attempts));
            }
            Err(JoinError::Canceled) => self.saw(number, Code::Canceled, None),
            Err(JoinError::Unknown(_)) => {
                if ack == Ack::Acked {
                    self.saw_status(number, &WorkStatus::Unknown, moment);
                }
            }
            Err(JoinError::Decode(error)) => {
                self.violate(format_args!("job {number} has a result that is none: {error}"));
            }
            Err(JoinError::Closed | JoinError::Storage(_)) => {}
            Err(other) => self.violate(format_args!("job {number} is joined with {other:?}")),
        }
    }
}

fn watch(callers: &Callers) {
    let drawn = with(|world| {
        let some = world.some_work()?;
        let patience = world.rng.bool().then(|| world.rng.u64(0..=world.plan.pause_ms * 2));
        Some((some, patience))
    });
    let Some(((number, id, pool), patience)) = drawn else { return };
    let mut watch = callers.pools[pool].work::<Output>(id).watch();
    callers.tasks.spawn(async move {
        let changes = async {
            let mut moment = with(|world| world.tick());
            while let Some(status) = watch.next().await {
                with(|world| {
                    world.saw_status(number, &status, moment);
                    moment = world.tick();
                });
            }
        };
        match patience {
            None => changes.await,
            Some(ms) => drop(tokio::time::timeout(Duration::from_millis(ms), changes).await),
        }
    });
}

async fn query(callers: &Callers) {
    let answer = callers.runtime.query(Check(0)).await;
    with(|world| trace!(world, "query: {}", answer.is_ok()));
}

/// Enqueues without waiting for the answer.
async fn do_enqueue(callers: &Callers, pool: usize) {
    let (number, notify) = with(|world| {
        let number = world.new_work(Kind::Job, pool, None);
        world.sending(number);
        let notify = world.rng.bool();
        world.works[number as usize].notifies += u32::from(notify);
        (number, notify)
    });
    let described = with(|world| Described::of(world, number));
    let mut enqueue = described.on(callers.pools[pool].enqueue(Job(number)));
    if notify {
        enqueue = enqueue.notify(callers.ear.clone().recipient());
    }
    match enqueue.do_enqueue() {
        Ok(work) => with(|world| world.bind(number, work.id())),
        Err(error) => with(|world| world.enqueue_answered(number, Err(error))),
    }
}
