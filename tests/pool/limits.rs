//! Where the limits are, and what one is told who goes beyond them.

use std::future::{Future, IntoFuture};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use crate::common::*;
use crate::support::*;
use actix_workpool::model::Change;
use actix_workpool::storage::{Memory, Storage, StorageError};
use actix_workpool::{
    Action, ActionContext, ActionKey, BlockingAction, Completion, ConfigError, EnqueueError,
    FailureKind, JoinError, MAX_DELAY, MAX_PARALLELISM, MAX_PAYLOAD_BYTES, Mutation, OnComplete,
    PoolConfig, PoolError, Query, QueryError, Reader, Retention, RetryBehavior, RetryPolicy,
    Runtime, RuntimeBuilder, StartError, Transaction, WorkError, WorkId, WorkStatus, Workpool,
};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout};

#[test]
fn idle_returns_when_what_was_counted_is_not_enqueued_after_all() {
    run_paused(async {
        let storage = Faulty::new();
        let (runtime, pool) = start(builder().storage(storage.clone()).echo(), config()).await;
        assert_eq!(pool.enqueue(ECHO.call(1)).id(id(1)).await.unwrap().join().await, Ok(1));
        soon(pool.idle()).await.unwrap();
        let counted = async { assert_eq!(pool.pending(), 1) };
        let duplicate = async { pool.enqueue(ECHO.call(1)).id(id(1)).await };
        let (duplicate, (), idle) = tokio::join!(biased; duplicate, counted, soon(pool.idle()));
        assert!(duplicate.is_ok());
        idle.unwrap();

        storage.fail_next(Fault::Refused, |change| matches!(change, Change::InsertWork { .. }));
        let counted = async { assert_eq!(pool.pending(), 1) };
        let refused = async { pool.enqueue(ECHO.call(2)).await };
        let (refused, (), idle) = tokio::join!(biased; refused, counted, soon(pool.idle()));
        assert!(matches!(refused, Err(EnqueueError::Storage(_))), "{refused:?}");
        idle.unwrap();
        runtime.shutdown(secs(1)).await;
    });
}

#[test]
fn idle_returns_when_what_was_counted_is_refused_as_too_much() {
    run_real(async {
        let builder = Runtime::builder().worker_arbiters(1).echo();
        let (runtime, pool) = start(builder, config().max_pending(1)).await;
        let (flooding, done) = (pool.clone(), Arc::new(AtomicBool::new(false)));
        let ended = done.clone();
        let flood = std::thread::spawn(move || {
            while !ended.load(Ordering::SeqCst) {
                // Made ahead, so that the counting comes in quick succession.
                let batches: Vec<_> = (0..500)
                    .map(|_| flooding.enqueue_batch([ECHO.call(1), ECHO.call(2)]).into_future())
                    .collect();
                for mut batch in batches {
                    let answer = batch.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                    let Poll::Ready(Err(error)) = answer else { panic!("it was not refused") };
                    assert!(matches!(error, EnqueueError::Overloaded { .. }), "{error:?}");
                }
            }
        });
        // Now and then the question falls between a count and its refusal.
        let mut outcome = Ok(());
        for round in 0..1_000 {
            let mut asked: Vec<_> = (0..500).map(|_| Box::pin(pool.idle())).collect();
            asked.retain_mut(|idle| {
                idle.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending()
            });
            let answered = async {
                for idle in asked {
                    idle.await.unwrap();
                }
            };
            if timeout(secs(5), answered).await.is_err() {
                outcome = Err(format!("it hangs in round {round}"));
                break;
            }
        }
        done.store(true, Ordering::SeqCst);
        flood.join().unwrap();
        outcome.unwrap();
        assert_eq!(pool.pending(), 0);
        runtime.shutdown(secs(1)).await;
    });
}

#[test]
fn finished_jobs_grow_old_although_nothing_completes_and_their_ids_can_be_used_again() {
    run_paused(async {
        let (mut tables, gate) = (Memory::new(), Gate::new());
        let at = gate.clone();
        let retention = Retention::FOREVER.max_age(secs(60));
        let builder = builder().storage(tables.clone()).retention(retention).echo();
        let builder = builder.action_fn(TASK, move |n, cx| {
            let gate = at.clone();
            async move {
                cx.progress(n, Some(10));
                gate.pass().await;
                Ok(n)
            }
        });
        let (runtime, pool) = start(builder, config()).await;
        assert_eq!(pool.enqueue(ECHO.call(1)).id(id(1)).await.unwrap().join().await, Ok(1));
        assert!(tables.finished(&[id(1)]).unwrap()[0].is_some());
        tokio::time::sleep(secs(200)).await;
        assert!(tables.finished(&[id(1)]).unwrap()[0].is_none(), "it is older than a minute");

        let again = pool.enqueue(TASK.call(2)).id(id(1)).await.unwrap();
        gate.entered(1).await;
        let WorkStatus::Running { progress: Some(progress), .. } = again.status().await.unwrap()
        else {
            panic!("{:?}", again.status().await)
        };
        assert_eq!((progress.done, progress.total), (2, Some(10)));
        let running = pool.running().await.unwrap();
        assert_eq!(running[0].progress, Some(progress));
        gate.open();
        assert_eq!(soon(again.join()).await, Ok(2));
        runtime.shutdown(secs(1)).await;
    });
}

