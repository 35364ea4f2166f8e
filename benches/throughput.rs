//! What the pool costs, each case against a baseline in the same run.
//!
//! ```text
//! $ cargo bench --bench throughput -- --json            # one JSON line per case
//! $ cargo bench --bench throughput -- --json --quick    # in less than a minute
//! $ cargo bench --bench throughput -- --case noop       # one case
//! ```
//!
//! Where two sides are compared they run in turn, several times, and the medians are shown.

#[path = "throughput/keys.rs"]
mod keys;

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actix_workpool::storage::{Memory, Storage};
use actix_workpool::{
    Action, ActionContext, PoolConfig, Runtime, RuntimeBuilder, Unique, WorkError, WorkStatus,
    Workpool,
};
use clap::Parser;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

const PARALLELISM: usize = 64;
const BATCH: u64 = 1_000;

#[derive(Parser)]
struct Options {
    /// Print one JSON line per case.
    #[arg(long)]
    json: bool,
    /// Smaller numbers, for a look.
    #[arg(long)]
    quick: bool,
    /// Only cases whose name contains this.
    #[arg(long)]
    case: Option<String>,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let options = Options::parse();
    type Case = (&'static str, fn(bool) -> Value);
    let cases: &[Case] = &[
        ("memory/noop", noop),
        ("memory/backlog", backlog),
        ("memory/latency", latency),
        ("memory/pending_bytes", pending_bytes),
        ("memory/delayed", delayed),
        ("memory/pools", pools),
        ("memory/threads", threads),
        ("idle/pools", idle_pools),
        ("memory/unique", unique),
        ("memory/rate", rate),
        ("memory/keys", keys::of_their_own),
        ("memory/key_bytes", key_bytes),
        ("memory/blocked", keys::blocked),
        ("memory/fair", keys::fair),
        #[cfg(feature = "redb")]
        ("redb/noop", durable::noop),
        #[cfg(feature = "redb")]
        ("redb/latency", durable::latency),
        #[cfg(feature = "redb")]
        ("redb/enqueue_one", durable::enqueue_one),
        #[cfg(feature = "redb")]
        ("redb/enqueue_many", durable::enqueue_many),
        #[cfg(feature = "redb")]
        ("redb/backlog", durable::backlog),
        #[cfg(feature = "redb")]
        ("redb/blocked", durable::blocked),
        #[cfg(feature = "redb")]
        ("redb/open", durable::open),
    ];
    for (name, case) in cases.iter().copied() {
        if options.case.as_ref().is_some_and(|wanted| !name.contains(wanted.as_str())) {
            continue;
        }
        let Value::Object(figures) = case(options.quick) else { unreachable!("a case is a row") };
        let mut row = json!({ "case": name });
        row.as_object_mut().expect("an object").extend(figures);
        if options.json {
            println!("{row}");
        } else {
            println!("{name:22} {}", row.to_string().trim_start_matches('{').trim_end_matches('}'));
        }
    }
}

/// 100 bytes of payload.
#[derive(Clone, Serialize, Deserialize)]
struct Noop {
    number: u64,
    text: String,
}

impl Noop {
    fn new(number: u64) -> Noop {
        Noop { number, text: "x".repeat(100) }
    }
}

impl Action for Noop {
    const NAME: &'static str = "noop";
    type Output = ();

    async fn run(self, _: ActionContext) -> Result<(), WorkError> {
        std::hint::black_box(self.number);
        Ok(())
    }
}

/// Runs on a thread that is neither the pool's nor the baseline's.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime can be made").block_on(future)
}

async fn start(config: PoolConfig) -> (Runtime, Workpool) {
    start_on(Memory::new(), config).await
}

async fn start_on(storage: impl Storage, config: PoolConfig) -> (Runtime, Workpool) {
    start_with(Runtime::builder().storage(storage), config).await
}

async fn start_with(builder: RuntimeBuilder, config: PoolConfig) -> (Runtime, Workpool) {
    let runtime = builder
        .action::<Noop>()
        .action::<Stamp>()
        .data(Stamps::default())
        .pool("bench", config)
        .start()
        .await
        .expect("the runtime starts");
    let pool = runtime.pool("bench").expect("the pool is there");
    (runtime, pool)
}

