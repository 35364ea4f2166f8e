//! What has gone wrong elsewhere, replayed here. Each test says where it happened and what it was.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::*;
use actix_workpool::model::Change;
use actix_workpool::storage::{Memory, StorageError};
use actix_workpool::{
    ActionContext, ActionKey, BlockingAction, CancelAnswer, FailureKind, JoinError, PoolConfig,
    Query, Reader, RetryBehavior, StartError, WorkError, WorkId, WorkStatus,
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

const TASK: ActionKey<u64, u64> = ActionKey::new("task");
const NAP: ActionKey<u64, u64> = ActionKey::new("nap");

fn config() -> PoolConfig {
    PoolConfig::default()
}

fn retries(attempts: u32) -> RetryBehavior {
    RetryBehavior::default().max_attempts(attempts).initial_backoff(ms(10))
}

#[derive(Serialize, Deserialize)]
struct AllTold;

impl Query for AllTold {
    const NAME: &'static str = "told.all";
    type Output = Vec<u64>;

    fn read(self, reader: &mut Reader<'_>) -> Result<Vec<u64>, WorkError> {
        Ok(reader.scan("told")?.into_iter().map(|(_, times)| times).collect())
    }
}

/// oban#1488: a node that had lost the lease renewed whatever lease it found and went on to believe that it led. Two
/// leaders inserted each periodic job twice, for weeks, until one was restarted.
#[test]
fn a_leader_that_was_superseded_does_not_repeat_its_work() {
    run_paused(async {
        let (tables, gate) = (Memory::new(), Gate::new());
        let builder = || {
            let at = gate.clone();
            let builder = builder().storage(tables.clone()).on_complete::<Told>();
            builder.query::<AllTold>().pool("p", config().max_parallelism(1)).action_fn(
                TASK,
                move |n, _| {
                    let at = at.clone();
                    at.enter();
                    async move {
                        if at.count() == 3 {
                            std::future::pending::<()>().await;
                        }
                        Ok(n)
                    }
                },
            )
        };
        let first = builder().start().await.unwrap();
        let pool = first.pool("p").unwrap();
        let mut works = Vec::new();
        for n in 0..6 {
            let enqueue = pool.enqueue(TASK.call(n)).retry(retries(2)).on_complete::<Told>(());
            works.push(enqueue.await.unwrap().id());
        }
        gate.entered(3).await;
        // There is no second leader while there is a first,
        let second = builder().start().await;
        assert!(matches!(second, Err(StartError::Storage(StorageError::InUse))));
        // and nothing is left of the first once there is a second, whoever still has a handle.
        drop(first);
        let second = start_again(builder).await;
        let taken_over = second.pool("p").unwrap();
        for (n, id) in works.iter().enumerate() {
            assert_eq!(taken_over.work::<u64>(*id).join().await, Ok(n as u64));
        }
        assert!(pool.enqueue(TASK.call(9)).await.is_err());
        assert_eq!(gate.count(), 7, "only the attempt that was lost is made again");
        assert_eq!(second.query(AllTold).await.unwrap(), [1; 6]);
        second.shutdown(secs(1)).await;
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

/// Waits for something on another thread, without the paused time passing meanwhile.
async fn awake<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|cx| {
        let polled = future.as_mut().poll(cx);
        cx.waker().wake_by_ref();
        polled
    })
    .await
}

/// Lets time pass until something has come about, also while a thread is held, and no longer.
async fn pass_until(mut come: impl AsyncFnMut() -> bool) {
    for _ in 0..1_000 {
        if awake(come()).await {
            return;
        }
        tokio::time::advance(ms(10)).await;
        steps(20).await;
    }
    panic!("it never came");
}

/// Bull#308, oban#1496: a worker that was taken for dead, and whose job another had finished meanwhile, finished it
/// once more: the older result replaced the newer one, or a completed job became one to be retried.
#[test]
fn a_worker_that_was_given_up_does_not_overwrite_what_came_of_its_work() {
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
        assert_eq!((row.outcome.as_str(), row.attempts), ("success", 2));
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

/// get-convex/workpool, its own state machine tests: a work that was canceled twice found its row gone the second time,
/// which threw in the loop; a cancel of one that had just completed did the same.
#[test]
fn a_cancel_comes_as_often_as_it_likes() {
    for phase in PHASES {
        run_in_turn(async move {
            let builder = builder()
                .echo()
                .action_fn(TASK, |_, _| async { Err(WorkError::retryable("again")) });
            let retry = RetryBehavior::default().max_attempts(100).initial_backoff(Duration::ZERO);
            let (runtime, pool) = start(builder, config().default_retry(retry)).await;
            let work = pool.enqueue(TASK.call(1)).await.unwrap();
            steps(phase).await;
            // Side by side, so that several meet in one group, and after another.
            let (first, second) =
                tokio::join!(work.cancel(), pool.cancel_batch(vec![work.id(); 3]));
            let answers = [&[first.unwrap()], &*second.unwrap()].concat();
            let requested = |answer: &&CancelAnswer| **answer == CancelAnswer::Requested;
            assert_eq!(answers.iter().filter(requested).count(), 1, "{answers:?}");
            assert_ne!(work.cancel().await.unwrap(), CancelAnswer::Requested);
            assert_eq!(soon(work.join()).await, Err(JoinError::Canceled));
            assert_eq!(work.cancel().await.unwrap(), CancelAnswer::AlreadyFinished);
            assert_eq!(pool.cancel_all().await.unwrap(), 0);
            assert_eq!(pool.enqueue(ECHO.call(3)).await.unwrap().join().await, Ok(3));
            let report = pool.diagnostics().await.unwrap().report;
            assert_eq!((report.canceled, report.succeeded), (1, 1));
            runtime.shutdown(secs(1)).await;
        });
    }
}

/// get-convex/workpool, its own state machine tests: a completion that came twice was recognized, but only after the
/// attempt had been counted, so that works ran out of attempts that they had never had.
#[test]
fn a_report_that_comes_twice_is_counted_once() {
    run_paused(async {
        let (storage, log) = (Faulty::new(), Log::default());
        let lines = log.clone();
        let builder = builder().storage(storage.clone()).action_fn(TASK, move |n, cx| {
            lines.say(cx.attempt().to_string());
            async move { if cx.attempt() == 3 { Ok(n) } else { Err(WorkError::retryable("no")) } }
        });
        let (runtime, pool) = start(builder, config().default_retry(retries(3))).await;
        for fault in [Fault::AnswerLost, Fault::Refused] {
            let hits = storage.hits();
            storage.fail_next(fault, |change| {
                matches!(change, Change::InsertPendingCompletion { .. })
            });
            assert_eq!(pool.enqueue(TASK.call(7)).await.unwrap().join().await, Ok(7));
            assert_eq!(storage.hits(), hits + 1);
        }
        assert_eq!(log.lines(), ["1", "2", "3", "1", "2", "3"]);
        let report = pool.diagnostics().await.unwrap().report;
        assert_eq!((report.completed, report.retries, report.succeeded), (6, 4, 2));
        runtime.shutdown(secs(1)).await;
    });
}

/// get-convex/workpool#225: the pool's list of what runs had an entry that nobody stood behind. Its monitor went round
/// 27 times a second, which looked like life, and no work was started any more.
#[test]
fn an_entry_in_running_that_nobody_stands_behind_neither_wedges_the_pool_nor_keeps_it_spinning() {
    run_paused(async {
        let (storage, gate) = (Faulty::new(), Gate::new());
        let builder = || {
            let at = gate.clone();
            let builder = builder().storage(storage.clone()).echo();
            builder.pool("p", config().max_parallelism(1)).action_fn(TASK, move |_, _| {
                at.enter();
                std::future::pending()
            })
        };
        let runtime = builder().start().await.unwrap();
        let pool = runtime.pool("p").unwrap();
        let orphan = pool.enqueue(TASK.call(1)).await.unwrap();
        let behind = pool.enqueue(ECHO.call(2)).await.unwrap();
        gate.entered(1).await;
        drop(runtime);

        let runtime = start_again(builder).await;
        let pool = runtime.pool("p").unwrap();
        let lost = pool.work::<u64>(orphan.id()).join().await;
        let Err(JoinError::Failed { attempts: 1, failure }) = lost else { panic!("{lost:?}") };
        assert_eq!(failure.kind, FailureKind::Lost);
        assert_eq!(pool.work::<u64>(behind.id()).join().await, Ok(2));

        // One that never ends has the only slot, and another waits for it: there is nothing to do.
        let endless = pool.enqueue(TASK.call(3)).await.unwrap();
        let waits = pool.enqueue(ECHO.call(4)).await.unwrap();
        gate.entered(2).await;
        settle().await;
        let (before, turn) = (storage.commits(), pool.diagnostics().await.unwrap().turn);
        tokio::time::sleep(secs(600)).await;
        let diagnostics = pool.diagnostics().await.unwrap();
        assert!(storage.commits() - before <= 20, "{} commits", storage.commits() - before);
        assert!(diagnostics.turn - turn <= 20, "{diagnostics:?}");
        assert_eq!((diagnostics.waiting, diagnostics.running), (1, 1));
        assert!(diagnostics.oldest_due.is_some(), "whoever looks sees how long it has waited");
        endless.abort(Duration::ZERO).await.unwrap();
        assert_eq!(waits.join().await, Ok(4));
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

/// The same mistake where works are started: pages of works that cannot run, or must not run yet, before one that can.
#[test]
fn a_work_that_can_run_is_seen_behind_pages_of_those_that_cannot() {
    run_paused(async {
        const OTHERS: ActionKey<u64, u64> = ActionKey::new("others");
        let tables = Memory::new();
        let both =
            builder().storage(tables.clone()).echo().action_fn(OTHERS, |n, _| async move { Ok(n) });
        let (runtime, pool) = start(both, config().paused(true)).await;
        let missing = pool.enqueue_batch((0..3_500).map(|n| OTHERS.call(n))).await.unwrap();
        let later = (0..1_500).map(|n| ECHO.call(n));
        pool.enqueue_batch(later).run_after(secs(3_600)).await.unwrap();
        let last = pool.enqueue(ECHO.call(7)).await.unwrap().id();
        runtime.shutdown(secs(1)).await;

        let one = builder().storage(tables).echo();
        let (runtime, pool) = start(one, config().paused(false).max_parallelism(2)).await;
        let begun = Instant::now();
        assert_eq!(pool.work::<u64>(last).join().await, Ok(7));
        assert!(begun.elapsed() < secs(1), "{:?}", begun.elapsed());
        let diagnostics = pool.diagnostics().await.unwrap();
        assert_eq!(diagnostics.unregistered, missing.ids().len() as u64);
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
                // Most are known already: many messages, and not more works than can run.
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
