//! Rates: the recent activity of a pool, in slots of time.
//!
//! Its loop has the rates and no other thread: it counts after each commit and each launch, without a lock, and a caller
//! who wants to know asks the loop. A pool that rests keeps its slots and no histogram.

use std::collections::VecDeque;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::engine::Launch;
use crate::model::{Report, Segment};

/// The length of a slot: a rate of it is more than chance, and its point on a page less than a pixel or two.
pub(crate) const SLOT: Duration = Duration::from_secs(10);

/// Ten minutes of slots, the one under way included.
pub(crate) const SLOTS: usize = 60;

/// What is said of now is said of a minute: so many slots before the one under way.
const WINDOW: usize = 6;

/// Waits longer than a day are a day.
const LONGEST_LAG: Duration = Duration::from_secs(24 * 60 * 60);

/// Two digits of a lag are enough to see, and keep a histogram below 12 KiB.
const DIGITS: u8 = 2;

/// Written by the pool's loop, which copies from it for whoever asks.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    /// The counts of the loop when they were looked at last.
    seen: Option<Report>,
    /// The number of the slot under way, counted from the epoch.
    number: u64,
    /// The last one is under way.
    slots: VecDeque<Slot>,
    /// The lags of the last slots, as far as anything has started in them. The last one is under way.
    lags: VecDeque<Option<Histogram<u32>>>,
}

/// A slot of time. Lags are in milliseconds, from due to started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slot {
    /// Jobs with an outcome.
    pub completed: u32,
    /// Those of them that failed for good.
    pub failed: u32,
    pub lag: Option<Lag>,
}

/// The start lag: for how long attempts that started had been due, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lag {
    pub p50: u32,
    pub p99: u32,
}

/// The rates at one moment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Recent {
    /// Returns the length of the window: a minute of whole slots and what there is of the one under way, in whole seconds.
    pub window: Duration,
    pub completed: u64,
    pub failed: u64,
    /// Of what has started in the window.
    pub lag: Option<Lag>,
    /// The time at which the slot under way has begun.
    pub newest: Segment,
    /// Oldest first.
    pub slots: Vec<Slot>,
}

impl Rates {
    /// The loop's counts, as they were just committed.
    pub fn committed(&mut self, report: &Report, now: Segment) {
        let Some(seen) = self.seen.replace(*report) else { return };
        let outcomes = |report: &Report| report.succeeded + report.failed + report.canceled;
        let completed = outcomes(report).saturating_sub(outcomes(&seen));
        if completed > 0 {
            let failed = report.failed.saturating_sub(seen.failed);
            let slot = self.slot(now);
            slot.completed = slot.completed.saturating_add(saturated(completed));
            slot.failed = slot.failed.saturating_add(saturated(failed));
        }
    }

    /// Attempts start.
    pub fn launched(&mut self, launches: &[Launch], now: Segment) {
        self.slot(now);
        let Some(lags) = self.lags.back_mut() else { return };
        if lags.is_none() {
            *lags = Histogram::new(DIGITS).ok();
        }
        let Some(lags) = lags else { return };
        for launch in launches {
            // It grows as it has to, up to a day.
            let _ = lags.record(now.since(launch.due).min(LONGEST_LAG).as_millis() as u64);
        }
    }

    pub fn recent(&mut self, now: Segment) -> Recent {
        self.slot(now);
        if let (Some(slot), Some(Some(lags))) = (self.slots.back_mut(), self.lags.back()) {
            slot.lag = lag(lags);
        }
        let newest = Segment(self.number * SLOT.as_millis() as u64);
        let mut all = None::<Histogram<u32>>;
        for lags in self.lags.iter().flatten() {
            match &mut all {
                // It grows as well.
                Some(all) => drop(all.add(lags)),
                None => all = Some(lags.clone()),
            }
        }
        let window = self.slots.iter().rev().take(WINDOW + 1);
        let (mut completed, mut failed) = (0, 0);
        for slot in window {
            completed += u64::from(slot.completed);
            failed += u64::from(slot.failed);
        }
        let under_way = now.since(newest).min(SLOT).as_secs();
        Recent {
            window: SLOT * WINDOW as u32 + Duration::from_secs(under_way),
            completed,
            failed,
            lag: all.as_ref().and_then(lag),
            newest,
            slots: self.slots.iter().copied().collect(),
        }
    }

    /// The slot under way. Those before it that have ended meanwhile are closed.
    fn slot(&mut self, now: Segment) -> &mut Slot {
        let number = now.0 / SLOT.as_millis() as u64;
        if self.slots.is_empty() {
            self.slots.resize(SLOTS, Slot::default());
            self.lags.resize(WINDOW + 1, None);
            self.number = number;
        }
        let passed = number.saturating_sub(self.number);
        if passed > 0 {
            if let (Some(slot), Some(Some(lags))) = (self.slots.back_mut(), self.lags.back()) {
                slot.lag = lag(lags);
            }
            for _ in 0..passed.min(SLOTS as u64) {
                self.slots.pop_front();
                self.slots.push_back(Slot::default());
                self.lags.pop_front();
                self.lags.push_back(None);
            }
            self.number = number;
        }
        let last = self.slots.len() - 1;
        &mut self.slots[last]
    }
}

fn lag(lags: &Histogram<u32>) -> Option<Lag> {
    let at = |quantile| saturated(lags.value_at_quantile(quantile));
    (!lags.is_empty()).then(|| Lag { p50: at(0.5), p99: at(0.99) })
}

fn saturated(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(succeeded: u64, failed: u64) -> Report {
        Report { succeeded, failed, ..Report::default() }
    }

    #[test]
    fn what_is_older_than_the_window_is_only_in_the_slots() {
        let mut rates = Rates::default();
        let at = |seconds: u64| Segment(1_000_000_000 + seconds * 1_000);
        rates.committed(&report(5, 5), at(0));
        rates.committed(&report(10, 7), at(1));
        let recent = rates.recent(at(1));
        assert_eq!((recent.completed, recent.failed), (7, 2));
        assert_eq!(recent.window, Duration::from_secs(61));
        assert_eq!(recent.slots.len(), SLOTS);
        let recent = rates.recent(at(69));
        assert_eq!((recent.completed, recent.window), (7, Duration::from_secs(69)));
        let recent = rates.recent(at(70));
        assert_eq!((recent.completed, recent.window), (0, Duration::from_secs(60)));
        assert_eq!(recent.slots.iter().map(|slot| slot.completed).sum::<u32>(), 7);
        assert!(rates.recent(at(600)).slots.iter().all(|slot| slot.completed == 0));
    }

    #[test]
    fn a_clock_that_stands_or_leaps_does_no_harm() {
        let mut rates = Rates::default();
        rates.committed(&report(0, 0), Segment(u64::MAX));
        rates.committed(&report(1, 0), Segment(0));
        assert_eq!(rates.recent(Segment(0)).completed, 1);
        let mut rates = Rates::default();
        rates.committed(&report(0, 0), Segment(0));
        rates.committed(&report(1, 0), Segment(0));
        assert_eq!(rates.recent(Segment(u64::MAX)).completed, 0);
    }
}
