//! The embedded file: what was acknowledged is there after a restart, and after a kill.

use std::path::Path;
use std::time::Duration;

use crate::ledger::*;
use actix_workpool::model::{
    Change, FunctionKind, Generation, Name, Payload, PoolId, Priority, Segment, Spec, SpecHead,
    StartKey, TableKey,
};
use actix_workpool::storage::{Fsync, Redb, Storage, StorageError};
use actix_workpool::{
    Action, ActionContext, FailureKind, Outcome, PoolConfig, Retention, RetryBehavior, Runtime,
    StartError, WorkError, WorkId, WorkStatus,
};
use serde::{Deserialize, Serialize};

async fn start(path: &Path, paused: bool) -> Result<Runtime, StartError> {
    builder_that_is(open(path, SMALL)?, paused).start().await
}

#[test]
fn jobs_wait_in_the_file_for_the_next_start() {
    let path = folder("restart").join("work.redb");
    let (ids, delayed) = block_on(async {
        let runtime = start(&path, true).await.unwrap();
        let mail = runtime.pool("mail").unwrap();
        let works = (0..20).map(|number| {
            Mail::new(number, if number % 4 == 0 { Way::SecondTime } else { Way::Straight })
        });
        let works = mail.enqueue_batch(works).on_complete::<Count>(()).await.unwrap();
        let delayed = mail.enqueue(Mail::new(99, Way::Straight));
        let delayed = delayed.run_after(Duration::from_millis(300)).await.unwrap();
        let report = runtime.shutdown(Duration::ZERO).await;
        assert_eq!(report.pending, 21);
        (works.ids().to_vec(), delayed.id())
    });
    block_on(async {
        let runtime = start(&path, false).await.unwrap();
        let mail = runtime.pool("mail").unwrap();
        for (number, id) in ids.iter().enumerate() {
            assert_eq!(mail.work::<u64>(*id).join().await, Ok(number as u64));
        }
        assert_eq!(mail.work::<u64>(delayed).join().await, Ok(99));
        mail.idle().await.unwrap();
        let (_, completions) = runtime.query(Totals).await.unwrap();
        assert_eq!(completions, ids.iter().map(|id| (*id, 1)).collect());
        runtime.shutdown(Duration::ZERO).await;
    });
    block_on(async {
        let runtime = start(&path, false).await.unwrap();
        let mail = runtime.pool("mail").unwrap();
        assert_eq!(mail.work::<u64>(ids[3]).join().await, Ok(3), "outcomes are remembered");
        assert!(mail.diagnostics().await.unwrap().report.succeeded >= 21);
        runtime.shutdown(Duration::ZERO).await;
    });
}

#[test]
fn the_file_is_one_runtimes_at_a_time() {
    let path = folder("in-use").join("work.redb");
    let first = Redb::open(&path).unwrap();
    assert_eq!(Redb::open(&path).unwrap_err(), StorageError::InUse);
    drop(first);
    open(&path, SMALL).unwrap();
}

#[test]
fn what_is_no_store_is_an_error_that_names_it() {
    let folder = folder("bad");
    let text = folder.join("text");
    std::fs::write(&text, "not a store, but longer than any header ".repeat(500)).unwrap();
    let whole = folder.join("whole.redb");
    drop(Redb::open(&whole).unwrap());
    let cut = folder.join("cut.redb");
    let bytes = std::fs::read(&whole).unwrap();
    std::fs::write(&cut, &bytes[..bytes.len() / 3]).unwrap();
    let problems = ["it is a folder", "begins with \"not a st\"", "", "create it first"];
    let paths = [&folder, &text, &cut, &folder.join("no/such/folder/work.redb")];
    for (path, problem) in paths.into_iter().zip(problems) {
        let error = Redb::open(path).unwrap_err();
        assert!(matches!(error, StorageError::NotOpened { .. }), "{error:?}");
        let told = error.to_string();
        assert!(told.contains(path.to_str().unwrap()) && told.contains(problem), "{told}");
    }
    let nowhere = Redb::open("").unwrap_err().to_string();
    assert!(nowhere.contains("the path is empty"), "{nowhere}");
}

#[test]
fn a_start_in_a_commit_that_the_log_has_no_room_for_is_not_forgotten() {
    // Into the other half of the log, and past it into the tables.
    for len in [3_000, 6_000] {
        let path = folder("room").join("work.redb");
        let again = || open(&path, 8 << 10).unwrap().on_one_thread();
        let (pool, clock) = (PoolId(0), Segment(1));
        let commit = |store: &mut Redb, mut changes| {
            store.commit(&mut changes, clock, Fsync::Now).unwrap();
        };
        let row = |len| {
            let value = Payload::new(format!("{:?}", "x".repeat(len)).as_bytes());
            Change::PutRow { table: Name::from_static("t"), key: TableKey::from("k"), value }
        };
        let work_id = WorkId::from_uuid(uuid::Uuid::from_u128(1));
        let spec = Spec::new(
            work_id,
            SpecHead {
                pool,
                kind: FunctionKind::Action,
                function: Name::from_static("f"),
                enqueued_at: clock,
                priority: Priority::NORMAL,
                options: None,
            },
            b"1",
        );
        let key = StartKey { segment: clock, seq: 1, ..StartKey::default() };
        let mut store = again();
        commit(&mut store, vec![Change::InsertWork { spec, key }]);
        store.close();
        // Now it is only in the tables.
        let mut store = again();
        commit(&mut store, vec![row(1_500)]);
        let generation = Generation(1);
        let start = Change::StartWork { work_id, pool, key, run: 1, started: clock, generation };
        commit(&mut store, vec![start, row(len)]);
        let running = store.running(pool).unwrap();
        assert_eq!(running.len(), 1, "{len} bytes");
        assert_eq!(running[0].work.spec.work_id, work_id);
    }
}

