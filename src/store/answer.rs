//! Questions, and requests that claim a pool: answered after the group is committed, so that they see its changes.

use std::cmp::Reverse;
use std::sync::Arc;

use super::settled::Settled;
use super::{PAGE, Store};
use crate::engine::explain::{Found, FoundLane, MOST_COUNTED};
use crate::model::{
    Change, Counts, Finished, LaneRow, Name, PoolId, RunningRow, Segment, StartKey, WorkFact,
    WorkId, WorkKey, WorkStatus,
};
use crate::protocol::{PoolRequest, Question, Request};
use crate::storage::{Fsync, StorageError};

/// The maximum number of keys that are looked at for the busiest ones.
const MOST_LANES: usize = 10_000;

impl Store {
    /// Answers a request that is not part of a group.
    pub(super) fn answer(&mut self, settled: &mut Settled, request: Request) {
        match request {
            // Nobody waits for a loop any more.
            Request::Pass(_) => {}
            Request::Question(question) if question.is_abandoned() => {}
            Request::Question(question) => self.answer_question(settled, question),
            Request::Pool(PoolRequest::Claim { pool, reply }) => {
                let claimed = self.claim(pool);
                if claimed.is_ok() {
                    self.look_at_lanes(settled, pool);
                }
                settled.say(move || drop(reply.send(claimed)));
            }
            Request::Pool(PoolRequest::Open { name, config, reply }) => {
                let opened = self.open_pool(name, config);
                if let Ok(opened) = &opened {
                    self.look_at_lanes(settled, opened.pool);
                }
                settled.say(move || drop(reply.send(opened)));
            }
            // Commands are decided in their group.
            Request::Command(command) => settled.again.push(command.into()),
        }
    }

    /// Looks at the lanes of a pool that was claimed: the process before may have ended before it was through with them.
    fn look_at_lanes(&mut self, settled: &mut Settled, pool: PoolId) {
        if self.pools[pool.0 as usize].has_lanes {
            let sweep = self.begin_sweep(pool, None);
            settled.again.push(sweep.into());
        }
    }

    fn answer_question(&mut self, settled: &mut Settled, question: Question) {
        match question {
            Question::Statuses { work_ids, reply } => {
                let statuses = self.noting(|it| it.statuses(&work_ids));
                settled.say(move || drop(reply.send(statuses)));
            }
            Question::Explain { work_id, reply } => {
                let found = self.noting(|it| it.explain(work_id));
                settled.say(move || drop(reply.send(found)));
            }
            Question::Works { filter, reply } => {
                let page = self.noting(|it| it.works(&filter));
                settled.say(move || drop(reply.send(page)));
            }
            Question::Observe { work_id } => match self.noting(|it| it.statuses(&[work_id])) {
                Ok(statuses) => {
                    settled.observed.extend(statuses.into_iter().map(|status| (work_id, status)));
                }
                Err(error) => {
                    settled.failed = Some(error);
                    settled.again.push(Question::Observe { work_id }.into());
                }
            },
            Question::Listen { work_id, listener } => {
                let status = self.noting(|it| it.statuses(&[work_id])).map(|mut all| all.pop());
                match status {
                    Ok(Some(WorkStatus::Finished(row))) => {
                        settled.say(move || listener.tell(Some(row.row())));
                    }
                    Ok(Some(WorkStatus::Unknown) | None) => {
                        settled.say(move || listener.tell(None))
                    }
                    Ok(Some(_)) => settled.listeners.push((work_id, listener)),
                    Err(error) => {
                        settled.failed = Some(error);
                        settled.again.push(Question::Listen { work_id, listener }.into());
                    }
                }
            }
            Question::Query { function, args, reply } => {
                let answer = self.query(function, &args);
                settled.say(move || drop(reply.send(answer)));
            }
            Question::Schedules { reply } => {
                let schedules = self.noting(Self::schedules);
                settled.say(move || drop(reply.send(schedules)));
            }
            Question::Keys { pool, limit, reply } => {
                let keys = self.noting(|it| it.busiest_keys(pool, limit));
                settled.say(move || drop(reply.send(keys)));
            }
            Question::Counts { pool, reply } => {
                let counts = self.noting(|it| it.counts(pool));
                settled.say(move || drop(reply.send(counts)));
            }
        }
    }

