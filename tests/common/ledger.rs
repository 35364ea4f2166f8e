//! A program that is killed, or whose disk fails: what it does, what it says, and what must hold of its file after it.
#![allow(dead_code)] // Each test binary uses a part of it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use actix_workpool::storage::{Redb, Storage, StorageError};
use actix_workpool::{
    Action, ActionContext, Completion, CompletionResult, EnqueueError, FailureKind, JoinError,
    Mutation, OnComplete, Outcome, PoolConfig, PoolError, Query, Reader, RetryBehavior, Runtime,
    RuntimeBuilder, TableKey, Transaction, WorkError, WorkId, WorkStatus,
};
use serde::{Deserialize, Serialize};

/// A folder of its own for each test, empty.
pub fn folder(test: &str) -> PathBuf {
    let name = format!("{}-{test}", env!("CARGO_CRATE_NAME"));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(120), future).await.expect("in time")
    })
}

/// Opens a file. Its lock may be held for a moment more by a process that another test is just starting.
pub fn open(path: &Path, log: u64) -> Result<Redb, StorageError> {
    let begun = std::time::Instant::now();
    loop {
        match Redb::open_with_log(path, log) {
            Err(StorageError::InUse) if begun.elapsed() < Duration::from_secs(10) => {
                std::thread::yield_now();
            }
            opened => return opened,
        }
    }
}

/// A small log: what is committed goes into the tables all the time.
pub const SMALL: u64 = 64 << 10;

// What it does.

/// Moves money between two accounts; the sum stays.
#[derive(Serialize, Deserialize)]
pub struct Transfer {
    pub from: u64,
    pub to: u64,
    pub amount: i64,
}

impl Mutation for Transfer {
    const NAME: &'static str = "transfer";
    type Output = ();

    fn apply(self, tx: &mut Transaction<'_>) -> Result<(), WorkError> {
        let from: i64 = tx.get("accounts", self.from)?.unwrap_or(0);
        tx.put("accounts", self.from, &(from - self.amount))?;
        let to: i64 = tx.get("accounts", self.to)?.unwrap_or(0);
        tx.put("accounts", self.to, &(to + self.amount))?;
        let way = [Way::Straight, Way::SecondTime, Way::Snooze][self.amount as usize % 3];
        tx.pool("mail")?.enqueue(Mail::new(self.from, way)).submit()?;
        Ok(())
    }
}

#[derive(Serialize, Deserialize)]
pub struct Mail {
    pub number: u64,
    pub way: Way,
    pub text: String,
}

impl Mail {
    pub fn new(number: u64, way: Way) -> Mail {
        Mail { number, way, text: String::new() }
    }
}

#[derive(Clone, Copy, Serialize, Deserialize)]
pub enum Way {
    Straight,
    /// Its first attempt fails.
    SecondTime,
    /// Its first attempt in a process is put off.
    Snooze,
    /// Ends the process.
    Poison,
}

impl Action for Mail {
    const NAME: &'static str = "mail";
    type Output = u64;

    async fn run(self, cx: ActionContext) -> Result<u64, WorkError> {
        if let Way::Snooze = self.way {
            static SNOOZED: LazyLock<Mutex<HashSet<WorkId>>> = LazyLock::new(Mutex::default);
            if SNOOZED.lock().unwrap().insert(cx.work_id()) {
                return Err(WorkError::snooze(Duration::from_millis(1)));
            }
        }
        println!("ran {} {}", cx.work_id(), cx.attempt());
        match self.way {
            Way::SecondTime if cx.attempt() == 1 => {
                return Err(WorkError::retryable("the server is busy"));
            }
            Way::Poison => std::process::abort(),
            _ => {}
        }
        tokio::task::yield_now().await;
        Ok(self.number)
    }
}

/// Counts the completions of each job. Of some it fails the first time, after it has counted; a process that comes
/// later does not fail those of an earlier one, so that a few attempts are enough.
pub struct Count;

static STARTED: LazyLock<uuid::Uuid> = LazyLock::new(uuid::Uuid::now_v7);

impl OnComplete for Count {
    const NAME: &'static str = "count";
    type Context = ();
    type Output = u64;

    fn apply(tx: &mut Transaction<'_>, done: Completion<(), u64>) -> Result<(), WorkError> {
        let count: u64 = tx.get("completions", done.work_id)?.unwrap_or(0);
        tx.put("completions", done.work_id, &(count + 1))?;
        static FAILED: LazyLock<Mutex<HashSet<WorkId>>> = LazyLock::new(Mutex::default);
        let id = done.work_id.as_uuid();
        // Not of a canceled one: `cancel_all` would cancel what tries it again, which is a job like any other.
        let canceled = done.result == CompletionResult::Canceled;
        let fails = id.as_bytes()[15].is_multiple_of(4) && id > *STARTED && !canceled;
        if fails && FAILED.lock().unwrap().insert(done.work_id) {
            return Err(WorkError::retryable("not yet"));
        }
        Ok(())
    }
}

