//! What crosses threads, in many orders of what the threads do.
//!
//! Each test runs some thousand times, each time in another order, which shuttle's scheduler chooses. It switches threads
//! at every lock, counter, map and channel of `sync.rs`, and nowhere else. A thread that waits for ever fails a test as a
//! deadlock. Memory is sequentially consistent here, whatever the code asks for: what is said with `Relaxed` must not
//! matter. A failure prints a schedule, which `shuttle::replay` repeats.
//!
//! Actors have one thread each; here, threads do what actors do to what is shared.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use hashbrown::HashMap;
use shuttle::future::block_on;
use shuttle::sync::mpsc;
use shuttle::thread;

use crate::board::{Board, FinishedOrder, Progress, WorkStatus};
use crate::clock::{Clock, Seams};
use crate::config::{PoolConfig, Retention};
use crate::context::{Control, Stage};
use crate::engine::Launch;
use crate::handle::Watch;
use crate::model::{
    ArgBytes, Finished, FunctionKind, Name, Outcome, PoolId, RunNumber, Segment, Spec, WorkId,
};
use crate::pool::Workpool;
use crate::registry::Registry;
use crate::shared::{PoolShared, Shared};
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Some at random, some with few switches at the worst places.
fn in_many_orders(test: impl Fn() + Clone + Send + Sync + 'static) {
    shuttle::check_random(test.clone(), 5_000);
    shuttle::check_pct(test, 5_000, 3);
}

/// Time has no part in this.
struct StandingStill;

impl Clock for StandingStill {
    fn now(&self) -> Duration {
        Duration::from_secs(1)
    }
}

/// A pool without actors: the test does what they would.
fn pool() -> Workpool {
    static BLOCKING: LazyLock<tokio::runtime::Runtime> =
        LazyLock::new(|| tokio::runtime::Builder::new_current_thread().build().expect("a runtime"));
    let shared = Arc::new(Shared::new(
        Registry::default(),
        HashMap::new(),
        Seams::new(Arc::new(StandingStill), Some(1)),
        Retention::default(),
        BLOCKING.handle().clone(),
    ));
    let (id, name) = (PoolId(0), Name::intern("pool"));
    let pool = Arc::new(PoolShared::new(id, name, 0, PoolConfig::default().settings()));
    shared.add_pool(pool.clone());
    Workpool { shared, pool }
}

fn work(number: u128) -> WorkId {
    WorkId::from_uuid(uuid::Uuid::from_u128(number))
}

fn finish(board: &Board, work_id: WorkId, order: &mut FinishedOrder) {
    let row = Finished {
        work_id,
        pool: PoolId(0),
        function: Name::intern("function"),
        outcome: Outcome::Canceled,
        attempts: 1,
        enqueued_at: Segment(1),
        finished_at: Segment(2),
    };
    board.set_finished(&Arc::new(row), order);
}

fn progress(done: u64) -> Progress {
    Progress { done, total: None, note: None }
}

/// Everything that a watch sees.
fn read(mut watch: Watch) -> Vec<WorkStatus> {
    block_on(async move {
        let mut seen = Vec::new();
        while let Some(status) = watch.next().await {
            seen.push(status);
        }
        seen
    })
}

/// Begins a watch, and asks the store to look, as handles do.
fn watch(pool: &Workpool, work_id: WorkId, asks: &mpsc::Sender<WorkId>) -> Watch {
    let watch = pool.work::<()>(work_id).watch();
    let _ = asks.send(work_id);
    watch
}

/// Two works are watched while they complete: each watch ends with the outcome.
#[test]
fn who_watches_sees_the_end() {
    in_many_orders(|| {
        let pool = pool();
        let (asks, asked) = mpsc::channel();
        let watchers: Vec<_> = [work(1), work(2)]
            .into_iter()
            .map(|work_id| {
                let (pool, asks) = (pool.clone(), asks.clone());
                thread::spawn(move || read(watch(&pool, work_id, &asks)))
            })
            .collect();
        drop(asks);
        let board = &pool.shared.board;
        let mut order = FinishedOrder::default();
        for work_id in [work(1), work(2)] {
            board.set_running(work_id, 1, 0, Segment(1));
        }
        for work_id in [work(1), work(2)] {
            while let Ok(asked) = asked.try_recv() {
                board.observe(asked, WorkStatus::Unknown);
            }
            finish(board, work_id, &mut order);
        }
        while let Ok(work_id) = asked.recv() {
            board.observe(work_id, WorkStatus::Unknown);
        }
        for watcher in watchers {
            let seen = watcher.join().expect("no panic");
            assert!(matches!(seen.last(), Some(WorkStatus::Finished(_))), "{seen:?}");
        }
        assert_eq!(board.watching(), (0, 0));
    });
}

