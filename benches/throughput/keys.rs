//! Keys: what they cost, and how fair their turns are.

use std::time::{Duration, Instant};

use actix_workpool::storage::Storage;
use actix_workpool::{Action, ActionContext, KeyRule, Runtime, WorkError, Workpool};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::*;

/// The whole life of jobs of as many keys, against that of jobs without keys.
pub fn of_their_own(quick: bool) -> Value {
    let (works, rounds) = if quick { (100_000, 5) } else { (1_000_000, 5) };
    let life = |has_keys: bool| {
        block_on(async {
            let (runtime, pool) = start(config()).await;
            keyed_life(&pool, works / 4, has_keys).await;
            let rate = keyed_life(&pool, works, has_keys).await;
            runtime.shutdown(Duration::ZERO).await;
            rate
        })
    };
    compared((0..rounds).map(|_| (life(true), life(false))).collect())
}

async fn keyed_life(pool: &Workpool, works: u64, has_keys: bool) -> f64 {
    let begun = Instant::now();
    for batch in 0..works / BATCH {
        let works = (0..BATCH).map(|number| Noop::new(batch * BATCH + number));
        let batch = pool.enqueue_batch(works);
        let batch = match has_keys {
            true => batch.keyed_by(|noop| format!("user-{}", noop.number)),
            false => batch,
        };
        batch.await.expect("enqueued");
    }
    pool.idle().await.expect("idle");
    works as f64 / begun.elapsed().as_secs_f64()
}

fn compared(pairs: Vec<(f64, f64)>) -> Value {
    let (ours, theirs) = medians(&pairs);
    json!({
        "ratio": round(ratios(&pairs), 3),
        "works_per_s": ours.round(),
        "baseline_per_s": theirs.round(),
    })
}

/// Never ends by itself.
#[derive(Serialize, Deserialize)]
struct Hang;

impl Action for Hang {
    const NAME: &'static str = "hang";
    type Output = ();

    async fn run(self, cx: ActionContext) -> Result<(), WorkError> {
        cx.canceled().await;
        Ok(())
    }
}

/// The keys that are at their limit.
const BLOCKED: u64 = 32;

/// Jobs per second beside many jobs of keys at their limit, against none beside them.
pub fn blocked(quick: bool) -> Value {
    blocked_on(quick, Memory::new)
}

pub fn blocked_on<S: Storage>(quick: bool, storage: impl Fn() -> S) -> Value {
    let (works, waiting, rounds) =
        if quick { (50_000, 100_000, 5) } else { (200_000, 1_000_000, 5) };
    let beside = |waiting| {
        block_on(async {
            let rule = KeyRule::default().parallelism(1);
            let config = config().max_parallelism(PARALLELISM + BLOCKED as usize).per_key(rule);
            let builder = Runtime::builder().storage(storage()).action::<Hang>();
            let (runtime, pool) = start_with(builder, config).await;
            let name = |number: u64| format!("blocked-{}", number % BLOCKED);
            for number in 0..BLOCKED {
                pool.enqueue(Hang).key(name(number)).await.expect("enqueued");
            }
            for batch in 0..waiting / BATCH {
                let works = (0..BATCH).map(|number| Noop::new(batch * BATCH + number));
                let batch = pool.enqueue_batch(works).keyed_by(|noop| name(noop.number));
                batch.await.expect("enqueued");
            }
            beside_life(&pool, works / 4).await;
            let rate = beside_life(&pool, works).await;
            assert_eq!(pool.pending(), waiting + BLOCKED);
            runtime.shutdown(Duration::ZERO).await;
            rate
        })
    };
    compared((0..rounds).map(|_| (beside(waiting), beside(0))).collect())
}

