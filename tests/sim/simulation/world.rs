//! The world outside of the pool: time, chance, the trace, and every job as its callers and functions know it.
//!
//! All of it is on one thread, and reached from wherever the pool calls: [`with`]. Nothing inside of `with` calls the
//! pool.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::{self, Write};
use std::task::Waker;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use actix_workpool::model::Segment;
use actix_workpool::testing::Clock;
use actix_workpool::testing::disk::{Failing, SimDisk};
use actix_workpool::testing::network::{Courier, Delivery, Letter};
use actix_workpool::{FailureKind, Priority, RetryBehavior, WorkId};
use fastrand::Rng;
use tokio::time::Instant;

use super::Outcome;
use super::plan::{POOLS, Plan, below, pick};

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

/// Reads and writes the world.
pub fn with<T>(act: impl FnOnce(&mut World) -> T) -> T {
    WORLD.with_borrow_mut(|world| act(world.as_mut().expect("a seed is being run")))
}

/// Whether a seed is being run on this thread.
pub fn is_there() -> bool {
    WORLD.try_with(|world| world.try_borrow().is_ok_and(|world| world.is_some())).unwrap_or(false)
}

pub fn begin(seed: u64, plan: Plan, print: bool) {
    let world = World::new(seed, plan, print);
    WORLD.set(Some(world));
}

pub fn end() -> Outcome {
    let world = WORLD.take().expect("a seed is being run");
    Outcome {
        seed: world.seed,
        trace: world.hash,
        pool_minutes: world.before as f64 / 60e6 * world.plan.pools.len() as f64,
        works: world.works.len(),
        attempts: world.works.iter().map(|work| work.starts.len()).sum(),
        lives: world.life,
        crashes: world.crashes,
        faults: world.faults,
        violation: world.violation,
    }
}

/// Adds a line to the trace.
macro_rules! trace {
    ($world:expr, $($arg:tt)*) => { $world.trace(format_args!($($arg)*)) };
}
pub(super) use trace;

/// Microseconds.
pub type Micros = u64;

pub const fn millis(ms: u64) -> Micros {
    ms * 1_000
}

/// After a fault the pool has this long to be as quick as ever again: the longest pause of the storage before it is
/// tried again is 5 s, that of a claim 1 s, and one may follow the other.
const RECOVERS: Micros = millis(15_000);

pub struct World {
    pub seed: u64,
    pub plan: Plan,
    pub rng: Rng,
    hash: u64,
    print: bool,
    pub violation: Option<String>,

    /// The time of all lives before this one.
    before: Micros,
    base: Option<Instant>,
    /// Set when this life is over: nothing that is dropped then takes time.
    frozen: Option<Micros>,
    /// The wall clock when this life began, and by how much it has been set since.
    anchor: Micros,
    wall: i64,
    /// By how much the pool's clock is ahead of the wall as it was at start.
    ahead: Micros,

    pub life: u32,
    /// The process is gone: what still runs on its thread is not there any more.
    pub dead: bool,
    pub waker: Option<Waker>,
    /// Calls of the storage in this life, and before or after which one the process ends.
    pub calls: u64,
    pub crash_at: Option<(u64, bool)>,
    /// Since when time stands still, and the number of the call that came first.
    pub last_call: (Micros, u64),
    /// Lives that ended in a way that may have cost attempts which nobody saw.
    pub crashes: u32,
    pub shutting_down: bool,
    /// The runtime has started. One that cannot start ends as one that is shut down.
    pub started: bool,
    /// The last life: faults have stopped.
    pub quiet: bool,
    pub alt_registered: bool,

    /// What the tables are on, if they are on one.
    pub disk: Option<SimDisk>,
    /// Whether something is wrong with the storage.
    pub faulty: bool,
    pub full: bool,
    /// A sync has failed: the storage is to be opened again.
    pub poisoned: bool,
    pub faults: u64,
    /// Until then nobody can expect anything to be quick.
    pub disturbed: Micros,
    /// When the last letter that is late arrives.
    arrived: Micros,
    /// When the process last stood still.
    pub stalled: Micros,
    /// Until then every worker whose action is polled and goes on waiting is lost.
    losing_until: Micros,
    /// Counts what may change the order of starts.
    pub disorder: u64,