/// A watch is dropped and another one of the same work begins while the work completes.
#[test]
fn who_watches_again_sees_the_end() {
    in_many_orders(|| {
        let pool = pool();
        let (asks, asked) = mpsc::channel();
        let watcher = {
            let pool = pool.clone();
            thread::spawn(move || {
                drop(watch(&pool, work(1), &asks));
                read(watch(&pool, work(1), &asks))
            })
        };
        let board = &pool.shared.board;
        board.set_running(work(1), 1, 0, Segment(1));
        finish(board, work(1), &mut FinishedOrder::default());
        while let Ok(work_id) = asked.recv() {
            board.observe(work_id, WorkStatus::Unknown);
        }
        let seen = watcher.join().expect("no panic");
        assert!(matches!(seen.last(), Some(WorkStatus::Finished(_))), "{seen:?}");
        assert_eq!(board.watching(), (0, 0));
    });
}

/// The runtime goes away while works complete and watches come and go: none of them waits for ever.
#[test]
fn a_watch_ends_with_the_runtime() {
    in_many_orders(|| {
        let pool = pool();
        let (asks, asked) = mpsc::channel();
        let watchers: Vec<_> = [work(1), work(2)]
            .into_iter()
            .map(|work_id| {
                let (pool, asks) = (pool.clone(), asks.clone());
                thread::spawn(move || {
                    drop(watch(&pool, work_id, &asks));
                    read(watch(&pool, work_id, &asks))
                })
            })
            .collect();
        let board = &pool.shared.board;
        board.set_running(work(1), 1, 0, Segment(1));
        while let Ok(asked) = asked.try_recv() {
            board.observe(asked, WorkStatus::Unknown);
        }
        finish(board, work(1), &mut FinishedOrder::default());
        board.close();
        for watcher in watchers {
            let seen = watcher.join().expect("no panic");
            assert!(seen.iter().rev().skip(1).all(|status| !status.is_final()), "{seen:?}");
        }
        assert_eq!(board.watching(), (0, 0));
    });
}

/// An attempt that was given up goes on saying how far it is, while the work is tried again and completes.
#[test]
fn an_old_run_says_nothing_of_a_new_one() {
    in_many_orders(|| {
        let pool = pool();
        let (asks, asked) = mpsc::channel();
        let watcher = {
            let pool = pool.clone();
            thread::spawn(move || read(watch(&pool, work(1), &asks)))
        };
        pool.shared.board.set_running(work(1), 1, 0, Segment(1));
        let attempts: Vec<_> = [(1, 10), (2, 20)]
            .into_iter()
            .map(|(run, says): (RunNumber, u64)| {
                let pool = pool.clone();
                thread::spawn(move || {
                    for done in [says, says + 1] {
                        pool.shared.board.set_progress(work(1), run, progress(done));
                    }
                })
            })
            .collect();
        let board = &pool.shared.board;
        let look = || {
            while let Ok(asked) = asked.try_recv() {
                board.observe(asked, WorkStatus::Unknown);
            }
        };
        look();
        board.set_pending(work(1), 1, None);
        board.set_running(work(1), 2, 1, Segment(2));
        look();
        if let Some(said) = board.progress_of(work(1)) {
            assert!(said.done >= 20, "{said:?}");
        }
        finish(board, work(1), &mut FinishedOrder::default());
        while let Ok(work_id) = asked.recv() {
            board.observe(work_id, WorkStatus::Unknown);
        }
        for attempt in attempts {
            attempt.join().expect("no panic");
        }
        let seen = watcher.join().expect("no panic");
        let ages: Vec<_> = seen
            .iter()
            .map(|status| match status {
                WorkStatus::Running { previous_attempts, progress, .. } => {
                    let said = progress.as_ref().map_or(0, |said| said.done);
                    assert!(said == 0 || said / 10 == u64::from(*previous_attempts) + 1);
                    u64::from(*previous_attempts) * 40 + said
                }
                WorkStatus::Pending { .. } => 39,
                WorkStatus::Finished(_) => 100,
                WorkStatus::Unknown => 101,
            })
            .collect();
        assert!(ages.is_sorted() && ages.last() == Some(&100), "{seen:?}");
        assert_eq!(board.watching(), (0, 0));
    });
}

