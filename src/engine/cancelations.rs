//! Cancelations: S7 → canceled, S8 → S12, a completed job → nothing.

use super::draft::Draft;
use super::lanes::Standing;
use crate::model::{CancelationRow, Change, Outcome};

pub(super) fn handle(draft: &mut Draft, rows: Vec<CancelationRow>) {
    for row in rows {
        let known =
            row.work.filter(|_| !draft.settled.contains(&row.work_id) || planted!(DeletedTwice));
        let Some(work) = known else {
            // The job has completed in an earlier turn or in this one.
            draft.changes.push(Change::DeletePendingCancelation { pool: row.pool, key: row.key });
            continue;
        };
        if work.pending_start.is_some() || planted!(DeletedTwice) {
            draft.settled.insert(row.work_id);
            draft.lanes.pass(&work.spec, Standing::of(&work), Standing::Outside);
            draft.complete(work.spec, Outcome::Canceled, work.attempts, None, work.history);
            continue;
        }
        if planted!(CancelNotMarked) {
            draft.changes.push(Change::DeletePendingCancelation { pool: row.pool, key: row.key });
            continue;
        }
        let change = Change::MarkCanceled { work_id: row.work_id, pool: row.pool, key: row.key };
        draft.changes.push(change);
        draft.marked.insert(row.work_id);
        if work.pending_completion.is_none() {
            draft.signals.push(row.work_id);
        }
    }
}
