//! The backoff: the time that a retry waits.

use std::time::Duration;

use crate::model::RetryBehavior;

/// Returns the wait before retry number `retry` (the first is 1): `initial · base^(retry-1) · U[0.5, 1.5)`, capped at
/// [`RetryBehavior::MAX_BACKOFF`]. `chance` is uniform in `[0, 1)`.
#[must_use]
pub fn backoff(behavior: &RetryBehavior, retry: u32, chance: f64) -> Duration {
    if behavior.initial_backoff_ms == 0 || planted!(BackoffIgnored) {
        return Duration::ZERO;
    }
    let exponent = i32::try_from(retry.saturating_sub(1)).unwrap_or(i32::MAX);
    let cap_ms = RetryBehavior::MAX_BACKOFF.as_secs_f64() * 1000.0;
    let wait_ms =
        behavior.initial_backoff_ms as f64 * behavior.base.powi(exponent) * (0.5 + chance);
    Duration::from_secs_f64(wait_ms.min(cap_ms) / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait_ms(behavior: RetryBehavior, retry: u32, chance: f64) -> u128 {
        backoff(&behavior, retry, chance).as_millis()
    }

    #[test]
    fn each_retry_waits_base_times_longer() {
        let behavior = RetryBehavior::default();
        let waits: Vec<_> = (1..=4).map(|retry| wait_ms(behavior, retry, 0.5)).collect();
        assert_eq!(waits, [250, 500, 1000, 2000]);
    }

    #[test]
    fn jitter_is_between_half_and_one_and_a_half() {
        let behavior = RetryBehavior::default();
        assert_eq!(wait_ms(behavior, 1, 0.0), 125);
        assert_eq!(wait_ms(behavior, 1, 0.999_999), 374);
    }

    #[test]
    fn no_wait_overflows() {
        let day = RetryBehavior::MAX_BACKOFF.as_millis();
        for behavior in [
            RetryBehavior { max_attempts: u32::MAX, initial_backoff_ms: u64::MAX, base: f64::MAX },
            RetryBehavior { max_attempts: 3, initial_backoff_ms: 1, base: 1e300 },
        ] {
            assert_eq!(wait_ms(behavior, u32::MAX, 0.9), day);
        }
        let at_once = RetryBehavior { max_attempts: 3, initial_backoff_ms: 0, base: f64::MAX };
        assert_eq!(wait_ms(at_once, u32::MAX, 0.5), 0);
    }
}
