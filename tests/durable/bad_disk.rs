//! Disks that are full, fail, or give back something else than what was written: typed errors, nothing acknowledged
//! that is not there, and it goes on when the disk does.

use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::ledger::*;
use actix_workpool::model::{
    Batch, Change, Counts, Cursors, Demand, Finished, Name, Payload, PoolId, RunningRow, Segment,
    StateRow, TableKey, WorkFact, WorkId,
};
use actix_workpool::storage::{Fsync, Storage, StorageError};
use actix_workpool::{PoolConfig, WorkError};

/// A small log, so that checkpoints are made all the time.
const LOG: u64 = 16 << 10;

/// Where the tables begin in a file with that log.
const TABLES: usize = 4096 + LOG as usize;

// Files that are not what they were.

/// What can be asked of a pool.
type OfPool = (StateRow, Vec<RunningRow>, Vec<WorkId>, Counts, Batch);

/// Everything that can be asked of a store.
#[derive(PartialEq)]
struct Contents {
    opened: actix_workpool::storage::Opened,
    facts: Vec<Option<WorkFact>>,
    finished: Vec<Option<Arc<Finished>>>,
    expired: Vec<WorkId>,
    pools: Vec<OfPool>,
    rows: Vec<Vec<(TableKey, Payload)>>,
}

fn contents(path: &Path, ids: &[WorkId]) -> Result<Contents, StorageError> {
    let mut store = open(path, LOG)?.on_one_thread();
    let opened = store.open()?;
    let cursors = Cursors::default();
    let demand = Demand { cursors, free_slots: 1_000, batch_size: 1_000, ..Demand::default() };
    let mut pools = Vec::new();
    for pool in (0..5).map(PoolId) {
        pools.push((
            store.state(pool)?,
            store.running(pool)?,
            store.works(pool, None, usize::MAX)?,
            store.counts(pool, &cursors)?,
            store.read_batch(pool, demand, opened.clock)?,
        ));
    }
    let mut rows = Vec::new();
    for table in ["accounts", "completions", "blob"].map(Name::from_static) {
        rows.push(store.scan(table, &(Bound::Unbounded, Bound::Unbounded), usize::MAX)?);
    }
    let (facts, finished) = (store.facts(ids)?, store.finished(ids)?);
    let expired = store.expired(Segment(u64::MAX), 0, usize::MAX)?;
    Ok(Contents { opened, facts, finished, expired, pools, rows })
}

/// A store as a kill leaves it: works in every table, frames in both halves of the log. Also as it was one commit
/// before, and the jobs in it.
struct Image {
    path: PathBuf,
    bytes: Vec<u8>,
    ids: Vec<WorkId>,
    before: Contents,
    after: Contents,
}

