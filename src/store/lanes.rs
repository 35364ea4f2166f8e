//! Lanes of keys: what a group does to them, and which jobs get the places that have become free.
//!
//! Enqueues and turns change the counts of a lane while the group is decided. Right before the commit every lane that has
//! changed is settled: while it has room, its first jobs leave it, and its row is written once. So a job in a lane never
//! waits for a place that is free, whatever else happens in the group.

use std::collections::BTreeMap;

use hashbrown::{HashMap, HashSet};

use super::group::{Group, Moved, Taken};
use super::lane_rows::{GroupLane, Lanes};
use super::{PAGE, Store};
use crate::engine::lanes::{LaneCx, LaneStep, STEP, Standing, UNTAGGED, VirtualTime, first_tag};
use crate::model::{
    Change, Key, KeyRule, LanePlace, LaneRow, PoolId, Priority, Segment, Spec, StartKey,
    StartPlace, WorkId, WorkKey,
};
use crate::protocol::{Command, SweepLanes, SweepPage};
use crate::storage::StorageError;

impl Store {
    /// Returns the input of decisions on the lanes of a pool.
    fn lane_cx(&self, group: &Group, pool: PoolId) -> LaneCx {
        let entry = &self.pools[pool.0 as usize];
        LaneCx { rule: entry.key_rule, now: group.now }
    }

    /// Returns the virtual time of a priority. After a claim, the first of those that are ready has its turn.
    fn virtual_time(&mut self, pool: PoolId, priority: Priority) -> VirtualTime {
        if let Some(time) = self.pools[pool.0 as usize].virtual_times.get(&priority) {
            return VirtualTime { priority, time: *time };
        }
        let at = |tag, seq| {
            let key = Key { segment: Segment(0), seq };
            StartKey::at(priority, key).in_place(StartPlace::Ready { tag })
        };
        let (from, until) = (at(0, 0), at(u64::MAX, u64::MAX));
        // Without an answer the order is another one, and nothing is lost.
        let Ok(rows) = self.storage.pending_starts(pool, Some(from), until, 1) else {
            return VirtualTime { priority, time: 0 };
        };
        let tag = rows.first().and_then(|(key, _)| key.tag()).unwrap_or(0);
        let time = tag.saturating_sub(STEP);
        self.pools[pool.0 as usize].virtual_times.insert(priority, time);
        VirtualTime { priority, time }
    }

    /// Gives a tag of its new priority to a job that is ready and gets another one.
    pub(super) fn retag(&mut self, pool: PoolId, from: StartKey, to: &mut StartKey) {
        if to.tag().is_some() && to.priority != from.priority {
            let at = self.virtual_time(pool, to.priority);
            to.place = StartPlace::Ready { tag: first_tag(at.time) };
        }
    }

    /// Gives a tag to a job that a turn has made ready.
    pub(super) fn tag(
        &mut self,
        group: &mut Group,
        change: &mut Change,
        lanes: &[LaneStep],
    ) -> Result<(), StorageError> {
        let Change::MovePendingStart { work_id, to, .. } = change else { return Ok(()) };
        if to.tag() != Some(UNTAGGED) {
            return Ok(());
        }
        let step = lanes.iter().find(|step| step.spec.work_id == *work_id);
        let Some(LaneStep { spec, .. }) = step else { return Ok(()) };
        self.learn_lane(group, spec)?;
        let (pool, cx) = (spec.pool, self.lane_cx(group, spec.pool));
        let at = self.virtual_time(pool, to.priority);
        if let Some(row) = spec.key().and_then(|key| group.lanes.row(pool, key)) {
            to.place = StartPlace::Ready { tag: cx.next_tag(row, spec, at) };
        }
        Ok(())
    }

    /// Reads the rows of these lanes.
    pub(super) fn learn_lanes(
        &mut self,
        group: &mut Group,
        pool: PoolId,
        keys: &[WorkKey],
    ) -> Result<(), StorageError> {
        if keys.is_empty() {
            return Ok(());
        }
        self.has_read = true;
        let rows = self.storage.lanes(pool, keys)?;
        for (key, row) in keys.iter().zip(rows) {
            group.lanes.know(pool, key.clone(), row);
        }
        Ok(())
    }

