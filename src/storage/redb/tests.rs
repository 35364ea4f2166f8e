//! Crashes at every step, on a simulated disk that keeps an arbitrary part of what was not synced.

use std::sync::Arc;

use super::*;
use crate::model::{FunctionKind, PoolConfig, Priority, SpecHead};
use crate::storage::Memory;
use crate::testing::conformance::{KEYS, POOLS, Script, lane_pages, parts};
use crate::testing::disk::{Failing, SimDisk};

/// A small log, so that a short script wraps around several times, and a commit may be too large for it.
const LOG: u64 = 16 << 10;

fn open(disk: &SimDisk) -> Result<Redb, StorageError> {
    Redb::on(disk.clone(), LOG, Checkpoints::Within(0))
}

/// Opens a store. Depending on the seed, checkpoints run at once, some calls later, or on a thread, where errors come
/// at another time in each run.
fn open_any(disk: &SimDisk, seed: u64) -> Result<Redb, StorageError> {
    let checkpoints = match seed % 4 {
        0 => Checkpoints::Within(0),
        1 => Checkpoints::OnThread,
        2 => Checkpoints::Within(5),
        _ => Checkpoints::Within(60),
    };
    Redb::on(disk.clone(), LOG, checkpoints)
}

/// All parts of a place in `pending_start`.
type Place = (Priority, Segment, u64, StartPlace);

/// The results of all reads.
#[derive(Debug, PartialEq)]
struct Everything {
    facts: Vec<Option<WorkFact>>,
    /// All parts of the places of those that wait.
    places: Vec<Option<Place>>,
    finished: Vec<Option<Arc<Finished>>>,
    order: Vec<WorkId>,
    pools: Vec<PoolRows>,
    user: Vec<Vec<(TableKey, Payload)>>,
}

#[derive(Debug, PartialEq)]
struct PoolRows {
    opened: Option<(Name, PoolConfig, u64)>,
    state: StateRow,
    counts: Counts,
    running: Vec<RunningRow>,
    works: Vec<WorkId>,
    unregistered: Vec<(StartKey, Spec)>,
    listed: Vec<(StartKey, WorkId)>,
    lanes: Vec<(WorkKey, LaneRow)>,
    lane_jobs: Vec<Vec<(StartKey, Spec)>>,
    batch: Batch,
}

fn everything(storage: &mut dyn Storage, ids: &[WorkId]) -> Result<Everything, StorageError> {
    let mut pools = Vec::new();
    let opened = storage.open()?.pools;
    let last = Segment(u64::MAX - 1);
    for pool in (0..POOLS).map(PoolId) {
        let demand = Demand { free_slots: 1000, batch_size: 1000, ..Demand::default() };
        let opened = opened.iter().find(|row| row.pool == pool);
        let mut jobs = |key| storage.lane_jobs(pool, &WorkKey::new(key), usize::MAX);
        let lane_jobs: Result<_, _> = KEYS.into_iter().map(&mut jobs).collect();
        pools.push(PoolRows {
            opened: opened.map(|row| (row.name, row.config.clone(), row.pending)),
            state: storage.state(pool)?,
            counts: storage.counts(pool, &Cursors::default())?,
            running: storage.running(pool)?,
            works: storage.works(pool, None, usize::MAX)?,
            unregistered: storage.unregistered(pool, None, usize::MAX)?,
            listed: storage.pending_starts(pool, None, StartKey::END, usize::MAX)?,
            lanes: lane_pages(storage, pool, 3)?,
            lane_jobs: lane_jobs?,
            batch: storage.read_batch(pool, demand, last)?,
        });
    }
    let all = (Bound::Unbounded, Bound::Unbounded);
    let tables = ["t", "t2", ""].map(Name::from_static);
    let user: Result<_, _> =
        tables.into_iter().map(|table| storage.scan(table, &all, usize::MAX)).collect();
    let facts = storage.facts(ids)?;
    let place = |fact: &Option<WorkFact>| fact.as_ref()?.pending_start.map(parts);
    Ok(Everything {
        places: facts.iter().map(place).collect(),
        facts,
        finished: storage.finished(ids)?,
        order: storage.expired(last, 0, usize::MAX)?,
        pools,
        user: user?,
    })
}

