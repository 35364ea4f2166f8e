//! Charts: SVG that the server draws, with axes in HTML so that their text keeps its size.

use std::fmt::Write as _;
use std::time::Duration;

use maud::{Markup, html};

use super::words::{brief, clock, lasting, rate};
use crate::ops::{Activity, Range};
use crate::shared::rates::Slot;

/// The size of a chart in its own units; it is stretched to the place that it gets.
const STEP: usize = 10;
const HEIGHT: f64 = 100.0;

/// A current slot is shown if at least so much of it has passed: shorter ones would look as if a pool slowed down.
const LONG_ENOUGH: Duration = Duration::from_secs(60);

/// The links that choose a range.
pub(super) fn ranges(range: Range) -> Markup {
    html! {
        nav.tabs aria-label="Range" {
            @for (of, link, name) in [
                (Range::Minutes, "?range=10m", "10 minutes"),
                (Range::Day, "?range=24h", "24 hours"),
            ] {
                a href=(link) aria-current=[(of == range).then_some("true")] { (name) }
            }
        }
    }
}

/// The throughput and the start lag. `pools` is the number of pools that they are of.
pub(super) fn charts(activity: &Activity, pools: usize) -> Markup {
    let is_sum = pools > 1;
    let lags = match (activity.range, is_sum) {
        (Range::Minutes, false) => ["p50", "p99"],
        (Range::Minutes, true) => ["p50 (mean of pools)", "p99 (slowest pool)"],
        (Range::Day, false) => ["p50 (mean)", "p99 (slowest 10 s)"],
        (Range::Day, true) => ["p50 (mean)", "p99 (slowest pool, 10 s)"],
    };
    html! {
        div.charts {
            (card("Throughput", "jobs/s", [("", "succeeded"), ("red", "failed")], throughput(activity)))
            (card("Start lag", "due to start", [("thin", lags[0]), ("thin grey", lags[1])], lag(activity)))
        }
    }
}

/// A chart without its surroundings.
struct Plot {
    /// The labels of the vertical axis, from the top.
    labels: [String; 3],
    svg: Markup,
    ticks: Markup,
}

fn card(name: &str, unit: &str, legend: [(&str, &str); 2], plot: Plot) -> Markup {
    html! {
        section.card.chart aria-label=(name) {
            div.head {
                h2 { (name) " " small { (unit) } }
                p.legend { @for (class, of) in legend { span class={ "key " (class) } { (of) } } }
                p.readout aria-hidden="true" {}
            }
            div.plot {
                div.y aria-hidden="true" { @for label in &plot.labels { span { (label) } } }
                (plot.svg)
                (plot.ticks)
            }
        }
    }
}

/// The slots, with the time that each one has taken so far; `None` if it is too short to say anything.
fn slots(activity: &Activity) -> impl Iterator<Item = (usize, Option<Duration>, &Slot)> {
    let last = activity.slots.len().saturating_sub(1);
    activity.slots.iter().enumerate().map(move |(place, slot)| {
        let took = match place == last {
            false => Some(activity.slot),
            true => Some(activity.under_way).filter(|passed| *passed >= LONG_ENOUGH),
        };
        (place, took, slot)
    })
}

fn throughput(activity: &Activity) -> Plot {
    let per_second = |count: u32, took: Duration| f64::from(count) / took.as_secs_f64();
    let shown = || slots(activity).filter_map(|(place, took, slot)| Some((place, took?, slot)));
    let height = |took, slot: &Slot| per_second(slot.succeeded() + slot.failed, took);
    let highest = shown().map(|(_, took, slot)| height(took, slot)).fold(0.0, f64::max);
    let top = nice(highest.max(0.02));
    let (mut succeeded, mut failed) = (String::new(), String::new());
    let bar = |path: &mut String, place: usize, from: f64, count: f64| {
        if count > 0.0 {
            let (y, up) = (HEIGHT - from / top * HEIGHT, count / top * HEIGHT);
            // Writing to a string does not fail.
            let _ =
                write!(path, "M{} {y:.1}h{}v-{up:.1}h-{}z", place * STEP + 1, STEP - 2, STEP - 2);
        }
    };
    for (place, took, slot) in shown() {
        let good = per_second(slot.succeeded(), took);
        bar(&mut succeeded, place, 0.0, good);
        bar(&mut failed, place, good, per_second(slot.failed, took));
    }
    let says = |slot: &Slot, took: Duration| {
        let each = |count, what| format!("{} {what}", rate(per_second(count, took)));
        let mut said = vec![each(slot.succeeded(), "succeeded")];
        said.extend((slot.failed > 0).then(|| each(slot.failed, "failed")));
        said.extend((slot.canceled > 0).then(|| each(slot.canceled, "canceled")));
        (slot.completed > 0).then(|| said.join(", "))
    };
    let label = format!("Throughput, {}: at most {}", range(activity), rate(highest));
    let shapes = [("main area", succeeded), ("bad area", failed)];
    let hits = shown().filter_map(|(place, took, slot)| Some((place, says(slot, took)?)));
    let labels = [top, top / 2.0, 0.0].map(plain);
    Plot { labels, svg: svg(activity, &label, &shapes, hits), ticks: ticks(activity) }
}