    /// Reads the row of the lane of a job, if it has a key.
    pub(super) fn learn_lane(
        &mut self,
        group: &mut Group,
        spec: &Spec,
    ) -> Result<(), StorageError> {
        match spec.key() {
            Some(key) if !group.lanes.knows(spec.pool, key) => {
                self.learn_lanes(group, spec.pool, &[WorkKey::new(key)])
            }
            _ => Ok(()),
        }
    }

    /// Returns the keys of the jobs that these commands enqueue, by pool.
    pub(super) fn keys_of(commands: &[Command]) -> BTreeMap<PoolId, Vec<WorkKey>> {
        let (mut seen, mut found) = (HashSet::new(), BTreeMap::<_, Vec<_>>::new());
        let enqueues = commands.iter().filter_map(|command| match command {
            Command::Enqueue(enqueue) => Some(enqueue),
            _ => None,
        });
        for (spec, _) in enqueues.flat_map(|enqueue| &enqueue.works) {
            if let Some(key) = spec.key().filter(|key| seen.insert((spec.pool, *key))) {
                found.entry(spec.pool).or_default().push(WorkKey::new(key));
            }
        }
        found
    }

    /// Chooses the place of a job that is enqueued. The group knows its lane.
    pub(super) fn place_new(&mut self, group: &mut Group, spec: &Spec, key: StartKey) -> StartKey {
        let Some(of) = spec.key() else { return key };
        let cx = self.lane_cx(group, spec.pool);
        let at = self.virtual_time(spec.pool, key.priority);
        match group.lanes.row(spec.pool, of) {
            Some(row) if planted!(KeyNotShown) => cx.enter(&mut row.clone(), spec, key, at),
            Some(row) => cx.enter(row, spec, key, at),
            None => {
                debug_assert!(false, "the lane was read");
                key
            }
        }
    }

    /// Records that a job which waits has another place. The group knows its lane.
    pub(super) fn pass_lane(&self, group: &mut Group, spec: &Spec, from: StartKey, to: StartKey) {
        if let Some(key) = spec.key()
            && let Some(row) = group.lanes.row(spec.pool, key)
        {
            let (from, to) = (Standing::at(from), Standing::at(to));
            let (tat, rest) = (None, Default::default());
            let step = LaneStep { spec: spec.clone(), from, to, tat, rest };
            *row = step.edit().applied_to(*row);
        }
    }

    /// Records what a turn does to lanes.
    pub(super) fn step_lanes(
        &mut self,
        group: &mut Group,
        steps: &[LaneStep],
    ) -> Result<(), StorageError> {
        for step in steps {
            self.learn_lane(group, &step.spec)?;
            if let Some(row) = step.spec.key().and_then(|key| group.lanes.row(step.spec.pool, key))
            {
                *row = step.edit().applied_to(*row);
            }
        }
        Ok(())
    }

    /// Begins a sweep of all lanes of a pool. An earlier one ends.
    pub(super) fn begin_sweep(&mut self, pool: PoolId, before: Option<KeyRule>) -> Command {
        let entry = &mut self.pools[pool.0 as usize];
        entry.sweeps = entry.sweeps.wrapping_add(1);
        entry.rule_before = before.or(entry.rule_before);
        let (number, page, before) = (entry.sweeps, SweepPage::Lanes(None), entry.rule_before);
        Command::SweepLanes(SweepLanes { pool, number, page, before })
    }

    /// Looks at a page of lanes, or of jobs that may hold a place of their key by the rule before.
    pub(super) fn sweep_lanes(
        &mut self,
        group: &mut Group,
        sweep: SweepLanes,
    ) -> Result<(), StorageError> {
        let is_current = sweep.number == self.pools[sweep.pool.0 as usize].sweeps;
        let looked_at = match &sweep.page {
            SweepPage::Keys(keys) => self.learn_lanes(group, sweep.pool, keys).map(|()| None),
            _ if !is_current => return Ok(()),
            SweepPage::Lanes(after) => self.sweep_rows(group, &sweep, after.as_ref()),
            SweepPage::Held(after) => self.sweep_held(group, &sweep, *after),
        };
        let (next, failed) = match looked_at {
            Ok(next) => (next, None),
            Err(error) => (None, Some(error)),
        };
        group.taken.push(Taken::Sweep { sweep, next });
        failed.map_or(Ok(()), Err)
    }

