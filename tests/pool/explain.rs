//! Why a job waits: every reason, on both stores.

use crate::common::*;
use actix_workpool::storage::{Memory, Storage};
use actix_workpool::{
    ActionKey, Basis, Expected, Explanation, FailureKind, Outcome, PoolConfig, RetryBehavior,
    RuntimeBuilder, Why, WorkError, WorkId,
};

const OTHER: ActionKey<u64, u64> = ActionKey::new("other");

fn config() -> PoolConfig {
    PoolConfig::default().max_parallelism(1)
}

/// `TASK` 0 waits at the gate, 1 fails, and anything else takes as many milliseconds.
fn functions(builder: RuntimeBuilder, gate: &Gate) -> RuntimeBuilder {
    task(builder, gate, |n, _| async move {
        if n == 1 {
            return Err(WorkError::retryable("no luck"));
        }
        tokio::time::sleep(ms(n)).await;
        Ok(n)
    })
}

/// Explains, and checks what holds of every explanation.
async fn explain(pool: &actix_workpool::Workpool, work_id: WorkId) -> Explanation {
    let told = pool.explain(work_id).await.unwrap();
    assert_eq!(told.work_id, work_id);
    let json = serde_json::to_value(&told).unwrap();
    assert!(json["why"]["kind"].is_string(), "{json}");
    assert!(told.to_string().starts_with(&format!("job {work_id}")), "{told}");
    assert!(told.expected.is_none() || told.is_waiting(), "{told:?}");
    told
}

