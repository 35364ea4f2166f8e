//! The `pending_start` table of one pool.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use super::super::ByRank;
use super::pending::{Pending, Rows};
use super::works::Slot;
use crate::model::{Key, Priority, Segment, StartKey};

/// The rows of each priority by themselves, and the unregistered lane. Most pools have one priority only.
#[derive(Default)]
pub(super) struct Starts {
    /// In the order of the priorities.
    levels: Vec<(Priority, Pending<Slot>)>,
    /// By `seq`.
    lane: BTreeMap<u64, (Priority, Slot)>,
}

impl Starts {
    /// Returns the number of rows outside the unregistered lane.
    pub fn waiting(&self) -> usize {
        self.levels.iter().map(|(_, rows)| rows.len()).sum()
    }

    /// Returns the number of rows in the unregistered lane.
    pub fn unregistered(&self) -> usize {
        self.lane.len()
    }

    fn level(&self, priority: Priority) -> Result<usize, usize> {
        self.levels.binary_search_by_key(&priority, |(priority, _)| *priority)
    }

    /// Inserts a row. Its key is new.
    pub fn insert(&mut self, key: StartKey, slot: Slot, now: Segment) {
        if key.is_unregistered() {
            self.lane.insert(key.seq, (key.priority, slot));
            return;
        }
        let level = self.level(key.priority).unwrap_or_else(|place| {
            self.levels.insert(place, (key.priority, Pending::default()));
            place
        });
        self.levels[level].1.insert(key.key(), slot, now);
    }

    pub fn remove(&mut self, key: StartKey) -> Option<Slot> {
        if key.is_unregistered() {
            return self.lane.remove(&key.seq).map(|(_, slot)| slot);
        }
        let level = self.level(key.priority).ok()?;
        let rows = &mut self.levels[level].1;
        let slot = rows.remove(key.key());
        if rows.len() == 0 && key.priority != Priority::NORMAL {
            self.levels.remove(level);
        }
        slot
    }

    pub fn get_mut(&mut self, key: StartKey) -> Option<&mut Slot> {
        if key.is_unregistered() {
            return self.lane.get_mut(&key.seq).map(|(_, slot)| slot);
        }
        let level = self.level(key.priority).ok()?;
        self.levels[level].1.get_mut(key.key())
    }

    /// Returns the time at which the first row is due.
    pub fn first_due(&self) -> Option<Segment> {
        let firsts = self.levels.iter().filter_map(|(_, rows)| rows.first());
        firsts.map(|key| key.segment).min()
    }

    /// Returns the rows that are due in the order of their ranks, from a segment on.
    pub fn due(&self, from: Segment, now: Segment, aging: Option<Duration>) -> ByRank<Copied<'_>> {
        let from = Bound::Included(Key { segment: from, seq: 0 });
        let levels =
            self.levels.iter().map(|(priority, rows)| (*priority, Copied(rows.from(from))));
        ByRank::new(levels, now, aging)
    }

    /// Returns the rows between two keys, in order.
    pub fn range(
        &self,
        after: Option<StartKey>,
        until: StartKey,
    ) -> impl Iterator<Item = (StartKey, Slot)> + '_ {
        let levels = self.levels.iter().flat_map(move |(priority, rows)| {
            let from = match after {
                Some(after) if after.is_unregistered() || after.priority > *priority => None,
                Some(after) if after.priority == *priority => Some(Bound::Excluded(after.key())),
                _ => Some(Bound::Unbounded),
            };
            let rows = from.map(|from| rows.from(from)).into_iter().flatten();
            rows.map(|(key, slot)| (StartKey::at(*priority, key), *slot))
        });
        let after = after.filter(|after| after.is_unregistered());
        levels.chain(self.lane(after)).take_while(move |(key, _)| *key < until)
    }

    /// Returns the rows of the unregistered lane behind one of them, in order.
    pub fn lane(&self, after: Option<StartKey>) -> impl Iterator<Item = (StartKey, Slot)> + '_ {
        let from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.seq));
        self.lane.range((from, Bound::Unbounded)).map(|(seq, (priority, slot))| {
            let key = Key { segment: Segment::UNREGISTERED, seq: *seq };
            (StartKey::at(*priority, key), *slot)
        })
    }
}

/// Rows of one level, with their slots by value.
#[derive(Clone)]
pub(super) struct Copied<'a>(Rows<'a, Slot>);

impl Iterator for Copied<'_> {
    type Item = (Key, Slot);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(key, slot)| (key, *slot))
    }
}
