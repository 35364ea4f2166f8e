//! The `pending_start` table of one pool.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::super::ByRank;
use super::pending::{Pending, Rows};
use super::works::Slot;
use crate::model::{Demand, Key, Priority, Segment, StartKey, StartPlace};

/// The rows of each priority by themselves, and those that are outside of this order. Most pools have one priority only.
#[derive(Default)]
pub(super) struct Starts {
    /// In the order of the priorities.
    levels: Vec<Level>,
    /// The jobs in all lanes, by `seq`.
    lanes: BTreeMap<u64, Slot>,
    /// The unregistered jobs, by `seq`.
    unregistered: BTreeMap<u64, (StartKey, Slot)>,
}

/// The rows of one priority.
struct Level {
    priority: Priority,
    /// By time.
    queue: Pending<Slot>,
    /// By tag, each with the time at which it was due.
    ready: Pending<(Slot, Segment)>,
}

impl Level {
    fn is_empty(&self) -> bool {
        self.queue.len() == 0 && self.ready.len() == 0
    }
}

/// The place among those that are ready.
fn by_tag(tag: u64, seq: u64) -> Key {
    Key { segment: Segment(tag), seq }
}

impl Starts {
    /// Returns the number of rows but for the unregistered jobs.
    pub fn waiting(&self) -> usize {
        let levels = self.levels.iter().map(|level| level.queue.len() + level.ready.len());
        levels.sum::<usize>() + self.lanes.len()
    }

    /// Returns the number of rows that may be due.
    pub fn startable(&self) -> usize {
        self.waiting() - self.lanes.len()
    }

    /// Returns the number of unregistered jobs.
    pub fn unregistered(&self) -> usize {
        self.unregistered.len()
    }

    fn level(&self, priority: Priority) -> Result<usize, usize> {
        self.levels.binary_search_by_key(&priority, |level| level.priority)
    }

    /// Inserts a row. Its key is new, or that of a row that was removed.
    pub fn insert(&mut self, key: StartKey, slot: Slot, now: Segment) {
        if key.is_unregistered() {
            self.unregistered.insert(key.seq, (key, slot));
            return;
        }
        if key.place == StartPlace::Lane {
            self.lanes.insert(key.seq, slot);
            return;
        }
        let priority = key.priority;
        let level = self.level(priority).unwrap_or_else(|place| {
            let (queue, ready) = (Pending::default(), Pending::default());
            self.levels.insert(place, Level { priority, queue, ready });
            place
        });
        let level = &mut self.levels[level];
        match key.tag() {
            None => level.queue.insert(key.key(), slot, now),
            // Tags are no times: none is in the future.
            Some(tag) => {
                level.ready.insert(by_tag(tag, key.seq), (slot, key.segment), Segment(u64::MAX));
            }
        }
    }

    pub fn remove(&mut self, key: StartKey) -> Option<Slot> {
        if key.is_unregistered() {
            return self.unregistered.remove(&key.seq).map(|(_, slot)| slot);
        }
        if key.place == StartPlace::Lane {
            return self.lanes.remove(&key.seq);
        }
        let place = self.level(key.priority).ok()?;
        let level = &mut self.levels[place];
        let slot = match key.tag() {
            None => level.queue.remove(key.key()),
            Some(tag) => level.ready.remove(by_tag(tag, key.seq)).map(|(slot, _)| slot),
        };
        if level.is_empty() && key.priority != Priority::NORMAL {
            self.levels.remove(place);
        }
        slot
    }

    pub fn get_mut(&mut self, key: StartKey) -> Option<&mut Slot> {
        if key.is_unregistered() {
            return self.unregistered.get_mut(&key.seq).map(|(_, slot)| slot);
        }
        if key.place == StartPlace::Lane {
            return self.lanes.get_mut(&key.seq);
        }
        let place = self.level(key.priority).ok()?;
        let level = &mut self.levels[place];
        match key.tag() {
            None => level.queue.get_mut(key.key()),
            Some(tag) => level.ready.get_mut(by_tag(tag, key.seq)).map(|(slot, _)| slot),
        }
    }

