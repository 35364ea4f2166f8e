//! Listings of jobs by state, in pages.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::ConfigError;
use super::WorkStatus;
use super::{
    FunctionKind, Key, Name, Outcome, Priority, Segment, Spec, StartKey, StartPlace, WorkFact,
    WorkId, millis,
};

/// The outcome of a job without its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OutcomeKind {
    /// The function succeeded.
    Success,
    /// The last attempt failed and there is no other.
    Failed,
    /// The job was canceled.
    Canceled,
}

impl OutcomeKind {
    pub(crate) fn is_of(self, outcome: &Outcome) -> bool {
        matches!(
            (self, outcome),
            (OutcomeKind::Success, Outcome::Success(_))
                | (OutcomeKind::Failed, Outcome::Failed(_))
                | (OutcomeKind::Canceled, Outcome::Canceled)
        )
    }
}

/// A filter for listings, as [`Runtime::works`](crate::Runtime::works) and [`Workpool::works`](crate::Workpool::works)
/// take it.
///
/// ```
/// # use actix_workpool::{OutcomeKind, WorkFilter};
/// let failed_mails = WorkFilter::finished_with(OutcomeKind::Failed).function("email.send").limit(50);
/// ```
#[derive(Clone, Debug)]
#[must_use = "a filter lists nothing by itself"]
pub struct WorkFilter {
    pub(crate) state: Listed,
    pub(crate) pool: Option<Box<str>>,
    pub(crate) function: Option<Box<str>>,
    pub(crate) priority: Option<Priority>,
    pub(crate) key: Option<Box<[u8]>>,
    /// Lists only waiting jobs that are due later than this.
    pub(crate) later_than: Option<Segment>,
    pub(crate) limit: usize,
}

/// A state, and the place in its order behind which a page begins.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Listed {
    Pending { after: Option<StartKey> },
    Running { after: Option<(Segment, WorkId)> },
    Finished { outcome: Option<OutcomeKind>, before: Option<u64> },
}

impl WorkFilter {
    /// The maximum number of jobs on a page.
    pub const MOST: usize = 500;

    const fn new(state: Listed) -> WorkFilter {
        let (pool, function, priority, key, later_than) = (None, None, None, None, None);
        WorkFilter { state, pool, function, priority, key, later_than, limit: 100 }
    }

    /// Lists jobs that wait, in the order of their priorities. Of each priority, those that have keys and may start come
    /// first, in the order of their turns, and then the others in the order in which they are due. Jobs that wait for
    /// others of their key follow behind all of these, in the order of their enqueues, and those whose function is not
    /// registered come last.
    pub const fn pending() -> WorkFilter {
        WorkFilter::new(Listed::Pending { after: None })
    }

    /// Lists jobs that occupy a slot, in the order of their starts.
    pub const fn running() -> WorkFilter {
        WorkFilter::new(Listed::Running { after: None })
    }

    /// Lists jobs that have an outcome, the latest first.
    pub const fn finished() -> WorkFilter {
        WorkFilter::new(Listed::Finished { outcome: None, before: None })
    }

    /// Lists jobs with this outcome, the latest first.
    pub const fn finished_with(outcome: OutcomeKind) -> WorkFilter {
        WorkFilter::new(Listed::Finished { outcome: Some(outcome), before: None })
    }

    /// Lists jobs of one pool only, given by its name. A pool's handle sets this itself.
    pub fn pool(mut self, name: &str) -> Self {
        self.pool = Some(name.into());
        self
    }

    /// Lists jobs of one function only, given by its name.
    pub fn function(mut self, name: &str) -> Self {
        self.function = Some(name.into());
        self
    }

    /// Lists waiting or running jobs of one priority only. A finished job has none.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = Some(priority);
        self
    }

    /// Lists waiting or running jobs of one [key](crate::Enqueue::key) only. The key of a finished job is not kept.
    pub fn key(mut self, key: impl AsRef<[u8]>) -> Self {
        self.key = Some(key.as_ref().into());
        self
    }

    /// Sets the maximum number of jobs on a page: 1 to [`WorkFilter::MOST`]. The default is 100.
    pub fn limit(mut self, works: usize) -> Self {
        self.limit = works;
        self
    }

    /// Continues where another page ended.
    ///
    /// # Errors
    /// Fails if the cursor is of a listing of another state.
    pub fn after(mut self, cursor: Cursor) -> Result<Self, ConfigError> {
        match (&mut self.state, cursor) {
            (Listed::Pending { after }, Cursor(Place::Pending(place))) => *after = Some(place),
            (Listed::Running { after }, Cursor(Place::Running(place))) => *after = Some(place),
            (Listed::Finished { before, .. }, Cursor(Place::Finished(place))) => {
                *before = Some(place);
            }
            _ => return Err(ConfigError::Cursor { given: cursor.to_string() }),
        }
        Ok(self)
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        if self.priority.is_some() && matches!(self.state, Listed::Finished { .. }) {
            return Err(ConfigError::PriorityOfFinished);
        }
        if self.key.is_some() && matches!(self.state, Listed::Finished { .. }) {
            return Err(ConfigError::KeyOfFinished);
        }
        match self.limit {
            1..=WorkFilter::MOST => Ok(()),
            given => Err(ConfigError::PageSize { given, max: WorkFilter::MOST }),
        }
    }

    /// Returns `true` if the filter takes this job, which has no outcome.
    pub(crate) fn takes(&self, work: &WorkFact) -> bool {
        self.takes_function(work.spec.function)
            && self.priority.is_none_or(|priority| priority == work.priority)
            && self.key.as_deref().is_none_or(|key| work.spec.key() == Some(key))
    }

    pub(crate) fn takes_function(&self, function: Name) -> bool {
        self.function.as_deref().is_none_or(|name| name == function.as_str())
    }
}

