//! The embedded file: what was acknowledged is there after a restart, and after a kill.
#![cfg(feature = "redb")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use actix_workpool::storage::{Redb, StorageError};
use actix_workpool::{
    Action, ActionContext, Completion, Mutation, OnComplete, PoolConfig, Query, Reader,
    RetryBehavior, Runtime, StartError, Transaction, WorkError, WorkId, WorkStatus,
};
use serde::{Deserialize, Serialize};

/// A folder of its own for each test, empty.
fn folder(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("durable-{test}"));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(120), future).await.expect("in time")
    })
}

/// Moves money between two accounts; the sum stays.
#[derive(Serialize, Deserialize)]
struct Transfer {
    from: u64,
    to: u64,
    amount: i64,
}

impl Mutation for Transfer {
    const NAME: &'static str = "transfer";
    type Output = ();

    fn apply(self, tx: &mut Transaction<'_>) -> Result<(), WorkError> {
        let from: i64 = tx.get("accounts", self.from)?.unwrap_or(0);
        tx.put("accounts", self.from, &(from - self.amount))?;
        let to: i64 = tx.get("accounts", self.to)?.unwrap_or(0);
        tx.put("accounts", self.to, &(to + self.amount))?;
        tx.pool("mail")?
            .enqueue(Mail { number: self.from, fails: self.amount % 3 == 0 })
            .submit()?;
        Ok(())
    }
}

#[derive(Serialize, Deserialize)]
struct Mail {
    number: u64,
    fails: bool,
}

impl Action for Mail {
    const NAME: &'static str = "mail";
    type Output = u64;

    async fn run(self, cx: ActionContext) -> Result<u64, WorkError> {
        if self.fails && cx.attempt() == 1 {
            return Err(WorkError::retryable("the server is busy"));
        }
        tokio::task::yield_now().await;
        Ok(self.number)
    }
}

/// Counts the completions of each work.
struct Count;

impl OnComplete for Count {
    const NAME: &'static str = "count";
    type Context = ();
    type Output = u64;

    fn apply(tx: &mut Transaction<'_>, done: Completion<(), u64>) -> Result<(), WorkError> {
        let count: u64 = tx.get("completions", done.work_id)?.unwrap_or(0);
        Ok(tx.put("completions", done.work_id, &(count + 1))?)
    }
}

#[derive(Serialize, Deserialize)]
struct Totals;

impl Query for Totals {
    const NAME: &'static str = "totals";
    /// The sum of all accounts, and the completions of each work.
    type Output = (i64, Vec<u64>);

    fn read(self, reader: &mut Reader<'_>) -> Result<Self::Output, WorkError> {
        let accounts = reader.scan::<i64>("accounts")?;
        let completions = reader.scan::<u64>("completions")?;
        let sum = accounts.iter().map(|(_, balance)| balance).sum();
        Ok((sum, completions.into_iter().map(|(_, count)| count).collect()))
    }
}

async fn start(path: &Path, paused: bool) -> Result<Runtime, StartError> {
    let retry = RetryBehavior::default().max_attempts(50).initial_backoff(Duration::from_millis(1));
    Runtime::builder()
        .storage(Redb::open(path)?)
        .mutation::<Transfer>()
        .action::<Mail>()
        .on_complete::<Count>()
        .query::<Totals>()
        .pool("bank", PoolConfig::default().default_retry(retry).paused(paused))
        .pool("mail", PoolConfig::default().default_retry(retry).paused(paused))
        .start()
        .await
}

#[test]
fn works_wait_in_the_file_for_the_next_start() {
    let path = folder("restart").join("work.redb");
    let (ids, delayed) = block_on(async {
        let runtime = start(&path, true).await.unwrap();
        let mail = runtime.pool("mail").unwrap();
        let works = (0..20).map(|number| Mail { number, fails: number % 4 == 0 });
        let works = mail.enqueue_batch(works).on_complete::<Count>(()).await.unwrap();
        let delayed = mail.enqueue(Mail { number: 99, fails: false });
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
        let (_, completions) = runtime.query(Totals).await.unwrap();
        assert_eq!(completions, [1; 20]);
        runtime.shutdown(Duration::ZERO).await;
    });
    block_on(async {
        let runtime = start(&path, false).await.unwrap();
        let mail = runtime.pool("mail").unwrap();
        assert_eq!(mail.work::<u64>(ids[3]).join().await, Ok(3), "outcomes are remembered");
        assert_eq!(mail.diagnostics().await.unwrap().report.succeeded, 21);
        runtime.shutdown(Duration::ZERO).await;
    });
}

