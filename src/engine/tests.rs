//! Every cell of the state table as a list of changes, and what a turn promises beside it.

use std::sync::Arc;
use std::time::Duration;

use super::arrivals::{
    ArrivalCx, AttemptReport, CancelAnswer, EnqueueAnswer, FinishAnswer, RunNowAnswer,
    attempt_finished, cancel, enqueue, run_now,
};
use super::rest::{KickSource, rest};
use super::{Launch, Lost, Step, TurnCx, demand, step};
use crate::model::{
    ArgBytes, Batch, CancelationRow, Change, CompletionRow, Cursors, FailedAttempt, Failure,
    FailureKind, Finished, FinishedDetails, FunctionKind, Generation, History, InternalState, Key,
    Name, Outcome, Payload, PoolId, Report, Retry, RetryBehavior, RunResult, RunStatus, Running,
    RunningRow, Segment, Spec, SpecOptions, StartRow, StateRow, WorkFact, WorkId,
};

const POOL: PoolId = PoolId(3);
const REIGN: Generation = Generation(7);
const TURN: u64 = 41;
/// Where all cursors stand before a turn.
const DRAINED: Segment = Segment(900);
const NOW: Segment = Segment(1_000);
/// When what runs was started.
const STARTED: Segment = Segment(940);
const RUNNING: Running = Running { run: 1, started: STARTED, generation: REIGN };
const SLOTS: usize = 10;
/// With this chance a retry waits exactly as long as its policy says.
const EVEN: f64 = 0.5;

// Jobs in each state. `n` is the job's id and, in its keys, its place.

fn id(n: u64) -> WorkId {
    WorkId::from_uuid(uuid::Uuid::from_u128(n.into()))
}

fn key(segment: u64, seq: u64) -> Key {
    Key { segment: Segment(segment), seq }
}

fn spec(n: u64, retry: Option<RetryBehavior>) -> Arc<Spec> {
    let options = retry.map(|_| Box::new(SpecOptions { retry, ..SpecOptions::default() }));
    Arc::new(Spec {
        work_id: id(n),
        pool: POOL,
        kind: FunctionKind::Action,
        function: Name::from_static("known"),
        args: ArgBytes::default(),
        enqueued_at: Segment(100),
        options,
    })
}

/// Three attempts, 250 ms before the second, 500 ms before the third.
fn three_attempts() -> Option<RetryBehavior> {
    Some(RetryBehavior::default().max_attempts(3))
}

fn s1(n: u64) -> WorkFact {
    WorkFact { pending_start: Some(key(950, n)), ..WorkFact::new(spec(n, three_attempts())) }
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

/// A job that may be tried once.
fn without_retry(work: WorkFact) -> WorkFact {
    let number = work.spec.work_id.as_u128() as u64;
    WorkFact { spec: spec(number, None), ..work }
}

// The rows and the state that show jobs to a turn.

fn running_row(work: &WorkFact) -> Running {
    Running { run: work.runs, started: STARTED, generation: REIGN }
}

fn state<'a>(running: impl IntoIterator<Item = &'a WorkFact>) -> InternalState {
    let rows = running.into_iter().map(|work| (work.spec.work_id, running_row(work)));
    InternalState {
        epoch: Default::default(),
        generation: REIGN,
        turn: TURN,
        cursors: Cursors { incoming: DRAINED, completion: DRAINED, cancelation: DRAINED },
        last_recovery: Segment(800),
        report: Report { last_report_ts: DRAINED, ..Report::default() },
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
    let step = step(state, batch, POOL, TurnCx { max_parallelism, can_run: &known, lost });
    let (old, new) = (before.cursors, step.state.cursors);
    assert!(new.incoming >= old.incoming, "the cursor of starts never goes back");
    assert!(new.completion >= old.completion, "the cursor of completions never goes back");
    assert!(new.cancelation >= old.cancelation, "the cursor of cancelations never goes back");
    let (launches, running) = (step.launches.len(), step.state.running.len());
    assert!(launches == 0 || running <= max_parallelism, "nothing starts beyond the limit");
    step
}

/// What a turn decided besides its new state, which stands last and is the one it returned.
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
        generation: REIGN,
    }
}

