//! Concurrency tests of the shared state, in many thread interleavings.
//!
//! Each test runs some thousand times, each time in another order, which shuttle's scheduler chooses. Shuttle switches
//! threads at every lock, counter, map and channel of `sync.rs`, and nowhere else: not inside a message to an actor,
//! nor where an `Arc` is counted. A thread that waits for ever fails a test as a deadlock. Memory is sequentially
//! consistent here, whatever the code asks for. A failure prints a schedule, which `shuttle::replay` repeats.
//!
//! In most tests, threads take the place of actors. In the last ones a whole runtime is on one thread, and its callers
//! are on others.
//!
//! Each test lists the bugs that it finds. Each was put in once, and the test found it.

use std::sync::Arc;
use std::time::Duration;

use shuttle::future::block_on;
use shuttle::sync::mpsc;
use shuttle::thread;

use crate::client::ActionKey;
use crate::client::Workpool;
use crate::client::{Client, Watch};
use crate::client::{EnqueueError, JoinError, PoolError};
use crate::engine::Launch;
use crate::engine::arrivals::CancelAnswer;
use crate::functions::{Control, Data, Lent, Stage};
use crate::model::{
    Finished, FunctionKind, Name, Outcome, PoolId, Priority, RunNumber, Segment, Spec, SpecHead,
    WorkId,
};
use crate::model::{PoolConfig, Retention};
use crate::model::{Progress, WorkStatus};
use crate::runtime::Runtime;
use crate::shared::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::shared::sync::oneshot;
use crate::shared::{Board, FinishedOrder};
use crate::shared::{Catalog, PoolShared, Shared};
use crate::shared::{Clock, Seams};

/// Runs a test `times` times with random switches, and as often with few switches in the worst places.
fn in_many_orders(times: usize, test: impl Fn() + Clone + Send + Sync + 'static) {
    let mut config = shuttle::Config::new();
    // A whole runtime on one thread needs this much stack.
    config.stack_size = 1 << 19;
    config.silence_warnings = true;
    let at_random = shuttle::scheduler::RandomScheduler::new(times);
    shuttle::Runner::new(at_random, config.clone()).run(test.clone());
    let at_worst = shuttle::scheduler::PctScheduler::new(3, times);
    shuttle::Runner::new(at_worst, config).run(test);
}

/// A clock that stands still.
struct StandingStill;

impl Clock for StandingStill {
    fn now(&self) -> Duration {
        Duration::from_secs(1)
    }
}

/// Creates a pool without actors: the test does their part.
fn pool() -> Workpool {
    let seams = Seams::new(Arc::new(StandingStill), Some(1));
    let shared = Arc::new(Shared::new(Catalog::default(), seams, Retention::default(), ""));
    let (id, name) = (PoolId(0), Name::intern("pool"));
    let pool = Arc::new(PoolShared::new(id, name, 0, PoolConfig::default().settings()));
    shared.add_pool(pool.clone());
    Workpool::new(Client::new(shared, Vec::new()), pool)
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
        started: None,
        finished_at: Segment(2),
        details: None,
    };
    board.set_finished(&Arc::new(row), order);
}

fn progress(done: u64) -> Progress {
    Progress { done, total: None, note: None }
}

/// Returns every status that a watch yields.
fn read(mut watch: Watch) -> Vec<WorkStatus> {
    block_on(async move {
        let mut seen = Vec::new();
        while let Some(status) = watch.next().await {
            seen.push(status);
        }
        seen
    })
}

/// Checks that each watch ended with the outcome and that no watch is left.
fn all_have_seen_the_end(
    board: &Board,
    watchers: impl IntoIterator<Item = thread::JoinHandle<Vec<WorkStatus>>>,
) {
    for watcher in watchers {
        let seen = watcher.join().expect("no panic");
        assert!(matches!(seen.last(), Some(WorkStatus::Finished(_))), "{seen:?}");
    }
    assert_eq!(board.watching(), (0, 0));
}

/// Begins a watch and asks the store for the first status, as handles do.
fn watch(pool: &Workpool, work_id: WorkId, asks: &mpsc::Sender<WorkId>) -> Watch {
    let watch = pool.work::<()>(work_id).watch();
    let _ = asks.send(work_id);
    watch
}

/// Two jobs are watched while they complete: each watch ends with the outcome.
///
/// Finds: a watch that is counted after it is inserted. If it ends in between, it takes away the count of the other
/// watch, which then gets no status.
#[test]
fn who_watches_sees_the_end() {
    in_many_orders(5_000, || {
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
        let board = &pool.client.shared.board;
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
        all_have_seen_the_end(board, watchers);
    });
}

