//! Each metric moves when it should, and is named in the documentation and the dashboard as it is emitted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::*;
use actix_workpool::model::Change;
use actix_workpool::testing::network::{Delivery, Letter};
use actix_workpool::{ActionKey, PoolConfig, RetryBehavior, RuntimeBuilder, WorkError, Workpool};
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};

const TASK: ActionKey<u64, u64> = ActionKey::new("task");

/// Keeps everything that is measured on this thread.
#[derive(Clone, Default)]
struct Meter(Arc<Mutex<Board>>);

#[derive(Default)]
struct Board {
    /// By name: its kind, its unit and what is said of it.
    described: BTreeMap<String, (&'static str, Option<Unit>, String)>,
    /// By name and labels: every value there was.
    values: BTreeMap<(String, Labels), Vec<f64>>,
}

type Labels = BTreeMap<String, String>;

/// One metric with its labels.
struct Series(Meter, (String, Labels));

impl Series {
    fn new(meter: &Meter, key: &Key) -> Arc<Series> {
        let label = |label: &metrics::Label| (label.key().to_owned(), label.value().to_owned());
        let labels = key.labels().map(label).collect();
        Arc::new(Series(meter.clone(), (key.name().to_owned(), labels)))
    }

    fn push(&self, next: impl FnOnce(f64) -> f64) {
        let mut board = self.0.0.lock().unwrap();
        let values = board.values.entry(self.1.clone()).or_default();
        let last = values.last().copied().unwrap_or(0.0);
        values.push(next(last));
    }
}

impl CounterFn for Series {
    fn increment(&self, value: u64) {
        self.push(|last| last + value as f64);
    }
    fn absolute(&self, value: u64) {
        self.push(|_| value as f64);
    }
}

impl GaugeFn for Series {
    fn increment(&self, value: f64) {
        self.push(|last| last + value);
    }
    fn decrement(&self, value: f64) {
        self.push(|last| last - value);
    }
    fn set(&self, value: f64) {
        self.push(|_| value);
    }
}

impl HistogramFn for Series {
    fn record(&self, value: f64) {
        self.push(|_| value);
    }
}

impl Recorder for Meter {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe("counter", name, unit, text);
    }
    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe("gauge", name, unit, text);
    }
    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe("histogram", name, unit, text);
    }
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(Series::new(self, key))
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(Series::new(self, key))
    }
    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Series::new(self, key))
    }
}

impl Meter {
    fn describe(&self, kind: &'static str, name: KeyName, unit: Option<Unit>, text: SharedString) {
        let text = (kind, unit, text.into_owned());
        self.0.lock().unwrap().described.insert(name.as_str().to_owned(), text);
    }

    /// Every value of a metric with exactly these labels, given as `pool=p fn=task`.
    fn values(&self, name: &str, labels: &str) -> Vec<f64> {
        let pair = |pair: &str| pair.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
        let labels = labels.split_whitespace().filter_map(pair).collect();
        let board = self.0.lock().unwrap();
        board.values.get(&(name.to_owned(), labels)).cloned().unwrap_or_default()
    }

    /// Its last value; 0 if there is none.
    fn last(&self, name: &str, labels: &str) -> f64 {
        self.values(name, labels).last().copied().unwrap_or(0.0)
    }

    fn kinds(&self) -> BTreeMap<String, &'static str> {
        let described = &self.0.lock().unwrap().described;
        described.iter().map(|(name, (kind, ..))| (name.clone(), *kind)).collect()
    }
}

/// Runs a test in paused time with a recorder of its own.
fn measured<T>(test: impl AsyncFnOnce(Meter) -> T) -> T {
    let meter = Meter::default();
    let recorder = meter.clone();
    let _guard = metrics::set_default_local_recorder(&recorder);
    run_paused(test(meter))
}

fn config() -> PoolConfig {
    PoolConfig::default().max_parallelism(2)
}

