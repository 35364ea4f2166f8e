//! Requests that change jobs.

use super::{Advance, OnFinish, Reply};
use crate::engine::arrivals::{
    AttemptReport, CancelAnswer, EnqueueAnswer, PriorityAnswer, RunNowAnswer,
};
use crate::model::{
    Conflict, KeyRule, LanePlace, Name, Overlap, PoolId, Priority, RunNumber, ScheduleRow, Segment,
    Spec, StartKey, UniquePlace, WorkId, WorkKey,
};
use crate::shared::Admitted;
use crate::storage::StorageError;

/// A request that changes jobs. The store decides commands in the order in which they arrive, many in one commit.
///
/// A new command needs a variant here, an arm in [`Command::about`] and [`Command::refuse`], a decision in
/// `store/decide.rs`, and an operation of the `Client`.
pub(crate) enum Command {
    Enqueue(Enqueue),
    Cancel {
        work_ids: Vec<WorkId>,
        reply: Reply<Vec<Canceled>>,
    },
    CancelAll(CancelAll),
    /// Ends the wait of a job.
    RunNow {
        work_id: WorkId,
        reply: Reply<RunNowAnswer>,
    },
    /// Changes the priority of a job that waits.
    SetPriority {
        work_id: WorkId,
        priority: Priority,
        reply: Reply<PriorityAnswer>,
    },
    /// Stores the schedules of a process.
    RegisterSchedules(RegisterSchedules),
    /// Handles a time at which a schedule fires.
    TickSchedule(TickSchedule),
    ChangeSchedule {
        id: Name,
        change: ScheduleChange,
        /// The wall clock's time.
        now: Segment,
        reply: Reply<()>,
    },
    AttemptsFinished(Vec<AttemptReport>),
    /// Runs mutations and queries in the store's transaction.
    RunInStore(Vec<RunInStore>),
    Advance(Advance),
    /// Looks at lanes: jobs in them may have a place since the rules have changed, and rows may be over.
    SweepLanes(SweepLanes),
    /// Deletes finished jobs whose retention is over.
    Forget,
}

/// The next step for a command that failed.
pub(crate) enum Refused {
    /// Sends the error to its caller.
    Answer(Box<dyn FnOnce() + Send>),
    /// Retries it: it must not be lost.
    Keep(Command),
    /// Tells the loop that its turn has failed.
    Turn(Advance),
    /// Drops it: nobody waits for it.
    Drop,
}

impl Command {
    /// Adds the jobs whose facts the decision needs to `facts`. Adds those for which it must also know whether they
    /// have finished to `finished`.
    pub fn about(&self, facts: &mut Vec<WorkId>, finished: &mut Vec<WorkId>) {
        match self {
            Command::Enqueue(enqueue) if !enqueue.fresh => {
                finished.extend(enqueue.works.iter().map(|(spec, _)| spec.work_id));
            }
            Command::Cancel { work_ids, .. } => finished.extend(work_ids),
            Command::RunNow { work_id, .. } | Command::SetPriority { work_id, .. } => {
                finished.push(*work_id);
            }
            Command::AttemptsFinished(reports) => {
                facts.extend(reports.iter().map(|report| report.work_id));
            }
            Command::RunInStore(runs) => facts.extend(runs.iter().map(|run| run.spec.work_id)),
            Command::Enqueue(_)
            | Command::CancelAll(_)
            | Command::RegisterSchedules(_)
            | Command::TickSchedule(_)
            | Command::ChangeSchedule { .. }
            | Command::Advance(_)
            | Command::SweepLanes(_)
            | Command::Forget => {}
        }
    }

    /// Returns the unique key that a job of this command is about to take.
    pub fn unique(&self) -> Option<UniquePlace> {
        let Command::Enqueue(Enqueue { works, .. }) = self else { return None };
        // Jobs that are enqueued together have none.
        let (spec, _) = works.first()?;
        Some((spec.pool, spec.unique()?.key.clone()))
    }

    /// Returns the failed job that this command retries.
    pub fn retry_of(&self) -> Option<WorkId> {
        match self {
            Command::Enqueue(enqueue) => enqueue.retry_of,
            _ => None,
        }
    }

