//! Finds duplicate files: one blocking action per file hashes it, an `on_complete` records size and digest in the
//! commit that completes the work, a query turns what was recorded into the report.
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
//! Exit codes: 0 when the report was made, 2 for a wrong argument or a PATH that does not exist, 130 after Ctrl-C.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::HashSet;
use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, ErrorKind, IsTerminal, Read, Write};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use actix_workpool::{
    ActionContext, BlockingAction, Completion, CompletionResult, OnComplete, PoolConfig, Query,
    Reader, Retention, RetryBehavior, RetryPolicy, Runtime, TableKey, Transaction, WorkError,
    Workpool,
};
use clap::Parser;
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

/// Files enqueued in one commit.
const BATCH: usize = 1_000;

/// The walk is far faster than the hashing and waits here, so that memory does not grow with the tree.
const MAX_WAITING: u64 = 20_000;

/// Hashing threads: more than cores, because files that are not in memory are waited for.
const THREADS_PER_CORE: usize = 4;

/// Works given to each hashing thread: enough that none waits for the pool to hand it the next file.
const WORKS_PER_THREAD: usize = 16;

/// How much is read at once.
const BUFFER: usize = 128 * 1024;

/// How long files may take to be hashed to their end after Ctrl-C.
const GRACE: Duration = Duration::from_secs(2);

/// One row per hashed file, without a value. The key is size, digest and path, so that duplicates are neighbours.
/// Written by [`Record`], read by [`MakeReport`].
const FILES: &str = "files";

/// Work id → what went wrong. Written by [`Record`], read by [`MakeReport`].
const FAILURES: &str = "failures";

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
    /// Print the totals as one line of JSON
    #[arg(long)]
    json: bool,
}

