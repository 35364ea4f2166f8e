//! Decides commands: turns each into changes, on top of those of the earlier commands in its group.

use std::sync::Arc;

use super::group::{Group, Moved, Taken, TakenEnqueue, receipt};
use super::{PAGE, Store};
use crate::engine::arrivals::{
    self, Arrival, ArrivalCx, AttemptReport, CancelAnswer, EnqueueAnswer, FinishAnswer,
    PriorityAnswer, RunNowAnswer,
};
use crate::engine::lanes::{LaneStep, Standing};
use crate::model::{
    Change, Conflict, FunctionKind, Key, Name, NewKey, PendingTable, PoolId, Priority, Segment,
    Spec, StartKey, Turn, WorkFact, WorkId,
};
use crate::protocol::{
    Advance, AdvanceError, BatchReady, CancelAll, Canceled, Command, Enqueue, Event, job_level,
};
use crate::storage::StorageError;

/// The number of jobs that one `cancel_all` searches for at a time.
const SEARCH_PAGE: usize = 200_000;

impl Store {
    /// Decides one command on top of the changes of the earlier ones in the group. If the storage fails, the group
    /// holds everything that must be answered or retried.
    pub(super) fn decide(
        &mut self,
        group: &mut Group,
        command: Command,
    ) -> Result<(), StorageError> {
        match command {
            Command::Enqueue(enqueue) => self.enqueue(group, enqueue),
            Command::Cancel { work_ids, reply } => {
                let canceled = work_ids.iter().map(|id| self.cancel(group, *id)).collect();
                let again = move |reply| Command::Cancel { work_ids, reply };
                group.taken.push(receipt(reply, canceled, again));
            }
            Command::RunNow { work_id, reply } => {
                let answer = self.run_now(group, work_id);
                let again = move |reply| Command::RunNow { work_id, reply };
                group.taken.push(receipt(reply, answer, again));
            }
            Command::SetPriority { work_id, priority, reply } => {
                let answer = self.set_priority(group, work_id, priority);
                let again = move |reply| Command::SetPriority { work_id, priority, reply };
                group.taken.push(receipt(reply, answer, again));
            }
            Command::RegisterSchedules(schedules) => self.register_schedules(group, schedules)?,
            Command::TickSchedule(tick) => self.tick(group, tick)?,
            Command::ChangeSchedule { id, change, now, reply } => {
                let changed = self.change_schedule(group, id, change, now);
                let again = move |reply| Command::ChangeSchedule { id, change, now, reply };
                group.taken.push(receipt(reply, (), again));
                changed?;
            }
            Command::CancelAll(page) => self.cancel_page(group, page)?,
            Command::AttemptsFinished(reports) => {
                for report in &reports {
                    self.attempt_finished(group, report.clone());
                }
                group.taken.push(Taken::Reports(reports));
            }
            Command::RunInStore(runs) => {
                // Taken first, so that no run is lost if the storage fails during one of them.
                group.taken.push(Taken::InStore(runs.clone()));
                for run in &runs {
                    self.run_in_store(group, run)?;
                }
            }
            Command::Advance(advance) => self.advance(group, advance)?,
            Command::SweepLanes(sweep) => self.sweep_lanes(group, sweep)?,
            Command::Forget => group.forget = true,
        }
        Ok(())
    }

    fn enqueue(&mut self, group: &mut Group, request: Enqueue) {
        let Enqueue { works, fresh, conflict, retry_of, on_finish, counted, reply } = request;
        let mut answers = Vec::with_capacity(works.len());
        group.changes.reserve(works.len());
        let first = works.first().map(|(spec, _)| spec.work_id);
        let begin = group.changes.len();
        let mut known = Vec::new();
        for (place, (spec, due)) in works.into_iter().enumerate() {
            let is_known = !fresh && group.knows(spec.work_id);
            let is_unique = spec.unique().is_some();
            let copy = (is_known || is_unique).then(|| spec.clone());
            let arrival = self.decide_enqueue(group, spec, due, is_known, conflict, retry_of);
            let is_new = arrival.answer == EnqueueAnswer::Enqueued;
            answers.push(arrival.answer);
            if let Some(change) = arrival.change {
                if is_new
                    && !fresh
                    && let Change::InsertWork { spec, .. } = &change
                {
                    group.settled.revived.push(spec.work_id);
                }
                self.push_enqueued(group, change, due);
            }
            known.extend(copy.filter(|_| !is_new).map(|spec| (place, spec, due)));
        }
        let changes = begin..group.changes.len();
        let is_held = matches!(answers.first(), Some(EnqueueAnswer::Kept(_)));
        if let (Some(failed), Some(again)) = (retry_of.filter(|_| !is_held), first) {
            mark_retried(group, failed, again);
        }
        group.taken.push(Taken::Enqueue(TakenEnqueue {
            fresh,
            conflict,
            retry_of,
            on_finish,
            counted,
            answers,
            reply,
            changes,
            first,
            known,
        }));
    }

