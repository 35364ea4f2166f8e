//! Log events, each defined once.
//!
//! The target of all events is `actix_workpool`. Arguments and results are never logged, and error messages only if the
//! pool enables it (`PoolConfig::log_error_messages`): read them with `status` and `join`.
//!
//! | event | tracing level | from `log_level` | fields |
//! |---|---|---|---|
//! | `runtime started` | info | always | `version` `store` `pools` (with their `max_parallelism`) `functions` |
//! | `runtime shut down` | info | always | `finished` `returned` `waiting`, or `gone` if jobs were in memory only |
//! | `enqueued` | info; debug | `Info`; `Report` | `pool` `work_id` `function` `delay_ms` |
//! | `started` | info; debug | `Info`; `Report` | `pool` `work_id` `function` `attempt` `start_lag_ms` |
//! | `completed` | info; debug | `Info`; `Report` | `pool` `work_id` `function` `status` (`success` `canceled` `retrying`) `attempts` |
//! | `job failed` | warn | `Warn` | `pool` `work_id` `function` `attempts` `kind`, and `error` where the pool says so |
//! | `report` | info | `Report` | `pool` `completed` `succeeded` `failed` `retries` `canceled` `running` `backlog` `failure_rate` `permanent_failure_rate` |
//! | `attempt overdue` | warn | `Warn` | `pool` `work_id` `function` `attempt` |
//! | `on_complete failed` | warn | `Warn` | `pool` `work_id` `function` `follow_up` |
//! | `function not registered` | warn | `Warn` | `pool` `work_id` |
//! | `mutation slow` | warn | always | `function` `took_ms` |
//! | `recovered` | warn | `Warn` | `pool` `attempts` |
//! | `wake-up lost` | error | always | `pool` `waited_ms` |
//! | `loop stalled` | error | always | `pool` `stalled_ms` |
//! | `turn failed` | error | always | `pool` `error` |
//! | `claim failed` | error | always | `pool` `error` |
//! | `storage failed` | error | always | `error` `kept` |
//! | `storage thread gone` | error | always | |
//! | `schedule late` | warn | always | `schedule` `error` |
//! | `runtime dropped without a shutdown` | warn | always | `finished` `returned` `pending` |
//! | `action blocks its thread` | warn | always, once a minute for each function | `function` `blocked_ms` |
//! | `worker thread ended` | warn | always | `host` |
//! | `worker thread not replaced` | error | always | `host` `error` |
//! | `dashboard open to everybody` | warn | always | |
//! | `app data missing` | error | always | `data` |
//! | `kicked` | debug; trace | `Debug`; always | `pool` `source` |
//! | `report stale` | debug | always | `work_id` `run` |
//! | `batch stale` | debug | always | `pool` `turn` |
//!
//! The span of an attempt is `attempt` (info) with `work_id`, `function` and `attempt`; it follows from the span in
//! which the job was enqueued.

use std::sync::Arc;
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing::{Level, Span, debug, error, info, info_span, trace, warn};

use crate::engine::Launch;
use crate::engine::rest::KickSource;
use crate::functions::Control;
use crate::model::{Failure, Finished, LogLevel, Name, Outcome, PoolId, Report, Segment, Turn};
use crate::observe::metrics;
use crate::protocol::{AdvanceError, Event, job_level};
use crate::shared::{PoolShared, Shared};
use crate::storage::StorageError;

const TARGET: &str = "actix_workpool";

/// The span of one attempt.
pub(crate) fn attempt_span(control: &Control) -> Span {
    let spec = &control.spec;
    let span = info_span!(
        target: TARGET, parent: None, "attempt",
        work_id = %spec.work_id, function = %spec.function, attempt = control.attempt
    );
    if let Some(origin) = spec.options.as_ref().and_then(|options| options.span.0.as_ref()) {
        span.follows_from(origin);
    }
    span
}

/// Logs an event about a single job, at the level that its pool wants.
macro_rules! of_job {
    ($pool:expr, $($event:tt)*) => {
        // The settings are behind a lock.
        if LevelFilter::current() >= LevelFilter::INFO {
            match job_level($pool.settings().log_level) {
                Some(Level::INFO) => info!(target: TARGET, pool = %$pool.name, $($event)*),
                Some(_) => debug!(target: TARGET, pool = %$pool.name, $($event)*),
                None => {}
            }
        }
    };
}

