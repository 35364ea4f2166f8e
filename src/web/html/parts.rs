//! Parts of several pages.

use maud::{Markup, html};

use super::words::{class_of, encoded, grouped, short_id, short_key, state_word};
use crate::model::{MAX_PARALLELISM, Name};
use crate::ops::{ProgressView, ShownKey, WorkView};

/// The form that changes the parallelism of a pool, and the one that pauses or resumes it. `action` is where they are
/// sent.
pub(super) fn change_pool(
    pool: Name,
    max_parallelism: usize,
    paused: bool,
    action: &str,
) -> Markup {
    html! {
        form.inline method="post" action=(action) {
            label {
                "Parallelism"
                input type="number" name="max_parallelism" required
                    min="0" max=(MAX_PARALLELISM) value=(max_parallelism);
            }
            button aria-label={ "Set for " (pool) } { "Set" }
        }
        form.inline method="post" action=(action) {
            input type="hidden" name="paused" value=(!paused);
            @let verb = if paused { "Resume" } else { "Pause" };
            button.danger[!paused] aria-label={ (verb) " " (pool) } { (verb) }
        }
    }
}

/// The same, to be opened first. `back` is the page to return to, if not the overview.
pub(super) fn change_pool_menu(
    pool: Name,
    max_parallelism: usize,
    paused: bool,
    back: &str,
) -> Markup {
    let name = encoded(pool.as_str());
    let action = match back {
        "" => format!("pools/{name}"),
        _ => format!("pools/{name}?back={back}"),
    };
    html! {
        details.menu {
            summary aria-label={ "Change " (pool) "…" } { "Change…" }
            div.panel { (change_pool(pool, max_parallelism, paused, &action)) }
        }
    }
}

pub(super) fn badge(word: &str, class: &str) -> Markup {
    html! { span class={ "badge " (class) } { (word) } }
}

pub(super) fn state_of(work: &WorkView) -> Markup {
    let state = work.outcome.unwrap_or(work.state);
    html! {
        (badge(state_word(state), class_of(state)))
        @if work.canceling { " " span.soft { "(canceling)" } }
    }
}

/// An id by its ends, with the whole one to be seen and copied.
pub(super) fn id(id: &str) -> Markup {
    html! { code title=(id) { (short_id(id)) } (copy(id, "id")) }
}

/// A key by its ends, with the whole one to be seen.
pub(super) fn key(key: &ShownKey) -> Markup {
    html! { code title=(key.text) { (short_key(&key.text)) } }
}

/// A button that copies that text. It is there if there is the script.
pub(super) fn copy(text: &str, what: &str) -> Markup {
    html! { button.copy type="button" data-copy=(text) aria-label={ "Copy " (what) } { "Copy" } }
}

pub(super) fn progress(said: &ProgressView) -> Markup {
    html! {
        @match said.total {
            Some(total) => {
                progress value=(said.done.0) max=(total.0.max(1)) aria-label="Progress" {}
                " " (grouped(said.done.0)) " of " (grouped(total.0))
            }
            None => { (grouped(said.done.0)) }
        }
        @if let Some(note) = &said.note { " " span.soft { (note) } }
    }
}
