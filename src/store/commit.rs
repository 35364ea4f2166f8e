//! The life of a group: read the facts of its jobs, commit once, then report the results or undo.

use std::collections::BTreeMap;

use hashbrown::{HashMap, HashSet};

use super::group::{Group, Taken, TakenEnqueue};
use super::in_doubt::{InDoubt, Witness};
use super::lane_rows::Lanes;
use super::settled::{Answer, Ending};
use super::{Settled, Store};
use crate::engine::arrivals::EnqueueAnswer;
use crate::functions::Writes;
use crate::model::{Change, PoolId, Segment, Spec};
use crate::protocol::{
    Advance, AdvanceError, BatchReady, CancelAll, Command, Enqueue, Event, Listener, Question,
    Refused, Request, SweepLanes, SweepPage,
};
use crate::storage::{Fsync, StorageError};

/// The maximum number of jobs of a group whose memory is reused.
const MOST_KEPT: usize = 4_096;

impl Store {
    /// Reads the facts of all jobs that the group is about, in one call.
    pub(super) fn begin(&mut self, commands: &[Command]) -> Result<Group, StorageError> {
        let (mut ids, mut ask_finished) = (Vec::new(), Vec::new());
        for command in commands {
            command.about(&mut ids, &mut ask_finished);
        }
        ids.extend(&ask_finished);
        let keys: Vec<_> = commands.iter().filter_map(Command::unique).collect();
        let (mut unique, mut holders) = (HashMap::new(), Vec::new());
        if !keys.is_empty() {
            let rows = self.storage.unique(&keys)?;
            holders.extend(rows.iter().flatten().map(|row| row.work_id));
            ids.extend(&holders);
            unique.extend(keys.into_iter().zip(rows));
        }
        let mut facts = std::mem::take(&mut self.facts);
        if !ids.is_empty() {
            facts.extend(ids.iter().copied().zip(self.storage.facts(&ids)?));
            self.has_read = true;
        }
        // A job that exists has no outcome.
        ask_finished.retain(|work_id| facts.get(work_id).is_none_or(Option::is_none));
        let mut known_finished = HashSet::new();
        if !ask_finished.is_empty() {
            let rows = self.storage.finished(&ask_finished)?;
            known_finished.extend(rows.into_iter().flatten().map(|row| row.work_id));
        }
        let retried: Vec<_> = commands.iter().filter_map(Command::retry_of).collect();
        let mut failed = HashMap::new();
        if !retried.is_empty() {
            let rows = self.storage.finished(&retried)?;
            failed.extend(rows.into_iter().flatten().map(|row| (row.work_id, row)));
        }
        self.refresh()?;
        self.clock = self.clock.max(self.shared.seams.segment());
        let mut group = Group {
            now: self.clock,
            facts,
            known_finished,
            unique,
            lanes: Lanes::default(),
            entered: Vec::new(),
            sweeps: Vec::new(),
            unsettled: BTreeMap::new(),
            failed,
            changes: std::mem::take(&mut self.changes),
            writes: Writes::default(),
            settled: Settled::default(),
            touched: Vec::new(),
            moved: Vec::new(),
            replaced: Vec::new(),
            early: Vec::new(),
            last_seq: self.last_seq,
            places: Vec::new(),
            taken: Vec::new(),
            configs: Vec::new(),
            left: BTreeMap::new(),
            forget: false,
        };
        let keys = Self::keys_of(commands);
        for (pool, keys) in keys {
            self.learn_lanes(&mut group, pool, &keys)?;
        }
        // A job that holds a unique key may be replaced.
        for work_id in holders {
            if let Some(work) = group.fact(work_id).filter(|work| work.spec.key().is_some()) {
                let spec = work.spec.clone();
                self.learn_lane(&mut group, &spec)?;
            }
        }
        Ok(group)
    }

