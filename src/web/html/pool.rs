//! The page of a pool.

use std::slice;

use maud::{Markup, html};

use super::chart::{charts, ranges};
use super::overview::{tiles, unregistered};
use super::parts::{badge, change_pool};
use super::words::{class_of, encoded, grouped, time};
use crate::ops::{Activity, Big, PoolView, Range, Totals};
use crate::shared::rates::Recent;
use crate::web::{Permission, Permissions};

pub(in crate::web) fn pool(
    pool: &PoolView,
    rates: &Recent,
    now: Big,
    range: Range,
    may: Permissions,
) -> Markup {
    let (pools, rates) = (slice::from_ref(pool), slice::from_ref(rates));
    let name = encoded(pool.name.as_str());
    let works = format!("../works?pool={name}&");
    let report = &pool.report;
    html! {
        div #live {
            p.crumb { a href="../" { "Overview" } " / Pool" }
            div.head {
                h1 { (pool.name) " " (badge(pool.status, class_of(pool.status))) }
                (ranges(range))
            }
            (unregistered(pool))
            (tiles(&Totals::of(pools, rates), now, &works))
            (charts(&Activity::of(rates, range, now), 1))
            div.two {
                section.card aria-label="Since the pool was created" {
                    h2 { "Since the pool was created" }
                    dl {
                        @for (word, outcome, count) in [
                            ("Succeeded", "success", report.succeeded),
                            ("Failed", "failed", report.failed),
                            ("Canceled", "canceled", report.canceled),
                        ] {
                            dt { (word) }
                            dd { a href={ (works) "state=finished&outcome=" (outcome) } { (grouped(count.0)) } }
                        }
                        dt { "Retries" } dd { (grouped(report.retries.0)) }
                        @if let Some(rate) = &pool.rate { dt { "Rate" } dd { (rate.sentence) } }
                        @if let Some(until) = pool.limited_until {
                            dt { "Starts again" } dd { (time(until, now)) }
                        }
                        dt { "Keys" } dd { a href={ "../pools/" (name) "/keys" } { "The busiest" } }
                        dt { "Without an outcome" }
                        dd { (grouped(pool.pending.0)) " of at most " (grouped(pool.max_pending.0)) }
                    }
                }
                @if may.allow(Permission::Configure) {
                    section.card aria-label="Controls" {
                        h2 { "Controls" }
                        (change_pool(pool.name, pool.max_parallelism, pool.paused, &format!("../pools/{name}?back=pool")))
                        p.soft { "A paused pool starts nothing; what runs goes on." }
                    }
                }
            }
        }
    }
}
