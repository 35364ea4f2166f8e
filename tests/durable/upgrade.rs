//! Files of earlier formats open with every row as it was.
//!
//! `WORKPOOL_WRITE_FILE=1 cargo test --test upgrade` writes a file of today's format into `tests/data`, before the format
//! changes: that of a process that was killed, with a part of its rows in the log only.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use actix_workpool::storage::{Redb, StorageError};
use actix_workpool::{
    ActionContext, ActionKey, FailureKind, JoinError, Mutation, Outcome, PoolConfig, Priority,
    Query, Rate, Reader, RetryAnswer, RetryBehavior, Runtime, RuntimeBuilder, Transaction, Unique,
    WorkError, WorkFilter, WorkId, WorkStatus,
};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};

/// Returns its argument, fails if that is odd, and never ends if it is 100.
const TASK: ActionKey<u64, u64> = ActionKey::new("task");

#[derive(Serialize, Deserialize)]
struct Note(String, u64);

impl Mutation for Note {
    const NAME: &'static str = "note";
    type Output = ();

    fn apply(self, tx: &mut Transaction<'_>) -> Result<(), WorkError> {
        Ok(tx.put("notes", &self.0, &self.1)?)
    }
}

#[derive(Serialize, Deserialize)]
struct Notes;

impl Query for Notes {
    const NAME: &'static str = "notes";
    type Output = Vec<u64>;

    fn read(self, reader: &mut Reader<'_>) -> Result<Vec<u64>, WorkError> {
        Ok(reader.scan("notes")?.into_iter().map(|(_, value)| value).collect())
    }
}

fn builder(path: &Path) -> RuntimeBuilder {
    let task = |n, _: ActionContext| async move {
        match n {
            100 => std::future::pending().await,
            n if n % 2 == 1 => Err(WorkError::retryable(format!("{n} is odd"))),
            n => Ok(n),
        }
    };
    Runtime::builder()
        .storage(Redb::open_with_log(path, 1).unwrap())
        .action_fn(TASK, task)
        .mutation::<Note>()
        .query::<Notes>()
        .pool("first", PoolConfig::default().max_parallelism(3))
        .pool("second", PoolConfig::default().paused(true))
        .pool("third", PoolConfig::default().paused(true))
        .pool("slow", PoolConfig::default().rate(Rate::per_hour(1)))
}

fn id(number: u128) -> WorkId {
    WorkId::from_uuid(uuid::Uuid::from_u128(number))
}

const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("upgrade").join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Jobs that leave a row of each kind.
async fn fill(runtime: &Runtime) {
    let (first, second) = (runtime.pool("first").unwrap(), runtime.pool("second").unwrap());
    let retry = RetryBehavior::default().max_attempts(2).initial_backoff(Duration::ZERO);
    assert_eq!(first.enqueue(TASK.call(42)).id(id(1)).await.unwrap().join().await, Ok(42));
    let failed = first.enqueue(TASK.call(7)).id(id(2)).retry(retry).await.unwrap();
    assert!(matches!(failed.join().await, Err(JoinError::Failed { attempts: 2, .. })));
    let canceled = second.enqueue(TASK.call(2)).id(id(3)).await.unwrap();
    canceled.cancel().await.unwrap();
    assert_eq!(canceled.join().await, Err(JoinError::Canceled));
    for number in 0..40 {
        let note = first.enqueue(Note(format!("note {number:02}"), number)).await.unwrap();
        note.join().await.unwrap();
    }
    let running = first.enqueue(TASK.call(100)).id(id(4)).await.unwrap();
    while !matches!(running.status().await.unwrap(), WorkStatus::Running { .. }) {
        tokio::task::yield_now().await;
    }
    first.enqueue(TASK.call(8)).id(id(5)).run_after(YEAR).await.unwrap();
    second.enqueue(TASK.call(10)).id(id(6)).await.unwrap();
    let many = (0..30).map(|n| TASK.call(1_000 + n)).collect::<Vec<_>>();
    second.enqueue_batch(many).await.unwrap();
    fill_as_of_5(runtime).await;
}

