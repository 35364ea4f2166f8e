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
    /// The end of the range of ids that was reserved last.
    last_id: Arc<Mutex<u128>>,
}

impl Seams {
    pub fn new(clock: Arc<dyn Clock>, seed: Option<u64>) -> Seams {
        let seed = seed.map(|seed| Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))));
        Seams { clock, ahead: Arc::default(), seed, last_id: Arc::new(Mutex::new(0)) }
    }

    /// Returns the pool's time since the Unix epoch.
    pub fn now(&self) -> Duration {
        self.clock.now() + Duration::from_nanos(self.ahead.load(Ordering::Relaxed))
    }

    /// Returns the current segment.
    pub fn segment(&self) -> Segment {
        Segment(u64::try_from(self.now().as_millis()).unwrap_or(u64::MAX - 1))
    }

    /// Returns the wall clock's time.
    pub fn wall(&self) -> SystemTime {
        self.clock.wall()
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
        self.work_ids(1).draw()
    }

    /// Returns a source of `count` new ids. Without a seed they are above all before them.
    pub fn work_ids(&self, count: usize) -> WorkIds<'_> {
        WorkIds { seams: self, next: self.reserve(count as u128), steps: fastrand::Rng::new() }
    }

    /// Reserves a range of ids, and returns its start: behind the last range, or at random in a new millisecond.
    fn reserve(&self, count: u128) -> u128 {
        let (now, room) = (self.segment().0, count * STEP);
        let mut last = self.last_id.lock().unwrap_or_else(PoisonError::into_inner);
        if *last >> 80 < u128::from(now) || (*last & RANDOM) + room > RANDOM {
            // The fixed bits of version 4 are where those of version 7 are. The highest random bit leaves room above.
            *last = uuid_v7(now, Uuid::new_v4().as_u128() << 48).as_u128() & !(1 << 61);
        }
        let first = *last;
        *last += room;
        first
    }
}

/// The bits of an id that are random throughout; above them is its variant.
const RANDOM: u128 = (1 << 62) - 1;

/// The mean distance of two ids of one range.
const STEP: u128 = 1 << 32;

/// Makes an id of a time and of the upper 80 bits of a random number.
fn uuid_v7(millis: u64, random: u128) -> Uuid {
    let mut tail = [0; 10];
    tail.copy_from_slice(&random.to_be_bytes()[..10]);
    uuid::Builder::from_unix_timestamp_millis(millis, &tail).into_uuid()
}

/// New ids, each a random step above the last: drawing all bits of each anew cost as much as encoding its job. With a
/// seed they are drawn one by one.
pub(crate) struct WorkIds<'s> {
    seams: &'s Seams,
    next: u128,
    steps: fastrand::Rng,
}

impl WorkIds<'_> {
    /// Returns the next id.
    pub fn draw(&mut self) -> WorkId {
        WorkId::from_uuid(match &self.seams.seed {
            None => {
                let id = self.next + u128::from(self.steps.u32(..));
                self.next += STEP;
                Uuid::from_u128(id)
            }
            Some(seed) => {
                let random = seed.lock().unwrap_or_else(PoisonError::into_inner).u128(..);
                uuid_v7(self.seams.segment().0, random)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(seams: &Seams) -> Vec<WorkId> {
        let mut ids = seams.work_ids(1_000);
        (0..1_000).map(|_| ids.draw()).collect()
    }

    fn seams(seed: Option<u64>) -> Seams {
        Seams::new(Arc::new(SystemClock::new()), seed)
    }

    #[test]
    fn ids_are_uuids_of_version_7_in_ascending_order() {
        let (here, elsewhere) = (seams(None), seams(None));
        let ids = [draw(&here), vec![here.work_id()], draw(&here), draw(&here)].concat();
        assert!(ids.is_sorted_by(|id, next| id < next));
        assert!(ids.iter().all(|id| id.as_uuid().get_version_num() == 7));
        assert!(ids.iter().all(|id| id.as_uuid().get_variant() == uuid::Variant::RFC4122));
        assert!(!draw(&elsewhere).iter().any(|id| ids.contains(id)));
    }

    #[test]
    fn ids_are_repeated_with_a_seed() {
        let random = |id: &WorkId| id.as_u128() << 64;
        let of = |seed| draw(&seams(Some(seed))).iter().map(random).collect::<Vec<_>>();
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }
}