async fn every_reason(storage: impl Storage) {
    let gate = Gate::new();
    let builder = functions(builder().storage(storage), &gate);
    let (runtime, pool) = start(builder, config()).await;

    let unknown = WorkId::from_uuid(uuid_of(7));
    assert_eq!(explain(&pool, unknown).await.why, Why::Unknown);

    let later = pool.enqueue(TASK.call(2)).run_after(secs(3_600)).await.unwrap();
    let told = explain(&pool, later.id()).await;
    assert_eq!(told.why, Why::NotDue);
    let due = told.due.unwrap();
    assert!(due > told.at && due.duration_since(told.at).unwrap() <= secs(3_601), "{told:?}");
    let expected = told.expected.as_ref().unwrap();
    assert_eq!((expected.start, expected.basis), (due, Basis::Due));
    assert_eq!((told.pool.unwrap().as_str(), told.function.unwrap().as_str()), ("p", "task"));
    assert!(told.to_string().contains("waits for its time"), "{told}");

    let running = pool.enqueue(TASK.call(0)).timeout(secs(50)).await.unwrap();
    gate.entered(1).await;
    let told = explain(&pool, running.id()).await;
    let Why::Running { attempt: 1, since: Some(since), timeout_at, progress } = &told.why else {
        panic!("{told:?}");
    };
    assert_eq!(*timeout_at, Some(*since + secs(50)));
    assert_eq!(progress.as_ref().unwrap().note.as_deref(), Some("at the gate"));
    assert!(told.to_string().contains("attempt 1 of 1"), "{told}");
    assert!(told.to_string().contains("3 of 4 (at the gate)"), "{told}");

    // Ahead of the one that is due in an hour, behind each other.
    let second = pool.enqueue(TASK.call(2)).await.unwrap();
    let third = pool.enqueue(TASK.call(2)).await.unwrap();
    let told = explain(&pool, second.id()).await;
    assert_eq!(told.why, Why::NoFreeSlot { running: 1, limit: 1 });
    assert_eq!((told.ahead.unwrap().works, told.expected), (0, None), "nothing has ended yet");
    let told = third.explain().await.unwrap();
    assert_eq!((told.ahead.unwrap().works, told.ahead.unwrap().or_more), (1, false));
    assert!(told.to_string().contains("1 of 1 are taken; 1 job ahead"), "{told}");

    pool.cancel(running.id()).await.unwrap();
    let told = explain(&pool, running.id()).await;
    assert!(matches!(told.why, Why::Canceling { running_since: Some(_) }), "{told:?}");

    // While it is paused nothing is expected.
    pool.pause().await.unwrap();
    let told = explain(&pool, second.id()).await;
    assert_eq!((&told.why, told.expected), (&Why::Paused { paused: true }, None));
    pool.resume().await.unwrap();
    pool.update(config().max_parallelism(0)).await.unwrap();
    let told = explain(&pool, later.id()).await;
    assert_eq!((&told.why, told.expected), (&Why::Paused { paused: false }, None));
    assert!(told.due.is_some(), "{told:?}");
    pool.update(config()).await.unwrap();

    gate.open();
    assert_eq!(third.join().await, Ok(2));
    let told = explain(&pool, third.id()).await;
    assert!(matches!(&told.why, Why::Finished(row) if row.outcome().as_str() == "success"));
    assert!(told.to_string().contains("has finished: success, after 1 attempt, "), "{told}");

    let retry = RetryBehavior::default().max_attempts(4).initial_backoff(secs(3_600));
    let failing = pool.enqueue(TASK.call(1)).retry(retry).await.unwrap();
    let told = soon(async {
        loop {
            let told = explain(&pool, failing.id()).await;
            if told.attempts == 1 && told.due.is_some() {
                return told;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(told.why, Why::RetryBackoff { retry: 1, max_retries: 3 });
    let failure = told.last_failure().unwrap();
    assert_eq!((failure.kind, failure.message.as_str()), (FailureKind::Error, "no luck"));
    assert!(told.to_string().contains("waits for retry 1 of 3, after: no luck"), "{told}");
    assert_eq!(told.expected.unwrap().basis, Basis::Due);

    failing.cancel().await.unwrap();
    assert_eq!(failing.join().await.unwrap_err().to_string(), "job was canceled");
    runtime.shutdown(secs(1)).await;
    assert!(pool.explain(later.id()).await.is_err(), "the runtime is gone");
}

fn uuid_of(bits: u128) -> uuid::Uuid {
    uuid::Uuid::from_u128(bits)
}

#[test]
fn every_reason_is_told_in_memory() {
    run_paused(every_reason(Memory::new()));
}

#[cfg(feature = "redb")]
#[test]
fn every_reason_is_told_of_a_file() {
    use actix_workpool::storage::Redb;
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("explain");
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("work.redb");
    let _ = std::fs::remove_file(&path);
    run_real(every_reason(Redb::open(&path).unwrap()));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn jobs_ahead_are_counted_up_to_a_thousand() {
    run_paused(async {
        let (runtime, pool) =
            start(functions(builder(), &Gate::new()), config().max_parallelism(0)).await;
        let works = pool.enqueue_batch((0..1_202).map(|_| TASK.call(20))).await.unwrap();
        let ahead = async |number: usize| {
            let told = explain(&pool, works.ids()[number]).await;
            told.ahead.map(|ahead| (ahead.works, ahead.or_more)).unwrap()
        };
        assert_eq!(ahead(0).await, (0, false));
        assert_eq!(ahead(999).await, (999, false));
        assert_eq!(ahead(1_000).await, (1_000, false));
        assert_eq!(ahead(1_001).await, (1_000, true));
        assert_eq!(ahead(1_201).await, (1_000, true));
        let told = explain(&pool, works.ids()[1_201]).await;
        assert!(told.to_string().contains("at least 1000 jobs ahead"), "{told}");

        // With two slots and 20 ms each, the hundred-and-first starts about a second after the first.
        pool.update(config().max_parallelism(2)).await.unwrap();
        tokio::time::sleep(ms(1_000)).await;
        let told = explain(&pool, works.ids()[200]).await;
        let Some(Expected { start, basis: Basis::Estimate, .. }) = told.expected else {
            panic!("{told:?}");
        };
        works.handles().nth(200).unwrap().join().await.unwrap();
        let late = pool.explain(works.ids()[200]).await.unwrap().at;
        let begun = late - ms(20);
        let off = begun.duration_since(start).unwrap_or_else(|earlier| earlier.duration());
        assert!(off <= ms(100), "expected at {start:?}, started at {begun:?}");
        let told = explain(&pool, works.ids()[1_201]).await;
        assert!(told.expected.is_some(), "{told:?}");
        runtime.shutdown(secs(0)).await;
    });
}

#[test]
fn a_job_of_another_process_is_explained_here() {
    run_paused(async {
        let (tables, gate) = (Memory::new(), Gate::new());
        let both = functions(builder(), &gate).action_fn(OTHER, |n, _| async move { Ok(n) });
        let both = both.storage(tables.clone()).pool("q", config().paused(true));
        let (runtime, pool) = start(both, config().paused(true)).await;
        let work = pool.enqueue(OTHER.call(1)).await.unwrap().id();
        let of_q = runtime.pool("q").unwrap().enqueue(TASK.call(2)).await.unwrap().id();
        let retry = RetryBehavior::default().initial_backoff(secs(60));
        let failing = pool.enqueue(TASK.call(1)).retry(retry).await.unwrap().id();
        runtime.shutdown(secs(0)).await;

        let builder = functions(builder(), &gate).storage(tables.clone());
        let (runtime, pool) = start(builder, config().paused(false)).await;
        settle().await;
        let told = explain(&pool, work).await;
        assert_eq!((&told.why, told.due, told.expected), (&Why::NotRegistered, None, None));
        assert_eq!(told.function.unwrap().as_str(), "other");
        let told = explain(&pool, of_q).await;
        assert_eq!((&told.why, told.pool.unwrap().as_str()), (&Why::PoolNotStarted, "q"));
        let told = explain(&pool, failing).await;
        assert!(matches!(&told.why, Why::RetryBackoff { retry: 1, .. }), "{told:?}");
        let before = told.history;
        assert_eq!(before.attempts().len(), 1);
        runtime.shutdown(secs(0)).await;

        // What happened in an earlier process is remembered too.
        let builder = functions(crate::common::builder(), &gate).storage(tables);
        let (runtime, pool) = start(builder, config()).await;
        let told = explain(&pool, failing).await;
        assert!(matches!(&told.why, Why::RetryBackoff { retry: 1, .. }), "{told:?}");
        assert_eq!(told.history, before);
        runtime.shutdown(secs(0)).await;
    });
}

#[test]
fn a_shutdown_is_a_reason() {
    run_paused(async {
        let gate = Gate::new();
        let (runtime, pool) = start(functions(builder(), &gate), config()).await;
        pool.enqueue(TASK.call(0)).await.unwrap();
        let waiting = pool.enqueue(TASK.call(2)).await.unwrap();
        gate.entered(1).await;
        let ending = actix::spawn({
            let runtime = runtime.clone();
            async move { runtime.shutdown(secs(5)).await }
        });
        settle().await;
        let told = waiting.explain().await.unwrap();
        assert_eq!((&told.why, told.expected), (&Why::ShuttingDown, None));
        gate.open();
        assert_eq!(ending.await.unwrap().pending, 1);
    });
}

#[test]
fn a_store_that_fails_is_a_reason_until_it_writes_again() {
    run_paused(async {
        let storage = Faulty::new();
        let builder = functions(builder().storage(storage.clone()), &Gate::new());
        let (runtime, pool) = start(builder, config()).await;
        let work = pool.enqueue(TASK.call(2)).run_after(ms(10)).await.unwrap();
        let next = storage.commits() + 1;
        (next..next + 3).for_each(|number| storage.fail_commit(number, Fault::Refused));
        tokio::time::sleep(ms(30)).await;
        for _ in 0..2 {
            // Asking does not make it forget.
            let told = work.explain().await.unwrap();
            let Why::StoreFailing { error, .. } = &told.why else { panic!("{told:?}") };
            assert!(error.contains("commit refused"), "{error}");
            assert_eq!(told.expected, None);
            assert!(told.to_string().contains("the store has been failing for"), "{told}");
        }
        assert_eq!(soon(work.join()).await, Ok(2));
        let later = pool.enqueue(TASK.call(2)).run_after(secs(9)).await.unwrap();
        assert_eq!(later.explain().await.unwrap().why, Why::NotDue);

        storage.fail_reads(true);
        let told = later.explain().await.unwrap();
        assert!(matches!(&told.why, Why::StoreFailing { error, .. } if error.contains("read")));
        storage.fail_reads(false);
        assert_eq!(
            later.explain().await.unwrap().why,
            Why::NotDue,
            "a failed question is no write"
        );
        runtime.shutdown(secs(0)).await;
    });
}

#[test]
fn a_store_that_can_be_read_again_or_has_written_is_no_reason_any_more() {
    run_paused(async {
        let storage = Faulty::new();
        let builder = functions(builder().storage(storage.clone()), &Gate::new());
        let (runtime, pool) = start(builder, config()).await;
        let work = pool.enqueue(TASK.call(2)).run_after(secs(60)).await.unwrap();
        let fails = async || matches!(work.explain().await.unwrap().why, Why::StoreFailing { .. });

        // It could not be read, and then it could.
        storage.fail_reads(true);
        assert!(pool.cancel(work.id()).await.is_err());
        storage.fail_reads(false);
        assert!(fails().await);
        assert!(!fails().await);

        // It could not write, and then it opened a pool.
        storage.fail_next(Fault::Refused, |_| true);
        assert!(pool.enqueue(TASK.call(2)).await.is_err());
        assert_eq!((fails().await, fails().await), (true, true));
        runtime.create_pool("q", config()).await.unwrap();
        assert!(!fails().await);

        // It could not tell whether it has written, and then it had.
        storage.fail_next(Fault::AnswerLost, |_| true);
        storage.fail_reads(true);
        let found = pool.do_enqueue(TASK.call(2)).unwrap();
        settle().await;
        assert!(fails().await);
        storage.fail_reads(false);
        let known = tokio::time::timeout(secs(1), async {
            while found.status().await.unwrap() == actix_workpool::WorkStatus::Unknown {}
        });
        known.await.unwrap();
        assert!(!fails().await);
        runtime.shutdown(secs(0)).await;
    });
}

#[test]
fn a_store_that_does_not_answer_is_a_reason() {
    run_real(async {
        let storage = Faulty::new().on_a_thread();
        let builder = functions(builder().storage(storage.clone()), &Gate::new());
        let (runtime, pool) = start(builder, config()).await;
        let work = pool.enqueue(TASK.call(2)).run_after(secs(60)).await.unwrap();
        let (go_on, wait) = std::sync::mpsc::channel::<()>();
        storage.fail_next(Fault::Refused, move |_| {
            let _ = wait.recv();
            false
        });
        let stuck = pool.do_enqueue(TASK.call(2)).unwrap();
        let told = soon(work.explain()).await.unwrap();
        assert!(matches!(told.why, Why::StoreStalled { .. }), "{told:?}");
        assert!(told.to_string().contains("the store has not answered for 1."), "{told}");
        let at_once = std::time::Instant::now();
        let told = stuck.explain().await.unwrap();
        assert!(matches!(told.why, Why::StoreStalled { .. }), "{told:?}");
        assert!(at_once.elapsed() < ms(500), "it is known to be stalled");
        drop(go_on);
        assert_eq!(soon(stuck.join()).await, Ok(2));
        assert_eq!(work.explain().await.unwrap().why, Why::NotDue);
        runtime.shutdown(secs(0)).await;
    });
}

#[test]
fn the_message_of_a_last_failure_is_bounded() {
    run_paused(async {
        const LONG: ActionKey<u64, u64> = ActionKey::new("long");
        let builder = builder().action_fn(LONG, |_, _| async move {
            Err::<u64, _>(WorkError::retryable("é".repeat(5_000)))
        });
        let (runtime, pool) = start(builder, config()).await;
        let retry = RetryBehavior::default().max_attempts(2).initial_backoff(secs(60));
        let work = pool.enqueue(LONG.call(1)).retry(retry).await.unwrap();
        tokio::time::sleep(secs(1)).await;
        let told = work.explain().await.unwrap();
        assert!(matches!(told.why, Why::RetryBackoff { .. }), "{told:?}");
        let message = &told.last_failure().unwrap().message;
        assert_eq!(*message, "é".repeat(250) + "…");
        tokio::time::sleep(secs(120)).await;
        let told = work.explain().await.unwrap();
        let Why::Finished(row) = &told.why else { panic!("{told:?}") };
        assert!(
            matches!(&row.outcome(), Outcome::Failed(failure) if failure.message.len() == 10_000)
        );
        runtime.shutdown(secs(0)).await;
    });
}
