//! Requests that change no work: they see what the group before them has committed.

use std::sync::Arc;

use super::group::{News, Parked, Pool};
use super::request::{AdvanceError, PoolOpened, Request, Settled};
use super::{CANCEL_PAGE, Committer, RETENTION_STEP};
use crate::board::WorkStatus;
use crate::config::{LogLevel, PoolConfig};
use crate::explain::{Found, MOST_COUNTED};
use crate::model::{
    Batch, Change, Claimed, Counts, Cursors, Demand, Finished, Generation, Key, Name, PoolId,
    Segment, StateRow, Turn, WorkFact, WorkId,
};
use crate::storage::{Fsync, StorageError};

impl Committer {
    /// Answers a request that belongs to no group: it sees what the group has committed.
    pub(super) fn read(&mut self, settled: &mut Settled, request: Request) {
        if request.is_abandoned() {
            return;
        }
        match request {
            Request::Claim { pool, reply } => {
                let claimed = self.claim(pool);
                settled.answer(move || drop(reply.send(claimed)));
            }
            Request::OpenPool { name, config, reply } => {
                let opened = self.open_pool(name, config);
                settled.answer(move || drop(reply.send(opened)));
            }
            Request::Statuses { work_ids, reply } => {
                let statuses = self.noting(|it| it.statuses(&work_ids));
                settled.answer(move || drop(reply.send(statuses)));
            }
            Request::Explain { work_id, reply } => {
                let found = self.noting(|it| it.explain(work_id));
                settled.answer(move || drop(reply.send(found)));
            }
            Request::Works { filter, reply } => {
                let page = self.noting(|it| it.works(&filter));
                settled.answer(move || drop(reply.send(page)));
            }
            Request::Observe { work_id } => match self.noting(|it| it.statuses(&[work_id])) {
                Ok(statuses) => {
                    settled.observed.extend(statuses.into_iter().map(|status| (work_id, status)))
                }
                Err(error) => {
                    settled.failed = Some(error);
                    settled.again.push(Request::Observe { work_id });
                }
            },
            Request::Listen { work_id, listener } => match self
                .noting(|it| it.statuses(&[work_id]))
                .map(|mut all| all.pop())
            {
                Ok(Some(WorkStatus::Finished(row))) => {
                    settled.answer(move || listener.tell(Some(&row)))
                }
                Ok(Some(WorkStatus::Unknown) | None) => settled.answer(move || listener.tell(None)),
                Ok(Some(_)) => settled.listeners.push((work_id, listener)),
                Err(error) => {
                    settled.failed = Some(error);
                    settled.again.push(Request::Listen { work_id, listener });
                }
            },
            Request::Query { function, args, reply } => {
                let answer = self.query(function, &args);
                settled.answer(move || drop(reply.send(answer)));
            }
            Request::Forget => self.forget_expired(),
            Request::Counts { pool, reply } => {
                let counts = self.noting(|it| it.counts(pool));
                settled.answer(move || drop(reply.send(counts)));
            }
            _ => debug_assert!(false, "everything else is decided in its group"),
        }
    }