    /// Returns the next step for a command that the store could not carry out.
    pub fn refuse(self, error: &StorageError) -> Refused {
        match self {
            Command::Enqueue(Enqueue { reply: Some(reply), .. }) => told(reply, error),
            Command::Enqueue(_) | Command::Forget => Refused::Drop,
            kept @ Command::SweepLanes(_) => Refused::Keep(kept),
            Command::Cancel { reply, .. } => told(reply, error),
            Command::CancelAll(CancelAll { reply, .. }) => told(reply, error),
            Command::RunNow { reply, .. } => told(reply, error),
            Command::SetPriority { reply, .. } => told(reply, error),
            Command::RegisterSchedules(RegisterSchedules { reply, .. }) => told(reply, error),
            Command::TickSchedule(TickSchedule { reply, .. }) => told(reply, error),
            Command::ChangeSchedule { reply, .. } => told(reply, error),
            Command::Advance(advance) => Refused::Turn(advance),
            kept @ (Command::AttemptsFinished(_) | Command::RunInStore(_)) => Refused::Keep(kept),
        }
    }
}

fn told<T: Send + 'static>(reply: Reply<T>, error: &StorageError) -> Refused {
    let error = error.clone();
    Refused::Answer(Box::new(move || drop(reply.send(Err(error)))))
}

pub(crate) struct Enqueue {
    /// Each job with the time before which it is not started.
    pub works: Vec<(Spec, Segment)>,
    /// `true` if no other job can have these ids.
    pub fresh: bool,
    /// What happens if another job holds the unique key.
    pub conflict: Conflict,
    /// The failed job that these retry; then there is only one job.
    pub retry_of: Option<WorkId>,
    pub on_finish: Option<OnFinish>,
    pub counted: Admitted,
    pub reply: Option<Reply<Vec<EnqueueAnswer>>>,
}

/// The answer to the cancel of one job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Canceled {
    pub answer: CancelAnswer,
    /// The job's pool, if the job has no outcome: its loop can abort the attempt.
    pub pool: Option<PoolId>,
}

/// A cancel of all jobs of a pool, page by page, so that it does not block other requests.
pub(crate) struct CancelAll {
    pub pool: PoolId,
    /// Jobs enqueued later than this are not canceled.
    pub until: Segment,
    /// Jobs that were found and are not handled yet, the next one last.
    pub found: Vec<WorkId>,
    /// The place where the next search begins; `None` when the search is complete.
    pub search: Option<Option<WorkId>>,
    pub requested: u64,
    pub reply: Reply<u64>,
}

/// A page of the lanes of a pool.
pub(crate) struct SweepLanes {
    pub pool: PoolId,
    /// The number of the sweep: a later one makes it needless.
    pub number: u32,
    /// What the page is of.
    pub page: SweepPage,
    /// The rule before, if it has changed.
    pub before: Option<KeyRule>,
}

/// A page of a sweep.
pub(crate) enum SweepPage {
    /// Lanes behind this place.
    Lanes(Option<LanePlace>),
    /// Jobs behind this key, of which some may hold a place of their key.
    Held(Option<StartKey>),
    /// These lanes, which have more jobs to let out than one group takes.
    Keys(Vec<WorkKey>),
}

/// The schedules of a process, each with its times in words.
pub(crate) struct RegisterSchedules {
    pub schedules: Vec<(Name, String)>,
    /// The wall clock's time.
    pub now: Segment,
    /// The state of each, in order.
    pub reply: Reply<Vec<ScheduleRow>>,
}

/// A nominal time of a schedule that has come, and the job to enqueue.
pub(crate) struct TickSchedule {
    pub id: Name,
    pub nominal: Segment,
    pub overlap: Overlap,
    pub spec: Spec,
    pub reply: Reply<TickAnswer>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TickAnswer {
    /// The last nominal time that was handled; `None` if the schedule was removed.
    pub last: Option<Segment>,
    pub enqueued: bool,
}

/// What people do to a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScheduleChange {
    Pause,
    Resume,
    Remove,
}

/// An attempt of a mutation or a query: the store runs it.
#[derive(Clone)]
pub(crate) struct RunInStore {
    pub spec: Spec,
    pub run: RunNumber,
}