    /// Commits, and settles the results. Returns the group if another writer was faster: nothing was written, and the
    /// group must be decided again.
    pub(super) fn commit(&mut self, mut group: Group) -> Result<Settled, Box<Group>> {
        if let Err(error) = self.settle_lanes(&mut group) {
            return Ok(self.refused(group, error));
        }
        group.changes.extend(std::mem::take(&mut group.writes).into_changes());
        // A caller must not be told anything that a crash could undo, such as that a job has finished.
        let tells_of_unsynced = self.unsynced && group.answers_callers();
        if group.changes.is_empty() && !tells_of_unsynced {
            return Ok(self.committed(group));
        }
        let witness = Witness::of(&group.changes);
        let fsync = if group.only_takes_reports() { Fsync::WithNext } else { Fsync::Now };
        Ok(match self.storage.commit(&mut group.changes, group.now, fsync) {
            Ok(()) => {
                self.unsynced = fsync == Fsync::WithNext;
                self.wrote = true;
                self.committed(group)
            }
            Err(StorageError::Conflict) if !planted!(ConflictAnswered) => {
                return Err(Box::new(group));
            }
            // These errors mean that nothing was written, or that nothing more can be found out.
            Err(error @ (StorageError::Conflict | StorageError::Poisoned(_))) => {
                self.refused(group, error)
            }
            Err(error) => self.resolve(InDoubt { group, witness, error }),
        })
    }

    /// Undoes a group that was not committed because another writer was faster. Returns its commands, in order, to be
    /// decided again from the current tables, and the answers for turns that cannot be: those that the group has
    /// refused, and those that were decided on its own rows.
    pub(super) fn take_back(
        &mut self,
        mut group: Box<Group>,
    ) -> (Vec<Command>, Vec<(PoolId, BatchReady)>) {
        self.undo(&mut group);
        let mut batches = std::mem::take(&mut group.settled.batches);
        self.void_early(std::mem::take(&mut group.early), &mut batches, &StorageError::Conflict);
        let turns = group.taken.iter().filter_map(|taken| match taken {
            Taken::Turn { pool, .. } => Some(*pool),
            _ => None,
        });
        let keys = group.changes.iter_mut().filter_map(Change::new_key).map(|key| key.pool);
        for pool in turns.chain(keys) {
            if !self.stale.contains(&pool) {
                self.stale.push(pool);
            }
        }
        let group = *group;
        let mut changes: Vec<_> = group.changes.into_iter().map(Some).collect();
        let mut part = |range: std::ops::Range<usize>| {
            changes[range].iter_mut().filter_map(Option::take).collect::<Vec<_>>()
        };
        let again = |taken| {
            Some(match taken {
                Taken::Asked(receipt) => return receipt(Ending::Again),
                Taken::Enqueue(enqueue) => {
                    let inserted = part(enqueue.changes.clone());
                    Command::Enqueue(enqueue.again(inserted))
                }
                Taken::Page { mut page, ids, requested } => {
                    page.found.extend(ids.into_iter().rev());
                    page.requested -= requested;
                    Command::CancelAll(page)
                }
                Taken::Sweep { sweep, .. } => Command::SweepLanes(sweep),
                Taken::Reports(reports) => Command::AttemptsFinished(reports),
                Taken::InStore(runs) => Command::RunInStore(runs),
                // Starts that were not made or not as decided are in its changes no more.
                Taken::Turn { pool, turn, is_early, replaced, .. }
                    if is_early || !replaced.is_empty() =>
                {
                    self.fail_turn(&mut batches, pool, turn, &StorageError::Conflict);
                    return None;
                }
                Taken::Turn { pool, turn, demand, saturated, changes, lanes, .. } => {
                    let changes = part(changes);
                    Command::Advance(Advance { pool, turn, changes, lanes, demand, saturated })
                }
            })
        };
        let mut commands: Vec<_> = group.taken.into_iter().filter_map(again).collect();
        commands.extend(group.forget.then_some(Command::Forget));
        (commands, batches)
    }

    /// Undoes what this store has recorded of a group that was not committed.
    fn undo(&mut self, group: &mut Group) {
        for pool in std::mem::take(&mut group.touched) {
            // Rows that were not written are no news; a retry records them again.
            self.pools[pool.0 as usize].wakeup.forget_news();
        }
        for (pool, config) in std::mem::take(&mut group.configs).into_iter().rev() {
            self.pools[pool.0 as usize].set_config(config);
        }
    }

    /// Fails a group that was certainly not committed.
    pub(super) fn refused(&mut self, group: Group, error: StorageError) -> Settled {
        let mut settled =
            Settled { failed: Some(error.clone()), write_failed: true, ..Settled::default() };
        self.fail(&mut settled, group, error);
        settled
    }

