//! Rest: what an idle loop waits for.

use super::*;

const DUE: Segment = Segment(2_000);

#[test]
fn a_pool_with_nothing_to_do_is_idle() {
    let idle = RunStatus::Idle { generation: GENERATION };
    assert_eq!(rest(&state([]), None, SLOTS), idle);
    assert_eq!(rest(&state([&s2(1)]), None, SLOTS), idle);
    assert_eq!(rest(&state([]), None, 0), idle);
}

#[test]
fn a_pool_with_a_free_slot_waits_for_what_is_due_next() {
    let expected = RunStatus::Scheduled { segment: DUE, saturated: false, generation: GENERATION };
    assert_eq!(rest(&state([&s2(1)]), Some(DUE), 2), expected);
}

#[test]
fn a_saturated_pool_says_so() {
    let scheduled =
        |segment| RunStatus::Scheduled { segment, saturated: true, generation: GENERATION };
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