    /// Reads, and records that the read succeeded.
    fn noting<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let answer = read(self);
        self.has_read |= answer.is_ok();
        answer
    }

    /// Commits changes outside a group.
    pub(super) fn write(
        &mut self,
        changes: &mut Vec<Change>,
        fsync: Fsync,
    ) -> Result<(), StorageError> {
        self.storage.commit(changes, self.clock, fsync)?;
        self.wrote = true;
        Ok(())
    }

    fn statuses(&mut self, work_ids: &[WorkId]) -> Result<Vec<WorkStatus>, StorageError> {
        let facts = self.storage.facts(work_ids)?;
        let finished = self.storage.finished(work_ids)?;
        let status = |(fact, row): (Option<WorkFact>, Option<Arc<Finished>>)| match (fact, row) {
            (Some(work), _) => status_of(&work),
            (None, Some(row)) => WorkStatus::Finished(row.into()),
            (None, None) => WorkStatus::Unknown,
        };
        Ok(facts.into_iter().zip(finished).map(status).collect())
    }

    /// Returns what the tables say of a job, and the number of jobs of its pool before it.
    fn explain(&mut self, work_id: WorkId) -> Result<Found, StorageError> {
        let Some(work) = self.storage.facts(&[work_id])?.pop().flatten() else {
            let row = self.storage.finished(&[work_id])?.pop().flatten();
            return Ok(row.map_or(Found::Nothing, Found::Finished));
        };
        let pool = work.spec.pool;
        let lane = match work.spec.work_key().filter(|_| work.pending_start.is_some()) {
            Some(key) => self.find_lane(pool, &key)?,
            None => None,
        };
        let ahead = match (work.pending_start, &lane) {
            (Some(key), Some(lane)) if key.is_in_lane() => self.count_in_lane(&work, key, lane)?,
            (Some(key), _) if work.due().is_some() => self.count_before(pool, key)?,
            _ => 0,
        };
        let pool = self.pools[pool.0 as usize].name;
        Ok(Found::Work { work: Box::new(work), pool, ahead, lane })
    }

    /// Returns the lane of a key, with a job of it that runs.
    fn find_lane(
        &mut self,
        pool: PoolId,
        key: &WorkKey,
    ) -> Result<Option<FoundLane>, StorageError> {
        let rows = self.storage.lanes(pool, std::slice::from_ref(key))?;
        let Some(row) = rows.into_iter().next().flatten() else { return Ok(None) };
        let running = match row.running {
            0 => Vec::new(),
            _ => self.storage.running(pool)?,
        };
        let of_key = |row: &RunningRow| row.work.spec.key() == Some(key.as_bytes());
        let running = running.into_iter().find(of_key).map(|row| row.work.spec.work_id);
        Ok(Some(FoundLane { row, running }))
    }

    /// Returns the number of jobs of its key before one that is in its lane. Counts up to one more than [`MOST_COUNTED`].
    fn count_in_lane(
        &mut self,
        work: &WorkFact,
        at: StartKey,
        lane: &FoundLane,
    ) -> Result<usize, StorageError> {
        let Some(key) = work.spec.work_key() else { return Ok(0) };
        let jobs = self.storage.lane_jobs(work.spec.pool, &key, MOST_COUNTED + 1)?;
        let before = jobs.iter().take_while(|(key, _)| key.seq < at.seq).count();
        Ok((before + lane.row.holders as usize).min(MOST_COUNTED + 1))
    }

    /// Returns the keys of a pool with the most waiting jobs.
    fn busiest_keys(
        &mut self,
        pool: PoolId,
        limit: usize,
    ) -> Result<Vec<(WorkKey, LaneRow)>, StorageError> {
        let (mut found, mut after) = (Vec::new(), None);
        for _ in 0..MOST_LANES / PAGE {
            let rows = self.storage.lane_rows(pool, after.as_ref(), PAGE)?;
            let is_last = rows.len() < PAGE;
            after = rows.last().map(|(place, _)| place.clone());
            found.extend(rows.into_iter().map(|(place, row)| (place.key, row)));
            let order = |row: &(WorkKey, LaneRow)| Reverse((row.1.waiting, row.1.holders));
            found.sort_by(|a, b| order(a).cmp(&order(b)).then_with(|| a.0.cmp(&b.0)));
            found.truncate(limit);
            if is_last {
                break;
            }
        }
        Ok(found)
    }

    /// Returns the number of jobs that come before one: those of better priorities that are due by then, and those before
    /// it in its own. Counts up to one more than [`MOST_COUNTED`].
    fn count_before(&mut self, pool: PoolId, key: StartKey) -> Result<usize, StorageError> {
        let due = key.segment.max(self.clock);
        let (mut count, mut after) = (0, None);
        while count <= MOST_COUNTED {
            let rows = self.storage.pending_starts(pool, after, key, MOST_COUNTED + 1 - count)?;
            let Some((last, _)) = rows.last() else { break };
            after = Some(*last);
            let is_due =
                |(row, _): &&(StartKey, WorkId)| row.priority == key.priority || row.segment <= due;
            count += rows.iter().filter(is_due).count();
            // What is due later than that, in this priority, is not looked at.
            if last.priority < key.priority && last.tag().is_none() && last.segment > due {
                let end = Segment(Segment::UNREGISTERED.0 - 1);
                after = Some(StartKey { seq: u64::MAX, ..StartKey::new(last.priority, end) });
            }
        }
        Ok(count.min(MOST_COUNTED + 1))
    }

    fn counts(&mut self, pool: PoolId) -> Result<(Counts, Vec<Name>), StorageError> {
        let cursors = self.pools[pool.0 as usize].cursors;
        let counts = self.storage.counts(pool, &cursors)?;
        let mut names = Vec::new();
        if counts.unregistered > 0 {
            let rows = self.storage.unregistered(pool, None, PAGE)?;
            names.extend(rows.into_iter().map(|(_, spec)| spec.function));
            names.sort_unstable();
            names.dedup();
        }
        Ok((counts, names))
    }
}

