//! The page of a job.

use maud::{Markup, html};

use super::parts::{copy, progress, state_of};
use super::pretty::pretty;
use super::timeline::timeline;
use super::words::{bytes, capital, encoded, grouped, lasting, state_word, time};
use crate::model::Priority;
use crate::ops::{
    Big, ErrorView, ExplainView, JsonView, OnCompleteView, ShownKey, WorkDetail, WorkView,
};
use crate::web::{Permission, Permissions};

pub(in crate::web) fn job(detail: &WorkDetail, may: Permissions, said: Option<&str>) -> Markup {
    let WorkDetail { work, args, output, on_complete, retryable, .. } = detail;
    html! {
        p.crumb {
            a href={ "../works?state=" (work.state) "&outcome=" (work.outcome.unwrap_or_default()) } { "Jobs" }
            " / " code { (work.id) } (copy(&work.id, "id"))
        }
        @if let Some(said) = said.and_then(spoken) { p.note role="status" { (said) } }
        div #live data-poll {
            div.head {
                h1 { @if let Some(function) = work.function { (function) } @else { "Job" } " " (state_of(work)) }
                (controls(work, *retryable, may))
            }
            @if let Some(error) = &work.error { (failure(error)) }
            p.lead { (with_link(&sentence(detail), &detail.explain)) }
            div.two {
                div {
                    section.card aria-label="State" { h2 { "State" } (facts(detail)) }
                    @for (name, json) in [("Arguments", args), ("Result", output)] {
                        @if let Some(json) = json { (shown(name, json)) }
                    }
                    @if let Some(run) = on_complete { (follow(run)) }
                }
                (timeline(detail))
            }
        }
    }
}

/// The explanation without the names that stand above it, and with the words of the pages.
fn sentence(detail: &WorkDetail) -> String {
    let (work, sentence) = (&detail.work, &detail.explain.sentence);
    if let (Some(outcome), Some(end)) = (work.outcome, work.finished_at) {
        let ago = lasting(detail.explain.at.0.saturating_sub(end.0));
        let plural = if work.attempts == 1 { "" } else { "s" };
        let outcome = capital(state_word(outcome));
        return format!("{outcome} after {} attempt{plural}, {ago} ago.", work.attempts);
    }
    let names = work
        .function
        .zip(work.pool)
        .map(|(function, pool)| format!("job {} ({function} in pool {pool}) ", work.id));
    let bare = names.and_then(|names| sentence.strip_prefix(&names));
    capital(bare.unwrap_or(sentence))
}

/// The sentence, in which the job of the same key that runs is a link.
fn with_link(sentence: &str, explain: &ExplainView) -> Markup {
    let running = explain.details.get("running").filter(|_| explain.why == "behind_key");
    let running = running.and_then(|id| id.as_str());
    html! {
        @match running.and_then(|id| Some((id, sentence.split_once(id)?))) {
            Some((id, (before, behind))) => { (before) a href=(id) { (id) } (behind) }
            None => { (sentence) }
        }
    }
}

fn facts(detail: &WorkDetail) -> Markup {
    let WorkDetail { work, explain, .. } = detail;
    let now = explain.at;
    html! {
        dl {
            dt { "State" } dd { (state_of(work)) }
            dt { "Function" } dd { @if let Some(function) = work.function { (function) } }
            dt { "Pool" }
            dd { @if let Some(pool) = work.pool { a href={ "../pools/" (encoded(pool.as_str())) } { (pool) } } }
            @if let Some(priority) = work.priority {
                dt { "Priority" } dd { (Priority::new(priority)) }
            }
            @if let Some(key) = &work.key { dt { "Key" } dd { (key_of(work, key)) } }
            dt { "Attempts" }
            dd {
                (work.attempts) " counted"
                @if explain.max_attempts > 0 { " of " (explain.max_attempts) }
            }
            @for (name, at) in times(detail) {
                @if let Some(at) = at { dt { (name) } dd { (time(at, now)) } }
            }
            @if let Some(ahead) = &explain.ahead {
                dt { "Ahead" }
                dd { (grouped(ahead.works.0)) @if ahead.or_more { " or more" } }
            }
            @if let Some(said) = &work.progress { dt { "Progress" } dd { (progress(said)) } }
        }
    }
}

