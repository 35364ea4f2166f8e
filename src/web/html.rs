//! The pages as HTML. All outside data is text for maud, which escapes it.

use std::fmt::Display;
use std::fmt::Write as _;
use std::time::Duration;

use maud::{DOCTYPE, Markup, html};

use super::error::ApiError;
use super::query::{Filter, permission_of};
use super::{Permission, Permissions};
use crate::engine::explain::Lasting;
use crate::model::{MAX_PARALLELISM, Name, Segment};
use crate::ops::{
    self, AttemptView, Big, Bulk, BulkAction, ConfigView, ErrorView, Found, LatelyView, Overview,
    PageView, PoolConfigView, PoolView, ProgressView, RuntimeView, SlotView, WorkDetail, WorkView,
};

/// A page around its content. `base` is the relative link from the page to the overview.
pub(super) fn page(base: &str, title: &str, content: Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " – Workpool" }
                link rel="stylesheet" href={ (base) "assets/workpool.css" };
                link rel="icon" type="image/svg+xml" href={ (base) "assets/workpool.svg" };
                script src={ (base) "assets/workpool.js" } defer {}
            }
            body {
                a.skip href="#content" { "Skip to content" }
                header {
                    strong { "Workpool" }
                    nav aria-label="Pages" {
                        a href={ (base) "./" } { "Overview" }
                        a href={ (base) "works?state=pending" } { "Waiting" }
                        a href={ (base) "works?state=running" } { "Running" }
                        a href={ (base) "works?state=finished" } { "Finished" }
                        a href={ (base) "works?state=finished&outcome=failed" } { "Failed" }
                        a href={ (base) "config" } { "Configuration" }
                    }
                    form method="get" action={ (base) "find" } role="search" {
                        input name="id" aria-label="Id of a job" placeholder="Id of a job"
                            required maxlength="36" autocomplete="off";
                        " " button { "Find" }
                    }
                }
                main #content { (content) }
            }
        }
    }
}

pub(super) fn error(error: &ApiError) -> Markup {
    html! {
        h1 { (title_of(error)) }
        p.note role="alert" { (error.message) }
    }
}

pub(super) fn title_of(error: &ApiError) -> &'static str {
    error.status.canonical_reason().unwrap_or("Error")
}

pub(super) fn overview(overview: &Overview, may: Permissions) -> Markup {
    html! {
        h1 { "Overview" }
        div #live {
            ul.pools {
                @for pool in &overview.pools { li { (pool_card(pool, overview.at, may)) } }
            }
            @if overview.pools.is_empty() { p.soft { "There is no pool." } }
        }
    }
}

fn pool_card(pool: &PoolView, now: Big, may: Permissions) -> Markup {
    let name = encoded(pool.name.as_str());
    let listed = |state: &str| format!("works?pool={name}&state={state}");
    let report = &pool.report;
    html! {
        h2 { (pool.name) }
        dl {
            dt { "Status" }
            dd {
                @if pool.paused { span.busy { "paused" } } @else { (pool.status) }
            }
            dt { "Running" }
            dd {
                a href=(listed("running")) { (pool.running.0) " of " (pool.max_parallelism) }
                progress value=(pool.running.0) max=(pool.max_parallelism.max(1))
                    aria-label="Slots that are taken" {}
            }
            dt { "Waiting" }
            dd { a href=(listed("pending")) { (pool.waiting.0) } }
            dt { "Oldest waiting" }
            dd {
                @match pool.oldest_due {
                    Some(due) if due.0 > now.0 => { "due in " (lasting(due.0 - now.0)) }
                    Some(due) => { "due for " (lasting(now.0 - due.0)) }
                    None => { "–" }
                }
            }
            (lately(&pool.lately))
            dt { "Succeeded" } dd { (report.succeeded.0) }
            dt { "Failed" }
            dd {
                a href={ (listed("finished")) "&outcome=failed" } { (report.failed.0) }
            }
            dt { "Retries" } dd { (report.retries.0) }
            dt { "Canceled" } dd { (report.canceled.0) }
            @if pool.unregistered.0 > 0 {
                dt { "Not registered" }
                dd.bad {
                    (pool.unregistered.0) " of "
                    @for function in &pool.unregistered_functions { code { (function) } " " }
                }
            }
        }
        @if may.allow(Permission::Configure) {
            (change_pool(pool.name, pool.max_parallelism, pool.paused, ""))
        }
    }
}