    /// Returns the time at which the first row of a queue is due, or was when it became ready.
    pub fn first_due(&self) -> Option<Segment> {
        let queues = self.levels.iter().filter_map(|level| level.queue.first());
        let ready = self.levels.iter().filter_map(|level| {
            let (_, (_, due)) = level.ready.from(Bound::Unbounded).next()?;
            Some(*due)
        });
        queues.map(|key| key.segment).chain(ready).min()
    }

    /// Returns the rows that are due, in the order of their ranks; those of queues from the cursor on.
    pub fn due(&self, demand: &Demand, now: Segment) -> ByRank<Part<'_>> {
        let Demand { cursors, aging, ready_first, .. } = *demand;
        let from = Bound::Included(Key { segment: cursors.incoming, seq: 0 });
        let parts = self.levels.iter().flat_map(|level| {
            let queue = Part::Queue(level.priority, level.queue.from(from));
            let ready = Part::Ready(level.priority, level.ready.from(Bound::Unbounded));
            let has_ready = level.ready.len() > 0;
            std::iter::once(queue).chain(has_ready.then_some(ready))
        });
        ByRank::new(parts, now, aging, ready_first)
    }

    /// Returns the rows between two keys, in order.
    pub fn range(
        &self,
        after: Option<StartKey>,
        until: StartKey,
    ) -> impl Iterator<Item = (StartKey, Slot)> + '_ {
        let is_behind = move |key: StartKey| after.is_none_or(|after| key > after);
        let in_level = after.filter(|after| !after.is_unregistered() && !after.is_in_lane());
        let passed = after.is_some() && in_level.is_none();
        let levels = self.levels.iter().filter(move |level| {
            !passed && in_level.is_none_or(|after| level.priority >= after.priority)
        });
        let levels = levels.flat_map(move |level| {
            let after = in_level.filter(|after| after.priority == level.priority);
            let (ready, queue) = match after.map(|after| (after.tag(), after)) {
                None => (Some(Bound::Unbounded), Bound::Unbounded),
                Some((Some(tag), after)) => {
                    (Some(Bound::Excluded(by_tag(tag, after.seq))), Bound::Unbounded)
                }
                Some((None, after)) => (None, Bound::Excluded(after.key())),
            };
            let ready = ready.map(|from| Part::Ready(level.priority, level.ready.from(from)));
            let queue = Part::Queue(level.priority, level.queue.from(queue));
            ready.into_iter().flatten().chain(queue)
        });
        let after_seq = after.filter(|after| after.is_in_lane()).map(|after| after.seq);
        let skips = after.is_some_and(StartKey::is_unregistered);
        let lanes = (!skips).then(|| {
            let from = after_seq.map_or(Bound::Unbounded, Bound::Excluded);
            self.lanes.range((from, Bound::Unbounded))
        });
        let lanes = lanes
            .into_iter()
            .flatten()
            .map(|(seq, slot)| (StartKey { seq: *seq, ..StartKey::LANES }, *slot));
        let after = after.filter(|after| after.is_unregistered());
        let rows = levels.chain(lanes).chain(self.unregistered_from(after));
        rows.take_while(move |(key, _)| *key < until).filter(move |(key, _)| is_behind(*key))
    }

    /// Returns the unregistered jobs behind one of them, in order.
    pub fn unregistered_from(
        &self,
        after: Option<StartKey>,
    ) -> impl Iterator<Item = (StartKey, Slot)> + '_ {
        let from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.seq));
        self.unregistered.range((from, Bound::Unbounded)).map(|(_, row)| *row)
    }
}

/// Rows of one priority: those of the queue, whose place says whether they hold a place of their key only in `work`, or
/// those that are ready.
#[derive(Clone)]
pub(super) enum Part<'a> {
    Queue(Priority, Rows<'a, Slot>),
    Ready(Priority, Rows<'a, (Slot, Segment)>),
}

impl Iterator for Part<'_> {
    type Item = (StartKey, Slot);

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Part::Queue(priority, rows) => {
                let (key, slot) = rows.next()?;
                Some((StartKey::at(*priority, key), *slot))
            }
            Part::Ready(priority, rows) => {
                let (Key { segment: Segment(tag), seq }, (slot, due)) = rows.next()?;
                let key = StartKey::at(*priority, Key { segment: *due, seq });
                Some((key.in_place(StartPlace::Ready { tag }), *slot))
            }
        }
    }
}
