//! A small ledger in a file, which can be killed at any moment: transfers between accounts are mutations, made exactly
//! once; each enqueues a mail, an action, which is sent at least once.
//!
//! ```text
//! $ cargo run --example durable -- ledger.redb --kill-after 700
//! a new ledger: 10 accounts with 1000 each
//! killing myself
//! $ cargo run --example durable -- ledger.redb
//! going on: 240 of 1000 transfers made, 200 mails recorded; accounts hold 10000 of 10000
//! transfers: 1000 of 1000 made, each once
//! accounts:  10 hold 10000 of 10000, balanced
//! mails:     1000 of 1000 recorded, each once; delivered 1018 times
//! ```
//!
//! `--kill-after N` aborts the process, as a crash would, in the middle of the Nth step: in a transfer, or when a mail is
//! out and nobody knows yet. Do it as often as you like; run it without to let it come to its end. The mails are lines of
//! `FILE.mails`. The exit code is 0 when everything adds up, else 1; when it was killed, that of an abort.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix_workpool::storage::Redb;
use actix_workpool::{
    Action, ActionContext, Completion, CompletionResult, Mutation, OnComplete, PoolConfig, Query,
    Reader, Retention, RetryBehavior, RetryPolicy, Runtime, Transaction, WorkError, WorkId,
};
use clap::Parser;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

const ACCOUNTS: u64 = 10;
const OPENING: i64 = 1_000;

/// Everything is tried again: an attempt that dies with its process counts as one that failed.
const AGAIN: RetryPolicy = RetryPolicy::With(
    RetryBehavior::new().max_attempts(100).initial_backoff(Duration::from_millis(10)).base(1.0),
);

/// Works through a ledger of transfers and mails that survives being killed.
#[derive(Parser)]
struct Args {
    /// The store; made if it is not there
    file: PathBuf,
    /// How many transfers there are to make
    #[arg(long, default_value_t = 1_000)]
    transfers: u64,
    /// Abort in the middle of this step
    #[arg(long, value_name = "STEP", value_parser = clap::value_parser!(u64).range(1..))]
    kill_after: Option<u64>,
}

/// Steps left until the process kills itself.
static STEPS_LEFT: AtomicU64 = AtomicU64::new(u64::MAX);

fn step() {
    if STEPS_LEFT.fetch_sub(1, Ordering::Relaxed) == 1 {
        eprintln!("killing myself");
        std::process::abort();
    }
}

// ---- exactly once: what is in the tables ----

/// Opens the accounts.
#[derive(Serialize, Deserialize)]
struct Open;

impl Mutation for Open {
    const NAME: &'static str = "ledger.open";
    const RETRY: RetryPolicy = AGAIN;
    type Output = ();

    fn apply(self, tx: &mut Transaction<'_>) -> Result<(), WorkError> {
        for account in 0..ACCOUNTS {
            tx.put("accounts", account, &OPENING)?;
        }
        Ok(())
    }
}

/// Moves money from one account to another, and has a mail sent about it.
#[derive(Serialize, Deserialize)]
struct Transfer {
    number: u64,
    from: u64,
    to: u64,
    amount: i64,
}

impl Mutation for Transfer {
    const NAME: &'static str = "ledger.transfer";
    const RETRY: RetryPolicy = AGAIN;
    type Output = ();

    fn apply(self, tx: &mut Transaction<'_>) -> Result<(), WorkError> {
        for (account, amount) in [(self.from, -self.amount), (self.to, self.amount)] {
            let balance: i64 = tx.get("accounts", account)?.unwrap_or(0);
            tx.put("accounts", account, &(balance + amount))?;
            // Killed between the two, neither is there.
            step();
        }
        count(tx, "transfers", self.number)?;
        let mail = SendMail { transfer: self.number };
        tx.pool("mail")?.enqueue(mail).on_complete::<MailSent>(self.number).submit()?;
        Ok(())
    }
}

/// Adds one to how often something was done: it will have been once.
fn count(tx: &mut Transaction<'_>, table: &str, number: u64) -> Result<(), WorkError> {
    let times: u64 = tx.get(table, number)?.unwrap_or(0);
    Ok(tx.put(table, number, &(times + 1))?)
}

/// Records, in the commit that completes a mail, that it was sent.
struct MailSent;

impl OnComplete for MailSent {
    const NAME: &'static str = "mail.sent";
    type Context = u64;
    type Output = ();

    fn apply(tx: &mut Transaction<'_>, done: Completion<u64, ()>) -> Result<(), WorkError> {
        match done.result {
            CompletionResult::Success(()) => count(tx, "mails", done.context),
            // The report says that one is missing.
            CompletionResult::Failed(_) | CompletionResult::Canceled => Ok(()),
        }
    }
}

// ---- at least once: what reaches outside ----

/// Sends a mail, that is, adds a line to a file.
#[derive(Serialize, Deserialize)]
struct SendMail {
    transfer: u64,
}

impl Action for SendMail {
    const NAME: &'static str = "mail.send";
    const RETRY: RetryPolicy = AGAIN;
    type Output = ();

