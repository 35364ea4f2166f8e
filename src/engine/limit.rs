//! The pool's rate: the generic cell rate algorithm (ITU-T I.371, "virtual scheduling").
//!
//! One number for each limiter, the *theoretical arrival time* (TAT): each start moves it on by an interval, and a start
//! is admitted while it is not further ahead of now than the burst allows. A start that is refused changes nothing.

use crate::model::{Rate, Segment};

/// The time by which a start may come early, so that a timer that goes off late does not lower the rate.
const SLACK_NS: u64 = 5_000_000;

const NS: u64 = 1_000_000;

/// Returns the interval between two starts in nanoseconds, and the burst. Without a rate there is none to keep: then only
/// a rest of the pool is.
fn terms(rate: Option<Rate>) -> (u64, u64) {
    rate.map_or((0, 1), |rate| (rate.interval_ns(), rate.max_burst().into()))
}

/// Returns the new TAT if a start of this cost is admitted, and the time at which it will be, if not.
///
/// A job that costs more than the burst counts as a whole burst, so that it starts some time: it was enqueued under
/// another rate.
pub(super) fn admit(rate: Option<Rate>, tat: u64, cost: u32, now: Segment) -> Result<u64, Segment> {
    let (interval, burst) = terms(rate);
    let cost = u64::from(cost).min(burst);
    let now_ns = now.0.saturating_mul(NS);
    let ahead = (burst - cost).saturating_mul(interval).saturating_add(SLACK_NS);
    let earliest = tat.saturating_sub(ahead);
    if now_ns < earliest && !planted!(RateIgnored) {
        return Err(Segment(earliest.div_ceil(NS)));
    }
    Ok(tat.max(now_ns).saturating_add(cost.saturating_mul(interval)))
}

/// Returns a TAT no further ahead than a whole burst: it may be from another rate.
pub(crate) fn capped(rate: Rate, tat: u64, now: Segment) -> u64 {
    let (interval, burst) = terms(Some(rate));
    let most = burst.saturating_mul(interval).saturating_add(SLACK_NS);
    tat.min(now.0.saturating_mul(NS).saturating_add(most))
}

/// Returns `true` if there was a start lately that still counts.
pub(super) fn owes(tat: u64, now: Segment) -> bool {
    tat > now.0.saturating_mul(NS)
}

/// Returns the number of starts of cost 1 that are admitted now.
pub(super) fn room(rate: Option<Rate>, tat: u64, now: Segment) -> usize {
    let (interval, burst) = terms(rate);
    let now_ns = now.0.saturating_mul(NS);
    let until = now_ns.saturating_add(burst.saturating_mul(interval)).saturating_add(SLACK_NS);
    match until.checked_sub(tat.max(now_ns)) {
        _ if planted!(RateIgnored) => usize::MAX,
        Some(_) if interval == 0 => usize::MAX,
        Some(room) => usize::try_from(room / interval).unwrap_or(usize::MAX),
        None => 0,
    }
}

/// Returns the TAT with which nothing starts before `until`. Behind the rest there is no burst.
pub(super) fn rest(rate: Option<Rate>, tat: u64, until: Segment) -> u64 {
    let (interval, burst) = terms(rate);
    let ahead = (burst - 1).saturating_mul(interval).saturating_add(SLACK_NS);
    tat.max(until.0.saturating_mul(NS).saturating_add(ahead))
}