/// A script and the commits that it has made so far.
struct Life {
    script: Script,
    commits: Vec<(Vec<Change>, Segment)>,
    /// The number of commits that are certain to survive a crash.
    safe: usize,
    /// The value of `safe` before the last synced commit.
    safe_before: usize,
    /// The number of commits in 256 that are larger than a half of the log.
    large: u8,
}

impl Life {
    fn new(seed: u64) -> Life {
        // Seeds the random numbers of the store.
        fastrand::seed(seed);
        let large = if seed % 8 < 6 { 8 } else { 64 };
        Life { script: Script::new(seed), commits: Vec::new(), safe: 0, safe_before: 0, large }
    }

    /// Makes the next commit, which may fail.
    fn go_on(&mut self, backend: &mut Redb) -> Result<(), StorageError> {
        let mut changes = match self.commits.len() {
            0 => Script::pools(),
            _ => self.script.draw(),
        };
        let script = &mut self.script;
        script.now = Segment(script.now.0 + script.rng.u64(..5));
        if script.rng.u8(..) < self.large {
            let value = Payload::new(&vec![b'7'; LOG as usize]);
            let (table, key) = (Name::from_static("t"), TableKey::from("large"));
            changes.push(Change::PutRow { table, key, value });
        }
        let fsync = if script.rng.bool() { Fsync::Now } else { Fsync::WithNext };
        self.commits.push((changes.clone(), script.now));
        script.memory.commit(&mut changes.clone(), script.now, fsync)?;
        backend.commit(&mut changes, script.now, fsync)?;
        if fsync == Fsync::Now {
            self.safe_before = self.safe;
            self.safe = self.commits.len();
        }
        Ok(())
    }

    /// Takes back all commits after the first `commits`.
    fn go_back_to(&mut self, commits: usize) {
        self.commits.truncate(commits);
        self.safe = commits;
        self.script.memory = Memory::new();
        for (changes, now) in &self.commits {
            let committed = self.script.memory.commit(&mut changes.clone(), *now, Fsync::Now);
            committed.expect("memory commits");
        }
    }

    /// Returns how many commits a store holds: all that are safe, and perhaps some of those after them.
    fn find(&mut self, backend: &mut Redb) -> usize {
        self.try_find(backend).expect("the store answers")
    }

    /// Retries [`Life::find`] for a store that may have no space to reopen its tables.
    fn find_when_it_answers(&mut self, backend: &mut Redb) -> usize {
        let found = (0..1_000).find_map(|_| self.try_find(backend).ok());
        found.expect("the store answers again when there is space")
    }

    /// Makes the next commit. If the store refuses it, finds out whether the commit is there, all or nothing, once the
    /// store answers again. Returns `true` if it was refused.
    fn go_on_or_back(&mut self, seed: u64, backend: &mut Redb) -> bool {
        let (before, safe) = (self.commits.len(), self.safe);
        let Err(error) = self.go_on(backend) else { return false };
        assert!(matches!(error, StorageError::Unavailable(_)), "seed {seed}: {error:?}");
        self.safe = before;
        let found = self.find_when_it_answers(backend);
        self.go_back_to(found);
        if found == before {
            // Reports that were to be synced with this commit are not safe yet.
            self.safe = safe;
        }
        true
    }

    fn try_find(&mut self, backend: &mut Redb) -> Result<usize, StorageError> {
        let ids = self.script.ids.clone();
        let theirs = everything(backend, &ids)?;
        for commits in (self.safe..=self.commits.len()).rev() {
            let mut memory = Memory::new();
            for (changes, now) in &self.commits[..commits] {
                memory.commit(&mut changes.clone(), *now, Fsync::Now).expect("memory commits");
            }
            if everything(&mut memory, &ids).expect("memory answers") == theirs {
                return Ok(commits);
            }
        }
        let (safe, all) = (self.safe, self.commits.len());
        panic!("the store is in no state that it was in between the commits {safe} and {all}");
    }
}