    async fn run(self, cx: ActionContext) -> Result<(), WorkError> {
        if self.transfer.is_multiple_of(10) && cx.attempt() == 1 {
            return Err(WorkError::retryable("the mail server is busy"));
        }
        let mut server = &*cx.data::<File>();
        server.write_all(format!("{}\n", self.transfer).as_bytes())?;
        // Killed here, the mail is out and nobody knows: it will be sent again.
        step();
        Ok(())
    }
}

// ---- the books ----

#[derive(Serialize, Deserialize)]
struct Audit;

#[derive(Serialize, Deserialize)]
struct Books {
    accounts: u64,
    total: i64,
    /// How often each transfer was made, and each mail recorded.
    transfers: Vec<u64>,
    mails: Vec<u64>,
}

impl Query for Audit {
    const NAME: &'static str = "ledger.audit";
    type Output = Books;

    fn read(self, reader: &mut Reader<'_>) -> Result<Books, WorkError> {
        let accounts = reader.scan::<i64>("accounts")?;
        let mut counts = |table| -> Result<Vec<u64>, WorkError> {
            Ok(reader.scan(table)?.into_iter().map(|(_, times)| times).collect())
        };
        Ok(Books {
            accounts: accounts.len() as u64,
            total: accounts.iter().map(|(_, balance)| balance).sum(),
            transfers: counts("transfers")?,
            mails: counts("mails")?,
        })
    }
}

#[actix::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("durable: the books do not add up");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("durable: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Works until everything is done, and says whether it adds up.
async fn run(args: &Args) -> Result<bool, Box<dyn std::error::Error>> {
    STEPS_LEFT.store(args.kill_after.unwrap_or(u64::MAX), Ordering::Relaxed);
    let storage = Redb::open(&args.file)?;
    let mut mails = args.file.clone().into_os_string();
    mails.push(".mails");
    let mut mails = File::options().create(true).append(true).read(true).open(mails)?;
    let runtime = Runtime::builder()
        .storage(storage)
        .mutation::<Open>()
        .mutation::<Transfer>()
        .action::<SendMail>()
        .on_complete::<MailSent>()
        .query::<Audit>()
        .data(mails.try_clone()?)
        // For as long as an outcome is remembered, its id is not enqueued again.
        .retention(Retention::FOREVER)
        .pool("ledger", PoolConfig::default().max_parallelism(20))
        .pool("mail", PoolConfig::default().max_parallelism(20))
        .start()
        .await?;
    let (ledger, mail) = (runtime.pool("ledger")?, runtime.pool("mail")?);

    let held = ACCOUNTS as i64 * OPENING;
    let books = runtime.query(Audit).await?;
    match books.accounts {
        0 => println!("a new ledger: {ACCOUNTS} accounts with {OPENING} each"),
        _ => println!(
            "going on: {} of {} transfers made, {} mails recorded; accounts hold {} of {held}",
            books.transfers.len(),
            args.transfers,
            books.mails.len(),
            books.total,
        ),
    }

    // The ids are always the same: what was enqueued by an earlier run is not enqueued again.
    let id = |number: u64| WorkId::from_uuid(Uuid::from_u128(number.into()));
    ledger.enqueue(Open).id(id(0)).await?.join().await?;
    let transfers = (1..=args.transfers).map(|number| {
        let mut chance = fastrand::Rng::with_seed(number);
        let from = chance.u64(..ACCOUNTS);
        let to = (from + chance.u64(1..ACCOUNTS)) % ACCOUNTS;
        Transfer { number, from, to, amount: chance.i64(1..=100) }
    });
    ledger.enqueue_batch(transfers).ids(|transfer| id(transfer.number)).await?;
    ledger.idle().await?;
    mail.idle().await?;

    let books = runtime.query(Audit).await?;
    runtime.shutdown(Duration::from_secs(5)).await;
    let mut delivered = String::new();
    std::io::Seek::rewind(&mut mails)?;
    mails.read_to_string(&mut delivered)?;
    Ok(report(args, &books, held, &delivered))
}

fn report(args: &Args, books: &Books, held: i64, delivered: &str) -> bool {
    let each_once = |counts: &[u64]| match counts.iter().all(|times| *times == 1) {
        true => "each once",
        false => "NOT each once",
    };
    let balanced = if books.total == held { "balanced" } else { "NOT balanced" };
    let (transfers, mails, due) = (books.transfers.len(), books.mails.len(), args.transfers);
    println!("transfers: {transfers} of {due} made, {}", each_once(&books.transfers));
    println!("accounts:  {} hold {} of {held}, {balanced}", books.accounts, books.total);
    println!(
        "mails:     {mails} of {transfers} recorded, {}; delivered {} times",
        each_once(&books.mails),
        delivered.lines().count(),
    );
    let different: BTreeSet<_> = delivered.lines().collect();
    books.total == held
        && books.transfers.iter().chain(&books.mails).all(|times| *times == 1)
        && transfers as u64 >= due
        && mails == transfers
        && different.len() == transfers
}
