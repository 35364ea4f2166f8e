//! Actions, mutations, queries and `on_complete`: what users write.

use std::rc::Rc;

use crate::common::*;
use crate::support::*;
use actix_workpool::{
    Action, ActionContext, ActionKey, BlockingAction, Completion, CompletionResult, JoinError,
    OnComplete, PoolError, Query, QueryError, Reader, Transaction, WorkError, WorkId,
};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Unsendable(u64);

impl Action for Unsendable {
    const NAME: &'static str = "unsendable";
    type Output = u64;

    async fn run(self, _: ActionContext) -> Result<u64, WorkError> {
        let kept = Rc::new(self.0);
        tokio::task::yield_now().await;
        Ok(*kept + 1)
    }
}

#[test]
fn the_future_of_an_action_need_not_be_send() {
    on_each_store(|| {
        for arbiters in [0, 2] {
            run_real(async move {
                let builder = builder().worker_arbiters(arbiters).action::<Unsendable>();
                let (runtime, pool) = start(builder, config()).await;
                assert_eq!(pool.enqueue(Unsendable(1)).await.unwrap().join().await, Ok(2));
                runtime.shutdown(secs(1)).await;
            });
        }
    });
}

#[derive(Serialize, Deserialize)]
struct Hash(Vec<u64>);

impl BlockingAction for Hash {
    const NAME: &'static str = "hash";
    type Output = (u64, bool);

    fn run(self, _: &ActionContext) -> Result<(u64, bool), WorkError> {
        let own_thread = std::thread::current().name() == Some("workpool-blocking");
        Ok((self.0.iter().sum(), own_thread))
    }
}