#[test]
fn the_file_is_one_runtimes_at_a_time() {
    let path = folder("in-use").join("work.redb");
    let first = Redb::open(&path).unwrap();
    assert_eq!(Redb::open(&path).unwrap_err(), StorageError::InUse);
    drop(first);
    Redb::open(&path).unwrap();
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
    for path in [&folder, &text, &cut, &folder.join("no/such/folder/work.redb")] {
        let error = Redb::open(path).unwrap_err();
        assert!(matches!(error, StorageError::Poisoned(_)), "{error:?}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
}

const FILE: &str = "WORKPOOL_TEST_FILE";

/// The program that is killed. As a test of its own it does nothing.
#[test]
fn child() {
    let Some(path) = std::env::var_os(FILE) else { return };
    block_on(async {
        let runtime = start(Path::new(&path), false).await.unwrap();
        let (bank, mail) = (runtime.pool("bank").unwrap(), runtime.pool("mail").unwrap());
        let mut out = std::io::stdout();
        let mut rng = fastrand::Rng::new();
        loop {
            let (from, to) = (rng.u64(..5), rng.u64(5..9));
            let transfer = bank.enqueue(Transfer { from, to, amount: rng.i64(1..100) });
            let transfer = transfer.await.unwrap().id();
            let mail = mail.enqueue(Mail { number: from, fails: rng.bool() });
            let mail = mail.on_complete::<Count>(()).await.unwrap().id();
            writeln!(out, "ack bank {transfer}\nack mail {mail}").unwrap();
            out.flush().unwrap();
        }
    });
}

#[test]
fn nothing_acknowledged_is_lost_or_done_twice_when_the_process_is_killed() {
    let rounds = std::env::var("WORKPOOL_KILL_ROUNDS").map_or(25, |rounds| rounds.parse().unwrap());
    let path = folder("kill").join("work.redb");
    let mut rng = fastrand::Rng::new();
    let mut acknowledged: BTreeMap<WorkId, &str> = BTreeMap::new();
    for _ in 0..rounds {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture", "--test-threads=1"])
            .env(FILE, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut left = rng.u32(1..60);
        // Killed in the middle of what follows the last acknowledgement that was waited for.
        while left > 0 {
            let line = lines.next().expect("the child goes on until it is killed").unwrap();
            left -= u32::from(note(&line, &mut acknowledged));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines.map_while(Result::ok) {
            note(&line, &mut acknowledged);
        }
    }
    assert!(acknowledged.len() >= rounds);
    block_on(async {
        let runtime = start(&path, false).await.unwrap();
        for name in ["bank", "mail", "bank", "mail"] {
            runtime.pool(name).unwrap().idle().await.unwrap();
        }
        let mut mails = 0;
        for (work_id, pool) in &acknowledged {
            let status = runtime.pool(pool).unwrap().status(*work_id).await.unwrap();
            let WorkStatus::Finished(row) = status else { panic!("{work_id} is {status:?}") };
            assert_eq!(row.outcome.as_str(), "success", "{row:?}");
            assert!(row.attempts <= 50);
            mails += usize::from(*pool == "mail");
        }
        let (sum, completions) = runtime.query(Totals).await.unwrap();
        assert_eq!(sum, 0, "the ledger balances");
        assert!(completions.iter().all(|count| *count == 1), "each on_complete took effect once");
        assert!(completions.len() >= mails);
        runtime.shutdown(Duration::ZERO).await;
    });
}

/// Takes note of an acknowledgement; says whether the line was one.
fn note(line: &str, acknowledged: &mut BTreeMap<WorkId, &'static str>) -> bool {
    let mut words = line.split(' ');
    let (Some("ack"), Some(pool), Some(id)) = (words.next(), words.next(), words.next()) else {
        return false;
    };
    // The last line may have been cut by the kill.
    let Ok(work_id) = id.parse() else { return false };
    acknowledged.insert(work_id, if pool == "bank" { "bank" } else { "mail" });
    true
}
