//! Views of pools and jobs. Texts that may be secret are redacted here.

use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::big::Big;
use super::key_text::ShownKey;
use super::redaction::{Redaction, Sensitive};
use super::schema::{Basis, FailureKind};
use crate::client::{Diagnostics, PoolError, Workpool};
use crate::engine::explain::{Ahead, Explanation, Why};
use crate::engine::step::MAX_BATCH;
use crate::model::{
    Cursor, FailedAttempt, Failure, Finished, FinishedWork, FunctionKind, KeyRule, ListedWork,
    LogLevel, Name, Outcome, Priority, Progress, Rate, Report, Retention, RetryPolicy, Segment,
    Settings, WorkId, WorkPage, WorkStatus,
};
use crate::shared::rates::{Lag, Recent, SLOT, Slot};
use crate::shared::{Registered, Shared};

/// The maximum length of a text, in characters.
const LONGEST_TEXT: usize = 16 << 10;

/// The maximum length of a text in a list.
const LONGEST_IN_LIST: usize = 500;

/// The maximum length of the arguments in a list, in characters.
const LONGEST_PREVIEW: usize = 80;

/// The maximum size of arguments that are shown in a list, in bytes.
const LARGEST_PREVIEWED: usize = 16 << 10;

#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct Overview {
    pub at: Big,
    pub pools: Vec<PoolView>,
    /// The rates of each pool, for charts. Not a part of the views, which change only if the change is visible.
    #[serde(skip)]
    pub rates: Vec<Recent>,
}

impl Overview {
    pub async fn of(at: Segment, pools: &[Workpool]) -> Result<Overview, PoolError> {
        let mut overview = Overview { at: at.into(), pools: Vec::new(), rates: Vec::new() };
        for pool in pools {
            let (view, rates) = PoolView::of(pool).await?;
            overview.pools.push(view);
            overview.rates.push(rates);
        }
        Ok(overview)
    }
}

#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct PoolView {
    pub name: Name,
    pub paused: bool,
    pub max_parallelism: usize,
    pub rate: Option<RateView>,
    /// The time before which the rate admits no start, or until which the pool rests, if that is more than a second from
    /// now.
    pub limited_until: Option<Big>,
    pub max_pending: Big,
    /// Jobs without an outcome.
    pub pending: Big,
    pub waiting: Big,
    pub running: Big,
    pub completing: Big,
    pub canceling: Big,
    pub unregistered: Big,
    pub unregistered_functions: Vec<Name>,
    /// The time at which the oldest waiting job was or will be due.
    pub oldest_due: Option<Big>,
    /// `paused` if no job can start because the pool is paused or its parallelism is 0; `full` if every slot is taken
    /// and jobs that are due wait; `running` if a job runs or is about to; `idle` otherwise.
    #[schema(schema_with = super::schema::pool_status)]
    pub status: &'static str,
    pub report: ReportView,
    pub lately: LatelyView,
}

#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct ReportView {
    pub completed: Big,
    pub succeeded: Big,
    pub failed: Big,
    pub retries: Big,
    pub canceled: Big,
}

