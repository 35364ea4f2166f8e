//! Time as the pool sees it.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A slice of time, 1 ms long, counted from the Unix epoch.
///
/// One millisecond is the resolution of tokio's timer; a finer grain could not be waited for.
/// A job whose segment is `s` is started when the store's clock has reached `s`, never before.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Segment(pub u64);

impl Segment {
    /// The lane of jobs whose function is not registered. They sort behind everything that can be due, so that a page
    /// of them hides no job that could run.
    pub const UNREGISTERED: Segment = Segment(u64::MAX);

    /// Returns the segment that lies `delay` later, rounded up so that nothing runs early.
    #[must_use]
    pub fn after(self, delay: Duration) -> Segment {
        let millis = delay.as_nanos().div_ceil(1_000_000);
        let millis = u64::try_from(millis).unwrap_or(u64::MAX);
        // No wait leads into the unregistered lane.
        Segment(self.0.saturating_add(millis).min(u64::MAX - 1))
    }

    /// Returns the segment's begin, as a time of the wall clock.
    #[must_use]
    pub fn time(self) -> SystemTime {
        let since_epoch = Duration::from_millis(self.0);
        // No clock of a supported platform ends before the year 30,000.
        UNIX_EPOCH.checked_add(since_epoch).unwrap_or(UNIX_EPOCH)
    }

    /// Returns the segment that a time lies in.
    #[must_use]
    pub fn of(time: SystemTime) -> Segment {
        let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Segment(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX - 1))
    }

    /// Returns the time from `earlier` to `self`; zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Segment) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The place of a pending row in its pool's table: first by time, then by the order of commits.
///
/// The store assigns `seq`; it never repeats, so a key names one row for ever.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Key {
    /// The time at which the row is due.
    pub segment: Segment,
    /// The row's place among those of its segment.
    pub seq: u64,
}