// The process is killed.

/// The program that is killed at random. As a test of its own it does nothing.
#[test]
fn program() {
    let Some(path) = file_of_child() else { return };
    block_on(async {
        let runtime = builder(open(&path, SMALL).unwrap()).start().await.unwrap();
        let mut rng = fastrand::Rng::new();
        loop {
            works(&runtime, &mut rng).await.unwrap();
        }
    });
}

#[test]
fn nothing_acknowledged_is_lost_or_done_twice_when_the_process_is_killed() {
    let rounds =
        std::env::var("WORKPOOL_KILL_ROUNDS").map_or(200, |rounds| rounds.parse().unwrap());
    let folder = folder("kill");
    let mut rng = fastrand::Rng::new();
    for (number, log) in [8 << 10, 64 << 10, 256 << 10, 1 << 20].into_iter().enumerate() {
        let path = folder.join(format!("{number}.redb"));
        drop(open(&path, log).unwrap());
        let mut notes = Notes::default();
        for _ in 0..rounds / 4 {
            let (mut child, mut lines) =
                spawn(&mut crate::ledger::program("files::program", &path));
            let mut left = rng.u32(1..40);
            // Killed in the middle of what follows the last acknowledgement that was waited for.
            while left > 0 {
                let line = lines.next().expect("it goes on until it is killed").unwrap();
                left -= u32::from(notes.take(&line));
            }
            child.kill().unwrap();
            child.wait().unwrap();
            notes.take_all(lines);
        }
        assert!(notes.acknowledged.len() >= rounds / 4 && notes.refused.is_empty());
        block_on(assert_holds(&path, &notes));
    }
}

/// The program that is killed at each of its writes; everything is on one thread, so that they are counted. As a test
/// of its own it does nothing.
#[test]
fn scripted_program() {
    let Some(path) = file_of_child() else { return };
    block_on(async {
        let mut rng = fastrand::Rng::with_seed(5);
        for _ in 0..2 {
            let storage = open(&path, 8 << 10).unwrap().on_one_thread();
            let runtime = builder(storage).worker_arbiters(0).start().await.unwrap();
            for _ in 0..5 {
                works(&runtime, &mut rng).await.unwrap();
            }
            for name in ["bank", "mail", "once"] {
                runtime.pool(name).unwrap().idle().await.unwrap();
            }
            runtime.shutdown(Duration::ZERO).await;
        }
        println!("end");
    });
}

/// Kills the scripted program at its first, second, third … call; says how many there were, at most `most`.
#[cfg(target_os = "linux")]
fn kill_at_each(call: &str, most: u32) -> u32 {
    let folder = folder(call);
    for number in 1..=most {
        let path = folder.join("work.redb");
        let _ = std::fs::remove_file(&path);
        let fault = format!("{call}:signal=KILL:when={number}");
        let (mut child, lines) = spawn(&mut under_strace(&fault, "files::scripted_program", &path));
        let mut notes = Notes::default();
        notes.take_all(lines);
        let status = child.wait().unwrap();
        assert!(notes.refused.is_empty() && status.success() == notes.ended, "{fault}: {status}");
        block_on(assert_holds(&path, &notes));
        if notes.ended {
            return number - 1;
        }
    }
    most
}

#[cfg(target_os = "linux")]
fn most(writes: u32) -> u32 {
    std::env::var("WORKPOOL_KILL_WRITES").map_or(writes, |writes| writes.parse().unwrap())
}

#[cfg(target_os = "linux")]
#[test]
fn a_kill_at_any_write_loses_nothing() {
    assert!(kill_at_each("pwrite64", most(150)) >= 50, "the script writes more than that");
}

#[cfg(target_os = "linux")]
#[test]
fn a_kill_at_any_sync_or_change_of_size_loses_nothing() {
    assert!(kill_at_each("pwritev2", most(60)) >= 30, "the script commits more than that");
    assert!(kill_at_each("fdatasync", most(20)) >= 4, "the script has more checkpoints than that");
    assert!(kill_at_each("ftruncate", most(20)) >= 2, "the script makes the file longer");
}

const POISON: WorkId = WorkId::from_uuid(uuid::Uuid::from_u128(1));

