//! The rows of the lanes that a group is about.

use hashbrown::{Equivalent, HashMap};

use crate::model::{LaneRow, PoolId, Spec, WorkKey};

/// The lanes that a group is about, in the order in which it came to them.
#[derive(Default)]
pub(super) struct Lanes {
    pub rows: Vec<GroupLane>,
    index: HashMap<(PoolId, WorkKey), usize>,
}

/// A lane that a group is about.
pub(super) struct GroupLane {
    pub pool: PoolId,
    pub key: WorkKey,
    /// The stored row, if there is one.
    pub stored: Option<LaneRow>,
    /// The row as the group leaves it.
    pub row: LaneRow,
}

/// A key of [`Lanes::index`], borrowed. It has the same hash.
#[derive(Hash)]
struct LaneRef<'a>(PoolId, &'a [u8]);

impl Equivalent<(PoolId, WorkKey)> for LaneRef<'_> {
    fn equivalent(&self, (pool, key): &(PoolId, WorkKey)) -> bool {
        self.0 == *pool && self.1 == key.as_bytes()
    }
}

impl Lanes {
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub fn knows(&self, pool: PoolId, key: &[u8]) -> bool {
        self.index.contains_key(&LaneRef(pool, key))
    }

    /// Adds a stored row, unless the group knows it.
    pub fn know(&mut self, pool: PoolId, key: WorkKey, stored: Option<LaneRow>) {
        if !self.knows(pool, key.as_bytes()) {
            self.index.insert((pool, key.clone()), self.rows.len());
            self.rows.push(GroupLane { pool, key, stored, row: stored.unwrap_or_default() });
        }
    }

    /// Returns a row as the group has left it so far.
    pub fn row(&mut self, pool: PoolId, key: &[u8]) -> Option<&mut LaneRow> {
        let place = *self.index.get(&LaneRef(pool, key))?;
        Some(&mut self.rows[place].row)
    }

    /// Returns the row of a job's key, for a batch that is read before the commit.
    pub fn row_of(&self, spec: &Spec) -> Option<LaneRow> {
        let place = self.index.get(&LaneRef(spec.pool, spec.key()?))?;
        Some(self.rows[*place].row)
    }
}