    /// Decides an enqueue. The group knows whether a job of this id exists, and the row of the unique key. The failed job
    /// that is retried does not stand in its own way.
    pub(super) fn decide_enqueue(
        &mut self,
        group: &mut Group,
        spec: Spec,
        due: Segment,
        is_known: bool,
        conflict: Conflict,
        retry_of: Option<WorkId>,
    ) -> Arrival<EnqueueAnswer> {
        let (pool, function) = (spec.pool, spec.function);
        let holder = match is_known {
            true => None,
            false => group.holder_of(&spec).filter(|(holder, _)| Some(*holder) != retry_of),
        };
        let rule = self.pools[pool.0 as usize].key_rule;
        let mut arrival = match holder {
            Some(holder) => {
                let due = match conflict {
                    Conflict::Debounce(wait) => Segment(0).after(self.shared.seams.now() + wait),
                    Conflict::Keep | Conflict::Replace => due,
                };
                arrivals::enqueue_held(&spec, due, conflict, holder, rule, group.now)
            }
            None => arrivals::enqueue(spec, due, is_known),
        };
        match &mut arrival.change {
            Some(Change::InsertWork { spec, key }) => *key = self.place_new(group, spec, *key),
            Some(Change::ReplaceWork { spec, from, to }) => {
                self.retag(spec.pool, *from, to);
                self.pass_lane(group, spec, *from, *to);
            }
            _ => {}
        }
        if arrival.answer != EnqueueAnswer::Enqueued {
            group.settled.tally.duplicate(pool, function);
        }
        arrival
    }

    /// Adds the change of an enqueue to the group.
    pub(super) fn push_enqueued(&mut self, group: &mut Group, change: Change, due: Segment) {
        match &change {
            Change::InsertWork { spec, .. } => {
                group.take_key(spec);
                if job_level(self.pools[spec.pool.0 as usize].log_level).is_some() {
                    group.settled.events.push(Event::Enqueued { spec: spec.clone(), due });
                }
                self.push(group, change);
            }
            Change::ReplaceWork { spec, .. } => {
                group.take_key(spec);
                let spec = spec.clone();
                self.push(group, change);
                if let Some(Change::ReplaceWork { to, .. }) = group.changes.last() {
                    let (pool, work_id, to) = (spec.pool, spec.work_id, *to);
                    group.settled.events.push(Event::Moved {
                        work_id,
                        due: to.segment,
                        attempts: 0,
                    });
                    if !group.replaced.contains(&work_id) {
                        group.replaced.push(work_id);
                    }
                    self.note_moved(group, pool, work_id, Moved { to, spec: Some(spec) });
                }
            }
            _ => self.push(group, change),
        }
    }

    /// Records what has become of a job that waits: a turn may have decided on it as it was.
    pub(super) fn note_moved(
        &self,
        group: &mut Group,
        pool: PoolId,
        work_id: WorkId,
        moved: Moved,
    ) {
        let moved = moved.after(self.moved(group, pool, work_id));
        if !(planted!(ReplacedUnderTurn) && moved.spec.is_some()) {
            group.moved.push((pool, work_id, moved));
        }
    }

