//! Explanations: why a job waits or runs, and when it is expected to start.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::lanes::LaneCx;
use crate::model::{
    FailedAttempt, Finished, FinishedWork, History, KeyRule, LaneRow, Name, Priority, Progress,
    Segment, Settings, Spec, StartPlace, WorkFact, WorkId, millis,
};

/// The maximum number of jobs ahead that are counted, to limit the load of the store.
pub(crate) const MOST_COUNTED: usize = 1_000;

/// The reason why a job waits or runs, and when it is expected to start. Made by
/// [`Workpool::explain`](crate::Workpool::explain).
///
/// It is a snapshot. `Display` writes it as a sentence.
///
/// ```
/// # use actix_workpool::doctest::{self, Double};
/// use std::time::Duration;
///
/// use actix_workpool::Why;
/// # doctest::run(async {
/// # let runtime = doctest::runtime().await?;
/// # let pool = runtime.pool("default")?;
/// let work = pool.enqueue(Double(1)).run_after(Duration::from_secs(60)).await?;
/// let explained = work.explain().await?;
/// assert_eq!(explained.why, Why::NotDue);
/// println!("{explained}"); // job 0197… (double in pool default) waits for its time; expected to start in 1 min
/// # runtime.shutdown(std::time::Duration::ZERO).await;
/// # Ok(()) });
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Explanation {
    /// The job's id.
    pub work_id: WorkId,
    /// Its pool; `None` if the job is not known or the store does not answer.
    pub pool: Option<Name>,
    /// Its function; `None` if `pool` is `None`.
    pub function: Option<Name>,
    /// The time of the explanation.
    #[serde(serialize_with = "millis")]
    pub at: SystemTime,
    /// The time of the enqueue; `None` if `pool` is `None`.
    #[serde(serialize_with = "millis")]
    pub enqueued_at: Option<SystemTime>,
    /// The number of attempts that counted so far.
    pub attempts: u32,
    /// The maximum number of attempts; 0 if not known, for example of a finished job.
    pub max_attempts: u32,
    /// Its priority; `None` once it has finished.
    pub priority: Option<Priority>,
    /// The time at which it is due, if it waits.
    #[serde(serialize_with = "millis")]
    pub due: Option<SystemTime>,
    /// The number of jobs of its pool that come before it, if it waits.
    pub ahead: Option<Ahead>,
    /// The reason why it waits or runs; of several reasons, the one that must be removed first.
    pub why: Why,
    /// The time at which it is expected to start; `None` if it has started, never will, or the time cannot be
    /// estimated.
    pub expected: Option<Expected>,
    /// Its failed attempts so far.
    pub history: History,
    /// The `on_complete` that runs, or has run, in the commit that completes it.
    pub on_complete: Option<Name>,
    #[serde(skip)]
    pub(crate) spec: Option<Spec>,
}

/// The number of jobs that come before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Ahead {
    /// The counted number.
    pub works: u64,
    /// `true` if there may be more: the count stops at 1,000.
    pub or_more: bool,
}

impl Ahead {
    pub(crate) fn counted(works: usize) -> Ahead {
        Ahead { works: works.min(MOST_COUNTED) as u64, or_more: works > MOST_COUNTED }
    }
}

/// The time at which a job is expected to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Expected {
    /// The time.
    #[serde(serialize_with = "millis")]
    pub start: SystemTime,
    /// The quality of the estimate.
    pub basis: Basis,
}

/// The basis of an expected start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Basis {
    /// The job starts when it is due: a slot will be free, unless new jobs come first.
    Due,
    /// An estimate: the jobs ahead are expected to take as long as recent ones.
    Estimate,
    /// The earliest possible start. The job may start much later: no attempt has ended yet, or not all jobs ahead were
    /// counted.
    AtTheEarliest,
}

