//! Rates: how often jobs may start.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ConfigError;

/// The number of starts in a span of time, spread evenly over it, and the number that may come at once.
///
/// In any span of length *t* at most `burst + rate · (t + 5 ms)` jobs start. The 5 ms make up for timers that go off
/// late, so that the rate is reached and not only kept.
///
/// ```
/// use std::time::Duration;
///
/// use actix_workpool::{PoolConfig, Rate};
///
/// let partner = PoolConfig::default().rate(Rate::per_second(5).burst(10));
/// let rare = PoolConfig::default().rate(Rate::new(1, Duration::from_secs(90)));
/// assert!(partner.validate().is_ok() && rare.validate().is_ok());
/// assert!(PoolConfig::default().rate(Rate::per_second(0)).validate().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    starts: u32,
    per: Duration,
    #[serde(default = "one")]
    burst: u32,
}

fn one() -> u32 {
    1
}

/// The longest time in which the rate may admit a burst, 100 years.
const MAX_BURST_NS: u64 = 100 * 366 * 24 * 60 * 60 * 1_000_000_000;

impl Rate {
    /// The longest time between two starts, one year.
    pub const MAX_INTERVAL: Duration = Duration::from_secs(366 * 24 * 60 * 60);

    /// Makes a rate of `starts` in each span of `per`, with a burst of 1.
    #[must_use]
    pub const fn new(starts: u32, per: Duration) -> Rate {
        Rate { starts, per, burst: 1 }
    }

    /// Makes a rate of `starts` per second.
    #[must_use]
    pub const fn per_second(starts: u32) -> Rate {
        Rate::new(starts, Duration::from_secs(1))
    }

    /// Makes a rate of `starts` per minute.
    #[must_use]
    pub const fn per_minute(starts: u32) -> Rate {
        Rate::new(starts, Duration::from_secs(60))
    }

    /// Makes a rate of `starts` per hour.
    #[must_use]
    pub const fn per_hour(starts: u32) -> Rate {
        Rate::new(starts, Duration::from_secs(60 * 60))
    }

    /// Sets the number of jobs that may start at once after a quiet time. The default is 1.
    #[must_use]
    pub const fn burst(mut self, starts: u32) -> Rate {
        self.burst = starts;
        self
    }

    /// Returns the number of jobs that may start at once.
    #[must_use]
    pub const fn max_burst(&self) -> u32 {
        self.burst
    }

    /// Returns the time between two starts when jobs wait.
    #[must_use]
    pub fn interval(&self) -> Duration {
        self.per.checked_div(self.starts).unwrap_or(Rate::MAX_INTERVAL)
    }

    /// The same in nanoseconds.
    pub(crate) fn interval_ns(&self) -> u64 {
        u64::try_from(self.interval().min(Rate::MAX_INTERVAL).as_nanos()).unwrap_or(u64::MAX)
    }

    /// Checks the values. The pool does so as well, wherever it is given a rate.
    ///
    /// # Errors
    /// Fails if nothing could ever start, if the time between two starts is zero or longer than
    /// [`Rate::MAX_INTERVAL`], or if the burst is 0 or what the rate admits in more than 100 years.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let fits =
            self.starts > 0 && !self.interval().is_zero() && self.interval() <= Rate::MAX_INTERVAL;
        let burst_ns = self.interval_ns().checked_mul(self.burst.into());
        let fits = fits && burst_ns.is_some_and(|ns| ns <= MAX_BURST_NS);
        match (fits, self.burst) {
            (true, 1..) => Ok(()),
            _ => Err(ConfigError::Rate { given: self.to_string() }),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.starts)?;
        match self.per.as_secs() {
            1 if self.per.subsec_nanos() == 0 => f.write_str("per second")?,
            60 if self.per.subsec_nanos() == 0 => f.write_str("per minute")?,
            3_600 if self.per.subsec_nanos() == 0 => f.write_str("per hour")?,
            _ => write!(f, "in {:?}", self.per)?,
        }
        match self.burst {
            1 => Ok(()),
            burst => write!(f, ", {burst} at once"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_that_start_nothing_are_refused() {
        let second = Duration::from_secs(1);
        for rate in [
            Rate::per_second(0),
            Rate::new(1, Duration::ZERO),
            Rate::new(u32::MAX, Duration::from_nanos(7)),
            Rate::new(1, Duration::MAX),
            Rate::per_hour(1).burst(0),
            Rate::per_hour(1).burst(u32::MAX),
        ] {
            let message = rate.validate().expect_err("it is refused").to_string();
            assert!(message.contains("rate"), "{message}");
        }
        for rate in [Rate::per_hour(1), Rate::per_second(1_000_000), Rate::new(3, second)] {
            assert_eq!(rate.validate(), Ok(()));
        }
    }

    #[test]
    fn rates_read_well() {
        assert_eq!(Rate::per_second(5).burst(10).to_string(), "5 per second, 10 at once");
        assert_eq!(Rate::new(1, Duration::from_secs(90)).to_string(), "1 in 90s");
    }
}