    fn sweep_rows(
        &mut self,
        group: &mut Group,
        sweep: &SweepLanes,
        after: Option<&LanePlace>,
    ) -> Result<Option<SweepPage>, StorageError> {
        let rows = self.storage.lane_rows(sweep.pool, after, PAGE)?;
        let last = rows.last().filter(|_| rows.len() == PAGE).map(|(place, _)| place.clone());
        let cx = self.lane_cx(group, sweep.pool);
        for (place, row) in rows {
            let tat = cx.tat_anew(sweep.before, &row);
            if row.waiting > 0 || row.is_empty() || row.tat != tat {
                group.lanes.know(sweep.pool, place.key.clone(), Some(row));
                if let Some(row) = group.lanes.row(sweep.pool, place.key.as_bytes()) {
                    row.tat = tat;
                }
            }
        }
        Ok(match last {
            Some(last) => Some(SweepPage::Lanes(Some(last))),
            None => sweep.before.map(|_| SweepPage::Held(None)),
        })
    }

    /// Lets jobs that are not due give up the place of their key that they hold by the rule before: others of the key may
    /// go on. A job that a rate holds back keeps the time that it was given.
    fn sweep_held(
        &mut self,
        group: &mut Group,
        sweep: &SweepLanes,
        after: Option<StartKey>,
    ) -> Result<Option<SweepPage>, StorageError> {
        let pool = sweep.pool;
        if self.pools[pool.0 as usize].key_rule.is_ordered() {
            return Ok(None);
        }
        let rows = self.storage.pending_starts(pool, after, StartKey::END, PAGE)?;
        let next = rows.last().filter(|_| rows.len() == PAGE).map(|(key, _)| *key);
        let may_hold = |key: StartKey| key.is_by_time() || key.is_unregistered();
        let ids = rows.into_iter().filter(|(key, _)| may_hold(*key)).map(|(_, work_id)| work_id);
        let ids: Vec<_> = ids.collect();
        self.learn_all(group, &ids)?;
        // Turns have read the rows that are due.
        let read_until = self.pools[pool.0 as usize].read_until.max(group.now);
        let is_held = |at: &StartKey| at.place == StartPlace::Held && at.segment > read_until;
        for work_id in ids {
            let work = group.fact(work_id).filter(|work| !work.is_canceled());
            let held =
                work.and_then(|work| Some((work.pending_start.filter(is_held)?, &work.spec)));
            let Some((from, spec)) = held.map(|(from, spec)| (from, spec.clone())) else {
                continue;
            };
            self.learn_lane(group, &spec)?;
            let cx = self.lane_cx(group, pool);
            let row = spec.key().and_then(|key| group.lanes.row(pool, key));
            if row.is_none_or(|row| cx.admit(row, spec.cost()) == Err(from.segment)) {
                // The rule now says the same.
                continue;
            }
            let to = from.in_place(StartPlace::Queue);
            self.push(group, Change::MovePendingStart { work_id, pool, from, to });
            self.pass_lane(group, &spec, from, to);
        }
        Ok(next.map(|key| SweepPage::Held(Some(key))))
    }

    /// Lets jobs leave the lanes that have room, and writes the rows of the lanes that the group has changed.
    pub(super) fn settle_lanes(&mut self, group: &mut Group) -> Result<(), StorageError> {
        if group.lanes.is_empty() {
            return Ok(());
        }
        let Lanes { rows, .. } = std::mem::take(&mut group.lanes);
        let mut waiting = None;
        let mut most = PAGE;
        for GroupLane { pool, key, stored, mut row } in rows {
            let cx = self.lane_cx(group, pool);
            if row.waiting > 0 && cx.has_room(&row) && !planted!(PromotionForgotten) {
                let waiting = waiting.get_or_insert_with(|| group.changed_lanes());
                let promoted = self.promote(group, cx, (pool, &key), &mut row, waiting, most)?;
                most -= promoted;
                // One that finds nobody to let out is not tried again.
                if row.waiting > 0 && cx.has_room(&row) && (promoted > 0 || most == 0) {
                    group.unsettled.entry(pool).or_default().push(key.clone());
                }
            }
            let is_over = cx.is_over(&row);
            let written = (!is_over).then_some(row);
            if written != stored {
                let entry = &mut self.pools[pool.0 as usize];
                entry.has_lanes |= !is_over;
                entry.has_debts |= !is_over && row.is_empty();
                group.changes.push(Change::PutLane { pool, key, row: written });
            }
        }
        Ok(())
    }