/// The number of repetitions of a random test.
fn rounds(default: u64) -> u64 {
    let rounds = std::env::var("WORKPOOL_CRASH_ROUNDS").ok();
    rounds.map_or(default, |rounds| rounds.parse().expect("a number"))
}

#[test]
fn a_crash_at_any_sync_leaves_what_was_acknowledged() {
    for seed in 0..rounds(40) / 20 {
        let run = |stops_at: Option<u64>| {
            let disk = SimDisk::default();
            disk.platter().stops_at = stops_at;
            let mut life = Life::new(seed);
            if let Ok(mut backend) = open(&disk) {
                while life.commits.len() < 60 && life.go_on(&mut backend).is_ok() {}
            }
            (disk, life)
        };
        let (undisturbed, _) = run(None);
        let syncs = undisturbed.platter().syncs.clone();
        assert!(syncs.len() > 60, "a script with checkpoints");
        let mut rng = fastrand::Rng::with_seed(seed);
        for sync in syncs {
            // Before the sync, and right after it.
            for stop in [sync, sync + 1] {
                let (disk, mut life) = run(Some(stop));
                let disk = SimDisk::holding(disk.remains(&mut rng));
                let mut backend =
                    open(&disk).unwrap_or_else(|error| panic!("{seed}/{stop}: {error}"));
                life.find(&mut backend);
            }
        }
    }
}

#[test]
fn crashes_one_after_the_other_also_while_recovering_leave_what_was_acknowledged() {
    for seed in 0..rounds(40) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut disk = SimDisk::default();
        let mut life = Life::new(seed);
        for _ in 0..8 {
            disk.platter().stops_at = Some(rng.u64(1..150));
            if let Ok(mut backend) = open_any(&disk, seed) {
                let found = life.find(&mut backend);
                life.go_back_to(found);
                while life.go_on(&mut backend).is_ok() {}
            }
            disk = SimDisk::holding(disk.remains(&mut rng));
        }
        let mut backend =
            open_any(&disk, seed).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        life.find(&mut backend);
    }
}

#[test]
fn a_full_disk_refuses_and_goes_on_when_there_is_space() {
    let mut refused = 0;
    for seed in 0..rounds(40) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let disk = SimDisk::default();
        let mut life = Life::new(seed);
        let mut backend = open_any(&disk, seed).expect("opens");
        let from = disk.platter().steps + rng.u64(..60);
        disk.platter().full = Some((from, from + rng.u64(1..200)));
        while life.commits.len() < 120 {
            refused += usize::from(life.go_on_or_back(seed, &mut backend));
        }
        let all = life.commits.len();
        assert_eq!(life.find(&mut backend), all, "seed {seed}");
        backend.close();
        let mut backend = open_any(&disk, seed).expect("opens again");
        assert_eq!(life.find(&mut backend), all, "seed {seed}: opened again");
    }
    assert!(refused > 40, "commits were refused");
}

#[test]
fn after_a_failed_sync_the_store_is_to_be_opened_again() {
    for seed in 0..rounds(40) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let disk = SimDisk::default();
        let mut life = Life::new(seed);
        let mut backend = open_any(&disk, seed).expect("opens");
        let steps = disk.platter().steps;
        disk.platter().sync_fails_at = Some(steps + rng.u64(..80));
        let error = loop {
            if let Err(error) = life.go_on(&mut backend) {
                break error;
            }
            assert!(life.commits.len() < 400, "seed {seed}: the sync fails");
        };
        assert!(matches!(error, StorageError::Poisoned(_)), "seed {seed}: {error:?}");
        for _ in 0..3 {
            let again = backend.commit(&mut Script::pools(), life.script.now, Fsync::Now);
            assert!(matches!(again, Err(StorageError::Poisoned(_))), "seed {seed}: {again:?}");
            let later = backend.commit(&mut Vec::new(), life.script.now, Fsync::WithNext);
            assert!(matches!(later, Err(StorageError::Poisoned(_))), "seed {seed}: {later:?}");
        }
        drop(backend);
        // The machine stops later. What the system could not write is lost then, though it was readable before.
        let mut reopened = open_any(&disk, seed).expect("opens again");
        let found = life.find(&mut reopened);
        life.go_back_to(found);
        drop(reopened);
        let disk = SimDisk::holding(disk.remains(&mut rng));
        let mut backend = open_any(&disk, seed).expect("opens after the crash");
        assert_eq!(life.find(&mut backend), found, "seed {seed}");
    }
}

