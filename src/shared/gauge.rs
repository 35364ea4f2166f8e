//! The gauge: the load of a pool.

use std::time::Duration;

use super::sync::atomic::{AtomicU64, Ordering};
use crate::model::Segment;

/// The number of recent attempts that the mean time in a slot covers, about.
const PACE_MEMORY: f64 = 16.0;

/// The load of a pool, readable by all threads. Written by its loop after each turn.
#[derive(Default)]
pub(crate) struct Gauge {
    running: AtomicU64,
    /// The mean time in a slot of recent attempts, in seconds, as the bits of an `f64`. Zero until one has ended.
    pace: AtomicU64,
    /// The time before which the pool's rate admits no start, if it is later than now.
    limited_until: AtomicU64,
}

impl Gauge {
    pub fn set_running(&self, attempts: usize) {
        self.running.store(attempts as u64, Ordering::Relaxed);
    }

    pub fn running(&self) -> u64 {
        self.running.load(Ordering::Relaxed)
    }

    pub fn set_limited_until(&self, segment: Segment) {
        self.limited_until.store(segment.0, Ordering::Relaxed);
    }

    /// Returns the time before which the pool's rate admits no start.
    pub fn limited_until(&self) -> Segment {
        Segment(self.limited_until.load(Ordering::Relaxed))
    }

    /// Records that `attempts` more have ended, which occupied their slots for `took` in total. Called by the loop
    /// only.
    pub fn ended(&self, attempts: usize, took: Duration) {
        if attempts == 0 {
            return;
        }
        let count = attempts as f64;
        // Not zero, since zero means that no attempt has ended.
        let mean = (took.as_secs_f64() / count).max(1e-6);
        let before = f64::from_bits(self.pace.load(Ordering::Relaxed));
        let weight = if before == 0.0 { 1.0 } else { count / (count + PACE_MEMORY) };
        let pace = before + weight * (mean - before);
        self.pace.store(pace.to_bits(), Ordering::Relaxed);
    }

    pub fn pace(&self) -> Option<Duration> {
        let pace = f64::from_bits(self.pace.load(Ordering::Relaxed));
        (pace > 0.0).then(|| Duration::try_from_secs_f64(pace).ok()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_follows_what_happened_lately() {
        let gauge = Gauge::default();
        assert_eq!(gauge.pace(), None);
        gauge.ended(1, Duration::from_secs(8));
        assert_eq!(gauge.pace(), Some(Duration::from_secs(8)));
        for _ in 0..200 {
            gauge.ended(2, Duration::from_secs(2));
        }
        let pace = gauge.pace().unwrap_or_default().as_secs_f64();
        assert!((0.99..1.01).contains(&pace), "{pace}");
    }
}
