//! Tests of every cell of the state table, as a list of changes, and of the other guarantees of a turn.

mod arrivals;
mod limits;
mod recovery;
mod report;
mod rest;
mod starts;
mod turns;
mod unique;

use std::sync::Arc;
use std::time::Duration;

use super::arrivals::{
    ArrivalCx, AttemptReport, CancelAnswer, EnqueueAnswer, FinishAnswer, PriorityAnswer,
    RunNowAnswer, attempt_finished, cancel, enqueue, run_now, set_priority,
};
use super::rest::{KickSource, rest};
use super::{Launch, Lost, Step, TurnCx, demand, step};
use crate::model::{
    Batch, CancelationRow, Change, CompletionRow, Cursors, FailedAttempt, Failure, FailureKind,
    Finished, FinishedDetails, FunctionKind, Generation, History, InternalState, Key, KeyRule,
    Name, Outcome, Payload, PoolConfig, PoolId, Priority, Rate, Report, Retry, RetryBehavior,
    RunResult, RunStatus, Running, RunningRow, Segment, Spec, SpecHead, SpecOptions, StartKey,
    StartRow, StateRow, WorkFact, WorkId,
};

const POOL: PoolId = PoolId(3);
const GENERATION: Generation = Generation(7);
const TURN: u64 = 41;
/// The cursors before a turn.
const DRAINED: Segment = Segment(900);
const NOW: Segment = Segment(1_000);
/// The start time of all running attempts.
const STARTED: Segment = Segment(940);
const RUNNING: Running = Running { run: 1, started: STARTED, generation: GENERATION };
const SLOTS: usize = 10;
/// The random number with which a retry waits exactly as long as its policy says.
const EVEN: f64 = 0.5;

// Jobs in each state. `n` is the job's id and the `seq` of its keys.

fn id(n: u64) -> WorkId {
    WorkId::from_uuid(uuid::Uuid::from_u128(n.into()))
}

fn key(segment: u64, seq: u64) -> Key {
    Key { segment: Segment(segment), seq }
}

/// The key of a waiting job of the normal priority.
fn due(segment: u64, seq: u64) -> StartKey {
    StartKey::at(Priority::NORMAL, key(segment, seq))
}

fn spec(n: u64, retry: Option<RetryBehavior>) -> Spec {
    let options = retry.map(|_| Box::new(SpecOptions { retry, ..SpecOptions::default() }));
    Spec::new(
        id(n),
        SpecHead {
            pool: POOL,
            kind: FunctionKind::Action,
            function: Name::from_static("known"),
            enqueued_at: Segment(100),
            priority: Priority::NORMAL,
            options,
        },
        b"",
    )
}

/// Three attempts, 250 ms before the second, 500 ms before the third.
fn three_attempts() -> Option<RetryBehavior> {
    Some(RetryBehavior::default().max_attempts(3))
}

fn s1(n: u64) -> WorkFact {
    WorkFact { pending_start: Some(due(950, n)), ..WorkFact::new(spec(n, three_attempts())) }
}

fn s2(n: u64) -> WorkFact {
    WorkFact { runs: 1, running: Some(RUNNING), ..WorkFact::new(spec(n, three_attempts())) }
}

fn s3(n: u64) -> WorkFact {
    WorkFact { attempts: 1, pending_completion: Some((key(960, n), false)), ..s2(n) }
}

fn s5(n: u64) -> WorkFact {
    WorkFact { attempts: 1, pending_completion: Some((key(960, n), true)), ..s2(n) }
}

fn s7(n: u64) -> WorkFact {
    WorkFact { pending_cancelation: Some(key(970, n)), ..s1(n) }
}

fn s8(n: u64) -> WorkFact {
    WorkFact { pending_cancelation: Some(key(970, n)), ..s2(n) }
}

fn s9(n: u64) -> WorkFact {
    WorkFact { canceled: true, ..s5(n) }
}

fn s10(n: u64) -> WorkFact {
    WorkFact { attempts: 1, runs: 1, ..s1(n) }
}

