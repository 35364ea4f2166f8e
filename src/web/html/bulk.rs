//! The page that asks before an action on many jobs.

use maud::{Markup, html};

use super::words::{encoded, grouped};
use crate::ops::{Bulk, BulkAction, Found, MOST};

/// The confirmation of a bulk operation, with the result of the last one.
pub(in crate::web) fn bulk(
    action: BulkAction,
    found: &Found,
    bulk: &Bulk,
    done: Option<usize>,
) -> Markup {
    let (verb, sure) = match action {
        BulkAction::Cancel => ("Cancel", "Yes, cancel them"),
        BulkAction::Run => ("Run now", "Yes, end their wait"),
        BulkAction::Retry => ("Retry", "Yes, enqueue them once more"),
    };
    let (state, listed) = match action {
        BulkAction::Cancel | BulkAction::Run => ("Waiting", "state=pending"),
        BulkAction::Retry => ("Failed, not retried yet", "state=finished&outcome=failed"),
    };
    let count = grouped(found.works.len() as u64);
    html! {
        p.crumb {
            a href={ "../works?" (listed) "&pool=" (encoded(&bulk.pool))
                "&function=" (encoded(&bulk.function)) } { "Back to the jobs" }
        }
        h1 { (verb) ": many jobs" }
        @if let Some(done) = done { p.note role="status" { (done_to(action, done)) } }
        section.card {
            dl {
                dt { "Pool" } dd { (if bulk.pool.is_empty() { "any" } else { &bulk.pool }) }
                dt { "Function" } dd { (if bulk.function.is_empty() { "any" } else { &bulk.function }) }
                dt { (state) }
                dd {
                    (count) @if found.more { " or more" }
                    @if !bulk.cursor.is_empty() { ", behind those looked at before" }
                }
            }
            @if found.works.is_empty() && !found.more {
                p.soft { "There is nothing to do." }
            } @else {
                @if found.more {
                    p { "Not all were looked at. At most " (grouped(MOST as u64)) " are taken at once." }
                }
                form.controls method="post" action=(action.as_str()) {
                    input type="hidden" name="pool" value=(bulk.pool);
                    input type="hidden" name="function" value=(bulk.function);
                    input type="hidden" name="cursor" value=(bulk.cursor);
                    button.danger[action == BulkAction::Cancel].primary[action != BulkAction::Cancel] {
                        (sure)
                    }
                }
            }
        }
    }
}

/// Says how many jobs were changed.
pub(super) fn done_to(action: BulkAction, done: usize) -> Markup {
    let past = match action {
        BulkAction::Cancel => "canceled",
        BulkAction::Run => "made due",
        BulkAction::Retry => "enqueued once more",
    };
    html! { (grouped(done as u64)) (if done == 1 { " was " } else { " were " }) (past) "." }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(
            of(true).contains("At most 1,000 are taken") && !of(true).contains("nothing to do")
        );
    }
}
