//! Schedules: when they fire, and what is stored of them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::{Cron, Every, Name, Segment, WorkId};

/// What happens when a schedule fires while the job of the time before has no outcome yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Overlap {
    /// This time is skipped. The default.
    #[default]
    Skip,
    /// The job is enqueued, unless one waits already: one runs, and one waits at most.
    QueueOne,
    /// The job is enqueued.
    QueueAll,
    /// The job before is canceled, and this one enqueued.
    CancelPrevious,
}

/// What happens with the times at which a schedule could not fire, because no process ran.
///
/// A new schedule, and one whose times were changed, has missed nothing. Neither has one that was paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CatchUp {
    /// They are skipped.
    Skip,
    /// The last of them runs, if it was missed by no more than `within`.
    Once {
        /// The time within which it is worth while.
        within: Duration,
    },
    /// All that were missed by no more than `within` run, in order; at most the last 1,000. With
    /// [`Overlap::QueueAll`]: other overlaps skip those that come while the first one still runs.
    All {
        /// The time within which they are worth while.
        within: Duration,
    },
}

impl Default for CatchUp {
    /// Makes the default: the last one runs, if it was missed by no more than an hour.
    fn default() -> CatchUp {
        CatchUp::Once { within: Duration::from_secs(60 * 60) }
    }
}

/// The times at which a schedule fires. They are called *nominal*, because the schedule may fire a little later.
#[derive(Clone, Debug)]
pub(crate) enum Recurrence {
    Cron { cron: Cron, zone: Zone },
    Every(Every),
}

/// A time zone and its name.
#[derive(Clone)]
pub(crate) struct Zone {
    pub name: Arc<str>,
    pub rules: TimeZone,
}

impl Zone {
    pub fn utc() -> Zone {
        Zone { name: "UTC".into(), rules: TimeZone::UTC }
    }

    /// Returns the zone of that name in the tz database.
    pub fn named(name: &str) -> Option<Zone> {
        let rules = TimeZone::get(name).ok()?;
        Some(Zone { name: rules.iana_name().unwrap_or(name).into(), rules })
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}

fn timestamp(segment: Segment) -> Option<Timestamp> {
    Timestamp::from_millisecond(i64::try_from(segment.0).ok()?).ok()
}

fn segment(timestamp: Timestamp) -> Option<Segment> {
    u64::try_from(timestamp.as_millisecond()).ok().map(Segment)
}

impl Recurrence {
    /// Returns the first time after `after`; `None` at the end of the calendar.
    pub fn next_after(&self, after: Segment) -> Option<Segment> {
        match self {
            Recurrence::Cron { cron, zone } => {
                segment(cron.next_after(timestamp(after)?, &zone.rules)?)
            }
            Recurrence::Every(every) => every.next_after(after.0).map(Segment),
        }
    }

    /// Returns the last time after `after` and not after `until`.
    pub fn last_between(&self, after: Segment, until: Segment) -> Option<Segment> {
        match self {
            Recurrence::Cron { cron, zone } => {
                segment(cron.last_between(timestamp(after)?, timestamp(until)?, &zone.rules)?)
            }
            Recurrence::Every(every) => every.last_between(after.0, until.0).map(Segment),
        }
    }
}

impl fmt::Display for Recurrence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Recurrence::Cron { cron, zone } => write!(f, "{} {}", cron.as_str(), zone.name),
            Recurrence::Every(every) => write!(f, "every {:?}", every.period()),
        }
    }
}

/// The stored part of a schedule. A row of the table [`SCHEDULES`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScheduleRow {
    /// The last nominal time that was handled, whether its job was enqueued or not.
    pub last: Segment,
    pub paused: bool,
    /// The last job, and its nominal time.
    pub run: Option<(WorkId, Segment)>,
    /// The number of times that were skipped, because the job before had no outcome yet.
    pub skipped: u64,
    /// The times, in words: if they change, nothing was missed.
    pub times: String,
}

/// The table of the schedules' rows. It is one of the user tables, which every storage has; a program cannot write it.
pub(crate) const SCHEDULES: Name = Name::from_static("workpool.schedules");
