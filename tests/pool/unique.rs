//! Unique jobs: how long a key is held, what an enqueue does that finds it held, and that it is so across transactions,
//! restarts and failures.

use std::time::Duration;

use crate::common::*;
use crate::support::*;
use actix_workpool::model::Change;
use actix_workpool::storage::StorageError;
use actix_workpool::{
    ActionKey, Completion, ConfigError, Conflict, EnqueueError, MAX_DELAY, Mutation, OnComplete,
    RetryAnswer, Runtime, Transaction, Unique, WorkError, WorkHandle, WorkId, Workpool,
};
use serde::{Deserialize, Serialize};

fn key() -> Unique {
    Unique::key("sync:42")
}

async fn enqueue(pool: &Workpool, n: u64, unique: Unique, conflict: Conflict) -> WorkHandle<u64> {
    soon(pool.enqueue(TASK.call(n)).unique(unique).on_conflict(conflict).into_future())
        .await
        .expect("it is enqueued")
}

async fn kept(pool: &Workpool, n: u64, unique: Unique) -> WorkHandle<u64> {
    enqueue(pool, n, unique, Conflict::Keep).await
}

fn refused<T: std::fmt::Debug>(answer: Result<T, EnqueueError>) -> ConfigError {
    match answer {
        Err(EnqueueError::Config(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_key_is_held_while_its_job_waits() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool, gate) = gated(config().max_parallelism(1)).await;
            let first = kept(&pool, 1, key().while_waiting()).await;
            gate.entered(1).await;
            let second = kept(&pool, 2, key().while_waiting()).await;
            let third = kept(&pool, 3, key().while_waiting()).await;
            assert!(first.is_new() && second.is_new() && !third.is_new());
            assert_eq!(third.id(), second.id());
            assert_eq!(pool.pending(), 2);
            gate.open();
            assert_eq!((first.join().await, third.join().await), (Ok(1), Ok(2)));
            assert!(kept(&pool, 4, key().while_waiting()).await.is_new());
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_key_is_held_until_its_job_has_finished() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool, gate) = gated(config()).await;
            let first = kept(&pool, 1, key()).await;
            gate.entered(1).await;
            for conflict in [Conflict::Keep, Conflict::Replace, Conflict::Debounce(secs(9))] {
                let again = enqueue(&pool, 2, key(), conflict).await;
                assert!(!again.is_new() && again.id() == first.id());
            }
            gate.open();
            assert_eq!(first.join().await, Ok(1), "what runs is not replaced");
            let next = kept(&pool, 3, key()).await;
            assert!(next.is_new());
            assert_eq!(next.join().await, Ok(3));
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_key_is_held_for_a_period_that_outlives_its_job() {
    on_each_store(|| {
        run_paused(async {
            let builder = builder()
                .retention(actix_workpool::Retention::FOREVER.max_age(secs(60)))
                .action_fn(TASK, |n, _| async move { Ok(n) });
            let (runtime, pool) = start(builder, config()).await;
            let hourly = || key().within(secs(3_600));
            let first = kept(&pool, 1, hourly()).await;
            assert_eq!(first.join().await, Ok(1));
            tokio::time::sleep(secs(3_000)).await;
            // Enough for retention to delete the row of the first.
            let many = pool.enqueue_batch((0..1_100).map(|n| TASK.call(n))).await.unwrap();
            many.join().await;
            let again = kept(&pool, 2, hourly()).await;
            assert!(!again.is_new() && again.id() == first.id());
            tokio::time::sleep(secs(601)).await;
            let next = kept(&pool, 3, hourly()).await;
            assert!(next.is_new());
            assert_eq!(next.join().await, Ok(3));
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_key_belongs_to_its_pool() {
    run_paused(async {
        let builder = builder().pool("q", config()).action_fn(TASK, |n, _| async move { Ok(n) });
        let (runtime, pool) = start(builder, config()).await;
        let q = runtime.pool("q").unwrap();
        assert!(kept(&pool, 1, key().within(secs(9))).await.is_new());
        assert!(kept(&q, 1, key().within(secs(9))).await.is_new());
        runtime.shutdown(secs(1)).await;
    });
}

#[test]
fn what_waits_is_replaced_with_its_options_and_its_time() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool, gate) = gated(config()).await;
            gate.open();
            for hold in [key().while_waiting(), key().until_finished(), key().within(secs(600))] {
                let later = pool.enqueue(TASK.call(1)).run_after(secs(500)).unique(hold.clone());
                let first = later.await.unwrap();
                let again = enqueue(&pool, 2, hold, Conflict::Replace).await;
                assert!(!again.is_new() && again.id() == first.id());
                assert_eq!(soon(again.join()).await, Ok(2), "it is due now");
                assert_eq!(pool.pending(), 0);
                tokio::time::sleep(secs(600)).await;
            }
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_burst_is_debounced() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool, gate) = gated(config()).await;
            gate.open();
            let calm = Conflict::Debounce(ms(100));
            let mut last = None;
            for n in 0..10 {
                let work = enqueue(&pool, n, key().while_waiting(), calm).await;
                assert_eq!(work.is_new(), n == 0);
                tokio::time::sleep(ms(60)).await;
                assert_eq!(gate.count(), 0, "it is not due");
                last = Some(work);
            }
            assert_eq!(last.unwrap().join().await, Ok(9));
            assert_eq!(gate.count(), 1);
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_canceled_job_holds_no_key() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool, gate) = gated(config().paused(true)).await;
            gate.open();
            for hold in [key().while_waiting(), key().until_finished()] {
                let first = kept(&pool, 1, hold.clone()).await;
                first.cancel().await.unwrap();
                let second = kept(&pool, 2, hold).await;
                assert!(second.is_new());
                second.cancel().await.unwrap();
            }
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn enqueues_at_the_same_moment_never_both_win() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool, _gate) = gated(config()).await;
            for hold in [key().while_waiting(), key().until_finished(), key().within(secs(9))] {
                let pool = runtime
                    .create_pool(&format!("{hold:?}").len().to_string(), config().paused(true))
                    .await
                    .unwrap_or_else(|_| pool.clone());
                let one = |n| pool.enqueue(TASK.call(n)).unique(hold.clone()).into_future();
                let (a, b, c) = tokio::join!(one(1), one(2), one(3));
                let works = [a.unwrap(), b.unwrap(), c.unwrap()];
                assert_eq!(works.iter().filter(|work| work.is_new()).count(), 1);
                assert!(works.iter().all(|work| work.id() == works[0].id()));
                assert_eq!(pool.pending(), 1);
            }
            runtime.shutdown(Duration::ZERO).await;
        });
    });
}