/// The key, which leads to the waiting jobs that have it, unless it is redacted.
fn key_of(work: &WorkView, key: &ShownKey) -> Markup {
    html! {
        @match work.pool {
            Some(pool) if key.is_own => {
                a href={ "../works?state=pending&pool=" (encoded(pool.as_str())) "&key=" (encoded(&key.text)) } {
                    code { (key.text) }
                }
            }
            _ => { code { (key.text) } }
        }
    }
}

fn times(WorkDetail { work, explain, .. }: &WorkDetail) -> [(&'static str, Option<Big>); 5] {
    [
        ("Enqueued", work.enqueued_at),
        ("Due", work.due),
        ("Expected to start", explain.expected.as_ref().map(|expected| expected.start)),
        ("Started", work.started),
        ("Finished", work.finished_at),
    ]
}

fn failure(error: &ErrorView) -> Markup {
    html! {
        section.card.failure aria-label="Last error" {
            h2 { "Last error" }
            pre { (error.message) }
        }
    }
}

fn follow(run: &OnCompleteView) -> Markup {
    html! {
        section.card aria-label="On complete" {
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
}

fn shown(name: &str, json: &JsonView) -> Markup {
    let text = pretty(&json.json);
    html! {
        section.card aria-label=(name) {
            div.head {
                h2 { (name) " " small { (bytes(json.bytes.0)) } }
                (copy(&text, name))
            }
            pre { (text) }
        }
    }
}

/// The controls of a job. What cannot be undone is opened first and then confirmed.
fn controls(work: &WorkView, retryable: bool, may: Permissions) -> Markup {
    let at_once = |permission: Permission, action: &str, label: &str| {
        html! {
            @if may.allow(permission) {
                form method="post" action={ (work.id) "/" (action) } { button.primary { (label) } }
            }
        }
    };
    let confirmed = |permission: Permission, action: &str, label: &str, sure: &str| {
        html! {
            @if may.allow(permission) {
                details.menu {
                    summary.danger { (label) "…" }
                    form.panel method="post" action={ (work.id) "/" (action) } {
                        button.danger { (sure) }
                    }
                }
            }
        }
    };
    html! {
        div.controls {
            @if retryable { (at_once(Permission::Retry, "retry", "Retry")) }
            @if work.state == "pending" { (at_once(Permission::RunNow, "run", "Run now")) }
            @if let ("pending", Some(priority)) = (work.state, work.priority)
                && may.allow(Permission::SetPriority)
            {
                (set_priority(work, priority))
            }
            @if matches!(work.state, "pending" | "running") {
                (confirmed(Permission::Cancel, "cancel", "Cancel", "Yes, cancel this job"))
            }
            @if work.state == "running" {
                (confirmed(Permission::Abort, "abort", "Abort", "Yes, drop its attempt"))
            }
        }
    }
}

/// The form that changes a job's priority.
fn set_priority(work: &WorkView, priority: i8) -> Markup {
    let named = [Priority::HIGH, Priority::NORMAL, Priority::LOW].map(Priority::number);
    html! {
        details.menu {
            summary { "Priority…" }
            form.panel method="post" action={ (work.id) "/priority" } {
                label { "Priority "
                    input type="number" name="priority" min="-128" max="127" value=(priority) required
                        list="priorities";
                }
                datalist id="priorities" {
                    @for number in named { option value=(number) { (Priority::new(number)) } }
                }
                p.soft { "The smallest number starts first: high is -10, low is 10." }
                button.primary { "Change" }
            }
        }
    }
}

/// The answer of a control, in words. Nothing from the address is repeated.
fn spoken(answer: &str) -> Option<&'static str> {
    Some(match answer {
        "requested" => "It is being canceled.",
        "already_requested" => "It had been canceled before.",
        "already_finished" => "It has finished already.",
        "moved" => "It is due now, and starts when there is a slot.",
        "changed" => "Its priority is changed.",
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
