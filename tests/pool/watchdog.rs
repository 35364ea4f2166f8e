//! The watchdog: turns that are answered late or never.

use std::future::IntoFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::common::*;
use crate::support::*;
use actix_workpool::PoolError;
use actix_workpool::model::PoolId;
use actix_workpool::storage::Storage;
use actix_workpool::testing::network::{Delivery, Letter};
use tokio::time::Instant;

#[test]
fn a_turn_that_is_not_answered_for_long_is_given_up_and_its_job_still_runs_once() {
    run_paused(async {
        let (mut storage, gate) = (Hooked::new(true), Gate::new());
        let at = gate.clone();
        let builder = builder().storage(storage.clone()).action_fn(TASK, move |n, _| {
            at.enter();
            async move { Ok(n) }
        });
        let (runtime, pool) = awake(start(builder, config())).await;
        let (held, release) = storage.hold_starts();
        let work = awake(pool.enqueue(TASK.call(7)).into_future()).await.unwrap();
        awake(held.entered(1)).await;
        let before = storage.tables.state(PoolId(0)).unwrap().generation;
        // The time passes that no turn takes; the thread of the storage stands still all the while.
        tokio::time::sleep(secs(60)).await;
        drop(release);
        assert_eq!(awake(work.join()).await, Ok(7));
        assert_eq!(gate.count(), 1, "what the given-up turn started was not launched twice");
        let after = storage.tables.state(PoolId(0)).unwrap().generation;
        assert!(after > before, "the loop has a new generation: {after} after {before}");
        let report = awake(pool.diagnostics()).await.unwrap().report;
        assert_eq!((report.completed, report.succeeded), (1, 1), "{report:?}");
        storage.unhook();
        awake(runtime.shutdown(secs(1))).await;
    });
}

/// Answers to turns are late.
fn late_answers(on: &Arc<AtomicBool>) -> Astray {
    let delivery = Delivery { after: secs(60), again: None };
    Astray { letter: Letter::Batch, delivery, on: on.clone() }
}

#[test]
fn a_change_of_the_configuration_whose_turn_is_given_up_is_answered_by_what_the_tables_say() {
    run_paused(async {
        let late = Arc::new(AtomicBool::new(false));
        let builder = builder().echo().courier(late_answers(&late));
        let (runtime, pool) = start(builder, config()).await;
        late.store(true, Ordering::SeqCst);
        let asked = Instant::now();
        let update = actix::spawn({
            let pool = pool.clone();
            async move { pool.update(config().max_parallelism(7)).await }
        });
        tokio::time::sleep(secs(1)).await;
        late.store(false, Ordering::SeqCst);
        // It was committed at once; the loop gives the turn up and finds that out.
        assert!(matches!(update.await.unwrap(), Ok(())));
        let took = asked.elapsed();
        assert!((secs(30)..secs(60)).contains(&took), "{took:?}");
        assert_eq!(pool.settings().max_parallelism, 7);
        assert_eq!(pool.diagnostics().await.unwrap().spare_capacity, 7);
        // The answer that comes in the end is that to a turn of an earlier generation.
        tokio::time::sleep(secs(60)).await;
        assert_eq!(pool.enqueue(ECHO.call(1)).await.unwrap().join().await, Ok(1));
        runtime.shutdown(secs(1)).await;
    });
}

#[test]
fn a_kick_that_overtakes_the_answer_to_a_failed_turn_does_not_pass_for_its_receipt() {
    run_paused(async {
        let late = Arc::new(AtomicBool::new(false));
        let storage = Faulty::new();
        let builder = builder().storage(storage.clone()).echo().courier(late_answers(&late));
        let (runtime, pool) = start(builder, config().max_parallelism(3)).await;
        storage.fail_next(Fault::Refused, configures);
        late.store(true, Ordering::SeqCst);
        let update = actix::spawn({
            let pool = pool.clone();
            async move { pool.update(config().max_parallelism(7)).await }
        });
        until_hit(&storage).await;
        late.store(false, Ordering::SeqCst);
        let work = pool.enqueue(ECHO.call(1)).await.unwrap();
        assert!(matches!(update.await.unwrap(), Err(PoolError::Storage(_))));
        assert_eq!(pool.settings().max_parallelism, 3);
        assert_eq!(work.join().await, Ok(1));
        runtime.shutdown(secs(1)).await;
    });
}