/// The forms that change a pool. They lead back to the named page, or to the overview.
fn change_pool(pool: Name, max_parallelism: usize, paused: bool, back: &str) -> Markup {
    let name = encoded(pool.as_str());
    let action = match back {
        "" => format!("pools/{name}"),
        _ => format!("pools/{name}?back={back}"),
    };
    html! {
        details {
            summary { "Change…" }
            form method="post" action=(action) {
                label {
                    "Parallelism"
                    input type="number" name="max_parallelism" required
                        min="0" max=(MAX_PARALLELISM) value=(max_parallelism);
                }
                button { "Set for " (pool) }
            }
            form method="post" action=(action) {
                input type="hidden" name="paused" value=(!paused);
                button.danger[!paused] { (if paused { "Resume " } else { "Pause " }) (pool) }
            }
        }
    }
}

pub(super) fn config(config: &ConfigView, may: Permissions) -> Markup {
    html! {
        h1 { "Configuration" }
        ul.pools {
            @for pool in &config.pools { li { (pool_config(pool, may)) } }
        }
        @if config.pools.is_empty() { p.soft { "There is no pool." } }
        (runtime_config(&config.runtime))
    }
}

fn pool_config(pool: &PoolConfigView, may: Permissions) -> Markup {
    html! {
        h2 { (pool.name) }
        dl {
            dt { "Parallelism" }
            dd { (pool.max_parallelism) @if pool.paused { ", " span.busy { "paused" } } }
            dt { "Default retry" }
            dd {
                @match pool.default_retry {
                    Some(retry) => {
                        (retry.max_attempts) " attempts, the first retry after "
                        (lasting(retry.initial_backoff_ms.0)) ", then × " (retry.base)
                    }
                    None => { "none" }
                }
            }
            dt { "Attempt timeout" }
            dd {
                @match pool.attempt_timeout_ms {
                    Some(timeout) => { (lasting(timeout.0)) }
                    None => { "none" }
                }
            }
            dt { "Most pending" } dd { (grouped(pool.max_pending.0)) }
            dt { "Largest payload" } dd { (bytes(pool.max_payload_bytes.0)) }
            dt { "Log level" } dd { (pool.log_level) @if pool.log_error_messages { ", with error messages" } }
        }
        @if may.allow(Permission::Configure) {
            (change_pool(pool.name, pool.max_parallelism, pool.paused, "config"))
        }
    }
}

fn runtime_config(runtime: &RuntimeView) -> Markup {
    let kept = [
        runtime.retention.max_age_ms.map(|age| format!("for {}", lasting(age.0))),
        runtime.retention.max_count.map(|count| format!("the last {}", grouped(count.0))),
    ];
    let kept: Vec<_> = kept.into_iter().flatten().collect();
    html! {
        h2 { "Runtime" }
        dl {
            dt { "Store" } dd { (runtime.store) }
            dt { "Finished jobs" }
            dd {
                "kept "
                (if kept.is_empty() { "for ever".to_owned() } else { kept.join(", at most ") })
            }
            dt { "Jobs per turn" } dd { "at most " (grouped(runtime.max_batch as u64)) }
            dt { "Version" } dd { (runtime.version) }
        }
        h2 { "Functions" }
        @if runtime.functions.is_empty() { p.soft { "None is registered." } } @else {
            div.scroll { table {
                thead { tr {
                    th scope="col" { "Function" } th scope="col" { "Kind" }
                    th scope="col" { "Retry" } th scope="col" { "Timeout" }
                } }
                tbody {
                    @for function in &runtime.functions {
                        tr {
                            td data-label="Function" { code { (function.name) } }
                            td data-label="Kind" { (function.kind) }
                            td data-label="Retry" {
                                @match function.max_attempts {
                                    Some(1) => { "none" }
                                    Some(attempts) => { (attempts) " attempts" }
                                    None => { "as its pool" }
                                }
                            }
                            td data-label="Timeout" {
                                @match function.timeout_ms {
                                    Some(timeout) => { (lasting(timeout.0)) }
                                    None => { "as its pool" }
                                }
                            }
                        }
                    }
                }
            } }
        }
    }
}

