//! Configuration: what can be set, the defaults, and the limits.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ConfigError, KeyRule, Rate, RetryBehavior};

/// The maximum of `max_parallelism`: each attempt is an actor and a row of `running`.
pub const MAX_PARALLELISM: usize = 65_536;

/// The maximum of `max_payload_bytes`, in bytes: what is larger belongs in a file.
pub const MAX_PAYLOAD_BYTES: usize = 1 << 30;

/// The maximum delay of a job, four years: what is due later belongs in a calendar, not in a queue.
pub const MAX_DELAY: Duration = Duration::from_secs(4 * 366 * 24 * 60 * 60);

/// The level of detail of a pool's log. Each level includes those after it.
///
/// It filters what the pool emits; the program's `tracing` subscriber decides what of that is shown. With the default,
/// `RUST_LOG=actix_workpool=debug` shows every job.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LogLevel {
    /// The same as `Debug`, for now.
    Trace,
    /// Every wake-up of a loop and its reason, at the tracing level debug. The levels after this one use trace for it.
    Debug,
    /// Every job, enqueued, started and completed, at the tracing level info.
    Info,
    /// A report of the counters each minute, while something happens. Every job at the tracing level debug.
    #[default]
    Report,
    /// Events that an operator should look at, such as a job that has failed for good.
    Warn,
    /// Failures of the pool itself.
    Error,
}

/// The configuration of one pool. A field that is unset keeps the stored value; in a new pool it has the default.
///
/// | field | default |
/// |---|---|
/// | `max_parallelism` | 10 |
/// | `paused` | no |
/// | `rate` | none |
/// | `aging` | none |
/// | `per_key` | fair turns only |
/// | `log_level` | [`LogLevel::Report`] |
/// | `log_error_messages` | no |
/// | `default_retry` | no retry |
/// | `attempt_timeout` | none |
/// | `max_pending` | 10,000,000 jobs |
/// | `max_payload_bytes` | 1 MiB |
///
/// ```
/// use actix_workpool::{PoolConfig, RetryBehavior};
/// let config = PoolConfig::default().max_parallelism(4).default_retry(RetryBehavior::default());
/// assert!(config.validate().is_ok());
/// assert!(config.max_parallelism(1_000_000).validate().is_err());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PoolConfig {
    max_parallelism: Option<usize>,
    paused: Option<bool>,
    rate: Option<OnOff<Rate>>,
    aging: Option<OnOff<Duration>>,
    per_key: Option<KeyRule>,
    log_level: Option<LogLevel>,
    log_error_messages: Option<bool>,
    default_retry: Option<OnOff<RetryBehavior>>,
    attempt_timeout: Option<OnOff<Duration>>,
    max_pending: Option<u64>,
    max_payload_bytes: Option<usize>,
}

/// A setting that can be turned off, which is not the same as leaving it unset.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OnOff<T> {
    Off,
    On(T),
}

impl<T> OnOff<T> {
    fn on(self) -> Option<T> {
        match self {
            OnOff::Off => None,
            OnOff::On(value) => Some(value),
        }
    }
}

impl PoolConfig {
    /// Sets the number of attempts that run at once, at most [`MAX_PARALLELISM`]. 0 starts none.
    #[must_use]
    pub fn max_parallelism(mut self, attempts: usize) -> Self {
        self.max_parallelism = Some(attempts);
        self
    }

    /// Pauses the pool or resumes it. A paused pool takes jobs and starts none; running attempts go on.
    #[must_use]
    pub fn paused(mut self, paused: bool) -> Self {
        self.paused = Some(paused);
        self
    }

    /// Limits the rate at which attempts start, of all jobs of the pool together. A job that has to wait for the rate is
    /// started when the rate admits it: no attempt is made before, and none is charged.
    ///
    /// A start counts once, unless the job was enqueued with a [`cost`](crate::Enqueue::cost).
    #[must_use]
    pub fn rate(mut self, rate: Rate) -> Self {
        self.rate = Some(OnOff::On(rate));
        self
    }

    /// Starts attempts as fast as slots become free. This is the default.
    #[must_use]
    pub fn no_rate(mut self) -> Self {
        self.rate = Some(OnOff::Off);
        self
    }

    /// Lets a job that is due gain a priority for each such span that it waits, so that none waits for ever behind
    /// better ones. At least a millisecond.
    #[must_use]
    pub fn aging(mut self, span: Duration) -> Self {
        self.aging = Some(OnOff::On(span));
        self
    }

    /// Keeps priorities strict, however long a job waits. This is the default.
    #[must_use]
    pub fn no_aging(mut self) -> Self {
        self.aging = Some(OnOff::Off);
        self
    }

