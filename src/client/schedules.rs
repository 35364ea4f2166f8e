//! The schedules of a runtime, as users see them.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;

use super::enqueue::Prepared;
use super::schedule::Schedule;
use super::{Client, EnqueueError, PoolError};
use crate::model::{Name, ScheduleRow, Segment, WorkId, millis};
use crate::protocol::{Command, Question, ScheduleChange};

/// A schedule and its state. Made by [`Runtime::schedules`](crate::Runtime::schedules).
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ScheduleStatus {
    /// The schedule's id.
    pub id: String,
    /// Its times, in words: the cron expression and the zone, or the period.
    pub times: String,
    /// `false` if it is stored, but not in this process's builder: then it does not fire.
    pub registered: bool,
    /// `true` if it was paused.
    pub paused: bool,
    /// The pool and the function of its jobs, if it is registered.
    pub job: Option<(Name, Name)>,
    /// The next time at which it fires, if it is registered and not paused.
    #[serde(serialize_with = "millis")]
    pub next: Option<SystemTime>,
    /// Its last job.
    pub last_job: Option<WorkId>,
    /// The nominal time of its last job.
    #[serde(serialize_with = "millis")]
    pub last_time: Option<SystemTime>,
    /// The number of times that were skipped because the job before had no outcome yet.
    pub skipped: u64,
}

/// A handle on a schedule. Made by [`Runtime::schedule`](crate::Runtime::schedule).
#[derive(Clone)]
pub struct ScheduleHandle {
    client: Client,
    schedule: Arc<Schedule>,
}

impl fmt::Debug for ScheduleHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ScheduleHandle").field(&self.schedule).finish()
    }
}

impl ScheduleHandle {
    /// Pauses the schedule: it does not fire until it is resumed, also after a restart.
    ///
    /// # Errors
    /// Fails if the runtime is gone or the storage failed.
    pub async fn pause(&self) -> Result<(), PoolError> {
        self.change(ScheduleChange::Pause).await
    }

    /// Resumes a paused schedule. What it would have fired meanwhile counts as not missed.
    ///
    /// # Errors
    /// Fails if the runtime is gone or the storage failed.
    pub async fn resume(&self) -> Result<(), PoolError> {
        self.change(ScheduleChange::Resume).await
    }

    /// Enqueues its job now, besides the times at which it fires. Returns the job's id.
    ///
    /// # Errors
    /// Fails if the job cannot be enqueued; see [`EnqueueError`].
    pub async fn trigger(&self) -> Result<WorkId, EnqueueError> {
        self.client.trigger(&self.schedule).await
    }

    /// Returns the next times at which it fires if it is not paused, at most `count`.
    #[must_use]
    pub fn next(&self, count: usize) -> Vec<SystemTime> {
        let now = Segment::of(self.client.shared.seams.wall());
        let next = |after: &Segment| self.schedule.times.next_after(*after);
        let times = std::iter::successors(next(&now), next);
        times.take(count).map(Segment::time).collect()
    }

    /// Removes the schedule: it does not fire any more in this process. A process that is started with it in its builder
    /// begins anew.
    ///
    /// # Errors
    /// Fails if the runtime is gone or the storage failed.
    pub async fn remove(&self) -> Result<(), PoolError> {
        self.change(ScheduleChange::Remove).await
    }

    async fn change(&self, change: ScheduleChange) -> Result<(), PoolError> {
        self.client.change_schedule(self.schedule.id, change).await
    }
}

impl Client {
    pub async fn trigger(&self, schedule: &Schedule) -> Result<WorkId, EnqueueError> {
        let (pool, spec) = schedule.make(None, &self.shared)?;
        let (work_id, now) = (spec.work_id, self.shared.seams.segment());
        self.enqueue(&pool, Prepared::one(spec, now)).await?;
        Ok(work_id)
    }

    pub async fn change_schedule(&self, id: Name, change: ScheduleChange) -> Result<(), PoolError> {
        let now = Segment::of(self.shared.seams.wall());
        self.ask(|reply| Command::ChangeSchedule { id, change, now, reply }).await
    }

    /// Returns every schedule, in the order of their ids: those of this process and those that are stored.
    pub async fn schedule_statuses(&self) -> Result<Vec<ScheduleStatus>, PoolError> {
        let rows = self.ask(|reply| Question::Schedules { reply }).await?;
        let now = Segment::of(self.shared.seams.wall());
        let status = |(id, row): (String, ScheduleRow)| {
            let schedule = self.schedule(&id);
            let job = schedule.and_then(|schedule| schedule.job.as_ref());
            let next = schedule.filter(|_| !row.paused);
            let next = next.and_then(|schedule| schedule.times.next_after(now.max(row.last)));
            ScheduleStatus {
                registered: schedule.is_some(),
                times: schedule.map_or(row.times, |schedule| schedule.times.to_string()),
                paused: row.paused,
                job: job.map(|job| (job.pool, job.function)),
                next: next.map(Segment::time),
                last_job: row.run.map(|(work_id, _)| work_id),
                last_time: row.run.map(|(_, nominal)| nominal.time()),
                skipped: row.skipped,
                id,
            }
        };
        Ok(rows.into_iter().map(status).collect())
    }

    /// Returns a schedule of this process.
    pub fn schedule(&self, id: &str) -> Option<&Arc<Schedule>> {
        let place = self.schedules.binary_search_by(|schedule| schedule.id.as_str().cmp(id));
        self.schedules.get(place.ok()?)
    }

    pub fn schedule_handle(&self, id: &str) -> Result<ScheduleHandle, PoolError> {
        match self.schedule(id) {
            Some(schedule) => {
                Ok(ScheduleHandle { client: self.clone(), schedule: schedule.clone() })
            }
            None => {
                let schedules = self.schedules.iter().map(|schedule| schedule.id).collect();
                Err(PoolError::UnknownSchedule { id: id.to_owned(), schedules })
            }
        }
    }
}
