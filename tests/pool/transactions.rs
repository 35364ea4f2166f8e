//! What mutations, queries and `on_complete` do to user tables, and that it is all or nothing.

use std::cell::RefCell;
use std::collections::HashMap;

use crate::common::*;
use crate::support::*;
use actix_workpool::model::Change;
use actix_workpool::{
    ActionKey, CancelAnswer, Completion, CompletionResult, EnqueueError, FailureKind, JoinError,
    Mutation, OnComplete, PoolConfig, Query, QueryError, Reader, RetryBehavior, Runtime, TableKey,
    Transaction, WorkError, WorkHandle, WorkId, WorkStatus, Workpool,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What a script does, one after the other.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Op {
    Put(String, u64),
    Get(String),
    Delete(String),
    Add(String, u64),
    Scan,
    /// From, to (excluded), at most.
    Range(String, String, usize),
    Prefix(String),
    Enqueue(String, u64),
    EnqueueAs(WorkId, u64),
    GetText(String),
    Fail,
    Panic,
    Snooze,
}

use Op::*;

/// A mutation that does what it is told and answers what it has read.
#[derive(Debug, Serialize, Deserialize)]
struct Script(Vec<Op>);

fn rows(rows: Vec<(TableKey, u64)>) -> Value {
    rows.into_iter().map(|(key, value)| json!([key.as_str(), value])).collect()
}

fn read(op: Op, reader: &mut Reader<'_>) -> Result<Value, WorkError> {
    Ok(match op {
        Get(key) => json!(reader.get::<u64>("t", key)?),
        GetText(key) => json!(reader.get::<String>("t", key)?),
        Scan => rows(reader.scan("t")?),
        Range(from, to, limit) => {
            rows(reader.range("t", TableKey::from(from)..TableKey::from(to), limit)?)
        }
        Prefix(prefix) => rows(reader.prefix("t", prefix)?),
        op => return Err(WorkError::non_retryable(format!("{op:?} is no read"))),
    })
}

impl Mutation for Script {
    const NAME: &'static str = "script";
    type Output = Vec<Value>;

    fn apply(self, tx: &mut Transaction<'_>) -> Result<Vec<Value>, WorkError> {
        let mut seen = Vec::new();
        for op in self.0 {
            match op {
                Put(key, value) => tx.put("t", key, &value)?,
                Delete(key) => tx.delete("t", key),
                Add(key, amount) => {
                    let sum = tx.get::<u64>("t", &key)?.unwrap_or(0) + amount;
                    tx.put("t", key, &sum)?;
                    seen.push(json!(sum));
                }
                Enqueue(pool, n) => {
                    seen.push(json!(tx.pool(&pool)?.enqueue(ECHO.call(n)).submit()?));
                }
                EnqueueAs(id, n) => {
                    seen.push(json!(tx.pool("p")?.enqueue(ECHO.call(n)).id(id).submit()?));
                }
                Fail => return Err(WorkError::non_retryable("told to fail")),
                Panic => panic!("told to panic"),
                Snooze => return Err(WorkError::snooze(secs(5))),
                op => seen.push(read(op, tx)?),
            }
        }
        Ok(seen)
    }
}

/// The same for reading only.
#[derive(Serialize, Deserialize)]
struct Look(Vec<Op>);

impl Query for Look {
    const NAME: &'static str = "look";
    type Output = Vec<Value>;

    fn read(self, reader: &mut Reader<'_>) -> Result<Vec<Value>, WorkError> {
        self.0.into_iter().map(|op| read(op, reader)).collect()
    }
}

thread_local! {
    /// How often a context's `on_complete` was called.
    static CALLS: RefCell<HashMap<String, u32>> = RefCell::default();
}

#[derive(Clone, Serialize, Deserialize)]
struct Plan {
    key: String,
    /// How many calls fail before one succeeds.
    failing: u32,
    panicking: bool,
}

fn plan(key: &str) -> Plan {
    Plan { key: key.into(), failing: 0, panicking: false }
}

/// Counts completions by key, and enqueues one more work in the pool `after`.
struct Count;

impl OnComplete for Count {
    const NAME: &'static str = "count";
    type Context = Plan;
    type Output = u64;

    fn apply(tx: &mut Transaction<'_>, done: Completion<Plan, u64>) -> Result<(), WorkError> {
        let Plan { key, failing, panicking } = done.context;
        let calls = CALLS.with_borrow_mut(|calls| {
            let calls = calls.entry(key.clone()).or_default();
            *calls += 1;
            *calls
        });
        let count = tx.get::<u64>("t", &key)?.unwrap_or(0) + 1;
        tx.put("t", &key, &count)?;
        let how = match done.result {
            CompletionResult::Success(_) => 1,
            CompletionResult::Failed(_) => 2,
            CompletionResult::Canceled => 3,
        };
        tx.put("t", format!("{key}.how"), &how)?;
        tx.pool("p")?.enqueue(ECHO.call(count)).submit()?;
        match calls <= failing {
            true if panicking => panic!("on_complete panics"),
            true => Err(WorkError::retryable("on_complete fails")),
            false => Ok(()),
        }
    }
}

const BREAK: ActionKey<(), u64> = ActionKey::new("break");

fn functions(builder: actix_workpool::RuntimeBuilder) -> actix_workpool::RuntimeBuilder {
    builder
        .echo()
        .action_fn(BREAK, |(), _| async { Err(WorkError::retryable("broken")) })
        .mutation::<Script>()
        .query::<Look>()
        .on_complete::<Count>()
}

async fn pool() -> (Runtime, Workpool) {
    start(functions(builder()), PoolConfig::default()).await
}

fn s(text: &str) -> String {
    text.into()
}

async fn apply(pool: &Workpool, ops: Vec<Op>) -> Vec<Value> {
    pool.enqueue(Script(ops)).await.unwrap().join().await.unwrap()
}

async fn table(runtime: &Runtime) -> Value {
    runtime.query(Look(vec![Scan])).await.unwrap().remove(0)
}

async fn drained(pool: &Workpool) {
    let empty = async {
        while pool.pending() > 0 {
            tokio::time::sleep(ms(100)).await;
        }
    };
    tokio::time::timeout(secs(3600), empty).await.expect("all jobs complete");
}

#[test]
fn rows_are_put_read_replaced_and_deleted() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool) = pool().await;
            assert_eq!(table(&runtime).await, json!([]), "a table that was never written is empty");
            apply(&pool, vec![Put(s("a"), 1), Put(s("b"), 2), Put(s("a"), 3)]).await;
            assert_eq!(table(&runtime).await, json!([["a", 3], ["b", 2]]));
            let seen = apply(&pool, vec![Get(s("a")), Delete(s("a")), Get(s("a")), Delete(s("z"))]);
            assert_eq!(seen.await, [json!(3), json!(null)]);
            assert_eq!(table(&runtime).await, json!([["b", 2]]));
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn ranges_and_prefixes_are_in_order_with_and_without_writes_of_the_transaction_itself() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool) = pool().await;
            let keys = ["a", "ab", "abc", "b", "c"];
            apply(&pool, keys.iter().zip(1..).map(|(key, n)| Put(s(key), n)).collect()).await;
            let reads = vec![
                Range(s("ab"), s("c"), 10),
                Range(s("ab"), s("c"), 2),
                Range(s("ab"), s("c"), 0),
                Range(s("c"), s("a"), 10),
                Range(s("a"), s("a"), 10),
                Prefix(s("ab")),
                Prefix(s("")),
                Prefix(s("x")),
            ];
            let expected = vec![
                json!([["ab", 2], ["abc", 3], ["b", 4]]),
                json!([["ab", 2], ["abc", 3]]),
                json!([]),
                json!([]),
                json!([]),
                json!([["ab", 2], ["abc", 3]]),
                json!([["a", 1], ["ab", 2], ["abc", 3], ["b", 4], ["c", 5]]),
                json!([]),
            ];
            assert_eq!(runtime.query(Look(reads.clone())).await.unwrap(), expected);
            assert_eq!(apply(&pool, reads.clone()).await, expected);

            let mut ops = vec![Delete(s("ab")), Put(s("aa"), 9), Put(s("b"), 8), Put(s("abd"), 7)];
            ops.extend(reads);
            let seen = apply(&pool, ops).await;
            assert_eq!(seen[0], json!([["abc", 3], ["abd", 7], ["b", 8]]));
            assert_eq!(seen[1], json!([["abc", 3], ["abd", 7]]), "a deleted row takes no place");
            assert_eq!(seen[5], json!([["abc", 3], ["abd", 7]]));
            let all = json!([["a", 1], ["aa", 9], ["abc", 3], ["abd", 7], ["b", 8], ["c", 5]]);
            assert_eq!((&seen[6], table(&runtime).await), (&all, all.clone()));
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn numbers_are_keys_in_the_order_of_their_values() {
    on_each_store(|| {
        #[derive(Serialize, Deserialize)]
        struct Squares;
        impl Mutation for Squares {
            const NAME: &'static str = "squares";
            type Output = Vec<u64>;
            fn apply(self, tx: &mut Transaction<'_>) -> Result<Vec<u64>, WorkError> {
                for n in [300_u64, 2, 40, 1_000_000] {
                    tx.put("squares", n, &(n * n))?;
                }
                let rows = tx.range::<u64>("squares", TableKey::from(2u64)..=300u64.into(), 9)?;
                Ok(rows.into_iter().filter_map(|(key, _)| key.as_u64()).collect())
            }
        }
        run_paused(async {
            let (runtime, pool) =
                start(builder().mutation::<Squares>(), PoolConfig::default()).await;
            assert_eq!(pool.enqueue(Squares).await.unwrap().join().await.unwrap(), [2, 40, 300]);
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_mutation_that_fails_or_panics_leaves_nothing() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool) = pool().await;
            apply(&pool, vec![Put(s("a"), 1)]).await;
            for (end, kind) in [(Fail, FailureKind::Error), (Panic, FailureKind::Panic)] {
                let ops =
                    vec![Put(s("a"), 2), Put(s("b"), 2), Delete(s("a")), Enqueue(s("p"), 1), end];
                let outcome = pool.enqueue(Script(ops)).await.unwrap().join().await;
                let Err(JoinError::Failed { failure, attempts: 1 }) = outcome else {
                    panic!("{outcome:?}")
                };
                assert_eq!(failure.kind, kind);
                assert!(failure.message.contains("told to"), "{failure}");
            }
            assert_eq!(table(&runtime).await, json!([["a", 1]]));
            let diagnostics = pool.diagnostics().await.unwrap();
            assert_eq!(
                (pool.pending(), diagnostics.waiting, diagnostics.report.completed),
                (0, 0, 3)
            );
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_mutation_that_panics_is_retried_if_it_may_be_and_takes_effect_once() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool) = pool().await;
            let retry = RetryBehavior::default().max_attempts(3).initial_backoff(secs(1));
            let works = pool
                .enqueue_batch([Script(vec![Add(s("a"), 1), Panic]), Script(vec![Add(s("a"), 1)])])
                .retry(retry)
                .await
                .unwrap();
            let outcomes = works.join().await;
            assert!(
                matches!(outcomes[0], Err(JoinError::Failed { attempts: 3, .. })),
                "{outcomes:?}"
            );
            assert_eq!(outcomes[1], Ok(vec![json!(1)]));
            assert_eq!(table(&runtime).await, json!([["a", 1]]));
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_mutation_that_snoozes_leaves_nothing_and_does_not_count() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool) = pool().await;
            let work = pool.enqueue(Script(vec![Put(s("a"), 1), Snooze])).await.unwrap();
            tokio::time::sleep(secs(60)).await;
            let status = work.status().await.unwrap();
            assert!(
                matches!(status, WorkStatus::Pending { previous_attempts: 0, .. }),
                "{status:?}"
            );
            assert_eq!(table(&runtime).await, json!([]));
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn mutations_of_one_group_see_each_other() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool) = pool().await;
            let adds = (0..1_000).map(|_| Script(vec![Add(s("n"), 1)]));
            let works = pool.enqueue_batch(adds).await.unwrap();
            let sums: Vec<_> =
                works.join().await.into_iter().map(|seen| seen.unwrap()[0].clone()).collect();
            assert_eq!(sums, (1..=1_000).map(|n| json!(n)).collect::<Vec<_>>());
            // Deletes, scans and failures between them too.
            let scripts = [
                vec![Put(s("n"), 5), Put(s("m"), 6)],
                vec![Scan, Delete(s("m"))],
                vec![Put(s("n"), 7), Fail],
                vec![Scan, Get(s("m"))],
            ];
            let works = pool.enqueue_batch(scripts.map(Script)).await.unwrap();
            let seen = works.join().await;
            assert_eq!(seen[1], Ok(vec![json!([["m", 6], ["n", 5]])]));
            assert_eq!(seen[3], Ok(vec![json!([["n", 5]]), json!(null)]));
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn what_a_mutation_enqueues_is_there_with_its_writes() {
    on_each_store(|| {
        run_paused(async {
            let builder = functions(builder()).pool("audit", PoolConfig::default());
            let (runtime, pool) = start(builder, PoolConfig::default()).await;
            let seen =
                apply(&pool, vec![Put(s("a"), 1), Enqueue(s("audit"), 5), Enqueue(s("p"), 6)]);
            let ids: Vec<WorkId> =
                seen.await.into_iter().map(|id| serde_json::from_value(id).unwrap()).collect();
            let audit = runtime.pool("audit").unwrap();
            assert_eq!(audit.work::<u64>(ids[0]).join().await, Ok(5));
            assert_eq!(pool.work::<u64>(ids[1]).join().await, Ok(6));
            settle().await;
            assert_eq!((pool.pending(), audit.pending()), (0, 0));
            assert_eq!(audit.diagnostics().await.unwrap().report.succeeded, 1);
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_mutation_that_waited_for_a_restart_finds_every_pool_of_the_builder() {
    on_each_store(|| {
        run_paused(async {
            let tables = Tables::new();
            let run = |paused| {
                let config = PoolConfig::default().paused(paused);
                let builder = functions(builder().storage(tables.clone()));
                builder
                    .pool("a", config.clone())
                    .pool("p", config.clone())
                    .pool("z", config)
                    .start()
            };
            let runtime = run(true).await.unwrap();
            let first = runtime.pool("a").unwrap();
            let script = Script(vec![Enqueue(s("a"), 1), Enqueue(s("p"), 1), Enqueue(s("z"), 1)]);
            let mutation = first.enqueue(script).await.unwrap();
            let echo = first.enqueue(ECHO.call(1)).on_complete::<Count>(plan("every.pool"));
            let echo = echo.await.unwrap();
            runtime.shutdown(secs(1)).await;

            let runtime = run(false).await.unwrap();
            let first = runtime.pool("a").unwrap();
            let spawned = first.work::<Vec<Value>>(mutation.id()).join().await;
            assert_eq!(spawned.map(|ids| ids.len()), Ok(3));
            assert_eq!(first.work::<u64>(echo.id()).join().await, Ok(1));
            assert_eq!(CALLS.with_borrow(|calls| calls["every.pool"]), 1);
            assert_eq!(row(&runtime, "every.pool").await, json!(1), "without a follow-up job");
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn an_id_that_a_mutation_chooses_is_enqueued_once() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool) = pool().await;
            let id = WorkId::from_uuid(uuid::Uuid::from_u128(5));
            let both = vec![EnqueueAs(id, 1), EnqueueAs(id, 2)];
            let works = pool.enqueue_batch([Script(both.clone()), Script(both)]).await.unwrap();
            assert!(works.join().await.iter().all(Result::is_ok));
            assert_eq!(pool.work::<u64>(id).join().await, Ok(1));
            apply(&pool, vec![EnqueueAs(id, 3)]).await;
            settle().await;
            assert_eq!(pool.work::<u64>(id).join().await, Ok(1));
            assert_eq!(
                (pool.pending(), pool.diagnostics().await.unwrap().report.succeeded),
                (0, 4)
            );
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_pool_that_does_not_exist_fails_the_mutation_and_names_it() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool) = pool().await;
            let ops = vec![Put(s("a"), 1), Enqueue(s("nowhere"), 5)];
            let error = pool.enqueue(Script(ops)).await.unwrap().join().await.unwrap_err();
            assert!(error.to_string().contains("pool \"nowhere\" does not exist"), "{error}");
            assert_eq!(table(&runtime).await, json!([]));
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_row_of_another_type_is_an_error_that_names_the_table() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool) = pool().await;
            apply(&pool, vec![Put(s("a"), 4_711)]).await;
            let error = runtime.query(Look(vec![GetText(s("a"))])).await.unwrap_err();
            assert!(matches!(error, QueryError::Failed(_)), "{error:?}");
            assert!(error.to_string().contains("table t"), "{error}");
            assert!(!error.to_string().contains("4711"), "no values in messages: {error}");
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn tables_are_kept_for_the_next_runtime() {
    on_each_store(|| {
        run_paused(async {
            let tables = Tables::new();
            let builder = || functions(builder().storage(tables.clone()));
            let (runtime, pool) = start(builder(), PoolConfig::default()).await;
            apply(&pool, vec![Put(s("a"), 1)]).await;
            runtime.shutdown(secs(1)).await;
            let (runtime, _) = start(builder(), PoolConfig::default()).await;
            assert_eq!(table(&runtime).await, json!([["a", 1]]));
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn arguments_that_a_mutation_does_not_take_fail_it_for_good_and_name_the_field() {
    on_each_store(|| {
        #[derive(Serialize, Deserialize)]
        struct Old {
            amount: String,
        }
        impl Mutation for Old {
            const NAME: &'static str = "pay";
            type Output = ();
            fn apply(self, _: &mut Transaction<'_>) -> Result<(), WorkError> {
                unreachable!("never registered")
            }
        }
        #[derive(Serialize, Deserialize)]
        struct New {
            amount: u64,
        }
        impl Mutation for New {
            const NAME: &'static str = "pay";
            type Output = ();
            fn apply(self, tx: &mut Transaction<'_>) -> Result<(), WorkError> {
                Ok(tx.put("t", "paid", &self.amount)?)
            }
        }
        run_paused(async {
            let retry = PoolConfig::default().default_retry(RetryBehavior::default());
            let (runtime, pool) = start(functions(builder()).mutation::<New>(), retry).await;
            let work = pool.enqueue(Old { amount: "s3cret".into() }).await.unwrap();
            let Err(JoinError::Failed { failure, attempts: 1 }) = work.join().await else {
                panic!("it does not fail at once")
            };
            assert_eq!(failure.kind, FailureKind::Decode);
            assert!(failure.message.contains("amount"), "{failure}");
            assert!(!failure.message.contains("s3cret"), "{failure}");
            pool.enqueue(New { amount: 1 }).await.unwrap().join().await.unwrap();
            assert_eq!(table(&runtime).await, json!([["paid", 1]]));
            runtime.shutdown(secs(1)).await;
        });
    });
}

// on_complete

async fn enqueue_counted(pool: &Workpool, key: &str) -> WorkHandle<u64> {
    pool.enqueue(ECHO.call(1)).on_complete::<Count>(plan(key)).await.unwrap()
}

async fn row(runtime: &Runtime, key: &str) -> Value {
    runtime.query(Look(vec![Get(s(key))])).await.unwrap().remove(0)
}

#[test]
fn on_complete_runs_once_however_the_job_ends() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool) = pool().await;
            enqueue_counted(&pool, "ends.success").await.join().await.unwrap();
            let retry = RetryBehavior::default().max_attempts(3);
            let broken = pool.enqueue(BREAK.call(())).on_complete::<Count>(plan("ends.failed"));
            broken.retry(retry).await.unwrap().join().await.unwrap_err();
            let canceled = pool
                .enqueue(ECHO.call(1))
                .on_complete::<Count>(plan("ends.canceled"))
                .run_after(secs(60))
                .await
                .unwrap();
            canceled.cancel().await.unwrap();
            canceled.join().await.unwrap_err();
            drained(&pool).await;
            for (key, how) in [("ends.success", 1), ("ends.failed", 2), ("ends.canceled", 3)] {
                assert_eq!(row(&runtime, key).await, json!(1), "{key}");
                assert_eq!(row(&runtime, &format!("{key}.how")).await, json!(how), "{key}");
                assert_eq!(CALLS.with_borrow(|calls| calls[key]), 1, "{key}");
            }
            // Three jobs, and the one that each of their on_completes enqueued.
            assert_eq!(pool.diagnostics().await.unwrap().report.succeeded, 4);
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn on_complete_of_a_mutation_sees_what_the_mutation_wrote() {
    on_each_store(|| {
        struct Copy;
        impl OnComplete for Copy {
            const NAME: &'static str = "copy";
            type Context = ();
            type Output = Vec<Value>;
            fn apply(
                tx: &mut Transaction<'_>,
                _: Completion<(), Vec<Value>>,
            ) -> Result<(), WorkError> {
                let original = tx.get::<u64>("t", "original")?.unwrap_or(0);
                Ok(tx.put("t", "copy", &original)?)
            }
        }
        run_paused(async {
            let builder = functions(builder()).on_complete::<Copy>();
            let (runtime, pool) = start(builder, PoolConfig::default()).await;
            let script = Script(vec![Put(s("original"), 8)]);
            pool.enqueue(script).on_complete::<Copy>(()).await.unwrap().join().await.unwrap();
            assert_eq!(row(&runtime, "copy").await, json!(8));
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn an_on_complete_that_fails_or_panics_becomes_a_job_named_after_it_that_is_retried() {
    on_each_store(|| {
        for panicking in [false, true] {
            run_paused(async move {
                let key = format!("follow.{panicking}");
                let (runtime, pool) = pool().await;
                let plan = Plan { key: key.clone(), failing: 2, panicking };
                let work = pool.enqueue(ECHO.call(1)).on_complete::<Count>(plan).await.unwrap();
                // The job itself completes all the same, and nothing of the failed call stays.
                assert_eq!(work.join().await, Ok(1));
                assert_eq!(row(&runtime, &key).await, json!(null));
                // It is a job like any other.
                let diagnostics = pool.diagnostics().await.unwrap();
                assert_eq!((pool.pending(), diagnostics.unregistered), (1, 0));
                tokio::time::sleep(ms(20)).await;
                drained(&pool).await;
                assert_eq!(row(&runtime, &key).await, json!(1), "its effects are there once");
                assert_eq!(
                    CALLS.with_borrow(|calls| calls[&key]),
                    3,
                    "in the commit, and two more attempts"
                );
                let report = pool.diagnostics().await.unwrap().report;
                // The job, its follow-up, and what that enqueued.
                assert_eq!((report.succeeded, report.failed, report.retries), (3, 0, 1));
                runtime.shutdown(secs(1)).await;
            });
        }
    });
}

#[test]
fn an_on_complete_that_is_tried_again_is_not_canceled_with_all_jobs() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool) = pool().await;
            let plan = Plan { key: s("spared"), failing: 2, panicking: false };
            let work = pool.enqueue(ECHO.call(1)).on_complete::<Count>(plan).await.unwrap();
            work.join().await.unwrap();
            let later = pool.enqueue(ECHO.call(2)).run_after(secs(60)).await.unwrap();
            assert_eq!(
                pool.cancel_all().await.unwrap(),
                1,
                "what is delayed, not what is tried again"
            );
            assert_eq!(later.join().await, Err(JoinError::Canceled));
            drained(&pool).await;
            assert_eq!(row(&runtime, "spared").await, json!(1), "its effects are there once");
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn an_on_complete_that_never_succeeds_ends_as_a_failed_job() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool) = pool().await;
            let plan = Plan { key: s("never"), failing: u32::MAX, panicking: true };
            let work = pool.enqueue(ECHO.call(1)).on_complete::<Count>(plan).await.unwrap();
            work.join().await.unwrap();
            drained(&pool).await;
            let report = pool.diagnostics().await.unwrap().report;
            assert_eq!((report.succeeded, report.failed), (1, 1));
            assert_eq!(
                CALLS.with_borrow(|calls| calls["never"]),
                1 + RetryBehavior::default().max_attempts
            );
            assert_eq!(table(&runtime).await, json!([]));
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_follow_up_job_is_named_after_its_on_complete() {
    on_each_store(|| {
        run_paused(async {
            let tables = Tables::new();
            let builder = functions(builder().storage(tables.clone()));
            let (runtime, pool) = start(builder, PoolConfig::default()).await;
            let plan = Plan { key: s("named"), failing: 2, panicking: false };
            pool.enqueue(ECHO.call(1))
                .on_complete::<Count>(plan)
                .await
                .unwrap()
                .join()
                .await
                .unwrap();
            runtime.shutdown(secs(0)).await;
            // A runtime without it shows its name.
            let (runtime, pool) =
                start(crate::common::builder().storage(tables), PoolConfig::default()).await;
            tokio::time::sleep(secs(10)).await;
            let names = pool.diagnostics().await.unwrap().unregistered_names;
            assert_eq!(names.iter().map(|name| name.as_str()).collect::<Vec<_>>(), ["count"]);
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn an_on_complete_that_is_not_registered_is_refused_at_enqueue() {
    on_each_store(|| {
        struct Missing;
        impl OnComplete for Missing {
            const NAME: &'static str = "missing";
            type Context = ();
            type Output = u64;
            fn apply(_: &mut Transaction<'_>, _: Completion<(), u64>) -> Result<(), WorkError> {
                Ok(())
            }
        }
        run_paused(async {
            let (runtime, pool) = pool().await;
            let refused = pool.enqueue(ECHO.call(1)).on_complete::<Missing>(()).await.unwrap_err();
            assert!(matches!(refused, EnqueueError::UnknownFunction { .. }), "{refused:?}");
            let message = "function missing is not registered: add `.on_complete::<..>()` to `Runtime::builder()`";
            assert_eq!(refused.to_string(), message);
            assert_eq!(pool.pending(), 0);
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn an_on_complete_whose_job_went_through_a_restart_runs_once() {
    on_each_store(|| {
        run_paused(async {
            let tables = Tables::new();
            let builder = || functions(builder().storage(tables.clone()));
            let (runtime, pool) = start(builder(), PoolConfig::default().paused(true)).await;
            let work = enqueue_counted(&pool, "restart").await;
            runtime.shutdown(secs(1)).await;
            let (runtime, pool) = start(builder(), PoolConfig::default().paused(false)).await;
            assert_eq!(pool.work::<u64>(work.id()).join().await, Ok(1));
            drained(&pool).await;
            assert_eq!(row(&runtime, "restart").await, json!(1));
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn the_completion_the_on_complete_and_what_it_enqueues_are_one_commit() {
    on_each_store(|| {
        run_paused(async {
            let storage = Faulty::new();
            let builder = functions(builder().storage(storage.clone()));
            let (runtime, pool) = start(builder, PoolConfig::default()).await;
            storage
                .fail_next(Fault::Refused, |change| matches!(change, Change::CompleteWork { .. }));
            let work = enqueue_counted(&pool, "commit").await;
            assert_eq!(work.join().await, Ok(1));
            drained(&pool).await;
            assert_eq!(storage.hits(), 1);
            assert_eq!(row(&runtime, "commit").await, json!(1), "the refused call left nothing");
            assert_eq!(CALLS.with_borrow(|calls| calls["commit"]), 2);
            let report = pool.diagnostics().await.unwrap().report;
            assert_eq!(report.succeeded, 2, "the job, and the one that its on_complete enqueued");
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn a_transaction_does_not_enqueue_a_finished_id_that_is_canceled_beside_it() {
    run_in_turn(async {
        let storage = Faulty::new();
        let ran = Gate::new();
        let at = ran.clone();
        let builder = builder().storage(storage.clone()).mutation::<Relay>();
        let builder = builder.pool("q", config()).action_fn(ECHO, move |n, _| {
            at.enter();
            async move { Ok(n) }
        });
        let (runtime, pool) = start(builder, config()).await;
        let other = runtime.pool("q").unwrap();
        assert_eq!(other.enqueue(ECHO.call(1)).id(id(1)).await.unwrap().join().await, Ok(1));
        // The mutation is kept and applied in the next group, which the cancel opens.
        storage.fail_next(Fault::Refused, reports);
        let mutation = pool.do_enqueue(Relay(id(1))).unwrap();
        until_hit(&storage).await;
        let commits = storage.commits();
        assert_eq!(other.cancel(id(1)).await.unwrap(), CancelAnswer::AlreadyFinished);
        assert_eq!(storage.commits(), commits + 1, "the mutation is in the group of the cancel");
        assert_eq!(soon(mutation.join()).await, Ok(()));
        soon(other.idle()).await.unwrap();
        tokio::time::sleep(secs(10)).await;
        assert_eq!((ran.count(), other.pending()), (1, 0));
        assert_eq!(other.diagnostics().await.unwrap().report.completed, 1);
        runtime.shutdown(secs(1)).await;
    });
}
