//! Recovery: rows of `running` that have no worker.

use super::*;
use crate::engine::recovery::MOST_LOST;

fn recover(before: InternalState, lost: Lost) -> Step {
    turn_with(before, batch(), SLOTS, vec![lost])
}

#[test]
fn a_lost_attempt_that_may_have_begun_counts_and_is_retried() {
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
fn a_lost_attempt_that_never_began_goes_back_without_counting() {
    for work in [s2(1), without_retry(s2(1))] {
        let step = recover(state([&work]), lost(&work, false));
        assert_eq!(decided(&step), [retried(&work, NOW.0, 0)]);
        assert_eq!(step.state.report, state([]).report, "nothing finished");
    }
}

/// A lost mutation has no effects, since its effects and its completion are one commit.
#[test]
fn a_lost_mutation_goes_back_without_counting_unless_it_may_be_what_ends_the_process() {
    let mutation = |runs| {
        let work = WorkFact { runs, ..without_retry(s2(1)) };
        let head = SpecHead { kind: FunctionKind::Mutation, ..SpecHead::clone(&work.spec) };
        WorkFact { spec: Spec::new(work.spec.work_id, head, b""), ..work }
    };
    let work = mutation(MOST_LOST - 1);
    let step = recover(state([&work]), lost(&work, true));
    assert_eq!(decided(&step), [retried(&work, NOW.0, 0)]);

    let work = mutation(MOST_LOST);
    let step = recover(state([&work]), lost(&work, true));
    assert_eq!(decided(&step), [completed(&work, Outcome::Failed(lost_failure()), 1)]);
}

#[test]
fn a_lost_attempt_of_a_canceled_job_is_not_retried() {
    for (work, launched, attempts) in [(s12(1), true, 1), (s12(1), false, 0), (s8(1), true, 1)] {
        let step = recover(state([&work]), lost(&work, launched));
        let history = match work.canceled {
            true => History::default(),
            // The turn only sees that the job is to be canceled.
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

/// The facts of a lost attempt are from the claim of the pool; the cancel came later.
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
