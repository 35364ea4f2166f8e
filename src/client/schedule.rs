//! Schedules: jobs that are enqueued at certain times.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::enqueue::{Ids, Options};
use super::prepare::prepare;
use super::{EnqueueError, Function, those};
use crate::model::{
    CatchUp, ConfigError, Cron, CronError, Every, EveryError, Name, Overlap, Priority, Recurrence,
    RetryBehavior, RetryPolicy, Segment, Spec, WorkId, Zone, validate_name,
};
use crate::shared::{Catalog, PoolShared, Shared};

/// A schedule: a job that is enqueued at certain times, by whatever process has the schedule in its
/// [`RuntimeBuilder::schedule`](crate::RuntimeBuilder::schedule).
///
/// Each time is enqueued once, also after a crash, while clocks change, or if the wall clock is set back: its job and the
/// note that it was enqueued are one commit. The job's id is made of the schedule's id and the nominal time.
///
/// ```
/// # actix_workpool::doctest::run(async {
/// use std::time::Duration;
///
/// use actix_workpool::{
///     ActionKey, CatchUp, Overlap, PoolConfig, Runtime, Schedule, ScheduleError,
/// };
///
/// const REPORT: ActionKey<String, ()> = ActionKey::new("report");
///
/// let nightly = Schedule::cron("nightly", "0 2 * * *")?
///     .zone("Europe/Berlin")?
///     .overlap(Overlap::Skip)
///     .catch_up(CatchUp::Once { within: Duration::from_secs(6 * 60 * 60) })
///     .job("reports", REPORT.call("all".to_owned()));
/// let runtime = Runtime::builder()
///     .action_fn(REPORT, |_, _| async { Ok(()) })
///     .pool("reports", PoolConfig::default())
///     .schedule(nightly)
///     .start()
///     .await?;
/// let nightly = runtime.schedule("nightly")?;
/// assert_eq!(nightly.next(3).len(), 3);
/// nightly.trigger().await?; // now, besides
/// nightly.pause().await?;
/// assert!(runtime.schedules().await?[0].paused);
/// # runtime.shutdown(Duration::ZERO).await;
/// # Ok(()) });
/// ```
#[must_use = "a schedule does nothing until it is given to a builder"]
pub struct Schedule {
    pub(crate) id: Name,
    pub(crate) times: Recurrence,
    pub(crate) overlap: Overlap,
    pub(crate) catch_up: CatchUp,
    pub(super) job: Option<Job>,
    priority: Priority,
    retry: RetryPolicy,
    timeout: Option<Duration>,
}

/// The job of a schedule.
pub(super) struct Job {
    pub pool: Name,
    pub function: Name,
    register: &'static str,
    make: Make,
}

type Make = Box<
    dyn Fn(SystemTime, Options, &Shared, &PoolShared) -> Result<Spec, EnqueueError> + Send + Sync,
>;

/// The reason why a schedule is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScheduleError {
    /// The cron expression is invalid, or never fires.
    #[error(transparent)]
    Cron(#[from] CronError),
    /// The period is out of range.
    #[error(transparent)]
    Every(#[from] EveryError),
    /// The zone is not in the tz database.
    #[error(
        "time zone {given:?} is unknown: give a name of the tz database, such as \"Europe/Berlin\" or \"UTC\""
    )]
    Zone {
        /// The name that was given.
        given: String,
    },
    /// A period has no zone: it counts from the epoch.
    #[error("a schedule with a fixed period has no time zone; give it a cron expression instead")]
    ZoneOfPeriod,
    /// The schedule's id is empty or too long.
    #[error(transparent)]
    Id(#[from] ConfigError),
    /// The schedule has no job.
    #[error("it has no job: call `.job(pool, function)`")]
    NoJob,
    /// The builder has no pool of this name.
    #[error("pool {name} does not exist; {}", those(pools))]
    UnknownPool {
        /// The name.
        name: Name,
        /// The names of all pools.
        pools: Vec<Name>,
    },
    /// The function is not registered.
    #[error("function {function} is not registered: add `.{register}` to `Runtime::builder()`")]
    UnknownFunction {
        /// The function.
        function: Name,
        /// The call of the builder that registers it.
        register: &'static str,
    },
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schedule")
            .field("id", &self.id)
            .field("times", &self.times)
            .finish_non_exhaustive()
    }
}

impl Schedule {
    fn new(id: &str, times: Recurrence) -> Result<Schedule, ScheduleError> {
        validate_name(id)?;
        Ok(Schedule {
            id: Name::intern(id),
            times,
            overlap: Overlap::default(),
            catch_up: CatchUp::default(),
            job: None,
            priority: Priority::default(),
            retry: RetryPolicy::default(),
            timeout: None,
        })
    }

    /// Makes a schedule that fires at the times of a [cron expression](Cron), in UTC unless a [`zone`](Self::zone) is
    /// given.
    ///
    /// # Errors
    /// Fails if the expression is invalid or never fires, or the id does not have 1 to 200 bytes.
    pub fn cron(id: &str, expression: &str) -> Result<Schedule, ScheduleError> {
        let cron = Cron::parse(expression)?;
        Schedule::new(id, Recurrence::Cron { cron, zone: Zone::utc() })
    }

