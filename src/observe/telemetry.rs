//! Every event, named once.
//!
//! Target of all is `actix_workpool`. Arguments, results and error messages are never logged: read them with
//! `status` and `join`.
//!
//! | event | tracing level | from `log_level` | fields |
//! |---|---|---|---|
//! | `enqueued` | info | `Info` | `pool` `work_id` `function` `delay_ms` |
//! | `started` | info | `Info` | `pool` `work_id` `function` `attempt` `start_lag_ms` |
//! | `completed` | info | `Info` | `pool` `work_id` `function` `status` (`success` `failed` `canceled` `retrying`) `attempts` `failure` |
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
//! | `worker host replaced` | warn | always | `host` `was_connected` |
//! | `worker host not replaced` | error | always | `host` `error` |
//! | `dashboard open to everybody` | warn | always | |
//! | `app data missing` | error | always | `data` |
//! | `kicked` | debug | `Debug` | `pool` `source` |
//! | `report stale` | debug | always | `work_id` `run` |
//! | `batch stale` | debug | always | `pool` `turn` |
//!
//! The span of an attempt is `attempt` (info) with `work_id`, `function` and `attempt`; it follows from the span in
//! which the job was enqueued.

use std::sync::Arc;
use std::time::Duration;

use tracing::{Span, debug, error, info, info_span, warn};

use crate::engine::Launch;
use crate::engine::rest::KickSource;
use crate::functions::Control;
use crate::model::LogLevel;
use crate::model::{Name, Outcome, PoolId, Report, Segment, Turn};
use crate::observe::metrics;
use crate::protocol::{AdvanceError, Event};
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

pub(crate) fn started(pool: &PoolShared, level: LogLevel, launch: &Launch, now: Segment) {
    if level <= LogLevel::Info {
        let start_lag_ms = now.since(launch.due).as_millis() as u64;
        info!(
            target: TARGET, pool = %pool.name, work_id = %launch.spec.work_id,
            function = %launch.spec.function, attempt = launch.attempt, start_lag_ms, "started"
        );
    }
}

/// Logs an event of a group.
pub(crate) fn store_event(shared: &Arc<Shared>, event: &Event) {
    metrics::store_event(shared, event);
    let allowed = |pool: PoolId, level: LogLevel| {
        shared.pool_by_id(pool).filter(|pool| pool.settings().log_level <= level)
    };
    match event {
        Event::Enqueued { spec, due } => {
            if let Some(pool) = allowed(spec.pool, LogLevel::Info) {
                let delay_ms = due.since(spec.enqueued_at).as_millis() as u64;
                info!(
                    target: TARGET, pool = %pool.name, work_id = %spec.work_id,
                    function = %spec.function, delay_ms, "enqueued"
                );
            }
        }
        Event::Completed { finished } => {
            if !tracing::enabled!(target: TARGET, tracing::Level::INFO) {
                return;
            }
            if let Some(pool) = allowed(finished.pool, LogLevel::Info) {
                let failure = match &finished.outcome {
                    Outcome::Failed(failure) => Some(failure.kind),
                    _ => None,
                };
                info!(
                    target: TARGET, pool = %pool.name, work_id = %finished.work_id,
                    function = %finished.function, status = finished.outcome.as_str(),
                    attempts = finished.attempts, failure = failure.map(tracing::field::debug),
                    "completed"
                );
            }
        }
        Event::Retrying { work_id, pool, function, attempts, .. } => {
            if let Some(pool) = allowed(*pool, LogLevel::Info) {
                info!(
                    target: TARGET, pool = %pool.name, %work_id,
                    function = function.map(tracing::field::display), status = "retrying", attempts,
                    "completed"
                );
            }
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
    if tracing::enabled!(target: TARGET, tracing::Level::DEBUG)
        && pool.settings().log_level <= LogLevel::Debug
    {
        debug!(target: TARGET, pool = %pool.name, ?source, "kicked");
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

/// An answer to a turn that the loop has given up: that was refused, or was committed before the pool was claimed anew.
pub(crate) fn stale_batch(pool: &PoolShared, turn: Turn) {
    debug!(target: TARGET, pool = %pool.name, turn = turn.number, "batch stale");
}

/// A runtime was dropped without a shutdown.
pub(crate) fn dropped(finished: u64, returned: u64, pending: u64) {
    if returned + pending == 0 {
        return debug!(target: TARGET, finished, "runtime dropped without a shutdown");
    }
    warn!(
        target: TARGET, finished, returned, pending,
        "runtime dropped without a shutdown; call `shutdown` so that running jobs may finish"
    );
}

pub(crate) fn storage_failed(error: &StorageError, kept: usize) {
    error!(target: TARGET, %error, kept, "storage failed");
}

pub(crate) fn storage_thread_gone() {
    error!(target: TARGET, "storage thread gone");
}

pub(crate) fn host_replaced(host: usize) {
    warn!(target: TARGET, host, "worker thread ended, another takes its place");
}

/// An action does not give its thread back.
pub(crate) fn thread_blocked(function: Name, blocked: Duration) {
    warn!(
        target: TARGET, %function, blocked_ms = blocked.as_millis() as u64,
        "action blocks its thread; use a BlockingAction for code that blocks or computes for long"
    );
}

pub(crate) fn host_not_replaced(host: usize, error: &std::io::Error) {
    error!(target: TARGET, host, %error, "worker thread not replaced");
}

/// A dashboard was made that asks nobody who he is.
#[cfg_attr(not(feature = "ops"), allow(dead_code))]
pub(crate) fn dashboard_open() {
    warn!(target: TARGET, "dashboard open to everybody");
}

/// A handler takes what its app does not have.
#[cfg_attr(not(feature = "ops"), allow(dead_code))]
pub(crate) fn data_missing(data: &'static str) {
    error!(target: TARGET, data, "app data missing");
}