/// `TASK` fails as often as its argument says, at most 10 times; 100 never ends, 200 asks to be run later once, and
/// above that it takes so many milliseconds.
fn functions(builder: RuntimeBuilder) -> RuntimeBuilder {
    let snoozed = AtomicBool::new(false);
    let snoozed = Arc::new(snoozed);
    builder.echo().on_complete::<Note>().action_fn(TASK, move |n, cx| {
        let snoozed = snoozed.clone();
        async move {
            match n {
                100 => std::future::pending().await,
                200 if !snoozed.swap(true, Ordering::SeqCst) => Err(WorkError::snooze(ms(5))),
                n if n <= 10 && u64::from(cx.attempt()) <= n => Err(WorkError::retryable("no")),
                n if n > 200 => {
                    tokio::time::sleep(ms(n)).await;
                    Ok(n)
                }
                n => Ok(n),
            }
        }
    })
}

async fn run(pool: &Workpool, n: u64) {
    let retry = RetryBehavior::default().max_attempts(3);
    let _ = soon(pool.enqueue(TASK.call(n)).retry(retry).await.unwrap().join()).await;
}

#[test]
fn jobs_and_attempts_are_counted_by_outcome() {
    measured(async |meter| {
        let (runtime, pool) = start(functions(builder()), config()).await;
        let enqueued = "workpool_enqueued_total";
        assert_eq!(meter.last(enqueued, "pool=p fn=task"), 0.0);
        run(&pool, 0).await;
        run(&pool, 2).await;
        run(&pool, 9).await;
        run(&pool, 200).await;
        let endless = pool.enqueue(TASK.call(100)).await.unwrap();
        let again = pool.enqueue(TASK.call(100)).id(endless.id()).await.unwrap();
        assert_eq!(again.id(), endless.id());
        pool.enqueue_batch([1, 2, 3].map(|n| ECHO.call(n))).await.unwrap().join().await;
        endless.abort(secs(0)).await.unwrap();
        assert!(endless.join().await.is_err());

        assert_eq!(meter.last(enqueued, "pool=p fn=task"), 5.0, "a duplicate is not enqueued");
        assert_eq!(meter.last(enqueued, "pool=p fn=echo"), 3.0);
        assert_eq!(meter.last("workpool_duplicates_total", "pool=p fn=task"), 1.0);
        let completed = |outcome| {
            meter.last("workpool_completed_total", &format!("pool=p fn=task outcome={outcome}"))
        };
        assert_eq!(["success", "failed", "canceled"].map(completed), [3.0, 1.0, 1.0]);
        let attempts = |outcome| {
            meter.last("workpool_attempts_total", &format!("pool=p fn=task outcome={outcome}"))
        };
        let outcomes = ["success", "failed", "canceled", "snoozed"];
        assert_eq!(outcomes.map(attempts), [3.0, 5.0, 1.0, 1.0]);
        assert_eq!(meter.last("workpool_retries_total", "pool=p fn=task"), 4.0);

        pool.enqueue(TASK.call(100)).await.unwrap();
        settle().await;
        runtime.shutdown(secs(0)).await;
        assert_eq!(attempts("returned"), 1.0);
    });
}

#[test]
fn what_runs_and_what_waits_is_shown() {
    measured(async |meter| {
        let (runtime, pool) = start(functions(builder()), config()).await;
        let gauge = |name| meter.last(name, "pool=p");
        let works: Vec<_> = vec![100, 100, 0, 0, 0];
        let works = pool.enqueue_batch(works.into_iter().map(|n| TASK.call(n))).await.unwrap();
        settle().await;
        assert_eq!(gauge("workpool_running"), 2.0);
        assert_eq!(gauge("workpool_pending"), 5.0);
        assert_eq!(gauge("workpool_max_parallelism"), 2.0);
        assert!(gauge("workpool_oldest_pending_age_seconds") < 0.01);

        // Also where nothing moves.
        tokio::time::sleep(secs(60)).await;
        let age = gauge("workpool_oldest_pending_age_seconds");
        assert!((54.0..=60.5).contains(&age), "{age}");
        pool.pause().await.unwrap();
        settle().await;
        assert_eq!(gauge("workpool_max_parallelism"), 0.0);
        pool.resume().await.unwrap();
        pool.enqueue(TASK.call(0)).run_after(secs(3_600)).await.unwrap();
        for endless in works.handles().take(2) {
            endless.abort(secs(0)).await.unwrap();
        }
        works.join().await;
        settle().await;
        assert_eq!(gauge("workpool_running"), 0.0);
        assert_eq!(gauge("workpool_pending"), 1.0);
        assert_eq!(gauge("workpool_oldest_pending_age_seconds"), 0.0, "it is not due");
        runtime.shutdown(secs(0)).await;
    });
}

