//! Shutdowns, and what the next runtime finds.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::common::*;
use crate::support::*;
use actix_workpool::storage::{Memory, Storage, StorageError};
use actix_workpool::{
    ActionKey, Completion, EnqueueError, OnComplete, Runtime, RuntimeBuilder, Transaction,
    WorkError, WorkId, WorkStatus,
};
use tokio::time::{Instant, timeout};

#[test]
fn a_shutdown_waits_for_what_runs_and_starts_nothing_more() {
    on_each_store(|| {
        run_paused(async {
            let builder = builder().action_fn(NAP, |millis, _| async move {
                tokio::time::sleep(ms(millis)).await;
                Ok(millis)
            });
            let (runtime, pool) = start(builder, config().max_parallelism(2)).await;
            let works = pool.enqueue_batch((0..5).map(|_| NAP.call(3_000))).await.unwrap();
            tokio::time::sleep(secs(1)).await;
            let begun = Instant::now();
            let report = runtime.shutdown(secs(10)).await;
            assert_eq!((report.finished, report.returned, report.pending), (2, 0, 3));
            assert!(begun.elapsed() < secs(3), "it does not wait for the grace to pass");
            assert_eq!(runtime.shutdown(secs(10)).await, report, "a second one answers the same");
            assert!(pool.status(works.ids()[0]).await.unwrap().is_final());
        });
    });
}

#[test]
fn an_attempt_that_a_shutdown_interrupts_is_returned_without_counting_and_runs_again() {
    on_each_store(|| {
        // One function ends when it is told, the other has to be dropped.
        for stubborn in [false, true] {
            run_paused(async move {
                let (tables, gate) = (Tables::new(), Gate::new());
                let builder = || {
                    let at = gate.clone();
                    builder().storage(tables.clone()).action_fn(TASK, move |n, cx| {
                        at.enter();
                        let first = at.count() == 1;
                        async move {
                            match (first, stubborn) {
                                (false, _) => return Ok(n + u64::from(cx.attempt())),
                                (true, true) => std::future::pending().await,
                                (true, false) => cx.canceled().await,
                            }
                            Err(WorkError::canceled())
                        }
                    })
                };
                let (runtime, pool) = start(builder(), config()).await;
                let work = pool.enqueue(TASK.call(10)).await.unwrap();
                gate.entered(1).await;
                let begun = Instant::now();
                let report = runtime.shutdown(secs(2)).await;
                assert_eq!((report.finished, report.returned, report.pending), (0, 1, 1));
                assert!(begun.elapsed() >= secs(2) && begun.elapsed() < secs(5));

                let (runtime, pool) = start(builder(), config()).await;
                assert_eq!(pool.work::<u64>(work.id()).join().await, Ok(11), "attempt 1 again");
                runtime.shutdown(secs(1)).await;
            });
        }
    });
}

#[test]
fn an_attempt_that_finishes_when_a_shutdown_tells_it_counts_as_finished() {
    on_each_store(|| {
        run_paused(async {
            let gate = Gate::new();
            let at = gate.clone();
            let builder = builder().action_fn(TASK, move |n, cx| {
                at.enter();
                async move {
                    cx.canceled().await;
                    Ok(n)
                }
            });
            let (runtime, pool) = start(builder, config()).await;
            let work = pool.enqueue(TASK.call(1)).await.unwrap();
            gate.entered(1).await;
            let report = runtime.shutdown(secs(2)).await;
            assert_eq!(work.join().await, Ok(1));
            assert_eq!((report.finished, report.returned, report.pending), (1, 0, 0));
        });
    });
}