fn lag(activity: &Activity) -> Plot {
    let lags = || activity.slots.iter().map(|slot| slot.lag);
    let highest = lags().flatten().map(|lag| lag.p99.max(lag.p50)).max().unwrap_or(0);
    let top = nice_time(f64::from(highest.max(2)));
    let line = |of: Vec<Option<u32>>| line(&of, STEP, top, HEIGHT, 0.0);
    let shapes = [
        ("lag", line(lags().map(|lag| Some(lag?.p99)).collect())),
        ("main", line(lags().map(|lag| Some(lag?.p50)).collect())),
    ];
    let hits = lags().enumerate().filter_map(|(place, lag)| {
        let lag = lag?;
        Some((place, format!("p50 {}, p99 {}", brief(lag.p50), brief(lag.p99))))
    });
    let label = format!("Start lag, {}: at most {}", range(activity), brief(highest));
    let labels = [top, top / 2.0].map(|at| brief(at as u32));
    let [high, middle] = labels;
    let labels = [high, middle, "0".to_owned()];
    Plot { labels, svg: svg(activity, &label, &shapes, hits), ticks: ticks(activity) }
}

fn range(activity: &Activity) -> &'static str {
    match activity.range {
        Range::Minutes => "the last 10 minutes",
        Range::Day => "the last 24 hours",
    }
}

fn svg(
    activity: &Activity,
    label: &str,
    shapes: &[(&str, String)],
    hits: impl Iterator<Item = (usize, String)>,
) -> Markup {
    let width = activity.slots.len() * STEP;
    let slot_ms = activity.slot.as_millis() as u64;
    let from = |place: usize| {
        let age = (activity.slots.len() - 1 - place) as u64 * slot_ms;
        activity.newest.saturating_sub(age)
    };
    html! {
        svg viewBox={ "0 0 " (width) " " (HEIGHT) } preserveAspectRatio="none" role="img" aria-label=(label) {
            path.grid d={ "M0 0H" (width) "M0 50H" (width) "M0 100H" (width) } {}
            @for (class, path) in shapes { @if !path.is_empty() { path class=(class) d=(path) {} } }
            @for (place, said) in hits {
                rect.hit x=(place * STEP) width=(STEP) height=(HEIGHT) {
                    title { (clock(from(place))) ": " (said) }
                }
            }
        }
    }
}

/// The horizontal axis: times before now.
fn ticks(activity: &Activity) -> Markup {
    let ticks = match activity.range {
        Range::Minutes => ["−10 min", "−8", "−6", "−4", "−2", "now"].as_slice(),
        Range::Day => &["−24 h", "−18", "−12", "−6", "now"],
    };
    html! { div.x aria-hidden="true" { @for tick in ticks { span { (tick) } } } }
}

/// A small line from the oldest value to the last one, without axes.
pub(super) fn sparkline(label: &str, values: &[Option<u32>]) -> Markup {
    const STEP: usize = 2;
    const HEIGHT: f64 = 20.0;
    let highest = values.iter().flatten().copied().max().unwrap_or(0).max(1);
    let path = line(values, STEP, highest.into(), HEIGHT, 1.0);
    html! {
        svg.spark viewBox={ "0 0 " (values.len() * STEP) " " (HEIGHT + 2.0) } preserveAspectRatio="none"
            role="img" aria-label=(label)
        {
            title { (label) }
            path d=(path) {}
        }
    }
}

