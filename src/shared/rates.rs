//! Rates: the recent activity of a pool, in slots of time.
//!
//! The pool's loop owns the rates: it counts after each commit and each launch, without a lock, and other threads ask
//! the loop for a copy. A resting pool keeps its slots but no histogram.

use std::collections::VecDeque;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::engine::Launch;
use crate::model::{Report, Segment};

/// The length of a slot: long enough for a meaningful rate, short enough for a fine chart.
pub(crate) const SLOT: Duration = Duration::from_secs(10);

/// The number of slots kept: ten minutes, including the current slot.
pub(crate) const SLOTS: usize = 60;

/// The length of a slot of the day.
pub(crate) const DAY_SLOT: Duration = Duration::from_secs(5 * 60);

/// The number of slots of the day: 24 hours, including the current slot.
pub(crate) const DAY_SLOTS: usize = 288;

/// The number of slots before the current one that count as "now": one minute.
const WINDOW: usize = 6;

/// The longest recorded lag: longer ones count as a day.
const LONGEST_LAG: Duration = Duration::from_secs(24 * 60 * 60);

/// The significant digits of a lag. Two are enough to read, and keep a histogram below 12 KiB.
const DIGITS: u8 = 2;

/// The rates of a pool. Written by the pool's loop, which gives copies to callers.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    /// The loop's counts at the last commit.
    seen: Option<Report>,
    /// The number of the current slot, counted from the epoch.
    number: u64,
    /// The slots, oldest first. The last one is the current slot.
    slots: VecDeque<Slot>,
    /// The lags of the last slots; `None` where nothing has started. The last one belongs to the current slot.
    lags: VecDeque<Option<Histogram<u32>>>,
    /// The last 24 hours, oldest first, without slots in which nothing happened: a pool that rests takes no memory for
    /// them, and one that never does takes 9 KiB. The current one of the slots above is not in it yet.
    day: VecDeque<DaySlot>,
}

/// A slot of time. Lags are in milliseconds, from due to start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slot {
    /// Jobs with an outcome.
    pub completed: u32,
    /// Jobs that failed for good; included in `completed`.
    pub failed: u32,
    /// Jobs that were canceled; included in `completed`.
    pub canceled: u32,
    /// Attempts that started.
    pub started: u32,
    pub lag: Option<Lag>,
}

impl Slot {
    /// Adds another slot: another time of the same pool, or the same time of another pool.
    pub fn add(&mut self, other: &Slot) {
        self.lag = Lag::of_both(self.lag, self.started.into(), other.lag, other.started.into());
        self.completed = self.completed.saturating_add(other.completed);
        self.failed = self.failed.saturating_add(other.failed);
        self.canceled = self.canceled.saturating_add(other.canceled);
        self.started = self.started.saturating_add(other.started);
    }

    #[cfg_attr(not(feature = "ops"), allow(dead_code))]
    pub fn succeeded(&self) -> u32 {
        self.completed.saturating_sub(self.failed).saturating_sub(self.canceled)
    }
}

/// A slot of the day, with its number, counted from the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DaySlot {
    pub number: u32,
    pub slot: Slot,
}

/// The start lag: the time from due to start of an attempt, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lag {
    pub p50: u32,
    pub p99: u32,
}

impl Lag {
    /// Combines the lag of some attempts with that of others: the mean of the medians, and the higher p99.
    pub fn of_both(
        one: Option<Lag>,
        attempts: u64,
        other: Option<Lag>,
        others: u64,
    ) -> Option<Lag> {
        let (Some(one), Some(other)) = (one, other) else { return one.or(other) };
        let all = attempts.saturating_add(others).max(1);
        let sum = u64::from(one.p50)
            .saturating_mul(attempts)
            .saturating_add(u64::from(other.p50).saturating_mul(others));
        Some(Lag { p50: saturated(sum / all), p99: one.p99.max(other.p99) })
    }
}

/// The rates at one moment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Recent {
    /// The length of the window: one minute of whole slots plus the elapsed part of the current slot, in whole seconds.
    pub window: Duration,
    pub completed: u64,
    pub failed: u64,
    /// Attempts that started.
    pub started: u64,
    /// The lag of the attempts that started in the window.
    pub lag: Option<Lag>,
    /// The start of the current slot.
    pub newest: Segment,
    /// All slots, oldest first.
    pub slots: Vec<Slot>,
    /// The slots of the last 24 hours in which something happened, oldest first. Their p50 is the mean of the medians of
    /// the slots above, and their p99 is the highest of those.
    pub day: Vec<DaySlot>,
}

impl Rates {
    /// Records the loop's counts after a commit.
    pub fn committed(&mut self, report: &Report, now: Segment) {
        let Some(seen) = self.seen.replace(*report) else { return };
        let outcomes = |report: &Report| report.succeeded + report.failed + report.canceled;
        let completed = outcomes(report).saturating_sub(outcomes(&seen));
        if completed > 0 {
            let failed = report.failed.saturating_sub(seen.failed);
            let canceled = report.canceled.saturating_sub(seen.canceled);
            let slot = self.slot(now);
            slot.completed = slot.completed.saturating_add(saturated(completed));
            slot.failed = slot.failed.saturating_add(saturated(failed));
            slot.canceled = slot.canceled.saturating_add(saturated(canceled));
        }
    }