/// The confirmation of a bulk operation, with the result of the last one.
pub(super) fn bulk(action: BulkAction, found: &Found, bulk: &Bulk, done: Option<usize>) -> Markup {
    let (verb, past, sure) = match action {
        BulkAction::Cancel => ("Cancel", "canceled", "Yes, cancel them"),
        BulkAction::Run => ("Run now", "made due", "Yes, end their wait"),
        BulkAction::Retry => ("Retry", "enqueued once more", "Yes, enqueue them once more"),
    };
    let (state, listed) = match action {
        BulkAction::Cancel | BulkAction::Run => ("Waiting", "state=pending"),
        BulkAction::Retry => ("Failed, not retried yet", "state=finished&outcome=failed"),
    };
    let count = match found.more {
        true => format!("{} or more", found.works.len()),
        false => found.works.len().to_string(),
    };
    html! {
        h1 { (verb) ": many jobs" }
        @if let Some(done) = done { p.note role="status" { (done) (if done == 1 { " was " } else { " were " }) (past) "." } }
        dl {
            dt { "Pool" } dd { (if bulk.pool.is_empty() { "any" } else { &bulk.pool }) }
            dt { "Function" } dd { (if bulk.function.is_empty() { "any" } else { &bulk.function }) }
            dt { (state) } dd { (count) @if !bulk.cursor.is_empty() { ", behind those looked at before" } }
        }
        @if found.works.is_empty() && !found.more {
            p.soft { "There is nothing to do." }
        } @else {
            @if found.more { p { "Not all were looked at. At most " (ops::MOST) " are taken at once." } }
            form.controls method="post" action=(action.as_str()) {
                input type="hidden" name="pool" value=(bulk.pool);
                input type="hidden" name="function" value=(bulk.function);
                input type="hidden" name="cursor" value=(bulk.cursor);
                button.danger[action == BulkAction::Cancel] { (sure) }
            }
        }
        p {
            a href={ "../works?" (listed) "&pool=" (encoded(&bulk.pool))
                "&function=" (encoded(&bulk.function)) } { "Back to the jobs" }
        }
    }
}

/// The rates and start lags of the last minute, with charts of the time before.
fn lately(lately: &LatelyView) -> Markup {
    let minutes = lately.slots.len() as u64 * lately.slot_s / 60;
    let label = |what: &str| format!("{what}, the last {minutes} minutes");
    let series = |of: fn(&SlotView) -> Option<u32>| lately.slots.iter().map(of).collect::<Vec<_>>();
    // The current slot is left out: it is incomplete, and would look as if the pool slowed down.
    let whole = |of: fn(&SlotView) -> Option<u32>| {
        let mut series = series(of);
        series.pop();
        series
    };
    html! {
        dt { "Throughput" }
        dd {
            (rate(lately.completed_per_s))
            @if lately.failed_per_s > 0.0 {
                ", " span.bad { (rate(lately.failed_per_s)) " failed" }
            }
            (sparkline(&label("Completed and failed"), &[
                ("main", whole(|slot| Some(slot.completed))),
                ("bad", whole(|slot| (slot.failed > 0).then_some(slot.failed))),
            ]))
        }
        dt { "Start lag" }
        dd {
            @match lately.start_lag {
                Some(lag) => {
                    (brief(lag.p50_ms)) span.soft { " p50" } ", "
                    (brief(lag.p99_ms)) span.soft { " p99" }
                }
                None => { "–" }
            }
            (sparkline(&label("Start lag, p50 and p99"), &[
                ("soft", series(|slot| slot.start_lag.map(|lag| lag.p99_ms))),
                ("main", series(|slot| slot.start_lag.map(|lag| lag.p50_ms))),
            ]))
        }
    }
}

