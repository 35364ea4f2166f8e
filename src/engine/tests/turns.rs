//! Turns: every transition of the state table that a loop decides, and the order of the phases.

use super::*;

#[test]
fn s1_enqueued_becomes_s2() {
    let work = s1(1);
    let step = turn(state([]), starts([&work]));
    assert_eq!(decided(&step), [started_as(&work, 1)]);
    let launch = Launch { spec: work.spec.clone(), attempt: 1, run: 1, due: Segment(950) };
    assert_eq!(step.launches, [launch]);
    let running = Running { run: 1, started: NOW, generation: GENERATION };
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
    // A job that is canceled or done keeps its history.
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
fn s7_cancel_between_attempts_keeps_the_attempts_that_counted() {
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
fn a_cancelation_of_a_job_that_is_gone_is_only_deleted() {
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
    assert_eq!((state.generation, state.turn), (GENERATION, TURN + 1));
    assert_eq!(step.state.turn, TURN + 1);
}

#[test]
fn a_turn_without_anything_to_decide_changes_nothing() {
    let before = state([&s2(1)]);
    let step = turn(before.clone(), Batch { next_due: Some(Segment(2_000)), ..batch() });
    let nothing = Step {
        lanes: Vec::new(),
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