#[test]
fn reads_and_writes_that_fail_are_errors_and_pass() {
    let mut failed = 0;
    for seed in 0..rounds(40) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let disk = SimDisk::default();
        let mut life = Life::new(seed);
        let mut backend = open_any(&disk, seed).expect("opens");
        while life.commits.len() < 120 {
            // After a failed write the tables are reopened, with an empty cache.
            if rng.u8(..4) == 0 {
                disk.fail_after(rng.u64(..20), Failing::Write, rng.u64(..));
            }
            if rng.bool() {
                disk.fail_after(rng.u64(..60), Failing::Read, rng.u64(..));
            }
            failed += usize::from(life.go_on_or_back(seed, &mut backend));
            disk.heal();
        }
        let all = life.commits.len();
        assert_eq!(life.find(&mut backend), all, "seed {seed}");
    }
    assert!(failed > 40, "commits were refused: {failed}");
}

#[test]
fn a_store_whose_making_a_sync_has_failed_keeps_what_it_takes_later() {
    let undisturbed = SimDisk::default();
    let backend = open(&undisturbed).expect("opens");
    let syncs = undisturbed.platter().syncs.clone();
    drop(backend);
    for sync in syncs {
        for seed in 0..rounds(40) {
            let mut rng = fastrand::Rng::with_seed(seed);
            let disk = SimDisk::default();
            disk.platter().sync_fails_at = Some(sync);
            disk.platter().chance = rng.u64(..);
            assert!(open(&disk).is_err(), "{sync}/{seed}");
            // Unwritten bytes stay readable until the machine stops.
            let mut backend = open(&disk).expect("opens again");
            let mut life = Life::new(seed);
            while life.commits.len() < 5 {
                life.go_on(&mut backend).expect("commits");
            }
            let disk = SimDisk::holding(disk.remains(&mut rng));
            life.find(&mut open(&disk).expect("opens after the crash"));
        }
    }
}

#[test]
fn what_was_refused_does_not_come_back_when_the_machine_stops() {
    let mut refused = 0;
    for seed in 0..rounds(100) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let disk = SimDisk::default();
        let mut life = Life::new(seed);
        let mut backend = open_any(&disk, seed).expect("opens");
        for _ in 0..rng.usize(3..60) {
            if rng.u8(..3) == 0 {
                disk.fail_after(rng.u64(..6), Failing::Write, rng.u64(..));
            }
            refused += u32::from(life.go_on_or_back(seed, &mut backend));
            disk.heal();
        }
        let disk = SimDisk::holding(disk.remains(&mut rng));
        life.find(&mut open(&disk).expect("opens after the crash"));
    }
    assert!(refused > 100, "commits were refused: {refused}");
}

#[test]
fn without_syncs_a_process_loses_nothing_and_a_machine_only_the_end() {
    let mut lost = 0;
    for seed in 0..rounds(40) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let disk = SimDisk::default();
        let mut life = Life::new(seed);
        let mut backend = open(&disk).expect("opens").durability(Durability::Process);
        for _ in 0..rng.usize(1..80) {
            life.go_on(&mut backend).expect("commits");
        }
        // Before the backend is dropped, which syncs the tables.
        let machine = SimDisk::holding(disk.remains(&mut rng));
        let process = SimDisk::holding(disk.platter().seen.clone());
        life.find(&mut open(&process).expect("opens after the process"));
        life.safe = 0;
        let found = life.find(&mut open(&machine).expect("opens after the machine"));
        lost += life.commits.len() - found;
    }
    assert!(lost > 20, "a sync matters: {lost}");
}