fn config() -> PoolConfig {
    PoolConfig::default().max_parallelism(PARALLELISM)
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn ratios(pairs: &[(f64, f64)]) -> f64 {
    median(pairs.iter().map(|(ours, theirs)| ours / theirs).collect())
}

fn medians(pairs: &[(f64, f64)]) -> (f64, f64) {
    let side = |pick: fn(&(f64, f64)) -> f64| median(pairs.iter().map(pick).collect());
    (side(|pair| pair.0), side(|pair| pair.1))
}

/// The whole life of `works` jobs; jobs per second.
async fn whole_life(pool: &Workpool, works: u64) -> f64 {
    let before = pool.diagnostics().await.expect("diagnostics").report.succeeded;
    let begun = Instant::now();
    let mut last = None;
    for batch in 0..works / BATCH {
        let works = (0..BATCH).map(|number| Noop::new(batch * BATCH + number));
        let batch = pool.enqueue_batch(works).await.expect("enqueued");
        last = batch.ids().last().copied();
    }
    pool.idle().await.expect("idle");
    let rate = works as f64 / begun.elapsed().as_secs_f64();
    let status = pool.status(last.expect("a job")).await.expect("status");
    assert!(matches!(status, WorkStatus::Finished(_)), "the last job has finished");
    let after = pool.diagnostics().await.expect("diagnostics").report.succeeded;
    assert_eq!(after - before, works, "every job has succeeded");
    rate
}

/// What one would write by hand: encode, spawn, wait for a permit, decode, run.
fn by_hand(works: u64) -> f64 {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build();
    let runtime = runtime.expect("a runtime can be made");
    let permits = Arc::new(Semaphore::new(PARALLELISM));
    let left = Arc::new(AtomicU64::new(works));
    let done = Arc::new(tokio::sync::Notify::new());
    let begun = Instant::now();
    for number in 0..works {
        let args = serde_json::to_vec(&Noop::new(number)).expect("encodes");
        let (permits, left, done) = (permits.clone(), left.clone(), done.clone());
        runtime.spawn(async move {
            let _permit = permits.acquire().await.expect("open");
            let action: Noop = serde_json::from_slice(&args).expect("decodes");
            std::hint::black_box(action.number);
            let output = serde_json::to_vec(&()).expect("encodes");
            std::hint::black_box(output);
            if left.fetch_sub(1, Ordering::AcqRel) == 1 {
                done.notify_one();
            }
        });
    }
    runtime.block_on(done.notified());
    works as f64 / begun.elapsed().as_secs_f64()
}

fn noop(quick: bool) -> Value {
    let (works, rounds) = if quick { (100_000, 5) } else { (400_000, 7) };
    let mut pairs = Vec::new();
    for _ in 0..rounds {
        let ours = block_on(async {
            let (runtime, pool) = start(config()).await;
            whole_life(&pool, works / 4).await;
            let rate = whole_life(&pool, works).await;
            runtime.shutdown(Duration::ZERO).await;
            rate
        });
        by_hand(works / 4);
        pairs.push((ours, by_hand(works)));
    }
    let (ours, theirs) = medians(&pairs);
    json!({
        "ratio": round(ratios(&pairs), 3),
        "works_per_s": ours.round(),
        "baseline_per_s": theirs.round(),
    })
}

/// Acknowledged enqueues per second, each job with a unique key of its own, against none with a key.
fn unique(quick: bool) -> Value {
    let (works, rounds) = if quick { (50_000, 5) } else { (200_000, 7) };
    let one = |is_unique| block_on(enqueues(works, is_unique));
    let pairs: Vec<_> = (0..rounds).map(|_| (one(true), one(false))).collect();
    let (ours, theirs) = medians(&pairs);
    json!({
        "ratio": round(ratios(&pairs), 3),
        "works_per_s": ours.round(),
        "baseline_per_s": theirs.round(),
    })
}

/// Jobs enqueued per second into a paused pool, acknowledged a thousand at a time.
async fn enqueues(works: u64, is_unique: bool) -> f64 {
    let (runtime, pool) = start(config().paused(true)).await;
    let begun = Instant::now();
    for page in 0..works / 1_000 {
        let mut last = None;
        for number in page * 1_000..(page + 1) * 1_000 {
            let mut enqueue = pool.enqueue(Noop::new(number));
            if is_unique {
                enqueue = enqueue.unique(Unique::key(format!("user {number}")));
            }
            match number % 1_000 {
                999 => last = Some(enqueue),
                _ => drop(enqueue.do_enqueue().expect("enqueued")),
            }
        }
        last.expect("the last of a page").await.expect("acknowledged");
    }
    let rate = works as f64 / begun.elapsed().as_secs_f64();
    runtime.shutdown(Duration::ZERO).await;
    rate
}

fn backlog(quick: bool) -> Value {
    let (works, rounds) = if quick { (100_000, 5) } else { (300_000, 7) };
    let pairs: Vec<_> = (0..rounds)
        .map(|_| (block_on(at_backlog(1_000_000, works)), block_on(at_backlog(1_000, works))))
        .collect();
    let (ours, theirs) = medians(&pairs);
    json!({
        "ratio": round(ratios(&pairs), 3),
        "works_per_s": ours.round(),
        "baseline_per_s": theirs.round(),
    })
}

/// Jobs per second while a producer keeps `pending` jobs pending.
async fn at_backlog(pending: u64, works: u64) -> f64 {
    at_backlog_on(Memory::new(), pending, works).await
}

async fn at_backlog_on(storage: impl Storage, pending: u64, works: u64) -> f64 {
    let (runtime, pool) = start_on(storage, config().paused(true)).await;
    let batch = || (0..BATCH).map(Noop::new);
    while pool.pending() < pending {
        pool.enqueue_batch(batch()).await.expect("enqueued");
    }
    pool.resume().await.expect("resumed");
    let begun = Instant::now();
    let mut produced = 0;
    while produced < works {
        if pool.pending() <= pending {
            pool.enqueue_batch(batch()).await.expect("enqueued");
            produced += BATCH;
        } else {
            // Not `yield_now`: a producer that spins would take a core from the pool.
            std::thread::sleep(Duration::from_micros(100));
        }
    }
    let rate = works as f64 / begun.elapsed().as_secs_f64();
    pool.pause().await.expect("paused");
    runtime.shutdown(Duration::from_secs(5)).await;
    rate
}

/// Says when it started.
#[derive(Serialize, Deserialize)]
struct Stamp {
    number: usize,
}

#[derive(Default)]
struct Stamps(Mutex<Vec<(usize, Instant)>>);

impl Action for Stamp {
    const NAME: &'static str = "stamp";
    type Output = ();

    async fn run(self, cx: ActionContext) -> Result<(), WorkError> {
        let now = Instant::now();
        cx.data::<Stamps>().0.lock().expect("lock").push((self.number, now));
        if let Some(started) = cx.try_data::<tokio::sync::mpsc::UnboundedSender<Instant>>() {
            let _ = started.send(now);
        }
        Ok(())
    }
}

fn latency(quick: bool) -> Value {
    let theirs_runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let theirs_runtime = theirs_runtime.expect("a runtime can be made");
    let (started, mut starts) = tokio::sync::mpsc::unbounded_channel::<Instant>();
    let spawned = async || {
        let sender = started.clone();
        let begun = Instant::now();
        theirs_runtime.spawn(async move { sender.send(Instant::now()) });
        starts.recv().await.expect("started").duration_since(begun)
    };
    let figures = block_on(latency_on(Memory::new(), quick, spawned));
    theirs_runtime.shutdown_background();
    figures
}

/// The time from an enqueue to the start of its function, in an idle pool, in turn with a baseline.
async fn latency_on(
    storage: impl Storage,
    quick: bool,
    mut baseline: impl AsyncFnMut() -> Duration,
) -> Value {
    let samples = if quick { 500 } else { 3_000 };
    let (started, mut starts) = tokio::sync::mpsc::unbounded_channel::<Instant>();
    let runtime = Runtime::builder()
        .storage(storage)
        .action::<Stamp>()
        .data(Stamps::default())
        .data(started)
        .pool("bench", config())
        .start()
        .await
        .expect("the runtime starts");
    let pool = runtime.pool("bench").expect("the pool is there");
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for number in 0..samples {
        // Long enough for every thread to go to sleep.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let begun = Instant::now();
        pool.do_enqueue(Stamp { number }).expect("enqueued");
        let at = starts.recv().await.expect("started");
        ours.push(at.duration_since(begun).as_secs_f64() * 1e6);
        tokio::time::sleep(Duration::from_millis(1)).await;
        theirs.push(baseline().await.as_secs_f64() * 1e6);
    }
    runtime.shutdown(Duration::ZERO).await;
    let (ours, theirs) = (median(ours), median(theirs));
    json!({
        "ratio": round(ours / theirs, 2),
        "p50_us": round(ours, 1),
        "baseline_p50_us": round(theirs, 1),
    })
}

/// Measured in a process of its own: memory that an earlier case has given back would hide what this one takes.
fn pending_bytes(_: bool) -> Value {
    in_a_child("memory/pending_bytes", || pending_bytes_here(false))
}

/// The same for jobs with a key each.
fn key_bytes(_: bool) -> Value {
    in_a_child("memory/key_bytes", || pending_bytes_here(true))
}

fn in_a_child(case: &str, here: impl Fn() -> Value) -> Value {
    const CHILD: &str = "WORKPOOL_BENCH_CHILD";
    if std::env::var_os(CHILD).is_some() {
        return here();
    }
    let child = std::process::Command::new(std::env::current_exe().expect("an executable"))
        .args(["--json", "--case", case])
        .env(CHILD, "1")
        .output()
        .expect("the child runs");
    serde_json::from_slice(&child.stdout).expect("the child prints a row")
}

fn pending_bytes_here(has_keys: bool) -> Value {
    const WORKS: u64 = 1_000_000;
    let args = serde_json::to_vec(&Noop::new(500_000)).expect("encodes").len() as f64;
    let bytes = block_on(async {
        let (runtime, pool) = start(config().paused(true)).await;
        let before = resident_bytes();
        for batch in 0..WORKS / BATCH {
            let works = (0..BATCH).map(|number| Noop::new(batch * BATCH + number));
            let batch = pool.enqueue_batch(works);
            let batch = match has_keys {
                true => batch.keyed_by(|noop| format!("user-{}", noop.number)),
                false => batch,
            };
            batch.await.expect("enqueued");
        }
        let after = resident_bytes();
        assert_eq!(pool.pending(), WORKS);
        runtime.shutdown(Duration::ZERO).await;
        (after - before) as f64 / WORKS as f64
    });
    json!({ "bytes": round(bytes - args, 1), "args_bytes": args, "works": WORKS })
}

/// The memory that the process occupies.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("statm");
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("pages");
    pages * 4096
}