/// Jobs with what came with format 5: priorities, costs, unique keys, and the rate of a pool.
async fn fill_as_of_5(runtime: &Runtime) {
    let (third, slow) = (runtime.pool("third").unwrap(), runtime.pool("slow").unwrap());
    let worst = Priority::new(127);
    third.enqueue(TASK.call(12)).id(id(11)).priority(Priority::LOW).await.unwrap();
    third.enqueue(TASK.call(14)).id(id(12)).priority(worst).run_after(YEAR).await.unwrap();
    third.enqueue(TASK.call(16)).id(id(13)).unique(Unique::key("a")).await.unwrap();
    third.enqueue(TASK.call(18)).id(id(14)).priority(Priority::HIGH).cost(1).await.unwrap();
    let once = Unique::key("b").within(YEAR);
    let done = slow.enqueue(TASK.call(20)).id(id(15)).unique(once).await.unwrap();
    assert_eq!(done.join().await, Ok(20));
    slow.enqueue(TASK.call(22)).id(id(16)).await.unwrap();
}

/// Asks for what [`fill_as_of_5`] left.
async fn check_as_of_5(runtime: &Runtime) {
    let (third, slow) = (runtime.pool("third").unwrap(), runtime.pool("slow").unwrap());
    let page = third.works(WorkFilter::pending()).await.unwrap();
    let waiting: Vec<_> = page.works.iter().map(|work| (work.work_id, work.priority)).collect();
    let of = |number, priority| (id(number), Some(Priority::new(priority)));
    let [high, low] = [Priority::HIGH, Priority::LOW].map(Priority::number);
    assert_eq!(waiting, [of(14, high), of(13, 0), of(11, low), of(12, 127)]);
    let again = third.enqueue(TASK.call(2)).unique(Unique::key("a")).await.unwrap();
    assert_eq!((again.id(), again.is_new()), (id(13), false));
    let again = slow.enqueue(TASK.call(2)).unique(Unique::key("b").within(YEAR)).await.unwrap();
    assert_eq!((again.id(), again.is_new()), (id(15), false));
    third.resume().await.unwrap();
    for number in [11, 13, 14] {
        assert!(third.work::<u64>(id(number)).join().await.is_ok());
    }
    assert_eq!(third.pending(), 1, "one is delayed");
    // The rate admits it an hour after the file was made.
    assert!(slow.pending() <= 1, "one waits for its rate");
}

/// Asks for everything that was left there.
async fn check(path: &Path, format: u32) {
    let runtime = builder(path).start().await.unwrap();
    let (first, second) = (runtime.pool("first").unwrap(), runtime.pool("second").unwrap());
    assert_eq!(first.settings().max_parallelism, 3);
    assert!(second.settings().paused);
    let finished = async |number| match runtime.status(id(number)).await.unwrap() {
        WorkStatus::Finished(row) => row,
        other => panic!("{number} is {other:?}"),
    };
    assert!(matches!(finished(1).await.outcome(), Outcome::Success(it) if it.as_bytes() == b"42"));
    let failed = finished(2).await;
    let messages: Vec<_> = failed.failed_attempts().iter().map(|it| it.message.clone()).collect();
    assert_eq!(messages, ["7 is odd", "7 is odd"]);
    assert!(failed.can_be_retried());
    assert_eq!(*finished(3).await.outcome(), Outcome::Canceled);
    // What ran when the process was killed is lost, and was not to be retried.
    let lost = first.work::<u64>(id(4)).join().await;
    assert!(
        matches!(&lost, Err(JoinError::Failed { failure, .. }) if failure.kind == FailureKind::Lost),
        "{lost:?}"
    );
    assert!(matches!(runtime.status(id(5)).await.unwrap(), WorkStatus::Pending { .. }));
    assert_eq!((first.pending(), second.pending()), (1, 31));
    assert_eq!(runtime.query(Notes).await.unwrap(), (0..40).collect::<Vec<_>>());
    second.resume().await.unwrap();
    assert_eq!(second.work::<u64>(id(6)).join().await, Ok(10));
    second.idle().await.unwrap();
    if format >= 5 {
        check_as_of_5(&runtime).await;
    }
    runtime.shutdown(Duration::from_secs(1)).await;
}

