//! Enqueue: one job or a batch, ids that are used twice, delays, and the order of starts.

use std::time::{Duration, SystemTime};

use crate::common::*;
use crate::support::*;
use actix_workpool::storage::Memory;
use actix_workpool::{ActionKey, EnqueueError, WorkId, Workpool};
use tokio::time::Instant;

#[test]
fn an_enqueue_tells_whether_the_id_was_new() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool) = start(builder().echo(), config()).await;
            let [first, second, third] = ["a", "b", "c"].map(WorkId::from_name);
            let work = pool.enqueue(ECHO.call(1)).id(first).await.unwrap();
            assert!(work.is_new());
            let again = pool.enqueue(ECHO.call(1)).id(first).await.unwrap();
            assert!(!again.is_new() && !again.clone().is_new());
            work.join().await.unwrap();
            assert!(!pool.enqueue(ECHO.call(1)).id(first).await.unwrap().is_new());
            assert!(!pool.work::<u64>(first).is_new(), "it was not enqueued by this handle");
            let mut ids = [second, first, third].into_iter();
            let calls = [1, 2, 3].map(|n| ECHO.call(n));
            let batch = pool.enqueue_batch(calls).ids(|_| ids.next().unwrap()).await.unwrap();
            assert_eq!(batch.duplicates(), 1);
            let seen: Vec<_> = batch.handles().map(|work| !work.is_new()).collect();
            assert_eq!(seen, [false, true, false]);
            let fresh = pool.enqueue_batch([ECHO.call(1)]).await.unwrap();
            assert_eq!(fresh.duplicates(), 0);
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_batch_runs_in_its_order() {
    on_each_store(|| {
        run_paused(async {
            let (builder, log) = telling();
            let (runtime, pool) = start(builder, config().max_parallelism(1)).await;
            let works = pool.enqueue_batch((0..50).map(|n| TASK.call(n))).await.unwrap();
            let outcomes: Vec<_> = works.join().await.into_iter().map(Result::unwrap).collect();
            assert_eq!(outcomes, (0..50).collect::<Vec<_>>());
            assert_eq!(log.lines(), (0..50).map(|n| n.to_string()).collect::<Vec<_>>());
            let ids: Vec<_> = works.handles().map(|work| work.id()).collect();
            assert_eq!(ids, works.ids());
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn jobs_start_in_the_order_of_their_enqueues() {
    on_each_store(|| {
        run_paused(async {
            let (builder, log) = telling();
            let (runtime, pool) = start(builder, config().max_parallelism(1).paused(true)).await;
            let mut works = Vec::new();
            for n in 0..20 {
                works.push(pool.enqueue(TASK.call(n)).await.unwrap());
            }
            pool.resume().await.unwrap();
            for work in works {
                work.join().await.unwrap();
            }
            assert_eq!(log.lines(), (0..20).map(|n| n.to_string()).collect::<Vec<_>>());
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_batch_is_enqueued_whole_or_not_at_all() {
    on_each_store(|| {
        run_paused(async {
            const TEXT: ActionKey<String, usize> = ActionKey::new("text");
            let builder =
                builder().action_fn(TEXT, |text: String, _| async move { Ok(text.len()) });
            let config = config().max_payload_bytes(100).max_pending(5);
            let (runtime, pool) = start(builder, config).await;
            let sizes = [1, 2, 200, 3];
            let refused = pool
                .enqueue_batch(sizes.map(|size| TEXT.call("x".repeat(size))))
                .await
                .unwrap_err();
            assert!(
                matches!(refused, EnqueueError::TooLarge { size: 202, max: 100 }),
                "{refused:?}"
            );
            let refused = pool.enqueue_batch((0..6).map(|_| TEXT.call(String::new()))).await;
            let refused = refused.unwrap_err();
            assert!(
                matches!(refused, EnqueueError::Overloaded { pending: 0, max: 5 }),
                "{refused:?}"
            );
            assert_eq!((pool.pending(), pool.diagnostics().await.unwrap().waiting), (0, 0));
            let whole = pool.enqueue_batch((0..5).map(|_| TEXT.call(String::new()))).await.unwrap();
            assert!(whole.join().await.into_iter().all(|outcome| outcome == Ok(0)));
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn an_empty_batch_is_nothing() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool) = start(builder().echo(), config()).await;
            let nothing = pool.enqueue_batch(Vec::<actix_workpool::Call<u64, u64>>::new()).await;
            let nothing = nothing.unwrap();
            assert!(nothing.ids().is_empty() && nothing.join().await.is_empty());
            assert!(nothing.status().await.unwrap().is_empty());
            assert!(nothing.cancel().await.unwrap().is_empty());
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_batch_with_ids_that_is_repeated_enqueues_only_what_is_new() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool, gate) = gated(config()).await;
            let batch = |numbers: std::ops::Range<u64>| {
                let mut ids = numbers.clone().map(|number| id(number.into()));
                let works = numbers.map(|number| TASK.call(number));
                pool.enqueue_batch(works).ids(move |_| ids.next().unwrap())
            };
            let first = batch(0..10).await.unwrap();
            assert_eq!(first.ids(), (0..10).map(id).collect::<Vec<_>>());
            // Some wait or run, and are counted once.
            batch(5..12).await.unwrap();
            assert_eq!(pool.pending(), 12);
            gate.open();
            pool.idle().await.unwrap();
            // Some have completed.
            let again = batch(0..15).await.unwrap();
            let outcomes: Vec<_> = again.join().await.into_iter().map(Result::unwrap).collect();
            assert_eq!(outcomes, (0..15).collect::<Vec<_>>());
            assert_eq!((gate.count(), pool.pending()), (15, 0));
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn an_id_that_a_batch_has_twice_is_enqueued_once() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool) = start(builder().echo(), config()).await;
            let works = [7, 8, 9].map(|number| ECHO.call(number));
            let mut ids = [id(1), id(2), id(1)].into_iter();
            let works = pool.enqueue_batch(works).ids(|_| ids.next().unwrap()).await.unwrap();
            assert_eq!(works.join().await, [Ok(7), Ok(8), Ok(7)]);
            assert_eq!(pool.diagnostics().await.unwrap().report.succeeded, 2);
            assert_eq!(pool.pending(), 0);
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn an_id_is_enqueued_once_also_after_it_has_completed() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool, gate) = gated(config()).await;
            let first = pool.enqueue(TASK.call(1)).id(id(42)).await.unwrap();
            let again = pool.enqueue(TASK.call(2)).id(id(42)).await.unwrap();
            assert_eq!((first.id(), again.id(), pool.pending()), (id(42), id(42), 1));
            gate.entered(1).await;
            pool.enqueue(TASK.call(3)).id(id(42)).await.unwrap();
            gate.open();
            assert_eq!(first.join().await, Ok(1));
            let late = pool.enqueue(TASK.call(4)).id(id(42)).await.unwrap();
            assert_eq!((again.join().await, late.join().await), (Ok(1), Ok(1)));
            assert_eq!((gate.count(), pool.pending()), (1, 0));
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn an_id_that_is_enqueued_many_times_at_once_is_enqueued_once() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool, gate) = gated(config()).await;
            for n in 0..10 {
                pool.enqueue(TASK.call(n)).id(id(1)).do_enqueue().unwrap();
            }
            gate.entered(1).await;
            gate.open();
            assert_eq!(pool.work::<u64>(id(1)).join().await, Ok(0));
            assert_eq!((gate.count(), pool.pending()), (1, 0));
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn an_id_is_enqueued_once_across_a_restart() {
    on_each_store(|| {
        run_paused(async {
            let tables = Tables::new();
            let (runtime, pool) = start(builder().storage(tables.clone()).echo(), config()).await;
            pool.enqueue(ECHO.call(1)).id(id(9)).await.unwrap().join().await.unwrap();
            runtime.shutdown(secs(1)).await;

            let (runtime, pool) = start(builder().storage(tables).echo(), config()).await;
            assert_eq!(pool.enqueue(ECHO.call(2)).id(id(9)).await.unwrap().join().await, Ok(1));
            runtime.shutdown(secs(1)).await;
        });
    });
}

async fn delay_of(pool: &Workpool, when: impl FnOnce(&Workpool) -> WorkFuture) -> Duration {
    let begun = Instant::now();
    when(pool).await.unwrap().join().await.unwrap();
    begun.elapsed()
}

type WorkFuture = std::pin::Pin<
    Box<dyn Future<Output = Result<actix_workpool::WorkHandle<u64>, EnqueueError>> + Send>,
>;

#[test]
fn a_job_starts_when_it_is_due_and_not_before() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool) = start(builder().echo(), config()).await;
            for wait in [ms(1), ms(250), secs(61), secs(3 * 60 * 60)] {
                let took =
                    delay_of(&pool, |p| p.enqueue(ECHO.call(1)).run_after(wait).into_future())
                        .await;
                assert!(took >= wait && took <= wait + ms(5), "{took:?} for {wait:?}");
            }
            let at = SystemTime::now() + secs(100);
            let took = delay_of(&pool, |p| p.enqueue(ECHO.call(1)).run_at(at).into_future()).await;
            assert!(took > secs(99) && took < secs(101), "{took:?}");
            let past = SystemTime::UNIX_EPOCH;
            let took =
                delay_of(&pool, |p| p.enqueue(ECHO.call(1)).run_at(past).into_future()).await;
            assert!(took <= ms(5), "{took:?}");
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_job_that_is_due_sooner_overtakes_one_that_is_due_later() {
    on_each_store(|| {
        run_paused(async {
            let (builder, log) = telling();
            let (runtime, pool) = start(builder, config()).await;
            let mut works = Vec::new();
            for wait in [300, 100, 200, 0] {
                works.push(pool.enqueue(TASK.call(wait)).run_after(ms(wait)).await.unwrap());
            }
            for work in works {
                work.join().await.unwrap();
            }
            assert_eq!(log.lines(), ["0", "100", "200", "300"]);
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn do_enqueue_keeps_what_was_said_about_the_job() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool) = start(builder().echo(), config()).await;
            let begun = Instant::now();
            let work =
                pool.enqueue(ECHO.call(7)).id(id(7)).run_after(secs(9)).do_enqueue().unwrap();
            assert_eq!((work.id(), work.join().await), (id(7), Ok(7)));
            assert!(begun.elapsed() >= secs(9));
            runtime.shutdown(secs(1)).await;
        });
    });
}

/// The same mistake where jobs are started: pages of jobs that cannot run, or must not run yet, before one that can.
#[test]
fn a_job_that_can_run_is_seen_behind_pages_of_those_that_cannot() {
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