impl Image {
    fn new(folder: &Path) -> Image {
        let path = folder.join("image.redb");
        let copy = folder.join("copy.redb");
        let ids = block_on(async {
            let store = open(&path, LOG).unwrap().on_one_thread();
            let hangs = actix_workpool::ActionKey::<u64, u64>::new("hangs");
            let endless = builder(store)
                .worker_arbiters(0)
                .action_fn(hangs, |_, _| async {
                    std::future::pending::<Result<_, WorkError>>().await
                })
                .pool("hangs", PoolConfig::default().max_parallelism(3));
            let runtime = endless.start().await.unwrap();
            let pool = |name| runtime.pool(name).unwrap();
            let (bank, mails, later) = (pool("bank"), pool("mail"), pool("later"));
            let mail = |number| Mail::new(number, Way::Straight);
            let works = mails.enqueue_batch((0..60).map(mail)).on_complete::<Count>(());
            let works = works.await.unwrap();
            works.join().await;
            for n in 0..10 {
                let transfer = Transfer { from: n % 3, to: 3, amount: 7 };
                bank.enqueue(transfer).await.unwrap().join().await.unwrap();
            }
            bank.idle().await.unwrap();
            mails.idle().await.unwrap();
            let later = later.enqueue_batch((0..60).map(mail));
            let later = later.run_after(Duration::from_secs(3600)).await.unwrap();
            let hanging = pool("hangs")
                .enqueue_batch((0..5).map(|n| hangs.call(n)))
                .into_future()
                .await
                .unwrap();
            hanging.handles().next().unwrap().cancel().await.unwrap();
            std::fs::copy(&path, &copy).unwrap();
            [works.ids(), later.ids(), hanging.ids()].concat()
        });
        // Opened, it has all of that in its tables; what follows is in the log.
        let mut store = open(&copy, LOG).unwrap().on_one_thread();
        let clock = store.open().unwrap().clock;
        let mut row = |number: u64| {
            let key = TableKey::from((number % 7).to_be_bytes().to_vec());
            let value = Payload::new(format!("\"{number} {}\"", "v".repeat(500)).as_bytes());
            let put = Change::PutRow { table: Name::from_static("blob"), key, value };
            store.commit(&mut vec![put], Segment(clock.0 + number), Fsync::Now).unwrap();
        };
        (0..25).for_each(&mut row);
        let before = std::fs::read(&copy).unwrap();
        row(25);
        let bytes = std::fs::read(&copy).unwrap();
        drop(store);
        let seen = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            contents(&path, &ids).unwrap()
        };
        let (before, after) = (seen(&before), seen(&bytes));
        assert!(before != after);
        Image { path, bytes, ids, before, after }
    }

    /// What is seen of a file with these bytes.
    fn seen(&self, bytes: &[u8]) -> Seen {
        std::fs::write(&self.path, bytes).unwrap();
        match catch_unwind(AssertUnwindSafe(|| contents(&self.path, &self.ids))) {
            Ok(Ok(contents)) if contents == self.after => Seen::Everything,
            Ok(Ok(contents)) if contents == self.before => Seen::AllButTheLastCommit,
            Ok(Ok(_)) => Seen::SomethingElse,
            Ok(Err(StorageError::NotOpened { .. } | StorageError::Poisoned(_))) => Seen::Damage,
            Ok(Err(error)) => panic!("{error}"),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                Seen::Panic(
                    text.or(panic.downcast_ref::<&str>().map(|s| s.to_string()))
                        .unwrap_or_default(),
                )
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Seen {
    Everything,
    AllButTheLastCommit,
    Damage,
    SomethingElse,
    Panic(String),
}

fn cases(least: u64) -> u64 {
    std::env::var("WORKPOOL_DAMAGE_CASES").map_or(least, |cases| cases.parse().unwrap())
}

#[test]
fn a_flipped_bit_of_the_header_or_the_log_is_an_error_or_does_no_harm() {
    let image = Image::new(&folder("flips-log"));
    for seed in 0..cases(250) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut bytes = image.bytes.clone();
        let at = rng.usize(..TABLES);
        bytes[at] ^= 1 << rng.u8(..8);
        match image.seen(&bytes) {
            Seen::Everything | Seen::Damage | Seen::AllButTheLastCommit => {}
            seen => panic!("seed {seed}: {seen:?} after byte {at}"),
        }
    }
}

#[test]
fn a_flipped_bit_of_the_tables_is_no_panic() {
    let image = Image::new(&folder("flips-tables"));
    let mut harm = 0;
    for seed in 0..cases(250) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut bytes = image.bytes.clone();
        let at = rng.usize(TABLES..bytes.len());
        bytes[at] ^= 1 << rng.u8(..8);
        match image.seen(&bytes) {
            Seen::Everything | Seen::Damage => {}
            // Values have checksums. A bit that is flipped in a key leaves a row that nobody asks for, and redb does not
            // check its pages when it reads them.
            Seen::SomethingElse => harm += 1,
            seen => panic!("seed {seed}: {seen:?} after byte {at}"),
        }
    }
    assert!(harm <= cases(250) / 50, "{harm} were not noticed");
}

#[test]
fn a_file_that_was_cut_short_is_an_error() {
    let image = Image::new(&folder("cuts"));
    let whole = image.bytes.len();
    let mut lens = vec![1, 23, 24, 100, 4095, 4096, TABLES - 1, TABLES, TABLES + 1, TABLES + 4096];
    lens.extend([whole - 4096, whole - 1]);
    let mut rng = fastrand::Rng::with_seed(1);
    lens.extend((0..cases(60)).map(|_| rng.usize(1..whole)));
    for len in lens {
        match image.seen(&image.bytes[..len]) {
            Seen::Damage => {}
            // The last page may be one that nobody uses.
            Seen::Everything if len >= whole - 4096 => {}
            seen => panic!("{seen:?} though cut to {len} of {whole} bytes"),
        }
    }
}

#[test]
fn a_store_whose_making_was_cut_short_is_made_again() {
    let path = folder("making").join("work.redb");
    for call in ["pwrite64", "fdatasync", "ftruncate"] {
        for number in 1.. {
            let _ = std::fs::remove_file(&path);
            let fault = format!("{call}:error=EIO:when={number}");
            let (mut child, lines) =
                spawn(&mut under_strace(&fault, "bad_disk::program_that_opens", &path));
            let mut notes = Notes::default();
            notes.take_all(lines);
            assert!(child.wait().unwrap().success() && notes.ended);
            drop(open(&path, LOG).unwrap());
            if notes.refused.is_empty() {
                assert!(number > 1, "{call} is not called");
                break;
            }
        }
    }
}

