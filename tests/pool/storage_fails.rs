//! Storages that fail: refused commits, lost answers, and one that is poisoned for good.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::*;
use crate::support::*;
use actix_workpool::model::Change;
use actix_workpool::storage::StorageError;
use actix_workpool::{
    CancelAnswer, EnqueueError, JoinError, Mutation, PoolError, Query, Reader, RuntimeBuilder,
    ShutdownReport, Transaction, WorkError, WorkId, WorkStatus,
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// What meets the poisoned storage first.
#[derive(Clone, Copy, Debug)]
enum First {
    Update,
    Report,
    Join,
    Shutdown,
}

async fn poisoned_for_good(may_block: bool, first: First) {
    let (storage, gate) = (Hooked::new(may_block), Gate::new());
    let at = gate.clone();
    let builder = builder().storage(storage.clone()).echo().action_fn(TASK, move |n, _| {
        let gate = at.clone();
        async move {
            gate.pass().await;
            Ok(n)
        }
    });
    let (runtime, pool) = start(builder, config()).await;
    let running = pool.enqueue(TASK.call(1)).await.unwrap();
    let waiting = pool.enqueue(ECHO.call(2)).run_after(secs(3_600)).await.unwrap();
    gate.entered(1).await;
    let (joined, mut watch) = (running.clone(), running.watch());
    let joined = actix::spawn(async move { joined.join().await });
    assert!(watch.next().await.is_some());
    // Behind this question the join is there.
    pool.diagnostics().await.unwrap();
    storage.before_each_call(|_| Err(StorageError::Poisoned("for good".into())));

    let is_poisoned = |error: &StorageError| matches!(error, StorageError::Poisoned(_));
    match first {
        First::Update => {
            let updated = soon(pool.update(config().max_parallelism(3))).await;
            let Err(PoolError::Storage(error)) = updated else { panic!("{updated:?}") };
            assert!(is_poisoned(&error), "{error:?}");
        }
        First::Report => gate.open(),
        First::Join => {
            let joined = soon(waiting.join()).await;
            let Err(JoinError::Storage(error)) = joined else { panic!("{joined:?}") };
            assert!(is_poisoned(&error), "{error:?}");
        }
        First::Shutdown => {
            soon(runtime.shutdown(secs(1))).await;
        }
    }
    if !matches!(first, First::Shutdown) {
        let outcome = soon(joined).await.unwrap();
        assert!(matches!(outcome, Err(JoinError::Storage(_))), "{outcome:?}");
        gate.open();
        for work in [&running, &waiting] {
            let outcome = soon(work.join()).await;
            assert!(matches!(outcome, Err(JoinError::Storage(_))), "{outcome:?}");
        }
        let updated = soon(pool.update(config().max_parallelism(4))).await;
        assert!(matches!(updated, Err(PoolError::Storage(_))), "{updated:?}");
        let enqueued = soon(async { pool.enqueue(ECHO.call(3)).await }).await;
        assert!(matches!(enqueued, Err(EnqueueError::Storage(_))), "{enqueued:?}");
        let canceled = soon(waiting.cancel()).await;
        assert!(matches!(canceled, Err(PoolError::Storage(_))), "{canceled:?}");
    } else {
        assert!(soon(joined).await.unwrap().is_err());
    }
    soon(async { while watch.next().await.is_some() {} }).await;
    soon(async { while waiting.watch().next().await.is_some() {} }).await;
    let (idle, _) = tokio::join!(soon(pool.idle()), soon(runtime.shutdown(secs(1))));
    assert!(idle.is_err(), "its jobs have no outcome");
}

#[test]
fn nothing_hangs_on_a_storage_that_is_poisoned_for_good() {
    for first in [First::Update, First::Report, First::Join, First::Shutdown] {
        run_paused(poisoned_for_good(false, first));
    }
    run_real(poisoned_for_good(true, First::Update));
}

#[test]
fn an_attempt_that_ended_in_time_is_not_overtaken_by_its_timeout_while_the_storage_fails() {
    for reading_fails in [false, true] {
        run_paused(async move {
            let (storage, gate) = (Hooked::new(false), Gate::new());
            let at = gate.clone();
            let builder = builder().storage(storage.clone()).action_fn(TASK, move |n, _| {
                at.enter();
                async move {
                    tokio::time::sleep(ms(900)).await;
                    Ok(n)
                }
            });
            let (runtime, pool) = start(builder, config().attempt_timeout(secs(1))).await;
            let work = pool.enqueue(TASK.call(1)).await.unwrap();
            gate.entered(1).await;
            let refused = Arc::new(AtomicUsize::new(0));
            let counted = refused.clone();
            storage.before_each_call(move |call| {
                let fails = match call {
                    Call::Read => reading_fails,
                    Call::Commit(..) => true,
                };
                if !fails {
                    return Ok(());
                }
                counted.fetch_add(1, Ordering::SeqCst);
                Err(StorageError::Unavailable("for five seconds".into()))
            });
            tokio::time::sleep(secs(5)).await;
            assert!(refused.load(Ordering::SeqCst) > 1);
            storage.unhook();
            assert_eq!(soon(work.join()).await, Ok(1));
            assert_eq!(gate.count(), 1);
            runtime.shutdown(secs(1)).await;
        });
    }
}

#[test]
fn a_pool_whose_creation_the_storage_refused_leaves_no_gap() {
    for fault in [Fault::Refused, Fault::AnswerLost] {
        run_paused(async move {
            let storage = Faulty::new();
            let builder = || builder().storage(storage.clone()).echo();
            let (runtime, pool) = start(builder(), config()).await;
            storage.fail_next(fault, configures);
            let refused = runtime.create_pool("refused", config().max_parallelism(3)).await;
            assert!(matches!(refused, Err(PoolError::Storage(_))), "{refused:?}");
            assert!(matches!(runtime.pool("refused"), Err(PoolError::Unknown { .. })));
            let other = runtime.create_pool("other", config()).await.unwrap();
            assert_eq!(soon(other.enqueue(ECHO.call(1)).await.unwrap().join()).await, Ok(1));
            let later = other.enqueue(ECHO.call(2)).run_after(secs(60)).await.unwrap();
            let again = runtime.create_pool("refused", config()).await.unwrap();
            assert_eq!(soon(again.enqueue(ECHO.call(3)).await.unwrap().join()).await, Ok(3));
            assert_eq!(soon(pool.enqueue(ECHO.call(4)).await.unwrap().join()).await, Ok(4));
            runtime.shutdown(secs(1)).await;

            let builder = builder().pool("other", config()).pool("refused", config());
            let (runtime, pool) = start(builder, config()).await;
            let other = runtime.pool("other").unwrap();
            assert_eq!(other.pending(), 1, "{fault:?}");
            assert_eq!(other.work::<u64>(later.id()).join().await, Ok(2), "{fault:?}");
            for pool in [pool, other, runtime.pool("refused").unwrap()] {
                let work = pool.enqueue(ECHO.call(5)).await.unwrap();
                assert_eq!(soon(work.join()).await, Ok(5), "{} after {fault:?}", pool.name());
            }
            runtime.shutdown(secs(1)).await;
        });
    }
}

#[derive(Serialize, Deserialize)]
struct Bump(String);

impl Mutation for Bump {
    const NAME: &'static str = "bump";
    type Output = u64;

    fn apply(self, tx: &mut Transaction<'_>) -> Result<u64, WorkError> {
        let count = tx.get::<u64>("bumps", &self.0)?.unwrap_or(0) + 1;
        tx.put("bumps", &self.0, &count)?;
        tx.pool("p")?.enqueue(ECHO.call(count)).submit()?;
        Ok(count)
    }
}

#[derive(Serialize, Deserialize)]
struct Bumps;

impl Query for Bumps {
    const NAME: &'static str = "bumps";
    type Output = HashMap<String, u64>;

    fn read(self, reader: &mut Reader<'_>) -> Result<Self::Output, WorkError> {
        let rows = reader.scan::<u64>("bumps")?.into_iter();
        Ok(rows.filter_map(|(key, count)| Some((key.as_str()?.to_owned(), count))).collect())
    }
}

fn faulty(storage: &Faulty) -> RuntimeBuilder {
    builder()
        .storage(storage.clone())
        .echo()
        .mutation::<Bump>()
        .query::<Bumps>()
        .query::<ToldOf>()
        .on_complete::<Told>()
}

/// Something that a storage error may delay, but not for longer than this.
async fn promptly<T>(future: impl Future<Output = T>) -> T {
    let wait = tokio::time::timeout(secs(3), future);
    wait.await.expect("it happens without the watchdog's help")
}

#[test]
fn an_enqueue_that_the_storage_refused_is_answered_with_its_error_and_is_not_there() {
    on_each_store(|| {
        run_paused(async {
            let storage = Faulty::new();
            let (runtime, pool) = start(faulty(&storage), config().max_pending(2)).await;
            for _ in 0..5 {
                storage.fail_next(Fault::Refused, inserts);
                let error = pool.enqueue_batch([ECHO.call(1), ECHO.call(2)]).await.unwrap_err();
                assert!(matches!(error, EnqueueError::Storage(StorageError::Unavailable(_))));
                assert_eq!(
                    error.to_string(),
                    "storage failed, will be tried again: commit refused"
                );
                assert_eq!((pool.pending(), pool.diagnostics().await.unwrap().waiting), (0, 0));
            }
            storage.fail_next(Fault::Refused, inserts);
            let unheard = pool.do_enqueue(ECHO.call(1)).unwrap();
            assert_eq!(unheard.join().await, Err(JoinError::Unknown(unheard.id())));
            assert_eq!(pool.pending(), 0);
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn an_enqueue_after_one_that_was_refused_starts_at_once() {
    on_each_store(|| {
        run_paused(async {
            let storage = Faulty::new();
            let (runtime, pool) = start(faulty(&storage), config()).await;
            works(&pool).await;
            settle().await;
            storage.fail_next(Fault::Refused, inserts);
            pool.enqueue(ECHO.call(1)).await.unwrap_err();
            let begun = Instant::now();
            assert_eq!(pool.enqueue(ECHO.call(2)).await.unwrap().join().await, Ok(2));
            assert!(begun.elapsed() < ms(100), "it took {:?}", begun.elapsed());
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_completion_that_the_storage_refused_is_kept_and_tried_again() {
    on_each_store(|| {
        for refused in [reports, completes, starts] {
            run_paused(async move {
                let storage = Faulty::new();
                let runs = Arc::new(AtomicU32::new(0));
                let counted = runs.clone();
                let builder = faulty(&storage).action_fn(TASK, move |n, _| {
                    counted.fetch_add(1, Ordering::SeqCst);
                    async move {
                        tokio::time::sleep(secs(1)).await;
                        Ok(n)
                    }
                });
                let (runtime, pool) = start(builder, config()).await;
                storage.fail_next(Fault::Refused, refused);
                let work = pool.enqueue(TASK.call(1)).on_complete::<Told>(()).await.unwrap();
                assert_eq!(promptly(work.join()).await, Ok(1));
                assert_eq!((storage.hits(), runs.load(Ordering::SeqCst)), (1, 1));
                assert_eq!(runtime.query(ToldOf(work.id())).await.unwrap(), 1);
                assert_eq!(pool.pending(), 0);
                works(&pool).await;
                runtime.shutdown(secs(1)).await;
            });
        }
    });
}

#[test]
fn a_retry_that_is_due_before_its_turn_is_committed_still_starts() {
    on_each_store(|| {
        run_paused(async {
            let storage = Faulty::new();
            let builder = faulty(&storage).action_fn(TASK, |n, cx| async move {
                if cx.attempt() == 1 { Err(WorkError::retryable("no")) } else { Ok(n) }
            });
            let (runtime, pool) = start(builder, config()).await;
            // The loop claims its pool again, which takes longer than the backoff.
            storage.fail_next(Fault::Refused, |change| matches!(change, Change::RetryWork { .. }));
            let retry = retries(2).initial_backoff(ms(1));
            let work = pool.enqueue(TASK.call(1)).retry(retry).await.unwrap();
            assert_eq!(promptly(work.join()).await, Ok(1));
            assert_eq!(storage.hits(), 1);
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn no_retry_without_a_wait_is_overtaken_by_the_clock() {
    on_each_store(|| {
        run_real(async {
            let builder = builder().worker_arbiters(2).action_fn(TASK, |n, cx| async move {
                if cx.attempt() < 20 { Err(WorkError::retryable("no")) } else { Ok(n) }
            });
            let retry = retries(20).initial_backoff(Duration::ZERO);
            let (runtime, pool) = start(builder, config().default_retry(retry)).await;
            let works = pool.enqueue_batch((0..1_000).map(|n| TASK.call(n))).await.unwrap();
            for (n, outcome) in works.join().await.into_iter().enumerate() {
                assert_eq!(outcome, Ok(n as u64));
            }
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_mutation_that_the_storage_refused_is_applied_once() {
    on_each_store(|| {
        for refused in [reports, completes, starts] {
            run_paused(async move {
                let storage = Faulty::new();
                let (runtime, pool) = start(faulty(&storage), config()).await;
                storage.fail_next(Fault::Refused, refused);
                let work = pool.enqueue(Bump("a".into())).await.unwrap();
                assert_eq!(promptly(work.join()).await, Ok(1));
                assert_eq!(storage.hits(), 1);
                assert_eq!(runtime.query(Bumps).await.unwrap()["a"], 1);
                runtime.shutdown(secs(1)).await;
            });
        }
    });
}

#[test]
fn a_commit_whose_answer_was_lost_runs_nothing_twice() {
    on_each_store(|| {
        for lost in [inserts, starts, reports, completes] {
            run_paused(async move {
                let storage = Faulty::new();
                let runs = Arc::new(AtomicU32::new(0));
                let counted = runs.clone();
                let builder = faulty(&storage).action_fn(TASK, move |n, _| {
                    counted.fetch_add(1, Ordering::SeqCst);
                    async move { Ok(n) }
                });
                let (runtime, pool) = start(builder, config()).await;
                let (task, bump) = (WorkId::from_uuid(uuid::Uuid::from_u128(1)), "a".to_owned());
                storage.fail_next(Fault::AnswerLost, lost);
                // Where the enqueue itself is told that it failed, the id tells that it did not.
                let first = pool.enqueue(TASK.call(1)).id(task).on_complete::<Told>(()).await;
                let again =
                    pool.enqueue(TASK.call(1)).id(task).on_complete::<Told>(()).await.unwrap();
                assert!(first.is_ok() || matches!(first, Err(EnqueueError::Storage(_))));
                assert_eq!(soon(again.join()).await, Ok(1));
                assert_eq!(runs.load(Ordering::SeqCst), 1);
                assert_eq!(runtime.query(ToldOf(task)).await.unwrap(), 1);

                storage.fail_next(Fault::AnswerLost, lost);
                let id = WorkId::from_uuid(uuid::Uuid::from_u128(2));
                let _ = pool.enqueue(Bump(bump.clone())).id(id).await;
                let work = pool.enqueue(Bump(bump)).id(id).await.unwrap();
                assert_eq!(soon(work.join()).await, Ok(1));
                assert_eq!(runtime.query(Bumps).await.unwrap()["a"], 1);
                assert_eq!(storage.hits(), 2);
                works(&pool).await;
                runtime.shutdown(secs(1)).await;
            });
        }
    });
}

#[test]
fn a_lost_answer_does_not_upset_the_count_of_pending_jobs() {
    on_each_store(|| {
        for lost in [inserts, starts, reports, completes] {
            run_paused(async move {
                let storage = Faulty::new();
                let (runtime, pool) = start(faulty(&storage), config()).await;
                storage.fail_next(Fault::AnswerLost, lost);
                let id = WorkId::from_uuid(uuid::Uuid::from_u128(1));
                let _ = pool.enqueue(ECHO.call(1)).id(id).await;
                tokio::time::sleep(secs(100)).await;
                let counts = pool.diagnostics().await.unwrap();
                assert_eq!((counts.waiting, counts.running, counts.completing), (0, 0, 0));
                assert_eq!((storage.hits(), pool.pending()), (1, 0));
                works(&pool).await;
                runtime.shutdown(secs(1)).await;
            });
        }
    });
}

#[test]
fn whoever_waits_for_a_completion_hears_of_it_although_its_answer_was_lost() {
    on_each_store(|| {
        run_paused(async {
            let storage = Faulty::new();
            let (runtime, pool) = start(faulty(&storage), config().paused(true)).await;
            storage.fail_next(Fault::AnswerLost, completes);
            let work = pool.enqueue(ECHO.call(1)).await.unwrap();
            let mut watch = work.watch();
            let watching = async {
                let mut last = None;
                while let Some(status) = watch.next().await {
                    last = Some(status);
                }
                last
            };
            let resuming = pool.resume();
            let (joined, last, resumed) = soon(async {
                tokio::join!(
                    tokio::time::timeout(secs(30), work.join()),
                    tokio::time::timeout(secs(30), watching),
                    resuming
                )
            })
            .await;
            resumed.unwrap();
            assert_eq!(joined, Ok(Ok(1)), "joined");
            assert!(matches!(last, Ok(Some(WorkStatus::Finished(_)))), "watched: {last:?}");
            let status = work.status().await.unwrap();
            assert!(matches!(status, WorkStatus::Finished(_)), "asked: {status:?}");
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_cancel_that_the_storage_refused_is_answered_with_its_error_and_did_nothing() {
    on_each_store(|| {
        run_paused(async {
            let storage = Faulty::new();
            let (runtime, pool) = start(faulty(&storage), config().paused(true)).await;
            let work = pool.enqueue(ECHO.call(1)).await.unwrap();
            storage.fail_next(Fault::Refused, cancels);
            assert!(matches!(work.cancel().await, Err(PoolError::Storage(_))));
            assert!(matches!(work.status().await.unwrap(), WorkStatus::Pending { .. }));
            assert_eq!(work.cancel().await.unwrap(), CancelAnswer::Requested);
            assert_eq!(promptly(work.join()).await, Err(JoinError::Canceled));
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_cancel_all_of_which_the_storage_refused_a_page_says_so_or_cancels_it_all() {
    on_each_store(|| {
        run_paused(async {
            let storage = Faulty::new();
            let (runtime, pool) = start(faulty(&storage), config().paused(true)).await;
            let works = pool.enqueue_batch((0..2_500).map(|n| ECHO.call(n))).await.unwrap();
            storage.fail_next(Fault::Refused, cancels);
            if let Ok(count) = soon(pool.cancel_all()).await {
                tokio::time::sleep(secs(10)).await;
                let statuses = works.status().await.unwrap();
                let ended = statuses.iter().filter(|status| status.is_final()).count();
                assert_eq!((count, ended), (2_500, 2_500));
            }
            assert_eq!(storage.hits(), 1);
            soon(pool.cancel_all()).await.unwrap();
            let outcomes = promptly(works.join()).await;
            assert!(outcomes.iter().all(|outcome| *outcome == Err(JoinError::Canceled)));
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn an_update_that_the_storage_refused_changes_nothing() {
    on_each_store(|| {
        run_paused(async {
            let storage = Faulty::new();
            let (runtime, pool) = start(faulty(&storage), config().max_parallelism(2)).await;
            storage.fail_next(Fault::Refused, |change| matches!(change, Change::PutGlobals { .. }));
            let refused = pool.update(config().max_parallelism(5)).await;
            assert!(matches!(refused, Err(PoolError::Storage(_))), "{refused:?}");
            tokio::time::sleep(secs(10)).await;
            assert_eq!(pool.settings().max_parallelism, 2);
            assert_eq!(pool.diagnostics().await.unwrap().spare_capacity, 2);
            works(&pool).await;
            runtime.shutdown(secs(1)).await;
            let (runtime, pool) = start(faulty(&storage), config()).await;
            assert_eq!(pool.settings().max_parallelism, 2);
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_storage_that_cannot_be_read_for_a_while_loses_nothing_and_is_not_asked_in_a_frenzy() {
    on_each_store(|| {
        run_paused(async {
            let storage = Faulty::new();
            let gate = Gate::new();
            let at = gate.clone();
            let builder = faulty(&storage).action_fn(TASK, move |n, _| {
                let gate = at.clone();
                async move {
                    gate.pass().await;
                    Ok(n)
                }
            });
            let (runtime, pool) = start(builder, config()).await;
            let running = pool.enqueue(TASK.call(1)).await.unwrap();
            let bump = pool.enqueue(Bump("a".into())).run_after(secs(1)).await.unwrap();
            gate.entered(1).await;
            storage.fail_reads(true);
            assert!(matches!(pool.cancel(bump.id()).await, Err(PoolError::Storage(_))));
            assert!(matches!(pool.status(bump.id()).await, Err(PoolError::Storage(_))));
            assert!(runtime.query(Bumps).await.is_err());
            gate.open();
            let (joined, ()) = tokio::join!(running.join(), async {
                tokio::time::sleep(secs(30)).await;
                storage.fail_reads(false);
            });
            assert_eq!(joined, Ok(1));
            assert_eq!(soon(bump.join()).await, Ok(1));
            let reads = storage.failed_reads();
            assert!(reads < 1_000, "{reads} reads in 30 s");
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_shutdown_writes_what_a_failed_commit_has_kept() {
    on_each_store(|| {
        run_paused(async {
            let storage = Faulty::new();
            let (runtime, pool) = start(faulty(&storage), config()).await;
            storage.fail_next(Fault::Refused, reports);
            let work = pool.enqueue(ECHO.call(1)).await.unwrap();
            while storage.hits() == 0 {
                tokio::task::yield_now().await;
            }
            let report = runtime.shutdown(secs(5)).await;
            assert_eq!((report.finished, report.returned, report.pending), (1, 0, 0));
            assert_eq!(work.join().await, Ok(1));
        });
    });
}

/// What one run of the mixed workload has to show for itself.
async fn mixed_workload(number: u64, fault: Fault) -> Result<bool, String> {
    let storage = Faulty::new();
    let runs: Arc<Mutex<HashMap<u64, u32>>> = Arc::default();
    let counted = runs.clone();
    let builder = faulty(&storage).action_fn(TASK, move |n, cx| {
        *counted.lock().unwrap().entry(n).or_default() += 1;
        async move {
            match n {
                // Jobs of each tens kind: at once, after a while, failing first.
                0..10 => Ok(n),
                10..20 => {
                    tokio::time::sleep(ms(n)).await;
                    Ok(n)
                }
                _ if cx.attempt() < 2 => Err(WorkError::retryable("first")),
                _ => Ok(n),
            }
        }
    });
    storage.fail_commit(number, fault);
    let pool_config = config().max_parallelism(3);
    let runtime = match builder.pool("p", pool_config).start().await {
        Ok(runtime) => runtime,
        // The start was told that it failed.
        Err(_) if storage.hits() == 1 => return Ok(true),
        Err(error) => return Err(error.to_string()),
    };
    let pool = runtime.pool("p").unwrap();
    let mut tasks = Vec::new();
    let mut bumps = Vec::new();
    for n in 0..3 {
        tasks.push((n, 1, pool.enqueue(TASK.call(n)).on_complete::<Told>(()).await));
        tasks.push((10 + n, 1, pool.enqueue(TASK.call(10 + n)).await));
        tasks.push((20 + n, 3, pool.enqueue(TASK.call(20 + n)).retry(retries(3)).await));
        bumps.push((n, pool.enqueue(Bump(n.to_string())).await));
        settle().await;
    }
    let doomed = pool.enqueue(TASK.call(5)).run_after(secs(30)).await;
    if let Ok(doomed) = &doomed {
        let canceled = match doomed.cancel().await {
            Err(_) => doomed.cancel().await,
            canceled => canceled,
        };
        canceled.map_err(|error| format!("cancel: {error}"))?;
        if doomed.join().await != Err(JoinError::Canceled) {
            return Err("the canceled job is not canceled".into());
        }
    }
    // Each acknowledged job has one outcome, within its attempts.
    for (n, max, acknowledged) in &tasks {
        let times = || runs.lock().unwrap().get(n).copied().unwrap_or(0);
        let Ok(work) = acknowledged else { continue };
        let joined = tokio::time::timeout(secs(600), work.join()).await;
        let Ok(joined) = joined else {
            return Err(format!("task {n} is never joined: {:?}", work.status().await));
        };
        if joined != Ok(*n) {
            return Err(format!("task {n}: {joined:?}"));
        }
        if times() > *max {
            return Err(format!("task {n} ran {} times", times()));
        }
        let Ok(WorkStatus::Finished(row)) = work.status().await else {
            return Err(format!("task {n} has no status"));
        };
        if row.attempts() > *max {
            return Err(format!("task {n} has {} attempts that count", row.attempts()));
        }
        let told = runtime.query(ToldOf(work.id())).await.map_err(|error| error.to_string())?;
        if told != u64::from(*n < 10) {
            return Err(format!("on_complete of task {n} ran {told} times"));
        }
    }
    for (n, acknowledged) in &bumps {
        let Ok(work) = acknowledged else { continue };
        let joined = tokio::time::timeout(secs(600), work.join()).await;
        match joined {
            Ok(Ok(1)) => {}
            other => return Err(format!("mutation {n}: {other:?}")),
        }
    }
    tokio::time::sleep(secs(60)).await;
    // Whether or not an enqueue heard that it happened: what happened, happened once.
    let bumped = runtime.query(Bumps).await.map_err(|error| error.to_string())?;
    if let Some((n, count)) = bumped.iter().find(|(_, count)| **count != 1) {
        return Err(format!("mutation {n} took effect {count} times"));
    }
    for (n, times) in runs.lock().unwrap().iter() {
        if *times > if *n < 20 { 1 } else { 3 } {
            return Err(format!("task {n} ran {times} times"));
        }
    }
    let counts = pool.diagnostics().await.map_err(|error| error.to_string())?;
    let left = counts.waiting + counts.running + counts.completing + counts.canceling;
    if left != 0 || pool.pending() != 0 {
        return Err(format!("{left} rows and {} pending jobs are left", pool.pending() as i64));
    }
    let report = runtime.shutdown(secs(1)).await;
    if report != ShutdownReport::default() {
        return Err(format!("{report:?}"));
    }
    Ok(storage.hits() == 1)
}

fn sweep(fault: Fault) {
    let mut broken = Vec::new();
    let mut hits = 0;
    for number in 1..=60 {
        run_paused(async {
            match mixed_workload(number, fault).await {
                Ok(hit) => hits += u32::from(hit),
                Err(problem) => broken.push(format!("commit {number}: {problem}")),
            }
        });
    }
    assert!(broken.is_empty(), "{} of 60:\n{}", broken.len(), broken.join("\n"));
    assert!(hits >= 30, "only {hits} of the commits were there to fail");
}

#[test]
fn whichever_commit_is_refused_every_acknowledged_job_has_one_outcome() {
    on_each_store(|| {
        sweep(Fault::Refused);
    });
}

#[test]
fn whichever_commits_answer_is_lost_every_acknowledged_job_has_one_outcome() {
    on_each_store(|| {
        sweep(Fault::AnswerLost);
    });
}

#[test]
fn a_storage_that_may_block_has_a_thread_of_its_own_and_fails_no_worse() {
    on_each_store(|| {
        run_real(async {
            let storage = Faulty::new().on_a_thread();
            let (runtime, pool) = start(faulty(&storage), config()).await;
            storage.fail_next(Fault::Refused, inserts);
            pool.enqueue(ECHO.call(1)).await.unwrap_err();
            storage.fail_next(Fault::Refused, reports);
            let works = pool.enqueue_batch((0..500).map(|n| ECHO.call(n))).await.unwrap();
            for (n, outcome) in works.join().await.into_iter().enumerate() {
                assert_eq!(outcome, Ok(n as u64));
            }
            assert_eq!(pool.enqueue(Bump("a".into())).await.unwrap().join().await, Ok(1));
            assert_eq!(storage.hits(), 2);
            runtime.shutdown(secs(1)).await;
            let error = pool.enqueue(ECHO.call(1)).await.unwrap_err();
            assert!(matches!(error, EnqueueError::Closed));
            let (runtime, _) = start(faulty(&storage), config()).await;
            runtime.shutdown(secs(1)).await;
        });
    });
}
