//! Starts of due jobs: S1, S10 → S2, while slots are free and the rate admits them.

use super::draft::{Draft, Launch};
use super::limit;
use crate::model::{Change, Running, Segment, Spec, StartKey, StartRow};

/// Starts jobs in the order of their ranks. Returns the first segment of those that could not start yet.
///
/// The limits are checked in this order: the pool is paused (it has no slots), slots, the rate. A refusal takes nothing
/// from an earlier one.
pub(super) fn handle(
    draft: &mut Draft,
    rows: Vec<StartRow>,
    max_parallelism: usize,
    can_run: &dyn Fn(&Spec) -> bool,
) -> Option<Segment> {
    let max_parallelism = max_parallelism + usize::from(planted!(CapacityOffByOne));
    draft.launches.reserve(rows.len());
    let mut rows = rows.into_iter();
    while let Some(row) = rows.next() {
        let work_id = row.spec.work_id;
        if draft.settled.contains(&work_id) {
            continue;
        }
        if !can_run(&row.spec) {
            draft.changes.push(Change::MovePendingStart {
                work_id,
                pool: row.spec.pool,
                from: row.key,
                to: StartKey::new(row.key.priority, Segment::UNREGISTERED),
            });
            continue;
        }
        let first_left = |draft: &Draft| {
            let rest =
                rows.as_slice().iter().filter(|row| !draft.settled.contains(&row.spec.work_id));
            rest.map(|row| row.key.segment).fold(row.key.segment, Segment::min)
        };
        if draft.state.running.len() >= max_parallelism {
            return Some(first_left(draft));
        }
        // Without a rate and a rest there is nothing to count.
        if draft.rate.is_some() || draft.state.tat > 0 {
            match limit::admit(draft.rate, draft.state.tat, row.spec.cost(), draft.now) {
                Ok(tat) => draft.state.tat = if draft.rate.is_some() { tat } else { 0 },
                Err(until) => {
                    draft.state.limited_until = until;
                    return Some(first_left(draft));
                }
            }
        }
        let run = row.runs + 1;
        let running = Running { run, started: draft.now, generation: draft.state.generation };
        let occupied = draft.state.running.insert(work_id, running);
        debug_assert!(occupied.is_none(), "a job that waits to start occupies no slot");
        draft.changes.push(Change::StartWork {
            work_id,
            pool: row.spec.pool,
            key: row.key,
            run,
            started: draft.now,
            generation: draft.state.generation,
        });
        let attempt = row.attempts + 1;
        draft.launches.push(Launch { spec: row.spec, attempt, run, due: row.key.segment });
    }
    debug_assert!(draft.state.running.len() <= max_parallelism || draft.launches.is_empty());
    None
}