/// The distance between two values of a sparkline; `HEIGHT` is the height of the highest value.
const STEP: usize = 2;
const HEIGHT: u64 = 20;

/// A chart with lines from the oldest value to the last one, with gaps where there is no value.
fn sparkline(label: &str, lines: &[(&str, Vec<Option<u32>>)]) -> Markup {
    let values = || lines.iter().flat_map(|(_, values)| values.iter().flatten());
    let Some(highest) = values().copied().max() else { return html! {} };
    let width = lines.iter().map(|(_, values)| values.len()).max().unwrap_or(0) * STEP;
    let path = |values: &[Option<u32>]| {
        let (mut path, mut is_on) = (String::new(), false);
        for (place, value) in values.iter().enumerate() {
            if let Some(value) = value {
                let up = u64::from(*value) * HEIGHT * 10 / u64::from(highest.max(1));
                let (x, y) = (place * STEP + 1, HEIGHT * 10 - up + 10);
                let verb = if is_on { 'L' } else { 'M' };
                // Writing to a string does not fail. A line of length 0 is a dot, for a single value.
                let _ = write!(path, "{verb}{x} {}.{}", y / 10, y % 10);
                path.push_str(if is_on { "" } else { "h0" });
            }
            is_on = value.is_some();
        }
        path
    };
    html! {
        svg.spark viewBox={ "0 0 " (width) " " (HEIGHT + 2) } preserveAspectRatio="none" role="img"
            aria-label=(label)
        {
            title { (label) }
            @for (class, values) in lines { path class=(class) d=(path(values)) {} }
        }
    }
}

fn rate(per_second: f64) -> String {
    match per_second {
        0.0 | 10.0.. => format!("{per_second:.0}/s"),
        1.0.. => format!("{per_second:.1}/s"),
        _ => format!("{per_second:.2}/s"),
    }
}

fn brief(millis: u32) -> String {
    match millis {
        0..10_000 => format!("{millis} ms"),
        _ => lasting(millis.into()),
    }
}

pub(super) fn works(page: &PageView, filter: &Filter, now: Segment, may: Permissions) -> Markup {
    let state = match (filter.state.as_str(), filter.outcome.as_str()) {
        ("", "") => "pending",
        ("", _) => "finished",
        (state, _) => state,
    };
    let actions: &[(BulkAction, &str)] = match (state, filter.outcome.as_str()) {
        ("pending", _) => &[(BulkAction::Run, "Run all now…"), (BulkAction::Cancel, "Cancel all…")],
        ("finished", "failed") => &[(BulkAction::Retry, "Retry all…")],
        _ => &[],
    };
    let option = |name: &str, chosen: &str| {
        html! {
            option value=(name) selected[name == chosen] { (if name.is_empty() { "any" } else { name }) }
        }
    };
    html! {
        h1 { "Jobs: " (state) @if !filter.outcome.is_empty() { ", " (filter.outcome) } }
        form.filter method="get" action="works" {
            label {
                "State"
                select name="state" {
                    @for name in ["pending", "running", "finished"] { (option(name, state)) }
                }
            }
            label {
                "Outcome, if finished"
                select name="outcome" {
                    @for name in ["", "success", "failed", "canceled"] {
                        (option(name, &filter.outcome))
                    }
                }
            }
            label { "Pool" input name="pool" value=(filter.pool) maxlength="200"; }
            label { "Function" input name="function" value=(filter.function) maxlength="200"; }
            button { "Show" }
        }
        @if !(filter.pool.is_empty() && filter.function.is_empty()) {
            p.controls {
                @for (action, label) in actions {
                    @if may.allow(permission_of(*action)) {
                        a href={ "works/" (action.as_str()) "?pool=" (encoded(&filter.pool))
                            "&function=" (encoded(&filter.function)) } { (label) }
                    }
                }
            }
        }
        div #live data-poll {
            @if page.works.is_empty() {
                p.soft { (if page.next.is_some() { "None among those looked at." } else { "Nothing here." }) }
            } @else {
                div.scroll { table {
                    thead { tr {
                        th scope="col" { "Job" } th scope="col" { "Function" }
                        th scope="col" { "Pool" } th scope="col" { "Attempts" }
                        th scope="col" { "State" }
                    } }
                    tbody { @for work in &page.works { (work_row(work, now)) } }
                } }
            }
            @if let Some(next) = page.next {
                p { a rel="next" href={ "works?" (next_page(filter, state, &next)) } { "Next page" } }
            }
        }
    }
}

