//! The dashboard over a million works: each page is there at once, and the pools do not notice who looks.
//!
//! In a debug build there are fewer jobs and more patience. What counts is
//! `cargo test --release --features actix-web --test web at_scale -- --nocapture`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use crate::common::{Gate, ms, secs, soon};
use actix_web::App;
use actix_web::test::{TestRequest, call_service, init_service, read_body};
use actix_workpool::storage::{Memory, Redb, Storage};
use actix_workpool::web::{Dashboard, insecure_allow_all, workpool_dashboard};
use actix_workpool::{
    ActionContext, ActionKey, PoolConfig, Runtime, RuntimeBuilder, WorkError, WorkId,
};

const IS_FAST: bool = !cfg!(debug_assertions);

const WORKS: usize = if IS_FAST { 1_000_000 } else { 20_000 };

/// How many attempts run all the while.
const RUNNING: usize = if IS_FAST { 10_000 } else { 500 };

/// How many jobs have failed, and how many have succeeded.
const FAILED: usize = WORKS / 200;
const DONE: usize = WORKS / 50;

/// A page takes no longer.
const SOON: Duration = ms(if IS_FAST { 300 } else { 1_500 });

/// The pools do at least so much of what they do when nobody looks. In a debug build a page takes the store ten times as
/// long, and the pause after it is as long as ever: there it is only seen that both go on.
const UNDISTURBED: f64 = if IS_FAST { 0.9 } else { 0.1 };

/// What else the machine has to do may disturb them once or twice.
const ROUNDS: usize = 4;

/// Most jobs.
const PLAIN: ActionKey<u64, u64> = ActionKey::new("plain");

/// Some at the very end.
const RARE: ActionKey<u64, u64> = ActionKey::new("rare");
const FAIL: ActionKey<u64, u64> = ActionKey::new("fail");
const HANG: ActionKey<u64, u64> = ActionKey::new("hang");

/// Each enqueues the next one.
const CHAIN: ActionKey<u64, ()> = ActionKey::new("chain");

/// How many chains there are at once.
const CHAINS: u64 = 256;

/// What the chains have done, and whether they go on.
#[derive(Default)]
struct Chains {
    done: AtomicU64,
    stop: AtomicBool,
}

fn builder(gate: &Gate, chains: &Arc<Chains>) -> RuntimeBuilder {
    let (gate, chains) = (gate.clone(), chains.clone());
    Runtime::builder()
        .worker_arbiters(1)
        .action_fn(PLAIN, |n, _| async move { Ok(n) })
        .action_fn(RARE, |n, _| async move { Ok(n) })
        .action_fn(FAIL, |_, _| async { Err(WorkError::non_retryable("no luck")) })
        .action_fn(HANG, move |n, _| {
            let gate = gate.clone();
            async move {
                gate.pass().await;
                Ok(n)
            }
        })
        .action_fn(CHAIN, move |n, cx: ActionContext| {
            let chains = chains.clone();
            async move {
                chains.done.fetch_add(1, Ordering::Relaxed);
                if !chains.stop.load(Ordering::Relaxed) {
                    cx.pool("busy").unwrap().do_enqueue(CHAIN.call(n)).unwrap();
                }
                Ok(())
            }
        })
}

/// A pool with everything in it, and the jobs that are asked for by themselves.
async fn fill(runtime: &Runtime, gate: &Gate) -> Vec<(&'static str, WorkId)> {
    const BATCH: usize = 1_000;
    let large = runtime.pool("large").unwrap();
    let mut of_interest = Vec::new();
    for batch in 0..WORKS / BATCH {
        // They are due in another order than they were enqueued.
        let delay = secs(3_600 + batch as u64 * 7_919 % 1_009);
        let works = (0..BATCH).map(|n| PLAIN.call(n as u64));
        let works = large.enqueue_batch(works).run_after(delay).await.unwrap();
        if batch % (WORKS / BATCH / 2) == 0 {
            of_interest.push(("waits", works.ids()[0]));
        }
    }
    let rare = (0..300).map(|n| RARE.call(n));
    let rare = large.enqueue_batch(rare).run_after(secs(9_000)).await.unwrap();
    of_interest.push(("waits, rare", rare.ids()[299]));
    let many = runtime.pool("many").unwrap();
    for (what, function, count) in [("has failed", FAIL, FAILED), ("has succeeded", PLAIN, DONE)] {
        let works = (0..count).map(|n| function.call(n as u64));
        of_interest.push((what, many.enqueue_batch(works).await.unwrap().ids()[0]));
    }
    soon(many.idle()).await.unwrap();
    let works = (0..RUNNING).map(|n| HANG.call(n as u64));
    of_interest.push(("runs", many.enqueue_batch(works).await.unwrap().ids()[RUNNING / 2]));
    gate.entered(RUNNING).await;
    of_interest
}

