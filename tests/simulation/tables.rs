//! The storage of the simulated machine: its faults, and what a crash leaves of it.

use std::cell::RefCell;
use std::sync::Arc;

use actix_workpool::model::{Change, Finished, Segment};
use actix_workpool::storage::{Fsync, Memory, Opened, Storage, StorageError};
use fastrand::Rng;

use super::reads::reads;
use super::world::{self, World, trace, with};

thread_local! {
    static TABLES: RefCell<Tables> = RefCell::new(Tables::Memory(InMemory::default()));
}

/// What keeps the rows. A second kind, on a simulated disk, has its place here.
pub enum Tables {
    Memory(InMemory),
}

impl Tables {
    /// A handle on them, for one life.
    fn handle(&self) -> Box<dyn Storage> {
        match self {
            Tables::Memory(tables) => Box::new(tables.memory.clone()),
        }
    }

    fn committed(&mut self, changes: Vec<Change>, now: Segment, fsync: Fsync) {
        match self {
            Tables::Memory(tables) => tables.committed(changes, now, fsync),
        }
    }

    /// Loses what was not synced, or a part of it.
    fn crash(&mut self, rng: &mut Rng) -> usize {
        match self {
            Tables::Memory(tables) => tables.crash(rng),
        }
    }
}

/// Tables in memory, with the list of commits that made them: what was not synced is lost by leaving it out.
#[derive(Default)]
pub struct InMemory {
    memory: Memory,
    commits: Vec<(Vec<Change>, Segment)>,
    synced: usize,
}

impl InMemory {
    fn committed(&mut self, changes: Vec<Change>, now: Segment, fsync: Fsync) {
        self.commits.push((changes, now));
        if fsync == Fsync::Now {
            self.synced = self.commits.len();
        }
    }

    fn crash(&mut self, rng: &mut Rng) -> usize {
        let unsynced = self.commits.len() - self.synced;
        let lost = rng.usize(0..=unsynced);
        self.commits.truncate(self.commits.len() - lost);
        self.synced = self.commits.len();
        self.memory = Memory::new();
        for (changes, now) in &self.commits {
            let replayed = self.memory.commit(&mut changes.clone(), *now, Fsync::Now);
            replayed.expect("memory takes every commit");
        }
        lost
    }
}

pub fn begin() {
    TABLES.set(Tables::Memory(InMemory::default()));
}

/// What the process leaves behind when it ends without closing the storage.
pub fn crash() {
    let lost = with(|world| TABLES.with_borrow_mut(|tables| tables.crash(&mut world.rng)));
    with(|world| trace!(world, "{lost} commits are lost"));
}

/// Everything is written, and nobody has the storage open.
pub fn closed() {
    TABLES.with_borrow_mut(|tables| match tables {
        Tables::Memory(tables) => tables.synced = tables.commits.len(),
    });
}

/// Reads the tables as they are now, past all faults.
pub fn look<T>(read: impl FnOnce(&mut dyn Storage) -> Result<T, StorageError>) -> T {
    let mut handle = TABLES.with_borrow(Tables::handle);
    read(&mut *handle).expect("tables can be read")
}

/// Every work that was completed in a commit that stayed, in order.
pub fn completed() -> Vec<Arc<Finished>> {
    TABLES.with_borrow(|tables| match tables {
        Tables::Memory(tables) => {
            let changes = tables.commits.iter().flat_map(|(changes, _)| changes);
            let completed = changes.filter_map(|change| match change {
                Change::CompleteWork { finished, .. } => Some(finished.clone()),
                _ => None,
            });
            completed.collect()
        }
    })
}

/// The storage as one life has it.
pub struct SimStorage {
    tables: Box<dyn Storage>,
    life: u32,
}

impl SimStorage {
    pub fn new() -> SimStorage {
        let tables = TABLES.with_borrow(Tables::handle);
        SimStorage { tables, life: with(|world| world.life) }
    }

    fn gone(&self) -> bool {
        !world::is_there() || with(|world| world.dead || world.life != self.life)
    }

    /// Before each call: does the process still live, and does the storage do what it is asked?
    fn call(&self, name: &str, read: bool) -> Result<u64, StorageError> {
        if self.gone() {
            return Err(StorageError::Unavailable("the process is gone".into()));
        }
        with(|world| {
            world.calls += 1;
            let call = world.calls;
            world.stands_still();
            if world.crash_at == Some((call, false)) {
                trace!(world, "crash before {name} {call}");
                world.crash();
                return Err(StorageError::Unavailable("the process is gone".into()));
            }
            if read && world.fails(|world| world.plan.faults.read) {
                trace!(world, "{name} {call} fails");
                world.fault();
                return Err(StorageError::Unavailable("read fault".into()));
            }
            Ok(call)
        })
    }
}