/// A schedule could not enqueue its job, and tries again.
pub(crate) fn not_scheduled(schedule: Name, error: &str) {
    warn!(target: TARGET, %schedule, %error, "schedule late");
}

pub(crate) fn started(pool: &PoolShared, launch: &Launch, now: Segment) {
    let start_lag_ms = now.since(launch.due).as_millis() as u64;
    of_job!(
        pool,
        work_id = %launch.spec.work_id, function = %launch.spec.function,
        attempt = launch.attempt, start_lag_ms, "started"
    );
}

/// Logs an event of a group.
pub(crate) fn store_event(shared: &Arc<Shared>, event: &Event) {
    metrics::store_event(shared, event);
    let allowed = |pool: PoolId, level: LogLevel| {
        shared.pool_by_id(pool).filter(|pool| pool.settings().log_level <= level)
    };
    match event {
        Event::Enqueued { spec, due } => {
            let Some(pool) = shared.pool_by_id(spec.pool) else { return };
            let delay_ms = due.since(spec.enqueued_at).as_millis() as u64;
            of_job!(
                pool,
                work_id = %spec.work_id, function = %spec.function, delay_ms, "enqueued"
            );
        }
        Event::Completed { finished } => {
            if let Outcome::Failed(failure) = &finished.outcome {
                return job_failed(shared, finished, failure);
            }
            if !tracing::enabled!(target: TARGET, tracing::Level::INFO) {
                return;
            }
            let Some(pool) = shared.pool_by_id(finished.pool) else { return };
            of_job!(
                pool,
                work_id = %finished.work_id, function = %finished.function,
                status = finished.outcome.as_str(), attempts = finished.attempts, "completed"
            );
        }
        Event::Retrying { work_id, pool, function, attempts, .. } => {
            let Some(pool) = shared.pool_by_id(*pool) else { return };
            of_job!(
                pool,
                %work_id, function = function.map(tracing::field::display), status = "retrying",
                attempts, "completed"
            );
        }
        Event::Stale { work_id, run } => {
            debug!(target: TARGET, %work_id, run, "report stale");
        }
        Event::OnCompleteFailed { work_id, pool, name, follow_up } => {
            if let Some(pool) = allowed(*pool, LogLevel::Warn) {
                warn!(
                    target: TARGET, pool = %pool.name, %work_id, function = %name, %follow_up,
                    "on_complete failed"
                );
            }
        }
        Event::SlowMutation { function, took } => {
            let took_ms = took.as_millis() as u64;
            warn!(target: TARGET, %function, took_ms, "mutation slow");
        }
        Event::Moved { .. } | Event::Retried { .. } => {}
        Event::Unregistered { work_id, pool } => {
            if let Some(pool) = allowed(*pool, LogLevel::Warn) {
                warn!(target: TARGET, pool = %pool.name, %work_id, "function not registered");
            }
        }
    }
}

/// Logs a job that has failed for good.
fn job_failed(shared: &Shared, finished: &Finished, failure: &Failure) {
    let Some(pool) = shared.pool_by_id(finished.pool) else { return };
    let settings = pool.settings();
    if settings.log_level <= LogLevel::Warn {
        let shows = shared.log_error_messages || settings.log_error_messages;
        let error = shows.then_some(&failure.message);
        warn!(
            target: TARGET, pool = %pool.name, work_id = %finished.work_id,
            function = %finished.function, attempts = finished.attempts, kind = ?failure.kind,
            error, "job failed"
        );
    }
}

/// Logs the start of a runtime.
pub(crate) fn runtime_started(shared: &Shared) {
    if !tracing::enabled!(target: TARGET, tracing::Level::INFO) {
        return;
    }
    let pool = |pool: &Arc<PoolShared>| {
        let settings = pool.settings();
        let paused = if settings.paused { ", paused" } else { "" };
        format!("{} ({}{paused})", pool.name, settings.max_parallelism)
    };
    let pools: Vec<_> = shared.pools().iter().map(pool).collect();
    info!(
        target: TARGET, version = env!("CARGO_PKG_VERSION"), store = shared.store_kind,
        pools = pools.join(", "), functions = shared.catalog.names().join(", "), "runtime started"
    );
}

/// Logs the shutdown of a runtime. Jobs that are in memory only are lost.
pub(crate) fn runtime_shut_down(finished: u64, returned: u64, pending: u64, in_memory: bool) {
    let (waiting, gone) = if in_memory { (None, Some(pending)) } else { (Some(pending), None) };
    info!(target: TARGET, finished, returned, waiting, gone, "runtime shut down");
}

