//! Finds duplicate files: one blocking action per file hashes it, an `on_complete` records what came of it in the commit
//! that completes the job, and a query reads that for the report.
//!
//! ```text
//! $ cargo run --release --example dedup -- ~/Pictures ~/Downloads
//! 3 × 2.10 MiB, 4.19 MiB wasted
//!   /home/ada/Downloads/IMG_2041 (1).jpg
//!   /home/ada/Downloads/IMG_2041.jpg
//!   /home/ada/Pictures/2024/IMG_2041.jpg
//! 18,204 files with 41.22 GiB: 1 group of 3 duplicates, 4.19 MiB wasted; 0 failed; 2,951 files/s
//! $ cargo run --release --example dedup -- --json ~/Pictures ~/Downloads
//! {"files":18204,"bytes":44259637120,"duplicate_groups":1,"duplicate_files":3,"wasted_bytes":4404018,"failed":0,"works_per_s":2951.3}
//! ```
//!
//! Only regular files count; symlinks are not followed, neither in the trees nor as a PATH. Hard links to one file are
//! duplicates of each other. Empty files count as files, never as duplicates. What cannot be read is named on stderr,
//! counted in `failed`, and stops nothing. `--parallelism N` hashes N files at once.
//!
//! Inside a git repository, files that its `.gitignore` names do not count, nor does its `.git`; `--no-ignore` counts
//! them all.
//!
//! With `--store FILE` the jobs and what came of them are kept in FILE. Killed at any moment and run again, it goes on
//! where it was, and says how many files it knew from earlier runs:
//!
//! ```text
//! $ cargo run --release --example dedup -- --store dedup.redb --json ~/Pictures ~/Downloads & sleep 3; kill -9 $!
//! $ cargo run --release --example dedup -- --store dedup.redb --json ~/Pictures ~/Downloads
//! {"files":18204,"bytes":44259637120,"duplicate_groups":1,"duplicate_files":3,"wasted_bytes":4404018,"failed":0,"resumed":8990,"works_per_s":2950.7}
//! ```
//!
//! - A file is known again by its path, its size and the time of its last modification; if one of these has changed it
//!   is hashed anew. `works_per_s` counts the files that were hashed in this run.
//! - The report is about the PATHs given now, whatever earlier runs were about. Files that an earlier run has found and
//!   not hashed, outside of these PATHs, are skipped.
//! - What could not be read in an earlier run is tried again.
//! - FILE itself is not looked at if it is below a PATH. Delete it to begin anew.
//!
//! `RUST_LOG=dedup=debug` says on stderr when the hashing of a file begins and ends, and when all files are found.
//!
//! Exit codes: 0 when the report was made, 1 when something failed, 2 for a wrong argument, a PATH that does not exist or
//! a FILE that is no store, 3 when another process is using FILE, 130 after Ctrl-C.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::HashSet;
use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use actix_workpool::storage::{Redb, StorageError};
use actix_workpool::{
    ActionContext, BlockingAction, Completion, CompletionResult, OnComplete, PoolConfig, Query,
    Reader, Retention, RetryBehavior, RetryPolicy, Runtime, Transaction, WorkError, WorkId,
    Workpool,
};
use clap::Parser;
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tracing_subscriber::EnvFilter;
use uuid::Uuid;

/// Files enqueued in one commit, and looked up in one query.
const BATCH: usize = 1_000;

/// The walk is far faster than the hashing and waits here, so that memory does not grow with the tree.
const MAX_WAITING: u64 = 20_000;

/// Hashing threads: more than cores, because files that are not in memory are waited for.
const THREADS_PER_CORE: usize = 4;

/// Jobs given to each hashing thread: enough that none waits for the pool to hand it the next file.
const WORKS_PER_THREAD: usize = 16;

/// How much is read at once.
const BUFFER: usize = 128 * 1024;

/// How often a file is tried that cannot be read.
const TRIES: u32 = 3;

