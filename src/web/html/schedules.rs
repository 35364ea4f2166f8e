//! Schedules: their times, last jobs, and controls.

use maud::{Markup, html};

use super::parts::{badge, id};
use super::words::{encoded, grouped, time};
use crate::ops::{Big, ScheduleView, SchedulesView};
use crate::web::{Permission, Permissions};

pub(in crate::web) fn schedules(
    view: &SchedulesView,
    now: Big,
    may: Permissions,
    said: Option<&str>,
) -> Markup {
    let may_change = may.allow(Permission::Schedule);
    html! {
        h1 { "Schedules" }
        @if let Some(said) = said.and_then(spoken) { p.note role="status" { (said) } }
        @if view.schedules.is_empty() {
            p.card.soft { "There is no schedule." }
        } @else {
            div #live data-poll { div.scroll.card { table {
                thead { tr {
                    th scope="col" { "Schedule" } th scope="col" { "Times" } th scope="col" { "Job" }
                    th scope="col" { "Next" } th scope="col" { "Last" } th.n scope="col" { "Skipped" }
                    @if may_change { th scope="col" { span.unseen { "Controls" } } }
                } }
                tbody { @for schedule in &view.schedules { (row(schedule, now, may_change)) } }
            } } }
        }
    }
}

fn row(schedule: &ScheduleView, now: Big, may_change: bool) -> Markup {
    html! {
        tr {
            th.name scope="row" {
                (schedule.id)
                @if schedule.paused { " " (badge("paused", "busy")) }
                @if !schedule.registered { " " (badge("not in the code", "busy")) }
            }
            td data-label="Times" { code { (schedule.times) } }
            td data-label="Job" {
                @if let (Some(function), Some(pool)) = (schedule.function, schedule.pool) {
                    (function) " in " a href={ "pools/" (encoded(pool.as_str())) } { (pool) }
                }
            }
            td data-label="Next" {
                @match schedule.next.first() {
                    Some(next) => { (time(*next, now)) }
                    None => { span.soft { "none" } }
                }
            }
            td data-label="Last" {
                @match (&schedule.last_job, schedule.last_time) {
                    (Some(job), Some(at)) => {
                        a href={ "works/" (job) } { (time(at, now)) } " " (id(job))
                    }
                    _ => { span.soft { "none" } }
                }
            }
            td.n data-label="Skipped" { (grouped(schedule.skipped.0)) }
            @if may_change { td.act { @if schedule.registered { (controls(schedule)) } } }
        }
    }
}

fn controls(schedule: &ScheduleView) -> Markup {
    let turned = if schedule.paused { ("resume", "Resume") } else { ("pause", "Pause") };
    html! {
        div.controls {
            @for (action, label) in [("trigger", "Run now"), turned] {
                form method="post" action={ "schedules/" (encoded(&schedule.id)) "/" (action) } {
                    button { (label) }
                }
            }
        }
    }
}

/// What a control has done, in words. Nothing from the address is repeated.
fn spoken(did: &str) -> Option<&'static str> {
    Some(match did {
        "pause" => "The schedule is paused.",
        "resume" => "The schedule is resumed.",
        "trigger" => "Its job is enqueued.",
        _ => return None,
    })
}