fn data(format: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/format-{format}.redb.gz"))
}

fn format_of(path: &Path) -> u32 {
    let header = std::fs::read(path).unwrap();
    u32::from_le_bytes(header[8..12].try_into().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_today_comes_back_as_it_was() {
    let folder = folder("today");
    let (live, image) = (folder.join("live.redb"), folder.join("image.redb"));
    let runtime = builder(&live).start().await.unwrap();
    fill(&runtime).await;
    // What a kill would leave: everything that was acknowledged is in the file.
    std::fs::copy(&live, &image).unwrap();
    if std::env::var_os("WORKPOOL_WRITE_FILE").is_some() {
        let target = std::fs::File::create(data(format_of(&image))).unwrap();
        let mut packed = GzEncoder::new(target, Compression::best());
        packed.write_all(&std::fs::read(&image).unwrap()).unwrap();
        packed.finish().unwrap();
    }
    runtime.shutdown(Duration::ZERO).await;
    check(&image, format_of(&image)).await;
}

/// Unpacks the kept file of a format.
fn unpack(format: u32, path: &Path) {
    let packed = std::fs::File::open(data(format)).unwrap();
    let mut bytes = Vec::new();
    GzDecoder::new(packed).read_to_end(&mut bytes).unwrap();
    std::fs::write(path, bytes).unwrap();
    assert_eq!(format_of(path), format);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_an_earlier_format_opens_with_every_row_as_it_was() {
    for format in [2, 4, 5] {
        opens_as_it_was(format).await;
    }
}

async fn opens_as_it_was(format: u32) {
    let path = folder(&format!("format {format}")).join("work.redb");
    unpack(format, &path);
    check(&path, format).await;
    assert_eq!(format_of(&path), 6, "it is a file of today's format from then on");
    let runtime = builder(&path).start().await.unwrap();
    let again = runtime.retry(id(2)).await.unwrap();
    let RetryAnswer::Enqueued(work_id) = again else { panic!("{again:?}") };
    let WorkStatus::Finished(row) = runtime.status(id(2)).await.unwrap() else {
        panic!("finished")
    };
    assert_eq!(row.retried_as(), Some(work_id));
    runtime.shutdown(Duration::from_secs(1)).await;
}

#[test]
fn a_file_of_a_newer_version_is_refused_and_says_so() {
    let path = folder("newer").join("work.redb");
    drop(Redb::open_with_log(&path, 1).unwrap());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[8..12].copy_from_slice(&7u32.to_le_bytes());
    let checksum = twox_hash::XxHash3_64::oneshot(&bytes[..16]);
    bytes[16..24].copy_from_slice(&checksum.to_le_bytes());
    std::fs::write(&path, &bytes).unwrap();
    let Err(error) = Redb::open(&path) else { panic!("it opens") };
    assert_eq!(error, StorageError::TooNew { found: 7, known: 6 });
    assert_eq!(
        error.to_string(),
        "written by a newer version of actix-workpool (format 7, this program reads up to 6); \
         update the program"
    );
    assert_eq!(std::fs::read(&path).unwrap(), bytes, "it is left as it was");
}

#[test]
fn a_file_that_was_never_ours_is_refused_and_left_as_it_is() {
    let path = folder("other").join("work.redb");
    std::fs::write(&path, "x".repeat(9_000)).unwrap();
    let Err(error) = Redb::open(&path) else { panic!("it opens") };
    assert!(error.to_string().contains("not a workpool file"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), "x".repeat(9_000).as_bytes());
}