    /// Reads, and notes that it went well.
    fn noting<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let answer = read(self);
        self.has_read |= answer.is_ok();
        answer
    }

    /// Commits what belongs to no group.
    fn write(&mut self, changes: &mut Vec<Change>, fsync: Fsync) -> Result<(), StorageError> {
        self.storage.commit(changes, self.clock, fsync)?;
        self.wrote = true;
        Ok(())
    }

    pub(super) fn read_batch(
        &mut self,
        pool: PoolId,
        demand: Demand,
        saturated: bool,
    ) -> Result<Batch, AdvanceError> {
        let batch =
            self.storage.read_batch(pool, demand, self.clock).map_err(AdvanceError::Unread)?;
        let entry = &mut self.pools[pool.0 as usize];
        self.has_read = true;
        entry.read_until = self.clock;
        entry.news = News::default();
        entry.parked = match batch.is_empty() {
            true => Some(Parked { demand, saturated, next_due: batch.next_due }),
            false => None,
        };
        Ok(batch)
    }

    /// Begins a new reign: what an earlier one still sends is refused from now on.
    pub(super) fn claim(&mut self, pool: PoolId) -> Result<Claimed, StorageError> {
        let running = self.storage.running(pool)?;
        // After a failed commit the fence kept here may be ahead of the stored one.
        let stored = self.storage.state(pool)?;
        let generation = Generation(stored.generation.0 + 1);
        let state = StateRow { generation, epoch: self.shared.epoch, ..stored };
        let entry = &self.pools[pool.0 as usize];
        let (name, config) = (entry.name, entry.config.clone());
        let mut changes = vec![
            Change::PutGlobals { pool, name, config: config.clone() },
            Change::PutState { pool, state },
        ];
        let entry = &mut self.pools[pool.0 as usize];
        // From here on the earlier reign is over, whatever comes of the commit.
        entry.fence = state.fence();
        self.write(&mut changes, Fsync::Now)?;
        let entry = &mut self.pools[pool.0 as usize];
        entry.cursors = state.cursors;
        entry.parked = None;
        let mut internal = crate::model::InternalState::from(state);
        internal.running = running.iter().map(|row| (row.work.spec.work_id, row.running)).collect();
        Ok(Claimed { state: internal, running, config })
    }

    pub(super) fn open_pool(
        &mut self,
        name: Name,
        config: PoolConfig,
    ) -> Result<PoolOpened, StorageError> {
        let stored = self.pools.len();
        let number = match self.pools.iter().position(|pool| pool.name == name) {
            Some(number) => number,
            None => {
                self.pools.push(Pool {
                    name,
                    log_level: LogLevel::default(),
                    config: PoolConfig::default(),
                    fence: Turn::default(),
                    cursors: Cursors::default(),
                    read_until: Segment::default(),
                    pending: 0,
                    parked: None,
                    news: News::default(),
                });
                self.pools.len() - 1
            }
        };
        let pool = PoolId(number as u32);
        let before = self.pools[number].config.clone();
        let config = config.over(&before);
        self.pools[number].set_config(config.clone());
        let claimed = match self.claim(pool) {
            Ok(claimed) => claimed,
            Err(error) => {
                // Nothing was written: the number is still free, or the configuration as it was.
                self.pools[number].set_config(before);
                self.pools.truncate(stored);
                return Err(error);
            }
        };
        self.restore_registered(pool)?;
        let pending = self.pools[number].pending;
        Ok(PoolOpened { pool, config, pending, claimed })
    }

    /// Moves works out of the unregistered lane whose function is registered now.
    pub(super) fn restore_registered(&mut self, pool: PoolId) -> Result<(), StorageError> {
        let mut after = None;
        loop {
            let page = self.storage.unregistered(pool, after, CANCEL_PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = Some(*last);
            let mut changes = Vec::new();
            for (from, spec) in page {
                if self.shared.registry.can_run(&spec) {
                    self.last_seq += 1;
                    let to = Key { segment: self.clock, seq: self.last_seq };
                    let work_id = spec.work_id;
                    changes.push(Change::MovePendingStart { work_id, pool, from, to });
                }
            }
            if !changes.is_empty() {
                self.write(&mut changes, Fsync::Now)?;
            }
        }
    }

    pub(super) fn statuses(
        &mut self,
        work_ids: &[WorkId],
    ) -> Result<Vec<WorkStatus>, StorageError> {
        let facts = self.storage.facts(work_ids)?;
        let finished = self.storage.finished(work_ids)?;
        let status = |(fact, row): (Option<WorkFact>, Option<Arc<Finished>>)| match (fact, row) {
            (Some(work), _) => status_of(&work),
            (None, Some(row)) => WorkStatus::Finished(row),
            (None, None) => WorkStatus::Unknown,
        };
        Ok(facts.into_iter().zip(finished).map(status).collect())
    }

    /// What the tables say of a work, and how many works of its pool come before it.
    pub(super) fn explain(&mut self, work_id: WorkId) -> Result<Found, StorageError> {
        let Some(work) = self.storage.facts(&[work_id])?.pop().flatten() else {
            let row = self.storage.finished(&[work_id])?.pop().flatten();
            return Ok(row.map_or(Found::Nothing, Found::Finished));
        };
        let pool = work.spec.pool;
        let ahead = match work.pending_start {
            Some(key) if work.due().is_some() => {
                self.storage.pending_starts(pool, None, key, MOST_COUNTED + 1)?.len()
            }
            _ => 0,
        };
        let pool = self.pools[pool.0 as usize].name;
        Ok(Found::Work { work, pool, ahead })
    }

    pub(super) fn counts(&mut self, pool: PoolId) -> Result<(Counts, Vec<Name>), StorageError> {
        let cursors = self.pools[pool.0 as usize].cursors;
        let counts = self.storage.counts(pool, &cursors)?;
        let mut names = Vec::new();
        if counts.unregistered > 0 {
            let rows = self.storage.unregistered(pool, None, CANCEL_PAGE)?;
            names.extend(rows.into_iter().map(|(_, spec)| spec.function));
            names.sort_unstable();
            names.dedup();
        }
        Ok((counts, names))
    }

    pub(super) fn forget_expired(&mut self) {
        let retention = self.shared.retention;
        let before = match retention.max_age {
            Some(age) => Segment(self.clock.0.saturating_sub(age.as_millis() as u64)),
            None => Segment(0),
        };
        let before = if planted!(RetentionTooEager) { self.clock } else { before };
        let keep = retention.max_count.unwrap_or(u64::MAX);
        // What cannot be forgotten now is forgotten later.
        let limit = RETENTION_STEP.max(2 * std::mem::take(&mut self.completions));
        let Ok(expired) = self.storage.expired(before, keep, limit) else { return };
        let mut changes: Vec<_> =
            expired.into_iter().map(|work_id| Change::DeleteFinished { work_id }).collect();
        if !changes.is_empty() {
            let _ = self.write(&mut changes, Fsync::WithNext);
        }
    }
}

/// The status that the tables give a work; see the state table in ARCHITECTURE.md.
pub(super) fn status_of(work: &WorkFact) -> WorkStatus {
    let will_retry = matches!(work.pending_completion, Some((_, true)));
    match work.pending_start {
        Some(_) => WorkStatus::Pending { previous_attempts: work.attempts, due: work.due() },
        None if will_retry => WorkStatus::Pending { previous_attempts: work.attempts, due: None },
        None => WorkStatus::Running {
            previous_attempts: work.attempts,
            started: work.spec.enqueued_at,
            progress: None,
        },
    }
}
