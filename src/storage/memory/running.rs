//! The `running` table of one pool.

use super::works::Slot;
use crate::model::Running;

/// Rows at places that the rows of `work` name. There are at most as many as the pool runs at once.
#[derive(Default)]
pub(super) struct RunningTable {
    rows: Vec<Option<(Slot, Running)>>,
    free: Vec<u32>,
}

impl RunningTable {
    pub fn len(&self) -> usize {
        self.rows.len() - self.free.len()
    }

    /// Inserts a row and returns its place.
    pub fn insert(&mut self, slot: Slot, running: Running) -> u32 {
        let place = self.free.pop().unwrap_or_else(|| {
            self.rows.push(None);
            (self.rows.len() - 1) as u32
        });
        self.rows[place as usize] = Some((slot, running));
        place
    }

    pub fn remove(&mut self, place: u32) {
        if self.rows[place as usize].take().is_some() {
            self.free.push(place);
        }
    }

    pub fn get(&self, place: u32) -> Option<Running> {
        self.rows[place as usize].map(|(_, running)| running)
    }

    /// Returns the rows in no order, each with its row of `work`.
    pub fn rows(&self) -> impl Iterator<Item = (Slot, &Running)> {
        self.rows.iter().flatten().map(|(slot, running)| (*slot, running))
    }

    /// Notes that the row of `work` has moved.
    pub fn row_moved(&mut self, place: u32, slot: Slot) {
        if let Some((at, _)) = &mut self.rows[place as usize] {
            *at = slot;
        }
    }
}