/// Returns the TAT after a change of the rate. What is left of a rest stays; what was started ahead counts as that many
/// starts of the new rate, and the next one waits for no longer than its interval.
pub(crate) fn convert(old: Option<Rate>, new: Option<Rate>, tat: u64, now: Segment) -> u64 {
    let now_ns = now.0.saturating_mul(NS);
    if old == new || tat <= now_ns {
        return tat;
    }
    let ((before, _), (interval, burst)) = (terms(old), terms(new));
    match admit(old, tat, 1, now) {
        Ok(_) => {
            let ahead = (tat - now_ns).checked_div(before).unwrap_or(0).min(burst - 1);
            now_ns.saturating_add(ahead.saturating_mul(interval))
        }
        Err(until) => {
            let wait_ns = until.0.saturating_sub(now.0).saturating_mul(NS);
            // Longer than the interval is only a rest. Times are rounded up to a millisecond.
            let wait_ns = match wait_ns <= before.saturating_add(NS) {
                true => wait_ns.min(interval),
                false => wait_ns,
            };
            rest(new, 0, Segment(now_ns.saturating_add(wait_ns).div_ceil(NS)))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Starts as often as it can in `span` milliseconds, looking each `step`; returns the times.
    fn starts(rate: Rate, span: u64, step: u64) -> Vec<u64> {
        let (mut tat, mut starts) = (0, Vec::new());
        for now in (1_000..1_000 + span).step_by(step as usize) {
            while let Ok(next) = admit(Some(rate), tat, 1, Segment(now)) {
                assert!(room(Some(rate), tat, Segment(now)) >= 1);
                (tat, starts) = (next, {
                    starts.push(now);
                    starts
                });
            }
            assert_eq!(room(Some(rate), tat, Segment(now)), 0);
        }
        starts
    }

    #[test]
    fn in_no_span_are_there_more_starts_than_the_rate_allows() {
        for (rate, per_ms) in [
            (Rate::per_second(1_000), 1.0),
            (Rate::per_second(300).burst(7), 0.3),
            (Rate::per_second(5).burst(10), 0.005),
            (Rate::new(3, Duration::from_millis(10)), 0.3),
        ] {
            for step in [1, 3, 7] {
                let starts = starts(rate, 4_000, step);
                for (first, from) in starts.iter().enumerate() {
                    for (count, until) in starts[first..].iter().enumerate() {
                        let allowed =
                            f64::from(rate.max_burst()) + per_ms * ((until - from) + 5) as f64;
                        assert!(
                            (count + 1) as f64 <= allowed + 1e-6,
                            "{rate} {from} {until} {count}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn the_rate_is_reached_though_timers_are_late() {
        for step in [1, 2, 5] {
            let count = starts(Rate::per_second(1_000), 10_000, step).len();
            assert!((9_990..=10_010).contains(&count), "{count} starts, a look each {step} ms");
        }
        assert_eq!(starts(Rate::per_second(5).burst(10), 10_000, 1).len(), 60);
    }

    #[test]
    fn a_refused_start_is_told_when_it_may_start() {
        let rate = Some(Rate::per_second(5).burst(2));
        let now = Segment(10_000);
        let tat = admit(rate, 0, 2, now).unwrap();
        assert_eq!(admit(rate, tat, 1, now), Err(Segment(10_195)));
        assert_eq!(admit(rate, tat, 2, now), Err(Segment(10_395)));
        assert!(admit(rate, tat, 1, Segment(10_195)).is_ok());
        assert_eq!(admit(rate, tat, 9, now), Err(Segment(10_395)), "never more than a burst");
    }

    #[test]
    fn a_change_of_the_rate_holds_from_the_next_start() {
        let now = Segment(1_000_000);
        let spent = |rate: Rate| {
            let mut tat = 0;
            while let Ok(next) = admit(Some(rate), tat, 1, now) {
                tat = next;
            }
            tat
        };
        let next = |rate, tat| match admit(rate, tat, 1, now) {
            Ok(_) => 0,
            Err(until) => until.0 - now.0,
        };
        let (hourly, fast) = (Rate::per_hour(1).burst(10), Rate::per_second(100));
        let tat = spent(hourly);
        assert_eq!(next(None, convert(Some(hourly), None, tat, now)), 0);
        assert_eq!(next(Some(fast), convert(Some(hourly), Some(fast), tat, now)), 10);
        let one = Rate::per_second(1);
        let tat = spent(one.burst(100));
        assert_eq!(next(Some(one), convert(Some(one.burst(100)), Some(one), tat, now)), 995);
        let half = admit(Some(one.burst(4)), 0, 3, now).unwrap();
        let wider = convert(Some(one.burst(4)), Some(one.burst(6)), half, now);
        assert_eq!(room(Some(one.burst(6)), wider, now), 3, "three of six were used");
        for (old, new) in [(None, Some(one)), (Some(one), None), (Some(fast), Some(one.burst(50)))]
        {
            let resting = rest(old, 0, Segment(now.0 + 60_000));
            assert_eq!(next(new, convert(old, new, resting, now)), 60_000, "{old:?} {new:?}");
        }
        assert_eq!(convert(Some(one), Some(fast), 0, now), 0);
    }

    #[test]
    fn a_rest_ends_when_it_says() {
        for rate in [None, Some(Rate::per_second(100).burst(30))] {
            let tat = rest(rate, 0, Segment(5_000));
            assert_eq!(room(rate, tat, Segment(4_999)), 0);
            assert_eq!(admit(rate, tat, 1, Segment(4_999)), Err(Segment(5_000)));
            assert!(admit(rate, tat, 1, Segment(5_000)).is_ok());
        }
        let far = rest(Some(Rate::per_hour(1)), 0, Segment(u64::MAX - 1));
        assert_eq!(room(None, far, Segment(5_000)), 0);
    }
}