    pub ops_left: u32,
    pub works: Vec<Work>,
    pub uniques: super::unique::Uniques,
    pub by_id: HashMap<WorkId, u32>,
    pub pools: Vec<Pool>,
    /// The jobs of schedules, by schedule and nominal time.
    pub ticks: HashMap<(usize, Micros), u32>,
    /// Since which moment each schedule is certainly paused.
    pub paused_since: [Option<u64>; 2],
    /// How many have asked in this life for each schedule to be paused or resumed, and how many have their answer.
    pub pauses: [(u32, u32); 2],
    /// Counts what is told, so that one can say what was told before what was asked.
    pub moment: u64,
}

/// A pool, as its callers know it.
pub struct Pool {
    pub name: &'static str,
    /// Attempts that run, as the functions see it.
    pub running: usize,
    /// How many may, and whether it is paused, as callers were last told.
    pub limit: (usize, bool),
    /// What a caller has asked for and not been told of.
    pub asked: Option<(usize, bool)>,
    /// When all slots were last taken.
    pub was_full: Micros,
    /// When a job was last started, as far as anybody sees it.
    pub last_start: Micros,
    /// When the starts were, by the pool's clock, where the pool has a rate.
    pub starts: Vec<Micros>,
    /// Until when it was last asked to rest.
    pub rest: Option<Rest>,
    /// Jobs that are due at once and have not started, in the order in which they were acknowledged.
    pub queue: Vec<u32>,
    pub keys: super::keys::Keys,
    pub created: bool,
    /// Who has last taken a turn in a commit, and which.
    pub turn: (u64, u64),
}

/// A rest that a function asked for.
#[derive(Clone, Copy, Debug)]
pub struct Rest {
    /// By the pool's clock.
    pub from: Micros,
    pub until: Micros,
    /// By the process's.
    pub ends: Micros,
    /// The value of `disorder` then.
    pub disorder: u64,
}

/// What an attempt does.
#[derive(Clone, Copy, Debug)]
pub struct Act {
    /// It gives way this often first.
    pub polls: u8,
    pub work_ms: u64,
    pub heeds_cancel: bool,
    pub end: End,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End {
    Success,
    Error { retryable: bool, after_ms: Option<u64> },
    Panic,
    Snooze { ms: u64 },
    LimitPool { ms: u64 },
    LimitKey { ms: u64 },
    Canceled,
    Hang,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An action.
    Job,
    /// An action that is not registered in every life.
    Alt,
    /// A mutation.
    Transfer,
    /// A query.
    Check,
}

impl Pool {
    /// How many attempts may run at once; with a change under way, the more generous one holds.
    pub fn slots(&self) -> usize {
        let slots = |(limit, paused): (usize, bool)| if paused { 0 } else { limit };
        slots(self.limit).max(self.asked.map_or(0, slots))
    }
}

impl Kind {
    pub fn is_action(self) -> bool {
        matches!(self, Kind::Job | Kind::Alt)
    }
}

/// Whether a job is in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ack {
    /// Nobody has enqueued it yet.
    Planned,
    /// It was sent, and no answer came: it may be there.
    Sent,
    Acked,
    /// The caller was told that it is not there.
    Refused,
    /// A transaction of that job enqueues it.
    With(u32),
}

/// A job, as callers and functions know it.
pub struct Work {
    pub pool: usize,
    pub kind: Kind,
    pub id: Option<WorkId>,
    pub ack: Ack,
    /// How often it was sent, and how often the answer was that it is not there.
    pub sends: u32,
    pub refusals: u32,
    pub acts: Vec<Act>,
    pub retry: Option<RetryBehavior>,
    pub timeout: Option<Micros>,
    pub on_complete: Option<OnDone>,
    pub child: Option<u32>,
    pub transfer: (u64, u64, i64),
    /// By the pool's clock.
    pub due: Micros,
    pub latest_due: Micros,
    pub delay: Micros,
    pub sent_at: Micros,
    pub sent_life: u32,
    pub sent_moment: u64,
    pub acked_moment: u64,
    /// The value of `disorder` when it was sent.
    pub order: u64,
    pub priority: Priority,
    pub key: Option<u8>,
    /// The schedule that has enqueued it, and the nominal time.
    pub tick: Option<(usize, Micros)>,
    pub starts: Vec<Start>,
    /// How often its code was called in the store.
    pub calls: u32,
    pub cancel_sent: bool,
    /// Answered: it will not be started again.
    pub cancel_told: bool,
    pub canceled_unstarted: bool,
    /// Answered: it has an outcome.
    pub told_finished: bool,
    pub abort_by: Option<Micros>,
    /// How often it was asked to be run now, and nobody knows yet what became of that.
    pub hurrying: u32,
    /// It was answered that its wait is over, or that may be so, and it has not started since.
    pub moved: bool,
    /// Since when, by the pool's clock, where that is certain.
    pub moved_at: Option<Micros>,
    pub seen: Option<Seen>,
    pub notifies: u32,
    pub notified: u32,
    /// The value of `crashes` when it was sent.
    pub sent_crashes: u32,
}