pub(crate) fn report(pool: &PoolShared, report: &Report, running: usize) {
    if pool.settings().log_level > LogLevel::Report {
        return;
    }
    let rate = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
    let ended = report.succeeded + report.failed;
    info!(
        target: TARGET,
        pool = %pool.name,
        completed = report.completed,
        succeeded = report.succeeded,
        failed = report.failed,
        retries = report.retries,
        canceled = report.canceled,
        running,
        backlog = pool.pending().saturating_sub(running as u64),
        failure_rate = rate(report.failed + report.retries, report.completed),
        permanent_failure_rate = rate(report.failed, ended),
        "report"
    );
}

pub(crate) fn kicked(pool: &PoolShared, source: KickSource) {
    if !tracing::enabled!(target: TARGET, tracing::Level::DEBUG) {
        return;
    }
    match pool.settings().log_level <= LogLevel::Debug {
        true => debug!(target: TARGET, pool = %pool.name, ?source, "kicked"),
        false => trace!(target: TARGET, pool = %pool.name, ?source, "kicked"),
    }
}

pub(crate) fn abandoned(pool: &PoolShared, control: &Control) {
    if pool.settings().log_level <= LogLevel::Warn {
        warn!(
            target: TARGET, pool = %pool.name, work_id = %control.spec.work_id,
            function = %control.spec.function, attempt = control.attempt, "attempt overdue"
        );
    }
}

pub(crate) fn recovered(pool: &PoolShared, attempts: usize) {
    metrics::recovered(pool, attempts);
    if pool.settings().log_level <= LogLevel::Warn {
        warn!(target: TARGET, pool = %pool.name, attempts, "recovered");
    }
}

pub(crate) fn wakeup_lost(pool: &PoolShared, waited: Duration) {
    let waited_ms = waited.as_millis() as u64;
    error!(target: TARGET, pool = %pool.name, waited_ms, "wake-up lost");
}

pub(crate) fn stalled(pool: &PoolShared, stalled: Duration) {
    let stalled_ms = stalled.as_millis() as u64;
    error!(target: TARGET, pool = %pool.name, stalled_ms, "loop stalled");
}

pub(crate) fn turn_failed(pool: &PoolShared, error: &AdvanceError) {
    error!(target: TARGET, pool = %pool.name, ?error, "turn failed");
}

pub(crate) fn claim_failed(pool: &PoolShared, error: &StorageError) {
    error!(target: TARGET, pool = %pool.name, %error, "claim failed");
}

/// Logs an answer to a turn that the loop has given up: it was refused, or committed before the pool was claimed again.
pub(crate) fn stale_batch(pool: &PoolShared, turn: Turn) {
    debug!(target: TARGET, pool = %pool.name, turn = turn.number, "batch stale");
}

/// Logs a runtime that was dropped without a shutdown.
pub(crate) fn dropped(finished: u64, returned: u64, pending: u64) {
    if returned + pending == 0 {
        return debug!(target: TARGET, finished, "runtime dropped without a shutdown");
    }
    warn!(
        target: TARGET, finished, returned, pending,
        "runtime dropped without a shutdown"
    );
}

pub(crate) fn storage_failed(error: &StorageError, kept: usize) {
    error!(target: TARGET, %error, kept, "storage failed");
}

pub(crate) fn storage_thread_gone() {
    error!(target: TARGET, "storage thread gone");
}

pub(crate) fn host_replaced(host: usize) {
    warn!(target: TARGET, host, "worker thread ended");
}

/// Logs an action that blocks its thread.
pub(crate) fn thread_blocked(function: Name, blocked: Duration) {
    warn!(
        target: TARGET, %function, blocked_ms = blocked.as_millis() as u64,
        "action blocks its thread"
    );
}

pub(crate) fn host_not_replaced(host: usize, error: &std::io::Error) {
    error!(target: TARGET, host, %error, "worker thread not replaced");
}

/// Logs a dashboard that was created without access control.
#[cfg_attr(not(feature = "ops"), allow(dead_code))]
pub(crate) fn dashboard_open() {
    warn!(target: TARGET, "dashboard open to everybody");
}

/// Logs a handler that needs app data that its app does not have.
#[cfg_attr(not(feature = "ops"), allow(dead_code))]
pub(crate) fn data_missing(data: &'static str) {
    error!(target: TARGET, data, "app data missing");
}
