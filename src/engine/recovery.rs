//! Recovery of lost attempts, which occupy a slot but have no worker.

use super::arrivals::{ArrivalCx, judge};
use super::completions::settle;
use super::draft::Draft;
use crate::model::{Failure, FailureKind, FunctionKind, RunNumber, RunResult, RunningRow};

/// The number of launches after which a mutation or query is treated as poison, that is, as the cause of the crashes.
pub(super) const MOST_LOST: RunNumber = 16;

/// A row of `running` whose attempt will never report.
#[derive(Clone, Debug, PartialEq)]
pub struct Lost {
    /// The row and its job.
    pub row: RunningRow,
    /// `true` if the attempt may have begun. If it certainly has not, it does not count as an attempt.
    pub launched: bool,
    /// A number drawn uniformly from `[0, 1)`, for the backoff.
    pub chance: f64,
}

pub(super) fn handle(draft: &mut Draft, lost: Vec<Lost>) {
    if lost.is_empty() {
        return;
    }
    draft.state.last_recovery = draft.now;
    for Lost { mut row, launched, chance } in lost {
        let work_id = row.work.spec.work_id;
        // The facts are from before this turn.
        row.work.canceled |= draft.marked.contains(&work_id);
        let still_running = draft.state.running.get(&work_id) == Some(&row.running);
        if !still_running || row.work.pending_completion.is_some() {
            continue;
        }
        // A lost mutation or query has no effects, since its effects and its completion are one commit.
        let left_nothing = row.work.spec.kind != FunctionKind::Action && row.work.runs < MOST_LOST;
        let result = match launched && !left_nothing && !planted!(RecoveryNotCounting) {
            true => RunResult::Failed(Failure::retryable(
                FailureKind::Lost,
                "the worker went away without a report",
            )),
            false => RunResult::Returned,
        };
        let waits_from = draft.now;
        let cx = ArrivalCx { now: draft.now, waits_from, chance };
        let verdict = judge(&row.work, result, cx);
        if settle(draft, row.work, verdict, None) {
            draft.settled.insert(work_id);
        }
    }
}
