//! Runs user code in the store, guarded: mutations, queries and `on_complete`.

use std::time::{Duration, Instant};

use super::Store;
use super::group::Group;
use crate::client::follow_up;
use crate::engine::arrivals::{AttemptReport, EnqueueAnswer};
use crate::functions::{Code, CompletionCall, Reader, Transaction, Writes, guarded, limit_result};
use crate::model::{
    Change, Conflict, Failure, FailureKind, Finished, Name, OnCompleteCall, Payload, RunResult,
    Segment, Spec, StartKey, UniqueRow, WorkFact, WorkId, decode, encode,
};
use crate::protocol::{Event, RunInStore};
use crate::storage::StorageError;

/// The duration above which a mutation is slow: it delays everything else.
const SLOW_MUTATION: Duration = Duration::from_millis(50);

impl Store {
    /// Runs a mutation or a query and records its completion in the same commit.
    pub(super) fn run_in_store(
        &mut self,
        group: &mut Group,
        attempt: &RunInStore,
    ) -> Result<(), StorageError> {
        let spec = &attempt.spec;
        let fact = group.fact(spec.work_id);
        let counts = fact.is_some_and(|work| work.awaits_report_of(attempt.run));
        if !counts && !planted!(MutationTwice) {
            group.settled.events.push(Event::Stale { work_id: spec.work_id, run: attempt.run });
            return Ok(());
        }
        let result = self.call(group, spec)?;
        let report = AttemptReport { work_id: spec.work_id, run: attempt.run, result };
        self.attempt_finished(group, report);
        Ok(())
    }

    /// Calls a mutation, a query, or the `on_complete` of a follow-up job. Its effects join the group if it succeeds.
    pub(super) fn call(
        &mut self,
        group: &mut Group,
        spec: &Spec,
    ) -> Result<RunResult, StorageError> {
        let (function, args) = (spec.function, spec.args());
        let program = self.program.clone();
        let max = self.pools[spec.pool.0 as usize].config.settings().max_payload_bytes;
        let Some(code) = program.code(function) else {
            let message = format!("function {function} is not registered");
            return Ok(RunResult::Failed(Failure::permanent(FailureKind::Error, message)));
        };
        match code {
            Code::Mutation(apply) => self.transact(group, function, max, |tx| apply(args, tx)),
            Code::OnComplete(apply) => {
                self.transact(group, function, max, |tx| match decode::<CompletionCall>(args) {
                    Ok(call) => apply(tx, &call),
                    Err(failure) => RunResult::Failed(failure),
                })
            }
            Code::Query(_) => self.read_only(&group.writes, function, args),
            Code::Action(_) | Code::Blocking(_) => {
                let message = format!("function {function} is an action and runs on a worker");
                Ok(RunResult::Failed(Failure::permanent(FailureKind::Error, message)))
            }
        }
    }