/// How long files may take to be hashed to their end after Ctrl-C.
const GRACE: Duration = Duration::from_secs(2);

/// At most how many groups are listed, and how many files of each.
const LISTED: (usize, usize) = (20, 10);

/// [`HashFile::first_work`] → [`Row`]. Written by [`Record`], read by [`Rows`], kept for later runs.
const FILES: &str = "dedup.files";

/// Finds duplicate files.
#[derive(Parser)]
#[command(name = "dedup")]
struct Args {
    /// Folders or files to look at
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// How many files are hashed at once [default: four per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    parallelism: Option<u16>,
    /// Look at files that .gitignore names, and into .git, as well
    #[arg(long)]
    no_ignore: bool,
    /// Keep jobs and results in this file; run again with it to go on after a crash
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,
    /// Print the totals as one line of JSON
    #[arg(long)]
    json: bool,
}

/// Why there is no report.
enum Refused {
    /// What was asked for cannot be had.
    Arguments(String),
    InUse(PathBuf),
    Failed(Box<dyn std::error::Error>),
}

impl<E: Into<Box<dyn std::error::Error>>> From<E> for Refused {
    fn from(error: E) -> Self {
        Refused::Failed(error.into())
    }
}

#[actix::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::from_default_env())
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
    let (message, code) = match run(&args).await {
        Ok(code) => return code,
        Err(Refused::Failed(error)) => (error.to_string(), 1),
        Err(Refused::Arguments(message)) => (message, 2),
        Err(Refused::InUse(store)) => {
            (format!("{}: another process is using this store", store.display()), 3)
        }
    };
    eprintln!("dedup: {message}");
    ExitCode::from(code)
}

async fn run(args: &Args) -> Result<ExitCode, Refused> {
    let roots = roots(&args.paths).map_err(Refused::Arguments)?;
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let threads = args.parallelism.map_or(THREADS_PER_CORE * cores, usize::from);
    let this = ThisRun {
        number: fastrand::u64(..),
        roots: roots.iter().map(|root| root.canonical.clone()).collect(),
    };
    let number = this.number;
    let builder = Runtime::builder()
        .blocking_action::<HashFile>()
        .on_complete::<Record>()
        .query::<Rows>()
        .data(this)
        .pool("hash", PoolConfig::default().max_parallelism(threads * WORKS_PER_THREAD))
        .blocking_threads(threads)
        // The hashing has its own threads; handing out and gathering is little work.
        .worker_arbiters(1)
        // What is of use later is in the tables.
        .retention(Retention::FOREVER.max_count(0));
    let (builder, skipped) = match &args.store {
        None => (builder, None),
        Some(store) => (builder.storage(open(store)?), Some(fs::canonicalize(store)?)),
    };
    let runtime = builder.start().await?;
    let pool = runtime.pool("hash")?;
    let bar = progress_bar();

    let started = Instant::now();
    let walk = Walk { roots, skipped, ignoring: !args.no_ignore, run: number };
    let hashed = tokio::select! {
        hashed = hash_all(&runtime, &pool, walk, &bar) => hashed,
        never = show_progress(&pool, &bar) => match never {},
        _ = tokio::signal::ctrl_c() => {
            bar.finish_and_clear();
            return Ok(interrupted(&runtime, args.store.is_some()).await);
        }
    };
    let elapsed = started.elapsed();
    bar.finish_and_clear();
    let report = report(&runtime, hashed?, number).await?;
    runtime.shutdown(Duration::ZERO).await;

    for failure in &report.failures {
        eprintln!("dedup: {failure}");
    }
    let totals = Totals {
        files: report.files,
        bytes: report.bytes,
        duplicate_groups: report.duplicate_groups,
        duplicate_files: report.duplicate_files,
        wasted_bytes: report.wasted_bytes,
        failed: report.failures.len() as u64,
        resumed: args.store.is_some().then_some(report.resumed),
        works_per_s: ((report.files - report.resumed) as f64 / elapsed.as_secs_f64() * 10.0)
            .round()
            / 10.0,
    };
    let printed = match args.json {
        true => print_json(&totals),
        false => print_report(&totals, &report.largest),
    };
    match printed {
        // Nobody reads on, as in `dedup … | head`.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        printed => Ok(printed.map(|()| ExitCode::SUCCESS)?),
    }
}

