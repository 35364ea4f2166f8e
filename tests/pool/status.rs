//! Status, watch, join, and diagnostics of a pool.

use std::sync::{Arc, Mutex};

use crate::common::*;
use crate::support::*;
use actix_workpool::{ActionContext, JoinError, Outcome, PoolStatus, WorkError, WorkStatus};

#[test]
fn a_status_follows_the_job_through_its_life() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool, gate) = gated(config().max_parallelism(1)).await;
            let first = pool.enqueue(TASK.call(1)).await.unwrap();
            let second = pool.enqueue(TASK.call(2)).await.unwrap();
            gate.entered(1).await;
            let running = first.status().await.unwrap();
            assert!(
                matches!(running, WorkStatus::Running { previous_attempts: 0, .. }),
                "{running:?}"
            );
            let waiting = second.status().await.unwrap();
            let expected =
                matches!(waiting, WorkStatus::Pending { previous_attempts: 0, due: Some(_) });
            assert!(expected, "{waiting:?}");
            gate.open();
            first.join().await.unwrap();
            let WorkStatus::Finished(row) = first.status().await.unwrap() else {
                panic!("unfinished")
            };
            assert_eq!(
                (row.id(), row.attempts(), row.outcome().as_str()),
                (first.id(), 1, "success")
            );
            assert!(row.finished_at() >= row.enqueued_at());
            assert_eq!(pool.status(id(77)).await.unwrap(), WorkStatus::Unknown);
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn statuses_come_in_the_order_asked() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool, gate) = gated(config().max_parallelism(1)).await;
            let works = pool.enqueue_batch([TASK.call(1), TASK.call(2)]).await.unwrap();
            gate.entered(1).await;
            let asked = [works.ids()[1], id(1), works.ids()[0], works.ids()[1]];
            let statuses = pool.status_batch(&asked).await.unwrap();
            assert!(matches!(
                statuses[..],
                [
                    WorkStatus::Pending { .. },
                    WorkStatus::Unknown,
                    WorkStatus::Running { .. },
                    WorkStatus::Pending { .. }
                ]
            ));
            gate.open();
            works.join().await;
            let statuses = works.status().await.unwrap();
            assert!(statuses.iter().all(|status| matches!(status, WorkStatus::Finished(_))));
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_watch_shows_each_change_and_ends_after_the_final_one() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool, gate) = gated(config().paused(true)).await;
            let work = pool.enqueue(TASK.call(1)).await.unwrap();
            let mut watch = work.watch();
            assert!(matches!(watch.next().await, Some(WorkStatus::Pending { .. })));
            pool.resume().await.unwrap();
            assert!(matches!(watch.next().await, Some(WorkStatus::Running { .. })));
            gate.open();
            let Some(WorkStatus::Finished(row)) = watch.next().await else { panic!("unfinished") };
            assert!(matches!(row.outcome(), Outcome::Success(_)));
            assert_eq!(watch.next().await, None);
            assert_eq!(watch.next().await, None);
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_watch_begins_at_the_end_for_what_is_finished_or_unknown() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool) = start(builder().echo(), config()).await;
            let work = pool.enqueue(ECHO.call(1)).await.unwrap();
            work.join().await.unwrap();
            let mut watch = work.watch();
            assert!(matches!(watch.next().await, Some(WorkStatus::Finished(_))));
            assert_eq!(watch.next().await, None);
            let mut watch = pool.work::<u64>(id(3)).watch();
            assert_eq!(watch.next().await, Some(WorkStatus::Unknown));
            assert_eq!(watch.next().await, None);
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_slow_reader_of_a_watch_sees_the_latest() {
    on_each_store(|| {
        run_paused(async {
            let builder = builder().action_fn(TASK, |n, cx| async move {
                for step in 0..100 {
                    cx.progress(step, Some(100));
                }
                Ok(n)
            });
            let (runtime, pool) = start(builder, config().paused(true)).await;
            let work = pool.enqueue(TASK.call(1)).await.unwrap();
            let mut watch = work.watch();
            assert!(matches!(watch.next().await, Some(WorkStatus::Pending { .. })));
            pool.resume().await.unwrap();
            work.join().await.unwrap();
            assert!(matches!(watch.next().await, Some(WorkStatus::Finished(_))));
            assert_eq!(watch.next().await, None);
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_watch_of_a_running_job_begins_with_what_its_status_says() {
    on_each_store(|| {
        run_paused(async {
            let gate = Gate::new();
            let at = gate.clone();
            let builder = builder().action_fn(TASK, move |n, cx| {
                let gate = at.clone();
                async move {
                    cx.progress(3, Some(9));
                    gate.pass().await;
                    Ok(n)
                }
            });
            let (runtime, pool) = start(builder, config()).await;
            let work = pool.enqueue(TASK.call(1)).run_after(secs(30)).await.unwrap();
            gate.entered(1).await;
            let status = work.status().await.unwrap();
            assert!(matches!(status, WorkStatus::Running { progress: Some(_), .. }), "{status:?}");
            assert_eq!(work.watch().next().await, Some(status));
            gate.open();
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_watch_that_is_dropped_leaves_the_others_alone() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool, gate) = gated(config()).await;
            let work = pool.enqueue(TASK.call(1)).await.unwrap();
            let (mut first, mut second) = (work.watch(), work.watch());
            gate.entered(1).await;
            first.next().await.unwrap();
            drop(first);
            let mut third = work.watch();
            gate.open();
            work.join().await.unwrap();
            assert!(matches!(second.next().await, Some(WorkStatus::Finished(_))));
            assert!(matches!(third.next().await, Some(WorkStatus::Finished(_))));
            assert_eq!((second.next().await, third.next().await), (None, None));
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_watch_shows_a_retry_as_waiting_again() {
    on_each_store(|| {
        run_paused(async {
            let builder = builder().action_fn(TASK, |n, cx| async move {
                tokio::time::sleep(secs(1)).await;
                if cx.attempt() == 1 { Err(WorkError::retry_after(secs(5), "no")) } else { Ok(n) }
            });
            let (runtime, pool) = start(builder, config().default_retry(retries(2))).await;
            let mut watch = pool.enqueue(TASK.call(1)).await.unwrap().watch();
            let mut seen = Vec::new();
            while let Some(status) = watch.next().await {
                seen.push(match status {
                    WorkStatus::Pending { previous_attempts, .. } => {
                        format!("p{previous_attempts}")
                    }
                    WorkStatus::Running { previous_attempts, .. } => {
                        format!("r{previous_attempts}")
                    }
                    WorkStatus::Finished(row) => format!("f{}", row.attempts()),
                    status => format!("{status:?}"),
                });
            }
            seen.dedup();
            assert_eq!(seen[seen.len().saturating_sub(4)..], ["r0", "p1", "r1", "f2"], "{seen:?}");
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_join_says_why_there_is_no_result() {
    on_each_store(|| {
        run_paused(async {
            let builder = builder()
                .echo()
                .action_fn(TASK, |_, _| async { Err::<u64, _>(WorkError::retryable("broken")) });
            let (runtime, pool) = start(builder, config()).await;
            let failed = pool.enqueue(TASK.call(0)).await.unwrap().join().await.unwrap_err();
            assert_eq!(failed.to_string(), "job failed in attempt 1: broken");
            let unknown = pool.work::<u64>(id(6)).join().await.unwrap_err();
            assert_eq!(unknown, JoinError::Unknown(id(6)));
            assert!(unknown.to_string().contains("is not known"), "{unknown}");
            let number = pool.enqueue(ECHO.call(8)).await.unwrap();
            number.join().await.unwrap();
            let other_type = pool.work::<Vec<String>>(number.id()).join().await.unwrap_err();
            assert!(matches!(other_type, JoinError::Decode(_)), "{other_type:?}");
            let canceled = pool.enqueue(ECHO.call(8)).run_after(secs(9)).await.unwrap();
            canceled.cancel().await.unwrap();
            assert_eq!(canceled.join().await, Err(JoinError::Canceled));
            let forever = pool.enqueue(ECHO.call(8)).run_after(secs(3600)).await.unwrap();
            let (closed, _) = tokio::join!(forever.join(), runtime.shutdown(secs(0)));
            assert_eq!(closed, Err(JoinError::Closed));
            assert_eq!(forever.join().await, Err(JoinError::Closed));
        });
    });
}

#[test]
fn a_join_that_is_dropped_and_repeated_still_has_the_result() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool, gate) = gated(config()).await;
            let work = pool.enqueue(TASK.call(1)).await.unwrap();
            assert!(tokio::time::timeout(secs(1), work.join()).await.is_err());
            let (first, second) = (work.clone(), work.clone());
            let both = actix::spawn(async move { tokio::join!(first.join(), second.join()) });
            settle().await;
            gate.open();
            assert_eq!(both.await.unwrap(), (Ok(1), Ok(1)));
            assert_eq!(work.join().await, Ok(1));
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn progress_is_seen_by_status_running_and_watch_and_ends_with_the_attempt() {
    on_each_store(|| {
        run_paused(async {
            let gate = Gate::new();
            let at = gate.clone();
            let late: Arc<Mutex<Option<ActionContext>>> = Arc::default();
            let kept = late.clone();
            let builder = builder().action_fn(TASK, move |n, cx| {
                let gate = at.clone();
                kept.lock().unwrap().replace(cx.clone());
                async move {
                    cx.progress_note(1, Some(2), "half");
                    gate.pass().await;
                    Ok(n)
                }
            });
            let (runtime, pool) = start(builder, config()).await;
            let work = pool.enqueue(TASK.call(1)).await.unwrap();
            let mut watch = work.watch();
            gate.entered(1).await;
            let WorkStatus::Running { progress: Some(progress), .. } = work.status().await.unwrap()
            else {
                panic!("no progress")
            };
            assert_eq!((progress.done, progress.total), (1, Some(2)));
            assert_eq!(progress.note.as_deref(), Some("half"));
            let running = pool.running().await.unwrap();
            assert_eq!(running[0].progress.as_ref(), Some(&progress));
            late.lock().unwrap().as_ref().unwrap().progress(2, None);
            let said = loop {
                match watch.next().await {
                    Some(WorkStatus::Running { progress: Some(said), .. }) => break said,
                    Some(_) => {}
                    None => panic!("the watch ended"),
                }
            };
            assert_eq!((said.done, said.total, &said.note), (2, None, &None));
            gate.open();
            work.join().await.unwrap();
            late.lock().unwrap().take().unwrap().progress(9, None);
            assert!(matches!(work.status().await.unwrap(), WorkStatus::Finished(_)));
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn diagnostics_count_what_there_is() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool, gate) = gated(config().max_parallelism(2)).await;
            let idle = pool.diagnostics().await.unwrap();
            assert_eq!(idle.status, PoolStatus::Idle);
            assert_eq!((idle.spare_capacity, idle.oldest_due), (2, None));

            let works = pool.enqueue_batch((0..5).map(|n| TASK.call(n))).await.unwrap();
            let later = pool.enqueue(TASK.call(9)).run_after(secs(3600)).await.unwrap();
            gate.entered(2).await;
            settle().await;
            let busy = pool.diagnostics().await.unwrap();
            assert_eq!((busy.waiting, busy.running, busy.spare_capacity), (4, 2, 0));
            assert_eq!((busy.completing, busy.canceling, busy.unregistered), (0, 0, 0));
            assert!(busy.oldest_due.is_some() && busy.unregistered_names.is_empty());
            assert_eq!(busy.status, PoolStatus::Full);
            pool.pause().await.unwrap();
            assert_eq!(pool.diagnostics().await.unwrap().status, PoolStatus::Paused);
            pool.resume().await.unwrap();

            gate.open();
            works.join().await;
            settle().await;
            let done = pool.diagnostics().await.unwrap();
            assert_eq!((done.waiting, done.running, done.spare_capacity), (1, 0, 2));
            assert_eq!((done.report.completed, done.report.succeeded), (5, 5));
            assert_eq!(done.status, PoolStatus::Idle, "nothing is due for an hour");
            later.cancel().await.unwrap();
            later.join().await.unwrap_err();
            assert_eq!(pool.diagnostics().await.unwrap().report.canceled, 1);
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn running_lists_attempts_those_that_started_first_in_front() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool, gate) = gated(config()).await;
            assert!(pool.running().await.unwrap().is_empty());
            let first = pool.enqueue(TASK.call(1)).await.unwrap();
            gate.entered(1).await;
            tokio::time::advance(ms(10)).await;
            let second = pool.enqueue(TASK.call(2)).await.unwrap();
            gate.entered(2).await;
            let running = pool.running().await.unwrap();
            let ids: Vec<_> = running.iter().map(|attempt| attempt.work_id).collect();
            assert_eq!(ids, [first.id(), second.id()]);
            assert!(running[0].started < running[1].started);
            assert_eq!((running[0].function.as_str(), running[0].attempt), ("task", 1));
            gate.open();
            second.join().await.unwrap();
            first.join().await.unwrap();
            settle().await;
            assert!(pool.running().await.unwrap().is_empty());
            runtime.shutdown(secs(1)).await;
        });
    });
}
