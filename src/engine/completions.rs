//! Finished attempts: S3 → gone, S5 → S10, S9 → canceled.

use super::arrivals::Verdict;
use super::draft::Draft;
use super::lanes::{LaneStep, Standing};
use super::limit;
use crate::model::{
    Change, CompletionRow, FailedAttempt, Key, Outcome, Retry, RunResult, Segment, Spec, StartKey,
    StartPlace, WorkFact,
};

/// Handles the rows in order. `remember` keeps the ids of completed jobs for the rest of the turn.
pub(super) fn handle(draft: &mut Draft, rows: Vec<CompletionRow>, remember: bool) {
    for row in rows {
        let work_id = row.work.spec.work_id;
        debug_assert_eq!(
            row.run, row.work.runs,
            "a completion is of the run that occupies the slot"
        );
        let attempts = row.work.attempts;
        let verdict = Verdict { result: row.result, retry: row.retry, attempts };
        let completed = settle(draft, row.work, verdict, Some(row.key));
        if completed && remember {
            draft.settled.insert(work_id);
        }
    }
}

/// Frees the slot and either completes the job or enqueues it again. Returns `true` if the job completed.
pub(super) fn settle(
    draft: &mut Draft,
    work: WorkFact,
    verdict: Verdict,
    completion: Option<Key>,
) -> bool {
    let Verdict { result, retry, attempts } = verdict;
    let running = draft.state.running.remove(&work.spec.work_id);
    let started = running.map(|running| running.started);
    let counted = !matches!(
        result,
        RunResult::Snoozed(_)
            | RunResult::PoolLimited(_)
            | RunResult::KeyLimited(_)
            | RunResult::Returned
    );
    draft.state.report.completed += u64::from(counted && !planted!(CompletionUncounted));

    // The pool or the key rests though the job is canceled.
    let rest_of = |wait| match retry {
        Retry::At(until) => until,
        Retry::No => completion.map_or(draft.now, |key| key.segment).after(wait),
    };
    let mut rest = Segment::default();
    match result {
        RunResult::PoolLimited(wait) if !planted!(LimitForgotten) => {
            draft.state.tat = limit::rest(draft.rate, draft.state.tat, rest_of(wait));
        }
        RunResult::KeyLimited(wait) if !planted!(KeyRestIgnored) => rest = rest_of(wait),
        _ => {}
    }
    let rests = rest > Segment::default();

    // A cancel wins over a retry, whether its row was handled already (S9) or not yet.
    let canceled = work.is_canceled() && !planted!(CancelLostAgainstRetry);
    let history = match &result {
        RunResult::Failed(failure) => {
            let ended = completion.map_or(draft.now, |key| key.segment);
            work.history.with(FailedAttempt {
                attempt: attempts,
                started: started.unwrap_or(ended).time(),
                ended: ended.time(),
                kind: failure.kind,
                message: failure.message.clone(),
            })
        }
        _ => work.history,
    };
    let outcome = match (retry, result) {
        (Retry::At(segment), result) if !canceled => {
            draft.state.report.retries +=
                u64::from(matches!(result, RunResult::Failed(_)) && !planted!(RetryUncounted));
            // The next job of an ordered key waits for this one.
            let holds = (draft.key_rule.is_ordered() && !planted!(RetryOvertaken)) || rests;
            let place = match holds && work.spec.key().is_some() {
                true => StartPlace::Held,
                false => StartPlace::Queue,
            };
            let key = StartKey::new(work.priority, segment).in_place(place);
            leave(draft, &work.spec, Standing::at(key), rest);
            draft.changes.push(Change::RetryWork {
                work_id: work.spec.work_id,
                pool: work.spec.pool,
                completion,
                key,
                attempts,
                history,
            });
            return false;
        }
        (Retry::At(_), _) => Outcome::Canceled,
        (Retry::No, RunResult::Success(output)) => Outcome::Success(output),
        (Retry::No, RunResult::Failed(failure)) => Outcome::Failed(failure),
        (Retry::No, _) => Outcome::Canceled,
    };
    leave(draft, &work.spec, Standing::Outside, rest);
    draft.complete(work.spec, outcome, attempts, started, history);
    true
}

/// Records that a job does not run any more.
fn leave(draft: &mut Draft, spec: &Spec, to: Standing, rest: Segment) {
    if spec.key().is_some() {
        let (spec, from) = (spec.clone(), Standing::Runs);
        draft.lanes.step(LaneStep { spec, from, to, tat: None, rest });
    }
}