#[test]
fn a_blocking_action_runs_on_a_thread_of_its_own() {
    on_each_store(|| {
        run_real(async {
            let builder = builder().worker_arbiters(1).blocking_action::<Hash>();
            let (runtime, pool) = start(builder, config()).await;
            let works = pool.enqueue_batch((0..20).map(|n| Hash(vec![n, 1]))).await.unwrap();
            for (n, outcome) in works.join().await.into_iter().enumerate() {
                assert_eq!(outcome, Ok((n as u64 + 1, true)));
            }
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_closure_is_an_action() {
    on_each_store(|| {
        run_paused(async {
            const JOIN: ActionKey<(String, u32), String> = ActionKey::new("join");
            let builder = builder().action_fn(JOIN, |(text, times), _| async move {
                if times == 0 {
                    return Err(WorkError::non_retryable("nothing to repeat"));
                }
                Ok(text.repeat(times as usize))
            });
            let (runtime, pool) = start(builder, config()).await;
            let work = pool.enqueue(JOIN.call(("ab".into(), 3))).await.unwrap();
            assert_eq!(work.join().await.unwrap(), "ababab");
            let failed = pool.enqueue(JOIN.call(("ab".into(), 0))).await.unwrap().join().await;
            assert_eq!(
                failed.unwrap_err().to_string(),
                "job failed in attempt 1: nothing to repeat"
            );
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[derive(Serialize, Deserialize)]
struct Balance(String);

impl Query for Balance {
    const NAME: &'static str = "balance";
    type Output = Option<u64>;

    fn read(self, reader: &mut Reader<'_>) -> Result<Option<u64>, WorkError> {
        if self.0.is_empty() {
            return Err(WorkError::non_retryable("no account named"));
        }
        Ok(reader.get("accounts", &self.0)?)
    }
}

#[test]
fn a_query_reads_what_a_mutation_wrote_asked_directly_or_enqueued() {
    on_each_store(|| {
        run_paused(async {
            let builder = builder().mutation::<Deposit>().query::<Balance>();
            let (runtime, pool) = start(builder, config()).await;
            assert_eq!(runtime.query(Balance("ada".into())).await.unwrap(), None);
            for (amount, balance) in [(5, 5), (7, 12)] {
                let deposit = Deposit { account: "ada".into(), amount };
                assert_eq!(pool.enqueue(deposit).await.unwrap().join().await, Ok(balance));
            }
            assert_eq!(runtime.query(Balance("ada".into())).await.unwrap(), Some(12));
            let enqueued = pool.enqueue(Balance("ada".into())).await.unwrap();
            assert_eq!(enqueued.join().await, Ok(Some(12)));
            let failed = runtime.query(Balance(String::new())).await.unwrap_err();
            assert!(matches!(&failed, QueryError::Failed(_)), "{failed:?}");
            assert_eq!(failed.to_string(), "no account named");
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_query_that_is_not_registered_is_refused() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, _) = start(builder(), config()).await;
            let error = runtime.query(Balance("ada".into())).await.unwrap_err();
            let message =
                "query balance is not registered: add `.query::<..>()` to `Runtime::builder()`";
            assert_eq!(error.to_string(), message);
            runtime.shutdown(secs(1)).await;
        });
    });
}

struct Noted;

impl OnComplete for Noted {
    const NAME: &'static str = "noted";
    type Context = String;
    type Output = u64;

    fn apply(tx: &mut Transaction<'_>, done: Completion<String, u64>) -> Result<(), WorkError> {
        let result = match done.result {
            CompletionResult::Success(n) => format!("success {n}"),
            CompletionResult::Failed(failure) => format!("failed {}", failure.message),
            CompletionResult::Canceled => "canceled".into(),
        };
        tx.put("accounts", &done.context, &done.attempts)?;
        tx.put("notes", &done.context, &result)?;
        Ok(())
    }
}

#[test]
fn on_complete_has_written_when_the_join_returns() {
    on_each_store(|| {
        run_paused(async {
            let builder = builder().echo().on_complete::<Noted>().query::<Balance>();
            let (runtime, pool) = start(builder, config()).await;
            let work =
                pool.enqueue(ECHO.call(4)).on_complete::<Noted>("four".into()).await.unwrap();
            assert_eq!(work.join().await, Ok(4));
            assert_eq!(runtime.query(Balance("four".into())).await.unwrap(), Some(1));
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn an_attempt_knows_who_it_is_and_what_the_program_lent_it() {
    on_each_store(|| {
        run_paused(async {
            struct Lent(&'static str);
            const WHO: ActionKey<(), (WorkId, u32, u32, String, bool)> = ActionKey::new("who");
            let builder = builder().data(Lent("book")).action_fn(WHO, |(), cx| async move {
                assert_eq!(cx.data::<Lent>().0, "book");
                assert!(cx.try_data::<String>().is_none());
                if cx.attempt() == 1 {
                    return Err(WorkError::retryable("again"));
                }
                let name = cx.function().to_string();
                Ok((cx.work_id(), cx.attempt(), cx.max_attempts(), name, cx.is_canceled()))
            });
            let (runtime, pool) = start(builder, config()).await;
            let work = pool.enqueue(WHO.call(())).retry(retries(3)).await.unwrap();
            assert_eq!(work.join().await.unwrap(), (work.id(), 2, 3, "who".into(), false));
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn data_that_nobody_gave_fails_the_job_without_retry_and_says_which() {
    on_each_store(|| {
        run_paused(async {
            let builder = builder().action_fn(TASK, |n, cx| async move {
                let _ = cx.data::<Gate>();
                Ok(n)
            });
            let (runtime, pool) = start(builder, config()).await;
            let work = pool.enqueue(TASK.call(1)).retry(retries(3)).await.unwrap();
            let error = work.join().await.unwrap_err();
            assert!(error.to_string().contains("Gate was given"), "{error}");
            assert!(matches!(error, JoinError::Failed { attempts: 1, .. }), "{error:?}");
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_job_spawns_more_jobs_in_any_pool() {
    on_each_store(|| {
        run_paused(async {
            let builder = builder().echo().action_fn(TASK, |n, cx| async move {
                assert!(matches!(cx.pool("nowhere"), Err(PoolError::Unknown { .. })));
                let child = cx.pool("children")?.enqueue(ECHO.call(n + 1)).await?;
                child.join().await.map_err(|error| WorkError::retryable(error.to_string()))
            });
            let (runtime, pool) = start(builder.pool("children", config()), config()).await;
            assert_eq!(pool.enqueue(TASK.call(1)).await.unwrap().join().await, Ok(2));
            runtime.shutdown(secs(1)).await;
        });
    });
}
