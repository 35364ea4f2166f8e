//! Decisions on single messages: an enqueue, a cancel, a finished attempt.
//!
//! Each function takes the facts of one job and returns at most one [`Change`].

use super::backoff::backoff;
use crate::model::{
    Change, Conflict, Key, KeyRule, Priority, Retry, RunNumber, RunResult, Segment, Spec, StartKey,
    StartPlace, UniqueHold, UniqueRow, WorkFact, WorkId,
};

/// A decision: the write to make, if any, and the answer to the sender of the message.
#[derive(Clone, Debug, PartialEq)]
pub struct Arrival<A> {
    /// The write.
    pub change: Option<Change>,
    /// The answer.
    pub answer: A,
}

/// The answer to an enqueue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnqueueAnswer {
    /// The job was enqueued.
    Enqueued,
    /// A job of that id exists, or its outcome is still stored; nothing was written.
    Duplicate,
    /// This job holds the unique key; nothing was written.
    Kept(WorkId),
    /// This job holds the unique key, and has the new content.
    Replaced(WorkId),
}

/// The answer to a cancel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CancelAnswer {
    /// The job does not start again; a running attempt is told to stop.
    Requested,
    /// The job was already canceled.
    AlreadyRequested,
    /// The job already has an outcome.
    AlreadyFinished,
    /// No job of this id was ever enqueued here, or its outcome is forgotten.
    NotFound,
}

/// The answer to `run_now`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RunNowAnswer {
    /// The job is due now, and starts when a slot is free and its pool is not paused.
    Moved,
    /// The job was already due.
    AlreadyDue,
    /// The job waits until its function is registered.
    NotRegistered,
    /// The job was canceled, and does not start.
    Canceled,
    /// An attempt is running, or has just ended.
    Running,
    /// The job already has an outcome.
    AlreadyFinished,
    /// No job of this id was ever enqueued here, or its outcome is forgotten.
    NotFound,
}

/// The answer to `set_priority`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PriorityAnswer {
    /// The job has the new priority.
    Changed,
    /// The job was canceled, and does not start.
    Canceled,
    /// An attempt is running, or has just ended: there is nothing to wait for.
    Running,
    /// The job already has an outcome.
    AlreadyFinished,
    /// No job of this id was ever enqueued here, or its outcome is forgotten.
    NotFound,
}

/// The answer to `retry`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "answer", content = "work_id", rename_all = "snake_case")]
#[non_exhaustive]
pub enum RetryAnswer {
    /// The job was enqueued once more, as a new job with this id.
    Enqueued(WorkId),
    /// The job was already enqueued once more, with this id; or this job holds its unique key.
    AlreadyEnqueued(WorkId),
    /// The job has not failed: it has no outcome yet, or another one.
    NotFailed,
    /// The job's function is not registered in this process.
    NotRegistered,
    /// This process has not started the job's pool.
    PoolNotStarted,
    /// No job of this id is known.
    NotFound,
}

/// The answer to a worker's report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishAnswer {
    /// The report counts.
    Accepted,
    /// Another run of the job counts; nothing was written.
    Stale,
}

/// A worker's report.
#[derive(Clone, Debug, PartialEq)]
pub struct AttemptReport {
    /// The job's id.
    pub work_id: WorkId,
    /// The number of the run.
    pub run: RunNumber,
    /// The result of the attempt.
    pub result: RunResult,
}

/// The input of a decision on a finished attempt, besides the facts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ArrivalCx {
    /// The store's clock.
    pub now: Segment,
    /// The same moment rounded up, so that a wait that begins then does not end early.
    pub waits_from: Segment,
    /// A number drawn uniformly from `[0, 1)`.
    pub chance: f64,
}

/// Decides an enqueue. `known` is `true` if a job of this id is in `work` or `finished`.
#[must_use]
pub fn enqueue(spec: Spec, due: Segment, known: bool) -> Arrival<EnqueueAnswer> {
    if known && !planted!(DuplicateEnqueues) {
        return Arrival { change: None, answer: EnqueueAnswer::Duplicate };
    }
    let key = StartKey::new(spec.priority, due);
    Arrival { change: Some(Change::InsertWork { spec, key }), answer: EnqueueAnswer::Enqueued }
}

