//! The activity of pools: what has happened in each slot of time, and totals.

use std::time::Duration;

use super::big::Big;
use super::views::PoolView;
use crate::shared::rates::{DAY_SLOT, DAY_SLOTS, Lag, Recent, SLOT, SLOTS, Slot};

/// The time that an activity covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Range {
    Minutes,
    Day,
}

/// What has happened in each slot of time, in one pool or in several together: counts are added, the p50 of lags is
/// their mean by the number of attempts, and the p99 is the highest one.
#[derive(Debug)]
pub(crate) struct Activity {
    pub range: Range,
    /// The length of a slot.
    pub slot: Duration,
    /// The time at which the last slot, the current one, began, in milliseconds.
    pub newest: u64,
    /// The elapsed part of the current slot.
    pub under_way: Duration,
    /// The slots, oldest first.
    pub slots: Vec<Slot>,
}

impl Activity {
    /// Adds up the rates of pools.
    pub fn of(rates: &[Recent], range: Range, now: Big) -> Activity {
        let (slot, count) = match range {
            Range::Minutes => (SLOT, SLOTS),
            Range::Day => (DAY_SLOT, DAY_SLOTS),
        };
        let slot_ms = slot.as_millis() as u64;
        let newest = now.0 / slot_ms;
        let mut slots = vec![Slot::default(); count];
        let mut add = |number: u64, more: &Slot| {
            let age = usize::try_from(newest.saturating_sub(number)).unwrap_or(usize::MAX);
            if let Some(place) = count.checked_sub(age.saturating_add(1)) {
                slots[place].add(more);
            }
        };
        for recent in rates {
            match range {
                Range::Minutes => {
                    for (number, more) in
                        (0..=recent.newest.0 / slot_ms).rev().zip(recent.slots.iter().rev())
                    {
                        add(number, more);
                    }
                }
                Range::Day => {
                    for more in &recent.day {
                        add(more.number.into(), &more.slot);
                    }
                }
            }
        }
        let newest = newest * slot_ms;
        let under_way = Duration::from_millis(now.0.saturating_sub(newest));
        Activity { range, slot, newest, under_way, slots }
    }
}

/// The totals of several pools.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub running: u64,
    pub slots: u64,
    pub waiting: u64,
    /// The time at which the oldest waiting job was or will be due.
    pub oldest_due: Option<Big>,
    /// Jobs that have completed in the last ten minutes.
    pub completed: u64,
    /// Jobs that have failed for good in the last ten minutes.
    pub failed: u64,
    /// The rate of jobs with an outcome, in the last minute.
    pub completed_per_s: f64,
    /// The start lag in the last minute.
    pub lag: Option<Lag>,
    /// The attempts that it is of.
    started: u64,
}

impl Totals {
    /// Adds up the views of pools, and their rates.
    pub fn of(pools: &[PoolView], rates: &[Recent]) -> Totals {
        let mut totals = Totals::default();
        for (pool, recent) in pools.iter().zip(rates) {
            totals.running += pool.running.0;
            totals.slots += pool.max_parallelism as u64;
            totals.waiting += pool.waiting.0;
            let oldest = [totals.oldest_due, pool.oldest_due].into_iter().flatten();
            totals.oldest_due = oldest.min_by_key(|due| due.0);
            for slot in &recent.slots {
                totals.completed += u64::from(slot.completed);
                totals.failed += u64::from(slot.failed);
            }
            totals.completed_per_s += pool.lately.completed_per_s;
            totals.lag = Lag::of_both(totals.lag, totals.started, recent.lag, recent.started);
            totals.started += recent.started;
        }
        totals
    }
}