fn delayed(quick: bool) -> Value {
    let (works, within) =
        if quick { (5_000, Duration::from_secs(5)) } else { (10_000, Duration::from_secs(10)) };
    let stamps = Arc::new(Stamps::default());
    let mut due = Vec::with_capacity(works);
    block_on(async {
        let runtime = Runtime::builder()
            .action_fn(DELAYED, |number, cx| async move {
                cx.data::<Arc<Stamps>>().0.lock().expect("lock").push((number, Instant::now()));
                Ok(())
            })
            .data(stamps.clone())
            .pool("bench", config())
            .start()
            .await
            .expect("the runtime starts");
        let pool = runtime.pool("bench").expect("the pool is there");
        let mut rng = fastrand::Rng::with_seed(7);
        for number in 0..works {
            let delay = within.mul_f64(rng.f64()) + Duration::from_millis(200);
            // From before the call: a start that is early by any clock is seen.
            due.push(Instant::now() + delay);
            pool.enqueue(DELAYED.call(number)).run_after(delay).do_enqueue().expect("enqueued");
        }
        pool.idle().await.expect("idle");
        runtime.shutdown(Duration::ZERO).await;
    });
    let stamps = stamps.0.lock().expect("lock");
    assert_eq!(stamps.len(), works);
    let early = stamps.iter().filter(|(number, at)| *at < due[*number]).count();
    let mut late: Vec<_> = stamps
        .iter()
        .map(|(number, at)| at.saturating_duration_since(due[*number]).as_secs_f64() * 1e3)
        .collect();
    late.sort_by(f64::total_cmp);
    let at = |part: f64| round(late[((late.len() - 1) as f64 * part) as usize], 3);
    json!({ "p99_ms": at(0.99), "p50_ms": at(0.5), "max_ms": at(1.0), "early": early, "works": works })
}