    /// Records the lags of attempts that start.
    pub fn launched(&mut self, launches: &[Launch], now: Segment) {
        let slot = self.slot(now);
        slot.started = slot.started.saturating_add(saturated(launches.len() as u64));
        let Some(lags) = self.lags.back_mut() else { return };
        if lags.is_none() {
            *lags = Histogram::new(DIGITS).ok();
        }
        let Some(lags) = lags else { return };
        for launch in launches {
            // The histogram grows as needed, up to a day.
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
                // This histogram grows too.
                Some(all) => drop(all.add(lags)),
                None => all = Some(lags.clone()),
            }
        }
        let window = self.slots.iter().rev().take(WINDOW + 1);
        let (mut completed, mut failed, mut started) = (0, 0, 0);
        for slot in window {
            completed += u64::from(slot.completed);
            failed += u64::from(slot.failed);
            started += u64::from(slot.started);
        }
        let mut day: Vec<_> = self.day.iter().copied().collect();
        match (self.current_of_day(), day.last_mut()) {
            (Some(current), Some(last)) if last.number >= current.number => {
                last.slot.add(&current.slot);
            }
            (current, _) => day.extend(current),
        }
        let under_way = now.since(newest).min(SLOT).as_secs();
        Recent {
            window: SLOT * WINDOW as u32 + Duration::from_secs(under_way),
            completed,
            failed,
            started,
            lag: all.as_ref().and_then(lag),
            newest,
            slots: self.slots.iter().copied().collect(),
            day,
        }
    }

    /// Returns what the current slot adds to the day, if anything.
    fn current_of_day(&self) -> Option<DaySlot> {
        let slot = *self.slots.back().filter(|slot| **slot != Slot::default())?;
        Some(DaySlot { number: number_in_day(self.number), slot })
    }

    /// Adds the current slot, which ends with the slot `now`, to the day, and forgets what is older than the day.
    fn remember(&mut self, now: u64) {
        match (self.current_of_day(), self.day.back_mut()) {
            (Some(current), Some(last)) if last.number >= current.number => {
                last.slot.add(&current.slot);
            }
            (Some(current), _) => {
                self.day.reserve_exact(DAY_SLOTS.saturating_sub(self.day.len()));
                self.day.push_back(current);
            }
            (None, _) => {}
        }
        let oldest = number_in_day(now).saturating_sub(DAY_SLOTS as u32 - 1);
        while self.day.front().is_some_and(|slot| slot.number < oldest) {
            self.day.pop_front();
        }
        if self.day.is_empty() {
            self.day = VecDeque::new();
        }
    }

    /// Returns the current slot, and closes the slots that have ended meanwhile.
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
            self.remember(number);
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

/// Returns the number of the slot of the day that the slot of that number belongs to.
fn number_in_day(number: u64) -> u32 {
    saturated(number / (DAY_SLOT.as_secs() / SLOT.as_secs()))
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
    fn a_day_is_remembered_in_less_than_ten_kibibytes() {
        let mut rates = Rates::default();
        let begun = 1_000_000_000 * DAY_SLOT.as_millis() as u64;
        let at = |seconds: u64| Segment(begun + seconds * 1_000);
        assert_eq!(rates.recent(at(0)).day, []);
        rates.committed(&report(0, 0), at(0));
        // One in each ten seconds of 25 hours, and a failed one in each third of those.
        let day = 25 * 360;
        for n in 1..=day {
            rates.committed(&report(n, n / 3), at(n * 10 - 1));
        }
        let recent = rates.recent(at(day * 10 - 1));
        assert_eq!(recent.day.len(), DAY_SLOTS);
        assert!(recent.day.iter().all(|slot| slot.slot.completed == 40), "30, and 10 failed");
        assert!(recent.day.windows(2).all(|pair| pair[0].number + 1 == pair[1].number));
        assert!(rates.day.capacity() * size_of::<DaySlot>() < 10 << 10);
        // What is between two looks is kept as well, and in the end there is nothing.
        let recent = rates.recent(at(day * 10 + 23 * 3_600));
        assert_eq!(recent.day.len(), 11);
        assert_eq!(rates.recent(at(day * 10 + 24 * 3_600)).day, []);
        assert_eq!(rates.day.capacity(), 0, "a pool that rests takes no memory");
    }

    #[test]
    fn lags_are_combined_by_the_number_of_attempts() {
        let slot =
            |started, p50, p99| Slot { started, lag: Some(Lag { p50, p99 }), ..Slot::default() };
        let mut sum = Slot::default();
        sum.add(&slot(30, 10, 20));
        sum.add(&slot(10, 50, 15));
        assert_eq!(sum, slot(40, 20, 20));
        sum.add(&Slot { completed: 3, failed: 1, canceled: 1, ..Slot::default() });
        assert_eq!((sum.lag, sum.succeeded()), (Some(Lag { p50: 20, p99: 20 }), 1));
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
