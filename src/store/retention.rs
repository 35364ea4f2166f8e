//! Retention: deletes finished jobs that are old enough, and the rows of unique keys that nothing holds.

use super::Store;
use crate::engine::arrivals;
use crate::engine::lanes::LaneCx;
use crate::model::{Change, LanePlace, PoolId, Segment};
use crate::storage::Fsync;

/// The minimum number of rows that one step may delete; after many completions it may delete twice their number.
const RETENTION_STEP: usize = 2_000;

/// The minimum number of rows of unique keys that one step looks at; after many completions, twice their number.
const UNIQUE_STEP: usize = 1_000;

impl Store {
    /// Deletes finished jobs that are old enough, if enough have finished since the last time or if asked to.
    pub(super) fn forget_if_due(&mut self, asked: bool) {
        if asked || self.completions >= RETENTION_STEP / 2 {
            let completions = std::mem::take(&mut self.completions);
            self.forget_expired(RETENTION_STEP.max(2 * completions));
            self.forget_free_keys(UNIQUE_STEP.max(2 * completions));
            self.forget_lanes(UNIQUE_STEP.max(2 * completions));
        }
    }

    /// Deletes rows of unique keys that nothing holds: periods that are over. Goes on behind the last row that it has
    /// looked at.
    fn forget_free_keys(&mut self, limit: usize) {
        let after = self.looked_at.take();
        let Ok(rows) = self.storage.unique_rows(after.as_ref(), limit) else { return };
        if rows.is_empty() {
            return;
        }
        if rows.len() == limit {
            self.looked_at = rows.last().map(|(place, _)| place.clone());
        }
        let ids: Vec<_> = rows.iter().map(|(_, row)| row.work_id).collect();
        let Ok(facts) = self.storage.facts(&ids) else { return };
        let mut changes = Vec::new();
        for ((place, row), fact) in rows.into_iter().zip(facts) {
            if !arrivals::holds(&row, fact.as_ref(), self.clock) {
                changes.push(Change::DeleteUnique { place });
            }
        }
        if !changes.is_empty() {
            let _ = self.write(&mut changes, Fsync::WithNext);
        }
    }

    /// Deletes rows of keys that have neither jobs nor debts any more. Goes on behind the last row that it has looked at.
    fn forget_lanes(&mut self, limit: usize) {
        for number in 0..self.pools.len() {
            let (pool, now) = (PoolId(number as u32), self.clock);
            let entry = &mut self.pools[number];
            let rule = entry.key_rule;
            if !entry.has_debts {
                continue;
            }
            let after = entry.looked_at.take();
            let cx = LaneCx { rule, now };
            let Ok(rows) = self.storage.lane_rows(pool, after.as_ref(), limit) else { continue };
            if rows.len() == limit {
                let last = rows.last().map(|(place, _)| place.clone());
                self.pools[number].looked_at = last;
            }
            let over = rows.into_iter().filter(|(_, row)| cx.is_over(row));
            let delete =
                |(place, _): (LanePlace, _)| Change::PutLane { pool, key: place.key, row: None };
            let mut changes: Vec<_> = over.map(delete).collect();
            if !changes.is_empty() {
                let _ = self.write(&mut changes, Fsync::WithNext);
            }
        }
    }

    fn forget_expired(&mut self, limit: usize) {
        let retention = self.shared.retention;
        let before = match retention.max_age {
            Some(age) => Segment(self.clock.0.saturating_sub(age.as_millis() as u64)),
            None => Segment(0),
        };
        let before = if planted!(RetentionTooEager) { self.clock } else { before };
        let keep = retention.max_count.unwrap_or(u64::MAX);
        // The rest is deleted later.
        let Ok(expired) = self.storage.expired(before, keep, limit) else { return };
        let mut changes: Vec<_> =
            expired.into_iter().map(|work_id| Change::DeleteFinished { work_id }).collect();
        if !changes.is_empty() {
            let _ = self.write(&mut changes, Fsync::WithNext);
        }
    }
}
