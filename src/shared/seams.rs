//! Time, chance and identities: what a simulation replaces.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;
use uuid::Uuid;

use crate::model::{Segment, WorkId};

/// The clock of a runtime.
///
/// The pool asks for the time since the Unix epoch and never lets it run backwards.
pub trait Clock: Send + Sync + 'static {
    /// The time since the Unix epoch.
    fn now(&self) -> Duration;

    /// What the wall shows, to turn a `run_at` into a delay.
    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// The wall clock as it was when the runtime started, driven on by the monotonic clock.
///
/// A wall clock that is set while the program runs therefore neither skips a delay nor cuts one short: `run_after(d)`
/// waits `d`. A `run_at(t)` is turned into a delay when it is enqueued, by the wall clock of that moment. Under
/// tokio's paused time it stands still with it.
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

/// What everything in a runtime takes its time, chance and identities from.
#[derive(Clone)]
pub(crate) struct Seams {
    clock: Arc<dyn Clock>,
    /// How far the store had been ahead of the clock when it was opened, in ms: time goes on from there.
    ahead: Arc<AtomicU64>,
    seed: Option<Arc<Mutex<fastrand::Rng>>>,
}

impl Seams {
    pub fn new(clock: Arc<dyn Clock>, seed: Option<u64>) -> Seams {
        let seed = seed.map(|seed| Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))));
        Seams { clock, ahead: Arc::default(), seed }
    }

    /// The pool's time since the Unix epoch.
    pub fn now(&self) -> Duration {
        self.clock.now() + Duration::from_millis(self.ahead.load(Ordering::Relaxed))
    }

    /// The slice of time under way.
    pub fn segment(&self) -> Segment {
        Segment(u64::try_from(self.now().as_millis()).unwrap_or(u64::MAX - 1))
    }

    /// Returns the time until the wall clock shows `time`; zero when it has passed.
    pub fn until_wall(&self, time: SystemTime) -> Duration {
        time.duration_since(self.clock.wall()).unwrap_or_default()
    }

    /// Goes on from a time that was reached before.
    pub fn go_on_from(&self, reached: Segment) {
        let behind = reached.0.saturating_sub(self.segment().0);
        self.ahead.fetch_add(behind, Ordering::Relaxed);
    }

    /// A generator of one's own: seeded from the runtime's seed if that has one.
    pub fn rng(&self) -> fastrand::Rng {
        match &self.seed {
            None => fastrand::Rng::new(),
            Some(seed) => seed.lock().unwrap_or_else(PoisonError::into_inner).fork(),
        }
    }

    pub fn is_seeded(&self) -> bool {
        self.seed.is_some()
    }

    /// A new id: a UUID v7.
    pub fn work_id(&self) -> WorkId {
        WorkId::from_uuid(match &self.seed {
            None => Uuid::now_v7(),
            Some(seed) => {
                let mut seed = seed.lock().unwrap_or_else(PoisonError::into_inner);
                let random = seed.u128(..).to_be_bytes();
                let mut tail = [0; 10];
                tail.copy_from_slice(&random[..10]);
                let millis = u64::try_from(self.now().as_millis()).unwrap_or(u64::MAX);
                uuid::Builder::from_unix_timestamp_millis(millis, &tail).into_uuid()
            }
        })
    }
}
