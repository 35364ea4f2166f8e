//! The overview: totals, charts, and a table of the pools.

use maud::{Markup, html};

use super::chart::{charts, last, ranges, sparkline};
use super::parts::{badge, change_pool_menu};
use super::words::{brief, class_of, due, encoded, grouped, lasting, rate};
use crate::ops::{Activity, Big, LatelyView, Overview, PoolView, Range, Totals};
use crate::shared::rates::Lag;
use crate::web::{Permission, Permissions};

pub(in crate::web) fn overview(overview: &Overview, range: Range, may: Permissions) -> Markup {
    let Overview { at, pools, rates } = overview;
    let activity = Activity::of(rates, range, *at);
    html! {
        div #live {
            div.head { h1 { "Overview" } (ranges(range)) }
            (tiles(&Totals::of(pools, rates), *at, "works?"))
            (charts(&activity, pools.len()))
            h2 { "Pools" }
            @if pools.is_empty() { p.soft { "There is no pool." } } @else { (table(pools, *at, may)) }
        }
    }
}

/// The totals. `works` is the link to the list of their jobs, up to the state.
pub(super) fn tiles(totals: &Totals, now: Big, works: &str) -> Markup {
    let tile = |name: &str, value: Markup, more: Markup| {
        html! { div.card { dt { (name) } dd.number { (value) } dd.more { (more) } } }
    };
    let share = 100 * totals.failed / totals.completed.max(1);
    html! {
        dl.tiles {
            (tile("Running",
                html! {
                    a href={ (works) "state=running" } { (grouped(totals.running)) }
                    " " small { "of " (grouped(totals.slots)) " slots" }
                },
                html! { (slots(totals.running, totals.slots)) }))
            (tile("Waiting",
                html! { a href={ (works) "state=pending" } { (grouped(totals.waiting)) } },
                html! { @if totals.oldest_due.is_some() { "oldest " (due(totals.oldest_due, now)) } @else { "nothing waits" } }))
            (tile("Failed",
                html! {
                    a.bad[totals.failed > 0] href={ (works) "state=finished&outcome=failed" } {
                        (grouped(totals.failed))
                    }
                    " " small { "in 10 min" }
                },
                html! {
                    @if totals.failed == 0 { "none of " (grouped(totals.completed)) }
                    @else if share == 0 { "less than 1 % of " (grouped(totals.completed)) }
                    @else { (share) " % of " (grouped(totals.completed)) }
                }))
            (tile("Throughput",
                html! { (rate(totals.completed_per_s)) },
                html! { (grouped(totals.completed)) " in 10 min" }))
            (tile("Start lag",
                html! {
                    @match totals.lag {
                        Some(Lag { p50, .. }) => { (brief(p50)) " " small { "p50" } }
                        None => { "–" }
                    }
                },
                html! {
                    @match totals.lag {
                        Some(Lag { p99, .. }) => { (brief(p99)) " p99, the last minute" }
                        None => { "nothing started in a minute" }
                    }
                }))
        }
    }
}

fn slots(running: u64, slots: u64) -> Markup {
    html! { progress value=(running) max=(slots.max(1)) aria-label="Slots that are taken" {} }
}

fn table(pools: &[PoolView], now: Big, may: Permissions) -> Markup {
    let may_change = may.allow(Permission::Configure);
    html! {
        table.pools.card {
            thead { tr {
                th scope="col" { "Pool" } th scope="col" { "Status" } th scope="col" { "Slots" }
                th.n scope="col" { "Waiting" } th scope="col" { "Oldest" }
                th scope="col" colspan="2" { "Throughput" }
                th.n scope="col" { "Failed " small { "10 min" } }
                th.n scope="col" { "Start lag " small { "p50 / p99" } }
                @if may_change { th scope="col" { span.unseen { "Controls" } } }
            } }
            tbody { @for pool in pools { (row(pool, now, may_change)) } }
        }
    }
}

fn row(pool: &PoolView, now: Big, may_change: bool) -> Markup {
    let name = encoded(pool.name.as_str());
    let listed = |state: &str| format!("works?pool={name}&state={state}");
    let lately = &pool.lately;
    let failed: u64 = lately.slots.iter().map(|slot| u64::from(slot.failed)).sum();
    html! {
        tr {
            th.name scope="row" { a href={ "pools/" (name) } { (pool.name) } }
            td data-label="Status" { (badge(pool.status, class_of(pool.status))) (unregistered(pool)) }
            td.slots data-label="Slots" {
                (slots(pool.running.0, pool.max_parallelism as u64)) " "
                a href=(listed("running")) { (grouped(pool.running.0)) " of " (grouped(pool.max_parallelism as u64)) }
            }
            td.n data-label="Waiting" { a href=(listed("pending")) { (grouped(pool.waiting.0)) } }
            td.when data-label="Oldest" { (oldest(pool.oldest_due, now)) }
            td.n data-label="Throughput" { (rate(lately.completed_per_s)) }
            td.trend { (spark(lately)) }
            td.n data-label="Failed" {
                a.bad[failed > 0] href={ (listed("finished")) "&outcome=failed" } { (grouped(failed)) }
            }
            td.n data-label="Start lag" {
                @match lately.start_lag {
                    Some(lag) => { (brief(lag.p50_ms)) span.soft { " / " (brief(lag.p99_ms)) } }
                    None => { span.soft { "–" } }
                }
            }
            @if may_change {
                td.act { (change_pool_menu(pool.name, pool.max_parallelism, pool.paused, "")) }
            }
        }
    }
}

fn oldest(due: Option<Big>, now: Big) -> Markup {
    html! {
        @match due {
            Some(due) if due.0 > now.0 => { span.soft { "in " (lasting(due.0 - now.0)) } }
            Some(due) => { (lasting(now.0 - due.0)) }
            None => { span.soft { "–" } }
        }
    }
}

/// The number of jobs whose functions are not registered, if there are any, with those.
pub(super) fn unregistered(pool: &PoolView) -> Markup {
    html! {
        @if pool.unregistered.0 > 0 {
            div.bad {
                (grouped(pool.unregistered.0)) " not registered: "
                @for function in &pool.unregistered_functions { code { (function) } " " }
            }
        }
    }
}

fn spark(lately: &LatelyView) -> Markup {
    // The current slot is left out: it is incomplete, and would look as if the pool slowed down.
    let (_, whole) = lately.slots.split_last().unzip();
    let values: Vec<_> =
        whole.unwrap_or_default().iter().map(|slot| Some(slot.completed)).collect();
    sparkline(&format!("Completed, {}", last(lately.slots.len(), lately.slot_s)), &values)
}
