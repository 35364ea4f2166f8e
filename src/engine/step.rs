//! One turn of a pool's loop.

use hashbrown::HashSet;

use super::draft::{Draft, Launch};
use super::lanes::{LaneStep, LaneTurn};
use super::{Lost, cancelations, completions, limit, recovery, starts};
use crate::model::{
    Batch, Change, Cursors, Demand, InternalState, KeyRule, Rate, Report, Segment, Settings, Spec,
    StateRow, WorkId,
};

/// The interval of reports, in milliseconds.
pub const REPORT_INTERVAL_MS: u64 = 60_000;

/// The maximum number of rows of each pending table that one turn handles, so that a burst in one pool does not delay
/// the others by more than a millisecond or two.
pub const MAX_BATCH: usize = 1_000;

/// The input of a turn besides the state and the batch.
pub struct TurnCx<'a> {
    /// The number of attempts that may run at once; 0 while the pool is paused or shuts down.
    pub max_parallelism: usize,
    /// The rate at which attempts may start.
    pub rate: Option<Rate>,
    /// The rules that hold for each key.
    pub key_rule: KeyRule,
    /// Returns `true` if this process has the function of a job.
    pub can_run: &'a dyn Fn(&Spec) -> bool,
    /// Attempts in `running` that have no worker.
    pub lost: Vec<Lost>,
}

/// The decisions of a turn.
#[derive(Debug, PartialEq)]
pub struct Step {
    /// The state after the turn. Valid once the changes are committed.
    pub state: InternalState,
    /// The changes to commit, all or none. Empty if there was nothing to decide.
    pub changes: Vec<Change>,
    /// What the changes do to the lanes of keys.
    pub(crate) lanes: Vec<LaneStep>,
    /// The attempts to launch after the commit.
    pub launches: Vec<Launch>,
    /// The running attempts to tell, after the commit, that they are canceled.
    pub signals: Vec<WorkId>,
    /// The counters, if a report is due.
    pub report: Option<Report>,
}

/// Takes one turn. Consumes the state and returns the next one; has no side effects.
#[must_use]
pub fn step(
    state: InternalState,
    batch: Batch,
    pool: crate::model::PoolId,
    cx: TurnCx<'_>,
) -> Step {
    let rows = batch.completions.len() + batch.cancelations.len() + batch.starts.len();
    let mut draft = Draft {
        state,
        changes: Vec::with_capacity(rows + cx.lost.len() + 1),
        launches: Vec::new(),
        signals: Vec::new(),
        settled: HashSet::new(),
        marked: HashSet::new(),
        now: batch.read_at,
        rate: cx.rate,
        key_rule: cx.key_rule,
        lanes: LaneTurn::default(),
    };
    let cursors = drained(&draft.state.cursors, &batch);
    if !batch.cancelations.is_empty() {
        // The job that the rate did not admit may be one of them.
        draft.state.limited_until = Segment::default();
    }

    // The cancelations of this batch must skip the jobs that its completions have ended.
    let remember = !batch.cancelations.is_empty();
    completions::handle(&mut draft, batch.completions, remember);
    cancelations::handle(&mut draft, batch.cancelations);
    recovery::handle(&mut draft, cx.lost);
    let left = starts::handle(&mut draft, batch.starts, cx.max_parallelism, cx.can_run);
    let report = report_if_due(&mut draft);

    if !draft.changes.is_empty() || report.is_some() {
        draft.state.turn += 1;
        draft.state.cursors = Cursors {
            // The cursor stays before a row that got no slot.
            incoming: left.map_or(cursors.incoming, |row| row.min(cursors.incoming)),
            ..cursors
        };
        draft.changes.push(Change::PutState { pool, state: StateRow::from(&draft.state) });
    }
    Step {
        state: draft.state,
        changes: draft.changes,
        lanes: draft.lanes.steps,
        launches: draft.launches,
        signals: draft.signals,
        report,
    }
}

/// Returns the demand: the part of the tables that the loop reads after a turn. Records in the state until when the rate
/// admits no start.
#[must_use]
pub fn demand(
    state: &mut InternalState,
    settings: &Settings,
    max_parallelism: usize,
    now: Segment,
) -> Demand {
    let max_parallelism = max_parallelism + usize::from(planted!(CapacityOffByOne));
    let free_slots = max_parallelism as i64 - state.running.len() as i64;
    if state.limited_until <= now {
        state.limited_until = Segment::default();
    }
    if let Err(until) = limit::admit(settings.rate, state.tat, 1, now) {
        state.limited_until = state.limited_until.max(until);
    }
    let max_starts = match state.limited_until > now {
        true => 0,
        false => limit::room(settings.rate, state.tat, now),
    };
    let (cursors, aging) = (state.cursors, settings.aging);
    // From turn to turn the other way round, so that with one slot none waits for ever for the other.
    let ready_first = state.turn.is_multiple_of(2);
    Demand { cursors, free_slots, max_starts, aging, ready_first, batch_size: MAX_BATCH }
}

/// Returns the cursors after every row of the batch has been handled. They take only values that came from the store,
/// and never go back.
fn drained(before: &Cursors, batch: &Batch) -> Cursors {
    let next_due = batch.next_due.filter(|_| !planted!(CursorSkipsUnstarted));
    let next_start = next_due.map_or(batch.read_at, |due| due.min(batch.read_at));
    let last_completion = batch.completions.last().map(|row| row.key.segment);
    let last_cancelation = batch.cancelations.last().map(|row| row.key.segment);
    Cursors {
        incoming: before.incoming.max(next_start),
        completion: last_completion.map_or(before.completion, |last| last.max(before.completion)),
        cancelation: last_cancelation
            .map_or(before.cancelation, |last| last.max(before.cancelation)),
    }
}

/// Returns the report if it is due: in the first turn after each minute. An idle pool takes no turns and reports
/// nothing.
fn report_if_due(draft: &mut Draft) -> Option<Report> {
    let (last, now) = (&mut draft.state.last_report, draft.now);
    if *last == Segment::default() {
        *last = now;
    }
    if now.0.saturating_sub(last.0) < REPORT_INTERVAL_MS {
        return None;
    }
    *last = now;
    Some(draft.state.report)
}
