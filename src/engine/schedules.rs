//! Decisions on schedules: which times are due, and what becomes of each.

use crate::model::{CatchUp, Overlap, Recurrence, ScheduleRow, Segment, WorkFact, WorkId};

/// The time by which a schedule may be late without having missed anything: so long may nobody have looked at the clock.
pub const ON_TIME_MS: u64 = 60_000;

/// The maximum number of missed times that are caught up with.
const MOST_MISSED: usize = 1_000;

/// Returns the nominal times behind `last` that are to be handled at `now`, in order. All others up to the last one are
/// skipped.
pub(crate) fn due(
    times: &Recurrence,
    catch_up: CatchUp,
    last: Segment,
    now: Segment,
) -> Vec<Segment> {
    let Some(newest) = times.last_between(last, now) else { return Vec::new() };
    let within_ms = match catch_up {
        CatchUp::Skip => 0,
        CatchUp::Once { within } | CatchUp::All { within } => {
            u64::try_from(within.as_millis()).unwrap_or(u64::MAX)
        }
    };
    let oldest = Segment(now.0.saturating_sub(within_ms.max(ON_TIME_MS)));
    if newest < oldest && !planted!(MissedForEver) {
        return Vec::new();
    }
    if !matches!(catch_up, CatchUp::All { .. }) {
        return vec![newest];
    }
    // Looks back further and further, so that what is older than the last 1,000 is not walked through.
    let first = last.max(Segment(oldest.0.saturating_sub(1)));
    let mut span_ms = ON_TIME_MS;
    loop {
        let from = first.max(Segment(now.0.saturating_sub(span_ms)));
        let mut due = Vec::new();
        let mut after = from;
        while let Some(next) = times.next_after(after).filter(|next| *next <= now) {
            due.push(next);
            after = next;
        }
        if due.len() >= MOST_MISSED || from == first {
            due.drain(..due.len().saturating_sub(MOST_MISSED));
            return due;
        }
        span_ms = span_ms.saturating_mul(2);
    }
}

/// What becomes of one nominal time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tick {
    /// It was handled before: nothing is written.
    Handled,
    /// The schedule is paused, or nobody knows it any more: nothing is written.
    Off,
    /// The job before has no outcome: the time is skipped.
    Skip,
    /// The job is enqueued, after the one before was canceled, if there is one to cancel.
    Enqueue { cancel: Option<WorkId> },
}