fn work_row(work: &WorkView, now: Segment) -> Markup {
    html! {
        tr {
            td.id data-label="Work" { a href={ "works/" (work.id) } { code { (work.id) } } }
            td data-label="Function" { @if let Some(function) = work.function { (function) } }
            td data-label="Pool" { @if let Some(pool) = work.pool { (pool) } }
            td data-label="Attempts" { (work.attempts) }
            td.text data-label="State" {
                (state_of(work))
                @if let Some(due) = work.due { " due " (time(due, now)) }
                @if let Some(finished) = work.finished_at { " " (time(finished, now)) }
                @else if let Some(started) = work.started { " started " (time(started, now)) }
                @if let Some(error) = &work.error { div.soft { (error.message) } }
                @if let Some(said) = &work.progress { (progress(said)) }
            }
        }
    }
}

fn next_page(filter: &Filter, state: &str, cursor: &impl Display) -> String {
    let mut query = format!("state={}", encoded(state));
    let cursor = cursor.to_string();
    for (name, value) in [
        ("outcome", &filter.outcome),
        ("pool", &filter.pool),
        ("function", &filter.function),
        ("limit", &filter.limit),
        ("cursor", &cursor),
    ] {
        if !value.is_empty() {
            query.push('&');
            query.push_str(name);
            query.push('=');
            query.push_str(&encoded(value));
        }
    }
    query
}

pub(super) fn work(detail: &WorkDetail, may: Permissions, said: Option<&str>) -> Markup {
    let WorkDetail { work, explain, timeline, args, output, on_complete, retryable } = detail;
    let now = Segment(explain.at.0);
    html! {
        h1 { "Job " code { (work.id) } }
        @if let Some(said) = said.and_then(spoken) { p.note role="status" { (said) } }
        div #live data-poll {
            p.note { (explain.sentence) }
            section aria-label="State" { dl {
                dt { "State" } dd { (state_of(work)) }
                dt { "Function" } dd { @if let Some(function) = work.function { (function) } }
                dt { "Pool" }
                dd {
                    @if let Some(pool) = work.pool {
                        a href={ "../works?pool=" (encoded(pool.as_str())) "&state=" (work.state) } {
                            (pool)
                        }
                    }
                }
                dt { "Attempts" }
                dd {
                    (work.attempts) " counted"
                    @if explain.max_attempts > 0 { " of " (explain.max_attempts) }
                }
                @for (name, at) in [
                    ("Enqueued", work.enqueued_at),
                    ("Due", work.due),
                    ("Expected to start", explain.expected.as_ref().map(|expected| expected.start)),
                    ("Started", work.started),
                    ("Finished", work.finished_at),
                ] {
                    @if let Some(at) = at { dt { (name) } dd { (time(at, now)) } }
                }
                @if let Some(ahead) = &explain.ahead {
                    dt { "Ahead" }
                    dd { (ahead.works.0) @if ahead.or_more { " or more" } }
                }
                @if let Some(said) = &work.progress { dt { "Progress" } dd { (progress(said)) } }
            } }
            @if let Some(error) = &work.error { section { (failure(error)) } }
            @if !timeline.is_empty() { (attempts(timeline, now)) }
            @if let Some(run) = on_complete {
                section aria-label="On complete" {
                    h2 { "On complete" }
                    p {
                        code { (run.name) }
                        @match (run.state, &run.follow_up) {
                            ("waiting", _) => " runs in the commit that completes this job.",
                            (_, Some(id)) => {
                                " failed in the commit that completed this job, and became "
                                a href=(id) { "a job of its own" } "."
                            }
                            _ => " ran in the commit that completed this job.",
                        }
                    }
                }
            }
            @for (name, json) in [("Arguments", args), ("Result", output)] {
                @if let Some(json) = json {
                    section aria-label=(name) { details {
                        summary { (name) ", " (json.bytes.0) " bytes" }
                        pre { (json.json) }
                    } }
                }
            }
            @if work.state != "finished" || *retryable {
                section aria-label="Controls" { (controls(work, *retryable, may)) }
            }
        }
    }
}