/// The recent activity of a pool.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct LatelyView {
    /// The rate of jobs with an outcome, in the last minute and the elapsed part of the current slot.
    pub completed_per_s: f64,
    /// The rate of jobs that failed for good.
    pub failed_per_s: f64,
    /// The time from due to start of the attempts that started in that time.
    pub start_lag: Option<LagView>,
    /// The length of each slot, in seconds.
    pub slot_s: u64,
    /// The time at which the last slot, the current one, began.
    pub last_slot_from: Big,
    /// Slots of time, oldest first.
    pub slots: Vec<SlotView>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct SlotView {
    pub completed: u32,
    /// Jobs that failed for good; included in `completed`.
    pub failed: u32,
    /// Jobs that were canceled; included in `completed`.
    pub canceled: u32,
    /// Attempts that started.
    pub started: u32,
    /// `None` if no attempt has started.
    pub start_lag: Option<LagView>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct LagView {
    pub p50_ms: u32,
    pub p99_ms: u32,
}

impl From<Lag> for LagView {
    fn from(Lag { p50, p99 }: Lag) -> LagView {
        LagView { p50_ms: p50, p99_ms: p99 }
    }
}

impl From<&Recent> for LatelyView {
    fn from(recent: &Recent) -> LatelyView {
        let window = recent.window;
        // Three decimal places, so that it changes only if the change is visible.
        let per_second =
            |count: u64| (count as f64 / window.as_secs_f64() * 1_000.0).round() / 1_000.0;
        let slot = |slot: &Slot| SlotView {
            completed: slot.completed,
            failed: slot.failed,
            canceled: slot.canceled,
            started: slot.started,
            start_lag: slot.lag.map(LagView::from),
        };
        LatelyView {
            completed_per_s: per_second(recent.completed),
            failed_per_s: per_second(recent.failed),
            start_lag: recent.lag.map(LagView::from),
            slot_s: SLOT.as_secs(),
            last_slot_from: recent.newest.into(),
            slots: recent.slots.iter().map(slot).collect(),
        }
    }
}

impl PoolView {
    /// Returns the view of a pool, and its rates.
    pub async fn of(pool: &Workpool) -> Result<(PoolView, Recent), PoolError> {
        let settings = pool.settings();
        let pending = Big(pool.pending());
        let (diagnostics, inspection) = pool.diagnosed().await?;
        let Diagnostics {
            pool: name,
            waiting,
            running,
            completing,
            canceling,
            unregistered,
            unregistered_names: unregistered_functions,
            oldest_due,
            spare_capacity: _,
            status,
            report: Report { completed, succeeded, failed, retries, canceled, .. },
        } = diagnostics;
        let view = PoolView {
            name,
            paused: settings.paused,
            max_parallelism: settings.max_parallelism,
            rate: settings.rate.map(RateView::from),
            limited_until: pool.limited_for_long().map(Big::from),
            max_pending: Big(settings.max_pending),
            pending,
            waiting: Big(waiting),
            running: Big(running),
            completing: Big(completing),
            canceling: Big(canceling),
            unregistered: Big(unregistered),
            unregistered_functions,
            oldest_due: oldest_due.map(Big::from),
            status: status.as_str(),
            report: ReportView {
                completed: Big(completed),
                succeeded: Big(succeeded),
                failed: Big(failed),
                retries: Big(retries),
                canceled: Big(canceled),
            },
            lately: (&inspection.recent).into(),
        };
        Ok((view, inspection.recent))
    }
}

/// The configuration of each pool and of the runtime.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ConfigView {
    pub pools: Vec<PoolConfigView>,
    pub runtime: RuntimeView,
}

/// The current configuration of a pool.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PoolConfigView {
    pub name: Name,
    pub max_parallelism: usize,
    pub paused: bool,
    pub rate: Option<RateView>,
    pub aging_ms: Option<Big>,
    pub per_key: KeyRuleView,
    pub default_retry: Option<RetryView>,
    pub attempt_timeout_ms: Option<Big>,
    pub max_pending: Big,
    pub max_payload_bytes: Big,
    /// `trace`, `debug`, `info`, `report`, `warn` or `error`.
    pub log_level: &'static str,
    /// `true` if the error messages of failed jobs are logged.
    pub log_error_messages: bool,
}

#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub(crate) struct RetryView {
    pub max_attempts: u32,
    pub initial_backoff_ms: Big,
    pub base: f64,
}

/// The rules that hold for each key of a pool.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct KeyRuleView {
    /// The number of jobs of a key that run at once, if it is limited.
    pub parallelism: Option<u32>,
    /// `true` if the jobs of a key run in the order of their enqueues.
    pub ordered: bool,
    /// The rate at which jobs of a key start, if it is limited.
    pub rate: Option<RateView>,
}

impl From<KeyRule> for KeyRuleView {
    fn from(rule: KeyRule) -> KeyRuleView {
        KeyRuleView {
            parallelism: rule.max_parallelism(),
            ordered: rule.is_ordered(),
            rate: rule.max_rate().map(RateView::from),
        }
    }
}

