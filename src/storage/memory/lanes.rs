//! The `lanes` table of one pool, and the jobs in its lanes.

use std::collections::BTreeMap;
use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::super::is_oversized;
use super::works::Slot;
use crate::model::{LanePlace, LaneRow, WorkKey};

/// The index of a lane.
type Lane = u32;

/// A key, with its row if it has one. A key without a row has jobs.
type Entry = (WorkKey, Option<LaneRow>);

/// Keys in a slab, found by their bytes; a lane takes less than 100 bytes. The jobs in all lanes are in one tree.
#[derive(Default)]
pub(super) struct Lanes {
    slab: Vec<Option<Entry>>,
    free: Vec<Lane>,
    index: HashTable<Lane>,
    hasher: DefaultHashBuilder,
    jobs: BTreeMap<(Lane, u64), Slot>,
    /// The number of times that the slab was rearranged.
    rearranged: u32,
}

impl Lanes {
    fn lane(&self, key: &[u8]) -> Option<Lane> {
        let is_it = |lane: &Lane| key_at(&self.slab, *lane) == key;
        self.index.find(self.hasher.hash_one(key), is_it).copied()
    }

    fn lane_or_new(&mut self, key: &[u8]) -> Lane {
        if let Some(lane) = self.lane(key) {
            return lane;
        }
        let entry = Some((WorkKey::new(key), None));
        let lane = match self.free.pop() {
            Some(lane) => {
                self.slab[lane as usize] = entry;
                lane
            }
            None => {
                self.slab.push(entry);
                (self.slab.len() - 1) as Lane
            }
        };
        let (slab, hasher) = (&self.slab, &self.hasher);
        let hash = |lane: &Lane| hasher.hash_one(key_at(slab, *lane));
        self.index.insert_unique(hasher.hash_one(key), lane, hash);
        lane
    }

    pub fn get(&self, key: &[u8]) -> Option<LaneRow> {
        let lane = self.lane(key)?;
        self.slab[lane as usize].as_ref().and_then(|(_, row)| *row)
    }

    /// Writes a row, or deletes it.
    pub fn put(&mut self, key: &WorkKey, row: Option<LaneRow>) {
        let lane = match row {
            Some(_) => Some(self.lane_or_new(key.as_bytes())),
            None => self.lane(key.as_bytes()),
        };
        let Some(lane) = lane else { return };
        if let Some((_, stored)) = &mut self.slab[lane as usize] {
            *stored = row;
        }
        self.remove_empty(lane, key.as_bytes());
    }

    /// Removes a key that has neither a row nor jobs.
    fn remove_empty(&mut self, lane: Lane, key: &[u8]) {
        let has_row = matches!(&self.slab[lane as usize], Some((_, Some(_))));
        if has_row || self.jobs_in(lane).next().is_some() {
            return;
        }
        let slab = &self.slab;
        let is_it = |lane: &Lane| key_at(slab, *lane) == key;
        if let Ok(entry) = self.index.find_entry(self.hasher.hash_one(key), is_it) {
            entry.remove();
        }
        self.slab[lane as usize] = None;
        self.free.push(lane);
        self.shrink();
    }

    /// Returns rows behind a place, in the order of the slab. If the slab was rearranged since, begins anew.
    pub fn rows(&self, after: Option<&LanePlace>, limit: usize) -> Vec<(LanePlace, LaneRow)> {
        let age = u64::from(self.rearranged) << 32;
        let from = after.and_then(|after| after.at.checked_sub(age)).map_or(0, |at| at + 1);
        let from = usize::try_from(from).unwrap_or(usize::MAX).min(self.slab.len());
        let rows = self.slab.iter().enumerate().skip(from);
        let rows = rows.filter_map(|(at, entry)| {
            let (key, row) = entry.as_ref()?;
            Some((LanePlace { key: key.clone(), at: age | at as u64 }, (*row)?))
        });
        rows.take(limit).collect()
    }

    /// Adds a job to a lane.
    pub fn insert(&mut self, key: &[u8], seq: u64, slot: Slot) {
        let lane = self.lane_or_new(key);
        self.jobs.insert((lane, seq), slot);
    }

    pub fn remove_job(&mut self, key: &[u8], seq: u64) {
        if let Some(lane) = self.lane(key) {
            self.jobs.remove(&(lane, seq));
            self.remove_empty(lane, key);
        }
    }

    pub fn job_mut(&mut self, key: &[u8], seq: u64) -> Option<&mut Slot> {
        let lane = self.lane(key)?;
        self.jobs.get_mut(&(lane, seq))
    }

    /// Returns the jobs in a lane, in order.
    pub fn jobs(&self, key: &[u8]) -> impl Iterator<Item = Slot> + '_ {
        self.lane(key).into_iter().flat_map(|lane| self.jobs_in(lane))
    }

    fn jobs_in(&self, lane: Lane) -> impl Iterator<Item = Slot> + '_ {
        self.jobs.range((lane, 0)..=(lane, u64::MAX)).map(|(_, slot)| *slot)
    }

    /// Frees memory after a peak.
    fn shrink(&mut self) {
        let lanes = self.index.len();
        if !is_oversized(self.slab.len(), lanes) {
            return;
        }
        let mut moved = vec![0; self.slab.len()];
        let mut slab = Vec::with_capacity(2 * lanes);
        for (old, row) in std::mem::take(&mut self.slab).into_iter().enumerate() {
            if row.is_some() {
                moved[old] = slab.len() as Lane;
                slab.push(row);
            }
        }
        let mut index = HashTable::with_capacity(2 * lanes);
        for lane in 0..slab.len() as Lane {
            let hash = |lane: &Lane| self.hasher.hash_one(key_at(&slab, *lane));
            index.insert_unique(hash(&lane), lane, hash);
        }
        let jobs = std::mem::take(&mut self.jobs).into_iter();
        self.jobs = jobs.map(|((lane, seq), slot)| ((moved[lane as usize], seq), slot)).collect();
        (self.slab, self.index, self.free) = (slab, index, Vec::new());
        self.rearranged += 1;
    }
}

fn key_at(slab: &[Option<Entry>], lane: Lane) -> &[u8] {
    slab[lane as usize].as_ref().map_or(&[], |(key, _)| key.as_bytes())
}