impl SimStorage {
    fn read<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&mut dyn Storage) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        self.call(name, true)?;
        read(&mut *self.tables)
    }
}

/// So many calls without time passing are no work but a circle.
const CIRCLE: u64 = 50_000;

impl World {
    fn stands_still(&mut self) {
        let now = self.now();
        if self.last_call.0 != now {
            self.last_call = (now, self.calls);
        }
        if self.calls - self.last_call.1 > CIRCLE {
            self.violate(format_args!("{CIRCLE} calls of the storage, and no time passes"));
        }
    }

    fn fails(&mut self, per_mille: impl FnOnce(&World) -> u64) -> bool {
        if !self.faulty || self.quiet {
            return false;
        }
        let per_mille = per_mille(self);
        per_mille > 0 && self.rng.u64(0..1_000) < per_mille
    }

    fn fault(&mut self) {
        self.faults += 1;
        self.disturb();
    }
}

impl Storage for SimStorage {
    fn may_block(&self) -> bool {
        false
    }

    fn open(&mut self) -> Result<Opened, StorageError> {
        self.call("open", true)?;
        let opened = self.tables.open()?;
        with(|world| {
            world.opened(opened.clock);
            trace!(world, "opened at {}", opened.clock);
        });
        Ok(opened)
    }

    fn close(&mut self) {
        if !self.gone() {
            self.tables.close();
        }
    }

    reads!();

    fn commit(
        &mut self,
        changes: &mut Vec<Change>,
        now: Segment,
        fsync: Fsync,
    ) -> Result<(), StorageError> {
        let call = self.call("commit", false)?;
        let answer_lost = with(|world| {
            let refused = if world.full && !world.quiet {
                Some(StorageError::Unavailable("no space left".into()))
            } else if world.fails(|world| world.plan.faults.refuse) {
                Some(StorageError::Unavailable("commit refused".into()))
            } else if world.fails(|world| world.plan.faults.conflict) {
                Some(StorageError::Conflict)
            } else {
                None
            };
            if let Some(error) = refused {
                trace!(world, "commit {call} fails: {error}");
                world.fault();
                return Err(error);
            }
            trace!(world, "commit {call} of {} {fsync:?} at {now}", changes.len());
            world.trace_changes(changes);
            let answer_lost = world.fails(|world| world.plan.faults.answer_lost);
            if answer_lost {
                trace!(world, "its answer is lost");
                world.fault();
            }
            Ok(answer_lost)
        })?;
        let copy = changes.clone();
        self.tables.commit(changes, now, fsync)?;
        TABLES.with_borrow_mut(|tables| tables.committed(copy, now, fsync));
        if with(|world| world.crash_at == Some((call, true))) {
            with(|world| {
                trace!(world, "crash after commit {call}");
                world.crash();
            });
            return Err(StorageError::Unavailable("the process is gone".into()));
        }
        match answer_lost {
            true => Err(StorageError::Unavailable("answer lost".into())),
            false => Ok(()),
        }
    }
}

impl World {
    /// Two runs that write different rows, or in another order, differ in their traces.
    fn trace_changes(&mut self, changes: &[Change]) {
        for change in changes {
            let (kind, about) = match change {
                Change::InsertWork { spec, key } => (1, spec.work_id.as_u128() as u64 ^ key.seq),
                Change::InsertPendingCompletion { work_id, key, retry, .. } => {
                    let at =
                        if let actix_workpool::model::Retry::At(at) = retry { at.0 } else { 0 };
                    (2, work_id.as_u128() as u64 ^ key.seq ^ at)
                }
                Change::InsertPendingCancelation { work_id, .. } => (3, work_id.as_u128() as u64),
                Change::StartWork { work_id, run, .. } => {
                    (4, work_id.as_u128() as u64 ^ u64::from(*run))
                }
                Change::MovePendingStart { work_id, .. } => (5, work_id.as_u128() as u64),
                Change::RetryWork { work_id, key, .. } => {
                    (6, work_id.as_u128() as u64 ^ key.segment.0)
                }
                Change::CompleteWork { finished, .. } => (7, finished.work_id.as_u128() as u64),
                Change::MarkCanceled { work_id, .. } => (8, work_id.as_u128() as u64),
                Change::DeletePendingCancelation { key, .. } => (9, key.seq),
                Change::PutState { state, .. } => (10, state.turn ^ state.epoch.0),
                Change::PutGlobals { pool, .. } => (11, u64::from(pool.0)),
                Change::DeleteFinished { work_id } => (12, work_id.as_u128() as u64),
                Change::PutRow { value, .. } => (13, value.len() as u64),
                Change::DeleteRow { .. } => (14, 0),
            };
            self.trace_number(about ^ (kind << 56));
        }
    }
}