/// The rate at which the attempts of a pool start.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct RateView {
    /// In words.
    pub sentence: String,
    /// The time between two starts when jobs wait.
    pub interval_us: Big,
    /// The number of jobs that may start at once.
    pub burst: u32,
}

impl From<Rate> for RateView {
    fn from(rate: Rate) -> RateView {
        RateView {
            sentence: rate.to_string(),
            interval_us: Big(u64::try_from(rate.interval().as_micros()).unwrap_or(u64::MAX)),
            burst: rate.max_burst(),
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RuntimeView {
    /// The version of the library.
    pub version: &'static str,
    /// The name of the storage's type.
    pub store: &'static str,
    pub retention: RetentionView,
    /// The maximum number of jobs that a turn of a loop starts or completes.
    pub max_batch: usize,
    pub functions: Vec<FunctionView>,
}

/// The retention of finished jobs; a bound that is left out is unlimited.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RetentionView {
    pub max_age_ms: Option<Big>,
    pub max_count: Option<Big>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FunctionView {
    pub name: Name,
    /// `action`, `blocking_action`, `mutation`, `query` or `on_complete`.
    pub kind: &'static str,
    /// The number of attempts, if the function overrides the pool's.
    pub max_attempts: Option<u32>,
    /// The timeout of an attempt, if the function overrides the pool's.
    pub timeout_ms: Option<Big>,
}

impl ConfigView {
    pub fn of(shared: &Shared, pools: &[Workpool]) -> ConfigView {
        let mut functions: Vec<_> = shared.catalog.iter().map(FunctionView::of).collect();
        functions.sort_by_key(|function| function.name);
        let Retention { max_age, max_count } = shared.retention;
        ConfigView {
            pools: pools.iter().map(|pool| PoolConfigView::of(shared, pool)).collect(),
            runtime: RuntimeView {
                version: env!("CARGO_PKG_VERSION"),
                store: shared.store_kind,
                retention: RetentionView {
                    max_age_ms: max_age.map(Big::from),
                    max_count: max_count.map(Big),
                },
                max_batch: MAX_BATCH,
                functions,
            },
        }
    }
}

impl PoolConfigView {
    fn of(shared: &Shared, pool: &Workpool) -> PoolConfigView {
        let settings = pool.settings();
        let Settings {
            max_parallelism,
            paused,
            rate,
            aging,
            per_key,
            log_level,
            log_error_messages,
            default_retry,
            attempt_timeout,
            max_pending,
            max_payload_bytes,
        } = *settings;
        PoolConfigView {
            name: pool.name(),
            max_parallelism,
            paused,
            rate: rate.map(RateView::from),
            aging_ms: aging.map(Big::from),
            per_key: KeyRuleView::from(per_key),
            default_retry: default_retry.map(|retry| RetryView {
                max_attempts: retry.max_attempts,
                initial_backoff_ms: Big(retry.initial_backoff_ms),
                base: retry.base,
            }),
            attempt_timeout_ms: attempt_timeout.map(Big::from),
            max_pending: Big(max_pending),
            max_payload_bytes: Big(max_payload_bytes as u64),
            log_error_messages: shared.log_error_messages || log_error_messages,
            log_level: match log_level {
                LogLevel::Trace => "trace",
                LogLevel::Debug => "debug",
                LogLevel::Info => "info",
                LogLevel::Report => "report",
                LogLevel::Warn => "warn",
                LogLevel::Error => "error",
            },
        }
    }
}

impl FunctionView {
    fn of((name, registered): (Name, &Registered)) -> FunctionView {
        FunctionView {
            name,
            kind: match registered.kind {
                FunctionKind::Action if registered.blocking => "blocking_action",
                FunctionKind::Action => "action",
                FunctionKind::Mutation => "mutation",
                FunctionKind::Query => "query",
                FunctionKind::OnComplete => "on_complete",
            },
            max_attempts: match registered.retry {
                RetryPolicy::Inherit => None,
                RetryPolicy::Never => Some(1),
                RetryPolicy::With(retry) => Some(retry.max_attempts),
            },
            timeout_ms: registered.timeout.map(Big::from),
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PageView {
    pub works: Vec<WorkView>,
    pub next: Option<Cursor>,
}

impl PageView {
    pub fn of(page: WorkPage, redaction: &Redaction) -> PageView {
        let works = page.works.iter().map(|work| WorkView::of_listed(work, redaction)).collect();
        PageView { works, next: page.next }
    }
}

/// A job in a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WorkView {
    pub id: String,
    pub pool: Option<Name>,
    pub function: Option<Name>,
    /// `pending`, `running` or `finished`.
    #[schema(schema_with = super::schema::state)]
    pub state: &'static str,
    pub canceling: bool,
    /// The priority of a job that waits or runs; the smallest number starts first.
    pub priority: Option<i8>,
    /// The key, if it is still stored: as text, or `0x` and hexadecimal digits.
    #[schema(value_type = Option<String>)]
    pub key: Option<ShownKey>,
    /// The number of attempts that counted.
    pub attempts: u32,
    pub enqueued_at: Option<Big>,
    pub due: Option<Big>,
    pub started: Option<Big>,
    pub finished_at: Option<Big>,
    /// `success`, `failed` or `canceled`.
    #[schema(schema_with = super::schema::outcome_if_any)]
    pub outcome: Option<&'static str>,
    pub error: Option<ErrorView>,
    pub progress: Option<ProgressView>,
    /// The beginning of the arguments on one line, in a list, if they are still stored.
    #[serde(skip)]
    pub preview: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorView {
    pub kind: FailureKind,
    pub message: String,
    pub retryable: bool,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProgressView {
    pub done: Big,
    pub total: Option<Big>,
    pub note: Option<String>,
}

impl WorkView {
    fn pending(work_id: WorkId, pool: Option<Name>, function: Option<Name>) -> WorkView {
        WorkView {
            id: work_id.to_string(),
            pool,
            function,
            state: "pending",
            canceling: false,
            priority: None,
            key: None,
            attempts: 0,
            enqueued_at: None,
            due: None,
            started: None,
            finished_at: None,
            outcome: None,
            error: None,
            progress: None,
            preview: None,
        }
    }

    fn of_listed(work: &ListedWork, redaction: &Redaction) -> WorkView {
        let mut view = WorkView::pending(work.work_id, Some(work.pool), Some(work.function));
        view.canceling = work.canceling;
        view.priority = work.priority.map(Priority::number);
        view.key = work.key().map(|key| ShownKey::of(key, work.function, redaction));
        view.preview = work.args().map(|args| preview(args, work.function, redaction));
        view.enqueued_at = Some(work.enqueued_at.into());
        match &work.status {
            WorkStatus::Pending { previous_attempts, due } => {
                view.attempts = *previous_attempts;
                view.due = due.map(Big::from);
            }
            WorkStatus::Running { previous_attempts, started, progress } => {
                view.state = "running";
                view.attempts = *previous_attempts;
                view.started = Some((*started).into());
                let progress = progress.as_deref();
                view.progress = progress.map(|said| {
                    let said = redacted_progress(said, work.function, redaction);
                    ProgressView::of(&said, LONGEST_IN_LIST)
                });
            }
            WorkStatus::Finished(row) => {
                let row = redacted_row(row, redaction);
                view.finish(row.row(), LONGEST_IN_LIST);
            }
            WorkStatus::Unknown => view.state = "unknown",
        }
        view
    }

    /// Makes the view of a job from its explanation, of which all but the key is already redacted.
    fn of_explained(explained: &Explanation, redaction: &Redaction) -> WorkView {
        let mut view = WorkView::pending(explained.work_id, explained.pool, explained.function);
        view.attempts = explained.attempts;
        view.priority = explained.priority.map(Priority::number);
        let key = explained.key().zip(explained.function);
        view.key = key.map(|(key, function)| ShownKey::of(key, function, redaction));
        view.enqueued_at = explained.enqueued_at.map(Big::from);
        view.due = explained.due.map(Big::from);
        match &explained.why {
            Why::Running { since, progress, .. } => {
                view.state = "running";
                view.started = since.map(Big::from);
                let progress = progress.as_deref();
                view.progress = progress.map(|said| ProgressView::of(said, LONGEST_TEXT));
            }
            Why::Completing { .. } => view.state = "running",
            Why::Canceling { running_since } => {
                view.canceling = true;
                view.started = running_since.map(Big::from);
                view.state = if view.due.is_none() && running_since.is_some() {
                    "running"
                } else {
                    "pending"
                };
            }
            Why::Finished(row) => view.finish(row.row(), LONGEST_TEXT),
            Why::Unknown => view.state = "unknown",
            _ => {}
        }
        if let (Why::RetryBackoff { .. }, Some(last)) = (&explained.why, explained.last_failure()) {
            let message = shortened(&last.message, LONGEST_TEXT);
            view.error = Some(ErrorView { kind: last.kind.into(), message, retryable: true });
        }
        view
    }

    fn finish(&mut self, row: &Finished, longest: usize) {
        self.state = "finished";
        self.attempts = row.attempts;
        self.enqueued_at = Some(row.enqueued_at.into());
        self.finished_at = Some(row.finished_at.into());
        self.outcome = Some(row.outcome.as_str());
        if let Outcome::Failed(failure) = &row.outcome {
            self.error = Some(ErrorView::of(failure, longest));
        }
    }
}

impl ErrorView {
    fn of(failure: &Failure, longest: usize) -> ErrorView {
        let message = shortened(&failure.message, longest);
        ErrorView { kind: failure.kind.into(), message, retryable: failure.retryable }
    }
}

impl ProgressView {
    fn of(said: &Progress, longest: usize) -> ProgressView {
        let note = said.note.as_deref().map(|note| shortened(note, longest));
        ProgressView { done: Big(said.done), total: said.total.map(Big), note }
    }
}

/// A job with all its details.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WorkDetail {
    #[serde(flatten)]
    pub work: WorkView,
    pub explain: ExplainView,
    /// The stored attempts, oldest first, including the running one.
    pub timeline: Vec<AttemptView>,
    /// The arguments. Those of a succeeded job are not kept.
    pub args: Option<JsonView>,
    pub output: Option<JsonView>,
    pub on_complete: Option<OnCompleteView>,
    /// `true` if the job has failed and can be enqueued once more.
    pub retryable: bool,
}

/// An attempt.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AttemptView {
    /// The number of the attempt; the first is 1.
    pub attempt: u32,
    pub started: Option<Big>,
    pub ended: Option<Big>,
    /// `running`, `success`, `failed` or `canceled`.
    pub outcome: &'static str,
    /// The kind of the failure.
    pub kind: Option<FailureKind>,
    pub message: Option<String>,
}

/// The `on_complete` of a job, which runs in the commit that completes it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OnCompleteView {
    pub name: Name,
    /// `waiting`, `done` or `failed`.
    pub state: &'static str,
    /// The follow-up job, if the `on_complete` has failed.
    #[schema(value_type = Option<uuid::Uuid>)]
    pub follow_up: Option<String>,
}

/// Arguments or a result: the JSON as text, since its numbers may be too large and its nesting too deep for a parser.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JsonView {
    pub json: String,
    /// The size in the store, in bytes.
    pub bytes: Big,
}

/// The reason why a job waits or runs.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ExplainView {
    pub at: Big,
    /// The explanation in one sentence.
    pub sentence: String,
    /// The name of the reason, as of [`Why`].
    pub why: &'static str,
    /// Details of the reason.
    #[schema(value_type = Object)]
    pub details: Value,
    pub max_attempts: u32,
    pub due: Option<Big>,
    pub ahead: Option<AheadView>,
    pub expected: Option<ExpectedView>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AheadView {
    pub works: Big,
    pub or_more: bool,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ExpectedView {
    pub start: Big,
    pub basis: Basis,
}

impl WorkDetail {
    pub fn of(explained: Explanation, redaction: &Redaction) -> WorkDetail {
        let explained = redacted(explained, redaction);
        let output = match &explained.why {
            Why::Finished(row) => output(row, redaction),
            _ => None,
        };
        let args = explained.args().zip(explained.function);
        let args =
            args.map(|(args, function)| JsonView::of(Sensitive::Args, function, args, redaction));
        WorkDetail {
            work: WorkView::of_explained(&explained, redaction),
            explain: ExplainView::of(&explained),
            timeline: timeline(&explained),
            args,
            output,
            on_complete: explained.on_complete.map(|name| OnCompleteView::of(name, &explained.why)),
            retryable: matches!(&explained.why, Why::Finished(row) if row.can_be_retried()),
        }
    }
}

/// Makes the timeline of the stored attempts.
fn timeline(explained: &Explanation) -> Vec<AttemptView> {
    let failed = explained.history.attempts();
    let mut attempts: Vec<_> = failed
        .iter()
        .map(|failed| AttemptView {
            attempt: failed.attempt,
            started: Some(failed.started.into()),
            ended: Some(failed.ended.into()),
            outcome: "failed",
            kind: Some(failed.kind.into()),
            message: Some(failed.message.clone()),
        })
        .collect();
    let last =
        |attempt, started: Option<SystemTime>, ended: Option<SystemTime>, outcome| AttemptView {
            attempt,
            started: started.map(Big::from),
            ended: ended.map(Big::from),
            outcome,
            kind: None,
            message: None,
        };
    match &explained.why {
        Why::Running { attempt, since, .. } => {
            attempts.push(last(*attempt, *since, None, "running"));
        }
        Why::Canceling { running_since: Some(since) } => {
            attempts.push(last(explained.attempts + 1, Some(*since), None, "running"));
        }
        // A failed attempt is in the history already, even if the job was canceled meanwhile.
        Why::Finished(row)
            if row.started().is_some()
                && row.started() != failed.last().map(|failed| failed.started) =>
        {
            let attempt = row.attempts().max(1);
            let ended = Some(row.finished_at());
            attempts.push(last(attempt, row.started(), ended, row.outcome().as_str()));
        }
        _ => {}
    }
    attempts
}

impl OnCompleteView {
    fn of(name: Name, why: &Why) -> OnCompleteView {
        let Why::Finished(row) = why else {
            return OnCompleteView { name, state: "waiting", follow_up: None };
        };
        let follow_up = row.follow_up();
        let state = if follow_up.is_some() { "failed" } else { "done" };
        OnCompleteView { name, state, follow_up: follow_up.map(|work_id| work_id.to_string()) }
    }
}

impl ExplainView {
    fn of(explained: &Explanation) -> ExplainView {
        let (why, details) = reason(&explained.why);
        ExplainView {
            at: explained.at.into(),
            sentence: shortened(&explained.to_string(), LONGEST_TEXT),
            why,
            details,
            max_attempts: explained.max_attempts,
            due: explained.due.map(Big::from),
            ahead: explained
                .ahead
                .map(|Ahead { works, or_more }| AheadView { works: Big(works), or_more }),
            expected: explained.expected.map(|expected| ExpectedView {
                start: expected.start.into(),
                basis: expected.basis.into(),
            }),
        }
    }
}

fn reason(why: &Why) -> (&'static str, Value) {
    let time = |time: &Option<SystemTime>| time.map(Big::from);
    match why {
        Why::StoreStalled { since } => ("store_stalled", json!({ "since": Big::from(*since) })),
        // Messages of the storage go to the log only.
        Why::StoreFailing { since, .. } => ("store_failing", json!({ "since": Big::from(*since) })),
        Why::ShuttingDown => ("shutting_down", json!({})),
        Why::PoolNotStarted => ("pool_not_started", json!({})),
        Why::NotRegistered => ("not_registered", json!({})),
        Why::Paused { paused } => ("paused", json!({ "paused": paused })),
        Why::NotDue => ("not_due", json!({})),
        Why::RetryBackoff { retry, max_retries, .. } => {
            ("retry_backoff", json!({ "retry": retry, "max_retries": max_retries }))
        }
        Why::NoFreeSlot { running, limit } => {
            ("no_free_slot", json!({ "running": Big(*running), "limit": Big(*limit) }))
        }
        Why::RateLimited { until } => ("rate_limited", json!({ "until": Big::from(*until) })),
        Why::BehindKey { running } => {
            ("behind_key", json!({ "running": running.map(|id| id.to_string()) }))
        }
        Why::KeyLimited { until } => ("key_limited", json!({ "until": Big::from(*until) })),
        Why::Behind => ("behind", json!({})),
        Why::AboutToStart => ("about_to_start", json!({})),
        Why::Running { attempt, since, timeout_at, .. } => (
            "running",
            json!({ "attempt": attempt, "since": time(since), "timeout_at": time(timeout_at) }),
        ),
        Why::Completing { will_retry } => ("completing", json!({ "will_retry": will_retry })),
        Why::Canceling { running_since } => {
            ("canceling", json!({ "running_since": time(running_since) }))
        }
        Why::Finished(_) => ("finished", json!({})),
        Why::Unknown => ("unknown", json!({})),
    }
}

fn output(work: &FinishedWork, redaction: &Redaction) -> Option<JsonView> {
    let Outcome::Success(output) = work.outcome() else { return None };
    Some(JsonView::of(Sensitive::Output, work.function(), output.as_bytes(), redaction))
}

impl JsonView {
    fn of(what: Sensitive, function: Name, json: &[u8], redaction: &Redaction) -> JsonView {
        let bytes = Big(json.len() as u64);
        let json = String::from_utf8_lossy(json);
        let json = redaction.shown(what, function, &json);
        JsonView { json: shortened(&json, LONGEST_TEXT), bytes }
    }
}

/// Returns the beginning of arguments on one line. Large ones are not redacted for it, since that may take long, and
/// therefore not shown.
fn preview(args: &[u8], function: Name, redaction: &Redaction) -> String {
    if args.len() > LARGEST_PREVIEWED {
        return format!("({} KiB)", args.len() >> 10);
    }
    let text = String::from_utf8_lossy(args);
    let shown = redaction.shown(Sensitive::Args, function, &text);
    let line = shown.chars().map(|c| if c.is_control() { ' ' } else { c });
    shortened(&line.take(LONGEST_PREVIEW + 1).collect::<String>(), LONGEST_PREVIEW)
}

/// Redacts every text of an explanation, so that its sentence is redacted too.
fn redacted(mut explained: Explanation, redaction: &Redaction) -> Explanation {
    let function = explained.function;
    if let Some(function) = function {
        let attempts = explained.history.attempts().iter().cloned();
        let redacted = attempts.map(|attempt| {
            let message = redaction.shown(Sensitive::Error, function, &attempt.message);
            FailedAttempt { message: message.into_owned(), ..attempt }
        });
        explained.history = redacted.collect();
    }
    match (&mut explained.why, function) {
        (Why::Running { progress: Some(progress), .. }, Some(function)) => {
            *progress = Arc::new(redacted_progress(progress, function, redaction));
        }
        (Why::Finished(row), _) => *row = redacted_row(row, redaction),
        (Why::StoreFailing { error, .. }, _) => *error = "see the log".to_owned(),
        _ => {}
    }
    explained
}

/// Redacts the error of a row. Ignores its output, which may be large.
fn redacted_row(work: &FinishedWork, redaction: &Redaction) -> FinishedWork {
    let Outcome::Failed(failure) = work.outcome() else { return work.clone() };
    let failure = redacted_failure(failure, work.function(), redaction);
    let row = Finished { outcome: Outcome::Failed(failure), ..Finished::clone(work.row()) };
    Arc::new(row).into()
}

fn redacted_failure(failure: &Failure, of: Name, redaction: &Redaction) -> Failure {
    let message = redaction.shown(Sensitive::Error, of, &failure.message).into_owned();
    Failure { message, ..failure.clone() }
}

fn redacted_progress(said: &Progress, of: Name, redaction: &Redaction) -> Progress {
    let note = said.note.as_deref();
    let note = note.map(|note| redaction.shown(Sensitive::Progress, of, note).into_owned());
    Progress { note, ..*said }
}

/// Cuts a text to the maximum number of characters, and marks the cut.
fn shortened(text: &str, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