/// What is remembered of a job whose attempt, the one that ends in the turn, has failed like this.
fn remembered(work: &WorkFact, attempt: u32, failure: Failure) -> History {
    let ended = work.pending_completion.map_or(NOW, |(key, _)| key.segment);
    let Failure { kind, message, .. } = failure;
    work.history.with(FailedAttempt { attempt, started: STARTED, ended, kind, message })
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

/// An attempt that counts as an attempt has failed.
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
        key: key(at, 0),
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

// An attempt that finishes.

const AT: ArrivalCx = ArrivalCx { now: NOW, waits_from: NOW, chance: EVEN };

fn report(work: &WorkFact, result: RunResult) -> AttemptReport {
    AttemptReport { work_id: work.spec.work_id, run: work.runs, result }
}

/// What the report of the run that counts writes.
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

mod turns {
    use super::*;

    #[test]
    fn s1_enqueued_becomes_s2() {
        let work = s1(1);
        let step = turn(state([]), starts([&work]));
        assert_eq!(decided(&step), [started_as(&work, 1)]);
        let launch = Launch { spec: work.spec.clone(), attempt: 1, run: 1, due: Segment(950) };
        assert_eq!(step.launches, [launch]);
        let running = Running { run: 1, started: NOW, generation: REIGN };
        assert_eq!(step.state.running.get(&id(1)), Some(&running));
    }

    #[test]
    fn s2_running_stays_s2() {
        let (work, other) = (s2(1), s1(2));
        let step = turn(state([&work]), starts([&other]));
        assert_eq!(decided(&step), [started_as(&other, 1)]);
        assert_eq!(step.state.running.get(&id(1)), Some(&running_row(&work)));
        assert_eq!(step.signals, []);
    }

    #[test]
    fn s3_final_is_gone_and_frees_its_slot() {
        for (result, outcome) in [
            (success(), Outcome::Success(output())),
            (failed(), Outcome::Failed(failure())),
            (RunResult::Canceled, Outcome::Canceled),
        ] {
            let (work, next) = (s3(1), s1(2));
            let batch = Batch {
                starts: vec![start(&next)],
                ..completions([completion(&work, result, Retry::No)])
            };
            let step = turn_with(state([&work]), batch, 1, Vec::new());
            assert_eq!(decided(&step), [completed(&work, outcome, 1), started_as(&next, 1)]);
            assert_eq!(step.state.running.keys().collect::<Vec<_>>(), [&id(2)]);
        }
    }

    #[test]
    fn s3_final_keeps_its_success_though_a_cancel_is_on_its_way() {
        let work = WorkFact { pending_cancelation: Some(key(970, 1)), ..s3(1) };
        let batch = Batch {
            cancelations: vec![cancelation(&work)],
            ..completions([completion(&work, success(), Retry::No)])
        };
        let step = turn(state([&work]), batch);
        let success = completed(&work, Outcome::Success(output()), 1);
        assert_eq!(decided(&step), [success, row_deleted(&work)]);
        assert_eq!(step.signals, []);
    }

    #[test]
    fn s5_will_retry_becomes_s10() {
        let work = s5(1);
        let rows = [completion(&work, failed(), Retry::At(Segment(1_250)))];
        let step = turn(state([&work]), completions(rows));
        assert_eq!(decided(&step), [retried(&work, 1_250, 1)]);
        assert!(step.state.running.is_empty());
    }

    #[test]
    fn s5_will_retry_remembers_how_it_failed_and_the_oldest_are_forgotten() {
        let mut history = History::default();
        for attempts in 1..=History::MOST as u32 + 3 {
            let work = WorkFact { attempts, history, ..s5(1) };
            let rows = [completion(&work, failed(), Retry::At(Segment(1_250)))];
            let step = turn(state([&work]), completions(rows));
            assert_eq!(decided(&step), [retried(&work, 1_250, attempts)]);
            let [Change::RetryWork { history: after, .. }, ..] = &step.changes[..] else {
                panic!("it is retried")
            };
            history = after.clone();
        }
        let attempts: Vec<_> = history.attempts().iter().map(|failed| failed.attempt).collect();
        assert_eq!(attempts, (4..=History::MOST as u32 + 3).collect::<Vec<_>>());
        // What waits for no slot again, canceled or done, keeps it.
        let canceled = WorkFact { attempts: 2, history: history.clone(), ..s7(1) };
        let step = turn(state([]), cancelations([cancelation(&canceled)]));
        assert_eq!(decided(&step), [completed(&canceled, Outcome::Canceled, 2)]);
        let done = WorkFact { history, ..s3(1) };
        let step = turn(state([&done]), completions([completion(&done, success(), Retry::No)]));
        assert_eq!(decided(&step), [completed(&done, Outcome::Success(output()), 1)]);
    }

    #[test]
    fn s5_will_retry_frees_its_slot_for_others_only() {
        let (work, next) = (s5(1), s1(2));
        let rows = [completion(&work, failed(), Retry::At(NOW))];
        let batch = Batch { starts: vec![start(&next)], ..completions(rows) };
        let step = turn_with(state([&work]), batch, 1, Vec::new());
        assert_eq!(decided(&step), [retried(&work, NOW.0, 1), started_as(&next, 1)]);
    }

    #[test]
    fn s7_cancel_pending_is_canceled() {
        let work = s7(1);
        let step = turn(state([]), cancelations([cancelation(&work)]));
        assert_eq!(decided(&step), [completed(&work, Outcome::Canceled, 0)]);
        assert_eq!(step.signals, []);
    }

    #[test]
    fn s7_cancel_pending_does_not_start_though_it_is_due() {
        let work = s7(1);
        let batch = Batch { cancelations: vec![cancelation(&work)], ..starts([&work]) };
        let step = turn(state([]), batch);
        assert_eq!(decided(&step), [completed(&work, Outcome::Canceled, 0)]);
        assert_eq!(step.launches, []);
    }

    #[test]
    fn s7_cancel_between_attempts_keeps_the_attempts_that_were_charged() {
        let work = WorkFact { attempts: 2, runs: 4, ..s7(1) };
        let step = turn(state([]), cancelations([cancelation(&work)]));
        assert_eq!(decided(&step), [completed(&work, Outcome::Canceled, 2)]);
    }

    #[test]
    fn s8_cancel_running_becomes_s12() {
        let work = s8(1);
        let step = turn(state([&work]), cancelations([cancelation(&work)]));
        assert_eq!(decided(&step), [marked(&work)]);
        assert_eq!(step.signals, [id(1)]);
        assert_eq!(step.state.running.get(&id(1)), Some(&running_row(&work)));
    }

    #[test]
    fn s5_cancel_becomes_s9_while_its_completion_is_not_read() {
        let work = WorkFact { pending_cancelation: Some(key(970, 1)), ..s5(1) };
        let step = turn(state([&work]), cancelations([cancelation(&work)]));
        assert_eq!(decided(&step), [marked(&work)]);
        assert_eq!(step.signals, [], "there is no attempt left to tell");
    }

    #[test]
    fn s9_canceled_is_not_retried() {
        let work = s9(1);
        let rows = [completion(&work, failed(), Retry::At(Segment(1_250)))];
        let step = turn(state([&work]), completions(rows));
        let history = remembered(&work, 1, failure());
        let canceled = completed_after(&work, Outcome::Canceled, 1, history);
        assert_eq!(decided(&step), [canceled]);
        assert!(step.state.running.is_empty());
    }

    #[test]
    fn a_cancel_that_no_turn_has_read_wins_over_a_retry() {
        let work = WorkFact { pending_cancelation: Some(key(970, 1)), ..s5(1) };
        let row = completion(&work, failed(), Retry::At(Segment(1_250)));
        let history = remembered(&work, 1, failure());
        let canceled = completed_after(&work, Outcome::Canceled, 1, history);

        let step = turn(state([&work]), completions([row.clone()]));
        assert_eq!(decided(&step), std::slice::from_ref(&canceled));

        let both = Batch { cancelations: vec![cancelation(&work)], ..completions([row]) };
        let step = turn(state([&work]), both);
        assert_eq!(decided(&step), [canceled, row_deleted(&work)]);
    }

    #[test]
    fn s10_re_enqueued_becomes_s2() {
        let work = WorkFact { attempts: 1, runs: 3, ..s10(1) };
        let step = turn(state([]), starts([&work]));
        assert_eq!(decided(&step), [started_as(&work, 4)]);
        let launch = Launch { spec: work.spec.clone(), attempt: 2, run: 4, due: Segment(950) };
        assert_eq!(step.launches, [launch]);
    }

    #[test]
    fn s12_canceled_still_running_stays_s12() {
        let (work, other) = (s12(1), s1(2));
        let step = turn(state([&work]), starts([&other]));
        assert_eq!(decided(&step), [started_as(&other, 1)]);
        assert!(step.state.running.contains_key(&id(1)));
        assert_eq!(step.signals, [], "it was told when it was canceled");
    }

    #[test]
    fn s12_canceled_still_running_ends_with_its_result() {
        let work = WorkFact { canceled: true, ..s3(1) };
        let step = turn(state([&work]), completions([completion(&work, success(), Retry::No)]));
        assert_eq!(decided(&step), [completed(&work, Outcome::Success(output()), 1)]);
    }

    #[test]
    fn a_cancelation_of_a_work_that_is_gone_is_only_deleted() {
        let work = s8(1);
        let row = CancelationRow { work: None, ..cancelation(&work) };
        let step = turn(state([]), cancelations([row]));
        assert_eq!(decided(&step), [row_deleted(&work)]);
        assert_eq!(step.state.report, state([]).report);
    }

    #[test]
    fn a_turn_goes_from_completions_over_cancelations_and_recovery_to_starts() {
        let (done, canceled, gone, next) = (s3(1), s8(2), s2(3), s1(4));
        let batch = Batch {
            completions: vec![completion(&done, success(), Retry::No)],
            cancelations: vec![cancelation(&canceled)],
            starts: vec![start(&next)],
            ..batch()
        };
        let before = state([&done, &canceled, &gone]);
        let step = turn_with(before, batch, SLOTS, vec![lost(&gone, true)]);
        assert_eq!(
            decided(&step),
            [
                completed(&done, Outcome::Success(output()), 1),
                marked(&canceled),
                retried(&gone, 1_250, 1),
                started_as(&next, 1),
            ]
        );
    }

    #[test]
    fn rows_are_handled_in_the_order_in_which_they_were_read() {
        let works = [s1(3), s1(1), s1(2)];
        let step = turn(state([]), starts(&works));
        assert_eq!(decided(&step), works.each_ref().map(|work| started_as(work, 1)));
        let launched: Vec<_> = step.launches.iter().map(|launch| launch.spec.work_id).collect();
        assert_eq!(launched, [id(3), id(1), id(2)]);
    }

    #[test]
    fn the_state_of_a_turn_carries_the_next_number() {
        let step = turn(state([]), starts([&s1(1)]));
        let Some(Change::PutState { state, .. }) = step.changes.last() else {
            panic!("a turn ends with its state")
        };
        assert_eq!((state.generation, state.turn), (REIGN, TURN + 1));
        assert_eq!(step.state.turn, TURN + 1);
    }

    #[test]
    fn a_turn_without_anything_to_decide_changes_nothing() {
        let before = state([&s2(1)]);
        let step = turn(before.clone(), Batch { next_due: Some(Segment(2_000)), ..batch() });
        let nothing = Step {
            state: before,
            changes: Vec::new(),
            launches: Vec::new(),
            signals: Vec::new(),
            report: None,
        };
        assert_eq!(step, nothing);
    }

    #[test]
    fn the_same_turn_decides_the_same() {
        let (done, next) = (s5(1), s1(2));
        let take = || {
            let rows = [completion(&done, failed(), Retry::At(Segment(1_250)))];
            let batch = Batch { starts: vec![start(&next)], ..completions(rows) };
            turn_with(state([&done, &s2(3)]), batch, 2, vec![lost(&s2(3), true)])
        };
        assert_eq!(take(), take());
    }
}

mod slots {
    use super::*;

    fn launched(step: &Step) -> Vec<WorkId> {
        step.launches.iter().map(|launch| launch.spec.work_id).collect()
    }

    #[test]
    fn works_start_in_order_until_all_slots_are_taken() {
        let works = [s1(1), s1(2), s1(3)];
        let step = turn_with(state([&s2(9)]), starts(&works), 3, Vec::new());
        assert_eq!(decided(&step), [started_as(&works[0], 1), started_as(&works[1], 1)]);
        assert_eq!(launched(&step), [id(1), id(2)]);
    }

    #[test]
    fn a_saturated_pool_starts_nothing_and_decides_nothing() {
        let step = turn_with(state([&s2(8), &s2(9)]), starts([&s1(1)]), 2, Vec::new());
        assert_eq!(step.changes, []);
        assert_eq!(step.launches, []);
    }

    #[test]
    fn a_limit_that_was_lowered_starts_nothing_before_enough_has_finished() {
        let running = [s3(1), s3(2), s3(3)];
        let next = s1(4);
        let finish = |works: &[WorkFact]| Batch {
            starts: vec![start(&next)],
            ..completions(works.iter().map(|work| completion(work, success(), Retry::No)))
        };
        let step = turn_with(state(&running), finish(&running[..2]), 1, Vec::new());
        assert_eq!(launched(&step), []);
        let step = turn_with(state(&running), finish(&running), 1, Vec::new());
        assert_eq!(launched(&step), [id(4)]);
    }

    #[test]
    fn a_limit_of_zero_starts_nothing_and_ends_what_runs() {
        let (done, next) = (s3(1), s1(2));
        let rows = [completion(&done, success(), Retry::No)];
        let batch = Batch { starts: vec![start(&next)], ..completions(rows) };
        let step = turn_with(state([&done]), batch, 0, Vec::new());
        assert_eq!(decided(&step), [completed(&done, Outcome::Success(output()), 1)]);
        assert_eq!(launched(&step), []);
    }

    #[test]
    fn a_limit_that_was_raised_is_used_at_once() {
        let works = [s1(1), s1(2), s1(3)];
        let step = turn_with(state([&s2(9)]), starts(&works), 4, Vec::new());
        assert_eq!(launched(&step), [id(1), id(2), id(3)]);
    }

    #[test]
    fn the_demand_counts_free_slots_below_zero_when_the_limit_was_lowered() {
        let running = [s2(1), s2(2), s2(3)];
        let state = state(&running);
        assert_eq!(demand(&state, 5).free_slots, 2);
        assert_eq!(demand(&state, 3).free_slots, 0);
        assert_eq!(demand(&state, 0).free_slots, -3);
        assert_eq!(demand(&state, 5).cursors, state.cursors);
    }

    #[test]
    fn a_work_whose_function_is_not_registered_moves_to_the_lane_and_hides_nothing() {
        let mut unknown = s1(1);
        unknown.spec =
            Arc::new(Spec { function: Name::from_static("unknown"), ..Spec::clone(&unknown.spec) });
        let next = s1(2);
        let moved = Change::MovePendingStart {
            work_id: id(1),
            pool: POOL,
            from: key(950, 1),
            to: Key { segment: Segment::UNREGISTERED, seq: 0 },
        };
        let step = turn_with(state([]), starts([&unknown, &next]), 1, Vec::new());
        assert_eq!(decided(&step), [moved.clone(), started_as(&next, 1)]);
        // Also when there is no slot, for it would take the place of one that could run on the next page.
        let step = turn_with(state([]), starts([&unknown, &next]), 0, Vec::new());
        assert_eq!(decided(&step), [moved]);
    }
}

mod cursors {
    use super::*;

    fn incoming(step: &Step) -> Segment {
        step.state.cursors.incoming
    }

    #[test]
    fn the_cursor_of_starts_goes_to_the_time_of_reading_when_all_that_was_due_has_started() {
        let step = turn(state([]), starts([&s1(1)]));
        assert_eq!(incoming(&step), NOW);
        let later = Batch { next_due: Some(Segment(1_500)), ..starts([&s1(1)]) };
        assert_eq!(incoming(&turn(state([]), later)), NOW);
    }

    #[test]
    fn the_cursor_of_starts_stops_at_a_row_that_was_not_read() {
        let batch = Batch { next_due: Some(Segment(955)), ..starts([&s1(1)]) };
        assert_eq!(incoming(&turn(state([]), batch)), Segment(955));
    }

    #[test]
    fn the_cursor_of_starts_stops_at_a_row_that_found_no_slot() {
        let (first, second) = (s1(1), WorkFact { pending_start: Some(key(957, 2)), ..s1(2) });
        let step = turn_with(state([]), starts([&first, &second]), 1, Vec::new());
        assert_eq!(decided(&step), [started_as(&first, 1)]);
        assert_eq!(incoming(&step), Segment(957));
    }

    #[test]
    fn the_cursors_of_completions_and_cancelations_go_to_the_last_row() {
        let (done, canceled) = (s3(1), s8(2));
        let batch = Batch {
            cancelations: vec![cancelation(&canceled)],
            ..completions([completion(&done, success(), Retry::No)])
        };
        let step = turn(state([&done, &canceled]), batch);
        let cursors = step.state.cursors;
        assert_eq!((cursors.completion, cursors.cancelation), (Segment(960), Segment(970)));
    }

    #[test]
    fn the_cursor_of_a_table_without_rows_stays() {
        let step = turn(state([]), starts([&s1(1)]));
        let cursors = step.state.cursors;
        assert_eq!((cursors.completion, cursors.cancelation), (DRAINED, DRAINED));
    }

    #[test]
    fn no_cursor_goes_back_when_the_clock_did() {
        let (done, canceled, next) = (s3(1), s8(2), s1(3));
        let early = |row: u64| key(500, row);
        let batch = Batch {
            read_at: Segment(600),
            completions: vec![CompletionRow {
                key: early(1),
                ..completion(&done, success(), Retry::No)
            }],
            cancelations: vec![CancelationRow { key: early(2), ..cancelation(&canceled) }],
            starts: vec![StartRow { key: early(3), ..start(&next) }],
            next_due: Some(Segment(550)),
        };
        let before = state([&done, &canceled]);
        let step = turn(before.clone(), batch);
        assert_eq!(step.state.cursors, before.cursors);
    }
}

mod recovery {
    use super::*;
    use crate::engine::recovery::MOST_LOST;

    fn recover(before: InternalState, lost: Lost) -> Step {
        turn_with(before, batch(), SLOTS, vec![lost])
    }

    #[test]
    fn a_lost_attempt_that_may_have_begun_is_charged_and_retried() {
        let work = s2(1);
        let step = recover(state([&work]), lost(&work, true));
        assert_eq!(decided(&step), [retried(&work, 1_250, 1)]);
        assert!(step.state.running.is_empty());
        assert_eq!(step.state.last_recovery, NOW);
    }

    #[test]
    fn a_lost_attempt_that_was_the_last_one_fails() {
        let last = WorkFact { attempts: 2, runs: 3, ..s2(1) };
        let step = recover(state([&last]), lost(&last, true));
        assert_eq!(decided(&step), [completed(&last, Outcome::Failed(lost_failure()), 3)]);

        let only = without_retry(s2(1));
        let step = recover(state([&only]), lost(&only, true));
        assert_eq!(decided(&step), [completed(&only, Outcome::Failed(lost_failure()), 1)]);
    }

    #[test]
    fn a_lost_attempt_that_never_began_goes_back_uncharged() {
        for work in [s2(1), without_retry(s2(1))] {
            let step = recover(state([&work]), lost(&work, false));
            assert_eq!(decided(&step), [retried(&work, NOW.0, 0)]);
            assert_eq!(step.state.report, state([]).report, "nothing finished");
        }
    }

    /// What it does and its completion are one commit, so nothing of it is there.
    #[test]
    fn a_lost_mutation_goes_back_uncharged_unless_it_may_be_what_ends_the_process() {
        let mutation = |runs| {
            let work = WorkFact { runs, ..without_retry(s2(1)) };
            let spec = Spec { kind: FunctionKind::Mutation, ..(*work.spec).clone() };
            WorkFact { spec: Arc::new(spec), ..work }
        };
        let work = mutation(MOST_LOST - 1);
        let step = recover(state([&work]), lost(&work, true));
        assert_eq!(decided(&step), [retried(&work, NOW.0, 0)]);

        let work = mutation(MOST_LOST);
        let step = recover(state([&work]), lost(&work, true));
        assert_eq!(decided(&step), [completed(&work, Outcome::Failed(lost_failure()), 1)]);
    }

    #[test]
    fn a_lost_attempt_of_a_canceled_work_is_not_retried() {
        for (work, launched, attempts) in [(s12(1), true, 1), (s12(1), false, 0), (s8(1), true, 1)]
        {
            let step = recover(state([&work]), lost(&work, launched));
            let history = match work.canceled {
                true => History::default(),
                // The turn only sees that it is to be canceled.
                false => remembered(&work, attempts, lost_failure()),
            };
            let ended = completed_after(&work, Outcome::Canceled, attempts, history);
            assert_eq!(decided(&step), [ended]);
        }
    }

    #[test]
    fn a_lost_attempt_that_was_settled_meanwhile_is_left_alone() {
        let work = s2(1);
        let later = WorkFact { runs: 2, ..s2(1) };
        for before in [state([]), state([&later])] {
            let step = recover(before.clone(), lost(&work, true));
            assert_eq!(step.changes, []);
            assert_eq!(step.state.running, before.running);
        }
    }

    #[test]
    fn a_lost_attempt_whose_report_waits_to_be_read_is_left_to_it() {
        let work = s3(1);
        let step = recover(state([&work]), lost(&work, true));
        assert_eq!(step.changes, []);
        assert!(step.state.running.contains_key(&id(1)));
    }

    #[test]
    fn a_recovered_slot_is_free_in_the_same_turn() {
        let (gone, next) = (s2(1), s1(2));
        let step = turn_with(state([&gone]), starts([&next]), 1, vec![lost(&gone, true)]);
        assert_eq!(decided(&step), [retried(&gone, 1_250, 1), started_as(&next, 1)]);
    }

    /// The facts of a lost attempt are from when the pool was claimed; the cancel came after that.
    #[test]
    fn a_cancel_that_is_read_together_with_a_lost_attempt_wins_over_its_retry() {
        let (claimed, canceled) = (s2(1), s8(1));
        let batch = cancelations([cancelation(&canceled)]);
        let step = turn_with(state([&claimed]), batch, SLOTS, vec![lost(&claimed, true)]);
        let ended = completed(&claimed, Outcome::Canceled, 1);
        assert!(decided(&step).contains(&ended), "{:?}", decided(&step));
        let retries = |change: &Change| matches!(change, Change::RetryWork { .. });
        assert!(!step.changes.iter().any(retries), "a canceled work is not tried again");
    }
}

mod report {
    use super::*;

    /// One turn in which everything happens that is counted.
    fn eventful() -> Step {
        let (won, lost_for_good, again, snoozed) = (s3(1), s3(2), s5(3), s5(4));
        let (stopped, waiting, running) = (s9(5), s7(6), s8(7));
        let at = Retry::At(Segment(1_250));
        let batch = Batch {
            completions: vec![
                completion(&won, success(), Retry::No),
                completion(&lost_for_good, failed(), Retry::No),
                completion(&again, failed(), at),
                completion(&snoozed, RunResult::Snoozed(Duration::from_millis(250)), at),
                completion(&stopped, failed(), at),
            ],
            cancelations: vec![cancelation(&waiting), cancelation(&running)],
            ..batch()
        };
        turn(state([&won, &lost_for_good, &again, &snoozed, &stopped, &running]), batch)
    }

    #[test]
    fn the_counters_are_a_fold_of_what_happened() {
        let step = eventful();
        let ended = |is: fn(&Outcome) -> bool| {
            let ended = |change: &&Change| match change {
                Change::CompleteWork { finished, .. } => is(&finished.outcome),
                _ => false,
            };
            step.changes.iter().filter(ended).count() as u64
        };
        let report = step.state.report;
        assert_eq!(report.succeeded, ended(|outcome| matches!(outcome, Outcome::Success(_))));
        assert_eq!(report.failed, ended(|outcome| matches!(outcome, Outcome::Failed(_))));
        assert_eq!(report.canceled, ended(|outcome| matches!(outcome, Outcome::Canceled)));
        // Four attempts finished; the snoozed one is not counted as an attempt, and the job that waited had none.
        let expected = Report {
            completed: 4,
            succeeded: 1,
            failed: 1,
            retries: 1,
            canceled: 2,
            last_report_ts: DRAINED,
        };
        assert_eq!(report, expected);
    }

    #[test]
    fn the_counters_go_on_from_where_they_were() {
        let work = s3(1);
        let mut before = state([&work]);
        before.report.succeeded = 100;
        before.report.completed = 200;
        let step = turn(before, completions([completion(&work, success(), Retry::No)]));
        assert_eq!((step.state.report.succeeded, step.state.report.completed), (101, 201));
    }

    #[test]
    fn a_report_is_due_once_a_minute() {
        let at = |millis| Batch { read_at: Segment(millis), ..starts([&s1(1)]) };
        let minute = DRAINED.0 + 60_000;
        assert_eq!(turn(state([]), at(minute - 1)).report, None);

        let step = turn(state([]), at(minute));
        let report = step.report.expect("a minute is over");
        assert_eq!(report.last_report_ts, Segment(minute));
        assert_eq!(report, step.state.report);

        let next = Batch { read_at: Segment(minute + 59_999), ..batch() };
        assert_eq!(turn(step.state.clone(), next).report, None);
        let next = Batch { read_at: Segment(minute + 60_000), ..batch() };
        assert!(turn(step.state, next).report.is_some());
    }

    #[test]
    fn a_report_that_is_due_is_written_though_nothing_else_is() {
        let step = turn(state([&s2(1)]), Batch { read_at: Segment(100_000), ..batch() });
        assert!(step.report.is_some());
        assert_eq!(decided(&step), []);
        assert_eq!(step.state.turn, TURN + 1);
    }

    #[test]
    fn the_first_turn_of_a_pool_reports_nothing() {
        let step = turn(InternalState::default(), Batch { read_at: Segment(100_000), ..batch() });
        assert_eq!(step.report, None);
        assert_eq!(step.changes, []);
    }

    /// A snooze is not counted as an attempt and not counted, whichever turn read the cancel that ended its job.
    #[test]
    fn an_uncharged_attempt_is_not_counted_also_when_its_work_was_canceled() {
        let snooze = RunResult::Snoozed(Duration::from_secs(1));
        for running in [s8(1), s12(1)] {
            let Change::InsertPendingCompletion { key, run, result, retry, attempts, .. } =
                arrived(&running, snooze.clone())
            else {
                panic!("a report inserts a completion")
            };
            assert_eq!(attempts, 0);
            let pending_completion = Some((key, retry != Retry::No));
            let work = WorkFact { pending_completion, ..running.clone() };
            let row = CompletionRow { key, run, result, retry, work };
            let step = turn(state([&running]), completions([row]));
            assert_eq!(decided(&step), [completed(&running, Outcome::Canceled, 0)]);
            assert_eq!(step.state.report.completed, 0, "canceled: {}", running.canceled);
        }
    }
}

mod arrivals {
    use super::*;

    #[test]
    fn an_enqueued_work_becomes_s1() {
        let spec = spec(1, None);
        let arrival = enqueue(spec.clone(), NOW, false);
        let change = Change::InsertWork { spec, key: Key { segment: NOW, seq: 0 } };
        assert_eq!((arrival.change, arrival.answer), (Some(change), EnqueueAnswer::Enqueued));
    }

    #[test]
    fn an_id_that_is_known_is_enqueued_once() {
        let arrival = enqueue(spec(1, None), NOW, true);
        assert_eq!((arrival.change, arrival.answer), (None, EnqueueAnswer::Duplicate));
    }

    #[test]
    fn s2_success_becomes_s3() {
        let work = s2(1);
        let change = arrived(&work, success());
        assert_eq!(change, pending_completion(&work, success(), Retry::No, 1));
    }

    #[test]
    fn s2_failed_with_attempts_left_becomes_s5() {
        for (attempts, wait) in [(0, 250), (1, 500)] {
            let work = WorkFact { attempts, runs: attempts + 1, ..s2(1) };
            let retry = Retry::At(Segment(NOW.0 + wait));
            let expected = pending_completion(&work, failed(), retry, attempts + 1);
            assert_eq!(arrived(&work, failed()), expected);
        }
    }

    #[test]
    fn s2_failed_with_no_attempt_left_becomes_s3() {
        let last = WorkFact { attempts: 2, runs: 3, ..s2(1) };
        let expected = pending_completion(&last, failed(), Retry::No, 3);
        assert_eq!(arrived(&last, failed()), expected);
        let only = without_retry(s2(1));
        assert_eq!(arrived(&only, failed()), pending_completion(&only, failed(), Retry::No, 1));
    }

    #[test]
    fn s2_failed_for_good_becomes_s3() {
        let work = s2(1);
        let result = RunResult::Failed(Failure::permanent(FailureKind::Error, "never"));
        let expected = pending_completion(&work, result.clone(), Retry::No, 1);
        assert_eq!(arrived(&work, result), expected);
    }

    #[test]
    fn s2_that_cancels_itself_becomes_s3() {
        let work = s2(1);
        let expected = pending_completion(&work, RunResult::Canceled, Retry::No, 1);
        assert_eq!(arrived(&work, RunResult::Canceled), expected);
    }

    #[test]
    fn s8_failed_becomes_s5_and_is_canceled_by_its_turn() {
        let work = s8(1);
        let expected = pending_completion(&work, failed(), Retry::At(Segment(1_250)), 1);
        assert_eq!(arrived(&work, failed()), expected);
    }

    #[test]
    fn s12_success_is_a_success() {
        let work = s12(1);
        let expected = pending_completion(&work, success(), Retry::No, 1);
        assert_eq!(arrived(&work, success()), expected);
    }

    #[test]
    fn s12_failed_is_canceled_and_not_retried() {
        let work = s12(1);
        let expected = pending_completion(&work, RunResult::Canceled, Retry::No, 1);
        assert_eq!(arrived(&work, failed()), expected);
    }

    #[test]
    fn s12_snoozed_or_handed_back_is_not_started_again() {
        let work = s12(1);
        for result in [RunResult::Snoozed(Duration::from_secs(1)), RunResult::HandedBack] {
            let expected = pending_completion(&work, result.clone(), Retry::No, 0);
            assert_eq!(arrived(&work, result), expected);
        }
    }

    #[test]
    fn a_snooze_is_not_charged_and_needs_no_policy() {
        let tired = WorkFact { attempts: 2, runs: 9, ..s2(1) };
        for work in [s2(1), without_retry(s2(1)), tired] {
            let result = RunResult::Snoozed(Duration::from_millis(70));
            let retry = Retry::At(Segment(1_070));
            let expected = pending_completion(&work, result.clone(), retry, work.attempts);
            assert_eq!(arrived(&work, result), expected);
        }
    }

    #[test]
    fn an_attempt_that_is_handed_back_is_not_charged_and_due_at_once() {
        let work = without_retry(s2(1));
        let expected = pending_completion(&work, RunResult::HandedBack, Retry::At(NOW), 0);
        assert_eq!(arrived(&work, RunResult::HandedBack), expected);
    }

    #[test]
    fn a_wait_that_the_function_asks_for_replaces_the_backoff() {
        let work = s2(1);
        let asked = Failure { retry_after: Some(Duration::from_secs(9)), ..failure() };
        let result = RunResult::Failed(asked);
        let expected = pending_completion(&work, result.clone(), Retry::At(Segment(10_000)), 1);
        assert_eq!(arrived(&work, result.clone()), expected);
        // It is still counted: with no attempt left it does not help.
        let last = WorkFact { attempts: 2, runs: 3, ..s2(1) };
        let expected = pending_completion(&last, result.clone(), Retry::No, 3);
        assert_eq!(arrived(&last, result), expected);
    }

    #[test]
    fn chance_moves_a_retry_between_half_and_one_and_a_half() {
        let work = s2(1);
        let at = |chance| {
            let cx = ArrivalCx { now: NOW, waits_from: NOW, chance };
            match attempt_finished(Some(&work), report(&work, failed()), cx).change {
                Some(Change::InsertPendingCompletion { retry: Retry::At(at), .. }) => at.0 - NOW.0,
                other => panic!("{other:?} is no retry"),
            }
        };
        assert_eq!((at(0.0), at(0.5), at(0.999_999)), (125, 250, 375));
    }

    #[test]
    fn a_report_of_another_run_is_a_no_op() {
        let work = WorkFact { runs: 5, ..s2(1) };
        for run in [0, 1, 4, 6, u32::MAX] {
            let stale = AttemptReport { run, ..report(&work, failed()) };
            let arrival = attempt_finished(Some(&work), stale, AT);
            assert_eq!((arrival.change, arrival.answer), (None, FinishAnswer::Stale), "run {run}");
        }
    }

    #[test]
    fn a_repeated_report_is_a_no_op() {
        for work in [s3(1), s5(1), s9(1)] {
            for result in [success(), failed()] {
                let arrival = attempt_finished(Some(&work), report(&work, result), AT);
                assert_eq!((arrival.change, arrival.answer), (None, FinishAnswer::Stale));
            }
        }
    }

    #[test]
    fn a_report_for_a_work_that_does_not_run_is_a_no_op() {
        let stale = report(&s10(1), success());
        for fact in [Some(s1(1)), Some(s7(1)), Some(s10(1)), None] {
            let arrival = attempt_finished(fact.as_ref(), stale.clone(), AT);
            assert_eq!((arrival.change, arrival.answer), (None, FinishAnswer::Stale));
        }
    }

    fn canceled(fact: Option<&WorkFact>) -> (Option<Change>, CancelAnswer) {
        let arrival = cancel(fact, false, NOW);
        (arrival.change, arrival.answer)
    }

    #[test]
    fn s1_s2_s5_and_s10_become_s7_s8_s9_and_s7_by_a_cancel() {
        for work in [s1(1), s2(1), s5(1), s10(1)] {
            let key = Key { segment: NOW, seq: 0 };
            let row = Change::InsertPendingCancelation { work_id: id(1), pool: POOL, key };
            assert_eq!(canceled(Some(&work)), (Some(row), CancelAnswer::Requested));
        }
    }

    #[test]
    fn s1_and_s10_are_due_now_when_they_are_to_run_now() {
        for waiting in [s1(1), s10(1)] {
            let from = key(1_500, 1);
            let arrival =
                run_now(Some(&WorkFact { pending_start: Some(from), ..waiting }), false, NOW, NOW);
            let to = key(NOW.0, 0);
            let moved = Change::MovePendingStart { work_id: id(1), pool: POOL, from, to };
            assert_eq!((arrival.change, arrival.answer), (Some(moved), RunNowAnswer::Moved));
        }
    }

    #[test]
    fn what_does_not_wait_for_its_time_is_not_moved() {
        let at = |segment| WorkFact { pending_start: Some(Key { segment, seq: 1 }), ..s1(1) };
        let canceling = WorkFact { pending_cancelation: Some(key(970, 1)), ..at(Segment(1_500)) };
        for (work, answer) in [
            (s1(1), RunNowAnswer::AlreadyDue),
            (at(NOW), RunNowAnswer::AlreadyDue),
            // A turn may have been shown it there.
            (at(Segment(1_200)), RunNowAnswer::AlreadyDue),
            (at(Segment::UNREGISTERED), RunNowAnswer::NotRegistered),
            (canceling, RunNowAnswer::Canceled),
            (s2(1), RunNowAnswer::Running),
            (s3(1), RunNowAnswer::Running),
            (s5(1), RunNowAnswer::Running),
            (s8(1), RunNowAnswer::Canceled),
            (s12(1), RunNowAnswer::Canceled),
        ] {
            let arrival = run_now(Some(&work), false, NOW, Segment(1_200));
            assert_eq!((arrival.change, arrival.answer), (None, answer), "{work:?}");
        }
        assert_eq!(run_now(None, false, NOW, NOW).answer, RunNowAnswer::NotFound);
    }

    #[test]
    fn a_second_cancel_is_a_no_op() {
        for work in [s7(1), s8(1), s9(1), s12(1)] {
            assert_eq!(canceled(Some(&work)), (None, CancelAnswer::AlreadyRequested));
        }
    }

    #[test]
    fn a_cancel_of_a_work_that_is_finished_or_unknown_is_a_no_op() {
        assert_eq!(canceled(Some(&s3(1))), (None, CancelAnswer::AlreadyFinished));
        assert_eq!(canceled(None), (None, CancelAnswer::NotFound));
        assert_eq!(cancel(None, true, NOW).answer, CancelAnswer::AlreadyFinished);
        assert_eq!(run_now(None, true, NOW, NOW).answer, RunNowAnswer::AlreadyFinished);
    }
}

mod rests {
    use super::*;

    const DUE: Segment = Segment(2_000);

    #[test]
    fn a_pool_with_nothing_to_do_is_idle() {
        let idle = RunStatus::Idle { generation: REIGN };
        assert_eq!(rest(&state([]), None, SLOTS), idle);
        assert_eq!(rest(&state([&s2(1)]), None, SLOTS), idle);
        assert_eq!(rest(&state([]), None, 0), idle);
    }

    #[test]
    fn a_pool_with_a_free_slot_waits_for_what_is_due_next() {
        let expected = RunStatus::Scheduled { segment: DUE, saturated: false, generation: REIGN };
        assert_eq!(rest(&state([&s2(1)]), Some(DUE), 2), expected);
    }

    #[test]
    fn a_saturated_pool_says_so() {
        let scheduled =
            |segment| RunStatus::Scheduled { segment, saturated: true, generation: REIGN };
        let full = state([&s2(1), &s2(2)]);
        for slots in [2, 1, 0] {
            assert_eq!(rest(&full, Some(DUE), slots), scheduled(DUE));
            assert_eq!(rest(&full, None, slots), scheduled(Segment::UNREGISTERED));
        }
        assert_eq!(rest(&state([]), Some(DUE), 0), scheduled(DUE), "a paused pool");
    }

    #[test]
    fn an_enqueue_or_a_timer_does_not_wake_a_saturated_pool() {
        use KickSource::{Cancelation, Completion, Configure, Enqueue, Timer, Watchdog};
        for source in [Enqueue, Timer] {
            assert!(source.wakes(false), "{source:?}");
            assert!(!source.wakes(true), "{source:?}");
        }
        for source in [Completion, Cancelation, Configure, Watchdog] {
            assert!(source.wakes(false) && source.wakes(true), "{source:?}");
        }
    }
}