/// The whole life of jobs without keys; jobs per second.
async fn beside_life(pool: &Workpool, works: u64) -> f64 {
    let others = pool.pending();
    let begun = Instant::now();
    for batch in 0..works / BATCH {
        let works = (0..BATCH).map(|number| Noop::new(batch * BATCH + number));
        pool.enqueue_batch(works).await.expect("enqueued");
    }
    while pool.pending() > others {
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    works as f64 / begun.elapsed().as_secs_f64()
}

/// Takes some time.
#[derive(Serialize, Deserialize)]
struct Slow;

const SERVICE: Duration = Duration::from_millis(2);

/// When each attempt started and ended.
#[derive(Default)]
struct Slots(Mutex<Vec<Duration>>);

impl Action for Slow {
    const NAME: &'static str = "slow";
    type Output = ();

    async fn run(self, cx: ActionContext) -> Result<(), WorkError> {
        let begun = Instant::now();
        tokio::time::sleep(SERVICE).await;
        cx.data::<Slots>().0.lock().expect("lock").push(begun.elapsed());
        Ok(())
    }
}

/// The wait of single jobs of other keys beside a key with very many jobs, in rounds of the keys that run; and how equal
/// the shares of keys with equal loads are.
pub fn fair(quick: bool) -> Value {
    let (waiting, others) = if quick { (100_000, 200) } else { (1_000_000, 1_000) };
    let (mut waits, service) = block_on(async {
        let builder = Runtime::builder().action::<Slow>().data(Slots::default());
        let (runtime, pool) = start_with(builder, config().max_parallelism(1)).await;
        for _ in 0..waiting / BATCH {
            pool.enqueue_batch((0..BATCH).map(|_| Slow)).key("big").await.expect("enqueued");
        }
        let mut waits = Vec::new();
        for number in 0..others {
            let begun = Instant::now();
            let work = pool.enqueue(Slow).key(format!("small-{number}")).await.expect("enqueued");
            work.join().await.expect("it succeeds");
            waits.push(begun.elapsed());
        }
        let slots = runtime_slots(&pool).await;
        runtime.shutdown(Duration::ZERO).await;
        (waits, slots)
    });
    waits.sort_unstable();
    // Its own service is no wait.
    let rounds =
        |wait: Duration| wait.saturating_sub(service).as_secs_f64() / (2.0 * service.as_secs_f64());
    let at = |share: f64| rounds(waits[((waits.len() - 1) as f64 * share) as usize]);
    json!({
        "ratio": round(at(0.99), 2),
        "p50_rounds": round(at(0.5), 2),
        "jain": round(block_on(jain(quick)), 5),
    })
}

/// The mean time of a service, measured beside.
async fn runtime_slots(_: &Workpool) -> Duration {
    let begun = Instant::now();
    for _ in 0..50 {
        tokio::time::sleep(SERVICE).await;
    }
    begun.elapsed() / 50
}

/// Counts the starts of each key.
#[derive(Serialize, Deserialize)]
struct Counted(usize);

#[derive(Default)]
struct Counts {
    of: Vec<AtomicU64>,
    all: AtomicU64,
    /// Counted so far.
    until: u64,
}

impl Action for Counted {
    const NAME: &'static str = "counted";
    type Output = ();

    async fn run(self, cx: ActionContext) -> Result<(), WorkError> {
        let counts = cx.data::<Counts>();
        if counts.all.fetch_add(1, Ordering::Relaxed) < counts.until {
            counts.of[self.0].fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Jain's index of the shares of 1,000 keys, each with 100 jobs, when half of the jobs have run.
async fn jain(quick: bool) -> f64 {
    let (keys, jobs) = if quick { (200, 50) } else { (1_000, 100) };
    let counts = Counts {
        of: (0..keys).map(|_| AtomicU64::new(0)).collect(),
        all: AtomicU64::new(0),
        until: (keys * jobs / 2) as u64,
    };
    let (told, mut ended) = tokio::sync::mpsc::unbounded_channel::<Vec<u64>>();
    let builder = Runtime::builder().action::<Counted>().data(counts).action_fn(
        actix_workpool::ActionKey::<(), ()>::new("tell"),
        move |(), cx| {
            let counts = cx.data::<Counts>();
            let of: Vec<_> = counts.of.iter().map(|count| count.load(Ordering::Relaxed)).collect();
            let _ = told.send(of);
            async { Ok(()) }
        },
    );
    let (runtime, pool) = start_with(builder, config().paused(true)).await;
    for key in 0..keys {
        let works = (0..jobs).map(|_| Counted(key));
        pool.enqueue_batch(works).key(format!("user-{key}")).await.expect("enqueued");
    }
    pool.resume().await.expect("resumed");
    pool.idle().await.expect("idle");
    let tell = actix_workpool::ActionKey::<(), ()>::new("tell");
    pool.enqueue(tell.call(())).await.expect("enqueued");
    let shares = ended.recv().await.expect("told");
    runtime.shutdown(Duration::ZERO).await;
    let sum: f64 = shares.iter().map(|share| *share as f64).sum();
    let squares: f64 = shares.iter().map(|share| (*share as f64).powi(2)).sum();
    sum * sum / (shares.len() as f64 * squares)
}