    /// Returns what has become of a job since its pool's loop was shown it.
    pub(super) fn moved<'a>(
        &'a self,
        group: &'a Group,
        pool: PoolId,
        work_id: WorkId,
    ) -> Option<&'a Moved> {
        let in_group = group.moved.iter().rev().find(|(_, moved, _)| *moved == work_id);
        let in_group = in_group.map(|(.., moved)| moved);
        in_group.or_else(|| self.pools[pool.0 as usize].moved.get(&work_id))
    }

    pub(super) fn cancel(&mut self, group: &mut Group, work_id: WorkId) -> Canceled {
        let fact = group.fact(work_id);
        let is_finished = group.known_finished.contains(&work_id);
        let arrival = arrivals::cancel(fact, is_finished, group.now);
        let pool = fact.map(|work| work.spec.pool);
        if let Some(change) = arrival.change {
            // Also for a waiting job: a turn may have decided its start already.
            group.settled.canceling.push(work_id);
            self.push(group, change);
        }
        let pool = pool.filter(|_| arrival.answer != CancelAnswer::AlreadyFinished);
        Canceled { answer: arrival.answer, pool }
    }

    fn run_now(&mut self, group: &mut Group, work_id: WorkId) -> RunNowAnswer {
        let fact = group.fact(work_id);
        let is_finished = group.known_finished.contains(&work_id);
        let pool = fact.map(|work| &self.pools[work.spec.pool.0 as usize]);
        let read_until = pool.map_or(group.now, |pool| pool.read_until);
        let arrival = arrivals::run_now(fact, is_finished, group.now, read_until);
        let attempts = fact.map_or(0, |work| work.attempts);
        if let Some(change) = arrival.change {
            self.push(group, change);
            if let Some(Change::MovePendingStart { pool, to, .. }) = group.changes.last() {
                let (pool, to) = (*pool, *to);
                group.settled.events.push(Event::Moved { work_id, due: to.segment, attempts });
                // No turn was shown it, unless it was postponed since.
                self.note_moved(group, pool, work_id, Moved { to, spec: None });
            }
        }
        arrival.answer
    }

    fn set_priority(
        &mut self,
        group: &mut Group,
        work_id: WorkId,
        priority: Priority,
    ) -> PriorityAnswer {
        let is_finished = group.known_finished.contains(&work_id);
        let arrival = arrivals::set_priority(group.fact(work_id), is_finished, priority, group.now);
        if let Some(mut change) = arrival.change {
            if let Change::MovePendingStart { pool, from, to, .. } = &mut change {
                self.retag(*pool, *from, to);
            }
            self.push(group, change);
            // A turn may have decided on the row's old place.
            if let Some(Change::MovePendingStart { pool, to, .. }) = group.changes.last()
                && !planted!(MovedUnderTurn)
            {
                let (pool, to) = (*pool, *to);
                self.note_moved(group, pool, work_id, Moved { to, spec: None });
            }
        }
        arrival.answer
    }

    fn cancel_page(&mut self, group: &mut Group, mut page: CancelAll) -> Result<(), StorageError> {
        let read = self.find_works(&mut page).and_then(|ids| {
            let facts = self.storage.facts(&ids)?;
            Ok((ids, facts))
        });
        let (ids, facts) = match read {
            Ok(read) => read,
            Err(error) => {
                group.taken.push(Taken::Page { page, ids: Vec::new(), requested: 0 });
                return Err(error);
            }
        };
        let mut requested = 0;
        for (work_id, fact) in ids.iter().zip(facts) {
            // The changes of the group take precedence over the stored row.
            let fact = group.facts.entry(*work_id).or_insert(fact);
            // Skips `on_complete` jobs: the effects of a job that has ended must happen once.
            let stays = |work: &WorkFact| {
                work.spec.enqueued_at > page.until || work.spec.kind == FunctionKind::OnComplete
            };
            if fact.as_ref().is_some_and(stays) {
                continue;
            }
            if self.cancel(group, *work_id).answer == CancelAnswer::Requested {
                requested += 1;
            }
        }
        page.requested += requested;
        group.taken.push(Taken::Page { page, ids, requested });
        Ok(())
    }

    /// Returns the next jobs to cancel. Searches for many at a time, because a search may scan all jobs.
    fn find_works(&mut self, page: &mut CancelAll) -> Result<Vec<WorkId>, StorageError> {
        if page.found.is_empty()
            && let Some(after) = page.search.take()
        {
            page.found = self.storage.works(page.pool, after, SEARCH_PAGE)?;
            page.search = match page.found.len() < SEARCH_PAGE {
                true => None,
                false => Some(page.found.last().copied()),
            };
            page.found.reverse();
        }
        let rest = page.found.len().saturating_sub(PAGE);
        let mut next = page.found.split_off(rest);
        next.reverse();
        Ok(next)
    }

    pub(super) fn attempt_finished(&mut self, group: &mut Group, report: AttemptReport) {
        let (work_id, run) = (report.work_id, report.run);
        let fact = group.fact(work_id);
        let function = fact.map(|work| work.spec.function);
        let waits_from = Segment(0).after(self.shared.seams.now());
        let cx = ArrivalCx { now: group.now, waits_from, chance: self.rng.f64() };
        let arrival = arrivals::attempt_finished(fact, report, cx);
        debug_assert_eq!(arrival.change.is_some(), arrival.answer == FinishAnswer::Accepted);
        match arrival.change {
            Some(change) => {
                group.settled.tally.attempt(function, &change);
                self.push(group, change);
            }
            None => group.settled.events.push(Event::Stale { work_id, run }),
        }
    }

    fn advance(&mut self, group: &mut Group, advance: Advance) -> Result<(), StorageError> {
        let Advance { pool, turn, mut changes, mut lanes, demand, saturated } = advance;
        let fence = self.pools[pool.0 as usize].fence;
        let expected = match changes.is_empty() {
            true => fence,
            false => Turn { number: fence.number + 1, ..fence },
        };
        let is_next = match planted!(TurnUnfenced) {
            true => turn.number == expected.number,
            false => turn == expected,
        };
        if !is_next || self.pools[pool.0 as usize].is_void {
            let refused = BatchReady::answer(turn, Err(AdvanceError::Fenced));
            group.settled.batches.push((pool, refused));
            return Ok(());
        }
        let early = group.early.iter_mut().find(|early| early.pool == pool);
        // A question of a loop that the early batch has crossed is no turn.
        let is_early = early.is_some() && !changes.is_empty();
        if let Some(early) = early.filter(|_| is_early) {
            early.joined = true;
        }
        group.settled.events.reserve(changes.len());
        // The places of the rows that the changes of an early turn are about.
        let mut places = Vec::new();
        let (mut replaced, mut dropped) = (Vec::new(), Vec::new());
        // A turn that cannot be made as it was decided is not made again.
        let decided = lanes.clone();
        let mut observed = self.follow_promotions(group, &mut lanes);
        for (place, change) in changes.iter_mut().enumerate() {
            if !self.follow_move(group, pool, change, &mut lanes, &mut replaced) {
                dropped.push(place);
                places.extend(is_early.then_some(None));
                continue;
            }
            // Looked up first: what follows shows the change to later messages.
            places.extend(is_early.then(|| group.inserted_by(change)));
            observed = observed.and_then(|()| self.tag(group, change, &lanes));
            observed = observed.and_then(|()| self.observe(group, pool, change));
            if observed.is_err() {
                break;
            }
            self.stamp(group, change, usize::MAX);
            if let Change::MovePendingStart { work_id, to, .. } = change
                && to.is_in_lane()
            {
                let step = lanes.iter().find(|step| step.spec.work_id == *work_id);
                group.entered.extend(step.map(|step| (*to, step.spec.clone())));
            }
        }
        for place in dropped.into_iter().rev() {
            changes.remove(place);
            if is_early {
                places.remove(place);
            }
        }
        if is_early {
            let changed = changes.into_iter().zip(places);
            changes = changed.filter_map(|(change, place)| group.fold(place, change)).collect();
        }
        observed = observed.and_then(|()| self.step_lanes(group, &lanes));
        let begin = group.changes.len();
        match group.changes.is_empty() {
            true => group.changes = changes,
            false => group.changes.append(&mut changes),
        }
        let changes = begin..group.changes.len();
        // From here on the group answers this turn, whether the commit succeeds or fails.
        group.taken.push(Taken::Turn {
            pool,
            turn,
            demand,
            saturated,
            lanes: decided,
            changes,
            is_early,
            replaced,
        });
        observed
    }

    /// A job that was canceled in its lane may have left the lane since the turn was shown it.
    fn follow_promotions(
        &mut self,
        group: &mut Group,
        lanes: &mut [LaneStep],
    ) -> Result<(), StorageError> {
        let waits = |step: &&mut LaneStep| step.from == Standing::Waits;
        let ids: Vec<_> = lanes.iter_mut().filter(waits).map(|step| step.spec.work_id).collect();
        if ids.is_empty() {
            return Ok(());
        }
        self.learn_all(group, &ids)?;
        for step in lanes.iter_mut().filter(waits) {
            if let Some(work) = group.fact(step.spec.work_id) {
                step.from = Standing::of(work);
            }
        }
        Ok(())
    }

    /// Changes a turn's change of a row that was moved or replaced since the turn was shown it. Adds to `replaced` what
    /// the loop must know. Returns `false` if the change must not be made: the job was postponed.
    fn follow_move(
        &self,
        group: &Group,
        pool: PoolId,
        change: &mut Change,
        lanes: &mut Vec<LaneStep>,
        replaced: &mut Vec<(WorkId, Option<Spec>)>,
    ) -> bool {
        if self.pools[pool.0 as usize].moved.is_empty() && group.moved.is_empty() {
            return true;
        }
        match change {
            Change::StartWork { work_id, key: place, .. } => {
                let Some(Moved { to, spec }) = self.moved(group, pool, *work_id) else {
                    return true;
                };
                if to.segment > group.now {
                    // It was postponed.
                    replaced.push((*work_id, None));
                    lanes.retain(|step| step.spec.work_id != *work_id);
                    return false;
                }
                *place = *to;
                follow_lane(lanes, *work_id, *to, None);
                replaced.extend(spec.clone().map(|spec| (*work_id, Some(spec))));
                true
            }
            Change::MovePendingStart { work_id, from, to: target, .. } => {
                let Some(Moved { to, spec }) = self.moved(group, pool, *work_id) else {
                    return true;
                };
                let (is_later, leaves) = (to.segment > group.now, target.is_unregistered());
                if !leaves && is_later && to.is_by_time() {
                    // It was postponed. A turn that is not made as it was decided is not made again.
                    replaced.push((*work_id, None));
                    lanes.retain(|step| step.spec.work_id != *work_id);
                    return false;
                }
                *from = *to;
                // What was not registered was the function before. The job must move all the same: this turn may put the
                // cursor past its place.
                *target = match leaves && spec.is_some() {
                    true => *to,
                    false => StartKey {
                        priority: to.priority,
                        segment: target.segment.max(to.segment),
                        seq: to.seq,
                        ..*target
                    },
                };
                follow_lane(lanes, *work_id, *to, Some(*target));
                true
            }
            _ => true,
        }
    }

    /// Records what a loop's change implies besides the rows it writes.
    fn observe(
        &mut self,
        group: &mut Group,
        pool: PoolId,
        change: &mut Change,
    ) -> Result<(), StorageError> {
        match change {
            Change::RetryWork { work_id, key, attempts, .. } => {
                let function = self.function_of(pool, *work_id)?;
                let (work_id, due, attempts) = (*work_id, key.segment, *attempts);
                group.settled.events.push(Event::Retrying {
                    work_id,
                    pool,
                    function,
                    due,
                    attempts,
                });
            }
            Change::CompleteWork { finished, spec } => {
                group.known_finished.insert(finished.work_id);
                group.settled.tally.completed(finished);
                *group.left.entry(pool).or_default() += 1;
                let failed = match spec.on_complete() {
                    Some(call) => self.on_complete(group, spec, call, finished)?,
                    None => None,
                };
                let told = finished.details.as_ref().and_then(|details| details.follow_up);
                if failed != told
                    && let Some(details) = &mut Arc::make_mut(finished).details
                {
                    details.follow_up = failed;
                }
                group.settled.events.push(Event::Completed { finished: finished.clone() });
                if let Some((call, follow_up)) = spec.on_complete().zip(failed) {
                    let (work_id, name) = (spec.work_id, call.name);
                    group.settled.events.push(Event::OnCompleteFailed {
                        work_id,
                        pool,
                        name,
                        follow_up,
                    });
                }
            }
            Change::MovePendingStart { work_id, to, .. } if to.segment == Segment::UNREGISTERED => {
                group.settled.events.push(Event::Unregistered { work_id: *work_id, pool });
            }
            Change::StartWork { key, .. } => {
                if let Some(tag) = key.tag() {
                    let times = &mut self.pools[pool.0 as usize].virtual_times;
                    let time = times.entry(key.priority).or_default();
                    *time = tag.max(*time);
                }
            }
            Change::PutState { state, .. } => {
                let entry = &mut self.pools[pool.0 as usize];
                entry.fence = state.fence();
                entry.cursors = state.cursors;
            }
            Change::PutGlobals { config, .. } => {
                let entry = &mut self.pools[pool.0 as usize];
                group.configs.push((pool, entry.config.clone()));
                let rule = entry.key_rule;
                entry.set_config(config.clone());
                if entry.key_rule != rule && entry.has_lanes && !planted!(SweepForgotten) {
                    group.sweeps.push((pool, Some(rule)));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Returns the function of a job, if the pool's log level shows every job.
    fn function_of(&mut self, pool: PoolId, work_id: WorkId) -> Result<Option<Name>, StorageError> {
        if job_level(self.pools[pool.0 as usize].log_level).is_none() {
            return Ok(None);
        }
        let fact = self.storage.facts(&[work_id])?.pop().flatten();
        Ok(fact.map(|work| work.spec.function))
    }

    /// Adds a change to the group.
    pub(super) fn push(&mut self, group: &mut Group, mut change: Change) {
        let place = group.changes.len();
        self.stamp(group, &mut change, place);
        group.settled.tally.enqueued(&change);
        group.changes.push(change);
    }

    /// Assigns the key of a new row, and shows the change to later messages. `place` is its place in the group's changes,
    /// or out of range.
    fn stamp(&mut self, group: &mut Group, change: &mut Change, place: usize) {
        if let Some(NewKey { pool, table, segment, seq, is_stamped, wakes }) = change.new_key() {
            let entry = &mut self.pools[pool.0 as usize];
            if !is_stamped {
                if wakes && entry.wakeup.note(table, *segment) {
                    group.touched.push(pool);
                }
                return group.show(change);
            }
            let cursor = match table {
                PendingTable::Start => match planted!(ReadUntilUnclamped) {
                    true => entry.cursors.incoming,
                    false => entry.cursors.incoming.max(entry.read_until),
                },
                PendingTable::Completion => entry.cursors.completion,
                PendingTable::Cancelation => entry.cursors.cancelation,
            };
            self.last_seq += 1;
            // Never behind the cursor, nor where a turn in flight may move it: no turn would find the row.
            (*segment, *seq) = ((*segment).max(cursor), self.last_seq);
            let key = Key { segment: *segment, seq: *seq };
            if self.is_costly {
                group.note_place(key, place);
            }
            if wakes && entry.wakeup.note(table, key.segment) {
                group.touched.push(pool);
            }
        }
        group.show(change);
    }
}

/// Changes what a turn does to the lane of a job that was moved since the turn was shown it.
fn follow_lane(lanes: &mut [LaneStep], work_id: WorkId, from: StartKey, to: Option<StartKey>) {
    for step in lanes.iter_mut().filter(|step| step.spec.work_id == work_id) {
        step.from = Standing::at(from);
        step.to = to.map_or(step.to, Standing::at);
    }
}

/// Records in the row of a failed job what it was retried as, in the same commit.
fn mark_retried(group: &mut Group, failed: WorkId, again: WorkId) {
    if let Some(row) = group.failed.get_mut(&failed)
        && row.retried_as().is_none()
        && let Some(details) = &mut Arc::make_mut(row).details
    {
        details.retried_as = Some(again);
        group.changes.push(Change::MarkRetried { finished: row.clone() });
        group.settled.events.push(Event::Retried { finished: row.clone() });
    }
}