#[test]
fn a_flipped_bit_in_the_log_is_found_unless_it_is_in_the_last_commit() {
    let mut found = 0;
    for seed in 0..rounds(60) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let disk = SimDisk::default();
        let mut life = Life::new(seed);
        let mut backend = open(&disk).expect("opens");
        for _ in 0..rng.usize(1..60) {
            life.go_on(&mut backend).expect("commits");
        }
        drop(backend);
        let mut bytes = disk.platter().seen.clone();
        let place = rng.usize(4096..4096 + LOG as usize);
        bytes[place] ^= 1 << rng.u8(..8);
        match open(&SimDisk::holding(bytes)) {
            Err(StorageError::Poisoned(error)) => {
                assert!(error.contains("damaged"), "seed {seed}: {error}");
                found += 1;
            }
            Err(error) => panic!("seed {seed}: {error:?}"),
            Ok(mut backend) => {
                // The damage is in unused space, in frames that the tables contain, or in the last commit.
                life.safe = life.safe_before;
                life.find(&mut backend);
            }
        }
    }
    assert!(found > 0, "some of them matter");
}

#[test]
fn everything_comes_back_from_the_log_alone_and_from_the_tables_alone() {
    let mut full = 0;
    for seed in 0..rounds(40) {
        let open = |disk: &SimDisk| Redb::on(disk.clone(), 8 << 20, Checkpoints::Within(0));
        let killed = |disk: &SimDisk| SimDisk::holding(disk.platter().seen.clone());
        let filled = |backend: &Redb| backend.store.as_ref().map(|store| store.filled);
        let disk = SimDisk::default();
        let mut life = Life { large: 0, ..Life::new(seed) };
        let mut backend = open(&disk).expect("opens");
        while life.commits.len() < 80 {
            life.go_on(&mut backend).expect("commits");
        }
        backend.commit(&mut Vec::new(), life.script.now, Fsync::Now).expect("commits");
        life.safe = life.commits.len();
        let none = filled(&backend).expect("open");
        assert!(!none.starts && !none.ready && !none.in_lanes && !none.lanes, "seed {seed}");
        let disk = killed(&disk);
        // Opening writes what the log had to the tables, and begins the log anew.
        life.find(&mut open(&disk).expect("opens from the log"));
        let disk = killed(&disk);
        let mut backend = open(&disk).expect("opens from the tables");
        let all = filled(&backend).expect("open");
        full += u64::from(all.starts && all.ready && all.in_lanes && all.lanes);
        life.find(&mut backend);
        // Rows of the tables are changed and deleted, and others hide them until the next checkpoint.
        for _ in 0..40 {
            life.go_on(&mut backend).expect("commits");
        }
        backend.commit(&mut Vec::new(), life.script.now, Fsync::Now).expect("commits");
        life.safe = life.commits.len();
        life.find(&mut backend);
        life.find(&mut open(&killed(&disk)).expect("opens from both"));
        backend.compact().expect("writes everything to the tables");
        life.find(&mut backend);
    }
    assert!(full > rounds(40) / 2, "there are rows in every table: {full}");
}