#[derive(Serialize, Deserialize)]
pub struct Totals;

impl Query for Totals {
    const NAME: &'static str = "totals";
    /// The sum of all accounts, and the completions of each job.
    type Output = (i64, BTreeMap<WorkId, u64>);

    fn read(self, reader: &mut Reader<'_>) -> Result<Self::Output, WorkError> {
        let accounts = reader.scan::<i64>("accounts")?;
        let completions = reader.scan::<u64>("completions")?;
        let sum = accounts.iter().map(|(_, balance)| balance).sum();
        let of_work = |(key, count): (TableKey, u64)| {
            Ok((WorkId::from_uuid(uuid::Uuid::from_slice(key.as_bytes())?), count))
        };
        Ok((sum, completions.into_iter().map(of_work).collect::<Result<_, WorkError>>()?))
    }
}

/// How often a mail is tried.
pub const MOST: u32 = 50;

/// `bank` has mutations, `mail` actions that are retried, `once` actions that are not, `later` what is never due.
pub fn builder(storage: impl Storage) -> RuntimeBuilder {
    builder_that_is(storage, false)
}

/// The same, at first paused or not.
pub fn builder_that_is(storage: impl Storage, paused: bool) -> RuntimeBuilder {
    LazyLock::force(&STARTED);
    let retry =
        RetryBehavior::default().max_attempts(MOST).initial_backoff(Duration::from_millis(1));
    let retried = || PoolConfig::default().default_retry(retry.base(1.0)).paused(paused);
    Runtime::builder()
        .storage(storage)
        .mutation::<Transfer>()
        .action::<Mail>()
        .on_complete::<Count>()
        .query::<Totals>()
        .pool("bank", retried())
        .pool("mail", retried())
        .pool("once", PoolConfig::default())
        .pool("later", PoolConfig::default())
}

/// Enqueues some jobs of each kind, and says what was answered: also to the caller, if the store is lost.
pub async fn works(runtime: &Runtime, rng: &mut fastrand::Rng) -> Result<(), StorageError> {
    let [bank, mail, once, later] =
        ["bank", "mail", "once", "later"].map(|name| runtime.pool(name).unwrap());
    let (from, to) = (rng.u64(..5), rng.u64(5..9));
    let transfer = bank.enqueue(Transfer { from, to, amount: rng.i64(1..100) }).await;
    say("transfer", transfer.as_ref().map(|work| work.id()))?;
    let way = rng.choice([Way::Straight, Way::SecondTime, Way::Snooze]).unwrap();
    let kind = if let Way::Snooze = way { "snooze" } else { "mail" };
    let mut one = mail.enqueue(Mail::new(from, way)).on_complete::<Count>(());
    if rng.u8(..4) == 0 {
        one = one.run_after(Duration::from_millis(rng.u64(1..20)));
    }
    say(kind, one.await.as_ref().map(|work| work.id()))?;
    let works = (0..rng.u64(1..4)).map(|number| Mail::new(number, Way::Straight));
    match once.enqueue_batch(works).on_complete::<Count>(()).await {
        Ok(works) => works.ids().iter().try_for_each(|id| say("once", Ok(*id)))?,
        Err(error) => say("once", Err(&error))?,
    }
    if rng.u8(..3) > 0 {
        return Ok(());
    }
    let work = later.enqueue(Mail::new(0, Way::Straight)).on_complete::<Count>(());
    let work = work.run_after(Duration::from_secs(3600)).await;
    say("later", work.as_ref().map(|work| work.id()))?;
    if let Ok(work) = work {
        match work.cancel().await {
            Ok(_) => println!("canceled {}", work.id()),
            Err(PoolError::Storage(error)) => refused(&error)?,
            Err(error) => panic!("{error}"),
        }
    }
    Ok(())
}

pub fn say(kind: &str, answer: Result<WorkId, &EnqueueError>) -> Result<(), StorageError> {
    match answer {
        Ok(work_id) => println!("ack {kind} {work_id}"),
        Err(EnqueueError::Storage(error)) => refused(error)?,
        Err(error) => panic!("{error}"),
    }
    Ok(())
}

fn refused(error: &StorageError) -> Result<(), StorageError> {
    println!("refused {error}");
    match error {
        StorageError::Poisoned(_) => Err(error.clone()),
        _ => Ok(()),
    }
}

// What it says.

const FILE: &str = "WORKPOOL_TEST_FILE";

/// This test binary once more, to run one of its tests as a program of its own.
pub fn program(test: &str, path: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    as_child(&mut command, test, path);
    command
}

/// As [`program`], with a fault made by strace, as `call:what:when=which`. Each thread counts its own calls.
pub fn under_strace(fault: &str, test: &str, path: &Path) -> Command {
    let (call, _) = fault.split_once(':').unwrap();
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e"]).arg(format!("trace={call}"));
    command.arg("-e").arg(format!("inject={fault}"));
    if call == "openat" {
        command.arg("-P").arg(path);
    }
    command.arg(std::env::current_exe().unwrap());
    as_child(&mut command, test, path);
    command
}