/// Regression of oban#1416.
#[test]
fn a_conflict_blocks_nothing_else() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool, gate) = gated(config()).await;
            gate.open();
            kept(&pool, 1, key().within(secs(9))).await;
            let held = pool.enqueue(TASK.call(2)).unique(key()).into_future();
            let plain = pool.enqueue(TASK.call(3)).into_future();
            let other = pool.enqueue(TASK.call(4)).unique(Unique::key("other")).into_future();
            let (held, plain, other) = tokio::join!(held, plain, other);
            assert!(!held.unwrap().is_new());
            let (plain, other) = (plain.unwrap(), other.unwrap());
            assert!(plain.is_new() && other.is_new());
            assert_eq!((plain.join().await, other.join().await), (Ok(3), Ok(4)));
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_retry_goes_on_while_another_holds_the_key() {
    on_each_store(|| {
        run_paused(async {
            let builder = builder().action_fn(TASK, |n, cx| async move {
                match cx.attempt() {
                    1 if n == 1 => Err(WorkError::retryable("once more")),
                    _ => Ok(n),
                }
            });
            let (runtime, pool) = start(builder, config()).await;
            let first = pool.enqueue(TASK.call(1)).retry(retries(2));
            let first = first.unique(key().while_waiting()).await.unwrap();
            settle().await;
            let second = pool.enqueue(TASK.call(2)).run_after(secs(9));
            let second = second.unique(key().while_waiting()).await.unwrap();
            assert!(second.is_new(), "the first one has started");
            assert_eq!((first.join().await, second.join().await), (Ok(1), Ok(2)));
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_failed_job_is_retried_unless_another_holds_its_key() {
    on_each_store(|| {
        run_paused(async {
            let builder = builder().action_fn(TASK, |n, _| async move {
                if n == 1 { Err(WorkError::non_retryable("no")) } else { Ok(n) }
            });
            let (runtime, pool) = start(builder, config()).await;
            let failed = kept(&pool, 1, key().within(secs(500))).await;
            failed.join().await.unwrap_err();
            let again = pool.retry(failed.id()).await.unwrap();
            assert!(matches!(again, RetryAnswer::Enqueued(_)), "it is not in its own way");
            settle().await;
            let other = kept(&pool, 1, Unique::key("b")).await;
            other.join().await.unwrap_err();
            let later = pool.enqueue(TASK.call(2)).run_after(secs(9)).unique(Unique::key("b"));
            let later = later.await.unwrap();
            let answer = pool.retry(other.id()).await.unwrap();
            assert_eq!(answer, RetryAnswer::AlreadyEnqueued(later.id()));
            assert_eq!(later.join().await, Ok(2));
            assert!(matches!(pool.retry(other.id()).await.unwrap(), RetryAnswer::Enqueued(_)));
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn keys_are_held_across_a_restart() {
    on_each_store(|| {
        run_paused(async {
            let tables = Tables::new();
            let builder = || {
                let builder = Runtime::builder().worker_arbiters(0).storage(tables.clone());
                builder
                    .pool("p", config().paused(true))
                    .action_fn(TASK, |n, _| async move { Ok(n) })
            };
            let holds =
                [key().while_waiting(), Unique::key("b"), Unique::key("c").within(secs(99))];
            let mut ids = Vec::new();
            for gracefully in [false, true] {
                let runtime = start_again(builder).await;
                let pool = runtime.pool("p").unwrap();
                for (place, hold) in holds.iter().enumerate() {
                    let n = u64::from(gracefully);
                    let work = enqueue(&pool, n, hold.clone(), Conflict::Replace).await;
                    assert_eq!(work.is_new(), !gracefully);
                    ids.push(work.id());
                    assert_eq!(ids[place], work.id());
                }
                match gracefully {
                    true => drop(runtime.shutdown(secs(1)).await),
                    false => drop(runtime),
                }
            }
            let runtime = start_again(builder).await;
            let pool = runtime.pool("p").unwrap();
            pool.resume().await.unwrap();
            for work_id in &ids[..3] {
                assert_eq!(soon(pool.work::<u64>(*work_id).join()).await, Ok(1));
            }
            let [waiting, finished, period] = holds;
            assert!(
                kept(&pool, 2, waiting).await.is_new() && kept(&pool, 2, finished).await.is_new()
            );
            assert!(!kept(&pool, 2, period).await.is_new());
            runtime.shutdown(secs(1)).await;
        });
    });
}

/// Enqueues two jobs of one key, one after the other.
#[derive(Serialize, Deserialize)]
struct Twice(WorkId, WorkId);

fn submit(tx: &mut Transaction<'_>, id: WorkId, n: u64) -> Result<(), WorkError> {
    let task = tx.pool("p")?.enqueue(TASK.call(n)).id(id);
    task.unique(key()).on_conflict(Conflict::Replace).submit()?;
    Ok(())
}

impl Mutation for Twice {
    const NAME: &'static str = "twice";
    type Output = ();

    fn apply(self, tx: &mut Transaction<'_>) -> Result<(), WorkError> {
        submit(tx, self.0, 1)?;
        submit(tx, self.1, 2)
    }
}

struct Next;

impl OnComplete for Next {
    const NAME: &'static str = "next";
    type Context = WorkId;
    type Output = u64;

    fn apply(tx: &mut Transaction<'_>, done: Completion<WorkId, u64>) -> Result<(), WorkError> {
        submit(tx, done.context, 7)
    }
}

#[test]
fn transactions_enqueue_one_job_of_a_key() {
    on_each_store(|| {
        run_paused(async {
            let builder = builder().mutation::<Twice>().on_complete::<Next>();
            let builder = builder.action_fn(TASK, |n, _| async move { Ok(n) });
            let (runtime, pool) = start(builder.pool("q", config()), config().paused(true)).await;
            let q = runtime.pool("q").unwrap();
            // In two transactions, perhaps of one group.
            let (one, two) = tokio::join!(
                q.enqueue(Twice(id(1), id(2))).into_future(),
                q.enqueue(Twice(id(3), id(4))).into_future(),
            );
            one.unwrap().join().await.unwrap();
            two.unwrap().join().await.unwrap();
            assert_eq!(pool.pending(), 1);
            pool.resume().await.unwrap();
            assert_eq!(soon(pool.work::<u64>(id(1)).join()).await, Ok(2));
            // A job that has finished lets its own `on_complete` have the key.
            let own = pool.enqueue(TASK.call(6)).unique(key()).on_complete::<Next>(id(9));
            let own = own.await.unwrap();
            assert_eq!(own.join().await, Ok(6));
            assert_eq!(soon(pool.work::<u64>(id(9)).join()).await, Ok(7));
            runtime.shutdown(secs(1)).await;
        });
    });
}

/// At whatever moment a job is replaced that is about to start, the content that it starts with is the new one, or a new
/// job has it; and one that is postponed does not start before its time.
#[test]
fn a_job_is_replaced_while_its_start_is_under_way() {
    on_each_store(|| {
        for phase in PHASES {
            run_in_turn(async move {
                let (builder, log) = telling();
                let (runtime, pool) = start(builder, config()).await;
                let first = pool.enqueue(TASK.call(1)).unique(key().while_waiting());
                let first = actix::spawn(first.into_future());
                steps(phase).await;
                let calm = match phase % 2 {
                    0 => Conflict::Replace,
                    _ => Conflict::Debounce(secs(5)),
                };
                let second = enqueue(&pool, 2, key().while_waiting(), calm).await;
                let first = first.await.unwrap().unwrap();
                if !second.is_new() && first.is_new() && phase % 2 == 1 {
                    tokio::time::sleep(secs(4)).await;
                    assert!(log.lines().is_empty(), "phase {phase}: {:?}", log.lines());
                }
                assert_eq!(second.join().await, Ok(2));
                pool.idle().await.unwrap();
                let expected = if first.id() == second.id() { 1 } else { 2 };
                assert_eq!(log.lines().len(), expected, "phase {phase}: {:?}", log.lines());
                assert_eq!(pool.diagnostics().await.unwrap().running, 0);
                runtime.shutdown(secs(1)).await;
            });
        }
    });
}

/// Regression: the turn that put the job aside, because its function was not registered, moved the cursor past it.
#[test]
fn a_job_is_replaced_while_it_is_put_aside() {
    on_each_store(|| {
        for phase in PHASES {
            run_in_turn(async move {
                let tables = Tables::new();
                let builder = |name: &'static str| {
                    let builder = Runtime::builder().worker_arbiters(0).storage(tables.clone());
                    let builder = builder.pool("p", config().paused(name == "old"));
                    builder.action_fn(ActionKey::<u64, u64>::new(name), |n, _| async move { Ok(n) })
                };
                let old = start_again(|| builder("old")).await;
                let key = || Unique::key("k").while_waiting();
                let call = ActionKey::<u64, u64>::new("old").call(1);
                let first = old.pool("p").unwrap().enqueue(call).unique(key()).await.unwrap();
                old.shutdown(secs(1)).await;
                let runtime = start_again(|| builder("new")).await;
                let pool = runtime.pool("p").unwrap();
                steps(phase).await;
                let call = ActionKey::<u64, u64>::new("new").call(2);
                let replaced = pool.enqueue(call).unique(key()).on_conflict(Conflict::Replace);
                let replaced = soon(replaced.into_future()).await.unwrap();
                assert!(!replaced.is_new() && replaced.id() == first.id(), "phase {phase}");
                assert_eq!(soon(replaced.join()).await, Ok(2), "phase {phase}");
                runtime.shutdown(secs(1)).await;
            });
        }
    });
}

#[test]
fn a_replacement_whose_answer_is_lost_is_found() {
    for fault in [Fault::Refused, Fault::AnswerLost] {
        run_paused(async move {
            let storage = Faulty::new();
            let builder = Runtime::builder().worker_arbiters(0).storage(storage.clone());
            let builder = builder.action_fn(TASK, |n, _| async move { Ok(n) });
            let (runtime, pool) = start(builder, config().paused(true)).await;
            let first = kept(&pool, 1, key()).await;
            storage.fail_next(fault, |change| matches!(change, Change::ReplaceWork { .. }));
            let again = pool.enqueue(TASK.call(2)).unique(key()).on_conflict(Conflict::Replace);
            let expected = match again.await {
                Ok(work) => {
                    assert_eq!((fault, work.id()), (Fault::AnswerLost, first.id()));
                    2
                }
                Err(EnqueueError::Storage(StorageError::Unavailable(_))) => {
                    assert_eq!(fault, Fault::Refused);
                    1
                }
                other => panic!("{other:?}"),
            };
            pool.resume().await.unwrap();
            assert_eq!(soon(first.join()).await, Ok(expected));
            runtime.shutdown(secs(1)).await;
        });
    }
}

/// Regression: of a job that was replaced elsewhere and then in its new place, the first content was looked for.
#[test]
fn two_replacements_of_one_commit_whose_answer_is_lost_are_found() {
    for fault in [Fault::Refused, Fault::AnswerLost] {
        run_paused(async move {
            let storage = Faulty::new();
            let builder = Runtime::builder().worker_arbiters(0).storage(storage.clone());
            let builder = builder.action_fn(TASK, |n, _| async move { Ok(n) });
            let (runtime, pool) = start(builder, config().paused(true)).await;
            let later = pool.enqueue(TASK.call(1)).unique(key()).run_after(secs(3_600));
            let first = later.await.unwrap();
            storage.fail_next(fault, |change| matches!(change, Change::ReplaceWork { .. }));
            let again = |n| {
                let again = pool.enqueue(TASK.call(n)).unique(key());
                again.on_conflict(Conflict::Replace).into_future()
            };
            let (second, third) = tokio::join!(again(2), again(3));
            let is_lost = fault == Fault::AnswerLost;
            for answer in [second, third] {
                assert_eq!(answer.is_ok(), is_lost, "{fault:?}: {answer:?}");
            }
            let expected = if is_lost { 3 } else { 1 };
            pool.resume().await.unwrap();
            let outcome = tokio::time::timeout(secs(3_700), first.join()).await;
            assert_eq!(outcome.unwrap(), Ok(expected));
            runtime.shutdown(secs(1)).await;
        });
    }
}

#[test]
fn bad_input_is_refused_and_says_what_is_allowed() {
    run_paused(async {
        let (runtime, pool, _gate) = gated(config().paused(true)).await;
        let with = |unique: Unique| pool.enqueue(TASK.call(1)).unique(unique).into_future();
        assert_eq!(
            refused(with(Unique::key("")).await),
            ConfigError::UniqueKey { len: 0, max: 256 }
        );
        let error = refused(with(Unique::key([1; 257])).await);
        assert_eq!(error.to_string(), "a unique key has 257 bytes, it must have 1 to 256");
        assert!(with(Unique::key([1; 256])).await.is_ok());
        for period in [Duration::ZERO, MAX_DELAY + ms(1)] {
            let expected = ConfigError::UniquePeriod { given: period, max: MAX_DELAY };
            assert_eq!(refused(with(key().within(period)).await), expected);
            let debounce = pool.enqueue(TASK.call(1)).unique(key());
            assert_eq!(refused(debounce.on_conflict(Conflict::Debounce(period)).await), expected);
        }
        let without = pool.enqueue(TASK.call(1)).on_conflict(Conflict::Replace);
        assert_eq!(refused(without.await), ConfigError::ConflictWithoutKey);
        assert_eq!(pool.pending(), 1);
        assert_eq!(format!("{:?}", Unique::key("secret")).matches("secret").count(), 0);
        runtime.shutdown(Duration::ZERO).await;
    });
}