#[test]
fn what_has_left_a_lane_is_not_looked_at_again() {
    let mut script = Script::new(1);
    let mut backend = open(&SimDisk::default()).expect("opens");
    let (pool, key) = (PoolId(0), WorkKey::new(b"key"));
    let mut commit = |backend: &mut Redb, mut changes: Vec<Change>| {
        script.now = Segment(script.now.0 + 1);
        backend.commit(&mut changes, script.now, Fsync::Now).expect("commits");
    };
    commit(&mut backend, Script::pools());
    let place = |seq| StartKey { seq, ..StartKey::LANES };
    let job = |number: u64| {
        let head = SpecHead {
            pool,
            kind: FunctionKind::Action,
            function: Name::from_static("f"),
            enqueued_at: Segment(0),
            priority: Priority::NORMAL,
            options: None,
        };
        let work_id = WorkId::from_uuid(uuid::Uuid::from_u128(number.into()));
        Spec::keyed(work_id, head, key.as_bytes(), 1, b"1")
    };
    let jobs: Vec<_> = (1..9).map(|seq| (place(seq), job(seq))).collect();
    let insert =
        |(key, spec): &(StartKey, Spec)| Change::InsertWork { spec: spec.clone(), key: *key };
    commit(&mut backend, jobs.iter().map(insert).collect());
    let first = |backend: &mut Redb| {
        let rows = backend.lane_jobs(pool, &key, 1).expect("answers");
        rows.first().map(|(key, _)| key.seq)
    };
    let from = |backend: &Redb| {
        let store = backend.store.as_ref().expect("open");
        store.memtable.lanes_from.get(&(pool, key.clone())).copied()
    };
    let moved = |(place, spec): &(StartKey, Spec), out: bool| {
        let ready = place.in_place(StartPlace::Ready { tag: 1 });
        let (from, to) = if out { (*place, ready) } else { (ready, *place) };
        Change::MovePendingStart { work_id: spec.work_id, pool, from, to }
    };
    for checkpointed in [false, true] {
        if checkpointed {
            backend.compact().expect("writes everything to the tables");
            assert_eq!(from(&backend), None);
        }
        for (number, job) in (1..).zip(&jobs[..5]) {
            assert_eq!(first(&mut backend), Some(number));
            commit(&mut backend, vec![moved(job, true)]);
            assert_eq!(first(&mut backend), Some(number + 1));
            assert_eq!(from(&backend), Some(number + 1));
        }
        for job in jobs[..5].iter().rev() {
            commit(&mut backend, vec![moved(job, false)]);
            assert_eq!(first(&mut backend), Some(job.0.seq));
        }
    }
}

/// Files of killed processes, in the oldest format and in the previous one.
const EARLIER: [&[u8]; 2] = [
    include_bytes!("../../../tests/data/format-2.redb.gz"),
    include_bytes!("../../../tests/data/format-5.redb.gz"),
];

fn unpacked(packed: &[u8]) -> Vec<u8> {
    use std::io::Read;
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(packed).read_to_end(&mut bytes).expect("unpacked");
    bytes
}

#[test]
fn a_kill_at_any_step_of_an_upgrade_loses_nothing() {
    for (packed, waiting, finished) in [(EARLIER[0], 3, 43), (EARLIER[1], 8, 44)] {
        let earlier = unpacked(packed);
        let ids = (1..=6).chain(11..=16).map(|id| WorkId::from_uuid(uuid::Uuid::from_u128(id)));
        let ids: Vec<_> = ids.collect();
        let untouched = SimDisk::holding(earlier.clone());
        let expected = everything(&mut open(&untouched).expect("it opens"), &ids).expect("read");
        assert_eq!(expected.facts.iter().flatten().count(), waiting, "running, delayed, waiting");
        assert_eq!(expected.order.len(), finished);
        let mut rng = fastrand::Rng::with_seed(5);
        for steps in 0.. {
            let disk = SimDisk::holding(earlier.clone());
            disk.stop_after(steps);
            let opened = open(&disk);
            assert!(opened.is_ok() || disk.has_stopped(), "only the kill keeps it from opening");
            drop(opened);
            let remains = SimDisk::holding(disk.remains(&mut rng));
            let mut again = open(&remains).expect("it opens again");
            let told = everything(&mut again, &ids).expect("read");
            assert_eq!(told, expected, "killed after {steps} steps");
            if !disk.has_stopped() {
                assert!(steps > 5, "an upgrade writes something");
                break;
            }
        }
    }
}