fn as_child(command: &mut Command, test: &str, path: &Path) {
    command
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(FILE, path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
}

/// The file of a program that a test has started; `None` in the test of that name itself.
pub fn file_of_child() -> Option<PathBuf> {
    let path = std::env::var_os(FILE)?;
    println!(); // The test's name stands before it.
    Some(PathBuf::from(path))
}

pub fn spawn(command: &mut Command) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) if command.get_program() == "strace" => {
            panic!("this test needs strace ({error}): install it, as by `apt-get install strace`")
        }
        Err(error) => panic!("{error}"),
    };
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, lines)
}

/// What was heard of a program.
#[derive(Default)]
pub struct Notes {
    pub acknowledged: BTreeMap<WorkId, &'static str>,
    pub canceled: BTreeSet<WorkId>,
    /// The attempts in which a job's code ran, in order.
    pub ran: BTreeMap<WorkId, Vec<u32>>,
    pub refused: Vec<String>,
    /// How many jobs were acknowledged when one was refused for the last time.
    pub before_refused: usize,
    pub ended: bool,
}

impl Notes {
    /// Takes note of a line; says whether something was acknowledged. The last one may have been cut by a kill.
    pub fn take(&mut self, line: &str) -> bool {
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            ["ack", kind, id] => {
                let kinds = ["transfer", "mail", "snooze", "once", "later", "poison"];
                let kind = kinds.into_iter().find(|known| *known == kind).expect("a known kind");
                let Ok(work_id) = id.parse() else { return false };
                self.acknowledged.insert(work_id, kind);
                return true;
            }
            ["canceled", id] => self.canceled.extend(id.parse::<WorkId>().ok()),
            ["ran", id, attempt] => {
                if let (Ok(work_id), Ok(attempt)) = (id.parse(), attempt.parse()) {
                    self.ran.entry(work_id).or_default().push(attempt);
                }
            }
            ["refused", ..] => {
                self.refused.push(line.to_owned());
                self.before_refused = self.acknowledged.len();
            }
            ["end"] => self.ended = true,
            _ => {}
        }
        false
    }

    pub fn take_all(&mut self, lines: impl Iterator<Item = std::io::Result<String>>) {
        for line in lines.map_while(Result::ok) {
            self.take(&line);
        }
    }
}

// What must hold.

/// Goes on with the file until everything has its outcome, and looks at all of them.
pub async fn assert_holds(path: &Path, notes: &Notes) {
    let runtime = builder(open(path, SMALL).unwrap()).worker_arbiters(0).start().await.unwrap();
    let pool = |name| runtime.pool(name).unwrap();
    for work_id in &notes.canceled {
        let outcome = pool("later").work::<u64>(*work_id).join().await;
        assert_eq!(outcome, Err(JoinError::Canceled), "{work_id} was canceled");
    }
    // What was enqueued, or was not yet canceled.
    pool("later").cancel_all().await.unwrap();
    for name in ["bank", "mail", "once", "later", "mail"] {
        pool(name).idle().await.unwrap();
    }
    let ids: Vec<_> = notes.acknowledged.keys().copied().collect();
    let statuses = pool("mail").status_batch(&ids).await.unwrap();
    let (sum, completions) = runtime.query(Totals).await.unwrap();
    assert_eq!(sum, 0, "the ledger balances");
    // Those of jobs that were committed and never acknowledged are there too.
    assert!(completions.values().all(|count| *count == 1), "each on_complete took effect once");
    for ((work_id, kind), status) in notes.acknowledged.iter().zip(statuses) {
        let WorkStatus::Finished(row) = status else { panic!("{kind} {work_id} is {status:?}") };
        let ran = notes.ran.get(work_id).map_or(&[][..], Vec::as_slice);
        // An attempt whose process ended counts, and counts once.
        assert!(ran.windows(2).all(|pair| pair[0] < pair[1]), "{kind} {work_id} ran in {ran:?}");
        let last = ran.last().copied().unwrap_or(0);
        match (*kind, &row.outcome()) {
            ("transfer", Outcome::Success(_)) => {}
            ("mail" | "snooze", Outcome::Success(_)) => {
                assert!(
                    last <= row.attempts() && row.attempts() <= MOST,
                    "{row:?}, ran in {ran:?}"
                );
            }
            ("once", Outcome::Success(_)) => assert_eq!(row.attempts(), 1),
            ("once", Outcome::Failed(failure)) => {
                assert_eq!((failure.kind, row.attempts()), (FailureKind::Lost, 1), "{row:?}");
                assert!(ran.len() <= 1, "ran in {ran:?}");
            }
            ("later", Outcome::Canceled) => assert!(ran.is_empty(), "ran in {ran:?}"),
            (kind, _) => panic!("{kind} {row:?}"),
        }
        let counts = *kind == "transfer" || completions.contains_key(work_id);
        assert!(counts, "on_complete of {kind} {row:?} had no effect");
    }
    runtime.shutdown(Duration::ZERO).await;
}
