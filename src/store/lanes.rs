//! Lanes of keys: what a group does to them, and which jobs get the places that have become free.
//!
//! Enqueues and turns change the counts of a lane while the group is decided. Right before the commit every lane that has
//! changed is settled: while it has room, its first jobs leave it, and its row is written once. So a job in a lane never
//! waits for a place that is free, whatever else happens in the group.

use std::collections::BTreeMap;

use hashbrown::HashSet;

use super::group::{Group, Taken};
use super::lane_rows::{GroupLane, Lanes};
use super::{PAGE, Store};
use crate::engine::lanes::{LaneCx, LaneStep, STEP, Standing, UNTAGGED, VirtualTime, first_tag};
use crate::model::{
    Change, Key, LanePlace, LaneRow, PoolId, Priority, Segment, Spec, StartKey, StartPlace, WorkId,
    WorkKey,
};
use crate::protocol::Command;
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
        let is_plain = spec.key().is_none();
        if is_plain && (!self.pools[spec.pool.0 as usize].has_lanes || key.segment > group.now) {
            return key;
        }
        let cx = self.lane_cx(group, spec.pool);
        let at = self.virtual_time(spec.pool, key.priority);
        match spec.key() {
            Some(of) => match group.lanes.row(spec.pool, of) {
                Some(row) if planted!(KeyNotShown) => cx.enter(&mut row.clone(), spec, key, at),
                Some(row) => cx.enter(row, spec, key, at),
                None => {
                    debug_assert!(false, "the lane was read");
                    key
                }
            },
            // Where keys have turns, a job without one has a turn of its own.
            None => key.in_place(StartPlace::Ready { tag: first_tag(at.time) }),
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

    /// Looks at a page of lanes.
    pub(super) fn sweep_lanes(
        &mut self,
        group: &mut Group,
        pool: PoolId,
        after: Option<LanePlace>,
    ) -> Result<(), StorageError> {
        let rows = self.storage.lane_rows(pool, after.as_ref(), PAGE);
        let last =
            rows.as_ref().ok().filter(|rows| rows.len() == PAGE).and_then(|rows| rows.last());
        let next = last.map(|(place, _)| place.clone());
        group.taken.push(Taken::Sweep { pool, after, next });
        for (place, row) in rows? {
            if row.waiting > 0 || row.is_empty() {
                group.lanes.know(pool, place.key, Some(row));
            }
        }
        Ok(())
    }

    /// Lets jobs leave the lanes that have room, and writes the rows of the lanes that the group has changed.
    pub(super) fn settle_lanes(&mut self, group: &mut Group) -> Result<(), StorageError> {
        if group.lanes.is_empty() {
            return Ok(());
        }
        let Lanes { rows, .. } = std::mem::take(&mut group.lanes);
        let mut left = None;
        let mut most = PAGE;
        for GroupLane { pool, key, stored, mut row } in rows {
            let cx = self.lane_cx(group, pool);
            if row.waiting > 0 && cx.has_room(&row) && !planted!(PromotionForgotten) {
                let left = left.get_or_insert_with(|| group.left_lanes());
                let promoted = self.promote(group, cx, (pool, &key), &mut row, left, most)?;
                most -= promoted;
                if row.waiting > 0 && cx.has_room(&row) && !group.sweeps.contains(&pool) {
                    // The rest follows in the next groups.
                    group.sweeps.push(pool);
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
        left: &HashSet<WorkId>,
        most: usize,
    ) -> Result<usize, StorageError> {
        let most = most.min(row.waiting as usize);
        // Those that the group has put into the lane are behind those that were there.
        let mut jobs = self.storage.lane_jobs(pool, key, most.saturating_add(left.len()))?;
        jobs.extend(group.new_in_lane(pool, key));
        let mut promoted = 0;
        for (from, spec) in jobs {
            if promoted == most || row.waiting == 0 || !cx.has_room(row) {
                break;
            }
            let work_id = spec.work_id;
            let from = match group.moved_to(work_id) {
                Some(to) => to,
                None if left.contains(&work_id) => continue,
                None => from,
            };
            if !from.is_in_lane() {
                continue;
            }
            let at = self.virtual_time(pool, from.priority);
            let to = cx.seat(row, &spec, from, at);
            row.waiting -= 1;
            promoted += 1;
            self.push(group, Change::MovePendingStart { work_id, pool, from, to });
        }
        Ok(promoted)
    }
}

impl Group {
    /// Returns the jobs that the group takes out of lanes, or out of the tables.
    fn left_lanes(&self) -> HashSet<WorkId> {
        let left = self.changes.iter().filter_map(|change| match change {
            Change::CompleteWork { finished, .. } => Some(finished.work_id),
            Change::MovePendingStart { work_id, from, .. } if from.is_in_lane() => Some(*work_id),
            Change::ReplaceWork { spec, from, .. } if from.is_in_lane() => Some(spec.work_id),
            _ => None,
        });
        left.collect()
    }

    /// Returns where the group has moved a job that waits.
    fn moved_to(&self, work_id: WorkId) -> Option<StartKey> {
        let moved = self.moved.iter().rev().find(|(_, moved, _)| *moved == work_id);
        moved.map(|(.., moved)| moved.to)
    }

    /// Returns the jobs that the group has enqueued into a lane.
    fn new_in_lane(&self, pool: PoolId, key: &WorkKey) -> Vec<(StartKey, Spec)> {
        let new = self.changes.iter().filter_map(|change| match change {
            Change::InsertWork { spec, key: place }
                if place.is_in_lane()
                    && spec.pool == pool
                    && spec.key() == Some(key.as_bytes()) =>
            {
                Some((*place, spec.clone()))
            }
            _ => None,
        });
        new.collect()
    }
}