    /// Sets the rules that hold for each key of the pool by itself: how many of its jobs run at once, whether in order,
    /// and how often they start. `KeyRule::default()` leaves fair turns only. A change holds from the next start on; a job that the rate of its
    /// key held back before keeps the time that it was given.
    #[must_use]
    pub fn per_key(mut self, rule: KeyRule) -> Self {
        self.per_key = Some(rule);
        self
    }

    /// Sets which events are logged.
    #[must_use]
    pub fn log_level(mut self, level: LogLevel) -> Self {
        self.log_level = Some(level);
        self
    }

    /// Logs the error message of a job that has failed for good. Without this only the kind of the failure is logged:
    /// messages may hold what users have sent. Arguments and results are never logged.
    #[must_use]
    pub fn log_error_messages(mut self, log: bool) -> Self {
        self.log_error_messages = Some(log);
        self
    }

    /// Sets the retry policy of jobs whose function and enqueue name none.
    #[must_use]
    pub fn default_retry(mut self, retry: RetryBehavior) -> Self {
        self.default_retry = Some(OnOff::On(retry));
        self
    }

    /// Turns retries off for jobs whose function and enqueue name no policy. This is the default.
    #[must_use]
    pub fn no_default_retry(mut self) -> Self {
        self.default_retry = Some(OnOff::Off);
        self
    }

    /// Sets the timeout of attempts whose function and enqueue name none. An attempt that exceeds it is told to stop
    /// and dropped, and counts as failed.
    #[must_use]
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.attempt_timeout = Some(OnOff::On(timeout));
        self
    }

    /// Lets attempts take as long as they like. This is the default.
    #[must_use]
    pub fn no_attempt_timeout(mut self) -> Self {
        self.attempt_timeout = Some(OnOff::Off);
        self
    }

    /// Sets the number of jobs that may be without an outcome; an enqueue beyond that is refused as overloaded.
    #[must_use]
    pub fn max_pending(mut self, works: u64) -> Self {
        self.max_pending = Some(works);
        self
    }

    /// Sets the maximum size of the encoded arguments with the context of `on_complete`, and of a result. In bytes.
    #[must_use]
    pub fn max_payload_bytes(mut self, bytes: usize) -> Self {
        self.max_payload_bytes = Some(bytes);
        self
    }

    /// Checks the values that are set. The pool does so as well, wherever it is given a configuration.
    ///
    /// # Errors
    /// Names the first value that is out of its range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if let Some(given) = self.max_parallelism
            && given > MAX_PARALLELISM
        {
            return Err(ConfigError::MaxParallelism { given, max: MAX_PARALLELISM });
        }
        if let Some(OnOff::On(rate)) = &self.rate {
            rate.validate()?;
        }
        if let Some(OnOff::On(span)) = self.aging
            && span < Duration::from_millis(1)
        {
            return Err(ConfigError::Aging);
        }
        if let Some(rule) = &self.per_key {
            rule.validate()?;
        }
        if let Some(OnOff::On(retry)) = &self.default_retry {
            retry.validate()?;
        }
        if let Some(OnOff::On(Duration::ZERO)) = self.attempt_timeout {
            return Err(ConfigError::NoTimeToRun);
        }
        if let Some(given) = self.max_payload_bytes
            && given > MAX_PAYLOAD_BYTES
        {
            return Err(ConfigError::MaxPayloadBytes { given, max: MAX_PAYLOAD_BYTES });
        }
        if self.max_pending == Some(0) {
            return Err(ConfigError::NothingMayBePending);
        }
        Ok(())
    }

    /// Returns this configuration with its unset fields taken from `stored`.
    #[must_use]
    pub fn over(self, stored: &PoolConfig) -> PoolConfig {
        PoolConfig {
            max_parallelism: self.max_parallelism.or(stored.max_parallelism),
            paused: self.paused.or(stored.paused),
            rate: self.rate.or(stored.rate),
            aging: self.aging.or(stored.aging),
            per_key: self.per_key.or(stored.per_key),
            log_level: self.log_level.or(stored.log_level),
            log_error_messages: self.log_error_messages.or(stored.log_error_messages),
            default_retry: self.default_retry.or(stored.default_retry),
            attempt_timeout: self.attempt_timeout.or(stored.attempt_timeout),
            max_pending: self.max_pending.or(stored.max_pending),
            max_payload_bytes: self.max_payload_bytes.or(stored.max_payload_bytes),
        }
    }

    /// Returns the values in force: the default where a field is unset.
    #[must_use]
    pub fn settings(&self) -> Settings {
        Settings {
            max_parallelism: self.max_parallelism.unwrap_or(10),
            paused: self.paused.unwrap_or(false),
            rate: self.rate.and_then(OnOff::on),
            aging: self.aging.and_then(OnOff::on),
            per_key: self.per_key.unwrap_or_default(),
            log_level: self.log_level.unwrap_or_default(),
            log_error_messages: self.log_error_messages.unwrap_or(false),
            default_retry: self.default_retry.and_then(OnOff::on),
            attempt_timeout: self.attempt_timeout.and_then(OnOff::on),
            max_pending: self.max_pending.unwrap_or(10_000_000),
            max_payload_bytes: self.max_payload_bytes.unwrap_or(1 << 20),
        }
    }
}

