//! Unique keys: in which states a job holds its key, and what an enqueue does that finds it held.

use super::*;
use crate::engine::arrivals::{enqueue_held, holds};
use crate::model::{Conflict, Unique, UniqueHold, UniqueRow};

fn row(hold: UniqueHold) -> UniqueRow {
    UniqueRow { work_id: id(1), hold, enqueued_at: Segment(100) }
}

#[test]
fn a_job_holds_its_key_in_some_states() {
    let held = |hold, work: Option<&WorkFact>| holds(&row(hold), work, NOW);
    for (work, waiting, unfinished) in [
        (s1(1), true, true),
        (s2(1), false, true),
        (s3(1), false, false),
        (s5(1), false, true),
        (s7(1), false, false),
        (s8(1), false, true),
        (s9(1), false, false),
        (s10(1), false, true),
        (s12(1), false, true),
    ] {
        assert_eq!(held(UniqueHold::WhileWaiting, Some(&work)), waiting, "{work:?}");
        assert_eq!(held(UniqueHold::UntilFinished, Some(&work)), unfinished, "{work:?}");
    }
    assert!(!held(UniqueHold::WhileWaiting, None) && !held(UniqueHold::UntilFinished, None));
}

#[test]
fn a_period_holds_whatever_becomes_of_the_job() {
    for (millis, expected) in [(899, false), (900, false), (901, true)] {
        let row = row(UniqueHold::Within(Duration::from_millis(millis)));
        for work in [None, Some(s1(1)), Some(s3(1)), Some(s7(1))] {
            assert_eq!(holds(&row, work.as_ref(), NOW), expected, "{millis}: {work:?}");
        }
    }
}

fn new(due: Segment, conflict: Conflict, work: &WorkFact) -> (Option<Change>, EnqueueAnswer) {
    let (spec, holder) = (spec(2, None), (id(1), Some(work)));
    let arrival = enqueue_held(&spec, due, conflict, holder, KeyRule::default(), NOW);
    (arrival.change, arrival.answer)
}

#[test]
fn what_waits_for_its_first_attempt_is_replaced() {
    let spec = Spec::new(id(1), SpecHead::clone(&spec(2, None)), b"");
    let mut later = s1(1);
    later.pending_start = Some(due(2_000, 1));
    for (work, time, to) in [
        // What is due stays where it is.
        (s1(1), NOW, due(950, 1)),
        (s1(1), Segment(1_500), due(1_500, 0)),
        (later.clone(), NOW, due(NOW.0, 0)),
        (later, Segment(3_000), due(3_000, 0)),
    ] {
        let from = work.pending_start.expect("it waits");
        let change = Change::ReplaceWork { spec: spec.clone(), from, to };
        let expected = (Some(change), EnqueueAnswer::Replaced(id(1)));
        assert_eq!(new(time, Conflict::Replace, &work), expected);
        assert_eq!(new(time, Conflict::Keep, &work), (None, EnqueueAnswer::Kept(id(1))));
    }
}

/// Otherwise the store could not tell, after a commit in doubt, whether it was made.
#[test]
fn what_is_replaced_by_itself_is_not_written() {
    let same = WorkFact { pending_start: Some(due(950, 1)), ..WorkFact::new(spec(1, None)) };
    assert_eq!(new(NOW, Conflict::Replace, &same), (None, EnqueueAnswer::Replaced(id(1))));
}

#[test]
fn what_does_not_wait_for_its_first_attempt_is_kept() {
    for work in [s2(1), s3(1), s5(1), s7(1), s8(1), s9(1), s10(1), s12(1)] {
        for conflict in [Conflict::Replace, Conflict::Debounce(Duration::from_secs(1))] {
            assert_eq!(new(NOW, conflict, &work), (None, EnqueueAnswer::Kept(id(1))));
        }
    }
}

#[test]
fn a_key_is_not_shown() {
    assert_eq!(format!("{:?}", Unique::key("abc").key), "3 bytes");
}
