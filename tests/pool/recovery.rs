//! What goes wrong inside the process, and what becomes of it.

use std::panic::panic_any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::common::*;
use crate::support::*;
use actix_workpool::model::Change;
use actix_workpool::storage::{Memory, StorageError};
use actix_workpool::{
    Action, ActionContext, ActionKey, BlockingAction, CancelAnswer, Completed, FailureKind,
    JoinError, Query, Reader, RetryBehavior, Runtime, StartError, WorkError, WorkStatus, Workpool,
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

#[test]
fn a_failed_first_turn_after_a_restart_does_not_make_a_lost_attempt_one_that_never_ran() {
    for fault in [Fault::Refused, Fault::AnswerLost] {
        run_paused(async move {
            let (storage, gate) = (Faulty::new(), Gate::new());
            let builder = || {
                let gate = gate.clone();
                let builder = builder().storage(storage.clone()).pool("p", config());
                builder.action_fn(TASK, move |_, cx| {
                    let gate = gate.clone();
                    async move {
                        gate.pass().await;
                        Ok(u64::from(cx.attempt()))
                    }
                })
            };
            let runtime = builder().start().await.unwrap();
            let pool = runtime.pool("p").unwrap();
            let once = pool.enqueue(TASK.call(1)).await.unwrap().id();
            let retry = RetryBehavior::default().max_attempts(3);
            let again = pool.enqueue(TASK.call(2)).retry(retry).await.unwrap().id();
            gate.entered(2).await;
            drop(runtime);

            storage.fail_next(fault, completes);
            let runtime = start_again(builder).await;
            gate.open();
            let pool = runtime.pool("p").unwrap();
            let (attempts, lost) = failure(soon(pool.work::<u64>(once).join()).await);
            assert_eq!((attempts, lost.kind), (1, FailureKind::Lost), "{fault:?}");
            let retried = soon(pool.work::<u64>(again).join()).await;
            assert_eq!(retried, Ok(2), "the lost attempt counts, {fault:?}");
            assert_eq!((storage.hits(), gate.count()), (1, 3), "{fault:?}");
            runtime.shutdown(secs(1)).await;
        });
    }
}

/// Set in a process that runs one test only, so that no other has threads there.
#[cfg(target_os = "linux")]
const ALONE: &str = "WORKPOOL_TEST_ALONE";

#[cfg(target_os = "linux")]
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

#[test]
#[cfg(target_os = "linux")]
fn threads_that_stood_in_for_blocked_ones_end() {
    const NAME: &str = "recovery::threads_that_stood_in_for_blocked_ones_end";
    const ROUNDS: usize = 4;
    if std::env::var_os(ALONE).is_none() {
        let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
        let output = alone.args(["--exact", NAME, "--nocapture"]).env(ALONE, "1").output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let complained = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("1 passed"), "{said}\n{complained}");
        return;
    }
    run_real(async {
        let released = Arc::new(AtomicBool::new(false));
        let blocked = released.clone();
        let builder = Runtime::builder().worker_arbiters(2).echo().action_fn(TASK, move |n, _| {
            let released = blocked.clone();
            async move {
                while !released.load(Ordering::SeqCst) {
                    std::thread::sleep(ms(5));
                }
                Ok(n)
            }
        });
        let (runtime, pool) = start(builder, config().max_parallelism(2)).await;
        assert_eq!(pool.enqueue(ECHO.call(1)).await.unwrap().join().await, Ok(1));
        let before = threads();
        for _ in 0..ROUNDS {
            let stuck = pool.enqueue_batch([TASK.call(1), TASK.call(2)]).timeout(ms(50));
            for outcome in soon(stuck.await.unwrap().join()).await {
                assert_eq!(failure(outcome).1.kind, FailureKind::Timeout);
            }
        }
        let work = pool.enqueue(ECHO.call(2)).await.unwrap();
        assert_eq!(soon(work.join()).await, Ok(2));
        let most = threads();
        assert!(most >= before + 2 * ROUNDS - 2, "{before} threads became {most}");
        released.store(true, Ordering::SeqCst);
        let begun = Instant::now();
        while threads() > before + 1 && begun.elapsed() < secs(5) {
            tokio::time::sleep(ms(10)).await;
        }
        let after = threads();
        assert!(after <= before + 1, "{before} threads became {most} and then {after}");
        let work = pool.enqueue(ECHO.call(3)).await.unwrap();
        assert_eq!(soon(work.join()).await, Ok(3));
        runtime.shutdown(secs(1)).await;
    });
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
fn a_leader_that_was_superseded_does_not_repeat_its_job() {
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

/// get-convex/workpool, its own state machine tests: a completion that came twice was recognized, but only after the
/// attempt had been counted, so that jobs ran out of attempts that they had never had.
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
/// 27 times a second, which looked like life, and no job was started any more.
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
        let (before, looks) = (storage.commits(), storage.asked("read_batch"));
        tokio::time::sleep(secs(600)).await;
        let diagnostics = pool.diagnostics().await.unwrap();
        assert!(storage.commits() - before <= 20, "{} commits", storage.commits() - before);
        let looks = storage.asked("read_batch") - looks;
        // The watchdog looks every few seconds.
        assert!(looks <= 150, "{looks} looks: {diagnostics:?}");
        assert_eq!((diagnostics.waiting, diagnostics.running), (1, 1));
        assert!(diagnostics.oldest_due.is_some(), "whoever looks sees how long it has waited");
        endless.abort(Duration::ZERO).await.unwrap();
        assert_eq!(waits.join().await, Ok(4));
        runtime.shutdown(secs(1)).await;
    });
}

