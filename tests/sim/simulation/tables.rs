//! The storage of the simulated machine: its faults, and what a crash leaves of it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use actix_workpool::model::{
    Change, Finished, LanePlace, LaneRow, Name, Payload, PoolId, Segment, TableKey, UniquePlace,
    UniqueRow, WorkId,
};
use actix_workpool::storage::{Fsync, Hook, Memory, Opened, Redb, Storage, StorageError};
use actix_workpool::testing::disk::{self as disk, SimDisk};
use fastrand::Rng;

use super::plan::{Store, below, pick};
use super::world::{self, World, trace, with};

thread_local! {
    static TABLES: RefCell<Tables> = RefCell::new(Tables::Memory(InMemory::default()));
}

/// What keeps the rows.
pub enum Tables {
    Memory(InMemory),
    File(Box<InFile>),
}

impl Tables {
    /// A handle on them, for one life.
    fn handle(&self) -> Result<Box<dyn Storage>, StorageError> {
        match self {
            Tables::Memory(tables) => Ok(Box::new(tables.memory.clone())),
            Tables::File(tables) => Ok(Box::new(tables.open()?)),
        }
    }

    fn committed(&mut self, changes: Vec<Change>, now: Segment, fsync: Fsync) {
        match self {
            Tables::Memory(tables) => tables.committed(changes, now, fsync),
            Tables::File(tables) => tables.committed(fsync),
        }
    }