#[test]
fn waiting_and_running_are_timed() {
    measured(async |meter| {
        let (runtime, pool) = start(functions(builder()), config().max_parallelism(1)).await;
        let works = pool.enqueue_batch([300, 500, 3].map(|n| TASK.call(n))).await.unwrap();
        works.join().await;
        let queue = meter.values("workpool_queue_duration_seconds", "pool=p fn=task");
        let near = |value: f64, expected: f64| (value - expected).abs() < 0.02;
        assert!(
            queue.len() == 3 && near(queue[0], 0.0) && near(queue[1], 0.3) && near(queue[2], 0.8),
            "{queue:?}"
        );
        let of = |outcome| {
            let labels = format!("pool=p fn=task outcome={outcome}");
            meter.values("workpool_process_duration_seconds", &labels)
        };
        let (success, failed) = (of("success"), of("failed"));
        assert!(
            success.len() == 2 && near(success[0], 0.3) && near(success[1], 0.5),
            "{success:?}"
        );
        assert!(failed.len() == 1 && near(failed[0], 0.0), "{failed:?}");
        assert!(!meter.values("workpool_loop_iteration_seconds", "pool=p").is_empty());
        runtime.shutdown(secs(0)).await;
    });
}

#[test]
fn a_failed_on_complete_is_counted() {
    measured(async |meter| {
        let (runtime, pool) = start(functions(builder()), config()).await;
        for fails in [false, true] {
            let work = pool.enqueue(TASK.call(0)).on_complete::<Note>(fails).await.unwrap();
            work.join().await.unwrap();
            let failures = meter.last("workpool_on_complete_failures_total", "pool=p fn=note");
            assert_eq!(failures, f64::from(u8::from(fails)));
        }
        pool.idle().await.unwrap();
        let follow_ups = meter.last("workpool_enqueued_total", "pool=p fn=note");
        assert_eq!(follow_ups, 1.0, "it became a job of its own");
        runtime.shutdown(secs(0)).await;
    });
}

#[test]
fn what_a_crash_has_left_is_counted() {
    measured(async |meter| {
        let storage = Faulty::new();
        let again = || functions(builder()).storage(storage.clone()).pool("p", config());
        let runtime = again().start().await.unwrap();
        runtime.pool("p").unwrap().enqueue(TASK.call(100)).await.unwrap();
        settle().await;
        assert_eq!(meter.last("workpool_recovered_total", "pool=p"), 0.0);
        drop(runtime);
        // The turn that takes it back is refused, and taken again.
        let is_taken_back = |change: &Change| {
            matches!(change, Change::CompleteWork { .. } | Change::RetryWork { .. })
        };
        storage.fail_next(Fault::Refused, is_taken_back);
        let runtime = start_again(again).await;
        tokio::time::sleep(secs(1)).await;
        assert_eq!(storage.hits(), 1);
        assert_eq!(meter.last("workpool_recovered_total", "pool=p"), 1.0);
        runtime.shutdown(secs(0)).await;
    });
}

#[test]
fn what_arrives_too_late_or_twice_is_refused_and_counted() {
    measured(async |meter| {
        let late = Arc::new(AtomicBool::new(true));
        let delivery = Delivery { after: secs(60), again: None };
        let courier = Astray { letter: Letter::Turn, delivery, on: late.clone() };
        let (runtime, pool) = start(functions(builder()).courier(courier), config()).await;
        tokio::time::sleep(secs(1)).await;
        late.store(false, Ordering::SeqCst);
        // The first look of the loop is under way; it gives it up and claims the pool anew.
        tokio::time::sleep(secs(50)).await;
        run(&pool, 0).await;
        assert_eq!(meter.last("workpool_fenced_total", "pool=p"), 0.0);
        tokio::time::sleep(secs(10)).await;
        assert_eq!(meter.last("workpool_fenced_total", "pool=p"), 1.0);
        runtime.shutdown(secs(1)).await;
    });
    measured(async |meter| {
        let delivery = Delivery { after: Duration::ZERO, again: Some(secs(1)) };
        let on = Arc::new(AtomicBool::new(true));
        let courier = Astray { letter: Letter::Report, delivery, on };
        let (runtime, pool) = start(functions(builder()).courier(courier), config()).await;
        run(&pool, 0).await;
        assert_eq!(meter.last("workpool_stale_reports_total", ""), 0.0);
        tokio::time::sleep(secs(2)).await;
        assert_eq!(meter.last("workpool_stale_reports_total", ""), 1.0);
        assert_eq!(pool.diagnostics().await.unwrap().report.completed, 1);
        runtime.shutdown(secs(1)).await;
    });
}

