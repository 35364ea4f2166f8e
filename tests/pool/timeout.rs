//! Timeouts, and attempts that do not end when they are told to.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use crate::common::*;
use crate::support::*;
use actix_workpool::model::Change;
use actix_workpool::storage::StorageError;
use actix_workpool::{
    Action, ActionContext, ActionKey, BlockingAction, CancelAnswer, FailureKind, FunctionKind,
    JoinError, Mutation, Query, Reader, Runtime, Transaction, WorkError, WorkId, WorkStatus,
    Workpool,
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

#[derive(Serialize, Deserialize)]
struct Hurried;

impl Action for Hurried {
    const NAME: &'static str = "hurried";
    const TIMEOUT: Option<Duration> = Some(Duration::from_secs(2));
    type Output = ();

    async fn run(self, _: ActionContext) -> Result<(), WorkError> {
        std::future::pending().await
    }
}

async fn timed<T: serde::de::DeserializeOwned + std::fmt::Debug>(
    work: actix_workpool::WorkHandle<T>,
) -> (Duration, FailureKind) {
    let begun = Instant::now();
    match work.join().await {
        Err(JoinError::Failed { failure, .. }) => (begun.elapsed(), failure.kind),
        other => panic!("{other:?} is no failure"),
    }
}

#[test]
fn the_enqueues_timeout_goes_before_the_functions_and_that_before_the_pools() {
    on_each_store(|| {
        run_paused(async {
            let builder =
                builder().action::<Hurried>().action_fn(TASK, |_, _| std::future::pending());
            let (runtime, pool) = start(builder, config().attempt_timeout(secs(4))).await;
            for (work, limit) in [
                (pool.enqueue(Hurried).await.unwrap(), secs(2)),
                (pool.enqueue(Hurried).timeout(secs(1)).await.unwrap(), secs(1)),
                (pool.enqueue(Hurried).timeout(secs(9)).await.unwrap(), secs(9)),
            ] {
                let started = Instant::now();
                let (took, kind) = timed(work).await;
                assert_eq!(kind, FailureKind::Timeout);
                assert!(took <= limit + ms(5), "{took:?}, limit {limit:?} since {started:?}");
            }
            let (took, kind) = timed(pool.enqueue(TASK.call(0)).await.unwrap()).await;
            assert_eq!(kind, FailureKind::Timeout);
            assert!(took >= secs(4) && took <= secs(4) + ms(5), "{took:?}");
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn each_attempt_has_its_own_time() {
    on_each_store(|| {
        run_paused(async {
            let dropped = Arc::new(AtomicUsize::new(0));
            let counted = dropped.clone();
            let builder = builder().action_fn(TASK, move |n, cx| {
                let counted = counted.clone();
                async move {
                    let _guard = on_drop(move || {
                        counted.fetch_add(1, Ordering::SeqCst);
                    });
                    if cx.attempt() < 3 {
                        std::future::pending::<()>().await;
                    }
                    tokio::time::sleep(ms(900)).await;
                    Ok(n)
                }
            });
            let (runtime, pool) = start(builder, config().default_retry(retries(3))).await;
            let work = pool.enqueue(TASK.call(5)).timeout(secs(1)).await.unwrap();
            assert_eq!(work.join().await, Ok(5));
            assert_eq!(dropped.load(Ordering::SeqCst), 3, "timed out futures are dropped");
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[derive(Serialize, Deserialize)]
enum Job {
    /// Keeps its thread until the test lets it go.
    Hog,
    Note(u64),
}

/// Where jobs are seen.
struct Desk {
    hog: Gate,
    release: Mutex<mpsc::Receiver<()>>,
    ran: Mutex<Vec<u64>>,
}

impl BlockingAction for Job {
    const NAME: &'static str = "job";
    type Output = ();

    fn run(self, cx: &ActionContext) -> Result<(), WorkError> {
        let desk = cx.data::<Desk>();
        match self {
            Job::Hog => {
                desk.hog.enter();
                let _ = desk.release.lock().unwrap().recv();
            }
            Job::Note(number) => desk.ran.lock().unwrap().push(number),
        }
        Ok(())
    }
}

/// Answers the notes that were taken.
const SEEN: ActionKey<(), Vec<u64>> = ActionKey::new("seen");

/// One thread for blocking actions, which the first one keeps until the sender is dropped.
async fn one_thread_that_is_taken() -> (Runtime, Workpool, mpsc::Sender<()>) {
    let (release, released) = mpsc::channel();
    let hog = Gate::new();
    let desk = Desk { hog: hog.clone(), release: Mutex::new(released), ran: Mutex::default() };
    let builder = builder().blocking_threads(1).blocking_action::<Job>().data(desk);
    let builder = builder
        .action_fn(SEEN, |(), cx| async move { Ok(cx.data::<Desk>().ran.lock().unwrap().clone()) });
    let (runtime, pool) = start(builder, config()).await;
    pool.enqueue(Job::Hog).await.unwrap();
    hog.entered(1).await;
    (runtime, pool, release)
}

#[test]
fn a_blocking_action_that_was_given_up_while_it_waited_for_a_thread_never_runs() {
    run_real(async {
        let (runtime, pool, release) = one_thread_that_is_taken().await;
        let late = pool.enqueue(Job::Note(1)).timeout(ms(50)).await.unwrap();
        assert_eq!(failure(soon(late.join()).await).1.kind, FailureKind::Timeout);
        let aborted = pool.enqueue(Job::Note(2)).await.unwrap();
        let mut watch = aborted.watch();
        while !matches!(soon(watch.next()).await, Some(WorkStatus::Running { .. })) {}
        assert_eq!(aborted.abort(Duration::ZERO).await.unwrap(), CancelAnswer::Requested);
        assert_eq!(soon(aborted.join()).await, Err(JoinError::Canceled));
        // The one thread takes them in order.
        let last = pool.enqueue(Job::Note(3)).await.unwrap();
        drop(release);
        assert_eq!(soon(last.join()).await, Ok(()));
        assert_eq!(soon(pool.enqueue(SEEN.call(())).await.unwrap().join()).await, Ok(vec![3]));
        runtime.shutdown(secs(1)).await;
    });
}

#[test]
fn a_blocking_action_that_was_canceled_while_it_waited_for_a_thread_never_runs() {
    run_real(async {
        let (runtime, pool, release) = one_thread_that_is_taken().await;
        let canceled = pool.enqueue(Job::Note(1)).await.unwrap();
        let mut watch = canceled.watch();
        while !matches!(soon(watch.next()).await, Some(WorkStatus::Running { .. })) {}
        assert_eq!(canceled.cancel().await.unwrap(), CancelAnswer::Requested);
        let last = pool.enqueue(Job::Note(2)).await.unwrap();
        drop(release);
        assert_eq!(soon(canceled.join()).await, Err(JoinError::Canceled));
        assert_eq!(soon(last.join()).await, Ok(()));
        assert_eq!(soon(pool.enqueue(SEEN.call(())).await.unwrap().join()).await, Ok(vec![2]));
        runtime.shutdown(secs(1)).await;
    });
}

#[derive(Serialize, Deserialize)]
struct Put(u64);

impl Mutation for Put {
    const NAME: &'static str = "put";
    type Output = u64;

    fn apply(self, tx: &mut Transaction<'_>) -> Result<u64, WorkError> {
        tx.put("puts", self.0, &self.0)?;
        Ok(self.0)
    }
}

#[derive(Serialize, Deserialize)]
struct Puts;

impl Query for Puts {
    const NAME: &'static str = "puts";
    type Output = usize;

    fn read(self, reader: &mut Reader<'_>) -> Result<usize, WorkError> {
        Ok(reader.scan::<u64>("puts")?.len())
    }
}

#[test]
fn the_timeout_of_a_pool_is_none_of_mutations_and_queries() {
    run_paused(async {
        let storage = Hooked::new(false);
        let builder = builder().storage(storage.clone()).echo().mutation::<Put>().query::<Puts>();
        let timeouts = Arc::new(Mutex::new(Vec::new()));
        let seen = timeouts.clone();
        // What runs in the store waits there, longer than any timeout.
        let since = Instant::now();
        storage.before_each_call(move |call| {
            let Call::Commit(changes, _) = call else { return Ok(()) };
            for change in changes {
                if let Change::InsertWork { spec, .. } = change {
                    seen.lock().unwrap().push((spec.kind, spec.timeout()));
                }
            }
            match changes.iter().any(reports) && since.elapsed() < secs(30) {
                true => Err(StorageError::Unavailable("for half a minute".into())),
                false => Ok(()),
            }
        });
        let paused = config().attempt_timeout(ms(10)).paused(true);
        let (runtime, pool) = start(builder, paused).await;
        let put = pool.enqueue(Put(1)).await.unwrap();
        let own = pool.enqueue(Put(2)).timeout(ms(5)).await.unwrap();
        let puts = pool.enqueue(Puts).await.unwrap();
        pool.resume().await.unwrap();
        assert_eq!(soon(put.join()).await, Ok(1));
        assert_eq!(soon(own.join()).await, Ok(2));
        assert!(soon(puts.join()).await.is_ok());
        assert!(since.elapsed() >= secs(30));
        assert_eq!(pool.enqueue(ECHO.call(1)).await.unwrap().join().await, Ok(1));
        let (mutation, query) = (FunctionKind::Mutation, FunctionKind::Query);
        let action = (FunctionKind::Action, Some(ms(10)));
        let expected = [(mutation, None), (mutation, None), (query, None), action];
        assert_eq!(*timeouts.lock().unwrap(), expected);
        runtime.shutdown(secs(1)).await;
    });
}

/// Holds its thread in its first attempt until the test lets it go.
#[derive(Serialize, Deserialize)]
struct Hold;

struct Thread {
    entered: Gate,
    go: Mutex<Receiver<()>>,
    gone: Gate,
}

fn thread() -> (Thread, Sender<()>, Gate, Gate) {
    let (go, receiver) = channel();
    let (entered, gone) = (Gate::new(), Gate::new());
    let thread = Thread { entered: entered.clone(), go: Mutex::new(receiver), gone: gone.clone() };
    (thread, go, entered, gone)
}

impl BlockingAction for Hold {
    const NAME: &'static str = "hold";
    type Output = u32;

    fn run(self, cx: &ActionContext) -> Result<u32, WorkError> {
        let attempt = cx.attempt();
        let thread = cx.data::<Thread>();
        thread.entered.enter();
        if attempt == 1 {
            let _ = thread.go.lock().unwrap().recv();
            thread.gone.enter();
        }
        Ok(attempt)
    }
}

/// Bull#308, oban#1496: a worker that was taken for dead, and whose job another had finished meanwhile, finished it
/// once more: the older result replaced the newer one, or a completed job became one to be retried.
#[test]
fn a_worker_that_was_given_up_does_not_overwrite_what_came_of_its_job() {
    run_paused(async {
        let (thread, go, entered, gone) = thread();
        let builder = builder().blocking_action::<Hold>().data(thread);
        let (runtime, pool) = start(builder, config()).await;
        let work = pool.enqueue(Hold).retry(retries(3)).timeout(secs(5)).await.unwrap();
        awake(entered.entered(1)).await;
        pass_until(async || entered.count() == 2).await;
        assert_eq!(awake(work.join()).await, Ok(2));
        let before = pool.diagnostics().await.unwrap().report;
        go.send(()).unwrap();
        awake(gone.entered(1)).await;
        // It is on its way, and no time of any loop passes: the other thread needs some.
        let mut looks = 0;
        pass_until(async || {
            looks += 1;
            std::thread::yield_now();
            looks > 100
        })
        .await;
        let WorkStatus::Finished(row) = work.status().await.unwrap() else { panic!("{work:?}") };
        assert_eq!((row.outcome().as_str(), row.attempts()), ("success", 2));
        assert_eq!(awake(work.join()).await, Ok(2));
        assert_eq!(pool.diagnostics().await.unwrap().report, before, "it is not counted");
        awake(runtime.shutdown(secs(1))).await;
    });
}

/// solid_queue#761: a job that was taken for dead gave its place back, and once more when it ended after all. The count
/// of free places had grown beyond the limit, and eleven jobs ran where one was allowed.
#[test]
fn a_slot_that_is_given_back_twice_is_one_slot() {
    run_paused(async {
        let (thread, go, entered, gone) = thread();
        let crowd = Crowd::default();
        let inside = crowd.clone();
        let builder =
            builder().blocking_action::<Hold>().data(thread).action_fn(NAP, move |n, _| {
                let inside = inside.enter();
                async move {
                    tokio::time::sleep(ms(100)).await;
                    drop(inside);
                    Ok(n)
                }
            });
        let (runtime, pool) = start(builder, config().max_parallelism(1)).await;
        let held = pool.enqueue(Hold).timeout(ms(50)).await.unwrap();
        awake(entered.entered(1)).await;
        let naps = pool.enqueue_batch((0..60).map(|n| NAP.call(n))).await.unwrap();
        pass_until(async || matches!(held.status().await.unwrap(), WorkStatus::Finished(_))).await;
        let given_up = awake(held.join()).await;
        assert!(matches!(given_up, Err(JoinError::Failed { .. })), "{given_up:?}");
        assert_eq!(crowd.inside(), 1);
        go.send(()).unwrap();
        awake(gone.entered(1)).await;
        assert!(naps.join().await.into_iter().all(|outcome| outcome.is_ok()));
        assert_eq!(crowd.most(), 1);
        runtime.shutdown(secs(1)).await;
    });
}

/// River 0.41.0 (river#1318): whoever looked for stuck jobs read one page of running ones. A page full of those that
/// may take as long as they like kept it from ever seeing the stuck ones behind them.
#[test]
fn an_overdue_attempt_is_seen_behind_a_page_of_those_that_have_time() {
    run_paused(async {
        let gate = Gate::new();
        let at = gate.clone();
        let builder = builder().action_fn(TASK, move |_, _| {
            at.enter();
            std::future::pending()
        });
        let (runtime, pool) = start(builder, config().max_parallelism(2_500)).await;
        let patient = pool.enqueue_batch((0..2_400).map(|n| TASK.call(n))).await.unwrap();
        gate.entered(2_400).await;
        let begun = Instant::now();
        let overdue = pool.enqueue(TASK.call(0)).timeout(secs(1)).await.unwrap();
        let Err(JoinError::Failed { failure, .. }) = overdue.join().await else { panic!() };
        assert_eq!(failure.kind, FailureKind::Timeout);
        assert!(begun.elapsed() < secs(4), "{:?}", begun.elapsed());
        assert_eq!(pool.pending(), patient.ids().len() as u64);
        runtime.shutdown(Duration::ZERO).await;
    });
}

/// actix drains a mailbox before it looks at timers: an actor that is flooded with messages never sees that the time of
/// something has come.
#[test]
fn a_flood_of_messages_delays_no_timer() {
    run_in_turn(async {
        let (begun, log) = (Instant::now(), Arc::new(Mutex::new(Vec::new())));
        let times = log.clone();
        let endless: ActionKey<(), u64> = ActionKey::new("endless");
        let builder = builder()
            .echo()
            .action_fn(endless, |(), _| std::future::pending())
            .action_fn(TASK, move |due, _| {
                times.lock().unwrap().push((ms(due), begun.elapsed()));
                async move { Ok(due) }
            });
        let (runtime, pool) = start(builder, config().max_parallelism(8)).await;
        let overdue = pool.enqueue(endless.call(())).timeout(ms(50)).await.unwrap();
        for due in [10, 40, 90] {
            drop(pool.enqueue(TASK.call(due)).run_after(ms(due)).await.unwrap());
        }
        let mut ended = None;
        for n in 0..100 {
            for m in 0..40 {
                // Most are known already: many messages, and not more jobs than can run.
                let id = WorkId::from_uuid(uuid::Uuid::from_u128(n % 7 + 1));
                drop(pool.enqueue(ECHO.call(m)).id(id).do_enqueue().unwrap());
                drop(pool.enqueue(ECHO.call(m)).id(id).do_enqueue().unwrap());
            }
            tokio::time::advance(ms(1)).await;
            steps(10).await;
            if matches!(overdue.status().await.unwrap(), WorkStatus::Finished(_)) {
                ended.get_or_insert(begun.elapsed());
            }
        }
        let seen = log.lock().unwrap().clone();
        assert_eq!(seen.len(), 3, "{seen:?}");
        for (due, at) in seen {
            assert!(at >= due && at <= due + ms(20), "due after {due:?}, begun after {at:?}");
        }
        let ended = ended.expect("its time was up long ago");
        assert!(ended <= ms(50) + ms(20), "{ended:?}");
        pool.idle().await.unwrap();
        runtime.shutdown(secs(1)).await;
    });
}
