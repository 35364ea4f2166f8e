//! The scheduler: enqueues the jobs of schedules when their times come.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;

use crate::client::{Client, EnqueueError, Schedule};
use crate::engine::schedules::due;
use crate::model::{ScheduleRow, Segment};
use crate::observe::{metrics, telemetry};
use crate::protocol::{Command, TickAnswer, TickSchedule};
use crate::shared::sync::oneshot;
use crate::storage::StorageError;

/// The maximum time between two looks at the wall clock: a machine may have slept, or the clock may have been set.
const LOOK: Duration = Duration::from_secs(60);

/// The wait before a time that could not be handled is tried again. It doubles with each failure, up to [`LONGEST`].
const AGAIN: Duration = Duration::from_secs(1);

const LONGEST: Duration = Duration::from_secs(10);

/// Owns the times at which schedules fire next. Each nominal time is decided by the store: this actor may be late or
/// early, and there may be one in several processes, but no time is handled twice.
pub(super) struct Scheduler {
    client: Client,
    schedules: Vec<Fires>,
    /// The next time of each schedule that waits for one, and its place.
    next: BinaryHeap<Reverse<(Segment, usize)>>,
    timer: Option<SpawnHandle>,
}

struct Fires {
    schedule: Arc<Schedule>,
    /// The last nominal time that was handled.
    last: Segment,
    /// The wait after the next failure.
    again: Duration,
}

impl Scheduler {
    pub fn new(client: Client, rows: Vec<ScheduleRow>) -> Scheduler {
        let schedules = client.schedules.iter().cloned().zip(rows);
        let schedules: Vec<_> = schedules
            .map(|(schedule, row)| Fires { schedule, last: row.last, again: AGAIN })
            .collect();
        let mut scheduler = Scheduler { client, schedules, next: BinaryHeap::new(), timer: None };
        for place in 0..scheduler.schedules.len() {
            scheduler.wait(place);
        }
        scheduler
    }

    fn now(&self) -> Segment {
        Segment::of(self.client.shared.seams.wall())
    }

    /// Waits for the next time of a schedule.
    fn wait(&mut self, place: usize) {
        let Fires { schedule, last, .. } = &self.schedules[place];
        if let Some(next) = schedule.times.next_after(*last) {
            self.next.push(Reverse((next, place)));
        }
    }

    /// Handles what is due, and sets the timer.
    fn look(&mut self, ctx: &mut Context<Self>) {
        if self.client.shared.is_closed() {
            return ctx.stop();
        }
        let now = self.now();
        while let Some(Reverse((next, place))) = self.next.peek().copied()
            && next <= now
        {
            self.next.pop();
            self.fire(place, now, ctx);
        }
        let wait = self.next.peek().map_or(LOOK, |Reverse((next, _))| next.since(self.now()));
        if let Some(timer) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        // Never at once: a time that is just about to come is waited for.
        let wait = wait.clamp(Duration::from_millis(1), LOOK);
        self.timer = Some(ctx.run_later(wait, |scheduler, ctx| {
            scheduler.timer = None;
            scheduler.look(ctx);
        }));
    }

    /// Handles the times of a schedule that are due, one after the other.
    fn fire(&mut self, place: usize, now: Segment, ctx: &mut Context<Self>) {
        let Fires { schedule, last, again } = &mut self.schedules[place];
        let due = due(&schedule.times, schedule.catch_up, *last, now);
        let Some(nominal) = due.first().copied() else {
            // All were missed for too long.
            *again = AGAIN;
            *last = schedule.times.last_between(*last, now).unwrap_or(*last);
            return self.wait(place);
        };
        let schedule = schedule.clone();
        let answer = self.tick(&schedule, nominal);
        let answered = async move {
            match answer {
                Ok(answer) => Some(answer.await.ok()?.map_err(|error| error.to_string())),
                Err(error) => Some(Err(error)),
            }
        };
        let answered = answered.into_actor(self).map(move |answer, scheduler, ctx| {
            // The store is gone; this actor will stop as well.
            let Some(answer) = answer else { return ctx.stop() };
            scheduler.answered(place, nominal, answer, ctx);
        });
        ctx.spawn(answered);
    }

    /// Asks the store to handle a nominal time.
    fn tick(
        &self,
        schedule: &Schedule,
        nominal: Segment,
    ) -> Result<oneshot::Receiver<Result<TickAnswer, StorageError>>, String> {
        let say = |error: EnqueueError| error.to_string();
        // The closure of `job_with` is the program's.
        let make = || schedule.make(Some(nominal), &self.client.shared);
        let (pool, spec) = catch_unwind(AssertUnwindSafe(make))
            .map_err(|_| "its closure panicked".to_owned())?
            .map_err(say)?;
        pool.check_room(1).map_err(|full| say(full.into()))?;
        let (reply, answer) = oneshot::channel();
        let (id, overlap) = (schedule.id, schedule.overlap);
        let tick = TickSchedule { id, nominal, overlap, spec, reply };
        self.client.send(Command::TickSchedule(tick)).map_err(|error| error.to_string())?;
        Ok(answer)
    }

    fn answered(
        &mut self,
        place: usize,
        nominal: Segment,
        answer: Result<TickAnswer, String>,
        ctx: &mut Context<Self>,
    ) {
        let now = self.now();
        let Fires { schedule, last, again } = &mut self.schedules[place];
        match answer {
            Ok(TickAnswer { last: Some(handled), enqueued }) => {
                *again = AGAIN;
                if enqueued {
                    metrics::scheduled(schedule.id, now.since(nominal));
                }
                *last = handled.max(nominal);
                self.wait(place);
                self.look(ctx);
            }
            // It was removed.
            Ok(TickAnswer { last: None, .. }) => {}
            Err(error) => {
                telemetry::not_scheduled(schedule.id, &error);
                let wait = *again;
                *again = (2 * wait).min(LONGEST);
                ctx.run_later(wait, move |scheduler, ctx| {
                    scheduler.wait(place);
                    scheduler.look(ctx);
                });
            }
        }
    }
}

impl Actor for Scheduler {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.look(ctx);
    }
}

/// Stops the scheduler.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct StopScheduler;

impl Handler<StopScheduler> for Scheduler {
    type Result = ();

    fn handle(&mut self, _: StopScheduler, ctx: &mut Self::Context) {
        ctx.stop();
    }
}
