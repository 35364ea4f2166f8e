//! A wait that is ended by hand.

use std::time::Duration;

use crate::common::*;
use actix_workpool::{
    PoolConfig, PoolError, RetryBehavior, RunNowAnswer, RuntimeBuilder, WorkError, WorkId,
    WorkStatus,
};

/// `TASK` fails as often as its argument says; 0 waits at the gate.
fn functions(builder: RuntimeBuilder, gate: &Gate) -> RuntimeBuilder {
    task(builder, gate, |n, cx| async move {
        match u64::from(cx.attempt()) {
            attempt if attempt <= n => Err(WorkError::retryable("no luck")),
            attempt => Ok(attempt),
        }
    })
}

fn config() -> PoolConfig {
    PoolConfig::default().max_parallelism(1)
}

const HOUR: Duration = Duration::from_secs(3_600);

#[test]
fn a_delayed_job_runs_now() {
    on_each_store(|| {
        run_paused(async {
            let gate = Gate::new();
            let (runtime, pool) = start(functions(builder(), &gate), config()).await;
            let before = tokio::time::Instant::now();
            let works = [HOUR, 2 * HOUR].map(|delay| pool.enqueue(TASK.call(0)).run_after(delay));
            let [first, second] = works;
            let (first, second) = (first.await.unwrap(), second.await.unwrap());
            settle().await;
            let run_now = async |work_id: WorkId| pool.run_now(work_id).await.unwrap();
            assert_eq!(run_now(second.id()).await, RunNowAnswer::Moved);
            gate.entered(1).await;
            assert_eq!(run_now(second.id()).await, RunNowAnswer::Running);

            // The slot is taken: it is due, and waits on.
            assert_eq!(run_now(first.id()).await, RunNowAnswer::Moved);
            assert_eq!(run_now(first.id()).await, RunNowAnswer::AlreadyDue);
            let status = first.status().await.unwrap();
            assert!(
                matches!(status, WorkStatus::Pending { previous_attempts: 0, .. }),
                "{status:?}"
            );
            gate.open();
            soon(first.join()).await.unwrap();
            assert!(before.elapsed() < secs(60));
            assert_eq!(run_now(first.id()).await, RunNowAnswer::AlreadyFinished);
            assert_eq!(
                run_now(WorkId::from_uuid(uuid::Uuid::from_u128(7))).await,
                RunNowAnswer::NotFound
            );
            runtime.shutdown(secs(0)).await;
            assert!(matches!(pool.run_now(first.id()).await, Err(PoolError::Closed)));
        });
    });
}

#[test]
fn a_retry_does_not_wait_any_longer_and_counts_as_ever() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool) = start(functions(builder(), &Gate::new()), config()).await;
            let retry = RetryBehavior::default().max_attempts(3).initial_backoff(HOUR);
            let work = pool.enqueue(TASK.call(2)).retry(retry).await.unwrap();
            let before = tokio::time::Instant::now();
            for failed in 1..=2 {
                settle().await;
                let status = work.status().await.unwrap();
                let WorkStatus::Pending { previous_attempts, .. } = status else {
                    panic!("{status:?}")
                };
                assert_eq!(previous_attempts, failed);
                assert_eq!(pool.run_now(work.id()).await.unwrap(), RunNowAnswer::Moved);
            }
            assert_eq!(soon(work.join()).await.unwrap(), 3);
            assert!(before.elapsed() < secs(60));
            runtime.shutdown(secs(0)).await;
        });
    });
}

#[test]
fn what_is_paused_canceled_or_not_registered_is_not_started() {
    on_each_store(|| {
        run_paused(async {
            let tables = Tables::new();
            let gate = Gate::new();
            let first = builder().storage(tables.clone()).pool("p", config());
            let runtime = functions(first, &gate).start().await.unwrap();
            let pool = runtime.pool("p").unwrap();
            pool.pause().await.unwrap();
            let canceled = pool.enqueue(TASK.call(1)).run_after(HOUR).await.unwrap();
            let kept = pool.enqueue(TASK.call(1)).run_after(HOUR).await.unwrap();
            let (cancel, answer) = tokio::join!(canceled.cancel(), pool.run_now(canceled.id()));
            cancel.unwrap();
            let is_gone =
                [RunNowAnswer::Canceled, RunNowAnswer::AlreadyFinished].contains(&answer.unwrap());
            assert!(is_gone);
            assert!(soon(canceled.join()).await.is_err());
            assert_eq!(pool.run_now(kept.id()).await.unwrap(), RunNowAnswer::Moved);
            settle().await;
            assert!(matches!(kept.status().await.unwrap(), WorkStatus::Pending { .. }));
            runtime.shutdown(secs(0)).await;

            let runtime = builder().storage(tables.clone()).pool("p", config().paused(false));
            let runtime = runtime.start().await.unwrap();
            let pool = runtime.pool("p").unwrap();
            settle().await;
            assert_eq!(pool.run_now(kept.id()).await.unwrap(), RunNowAnswer::NotRegistered);
            runtime.shutdown(secs(0)).await;
        });
    });
}

#[test]
fn a_move_whose_answer_was_lost_is_found() {
    on_each_store(|| {
        run_paused(async {
            let storage = Faulty::new();
            let builder = functions(builder().storage(storage.clone()), &Gate::new());
            let (runtime, pool) = start(builder, config()).await;
            pool.pause().await.unwrap();
            let work = pool.enqueue(TASK.call(0)).run_after(HOUR).await.unwrap();
            settle().await;
            storage.fail_commit(storage.commits() + 1, Fault::Refused);
            assert!(matches!(pool.run_now(work.id()).await, Err(PoolError::Storage(_))));
            storage.fail_commit(storage.commits() + 1, Fault::AnswerLost);
            assert_eq!(pool.run_now(work.id()).await.unwrap(), RunNowAnswer::Moved);
            assert_eq!(pool.run_now(work.id()).await.unwrap(), RunNowAnswer::AlreadyDue);
            runtime.shutdown(secs(0)).await;
        });
    });
}

#[test]
fn who_watches_a_job_is_told_when_it_is_due_now() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool) =
                start(functions(builder(), &Gate::new()), config().paused(true)).await;
            let work = pool.enqueue(TASK.call(1)).run_after(HOUR).await.unwrap();
            let mut watch = work.watch();
            let mut due = async || match soon(watch.next()).await {
                Some(WorkStatus::Pending { previous_attempts: 0, due: Some(due) }) => due,
                told => panic!("{told:?}"),
            };
            let before = due().await;
            assert_eq!(pool.run_now(work.id()).await.unwrap(), RunNowAnswer::Moved);
            let after = due().await;
            assert!(before.duration_since(after).unwrap() >= secs(3_599), "{before:?} {after:?}");
            runtime.shutdown(secs(0)).await;
        });
    });
}
