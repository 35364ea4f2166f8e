//! Pools and their configuration, changed at run time.

use crate::common::*;
use crate::support::*;
use actix_workpool::{PoolError, RuntimeBuilder, WorkError, WorkStatus};

#[test]
fn no_more_run_at_once_than_are_allowed_while_that_changes() {
    on_each_store(|| {
        run_paused(async {
            let crowd = Crowd::default();
            let inside = crowd.clone();
            let builder = builder().action_fn(NAP, move |millis, _| {
                let inside = inside.enter();
                async move {
                    tokio::time::sleep(ms(millis)).await;
                    drop(inside);
                    Ok(millis)
                }
            });
            let (runtime, pool) = start(builder, config().max_parallelism(3)).await;
            let works = pool.enqueue_batch((0..40).map(|_| NAP.call(100))).await.unwrap();
            tokio::time::sleep(ms(50)).await;
            assert_eq!(crowd.inside(), 3);
            pool.update(config().max_parallelism(7)).await.unwrap();
            assert_eq!(pool.settings().max_parallelism, 7);
            tokio::time::sleep(ms(10)).await;
            assert_eq!(crowd.inside(), 7);
            pool.update(config().max_parallelism(2)).await.unwrap();
            assert_eq!(crowd.inside(), 7, "what runs goes on");
            tokio::time::sleep(ms(300)).await;
            assert_eq!(crowd.inside(), 2);
            pool.update(config().max_parallelism(0)).await.unwrap();
            tokio::time::sleep(secs(1)).await;
            assert_eq!(crowd.inside(), 0);
            assert!(pool.pending() > 0);
            pool.update(config().max_parallelism(5)).await.unwrap();
            assert!(works.join().await.into_iter().all(|outcome| outcome == Ok(100)));
            assert_eq!(crowd.most(), 7);
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_paused_pool_takes_jobs_and_starts_none() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool, gate) = gated(config()).await;
            let running = pool.enqueue(TASK.call(1)).await.unwrap();
            gate.entered(1).await;
            pool.pause().await.unwrap();
            let waiting = pool.enqueue(TASK.call(2)).await.unwrap();
            gate.open();
            assert_eq!(running.join().await, Ok(1));
            tokio::time::sleep(secs(60)).await;
            assert!(matches!(waiting.status().await.unwrap(), WorkStatus::Pending { .. }));
            assert_eq!(pool.settings().max_parallelism, 10);
            pool.resume().await.unwrap();
            assert_eq!(waiting.join().await, Ok(2));
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn an_update_that_is_out_of_range_changes_nothing() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool) = start(builder().echo(), config().max_parallelism(3)).await;
            let refused = pool.update(config().max_parallelism(usize::MAX).paused(true)).await;
            assert!(matches!(refused, Err(PoolError::Config(_))), "{refused:?}");
            assert_eq!((pool.settings().max_parallelism, pool.settings().paused), (3, false));
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn the_builder_wins_over_the_store_and_what_it_leaves_unset_is_kept() {
    on_each_store(|| {
        run_paused(async {
            let tables = Tables::new();
            let first = config().max_parallelism(3).max_pending(50).default_retry(retries(2));
            let (runtime, pool) = start(builder().storage(tables.clone()).echo(), first).await;
            pool.update(config().attempt_timeout(secs(8)).max_pending(60)).await.unwrap();
            runtime.shutdown(secs(1)).await;

            let second = config().max_parallelism(4).no_default_retry();
            let (runtime, pool) = start(builder().storage(tables.clone()).echo(), second).await;
            let settings = pool.settings();
            assert_eq!((settings.max_parallelism, settings.max_pending), (4, 60));
            assert_eq!((settings.attempt_timeout, settings.default_retry), (Some(secs(8)), None));
            runtime.shutdown(secs(1)).await;

            let (runtime, pool) = start(builder().storage(tables).echo(), config()).await;
            assert_eq!(*pool.settings(), *settings);
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_new_setting_counts_for_what_is_enqueued_next() {
    on_each_store(|| {
        run_paused(async {
            let builder = builder()
                .action_fn(TASK, |_, _| async { Err::<u64, _>(WorkError::retryable("no")) });
            let (runtime, pool) = start(builder, config()).await;
            pool.update(config().default_retry(retries(3))).await.unwrap();
            assert_eq!(attempts(pool.enqueue(TASK.call(0)).await.unwrap().join().await), 3);
            pool.update(config().no_default_retry()).await.unwrap();
            assert_eq!(attempts(pool.enqueue(TASK.call(0)).await.unwrap().join().await), 1);
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn pools_over_one_store_do_not_wait_for_each_other() {
    on_each_store(|| {
        run_paused(async {
            let gate = Gate::new();
            let at = gate.clone();
            let builder = builder()
                .echo()
                .action_fn(TASK, move |n, _| {
                    let gate = at.clone();
                    async move {
                        gate.pass().await;
                        Ok(n)
                    }
                })
                .pool("slow", config().max_parallelism(1))
                .pool("fast", config());
            let runtime = builder.start().await.unwrap();
            let (slow, fast) = (runtime.pool("slow").unwrap(), runtime.pool("fast").unwrap());
            let stuck = slow.enqueue_batch((0..3).map(|n| TASK.call(n))).await.unwrap();
            gate.entered(1).await;
            let quick = fast.enqueue_batch((0..100).map(|n| ECHO.call(n))).await.unwrap();
            assert!(quick.join().await.into_iter().all(|outcome| outcome.is_ok()));
            assert_eq!((slow.pending(), fast.pending(), gate.count()), (3, 0, 1));
            let names: Vec<_> =
                runtime.pools().iter().map(|pool| pool.name().to_string()).collect();
            assert_eq!(names, ["fast", "slow"]);
            // Ids are known in every pool.
            let WorkStatus::Finished(_) = slow.status(quick.ids()[0]).await.unwrap() else {
                panic!("unknown")
            };
            gate.open();
            stuck.join().await;
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_pool_is_created_at_run_time_once() {
    on_each_store(|| {
        run_paused(async {
            let tables = Tables::new();
            let runtime = builder().storage(tables.clone()).echo().start().await.unwrap();
            assert!(matches!(runtime.pool("new"), Err(PoolError::Unknown { .. })));
            let pool = runtime.create_pool("new", config().max_parallelism(3)).await.unwrap();
            assert_eq!(pool.enqueue(ECHO.call(1)).await.unwrap().join().await, Ok(1));
            let again = runtime.create_pool("new", config()).await.unwrap_err();
            assert_eq!(again.to_string(), "pool new exists already");
            let (a, b) = tokio::join!(
                runtime.create_pool("x", config()),
                runtime.create_pool("x", config())
            );
            assert_eq!(u8::from(a.is_ok()) + u8::from(b.is_ok()), 1);
            let waiting = pool.enqueue(ECHO.call(2)).run_after(secs(5)).await.unwrap();
            runtime.shutdown(secs(1)).await;

            // It is still there, with its jobs and its configuration.
            let runtime = builder().storage(tables).echo().start().await.unwrap();
            let pool = runtime.create_pool("new", config()).await.unwrap();
            assert_eq!((pool.settings().max_parallelism, pool.pending()), (3, 1));
            assert_eq!(pool.work::<u64>(waiting.id()).join().await, Ok(2));
            runtime.shutdown(secs(1)).await;
        });
    });
}

/// An action at a gate, and how many of it are inside.
fn crowded(builder: RuntimeBuilder, gate: &Gate, crowd: &Crowd) -> RuntimeBuilder {
    let (gate, crowd) = (gate.clone(), crowd.clone());
    builder.action_fn(TASK, move |n, _| {
        let (gate, crowd) = (gate.clone(), crowd.clone());
        async move {
            let _inside = crowd.enter();
            gate.pass().await;
            Ok(n)
        }
    })
}

#[test]
fn an_update_that_the_storage_refused_is_not_in_force_afterwards() {
    run_paused(async {
        let (storage, gate, crowd) = (Faulty::new(), Gate::new(), Crowd::default());
        let builder = || crowded(builder().storage(storage.clone()), &gate, &crowd);
        let (runtime, pool) = start(builder(), config().max_parallelism(1)).await;
        storage.fail_next(Fault::Refused, configures);
        let works = pool.enqueue_batch((0..4).map(|n| TASK.call(n))).await.unwrap();
        gate.entered(1).await;
        let refused = pool.update(config().max_parallelism(3).max_pending(5)).await;
        assert!(matches!(refused, Err(PoolError::Storage(_))), "{refused:?}");
        tokio::time::sleep(secs(10)).await;
        let settings = pool.settings();
        assert_eq!((settings.max_parallelism, settings.max_pending), (1, 10_000_000));
        assert_eq!((storage.hits(), crowd.most()), (1, 1));
        gate.open();
        assert!(works.join().await.iter().all(Result::is_ok));
        assert_eq!(crowd.most(), 1);
        runtime.shutdown(secs(1)).await;
        let (runtime, pool) = start(builder(), config()).await;
        assert_eq!(pool.settings().max_parallelism, 1);
        runtime.shutdown(secs(1)).await;
    });
}

#[test]
fn an_update_that_is_made_while_the_pool_is_claimed_anew_holds() {
    run_in_turn(async {
        let (storage, gate, crowd) = (Faulty::new(), Gate::new(), Crowd::default());
        let builder = || crowded(builder().storage(storage.clone()), &gate, &crowd);
        let (runtime, pool) = start(builder(), config().max_parallelism(1)).await;
        storage.fail_next(Fault::Refused, starts);
        let works = pool.enqueue_batch((0..4).map(|n| TASK.call(n)));
        let works = works.await.unwrap();
        until_hit(&storage).await;
        // The loop has heard of it, and waits before it claims the pool.
        steps(10).await;
        soon(pool.update(config().max_parallelism(3))).await.unwrap();
        assert_eq!(pool.settings().max_parallelism, 3);
        gate.entered(3).await;
        settle().await;
        assert_eq!(crowd.inside(), 3);
        gate.open();
        assert!(works.join().await.iter().all(Result::is_ok));
        assert_eq!(crowd.most(), 3);
        runtime.shutdown(secs(1)).await;
        let (runtime, pool) = start(builder(), config()).await;
        assert_eq!(pool.settings().max_parallelism, 3);
        runtime.shutdown(secs(1)).await;
    });
}