/// Returns `true` if the job that took a unique key last still holds it.
#[must_use]
pub fn holds(row: &UniqueRow, fact: Option<&WorkFact>, now: Segment) -> bool {
    match row.hold {
        UniqueHold::WhileWaiting if planted!(HoldIgnoresStart) => fact.is_some(),
        UniqueHold::WhileWaiting => fact.is_some_and(WorkFact::is_unstarted),
        UniqueHold::UntilFinished if planted!(HoldEndsAtStart) => {
            fact.is_some_and(WorkFact::is_unstarted)
        }
        UniqueHold::UntilFinished => fact.is_some_and(WorkFact::is_unfinished),
        UniqueHold::Within(_) if planted!(PeriodForEver) => true,
        UniqueHold::Within(_) => row.until().is_some_and(|until| now < until),
    }
}

/// Decides an enqueue of a unique key that this job holds; `fact` says what the tables have of the job. A job that waits
/// for its first attempt can be replaced. `now` is the time of the group, `due` that of the new content.
#[must_use]
pub fn enqueue_held(
    spec: &Spec,
    due: Segment,
    conflict: Conflict,
    holder: (WorkId, Option<&WorkFact>),
    rule: KeyRule,
    now: Segment,
) -> Arrival<EnqueueAnswer> {
    let (work_id, fact) = holder;
    let waiting = fact.filter(|work| conflict != Conflict::Keep && work.is_unstarted());
    let Some((work, from)) = waiting.and_then(|work| Some((work, work.pending_start?))) else {
        return Arrival { change: None, answer: EnqueueAnswer::Kept(work_id) };
    };
    let spec = spec.in_place_of(&work.spec);
    // What is due stays in its place, and cannot be overtaken for ever.
    let stays = from.segment <= now && due <= now && from.priority == spec.priority;
    let is_ordered = rule.is_ordered() && spec.key().is_some();
    let place = match from.place {
        // It is not due, so it neither waits for its key nor holds a place of it.
        _ if due > now && !is_ordered => StartPlace::Queue,
        StartPlace::Ready { .. } if due > now => StartPlace::Held,
        place => place,
    };
    let to = match stays {
        true => from,
        false => from.in_place(place).moved(spec.priority, due),
    };
    // What changes nothing is not written: a commit in doubt could not be told from it.
    let is_same = stays && spec == work.spec;
    let change = (!is_same).then_some(Change::ReplaceWork { spec, from, to });
    Arrival { change, answer: EnqueueAnswer::Replaced(work_id) }
}

/// Decides a cancel. A job that has an outcome cannot be canceled, even if no turn has handled the outcome yet.
/// `is_finished` is `true` if the job is in `finished`.
#[must_use]
pub fn cancel(fact: Option<&WorkFact>, is_finished: bool, now: Segment) -> Arrival<CancelAnswer> {
    let refuse = |answer| Arrival { change: None, answer };
    let Some(work) = fact else {
        return refuse(match is_finished {
            true => CancelAnswer::AlreadyFinished,
            false => CancelAnswer::NotFound,
        });
    };
    if let Some((_, false)) = work.pending_completion {
        return refuse(CancelAnswer::AlreadyFinished);
    }
    if work.is_canceled() {
        return refuse(CancelAnswer::AlreadyRequested);
    }
    let change = Change::InsertPendingCancelation {
        work_id: work.spec.work_id,
        pool: work.spec.pool,
        key: Key { segment: now, seq: 0 },
    };
    Arrival { change: Some(change), answer: CancelAnswer::Requested }
}

/// Decides a `run_now`: S1, S10 → the same, due now. A due row keeps its key, since a turn may have read it already.
/// Turns have read the rows up to `read_until`.
#[must_use]
pub fn run_now(
    fact: Option<&WorkFact>,
    is_finished: bool,
    now: Segment,
    read_until: Segment,
) -> Arrival<RunNowAnswer> {
    let refuse = |answer| Arrival { change: None, answer };
    let Some(work) = fact else {
        return refuse(match is_finished {
            true => RunNowAnswer::AlreadyFinished,
            false => RunNowAnswer::NotFound,
        });
    };
    if work.is_canceled() {
        return refuse(RunNowAnswer::Canceled);
    }
    let Some(from) = work.pending_start else { return refuse(RunNowAnswer::Running) };
    if from.segment == Segment::UNREGISTERED {
        return refuse(RunNowAnswer::NotRegistered);
    }
    if from.segment <= now.max(read_until) && !planted!(RunNowUnfenced) {
        return refuse(RunNowAnswer::AlreadyDue);
    }
    let change = Change::MovePendingStart {
        work_id: work.spec.work_id,
        pool: work.spec.pool,
        from,
        to: from.moved(from.priority, now),
    };
    let change = Some(change).filter(|_| !planted!(RunNowForgotten));
    Arrival { change, answer: RunNowAnswer::Moved }
}

