//! Starts of due jobs: S1, S10 → S2, while slots are free.

use super::draft::{Draft, Launch};
use crate::model::{Change, Key, Running, Segment, Spec, StartRow};

/// Starts jobs while slots are free. Returns the segment of the first row that got no slot.
pub(super) fn handle(
    draft: &mut Draft,
    rows: Vec<StartRow>,
    max_parallelism: usize,
    can_run: &dyn Fn(&Spec) -> bool,
) -> Option<Segment> {
    let max_parallelism = max_parallelism + usize::from(planted!(CapacityOffByOne));
    draft.launches.reserve(rows.len());
    for row in rows {
        let work_id = row.spec.work_id;
        if draft.settled.contains(&work_id) {
            continue;
        }
        if !can_run(&row.spec) {
            draft.changes.push(Change::MovePendingStart {
                work_id,
                pool: row.spec.pool,
                from: row.key,
                to: Key { segment: Segment::UNREGISTERED, seq: 0 },
            });
            continue;
        }
        if draft.state.running.len() >= max_parallelism {
            return Some(row.key.segment);
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