/// The program that only makes its file. As a test of its own it does nothing.
#[test]
fn program_that_opens() {
    let Some(path) = file_of_child() else { return };
    match open(&path, LOG) {
        // Not closed: all of its writes are those of its making.
        Ok(store) => std::mem::forget(store),
        Err(error) => println!("refused {error}"),
    }
    println!("end");
}

#[test]
fn a_file_that_is_not_ours_is_left_alone_and_named() {
    let folder = folder("foreign");
    let path = folder.join("foreign");
    let mut files = vec![
        b"SQLite format 3\0".repeat(1000),
        b"\x89PNG\r\n\x1a\n".repeat(2000),
        vec![0xff; 50_000],
        b"x".to_vec(),
        b"workpoo".to_vec(),
    ];
    let other = folder.join("other.redb");
    drop(redb::Database::create(&other).unwrap());
    files.push(std::fs::read(&other).unwrap());
    for bytes in files {
        std::fs::write(&path, &bytes).unwrap();
        let error = open(&path, LOG).unwrap_err();
        assert!(matches!(error, StorageError::NotOpened { .. }), "{error:?}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "it was written to");
    }
}

#[test]
fn a_file_of_a_format_that_never_was_is_refused() {
    let path = folder("layout").join("work.redb");
    drop(open(&path, LOG).unwrap());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[8] = 1;
    let checksum = twox_hash::XxHash3_64::oneshot(&bytes[..16]);
    bytes[16..24].copy_from_slice(&checksum.to_le_bytes());
    std::fs::write(&path, &bytes).unwrap();
    let error = open(&path, LOG).unwrap_err().to_string();
    assert!(error.contains("format 1, this program reads 2 to 6"), "{error}");
}

#[test]
fn an_empty_file_is_made_a_store() {
    let path = folder("empty").join("work.redb");
    for bytes in [vec![], vec![0; 10], vec![0; 4096]] {
        std::fs::write(&path, bytes).unwrap();
        drop(open(&path, LOG).unwrap());
        drop(open(&path, LOG).unwrap());
    }
}

// Disks that fail.

/// The program whose disk is bad. As a test of its own it does nothing.
#[test]
fn program_with_a_bad_disk() {
    let Some(path) = file_of_child() else { return };
    block_on(async {
        let runtime = match open(&path, LOG) {
            Ok(storage) => builder(storage).worker_arbiters(1).start().await,
            Err(error) => Err(error.into()),
        };
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return println!("refused {error}\nend"),
        };
        let mut rng = fastrand::Rng::with_seed(3);
        for _ in 0..60 {
            if works(&runtime, &mut rng).await.is_err() {
                break;
            }
        }
        // Once more: what is lost stays lost.
        let _ = works(&runtime, &mut rng).await;
        runtime.shutdown(Duration::ZERO).await;
        println!("end");
    });
}

/// What was heard of the program with this fault.
fn with_fault(fault: &str, path: &Path) -> Notes {
    let mut command = under_strace(fault, "bad_disk::program_with_a_bad_disk", path);
    let (mut child, lines) = spawn(&mut command);
    let mut notes = Notes::default();
    notes.take_all(lines);
    let status = child.wait().unwrap();
    assert!(status.success() && notes.ended, "{fault}: {status}, {:?}", notes.refused);
    notes
}

#[test]
fn after_a_sync_that_failed_nothing_is_acknowledged_until_the_store_is_opened_again() {
    let folder = folder("sync");
    // Of the whole file, in its making and in checkpoints, and of single commits.
    let whole = [1, 2, 3, 4, 5, 6, 8].map(|number| ("fdatasync", number));
    let parts = [1, 2, 3, 4, 5, 6, 8, 13, 20, 40, 80].map(|number| ("pwritev2", number));
    for (call, number) in whole.into_iter().chain(parts) {
        let path = folder.join(format!("{call}-{number}.redb"));
        // Only this one fails: the system would let the next one succeed.
        let notes = with_fault(&format!("{call}:error=EIO:when={number}"), &path);
        let refused = notes.refused.first().expect("something was refused");
        let says = ["must be reopened", "failed to open"].iter().any(|it| refused.contains(it));
        assert!(says, "{number}: {refused}");
        assert_eq!(notes.before_refused, notes.acknowledged.len(), "{number}: {:?}", notes.refused);
        block_on(assert_holds(&path, &notes));
    }
}

