//! How jobs have failed is remembered, and a failed one can be enqueued once more.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::*;
use crate::support::*;
use actix_workpool::{
    Action, ActionContext, Completion, EnqueueError, FailureKind, FinishedWork, OnComplete,
    PoolConfig, Query, Reader, RetryAnswer, RetryBehavior, RetryPolicy, Runtime, RuntimeBuilder,
    Transaction, Why, WorkError, WorkId, WorkStatus, Workpool,
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

#[derive(Serialize, Deserialize)]
struct Stubborn;

impl Action for Stubborn {
    const NAME: &'static str = "stubborn";
    const RETRY: RetryPolicy = RetryPolicy::With(
        RetryBehavior::new().max_attempts(3).initial_backoff(Duration::from_millis(10)),
    );
    type Output = ();

    async fn run(self, _: ActionContext) -> Result<(), WorkError> {
        Err(WorkError::retryable("no"))
    }
}

#[derive(Serialize, Deserialize)]
struct OneShot;

impl Action for OneShot {
    const NAME: &'static str = "one.shot";
    const RETRY: RetryPolicy = RetryPolicy::Never;
    type Output = ();

    async fn run(self, _: ActionContext) -> Result<(), WorkError> {
        Err(WorkError::retryable("no"))
    }
}

#[test]
fn the_enqueues_retry_goes_before_the_functions_and_that_before_the_pools() {
    on_each_store(|| {
        run_paused(async {
            let failing = |_, _| async { Err::<u64, _>(WorkError::retryable("no")) };
            let builder =
                builder().action::<Stubborn>().action::<OneShot>().action_fn(TASK, failing);
            let (runtime, pool) = start(builder, config().default_retry(retries(4))).await;
            let plain = pool.enqueue(TASK.call(0)).await.unwrap();
            let from_function = pool.enqueue(Stubborn).await.unwrap();
            let never = pool.enqueue(OneShot).await.unwrap();
            let from_enqueue = pool.enqueue(Stubborn).retry(retries(2)).await.unwrap();
            let retried_after_all = pool.enqueue(OneShot).retry(retries(2)).await.unwrap();
            let turned_off = pool.enqueue(Stubborn).no_retry().await.unwrap();
            assert_eq!(attempts(plain.join().await), 4);
            assert_eq!(attempts(from_function.join().await), 3);
            assert_eq!(attempts(never.join().await), 1);
            assert_eq!(attempts(from_enqueue.join().await), 2);
            assert_eq!(attempts(retried_after_all.join().await), 2);
            assert_eq!(attempts(turned_off.join().await), 1);
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn nothing_is_retried_unless_somebody_says_so() {
    on_each_store(|| {
        run_paused(async {
            let builder = builder()
                .action_fn(TASK, |_, _| async { Err::<u64, _>(WorkError::retryable("no")) });
            let (runtime, pool) = start(builder, config()).await;
            assert_eq!(attempts(pool.enqueue(TASK.call(0)).await.unwrap().join().await), 1);
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn retries_wait_longer_each_time_within_the_jitter() {
    on_each_store(|| {
        run_paused(async {
            let starts = Arc::new(Mutex::new(Vec::new()));
            let seen = starts.clone();
            let builder = builder().action_fn(TASK, move |_, _| {
                seen.lock().unwrap().push(Instant::now());
                async { Err::<u64, _>(WorkError::retryable("no")) }
            });
            let (runtime, pool) = start(builder, config()).await;
            let behavior = RetryBehavior::default().initial_backoff(secs(1)).base(3.0);
            let work = pool.enqueue(TASK.call(0)).retry(behavior.max_attempts(4)).await.unwrap();
            assert_eq!(attempts(work.join().await), 4);
            let starts = starts.lock().unwrap().clone();
            for (pair, nominal) in starts.windows(2).zip([1.0, 3.0, 9.0]) {
                let waited = (pair[1] - pair[0]).as_secs_f64();
                assert!(
                    (nominal * 0.5..nominal * 1.5 + 0.01).contains(&waited),
                    "{waited} {nominal}"
                );
            }
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_failure_that_is_not_retryable_ends_the_job() {
    on_each_store(|| {
        run_paused(async {
            let builder = builder()
                .action_fn(TASK, |_, _| async { Err::<u64, _>(WorkError::non_retryable("never")) });
            let (runtime, pool) = start(builder, config().default_retry(retries(5))).await;
            let outcome = pool.enqueue(TASK.call(0)).await.unwrap().join().await;
            assert_eq!(attempts(outcome), 1);
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn any_error_becomes_a_retryable_one_that_names_its_causes() {
    on_each_store(|| {
        run_paused(async {
            let builder = builder().action_fn(TASK, |n, cx| async move {
                if cx.attempt() == 1 {
                    "x".parse::<u64>()?;
                }
                Ok(n)
            });
            let (runtime, pool) = start(builder, config()).await;
            let alone = pool.enqueue(TASK.call(1)).await.unwrap().join().await.unwrap_err();
            assert!(alone.to_string().contains("invalid digit"), "{alone}");
            let retried = pool.enqueue(TASK.call(1)).retry(retries(2)).await.unwrap();
            assert_eq!(retried.join().await, Ok(1));
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn retry_after_takes_the_place_of_the_backoff_and_counts() {
    on_each_store(|| {
        run_paused(async {
            let builder = builder().action_fn(TASK, |_, cx| async move {
                match cx.attempt() {
                    1 => Err(WorkError::retry_after(secs(77), "busy")),
                    attempt => Ok(u64::from(attempt)),
                }
            });
            let (runtime, pool) = start(builder, config().default_retry(retries(2))).await;
            let begun = Instant::now();
            assert_eq!(pool.enqueue(TASK.call(0)).await.unwrap().join().await, Ok(2));
            assert!(begun.elapsed() >= secs(77) && begun.elapsed() < secs(78));
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_snoozed_attempt_does_not_count() {
    on_each_store(|| {
        run_paused(async {
            let runs = Arc::new(AtomicU32::new(0));
            let counted = runs.clone();
            let builder = builder().action_fn(TASK, move |_, cx| {
                let run = counted.fetch_add(1, Ordering::SeqCst);
                async move {
                    match run {
                        0..3 => Err(WorkError::snooze(secs(10))),
                        _ => Ok(u64::from(cx.attempt())),
                    }
                }
            });
            let (runtime, pool) = start(builder, config()).await;
            let begun = Instant::now();
            let work = pool.enqueue(TASK.call(0)).await.unwrap();
            assert_eq!(work.join().await, Ok(1));
            assert!(begun.elapsed() >= secs(30), "{:?}", begun.elapsed());
            let WorkStatus::Finished(row) = work.status().await.unwrap() else {
                panic!("unfinished")
            };
            assert_eq!(row.attempts(), 1);
            runtime.shutdown(secs(1)).await;
        });
    });
}

/// Notes that a job is done, or fails if the context says so.
struct Note;

impl OnComplete for Note {
    const NAME: &'static str = "note";
    type Context = bool;
    type Output = u64;

    fn apply(tx: &mut Transaction<'_>, done: Completion<bool, u64>) -> Result<(), WorkError> {
        if done.context {
            return Err(WorkError::retryable("not now"));
        }
        let count = tx.get::<u64>("notes", "count")?.unwrap_or(0);
        Ok(tx.put("notes", "count", &(count + 1))?)
    }
}

/// How many were noted.
#[derive(Serialize, Deserialize)]
struct Notes;

impl Query for Notes {
    const NAME: &'static str = "notes";
    type Output = u64;

    fn read(self, reader: &mut Reader<'_>) -> Result<u64, WorkError> {
        Ok(reader.get("notes", "count")?.unwrap_or(0))
    }
}

fn functions(builder: RuntimeBuilder) -> RuntimeBuilder {
    builder.query::<Notes>().on_complete::<Note>().action_fn(
        TASK,
        |until, cx: ActionContext| async move {
            match u64::from(cx.attempt()) {
                attempt if attempt < until => {
                    Err(WorkError::retryable(format!("attempt {attempt} is too early")))
                }
                2 => panic!("no second attempt, please"),
                attempt => Ok(attempt),
            }
        },
    )
}

/// The next runtime on the same tables.
async fn start_on(tables: &Tables) -> (Runtime, Workpool) {
    start(functions(builder()).storage(tables.clone()), PoolConfig::default()).await
}

fn thrice() -> RetryBehavior {
    RetryBehavior::default().max_attempts(3).initial_backoff(Duration::from_secs(10))
}

async fn finished(pool: &Workpool, work_id: WorkId) -> FinishedWork {
    match pool.status(work_id).await.unwrap() {
        WorkStatus::Finished(row) => row,
        other => panic!("{other:?} is not finished"),
    }
}

fn unknown() -> WorkId {
    WorkId::from_uuid(uuid::Uuid::from_u128(7))
}

#[test]
fn what_has_failed_is_remembered_across_restarts_and_kept_with_the_outcome() {
    on_each_store(|| {
        run_paused(async {
            let tables = Tables::new();
            let (runtime, pool) = start_on(&tables).await;
            let work = pool.enqueue(TASK.call(2)).retry(thrice()).on_complete::<Note>(false);
            let work = work.await.unwrap().id();
            let explained = async |pool: &Workpool| pool.explain(work).await.unwrap();
            settle().await;
            let before = explained(&pool).await;
            assert!(matches!(before.why, Why::RetryBackoff { retry: 1, max_retries: 2 }));
            assert_eq!(before.on_complete.unwrap().as_str(), "note");
            assert_eq!(before.args().unwrap(), b"2");
            let [first] = before.history.attempts() else { panic!("{:?}", before.history) };
            assert_eq!((first.attempt, first.kind), (1, FailureKind::Error));
            assert_eq!(first.message, "attempt 1 is too early");
            assert!(first.started <= first.ended && first.ended <= before.at);
            runtime.shutdown(secs(0)).await;

            let (runtime, pool) = start_on(&tables).await;
            assert_eq!(explained(&pool).await.history, before.history);
            assert_eq!(pool.retry(work).await.unwrap(), RetryAnswer::NotFailed);
            let joined = soon(pool.work::<u64>(work).join()).await;
            assert_eq!(joined.unwrap(), 3);
            let row = finished(&pool, work).await;
            let kinds: Vec<_> = row.failed_attempts().iter().map(|a| (a.attempt, a.kind)).collect();
            assert_eq!(kinds, [(1, FailureKind::Error), (2, FailureKind::Panic)]);
            assert!(row.started().unwrap() >= row.failed_attempts()[1].ended);
            assert!(row.started().unwrap() <= row.finished_at());
            assert_eq!((row.follow_up(), row.can_be_retried()), (None, false));
            assert_eq!(row.on_complete().unwrap().as_str(), "note");
            assert_eq!(pool.retry(work).await.unwrap(), RetryAnswer::NotFailed);
            runtime.shutdown(secs(0)).await;

            let (runtime, pool) = start_on(&tables).await;
            assert_eq!(finished(&pool, work).await, row);
            runtime.shutdown(secs(0)).await;
        });
    });
}

#[test]
fn a_failed_job_is_enqueued_once_more_and_once_only() {
    on_each_store(|| {
        run_paused(async {
            let tables = Tables::new();
            let (runtime, pool) = start_on(&tables).await;
            let work = pool.enqueue(TASK.call(9)).retry(thrice()).on_complete::<Note>(false);
            let work = work.await.unwrap();
            let error = soon(work.join()).await.unwrap_err();
            assert_eq!(error.to_string(), "job failed in attempt 3: attempt 3 is too early");
            let failed = finished(&pool, work.id()).await;
            assert_eq!(failed.failed_attempts().len(), 3);
            runtime.shutdown(secs(0)).await;

            // Also by another process, from any pool, and however many ask.
            let (runtime, pool) = start_on(&tables).await;
            let (one, two) = tokio::join!(pool.retry(work.id()), pool.retry(work.id()));
            let again = match (one.unwrap(), two.unwrap()) {
                (RetryAnswer::Enqueued(one), RetryAnswer::AlreadyEnqueued(two))
                | (RetryAnswer::AlreadyEnqueued(one), RetryAnswer::Enqueued(two))
                    if one == two =>
                {
                    one
                }
                answers => panic!("{answers:?}"),
            };
            let row = finished(&pool, work.id()).await;
            assert_eq!(row.retried_as(), Some(again));
            assert_eq!(row.outcome(), failed.outcome(), "it keeps its outcome");
            assert_eq!(row.failed_attempts(), failed.failed_attempts());
            let error = soon(pool.work::<u64>(again).join()).await.unwrap_err();
            assert_eq!(error.to_string(), "job failed in attempt 3: attempt 3 is too early");
            let row = finished(&pool, again).await;
            assert_eq!((row.attempts(), row.failed_attempts().len()), (3, 3));
            assert_eq!(pool.retry(work.id()).await.unwrap(), RetryAnswer::AlreadyEnqueued(again));
            let RetryAnswer::Enqueued(third) = pool.retry(again).await.unwrap() else {
                panic!("it has failed again")
            };
            assert!(third != again && third != work.id());
            assert!(soon(pool.work::<u64>(third).join()).await.is_err());
            assert_eq!(runtime.query(Notes).await.unwrap(), 3, "each has its own on_complete");
            runtime.shutdown(secs(0)).await;
            assert!(matches!(pool.retry(unknown()).await, Err(EnqueueError::Closed)));
        });
    });
}

#[test]
fn what_has_not_failed_is_not_retried() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool) = start(functions(builder()), PoolConfig::default()).await;
            assert_eq!(pool.retry(unknown()).await.unwrap(), RetryAnswer::NotFound);
            let done = pool.enqueue(TASK.call(1)).await.unwrap();
            soon(done.join()).await.unwrap();
            assert_eq!(pool.retry(done.id()).await.unwrap(), RetryAnswer::NotFailed);
            let later = pool.enqueue(TASK.call(1)).run_after(secs(60)).await.unwrap();
            assert_eq!(pool.retry(later.id()).await.unwrap(), RetryAnswer::NotFailed);
            later.cancel().await.unwrap();
            assert!(soon(later.join()).await.is_err());
            assert_eq!(pool.retry(later.id()).await.unwrap(), RetryAnswer::NotFailed);
            runtime.shutdown(secs(0)).await;
        });
    });
}

#[test]
fn a_retry_is_admitted_as_any_enqueue_and_needs_its_function_and_pool() {
    on_each_store(|| {
        run_paused(async {
            let tables = Tables::new();
            let first =
                functions(builder()).storage(tables.clone()).pool("q", PoolConfig::default());
            let (runtime, pool) = start(first, PoolConfig::default().max_pending(1)).await;
            let failed = pool.enqueue(TASK.call(9)).await.unwrap();
            assert!(soon(failed.join()).await.is_err());
            let of_q = runtime.pool("q").unwrap().enqueue(TASK.call(9)).await.unwrap().id();
            assert!(soon(pool.work::<u64>(of_q).join()).await.is_err());
            let later = pool.enqueue(TASK.call(1)).run_after(secs(60)).await.unwrap();
            let refused = pool.retry(failed.id()).await;
            assert!(matches!(refused, Err(EnqueueError::Overloaded { pending: 1, max: 1 })));
            later.cancel().await.unwrap();
            assert!(soon(later.join()).await.is_err());
            let Ok(RetryAnswer::Enqueued(again)) = pool.retry(failed.id()).await else { panic!() };
            assert!(soon(pool.work::<u64>(again).join()).await.is_err());
            runtime.shutdown(secs(1)).await;

            let (runtime, pool) = start(builder().storage(tables), PoolConfig::default()).await;
            assert_eq!(pool.retry(failed.id()).await.unwrap(), RetryAnswer::AlreadyEnqueued(again));
            assert_eq!(pool.retry(again).await.unwrap(), RetryAnswer::NotRegistered);
            assert_eq!(pool.retry(of_q).await.unwrap(), RetryAnswer::PoolNotStarted);
            runtime.shutdown(secs(0)).await;
        });
    });
}

#[test]
fn an_on_complete_that_fails_is_named_by_the_job_it_belongs_to() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool) = start(functions(builder()), PoolConfig::default()).await;
            let work = pool.enqueue(TASK.call(1)).on_complete::<Note>(true).await.unwrap();
            soon(work.join()).await.unwrap();
            let row = finished(&pool, work.id()).await;
            let follow_up = row.follow_up().unwrap();
            let told = soon(async {
                loop {
                    let told = pool.explain(follow_up).await.unwrap();
                    if told.attempts > 0 {
                        return told;
                    }
                    tokio::task::yield_now().await;
                }
            });
            let told = told.await;
            assert_eq!(told.function.unwrap().as_str(), "note");
            assert_eq!(told.last_failure().unwrap().message, "not now");
            runtime.shutdown(secs(0)).await;
        });
    });
}