/// Watches of one job are dropped, and new ones begin, while the job completes.
///
/// Finds: the end of a job that removes a watch which began after the outcome was sent; a dropped reader that removes
/// the watch of other readers.
#[test]
fn who_watches_again_sees_the_end() {
    in_many_orders(5_000, || {
        let pool = pool();
        let (asks, asked) = mpsc::channel();
        let watchers = [(); 2].map(|()| {
            let (pool, asks) = (pool.clone(), asks.clone());
            thread::spawn(move || {
                drop(watch(&pool, work(1), &asks));
                read(watch(&pool, work(1), &asks))
            })
        });
        drop(asks);
        let board = &pool.client.shared.board;
        board.set_running(work(1), 1, 0, Segment(1));
        finish(board, work(1), &mut FinishedOrder::default());
        while let Ok(work_id) = asked.recv() {
            board.observe(work_id, WorkStatus::Unknown);
        }
        all_have_seen_the_end(board, watchers);
    });
}

/// The runtime shuts down while jobs complete and watches come and go: no watch waits for ever.
///
/// Finds: `closed` checked outside the lock of the entry, or set after the watches are removed; a close that sets the
/// count to zero, so that it underflows later.
#[test]
fn a_watch_ends_with_the_runtime() {
    in_many_orders(5_000, || {
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
        let board = &pool.client.shared.board;
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

/// An abandoned attempt goes on reporting progress while the job is retried and completes.
///
/// Finds: progress, or the store's first status, sent after the lock of the entry is released, so that the older of two
/// arrives last; progress accepted from any run.
#[test]
fn an_old_run_says_nothing_of_a_new_one() {
    in_many_orders(5_000, || {
        let pool = pool();
        let (asks, asked) = mpsc::channel();
        let watcher = {
            let pool = pool.clone();
            thread::spawn(move || read(watch(&pool, work(1), &asks)))
        };
        pool.client.shared.board.set_running(work(1), 1, 0, Segment(1));
        let attempts: Vec<_> = [(1, 10), (2, 20)]
            .into_iter()
            .map(|(run, says): (RunNumber, u64)| {
                let pool = pool.clone();
                thread::spawn(move || {
                    for done in [says, says + 1] {
                        pool.client.shared.board.set_progress(work(1), run, progress(done));
                    }
                })
            })
            .collect();
        let board = &pool.client.shared.board;
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
    let spec = Spec::new(
        work_id,
        SpecHead {
            pool: PoolId(0),
            kind: FunctionKind::Action,
            function: Name::intern("function"),
            enqueued_at: Segment(1),
            priority: Priority::NORMAL,
            options: None,
        },
        b"null",
    );
    let launch = Launch { spec, attempt: 1, run: 1, due: Segment(1) };
    Arc::new(Control::new(launch, 1_000, Arc::new(Lent::new(pool.client.clone(), Data::new()))))
}

/// A job is canceled while another thread starts it, and while the cancel of a job that completes comes and goes.
///
/// Finds: a worker that checks its stage before it checks the board, since between the two the loop may set the stage
/// and the board may forget the cancel; a cancel that is counted after it is inserted, as with watches.
#[test]
fn after_a_cancel_is_answered_nothing_begins() {
    in_many_orders(5_000, || {
        let pool = pool();
        let control = attempt(&pool, work(1));
        let answered = Arc::new(AtomicBool::new(false));
        let worker = {
            let (control, answered) = (control.clone(), answered.clone());
            thread::spawn(move || {
                let too_late = answered.load(Ordering::SeqCst);
                let begins = control.may_begin();
                assert!(!(too_late && begins), "began after its cancel was answered");
            })
        };
        let (other, completes) = (pool.clone(), pool.clone());
        let others = [
            thread::spawn(move || other.client.shared.board.set_canceling(work(2))),
            thread::spawn(move || completes.client.shared.board.end_canceling(work(2))),
        ];
        let board = &pool.client.shared.board;
        board.set_canceling(work(1));
        answered.store(true, Ordering::SeqCst);
        control.raise(Stage::Canceled);
        board.end_canceling(work(1));
        for thread in others.into_iter().chain([worker]) {
            thread.join().expect("no panic");
        }
        board.end_canceling(work(2));
        assert_eq!(board.canceling(), (0, 0));
    });
}

/// A function waits for the request to stop, while two threads send it.
///
/// Finds: a stage raised after the waiters are woken; a stage that is read and stored in two steps.
#[test]
fn an_attempt_hears_that_it_is_to_end() {
    in_many_orders(5_000, || {
        let control = attempt(&pool(), work(1));
        let (function, canceled) = (control.clone(), control.clone());
        let function = thread::spawn(move || block_on(function.until(Stage::is_abort)));
        let canceled = thread::spawn(move || canceled.raise(Stage::Canceled));
        control.raise(Stage::AbortTimeout);
        canceled.join().expect("no panic");
        assert_eq!(function.join().expect("no panic"), Stage::AbortTimeout);
        assert_eq!(control.stage(), Stage::AbortTimeout);
    });
}

/// Jobs come and go on several threads while a caller waits for an idle pool.
///
/// Finds: a waiter that checks the count before it is registered; a count that falls after the waiters are woken.
#[test]
fn who_waits_for_an_idle_pool_hears_of_the_last_job() {
    in_many_orders(5_000, || {
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
            thread::spawn(move || block_on(pool.pool.idle(&pool.client.shared)))
        };
        pool.pool.leave(1);
        for other in others {
            other.join().expect("no panic");
        }
        waiting.join().expect("no panic");
        assert_eq!(pool.pending(), 0);
    });
}

/// More jobs arrive than `max_pending` allows: refused jobs leave no trace.
///
/// Finds: a count that is read and increased in two steps; refused jobs that stay counted.
#[test]
fn a_full_pool_takes_no_more_than_it_may() {
    in_many_orders(5_000, || {
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

/// The runtime shuts down while a caller waits for a pool that never becomes idle.
///
/// Finds: waiters woken before `closed` is set. Tries all possible orders.
#[test]
fn nobody_waits_for_the_pools_of_a_closed_runtime() {
    shuttle::check_dfs(
        || {
            let pool = pool();
            pool.pool.enter(1);
            let waiting = {
                let pool = pool.clone();
                thread::spawn(move || block_on(pool.pool.idle(&pool.client.shared)))
            };
            pool.client.shared.close();
            waiting.join().expect("no panic");
        },
        None,
    );
}

const ECHO: ActionKey<u8, u8> = ActionKey::new("echo");

type Caller = Box<dyn FnOnce(Runtime) + Send>;

/// Counts of what happens in a whole runtime.
#[derive(Default)]
struct Told {
    /// The number of attempts that began.
    begun: AtomicUsize,
    /// The number of jobs that were acknowledged.
    acknowledged: AtomicUsize,
    /// The number of jobs whose callers were told that they succeeded.
    succeeded: AtomicUsize,
    /// The number of jobs that a shutdown left in the queue.
    pending: AtomicUsize,
}

/// Runs a whole runtime on one thread, with a pool of one slot, and each caller on a thread of its own. Returns when
/// all callers have returned and dropped their handles.
fn with_a_runtime(
    callers: impl Fn(&Arc<Told>) -> Vec<Caller> + Clone + Send + Sync + 'static,
    in_the_end: fn(&Told),
) {
    // Actors set timers, which never fire here.
    let timers = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let timers = timers.expect("a runtime");
    let _entered = timers.enter();
    in_many_orders(1_000, move || {
        let told = Arc::new(Told::default());
        let callers = callers(&told);
        let begun = told.clone();
        block_on(tokio::task::LocalSet::new().run_until(async move {
            let echo = move |given, _| {
                begun.begun.fetch_add(1, Ordering::SeqCst);
                async move { Ok(given) }
            };
            let runtime = Runtime::builder()
                .action_fn(ECHO, echo)
                .worker_arbiters(0)
                .clock(StandingStill)
                .seed(1)
                .pool("pool", PoolConfig::default().max_parallelism(1))
                .start()
                .await
                .expect("nothing is wrong");
            let returned: Vec<_> = callers
                .into_iter()
                .map(|caller| {
                    let (returns, returned) = oneshot::channel();
                    let runtime = runtime.clone();
                    thread::spawn(move || {
                        caller(runtime);
                        let _ = returns.send(());
                    });
                    returned
                })
                .collect();
            drop(runtime);
            for returned in returned {
                returned.await.expect("no panic");
            }
        }));
        in_the_end(&told);
    });
}

/// One caller enqueues and joins, one watches, one cancels and joins: all get the same outcome.
///
/// Finds: a board that does not hold back starts of canceled jobs; a forgotten listener.
#[test]
fn joins_agree_with_cancels() {
    let callers = |told: &Arc<Told>| -> Vec<Caller> {
        let told = told.clone();
        vec![
            Box::new(|runtime| {
                let pool = runtime.pool("pool").expect("it is there");
                let work = block_on(pool.enqueue(ECHO.call(7)).id(work(1)).into_future());
                let joined = block_on(work.expect("it is taken").join());
                assert!(matches!(joined, Ok(7) | Err(JoinError::Canceled)), "{joined:?}");
            }),
            Box::new(|runtime| {
                let pool = runtime.pool("pool").expect("it is there");
                let seen = read(pool.work::<u8>(work(1)).watch());
                assert!(seen.last().is_some_and(WorkStatus::is_final), "{seen:?}");
            }),
            Box::new(move |runtime| {
                let pool = runtime.pool("pool").expect("it is there");
                let answer = block_on(pool.cancel(work(1))).expect("the store is there");
                let begun = told.begun.load(Ordering::SeqCst);
                let joined = block_on(pool.work::<u8>(work(1)).join());
                if answer == CancelAnswer::Requested {
                    assert_eq!(told.begun.load(Ordering::SeqCst), begun);
                    let expected = if begun == 0 { Err(JoinError::Canceled) } else { Ok(7) };
                    assert_eq!(joined, expected);
                }
            }),
        ]
    };
    with_a_runtime(callers, |_| {});
}

/// The runtime shuts down while jobs are enqueued and joined, and while a caller waits for an idle pool.
///
/// Finds: a shutdown that forgets the callers who wait for idle pools.
#[test]
fn a_shutdown_answers_everybody() {
    let callers = |told: &Arc<Told>| -> Vec<Caller> {
        let caller = |given: u8| -> Caller {
            let told = told.clone();
            Box::new(move |runtime| {
                let pool = runtime.pool("pool").expect("it is there");
                let work = match block_on(pool.enqueue(ECHO.call(given)).into_future()) {
                    Err(EnqueueError::Closed) => return,
                    work => work.expect("it is taken"),
                };
                told.acknowledged.fetch_add(1, Ordering::SeqCst);
                match block_on(work.join()) {
                    Err(JoinError::Closed) => {}
                    joined => {
                        assert_eq!(joined, Ok(given));
                        told.succeeded.fetch_add(1, Ordering::SeqCst);
                    }
                }
            })
        };
        let (one, two, told) = (caller(1), caller(2), told.clone());
        vec![
            one,
            two,
            Box::new(|runtime| {
                let idle = block_on(runtime.pool("pool").expect("it is there").idle());
                assert!(matches!(idle, Ok(()) | Err(PoolError::Closed)), "{idle:?}");
            }),
            Box::new(move |runtime| {
                let report = block_on(runtime.shutdown(Duration::MAX));
                told.pending.store(report.pending as usize, Ordering::SeqCst);
                assert_eq!(block_on(runtime.shutdown(Duration::MAX)), report);
                let pool = runtime.pool("pool").expect("it is there");
                let late = block_on(pool.enqueue(ECHO.call(3)).into_future());
                assert!(matches!(late, Err(EnqueueError::Closed)), "{late:?}");
            }),
        ]
    };
    with_a_runtime(callers, |told| {
        let get = |count: &AtomicUsize| count.load(Ordering::SeqCst);
        let (acknowledged, begun) = (get(&told.acknowledged), get(&told.begun));
        let (succeeded, pending) = (get(&told.succeeded), get(&told.pending));
        // A caller that learns that the runtime is gone may be answered before its job is acknowledged.
        assert!(succeeded <= begun, "{succeeded} of {begun} succeeded");
        assert!(begun + pending >= acknowledged, "{begun} and {pending} of {acknowledged}");
    });
}

/// Handles are dropped while others are used: the runtime ends with the last one, and not before.
///
/// Finds: a handle that closes the runtime while another one is left; a last handle that does not close it.
#[test]
fn a_runtime_ends_with_its_last_handle() {
    let callers = |_: &Arc<Told>| -> Vec<Caller> {
        let caller = |given: u8| -> Caller {
            Box::new(move |runtime: Runtime| {
                let pool = runtime.pool("pool").expect("it is there");
                let later = pool.enqueue(ECHO.call(given)).run_after(Duration::from_secs(60));
                let work = block_on(later.into_future()).expect("it is taken");
                let another = runtime.clone();
                drop(runtime);
                assert!(!pool.client.shared.is_closed());
                let watch = work.watch();
                drop(another);
                assert!(matches!(block_on(work.join()), Err(JoinError::Closed)));
                assert!(matches!(block_on(pool.idle()), Err(PoolError::Closed)));
                assert!(pool.client.shared.is_closed());
                assert!(read(watch).iter().all(|status| !status.is_final()));
            })
        };
        vec![caller(1), caller(2)]
    };
    with_a_runtime(callers, |_| {});
}
