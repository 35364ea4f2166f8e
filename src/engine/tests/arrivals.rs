//! Arrivals: a message of a caller or worker becomes one change.

use super::*;

#[test]
fn an_enqueued_job_becomes_s1() {
    let spec = spec(1, None);
    let arrival = enqueue(spec.clone(), NOW, false);
    let change = Change::InsertWork { spec, key: due(NOW.0, 0) };
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
fn s12_snoozed_or_returned_is_not_started_again() {
    let work = s12(1);
    for result in [RunResult::Snoozed(Duration::from_secs(1)), RunResult::Returned] {
        let expected = pending_completion(&work, result.clone(), Retry::No, 0);
        assert_eq!(arrived(&work, result), expected);
    }
}

#[test]
fn a_snooze_does_not_count_and_needs_no_policy() {
    let tired = WorkFact { attempts: 2, runs: 9, ..s2(1) };
    for work in [s2(1), without_retry(s2(1)), tired] {
        let result = RunResult::Snoozed(Duration::from_millis(70));
        let retry = Retry::At(Segment(1_070));
        let expected = pending_completion(&work, result.clone(), retry, work.attempts);
        assert_eq!(arrived(&work, result), expected);
    }
}

#[test]
fn an_attempt_that_is_returned_does_not_count_and_is_due_at_once() {
    let work = without_retry(s2(1));
    let expected = pending_completion(&work, RunResult::Returned, Retry::At(NOW), 0);
    assert_eq!(arrived(&work, RunResult::Returned), expected);
}

#[test]
fn a_wait_that_the_function_asks_for_replaces_the_backoff() {
    let work = s2(1);
    let asked = Failure { retry_after: Some(Duration::from_secs(9)), ..failure() };
    let result = RunResult::Failed(asked);
    let expected = pending_completion(&work, result.clone(), Retry::At(Segment(10_000)), 1);
    assert_eq!(arrived(&work, result.clone()), expected);
    // The attempt still counts: without an attempt left, `retry_after` has no effect.
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
fn a_report_for_a_job_that_does_not_run_is_a_no_op() {
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
        let from = due(1_500, 1);
        let arrival =
            run_now(Some(&WorkFact { pending_start: Some(from), ..waiting }), false, NOW, NOW);
        let to = due(NOW.0, 0);
        let moved = Change::MovePendingStart { work_id: id(1), pool: POOL, from, to };
        assert_eq!((arrival.change, arrival.answer), (Some(moved), RunNowAnswer::Moved));
    }
}

#[test]
fn what_does_not_wait_for_its_time_is_not_moved() {
    let at = |segment: Segment| WorkFact { pending_start: Some(due(segment.0, 1)), ..s1(1) };
    let canceling = WorkFact { pending_cancelation: Some(key(970, 1)), ..at(Segment(1_500)) };
    for (work, answer) in [
        (s1(1), RunNowAnswer::AlreadyDue),
        (at(NOW), RunNowAnswer::AlreadyDue),
        // A turn may have read the row already.
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
fn s1_and_s10_go_to_another_priority_behind_what_is_due() {
    for (at, new) in [(950, NOW.0), (1_500, 1_500), (u64::MAX, u64::MAX)] {
        for waiting in [s1(1), s10(1)] {
            let from = due(at, 1);
            let work = WorkFact { pending_start: Some(from), ..waiting };
            let arrival = set_priority(Some(&work), false, Priority::HIGH, NOW);
            let to = StartKey::new(Priority::HIGH, Segment(new));
            let moved = Change::MovePendingStart { work_id: id(1), pool: POOL, from, to };
            assert_eq!((arrival.change, arrival.answer), (Some(moved), PriorityAnswer::Changed));
        }
    }
}

#[test]
fn a_job_that_does_not_wait_keeps_its_priority() {
    for (work, answer) in [
        (s7(1), PriorityAnswer::Canceled),
        (s8(1), PriorityAnswer::Canceled),
        (s12(1), PriorityAnswer::Canceled),
        (s2(1), PriorityAnswer::Running),
        (s3(1), PriorityAnswer::Running),
        (s5(1), PriorityAnswer::Running),
    ] {
        let arrival = set_priority(Some(&work), false, Priority::LOW, NOW);
        assert_eq!((arrival.change, arrival.answer), (None, answer), "{work:?}");
    }
    let same = set_priority(Some(&s1(1)), false, Priority::NORMAL, NOW);
    assert_eq!((same.change, same.answer), (None, PriorityAnswer::Changed));
    let answer = |is_finished| set_priority(None, is_finished, Priority::LOW, NOW).answer;
    assert_eq!(answer(true), PriorityAnswer::AlreadyFinished);
    assert_eq!(answer(false), PriorityAnswer::NotFound);
}

#[test]
fn a_second_cancel_is_a_no_op() {
    for work in [s7(1), s8(1), s9(1), s12(1)] {
        assert_eq!(canceled(Some(&work)), (None, CancelAnswer::AlreadyRequested));
    }
}

#[test]
fn a_cancel_of_a_job_that_is_finished_or_unknown_is_a_no_op() {
    assert_eq!(canceled(Some(&s3(1))), (None, CancelAnswer::AlreadyFinished));
    assert_eq!(canceled(None), (None, CancelAnswer::NotFound));
    assert_eq!(cancel(None, true, NOW).answer, CancelAnswer::AlreadyFinished);
    assert_eq!(run_now(None, true, NOW, NOW).answer, RunNowAnswer::AlreadyFinished);
}