fn retries(attempts: u32) -> RetryBehavior {
    RetryBehavior::default().max_attempts(attempts).initial_backoff(ms(10))
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
            let counted = pool.enqueue(SUICIDE.call(1)).no_retry().await.unwrap().join().await;
            let (attempts, lost) = failure(counted);
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
fn a_job_that_is_not_retried_is_not_given_to_an_arbiter_that_is_dead() {
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
            assert_eq!(row.outcome().as_str(), "failed");
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
            assert_eq!(row.outcome().as_str(), "failed");
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
fn a_job_whose_function_is_not_registered_waits_for_a_runtime_that_has_it() {
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
fn arguments_that_no_longer_decode_fail_the_job_for_good_and_name_the_field() {
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
            assert_eq!(join(retried.id()).await, Ok(12), "the lost attempt counts");
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
fn a_job_that_is_lost_each_time_makes_no_more_than_its_attempts() {
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
fn every_job_of_a_wild_mixture_has_one_outcome_and_no_slot_is_lost() {
    on_each_store(|| {
        run_paused(async {
            let builder = builder().action::<Chaos>();
            let config =
                config().max_parallelism(8).attempt_timeout(secs(1)).default_retry(retries(3));
            let (runtime, pool) = start(builder, config).await;
            // Snoozing jobs snooze at each first attempt: leave them to be canceled.
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

/// Two threads, and eight jobs that block them for 1.5 s each.
async fn blocked_threads() -> (Runtime, Workpool) {
    let builder = Runtime::builder().worker_arbiters(2).echo().pool("quick", config());
    let builder = builder.action_fn(TASK, |n, _| async move {
        std::thread::sleep(ms(1_500));
        Ok(n)
    });
    let (runtime, pool) = start(builder, config().max_parallelism(8)).await;
    // The threads are awake, and what is made once is made.
    let first = runtime.pool("quick").unwrap().enqueue(ECHO.call(0)).await.unwrap();
    assert_eq!(first.join().await, Ok(0));
    pool.enqueue_batch((0..8).map(|n| TASK.call(n))).await.unwrap();
    (runtime, pool)
}

#[test]
fn a_quick_job_does_not_wait_for_actions_that_block_their_threads() {
    run_real(async {
        let (runtime, pool) = blocked_threads().await;
        let quick = runtime.pool("quick").unwrap();
        let mut took = Vec::new();
        let begun = Instant::now();
        while begun.elapsed() < ms(1_000) {
            let enqueued = Instant::now();
            assert_eq!(quick.enqueue(ECHO.call(1)).await.unwrap().join().await, Ok(1));
            took.push(enqueued.elapsed());
            tokio::time::sleep(ms(10)).await;
        }
        took.sort();
        let (median, longest) = (took[took.len() / 2], took[took.len() - 1]);
        // What a thread needs that is woken beside the tests of this program, and then some.
        assert!(median < ms(50) && longest < ms(1_000), "{median:?}, at most {longest:?}");
        assert_eq!(pool.pending(), 8, "they still block");
        runtime.shutdown(secs(5)).await;
    });
}

#[test]
fn attempts_that_wait_for_a_blocked_thread_begin_on_others() {
    run_real(async {
        let (runtime, pool) = blocked_threads().await;
        let begun = Instant::now();
        soon(pool.idle()).await.unwrap();
        // One after the other on two threads they would take 6 s.
        assert!(begun.elapsed() < ms(3_500), "{:?}", begun.elapsed());
        runtime.shutdown(secs(1)).await;
    });
}