#[test]
fn the_storage_is_timed_and_its_errors_are_counted() {
    measured(async |meter| {
        let storage = Faulty::new();
        let (runtime, pool) = start(functions(builder()).storage(storage.clone()), config()).await;
        run(&pool, 0).await;
        for operation in ["open", "commit", "read_batch", "facts"] {
            let labels = format!("operation={operation}");
            let times = meter.values("workpool_store_operation_seconds", &labels);
            assert!(!times.is_empty(), "{operation}");
            assert!(times.iter().all(|time| (0.0..60.0).contains(time)), "{times:?}");
        }
        assert_eq!(meter.last("workpool_store_errors_total", "operation=commit"), 0.0);
        storage.fail_commit(storage.commits() + 1, Fault::Refused);
        assert!(pool.enqueue(TASK.call(0)).await.is_err());
        assert_eq!(meter.last("workpool_store_errors_total", "operation=commit"), 1.0);
        let enqueued = meter.last("workpool_enqueued_total", "pool=p fn=task");
        assert_eq!(enqueued, 1.0, "what was not committed is not counted");
        runtime.shutdown(secs(0)).await;
    });
}

/// The names in a text that look like metrics.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("workpool_")).map(str::to_owned).collect()
}

#[test]
fn everything_is_described_and_documented_and_the_dashboard_names_nothing_else() {
    let meter = measured(async |meter| {
        let (runtime, pool) = start(functions(builder()), config()).await;
        run(&pool, 1).await;
        runtime.shutdown(secs(0)).await;
        meter
    });
    let kinds = meter.kinds();
    let names: BTreeSet<_> = kinds.keys().cloned().collect();
    assert_eq!(names.len(), 21);
    let board = meter.0.lock().unwrap();
    for (name, labels) in board.values.keys() {
        assert!(kinds.contains_key(name), "{name} is described");
        let known = ["pool", "fn", "outcome", "operation", "schedule"];
        assert!(labels.keys().all(|label| known.contains(&label.as_str())), "{labels:?}");
    }
    for (name, (_, unit, text)) in &board.described {
        assert!(unit.is_some() && text.ends_with('.'), "{name}");
        assert_eq!(name.ends_with("_seconds"), *unit == Some(Unit::Seconds), "{name}");
    }
    drop(board);
    assert_eq!(
        named(include_str!("../../src/observe/metrics.rs")),
        names,
        "in the table and in the code"
    );
    let in_docs = named(include_str!("../../docs/metrics.md"));
    assert_eq!(in_docs, names, "in docs/metrics.md");
    for (name, kind) in &kinds {
        assert!(
            include_str!("../../docs/metrics.md").contains(&format!("| `{name}` | {kind} |")),
            "{name}"
        );
    }

    let dashboard = include_str!("../../examples/grafana.json");
    let json: serde_json::Value = serde_json::from_str(dashboard).unwrap();
    let mut shown = BTreeSet::new();
    for panel in json["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            shown.extend(named(target["expr"].as_str().unwrap()));
        }
    }
    for name in &shown {
        let of_histogram = ["_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let known = match of_histogram {
            Some(whole) => kinds.get(whole) == Some(&"histogram"),
            None => kinds.contains_key(name),
        };
        assert!(known, "the dashboard shows {name}, which does not exist");
    }
    for name in &names {
        assert!(shown.iter().any(|shown| shown.starts_with(name)), "{name} is not shown");
    }
}
