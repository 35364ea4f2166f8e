//! The tools for tests of programs, used as a program would.
#![cfg(feature = "testing")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use actix_workpool::testing::{self, TestContext, TestRuntime};
use actix_workpool::{
    Action, ActionContext, ActionKey, BlockingAction, Bytes, JoinError, Mutation, PoolConfig,
    RetryBehavior, Runtime, RuntimeBuilder, Transaction, WorkError, WorkId, WorkStatus,
};
use serde::{Deserialize, Serialize};

type Tested = Result<(), Box<dyn std::error::Error>>;

const HOUR: Duration = Duration::from_secs(3_600);

/// Takes so many seconds, and fails as often as it is told to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Resize {
    file: String,
    seconds: u64,
    failures: u32,
}

impl Action for Resize {
    const NAME: &'static str = "resize";
    type Output = u32;

    async fn run(self, cx: ActionContext) -> Result<u32, WorkError> {
        tokio::time::sleep(Duration::from_secs(self.seconds)).await;
        match cx.attempt() > self.failures {
            true => Ok(cx.attempt()),
            false => Err(WorkError::retryable("not yet")),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Count;

impl Mutation for Count {
    const NAME: &'static str = "count";
    type Output = u64;

    fn apply(self, tx: &mut Transaction<'_>) -> Result<u64, WorkError> {
        let count = tx.get::<u64>("counts", "all")?.unwrap_or(0) + 1;
        tx.put("counts", "all", &count)?;
        Ok(count)
    }
}

fn resize(file: &str) -> Resize {
    Resize { file: file.into(), seconds: 0, failures: 0 }
}

fn builder() -> RuntimeBuilder {
    let retry = RetryBehavior::default().initial_backoff(HOUR).max_attempts(3);
    Runtime::builder()
        .action::<Resize>()
        .mutation::<Count>()
        .pool("images", PoolConfig::default().max_parallelism(2).default_retry(retry))
        .pool("other", PoolConfig::default().paused(true))
}

#[test]
fn a_manual_runtime_shows_what_is_enqueued_before_it_runs() -> Tested {
    testing::run(async {
        let test = TestRuntime::manual(builder()).await?;
        let pool = test.pool("images")?;
        let at = SystemTime::now() + HOUR;
        let later = pool.enqueue(resize("b")).run_after(HOUR).no_retry().await?;
        let works = pool.enqueue_batch((0..1_000).map(|n| resize(&n.to_string()))).await?;
        pool.enqueue(Count).await?;
        test.advance(Duration::from_secs(60)).await;

        let waiting = test.enqueued::<Resize>(Resize::NAME).await?;
        assert_eq!(waiting.len(), 1_001);
        assert_eq!(waiting[0].args, resize("0"));
        assert_eq!((waiting[0].max_attempts, waiting[0].pool.as_str()), (3, "images"));
        let last = waiting.last().unwrap();
        assert_eq!((last.work_id, last.max_attempts), (later.id(), 1));
        let off = last.due.unwrap().duration_since(at).unwrap_or_else(|early| early.duration());
        assert!(off < Duration::from_secs(5), "{off:?}");
        assert_eq!(test.enqueued::<Count>(Count::NAME).await?.len(), 1);

        test.run_until_idle().await?;
        assert!(works.join().await.iter().all(|outcome| *outcome == Ok(1)));
        assert_eq!(test.enqueued::<Resize>(Resize::NAME).await?.len(), 1);

        // What is enqueued from now on waits again.
        let again = pool.enqueue(Count).await?;
        test.advance(2 * HOUR).await;
        assert!(matches!(again.status().await?, WorkStatus::Pending { .. }));
        test.run_all().await?;
        assert_eq!((again.join().await?, later.join().await?), (2, 1));
        test.shutdown(Duration::ZERO).await;
        Ok(())
    })
}

#[test]
fn time_passes_for_running_functions_and_until_retries_only_if_that_is_asked_for() -> Tested {
    testing::run(async {
        let test = TestRuntime::start(builder()).await?;
        let pool = test.pool("images")?;
        let slow = Resize { seconds: 600, failures: 1, ..resize("a") };
        let work = pool.enqueue(slow.clone()).await?;
        let begun = tokio::time::Instant::now();
        test.run_until_idle().await?;
        let took = begun.elapsed();
        assert!((600..610).contains(&took.as_secs()), "{took:?}");
        let WorkStatus::Pending { previous_attempts: 1, due: Some(_) } = work.status().await?
        else {
            panic!("{:?}", work.status().await);
        };
        test.advance(HOUR / 4).await;
        assert!(!work.status().await?.is_final(), "the retry waits for at least half an hour");
        test.advance(2 * HOUR).await;
        assert_eq!(work.join().await?, 2);

        let failed = pool.enqueue(Resize { failures: 9, ..slow }).await?;
        // A pool that the program has paused stays paused, and its jobs are nobody's concern.
        let held = test.pool("other")?.enqueue(resize("b")).await?;
        test.run_all().await?;
        assert!(matches!(failed.join().await, Err(JoinError::Failed { attempts: 3, .. })));
        assert!(matches!(held.status().await?, WorkStatus::Pending { .. }));
        test.shutdown(Duration::ZERO).await;
        Ok(())
    })
}

/// A chain of two: the first one enqueues the second, into the same pool of one slot.
const FIRST: ActionKey<u64, ()> = ActionKey::new("first");
const SECOND: ActionKey<u64, ()> = ActionKey::new("second");

#[test]
fn an_inline_enqueue_returns_with_the_outcome() -> Tested {
    testing::run(async {
        let ran = Arc::new(AtomicU32::new(0));
        let counted = ran.clone();
        let builder = builder()
            .pool("chain", PoolConfig::default().max_parallelism(1))
            .action_fn(FIRST, |n, cx| async move {
                cx.pool("chain")?.enqueue(SECOND.call(n + 1)).await?;
                Ok(())
            })
            .action_fn(SECOND, move |_, _| {
                counted.fetch_add(1, Ordering::SeqCst);
                async { Ok(()) }
            });
        let test = TestRuntime::inline(builder).await?;
        let pool = test.pool("images")?;
        let work = pool.enqueue(Resize { failures: 2, ..resize("a") }).await?;
        assert!(work.status().await?.is_final());
        let works = pool.enqueue_batch([resize("b"), resize("c")]).await?;
        for work in works.handles() {
            assert!(work.status().await?.is_final());
        }
        let failed = pool.enqueue(Resize { failures: 9, ..resize("d") }).await?;
        assert!(failed.status().await?.is_final());

        // One that is due later is not awaited.
        let later = pool.enqueue(resize("e")).run_after(HOUR).await?;
        assert!(!later.status().await?.is_final());

        // A function that enqueues does not wait for its own slot.
        test.pool("chain")?.enqueue(FIRST.call(1)).await?;
        test.run_until_idle().await?;
        assert_eq!(ran.load(Ordering::SeqCst), 1);
        test.shutdown(Duration::ZERO).await;
        Ok(())
    })
}

/// Takes real time.
#[derive(Serialize, Deserialize)]
struct Compress;

impl BlockingAction for Compress {
    const NAME: &'static str = "compress";
    type Output = u64;

    fn run(self, _: &ActionContext) -> Result<u64, WorkError> {
        let begun = std::time::Instant::now();
        let mut sum = 0_u64;
        while begun.elapsed() < Duration::from_millis(30) {
            sum = sum.wrapping_add(1);
        }
        Ok(sum)
    }
}

#[test]
fn the_clock_waits_for_blocking_actions() -> Tested {
    testing::run(async {
        let test = TestRuntime::start(builder().blocking_action::<Compress>()).await?;
        let pool = test.pool("images")?;
        let later = pool.enqueue(resize("b")).run_after(HOUR).await?;
        let work = pool.enqueue(Compress).timeout(Duration::from_secs(1)).await?;
        test.run_until_idle().await?;
        assert!(work.join().await? > 0);
        assert!(!later.status().await?.is_final());
        test.shutdown(Duration::ZERO).await;
        Ok(())
    })
}

#[test]
fn a_manual_runtime_holds_new_pools_and_leaves_the_pauses_of_the_program() -> Tested {
    testing::run(async {
        let test = TestRuntime::manual(builder()).await?;
        let paused = test.pool("images")?;
        paused.pause().await?;
        let created = test.create_pool("created", PoolConfig::default()).await?;
        let (first, second) = (created.enqueue(Count).await?, paused.enqueue(Count).await?);
        test.advance(HOUR).await;
        assert!(!first.status().await?.is_final());
        test.run_all().await?;
        assert!(first.status().await?.is_final() && !second.status().await?.is_final());
        paused.resume().await?;
        test.advance(HOUR).await;
        assert!(!second.status().await?.is_final());
        // One that is dropped midway holds the pools again.
        let slow = created.enqueue(Resize { seconds: 60, ..resize("a") }).await?;
        assert!(tokio::time::timeout(Duration::from_secs(1), test.run_all()).await.is_err());
        let third = created.enqueue(Count).await?;
        test.advance(HOUR).await;
        assert!(slow.status().await?.is_final() && !third.status().await?.is_final());
        test.shutdown(Duration::ZERO).await;
        Ok(())
    })
}

#[test]
fn whatever_is_due_happens_while_time_advances() -> Tested {
    testing::run(async {
        let one = PoolConfig::default().max_parallelism(1);
        let test = TestRuntime::start(builder().pool("one", one)).await?;
        let jobs = (0..500).map(|n| resize(&n.to_string()));
        let works = test.pool("one")?.enqueue_batch(jobs).run_after(HOUR).await?;
        test.advance(HOUR).await;
        assert!(works.status().await?.iter().all(WorkStatus::is_final));
        test.shutdown(Duration::ZERO).await;
        Ok(())
    })
}

#[test]
fn an_inline_enqueue_does_not_wait_for_what_does_not_run() -> Tested {
    testing::run(async {
        let test = TestRuntime::inline(builder()).await?;
        let held = test.pool("other")?.enqueue(resize("a")).await?;
        assert!(!held.status().await?.is_final());
        let (pool, id) = (test.pool("images")?, WorkId::from_name("later"));
        pool.enqueue(resize("a")).id(id).run_after(HOUR).await?;
        let again = pool.enqueue(resize("a")).id(id).await?;
        assert!(!again.is_new() && !again.status().await?.is_final());
        test.shutdown(Duration::ZERO).await;
        Ok(())
    })
}

#[actix::test]
async fn it_also_runs_in_an_actix_test() -> Tested {
    tokio::time::pause();
    let test = TestRuntime::start(builder()).await?;
    let work = test.pool("images")?.enqueue(Resize { seconds: 86_400, ..resize("a") }).await?;
    test.run_all().await?;
    assert_eq!(work.join().await?, 1);
    test.shutdown(Duration::ZERO).await;
    Ok(())
}

#[tokio::test]
#[should_panic(expected = "use testing::run or #[actix::test]")]
async fn outside_of_a_system_it_says_what_to_use() {
    let _ = TestRuntime::start(builder()).await;
}

#[test]
#[should_panic(expected = "arguments do not decode")]
fn arguments_of_another_type_are_named() {
    testing::run(async {
        let test = TestRuntime::manual(builder()).await.unwrap();
        test.pool("images").unwrap().enqueue(resize("a")).await.unwrap();
        let _ = test.enqueued::<Vec<u8>>(Resize::NAME).await;
    });
}

#[test]
fn a_context_tells_a_function_what_it_was_told() {
    testing::run(async {
        let test = TestContext::new().attempt(2).max_attempts(4).work_id(WorkId::from_name("a"));
        let test = test.data(7_u32);
        let cx = test.context();
        assert_eq!((cx.attempt(), cx.max_attempts()), (2, 4));
        assert_eq!((cx.work_id(), *cx.data::<u32>()), (WorkId::from_name("a"), 7));
        assert!(cx.try_data::<String>().is_none() && cx.pool("images").is_err());
        assert!(test.progress().is_none());
        cx.progress_note(1, Some(2), "half");
        let told = test.progress().unwrap();
        assert_eq!((told.done, told.total, told.note.as_deref()), (1, Some(2), Some("half")));
        assert!(!cx.is_canceled());
        test.cancel();
        cx.canceled().await;
        assert!(test.context().is_canceled());
        let run = Resize { failures: 1, ..resize("a") }.run(test.context()).await;
        assert_eq!(run.unwrap(), 2);
        assert_eq!(TestContext::default().attempt(0).context().attempt(), 1);
    });
}

#[test]
fn bytes_pass_through_a_job() -> Tested {
    const REVERSE: ActionKey<Bytes, Bytes> = ActionKey::new("reverse");
    testing::run(async {
        let builder = Runtime::builder()
            .action_fn(REVERSE, |mut bytes: Bytes, _| async move {
                bytes.reverse();
                Ok(bytes)
            })
            .pool("p", PoolConfig::default());
        let test = TestRuntime::inline(builder).await?;
        let data: Vec<u8> = (0..=255).cycle().take(700_000).collect();
        // More than that as a list of numbers would be refused: the limit is 1 MiB.
        let work = test.pool("p")?.enqueue(REVERSE.call(data.clone().into())).await?;
        let back: Vec<u8> = work.join().await?.into();
        assert!(back.iter().rev().eq(data.iter()));
        test.shutdown(Duration::ZERO).await;
        Ok(())
    })
}
