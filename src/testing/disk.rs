//! A simulated disk in memory, for tests. After a crash, unsynced writes are there in full, in part, or not at all.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::storage::{Checkpoints, Disk, Redb, StorageError};

/// The size of a sector in bytes: a disk writes a sector in full or not at all.
const SECTOR: usize = 512;

/// A disk in memory that fails on request.
#[derive(Clone, Debug, Default)]
pub struct SimDisk(Arc<Mutex<Platter>>);

#[derive(Debug, Default)]
pub(crate) struct Platter {
    /// The bytes that reads return.
    pub(crate) seen: Vec<u8>,
    /// The bytes that are certain to survive a crash.
    synced: Vec<u8>,
    /// The steps since the last sync.
    pending: Vec<Step>,
    /// The number of writes, changes of length, and syncs so far.
    pub(crate) steps: u64,
    /// The step at which the machine stops. This step and all later ones do not happen.
    pub(crate) stops_at: Option<u64>,
    /// `true` if the machine has stopped: a step was not done.
    stopped: bool,
    /// The range of steps during which the disk is full.
    pub(crate) full: Option<(u64, u64)>,
    /// The first sync at or after this step fails, once. Its data may be on the disk or not.
    pub(crate) sync_fails_at: Option<u64>,
    pub(crate) syncs: Vec<u64>,
    /// The first write or change of length at or after this step fails, once, with a part of it done.
    write_fails_at: Option<u64>,
    reads: u64,
    /// The first read at or after this one fails, once.
    read_fails_at: Option<u64>,
    failures: u64,
    failed_syncs: u64,
    /// The seed that decides which sectors a failed sync keeps.
    pub(crate) chance: u64,
}

/// The operation that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failing {
    /// Nothing is read.
    Read,
    /// Only a part is written.
    Write,
    /// Reads return the writes since the last sync, but these may never reach the disk.
    Sync,
}

#[derive(Clone, Debug)]
enum Step {
    Write(usize, Vec<u8>),
    SetLen(usize),
}

impl SimDisk {
    pub(crate) fn platter(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Creates a disk with these bytes, all of them synced.
    #[must_use]
    pub fn holding(bytes: Vec<u8>) -> SimDisk {
        let platter = Platter { seen: bytes.clone(), synced: bytes, ..Platter::default() };
        SimDisk(Arc::new(Mutex::new(platter)))
    }

    /// The number of writes, changes of length, and syncs so far.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.platter().steps
    }

    /// Stops the machine in `steps` steps: that step and all later ones do not happen.
    pub fn stop_after(&self, steps: u64) {
        let mut platter = self.platter();
        platter.stops_at = Some(platter.steps + steps);
    }

    /// Stops the machine: nothing is written any more.
    pub fn stop(&self) {
        let mut platter = self.platter();
        platter.stopped = true;
        platter.stops_at = Some(0);
    }

    /// Returns `true` if the machine has stopped.
    #[must_use]
    pub fn has_stopped(&self) -> bool {
        self.platter().stopped
    }

    /// Makes the disk full, or gives it space again.
    pub fn set_full(&self, full: bool) {
        self.platter().full = full.then_some((0, u64::MAX));
    }

    /// Makes the disk fail once, after `steps` more steps or reads. `chance` decides what a failed sync keeps.
    pub fn fail_after(&self, steps: u64, failing: Failing, chance: u64) {
        let mut platter = self.platter();
        platter.chance = chance;
        let step = platter.steps + steps + 1;
        match failing {
            Failing::Read => platter.read_fails_at = Some(platter.reads + steps + 1),
            Failing::Write => platter.write_fails_at = Some(step),
            Failing::Sync => platter.sync_fails_at = Some(step),
        }
    }

    /// Cancels the planned failures.
    pub fn heal(&self) {
        let mut platter = self.platter();
        (platter.read_fails_at, platter.write_fails_at, platter.sync_fails_at) = (None, None, None);
    }

    /// Returns the number of failures.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.platter().failures
    }

    /// Returns the number of failed syncs.
    #[must_use]
    pub fn failed_syncs(&self) -> u64 {
        self.platter().failed_syncs
    }

    /// Returns a copy of the disk for the next process. Later writes of the old process do not appear in it.
    #[must_use]
    pub fn for_next_process(&self) -> SimDisk {
        let platter = self.platter();
        let next = Platter {
            seen: platter.seen.clone(),
            synced: platter.synced.clone(),
            pending: platter.pending.clone(),
            ..Platter::default()
        };
        SimDisk(Arc::new(Mutex::new(next)))
    }

    /// Returns what a crash may leave: of each write since the last sync, a random subset of its sectors.
    #[must_use]
    pub fn remains(&self, rng: &mut fastrand::Rng) -> Vec<u8> {
        let platter = self.platter();
        let mut bytes = platter.synced.clone();
        // All or nothing is frequent, because these are the likely cases.
        let kept = [0.0, 0.2, 0.5, 0.9, 1.0][rng.usize(..5)];
        for step in &platter.pending {
            step.reach(&mut bytes, kept, rng);
        }
        bytes
    }
}

/// Returns how many bytes of a write are done by a disk that fails in the middle of it.
fn half(offset: usize, len: usize) -> usize {
    ((offset + len / 2) / SECTOR * SECTOR).saturating_sub(offset)
}