fn open(store: &Path) -> Result<Redb, Refused> {
    Redb::open(store).map_err(|error| match error {
        StorageError::InUse => Refused::InUse(store.to_owned()),
        StorageError::NotOpened { .. } => Refused::Arguments(error.to_string()),
        error => Refused::Arguments(format!("{}: {error}", store.display())),
    })
}

async fn interrupted(runtime: &Runtime, is_stored: bool) -> ExitCode {
    eprintln!("dedup: interrupted, shutting down");
    tokio::select! {
        left = runtime.shutdown(GRACE) => {
            eprintln!("dedup: shut down, files found but not hashed: {}", left.pending);
            if is_stored {
                eprintln!("dedup: run it again to go on");
            }
        }
        _ = tokio::signal::ctrl_c() => eprintln!("dedup: interrupted again, not waiting"),
    }
    ExitCode::from(130)
}

// ---- the walk ----

/// A PATH to look at.
struct Root {
    given: PathBuf,
    /// Tells whether roots overlap.
    canonical: PathBuf,
}

impl Root {
    /// Where something found in the root is, in the words of the user.
    fn as_given(&self, found: &Path) -> PathBuf {
        match found.strip_prefix(&self.canonical) {
            Ok(inside) if inside != Path::new("") => self.given.join(inside),
            _ => self.given.clone(),
        }
    }
}

/// The roots to walk, each once.
fn roots(paths: &[PathBuf]) -> Result<Vec<Root>, String> {
    let mut roots = Vec::new();
    for given in paths {
        let failed = |error: io::Error| format!("{}: {error}", given.display());
        if fs::symlink_metadata(given).map_err(failed)?.is_symlink() {
            eprintln!("dedup: {}: is a symlink, not followed", given.display());
            continue;
        }
        let canonical = fs::canonicalize(given).map_err(failed)?;
        roots.push(Root { given: given.clone(), canonical });
    }
    roots.sort_by(|a, b| a.canonical.cmp(&b.canonical));
    roots.dedup_by(|a, b| a.canonical == b.canonical);
    Ok(roots)
}

struct Walk {
    roots: Vec<Root>,
    /// The store, which changes all the time.
    skipped: Option<PathBuf>,
    /// `true` if files that git ignores do not count.
    ignoring: bool,
    run: u64,
}

enum Found {
    File {
        /// Its path in the words of the user.
        path: PathBuf,
        work: HashFile,
    },
    /// Something that cannot be looked into, and why.
    Unreadable(String),
}

impl Walk {
    /// Sends everything that is found, until nobody listens.
    fn walk(&self, found: &mpsc::Sender<Found>) {
        let starts: HashSet<_> = self.roots.iter().map(|root| root.canonical.clone()).collect();
        let (starts, ignoring) = (Arc::new(starts), self.ignoring);
        for root in &self.roots {
            let starts = starts.clone();
            let entries = ignore::WalkBuilder::new(&root.canonical)
                .standard_filters(false)
                .parents(ignoring)
                .git_ignore(ignoring)
                .git_exclude(ignoring)
                .filter_entry(move |entry| {
                    // A root inside of this one is walked on its own.
                    let is_root = starts.contains(entry.path());
                    let is_ignored = ignoring && entry.file_name() == ".git";
                    entry.depth() == 0 || !(is_root || is_ignored)
                })
                .build();
            for entry in entries {
                let message = match entry {
                    Ok(entry) => match self.look_at(root, entry) {
                        Some(message) => message,
                        None => continue,
                    },
                    Err(error) => unreadable(root, error),
                };
                if found.blocking_send(message).is_err() {
                    return;
                }
            }
        }
    }