fn s12(n: u64) -> WorkFact {
    WorkFact { canceled: true, ..s2(n) }
}

/// A job with one attempt.
fn without_retry(work: WorkFact) -> WorkFact {
    let number = work.spec.work_id.as_u128() as u64;
    WorkFact { spec: spec(number, None), ..work }
}

// Rows and states, the input of a turn.

fn running_row(work: &WorkFact) -> Running {
    Running { run: work.runs, started: STARTED, generation: GENERATION }
}

fn state<'a>(running: impl IntoIterator<Item = &'a WorkFact>) -> InternalState {
    let rows = running.into_iter().map(|work| (work.spec.work_id, running_row(work)));
    InternalState {
        epoch: Default::default(),
        generation: GENERATION,
        turn: TURN,
        cursors: Cursors { incoming: DRAINED, completion: DRAINED, cancelation: DRAINED },
        last_recovery: Segment(800),
        last_report: DRAINED,
        report: Report::default(),
        tat: 0,
        limited_until: Segment::default(),
        running: rows.collect(),
    }
}

fn batch() -> Batch {
    Batch { read_at: NOW, ..Batch::default() }
}

fn start(work: &WorkFact) -> StartRow {
    StartRow {
        key: work.pending_start.expect("it waits to start"),
        spec: work.spec.clone(),
        attempts: work.attempts,
        runs: work.runs,
        lane: None,
    }
}

fn starts<'a>(works: impl IntoIterator<Item = &'a WorkFact>) -> Batch {
    Batch { starts: works.into_iter().map(start).collect(), ..batch() }
}

fn completion(work: &WorkFact, result: RunResult, retry: Retry) -> CompletionRow {
    let (key, _) = work.pending_completion.expect("its attempt finished");
    CompletionRow { key, run: work.runs, result, retry, work: work.clone() }
}

fn completions(rows: impl IntoIterator<Item = CompletionRow>) -> Batch {
    Batch { completions: rows.into_iter().collect(), ..batch() }
}

fn cancelation(work: &WorkFact) -> CancelationRow {
    CancelationRow {
        key: work.pending_cancelation.expect("it is to be canceled"),
        pool: POOL,
        work_id: work.spec.work_id,
        work: Some(work.clone()),
    }
}

fn cancelations(rows: impl IntoIterator<Item = CancelationRow>) -> Batch {
    Batch { cancelations: rows.into_iter().collect(), ..batch() }
}

fn lost(work: &WorkFact, launched: bool) -> Lost {
    let row = RunningRow { running: running_row(work), work: work.clone() };
    Lost { row, launched, chance: EVEN }
}

// Taking a turn.

fn turn(state: InternalState, batch: Batch) -> Step {
    turn_with(state, batch, SLOTS, Vec::new())
}

fn turn_with(state: InternalState, batch: Batch, max_parallelism: usize, lost: Vec<Lost>) -> Step {
    let known = |spec: &Spec| spec.function == Name::from_static("known");
    let before = state.clone();
    let key_rule = KeyRule::default();
    let cx = TurnCx { max_parallelism, rate: None, key_rule, can_run: &known, lost };
    let step = step(state, batch, POOL, cx);
    let (old, new) = (before.cursors, step.state.cursors);
    assert!(new.incoming >= old.incoming, "the cursor of starts never goes back");
    assert!(new.completion >= old.completion, "the cursor of completions never goes back");
    assert!(new.cancelation >= old.cancelation, "the cursor of cancelations never goes back");
    let (launches, running) = (step.launches.len(), step.state.running.len());
    assert!(launches == 0 || running <= max_parallelism, "nothing starts beyond the limit");
    step
}

/// Returns the decisions of a turn besides its new state, and checks that this is the last change.
fn decided(step: &Step) -> &[Change] {
    let Some((last, changes)) = step.changes.split_last() else { return &[] };
    let put = Change::PutState { pool: POOL, state: StateRow::from(&step.state) };
    assert_eq!(last, &put, "a turn ends with its state");
    changes
}