/// Decides a change of the priority: S1, S10 → the same, behind the jobs of the new priority that are due. A job that is
/// not due stays so.
#[must_use]
pub fn set_priority(
    fact: Option<&WorkFact>,
    is_finished: bool,
    priority: Priority,
    now: Segment,
) -> Arrival<PriorityAnswer> {
    let refuse = |answer| Arrival { change: None, answer };
    let Some(work) = fact else {
        return refuse(match is_finished {
            true => PriorityAnswer::AlreadyFinished,
            false => PriorityAnswer::NotFound,
        });
    };
    if work.is_canceled() {
        return refuse(PriorityAnswer::Canceled);
    }
    let Some(from) = work.pending_start else { return refuse(PriorityAnswer::Running) };
    if work.priority == priority {
        return refuse(PriorityAnswer::Changed);
    }
    let segment = if from.is_by_time() { from.segment.max(now) } else { from.segment };
    let change = Change::MovePendingStart {
        work_id: work.spec.work_id,
        pool: work.spec.pool,
        from,
        to: from.moved(priority, segment),
    };
    Arrival { change: Some(change), answer: PriorityAnswer::Changed }
}

/// Decides a worker's report. It counts once, and only for the run that occupies the slot.
#[must_use]
pub fn attempt_finished(
    fact: Option<&WorkFact>,
    report: AttemptReport,
    cx: ArrivalCx,
) -> Arrival<FinishAnswer> {
    let counts = fact.filter(|work| {
        work.awaits_report_of(if planted!(RunUnchecked) { work.runs } else { report.run })
    });
    let Some(work) = counts else {
        return Arrival { change: None, answer: FinishAnswer::Stale };
    };
    let Verdict { result, retry, attempts } = judge(work, report.result, cx);
    let change = Change::InsertPendingCompletion {
        work_id: report.work_id,
        pool: work.spec.pool,
        key: Key { segment: cx.now, seq: 0 },
        run: report.run,
        result,
        retry,
        attempts,
    };
    Arrival { change: Some(change), answer: FinishAnswer::Accepted }
}

/// The decision on a finished attempt.
pub(super) struct Verdict {
    pub result: RunResult,
    pub retry: Retry,
    /// The number of attempts that count, including this one if it counts.
    pub attempts: u32,
}

/// Decides what follows a finished attempt: row S2 of the state table, and S8 and S12, where the job is or is being
/// canceled.
pub(super) fn judge(work: &WorkFact, result: RunResult, cx: ArrivalCx) -> Verdict {
    let counted = work.attempts.saturating_add(1 + u32::from(planted!(AttemptCountedTwice)));
    let again = |result, wait: std::time::Duration, attempts| match (work.canceled, result) {
        (false, result) => {
            Verdict { result, retry: Retry::At(cx.waits_from.after(wait)), attempts }
        }
        (true, RunResult::Failed(_)) => {
            Verdict { result: RunResult::Canceled, retry: Retry::No, attempts }
        }
        // The result is kept, so that the turn can see that it does not count.
        (true, result) => Verdict { result, retry: Retry::No, attempts },
    };
    match result {
        RunResult::Snoozed(wait) | RunResult::PoolLimited(wait) | RunResult::KeyLimited(wait) => {
            again(result, wait, work.attempts + u32::from(planted!(SnoozeCounted)))
        }
        RunResult::Returned => {
            let attempts = work.attempts + u32::from(planted!(ReturnCounted));
            again(result, std::time::Duration::ZERO, attempts)
        }
        RunResult::Success(_) | RunResult::Canceled => {
            Verdict { result, retry: Retry::No, attempts: counted }
        }
        RunResult::Failed(ref failure) => match work.spec.retry() {
            Some(behavior)
                if failure.retryable
                    && counted < behavior.max_attempts + u32::from(planted!(OneAttemptTooMany)) =>
            {
                let wait =
                    failure.retry_after.unwrap_or_else(|| backoff(behavior, counted, cx.chance));
                again(result, wait, counted)
            }
            _ => Verdict { result, retry: Retry::No, attempts: counted },
        },
    }
}