/// A reason why a job waits or runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Why {
    /// The store has not answered for a while. No job of any pool starts or completes until it does.
    StoreStalled {
        /// The time at which its current operation began.
        #[serde(serialize_with = "millis")]
        since: SystemTime,
    },
    /// The store cannot write. No job of any pool starts until it can.
    StoreFailing {
        /// The time since which it has been failing.
        #[serde(serialize_with = "millis")]
        since: SystemTime,
        /// The error.
        error: String,
    },
    /// The runtime is shutting down and starts no jobs.
    ShuttingDown,
    /// The job's pool is in the store, but this process has not started it.
    PoolNotStarted,
    /// The job's function is not registered in this process, or is registered as another kind.
    NotRegistered,
    /// The pool starts no jobs: it is paused, or its `max_parallelism` is 0.
    Paused {
        /// `true` if it is paused.
        paused: bool,
    },
    /// The job is not due yet.
    NotDue,
    /// An attempt failed, and the retry is not due yet.
    RetryBackoff {
        /// The number of the retry; the first is 1.
        retry: u32,
        /// The maximum number of retries.
        max_retries: u32,
    },
    /// The job is due, but no slot is free.
    NoFreeSlot {
        /// The number of running attempts.
        running: u64,
        /// The limit.
        limit: u64,
    },
    /// The job is due, but the pool's rate admits no start yet, or the pool rests.
    RateLimited {
        /// The time at which the next job may start.
        #[serde(serialize_with = "millis")]
        until: SystemTime,
    },
    /// Others of the job's key come before it: they run, or are ahead in the lane of the key.
    BehindKey {
        /// A job of the key that runs, if one does.
        running: Option<WorkId>,
    },
    /// The rate of the job's key admits no start yet, or the key rests.
    KeyLimited {
        /// The time at which a job of the key may start.
        #[serde(serialize_with = "millis")]
        until: SystemTime,
    },
    /// The job is due and slots are free, but other jobs come first.
    Behind,
    /// The job is due and starts next.
    AboutToStart,
    /// An attempt is running.
    Running {
        /// The number of the attempt; the first is 1.
        attempt: u32,
        /// The time of its start; `None` until its worker has begun it.
        #[serde(serialize_with = "millis")]
        since: Option<SystemTime>,
        /// The time at which its timeout ends it, if it has one.
        #[serde(serialize_with = "millis")]
        timeout_at: Option<SystemTime>,
        /// The last progress that it has reported.
        progress: Option<Arc<Progress>>,
    },
    /// The job's attempt has ended, and the pool has not handled its result yet.
    Completing {
        /// `true` if a retry follows.
        will_retry: bool,
    },
    /// The job was canceled.
    Canceling {
        /// The start of the running attempt, which was told to stop; `None` if none is running.
        #[serde(serialize_with = "millis")]
        running_since: Option<SystemTime>,
    },
    /// The job has an outcome.
    Finished(FinishedWork),
    /// No job of this id was ever enqueued here, or its outcome has been deleted after its retention.
    Unknown,
}

impl Explanation {
    /// Returns `true` if the job waits to start, for any reason.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !matches!(
            self.why,
            Why::Running { .. }
                | Why::Completing { .. }
                | Why::Canceling { .. }
                | Why::Finished(_)
                | Why::Unknown
        )
    }

    fn bare(work_id: WorkId, at: Segment, why: Why) -> Explanation {
        Explanation {
            work_id,
            pool: None,
            function: None,
            at: at.time(),
            enqueued_at: None,
            attempts: 0,
            max_attempts: 0,
            priority: None,
            due: None,
            ahead: None,
            why,
            expected: None,
            history: History::default(),
            on_complete: None,
            spec: None,
        }
    }

    /// Returns the job's arguments as JSON, if they are still stored: those of a succeeded job are not kept. They are
    /// not part of the serialized explanation.
    #[must_use]
    pub fn args(&self) -> Option<&[u8]> {
        self.spec.as_ref().map(Spec::args)
    }

    /// Returns the job's key, if it has one and is still stored. It is not part of the serialized explanation.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        self.spec.as_ref()?.key()
    }

    /// Returns the last failed attempt.
    #[must_use]
    pub fn last_failure(&self) -> Option<&FailedAttempt> {
        self.history.attempts().last()
    }
}

/// The store's part of an explanation that is about the lane of a key.
pub(crate) struct FoundLane {
    pub row: LaneRow,
    /// A job of the key that runs.
    pub running: Option<WorkId>,
}

