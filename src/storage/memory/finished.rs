//! The `finished` table.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};

use super::super::is_oversized;
use crate::model::{Finished, Name, Outcome, Payload, PoolId, Segment, WorkId};

/// The number of functions whose jobs have plain rows; few programs have more.
const MOST_FUNCTIONS: usize = 64;

/// Rows in the order of finishing, found by id.
///
/// A job that succeeded without anything more to tell takes 72 bytes in a ring, instead of a piece of the heap that
/// stays in the middle of others that were freed long ago.
#[derive(Default)]
pub(super) struct FinishedTable {
    rows: VecDeque<Row>,
    /// The number of the first row. Rows are numbered in the order of finishing, for ever.
    first: u64,
    /// The number of rows that were deleted from the middle.
    gone: usize,
    /// The numbers of rows by id, without their upper half: there are never so many rows.
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// The names of functions that plain rows refer to.
    functions: Vec<Name>,
}

enum Row {
    Plain(Plain),
    Full(Arc<Finished>),
    Gone,
}

/// A job that was canceled or succeeded, without details.
struct Plain {
    work_id: WorkId,
    /// `None` if it was canceled.
    output: Option<Payload>,
    enqueued_at: Segment,
    started: Segment,
    finished_at: Segment,
    pool: PoolId,
    attempts: u32,
    function: u8,
    was_started: bool,
}

impl Row {
    fn work_id(&self) -> Option<WorkId> {
        match self {
            Row::Plain(row) => Some(row.work_id),
            Row::Full(row) => Some(row.work_id),
            Row::Gone => None,
        }
    }

    fn finished_at(&self) -> Segment {
        match self {
            Row::Plain(row) => row.finished_at,
            Row::Full(row) => row.finished_at,
            Row::Gone => Segment::default(),
        }
    }
}

impl FinishedTable {
    pub fn len(&self) -> usize {
        self.rows.len() - self.gone
    }

    pub fn get(&self, work_id: WorkId) -> Option<Arc<Finished>> {
        self.whole(&self.rows[self.place(work_id)?])
    }

    /// Appends a row. It replaces an earlier one of the same id.
    pub fn push(&mut self, finished: &Arc<Finished>) {
        let row = self.row(finished);
        let (rows, first, hasher) = (&self.rows, self.first, &self.hasher);
        let number = (first + rows.len() as u64) as u32;
        let id_at = |number: &u32| rows[number.wrapping_sub(first as u32) as usize].work_id();
        let hash = |number: &u32| hash(hasher, id_at(number));
        let work_id = Some(finished.work_id);
        let is_it = |number: &u32| id_at(number) == work_id;
        let before = match self.index.entry(self::hash(hasher, work_id), is_it, hash) {
            Entry::Occupied(mut entry) => Some(std::mem::replace(entry.get_mut(), number)),
            Entry::Vacant(entry) => {
                entry.insert(number);
                None
            }
        };
        self.rows.push_back(row);
        if let Some(before) = before {
            self.clear(before.wrapping_sub(self.first as u32) as usize);
        }
    }

    /// Replaces a row, if it exists.
    pub fn replace(&mut self, finished: Arc<Finished>) {
        if let Some(place) = self.place(finished.work_id) {
            self.rows[place] = Row::Full(finished);
        }
    }

    pub fn remove(&mut self, work_id: WorkId) {
        let Some(place) = self.place(work_id) else { return };
        let number = (self.first + place as u64) as u32;
        if let Ok(entry) =
            self.index.find_entry(hash(&self.hasher, Some(work_id)), |other| *other == number)
        {
            entry.remove();
        }
        self.clear(place);
    }

    /// Clears a row that the index does not name any more.
    fn clear(&mut self, place: usize) {
        self.rows[place] = Row::Gone;
        self.gone += 1;
        while let Some(Row::Gone) = self.rows.front() {
            self.rows.pop_front();
            self.first += 1;
            self.gone -= 1;
        }
    }

