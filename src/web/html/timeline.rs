//! The timeline of a job: what it has waited for and when it ran, as a bar and as a list.

use maud::{Markup, html};

use super::words::{capital, class_of, lasting, state_word, time};
use crate::ops::{Big, WorkDetail};

/// The width of the bar in its own units, and the least width of a part of it.
const WIDTH: u64 = 1_000;
const LEAST: u64 = 8;

/// A part of a job's life.
struct Part<'d> {
    /// What happened: `waited`, or the outcome of an attempt.
    class: &'static str,
    name: String,
    from: u64,
    to: u64,
    /// `true` if it goes on.
    is_open: bool,
    message: Option<&'d str>,
}

impl Part<'_> {
    fn took(&self) -> u64 {
        self.to.saturating_sub(self.from)
    }
}

pub(super) fn timeline(detail: &WorkDetail) -> Markup {
    let now = detail.explain.at;
    let parts = parts(detail);
    let Some(first) = parts.first() else { return html! {} };
    let end = detail.work.finished_at;
    html! {
        section.card aria-label="Timeline" {
            h2 { "Timeline" }
            (bar(&parts))
            @if detail.timeline.first().is_some_and(|first| first.attempt > 1) {
                p.soft { "Earlier attempts are not remembered." }
            }
            ol.timeline {
                li { span.dot {} span { "Enqueued" } span {} span.soft { (time(Big(first.from), now)) } }
                @for part in &parts {
                    li {
                        span class={ "dot " (part.class) } {}
                        span { (part.name) }
                        span.n { @if part.is_open { "for " } (lasting(part.took())) }
                        span.soft { (time(Big(part.from), now)) }
                        @if let Some(message) = part.message { div.error { (message) } }
                    }
                }
                @if let (Some(end), Some(outcome)) = (end, detail.work.outcome) {
                    li {
                        span class={ "dot " (class_of(outcome)) } {}
                        strong { (capital(state_word(outcome))) }
                        span.n { "after " (lasting(end.0.saturating_sub(first.from))) }
                        span.soft { (time(end, now)) }
                    }
                }
            }
        }
    }
}

fn parts(detail: &WorkDetail) -> Vec<Part<'_>> {
    let WorkDetail { work, explain, timeline, .. } = detail;
    let now = explain.at.0;
    let first = timeline.first().and_then(|attempt| attempt.started);
    let Some(mut at) = work.enqueued_at.or(first).map(|at| at.0) else { return Vec::new() };
    let mut parts = Vec::new();
    let wait = |from: u64, to: u64, number: usize, is_open| Part {
        class: "waited",
        name: match (number, is_open) {
            (0, false) => "Waited".to_owned(),
            (0, true) => "Waits".to_owned(),
            (_, false) => "Waited for the retry".to_owned(),
            (_, true) => "Waits for the retry".to_owned(),
        },
        from,
        to,
        is_open,
        message: None,
    };
    for (number, attempt) in timeline.iter().enumerate() {
        let from = attempt.started.map_or(at, |started| started.0);
        if from > at {
            parts.push(wait(at, from, number, false));
        }
        let is_open = attempt.ended.is_none();
        at = attempt.ended.map_or(now, |ended| ended.0);
        parts.push(Part {
            class: class_of(attempt.outcome),
            name: format!(
                "Attempt {} {}",
                attempt.attempt,
                if is_open { "runs" } else { state_word(attempt.outcome) }
            ),
            from,
            to: at,
            is_open,
            message: attempt.message.as_deref(),
        });
    }
    let ran = timeline.len();
    match work.finished_at {
        Some(end) if ran == 0 => parts.push(wait(at, end.0, ran, false)),
        None if work.state == "pending" => parts.push(wait(at, now.max(at), ran, true)),
        _ => {}
    }
    parts
}

/// The parts beside each other, as wide as they took long, but none too narrow to be seen.
fn bar(parts: &[Part<'_>]) -> Markup {
    let total = parts.iter().map(Part::took).fold(0, u64::saturating_add).max(1);
    let room = WIDTH.saturating_sub(LEAST * parts.len() as u64);
    let width = |part: &Part<'_>| {
        LEAST + (u128::from(part.took()) * u128::from(room) / u128::from(total)) as u64
    };
    let mut x = 0;
    let placed = parts.iter().map(|part| {
        let from = x;
        x += width(part);
        (part, from, width(part))
    });
    html! {
        svg.life viewBox={ "0 0 " (WIDTH) " 16" } preserveAspectRatio="none" aria-hidden="true" {
            @for (part, x, width) in placed {
                rect class=(part.class) x=(x) width=(width - 2) height="16" {
                    title { (part.name) ": " (lasting(part.took())) }
                }
            }
        }
    }
}
