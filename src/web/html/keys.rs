//! The busiest keys of a pool.

use maud::{Markup, html};

use super::parts::key;
use super::words::{encoded, grouped, time};
use crate::ops::{Big, KeyView, KeysView, MOST_KEYS};

pub(in crate::web) fn keys(pool: &str, view: &KeysView, now: Big) -> Markup {
    html! {
        p.crumb {
            a href="../../" { "Overview" } " / Pool " a href={ "../" (encoded(pool)) } { (pool) } " / Keys"
        }
        div.head { h1 { "Keys" } }
        div #live data-poll {
            @if view.keys.is_empty() {
                p.card.soft { "No job with a key runs or may start." }
            } @else {
                @if view.keys.len() >= MOST_KEYS {
                    p.soft { "These have the most waiting jobs. There may be more." }
                }
                div.scroll.card { table.pools {
                    thead { tr {
                        th scope="col" { "Key" } th.n scope="col" { "Running" } th.n scope="col" { "Ready" }
                        th.n scope="col" { "Behind others" } th scope="col" { "Rests" }
                    } }
                    tbody { @for key in &view.keys { (row(pool, key, now)) } }
                } }
                p.soft { "Ready jobs wait for a slot or for their time, the others for those of their key that come first." }
            }
        }
    }
}

fn row(pool: &str, view: &KeyView, now: Big) -> Markup {
    // What is redacted is in no link either.
    let listed = |state: &str| {
        let (pool, key) = (encoded(pool), encoded(&view.key.text));
        view.key.is_own.then(|| format!("../../works?state={state}&pool={pool}&key={key}"))
    };
    let linked = |state: &str, text: Markup| {
        html! {
            @match listed(state) {
                Some(link) => { a href=(link) { (text) } }
                None => { (text) }
            }
        }
    };
    let count = |count: Big| html! { (grouped(count.0)) };
    html! {
        tr {
            th.name scope="row" { (linked("pending", key(&view.key))) }
            td.n data-label="Running" { (linked("running", count(view.running))) }
            td.n data-label="Ready" { (count(view.ready)) }
            td.n data-label="Behind others" { (count(view.waiting)) }
            td.when data-label="Rests" {
                @match view.rests_until {
                    Some(until) => { "until " (time(until, now)) }
                    None => { span.soft { "no" } }
                }
            }
        }
    }
}