#[test]
fn a_disk_that_takes_nothing_for_a_while_is_waited_for() {
    let folder = folder("writes");
    for (number, fault) in [
        "pwrite64:error=ENOSPC:when=20..48",
        "pwrite64:error=EIO:when=25..30",
        "pwrite64:error=EIO:when=30..200+10",
        "pwrite64:error=ENOSPC:when=31..80",
    ]
    .into_iter()
    .enumerate()
    {
        let path = folder.join(format!("{number}.redb"));
        drop(open(&path, LOG).unwrap());
        let notes = with_fault(fault, &path);
        println!(
            "{fault}: {} {} {}",
            notes.refused.len(),
            notes.before_refused,
            notes.acknowledged.len()
        );
        for refused in &notes.refused {
            assert!(refused.contains("will be tried again"), "{fault}: {refused}");
        }
        assert!(notes.acknowledged.len() > notes.before_refused, "{fault}: it goes on");
        block_on(assert_holds(&path, &notes));
    }
}

#[test]
fn a_disk_that_takes_nothing_any_more_keeps_what_it_has() {
    let folder = folder("dead");
    for number in [1, 2, 7, 30, 90] {
        let path = folder.join(format!("{number}.redb"));
        let notes = with_fault(&format!("pwrite64:error=EIO:when={number}+"), &path);
        assert!(!notes.refused.is_empty());
        block_on(assert_holds(&path, &notes));
    }
}

#[test]
fn a_file_that_may_only_be_read_is_refused() {
    let path = folder("read-only").join("work.redb");
    drop(open(&path, LOG).unwrap());
    let notes = with_fault("openat:error=EROFS", &path);
    assert!(notes.acknowledged.is_empty());
    assert!(notes.refused[0].contains("Read-only file system"), "{:?}", notes.refused);
    assert!(notes.refused[0].contains(path.to_str().unwrap()), "{:?}", notes.refused);
}

/// The program that fills its disk. As a test of its own it does nothing.
#[test]
fn program_that_fills_its_disk() {
    let Some(path) = file_of_child() else { return };
    block_on(async {
        let storage = open(&path, LOG).unwrap();
        let runtime = builder(storage).worker_arbiters(1).start().await.unwrap();
        let (mail, later) = (runtime.pool("mail").unwrap(), runtime.pool("later").unwrap());
        let mut running = Vec::new();
        let (mut refused, mut after) = (false, 0);
        while after < 30 {
            let text = "x".repeat(4000);
            let work = later.enqueue(Mail { text, ..Mail::new(1, Way::Straight) });
            let work = work.on_complete::<Count>(()).run_after(Duration::from_secs(3600)).await;
            let taken = work.is_ok();
            say("later", work.as_ref().map(|work| work.id())).unwrap();
            let work = mail.enqueue(Mail::new(2, Way::SecondTime)).on_complete::<Count>(()).await;
            say("mail", work.as_ref().map(|work| work.id())).unwrap();
            running.extend(work);
            refused |= !taken;
            after += u32::from(refused && taken);
        }
        // What ran when there was no room has its outcome.
        for work in running {
            assert_eq!(work.join().await, Ok(2));
        }
        runtime.shutdown(Duration::ZERO).await;
        println!("end");
    });
}

#[test]
fn a_full_disk_refuses_jobs_until_there_is_room_again() {
    let path = folder("full").join("work.redb");
    // No file of this program may grow beyond that; a signal would end it, if it were not ignored.
    let limits = "trap '' XFSZ; exec prlimit --fsize=1000000:unlimited \"$0\" \"$@\"";
    let inner = program("bad_disk::program_that_fills_its_disk", &path);
    let mut command = std::process::Command::new("sh");
    command.args(["-c", limits]).arg(inner.get_program()).args(inner.get_args());
    for (name, value) in inner.get_envs() {
        command.env(name, value.unwrap());
    }
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let (mut child, mut lines) = spawn(&mut command);
    let mut notes = Notes::default();
    while notes.refused.len() < 20 {
        notes.take(&lines.next().expect("it goes on while there is no room").unwrap());
    }
    assert!(std::fs::metadata(&path).unwrap().len() <= 1_000_000);
    assert!(notes.refused[0].contains("will be tried again"), "{}", notes.refused[0]);
    let mut raise = std::process::Command::new("prlimit");
    raise.arg("--pid").arg(child.id().to_string()).arg("--fsize=unlimited");
    assert!(raise.status().unwrap().success());
    notes.take_all(lines);
    assert!(child.wait().unwrap().success() && notes.ended);
    assert!(notes.acknowledged.len() > notes.before_refused);
    block_on(assert_holds(&path, &notes));
}
