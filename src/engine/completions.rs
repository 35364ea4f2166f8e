//! Finished attempts: S3 → gone, S5 → S10, S9 → canceled.

use super::arrivals::Verdict;
use super::draft::Draft;
use super::limit;
use crate::model::{
    Change, CompletionRow, FailedAttempt, Key, Outcome, Retry, RunResult, StartKey, WorkFact,
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
    let counted =
        !matches!(result, RunResult::Snoozed(_) | RunResult::PoolLimited(_) | RunResult::Returned);
    draft.state.report.completed += u64::from(counted && !planted!(CompletionUncounted));

    if let RunResult::PoolLimited(wait) = result
        && !planted!(LimitForgotten)
    {
        // The pool rests though the job is canceled.
        let until = match retry {
            Retry::At(until) => until,
            Retry::No => completion.map_or(draft.now, |key| key.segment).after(wait),
        };
        draft.state.tat = limit::rest(draft.rate, draft.state.tat, until);
    }

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
            draft.changes.push(Change::RetryWork {
                work_id: work.spec.work_id,
                pool: work.spec.pool,
                completion,
                key: StartKey::new(work.priority, segment),
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
    draft.complete(work.spec, outcome, attempts, started, history);
    true
}