/// The place where a page of a listing ended. `Display` and `FromStr` convert it to a word for a URL and back; the
/// content of that word may change with the version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor(pub(crate) Place);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Pending(StartKey),
    Running((Segment, WorkId)),
    Finished(u64),
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Place::Pending(StartKey { priority, segment, seq, place }) => {
                write!(f, "p.{segment}.{seq}.{}", priority.number())?;
                match place {
                    StartPlace::Queue | StartPlace::Held => Ok(()),
                    StartPlace::Ready { tag } => write!(f, ".{tag}"),
                    StartPlace::Lane => f.write_str(".k"),
                }
            }
            Place::Running((started, work_id)) => write!(f, "r.{started}.{work_id}"),
            Place::Finished(number) => write!(f, "f.{number}"),
        }
    }
}

impl FromStr for Cursor {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        place(text).map(Cursor).ok_or_else(|| ConfigError::Cursor { given: text.to_owned() })
    }
}

fn place(text: &str) -> Option<Place> {
    let (state, rest) = text.split_once('.')?;
    if state == "f" {
        return rest.parse().ok().map(Place::Finished);
    }
    let (time, rest) = rest.split_once('.')?;
    let time = Segment(time.parse().ok()?);
    match state {
        "p" => {
            let mut parts = rest.split('.');
            let key = Key { segment: time, seq: parts.next()?.parse().ok()? };
            let priority = Priority::new(parts.next()?.parse().ok()?);
            let place = match parts.next() {
                None => StartPlace::Queue,
                Some("k") => StartPlace::Lane,
                Some(tag) => StartPlace::Ready { tag: tag.parse().ok()? },
            };
            let key = StartKey::at(priority, key).in_place(place);
            parts.next().is_none().then_some(Place::Pending(key))
        }
        "r" => rest.parse().ok().map(|work_id| Place::Running((time, work_id))),
        _ => None,
    }
}

impl Serialize for Cursor {
    /// Serializes the word that `Display` makes.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A page of a listing, with the cursor to the next one.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct WorkPage {
    /// The jobs, in the order of the listing.
    pub works: Vec<ListedWork>,
    /// The cursor for [`WorkFilter::after`]; `None` at the end. Even a page with few jobs or none may have one, since
    /// each page looks at a bounded number of jobs and of bytes.
    pub next: Option<Cursor>,
}

/// A job in a listing.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ListedWork {
    /// The job's id.
    pub work_id: WorkId,
    /// Its pool.
    pub pool: Name,
    /// Its function.
    pub function: Name,
    /// The kind of its function; `None` once it has finished.
    pub kind: Option<FunctionKind>,
    /// Its priority; `None` once it has finished.
    pub priority: Option<Priority>,
    /// The time of the enqueue.
    #[serde(serialize_with = "millis")]
    pub enqueued_at: SystemTime,
    /// `true` if the job is to be canceled, or its running attempt was told to stop.
    pub canceling: bool,
    /// The job's status.
    pub status: WorkStatus,
    #[serde(skip)]
    pub(crate) spec: Option<Spec>,
}

impl ListedWork {
    /// Returns the job's key, if it has one and is still stored. It is not part of the serialized job.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        self.spec.as_ref()?.key()
    }

    /// Returns the job's arguments as JSON, if they are still stored: those of a succeeded job are not kept. They are not
    /// part of the serialized row.
    #[must_use]
    pub fn args(&self) -> Option<&[u8]> {
        self.spec.as_ref().map(Spec::args)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_being_a_word() {
        let work_id = WorkId::from_uuid(uuid::Uuid::from_u128(7));
        let low = StartKey { seq: 8, ..StartKey::new(Priority::new(-128), Segment(9)) };
        for place in [
            Place::Pending(StartKey::END),
            Place::Pending(low),
            Place::Running((Segment(9), work_id)),
            Place::Finished(u64::MAX),
        ] {
            let cursor = Cursor(place);
            assert_eq!(cursor.to_string().parse::<Cursor>().ok(), Some(cursor));
            let json = serde_json::to_string(&cursor).unwrap_or_default();
            assert_eq!(serde_json::from_str::<Cursor>(&json).ok(), Some(cursor));
        }
    }

    #[test]
    fn what_is_no_cursor_is_an_error() {
        for text in ["", "f", "f.", "f.-1", "f.1.2", "p.1", "p.1.x", "r.1.2", "x.1.2", "p.1.2.300"]
        {
            assert!(text.parse::<Cursor>().is_err(), "{text}");
        }
    }
}
