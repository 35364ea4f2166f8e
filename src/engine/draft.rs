//! The state of a turn in progress.

use std::sync::Arc;

use hashbrown::HashSet;

use super::lanes::{LaneCx, LaneTurn};
use crate::model::{
    Change, Finished, FinishedDetails, History, InternalState, KeyRule, Outcome, Rate, RunNumber,
    Segment, Spec, WorkId,
};

/// An attempt to start once the turn is committed.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    /// The job.
    pub spec: Spec,
    /// The number of the attempt; the first is 1.
    pub attempt: u32,
    /// The number of the run.
    pub run: RunNumber,
    /// The time at which it was due.
    pub due: Segment,
}

/// The state of a turn in progress, which all phases read and write.
pub(super) struct Draft {
    pub state: InternalState,
    pub changes: Vec<Change>,
    pub launches: Vec<Launch>,
    pub signals: Vec<WorkId>,
    /// Jobs that this turn has completed: later rows of the same batch skip them.
    pub settled: HashSet<WorkId>,
    /// Jobs that this turn has marked as canceled.
    pub marked: HashSet<WorkId>,
    /// Lanes that this turn has changed.
    pub lanes: LaneTurn,
    pub key_rule: KeyRule,
    pub now: Segment,
    /// The rate at which the pool's jobs may start.
    pub rate: Option<Rate>,
}

impl Draft {
    /// Returns the input of a decision on a lane.
    pub fn lane_cx(&self) -> LaneCx {
        LaneCx { rule: self.key_rule, now: self.now }
    }

    /// Completes a job: counts it and writes its row of `finished`.
    pub fn complete(
        &mut self,
        spec: Spec,
        outcome: Outcome,
        attempts: u32,
        started: Option<Segment>,
        history: History,
    ) {
        let report = &mut self.state.report;
        match outcome {
            Outcome::Success(_) => report.succeeded += 1,
            Outcome::Failed(_) => report.failed += 1,
            Outcome::Canceled => report.canceled += 1,
        }
        let details = FinishedDetails {
            history,
            on_complete: spec.on_complete().map(|call| call.name),
            follow_up: None,
            retried_as: None,
            spec: matches!(outcome, Outcome::Failed(_)).then(|| spec.alone()),
        };
        let finished = Arc::new(Finished {
            work_id: spec.work_id,
            pool: spec.pool,
            function: spec.function,
            outcome,
            attempts,
            enqueued_at: spec.enqueued_at,
            started,
            finished_at: self.now,
            details: details.if_any(),
        });
        self.changes.push(Change::CompleteWork { finished, spec });
    }
}