/// Decides a nominal time. `before` are the facts of the job of the time before, if it has no outcome.
pub(crate) fn tick(
    row: Option<&ScheduleRow>,
    nominal: Segment,
    overlap: Overlap,
    before: Option<&WorkFact>,
) -> Tick {
    let Some(row) = row.filter(|row| !row.paused || planted!(PauseIgnored)) else {
        return Tick::Off;
    };
    if nominal <= row.last {
        return Tick::Handled;
    }
    let Some(before) = before.filter(|_| !planted!(OverlapIgnored)) else {
        return Tick::Enqueue { cancel: None };
    };
    let waits = before.pending_start.is_some() && before.runs == 0;
    match overlap {
        Overlap::Skip => Tick::Skip,
        Overlap::QueueOne if waits => Tick::Skip,
        Overlap::QueueOne | Overlap::QueueAll => Tick::Enqueue { cancel: None },
        Overlap::CancelPrevious => Tick::Enqueue { cancel: Some(before.spec.work_id) },
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{Cron, Every, Zone};

    const HOUR: u64 = 3_600_000;

    fn hourly() -> Recurrence {
        Recurrence::Every(Every::new(Duration::from_secs(3_600)).expect("an hour"))
    }

    const NONE: [u64; 0] = [];

    fn hours(due: Vec<Segment>) -> Vec<u64> {
        due.into_iter().map(|at| at.0 / HOUR).collect()
    }

    fn within(hours: u64) -> Duration {
        Duration::from_millis(hours * HOUR)
    }

    #[test]
    fn what_is_on_time_runs_whatever_is_caught_up_with() {
        for catch_up in
            [CatchUp::Skip, CatchUp::Once { within: within(0) }, CatchUp::All { within: within(0) }]
        {
            let at = |late| due(&hourly(), catch_up, Segment(10 * HOUR), Segment(11 * HOUR + late));
            assert_eq!(hours(at(0)), [11]);
            assert_eq!(hours(at(ON_TIME_MS)), [11]);
            assert_eq!(hours(at(ON_TIME_MS + 1)), NONE);
            assert_eq!(due(&hourly(), catch_up, Segment(11 * HOUR), Segment(11 * HOUR)), []);
        }
    }

    #[test]
    fn missed_times_are_caught_up_with_as_asked() {
        let at = |catch_up| {
            hours(due(&hourly(), catch_up, Segment(10 * HOUR), Segment(15 * HOUR + HOUR / 2)))
        };
        assert_eq!(at(CatchUp::Skip), NONE);
        assert_eq!(at(CatchUp::Once { within: within(1) }), [15]);
        assert_eq!(at(CatchUp::Once { within: Duration::from_secs(60) }), NONE);
        assert_eq!(at(CatchUp::All { within: within(3) }), [13, 14, 15]);
        assert_eq!(at(CatchUp::All { within: within(100) }), [11, 12, 13, 14, 15]);
        assert_eq!(at(CatchUp::All { within: Duration::MAX }), [11, 12, 13, 14, 15]);
        let long = due(
            &hourly(),
            CatchUp::All { within: Duration::MAX },
            Segment(0),
            Segment(5_000 * HOUR),
        );
        assert_eq!((long.len(), hours(long)[0]), (MOST_MISSED, 4_001));
    }

    #[test]
    fn a_nightly_schedule_fires_once_in_the_night_in_which_clocks_change() {
        let cron = Cron::parse("30 2 * * *").expect("an expression");
        let zone = Zone::named("Europe/Berlin").expect("a zone");
        let times = Recurrence::Cron { cron, zone };
        // From 2025-03-29 to 2025-04-01, UTC.
        let (from, until) = (Segment(1_743_206_400_000), Segment(1_743_465_600_000));
        let all = due(&times, CatchUp::All { within: Duration::MAX }, from, until);
        assert_eq!(all.len(), 3);
    }

    #[test]
    fn an_overlap_is_handled_as_asked() {
        use crate::model::{FunctionKind, Name, PoolId, Priority, Spec, SpecHead, StartKey};
        let head = SpecHead {
            pool: PoolId(0),
            kind: FunctionKind::Action,
            function: Name::from_static("f"),
            enqueued_at: Segment(1),
            priority: Priority::NORMAL,
            options: None,
        };
        let runs = WorkFact::new(Spec::new(WorkId::from_name("before"), head, b""));
        let waits = WorkFact { pending_start: Some(StartKey::default()), ..runs.clone() };
        let retries = WorkFact { runs: 1, ..waits.clone() };
        let row = ScheduleRow { last: Segment(10), ..ScheduleRow::default() };
        let of = |overlap, before| tick(Some(&row), Segment(11), overlap, before);
        let enqueue = Tick::Enqueue { cancel: None };
        for overlap in [Overlap::Skip, Overlap::QueueOne, Overlap::QueueAll] {
            assert_eq!(of(overlap, None), enqueue);
        }
        for before in [&waits, &runs, &retries] {
            assert_eq!(of(Overlap::Skip, Some(before)), Tick::Skip);
            assert_eq!(of(Overlap::QueueAll, Some(before)), enqueue);
            let cancel = Tick::Enqueue { cancel: Some(before.spec.work_id) };
            assert_eq!(of(Overlap::CancelPrevious, Some(before)), cancel);
        }
        assert_eq!(of(Overlap::QueueOne, Some(&waits)), Tick::Skip);
        assert_eq!(of(Overlap::QueueOne, Some(&runs)), enqueue);
        assert_eq!(of(Overlap::QueueOne, Some(&retries)), enqueue);

        let at = |row, nominal| tick(row, Segment(nominal), Overlap::Skip, None);
        assert_eq!(at(Some(&row), 10), Tick::Handled);
        assert_eq!(at(None, 11), Tick::Off);
        assert_eq!(at(Some(&ScheduleRow { paused: true, ..row.clone() }), 11), Tick::Off);
    }
}