#[derive(Clone, Copy, Debug)]
pub struct OnDone {
    /// How often it fails before it succeeds.
    pub fails: u32,
    pub panics: bool,
    pub calls: u32,
}

/// An attempt, as its function sees it.
#[derive(Clone, Debug)]
pub struct Start {
    pub at: Micros,
    pub by_pool_clock: Micros,
    pub life: u32,
    pub crashes: u32,
    /// Whether its worker was lost.
    pub is_lost: bool,
    pub ended: Option<Ended>,
}

#[derive(Clone, Copy, Debug)]
pub struct Ended {
    pub how: How,
    pub at: Micros,
    pub by_pool_clock: Micros,
    pub crashes: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum How {
    /// As its act says.
    Returned(End),
    /// It was told to stop and did.
    Heeded { shutdown: bool },
    /// Its future was dropped.
    Dropped { shutdown: bool },
    /// With the process.
    Crashed,
}

/// An outcome that somebody was told.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub code: Code,
    /// Unknown to those who are only told of a success.
    pub attempts: Option<u32>,
    pub at: Micros,
    pub moment: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Code {
    /// What the function returned: which attempt.
    Success(u32),
    Failed(FailureKind),
    Canceled,
}

struct Hasher<'a>(&'a mut u64);

impl Write for Hasher<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for chunk in text.as_bytes().chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            let mixed = (*self.0 ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            *self.0 = mixed ^ (mixed >> 29);
        }
        Ok(())
    }
}

impl World {
    fn new(seed: u64, plan: Plan, print: bool) -> World {
        let pool = |(number, pool): (usize, &super::plan::PoolPlan)| Pool {
            name: POOLS[number],
            running: 0,
            limit: (pool.parallelism, false),
            asked: None,
            was_full: 0,
            last_start: 0,
            starts: Vec::new(),
            rest: None,
            queue: Vec::new(),
            keys: super::keys::Keys::new(pool.key_rule),
            created: false,
            turn: (0, 0),
        };
        World {
            seed,
            rng: Rng::with_seed(seed),
            hash: seed,
            print,
            violation: None,
            before: 0,
            base: None,
            frozen: Some(0),
            anchor: 0,
            wall: millis(1_700_000_000_000) as i64,
            ahead: 0,
            life: 0,
            dead: true,
            waker: None,
            calls: 0,
            crash_at: None,
            last_call: (0, 0),
            crashes: 0,
            shutting_down: false,
            started: false,
            quiet: false,
            alt_registered: true,
            disk: None,
            faulty: false,
            full: false,
            poisoned: false,
            faults: 0,
            disturbed: 0,
            arrived: 0,
            stalled: 0,
            losing_until: 0,
            disorder: 0,
            ops_left: plan.ops,
            works: Vec::new(),
            uniques: Default::default(),
            by_id: HashMap::new(),
            pools: plan.pools.iter().enumerate().map(pool).collect(),
            ticks: HashMap::new(),
            paused_since: [None; 2],
            pauses: [(0, 0); 2],
            moment: 0,
            plan,
        }
    }

    pub fn trace(&mut self, line: fmt::Arguments<'_>) {
        if self.print {
            println!("{:12.3} {line} [{:x}]", self.now() as f64 / 1e3, self.hash & 0xffff);
        }
        self.hash ^= self.now();
        let _ = Hasher(&mut self.hash).write_fmt(line);
    }