    /// Lets the first jobs of a lane leave it while it has room, at most so many. Returns their number.
    fn promote(
        &mut self,
        group: &mut Group,
        cx: LaneCx,
        (pool, key): (PoolId, &WorkKey),
        row: &mut LaneRow,
        changed: &ChangedLanes,
        most: usize,
    ) -> Result<usize, StorageError> {
        let (mut promoted, mut seen) = (0, 0);
        let mut page = FIRST_PAGE;
        // Those that the group has put into the lane may be behind those that were there, or before.
        let new = changed.new.get(&(pool, key.clone()));
        let mut new = new.into_iter().flatten().peekable();
        'pages: loop {
            let jobs = self.storage.lane_jobs(pool, key, page)?;
            let is_last = jobs.len() < page;
            for (at, spec) in jobs.iter().skip(seen) {
                while let Some((at, spec)) = new.next_if(|(other, _)| other.seq < at.seq) {
                    if promoted == most || !cx.has_room(row) {
                        break 'pages;
                    }
                    promoted += usize::from(self.let_out(group, cx, row, (*at, spec), changed));
                }
                if promoted == most || !cx.has_room(row) {
                    break 'pages;
                }
                promoted += usize::from(self.let_out(group, cx, row, (*at, spec), changed));
            }
            if is_last {
                break;
            }
            (seen, page) = (jobs.len(), 8 * page);
        }
        for (at, spec) in new {
            if promoted == most || !cx.has_room(row) {
                break;
            }
            promoted += usize::from(self.let_out(group, cx, row, (*at, spec), changed));
        }
        Ok(promoted)
    }

    /// Lets a job leave its lane, if it is still there.
    fn let_out(
        &mut self,
        group: &mut Group,
        cx: LaneCx,
        row: &mut LaneRow,
        (at, spec): (StartKey, &Spec),
        changed: &ChangedLanes,
    ) -> bool {
        let (work_id, pool) = (spec.work_id, spec.pool);
        if row.waiting == 0 || changed.gone.contains(&work_id) {
            return false;
        }
        let from = match changed.moved.get(&work_id) {
            Some(to) if to.is_in_lane() => *to,
            Some(_) => return false,
            None => at,
        };
        let at = self.virtual_time(pool, from.priority);
        let to = cx.seat(row, spec, from, at);
        row.waiting -= 1;
        self.push(group, Change::MovePendingStart { work_id, pool, from, to });
        // A turn that finds a note of its move is led to where it is now.
        if self.moved(group, pool, work_id).is_some() {
            self.note_moved(group, pool, work_id, Moved { to, spec: None });
        }
        true
    }
}

/// The number of jobs of a lane that are read first. Mostly one leaves it.
const FIRST_PAGE: usize = 4;

/// What the changes of a group do to jobs in lanes.
struct ChangedLanes {
    /// Jobs that have finished.
    gone: HashSet<WorkId>,
    /// Where jobs were moved.
    moved: HashMap<WorkId, StartKey>,
    /// Jobs that the group has put into lanes, in order.
    new: HashMap<(PoolId, WorkKey), Vec<(StartKey, Spec)>>,
}

impl Group {
    fn changed_lanes(&self) -> ChangedLanes {
        let (mut gone, mut moved) = (HashSet::new(), HashMap::new());
        let mut new = HashMap::<_, Vec<_>>::new();
        let enqueued = self.changes.iter().filter_map(|change| match change {
            Change::InsertWork { spec, key } if key.is_in_lane() => Some((*key, spec.clone())),
            _ => None,
        });
        for (at, spec) in self.entered.iter().cloned().chain(enqueued) {
            let Some(key) = spec.work_key() else { continue };
            new.entry((spec.pool, key)).or_default().push((at, spec));
        }
        for jobs in new.values_mut() {
            jobs.sort_by_key(|(at, _)| at.seq);
        }
        for change in &self.changes {
            match change {
                Change::CompleteWork { finished, .. } => drop(gone.insert(finished.work_id)),
                Change::MovePendingStart { work_id, to, .. } => drop(moved.insert(*work_id, *to)),
                Change::ReplaceWork { spec, to, .. } => drop(moved.insert(spec.work_id, *to)),
                _ => {}
            }
        }
        ChangedLanes { gone, moved, new }
    }
}
