//! Starts of due jobs: S1, S10 → S2, while slots are free and the limits admit them.

use super::draft::{Draft, Launch};
use super::lanes::{LaneStep, Standing, UNTAGGED};
use super::limit;
use crate::model::{Change, Running, Segment, Spec, StartKey, StartPlace, StartRow};

/// Starts jobs in the order of their ranks. Returns the first segment of those in the queue that could not start yet.
///
/// The limits are checked in this order: the pool is paused (it has no slots), slots, the parallelism of the key, its
/// rate, the rate of the pool. A refusal takes nothing from an earlier one. A job that its key refuses is moved out of the
/// way, so that no job is looked at twice for nothing.
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
            let holds = Standing::at(row.key) == Standing::Holds && draft.key_rule.is_ordered();
            let place = if holds { StartPlace::Held } else { StartPlace::Queue };
            let to = StartKey::new(row.key.priority, Segment::UNREGISTERED).in_place(place);
            move_to(draft, &row, to);
            continue;
        }
        let first_left = |draft: &Draft| {
            let rest =
                rows.as_slice().iter().filter(|row| !draft.settled.contains(&row.spec.work_id));
            let left = std::iter::once(&row).chain(rest).filter(|row| row.key.tag().is_none());
            left.map(|row| row.key.segment).min()
        };
        if draft.state.running.len() >= max_parallelism {
            return first_left(draft);
        }
        let tat = match row.spec.key() {
            None => None,
            Some(key) => match by_key(draft, key, &row) {
                Ok(tat) => tat,
                Err(to) => {
                    move_to(draft, &row, to);
                    continue;
                }
            },
        };
        // Without a rate and a rest there is nothing to count.
        if draft.rate.is_some() || draft.state.tat > 0 {
            match limit::admit(draft.rate, draft.state.tat, row.spec.cost(), draft.now) {
                Ok(tat) => draft.state.tat = if draft.rate.is_some() { tat } else { 0 },
                Err(until) => {
                    draft.state.limited_until = until;
                    return first_left(draft);
                }
            }
        }
        if row.spec.key().is_some() {
            let (spec, from, to) = (row.spec.clone(), Standing::at(row.key), Standing::Runs);
            let rest = Segment::default();
            draft.lanes.step(LaneStep { spec, from, to, tat, rest });
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

/// Asks the key of a job whether the job may start. Returns the key's theoretical arrival time behind the start, if it has a
/// rate; or where the job is to wait.
fn by_key(draft: &Draft, key: &[u8], row: &StartRow) -> Result<Option<u64>, StartKey> {
    let cx = draft.lane_cx();
    let lane = draft.lanes.now(key, row.lane.unwrap_or_default());
    let to = |place| Err(row.key.in_place(place));
    let is_new = Standing::at(row.key) == Standing::Outside;
    // A job that comes from the queue has not asked its key before.
    if is_new && (lane.waiting > 0 || !cx.has_room(&lane)) || cx.is_full(&lane) {
        return to(StartPlace::Lane);
    }
    match cx.admit(&lane, row.spec.cost()) {
        // The key has had a turn, or its rate has held the job back: others may be before it.
        Ok(_) if is_new && lane.holders > 0 => to(StartPlace::Ready { tag: UNTAGGED }),
        Ok(_) if row.key.place == StartPlace::Held && draft.key_rule.max_rate().is_some() => {
            to(StartPlace::Ready { tag: UNTAGGED })
        }
        Ok(tat) => Ok(draft.key_rule.max_rate().map(|_| tat)),
        // One waits for the time, the others for that one.
        Err(_) if draft.lanes.is_held_back(key) => to(StartPlace::Lane),
        Err(until) => Err(StartKey { segment: until, ..row.key.in_place(StartPlace::Held) }),
    }
}

/// Moves a job that cannot start.
fn move_to(draft: &mut Draft, row: &StartRow, to: StartKey) {
    let (work_id, pool) = (row.spec.work_id, row.spec.pool);
    draft.changes.push(Change::MovePendingStart { work_id, pool, from: row.key, to });
    if let Some(key) =
        row.spec.key().filter(|_| to.place == StartPlace::Held && !to.is_unregistered())
    {
        draft.lanes.hold_back(key);
    }
    draft.lanes.pass(&row.spec, Standing::at(row.key), Standing::at(to));
}