/// The store's part of an explanation.
pub(crate) enum Found {
    Work {
        work: Box<WorkFact>,
        pool: Name,
        /// The number of jobs of its pool that come before it, if it waits; counted up to one more than
        /// [`MOST_COUNTED`].
        ahead: usize,
        /// The lane of its key, if it has one and waits.
        lane: Option<FoundLane>,
    },
    Finished(Arc<Finished>),
    Nothing,
}

/// The facts for an explanation that are not in the tables.
pub(crate) struct Surroundings {
    pub at: Segment,
    /// The failure of the storage, which blocks all starts.
    pub trouble: Option<Why>,
    pub shutting_down: bool,
    /// `true` if the job's function is registered.
    pub registered: bool,
    /// The job's pool, if this process has started it.
    pub pool: Option<PoolNow>,
    /// The start and the last progress of the job's running attempt, if the board has one.
    pub running: Option<(Segment, Option<Arc<Progress>>)>,
}

/// A pool at one moment.
pub(crate) struct PoolNow {
    pub name: Name,
    pub settings: Arc<Settings>,
    pub running: u64,
    /// The mean time in a slot of recent attempts.
    pub pace: Option<Duration>,
    /// The time before which its rate admits no start, if it is later than now.
    pub limited_until: Segment,
}

/// Explains a job from the facts of the tables and of the process.
pub(crate) fn explain(work_id: WorkId, found: &Found, around: &Surroundings) -> Explanation {
    let at = around.at;
    let trouble = || around.trouble.clone();
    let (work, pool, ahead, lane) = match found {
        Found::Work { work, pool, ahead, lane } => (work, *pool, *ahead, lane.as_ref()),
        Found::Finished(row) => return finished(row, around),
        // The job may be on its way to the store.
        Found::Nothing => {
            return Explanation::bare(work_id, at, trouble().unwrap_or(Why::Unknown));
        }
    };
    let spec = &work.spec;
    let mut told = Explanation {
        pool: Some(pool),
        function: Some(spec.function),
        enqueued_at: Some(spec.enqueued_at.time()),
        attempts: work.attempts,
        max_attempts: spec.max_attempts(),
        priority: Some(work.priority),
        history: work.history.clone(),
        on_complete: spec.on_complete().map(|call| call.name),
        spec: Some(spec.clone()),
        ..Explanation::bare(work_id, at, Why::AboutToStart)
    };
    if work.pending_start.is_none() {
        told.why = running(work, around);
        return told;
    }
    if work.is_canceled() {
        told.why = Why::Canceling { running_since: None };
        return told;
    }
    let due = work.due();
    told.due = due.map(Segment::time);
    told.ahead = due.map(|_| Ahead::counted(ahead));
    let in_way = trouble().or_else(|| match &around.pool {
        _ if around.shutting_down => Some(Why::ShuttingDown),
        None => Some(Why::PoolNotStarted),
        Some(_) if !around.registered => Some(Why::NotRegistered),
        Some(PoolNow { settings, .. }) if settings.slots() == 0 => {
            Some(Why::Paused { paused: settings.paused })
        }
        Some(_) => None,
    });
    if let Some(why) = in_way {
        told.why = why;
        return told;
    }
    if let (Some(pool), Some(due)) = (&around.pool, due) {
        told.why = by_key(work, due, at, lane, pool.settings.per_key)
            .unwrap_or_else(|| waiting(work, due, at, ahead, pool));
        if let Why::BehindKey { .. } = told.why {
            return told;
        }
        told.expected = expected(at, due, ahead, pool.running, &pool.settings, pool.pace);
        told.expected = told.expected.map(|expected| by_rate(expected, at, ahead, pool));
    }
    told
}

/// Explains a job without an answer of the store.
pub(crate) fn without_store(work_id: WorkId, at: Segment, why: Why) -> Explanation {
    Explanation::bare(work_id, at, why)
}