fn attempt(pool: &Workpool, work_id: WorkId) -> Arc<Control> {
    let spec = Spec {
        work_id,
        pool: PoolId(0),
        kind: FunctionKind::Action,
        function: Name::intern("function"),
        args: ArgBytes::new(b"null"),
        enqueued_at: Segment(1),
        options: None,
    };
    let launch = Launch { spec: Arc::new(spec), attempt: 1, run: 1, due: Segment(1) };
    Arc::new(Control::new(launch, 1_000, pool.shared.clone()))
}

/// Store and loop cancel two works whose starts are under way on other threads.
#[test]
fn after_a_cancel_is_answered_nothing_begins() {
    in_many_orders(|| {
        let pool = pool();
        let works = [work(1), work(2)].map(|work_id| {
            let (control, answered) = (attempt(&pool, work_id), Arc::new(AtomicBool::new(false)));
            let worker = {
                let (control, answered) = (control.clone(), answered.clone());
                thread::spawn(move || {
                    let too_late = answered.load(Ordering::SeqCst);
                    let begins = control.may_begin();
                    assert!(!(too_late && begins), "began after its cancel was answered");
                })
            };
            (control, answered, worker)
        });
        let threads = works.map(|(control, answered, worker)| {
            let pool = pool.clone();
            let loops = thread::spawn(move || {
                let (board, work_id) = (&pool.shared.board, control.spec.work_id);
                board.set_canceling(work_id);
                answered.store(true, Ordering::SeqCst);
                control.raise(Stage::Canceled);
                board.end_canceling(work_id);
            });
            [loops, worker]
        });
        for thread in threads.into_iter().flatten() {
            thread.join().expect("no panic");
        }
        assert_eq!(pool.shared.board.canceling(), (0, 0));
    });
}

/// A function waits to be told to end, while it is told so.
#[test]
fn an_attempt_hears_that_it_is_to_end() {
    in_many_orders(|| {
        let control = attempt(&pool(), work(1));
        let function = {
            let control = control.clone();
            thread::spawn(move || block_on(control.until(Stage::is_abort)))
        };
        control.raise(Stage::Canceled);
        control.raise(Stage::AbortTimeout);
        control.raise(Stage::AbortCanceled);
        assert!(function.join().expect("no panic").is_abort());
        assert_eq!(control.stage(), Stage::AbortTimeout);
    });
}

/// Works come and go on several threads while somebody waits until there is none.
#[test]
fn who_waits_for_an_idle_pool_hears_of_the_last_work() {
    in_many_orders(|| {
        let pool = pool();
        pool.pool.enter(1);
        let others = [1, 2].map(|works| {
            let pool = pool.clone();
            thread::spawn(move || {
                pool.pool.admit(works).expect("room");
                pool.pool.leave(works);
            })
        });
        let waiting = {
            let pool = pool.clone();
            thread::spawn(move || block_on(pool.pool.idle(&pool.shared)))
        };
        pool.pool.leave(1);
        for other in others {
            other.join().expect("no panic");
        }
        waiting.join().expect("no panic");
        assert_eq!(pool.pending(), 0);
    });
}

/// More works come than may: those that are refused leave no trace.
#[test]
fn a_full_pool_takes_no_more_than_it_may() {
    in_many_orders(|| {
        let pool = pool();
        pool.pool.set_settings(PoolConfig::default().max_pending(2).settings());
        let taken = Arc::new(AtomicUsize::new(0));
        let threads = [1, 1, 2].map(|works| {
            let (pool, taken) = (pool.clone(), taken.clone());
            thread::spawn(move || {
                if pool.pool.admit(works).is_ok() {
                    let works = works as usize;
                    let before = taken.fetch_add(works, Ordering::SeqCst);
                    assert!(before + works <= 2, "{before} and {works}");
                }
            })
        });
        for thread in threads {
            thread.join().expect("no panic");
        }
        assert_eq!(pool.pending(), taken.load(Ordering::SeqCst) as u64);
    });
}

/// The runtime shuts down while somebody waits for a pool that will not be idle.
#[test]
fn nobody_waits_for_the_pools_of_a_closed_runtime() {
    shuttle::check_dfs(
        || {
            let pool = pool();
            pool.pool.enter(1);
            let waiting = {
                let pool = pool.clone();
                thread::spawn(move || block_on(pool.pool.idle(&pool.shared)))
            };
            pool.shared.close();
            waiting.join().expect("no panic");
        },
        None,
    );
}