/// The stored attempts of a job, as a table.
fn attempts(timeline: &[AttemptView], now: Segment) -> Markup {
    html! {
        section aria-label="Attempts" {
            h2 { "Attempts" }
            @if timeline.first().is_some_and(|first| first.attempt > 1) {
                p.soft { "Earlier ones are not remembered." }
            }
            div.scroll { table {
                thead { tr {
                    th scope="col" { "Attempt" } th scope="col" { "Started" }
                    th scope="col" { "Took" } th scope="col" { "Outcome" }
                } }
                tbody { @for attempt in timeline { tr {
                    td data-label="Attempt" { (attempt.attempt) }
                    td data-label="Started" {
                        @if let Some(started) = attempt.started { (time(started, now)) }
                    }
                    td data-label="Took" {
                        @if let Some((started, ended)) = attempt.started.zip(attempt.ended) {
                            (lasting(ended.0.saturating_sub(started.0)))
                        }
                    }
                    td.text data-label="Outcome" {
                        span class=(class_of(attempt.outcome)) { (attempt.outcome) }
                        @if let Some(message) = &attempt.message { div.soft { (message) } }
                    }
                } } }
            } }
        }
    }
}

/// The controls of a job. The user opens a control first and then confirms it.
fn controls(work: &WorkView, retryable: bool, may: Permissions) -> Markup {
    let control = |permission: Permission, action: &str, label: &str, sure: &str| {
        html! {
            @if may.allow(permission) {
                details {
                    summary { (label) "…" }
                    form method="post" action={ (work.id) "/" (action) } {
                        button.danger[matches!(permission, Permission::Cancel | Permission::Abort)] {
                            (sure)
                        }
                    }
                }
            }
        }
    };
    html! {
        div.controls {
            @if work.state == "pending" {
                (control(Permission::RunNow, "run", "Run now", "Yes, end its wait"))
            }
            @if retryable {
                (control(Permission::Retry, "retry", "Retry", "Yes, enqueue it once more"))
            }
            @if work.state != "finished" {
                (control(Permission::Cancel, "cancel", "Cancel", "Yes, cancel this job"))
            }
            @if work.state == "running" {
                (control(Permission::Abort, "abort", "Abort", "Yes, drop its attempt"))
            }
        }
    }
}

fn state_of(work: &WorkView) -> Markup {
    let state = work.outcome.unwrap_or(work.state);
    html! {
        span class=(class_of(state)) { (state) }
        @if work.canceling { " (canceling)" }
    }
}

fn class_of(state: &str) -> &'static str {
    match state {
        "success" => "good",
        "failed" => "bad",
        "running" => "busy",
        _ => "soft",
    }
}

fn failure(error: &ErrorView) -> Markup {
    html! {
        h2 { "Last error" }
        pre { (error.message) }
    }
}