/// The rate at which jobs start while many wait, ÷ the rate that was asked for: 1,000 in a second, one at a time.
fn rate(quick: bool) -> Value {
    let works = if quick { 3_000 } else { 10_000 };
    let per_second = 1_000;
    let stamps = Arc::new(Stamps::default());
    let attempts = block_on(async {
        let rate = actix_workpool::Rate::per_second(per_second);
        let runtime = Runtime::builder()
            .action_fn(DELAYED, |number, cx| async move {
                cx.data::<Arc<Stamps>>().0.lock().expect("lock").push((number, Instant::now()));
                Ok(())
            })
            .data(stamps.clone())
            .pool("bench", config().rate(rate))
            .start()
            .await
            .expect("the runtime starts");
        let pool = runtime.pool("bench").expect("the pool is there");
        let jobs = (0..works).map(|number| DELAYED.call(number));
        pool.enqueue_batch(jobs).await.expect("enqueued");
        pool.idle().await.expect("idle");
        let attempts = pool.diagnostics().await.expect("an answer").report.completed;
        runtime.shutdown(Duration::ZERO).await;
        attempts
    });
    let stamps = stamps.0.lock().expect("lock");
    assert_eq!((stamps.len(), attempts), (works, works as u64), "one attempt for each job");
    let times = stamps.iter().map(|(_, at)| *at);
    let (first, last) = (times.clone().min().expect("a start"), times.max().expect("a start"));
    let reached = (works - 1) as f64 / (last - first).as_secs_f64();
    json!({ "ratio": round(reached / f64::from(per_second), 4), "works": works })
}

