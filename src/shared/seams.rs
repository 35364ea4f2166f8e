//! The sources of time, random numbers and ids, which a simulation replaces.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;
use uuid::Uuid;

use crate::model::{Segment, WorkId};

/// The clock of a runtime.
///
/// The pool reads the time since the Unix epoch, and never lets its own time run backwards.
pub trait Clock: Send + Sync + 'static {
    /// Returns the time since the Unix epoch.
    fn now(&self) -> Duration;

    /// Returns the wall clock's time, which turns a `run_at` into a delay.
    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// The wall clock's time when the runtime started, advanced by the monotonic clock.
///
/// Setting the wall clock while the program runs therefore changes no delay: `run_after(d)` waits `d`. A `run_at(t)`
/// becomes a delay when it is enqueued, by the wall clock at that moment. When tokio's time is paused, this clock is
/// paused too.
#[derive(Debug)]
pub struct SystemClock {
    anchor: Duration,
    started: Instant,
}

impl SystemClock {
    /// Reads the wall clock, once.
    #[must_use]
    pub fn new() -> SystemClock {
        let anchor = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        SystemClock { anchor, started: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        SystemClock::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.anchor + self.started.elapsed()
    }
}

const NANOS_PER_MS: u64 = 1_000_000;

/// The source of time, random numbers and ids for everything in a runtime.
#[derive(Clone)]
pub(crate) struct Seams {
    clock: Arc<dyn Clock>,
    /// The time by which the pool's time is ahead of the clock, in nanoseconds.
    ahead: Arc<AtomicU64>,
    seed: Option<Arc<Mutex<fastrand::Rng>>>,
}

impl Seams {
    pub fn new(clock: Arc<dyn Clock>, seed: Option<u64>) -> Seams {
        let seed = seed.map(|seed| Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))));
        Seams { clock, ahead: Arc::default(), seed }
    }

    /// Returns the pool's time since the Unix epoch.
    pub fn now(&self) -> Duration {
        self.clock.now() + Duration::from_nanos(self.ahead.load(Ordering::Relaxed))
    }

    /// Returns the current segment.
    pub fn segment(&self) -> Segment {
        Segment(u64::try_from(self.now().as_millis()).unwrap_or(u64::MAX - 1))
    }

    /// Returns the time until the wall clock shows `time`; zero when it has passed.
    pub fn until_wall(&self, time: SystemTime) -> Duration {
        time.duration_since(self.clock.wall()).unwrap_or_default()
    }

    /// Continues from a time that the store has reached before.
    pub fn go_on_from(&self, reached: Segment) {
        let behind = reached.0.saturating_sub(self.segment().0);
        self.ahead.fetch_add(behind.saturating_mul(NANOS_PER_MS), Ordering::Relaxed);
    }

    /// Moves the time ahead by less than a millisecond, so that segments begin in whole milliseconds from `start`.
    ///
    /// A timer of tokio goes off in whole milliseconds from the start of its tokio runtime. When segments begin then,
    /// no job waits for the rest of a millisecond.
    pub fn align(&self, start: Instant) {
        let since = start.elapsed().as_nanos() as u64 % NANOS_PER_MS;
        let into_segment = (self.now().as_nanos() % u128::from(NANOS_PER_MS)) as u64;
        let ahead = (NANOS_PER_MS + since - into_segment) % NANOS_PER_MS;
        self.ahead.fetch_add(ahead, Ordering::Relaxed);
    }

    /// Returns a new random generator, seeded from the runtime's seed if there is one.
    pub fn rng(&self) -> fastrand::Rng {
        match &self.seed {
            None => fastrand::Rng::new(),
            Some(seed) => seed.lock().unwrap_or_else(PoisonError::into_inner).fork(),
        }
    }

    pub fn is_seeded(&self) -> bool {
        self.seed.is_some()
    }

    /// Returns a new id: a UUID v7.
    pub fn work_id(&self) -> WorkId {
        let tail = match &self.seed {
            // Its fixed bits are where those of the new id are.
            None => Uuid::new_v4().as_u128() << 48,
            Some(seed) => seed.lock().unwrap_or_else(PoisonError::into_inner).u128(..),
        };
        let (mut random, millis) = ([0; 10], self.segment().0);
        random.copy_from_slice(&tail.to_be_bytes()[..10]);
        WorkId::from_uuid(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
    }

    /// Returns a source of new ids for the jobs of one enqueue.
    pub fn work_ids(&self) -> WorkIds<'_> {
        WorkIds { seams: self, last: None, steps: fastrand::Rng::new() }
    }
}

/// New ids, each a random step above the last: drawing all bits of each anew cost as much as encoding its job. With a
/// seed they are drawn one by one.
pub(crate) struct WorkIds<'s> {
    seams: &'s Seams,
    last: Option<WorkId>,
    steps: fastrand::Rng,
}

impl WorkIds<'_> {
    pub fn draw(&mut self) -> WorkId {
        /// The bits of an id that are random throughout; above them is its variant.
        const RANDOM: u128 = (1 << 62) - 1;
        let next = self.last.filter(|_| !self.seams.is_seeded()).and_then(|last| {
            let (last, step) = (last.as_u128(), 1 + u128::from(self.steps.u32(..)));
            ((last & RANDOM) + step <= RANDOM).then(|| Uuid::from_u128(last + step))
        });
        let next = next.map_or_else(|| self.seams.work_id(), WorkId::from_uuid);
        self.last = Some(next);
        next
    }
}