impl Step {
    /// Applies a part of the step: each sector with the probability `kept`.
    fn reach(&self, bytes: &mut Vec<u8>, kept: f64, rng: &mut fastrand::Rng) {
        match self {
            Step::SetLen(len) => {
                if rng.f64() < kept {
                    bytes.resize(*len, 0);
                }
            }
            Step::Write(offset, data) => {
                let mut at = 0;
                while at < data.len() {
                    let end = ((offset + at) / SECTOR + 1) * SECTOR - offset;
                    let end = end.min(data.len());
                    if rng.f64() < kept {
                        if bytes.len() < offset + end {
                            bytes.resize(offset + end, 0);
                        }
                        bytes[offset + at..offset + end].copy_from_slice(&data[at..end]);
                    }
                    at = end;
                }
            }
        }
    }
}

impl Platter {
    /// Drops earlier pending writes to the bytes from `from` to `until`.
    fn supersede(&mut self, from: usize, until: usize) {
        for step in std::mem::take(&mut self.pending) {
            match step {
                Step::Write(offset, data) if offset < until && from < offset + data.len() => {
                    if offset < from {
                        self.pending.push(Step::Write(offset, data[..from - offset].to_vec()));
                    }
                    if until < offset + data.len() {
                        self.pending.push(Step::Write(until, data[until - offset..].to_vec()));
                    }
                }
                step => self.pending.push(step),
            }
        }
    }

    fn step(&mut self) -> io::Result<()> {
        self.steps += 1;
        match self.stops_at {
            Some(stop) if self.steps >= stop => {
                self.stopped = true;
                Err(io::Error::other("the machine has stopped"))
            }
            _ => Ok(()),
        }
    }

    /// Syncs these steps to the disk, unless the sync fails.
    fn sync(&mut self, steps: Vec<Step>) -> io::Result<()> {
        let step = self.steps;
        self.syncs.push(step);
        let fails = self.sync_fails_at.take_if(|at| *at <= step).is_some();
        // After a failed sync the system regards the data as written: no later sync writes it. The file's length is
        // always kept, since it is in the file system's journal.
        let mut rng = fastrand::Rng::with_seed(step ^ self.chance);
        let kept = if fails { [0.0, 0.5, 1.0][rng.usize(..3)] } else { 1.0 };
        for step in steps {
            let is_len = matches!(step, Step::SetLen(_));
            step.reach(&mut self.synced, if is_len { 1.0 } else { kept }, &mut rng);
        }
        match fails {
            true => {
                self.failed_syncs += 1;
                Err(self.fail())
            }
            false => Ok(()),
        }
    }

    fn fail(&mut self) -> io::Error {
        self.failures += 1;
        io::Error::other("the disk does not answer")
    }

    fn write_fails(&mut self) -> bool {
        let step = self.steps;
        self.write_fails_at.take_if(|at| *at <= step).is_some()
    }

    fn is_full(&self) -> bool {
        self.full.is_some_and(|(from, until)| (from..until).contains(&self.steps))
    }
}

impl Disk for SimDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.platter().seen.len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut platter = self.platter();
        platter.step()?;
        if platter.write_fails() {
            return Err(platter.fail());
        }
        let len = len as usize;
        if len > platter.seen.len() && platter.is_full() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        platter.seen.resize(len, 0);
        platter.pending.push(Step::SetLen(len));
        Ok(())
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let mut platter = self.platter();
        platter.reads += 1;
        let read = platter.reads;
        if platter.read_fails_at.take_if(|at| *at <= read).is_some() {
            return Err(platter.fail());
        }
        let offset = offset as usize;
        let bytes = platter.seen.get(offset..offset + into.len());
        into.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut platter = self.platter();
        platter.step()?;
        let offset = offset as usize;
        // Overwrites fail too, as on a disk that never writes in place. A part of the data is written anyway.
        let (fails, is_full) = (platter.write_fails(), platter.is_full());
        let bytes = if fails || is_full { &bytes[..half(offset, bytes.len())] } else { bytes };
        if platter.seen.len() < offset + bytes.len() {
            platter.seen.resize(offset + bytes.len(), 0);
        }
        platter.seen[offset..offset + bytes.len()].copy_from_slice(bytes);
        platter.pending.push(Step::Write(offset, bytes.to_vec()));
        match (fails, is_full) {
            (true, _) => Err(platter.fail()),
            (false, true) => Err(io::ErrorKind::StorageFull.into()),
            (false, false) => Ok(()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        let mut platter = self.platter();
        platter.step()?;
        let pending = std::mem::take(&mut platter.pending);
        platter.sync(pending)
    }

    fn syncs_parts(&self) -> bool {
        true
    }

    fn sync_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut platter = self.platter();
        platter.step()?;
        let offset = offset as usize;
        platter.supersede(offset, offset + bytes.len());
        platter.sync(vec![Step::Write(offset, bytes.to_vec())])
    }
}

/// Opens a store on `disk`. Each checkpoint ends at most `within` calls of the store after it began, drawn from
/// [`fastrand`]'s generator of the thread.
///
/// # Errors
/// Same as [`Redb::open`].
pub fn open(disk: &SimDisk, log_length: u64, within: u32) -> Result<Redb, StorageError> {
    Redb::on(disk.clone(), log_length, Checkpoints::Within(within))
}