/// Three bytes a sign, so that a cut may fall within one.
const SIGN: &str = "€";

const SIGNS: usize = 400_000;

#[derive(Serialize, Deserialize)]
struct Wordy;

impl Mutation for Wordy {
    const NAME: &'static str = "wordy";
    type Output = ();

    fn apply(self, _: &mut Transaction<'_>) -> Result<(), WorkError> {
        Err(WorkError::non_retryable(SIGN.repeat(SIGNS)))
    }
}

#[derive(Serialize, Deserialize)]
struct WordyBlocking;

impl BlockingAction for WordyBlocking {
    const NAME: &'static str = "wordy.blocking";
    type Output = ();

    fn run(self, _: &ActionContext) -> Result<(), WorkError> {
        Err(WorkError::retryable(SIGN.repeat(SIGNS)))
    }
}

#[test]
fn a_huge_error_message_is_cut() {
    run_real(async {
        let builder = builder().mutation::<Wordy>().blocking_action::<WordyBlocking>();
        let builder = builder.action_fn(TASK, |n, _| async move {
            match n {
                0 => Err(WorkError::retryable(SIGN.repeat(SIGNS))),
                1 => Err(WorkError::non_retryable(SIGN.repeat(SIGNS))),
                _ => panic!("{}", SIGN.repeat(SIGNS)),
            }
        });
        let (runtime, pool) = start(builder, config()).await;
        let mut failures = Vec::new();
        for n in 0..3 {
            failures.push(failure(pool.enqueue(TASK.call(n)).await.unwrap().join().await).1);
        }
        failures.push(failure(pool.enqueue(Wordy).await.unwrap().join().await).1);
        failures.push(failure(pool.enqueue(WordyBlocking).await.unwrap().join().await).1);
        for failure in failures {
            let bytes = failure.message.len();
            assert!((16_000..=16 * 1024 + 16).contains(&bytes), "{bytes} of {:?}", failure.kind);
            assert!(failure.message.starts_with(SIGN));
        }
        runtime.shutdown(secs(1)).await;
    });
}

const TEXT: ActionKey<String, usize> = ActionKey::new("text");

const FILL: ActionKey<usize, String> = ActionKey::new("fill");

fn functions(builder: RuntimeBuilder) -> RuntimeBuilder {
    builder
        .echo()
        .action_fn(TEXT, |text: String, _| async move { Ok(text.len()) })
        .action_fn(FILL, |len, _| async move { Ok("x".repeat(len)) })
        .on_complete::<Ignore>()
}

async fn pool(config: PoolConfig) -> (Runtime, Workpool) {
    start(functions(builder()), config).await
}

struct Ignore;

impl OnComplete for Ignore {
    const NAME: &'static str = "ignore";
    type Context = String;
    type Output = usize;

    fn apply(_: &mut Transaction<'_>, _: Completion<String, usize>) -> Result<(), WorkError> {
        Ok(())
    }
}

// Enqueue