const DELAYED: actix_workpool::ActionKey<usize, ()> = actix_workpool::ActionKey::new("delayed");

fn pools(quick: bool) -> Value {
    let (works, rounds) = if quick { (60_000, 9) } else { (200_000, 11) };
    let run = |idle_pools: usize| {
        block_on(async {
            let (runtime, pool) = start(config()).await;
            for number in 0..idle_pools {
                let name = format!("idle-{number}");
                runtime.create_pool(&name, PoolConfig::default()).await.expect("created");
            }
            whole_life(&pool, works / 4).await;
            let rate = whole_life(&pool, works).await;
            runtime.shutdown(Duration::ZERO).await;
            rate
        })
    };
    let pairs: Vec<_> = (0..rounds).map(|_| (run(0), run(1_000))).collect();
    let (alone, beside) = medians(&pairs);
    json!({
        "ratio": round(ratios(&pairs), 3),
        "works_per_s": beside.round(),
        "baseline_per_s": alone.round(),
    })
}

/// Jobs per second with 4 worker threads and with 2.
fn threads(quick: bool) -> Value {
    let (works, rounds) = if quick { (100_000, 7) } else { (400_000, 9) };
    let run = |threads: usize| {
        block_on(async {
            let builder = Runtime::builder().worker_arbiters(threads);
            let (runtime, pool) = start_with(builder, config()).await;
            whole_life(&pool, works / 4).await;
            let rate = whole_life(&pool, works).await;
            runtime.shutdown(Duration::ZERO).await;
            rate
        })
    };
    let pairs: Vec<_> = (0..rounds).map(|_| (run(4), run(2))).collect();
    let (four, two) = medians(&pairs);
    json!({
        "ratio": round(ratios(&pairs), 3),
        "works_per_s": four.round(),
        "baseline_per_s": two.round(),
    })
}