    /// Makes a schedule that fires at each multiple of a period since the Unix epoch: `every(15 min)` at :00, :15, :30
    /// and :45.
    ///
    /// # Errors
    /// Fails if the period is not one second to four years in whole milliseconds, or the id does not have 1 to 200
    /// bytes.
    pub fn every(id: &str, period: Duration) -> Result<Schedule, ScheduleError> {
        Schedule::new(id, Recurrence::Every(Every::new(period)?))
    }

    /// Sets the time zone of a cron expression, by its name in the tz database. See [`Cron`] for what happens when
    /// clocks change.
    ///
    /// # Errors
    /// Fails if there is no such zone, or the schedule has a fixed period.
    pub fn zone(mut self, name: &str) -> Result<Schedule, ScheduleError> {
        match &mut self.times {
            Recurrence::Cron { zone, .. } => {
                let unknown = || ScheduleError::Zone { given: name.to_owned() };
                *zone = Zone::named(name).ok_or_else(unknown)?;
                Ok(self)
            }
            Recurrence::Every(_) => Err(ScheduleError::ZoneOfPeriod),
        }
    }

    /// Sets what happens while the job of the time before has no outcome yet.
    pub fn overlap(mut self, overlap: Overlap) -> Self {
        self.overlap = overlap;
        self
    }

    /// Sets what happens with times that were missed.
    pub fn catch_up(mut self, catch_up: CatchUp) -> Self {
        self.catch_up = catch_up;
        self
    }

    /// Sets the job, and the pool that it is enqueued into.
    pub fn job<F, K>(self, pool: &str, function: F) -> Self
    where
        F: Function<K> + Send + Sync + 'static,
        K: 'static,
    {
        let (name, register) = (function.name(), F::REGISTER);
        let make = move |_, options, shared: &Shared, pool: &PoolShared| {
            one(std::slice::from_ref(&function), options, shared, pool)
        };
        self.with(pool, name, register, Box::new(make))
    }

    /// Sets the job as [`job`](Self::job) does, made for each nominal time.
    ///
    /// ```
    /// # use actix_workpool::{ActionKey, Schedule};
    /// use std::time::SystemTime;
    ///
    /// const REPORT: ActionKey<SystemTime, ()> = ActionKey::new("report");
    /// let schedule = Schedule::cron("nightly", "0 2 * * *")?
    ///     .job_with("reports", "report", |day| REPORT.call(day));
    /// # let _ = schedule;
    /// # Ok::<(), actix_workpool::ScheduleError>(())
    /// ```
    pub fn job_with<F, K>(
        self,
        pool: &str,
        function: &'static str,
        make: impl Fn(SystemTime) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Function<K>,
        K: 'static,
    {
        let make = move |nominal, options, shared: &Shared, pool: &PoolShared| {
            one(&[make(nominal)], options, shared, pool)
        };
        self.with(pool, Name::from_static(function), F::REGISTER, Box::new(make))
    }

    fn with(mut self, pool: &str, function: Name, register: &'static str, make: Make) -> Self {
        self.job = Some(Job { pool: Name::intern(pool), function, register, make });
        self
    }

    /// Sets the priority of the jobs.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Sets the retry policy of the jobs, which overrides those of the function and the pool.
    pub fn retry(mut self, behavior: RetryBehavior) -> Self {
        self.retry = RetryPolicy::With(behavior);
        self
    }

    /// Limits each attempt of the jobs.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Checks what can be checked before anything is started.
    pub(crate) fn validate(&self, catalog: &Catalog, pools: &[Name]) -> Result<(), ScheduleError> {
        let job = self.job.as_ref().ok_or(ScheduleError::NoJob)?;
        if !pools.contains(&job.pool) {
            return Err(ScheduleError::UnknownPool { name: job.pool, pools: pools.to_vec() });
        }
        let (function, register) = (job.function, job.register);
        match catalog.get(function) {
            Some(_) => Ok(()),
            None => Err(ScheduleError::UnknownFunction { function, register }),
        }
    }

    /// Makes the job of a nominal time, or of now.
    pub(crate) fn make(
        &self,
        nominal: Option<Segment>,
        shared: &Shared,
    ) -> Result<(Arc<PoolShared>, Spec), EnqueueError> {
        let job = self.job.as_ref().ok_or(EnqueueError::Closed)?;
        let pool = shared.pool(job.pool.as_str()).ok_or(EnqueueError::Closed)?;
        let ids = match nominal {
            Some(nominal) => Ids::Chosen(vec![self.work_id(nominal)]),
            None => Ids::Fresh,
        };
        let (priority, retry, timeout) = (self.priority, self.retry, self.timeout);
        let options = Options { ids, priority, retry, timeout, ..Options::default() };
        let time = nominal.map_or_else(|| shared.seams.wall(), Segment::time);
        let spec = (job.make)(time, options, shared, &pool)?;
        Ok((pool, spec))
    }

    /// Returns the id of the job of a nominal time.
    fn work_id(&self, nominal: Segment) -> WorkId {
        WorkId::from_name(&format!("schedule {} {nominal}", self.id))
    }
}

/// Makes one job.
fn one<F: Function<K>, K>(
    function: &[F],
    options: Options,
    shared: &Shared,
    pool: &PoolShared,
) -> Result<Spec, EnqueueError> {
    let mut works = prepare(function, options, shared, pool)?.works;
    works.pop().map(|(spec, _)| spec).ok_or(EnqueueError::Closed)
}