#[test]
fn arguments_and_context_together_may_have_a_mebibyte() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool) = pool(config()).await;
            let max = 1 << 20;
            // Two quotes around each.
            let fits = pool.enqueue(TEXT.call("x".repeat(max - 2))).await.unwrap();
            assert_eq!(fits.join().await, Ok(max - 2));
            let error = pool.enqueue(TEXT.call("x".repeat(max - 1))).await.unwrap_err();
            assert!(
                matches!(error, EnqueueError::TooLarge { size, max: m } if size == max + 1 && m == max)
            );
            assert_eq!(
                error.to_string(),
                "arguments and context have 1048577 bytes, at most 1048576 are taken"
            );
            let half = "x".repeat(max / 2);
            let with_context =
                pool.enqueue(TEXT.call(half.clone())).on_complete::<Ignore>(half.clone());
            let error = with_context.await.unwrap_err();
            assert!(
                matches!(error, EnqueueError::TooLarge { size, .. } if size == max + 4),
                "{error:?}"
            );
            let half = "x".repeat(max / 2 - 2);
            let fits = pool.enqueue(TEXT.call(half.clone())).on_complete::<Ignore>(half);
            fits.await.unwrap().join().await.unwrap();
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_result_that_is_larger_than_a_payload_may_be_fails_its_job_for_good() {
    on_each_store(|| {
        run_paused(async {
            let config = config().max_payload_bytes(100).default_retry(RetryBehavior::default());
            let (runtime, pool) = pool(config).await;
            let fits = pool.enqueue(FILL.call(98)).await.unwrap().join().await;
            assert_eq!(fits.map(|text| text.len()), Ok(98));
            let outcome = pool.enqueue(FILL.call(99)).await.unwrap().join().await;
            let Err(JoinError::Failed { failure, attempts: 1 }) = outcome else {
                panic!("{outcome:?}")
            };
            assert_eq!(failure.kind, FailureKind::Encode);
            assert_eq!(failure.message, "result has 101 bytes, at most 100 are kept");
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_full_pool_is_overloaded_until_something_completes() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool) = pool(config().max_pending(3).paused(true)).await;
            let first = pool.enqueue(ECHO.call(0)).await.unwrap();
            pool.enqueue_batch([ECHO.call(1), ECHO.call(2)]).await.unwrap();
            let error = pool.enqueue(ECHO.call(3)).await.unwrap_err();
            assert!(matches!(error, EnqueueError::Overloaded { pending: 3, max: 3 }), "{error:?}");
            assert_eq!(
                error.to_string(),
                "pool has 3 jobs pending, at most 3 are taken; try again later"
            );
            assert!(matches!(
                pool.do_enqueue(ECHO.call(3)),
                Err(EnqueueError::Overloaded { pending: 3, max: 3 })
            ));
            assert_eq!(pool.pending(), 3, "what was refused is not counted");
            first.cancel().await.unwrap();
            first.join().await.unwrap_err();
            pool.enqueue(ECHO.call(3)).await.unwrap();
            pool.update(config().max_pending(4)).await.unwrap();
            pool.enqueue(ECHO.call(4)).await.unwrap();
            pool.enqueue(ECHO.call(5)).await.unwrap_err();
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn there_is_room_again_as_soon_as_a_join_has_returned() {
    on_each_store(|| {
        run_real(async {
            let builder = functions(Runtime::builder().worker_arbiters(1));
            let (runtime, pool) = start(builder, config().max_pending(1)).await;
            for n in 0..2_000 {
                assert_eq!(pool.enqueue(ECHO.call(n)).await.unwrap().join().await, Ok(n));
                assert_eq!(pool.pending(), 0, "after {n}");
            }
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn an_id_that_is_known_takes_no_room() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool) = pool(config().max_pending(2).paused(true)).await;
            let id = WorkId::from_uuid(uuid::Uuid::from_u128(1));
            for _ in 0..10 {
                pool.enqueue(ECHO.call(1)).id(id).await.unwrap();
            }
            assert_eq!(pool.pending(), 1);
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[derive(Serialize, Deserialize)]
struct Flood(u64);

impl Mutation for Flood {
    const NAME: &'static str = "flood";
    type Output = ();

    fn apply(self, tx: &mut Transaction<'_>) -> Result<(), WorkError> {
        for n in 0..self.0 {
            tx.pool("target")?.enqueue(ECHO.call(n)).submit()?;
        }
        Ok(())
    }
}

#[test]
fn a_transaction_cannot_fill_a_pool_beyond_its_limit() {
    on_each_store(|| {
        run_paused(async {
            let builder = functions(builder())
                .mutation::<Flood>()
                .pool("target", config().max_pending(10).paused(true));
            let (runtime, pool) = start(builder, config()).await;
            let target = runtime.pool("target").unwrap();
            pool.enqueue(Flood(10)).await.unwrap().join().await.unwrap();
            assert_eq!(target.pending(), 10);
            let error = pool.enqueue(Flood(1)).await.unwrap().join().await.unwrap_err();
            assert!(error.to_string().contains("at most 10 are taken"), "{error}");
            target.cancel_all().await.unwrap();
            settle().await;
            assert_eq!(target.pending(), 0);
            let error =
                pool.enqueue(Flood(11)).await.unwrap().join().await.map_err(|e| e.to_string());
            assert!(error.is_err_and(|error| error.contains("at most 10 are taken")));
            assert_eq!(target.pending(), 0);
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn nothing_is_scheduled_beyond_four_years() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool) = pool(config()).await;
            assert_eq!(MAX_DELAY, secs(4 * 366 * 24 * 60 * 60));
            let error = pool.enqueue(ECHO.call(1)).run_after(MAX_DELAY + ms(1)).await.unwrap_err();
            assert!(matches!(error, EnqueueError::TooFarAhead { max: MAX_DELAY, .. }), "{error:?}");
            assert_eq!(
                error.to_string(),
                "delay of 126489600 s is too long, at most 126489600 s are taken"
            );
            let five_years = SystemTime::now() + secs(5 * 366 * 24 * 60 * 60);
            let error = pool.enqueue(ECHO.call(1)).run_at(five_years).await.unwrap_err();
            assert!(matches!(error, EnqueueError::TooFarAhead { .. }), "{error:?}");
            let error = pool.enqueue(ECHO.call(1)).run_after(Duration::MAX).await.unwrap_err();
            assert!(matches!(error, EnqueueError::TooFarAhead { .. }), "{error:?}");
            let last = pool.enqueue(ECHO.call(1)).run_after(MAX_DELAY).await.unwrap();
            assert!(matches!(last.status().await.unwrap(), WorkStatus::Pending { .. }));
            assert_eq!(pool.pending(), 1);
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_retry_policy_that_makes_no_sense_is_refused_wherever_it_is_given() {
    on_each_store(|| {
        let good = RetryBehavior::default();
        let bad = [
            (
                good.max_attempts(0),
                "max_attempts is 0, it must be at least 1: the first attempt counts",
            ),
            (good.base(f64::NAN), "base is NaN, it must be a finite number of at least 1"),
            (good.base(-2.0), "base is -2, it must be a finite number of at least 1"),
            (good.base(0.0), "base is 0, it must be a finite number of at least 1"),
            (good.base(0.5), "base is 0.5, it must be a finite number of at least 1"),
            (good.base(f64::INFINITY), "base is inf, it must be a finite number of at least 1"),
        ];
        run_paused(async move {
            let (runtime, pool) = pool(config()).await;
            for (behavior, message) in bad {
                let error = pool.enqueue(ECHO.call(1)).retry(behavior).await.unwrap_err();
                assert!(matches!(error, EnqueueError::Config(_)), "{error:?}");
                assert_eq!(error.to_string(), message);
                let error = pool.update(config().default_retry(behavior)).await.unwrap_err();
                assert_eq!(error.to_string(), message);
                let error = runtime.create_pool("new", config().default_retry(behavior)).await;
                assert_eq!(error.unwrap_err().to_string(), message);
                let error = builder().pool("x", config().default_retry(behavior)).start().await;
                assert_eq!(error.unwrap_err().to_string(), format!("pool x: {message}"));
            }
            assert!(runtime.pool("new").is_err());
            assert_eq!(pool.pending(), 0);
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_function_whose_own_defaults_make_no_sense_is_refused_at_start() {
    on_each_store(|| {
        #[derive(Serialize, Deserialize)]
        struct Never;
        impl Action for Never {
            const NAME: &'static str = "never";
            const RETRY: RetryPolicy = RetryPolicy::With(RetryBehavior::new().max_attempts(0));
            type Output = ();
            async fn run(self, _: ActionContext) -> Result<(), WorkError> {
                Ok(())
            }
        }
        run_paused(async {
            let error = builder().action::<Never>().start().await.unwrap_err();
            assert!(matches!(error, StartError::Function { error: ConfigError::NoAttempts, .. }));
            assert!(error.to_string().starts_with("function never: max_attempts is 0"), "{error}");
        });
    });
}

#[test]
fn a_timeout_of_zero_is_refused_wherever_it_is_given() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool) = pool(config()).await;
            let message =
                "attempt_timeout is zero, no attempt could finish; leave it unset for no timeout";
            let error = pool.enqueue(ECHO.call(1)).timeout(Duration::ZERO).await.unwrap_err();
            assert!(matches!(error, EnqueueError::Config(ConfigError::NoTimeToRun)));
            assert_eq!(error.to_string(), message);
            let error = pool.update(config().attempt_timeout(Duration::ZERO)).await.unwrap_err();
            assert_eq!(error.to_string(), message);
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_function_that_is_not_registered_is_refused_at_enqueue() {
    on_each_store(|| {
        run_paused(async {
            const MISSING: ActionKey<u64, u64> = ActionKey::new("missing");
            let (runtime, pool) = pool(config()).await;
            for error in [
                pool.enqueue(MISSING.call(1)).await.unwrap_err(),
                pool.enqueue_batch([MISSING.call(1)]).await.unwrap_err(),
                pool.do_enqueue(MISSING.call(1)).unwrap_err(),
            ] {
                assert!(matches!(error, EnqueueError::UnknownFunction { .. }), "{error:?}");
                assert_eq!(
                    error.to_string(),
                    "function missing is not registered: add `.action_fn(..)` to `Runtime::builder()`"
                );
            }
            runtime.shutdown(secs(1)).await;
        });
    });
}

// Pools and functions

#[test]
fn more_than_the_cap_cannot_run_at_once() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool) = pool(config().max_parallelism(MAX_PARALLELISM)).await;
            let error =
                pool.update(config().max_parallelism(MAX_PARALLELISM + 1)).await.unwrap_err();
            assert!(matches!(error, PoolError::Config(ConfigError::MaxParallelism { .. })));
            assert_eq!(
                error.to_string(),
                "max_parallelism is 65537, at most 65536 attempts can run at once in a pool"
            );
            let error = builder().pool("x", config().max_parallelism(usize::MAX)).start().await;
            assert!(error.unwrap_err().to_string().starts_with("pool x: max_parallelism is "));
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn no_payload_may_have_more_than_a_gibibyte() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool) = pool(config()).await;
            let update = pool.update(config().max_payload_bytes(MAX_PAYLOAD_BYTES + 1)).await;
            let error = update.unwrap_err();
            assert!(matches!(error, PoolError::Config(ConfigError::MaxPayloadBytes { .. })));
            assert!(error.to_string().contains("1073741825"), "{error}");
            pool.update(config().max_payload_bytes(MAX_PAYLOAD_BYTES)).await.unwrap();
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_pool_that_takes_nothing_is_refused() {
    on_each_store(|| {
        run_paused(async {
            let error = builder().pool("x", config().max_pending(0)).start().await.unwrap_err();
            assert!(matches!(
                error,
                StartError::Config { error: ConfigError::NothingMayBePending, .. }
            ));
        });
    });
}

#[test]
fn a_name_is_registered_once_whatever_it_is_for() {
    on_each_store(|| {
        run_paused(async {
            const IGNORE: ActionKey<u64, u64> = ActionKey::new("ignore");
            for builder in [
                functions(builder()).echo(),
                functions(builder()).on_complete::<Ignore>(),
                functions(builder()).action_fn(IGNORE, |n, _| async move { Ok(n) }),
            ] {
                let error = builder.start().await.unwrap_err();
                assert!(matches!(error, StartError::DuplicateFunction(_)), "{error:?}");
                assert!(error.to_string().ends_with("is registered twice"), "{error}");
            }
            let twice = builder().pool("x", config()).pool("y", config()).pool("x", config());
            let error = twice.start().await.unwrap_err();
            assert!(matches!(error, StartError::DuplicatePool(_)), "{error:?}");
            assert_eq!(error.to_string(), "pool x is configured twice");
        });
    });
}

#[test]
fn a_name_has_1_to_200_bytes() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, _) = pool(config()).await;
            let long = "n".repeat(201);
            for name in ["", long.as_str()] {
                let error = builder().pool(name, config()).start().await.unwrap_err();
                let refused = matches!(
                    error,
                    StartError::Config { error: ConfigError::NameLength { .. }, .. }
                );
                assert!(refused, "{error:?}");
                let error = runtime.create_pool(name, config()).await.unwrap_err();
                assert_eq!(
                    error.to_string(),
                    format!("name {name:?} has {} bytes, it must have 1 to 200", name.len())
                );
                assert!(matches!(runtime.pool(name), Err(PoolError::Unknown { .. })));
            }
            runtime.create_pool(&"n".repeat(200), config()).await.unwrap();

            const EMPTY: ActionKey<u64, u64> = ActionKey::new("");
            let error = builder().action_fn(EMPTY, |n, _| async move { Ok(n) }).start().await;
            let error = error.unwrap_err();
            assert!(matches!(
                error,
                StartError::Function { error: ConfigError::NameLength { .. }, .. }
            ));
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_pool_that_does_not_exist_is_named() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, _) = pool(config()).await;
            runtime.create_pool("a", config()).await.unwrap();
            let error = runtime.pool("nowhere").unwrap_err();
            let message = "pool \"nowhere\" does not exist; existing pools: a, p";
            assert_eq!(error.to_string(), message);
            runtime.shutdown(secs(1)).await;
            let runtime = builder().start().await.unwrap();
            let error = runtime.pool("nowhere").unwrap_err().to_string();
            assert!(error.ends_with("add `.pool(..)` to `Runtime::builder()`"), "{error}");
            runtime.shutdown(secs(1)).await;
        });
    });
}

// Start and shutdown

#[derive(Serialize, Deserialize)]
struct Nothing;

impl Query for Nothing {
    const NAME: &'static str = "nothing";
    type Output = ();

    fn read(self, _: &mut Reader<'_>) -> Result<(), WorkError> {
        Ok(())
    }
}

#[test]
fn after_a_shutdown_every_call_says_so() {
    on_each_store(|| {
        run_paused(async {
            let builder = functions(builder()).query::<Nothing>();
            let (runtime, pool) = start(builder, config()).await;
            let waiting = pool.enqueue(ECHO.call(1)).run_after(secs(60)).await.unwrap();
            runtime.shutdown(secs(1)).await;

            let id = waiting.id();
            for error in [
                pool.enqueue(ECHO.call(1)).await.unwrap_err(),
                pool.enqueue_batch([ECHO.call(1)]).await.unwrap_err(),
                pool.do_enqueue(ECHO.call(1)).unwrap_err(),
            ] {
                assert!(matches!(error, EnqueueError::Closed), "{error:?}");
                assert_eq!(error.to_string(), "runtime is shut down");
            }
            let answers = [
                soon(pool.status(id)).await.map(drop),
                soon(pool.status_batch(&[id])).await.map(drop),
                soon(pool.cancel(id)).await.map(drop),
                soon(pool.cancel_batch(vec![id])).await.map(drop),
                soon(pool.cancel_all()).await.map(drop),
                soon(pool.abort(id, secs(1))).await.map(drop),
                soon(pool.update(config())).await,
                soon(pool.pause()).await,
                soon(pool.resume()).await,
                soon(pool.diagnostics()).await.map(drop),
                soon(pool.running()).await.map(drop),
                soon(waiting.status()).await.map(drop),
                soon(waiting.cancel()).await.map(drop),
                soon(runtime.create_pool("new", config())).await.map(drop),
            ];
            for (call, answer) in answers.into_iter().enumerate() {
                assert!(matches!(answer, Err(PoolError::Closed)), "call {call}: {answer:?}");
            }
            assert_eq!(soon(waiting.join()).await, Err(JoinError::Closed));
            assert!(matches!(soon(runtime.query(Nothing)).await, Err(QueryError::Closed)));
        });
    });
}

#[test]
fn a_watch_that_begins_after_the_shutdown_ends_at_once() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool) = pool(config()).await;
            let waiting = pool.enqueue(ECHO.call(1)).run_after(secs(60)).await.unwrap();
            let mut before = waiting.watch();
            assert!(before.next().await.is_some());
            runtime.shutdown(secs(1)).await;
            assert_eq!(soon(before.next()).await, None);
            assert_eq!(soon(waiting.watch().next()).await, None);
        });
    });
}

#[test]
fn two_runtimes_cannot_use_one_store() {
    on_each_store(|| {
        run_paused(async {
            let tables = Memory::new();
            let (runtime, _) = start(builder().storage(tables.clone()), config()).await;
            let error = builder().storage(tables.clone()).start().await.unwrap_err();
            assert!(matches!(error, StartError::Storage(StorageError::InUse)), "{error:?}");
            assert_eq!(error.to_string(), "storage is in use by another runtime");
            runtime.shutdown(secs(1)).await;
            let (runtime, _) = start(builder().storage(tables), config()).await;
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_start_that_is_refused_leaves_the_store_free() {
    on_each_store(|| {
        run_paused(async {
            let tables = Memory::new();
            for _ in 0..3 {
                let bad = builder().storage(tables.clone()).pool("", config());
                assert!(bad.start().await.is_err());
            }
            let (runtime, _) = start(builder().storage(tables), config()).await;
            runtime.shutdown(secs(1)).await;
        });
    });
}

// Extremes

#[test]
fn nothing_overflows_at_the_ends_of_the_ranges() {
    on_each_store(|| {
        run_paused(async {
            const FAIL: ActionKey<u64, u64> = ActionKey::new("fail");
            const SNOOZE: ActionKey<u64, u64> = ActionKey::new("snooze");
            const AFTER: ActionKey<u64, u64> = ActionKey::new("after");
            let builder = functions(builder())
                .action_fn(FAIL, |_, _| async { Err(WorkError::retryable("no")) })
                .action_fn(SNOOZE, |_, _| async { Err(WorkError::snooze(Duration::MAX)) })
                .action_fn(AFTER, |_, _| async {
                    Err(WorkError::retry_after(Duration::MAX, "no"))
                });
            let huge = config()
                .max_pending(u64::MAX)
                .max_payload_bytes(MAX_PAYLOAD_BYTES)
                .attempt_timeout(Duration::MAX);
            let (runtime, pool) = start(builder, huge).await;
            assert_eq!(pool.enqueue(ECHO.call(u64::MAX)).await.unwrap().join().await, Ok(u64::MAX));
            let endless = RetryBehavior::new()
                .max_attempts(u32::MAX)
                .initial_backoff(Duration::MAX)
                .base(f64::MAX);
            for key in [FAIL, SNOOZE, AFTER] {
                let work =
                    pool.enqueue(key.call(1)).retry(endless).timeout(Duration::MAX).await.unwrap();
                tokio::time::sleep(secs(10)).await;
                let status = work.status().await.unwrap();
                assert!(
                    matches!(status, WorkStatus::Pending { due: Some(_), .. }),
                    "{key:?} {status:?}"
                );
                work.abort(Duration::MAX).await.unwrap();
                assert_eq!(work.join().await, Err(JoinError::Canceled));
            }
            // The pool still works, and ends.
            assert_eq!(pool.enqueue(ECHO.call(0)).await.unwrap().join().await, Ok(0));
            assert_eq!(pool.pending(), 0);
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_backoff_waits_for_a_day_at_most() {
    on_each_store(|| {
        run_paused(async {
            const FAIL: ActionKey<u64, u64> = ActionKey::new("fail");
            let builder = builder().action_fn(FAIL, |n, cx| async move {
                if cx.attempt() == 1 { Err(WorkError::retryable("no")) } else { Ok(n) }
            });
            let (runtime, pool) = start(builder, config()).await;
            let retry = RetryBehavior::default().initial_backoff(Duration::MAX);
            let begun = Instant::now();
            let work = pool.enqueue(FAIL.call(1)).retry(retry).await.unwrap();
            assert_eq!(work.join().await, Ok(1));
            let day = RetryBehavior::MAX_BACKOFF;
            assert!(begun.elapsed() >= day && begun.elapsed() < day + secs(1));
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_shutdown_waits_for_as_long_as_it_is_told() {
    on_each_store(|| {
        run_paused(async {
            const NAP: ActionKey<u64, u64> = ActionKey::new("nap");
            let builder = builder().action_fn(NAP, |n, _| async move {
                tokio::time::sleep(secs(n)).await;
                Ok(n)
            });
            let (runtime, pool) = start(builder, config()).await;
            let work = pool.enqueue(NAP.call(3_600)).await.unwrap();
            tokio::time::sleep(secs(1)).await;
            let report = runtime.shutdown(Duration::MAX).await;
            assert_eq!((report.finished, report.returned), (1, 0));
            assert_eq!(work.join().await, Ok(3_600));
        });
    });
}

#[test]
fn zeros_are_taken_at_their_word() {
    on_each_store(|| {
        run_paused(async {
            let zero = config().max_parallelism(0).max_payload_bytes(0);
            let (runtime, pool) = pool(zero).await;
            let error = pool.enqueue(ECHO.call(1)).await.unwrap_err();
            assert!(matches!(error, EnqueueError::TooLarge { size: 1, max: 0 }), "{error:?}");
            pool.update(config().max_payload_bytes(10)).await.unwrap();
            let retry = RetryBehavior::default().initial_backoff(Duration::ZERO).base(1.0);
            let work = pool
                .enqueue(ECHO.call(1))
                .run_after(Duration::ZERO)
                .retry(retry.max_attempts(1))
                .await
                .unwrap();
            tokio::time::sleep(secs(30)).await;
            assert!(matches!(work.status().await.unwrap(), WorkStatus::Pending { .. }));
            pool.update(config().max_parallelism(1)).await.unwrap();
            assert_eq!(work.join().await, Ok(1));
            runtime.shutdown(Duration::ZERO).await;
            assert!(functions(builder()).blocking_threads(0).start().await.is_ok());
        });
    });
}

#[test]
fn retries_without_a_wait_make_all_their_attempts() {
    on_each_store(|| {
        run_paused(async {
            const FAIL: ActionKey<u64, u64> = ActionKey::new("fail");
            let builder =
                builder().action_fn(FAIL, |_, _| async { Err(WorkError::retryable("no")) });
            let (runtime, pool) = start(builder, config()).await;
            let retry =
                RetryBehavior::default().max_attempts(2_000).initial_backoff(Duration::ZERO);
            let outcome = pool.enqueue(FAIL.call(1)).retry(retry).await.unwrap().join().await;
            assert!(
                matches!(outcome, Err(JoinError::Failed { attempts: 2_000, .. })),
                "{outcome:?}"
            );
            runtime.shutdown(secs(1)).await;
        });
    });
}

// Memory

async fn remembered(tables: &Memory, ids: &[WorkId]) -> Vec<bool> {
    let (runtime, pool) = start(functions(builder().storage(tables.clone())), config()).await;
    let statuses = pool.status_batch(ids).await.unwrap();
    runtime.shutdown(secs(1)).await;
    statuses.iter().map(|status| matches!(status, WorkStatus::Finished(_))).collect()
}

async fn finish(tables: &Memory, retention: Retention, works: u64) -> Vec<WorkId> {
    let builder = functions(builder().storage(tables.clone()).retention(retention));
    let (runtime, pool) = start(builder, config()).await;
    let mut ids = Vec::new();
    for _ in 0..works / 500 {
        let batch = pool.enqueue_batch((0..500).map(|n| ECHO.call(n))).await.unwrap();
        assert!(batch.join().await.iter().all(Result::is_ok));
        ids.extend(batch.ids());
    }
    assert_eq!(pool.pending(), 0);
    runtime.shutdown(secs(1)).await;
    ids
}

#[test]
fn finished_jobs_are_forgotten_beyond_the_count_that_is_kept() {
    on_each_store(|| {
        run_paused(async {
            let tables = Memory::new();
            let retention = Retention::default().max_count(300);
            let ids = finish(&tables, retention, 10_000).await;
            let remembered = remembered(&tables, &ids).await;
            assert!(remembered[9_700..].iter().all(|known| *known), "the newest are kept");
            // Forgetting goes in steps of up to a thousand.
            let count = remembered.iter().filter(|known| **known).count();
            assert!((300..=1_300 + 500).contains(&count), "{count} are remembered");
        });
    });
}

#[test]
fn finished_jobs_are_kept_for_ever_if_that_is_asked_for() {
    on_each_store(|| {
        run_paused(async {
            for retention in [
                Retention::FOREVER,
                Retention::default().max_age(Duration::MAX).max_count(u64::MAX),
                Retention::FOREVER.max_age(secs(1 << 61)),
            ] {
                let tables = Memory::new();
                let ids = finish(&tables, retention, 3_000).await;
                let remembered = remembered(&tables, &ids).await;
                let count = remembered.iter().filter(|known| **known).count();
                assert_eq!(count, 3_000, "{retention:?}");
            }
        });
    });
}

#[test]
fn finished_jobs_are_forgotten_when_they_are_old() {
    on_each_store(|| {
        run_paused(async {
            let tables = Memory::new();
            let retention = Retention::FOREVER.max_age(secs(60));
            let ids = {
                let builder = functions(builder().storage(tables.clone()).retention(retention));
                let (runtime, pool) = start(builder, config()).await;
                let old = pool.enqueue_batch((0..500).map(|n| ECHO.call(n))).await.unwrap();
                old.join().await;
                tokio::time::sleep(secs(61)).await;
                let new = pool.enqueue_batch((0..2_000).map(|n| ECHO.call(n))).await.unwrap();
                new.join().await;
                runtime.shutdown(secs(1)).await;
                [old.ids(), new.ids()].concat()
            };
            let remembered = remembered(&tables, &ids).await;
            assert!(remembered[..500].iter().all(|known| !known));
            assert!(remembered[500..].iter().all(|known| *known));
        });
    });
}

#[test]
fn an_id_that_is_forgotten_can_be_used_again() {
    on_each_store(|| {
        run_paused(async {
            let retention = Retention::default().max_count(0);
            let (runtime, pool) = start(functions(builder().retention(retention)), config()).await;
            let id = WorkId::from_uuid(uuid::Uuid::from_u128(1));
            assert_eq!(pool.enqueue(ECHO.call(1)).id(id).await.unwrap().join().await, Ok(1));
            let others = pool.enqueue_batch((0..3_000).map(|n| ECHO.call(n))).await.unwrap();
            others.join().await;
            let again = pool.enqueue(ECHO.call(2)).id(id).run_after(secs(5)).await.unwrap();
            // Either it is still known, everywhere, or it is a new job.
            let ran = again.join().await;
            tokio::time::sleep(secs(10)).await;
            let succeeded = pool.diagnostics().await.unwrap().report.succeeded;
            match succeeded {
                3_001 => assert_eq!(ran, Ok(1)),
                _ => assert_eq!((ran, succeeded), (Ok(2), 3_002)),
            }
            runtime.shutdown(secs(1)).await;
        });
    });
}