/// Returns the status of a job according to the tables; see the state table in ARCHITECTURE.md.
pub(super) fn status_of(work: &WorkFact) -> WorkStatus {
    let will_retry = matches!(work.pending_completion, Some((_, true)));
    match work.pending_start {
        Some(_) => {
            let due = work.due().map(Segment::time);
            WorkStatus::Pending { previous_attempts: work.attempts, due }
        }
        None if will_retry => WorkStatus::Pending { previous_attempts: work.attempts, due: None },
        None => WorkStatus::Running {
            previous_attempts: work.attempts,
            started: work.running.map_or(work.spec.enqueued_at, |running| running.started).time(),
            progress: None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{FunctionKind, Generation, Running, Segment, Spec, SpecHead, WorkFact};

    /// Regression: in a list, a job was shown as running since its enqueue until its start was on the board.
    #[test]
    fn a_job_runs_since_it_was_started_and_not_since_it_was_enqueued() {
        let spec = Spec::new(
            WorkId::from_uuid(uuid::Uuid::nil()),
            SpecHead {
                pool: PoolId(0),
                kind: FunctionKind::Action,
                function: Name::from_static("f"),
                enqueued_at: Segment(1),
                priority: crate::model::Priority::NORMAL,
                options: None,
            },
            b"",
        );
        let running = Running { run: 1, started: Segment(7), generation: Generation(1) };
        let work = WorkFact { running: Some(running), ..WorkFact::new(spec) };
        let WorkStatus::Running { started, .. } = status_of(&work) else { panic!("it runs") };
        assert_eq!(started, Segment(7).time());
    }
}
