//! Pools: what the store keeps of each, and how a loop claims one.

use std::collections::BTreeMap;

use hashbrown::HashMap;

use super::group::Moved;
use super::wake::Wakeup;
use super::{PAGE, Store};
use crate::model::{
    Change, Claimed, Cursors, Generation, InternalState, KeyRule, LanePlace, LogLevel, Name,
    PoolConfig, PoolId, Priority, Segment, StartKey, StateRow, Turn, WorkId,
};
use crate::protocol::PoolOpened;
use crate::storage::{Fsync, PoolRow, StorageError};

/// The maximum number of tries of a claim when other writers are faster.
const CLAIM_TRIES: usize = 16;

/// The part of a pool that the store keeps, so that most messages do not read the storage.
pub(super) struct Pool {
    pub name: Name,
    pub config: PoolConfig,
    /// The generation that may write for the pool, and its last turn.
    pub fence: Turn,
    pub cursors: Cursors,
    /// The time up to which starts have been read. The turn that read them may move the cursor there.
    pub read_until: Segment,
    pub pending: u64,
    pub log_level: LogLevel,
    pub key_rule: KeyRule,
    /// The virtual times of fair turns, as far as they are known: of each priority the highest tag that was started.
    pub virtual_times: BTreeMap<Priority, u64>,
    /// `true` if keys have jobs here, or have had.
    pub has_lanes: bool,
    /// `true` if rows of keys without jobs may have been written, because of a debt.
    pub has_debts: bool,
    /// The number of sweeps of its lanes that were begun.
    pub sweeps: u32,
    /// The rule before its last change, until a sweep is through with what held a place by it.
    pub rule_before: Option<KeyRule>,
    /// The last lane that retention has looked at.
    pub looked_at: Option<LanePlace>,
    pub wakeup: Wakeup,
    /// Jobs that were moved or replaced since the loop's last turn that changed something: a turn that was decided before
    /// may start them. A batch does not clear it, because the loop may have been shown an earlier one before.
    pub moved: HashMap<WorkId, Moved>,
    /// `true` if a turn may have been decided on rows that were not committed. No turn counts until the next claim.
    pub is_void: bool,
}

impl Pool {
    /// Creates a pool that nobody has used.
    fn new(name: Name) -> Pool {
        Pool {
            name,
            log_level: LogLevel::default(),
            key_rule: KeyRule::default(),
            virtual_times: BTreeMap::new(),
            has_lanes: false,
            has_debts: false,
            sweeps: 0,
            rule_before: None,
            looked_at: None,
            config: PoolConfig::default(),
            fence: Turn::default(),
            cursors: Cursors::default(),
            read_until: Segment::default(),
            pending: 0,
            wakeup: Wakeup::default(),
            moved: HashMap::new(),
            is_void: false,
        }
    }

    /// Creates a pool from its stored row.
    pub fn stored(row: PoolRow) -> Pool {
        Pool {
            log_level: row.config.settings().log_level,
            key_rule: row.config.settings().per_key,
            config: row.config,
            fence: row.state.fence(),
            cursors: row.state.cursors,
            pending: row.pending,
            ..Pool::new(row.name)
        }
    }

    pub fn set_config(&mut self, config: PoolConfig) {
        let settings = config.settings();
        (self.log_level, self.key_rule) = (settings.log_level, settings.per_key);
        self.config = config;
    }
}

impl Store {
    /// Begins a new generation: turns of earlier ones are refused from now on.
    pub(super) fn claim(&mut self, pool: PoolId) -> Result<Claimed, StorageError> {
        let mut claimed = self.try_claim(pool);
        for _ in 1..CLAIM_TRIES {
            if !matches!(claimed, Err(StorageError::Conflict)) {
                break;
            }
            claimed = self.try_claim(pool);
        }
        claimed
    }

    fn try_claim(&mut self, pool: PoolId) -> Result<Claimed, StorageError> {
        let running = self.storage.running(pool)?;
        // After a failed commit the fence in memory may be ahead of the stored one.
        let stored = self.storage.state(pool)?;
        let has_lanes = !self.storage.lane_rows(pool, None, 1)?.is_empty();
        let generation = Generation(stored.generation.0 + 1);
        let state = StateRow { generation, epoch: self.shared.epoch, ..stored };
        let entry = &mut self.pools[pool.0 as usize];
        let (name, config) = (entry.name, entry.config.clone());
        let mut changes = vec![
            Change::PutGlobals { pool, name, config: config.clone() },
            Change::PutState { pool, state },
        ];
        // From here on the earlier generation is over, even if the commit fails.
        entry.fence = state.fence();
        self.stale.retain(|stale| *stale != pool);
        self.write(&mut changes, Fsync::Now)?;
        let entry = &mut self.pools[pool.0 as usize];
        entry.cursors = state.cursors;
        entry.virtual_times.clear();
        (entry.has_lanes, entry.has_debts) = (has_lanes, has_lanes);
        // Only now: until the new generation is stored, an early turn of the old one may still come.
        entry.is_void = false;
        entry.wakeup.stay_quiet();
        entry.moved.clear();
        let mut internal = InternalState::from(state);
        internal.running = running.iter().map(|row| (row.work.spec.work_id, row.running)).collect();
        Ok(Claimed { state: internal, running, config })
    }

    /// Reads fences and cursors from the tables where those in memory may be stale.
    pub(super) fn refresh(&mut self) -> Result<(), StorageError> {
        while let Some(pool) = self.stale.last().copied() {
            let stored = self.storage.state(pool)?;
            let entry = &mut self.pools[pool.0 as usize];
            (entry.fence, entry.cursors) = (stored.fence(), stored.cursors);

            self.stale.pop();
        }
        Ok(())
    }

    pub(super) fn open_pool(
        &mut self,
        name: Name,
        config: PoolConfig,
    ) -> Result<PoolOpened, StorageError> {
        let stored = self.pools.len();
        let number = match self.pools.iter().position(|pool| pool.name == name) {
            Some(number) => number,
            None => {
                self.pools.push(Pool::new(name));
                self.pools.len() - 1
            }
        };
        let pool = PoolId(number as u32);
        let before = self.pools[number].config.clone();
        let config = config.over(&before);
        self.pools[number].set_config(config.clone());
        let claimed = match self.claim(pool) {
            Ok(claimed) => claimed,
            Err(error) => {
                // Nothing was written: the number is still free, or the configuration unchanged.
                self.pools[number].set_config(before);
                self.pools.truncate(stored);
                return Err(error);
            }
        };
        self.restore_registered(pool)?;
        let pending = self.pools[number].pending;
        Ok(PoolOpened { pool, config, pending, claimed })
    }

    /// Moves jobs out of the unregistered lane whose function is registered now.
    fn restore_registered(&mut self, pool: PoolId) -> Result<(), StorageError> {
        let mut after = None;
        loop {
            let page = self.storage.unregistered(pool, after, PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = Some(*last);
            let mut changes = Vec::new();
            for (from, spec) in page {
                if self.shared.catalog.can_run(&spec) {
                    self.last_seq += 1;
                    let to = StartKey { segment: self.clock, seq: self.last_seq, ..from };
                    let work_id = spec.work_id;
                    changes.push(Change::MovePendingStart { work_id, pool, from, to });
                }
            }
            if !changes.is_empty() {
                match self.write(&mut changes, Fsync::Now) {
                    // The moved rows have new keys, so read the lane from the start.
                    Err(StorageError::Conflict) => after = None,
                    written => written?,
                }
            }
        }
    }
}
