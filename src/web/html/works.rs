//! Lists of jobs.

use std::fmt::Display;

use maud::{Markup, html};

use super::bulk::done_to;
use super::layout::Here;
use super::parts::{badge, id, key, progress, state_of};
use super::words::{encoded, time};
use crate::model::Priority;
use crate::ops::{Big, BulkAction, PageView, WorkView};
use crate::web::Permissions;
use crate::web::query::{Did, Filter, permission_of};

/// What a page of jobs shows.
pub(in crate::web) struct Listed<'p> {
    pub page: &'p PageView,
    pub filter: &'p Filter,
    /// The result of the action that led to the page.
    pub did: Option<Did>,
    pub now: Big,
    /// The names to choose from.
    pub pools: Vec<String>,
    pub functions: Vec<String>,
    pub may: Permissions,
}

/// Returns the state and the outcome that are listed.
fn listed(filter: &Filter) -> (&str, &str) {
    match (filter.state.as_str(), filter.outcome.as_str()) {
        ("", "") => ("pending", ""),
        ("", outcome) => ("finished", outcome),
        (state, outcome) => (state, outcome),
    }
}

/// Returns the title of a list, and its entry in the navigation.
pub(in crate::web) fn list_title(filter: &Filter) -> (&'static str, Here) {
    match listed(filter) {
        ("running", _) => ("Running jobs", Here::Running),
        ("finished", "failed") => ("Failed jobs", Here::Failed),
        ("finished", "success") => ("Succeeded jobs", Here::Finished),
        ("finished", "canceled") => ("Canceled jobs", Here::Finished),
        ("finished", _) => ("Finished jobs", Here::Finished),
        _ => ("Waiting jobs", Here::Waiting),
    }
}

pub(in crate::web) fn works(list: &Listed<'_>) -> Markup {
    let Listed { page, filter, did, now, may, .. } = list;
    let (state, outcome) = listed(filter);
    let actions: &[(BulkAction, &str)] = match (state, outcome) {
        ("pending", _) => &[(BulkAction::Run, "Run all now…"), (BulkAction::Cancel, "Cancel all…")],
        ("finished", "failed") => &[(BulkAction::Retry, "Retry all…")],
        _ => &[],
    };
    let is_narrow = !(filter.pool.is_empty() && filter.function.is_empty());
    // All of a pool or a function are more than those of the list.
    let is_all = filter.priority.is_empty() && filter.key.is_empty();
    let actions = actions.iter().filter(|(action, _)| {
        may.allow(permission_of(*action)) && is_all && (is_narrow || *action == BulkAction::Retry)
    });
    let selected: Vec<_> = for_selected(state, outcome)
        .iter()
        .filter(|(action, _)| may.allow(permission_of(*action)))
        .collect();
    html! {
        div.head {
            h1 { (list_title(filter).0) }
            @if state == "finished" { (outcomes(filter, outcome)) }
        }
        @if let Some(did) = did { (said(*did)) }
        div.bar {
            (choose(list, state, outcome))
            div.controls {
                @for (action, label) in actions {
                    a.button href={ "works/" (action.as_str()) "?pool=" (encoded(&filter.pool))
                        "&function=" (encoded(&filter.function)) } { (label) }
                }
            }
        }
        div #live data-poll {
            @if page.works.is_empty() {
                p.card.soft { (if page.next.is_some() { "None among those looked at." } else { "Nothing here." }) }
            } @else if selected.is_empty() {
                (table(page, false, *now))
            } @else {
                form method="post" action="works/selected" {
                    @for (name, value) in [
                        ("state", state), ("outcome", outcome), ("pool", &filter.pool), ("function", &filter.function),
                        ("priority", &filter.priority), ("key", &filter.key), ("limit", &filter.limit),
                    ] {
                        input type="hidden" name=(name) value=(value);
                    }
                    (table(page, true, *now))
                    div.controls {
                        @for (action, label) in selected {
                            button name="action" value=(action.as_str()) .danger[*action == BulkAction::Cancel] {
                                (label)
                            }
                        }
                    }
                }
            }
            @if let Some(next) = &page.next {
                p { a.button rel="next" href={ "works?" (next_page(filter, state, next)) } { "Next page" } }
            }
        }
    }
}

/// The actions on jobs that are selected in a list.
fn for_selected(state: &str, outcome: &str) -> &'static [(BulkAction, &'static str)] {
    match (state, outcome) {
        ("pending", _) => {
            &[(BulkAction::Run, "Run selected now"), (BulkAction::Cancel, "Cancel selected")]
        }
        ("running", _) => &[(BulkAction::Cancel, "Cancel selected")],
        ("finished", "failed") => &[(BulkAction::Retry, "Retry selected")],
        _ => &[],
    }
}