fn started_as(work: &WorkFact, run: u32) -> Change {
    Change::StartWork {
        work_id: work.spec.work_id,
        pool: POOL,
        key: work.pending_start.expect("it waits to start"),
        run,
        started: NOW,
        generation: GENERATION,
    }
}

/// The history of a job whose attempt failed in this turn.
fn remembered(work: &WorkFact, attempt: u32, failure: Failure) -> History {
    let ended = work.pending_completion.map_or(NOW, |(key, _)| key.segment);
    let Failure { kind, message, .. } = failure;
    work.history.with(FailedAttempt {
        attempt,
        started: STARTED.time(),
        ended: ended.time(),
        kind,
        message,
    })
}

fn completed(work: &WorkFact, outcome: Outcome, attempts: u32) -> Change {
    let history = match &outcome {
        Outcome::Failed(failure) => remembered(work, attempts, failure.clone()),
        _ => work.history.clone(),
    };
    completed_after(work, outcome, attempts, history)
}

fn completed_after(work: &WorkFact, outcome: Outcome, attempts: u32, history: History) -> Change {
    let details = FinishedDetails {
        history,
        spec: matches!(outcome, Outcome::Failed(_)).then(|| work.spec.clone()),
        ..FinishedDetails::default()
    };
    let finished = Arc::new(Finished {
        work_id: work.spec.work_id,
        pool: POOL,
        function: work.spec.function,
        outcome,
        attempts,
        enqueued_at: work.spec.enqueued_at,
        started: work.running.map(|running| running.started),
        finished_at: NOW,
        details: details.if_any(),
    });
    Change::CompleteWork { finished, spec: work.spec.clone() }
}

/// A failed attempt that counts.
fn retried(work: &WorkFact, at: u64, attempts: u32) -> Change {
    let failure = if work.pending_completion.is_some() { failure() } else { lost_failure() };
    let history = match attempts {
        0 => work.history.clone(),
        attempts => remembered(work, attempts, failure),
    };
    Change::RetryWork {
        work_id: work.spec.work_id,
        pool: POOL,
        completion: work.pending_completion.map(|(key, _)| key),
        key: due(at, 0),
        attempts,
        history,
    }
}

fn marked(work: &WorkFact) -> Change {
    let key = work.pending_cancelation.expect("it is to be canceled");
    Change::MarkCanceled { work_id: work.spec.work_id, pool: POOL, key }
}

fn row_deleted(work: &WorkFact) -> Change {
    let key = work.pending_cancelation.expect("it is to be canceled");
    Change::DeletePendingCancelation { pool: POOL, key }
}

// Results.

fn output() -> Payload {
    Payload::new(b"42")
}

fn success() -> RunResult {
    RunResult::Success(output())
}

fn failure() -> Failure {
    Failure::retryable(FailureKind::Error, "no luck")
}

fn lost_failure() -> Failure {
    Failure::retryable(FailureKind::Lost, "the worker went away without a report")
}

fn failed() -> RunResult {
    RunResult::Failed(failure())
}

// A finished attempt.

const AT: ArrivalCx = ArrivalCx { now: NOW, waits_from: NOW, chance: EVEN };

fn report(work: &WorkFact, result: RunResult) -> AttemptReport {
    AttemptReport { work_id: work.spec.work_id, run: work.runs, result }
}

/// The change for a report that counts.
fn arrived(work: &WorkFact, result: RunResult) -> Change {
    let arrival = attempt_finished(Some(work), report(work, result), AT);
    assert_eq!(arrival.answer, FinishAnswer::Accepted);
    arrival.change.expect("an accepted report is written")
}

fn pending_completion(work: &WorkFact, result: RunResult, retry: Retry, attempts: u32) -> Change {
    Change::InsertPendingCompletion {
        work_id: work.spec.work_id,
        pool: POOL,
        key: Key { segment: NOW, seq: 0 },
        run: work.runs,
        result,
        retry,
        attempts,
    }
}