    fn look_at(&self, root: &Root, entry: ignore::DirEntry) -> Option<Found> {
        if !entry.file_type().is_some_and(|kind| kind.is_file())
            || self.skipped.as_deref() == Some(entry.path())
        {
            return None;
        }
        let version = match entry.metadata() {
            Ok(metadata) => Version::of(&metadata),
            Err(error) => return Some(unreadable(root, error)),
        };
        let path = root.as_given(entry.path());
        let work = HashFile { path: entry.into_path().into(), version, run: self.run, ended: 0 };
        Some(Found::File { path, work })
    }
}

fn unreadable(root: &Root, error: ignore::Error) -> Found {
    let path = root.as_given(path_of(&error).unwrap_or(&root.canonical));
    let error = error.io_error().map_or(error.to_string(), io::Error::to_string);
    Found::Unreadable(format!("{}: {error}", path.display()))
}

/// The path that an error of the walk is about.
fn path_of(error: &ignore::Error) -> Option<&Path> {
    match error {
        ignore::Error::WithPath { path, .. } => Some(path),
        ignore::Error::WithDepth { err, .. } | ignore::Error::WithLineNumber { err, .. } => {
            path_of(err)
        }
        _ => None,
    }
}

#[derive(Default)]
struct Walked {
    /// Each with where its row is, in the order in which they were found.
    files: Vec<(PathBuf, WorkId)>,
    unreadable: Vec<String>,
}

/// Walks on a thread of its own and enqueues what that finds and nobody has hashed yet; returns when every file has an
/// outcome.
async fn hash_all(
    runtime: &Runtime,
    pool: &Workpool,
    walk: Walk,
    bar: &ProgressBar,
) -> Result<Walked, Box<dyn std::error::Error>> {
    let (sender, mut found) = mpsc::channel(2 * BATCH);
    std::thread::Builder::new().name("walk".into()).spawn(move || walk.walk(&sender))?;

    let mut walked = Walked::default();
    let mut batch = Vec::with_capacity(BATCH);
    while found.recv_many(&mut batch, BATCH).await > 0 {
        let mut works = Vec::with_capacity(batch.len());
        let mut keys = Vec::with_capacity(batch.len());
        for found in batch.drain(..) {
            match found {
                Found::File { path, work } => {
                    let key = work.first_work();
                    walked.files.push((path, key));
                    keys.push(key);
                    works.push(work);
                }
                Found::Unreadable(problem) => walked.unreadable.push(problem),
            }
        }
        let rows = runtime.query(Rows { keys }).await?;
        let works = works.into_iter().zip(rows).filter_map(|(work, row)| work.unless_known(row));
        let works: Vec<_> = works.collect();
        while pool.pending() > MAX_WAITING {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Those that an earlier run has left are waiting already, under the same ids.
        pool.enqueue_batch(works).ids(HashFile::work_id).on_complete::<Record>(()).await?;
        bar.set_length(walked.files.len() as u64);
    }
    tracing::debug!(files = walked.files.len(), "all found");
    pool.idle().await?;
    Ok(walked)
}

// ---- functions ----

/// A path as it goes into JSON: text if it can be, so that it is short, and lossless in any case.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum StoredPath {
    Text(String),
    Raw(OsString),
}

impl From<PathBuf> for StoredPath {
    fn from(path: PathBuf) -> Self {
        path.into_os_string().into_string().map_or_else(StoredPath::Raw, StoredPath::Text)
    }
}

impl AsRef<Path> for StoredPath {
    fn as_ref(&self) -> &Path {
        match self {
            StoredPath::Text(path) => path.as_ref(),
            StoredPath::Raw(path) => path.as_ref(),
        }
    }
}

/// What a file looks like from outside. As long as this stays the same, so does its content.
#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Version {
    size: u64,
    modified_ns: i64,
}