/// The path of a line, with gaps where there is no value.
fn line(values: &[Option<u32>], step: usize, top: f64, height: f64, margin: f64) -> String {
    let (mut path, mut is_on) = (String::new(), false);
    for (place, value) in values.iter().enumerate() {
        if let Some(value) = value {
            let y = height - f64::from(*value) / top * height + margin;
            let (verb, dot) = if is_on { ('L', "") } else { ('M', "h0") };
            // Writing to a string does not fail. A line of length 0 is a dot, for a single value.
            let _ = write!(path, "{verb}{} {y:.1}{dot}", place * step + step / 2);
        }
        is_on = value.is_some();
    }
    path
}

/// Returns the next value that is easy to read, as is its half.
fn nice(value: f64) -> f64 {
    let unit = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0].map(|step| step * unit);
    steps.into_iter().find(|step| *step >= value * 0.999).unwrap_or(unit * 10.0)
}

/// Returns the next time in milliseconds that is easy to read, as is its half.
fn nice_time(millis: f64) -> f64 {
    const SECOND: f64 = 1_000.0;
    const MINUTE: f64 = 60.0 * SECOND;
    const HOUR: f64 = 60.0 * MINUTE;
    let steps = [20.0, 40.0].map(|step| step * SECOND).into_iter();
    let steps = steps.chain([1.0, 2.0, 4.0, 10.0, 20.0, 30.0].map(|step| step * MINUTE));
    let mut steps = steps.chain([1.0, 2.0, 4.0, 12.0, 24.0].map(|step| step * HOUR));
    match millis {
        ..10.0 => (millis / 2.0).ceil() * 2.0,
        ..10_000.0 => nice(millis),
        _ => steps.find(|step| *step >= millis).unwrap_or(24.0 * HOUR),
    }
}

/// A number without zeros at its end.
fn plain(value: f64) -> String {
    match value {
        1_000.0.. => super::words::grouped(value.round() as u64),
        _ => {
            let text = format!("{value:.4}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
    }
}

/// Says how old something is at most, for labels of sparklines.
pub(super) fn last(slots: usize, slot_s: u64) -> String {
    format!("the last {}", lasting(slots as u64 * slot_s * 1_000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::rates::{Lag, SLOT, SLOTS};

    #[test]
    fn a_line_has_gaps_where_there_is_nothing() {
        let path = line(&[Some(0), Some(4), None, Some(2)], 2, 4.0, 20.0, 1.0);
        assert_eq!(path, "M1 21.0h0L3 1.0M7 11.0h0");
        assert_eq!(line(&[None], 2, 4.0, 20.0, 1.0), "");
    }

    #[test]
    fn axes_end_at_values_that_are_easy_to_read() {
        for (value, expected) in
            [(0.02, "0.02"), (0.9, "1"), (3.1, "4"), (17.0, "20"), (12_345.0, "20,000")]
        {
            assert_eq!(plain(nice(value)), expected);
        }
        for (millis, expected) in
            [(3, "4 ms"), (700, "800 ms"), (3_500, "4.0 s"), (12_000, "20 s"), (65_000, "2 min")]
        {
            assert_eq!(brief(nice_time(f64::from(millis)) as u32), expected);
        }
        assert!(nice_time(1e12) > 0.0 && nice(f64::MIN_POSITIVE) >= 0.0);
    }

    #[test]
    fn a_chart_shows_what_is_whole_and_tells_it_on_hover() {
        let mut slots = vec![Slot::default(); SLOTS];
        let lag = Some(Lag { p50: 5, p99: 70 });
        slots[58] = Slot { completed: 50, failed: 10, canceled: 10, started: 1, lag };
        slots[59] = Slot { completed: 90, ..Slot::default() };
        let activity = |slots, under_way| Activity {
            range: Range::Minutes,
            slot: SLOT,
            newest: 1_000_000_000,
            under_way: Duration::from_secs(under_way),
            slots,
        };
        let shown = charts(&activity(slots, 5), 1).into_string();
        assert!(
            shown.contains("13:46:30 UTC: 3.0/s succeeded, 1.0/s failed, 1.0/s canceled"),
            "{shown}"
        );
        assert!(shown.contains("p50 5 ms, p99 70 ms"), "{shown}");
        assert!(!shown.contains("9.0/s"), "the current slot is not whole: {shown}");
        assert!(!shown.contains("style="), "{shown}");
        charts(&activity(vec![Slot::default(); SLOTS], 0), 0);
    }
}