fn progress(said: &ProgressView) -> Markup {
    html! {
        @match said.total {
            Some(total) => {
                progress value=(said.done.0) max=(total.0.max(1)) aria-label="Progress" {}
                (said.done.0) " of " (total.0)
            }
            None => { (said.done.0) }
        }
        @if let Some(note) = &said.note { " " span.soft { (note) } }
    }
}

/// The answer of a control, in words. Nothing from the address is repeated.
fn spoken(answer: &str) -> Option<&'static str> {
    Some(match answer {
        "requested" => "It is being canceled.",
        "already_requested" => "It had been canceled before.",
        "already_finished" => "It has finished already.",
        "moved" => "It is due now, and starts when there is a slot.",
        "already_due" => "It had been due already.",
        "not_registered" => "It waits until its function is registered.",
        "canceled" => "It was canceled, and will not be started.",
        "running" => "An attempt is running.",
        "not_found" => "It has finished, or is not known.",
        "enqueued" => "The failed job was enqueued once more, as this one.",
        "already_enqueued" => "The failed job had been enqueued once more before, as this one.",
        "not_failed" => "It has not failed.",
        "not_here" => "Its function is not registered here.",
        "not_started" => "Its pool was not started here.",
        _ => return None,
    })
}

/// A time relative to now, with the absolute time.
fn time(at: Big, now: Segment) -> Markup {
    let date = date(at.0);
    html! {
        time datetime=(date) title=(date) {
            @if at.0 > now.0 { "in " (lasting(at.0 - now.0)) }
            @else { (lasting(now.0 - at.0)) " ago" }
        }
    }
}

/// A number with separated thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

fn bytes(bytes: u64) -> String {
    match bytes {
        0..1_024 => format!("{bytes} bytes"),
        1_024..1_048_576 => format!("{} KiB", bytes / 1_024),
        _ => format!("{} MiB", bytes / 1_048_576),
    }
}

fn lasting(millis: u64) -> String {
    Lasting(Duration::from_millis(millis)).to_string()
}

/// Milliseconds since the Unix epoch, as a date and a time of the day in UTC.
fn date(millis: u64) -> String {
    let (seconds, days) = (millis / 1_000 % 86_400, millis / 86_400_000);
    // The civil calendar, in eras of 400 years that begin on 1 March.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Encodes text for a path or a query.
pub(super) fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(byte.into());
            }
            _ => {
                // Writing to a string does not fail.
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (millis, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (1_709_164_799_999, "2024-02-28T23:59:59Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(date(millis), expected);
        }
        date(u64::MAX);
    }

    #[test]
    fn thousands_are_told_apart() {
        let numbers = [0, 999, 1_000, 10_000_000].map(grouped);
        assert_eq!(numbers, ["0", "999", "1,000", "10,000,000"]);
    }

    #[test]
    fn a_line_has_gaps_where_there_is_nothing() {
        let line = sparkline("x", &[("main", vec![Some(0), Some(4), None, Some(2)])]);
        let line = line.into_string();
        assert!(line.contains("d=\"M1 21.0h0L3 1.0M7 11.0h0\""), "{line}");
        assert!(sparkline("x", &[("main", vec![None])]).into_string().is_empty());
    }

    #[test]
    fn what_was_not_looked_at_is_not_said_to_be_none() {
        let of = |more| {
            let found = Found { works: Vec::new(), more, next: None };
            bulk(BulkAction::Cancel, &found, &Bulk::default(), None).into_string()
        };
        assert!(
            of(false).contains("nothing to do") && !of(false).contains("<form class=\"controls\"")
        );
        assert!(of(true).contains("0 or more") && of(true).contains("<form class=\"controls\""));
        assert!(of(true).contains("At most 1000 are taken") && !of(true).contains("nothing to do"));
    }

    #[test]
    fn what_is_encoded_stays_in_its_place() {
        assert_eq!(encoded("a/b?c=d&e \"<ö>%"), "a%2Fb%3Fc%3Dd%26e%20%22%3C%C3%B6%3E%25");
    }
}