impl Version {
    fn of(file: &Metadata) -> Version {
        let modified_ns = match file.modified().map(|time| time.duration_since(UNIX_EPOCH)) {
            Ok(Ok(after)) => i64::try_from(after.as_nanos()).unwrap_or(i64::MAX),
            Ok(Err(before)) => {
                i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |ns| -ns)
            }
            // Where there is no such time, the size has to do.
            Err(_) => 0,
        };
        Version { size: file.len(), modified_ns }
    }
}

/// What works need to know of the run that they are in.
struct ThisRun {
    number: u64,
    /// Canonical.
    roots: Vec<PathBuf>,
}

/// Hashes one file.
#[derive(Serialize, Deserialize)]
struct HashFile {
    /// Canonical, so that it is the same file from wherever this is run.
    path: StoredPath,
    /// As it was found.
    version: Version,
    /// The run that has found it.
    run: u64,
    /// How many jobs for this version of the file have ended without a result that later runs can use.
    ended: u32,
}

#[derive(Serialize, Deserialize)]
struct Hashed {
    /// The run that has hashed it.
    run: u64,
    size: u64,
    digest: [u8; 32],
    /// Whether the file stayed as it was found. If not, this counts in its own run only.
    settled: bool,
}

/// The part of a job's id that counts those before it; the rest tells file and version.
const ENDED: u128 = u32::MAX as u128;

/// The first job for the version of a file that `work_id` is for.
fn first_work(work_id: WorkId) -> WorkId {
    WorkId::from_uuid(Uuid::from_u128(work_id.as_u128() & !ENDED))
}

impl HashFile {
    /// Made of what is to be done: however often a file is found, it is enqueued once.
    fn work_id(&self) -> WorkId {
        let path = self.path.as_ref().as_os_str().as_encoded_bytes();
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.version.size.to_le_bytes());
        hasher.update(&self.version.modified_ns.to_le_bytes());
        hasher.update(path);
        let mut bytes = [0; 16];
        hasher.finalize_xof().fill(&mut bytes);
        let number = u128::from_be_bytes(bytes) & !ENDED | u128::from(self.ended);
        WorkId::from_uuid(Uuid::from_u128(number))
    }

    fn first_work(&self) -> WorkId {
        first_work(self.work_id())
    }

    /// The job to enqueue, if there is anything left to do.
    fn unless_known(self, row: Option<Row>) -> Option<HashFile> {
        match row {
            None => Some(self),
            Some(Row { outcome: Outcome::Hashed(Hashed { settled: true, .. }), .. }) => None,
            Some(Row { ended, .. }) => Some(HashFile { ended, ..self }),
        }
    }

    /// Whether the run that goes on is still interested. If it is interested in another version of the file, it finds
    /// that itself.
    fn is_wanted(&self, this: &ThisRun, version: Version) -> bool {
        let inside = || this.roots.iter().any(|root| self.path.as_ref().starts_with(root));
        self.run == this.number || (version == self.version && inside())
    }
}

impl BlockingAction for HashFile {
    const NAME: &'static str = "dedup.hash";
    /// An attempt that is lost with its process counts, and the file is not at fault. [`TRIES`] limits the others.
    const RETRY: RetryPolicy = RetryPolicy::With(
        RetryBehavior::new()
            .max_attempts(100)
            .initial_backoff(Duration::from_millis(100))
            .base(1.0),
    );
    type Output = Hashed;

