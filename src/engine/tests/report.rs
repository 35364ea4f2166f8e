//! The report: what a turn counts.

use super::*;

/// A turn with every counted event.
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
    let expected = Report { completed: 4, succeeded: 1, failed: 1, retries: 1, canceled: 2 };
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
    assert_eq!((report, step.state.last_report), (step.state.report, Segment(minute)));

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

/// A snooze is not counted, neither as an attempt nor in the report, whichever turn read the cancel of its job.
#[test]
fn an_attempt_that_does_not_count_is_not_counted_also_when_its_job_was_canceled() {
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