    /// Reads the batches of the loops that asked, including everything the group wrote, and gathers what to send.
    pub(super) fn committed(&mut self, mut group: Group) -> Settled {
        for (pool, work_id, moved) in std::mem::take(&mut group.moved) {
            self.pools[pool.0 as usize].moved.insert(work_id, moved);
        }
        for taken in std::mem::take(&mut group.taken) {
            match taken {
                Taken::Asked(receipt) => {
                    group.settled.answers.push(Answer::Receipt(receipt, Ending::Committed));
                }
                Taken::Enqueue(enqueue) => enqueue.committed(&mut group.settled),
                Taken::Page { page, .. } => match page.is_last() {
                    true => {
                        let CancelAll { requested, reply, .. } = page;
                        group.settled.say(move || drop(reply.send(Ok(requested))));
                    }
                    false => group.settled.again.push(Command::CancelAll(page).into()),
                },
                Taken::Turn { pool, turn, demand, saturated, replaced, changes, .. } => {
                    if !changes.is_empty() {
                        self.pools[pool.0 as usize].moved.clear();
                    }
                    let batch = self.read_batch(pool, demand, saturated);
                    let ready = BatchReady { replaced, ..BatchReady::answer(turn, batch) };
                    group.settled.batches.push((pool, ready));
                }
                Taken::Sweep { sweep, next: Some(next) } => {
                    let next = SweepLanes { page: next, ..sweep };
                    group.settled.again.push(Command::SweepLanes(next).into());
                }
                Taken::Sweep { sweep, next: None } => {
                    if let SweepPage::Held(_) = sweep.page {
                        self.pools[sweep.pool.0 as usize].rule_before = None;
                    }
                }
                Taken::Reports(_) | Taken::InStore(_) => {}
            }
        }
        for (pool, keys) in std::mem::take(&mut group.unsettled) {
            let page = SweepPage::Keys(keys);
            let sweep = SweepLanes { pool, number: 0, page, before: None };
            group.settled.again.push(Command::SweepLanes(sweep).into());
        }
        for (pool, before) in std::mem::take(&mut group.sweeps) {
            let sweep = self.begin_sweep(pool, before);
            group.settled.again.push(sweep.into());
        }
        group.facts.clear();
        if group.facts.capacity() <= MOST_KEPT {
            self.facts = group.facts;
        }
        group.changes.clear();
        if group.changes.capacity() <= MOST_KEPT {
            self.changes = group.changes;
        }
        group.settled.left = std::mem::take(&mut group.left);
        for pool in group.touched {
            let entry = &mut self.pools[pool.0 as usize];
            if let Some((source, parked)) = entry.wakeup.wake() {
                let turn = entry.fence;
                let batch = self.read_batch(pool, parked.demand, parked.saturated);
                let kick = Some(source);
                let ready = BatchReady { kick, ..BatchReady::answer(turn, batch) };
                group.settled.batches.push((pool, ready));
            }
        }
        let completed = |event: &&Event| matches!(event, Event::Completed { .. });
        self.completions += group.settled.events.iter().filter(completed).count();
        self.forget_if_due(group.forget);
        group.settled
    }

    /// Fails a group that was not committed: callers get the error, loops claim again, reports are kept.
    pub(super) fn fail(&mut self, settled: &mut Settled, mut group: Group, error: StorageError) {
        self.undo(&mut group);
        settled.batches.append(&mut group.settled.batches);
        self.void_early(std::mem::take(&mut group.early), &mut settled.batches, &error);
        for taken in group.taken {
            match taken {
                Taken::Asked(receipt) => {
                    let ending = Ending::Failed(error.clone());
                    settled.answers.push(Answer::Receipt(receipt, ending));
                }
                Taken::Enqueue(TakenEnqueue { counted, reply, .. }) => {
                    drop(counted);
                    if let Some(reply) = reply {
                        let error = error.clone();
                        settled.say(move || drop(reply.send(Err(error))));
                    }
                }
                // The earlier pages were canceled.
                Taken::Page { page: CancelAll { reply, .. }, .. } => {
                    let error = error.clone();
                    settled.say(move || drop(reply.send(Err(error))));
                }
                Taken::Sweep { sweep, .. } => {
                    settled.again.push(Command::SweepLanes(sweep).into());
                }
                Taken::Reports(_) if planted!(ReportsDropped) => {}
                Taken::Reports(reports) => {
                    settled.again.push(Command::AttemptsFinished(reports).into());
                }
                Taken::InStore(runs) => settled.again.push(Command::RunInStore(runs).into()),
                Taken::Turn { pool, turn, .. } => {
                    self.fail_turn(&mut settled.batches, pool, turn, &error);
                }
            }
        }
    }