    fn run(self, cx: &ActionContext) -> Result<Hashed, WorkError> {
        thread_local!(static BUFFERS: RefCell<Vec<u8>> = RefCell::new(vec![0; BUFFER]));
        let failed = |error: io::Error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::PermissionDenied => {
                WorkError::non_retryable(error.to_string())
            }
            _ if cx.attempt() >= TRIES => WorkError::non_retryable(error.to_string()),
            _ => WorkError::retryable(error.to_string()),
        };
        let this = cx.data::<ThisRun>();
        let path = self.path.as_ref();
        let mut file = File::open(path).map_err(failed)?;
        let version = Version::of(&file.metadata().map_err(failed)?);
        if !self.is_wanted(&this, version) {
            return Err(WorkError::canceled());
        }
        tracing::debug!(path = %path.display(), "hashing");
        let mut hasher = blake3::Hasher::new();
        BUFFERS.with_borrow_mut(|buffer| {
            loop {
                match file.read(buffer) {
                    Ok(0) => return Ok(()),
                    Ok(read) => hasher.update(&buffer[..read]),
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    Err(error) => return Err(failed(error)),
                };
                if cx.is_canceled() {
                    // At Ctrl-C: the next run may have it.
                    return Err(WorkError::snooze(Duration::ZERO));
                }
            }
        })?;
        let now = Version::of(&file.metadata().map_err(failed)?);
        tracing::debug!(path = %path.display(), "hashed");
        Ok(Hashed {
            run: this.number,
            size: hasher.count(),
            digest: *hasher.finalize().as_bytes(),
            settled: version == self.version && now == self.version,
        })
    }
}

/// What is known of a file.
#[derive(Serialize, Deserialize)]
struct Row {
    /// How many jobs for it have ended.
    ended: u32,
    outcome: Outcome,
}

#[derive(Serialize, Deserialize)]
enum Outcome {
    Hashed(Hashed),
    Failed(String),
    /// The run in which its turn came was not interested.
    Skipped,
}

/// Writes down what came of a file.
struct Record;

impl OnComplete for Record {
    const NAME: &'static str = "dedup.record";
    type Context = ();
    type Output = Hashed;

    fn apply(tx: &mut Transaction<'_>, done: Completion<(), Hashed>) -> Result<(), WorkError> {
        let outcome = match done.result {
            CompletionResult::Success(hashed) => Outcome::Hashed(hashed),
            CompletionResult::Failed(failure) => Outcome::Failed(failure.to_string()),
            CompletionResult::Canceled => Outcome::Skipped,
        };
        let ended = ((done.work_id.as_u128() & ENDED) as u32).wrapping_add(1);
        Ok(tx.put(FILES, first_work(done.work_id), &Row { ended, outcome })?)
    }
}

/// Looks files up.
#[derive(Serialize, Deserialize)]
struct Rows {
    keys: Vec<WorkId>,
}

impl Query for Rows {
    const NAME: &'static str = "dedup.rows";
    /// In the order asked.
    type Output = Vec<Option<Row>>;

    fn read(self, reader: &mut Reader<'_>) -> Result<Self::Output, WorkError> {
        self.keys.into_iter().map(|key| Ok(reader.get(FILES, key)?)).collect()
    }
}

// ---- the report ----

#[derive(Default)]
struct Report {
    files: u64,
    bytes: u64,
    /// How many files were hashed by earlier runs.
    resumed: u64,
    duplicate_groups: u64,
    duplicate_files: u64,
    wasted_bytes: u64,
    /// The largest waste first.
    largest: Vec<Group>,
    failures: Vec<String>,
}

/// Files with the same content.
struct Group {
    size: u64,
    files: u64,
    /// The first of them, byte for byte.
    paths: Vec<PathBuf>,
}

impl Group {
    fn wasted_bytes(&self) -> u64 {
        self.size * self.files.saturating_sub(1)
    }
}

