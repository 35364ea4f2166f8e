//! When a schedule fires: a fixed period.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A fixed period: a schedule fires at each multiple of it since the Unix epoch.
///
/// It knows no zones: a day is 24 hours and begins at midnight UTC.
///
/// ```
/// use actix_workpool::Every;
/// use std::time::Duration;
///
/// let quarter = Every::new(Duration::from_secs(15 * 60))?;
/// assert_eq!(quarter.next_after(0), Some(900_000));
/// assert_eq!(quarter.next_after(899_999), Some(900_000));
/// assert!(Every::new(Duration::ZERO).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Every {
    period_ms: u64,
}

impl Every {
    /// The shortest period, one second: what comes more often is a loop, not a schedule.
    pub const MIN: Duration = Duration::from_secs(1);

    /// The longest period, four years.
    pub const MAX: Duration = Duration::from_secs(1461 * 24 * 60 * 60);

    /// Makes a period.
    ///
    /// # Errors
    /// Fails if it is shorter than [`Every::MIN`], longer than [`Every::MAX`], or not in whole
    /// milliseconds.
    pub const fn new(period: Duration) -> Result<Every, EveryError> {
        let whole = period.subsec_nanos().is_multiple_of(1_000_000);
        let secs = period.as_secs();
        if whole && secs >= Every::MIN.as_secs() && period.as_nanos() <= Every::MAX.as_nanos() {
            return Ok(Every { period_ms: period.as_millis() as u64 });
        }
        Err(EveryError { given: period })
    }

    /// Returns the period.
    #[must_use]
    pub const fn period(self) -> Duration {
        Duration::from_millis(self.period_ms)
    }

    /// Returns the first multiple after `after_ms`, in milliseconds since the epoch, itself not
    /// included. `None` is the end of the numbers.
    #[must_use]
    pub const fn next_after(self, after_ms: u64) -> Option<u64> {
        // Not zero: there is a shortest period.
        (after_ms / self.period_ms + 1).checked_mul(self.period_ms)
    }

    /// Returns the last multiple after `after_ms` and not after `until_ms`.
    #[must_use]
    pub const fn last_between(self, after_ms: u64, until_ms: u64) -> Option<u64> {
        let last = until_ms - until_ms % self.period_ms;
        if last > after_ms { Some(last) } else { None }
    }
}

impl TryFrom<u64> for Every {
    type Error = EveryError;

    fn try_from(period_ms: u64) -> Result<Every, EveryError> {
        Every::new(Duration::from_millis(period_ms))
    }
}

impl From<Every> for u64 {
    fn from(every: Every) -> u64 {
        every.period_ms
    }
}

/// A period that is out of its range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a period of {given:?} was given, it may be 1 s to 4 years in whole milliseconds")]
pub struct EveryError {
    /// The period that was given.
    pub given: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_has_its_limits() {
        for given in [Every::MIN, Every::MAX, Duration::from_millis(1_500)] {
            assert_eq!(Every::new(given).unwrap().period(), given);
        }
        let nano = Duration::from_nanos(1);
        for given in [Duration::ZERO, Every::MIN - nano, Every::MIN + nano, Every::MAX + nano] {
            assert_eq!(Every::new(given), Err(EveryError { given }));
        }
        assert!(Every::new(Duration::MAX).is_err());
    }

    #[test]
    fn it_fires_at_multiples_of_the_period() {
        let every = Every::new(Duration::from_secs(7)).unwrap();
        assert_eq!(every.next_after(6_999), Some(7_000));
        assert_eq!(every.next_after(7_000), Some(14_000));
        assert_eq!(every.next_after(u64::MAX), None);
        assert_eq!(every.last_between(7_000, 20_999), Some(14_000));
        assert_eq!(every.last_between(6_999, 7_000), Some(7_000));
        assert_eq!(every.last_between(7_000, 13_999), None);
        assert_eq!(every.last_between(20_000, 10), None);
    }

    #[test]
    fn it_is_stored_as_milliseconds() {
        let every = Every::new(Duration::from_secs(60)).unwrap();
        assert_eq!(serde_json::to_string(&every).unwrap(), "60000");
        assert_eq!(serde_json::from_str::<Every>("60000").unwrap(), every);
        assert!(serde_json::from_str::<Every>("999").is_err());
    }
}
