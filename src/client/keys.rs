//! The keys of a pool.

use std::time::SystemTime;

use crate::model::{LaneRow, Segment, WorkKey};

/// A key of a pool, with the number of its jobs. Made by [`Workpool::busiest_keys`](crate::Workpool::busiest_keys).
///
/// Jobs that are not due are counted only where the key is [ordered](crate::KeyRule::ordered): others need not wait for them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyStatus {
    key: WorkKey,
    /// The number of jobs that run.
    pub running: u64,
    /// The number of jobs that have a place of the key and wait for a slot or for their time.
    pub ready: u64,
    /// The number of jobs in the lane of the key: others of the key are ahead.
    pub waiting: u64,
    /// The end of the rest that a job of the key has asked for, if it is not over.
    pub rests_until: Option<SystemTime>,
}

impl KeyStatus {
    pub(super) fn new(key: WorkKey, row: LaneRow, now: Segment) -> KeyStatus {
        KeyStatus {
            key,
            running: row.running.into(),
            ready: row.holders.saturating_sub(row.running).into(),
            waiting: row.waiting.into(),
            rests_until: (row.rest > now).then(|| row.rest.time()),
        }
    }

    /// Returns the key.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        self.key.as_bytes()
    }
}