/// Adds up what came of the files that this run has found.
async fn report(runtime: &Runtime, walked: Walked, run: u64) -> Result<Report, Refused> {
    let mut report = Report {
        files: walked.files.len() as u64,
        failures: walked.unreadable,
        ..Report::default()
    };
    let mut contents = Vec::with_capacity(walked.files.len());
    for page in walked.files.chunks(BATCH) {
        let keys = page.iter().map(|(_, key)| *key).collect();
        let rows = runtime.query(Rows { keys }).await?;
        for ((path, _), row) in page.iter().zip(rows) {
            let why = match row.map(|row| row.outcome) {
                Some(Outcome::Hashed(hashed)) => {
                    report.bytes += hashed.size;
                    report.resumed += u64::from(hashed.run != run);
                    contents.push((hashed.size, hashed.digest, path.as_os_str()));
                    continue;
                }
                Some(Outcome::Failed(why)) => why,
                Some(Outcome::Skipped) | None => "changed while it was looked at".into(),
            };
            report.failures.push(format!("{}: {why}", path.display()));
        }
    }
    contents.sort_unstable();
    for group in contents.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
        let (size, files) = (group[0].0, group.len() as u64);
        if files < 2 || size == 0 {
            continue;
        }
        let paths = group.iter().take(LISTED.1).map(|(_, _, path)| path.into()).collect();
        report.add(Group { size, files, paths });
    }
    report.keep_largest();
    Ok(report)
}

impl Report {
    fn add(&mut self, group: Group) {
        self.duplicate_groups += 1;
        self.duplicate_files += group.files;
        self.wasted_bytes += group.wasted_bytes();
        self.largest.push(group);
        if self.largest.len() > 2 * LISTED.0 {
            self.keep_largest();
        }
    }

    fn keep_largest(&mut self) {
        self.largest.sort_by_key(|group| Reverse(group.wasted_bytes()));
        self.largest.truncate(LISTED.0);
    }
}

// ---- what the user sees ----

#[derive(Serialize)]
struct Totals {
    files: u64,
    bytes: u64,
    duplicate_groups: u64,
    duplicate_files: u64,
    wasted_bytes: u64,
    failed: u64,
    /// How many files were hashed by earlier runs; only where there can be any.
    #[serde(skip_serializing_if = "Option::is_none")]
    resumed: Option<u64>,
    works_per_s: f64,
}

fn print_json(totals: &Totals) -> io::Result<()> {
    writeln!(io::stdout(), "{}", serde_json::to_string(totals)?)
}

fn print_report(totals: &Totals, largest: &[Group]) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    for group in largest {
        let (size, wasted) = (HumanBytes(group.size), HumanBytes(group.wasted_bytes()));
        writeln!(out, "{} × {size}, {wasted} wasted", HumanCount(group.files))?;
        for path in &group.paths {
            out.write_all(b"  ")?;
            out.write_all(path.as_os_str().as_encoded_bytes())?;
            out.write_all(b"\n")?;
        }
        let unlisted = group.files - group.paths.len() as u64;
        if unlisted > 0 {
            writeln!(out, "  … and {} more", HumanCount(unlisted))?;
        }
    }
    let unlisted = totals.duplicate_groups - largest.len() as u64;
    if unlisted > 0 {
        writeln!(out, "… and {} more groups", HumanCount(unlisted))?;
    }
    let resumed = match totals.resumed {
        None | Some(0) => String::new(),
        Some(files) => format!(" {} known from earlier runs;", HumanCount(files)),
    };
    writeln!(
        out,
        "{} files with {}: {} {} of {} duplicates, {} wasted; {} failed;{resumed} {} files/s",
        HumanCount(totals.files),
        HumanBytes(totals.bytes),
        HumanCount(totals.duplicate_groups),
        if totals.duplicate_groups == 1 { "group" } else { "groups" },
        HumanCount(totals.duplicate_files),
        HumanBytes(totals.wasted_bytes),
        HumanCount(totals.failed),
        HumanCount(totals.works_per_s as u64),
    )?;
    out.flush()
}

/// Draws on stderr, and only on a terminal.
fn progress_bar() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = "{bar:40} {human_pos} of {human_len} files, {per_sec}, {elapsed}";
    let style = ProgressStyle::with_template(template).unwrap_or(ProgressStyle::default_bar());
    ProgressBar::new(0).with_style(style)
}

async fn show_progress(pool: &Workpool, bar: &ProgressBar) -> Infallible {
    loop {
        let found = bar.length().unwrap_or(0);
        bar.set_position(found.saturating_sub(pool.pending()));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