/// Every page, and its counterpart in the API.
async fn pages(runtime: &Runtime, of_interest: &[(&'static str, WorkId)]) -> Vec<String> {
    let mut pages: Vec<String> = [
        "/",
        "/?range=24h",
        "/pools/busy",
        "/config",
        "/healthz",
        "/api/overview",
        "/api/config",
        "/api/pools/large",
        "/api/openapi.json",
    ]
    .map(String::from)
    .into();
    // Where half of those that wait are in front.
    let due = runtime.pool("large").unwrap().explain(of_interest[1].1).await.unwrap().due.unwrap();
    let due = due.duration_since(UNIX_EPOCH).unwrap().as_millis();
    let lists = [
        "",
        "state=pending&pool=large",
        "state=pending&function=rare",
        "state=pending&function=absent",
        "state=running",
        "state=running&pool=many&function=hang",
        "state=running&function=absent",
        "state=finished",
        "state=finished&function=absent",
        "outcome=failed",
        "outcome=failed&pool=large",
    ];
    for list in lists {
        pages.push(format!("/works?{list}"));
        pages.push(format!("/api/works?limit=200&{list}"));
    }
    for deep in [format!("p.{due}.0.0"), format!("f.{}", DONE / 2)] {
        let state = if deep.starts_with('p') { "pending" } else { "finished" };
        for function in ["", "rare"] {
            let list = format!("state={state}&function={function}&cursor={deep}");
            pages.push(format!("/works?{list}"));
            pages.push(format!("/api/works?limit=200&{list}"));
        }
    }
    for action in ["cancel", "run", "retry"] {
        for what in ["pool=large", "pool=many", "function=plain", "function=rare", "function=fail"]
        {
            pages.push(format!("/works/{action}?{what}"));
        }
    }
    for (_, work_id) in of_interest {
        pages.push(format!("/works/{work_id}"));
        pages.push(format!("/api/works/{work_id}"));
    }
    pages
}

fn dashboard(runtime: &Runtime) -> Dashboard {
    workpool_dashboard(runtime.clone(), insecure_allow_all())
}

/// How long a page takes.
async fn time_of(dashboard: &Dashboard, path: &str) -> Duration {
    let app = init_service(App::new().service(dashboard.scope("/w"))).await;
    let request = TestRequest::get().uri(&format!("/w{path}")).to_request();
    let begun = Instant::now();
    let answer = call_service(&app, request).await;
    let status = answer.status();
    let body = read_body(answer).await;
    let took = begun.elapsed();
    assert_eq!(status, 200, "{path}: {}", String::from_utf8_lossy(&body));
    took
}

fn median<T: Copy + PartialOrd>(mut of: Vec<T>) -> T {
    of.sort_unstable_by(|one, other| one.partial_cmp(other).expect("numbers"));
    of[of.len() / 2]
}

/// Each page is there at once, and what the slowest one took.
async fn each_page(runtime: &Runtime, pages: &[String]) {
    let mut slowest = Vec::new();
    for path in pages {
        let mut times = Vec::new();
        for _ in 0..5 {
            // A new one has seen nothing yet.
            times.push(time_of(&dashboard(runtime), path).await);
        }
        let longest = times.iter().max().copied().unwrap_or_default();
        slowest.push((median(times), longest, path));
    }
    slowest.sort_unstable();
    slowest.reverse();
    for (median, longest, path) in slowest.iter().take(8) {
        println!("{median:>10.2?}, at most {longest:>10.2?}: {path}");
    }
    let longest = slowest.iter().map(|(_, longest, _)| *longest).max().unwrap_or_default();
    println!("{} pages at rest, at most {longest:.2?}", pages.len());
    let (median, _, path) = slowest[0];
    assert!(median < SOON, "{path} takes {median:?}");
}

/// Who looks while the chains are at work.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Looks {
    /// Nobody.
    No,
    /// Somebody who has an eye on everything: 40 pages a second.
    Often,
    /// One who asks for one page after the other.
    Always,
}

/// What a client of each kind is on while the chains are at work.
struct Clients<'c> {
    dashboard: Dashboard,
    pages: &'c [String],
    /// Which page each of them asks for next.
    next: [usize; LOOKS.len()],
    /// How long pages took.
    times: Vec<(Duration, &'c str)>,
}

const LOOKS: [Looks; 3] = [Looks::No, Looks::Often, Looks::Always];

impl Clients<'_> {
    /// What the chains do in a second, by who looks. The windows take turns, so that whatever else the machine does
    /// is the same for all.
    async fn look(&mut self, chains: &Chains) -> [f64; LOOKS.len()] {
        const WINDOW: Duration = ms(250);
        let mut rates = LOOKS.map(|_| Vec::new());
        let mut clock = tokio::time::interval(ms(25));
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for _ in 0..8 {
            for (who, looks) in LOOKS.into_iter().enumerate() {
                let (begun, before) = (Instant::now(), chains.done.load(Ordering::Relaxed));
                while begun.elapsed() < WINDOW {
                    let page = &self.pages[self.next[who] % self.pages.len()];
                    self.next[who] += 1;
                    if looks != Looks::No {
                        self.times.push((time_of(&self.dashboard, page).await, page));
                    }
                    if looks != Looks::Always {
                        clock.tick().await;
                    }
                }
                let done = chains.done.load(Ordering::Relaxed) - before;
                rates[who].push(done as f64 / begun.elapsed().as_secs_f64());
            }
        }
        rates.map(median)
    }
}