    /// Tells a loop that its turn was not committed. The loop claims its pool again; it gets no kick until then,
    /// because a kick would pass for the receipt of this turn.
    pub(super) fn fail_turn(
        &mut self,
        batches: &mut Vec<(PoolId, BatchReady)>,
        pool: PoolId,
        turn: crate::model::Turn,
        error: &StorageError,
    ) {
        self.pools[pool.0 as usize].wakeup.stay_quiet();
        let batch = Err(AdvanceError::Storage(error.clone()));
        batches.push((pool, BatchReady::answer(turn, batch)));
    }

    /// Answers requests that could not be decided. Those that must not be lost are retried.
    pub(super) fn refuse(
        &mut self,
        settled: &mut Settled,
        requests: Vec<Request>,
        error: StorageError,
    ) {
        settled.failed = Some(error.clone());
        for request in requests {
            match request {
                Request::Command(command) => match command.refuse(&error) {
                    Refused::Answer(answer) => settled.answers.push(Answer::Say(answer)),
                    Refused::Keep(command) => settled.again.push(command.into()),
                    Refused::Turn(Advance { pool, turn, .. }) => {
                        self.fail_turn(&mut settled.batches, pool, turn, &error);
                    }
                    Refused::Drop => {}
                },
                Request::Question(kept @ (Question::Listen { .. } | Question::Observe { .. })) => {
                    settled.again.push(kept.into());
                }
                Request::Pass(_) => {}
                Request::Question(question) => {
                    let error = error.clone();
                    settled.say(move || drop(question.refuse(error)));
                }
                Request::Pool(request) => {
                    let error = error.clone();
                    settled.say(move || request.refuse(error));
                }
            }
        }
    }
}

impl TakenEnqueue {
    /// Tells the caller that the jobs are enqueued, and registers its listener.
    fn committed(self, settled: &mut Settled) {
        let TakenEnqueue { on_finish, counted, answers, reply, first, .. } = self;
        if let (Some(work_id), Some(on_finish)) = (first, on_finish) {
            let listener = Listener::Notify(on_finish);
            match answers[0] {
                EnqueueAnswer::Enqueued => settled.listeners.push((work_id, listener)),
                // The job existed, and may already have its outcome.
                EnqueueAnswer::Duplicate => {
                    settled.again.push(Question::Listen { work_id, listener }.into());
                }
                EnqueueAnswer::Kept(work_id) | EnqueueAnswer::Replaced(work_id) => {
                    settled.again.push(Question::Listen { work_id, listener }.into());
                }
            }
        }
        let is_new = |answer: &&EnqueueAnswer| **answer == EnqueueAnswer::Enqueued;
        counted.enqueued(answers.iter().filter(is_new).count() as u64);
        if let Some(reply) = reply {
            settled.say(move || drop(reply.send(Ok(answers))));
        }
    }

    /// Rebuilds the original command from the changes that it produced.
    fn again(self, inserted: Vec<Change>) -> Enqueue {
        let TakenEnqueue { fresh, conflict, retry_of, on_finish, counted, reply, known, .. } = self;
        let job = |change| match change {
            Change::InsertWork { spec, key } | Change::InsertRunning { spec, key, .. } => {
                Some((spec, key.segment))
            }
            _ => None,
        };
        let mut works: Vec<(Spec, Segment)> = inserted.into_iter().filter_map(job).collect();
        for (place, spec, due) in known {
            works.insert(place.min(works.len()), (spec, due));
        }
        Enqueue { works, fresh, conflict, retry_of, on_finish, counted, reply }
    }
}

impl CancelAll {
    /// Returns `true` if no jobs are left to cancel.
    pub(super) fn is_last(&self) -> bool {
        self.found.is_empty() && self.search.is_none()
    }
}