#[test]
fn jobs_that_wait_are_continued_by_the_next_runtime() {
    on_each_store(|| {
        run_paused(async {
            let tables = Tables::new();
            let builder = || builder().storage(tables.clone()).echo().mutation::<Deposit>();
            let (runtime, pool) = start(builder(), config().paused(true)).await;
            let echoes = pool.enqueue_batch((0..30).map(|n| ECHO.call(n))).await.unwrap();
            let deposit = Deposit { account: "a".into(), amount: 4 };
            let deposit = pool.enqueue(deposit).run_after(secs(50)).await.unwrap();
            let report = runtime.shutdown(secs(1)).await;
            assert_eq!((report.finished, report.returned, report.pending), (0, 0, 31));

            let begun = Instant::now();
            let (runtime, pool) = start(builder(), config().paused(false)).await;
            assert!(pool.pending() >= 1, "the deposit is not due");
            for (n, id) in echoes.ids().iter().enumerate() {
                assert_eq!(pool.work::<u64>(*id).join().await, Ok(n as u64));
            }
            assert_eq!(pool.work::<u64>(deposit.id()).join().await, Ok(4));
            assert!(begun.elapsed() >= secs(49), "not before it is due");
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn outcomes_are_remembered_by_the_next_runtime() {
    on_each_store(|| {
        run_paused(async {
            let tables = Tables::new();
            let (runtime, pool) = start(builder().storage(tables.clone()).echo(), config()).await;
            let work = pool.enqueue(ECHO.call(3)).await.unwrap();
            work.join().await.unwrap();
            runtime.shutdown(secs(1)).await;
            let (runtime, pool) = start(builder().storage(tables).echo(), config()).await;
            assert!(matches!(pool.status(work.id()).await.unwrap(), WorkStatus::Finished(_)));
            assert_eq!(pool.work::<u64>(work.id()).join().await, Ok(3));
            assert_eq!(pool.diagnostics().await.unwrap().report.succeeded, 1);
            runtime.shutdown(secs(1)).await;
        });
    });
}

/// An action whose first attempt never ends, and whose next one answers its number.
fn endless_at_first(builder: RuntimeBuilder, gate: &Gate) -> RuntimeBuilder {
    let gate = gate.clone();
    builder.action_fn(TASK, move |_, cx| {
        let gate = gate.clone();
        async move {
            gate.enter();
            if gate.count() == 1 {
                std::future::pending::<()>().await;
            }
            Ok(u64::from(cx.attempt()))
        }
    })
}

#[test]
fn a_shutdown_without_grace_ends_wherever_the_start_of_a_job_is_then() {
    let (withheld, started) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    for phase in PHASES {
        let (withheld, started) = (withheld.clone(), started.clone());
        run_in_turn(async move {
            let (tables, gate) = (Memory::new(), Gate::new());
            let builder = || endless_at_first(builder().storage(tables.clone()), &gate);
            let (runtime, pool) = start(builder(), config()).await;
            let work = pool.do_enqueue(TASK.call(1)).unwrap();
            steps(phase).await;
            let begun = Instant::now();
            let report = runtime.shutdown(Duration::ZERO).await;
            assert!(begun.elapsed() < secs(2), "phase {phase} took {:?}", begun.elapsed());
            assert_eq!(report.pending, 1, "phase {phase}");
            match (gate.count(), report.returned) {
                (0, 0) => gate.enter(),
                (0, 1) => {
                    gate.enter();
                    withheld.fetch_add(1, Ordering::SeqCst);
                }
                (1, 1) => drop(started.fetch_add(1, Ordering::SeqCst)),
                other => panic!("(started, returned) is {other:?} in phase {phase}"),
            }

            let (runtime, pool) = start(builder(), config()).await;
            let joined = soon(pool.work::<u64>(work.id()).join()).await;
            assert_eq!(joined, Ok(1), "no attempt counts, phase {phase}");
            runtime.shutdown(secs(1)).await;
        });
    }
    let (withheld, started) = (withheld.load(Ordering::SeqCst), started.load(Ordering::SeqCst));
    assert!(withheld > 0 && started > 0, "{withheld} were withheld, {started} had started");
}

#[test]
fn a_shutdown_while_the_commit_of_a_start_is_in_flight_returns_the_job() {
    run_real(async {
        let (storage, gate) = (Hooked::new(true), Gate::new());
        let builder = || endless_at_first(builder().storage(storage.clone()), &gate);
        let (runtime, pool) = start(builder(), config()).await;
        let (held, release) = storage.hold_starts();
        let work = pool.enqueue(TASK.call(1)).await.unwrap();
        held.entered(1).await;
        let mut shutdown = std::pin::pin!(runtime.shutdown(Duration::ZERO));
        let early = timeout(ms(50), &mut shutdown).await;
        assert!(early.is_err(), "it cannot end before the commit has");
        drop(release);
        let report = timeout(secs(5), shutdown).await.expect("it ends when the commit has");
        assert_eq!((report.returned, report.pending, gate.count()), (1, 1, 0));

        storage.unhook();
        gate.enter();
        let (runtime, pool) = start(builder(), config()).await;
        assert_eq!(soon(pool.work::<u64>(work.id()).join()).await, Ok(1));
        runtime.shutdown(secs(1)).await;
    });
}

#[test]
fn a_shutdown_counts_what_ended_whatever_else_is_returned() {
    for phase in PHASES {
        run_in_turn(async move {
            let gate = Gate::new();
            let at = gate.clone();
            let builder = builder().action_fn(TASK, move |n, cx| {
                let gate = at.clone();
                async move {
                    gate.enter();
                    match n {
                        1 => cx.canceled().await,
                        _ => std::future::pending().await,
                    }
                    Ok(n)
                }
            });
            let (runtime, pool) = start(builder, config()).await;
            let ends = pool.enqueue(TASK.call(1)).await.unwrap();
            gate.entered(1).await;
            let _never_ends = pool.do_enqueue(TASK.call(2)).unwrap();
            steps(phase).await;
            let report = runtime.shutdown(Duration::ZERO).await;
            assert_eq!(ends.join().await, Ok(1));
            assert_eq!((report.finished, report.pending), (1, 1), "phase {phase}: {report:?}");
        });
    }
}

struct Relayed;

impl OnComplete for Relayed {
    const NAME: &'static str = "relayed";
    type Context = WorkId;
    type Output = u64;

    fn apply(tx: &mut Transaction<'_>, done: Completion<WorkId, u64>) -> Result<(), WorkError> {
        relay(tx, done.context)
    }
}

#[test]
fn transactions_enqueue_into_other_pools_also_while_a_shutdown_waits() {
    run_in_turn(async {
        let (storage, gate) = (Faulty::new(), Gate::new());
        let builder = || {
            let gate = gate.clone();
            let builder = builder().storage(storage.clone()).echo().mutation::<Relay>();
            builder.on_complete::<Relayed>().pool("q", config()).action_fn(TASK, move |n, _| {
                let gate = gate.clone();
                async move {
                    gate.pass().await;
                    Ok(n)
                }
            })
        };
        let (runtime, pool) = start(builder(), config()).await;
        let action = pool.enqueue(TASK.call(1)).on_complete::<Relayed>(id(1)).await.unwrap();
        gate.entered(1).await;
        // The mutation is applied a second time, after a pause in which the shutdown begins.
        storage.fail_next(Fault::Refused, reports);
        let mutation = pool.do_enqueue(Relay(id(2))).unwrap();
        until_hit(&storage).await;
        let (report, ()) = tokio::join!(biased; runtime.shutdown(secs(60)), async {
            let late = pool.do_enqueue(ECHO.call(1));
            assert!(matches!(late, Err(EnqueueError::Closed)), "{late:?}");
            assert!(!matches!(mutation.status().await, Ok(WorkStatus::Finished(_))));
            gate.open();
        });
        assert_eq!(report.pending, 2, "what was enqueued waits for the next runtime");
        assert_eq!(action.join().await, Ok(1));
        assert_eq!(mutation.join().await, Ok(()));

        let (runtime, pool) = start(builder(), config()).await;
        assert_eq!(pool.pending(), 0, "no `on_complete` became a job of its own");
        for number in [1, 2] {
            let relayed = runtime.pool("q").unwrap().work::<u64>(id(number));
            assert_eq!(soon(relayed.join()).await, Ok(7), "{number}");
        }
        runtime.shutdown(secs(1)).await;
    });
}

#[test]
fn a_function_that_stops_because_of_a_shutdown_does_not_cancel_its_job() {
    // How long the function takes to stop; after half a second it is dropped.
    for delay in [0, 1, 499, 500, 501, 600] {
        run_paused(async move {
            let (tables, gate) = (Memory::new(), Gate::new());
            let builder = || {
                let gate = gate.clone();
                builder().storage(tables.clone()).action_fn(TASK, move |delay, cx| {
                    let gate = gate.clone();
                    async move {
                        gate.enter();
                        if gate.count() > 1 {
                            return Ok(u64::from(cx.attempt()));
                        }
                        cx.canceled().await;
                        tokio::time::sleep(ms(delay)).await;
                        Err(WorkError::canceled())
                    }
                })
            };
            let (runtime, pool) = start(builder(), config()).await;
            let work = pool.enqueue(TASK.call(delay)).await.unwrap();
            gate.entered(1).await;
            let report = runtime.shutdown(Duration::ZERO).await;
            assert_eq!((report.returned, report.pending), (1, 1), "after {delay} ms");

            let (runtime, pool) = start(builder(), config()).await;
            let joined = soon(pool.work::<u64>(work.id()).join()).await;
            assert_eq!(joined, Ok(1), "after {delay} ms");
            runtime.shutdown(secs(1)).await;
        });
    }
}

#[test]
fn a_function_that_stops_just_when_it_is_to_be_dropped_does_not_cancel_its_job() {
    run_real(async {
        let (tables, gate) = (Memory::new(), Gate::new());
        let builder = || {
            let gate = gate.clone();
            let builder = Runtime::builder().worker_arbiters(1).storage(tables.clone());
            builder.action_fn(TASK, move |_, cx| {
                let gate = gate.clone();
                async move {
                    gate.enter();
                    if gate.count() > 1 {
                        return Ok(u64::from(cx.attempt()));
                    }
                    while !cx.is_canceled() {
                        std::thread::yield_now();
                    }
                    // It keeps its thread while the notice of half a second ends, and then stops of itself.
                    std::thread::sleep(ms(700));
                    Err(WorkError::canceled())
                }
            })
        };
        let (runtime, pool) = start(builder(), config()).await;
        let work = pool.enqueue(TASK.call(1)).await.unwrap();
        gate.entered(1).await;
        let report = runtime.shutdown(Duration::ZERO).await;
        assert_eq!((report.returned, report.pending), (1, 1));

        let (runtime, pool) = start(builder(), config()).await;
        assert_eq!(soon(pool.work::<u64>(work.id()).join()).await, Ok(1));
        runtime.shutdown(secs(1)).await;
    });
}

#[test]
fn a_report_that_a_failing_store_has_not_taken_is_tried_again_while_it_closes() {
    run_paused(async {
        let mut storage = Faulty::new();
        let gate = Gate::new();
        let (key, waits) = (ActionKey::<(), ()>::new("waits"), gate.clone());
        let builder = builder().storage(storage.clone()).action_fn(key, move |(), _| {
            let gate = waits.clone();
            async move {
                gate.pass().await;
                Ok(())
            }
        });
        let (runtime, pool) = start(builder, config()).await;
        let work = pool.enqueue(key.call(())).await.unwrap().id();
        gate.entered(1).await;
        storage.fail_reads(true);
        gate.open();
        settle().await;
        // The loop gives up: the store is to be closed, and holds the report still.
        let ending = actix::spawn(async move { runtime.shutdown(Duration::ZERO).await });
        tokio::time::sleep(secs(3)).await;
        assert!(!ending.is_finished());
        storage.fail_reads(false);
        ending.await.unwrap();
        storage.open().unwrap();
        let fact = storage.facts(&[work]).unwrap().remove(0).unwrap();
        assert!(fact.pending_completion.is_some(), "{fact:?}");
    });
}

#[test]
fn a_shutdown_keeps_its_grace_although_the_storage_fails_for_a_moment() {
    run_paused(async {
        let storage = Hooked::new(false);
        let builder = builder().storage(storage.clone()).action_fn(TASK, |seconds, _| async move {
            tokio::time::sleep(secs(seconds)).await;
            Ok(seconds)
        });
        let (runtime, pool) = start(builder, config()).await;
        let batch = pool.enqueue_batch([TASK.call(5), TASK.call(20)]).await.unwrap();
        // The turn that completes the first job is refused, and so is the claim that follows.
        let refused = Arc::new(AtomicUsize::new(0));
        let counted = refused.clone();
        storage.before_each_call(move |call| match call {
            Call::Commit(changes, _)
                if changes.iter().any(|it| completes(it) || configures(it)) =>
            {
                match counted.fetch_add(1, Ordering::SeqCst) {
                    0 | 1 => Err(StorageError::Unavailable("for a moment".into())),
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        });
        steps(100).await;
        let report = runtime.shutdown(secs(60)).await;
        assert!(refused.load(Ordering::SeqCst) > 2);
        assert_eq!((report.finished, report.returned, report.pending), (2, 0, 0), "{batch:?}");
    });
}

#[test]
fn a_start_that_is_dropped_midway_leaves_the_storage_free() {
    run_in_turn(async {
        let tables = Memory::new();
        let builder = || builder().storage(tables.clone()).worker_arbiters(0).echo();
        for polls in 1..20 {
            let mut midway = Box::pin(builder().start());
            for _ in 0..polls {
                let mut polled = None;
                std::future::poll_fn(|cx| {
                    polled = Some(midway.as_mut().poll(cx).is_ready());
                    std::task::Poll::Ready(())
                })
                .await;
                if polled == Some(true) {
                    break;
                }
                steps(1).await;
            }
            drop(midway);
            settle().await;
            let (runtime, pool) = start(builder(), config()).await;
            works(&pool).await;
            runtime.shutdown(secs(1)).await;
        }
    });
}