/// The values in force in a pool. See [`PoolConfig`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Settings {
    /// The number of attempts that run at once.
    pub max_parallelism: usize,
    /// `true` if no attempt is started.
    pub paused: bool,
    /// The rate at which attempts start.
    pub rate: Option<Rate>,
    /// The time after which a job that is due gains a priority.
    pub aging: Option<Duration>,
    /// The rules that hold for each key.
    pub per_key: KeyRule,
    /// The least important events that are logged.
    pub log_level: LogLevel,
    /// `true` if the error messages of failed jobs are logged.
    pub log_error_messages: bool,
    /// The retry policy of jobs that have no other.
    pub default_retry: Option<RetryBehavior>,
    /// The timeout of attempts that have no other.
    pub attempt_timeout: Option<Duration>,
    /// The number of jobs that may be without an outcome.
    pub max_pending: u64,
    /// The maximum size of arguments with context, and of a result, in bytes.
    pub max_payload_bytes: usize,
}

impl Settings {
    /// Returns the number of attempts that may run at once right now.
    #[must_use]
    pub fn slots(&self) -> usize {
        if self.paused { 0 } else { self.max_parallelism }
    }
}

/// The bounds on how long finished jobs are remembered. The bound that is met first applies.
///
/// The defaults are one day and 100,000 jobs.
///
/// ```
/// use std::time::Duration;
///
/// use actix_workpool::{Retention, Runtime};
///
/// let week = Duration::from_secs(7 * 24 * 60 * 60);
/// let retention = Retention::default().max_age(week).max_count(1_000_000);
/// assert_eq!(Retention::FOREVER.max_age(week).max_count, None);
/// let builder = Runtime::builder().retention(retention);
/// # let _ = builder;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retention {
    /// The maximum age of a finished job; `None` for no limit.
    pub max_age: Option<Duration>,
    /// The number of finished jobs that are kept, the newest; `None` for no limit.
    pub max_count: Option<u64>,
}

impl Default for Retention {
    fn default() -> Self {
        Retention { max_age: Some(Duration::from_secs(24 * 60 * 60)), max_count: Some(100_000) }
    }
}

impl Retention {
    /// No bounds: finished jobs are never forgotten.
    pub const FOREVER: Retention = Retention { max_age: None, max_count: None };

    /// Sets the maximum age of a finished job.
    #[must_use]
    pub const fn max_age(mut self, age: Duration) -> Retention {
        self.max_age = Some(age);
        self
    }

    /// Sets the number of finished jobs that are kept, the newest.
    #[must_use]
    pub const fn max_count(mut self, works: u64) -> Retention {
        self.max_count = Some(works);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_unset_keeps_what_the_store_has() {
        let stored = PoolConfig::default().max_parallelism(3).max_pending(7);
        let merged = PoolConfig::default().max_parallelism(4).over(&stored).settings();
        assert_eq!((merged.max_parallelism, merged.max_pending), (4, 7));
    }

    #[test]
    fn turning_retry_off_is_not_leaving_it_unset() {
        let stored = PoolConfig::default().default_retry(RetryBehavior::default());
        assert!(PoolConfig::default().over(&stored).settings().default_retry.is_some());
        assert!(
            PoolConfig::default()
                .no_default_retry()
                .over(&stored)
                .settings()
                .default_retry
                .is_none()
        );
    }

    #[test]
    fn values_out_of_range_are_named() {
        let zero = Duration::ZERO;
        for (config, field) in [
            (PoolConfig::default().max_parallelism(usize::MAX), "max_parallelism"),
            (
                PoolConfig::default().default_retry(RetryBehavior::default().max_attempts(0)),
                "max_attempts",
            ),
            (PoolConfig::default().default_retry(RetryBehavior::default().base(-1.0)), "base"),
            (PoolConfig::default().default_retry(RetryBehavior::default().base(f64::NAN)), "base"),
            (PoolConfig::default().rate(Rate::per_second(0)), "rate"),
            (PoolConfig::default().aging(zero), "aging"),
            (PoolConfig::default().attempt_timeout(zero), "attempt_timeout"),
            (PoolConfig::default().max_pending(0), "max_pending"),
        ] {
            let message = config.validate().expect_err(field).to_string();
            assert!(message.contains(field), "{message} names {field}");
        }
    }
}