fn finished(row: &Arc<Finished>, around: &Surroundings) -> Explanation {
    let details = row.details.as_deref().cloned().unwrap_or_default();
    Explanation {
        pool: around.pool.as_ref().map(|pool| pool.name),
        function: Some(row.function),
        enqueued_at: Some(row.enqueued_at.time()),
        attempts: row.attempts,
        history: details.history,
        on_complete: details.on_complete,
        spec: details.spec,
        ..Explanation::bare(row.work_id, around.at, Why::Finished(row.clone().into()))
    }
}

fn running(work: &WorkFact, around: &Surroundings) -> Why {
    let started = around.running.as_ref().map(|(started, _)| *started);
    let since = started.map(Segment::time);
    match work.pending_completion {
        Some((_, will_retry)) => Why::Completing { will_retry: will_retry && !work.is_canceled() },
        None if work.is_canceled() => Why::Canceling { running_since: since },
        None => Why::Running {
            attempt: work.attempts + 1,
            since,
            timeout_at: started
                .zip(work.spec.timeout())
                .map(|(since, limit)| since.after(limit).time()),
            progress: around.running.as_ref().and_then(|(_, progress)| progress.clone()),
        },
    }
}

/// Explains a job by its key.
fn by_key(
    work: &WorkFact,
    due: Segment,
    now: Segment,
    lane: Option<&FoundLane>,
    rule: KeyRule,
) -> Option<Why> {
    let FoundLane { row, running } = lane?;
    let key = work.pending_start?;
    if key.is_in_lane() {
        return Some(Why::BehindKey { running: *running });
    }
    let admitted = LaneCx { rule, now }.admit(row, work.spec.cost()).err();
    let is_held = key.place == StartPlace::Held && due > now;
    (is_held && admitted >= Some(due)).then(|| Why::KeyLimited { until: due.time() })
}

fn waiting(work: &WorkFact, due: Segment, now: Segment, ahead: usize, pool: &PoolNow) -> Why {
    let (limit, running) = (pool.settings.slots() as u64, pool.running);
    match () {
        () if due > now && work.attempts > 0 => Why::RetryBackoff {
            retry: work.attempts,
            max_retries: work.spec.max_attempts().saturating_sub(1),
        },
        () if due > now => Why::NotDue,
        () if running >= limit => Why::NoFreeSlot { running, limit },
        () if pool.limited_until > now => Why::RateLimited { until: pool.limited_until.time() },
        () if ahead > 0 => Why::Behind,
        () => Why::AboutToStart,
    }
}

/// Estimates the start of a job. While all slots are taken, one becomes free every `pace / limit`.
fn expected(
    now: Segment,
    due: Segment,
    ahead: usize,
    running: u64,
    settings: &Settings,
    pace: Option<Duration>,
) -> Option<Expected> {
    let limit = settings.slots() as u64;
    let free = limit.saturating_sub(running);
    let Ahead { works, or_more } = Ahead::counted(ahead);
    if works < free {
        return Some(Expected { start: due.max(now).time(), basis: Basis::Due });
    }
    let Some(pace) = pace else {
        // No attempt has ended yet, but one may have ended when the job is due.
        let later = Expected { start: due.time(), basis: Basis::AtTheEarliest };
        return (due > now).then_some(later);
    };
    let rounds = (works - free + 1) as f64 / limit as f64;
    let wait = Duration::try_from_secs_f64(pace.as_secs_f64() * rounds).ok()?;
    let free_at = now.after(wait);
    let basis = match or_more {
        true => Basis::AtTheEarliest,
        false if free_at <= due => Basis::Due,
        false => Basis::Estimate,
    };
    Some(Expected { start: free_at.max(due).time(), basis })
}

