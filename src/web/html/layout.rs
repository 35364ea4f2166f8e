//! What is around the content of each page.

use maud::{DOCTYPE, Markup, html};

use super::words::grouped;
use crate::ops::Totals;
use crate::web::error::ApiError;

/// An entry of the navigation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::web) enum Here {
    Overview,
    Waiting,
    Running,
    Failed,
    Finished,
    Schedules,
    Configuration,
}

/// The navigation of a page.
#[derive(Default)]
pub(in crate::web) struct Nav {
    /// The entry that the page is.
    pub here: Option<Here>,
    /// What is counted; nothing if that is not known at once.
    pub totals: Option<Totals>,
}

/// A page around its content. `base` is the relative link from the page to the overview.
pub(in crate::web) fn page(base: &str, title: &str, nav: &Nav, content: Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " – Workpool" }
                link rel="stylesheet" href={ (base) "assets/workpool.css" };
                link rel="icon" type="image/svg+xml" href={ (base) "assets/workpool.svg" };
                script src={ (base) "assets/workpool.js" } defer {}
            }
            body {
                a.skip href="#content" { "Skip to content" }
                header.top { div.wide {
                    a.brand href={ (base) "./" } {
                        img src={ (base) "assets/workpool.svg" } alt="" width="24" height="24";
                        "Workpool"
                    }
                    nav.pages aria-label="Pages" { (entries(base, nav)) }
                    form method="get" action={ (base) "find" } role="search" {
                        input name="id" aria-label="Id of a job" placeholder="Id of a job"
                            required maxlength="36" autocomplete="off";
                        button { "Find" }
                    }
                } }
                main.wide #content { (content) }
            }
        }
    }
}

fn entries(base: &str, nav: &Nav) -> Markup {
    let counted = |of: fn(&Totals) -> u64| nav.totals.as_ref().map(of);
    let entries = [
        (Here::Overview, "Overview", "./", None),
        (Here::Waiting, "Waiting", "works?state=pending", counted(|totals| totals.waiting)),
        (Here::Running, "Running", "works?state=running", counted(|totals| totals.running)),
        (
            Here::Failed,
            "Failed",
            "works?state=finished&outcome=failed",
            counted(|totals| totals.failed),
        ),
        (Here::Finished, "Finished", "works?state=finished", None),
        (Here::Schedules, "Schedules", "schedules", None),
        (Here::Configuration, "Configuration", "config", None),
    ];
    html! {
        @for (entry, name, link, count) in entries {
            a href={ (base) (link) } aria-current=[(nav.here == Some(entry)).then_some("page")] {
                (name)
                @if let Some(count) = count {
                    @let is_bad = entry == Here::Failed && count > 0;
                    " " span.count.bad[is_bad]
                        title=[(entry == Here::Failed).then_some("in the last 10 minutes")]
                    { (grouped(count)) }
                }
            }
        }
    }
}

pub(in crate::web) fn error(error: &ApiError) -> Markup {
    html! {
        h1 { (title_of(error)) }
        p.note role="alert" { (error.message) }
    }
}

pub(in crate::web) fn title_of(error: &ApiError) -> &'static str {
    error.status.canonical_reason().unwrap_or("Error")
}
