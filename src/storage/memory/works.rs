//! The `work` table.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::model::{History, Key, Priority, RunNumber, Spec, StartKey, StartPlace, WorkId};

/// A row of `work`. Small, because there may be millions.
pub(super) struct Row {
    pub spec: Spec,
    pub history: History,
    /// The row's key in the pending table named by `place`.
    pub key: Key,
    pub attempts: u32,
    pub runs: RunNumber,
    /// Its tag, if it is ready; also while it is unregistered.
    pub tag: u64,
    /// The place of its row in `running`, unless it waits.
    pub running: u32,
    pub place: Place,
    pub priority: Priority,
    pub canceled: bool,
    pub canceling: bool,
}

impl Row {
    /// Makes the row of a job that waits.
    pub fn new(spec: Spec, key: StartKey) -> Row {
        Row {
            spec,
            history: History::default(),
            key: key.key(),
            priority: key.priority,
            attempts: 0,
            runs: 0,
            tag: tag_of(key.place),
            running: 0,
            place: Place::Waiting(Stand::of(key.place)),
            canceled: false,
            canceling: false,
        }
    }

    /// Returns its key in `pending_start`, if it waits.
    pub fn start_key(&self) -> StartKey {
        let place = match self.place {
            Place::Waiting(Stand::Held) => StartPlace::Held,
            Place::Waiting(Stand::Ready) => StartPlace::Ready { tag: self.tag },
            Place::Waiting(Stand::Lane) => StartPlace::Lane,
            _ => StartPlace::Queue,
        };
        StartKey::at(self.priority, self.key).in_place(place)
    }

    /// Lets it wait at this key.
    pub fn wait_at(&mut self, key: StartKey) {
        (self.priority, self.key, self.tag) = (key.priority, key.key(), tag_of(key.place));
        self.place = Place::Waiting(Stand::of(key.place));
    }

    pub fn is_waiting(&self) -> bool {
        matches!(self.place, Place::Waiting(_))
    }
}

/// Returns the tag of a place, or 0 if it has none.
fn tag_of(place: StartPlace) -> u64 {
    match place {
        StartPlace::Ready { tag } => tag,
        _ => 0,
    }
}

/// The table that holds a job besides `work`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// `pending_start`.
    Waiting(Stand),
    /// `running`.
    Running,
    /// `running` and `pending_completion`, and whether the job will be retried.
    Completing { retry: bool },
}

/// The kind of a [`StartPlace`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stand {
    Queue,
    Held,
    Ready,
    Lane,
}

impl Stand {
    fn of(place: StartPlace) -> Stand {
        match place {
            StartPlace::Queue => Stand::Queue,
            StartPlace::Held => Stand::Held,
            StartPlace::Ready { .. } => Stand::Ready,
            StartPlace::Lane => Stand::Lane,
        }
    }
}

/// The index of a row in [`Works`]. Four bytes, so that a pending row of another table is small.
pub(super) type Slot = u32;

/// The `work` table: rows in a slab, found by id through a table of slots.
///
/// At a million pending jobs it takes about half the memory of a map that contains the rows.
#[derive(Default)]
pub(super) struct Works {
    slab: Vec<Option<Row>>,
    free: Vec<Slot>,
    index: HashTable<Slot>,
    hasher: DefaultHashBuilder,
}

impl Works {
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Returns the number of places for rows.
    pub fn capacity(&self) -> usize {
        self.slab.len()
    }

    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.slab.iter().flatten()
    }

    fn hash(&self, work_id: WorkId) -> u64 {
        self.hasher.hash_one(work_id.as_u128())
    }

    pub fn slot(&self, work_id: WorkId) -> Option<Slot> {
        let is_it = |slot: &Slot| self.at(*slot).spec.work_id == work_id;
        self.index.find(self.hash(work_id), is_it).copied()
    }

    pub fn at(&self, slot: Slot) -> &Row {
        self.slab[slot as usize].as_ref().expect("the index names occupied slots")
    }

    pub fn at_mut(&mut self, slot: Slot) -> &mut Row {
        self.slab[slot as usize].as_mut().expect("the index names occupied slots")
    }

    /// Reads a few bytes of each of these rows, so that they are in the CPU cache when they are needed.
    ///
    /// Rows of a large table that lie far apart cost a memory access each. These accesses overlap when they are made in
    /// a row, but not when they are spread over everything else that happens to a job.
    pub fn warm(&self, work_ids: impl Iterator<Item = WorkId>) {
        let mut read = 0;
        for work_id in work_ids {
            let _ = self.index.find(self.hash(work_id), |slot| {
                read ^= self.slab[*slot as usize].as_ref().map_or(0, |row| row.attempts);
                false
            });
        }
        std::hint::black_box(read);
    }

    /// Does the same as [`Works::warm`] for rows whose slot is known, and also reads what was enqueued.
    pub fn warm_slots(&self, slots: impl Iterator<Item = Slot>) {
        let read = slots.fold(0, |read, slot| {
            let row = self.slab[slot as usize].as_ref();
            read ^ row.map_or(0, |row| row.spec.enqueued_at.0)
        });
        std::hint::black_box(read);
    }

    pub fn get(&self, work_id: WorkId) -> Option<&Row> {
        self.slot(work_id).map(|slot| self.at(slot))
    }

    pub fn get_mut(&mut self, work_id: WorkId) -> Option<&mut Row> {
        self.slot(work_id).map(|slot| self.at_mut(slot))
    }

    /// Moves all rows to the front and frees the space behind them. Calls `moved` for each.
    pub fn compact(&mut self, mut moved: impl FnMut(&Row, Slot)) {
        let rows = std::mem::take(&mut self.slab).into_iter().flatten();
        let mut slab = Vec::with_capacity(2 * self.index.len());
        slab.extend(rows.map(Some));
        let mut index = HashTable::with_capacity(slab.len());
        let hash = |slot: &Slot, slab: &[Option<Row>]| {
            let row = slab[*slot as usize].as_ref().expect("every slot is occupied");
            self.hasher.hash_one(row.spec.work_id.as_u128())
        };
        for (slot, row) in (0..).zip(&slab) {
            moved(row.as_ref().expect("every slot is occupied"), slot);
            index.insert_unique(hash(&slot, &slab), slot, |slot| hash(slot, &slab));
        }
        (self.slab, self.index, self.free) = (slab, index, Vec::new());
    }

    pub fn insert(&mut self, row: Row) -> Slot {
        let hash = self.hash(row.spec.work_id);
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slab[slot as usize] = Some(row);
                slot
            }
            None => {
                self.slab.push(Some(row));
                (self.slab.len() - 1) as Slot
            }
        };
        let (slab, hasher) = (&self.slab, &self.hasher);
        self.index.insert_unique(hash, slot, |slot| {
            let row = slab[*slot as usize].as_ref().expect("the index names occupied slots");
            hasher.hash_one(row.spec.work_id.as_u128())
        });
        slot
    }

    pub fn remove(&mut self, work_id: WorkId) -> Option<Row> {
        let hash = self.hash(work_id);
        let slab = &self.slab;
        let is_it = |slot: &Slot| {
            slab[*slot as usize].as_ref().is_some_and(|row| row.spec.work_id == work_id)
        };
        let (slot, _) = self.index.find_entry(hash, is_it).ok()?.remove();
        let row = self.slab[slot as usize].take();
        self.free.push(slot);
        row
    }
}