/// Adds the wait for the pool's rate, which admits one job of cost 1 after another.
fn by_rate(expected: Expected, now: Segment, ahead: usize, pool: &PoolNow) -> Expected {
    if pool.limited_until <= now {
        return expected;
    }
    let interval = pool.settings.rate.map_or(Duration::ZERO, |rate| rate.interval());
    let ahead = u32::try_from(ahead).unwrap_or(u32::MAX);
    let admitted = pool.limited_until.after(interval.saturating_mul(ahead)).time();
    match admitted > expected.start {
        true if ahead > 0 => Expected { start: admitted, basis: Basis::Estimate },
        true => Expected { start: admitted, ..expected },
        false => expected,
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "job {}", self.work_id)?;
        match (self.function, self.pool) {
            (Some(function), Some(pool)) => write!(f, " ({function} in pool {pool}) ")?,
            (Some(function), None) => write!(f, " ({function}) ")?,
            (None, _) => f.write_str(" ")?,
        }
        let lasting =
            |from: SystemTime, to: SystemTime| Lasting(to.duration_since(from).unwrap_or_default());
        let ago = |since: SystemTime| lasting(since, self.at);
        match &self.why {
            Why::StoreStalled { since } => {
                write!(f, "waits: the store has not answered for {}", ago(*since))
            }
            Why::StoreFailing { since, error } => {
                write!(f, "waits: the store has been failing for {}: {error}", ago(*since))
            }
            Why::ShuttingDown => f.write_str("waits: the runtime shuts down and starts nothing"),
            Why::PoolNotStarted => {
                f.write_str("waits: its pool was not started by this process; configure it")
            }
            Why::NotRegistered => {
                f.write_str("waits: its function is not registered in this process; register it")
            }
            Why::Paused { paused: true } => f.write_str("waits: the pool is paused; resume it"),
            Why::Paused { paused: false } => {
                f.write_str("waits: the pool's max_parallelism is 0; raise it")
            }
            Why::NotDue => f.write_str("waits for its time"),
            Why::RetryBackoff { retry, max_retries } => {
                write!(f, "waits for retry {retry} of {max_retries}")?;
                match self.last_failure() {
                    Some(failure) => write!(f, ", after: {failure}"),
                    None => Ok(()),
                }
            }
            Why::NoFreeSlot { running, limit } => {
                write!(f, "waits for a slot: {running} of {limit} are taken")
            }
            Why::RateLimited { .. } => f.write_str("waits for the rate of its pool"),
            Why::BehindKey { running: Some(job) } => {
                write!(f, "waits for others of its key: job {job} runs")
            }
            Why::BehindKey { running: None } => f.write_str("waits for others of its key"),
            Why::KeyLimited { .. } => f.write_str("waits for the rate of its key"),
            Why::Behind => f.write_str("waits for those before it"),
            Why::AboutToStart => f.write_str("is about to start"),
            Why::Running { attempt, since: None, .. } => {
                write!(f, "is on its way to attempt {attempt} of {}", self.max_attempts)
            }
            Why::Running { attempt, since: Some(since), timeout_at, progress } => {
                write!(f, "runs attempt {attempt} of {} for {}", self.max_attempts, ago(*since))?;
                if let Some(progress) = progress {
                    write!(f, ", at {}", progress.done)?;
                    if let Some(total) = progress.total {
                        write!(f, " of {total}")?;
                    }
                    if let Some(note) = &progress.note {
                        write!(f, " ({note})")?;
                    }
                }
                match timeout_at {
                    Some(at) => write!(f, ", times out in {}", lasting(self.at, *at)),
                    None => Ok(()),
                }
            }
            Why::Completing { will_retry: true } => {
                f.write_str("has failed an attempt and is about to wait for the next")
            }
            Why::Completing { will_retry: false } => {
                f.write_str("has ended and is about to finish")
            }
            Why::Canceling { running_since: Some(since) } => {
                write!(f, "was canceled, and its attempt still runs, for {}", ago(*since))
            }
            Why::Canceling { running_since: None } => {
                f.write_str("was canceled and is about to finish")
            }
            Why::Finished(row) => {
                let (outcome, attempts) = (row.outcome().as_str(), row.attempts());
                let plural = if attempts == 1 { "" } else { "s" };
                write!(f, "has finished: {outcome}, after {attempts} attempt{plural}, ")?;
                write!(f, "{} ago", ago(row.finished_at()))
            }
            Why::Unknown => f.write_str("is not known: never enqueued, or forgotten"),
        }?;
        if let Some(Ahead { works, or_more }) = self.ahead.filter(|ahead| ahead.works > 0) {
            let at_least = if or_more { "at least " } else { "" };
            let plural = if works == 1 { "" } else { "s" };
            write!(f, "; {at_least}{works} job{plural} ahead")?;
        }
        if let Some(Expected { start, basis }) = self.expected {
            let about = match basis {
                Basis::Due => "",
                Basis::Estimate => "about ",
                Basis::AtTheEarliest => "at the earliest ",
            };
            write!(f, "; expected to start {about}in {}", lasting(self.at, start))?;
        } else if let Some(due) = self.due.filter(|due| *due > self.at) {
            write!(f, "; due in {}", lasting(self.at, due))?;
        }
        Ok(())
    }
}

