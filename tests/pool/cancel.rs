//! Cancel, `cancel_all` and abort.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::common::*;
use crate::support::*;
use actix_workpool::model::Change;
use actix_workpool::storage::Fsync;
use actix_workpool::testing::network::{Delivery, Letter};
use actix_workpool::{
    CancelAnswer, JoinError, PoolError, Retention, RetryBehavior, Runtime, WorkError, WorkId,
    WorkStatus, Workpool,
};
use tokio::time::{Instant, timeout};

#[test]
fn a_waiting_job_that_is_canceled_never_runs() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool, gate) = gated(config()).await;
            let work = pool.enqueue(TASK.call(1)).run_after(secs(60)).await.unwrap();
            assert_eq!(work.cancel().await.unwrap(), CancelAnswer::Requested);
            assert_eq!(work.join().await, Err(JoinError::Canceled));
            assert_eq!(work.cancel().await.unwrap(), CancelAnswer::AlreadyFinished);
            assert_eq!(pool.cancel(id(5)).await.unwrap(), CancelAnswer::NotFound);
            tokio::time::sleep(secs(120)).await;
            assert_eq!((gate.count(), pool.pending()), (0, 0));
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_running_job_that_is_canceled_is_told() {
    on_each_store(|| {
        run_paused(async {
            let gate = Gate::new();
            let at = gate.clone();
            let builder = builder().action_fn(TASK, move |_, cx| {
                at.enter();
                async move {
                    cx.canceled().await;
                    assert!(cx.is_canceled());
                    Err::<u64, _>(WorkError::canceled())
                }
            });
            let (runtime, pool) = start(builder, config().default_retry(retries(5))).await;
            let work = pool.enqueue(TASK.call(1)).await.unwrap();
            gate.entered(1).await;
            assert_eq!(work.cancel().await.unwrap(), CancelAnswer::Requested);
            assert_eq!(work.join().await, Err(JoinError::Canceled));
            assert_eq!(gate.count(), 1);
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_canceled_job_that_fails_is_not_retried_and_one_that_succeeds_has_its_result() {
    on_each_store(|| {
        run_paused(async {
            let gate = Gate::new();
            let at = gate.clone();
            let builder = builder().action_fn(TASK, move |n, cx| {
                at.enter();
                async move {
                    cx.canceled().await;
                    if n == 0 { Err(WorkError::retryable("interrupted")) } else { Ok(n) }
                }
            });
            let (runtime, pool) = start(builder, config().default_retry(retries(5))).await;
            let fails = pool.enqueue(TASK.call(0)).await.unwrap();
            let succeeds = pool.enqueue(TASK.call(1)).await.unwrap();
            gate.entered(2).await;
            let ids = vec![fails.id(), succeeds.id()];
            let answers = pool.cancel_batch(ids.clone()).await.unwrap();
            assert_eq!(answers, [CancelAnswer::Requested; 2]);
            assert_eq!(fails.join().await, Err(JoinError::Canceled));
            assert_eq!(succeeds.join().await, Ok(1));
            assert_eq!(gate.count(), 2);
            assert_eq!(pool.cancel_batch(ids).await.unwrap(), [CancelAnswer::AlreadyFinished; 2]);
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_cancel_that_comes_twice_is_told_so() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool, gate) = gated(config()).await;
            let work = pool.enqueue(TASK.call(1)).await.unwrap();
            gate.entered(1).await;
            assert_eq!(work.cancel().await.unwrap(), CancelAnswer::Requested);
            assert_eq!(work.cancel().await.unwrap(), CancelAnswer::AlreadyRequested);
            gate.open();
            assert_eq!(work.join().await, Ok(1));
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_job_that_waits_for_its_retry_can_be_canceled() {
    on_each_store(|| {
        run_paused(async {
            let gate = Gate::new();
            let at = gate.clone();
            let builder = builder().action_fn(TASK, move |_, _| {
                at.enter();
                async { Err::<u64, _>(WorkError::retry_after(secs(600), "later")) }
            });
            let (runtime, pool) = start(builder, config().default_retry(retries(5))).await;
            let work = pool.enqueue(TASK.call(1)).await.unwrap();
            gate.entered(1).await;
            settle().await;
            let status = work.status().await.unwrap();
            assert!(matches!(status, WorkStatus::Pending { previous_attempts: 1, due: Some(_) }));
            work.cancel().await.unwrap();
            assert_eq!(work.join().await, Err(JoinError::Canceled));
            tokio::time::sleep(secs(700)).await;
            assert_eq!(gate.count(), 1);
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn cancel_all_cancels_page_after_page_and_only_what_was_there() {
    on_each_store(|| {
        run_paused(async {
            let builder = builder().echo().pool("other", config().paused(true));
            let (runtime, pool) = start(builder, config().paused(true)).await;
            let other = runtime.pool("other").unwrap();
            let bystander = other.enqueue(ECHO.call(1)).await.unwrap();
            let works = pool.enqueue_batch((0..2_500).map(|n| ECHO.call(n))).await.unwrap();
            tokio::time::advance(ms(5)).await;
            let mut canceling = std::pin::pin!(pool.cancel_all());
            tokio::select! { biased; _ = &mut canceling => panic!("too soon"), () = std::future::ready(()) => {} }
            tokio::time::advance(ms(5)).await;
            let late = pool.enqueue(ECHO.call(9)).await.unwrap();
            assert_eq!(canceling.await.unwrap(), 2_500);
            let outcomes = works.join().await;
            assert!(outcomes.iter().all(|outcome| *outcome == Err(JoinError::Canceled)));
            assert_eq!((pool.pending(), other.pending()), (1, 1));
            pool.resume().await.unwrap();
            other.resume().await.unwrap();
            assert_eq!((late.join().await, bystander.join().await), (Ok(9), Ok(1)));
            assert_eq!(pool.cancel_all().await.unwrap(), 0);
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn an_attempt_that_ignores_its_cancelation_is_dropped_after_the_grace() {
    on_each_store(|| {
        run_paused(async {
            let (gate, crowd) = (Gate::new(), Crowd::default());
            let (at, inside) = (gate.clone(), crowd.clone());
            let builder = builder().action_fn(TASK, move |_, _| {
                let (gate, inside) = (at.clone(), inside.enter());
                async move {
                    gate.pass().await;
                    drop(inside);
                    Ok(0)
                }
            });
            let (runtime, pool) = start(builder, config()).await;
            let work = pool.enqueue(TASK.call(1)).await.unwrap();
            gate.entered(1).await;
            let begun = Instant::now();
            assert_eq!(work.abort(secs(3)).await.unwrap(), CancelAnswer::Requested);
            assert_eq!(crowd.inside(), 1);
            assert_eq!(work.join().await, Err(JoinError::Canceled));
            assert!(begun.elapsed() >= secs(3) && begun.elapsed() < secs(4));
            assert_eq!(crowd.inside(), 0, "its future is dropped");
            assert_eq!(work.abort(secs(3)).await.unwrap(), CancelAnswer::AlreadyFinished);
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn an_attempt_that_ends_within_the_grace_is_not_dropped() {
    on_each_store(|| {
        run_paused(async {
            let gate = Gate::new();
            let at = gate.clone();
            let builder = builder().action_fn(TASK, move |n, cx| {
                at.enter();
                async move {
                    cx.canceled().await;
                    tokio::time::sleep(secs(1)).await;
                    Ok(n)
                }
            });
            let (runtime, pool) = start(builder, config()).await;
            let work = pool.enqueue(TASK.call(1)).await.unwrap();
            gate.entered(1).await;
            work.abort(secs(3)).await.unwrap();
            assert_eq!(work.join().await, Ok(1));
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_cancel_tells_nothing_of_a_report_that_is_not_synced() {
    run_paused(async {
        let storage = Hooked::new(false);
        let builder = builder().storage(storage.clone()).pool("p", config());
        let runtime = builder.action_fn(TASK, |n, _| async move { Ok(n) }).start().await.unwrap();
        let pool = runtime.pool("p").unwrap();

        // The cancel is sent while the report is committed, so that a group of its own follows at once.
        let canceling = Arc::new(Mutex::new(None));
        let commits = Arc::new(Mutex::new(Vec::new()));
        storage.before_each_call({
            let (pool, canceling, commits) = (pool.clone(), canceling.clone(), commits.clone());
            move |call| {
                let Call::Commit(changes, fsync) = call else { return Ok(()) };
                commits.lock().unwrap().push((changes.len(), fsync));
                if changes.iter().any(reports) {
                    let pool = pool.clone();
                    let mut cancel = Box::pin(async move { pool.cancel(id(1)).await });
                    let sent = cancel.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                    assert!(sent.is_pending());
                    *canceling.lock().unwrap() = Some(cancel);
                }
                Ok(())
            }
        });
        let work = pool.enqueue(TASK.call(1)).id(id(1)).await.unwrap();
        assert_eq!(work.join().await, Ok(1));
        let cancel = canceling.lock().unwrap().take().expect("it was sent");
        assert_eq!(cancel.await.unwrap(), CancelAnswer::AlreadyFinished);
        let commits = std::mem::take(&mut *commits.lock().unwrap());
        let report = commits.iter().position(|(_, fsync)| *fsync == Fsync::WithNext);
        let next = commits[report.expect("a report") + 1];
        assert_eq!(next, (0, Fsync::Now), "synced before the answer: {commits:?}");
        runtime.shutdown(secs(1)).await;
    });
}

#[test]
fn a_cancel_all_that_was_begun_is_gone_through_before_the_store_closes() {
    run_paused(async {
        let (runtime, pool) = start(builder().echo(), config()).await;
        let works = pool.enqueue_batch((0..5_000).map(|n| ECHO.call(n))).run_after(secs(60));
        works.await.unwrap();
        let canceling = actix::spawn(async move { pool.cancel_all().await });
        tokio::task::yield_now().await;
        runtime.shutdown(Duration::ZERO).await;
        assert_eq!(canceling.await.unwrap().unwrap(), 5_000);
    });
}

/// Whether the loop has handed the job to a worker: then the board says that it runs, without asking the store.
fn is_launched(pool: &Workpool, work_id: WorkId) -> bool {
    let mut status = std::pin::pin!(pool.status(work_id));
    let status = status.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    matches!(status, Poll::Ready(Ok(WorkStatus::Running { .. })))
}

#[test]
fn a_job_does_not_start_once_its_cancel_is_answered() {
    let canceled_first = Arc::new(AtomicUsize::new(0));
    for phase in PHASES {
        let canceled_first = canceled_first.clone();
        run_in_turn(async move {
            let gate = Gate::new();
            let at = gate.clone();
            let builder = builder().action_fn(TASK, move |_, cx| {
                at.enter();
                async move {
                    cx.canceled().await;
                    Err(WorkError::canceled())
                }
            });
            let (runtime, pool) = start(builder, config()).await;
            let work = pool.do_enqueue(TASK.call(1)).unwrap();
            steps(phase).await;
            assert_eq!(work.cancel().await.unwrap(), CancelAnswer::Requested, "phase {phase}");
            let launched = is_launched(&pool, work.id());
            assert_eq!(soon(work.join()).await, Err(JoinError::Canceled), "phase {phase}");
            if !launched {
                assert_eq!(gate.count(), 0, "started behind the answer in phase {phase}");
                canceled_first.fetch_add(1, Ordering::SeqCst);
            }
            runtime.shutdown(secs(1)).await;
        });
    }
    let count = canceled_first.load(Ordering::SeqCst);
    assert!(0 < count && count < PHASES.len(), "{count} were canceled before they started");
}

type Cancel = Pin<Box<dyn Future<Output = Result<CancelAnswer, PoolError>> + Send>>;

#[test]
fn a_cancel_that_is_answered_before_the_receipt_of_a_start_keeps_the_code_from_starting() {
    run_in_turn(async {
        let (storage, gate) = (Hooked::new(false), Gate::new());
        let at = gate.clone();
        let builder = builder().storage(storage.clone()).action_fn(TASK, move |_, cx| {
            at.enter();
            async move {
                cx.canceled().await;
                Err(WorkError::canceled())
            }
        });
        let (runtime, pool) = start(builder, config()).await;
        // As if another thread had asked while the start is being written: the store takes the cancel in its next
        // group, and the loop has not had the receipt of the start yet.
        let asked: Arc<Mutex<Option<Cancel>>> = Arc::default();
        let (ask, canceling) = (asked.clone(), pool.clone());
        storage.before_each_call(move |call| {
            if let Call::Commit(changes, _) = call
                && changes.iter().any(starts)
            {
                let pool = canceling.clone();
                let mut cancel: Cancel = Box::pin(async move { pool.cancel(id(1)).await });
                let sent = cancel.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                assert!(sent.is_pending());
                *ask.lock().unwrap() = Some(cancel);
            }
            Ok(())
        });
        let enqueued = actix::spawn({
            let pool = pool.clone();
            async move { pool.enqueue(TASK.call(1)).id(id(1)).await.map(drop) }
        });
        let cancel = loop {
            if let Some(cancel) = asked.lock().unwrap().take() {
                break cancel;
            }
            steps(1).await;
        };
        assert_eq!(cancel.await.unwrap(), CancelAnswer::Requested);
        assert!(!is_launched(&pool, id(1)), "the receipt is still on its way");
        enqueued.await.unwrap().unwrap();
        let joined = soon(pool.work::<u64>(id(1)).join()).await;
        assert_eq!(joined, Err(JoinError::Canceled));
        assert_eq!(gate.count(), 0, "it started behind the answer");
        runtime.shutdown(secs(1)).await;
    });
}

/// Cancels very many jobs, and meanwhile does something again and again, which is often possible and never waits for
/// the end of the cancel. Times are compared with each other, so that a busy machine changes nothing.
async fn meanwhile_cancel_all(action: impl AsyncFn(&Workpool)) {
    const WORKS: u64 = 250_000;
    let builder = Runtime::builder().worker_arbiters(1).echo().pool("q", config());
    let (runtime, pool) = start(builder, config().paused(true)).await;
    let beside = runtime.pool("q").unwrap();
    let batch = pool.enqueue_batch((0..WORKS).map(|n| ECHO.call(n))).await.unwrap();
    let done = AtomicBool::new(false);
    let canceling = async {
        let begun = Instant::now();
        let canceled = timeout(secs(20), pool.cancel_all()).await;
        done.store(true, Ordering::SeqCst);
        (canceled.expect("it takes a time in proportion").unwrap(), begun.elapsed())
    };
    let (mut times, mut slowest) = (0, Duration::ZERO);
    let asking = async {
        while !done.load(Ordering::SeqCst) {
            let begun = Instant::now();
            action(&beside).await;
            slowest = slowest.max(begun.elapsed());
            times += 1;
        }
    };
    let ((canceled, whole), ()) = tokio::join!(canceling, asking);
    assert_eq!(canceled, WORKS);
    assert!(times >= 10 && slowest < whole / 2, "{times}, the slowest {slowest:?} of {whole:?}");
    timeout(secs(20), pool.idle()).await.expect("all of them end").unwrap();
    assert_eq!(batch.handles().last().unwrap().join().await, Err(JoinError::Canceled));
    runtime.shutdown(secs(1)).await;
}

#[test]
fn others_are_answered_while_cancel_all_goes_through_very_many_jobs() {
    run_real(async {
        meanwhile_cancel_all(async |pool| {
            assert_eq!(pool.status(id(1)).await.unwrap(), WorkStatus::Unknown);
            pool.enqueue(ECHO.call(1)).await.unwrap();
        })
        .await;
    });
}

#[test]
fn jobs_of_other_pools_run_while_cancel_all_goes_through_very_many() {
    run_real(async {
        meanwhile_cancel_all(async |pool| {
            let work = pool.enqueue(ECHO.call(1)).await.unwrap();
            assert_eq!(work.join().await, Ok(1));
        })
        .await;
    });
}

#[test]
fn every_page_of_a_cancel_all_is_synced_before_its_answer() {
    run_paused(async {
        let storage = Hooked::new(false);
        let builder = builder().storage(storage.clone()).echo();
        let (runtime, pool) = start(builder, config().paused(true)).await;
        pool.enqueue_batch((0..2_000).map(|n| ECHO.call(n))).await.unwrap();
        let (pages, later) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let seen = (pages.clone(), later.clone());
        storage.before_each_call(move |call| {
            let cancels =
                |change: &Change| matches!(change, Change::InsertPendingCancelation { .. });
            if let Call::Commit(changes, fsync) = call
                && changes.iter().any(cancels)
            {
                seen.0.fetch_add(1, Ordering::SeqCst);
                seen.1.fetch_add(usize::from(fsync == Fsync::WithNext), Ordering::SeqCst);
            }
            Ok(())
        });
        assert_eq!(pool.cancel_all().await.unwrap(), 2_000);
        assert_eq!((pages.load(Ordering::SeqCst), later.load(Ordering::SeqCst)), (2, 0));
        storage.unhook();
        runtime.shutdown(secs(1)).await;
    });
}

/// get-convex/workpool, its own state machine tests: a job that was canceled twice found its row gone the second time,
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

#[test]
fn an_abort_of_a_start_that_is_withheld_does_not_end_a_later_job_of_the_same_id() {
    run_paused(async {
        let late = Arc::new(AtomicBool::new(true));
        let delivery = Delivery { after: secs(1), again: None };
        let courier = Astray { letter: Letter::Batch, delivery, on: late.clone() };
        let retention = Retention::FOREVER.max_count(0);
        let starts = Gate::new();
        let at = starts.clone();
        let builder =
            builder().courier(courier).retention(retention).action_fn(TASK, move |n, _| {
                at.enter();
                async move {
                    tokio::time::sleep(secs(10)).await;
                    Ok(n)
                }
            });
        let (runtime, pool) = start(builder, config()).await;
        let work = pool.enqueue(TASK.call(1)).id(id(7)).await.unwrap();
        let outcome = actix::spawn({
            let work = work.clone();
            async move { work.join().await }
        });
        // The start is committed, and the loop does not know that yet.
        pass_until(async || {
            let running = pool.diagnostics().await.unwrap().running;
            running == 1 && starts.count() == 0
        })
        .await;
        pool.abort(work.id(), secs(1)).await.unwrap();
        assert_eq!(soon(outcome).await.unwrap(), Err(JoinError::Canceled));
        assert_eq!(starts.count(), 0);
        late.store(false, Ordering::SeqCst);
        // Retention deletes the outcome.
        tokio::time::sleep(secs(120)).await;
        let again = pool.enqueue(TASK.call(2)).id(id(7)).await.unwrap();
        assert!(again.is_new());
        assert_eq!(again.join().await, Ok(2));
        runtime.shutdown(secs(1)).await;
    });
}
