//! Time as the pool sees it.

use std::cmp::Ordering;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::Priority;

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

/// What a waiting job waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartPlace {
    /// Its time, or, if it is due, a slot.
    #[default]
    Queue,
    /// Its time, or, if it is due, a slot. It holds a place of its key meanwhile.
    Held,
    /// A slot. It holds a place of its key, if it has one.
    Ready {
        /// Of the ready jobs of a priority, the one with the smallest tag starts first.
        tag: u64,
    },
    /// A place of its key: others of the key are ahead.
    Lane,
}

/// The place of a waiting job in its pool's `pending_start`.
///
/// Jobs are in the order of their priorities. Of each, those that are ready come first, by tag, and then those that wait
/// in the queue, by time; the rest is the order of commits. Jobs in lanes follow behind all of these, in the order of
/// their enqueues, and the unregistered jobs come last.
#[derive(Clone, Copy, Debug, Default, Eq)]
pub struct StartKey {
    /// The job's priority.
    pub priority: Priority,
    /// The time at which the job is due.
    pub segment: Segment,
    /// The job's place among those of its segment, of its tag, or of its lane.
    pub seq: u64,
    /// What the job waits for.
    pub place: StartPlace,
}

impl StartKey {
    /// The end of the table.
    pub const END: StartKey =
        StartKey::at(Priority::NORMAL, Key { segment: Segment::UNREGISTERED, seq: u64::MAX });

    /// The begin of the lanes.
    pub const LANES: StartKey = StartKey {
        place: StartPlace::Lane,
        ..StartKey::at(Priority::NORMAL, Key { segment: Segment(0), seq: 0 })
    };

    /// Makes the key of a job that is to wait; the store assigns `seq`.
    #[must_use]
    pub const fn new(priority: Priority, segment: Segment) -> StartKey {
        StartKey::at(priority, Key { segment, seq: 0 })
    }

    /// Makes the key of a place among the jobs of one priority.
    #[must_use]
    pub const fn at(priority: Priority, Key { segment, seq }: Key) -> StartKey {
        StartKey { priority, segment, seq, place: StartPlace::Queue }
    }

    /// Returns the same key in another place.
    #[must_use]
    pub const fn in_place(self, place: StartPlace) -> StartKey {
        StartKey { place, ..self }
    }

    /// Returns the place among the jobs of the same priority.
    #[must_use]
    pub fn key(self) -> Key {
        Key { segment: self.segment, seq: self.seq }
    }

    /// Returns `true` if the job has its place by time.
    #[must_use]
    pub const fn is_by_time(self) -> bool {
        matches!(self.place, StartPlace::Queue | StartPlace::Held)
    }

    /// Returns the key of the job with another priority and due time. In a lane, or where it is ready, it keeps its `seq`.
    #[must_use]
    pub const fn moved(self, priority: Priority, segment: Segment) -> StartKey {
        let seq = if self.is_by_time() { 0 } else { self.seq };
        StartKey { priority, segment, seq, ..self }
    }

    /// Returns `true` if all parts are equal. A job keeps its place in a lane when its priority changes.
    #[must_use]
    pub fn is_same(self, other: StartKey) -> bool {
        let parts = |it: StartKey| (it.priority, it.segment, it.seq, it.place);
        parts(self) == parts(other)
    }

    /// Returns `true` if the job's function is not registered.
    #[must_use]
    pub fn is_unregistered(self) -> bool {
        self.segment == Segment::UNREGISTERED
    }

    /// Returns `true` if the job is in the lane of its key.
    #[must_use]
    pub fn is_in_lane(self) -> bool {
        self.place == StartPlace::Lane && !self.is_unregistered()
    }

    /// Returns the tag of a job that is ready.
    #[must_use]
    pub fn tag(self) -> Option<u64> {
        match self.place {
            StartPlace::Ready { tag } if !self.is_unregistered() => Some(tag),
            _ => None,
        }
    }

    /// Returns the rank of a job that is due: the job with the lowest one starts first. With aging, a job gains a
    /// priority for each such span that it has been due.
    #[must_use]
    pub fn rank(self, now: Segment, aging: Option<Duration>) -> (i64, u64, Segment, u64) {
        let gained = match aging {
            Some(span) if !span.is_zero() => now.since(self.segment).as_nanos() / span.as_nanos(),
            _ => 0,
        };
        let gained = i64::try_from(gained).unwrap_or(i64::MAX).min(1 << 32);
        let level = i64::from(self.priority.number()) - gained;
        match self.tag() {
            Some(tag) => (level, tag, Segment(0), self.seq),
            None => (level, 0, self.segment, self.seq),
        }
    }
}

impl Ord for StartKey {
    fn cmp(&self, other: &StartKey) -> Ordering {
        let part = |it: &StartKey| match it {
            it if it.is_unregistered() => 2,
            it if it.place == StartPlace::Lane => 1,
            _ => 0,
        };
        let by_part = part(self).cmp(&part(other));
        by_part.then_with(|| match part(self) {
            0 => {
                let key = |it: &StartKey| {
                    let tag = it.tag();
                    (it.priority, tag.is_none(), tag.unwrap_or(it.segment.0), it.seq)
                };
                key(self).cmp(&key(other))
            }
            _ => self.seq.cmp(&other.seq),
        })
    }
}

impl PartialEq for StartKey {
    fn eq(&self, other: &StartKey) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl PartialOrd for StartKey {
    fn partial_cmp(&self, other: &StartKey) -> Option<Ordering> {
        Some(self.cmp(other))
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
