//! The API, piece by piece.

use std::rc::Rc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use crate::common::*;
use actix::prelude::*;
use actix_workpool::{
    Action, ActionContext, ActionKey, BlockingAction, CancelAnswer, Completed, Completion,
    CompletionResult, EnqueueError, FailureKind, JoinError, Mutation, OnComplete, Outcome,
    PoolConfig, PoolError, Query, QueryError, Reader, RetryBehavior, RetryPolicy, RunStatus,
    Runtime, ShutdownReport, Transaction, WorkError, WorkId, WorkStatus, Workpool,
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use uuid::Uuid;

const TASK: ActionKey<u64, u64> = ActionKey::new("task");
const NAP: ActionKey<u64, u64> = ActionKey::new("nap");

fn config() -> PoolConfig {
    PoolConfig::default()
}

fn retries(attempts: u32) -> RetryBehavior {
    RetryBehavior::default().max_attempts(attempts).initial_backoff(ms(100))
}

fn id(number: u128) -> WorkId {
    WorkId::from_uuid(Uuid::from_u128(number))
}

/// A runtime whose `TASK` waits at a gate and answers its argument.
async fn gated(config: PoolConfig) -> (Runtime, Workpool, Gate) {
    let gate = Gate::new();
    let at = gate.clone();
    let builder = builder().action_fn(TASK, move |n, _| {
        let gate = at.clone();
        async move {
            gate.pass().await;
            Ok(n)
        }
    });
    let (runtime, pool) = start(builder, config).await;
    (runtime, pool, gate)
}

// Functions

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
struct Deposit {
    account: String,
    amount: u64,
}

impl Mutation for Deposit {
    const NAME: &'static str = "deposit";
    type Output = u64;

    fn apply(self, tx: &mut Transaction<'_>) -> Result<u64, WorkError> {
        let balance = tx.get::<u64>("accounts", &self.account)?.unwrap_or(0) + self.amount;
        tx.put("accounts", &self.account, &balance)?;
        Ok(balance)
    }
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
            assert_eq!(error.to_string(), "query balance is not registered with this runtime");
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
fn data_that_nobody_gave_fails_the_attempt_and_says_which() {
    on_each_store(|| {
        run_paused(async {
            let builder = builder().action_fn(TASK, |n, cx| async move {
                let _ = cx.data::<Gate>();
                Ok(n)
            });
            let (runtime, pool) = start(builder, config()).await;
            let error = pool.enqueue(TASK.call(1)).await.unwrap().join().await.unwrap_err();
            assert!(error.to_string().contains("Gate was given"), "{error}");
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_work_spawns_more_work_in_any_pool() {
    on_each_store(|| {
        run_paused(async {
            let builder = builder().echo().action_fn(TASK, |n, cx| async move {
                assert!(matches!(cx.pool("nowhere"), Err(PoolError::Unknown(_))));
                let child = cx.pool("children")?.enqueue(ECHO.call(n + 1)).await?;
                child.join().await.map_err(|error| WorkError::retryable(error.to_string()))
            });
            let (runtime, pool) = start(builder.pool("children", config()), config()).await;
            assert_eq!(pool.enqueue(TASK.call(1)).await.unwrap().join().await, Ok(2));
            runtime.shutdown(secs(1)).await;
        });
    });
}

// Enqueue

#[test]
fn a_batch_runs_in_its_order() {
    on_each_store(|| {
        run_paused(async {
            let log = Log::default();
            let told = log.clone();
            let builder = builder().action_fn(TASK, move |n, _| {
                told.say(n.to_string());
                async move { Ok(n) }
            });
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
fn works_start_in_the_order_of_their_enqueues() {
    on_each_store(|| {
        run_paused(async {
            let log = Log::default();
            let told = log.clone();
            let builder = builder().action_fn(TASK, move |n, _| {
                told.say(n.to_string());
                async move { Ok(n) }
            });
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
fn a_work_starts_when_it_is_due_and_not_before() {
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
fn a_work_that_is_due_sooner_overtakes_one_that_is_due_later() {
    on_each_store(|| {
        run_paused(async {
            let log = Log::default();
            let told = log.clone();
            let builder = builder().action_fn(TASK, move |n, _| {
                told.say(n.to_string());
                async move { Ok(n) }
            });
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
fn do_enqueue_keeps_what_was_said_about_the_work() {
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

// Retry

#[derive(Serialize, Deserialize)]
struct Stubborn;

impl Action for Stubborn {
    const NAME: &'static str = "stubborn";
    const RETRY: RetryPolicy =
        RetryPolicy::With(RetryBehavior { max_attempts: 3, initial_backoff_ms: 10, base: 2.0 });
    type Output = ();

    async fn run(self, _: ActionContext) -> Result<(), WorkError> {
        Err(WorkError::retryable("no"))
    }
}

#[derive(Serialize, Deserialize)]
struct OneShot;

impl Action for OneShot {
    const NAME: &'static str = "one.shot";
    const RETRY: RetryPolicy = RetryPolicy::Never;
    type Output = ();

    async fn run(self, _: ActionContext) -> Result<(), WorkError> {
        Err(WorkError::retryable("no"))
    }
}

fn attempts<T: std::fmt::Debug>(outcome: Result<T, JoinError>) -> u32 {
    match outcome {
        Err(JoinError::Failed { attempts, .. }) => attempts,
        other => panic!("{other:?} is no failure"),
    }
}

#[test]
fn the_enqueues_retry_goes_before_the_functions_and_that_before_the_pools() {
    on_each_store(|| {
        run_paused(async {
            let failing = |_, _| async { Err::<u64, _>(WorkError::retryable("no")) };
            let builder =
                builder().action::<Stubborn>().action::<OneShot>().action_fn(TASK, failing);
            let (runtime, pool) = start(builder, config().default_retry(retries(4))).await;
            let plain = pool.enqueue(TASK.call(0)).await.unwrap();
            let from_function = pool.enqueue(Stubborn).await.unwrap();
            let never = pool.enqueue(OneShot).await.unwrap();
            let from_enqueue = pool.enqueue(Stubborn).retry(retries(2)).await.unwrap();
            let retried_after_all = pool.enqueue(OneShot).retry(retries(2)).await.unwrap();
            let turned_off = pool.enqueue(Stubborn).no_retry().await.unwrap();
            assert_eq!(attempts(plain.join().await), 4);
            assert_eq!(attempts(from_function.join().await), 3);
            assert_eq!(attempts(never.join().await), 1);
            assert_eq!(attempts(from_enqueue.join().await), 2);
            assert_eq!(attempts(retried_after_all.join().await), 2);
            assert_eq!(attempts(turned_off.join().await), 1);
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn nothing_is_retried_unless_somebody_says_so() {
    on_each_store(|| {
        run_paused(async {
            let builder = builder()
                .action_fn(TASK, |_, _| async { Err::<u64, _>(WorkError::retryable("no")) });
            let (runtime, pool) = start(builder, config()).await;
            assert_eq!(attempts(pool.enqueue(TASK.call(0)).await.unwrap().join().await), 1);
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn retries_wait_longer_each_time_within_the_jitter() {
    on_each_store(|| {
        run_paused(async {
            let starts = Arc::new(Mutex::new(Vec::new()));
            let seen = starts.clone();
            let builder = builder().action_fn(TASK, move |_, _| {
                seen.lock().unwrap().push(Instant::now());
                async { Err::<u64, _>(WorkError::retryable("no")) }
            });
            let (runtime, pool) = start(builder, config()).await;
            let behavior = RetryBehavior::default().initial_backoff(secs(1)).base(3.0);
            let work = pool.enqueue(TASK.call(0)).retry(behavior.max_attempts(4)).await.unwrap();
            assert_eq!(attempts(work.join().await), 4);
            let starts = starts.lock().unwrap().clone();
            for (pair, nominal) in starts.windows(2).zip([1.0, 3.0, 9.0]) {
                let waited = (pair[1] - pair[0]).as_secs_f64();
                assert!(
                    (nominal * 0.5..nominal * 1.5 + 0.01).contains(&waited),
                    "{waited} {nominal}"
                );
            }
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_failure_that_is_not_retryable_ends_the_work() {
    on_each_store(|| {
        run_paused(async {
            let builder = builder()
                .action_fn(TASK, |_, _| async { Err::<u64, _>(WorkError::non_retryable("never")) });
            let (runtime, pool) = start(builder, config().default_retry(retries(5))).await;
            let outcome = pool.enqueue(TASK.call(0)).await.unwrap().join().await;
            assert_eq!(attempts(outcome), 1);
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn any_error_becomes_a_retryable_one_that_names_its_causes() {
    on_each_store(|| {
        run_paused(async {
            let builder = builder().action_fn(TASK, |n, cx| async move {
                if cx.attempt() == 1 {
                    "x".parse::<u64>()?;
                }
                Ok(n)
            });
            let (runtime, pool) = start(builder, config()).await;
            let alone = pool.enqueue(TASK.call(1)).await.unwrap().join().await.unwrap_err();
            assert!(alone.to_string().contains("invalid digit"), "{alone}");
            let retried = pool.enqueue(TASK.call(1)).retry(retries(2)).await.unwrap();
            assert_eq!(retried.join().await, Ok(1));
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn retry_after_takes_the_place_of_the_backoff_and_is_charged() {
    on_each_store(|| {
        run_paused(async {
            let builder = builder().action_fn(TASK, |_, cx| async move {
                match cx.attempt() {
                    1 => Err(WorkError::retry_after(secs(77), "busy")),
                    attempt => Ok(u64::from(attempt)),
                }
            });
            let (runtime, pool) = start(builder, config().default_retry(retries(2))).await;
            let begun = Instant::now();
            assert_eq!(pool.enqueue(TASK.call(0)).await.unwrap().join().await, Ok(2));
            assert!(begun.elapsed() >= secs(77) && begun.elapsed() < secs(78));
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_snoozed_attempt_is_not_charged() {
    on_each_store(|| {
        run_paused(async {
            let runs = Arc::new(AtomicU32::new(0));
            let counted = runs.clone();
            let builder = builder().action_fn(TASK, move |_, cx| {
                let run = counted.fetch_add(1, Ordering::SeqCst);
                async move {
                    match run {
                        0..3 => Err(WorkError::snooze(secs(10))),
                        _ => Ok(u64::from(cx.attempt())),
                    }
                }
            });
            let (runtime, pool) = start(builder, config()).await;
            let begun = Instant::now();
            let work = pool.enqueue(TASK.call(0)).await.unwrap();
            assert_eq!(work.join().await, Ok(1));
            assert!(begun.elapsed() >= secs(30), "{:?}", begun.elapsed());
            let WorkStatus::Finished(row) = work.status().await.unwrap() else {
                panic!("unfinished")
            };
            assert_eq!(row.attempts, 1);
            runtime.shutdown(secs(1)).await;
        });
    });
}

// Timeout

#[derive(Serialize, Deserialize)]
struct Hurried;

impl Action for Hurried {
    const NAME: &'static str = "hurried";
    const TIMEOUT: Option<Duration> = Some(Duration::from_secs(2));
    type Output = ();

    async fn run(self, _: ActionContext) -> Result<(), WorkError> {
        std::future::pending().await
    }
}

async fn timed<T: serde::de::DeserializeOwned + std::fmt::Debug>(
    work: actix_workpool::WorkHandle<T>,
) -> (Duration, FailureKind) {
    let begun = Instant::now();
    match work.join().await {
        Err(JoinError::Failed { failure, .. }) => (begun.elapsed(), failure.kind),
        other => panic!("{other:?} is no failure"),
    }
}

#[test]
fn the_enqueues_timeout_goes_before_the_functions_and_that_before_the_pools() {
    on_each_store(|| {
        run_paused(async {
            let builder =
                builder().action::<Hurried>().action_fn(TASK, |_, _| std::future::pending());
            let (runtime, pool) = start(builder, config().attempt_timeout(secs(4))).await;
            for (work, limit) in [
                (pool.enqueue(Hurried).await.unwrap(), secs(2)),
                (pool.enqueue(Hurried).timeout(secs(1)).await.unwrap(), secs(1)),
                (pool.enqueue(Hurried).timeout(secs(9)).await.unwrap(), secs(9)),
            ] {
                let started = Instant::now();
                let (took, kind) = timed(work).await;
                assert_eq!(kind, FailureKind::Timeout);
                assert!(took <= limit + ms(5), "{took:?}, limit {limit:?} since {started:?}");
            }
            let (took, kind) = timed(pool.enqueue(TASK.call(0)).await.unwrap()).await;
            assert_eq!(kind, FailureKind::Timeout);
            assert!(took >= secs(4) && took <= secs(4) + ms(5), "{took:?}");
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn each_attempt_has_its_own_time() {
    on_each_store(|| {
        run_paused(async {
            let dropped = Arc::new(AtomicUsize::new(0));
            let counted = dropped.clone();
            let builder = builder().action_fn(TASK, move |n, cx| {
                let counted = counted.clone();
                async move {
                    let _guard = on_drop(move || {
                        counted.fetch_add(1, Ordering::SeqCst);
                    });
                    if cx.attempt() < 3 {
                        std::future::pending::<()>().await;
                    }
                    tokio::time::sleep(ms(900)).await;
                    Ok(n)
                }
            });
            let (runtime, pool) = start(builder, config().default_retry(retries(3))).await;
            let work = pool.enqueue(TASK.call(5)).timeout(secs(1)).await.unwrap();
            assert_eq!(work.join().await, Ok(5));
            assert_eq!(dropped.load(Ordering::SeqCst), 3, "timed out futures are dropped");
            runtime.shutdown(secs(1)).await;
        });
    });
}

// Cancel, abort

#[test]
fn a_waiting_work_that_is_canceled_never_runs() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool, gate) = gated(config()).await;
            let work = pool.enqueue(TASK.call(1)).run_after(secs(60)).await.unwrap();
            assert_eq!(work.cancel().await.unwrap(), CancelAnswer::Requested);
            assert_eq!(work.join().await, Err(JoinError::Canceled));
            assert_eq!(work.cancel().await.unwrap(), CancelAnswer::AlreadyFinished);
            assert_eq!(pool.cancel(id(5)).await.unwrap(), CancelAnswer::NotFound);
            tokio::time::sleep(secs(120)).await;
            assert_eq!((gate.count(), pool.pending()), (0, 0));
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_running_work_that_is_canceled_is_told() {
    on_each_store(|| {
        run_paused(async {
            let gate = Gate::new();
            let at = gate.clone();
            let builder = builder().action_fn(TASK, move |_, cx| {
                at.enter();
                async move {
                    cx.canceled().await;
                    assert!(cx.is_canceled());
                    Err::<u64, _>(WorkError::canceled())
                }
            });
            let (runtime, pool) = start(builder, config().default_retry(retries(5))).await;
            let work = pool.enqueue(TASK.call(1)).await.unwrap();
            gate.entered(1).await;
            assert_eq!(work.cancel().await.unwrap(), CancelAnswer::Requested);
            assert_eq!(work.join().await, Err(JoinError::Canceled));
            assert_eq!(gate.count(), 1);
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_canceled_work_that_fails_is_not_retried_and_one_that_succeeds_has_its_result() {
    on_each_store(|| {
        run_paused(async {
            let gate = Gate::new();
            let at = gate.clone();
            let builder = builder().action_fn(TASK, move |n, cx| {
                at.enter();
                async move {
                    cx.canceled().await;
                    if n == 0 { Err(WorkError::retryable("interrupted")) } else { Ok(n) }
                }
            });
            let (runtime, pool) = start(builder, config().default_retry(retries(5))).await;
            let fails = pool.enqueue(TASK.call(0)).await.unwrap();
            let succeeds = pool.enqueue(TASK.call(1)).await.unwrap();
            gate.entered(2).await;
            let ids = vec![fails.id(), succeeds.id()];
            let answers = pool.cancel_batch(ids.clone()).await.unwrap();
            assert_eq!(answers, [CancelAnswer::Requested; 2]);
            assert_eq!(fails.join().await, Err(JoinError::Canceled));
            assert_eq!(succeeds.join().await, Ok(1));
            assert_eq!(gate.count(), 2);
            assert_eq!(pool.cancel_batch(ids).await.unwrap(), [CancelAnswer::AlreadyFinished; 2]);
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_cancel_that_comes_twice_is_told_so() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool, gate) = gated(config()).await;
            let work = pool.enqueue(TASK.call(1)).await.unwrap();
            gate.entered(1).await;
            assert_eq!(work.cancel().await.unwrap(), CancelAnswer::Requested);
            assert_eq!(work.cancel().await.unwrap(), CancelAnswer::AlreadyRequested);
            gate.open();
            assert_eq!(work.join().await, Ok(1));
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_work_that_waits_for_its_retry_can_be_canceled() {
    on_each_store(|| {
        run_paused(async {
            let gate = Gate::new();
            let at = gate.clone();
            let builder = builder().action_fn(TASK, move |_, _| {
                at.enter();
                async { Err::<u64, _>(WorkError::retry_after(secs(600), "later")) }
            });
            let (runtime, pool) = start(builder, config().default_retry(retries(5))).await;
            let work = pool.enqueue(TASK.call(1)).await.unwrap();
            gate.entered(1).await;
            settle().await;
            let status = work.status().await.unwrap();
            assert!(matches!(status, WorkStatus::Pending { previous_attempts: 1, due: Some(_) }));
            work.cancel().await.unwrap();
            assert_eq!(work.join().await, Err(JoinError::Canceled));
            tokio::time::sleep(secs(700)).await;
            assert_eq!(gate.count(), 1);
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn cancel_all_cancels_page_after_page_and_only_what_was_there() {
    on_each_store(|| {
        run_paused(async {
            let builder = builder().echo().pool("other", config().paused(true));
            let (runtime, pool) = start(builder, config().paused(true)).await;
            let other = runtime.pool("other").unwrap();
            let bystander = other.enqueue(ECHO.call(1)).await.unwrap();
            let works = pool.enqueue_batch((0..2_500).map(|n| ECHO.call(n))).await.unwrap();
            tokio::time::advance(ms(5)).await;
            let mut canceling = std::pin::pin!(pool.cancel_all());
            tokio::select! { biased; _ = &mut canceling => panic!("too soon"), () = std::future::ready(()) => {} }
            tokio::time::advance(ms(5)).await;
            let late = pool.enqueue(ECHO.call(9)).await.unwrap();
            assert_eq!(canceling.await.unwrap(), 2_500);
            let outcomes = works.join().await;
            assert!(outcomes.iter().all(|outcome| *outcome == Err(JoinError::Canceled)));
            assert_eq!((pool.pending(), other.pending()), (1, 1));
            pool.resume().await.unwrap();
            other.resume().await.unwrap();
            assert_eq!((late.join().await, bystander.join().await), (Ok(9), Ok(1)));
            assert_eq!(pool.cancel_all().await.unwrap(), 0);
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn an_attempt_that_ignores_its_cancelation_is_dropped_after_the_grace() {
    on_each_store(|| {
        run_paused(async {
            let (gate, crowd) = (Gate::new(), Crowd::default());
            let (at, inside) = (gate.clone(), crowd.clone());
            let builder = builder().action_fn(TASK, move |_, _| {
                let (gate, inside) = (at.clone(), inside.enter());
                async move {
                    gate.pass().await;
                    drop(inside);
                    Ok(0)
                }
            });
            let (runtime, pool) = start(builder, config()).await;
            let work = pool.enqueue(TASK.call(1)).await.unwrap();
            gate.entered(1).await;
            let begun = Instant::now();
            assert_eq!(work.abort(secs(3)).await.unwrap(), CancelAnswer::Requested);
            assert_eq!(crowd.inside(), 1);
            assert_eq!(work.join().await, Err(JoinError::Canceled));
            assert!(begun.elapsed() >= secs(3) && begun.elapsed() < secs(4));
            assert_eq!(crowd.inside(), 0, "its future is dropped");
            assert_eq!(work.abort(secs(3)).await.unwrap(), CancelAnswer::AlreadyFinished);
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn an_attempt_that_ends_within_the_grace_is_not_dropped() {
    on_each_store(|| {
        run_paused(async {
            let gate = Gate::new();
            let at = gate.clone();
            let builder = builder().action_fn(TASK, move |n, cx| {
                at.enter();
                async move {
                    cx.canceled().await;
                    tokio::time::sleep(secs(1)).await;
                    Ok(n)
                }
            });
            let (runtime, pool) = start(builder, config()).await;
            let work = pool.enqueue(TASK.call(1)).await.unwrap();
            gate.entered(1).await;
            work.abort(secs(3)).await.unwrap();
            assert_eq!(work.join().await, Ok(1));
            runtime.shutdown(secs(1)).await;
        });
    });
}

// Status, watch, join

#[test]
fn a_status_follows_the_work_through_its_life() {
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
                (row.work_id, row.attempts, row.outcome.as_str()),
                (first.id(), 1, "success")
            );
            assert!(row.finished_at >= row.enqueued_at);
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
            assert!(matches!(row.outcome, Outcome::Success(_)));
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
fn a_watch_of_a_running_work_begins_with_what_its_status_says() {
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
                    WorkStatus::Finished(row) => format!("f{}", row.attempts),
                    WorkStatus::Unknown => "unknown".into(),
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

// Actors

type Echoed = Completed<actix_workpool::Call<u64, u64>, u64>;
type Deposited = Completed<Deposit, u64>;

/// Hears of completions, and enqueues from its handlers.
struct Clerk {
    pool: Option<Workpool>,
    heard: tokio::sync::mpsc::UnboundedSender<(WorkId, String)>,
}

impl Actor for Clerk {
    type Context = Context<Self>;
}

impl Handler<Echoed> for Clerk {
    type Result = ();

    fn handle(&mut self, done: Echoed, _: &mut Self::Context) {
        let said = format!("echo {:?} {}", done.result, done.attempts);
        let _ = self.heard.send((done.work_id, said));
    }
}

impl Handler<Deposited> for Clerk {
    type Result = ();

    fn handle(&mut self, done: Deposited, _: &mut Self::Context) {
        let _ = self.heard.send((done.work_id, format!("deposit {:?}", done.result)));
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Order(u64);

impl Handler<Order> for Clerk {
    type Result = ();

    fn handle(&mut self, Order(n): Order, ctx: &mut Self::Context) {
        let pool = self.pool.as_ref().unwrap();
        pool.enqueue(ECHO.call(n))
            .notify(ctx.address().recipient::<Echoed>())
            .do_enqueue()
            .unwrap();
        pool.do_enqueue(ECHO.call(n)).unwrap();
    }
}

#[test]
fn an_actor_is_told_of_each_completion_by_type() {
    on_each_store(|| {
        run_paused(async {
            let builder = builder().echo().mutation::<Deposit>();
            let (runtime, pool) = start(builder, config()).await;
            let (heard, mut told) = tokio::sync::mpsc::unbounded_channel();
            let clerk = Clerk { pool: None, heard }.start();
            let echo = pool.enqueue(ECHO.call(5)).notify(clerk.clone().recipient::<Echoed>());
            let echo = echo.await.unwrap();
            assert_eq!(told.recv().await.unwrap(), (echo.id(), "echo Success(5) 1".into()));
            let deposit = Deposit { account: "a".into(), amount: 3 };
            let deposit = pool.enqueue(deposit).notify(clerk.clone().recipient::<Deposited>());
            let deposit = deposit.await.unwrap();
            assert_eq!(told.recv().await.unwrap(), (deposit.id(), "deposit Success(3)".into()));
            let canceled = pool
                .enqueue(ECHO.call(6))
                .run_after(secs(5))
                .notify(clerk.recipient::<Echoed>())
                .await
                .unwrap();
            canceled.cancel().await.unwrap();
            assert_eq!(told.recv().await.unwrap(), (canceled.id(), "echo Canceled 0".into()));
            assert!(told.try_recv().is_err(), "each is told once");
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn an_actor_enqueues_from_its_handler() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool) = start(builder().echo(), config()).await;
            let (heard, mut told) = tokio::sync::mpsc::unbounded_channel();
            let clerk = Clerk { pool: Some(pool.clone()), heard }.start();
            for n in 0..10 {
                clerk.do_send(Order(n));
            }
            for n in 0..10 {
                assert_eq!(told.recv().await.unwrap().1, format!("echo Success({n}) 1"));
            }
            while pool.pending() > 0 {
                settle().await;
            }
            assert_eq!(pool.diagnostics().await.unwrap().report.succeeded, 20);
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn an_actor_that_asks_for_a_known_id_is_told_of_its_completion() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool, gate) = gated(config()).await;
            let (heard, mut told) = tokio::sync::mpsc::unbounded_channel();
            let clerk = Clerk { pool: None, heard }.start().recipient::<Echoed>();
            let work = pool.enqueue(TASK.call(1)).id(id(1)).await.unwrap();
            let again = pool.enqueue(TASK.call(2)).id(id(1)).notify(clerk.clone());
            again.await.unwrap();
            gate.open();
            work.join().await.unwrap();
            assert_eq!(told.recv().await.unwrap().1, "echo Success(1) 1");
            // It has completed: the actor is told at once, or it would wait for ever.
            pool.enqueue(TASK.call(3)).id(id(1)).notify(clerk).await.unwrap();
            assert_eq!(soon(told.recv()).await.unwrap().1, "echo Success(1) 1");
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn an_actor_that_is_gone_hinders_nobody() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool) = start(builder().echo(), config()).await;
            let (heard, told) = tokio::sync::mpsc::unbounded_channel();
            drop(told);
            let clerk = Clerk { pool: None, heard }.start();
            let work = pool
                .enqueue(ECHO.call(1))
                .run_after(secs(1))
                .notify(clerk.recipient::<Echoed>())
                .await
                .unwrap();
            assert_eq!(work.join().await, Ok(1));
            assert_eq!(pool.enqueue(ECHO.call(2)).await.unwrap().join().await, Ok(2));
            runtime.shutdown(secs(1)).await;
        });
    });
}

// Configuration at run time

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
fn a_paused_pool_takes_works_and_starts_none() {
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

// Looking at a pool

#[test]
fn diagnostics_count_what_there_is() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool, gate) = gated(config().max_parallelism(2)).await;
            let idle = pool.diagnostics().await.unwrap();
            assert!(matches!(idle.run_status, RunStatus::Idle { .. }), "{idle:?}");
            assert_eq!((idle.spare_capacity, idle.oldest_due), (2, None));

            let works = pool.enqueue_batch((0..5).map(|n| TASK.call(n))).await.unwrap();
            let later = pool.enqueue(TASK.call(9)).run_after(secs(3600)).await.unwrap();
            gate.entered(2).await;
            settle().await;
            let busy = pool.diagnostics().await.unwrap();
            assert_eq!((busy.waiting, busy.running, busy.spare_capacity), (4, 2, 0));
            assert_eq!((busy.completing, busy.canceling, busy.unregistered), (0, 0, 0));
            assert!(busy.oldest_due.is_some() && busy.unregistered_names.is_empty());
            assert!(
                matches!(busy.run_status, RunStatus::Scheduled { saturated: true, .. }),
                "{busy:?}"
            );

            gate.open();
            works.join().await;
            settle().await;
            let done = pool.diagnostics().await.unwrap();
            assert_eq!((done.waiting, done.running, done.spare_capacity), (1, 0, 2));
            assert_eq!((done.report.completed, done.report.succeeded), (5, 5));
            let scheduled =
                matches!(done.run_status, RunStatus::Scheduled { saturated: false, .. });
            assert!(scheduled, "{done:?}");
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

// Pools

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
            assert!(matches!(runtime.pool("new"), Err(PoolError::Unknown(_))));
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

            // It is still there, with its works and its configuration.
            let runtime = builder().storage(tables).echo().start().await.unwrap();
            let pool = runtime.create_pool("new", config()).await.unwrap();
            assert_eq!((pool.settings().max_parallelism, pool.pending()), (3, 1));
            assert_eq!(pool.work::<u64>(waiting.id()).join().await, Ok(2));
            runtime.shutdown(secs(1)).await;
        });
    });
}

// Shutdown and restart

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
            assert_eq!(report, ShutdownReport { finished: 2, handed_back: 0, pending: 3 });
            assert!(begun.elapsed() < secs(3), "it does not wait for the grace to pass");
            assert_eq!(runtime.shutdown(secs(10)).await, report, "a second one answers the same");
            assert!(pool.status(works.ids()[0]).await.unwrap().is_final());
        });
    });
}

#[test]
fn an_attempt_that_a_shutdown_interrupts_is_handed_back_uncharged_and_runs_again() {
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
                assert_eq!(report, ShutdownReport { finished: 0, handed_back: 1, pending: 1 });
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
            assert_eq!(report, ShutdownReport { finished: 1, handed_back: 0, pending: 0 });
        });
    });
}

#[test]
fn works_that_wait_are_continued_by_the_next_runtime() {
    on_each_store(|| {
        run_paused(async {
            let tables = Tables::new();
            let builder = || builder().storage(tables.clone()).echo().mutation::<Deposit>();
            let (runtime, pool) = start(builder(), config().paused(true)).await;
            let echoes = pool.enqueue_batch((0..30).map(|n| ECHO.call(n))).await.unwrap();
            let deposit = Deposit { account: "a".into(), amount: 4 };
            let deposit = pool.enqueue(deposit).run_after(secs(50)).await.unwrap();
            let report = runtime.shutdown(secs(1)).await;
            assert_eq!(report, ShutdownReport { finished: 0, handed_back: 0, pending: 31 });

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
