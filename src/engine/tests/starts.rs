//! Starts: slots, the order of jobs, and the cursor afterwards.

use super::*;

pub(super) fn launched(step: &Step) -> Vec<WorkId> {
    step.launches.iter().map(|launch| launch.spec.work_id).collect()
}

#[test]
fn jobs_start_in_order_until_all_slots_are_taken() {
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
    let mut state = state(&running);
    let settings = PoolConfig::default().settings();
    let mut demand = |slots| demand(&mut state, &settings, slots, NOW);
    assert_eq!(demand(5).free_slots, 2);
    assert_eq!(demand(3).free_slots, 0);
    assert_eq!(demand(0).free_slots, -3);
    assert_eq!(demand(5).cursors.incoming, DRAINED);
    assert_eq!(demand(5).max_starts, usize::MAX);
}

#[test]
fn a_job_whose_function_is_not_registered_moves_to_the_lane_and_hides_nothing() {
    let mut unknown = s1(1);
    let head =
        SpecHead { function: Name::from_static("unknown"), ..SpecHead::clone(&unknown.spec) };
    unknown.spec = Spec::new(id(1), head, b"");
    let next = s1(2);
    let moved = Change::MovePendingStart {
        work_id: id(1),
        pool: POOL,
        from: due(950, 1),
        to: StartKey::new(Priority::NORMAL, Segment::UNREGISTERED),
    };
    let step = turn_with(state([]), starts([&unknown, &next]), 1, Vec::new());
    assert_eq!(decided(&step), [moved.clone(), started_as(&next, 1)]);
    // Moved even if no slot is free: otherwise it would take the place of a runnable job on the next page.
    let step = turn_with(state([]), starts([&unknown, &next]), 0, Vec::new());
    assert_eq!(decided(&step), [moved]);
}

// Cursors

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
    let (first, second) = (s1(1), WorkFact { pending_start: Some(due(957, 2)), ..s1(2) });
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
        starts: vec![StartRow { key: due(500, 3), ..start(&next) }],
        next_due: Some(Segment(550)),
    };
    let before = state([&done, &canceled]);
    let step = turn(before.clone(), batch);
    assert_eq!(step.state.cursors, before.cursors);
}
