//! Tables and free lists shrink again after a flood: counted by the allocator, in a process of its own.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix_workpool::storage::{Memory, Storage};
use actix_workpool::{ActionKey, PoolConfig, Retention, Runtime};

/// How many bytes are allocated.
static LIVE: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// Safety: everything is handed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const TASK: ActionKey<String, ()> = ActionKey::new("task");

/// How many jobs come at once: a million with `WORKPOOL_FLOOD=1000000`.
fn flood() -> usize {
    std::env::var("WORKPOOL_FLOOD").ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(50_000)
}

fn mib(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Memory that the process has, with what its allocator keeps.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or_default() / 1024.0
}

/// Enqueues a flood, cancels half of it, and works off the rest.
async fn after_a_flood(name: &str, storage: impl Storage) {
    let config = PoolConfig::default().max_parallelism(64).paused(true);
    let runtime = Runtime::builder()
        .storage(storage)
        .retention(Retention::default().max_count(1_000))
        .action_fn(TASK, |_, _| async { Ok(()) })
        .pool("p", config)
        .start()
        .await
        .unwrap();
    let pool = runtime.pool("p").unwrap();
    // What is made once is there before.
    pool.resume().await.unwrap();
    let warm = (0..2_000).map(|n| TASK.call(format!("{n:0>100}")));
    pool.enqueue_batch(warm).await.unwrap().join().await;
    pool.pause().await.unwrap();
    let before = LIVE.load(Ordering::Relaxed);
    for _ in 0..flood() / 1_000 {
        let jobs = (0..1_000).map(|n| TASK.call(format!("{n:0>100}")));
        drop(pool.enqueue_batch(jobs).run_after(Duration::from_secs(1_000)).await.unwrap());
    }
    let full = LIVE.load(Ordering::Relaxed);
    assert_eq!(pool.cancel_all().await.unwrap(), flood() as u64);
    pool.idle().await.unwrap();
    for _ in 0..flood() / 1_000 {
        let jobs = (0..1_000).map(|n| TASK.call(format!("{n:0>100}")));
        drop(pool.enqueue_batch(jobs).await.unwrap());
    }
    pool.resume().await.unwrap();
    pool.idle().await.unwrap();
    // A checkpoint may be under way.
    let mut left = usize::MAX;
    for _ in 0..100 {
        left = LIVE.load(Ordering::Relaxed).saturating_sub(before);
        if left < (full - before) / 20 {
            break;
        }
        pool.enqueue(TASK.call("x".repeat(100_000))).await.unwrap().join().await.unwrap();
    }
    let (full, left) = (mib(full - before), mib(left));
    println!(
        "{name}: {full:.1} MiB while {} wait, {left:.1} MiB after; resident {:.0} MiB",
        flood(),
        resident()
    );
    assert!(left < full / 20.0 + 4.0, "{name}: {left:.1} of {full:.1} MiB are kept");
    runtime.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_flood_has_taken_is_given_back() {
    after_a_flood("memory", Memory::new()).await;
    #[cfg(feature = "redb")]
    {
        let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("flood.redb");
        let _ = std::fs::remove_file(&path);
        after_a_flood("file", actix_workpool::storage::Redb::open(&path).unwrap()).await;
    }
}