    /// Runs user code in a transaction: all of its effects join the group, or none.
    pub(super) fn transact(
        &mut self,
        group: &mut Group,
        function: Name,
        max_result_bytes: usize,
        code: impl FnOnce(&mut Transaction<'_>) -> RunResult,
    ) -> Result<RunResult, StorageError> {
        let program = self.program.clone();
        let begun = Instant::now();
        let nothing = Writes::default();
        let before = if planted!(LedgerOutsideOverlay) { &nothing } else { &group.writes };
        let reader = Reader::new(&mut *self.storage, before);
        let mut transaction = Transaction::new(reader, program.shared(), &group.left);
        let result = guarded(|| code(&mut transaction));
        if let Some(error) = transaction.failure() {
            return Err(error);
        }
        let (writes, enqueued) = transaction.into_effects();
        let result = limit_result(result, max_result_bytes);
        let took = begun.elapsed();
        if took > SLOW_MUTATION {
            group.settled.events.push(Event::SlowMutation { function, took });
        }
        if !matches!(result, RunResult::Success(_)) {
            if planted!(FailedEffectsKept) {
                group.writes.merge(writes);
            }
            return Ok(result);
        }
        group.writes.merge(writes);
        for (spec, due, conflict) in enqueued {
            self.enqueue_one(group, spec, due, conflict)?;
        }
        Ok(result)
    }

    /// Returns what the group and the tables say of a job.
    pub(super) fn fact_of(
        &mut self,
        group: &mut Group,
        work_id: WorkId,
    ) -> Result<Option<WorkFact>, StorageError> {
        self.learn_all(group, &[work_id])?;
        Ok(group.fact(work_id).cloned())
    }

    /// Reads the facts of these jobs, unless the group knows them.
    pub(super) fn learn_all(
        &mut self,
        group: &mut Group,
        work_ids: &[WorkId],
    ) -> Result<(), StorageError> {
        let is_new = |work_id: &&WorkId| !group.facts.contains_key(*work_id);
        let ids: Vec<_> = work_ids.iter().filter(is_new).copied().collect();
        if !ids.is_empty() {
            let facts = self.storage.facts(&ids)?;
            group.learn(ids.into_iter().zip(facts).collect());
        }
        Ok(())
    }

    /// Enqueues a job that no caller waits for, unless its id is known.
    pub(super) fn enqueue_one(
        &mut self,
        group: &mut Group,
        spec: Spec,
        due: Segment,
        conflict: Conflict,
    ) -> Result<(), StorageError> {
        // An id that the user chose may exist already.
        let (work_id, pool) = (spec.work_id, spec.pool);
        if self.fact_of(group, work_id)?.is_none()
            && !group.knows(work_id)
            && self.storage.finished(&[work_id])?.pop().flatten().is_some()
        {
            group.known_finished.insert(work_id);
        }
        self.learn_holder(group, &spec)?;
        self.learn_lane(group, &spec)?;
        let is_known = group.knows(work_id);
        let arrival = self.decide_enqueue(group, spec, due, is_known, conflict, None);
        if arrival.answer == EnqueueAnswer::Enqueued {
            *group.left.entry(pool).or_default() -= 1;
            group.settled.revived.push(work_id);
        }
        if let Some(change) = arrival.change {
            self.push_enqueued(group, change, due);
        }
        Ok(())
    }

    /// Reads the row of a job's unique key, and the facts of the job that holds the key.
    fn learn_holder(&mut self, group: &mut Group, spec: &Spec) -> Result<(), StorageError> {
        let Some(unique) = spec.unique() else { return Ok(()) };
        let place = (spec.pool, unique.key.clone());
        if group.unique.contains_key(&place) {
            return Ok(());
        }
        let row = self.storage.unique(std::slice::from_ref(&place))?.pop().flatten();
        group.unique.insert(place, row);
        if let Some(UniqueRow { work_id, .. }) = row
            && let Some(work) = self.fact_of(group, work_id)?
        {
            self.learn_lane(group, &work.spec)?;
        }
        Ok(())
    }

    /// Runs the `on_complete` of a job in the commit that completes it. If it fails, enqueues it as a separate job and
    /// returns that job's id.
    pub(super) fn on_complete(
        &mut self,
        group: &mut Group,
        spec: &Spec,
        call: &OnCompleteCall,
        finished: &Finished,
    ) -> Result<Option<WorkId>, StorageError> {
        let completion = CompletionCall {
            work_id: spec.work_id,
            context: call.context.clone(),
            outcome: finished.outcome.clone(),
            attempts: finished.attempts,
        };
        let program = self.program.clone();
        let code = program.code(call.name);
        if planted!(OnCompleteLost) {
            return Ok(None);
        }
        if let Some(Code::OnComplete(apply)) = code {
            if planted!(OnCompleteTwice) {
                self.transact(group, call.name, usize::MAX, |tx| apply(tx, &completion))?;
            }
            let result =
                self.transact(group, call.name, usize::MAX, |tx| apply(tx, &completion))?;
            if matches!(result, RunResult::Success(_)) {
                return Ok(None);
            }
        }
        if planted!(FollowUpLost) {
            return Ok(None);
        }
        let args = encode(&completion).map_err(|error| {
            StorageError::Unavailable(format!("failed to encode a completion: {error}"))
        })?;
        let follow_up = follow_up(&self.shared, spec, call.name, &args, group.now);
        *group.left.entry(follow_up.pool).or_default() -= 1;
        let work_id = follow_up.work_id;
        let key = StartKey::new(follow_up.priority, group.now);
        self.push(group, Change::InsertWork { spec: follow_up, key });
        Ok(Some(work_id))
    }

    pub(super) fn query(
        &mut self,
        function: Name,
        args: &[u8],
    ) -> Result<Result<Payload, Failure>, StorageError> {
        let writes = Writes::default();
        Ok(match self.read_only(&writes, function, args)? {
            RunResult::Success(output) => Ok(output),
            RunResult::Failed(failure) => Err(failure),
            _ => Err(Failure::permanent(FailureKind::Error, "the query gave no result")),
        })
    }

    pub(super) fn read_only(
        &mut self,
        writes: &Writes,
        function: Name,
        args: &[u8],
    ) -> Result<RunResult, StorageError> {
        let program = self.program.clone();
        let Some(Code::Query(read)) = program.code(function) else {
            let message = format!("function {function} is not a query");
            return Ok(RunResult::Failed(Failure::permanent(FailureKind::Error, message)));
        };
        let mut reader = Reader::new(&mut *self.storage, writes);
        let result = guarded(|| read(args, &mut reader));
        match reader.failure() {
            Some(error) => Err(error),
            None => Ok(result),
        }
    }
}