    /// A commit without a number, which a file may keep for the next one.
    fn deferred(&mut self, changes: &[Change]) {
        if let Tables::File(tables) = self {
            tables.deferred.extend(reported(changes));
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

/// A file on a simulated disk. Each commit leaves its number in a table of its own, so that the file itself says which
/// ones it holds.
pub struct InFile {
    disk: SimDisk,
    log_length: u64,
    checkpoints_within: u32,
    /// Every commit that may be there, by its number.
    commits: Vec<Committed>,
    next: u64,
    /// Reports that wait for the next commit.
    deferred: Vec<Reported>,
    /// Held while the tables are read in the end.
    looking: Option<Redb>,
}

/// The effect of a commit on the report of a job: the tables hold the report of this run, or, with `None`, no report.
type Reported = (WorkId, Option<u32>);

struct Committed {
    number: u64,
    completed: Vec<Arc<Finished>>,
    reported: Vec<Reported>,
    /// The store said that it has happened, and perhaps also that it is safe.
    happened: bool,
    safe: bool,
}

/// The table with the numbers of commits.
const COMMITS: &str = "commits";

impl InFile {
    fn open(&self) -> Result<Redb, StorageError> {
        disk::open(&self.disk, self.log_length, self.checkpoints_within)
    }

    /// The store as it is looked at in the end. It is opened once.
    fn opened(&mut self) -> Redb {
        let opened = self.looking.take().map_or_else(|| self.open(), Ok);
        opened.expect("the file can be opened")
    }

    /// Adds what tells that the commit has happened. One that only reports has nothing: it is kept in memory until the
    /// next one, which it would not be then.
    fn committing(&mut self, changes: &mut Vec<Change>, rng: &mut Rng) -> bool {
        let only_reports =
            changes.iter().all(|change| matches!(change, Change::InsertPendingCompletion { .. }));
        if only_reports {
            return false;
        }
        self.next += 1;
        let completed = completions(changes).collect();
        let reported = self.deferred.iter().copied().chain(reported(changes)).collect();
        let number = self.next;
        self.commits.push(Committed { number, completed, reported, happened: false, safe: false });
        // Now and then one that is larger than the log.
        let len = if below(rng, 60) == 0 { self.log_length as usize } else { 1 };
        let (table, key) = (Name::from_static(COMMITS), TableKey::from(number));
        changes.push(Change::PutRow { table, key, value: Payload::new(&vec![b'7'; len]) });
        true
    }

    fn committed(&mut self, fsync: Fsync) {
        let Some(last) = self.commits.last_mut() else { return };
        last.happened = true;
        self.deferred.clear();
        if fsync == Fsync::Now {
            self.all_safe();
        }
    }

    /// Everything that has happened is certain to be there.
    fn all_safe(&mut self) {
        let unsafe_ones = self.commits.iter_mut().rev().take_while(|commit| !commit.safe);
        for commit in unsafe_ones.filter(|commit| commit.happened) {
            commit.safe = true;
        }
    }

    /// Takes the commits that a store holds for those that have happened. Says what is wrong with them.
    fn find(&mut self, store: &mut dyn Storage) -> Result<Result<usize, String>, StorageError> {
        let all = (Bound::Unbounded, Bound::Unbounded);
        let rows = store.scan(Name::from_static(COMMITS), &all, usize::MAX)?;
        let there: Vec<_> = rows.iter().filter_map(|(key, _)| key.as_u64()).collect();
        let is_there = |commit: &Committed| there.binary_search(&commit.number).is_ok();
        let mut lost = None;
        for commit in &self.commits {
            let number = commit.number;
            match is_there(commit) {
                true if lost.is_some() => {
                    return Ok(Err(format!("commit {number} is there without {lost:?}")));
                }
                false if commit.safe => {
                    return Ok(Err(format!("commit {number} was synced, and is not there")));
                }
                false if commit.happened => lost = Some(number),
                _ => {}
            }
        }
        let before = self.commits.len();
        self.commits.retain(is_there);
        for commit in &mut self.commits {
            commit.happened = true;
        }
        if self.commits.len() != there.len() {
            return Ok(Err("a commit is there that was lost before".into()));
        }
        self.deferred.clear();
        let reported = self.commits.iter().flat_map(|commit| &commit.reported).copied();
        let reported: BTreeMap<_, _> = reported.collect();
        let reported: Vec<_> =
            reported.into_iter().filter_map(|(work_id, run)| Some((work_id, run?))).collect();
        let ids: Vec<_> = reported.iter().map(|(work_id, _)| *work_id).collect();
        for ((work_id, run), fact) in reported.into_iter().zip(store.facts(&ids)?) {
            if !fact.is_some_and(|fact| fact.runs == run && fact.pending_completion.is_some()) {
                return Ok(Err(format!("the report of run {run} of {work_id} is not there")));
            }
        }
        Ok(Ok(before - self.commits.len()))
    }

    /// The process ends, and perhaps the machine with it.
    fn crash(&mut self, rng: &mut Rng) {
        self.disk = match below(rng, 4) {
            0 => self.disk.for_next_process(),
            _ => SimDisk::holding(self.disk.remains(rng)),
        };
    }
}

/// The jobs that a commit completes.
fn completions(changes: &[Change]) -> impl Iterator<Item = Arc<Finished>> {
    changes.iter().filter_map(|change| match change {
        Change::CompleteWork { finished, .. } => Some(finished.clone()),
        _ => None,
    })
}

/// What changes do about reports, in order.
fn reported(changes: &[Change]) -> impl Iterator<Item = Reported> {
    changes.iter().filter_map(|change| match change {
        Change::InsertPendingCompletion { work_id, run, .. } => Some((*work_id, Some(*run))),
        Change::RetryWork { work_id, .. } => Some((*work_id, None)),
        Change::CompleteWork { finished, .. } => Some((finished.work_id, None)),
        _ => None,
    })
}

pub fn begin() {
    let tables = with(|world| match world.plan.store {
        Store::Memory => {
            world.disk = None;
            Tables::Memory(InMemory::default())
        }
        Store::File => {
            // The store draws from there when it writes its checkpoints.
            fastrand::seed(world.seed);
            let log_length = pick(&mut world.rng, &[8 << 10, 16 << 10, 64 << 10]);
            let disk = SimDisk::default();
            world.disk = Some(disk.clone());
            Tables::File(Box::new(InFile {
                disk,
                log_length,
                checkpoints_within: world.plan.checkpoints_within,
                commits: Vec::new(),
                next: 0,
                deferred: Vec::new(),
                looking: None,
            }))
        }
    });
    TABLES.set(tables);
}

/// What the process leaves behind when it ends without closing the storage.
pub fn crash() {
    with(|world| {
        TABLES.with_borrow_mut(|tables| match tables {
            Tables::Memory(tables) => {
                let lost = tables.crash(&mut world.rng);
                trace!(world, "{lost} commits are lost");
            }
            Tables::File(tables) => {
                tables.crash(&mut world.rng);
                world.disk = Some(tables.disk.clone());
            }
        });
    });
}

/// Everything is written, and nobody has the storage open.
pub fn closed() {
    with(|world| {
        TABLES.with_borrow_mut(|tables| match tables {
            Tables::Memory(tables) => tables.synced = tables.commits.len(),
            Tables::File(tables) => {
                tables.all_safe();
                tables.crash(&mut world.rng);
                world.disk = Some(tables.disk.clone());
            }
        });
    });
}

/// Reads the tables as they are now, past all faults.
pub fn look<T>(read: impl FnOnce(&mut dyn Storage) -> Result<T, StorageError>) -> T {
    TABLES
        .with_borrow_mut(|tables| match tables {
            Tables::Memory(tables) => read(&mut tables.memory),
            Tables::File(tables) => {
                let mut store = tables.opened();
                let answer = read(&mut store);
                tables.looking = Some(store);
                answer
            }
        })
        .expect("tables can be read")
}

/// Every job that was completed in a commit that stayed, in order.
pub fn completed() -> Vec<Arc<Finished>> {
    let (completed, wrong) = TABLES.with_borrow_mut(|tables| match tables {
        Tables::Memory(tables) => {
            let commits = tables.commits.iter();
            (commits.flat_map(|(changes, _)| completions(changes)).collect(), None)
        }
        Tables::File(tables) => {
            let mut store = tables.opened();
            let wrong = tables.find(&mut store).expect("tables can be read").err();
            tables.looking = Some(store);
            let completed = tables.commits.iter().flat_map(|commit| commit.completed.clone());
            (completed.collect(), wrong)
        }
    });
    if let Some(wrong) = wrong {
        with(|world| world.violate(wrong));
    }
    completed
}

/// The storage as one life has it.
pub struct SimStorage {
    /// Missing until it is opened.
    tables: Option<Box<dyn Storage>>,
    life: u32,
    /// How often the disk had failed when the call under way began.
    failures: u64,
    /// How often a sync had failed when the storage was opened, and when the call under way began.
    failed_syncs: (u64, u64),
}

impl SimStorage {
    pub fn new() -> SimStorage {
        let life = with(|world| world.life);
        SimStorage { tables: None, life, failures: 0, failed_syncs: (0, 0) }
    }

    /// After each call that reached the tables: has the machine stopped meanwhile, and was there a reason to fail?
    fn came_back<T>(&self, answer: Result<T, StorageError>) -> Result<T, StorageError> {
        with(|world| {
            let Some(disk) = world.disk.clone() else { return answer };
            if !world.dead && disk.has_stopped() {
                trace!(world, "the machine stops");
                world.crash();
            }
            if world.dead {
                return Err(StorageError::Unavailable("the process is gone".into()));
            }
            let failing = disk.failures() > self.failures;
            let lost = disk.failed_syncs() > self.failed_syncs.0;
            if failing {
                trace!(world, "the disk has failed");
                world.fault();
            }
            if let Err(error) = &answer {
                trace!(world, "the store fails: {error}");
                let is_poisoned = matches!(error, StorageError::Poisoned(_));
                let excused = failing || lost || (world.full && !is_poisoned);
                if lost && is_poisoned && self.tables.is_some() {
                    world.poison();
                }
                world.fault();
                if !excused {
                    world.violate(format_args!("the store fails with nothing wrong: {error}"));
                }
            }
            answer
        })
    }

    fn tables(&mut self) -> Result<&mut Box<dyn Storage>, StorageError> {
        self.tables.as_mut().ok_or_else(|| StorageError::Poisoned("it is not open".into()))
    }

    fn gone(&self) -> bool {
        !world::is_there() || with(|world| world.dead || world.life != self.life)
    }

    /// Before each call: does the process still live, and does the storage do what it is asked?
    fn begin(&mut self, name: &str, read: bool) -> Result<u64, StorageError> {
        if self.gone() {
            return Err(StorageError::Unavailable("the process is gone".into()));
        }
        with(|world| {
            if let Some(disk) = &world.disk {
                (self.failures, self.failed_syncs.1) = (disk.failures(), disk.failed_syncs());
            }
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

/// The number of calls without time passing that counts as an endless loop.
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

impl Hook for SimStorage {
    fn may_block(&self) -> bool {
        false
    }

    /// In most lives the groups wait for the turns that follow from them.
    fn is_costly(&self) -> bool {
        with(|world| world.rng.u8(..4) > 0)
    }

    fn open(&mut self) -> Result<Opened, StorageError> {
        self.begin("open", true)?;
        self.failed_syncs.0 = self.failed_syncs.1;
        let opened = TABLES.with_borrow_mut(|tables| {
            let mut handle = tables.handle()?;
            let opened = handle.open()?;
            let lanes = super::keys::lanes_are_right(&mut *handle)?;
            let found = match tables {
                _ if lanes.is_err() => lanes.map(|()| 0),
                Tables::Memory(_) => Ok(0),
                Tables::File(tables) => tables.find(&mut *handle)?,
            };
            self.tables = Some(handle);
            Ok((opened, found))
        });
        let (opened, found) = self.came_back(opened)?;
        with(|world| match found {
            Ok(lost) => trace!(world, "{lost} commits are not there"),
            Err(wrong) => world.violate(wrong),
        });
        with(|world| {
            world.opened(opened.clock);
            trace!(world, "opened at {}", opened.clock);
        });
        Ok(opened)
    }

    /// Not asked where nobody enqueues unique jobs: seeds that found something before there were any go the same way
    /// still.
    fn unique_rows(
        &mut self,
        after: Option<&UniquePlace>,
        limit: usize,
    ) -> Result<Vec<(UniquePlace, UniqueRow)>, StorageError> {
        match with(|world| world.plan.weights[17]) {
            0 => Ok(Vec::new()),
            _ => self.call("unique_rows", |storage| storage.unique_rows(after, limit)),
        }
    }

    /// Not asked where there are no keys, for the same reason.
    fn lane_rows(
        &mut self,
        pool: PoolId,
        after: Option<&LanePlace>,
        limit: usize,
    ) -> Result<Vec<(LanePlace, LaneRow)>, StorageError> {
        match with(|world| world.has_keys()) {
            false => Ok(Vec::new()),
            true => self.call("lane_rows", |storage| storage.lane_rows(pool, after, limit)),
        }
    }

    fn close(&mut self) {
        if !self.gone() {
            if let Some(tables) = &mut self.tables {
                tables.close();
            }
            let _ = self.came_back(Ok(()));
        }
    }

    fn call<T: 'static>(
        &mut self,
        name: &'static str,
        call: impl FnOnce(&mut dyn Storage) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        self.begin(name, true)?;
        let answer = call(&mut **self.tables()?);
        self.came_back(answer)
    }

    fn commit(
        &mut self,
        changes: &mut Vec<Change>,
        now: Segment,
        fsync: Fsync,
    ) -> Result<(), StorageError> {
        let call = self.begin("commit", false)?;
        let answer_lost = with(|world| {
            let refused = if world.full && !world.quiet && world.disk.is_none() {
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
        let mut copy = changes.clone();
        let is_marked = with(|world| {
            TABLES.with_borrow_mut(|tables| match tables {
                Tables::Memory(_) => true,
                Tables::File(tables) => tables.committing(&mut copy, &mut world.rng),
            })
        });
        let answer = self.tables()?.commit(&mut copy.clone(), now, fsync);
        if answer.is_ok() && is_marked {
            if self.failed_syncs.1 > self.failed_syncs.0 {
                with(|world| world.violate("a commit is taken after a sync has failed"));
            }
            TABLES.with_borrow_mut(|tables| tables.committed(copy, now, fsync));
        } else if answer.is_ok() {
            TABLES.with_borrow_mut(|tables| tables.deferred(&copy));
        }
        if answer.is_ok() {
            with(|world| world.turns_go_on(changes));
        }
        self.came_back(answer)?;
        changes.clear();
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
    /// Generations and turns never go back.
    fn turns_go_on(&mut self, changes: &[Change]) {
        for change in changes {
            let Change::PutState { pool, state } = change else { continue };
            let turn = (state.generation.0, state.turn);
            let before = std::mem::replace(&mut self.pools[pool.0 as usize].turn, turn);
            if turn <= before {
                self.violate(format_args!(
                    "turn {turn:?} of {pool:?} is committed behind {before:?}"
                ));
            }
        }
    }

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
                Change::ReplaceWork { spec, to, .. } => {
                    (17, spec.work_id.as_u128() as u64 ^ to.seq)
                }
                Change::DeleteUnique { place } => (18, u64::from(place.0.0)),
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
                Change::PutLane { row, .. } => {
                    let row = row.unwrap_or_default();
                    let counts = [row.holders, row.running, row.waiting].map(u64::from);
                    (19, counts[0] ^ (counts[1] << 16) ^ (counts[2] << 32) ^ row.tag ^ row.tat)
                }
                Change::MarkRetried { finished } => (15, finished.work_id.as_u128() as u64),
                Change::InsertRunning { spec, key, run, .. } => {
                    (16, spec.work_id.as_u128() as u64 ^ key.seq ^ u64::from(*run))
                }
            };
            self.trace_number(about ^ (kind << 56));
        }
    }
}