fn said(did: Did) -> Markup {
    html! {
        p.note role="status" {
            @match did {
                Did::Nothing => { "Select jobs first." }
                Did::Done { action, done } => { (done_to(action, done)) }
            }
        }
    }
}

/// The links to lists of finished jobs.
fn outcomes(filter: &Filter, outcome: &str) -> Markup {
    html! {
        nav.tabs aria-label="Outcome" {
            @for (of, name) in [("", "All"), ("success", "Succeeded"), ("failed", "Failed"), ("canceled", "Canceled")] {
                a href={ "works?state=finished&outcome=" (of) "&pool=" (encoded(&filter.pool))
                    "&function=" (encoded(&filter.function)) }
                    aria-current=[(of == outcome).then_some("true")] { (name) }
            }
        }
    }
}

/// The form that chooses a pool and a function.
fn choose(list: &Listed<'_>, state: &str, outcome: &str) -> Markup {
    let chosen = |name: &str, label: &str, all: &[String], chosen: &str| {
        let is_known = chosen.is_empty() || all.iter().any(|one| one == chosen);
        html! {
            label {
                (label)
                select name=(name) {
                    option value="" { "any" }
                    @if !is_known { option value=(chosen) selected { (chosen) } }
                    @for one in all { option value=(one) selected[one == chosen] { (one) } }
                }
            }
        }
    };
    html! {
        form.filter method="get" action="works" {
            input type="hidden" name="state" value=(state);
            @if !outcome.is_empty() { input type="hidden" name="outcome" value=(outcome); }
            (chosen("pool", "Pool", &list.pools, &list.filter.pool))
            (chosen("function", "Function", &list.functions, &list.filter.function))
            @if state != "finished" {
                label { "Priority"
                    input type="number" name="priority" min="-128" max="127" placeholder="any"
                        value=(list.filter.priority);
                }
                label { "Key"
                    input name="key" placeholder="any" autocomplete="off" value=(list.filter.key);
                }
            }
            button { "Show" }
        }
    }
}

fn table(page: &PageView, selects: bool, now: Big) -> Markup {
    let has_keys = page.works.iter().any(|work| work.key.is_some());
    html! {
        div.scroll.card { table.works {
            thead { tr {
                @if selects { th.pick scope="col" { input.all type="checkbox" aria-label="Select all"; } }
                th scope="col" { "Function" } th scope="col" { "Job" } th scope="col" { "Pool" }
                @if has_keys { th scope="col" { "Key" } }
                th scope="col" { "Arguments" } th.n scope="col" { "Attempts" }
                th scope="col" { "State" }
            } }
            tbody { @for work in &page.works { (row(work, selects, has_keys, now)) } }
        } }
    }
}

fn row(work: &WorkView, selects: bool, has_keys: bool, now: Big) -> Markup {
    let function = work.function.map_or("–", |function| function.as_str());
    html! {
        tr {
            @if selects {
                td.pick { input type="checkbox" name="id" value=(work.id) aria-label={ "Select " (work.id) }; }
            }
            td.name data-label="Function" { a href={ "works/" (work.id) } { (function) } }
            td.id data-label="Job" { (id(&work.id)) }
            td data-label="Pool" { @if let Some(pool) = work.pool { (pool) } }
            @if has_keys {
                td.of-key data-label="Key" { @if let Some(shown) = &work.key { (key(shown)) } }
            }
            td.args data-label="Arguments" {
                @if let Some(preview) = &work.preview { code title=(preview) { (preview) } }
            }
            td.n data-label="Attempts" { (work.attempts) }
            td.text data-label="State" {
                (state_of(work)) " "
                @if let Some(priority) = work.priority.filter(|priority| *priority != 0) {
                    (badge(&Priority::new(priority).to_string(), "soft")) " "
                }
                span.soft {
                    @if let Some(due) = work.due { "due " (time(due, now)) }
                    @else if let Some(finished) = work.finished_at { (time(finished, now)) }
                    @else if let Some(started) = work.started { "started " (time(started, now)) }
                }
                @if let Some(error) = &work.error { div.error { (error.message) } }
                @if let Some(said) = &work.progress { div { (progress(said)) } }
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
        ("priority", &filter.priority),
        ("key", &filter.key),
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
