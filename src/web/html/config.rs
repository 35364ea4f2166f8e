//! The configuration of the pools and of the runtime.

use maud::{Markup, html};

use super::parts::{badge, change_pool_menu};
use super::words::{bytes, encoded, grouped, lasting};
use crate::ops::{ConfigView, FunctionView, KeyRuleView, PoolConfigView, RetryView, RuntimeView};
use crate::web::{Permission, Permissions};

pub(in crate::web) fn config(config: &ConfigView, may: Permissions) -> Markup {
    html! {
        h1 { "Configuration" }
        h2 { "Pools" }
        @if config.pools.is_empty() { p.soft { "There is no pool." } } @else { (pools(&config.pools, may)) }
        div.two {
            section.card aria-label="Runtime" { h2 { "Runtime" } (runtime(&config.runtime)) }
        }
        h2 { "Functions" }
        @if config.runtime.functions.is_empty() { p.soft { "None is registered." } } @else {
            (functions(&config.runtime.functions))
        }
    }
}

fn pools(pools: &[PoolConfigView], may: Permissions) -> Markup {
    let may_change = may.allow(Permission::Configure);
    html! {
        table.pools.card {
            thead { tr {
                th scope="col" { "Pool" } th.n scope="col" { "Parallelism" } th scope="col" { "Rate" } th scope="col" { "Default retry" }
                th scope="col" { "Timeout" } th.n scope="col" { "Most pending" }
                th.n scope="col" { "Largest payload" } th scope="col" { "Log" }
                @if may_change { th scope="col" { span.unseen { "Controls" } } }
            } }
            tbody { @for pool in pools {
                tr {
                    th.name scope="row" { a href={ "pools/" (encoded(pool.name.as_str())) } { (pool.name) } }
                    td.n data-label="Parallelism" {
                        (grouped(pool.max_parallelism as u64))
                        @if pool.paused { " " (badge("paused", "busy")) }
                    }
                    td data-label="Rate" {
                        @match &pool.rate {
                            Some(rate) => { (rate.sentence) }
                            None => { span.soft { "none" } }
                        }
                        @if let Some(aging) = pool.aging_ms { ", aging " (lasting(aging.0)) }
                        @if let Some(rule) = rule_in_words(&pool.per_key) { div { "per key: " (rule) } }
                    }
                    td data-label="Default retry" { (retry(pool.default_retry)) }
                    td data-label="Timeout" {
                        @match pool.attempt_timeout_ms {
                            Some(timeout) => { (lasting(timeout.0)) }
                            None => { span.soft { "none" } }
                        }
                    }
                    td.n data-label="Most pending" { (grouped(pool.max_pending.0)) }
                    td.n data-label="Largest payload" { (bytes(pool.max_payload_bytes.0)) }
                    td data-label="Log" {
                        (pool.log_level) @if pool.log_error_messages { ", with error messages" }
                    }
                    @if may_change {
                        td.act { (change_pool_menu(pool.name, pool.max_parallelism, pool.paused, "config")) }
                    }
                }
            } }
        }
    }
}

/// The rule that holds for each key, if there is one.
fn rule_in_words(rule: &KeyRuleView) -> Option<String> {
    let at_once = rule.parallelism.map(|jobs| {
        let order = if rule.ordered { ", in order" } else { "" };
        format!("{} at a time{order}", grouped(jobs.into()))
    });
    let rate = rule.rate.as_ref().map(|rate| rate.sentence.clone());
    let parts: Vec<_> = at_once.into_iter().chain(rate).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

fn retry(retry: Option<RetryView>) -> Markup {
    html! {
        @match retry {
            Some(retry) => {
                (retry.max_attempts) " attempts "
                span.soft { "after " (lasting(retry.initial_backoff_ms.0)) ", then × " (retry.base) }
            }
            None => { span.soft { "none" } }
        }
    }
}

fn runtime(runtime: &RuntimeView) -> Markup {
    let kept = [
        runtime.retention.max_age_ms.map(|age| format!("for {}", lasting(age.0))),
        runtime.retention.max_count.map(|count| format!("the last {}", grouped(count.0))),
    ];
    let kept: Vec<_> = kept.into_iter().flatten().collect();
    html! {
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
    }
}

fn functions(functions: &[FunctionView]) -> Markup {
    html! {
        div.scroll.card { table {
            thead { tr {
                th scope="col" { "Function" } th scope="col" { "Kind" }
                th scope="col" { "Retry" } th scope="col" { "Timeout" }
            } }
            tbody { @for function in functions { tr {
                td.name data-label="Function" { (function.name) }
                td data-label="Kind" { (function.kind.replace('_', " ")) }
                td data-label="Retry" {
                    @match function.max_attempts {
                        Some(1) => { "none" }
                        Some(attempts) => { (attempts) " attempts" }
                        None => { span.soft { "as its pool" } }
                    }
                }
                td data-label="Timeout" {
                    @match function.timeout_ms {
                        Some(timeout) => { (lasting(timeout.0)) }
                        None => { span.soft { "as its pool" } }
                    }
                }
            } } }
        } }
    }
}