    pub fn trace_number(&mut self, number: u64) {
        self.hash = (self.hash ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    /// Notes the first violation, and ends everything.
    pub fn violate(&mut self, what: impl fmt::Display) {
        trace!(self, "VIOLATION {what}");
        if self.violation.is_none() {
            self.violation = Some(format!("{what}, at {:.3} ms", self.now() as f64 / 1e3));
        }
        self.crash();
    }

    // Time

    /// Since the seed began.
    pub fn now(&self) -> Micros {
        self.frozen.unwrap_or_else(|| self.before + self.elapsed())
    }

    fn elapsed(&self) -> Micros {
        self.base.map_or(0, |base| base.elapsed().as_micros() as Micros)
    }

    /// What the pool's clock should show.
    pub fn pool_now(&self) -> Micros {
        self.raw_now() + self.ahead
    }

    fn raw_now(&self) -> Micros {
        self.anchor + (self.now() - self.before)
    }

    pub fn wall_now(&self) -> Micros {
        (self.wall + self.now() as i64) as Micros
    }

    pub fn set_wall(&mut self, by_ms: i64) {
        self.wall += by_ms * 1_000;
        trace!(self, "the wall clock is set by {by_ms} ms");
    }

    /// The storage was opened: the pool's clock goes on from there.
    pub fn opened(&mut self, clock: Segment) {
        self.ahead = millis(clock.0.saturating_sub(self.raw_now() / 1_000));
    }

    /// The process stands still.
    pub fn stalls(&mut self, by: Duration) {
        trace!(self, "stalls for {by:?}");
        self.stalled = self.now() + by.as_micros() as Micros;
        if self.arrived > self.now() {
            self.arrived = self.arrived.max(self.stalled);
        }
        self.disturbed = self.disturbed.max(self.stalled + RECOVERS);
    }

    // Lives

    /// Called in the new life's own system.
    pub fn begin_life(&mut self) {
        self.base = Some(Instant::now());
        self.frozen = None;
        (self.dead, self.started) = (false, false);
        self.anchor = self.wall_now();
        self.ahead = 0;
        self.life += 1;
        self.pauses = [(0, 0); 2];
        self.calls = 0;
        self.last_call = (0, 0);
        self.crash_at = None;
        self.shutting_down = false;
        self.poisoned = false;
        self.disturb();
        let life = self.life;
        trace!(self, "life {life} begins");
    }

    /// From now on nothing of the process does anything any more.
    pub fn crash(&mut self) {
        if !self.dead {
            trace!(self, "the process is gone");
            self.frozen = Some(self.now());
            self.dead = true;
            if let Some(disk) = &self.disk {
                disk.stop();
            }
        }
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// The storage has said that it is to be opened again. The task that waits for that is the one that waits for a
    /// crash.
    pub fn poison(&mut self) {
        self.poisoned = true;
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    /// Called when everything of the life is dropped. `clean` when everything was written that was to be.
    pub fn end_life(&mut self, clean: bool) {
        self.before = self.now();
        self.base = None;
        if !clean {
            self.crashes += 1;
            // A start that nobody saw may have been lost: then the job waits for its retry.
            for work in &mut self.works {
                work.moved_at = None;
            }
        }
        for pool in &mut self.pools {
            pool.running = 0;
        }
        self.disorder += 1;
    }

    /// Something went wrong that takes the pool a while.
    pub fn disturb(&mut self) {
        self.disturbed = self.disturbed.max(self.now() + RECOVERS);
        self.disorder += 1;
    }

    /// Whether a worker is lost, or the arbiter that it is on.
    fn loses_worker(&mut self, work_id: WorkId) -> bool {
        let per_mille = self.plan.faults.late / 8;
        if per_mille == 0 || self.dead || self.quiet || self.shutting_down {
            return false;
        }
        let with_arbiter = self.now() < self.losing_until;
        if !with_arbiter && below(&mut self.rng, 1_000) >= per_mille {
            return false;
        }
        let Some(number) = self.number_of(work_id) else { return false };
        if !with_arbiter && below(&mut self.rng, 4) == 0 {
            self.losing_until = self.now() + millis(1);
        }
        trace!(self, "the worker of {number} is lost");
        self.faults += 1;
        if let Some(start) = self.works[number as usize].starts.last_mut() {
            start.is_lost = true;
        }
        true
    }

    /// A letter takes so long.
    fn delay(&mut self, time: Duration) {
        self.arrived = self.arrived.max(self.now() + time.as_micros() as Micros);
        self.disorder += 1;
    }

    pub fn is_disturbed(&self) -> bool {
        self.now() < self.quick_from()
    }

    /// From then on the pool is expected to be quick.
    pub fn quick_from(&self) -> Micros {
        self.disturbed.max(self.arrived + RECOVERS)
    }

    /// How long after that moment the last letter that is late has arrived or will.
    pub fn arrives_after(&self, moment: Micros) -> Micros {
        self.arrived.saturating_sub(moment)
    }

    /// Whether whatever the pool has to write can be written, and whatever it says is heard.
    pub fn is_well(&self) -> bool {
        self.now() >= self.disturbed.max(self.arrived) && !self.full && !self.poisoned
    }

    /// A later moment than all before.
    pub fn tick(&mut self) -> u64 {
        self.moment += 1;
        self.moment
    }

    /// From now on there is no space, or there is.
    pub fn set_full(&mut self, full: bool) {
        self.full = full;
        if let Some(disk) = &self.disk {
            disk.set_full(full);
        }
    }

    /// The disk fails once, soon. A sync is spared where the life must go on.
    pub fn break_disk(&mut self, spare_syncs: bool) {
        let Some(disk) = self.disk.clone() else { return };
        let most = pick(&mut self.rng, &[1, 5, 40]);
        let steps = self.rng.u64(0..most);
        let failing = pick(&mut self.rng, &[Failing::Read, Failing::Write, Failing::Sync]);
        if failing == Failing::Sync && spare_syncs {
            return;
        }
        trace!(self, "the disk fails after {steps}: {failing:?}");
        disk.fail_after(steps, failing, self.rng.u64(..));
    }

    /// Nothing is wrong with the storage any more.
    pub fn mend(&mut self) {
        self.faulty = false;
        self.set_full(false);
        if let Some(disk) = &self.disk {
            disk.heal();
        }
    }

    /// The machine stops so many steps of its disk from now.
    pub fn stop_after(&mut self, steps: u64) {
        if let Some(disk) = &self.disk {
            disk.stop_after(steps);
        }
    }

    // Jobs

    pub fn number_of(&self, id: WorkId) -> Option<u32> {
        self.by_id.get(&id).copied()
    }

    /// Notes the id of a job.
    pub fn bind(&mut self, number: u32, id: WorkId) {
        match self.works[number as usize].id.replace(id) {
            Some(known) if known != id => self.violate(format_args!("job {number} has two ids")),
            Some(_) => {}
            None => drop(self.by_id.insert(id, number)),
        }
    }
}

/// The clock of the simulated machine.
pub struct SimClock;

impl Clock for SimClock {
    fn now(&self) -> Duration {
        Duration::from_micros(with(|world| world.raw_now()))
    }

    fn wall(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_micros(with(|world| world.wall_now()))
    }
}

/// Carries what loops, workers and the store say to each other.
pub struct SimCourier;

impl Courier for SimCourier {
    fn take(&self, letter: Letter) -> Delivery {
        if !is_there() {
            return Delivery::default();
        }
        with(|world| {
            let late = world.plan.faults.late;
            if late == 0 || world.dead || world.quiet || world.shutting_down {
                return Delivery::default();
            }
            let mut once_in = |per_mille| below(&mut world.rng, 1_000) < per_mille;
            let twice = letter == Letter::Report && once_in(4 * late);
            let late = once_in(late);
            if !late && !twice {
                return Delivery::default();
            }
            let mut wait = || {
                // The longest is more than a loop waits for its turn.
                let ms = pick(&mut world.rng, &[40, 1_000, 1_000, 5_000, 45_000]);
                Duration::from_millis(world.rng.u64(0..=ms))
            };
            let after = if late { wait() } else { Duration::ZERO };
            let again = twice.then(wait);
            trace!(world, "{letter:?} arrives after {after:?}, and again after {again:?}");
            world.faults += 1;
            if late {
                world.delay(after);
            }
            Delivery { after, again }
        })
    }

    fn loses_worker(&self, work_id: WorkId) -> bool {
        is_there() && with(|world| world.loses_worker(work_id))
    }
}
