//! Operations: logs, metrics, the dashboard, and why a job waits.
//!
//! # Logs
//!
//! Events go to [`tracing`](https://docs.rs/tracing) under the target `actix_workpool`. By default the log has:
//!
//! | level | what |
//! |---|---|
//! | info | start (version, store, pools with limits, functions) and shutdown (finished, returned, waiting) |
//! | warn | a job that has failed for good, with pool, function, id, attempts and kind; a function that blocks its thread; a store that fails |
//! | error | failures of the library itself |
//! | debug | every job: enqueued, started, completed, retried |
//!
//! `RUST_LOG=actix_workpool=debug` shows every job without any setting of a pool. Arguments and results are never logged, and messages
//! of errors only with [`PoolConfig::log_error_messages`](crate::PoolConfig::log_error_messages), or with
//! [`RuntimeBuilder::log_error_messages`](crate::RuntimeBuilder::log_error_messages) for all pools.
//! [`telemetry`](crate::telemetry) lists the events.
//!
//! # Why does it wait?
//!
//! [`explain`](crate::WorkHandle::explain) answers for one job: the reason, how many jobs are ahead, and when it is expected to start.
//!
//! ```
//! # use actix_workpool::doctest::{self, Double};
//! use std::time::Duration;
//!
//! use actix_workpool::Why;
//!
//! # doctest::run(async {
//! # let runtime = doctest::runtime().await?;
//! # let pool = runtime.pool("default")?;
//! let work = pool.enqueue(Double(1)).run_after(Duration::from_secs(60)).await?;
//! let explained = work.explain().await?;
//! assert_eq!(explained.why, Why::NotDue);
//! println!("{explained}"); // job 0197… (double in pool default) waits for its time; expected to start in 1 min
//! # runtime.shutdown(Duration::ZERO).await;
//! # Ok(()) });
//! ```
//!
//! [`Workpool::works`](crate::Workpool::works) lists jobs by state, page by page, and
//! [`Workpool::diagnostics`](crate::Workpool::diagnostics) has a pool in numbers.
//!
//! # Metrics
//!
//! With the feature `metrics`, counters, gauges and histograms go through the [`metrics`](https://docs.rs/metrics) facade to the recorder
//! that the program has installed, such as `metrics-exporter-prometheus`. Install it before the runtime starts. The module
//! `actix_workpool::metrics` has the table; `examples/grafana.json` is a Grafana dashboard over it. Worth an alert:
//!
//! - `workpool_oldest_pending_age_seconds`: how long the first job that waits for a slot has been due.
//! - `rate(workpool_completed_total{outcome="failed"}[5m])`: jobs that failed for good.
//! - `workpool_store_errors_total` and `workpool_blocked_threads_total`: should not grow.
//!
//! # The dashboard
//!
//! With the feature `actix-web`, `actix_workpool::web` serves a dashboard and a JSON API under any prefix, behind your own
//! authorization. `healthz` tells whether the store answers.