/// Formats a duration in words, with two units at most.
pub(crate) struct Lasting(pub Duration);

impl fmt::Display for Lasting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secs = self.0.as_secs();
        let mut two = |first: u64, unit, second: u64, smaller| match second {
            0 => write!(f, "{first} {unit}"),
            _ => write!(f, "{first} {unit} {second} {smaller}"),
        };
        match secs {
            0 => write!(f, "{} ms", self.0.as_millis()),
            1..10 => write!(f, "{:.1} s", self.0.as_secs_f64()),
            10..60 => write!(f, "{secs} s"),
            60..3_600 => two(secs / 60, "min", secs % 60, "s"),
            3_600..86_400 => two(secs / 3_600, "h", secs % 3_600 / 60, "min"),
            _ => two(secs / 86_400, "d", secs % 86_400 / 3_600, "h"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::PoolConfig;

    fn start(ahead: usize, running: u64, limit: usize, pace: Option<u64>) -> Option<(u64, Basis)> {
        start_of(900, ahead, running, limit, pace)
    }

    fn start_of(
        due: u64,
        ahead: usize,
        running: u64,
        limit: usize,
        pace: Option<u64>,
    ) -> Option<(u64, Basis)> {
        let settings = PoolConfig::default().max_parallelism(limit).settings();
        let pace = pace.map(Duration::from_millis);
        let expected = expected(Segment(1_000), Segment(due), ahead, running, &settings, pace);
        expected.map(|expected| (Segment::of(expected.start).0, expected.basis))
    }

    #[test]
    fn a_free_slot_needs_no_estimate() {
        assert_eq!(start(0, 3, 4, None), Some((1_000, Basis::Due)));
        assert_eq!(start(1, 3, 4, None), None, "one is ahead, and nothing has ended yet");
    }

    #[test]
    fn an_estimate_counts_the_jobs_that_have_to_end_first() {
        assert_eq!(start(0, 4, 4, Some(80)), Some((1_020, Basis::Estimate)));
        assert_eq!(start(7, 4, 4, Some(80)), Some((1_160, Basis::Estimate)));
        assert_eq!(start(8, 2, 4, Some(80)), Some((1_140, Basis::Estimate)));
        assert_eq!(start(1_000, 1, 1, Some(1)), Some((2_001, Basis::Estimate)));
        assert_eq!(start(1_001, 1, 1, Some(1)), Some((2_001, Basis::AtTheEarliest)));
    }

    #[test]
    fn nothing_is_expected_before_it_is_due() {
        assert_eq!(start_of(5_000, 0, 0, 1, None), Some((5_000, Basis::Due)));
        assert_eq!(start_of(5_000, 3, 1, 1, None), Some((5_000, Basis::AtTheEarliest)));
        assert_eq!(start_of(5_000, 3, 1, 1, Some(100)), Some((5_000, Basis::Due)));
        assert_eq!(start_of(5_000, 3, 1, 1, Some(2_000)), Some((9_000, Basis::Estimate)));
    }

    #[test]
    fn durations_read_well() {
        let said = |millis| Lasting(Duration::from_millis(millis)).to_string();
        assert_eq!(said(12), "12 ms");
        assert_eq!(said(2_340), "2.3 s");
        assert_eq!(said(59_999), "59 s");
        assert_eq!(said(61_000), "1 min 1 s");
        assert_eq!(said(3_600_000), "1 h");
        assert_eq!(said(90_000_000), "1 d 1 h");
    }
}