/// The program that ends itself. As a test of its own it does nothing.
#[test]
fn poisoned_program() {
    let Some(path) = file_of_child() else { return };
    block_on(async {
        let runtime = builder(open(&path, SMALL).unwrap()).start().await.unwrap();
        let mail = runtime.pool("mail").unwrap();
        let beside = mail.enqueue(Mail::new(1, Way::Straight)).on_complete::<Count>(()).await;
        say("mail", beside.as_ref().map(|work| work.id())).unwrap();
        let retry = RetryBehavior::default().max_attempts(3).initial_backoff(Duration::ZERO);
        // The first time it is enqueued; then it is known.
        let poison = mail.enqueue(Mail::new(2, Way::Poison)).id(POISON).retry(retry);
        let poison = poison.on_complete::<Count>(()).await.unwrap();
        poison.join().await.unwrap_err();
        println!("end");
    });
}

#[test]
fn a_job_that_ends_the_process_is_given_up_after_its_last_attempt() {
    let path = folder("poison").join("work.redb");
    let mut notes = Notes::default();
    let mut deaths = 0;
    while !notes.ended {
        let (mut child, lines) =
            spawn(&mut crate::ledger::program("files::poisoned_program", &path));
        notes.take_all(lines);
        deaths += u32::from(!child.wait().unwrap().success());
        assert!(deaths <= 3, "it goes on and on");
    }
    assert_eq!(deaths, 3);
    assert_eq!(notes.ran.remove(&POISON), Some(vec![1, 2, 3]));
    block_on(async {
        let runtime = start(&path, false).await.unwrap();
        let status = runtime.pool("mail").unwrap().status(POISON).await.unwrap();
        let WorkStatus::Finished(row) = status else { panic!("{status:?}") };
        let Outcome::Failed(failure) = &row.outcome() else { panic!("{row:?}") };
        assert_eq!((failure.kind, row.attempts()), (FailureKind::Lost, 3));
        runtime.shutdown(Duration::ZERO).await;
    });
    block_on(assert_holds(&path, &notes));
}

// How large the file is.

/// Has some bytes, and does nothing.
#[derive(Serialize, Deserialize)]
struct Nothing(String);

impl Action for Nothing {
    const NAME: &'static str = "nothing";
    type Output = ();

    async fn run(self, _: ActionContext) -> Result<(), WorkError> {
        Ok(())
    }
}

impl Nothing {
    fn some(count: usize) -> impl Iterator<Item = Nothing> {
        (0..count).map(|_| Nothing("x".repeat(200)))
    }
}

async fn start_small(path: &Path) -> Runtime {
    let retention = Retention::FOREVER.max_count(1_000);
    let storage = open(path, 256 << 10).unwrap();
    let builder = Runtime::builder().storage(storage).action::<Nothing>().retention(retention);
    builder.pool("p", PoolConfig::default().max_parallelism(64)).start().await.unwrap()
}

/// Sizes of the file after each tenth of so many jobs that come and go.
async fn steady_load(path: &Path, works: usize) -> Vec<u64> {
    let runtime = start_small(path).await;
    let pool = runtime.pool("p").unwrap();
    let mut sizes = Vec::new();
    for _ in 0..10 {
        for _ in 0..works / 5_000 {
            let works = pool.enqueue_batch(Nothing::some(500)).await.unwrap();
            assert!(works.join().await.iter().all(Result::is_ok));
        }
        sizes.push(std::fs::metadata(path).unwrap().len());
    }
    runtime.shutdown(Duration::ZERO).await;
    sizes
}

#[test]
fn jobs_that_come_and_go_do_not_make_the_file_grow() {
    // Six seconds in a release build.
    let works = if cfg!(debug_assertions) { 20_000 } else { 200_000 };
    let sizes = block_on(steady_load(&folder("steady").join("work.redb"), works));
    assert!(sizes[9] <= 2 * sizes[2] && sizes[9] < 16 << 20, "{sizes:?}");
}

#[test]
fn the_room_of_a_backlog_is_given_back_by_compact() {
    let path = folder("compact").join("work.redb");
    block_on(async {
        let runtime = start_small(&path).await;
        let pool = runtime.pool("p").unwrap();
        for _ in 0..20 {
            let works = pool.enqueue_batch(Nothing::some(500));
            works.run_after(Duration::from_secs(3600)).await.unwrap();
        }
        pool.cancel_all().await.unwrap();
        pool.idle().await.unwrap();
        runtime.shutdown(Duration::ZERO).await;
    });
    let size = || std::fs::metadata(&path).unwrap().len();
    let before = size();
    let mut store = open(&path, SMALL).unwrap();
    store.compact().unwrap();
    drop(store);
    assert!(size() < before / 3, "{before} bytes before, {} after", size());
    block_on(async {
        let runtime = start_small(&path).await;
        let pool = runtime.pool("p").unwrap();
        assert_eq!(pool.enqueue(Nothing(String::new())).await.unwrap().join().await, Ok(()));
        runtime.shutdown(Duration::ZERO).await;
    });
}
