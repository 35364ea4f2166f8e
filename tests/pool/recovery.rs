//! What goes wrong inside the process, and what becomes of it.

use std::collections::HashMap;
use std::panic::panic_any;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::*;
use actix_workpool::model::Change;
use actix_workpool::storage::StorageError;
use actix_workpool::{
    Action, ActionContext, ActionKey, BlockingAction, CancelAnswer, Completed, EnqueueError,
    Failure, FailureKind, JoinError, Mutation, PoolConfig, PoolError, Query, Reader, RetryBehavior,
    RuntimeBuilder, ShutdownReport, Transaction, WorkError, WorkId, WorkStatus, Workpool,
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

const TASK: ActionKey<u64, u64> = ActionKey::new("task");

fn config() -> PoolConfig {
    PoolConfig::default()
}

fn retries(attempts: u32) -> RetryBehavior {
    RetryBehavior::default().max_attempts(attempts).initial_backoff(ms(10))
}

fn failure<T: std::fmt::Debug>(outcome: Result<T, JoinError>) -> (u32, Failure) {
    match outcome {
        Err(JoinError::Failed { attempts, failure }) => (attempts, failure),
        other => panic!("{other:?} is no failure"),
    }
}

/// Works still run.
async fn works(pool: &Workpool) {
    assert_eq!(soon(pool.enqueue(ECHO.call(3)).await.unwrap().join()).await, Ok(3));
}

// Panics

#[test]
fn a_panic_is_a_failed_attempt_with_its_message_wherever_it_happens() {
    on_each_store(|| {
        run_paused(async {
            const AT_ONCE: ActionKey<u64, u64> = ActionKey::new("at.once");
            const LATER: ActionKey<u64, u64> = ActionKey::new("later");
            const NO_TEXT: ActionKey<u64, u64> = ActionKey::new("no.text");
            let builder = builder()
                .echo()
                .action_fn(AT_ONCE, |n, _| {
                    assert!(n > 9, "at construction");
                    async move { Ok(n) }
                })
                .action_fn(LATER, |n, _| async move {
                    tokio::time::sleep(ms(1)).await;
                    panic!("after an await, with {n}");
                })
                .action_fn(NO_TEXT, |_, _| async move { panic_any(5_u8) });
            let (runtime, pool) = start(builder, config()).await;
            for (key, message) in [
                (AT_ONCE, "at construction"),
                (LATER, "after an await, with 1"),
                (NO_TEXT, "a value that is no text"),
            ] {
                let (attempts, failure) =
                    failure(pool.enqueue(key.call(1)).await.unwrap().join().await);
                assert_eq!((attempts, failure.kind), (1, FailureKind::Panic));
                assert_eq!(failure.message, message);
            }
            works(&pool).await;
            assert_eq!((pool.pending(), pool.running().await.unwrap().len()), (0, 0));
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_panic_is_retried_like_any_failure() {
    on_each_store(|| {
        run_paused(async {
            let builder = builder().action_fn(TASK, |n, cx| async move {
                assert!(cx.attempt() == 3, "not yet");
                Ok(n)
            });
            let (runtime, pool) = start(builder, config().default_retry(retries(3))).await;
            assert_eq!(pool.enqueue(TASK.call(1)).await.unwrap().join().await, Ok(1));
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_panic_of_a_blocking_action_is_a_failed_attempt() {
    on_each_store(|| {
        #[derive(Serialize, Deserialize)]
        struct Crash;
        impl BlockingAction for Crash {
            const NAME: &'static str = "crash";
            type Output = ();
            fn run(self, _: &ActionContext) -> Result<(), WorkError> {
                panic!("blocking panic")
            }
        }
        run_real(async {
            let builder = builder().echo().blocking_action::<Crash>();
            let (runtime, pool) = start(builder, config()).await;
            let (_, failure) = failure(pool.enqueue(Crash).await.unwrap().join().await);
            assert_eq!((failure.kind, &*failure.message), (FailureKind::Panic, "blocking panic"));
            works(&pool).await;
            runtime.shutdown(secs(1)).await;
        });
    });
}

struct PanicsOnDrop;

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("in a destructor");
        }
    }
}

#[test]
fn a_panic_in_a_destructor_costs_neither_the_slot_nor_the_report() {
    on_each_store(|| {
        run_paused(async {
            let builder = builder().echo().action_fn(TASK, |n, _| async move {
                let _bomb = PanicsOnDrop;
                if n == 0 {
                    std::future::pending::<()>().await;
                }
                Ok(n)
            });
            let (runtime, pool) = start(builder, config().max_parallelism(1)).await;
            // At the end of the function.
            let (_, ended) = failure(pool.enqueue(TASK.call(1)).await.unwrap().join().await);
            assert_eq!((ended.kind, &*ended.message), (FailureKind::Panic, "in a destructor"));
            // While its future is dropped for taking too long, and for being aborted.
            let late = pool.enqueue(TASK.call(0)).timeout(secs(1)).await.unwrap().join().await;
            assert_eq!(failure(late).1.kind, FailureKind::Timeout);
            let aborted = pool.enqueue(TASK.call(0)).await.unwrap();
            tokio::time::sleep(ms(10)).await;
            aborted.abort(Duration::ZERO).await.unwrap();
            assert_eq!(aborted.join().await, Err(JoinError::Canceled));
            works(&pool).await;
            runtime.shutdown(secs(1)).await;
        });
    });
}

/// Panics when it is decoded, as a type with a hand-written `Deserialize` may.
#[derive(Debug)]
struct Undecodable;

impl Serialize for Undecodable {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(1)
    }
}

impl<'de> Deserialize<'de> for Undecodable {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        panic!("in a Deserialize")
    }
}

#[test]
fn a_type_that_panics_while_it_is_decoded_stops_nobody_else() {
    on_each_store(|| {
        use actix::prelude::*;
        struct Deaf;
        impl Actor for Deaf {
            type Context = Context<Self>;
        }
        type Done = Completed<actix_workpool::Call<u64, Undecodable>, Undecodable>;
        impl Handler<Done> for Deaf {
            type Result = ();
            fn handle(&mut self, _: Done, _: &mut Self::Context) {}
        }
        const ARGS: ActionKey<Undecodable, u64> = ActionKey::new("args");
        const RESULT: ActionKey<u64, Undecodable> = ActionKey::new("result");
        run_paused(async {
            let builder = builder()
                .echo()
                .action_fn(ARGS, |_, _| async { Ok(1) })
                .action_fn(RESULT, |_, _| async { Ok(Undecodable) });
            let (runtime, pool) = start(builder, config()).await;
            let (_, args) =
                failure(pool.enqueue(ARGS.call(Undecodable)).await.unwrap().join().await);
            assert_eq!(args.kind, FailureKind::Panic);
            works(&pool).await;
            // The result is decoded for the actor that wants to hear of it.
            let deaf = Deaf.start().recipient::<Done>();
            let work = pool.enqueue(RESULT.call(1)).notify(deaf).await.unwrap();
            while !soon(work.status()).await.unwrap().is_final() {
                settle().await;
            }
            works(&pool).await;
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_query_that_panics_fails_and_stops_nobody_else() {
    on_each_store(|| {
        #[derive(Serialize, Deserialize)]
        struct Crash;
        impl Query for Crash {
            const NAME: &'static str = "crash.query";
            type Output = ();
            fn read(self, _: &mut Reader<'_>) -> Result<(), WorkError> {
                panic!("query panic")
            }
        }
        run_paused(async {
            let (runtime, pool) = start(builder().echo().query::<Crash>(), config()).await;
            assert_eq!(
                runtime.query(Crash).await.unwrap_err().to_string(),
                "panicked: query panic"
            );
            let (_, failure) = failure(pool.enqueue(Crash).await.unwrap().join().await);
            assert_eq!(failure.kind, FailureKind::Panic);
            works(&pool).await;
            runtime.shutdown(secs(1)).await;
        });
    });
}

// Arbiters that die or hang

#[test]
fn attempts_of_an_arbiter_that_dies_are_lost_and_retried_on_another() {
    on_each_store(|| {
        run_real(async {
            const SUICIDE: ActionKey<u64, u64> = ActionKey::new("suicide");
            let gate = Gate::new();
            let at = gate.clone();
            let builder = builder()
                .worker_arbiters(2)
                .echo()
                .action_fn(SUICIDE, |n, cx| async move {
                    if cx.attempt() == 1 {
                        actix::Arbiter::current().stop();
                        std::future::pending::<()>().await;
                    }
                    Ok(n)
                })
                .action_fn(TASK, move |n, cx| {
                    let gate = at.clone();
                    async move {
                        // Those that survive or are made again wait until the arbiter is dead.
                        gate.pass().await;
                        Ok(n + 10 * u64::from(cx.attempt()))
                    }
                });
            let (runtime, pool) = start(builder, config()).await;
            let others = pool.enqueue_batch((0..4).map(|n| TASK.call(n))).retry(retries(5)).await;
            let others = others.unwrap();
            gate.entered(4).await;
            let charged = pool.enqueue(SUICIDE.call(1)).no_retry().await.unwrap().join().await;
            let (attempts, lost) = failure(charged);
            assert_eq!((attempts, lost.kind), (1, FailureKind::Lost));
            // Two of the four were on its arbiter.
            gate.entered(6).await;
            gate.open();
            let mut results: Vec<_> =
                others.join().await.into_iter().map(|n| n.unwrap() / 10).collect();
            results.sort_unstable();
            assert_eq!(results, [1, 1, 2, 2]);
            let retried = pool.enqueue(SUICIDE.call(7)).retry(retries(3)).await.unwrap();
            assert_eq!(retried.join().await, Ok(7));
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_work_that_is_not_retried_is_not_given_to_an_arbiter_that_is_dead() {
    on_each_store(|| {
        run_real(async {
            const SUICIDE: ActionKey<u64, u64> = ActionKey::new("suicide");
            let builder = builder().worker_arbiters(2).echo().action_fn(SUICIDE, |_, _| async {
                actix::Arbiter::current().stop();
                std::future::pending().await
            });
            let (runtime, pool) = start(builder, config()).await;
            let (_, lost) = failure(pool.enqueue(SUICIDE.call(1)).await.unwrap().join().await);
            assert_eq!(lost.kind, FailureKind::Lost);
            for n in 0..20 {
                assert_eq!(pool.enqueue(ECHO.call(n)).await.unwrap().join().await, Ok(n));
            }
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn an_attempt_that_never_ends_is_timed_out_and_its_slot_freed() {
    on_each_store(|| {
        run_paused(async {
            let builder = builder().echo().action_fn(TASK, |_, _| std::future::pending());
            let config = config().max_parallelism(1).attempt_timeout(secs(10));
            let (runtime, pool) = start(builder, config).await;
            let hung = pool.enqueue(TASK.call(1)).await.unwrap();
            let next = pool.enqueue(ECHO.call(2)).await.unwrap();
            let begun = Instant::now();
            assert_eq!(next.join().await, Ok(2));
            assert!(begun.elapsed() >= secs(10) && begun.elapsed() < secs(11));
            let (_, failure) = failure(hung.join().await);
            assert_eq!(failure.kind, FailureKind::Timeout);
            assert_eq!(failure.message, "attempt took longer than 10s");
            runtime.shutdown(secs(1)).await;
        });
    });
}

/// Ends the loop of a test's hung function, however the test ends.
struct Release(Arc<AtomicBool>);

impl Drop for Release {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn an_attempt_that_blocks_its_arbiter_is_abandoned_and_others_go_on() {
    on_each_store(|| {
        run_real(async {
            let released = Arc::new(AtomicBool::new(false));
            let release = Release(released.clone());
            let entered = Gate::new();
            let at = entered.clone();
            let builder = builder().worker_arbiters(1).echo().action_fn(TASK, move |n, _| {
                let (released, at) = (released.clone(), at.clone());
                async move {
                    at.enter();
                    while !released.load(Ordering::SeqCst) {
                        std::thread::yield_now();
                    }
                    Ok(n)
                }
            });
            let (runtime, pool) = start(builder, config().max_parallelism(1)).await;
            let stuck = pool.enqueue(TASK.call(1)).timeout(ms(100)).await.unwrap();
            entered.entered(1).await;
            let next = pool.enqueue(ECHO.call(2)).await.unwrap();
            let (attempts, overdue) = failure(soon(stuck.join()).await);
            assert_eq!((attempts, overdue.kind), (1, FailureKind::Timeout));
            assert_eq!(
                soon(next.join()).await,
                Ok(2),
                "on an arbiter that took the stuck one's place"
            );
            // What it reports after all is refused.
            drop(release);
            works(&pool).await;
            let WorkStatus::Finished(row) = stuck.status().await.unwrap() else {
                panic!("unfinished")
            };
            assert_eq!(row.outcome.as_str(), "failed");
            assert_eq!(pool.pending(), 0);
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[derive(Serialize, Deserialize)]
struct Grind;

impl BlockingAction for Grind {
    const NAME: &'static str = "grind";
    type Output = bool;

    fn run(self, cx: &ActionContext) -> Result<bool, WorkError> {
        let gate = cx.data::<Gate>();
        gate.enter();
        while !cx.data::<AtomicBool>().load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        Ok(cx.is_canceled())
    }
}

#[test]
fn a_blocking_action_that_is_overdue_is_abandoned_and_its_slot_freed() {
    on_each_store(|| {
        run_real(async {
            let gate = Gate::new();
            let builder = builder()
                .echo()
                .blocking_action::<Grind>()
                .data(AtomicBool::new(false))
                .data(gate.clone())
                .action_fn(TASK, |n, cx| async move {
                    cx.data::<AtomicBool>().store(true, Ordering::SeqCst);
                    Ok(n)
                });
            let (runtime, pool) = start(builder, config().max_parallelism(1)).await;
            let overdue = pool.enqueue(Grind).timeout(ms(50)).await.unwrap();
            gate.entered(1).await;
            let (_, failure) = failure(soon(overdue.join()).await);
            assert_eq!(failure.kind, FailureKind::Timeout);
            works(&pool).await;
            let aborted = pool.enqueue(Grind).await.unwrap();
            gate.entered(2).await;
            assert_eq!(aborted.abort(Duration::ZERO).await.unwrap(), CancelAnswer::Requested);
            assert_eq!(soon(aborted.join()).await, Err(JoinError::Canceled));
            // Lets both end; what they report now is refused.
            assert_eq!(soon(pool.enqueue(TASK.call(1)).await.unwrap().join()).await, Ok(1));
            let WorkStatus::Finished(row) = overdue.status().await.unwrap() else {
                panic!("{overdue:?}")
            };
            assert_eq!(row.outcome.as_str(), "failed");
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_blocking_action_sees_that_it_is_canceled() {
    on_each_store(|| {
        run_real(async {
            #[derive(Serialize, Deserialize)]
            struct Attentive;
            impl BlockingAction for Attentive {
                const NAME: &'static str = "attentive";
                type Output = ();
                fn run(self, cx: &ActionContext) -> Result<(), WorkError> {
                    cx.data::<Gate>().enter();
                    while !cx.is_canceled() {
                        std::thread::yield_now();
                    }
                    Err(WorkError::canceled())
                }
            }
            let gate = Gate::new();
            let builder = builder().blocking_action::<Attentive>().data(gate.clone());
            let (runtime, pool) = start(builder, config()).await;
            let work = pool.enqueue(Attentive).await.unwrap();
            gate.entered(1).await;
            work.cancel().await.unwrap();
            assert_eq!(work.join().await, Err(JoinError::Canceled));
            runtime.shutdown(secs(1)).await;
        });
    });
}

// Names and arguments of other versions of the program

#[test]
fn a_work_whose_function_is_not_registered_waits_for_a_runtime_that_has_it() {
    on_each_store(|| {
        run_paused(async {
            let tables = Tables::new();
            let with = || {
                builder()
                    .storage(tables.clone())
                    .echo()
                    .action_fn(TASK, |n, _| async move { Ok(n) })
            };
            let (runtime, pool) = start(with(), config().paused(true)).await;
            let missing = pool.enqueue_batch((0..2_500).map(|n| TASK.call(n))).await.unwrap();
            let later = pool.enqueue(TASK.call(7)).run_after(secs(30)).await.unwrap();
            let behind = pool.enqueue(ECHO.call(8)).await.unwrap();
            runtime.shutdown(secs(1)).await;

            let without = builder().storage(tables.clone()).echo();
            let (runtime, pool) = start(without, config().paused(false)).await;
            assert_eq!(soon(pool.work::<u64>(behind.id()).join()).await, Ok(8), "it hides nothing");
            tokio::time::sleep(secs(60)).await;
            let diagnostics = pool.diagnostics().await.unwrap();
            assert_eq!((diagnostics.unregistered, diagnostics.waiting), (2_501, 0));
            let names: Vec<_> = diagnostics.unregistered_names.iter().map(|n| n.as_str()).collect();
            assert_eq!(names, ["task"]);
            for id in [missing.ids()[0], later.id()] {
                let status = pool.status(id).await.unwrap();
                assert_eq!(status, WorkStatus::Pending { previous_attempts: 0, due: None });
            }
            works(&pool).await;
            assert_eq!(pool.cancel(missing.ids()[2_499]).await.unwrap(), CancelAnswer::Requested);
            assert_eq!(
                pool.work::<u64>(missing.ids()[2_499]).join().await,
                Err(JoinError::Canceled)
            );
            runtime.shutdown(secs(1)).await;

            let (runtime, pool) = start(with(), config()).await;
            for (n, id) in missing.ids()[..2_499].iter().enumerate() {
                assert_eq!(pool.work::<u64>(*id).join().await, Ok(n as u64));
            }
            assert_eq!(pool.work::<u64>(later.id()).join().await, Ok(7));
            assert_eq!(pool.diagnostics().await.unwrap().unregistered, 0);
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn arguments_that_no_longer_decode_fail_the_work_for_good_and_name_the_field() {
    on_each_store(|| {
        run_paused(async {
            #[derive(Serialize, Deserialize)]
            struct Inner {
                count: u64,
            }
            #[derive(Serialize, Deserialize)]
            struct New {
                to: String,
                inner: Inner,
            }
            const OLD: ActionKey<serde_json::Value, u64> = ActionKey::new("mail");
            const NEW: ActionKey<New, u64> = ActionKey::new("mail");
            let tables = Tables::new();
            let old = builder().storage(tables.clone()).action_fn(OLD, |_, _| async { Ok(0) });
            let (runtime, pool) = start(old, config().paused(true)).await;
            let retry = retries(5);
            let args = [
                (serde_json::json!({"to": "a", "inner": {"count": "s3cret"}}), "inner.count"),
                (serde_json::json!({"inner": {"count": 1}}), "to"),
                (serde_json::json!("s3cret"), "New"),
            ];
            let mut works = Vec::new();
            for (args, field) in args {
                works.push((pool.enqueue(OLD.call(args)).retry(retry).await.unwrap().id(), field));
            }
            runtime.shutdown(secs(1)).await;

            let new = builder().storage(tables).action_fn(NEW, |new: New, _| async move {
                Ok(new.inner.count + new.to.len() as u64)
            });
            let (runtime, pool) = start(new, config().paused(false)).await;
            for (id, field) in works {
                let (attempts, failure) = failure(pool.work::<u64>(id).join().await);
                assert_eq!((attempts, failure.kind), (1, FailureKind::Decode));
                assert!(failure.message.contains(field), "{} names {field}", failure.message);
                assert!(!failure.message.contains("s3cret"), "{failure}");
            }
            runtime.shutdown(secs(1)).await;
        });
    });
}

// Runtimes that go away

#[derive(Serialize, Deserialize)]
struct ToldOf(WorkId);

impl Query for ToldOf {
    const NAME: &'static str = "told.of";
    type Output = u64;

    fn read(self, reader: &mut Reader<'_>) -> Result<u64, WorkError> {
        Ok(reader.get("told", self.0)?.unwrap_or(0))
    }
}

#[test]
fn what_ran_in_a_runtime_that_was_dropped_counts_as_lost_in_the_next() {
    on_each_store(|| {
        run_paused(async {
            let (tables, gate) = (Tables::new(), Gate::new());
            let builder = || {
                let at = gate.clone();
                builder().storage(tables.clone()).on_complete::<Told>().query::<ToldOf>().action_fn(
                    TASK,
                    move |n, cx| {
                        at.enter();
                        let gate = at.clone();
                        async move {
                            if gate.count() <= 3 {
                                std::future::pending::<()>().await;
                            }
                            Ok(n + u64::from(cx.attempt()))
                        }
                    },
                )
            };
            let (runtime, pool) = start(builder(), config().max_parallelism(3)).await;
            let retried = pool.enqueue(TASK.call(10)).retry(retries(3)).await.unwrap();
            let not = pool.enqueue(TASK.call(20)).on_complete::<Told>(()).await.unwrap();
            let canceled = pool.enqueue(TASK.call(30)).retry(retries(3)).await.unwrap();
            let waiting = pool.enqueue(TASK.call(40)).await.unwrap();
            gate.entered(3).await;
            canceled.cancel().await.unwrap();
            drop(runtime);

            let runtime = start_again(|| builder().pool("p", config())).await;
            let pool = runtime.pool("p").unwrap();
            let join = |id| {
                let work = pool.work::<u64>(id);
                async move { work.join().await }
            };
            assert_eq!(join(retried.id()).await, Ok(12), "the lost attempt is charged");
            let (attempts, lost) = failure(join(not.id()).await);
            assert_eq!((attempts, lost.kind), (1, FailureKind::Lost), "at most once");
            assert_eq!(join(canceled.id()).await, Err(JoinError::Canceled));
            assert_eq!(join(waiting.id()).await, Ok(41), "it had not begun");
            assert_eq!(runtime.query(ToldOf(not.id())).await.unwrap(), 1);
            assert_eq!(gate.count(), 5);
            let report = pool.diagnostics().await.unwrap().report;
            assert_eq!((report.succeeded, report.failed, report.canceled), (2, 1, 1));
            assert_eq!(pool.pending(), 0);
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_work_that_is_lost_each_time_makes_no_more_than_its_attempts() {
    on_each_store(|| {
        run_paused(async {
            let (tables, gate) = (Tables::new(), Gate::new());
            let builder = || {
                let at = gate.clone();
                let builder = builder().storage(tables.clone()).pool("p", config());
                builder.action_fn(TASK, move |_, _| {
                    at.enter();
                    std::future::pending()
                })
            };
            let mut id = None;
            for start in 1..=3 {
                let runtime = start_again(builder).await;
                let pool = runtime.pool("p").unwrap();
                if id.is_none() {
                    id = Some(pool.enqueue(TASK.call(1)).retry(retries(3)).await.unwrap().id());
                }
                gate.entered(start).await;
            }
            let runtime = start_again(builder).await;
            let pool = runtime.pool("p").unwrap();
            let (attempts, lost) = failure(pool.work::<u64>(id.unwrap()).join().await);
            assert_eq!((attempts, lost.kind, gate.count()), (3, FailureKind::Lost, 3));
            runtime.shutdown(secs(1)).await;
        });
    });
}

// Storages that fail

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

fn inserts(change: &Change) -> bool {
    matches!(change, Change::InsertWork { .. })
}

fn completes(change: &Change) -> bool {
    matches!(change, Change::CompleteWork { .. })
}

fn reports(change: &Change) -> bool {
    matches!(change, Change::InsertPendingCompletion { .. })
}

fn starts(change: &Change) -> bool {
    matches!(change, Change::StartWork { .. })
}

fn cancels(change: &Change) -> bool {
    matches!(change, Change::InsertPendingCancelation { .. })
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
            // The loop claims its pool anew, which takes longer than the backoff.
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
fn a_lost_answer_does_not_upset_the_count_of_pending_works() {
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
            assert_eq!(report, ShutdownReport { finished: 1, handed_back: 0, pending: 0 });
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
                // Works of each tens kind: at once, after a while, failing first.
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
            return Err("the canceled work is not canceled".into());
        }
    }
    // Each acknowledged work has one outcome, within its attempts.
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
        if row.attempts > *max {
            return Err(format!("task {n} was charged {} attempts", row.attempts));
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
        return Err(format!("{left} rows and {} pending works are left", pool.pending() as i64));
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
fn whichever_commit_is_refused_every_acknowledged_work_has_one_outcome() {
    on_each_store(|| {
        sweep(Fault::Refused);
    });
}

#[test]
fn whichever_commits_answer_is_lost_every_acknowledged_work_has_one_outcome() {
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

// Everything at once

#[derive(Serialize, Deserialize)]
struct Chaos(u64);

impl Action for Chaos {
    const NAME: &'static str = "chaos";
    type Output = u64;

    async fn run(self, cx: ActionContext) -> Result<u64, WorkError> {
        match self.0 % 7 {
            0 => panic!("chaos"),
            1 => std::future::pending().await,
            2 => Err(WorkError::retryable("chaos")),
            3 => Err(WorkError::non_retryable("chaos")),
            4 if cx.attempt() == 1 => Err(WorkError::snooze(secs(100))),
            5 => Err(WorkError::canceled()),
            _ => Ok(self.0),
        }
    }
}

#[test]
fn every_work_of_a_wild_mixture_has_one_outcome_and_no_slot_is_lost() {
    on_each_store(|| {
        run_paused(async {
            let builder = builder().action::<Chaos>();
            let config =
                config().max_parallelism(8).attempt_timeout(secs(1)).default_retry(retries(3));
            let (runtime, pool) = start(builder, config).await;
            // Snoozing works snooze at each first attempt: leave them to be canceled.
            let works = pool.enqueue_batch((0..700).map(Chaos)).await.unwrap();
            let snoozing: Vec<_> = works.ids().iter().skip(4).step_by(7).copied().collect();
            tokio::time::sleep(secs(600)).await;
            pool.cancel_batch(snoozing).await.unwrap();
            for (n, outcome) in works.join().await.into_iter().enumerate() {
                let n = n as u64;
                let ok = match (n % 7, &outcome) {
                    (0, Err(JoinError::Failed { attempts: 3, failure })) => {
                        failure.kind == FailureKind::Panic
                    }
                    (1, Err(JoinError::Failed { attempts: 3, failure })) => {
                        failure.kind == FailureKind::Timeout
                    }
                    (2, Err(JoinError::Failed { attempts: 3, .. })) => true,
                    (3, Err(JoinError::Failed { attempts: 1, .. })) => true,
                    (4 | 5, Err(JoinError::Canceled)) => true,
                    (6, Ok(output)) => *output == n,
                    _ => false,
                };
                assert!(ok, "{n}: {outcome:?}");
            }
            let diagnostics = pool.diagnostics().await.unwrap();
            assert_eq!((diagnostics.running, diagnostics.spare_capacity), (0, 8));
            let report = diagnostics.report;
            assert_eq!((report.succeeded, report.failed, report.canceled), (100, 400, 200));
            assert_eq!(report.retries, 600);
            assert_eq!(pool.pending(), 0);
            runtime.shutdown(secs(1)).await;
        });
    });
}