    /// Returns up to `limit` rows that are older than `before` or more than `keep` back, the oldest first.
    pub fn expired(&self, before: Segment, keep: u64, limit: usize) -> Vec<WorkId> {
        let surplus = (self.len() as u64).saturating_sub(keep);
        let rows = self.rows.iter().filter_map(|row| Some((row.work_id()?, row.finished_at())));
        let expired = rows
            .zip(0..)
            .take(limit)
            .take_while(|((_, finished_at), place)| *place < surplus || *finished_at < before);
        expired.map(|((work_id, _), _)| work_id).collect()
    }

    /// Returns up to `limit` rows with numbers below `before`, the last one first.
    pub fn last(&self, before: Option<u64>, limit: usize) -> Vec<(u64, Arc<Finished>)> {
        let end = before.map_or(u64::MAX, |before| before.saturating_sub(self.first));
        let end = usize::try_from(end).unwrap_or(usize::MAX).min(self.rows.len());
        let rows = self.rows.range(..end).enumerate().rev();
        let rows = rows.filter_map(|(place, row)| Some((place, self.whole(row)?))).take(limit);
        rows.map(|(place, row)| (self.first + place as u64, row)).collect()
    }

    /// Frees memory after a peak.
    pub fn shrink(&mut self) {
        let (rows, first, hasher) = (&mut self.rows, self.first, &self.hasher);
        if is_oversized(rows.capacity(), rows.len()) {
            rows.shrink_to(2 * rows.len());
        }
        if is_oversized(self.index.capacity(), self.index.len()) {
            let id_at = |number: &u32| rows[number.wrapping_sub(first as u32) as usize].work_id();
            let rows = self.index.len();
            self.index.shrink_to(2 * rows, |number| hash(hasher, id_at(number)));
        }
    }

    fn place(&self, work_id: WorkId) -> Option<usize> {
        let place = |number: &u32| number.wrapping_sub(self.first as u32) as usize;
        let is_it = |number: &u32| self.rows[place(number)].work_id() == Some(work_id);
        self.index.find(hash(&self.hasher, Some(work_id)), is_it).map(place)
    }

    fn row(&mut self, finished: &Arc<Finished>) -> Row {
        let output = match &finished.outcome {
            Outcome::Success(output) => Some(output.clone()),
            Outcome::Canceled => None,
            Outcome::Failed(_) => return Row::Full(finished.clone()),
        };
        let Some(function) = self.function(finished.function) else {
            return Row::Full(finished.clone());
        };
        if finished.details.is_some() {
            return Row::Full(finished.clone());
        }
        Row::Plain(Plain {
            work_id: finished.work_id,
            output,
            enqueued_at: finished.enqueued_at,
            started: finished.started.unwrap_or_default(),
            finished_at: finished.finished_at,
            pool: finished.pool,
            attempts: finished.attempts,
            function,
            was_started: finished.started.is_some(),
        })
    }

    /// Returns the number of a function, if it is one of the first that were seen.
    fn function(&mut self, function: Name) -> Option<u8> {
        let known = self.functions.iter().position(|known| *known == function);
        let number = known.unwrap_or(self.functions.len());
        if known.is_none() && number < MOST_FUNCTIONS {
            self.functions.push(function);
        }
        u8::try_from(number).ok().filter(|_| number < MOST_FUNCTIONS)
    }

    fn whole(&self, row: &Row) -> Option<Arc<Finished>> {
        let row = match row {
            Row::Plain(row) => row,
            Row::Full(row) => return Some(row.clone()),
            Row::Gone => return None,
        };
        Some(Arc::new(Finished {
            work_id: row.work_id,
            pool: row.pool,
            function: self.functions[usize::from(row.function)],
            outcome: row.output.clone().map_or(Outcome::Canceled, Outcome::Success),
            attempts: row.attempts,
            enqueued_at: row.enqueued_at,
            started: row.was_started.then_some(row.started),
            finished_at: row.finished_at,
            details: None,
        }))
    }
}

fn hash(hasher: &DefaultHashBuilder, work_id: Option<WorkId>) -> u64 {
    hasher.hash_one(work_id.map_or(0, |work_id| work_id.as_u128()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_row_is_small() {
        assert!(size_of::<Row>() <= 80, "{}", size_of::<Row>());
    }
}