/// The CPU time that a process with 1,000 idle pools uses in a minute.
fn idle_pools(quick: bool) -> Value {
    const POOLS: usize = 1_000;
    const MINUTE: Duration = Duration::from_secs(60);
    let window = if quick { MINUTE / 12 } else { MINUTE };
    let used = block_on(async {
        let (runtime, _pool) = start(config()).await;
        for number in 0..POOLS {
            let name = format!("idle-{number}");
            runtime.create_pool(&name, PoolConfig::default()).await.expect("created");
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let before = cpu_time();
        tokio::time::sleep(window).await;
        let used = cpu_time() - before;
        runtime.shutdown(Duration::ZERO).await;
        used
    });
    let used = used.as_secs_f64() * 1e3 * MINUTE.div_duration_f64(window);
    json!({ "cpu_ms_per_minute": round(used, 2), "pools": POOLS })
}

/// The CPU time that the threads of the process have used.
fn cpu_time() -> Duration {
    let threads = std::fs::read_dir("/proc/self/task").expect("threads");
    let nanos = threads.map(|thread| {
        let path = thread.expect("a thread").path().join("schedstat");
        let stat = std::fs::read_to_string(path).expect("schedstat");
        stat.split(' ').next().and_then(|nanos| nanos.parse::<u64>().ok()).expect("nanos")
    });
    Duration::from_nanos(nanos.sum())
}

fn round(figure: f64, digits: i32) -> f64 {
    let unit = 10f64.powi(digits);
    (figure * unit).round() / unit
}

/// The store in a file, each group of commits fsynced.
#[cfg(feature = "redb")]
mod durable {
    use std::io::Write;
    use std::path::PathBuf;

    use actix_workpool::storage::Redb;

    use super::*;

    /// A new file, on the disk of the target folder: a temporary folder may be in memory.
    fn file() -> PathBuf {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("bench");
        std::fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join(format!("{}-{number}.redb", std::process::id()));
        let _ = std::fs::remove_file(&path);
        path
    }

    fn with_file<T>(case: impl FnOnce(&PathBuf) -> T) -> T {
        let path = file();
        let result = case(&path);
        let _ = std::fs::remove_file(&path);
        result
    }

    pub fn noop(quick: bool) -> Value {
        let (works, rounds) = if quick { (20_000, 3) } else { (100_000, 5) };
        let run = |storage: Option<Redb>| {
            block_on(async {
                let (runtime, pool) = match storage {
                    Some(storage) => start_on(storage, config()).await,
                    None => start(config()).await,
                };
                whole_life(&pool, works / 4 / BATCH * BATCH).await;
                let rate = whole_life(&pool, works).await;
                runtime.shutdown(Duration::ZERO).await;
                rate
            })
        };
        let pairs: Vec<_> = (0..rounds)
            .map(|_| {
                let ours = with_file(|path| run(Some(Redb::open(path).expect("opens"))));
                (ours, run(None))
            })
            .collect();
        let (ours, theirs) = medians(&pairs);
        json!({
            "ratio": round(ratios(&pairs), 3),
            "works_per_s": ours.round(),
            "baseline_per_s": theirs.round(),
        })
    }

    pub fn latency(quick: bool) -> Value {
        with_file(|path| {
            let storage = Redb::open(path).expect("opens");
            with_file(|path| {
                let mut file = std::fs::File::create(path).expect("a file");
                block_on(latency_on(storage, quick, async || append(&mut file)))
            })
        })
    }

    /// Appends 4 KiB, and waits until they are on the disk.
    fn append(file: &mut std::fs::File) -> Duration {
        let begun = Instant::now();
        file.write_all(&[7; 4096]).expect("written");
        file.sync_data().expect("synced");
        begun.elapsed()
    }

    /// Acknowledgements, one at a time: milliseconds each.
    async fn acks(pool: &Workpool, count: usize) -> f64 {
        let mut each = Vec::with_capacity(count);
        for number in 0..count {
            let begun = Instant::now();
            pool.enqueue(Noop::new(number as u64)).await.expect("enqueued");
            each.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        median(each)
    }

    pub fn enqueue_one(quick: bool) -> Value {
        let count = if quick { 300 } else { 2_000 };
        let ours = with_file(|path| {
            block_on(async {
                let storage = Redb::open(path).expect("opens");
                let (runtime, pool) = start_on(storage, config().paused(true)).await;
                acks(&pool, count / 10).await;
                let ours = acks(&pool, count).await;
                runtime.shutdown(Duration::ZERO).await;
                ours
            })
        });
        let theirs = with_file(|path| {
            let mut file = std::fs::File::create(path).expect("a file");
            median((0..count).map(|_| append(&mut file).as_secs_f64() * 1e3).collect())
        });
        json!({
            "ratio": round(ours / theirs, 2),
            "p50_ms": round(ours, 3),
            "baseline_p50_ms": round(theirs, 3),
        })
    }

    pub fn enqueue_many(quick: bool) -> Value {
        const CALLERS: usize = 256;
        let (rounds, each) = if quick { (3, 40) } else { (7, 100) };
        let pairs = with_file(|path| {
            block_on(async {
                let storage = Redb::open(path).expect("opens");
                let (runtime, pool) = start_on(storage, config().paused(true)).await;
                let mut pairs = Vec::new();
                for _ in 0..rounds {
                    let one = acks_per_second(&pool, 1, each * 10).await;
                    let many = acks_per_second(&pool, CALLERS, each).await;
                    pairs.push((many, one));
                }
                runtime.shutdown(Duration::ZERO).await;
                pairs
            })
        });
        let (many, one) = medians(&pairs);
        json!({
            "ratio": round(ratios(&pairs), 1),
            "acks_per_s": many.round(),
            "baseline_per_s": one.round(),
        })
    }

    /// So many callers at a time enqueue `each` jobs, one after the other.
    async fn acks_per_second(pool: &Workpool, callers: usize, each: usize) -> f64 {
        let begun = Instant::now();
        let callers: Vec<_> = (0..callers)
            .map(|_| {
                let pool = pool.clone();
                tokio::spawn(async move { acks(&pool, each).await })
            })
            .collect();
        let count = callers.len() * each;
        for caller in callers {
            caller.await.expect("the caller ends");
        }
        count as f64 / begun.elapsed().as_secs_f64()
    }

    /// As in memory; each side has a file of its own.
    pub fn blocked(quick: bool) -> Value {
        with_file(|path| {
            let files = std::cell::RefCell::new(Vec::new());
            let figures = keys::blocked_on(quick, || {
                let file = path.with_extension(files.borrow().len().to_string());
                files.borrow_mut().push(file.clone());
                Redb::open(file).expect("opens")
            });
            for file in files.into_inner() {
                let _ = std::fs::remove_file(file);
            }
            figures
        })
    }

    pub fn backlog(quick: bool) -> Value {
        let works = if quick { 50_000 } else { 100_000 };
        let large = if quick { 200_000 } else { 1_000_000 };
        let at = |pending| {
            with_file(|path| {
                let storage = Redb::open(path).expect("opens");
                block_on(at_backlog_on(storage, pending, works))
            })
        };
        let rounds = if quick { 3 } else { 5 };
        let pairs: Vec<_> = (0..rounds).map(|_| (at(large), at(1_000))).collect();
        let (ours, theirs) = medians(&pairs);
        json!({
            "ratio": round(ratios(&pairs), 3),
            "pending": large,
            "works_per_s": ours.round(),
            "baseline_per_s": theirs.round(),
        })
    }

    pub fn open(quick: bool) -> Value {
        let works: u64 = if quick { 200_000 } else { 1_000_000 };
        let seconds = with_file(|path| {
            block_on(async {
                let storage = Redb::open(path).expect("opens");
                let (runtime, pool) = start_on(storage, config().paused(true)).await;
                for _ in 0..works / BATCH {
                    pool.enqueue_batch((0..BATCH).map(Noop::new)).await.expect("enqueued");
                }
                runtime.shutdown(Duration::ZERO).await;
            });
            let begun = Instant::now();
            block_on(async {
                let storage = Redb::open(path).expect("opens");
                let (runtime, pool) = start_on(storage, PoolConfig::default()).await;
                let seconds = begun.elapsed().as_secs_f64();
                assert_eq!(pool.pending(), works);
                runtime.shutdown(Duration::ZERO).await;
                seconds
            })
        });
        json!({ "seconds": round(seconds, 3), "works": works })
    }
}