/// The chains do what they do, whoever looks, and pages are there at once all the same.
async fn at_work(runtime: &Runtime, chains: &Chains, pages: &[String]) {
    let busy = runtime.pool("busy").unwrap();
    for n in 0..CHAINS {
        busy.enqueue(CHAIN.call(n)).await.unwrap();
    }
    let (next, times) = Default::default();
    let mut clients = Clients { dashboard: dashboard(runtime), pages, next, times };
    let mut best = (0.0_f64, 0.0_f64);
    for _ in 0..ROUNDS {
        let rates = clients.look(chains).await;
        let [alone, often, always] = rates;
        best = (best.0.max(often / alone), best.1.max(always / alone));
        println!("works/s while {LOOKS:?} looks: {rates:.0?}");
        if best.0 >= UNDISTURBED && best.1 >= UNDISTURBED {
            break;
        }
    }
    chains.stop.store(true, Ordering::Relaxed);
    let Clients { times, next, .. } = clients;
    let (longest, path) = times.iter().max().copied().unwrap_or_default();
    let median = median(times.iter().map(|(took, _)| *took).collect());
    println!("of the jobs alone: {best:.2?}; {next:?} pages");
    println!("{median:>10.2?}, at most {longest:>10.2?} while the chains are at work: {path}");
    assert!(median < SOON, "a page takes {median:?}");
    assert!(best.0 >= UNDISTURBED && best.1 >= UNDISTURBED, "the chains are disturbed: {best:?}");
}

fn at_scale(storage: impl Storage) {
    // One at a time: each takes all that the machine has.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    actix::System::new().block_on(async {
        let (gate, chains) = (Gate::new(), Arc::new(Chains::default()));
        let many = PoolConfig::default().max_parallelism(RUNNING);
        let runtime = builder(&gate, &chains)
            .storage(storage)
            .pool("large", PoolConfig::default())
            .pool("many", many)
            .pool("busy", PoolConfig::default().max_parallelism(64))
            .start()
            .await
            .unwrap();
        let of_interest = fill(&runtime, &gate).await;
        let pages = pages(&runtime, &of_interest).await;
        each_page(&runtime, &pages).await;
        // Those that are finished are forgotten before long.
        let of_interest: Vec<_> =
            of_interest.into_iter().filter(|(what, _)| !what.ends_with("ed")).collect();
        let pages = self::pages(&runtime, &of_interest).await;
        at_work(&runtime, &chains, &pages).await;
        gate.open();
        runtime.shutdown(Duration::ZERO).await;
    });
}

#[test]
fn in_memory() {
    at_scale(Memory::new());
}

#[test]
fn in_a_file() {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("dashboard-at-scale-{}.redb", std::process::id()));
    let _ = std::fs::remove_file(&path);
    at_scale(Redb::open(&path).unwrap());
    std::fs::remove_file(&path).unwrap();
}