#[actix::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let roots = match roots(&args.paths) {
        Ok(roots) => roots,
        Err(message) => {
            eprintln!("dedup: {message}");
            return ExitCode::from(2);
        }
    };
    match run(&args, roots).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("dedup: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args, roots: Vec<Root>) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let threads = args.parallelism.map_or(THREADS_PER_CORE * cores, usize::from);
    let runtime = Runtime::builder()
        .blocking_action::<HashFile>()
        .on_complete::<Record>()
        .query::<MakeReport>()
        .pool("hash", PoolConfig::default().max_parallelism(threads * WORKS_PER_THREAD))
        .blocking_threads(threads)
        // The hashing has its own threads; handing out and gathering is little work.
        .worker_arbiters(1)
        // What is of use later is in the tables.
        .retention(Retention { max_age: None, max_count: Some(0) })
        .start()
        .await?;
    let pool = runtime.pool("hash")?;
    let bar = progress_bar();

    let started = Instant::now();
    let hashed = tokio::select! {
        hashed = hash_all(&pool, roots, &bar) => hashed,
        never = show_progress(&pool, &bar) => match never {},
        _ = tokio::signal::ctrl_c() => {
            bar.finish_and_clear();
            return Ok(interrupted(&runtime).await);
        }
    };
    let elapsed = started.elapsed();
    bar.finish_and_clear();
    let walked = hashed?;

    let (groups, members) = if args.json { (0, 0) } else { (20, 10) };
    let report = runtime.query(MakeReport { groups, members }).await?;
    runtime.shutdown(Duration::ZERO).await;

    for failure in walked.unreadable.iter().chain(&report.failures) {
        eprintln!("dedup: {failure}");
    }
    let totals = Totals {
        files: walked.files,
        bytes: report.bytes,
        duplicate_groups: report.duplicate_groups,
        duplicate_files: report.duplicate_files,
        wasted_bytes: report.wasted_bytes,
        failed: (walked.unreadable.len() + report.failures.len()) as u64,
        works_per_s: (walked.files as f64 / elapsed.as_secs_f64() * 10.0).round() / 10.0,
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

async fn interrupted(runtime: &Runtime) -> ExitCode {
    eprintln!("dedup: interrupted, shutting down");
    tokio::select! {
        left = runtime.shutdown(GRACE) => {
            eprintln!("dedup: shut down, files found but not hashed: {}", left.pending);
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

enum Found {
    File(PathBuf),
    /// Something that cannot be looked into, and why.
    Unreadable(String),
}

/// Sends everything that is found, until nobody listens.
fn walk(roots: &[Root], found: &mpsc::Sender<Found>) {
    let starts: HashSet<&Path> = roots.iter().map(|root| root.canonical.as_path()).collect();
    for root in roots {
        let entries = walkdir::WalkDir::new(&root.canonical)
            .into_iter()
            // A root inside of this one is walked on its own.
            .filter_entry(|entry| entry.depth() == 0 || !starts.contains(entry.path()));
        for entry in entries {
            let message = match entry {
                Ok(entry) if entry.file_type().is_file() => {
                    Found::File(root.as_given(entry.path()))
                }
                Ok(_) => continue,
                Err(error) => {
                    let path = root.as_given(error.path().unwrap_or(&root.canonical));
                    let error = error.io_error().map_or(error.to_string(), io::Error::to_string);
                    Found::Unreadable(format!("{}: {error}", path.display()))
                }
            };
            if found.blocking_send(message).is_err() {
                return;
            }
        }
    }
}

#[derive(Default)]
struct Walked {
    files: u64,
    unreadable: Vec<String>,
}

/// Walks on a thread of its own and enqueues what that finds; returns when every file has an outcome.
async fn hash_all(
    pool: &Workpool,
    roots: Vec<Root>,
    bar: &ProgressBar,
) -> Result<Walked, Box<dyn std::error::Error>> {
    let (sender, mut found) = mpsc::channel(2 * BATCH);
    std::thread::Builder::new().name("walk".into()).spawn(move || walk(&roots, &sender))?;

    let mut walked = Walked::default();
    let mut batch = Vec::with_capacity(BATCH);
    while found.recv_many(&mut batch, BATCH).await > 0 {
        let mut works = Vec::with_capacity(batch.len());
        for found in batch.drain(..) {
            match found {
                Found::File(path) => works.push(HashFile { path: path.into() }),
                Found::Unreadable(problem) => walked.unreadable.push(problem),
            }
        }
        while pool.pending() > MAX_WAITING {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        walked.files += works.len() as u64;
        pool.enqueue_batch(works).on_complete::<Record>(()).await?;
        bar.set_length(walked.files);
    }
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

/// Hashes one file.
#[derive(Serialize, Deserialize)]
struct HashFile {
    path: StoredPath,
}

#[derive(Serialize, Deserialize)]
struct Hashed {
    path: StoredPath,
    size: u64,
    digest: [u8; 32],
}

impl BlockingAction for HashFile {
    const NAME: &'static str = "dedup.hash";
    const RETRY: RetryPolicy =
        RetryPolicy::With(RetryBehavior { max_attempts: 3, initial_backoff_ms: 50, base: 2.0 });
    type Output = Hashed;

    fn run(self, cx: &ActionContext) -> Result<Hashed, WorkError> {
        thread_local!(static BUFFERS: RefCell<Vec<u8>> = RefCell::new(vec![0; BUFFER]));
        let failed = |error: io::Error| {
            let message = format!("{}: {error}", self.path.as_ref().display());
            match error.kind() {
                ErrorKind::NotFound | ErrorKind::PermissionDenied => {
                    WorkError::non_retryable(message)
                }
                _ => WorkError::retryable(message),
            }
        };
        let mut file = File::open(&self.path).map_err(failed)?;
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
                    return Err(WorkError::canceled());
                }
            }
        })?;
        let (size, digest) = (hasher.count(), *hasher.finalize().as_bytes());
        Ok(Hashed { path: self.path, size, digest })
    }
}

/// Length of size and digest in a key of [`FILES`].
const CONTENT: usize = 8 + 32;

impl Hashed {
    fn key(&self) -> TableKey {
        let path = self.path.as_ref().as_os_str().as_encoded_bytes();
        [&self.size.to_be_bytes(), &self.digest[..], path].concat().into()
    }
}

/// Writes down what came of a file.
struct Record;

impl OnComplete for Record {
    const NAME: &'static str = "dedup.record";
    type Context = ();
    type Output = Hashed;

    fn apply(tx: &mut Transaction<'_>, done: Completion<(), Hashed>) -> Result<(), WorkError> {
        match done.result {
            CompletionResult::Success(file) => tx.put(FILES, file.key(), &())?,
            CompletionResult::Failed(failure) => {
                tx.put(FAILURES, done.work_id, &failure.to_string())?;
            }
            CompletionResult::Canceled => {}
        }
        Ok(())
    }
}

/// Adds everything up, and lists the groups that waste most.
#[derive(Serialize, Deserialize)]
struct MakeReport {
    /// At most how many groups are listed.
    groups: usize,
    /// At most how many files of each.
    members: usize,
}

#[derive(Default, Serialize, Deserialize)]
struct Report {
    bytes: u64,
    duplicate_groups: u64,
    duplicate_files: u64,
    wasted_bytes: u64,
    /// The largest waste first.
    largest: Vec<Group>,
    failures: Vec<String>,
}

/// Files with the same content.
#[derive(Default, Serialize, Deserialize)]
struct Group {
    /// Size and digest.
    content: Vec<u8>,
    size: u64,
    files: u64,
    /// The first of them, byte for byte.
    paths: Vec<Vec<u8>>,
}

impl Group {
    fn wasted_bytes(&self) -> u64 {
        self.size * self.files.saturating_sub(1)
    }
}

impl Query for MakeReport {
    const NAME: &'static str = "dedup.report";
    type Output = Report;

    fn read(self, reader: &mut Reader<'_>) -> Result<Report, WorkError> {
        const PAGE: usize = 4_096;
        let mut report = Report::default();
        let mut group = Group::default();
        let mut after = Bound::Unbounded;
        loop {
            let page = reader.range::<()>(FILES, (after, Bound::Unbounded), PAGE)?;
            let Some((last, ())) = page.last() else { break };
            after = Bound::Excluded(last.clone());
            for (key, ()) in &page {
                let (content, path) = key.as_bytes().split_at(CONTENT);
                if content != group.content {
                    self.add(&mut report, group);
                    let size = u64::from_be_bytes(content[..8].try_into()?);
                    group = Group { content: content.to_vec(), size, ..Group::default() };
                }
                group.files += 1;
                if group.paths.len() < self.members {
                    group.paths.push(path.to_vec());
                }
            }
        }
        self.add(&mut report, group);
        self.keep_largest(&mut report);
        let failures = reader.scan(FAILURES)?;
        report.failures = failures.into_iter().map(|(_, failure)| failure).collect();
        Ok(report)
    }
}

impl MakeReport {
    fn add(&self, report: &mut Report, group: Group) {
        report.bytes += group.size * group.files;
        if group.files < 2 || group.size == 0 {
            return;
        }
        report.duplicate_groups += 1;
        report.duplicate_files += group.files;
        report.wasted_bytes += group.wasted_bytes();
        report.largest.push(group);
        if report.largest.len() > 2 * self.groups {
            self.keep_largest(report);
        }
    }

    fn keep_largest(&self, report: &mut Report) {
        report.largest.sort_by_key(|group| Reverse(group.wasted_bytes()));
        report.largest.truncate(self.groups);
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
            out.write_all(path)?;
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
    writeln!(
        out,
        "{} files with {}: {} {} of {} duplicates, {} wasted; {} failed; {} files/s",
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
