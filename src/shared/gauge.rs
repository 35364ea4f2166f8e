//! The gauge: how busy a pool is.

use std::time::Duration;

use super::sync::atomic::{AtomicU64, Ordering};

/// The mean time in a slot goes by about so many attempts.
const PACE_MEMORY: f64 = 16.0;

/// The load of a pool, for everybody to read. Written by its loop after each turn.
#[derive(Default)]
pub(crate) struct Gauge {
    running: AtomicU64,
    /// The bits of the mean time that an attempt has occupied its slot lately, in seconds. Zero until one has ended.
    pace: AtomicU64,
}

impl Gauge {
    pub fn set_running(&self, attempts: usize) {
        self.running.store(attempts as u64, Ordering::Relaxed);
    }

    pub fn running(&self) -> u64 {
        self.running.load(Ordering::Relaxed)
    }

    /// Takes in how long `attempts` more have occupied their slots, all together. Called by the loop only.
    pub fn ended(&self, attempts: usize, took: Duration) {
        if attempts == 0 {
            return;
        }
        let count = attempts as f64;
        // Jobs that take next to no time are not taken for none at all.
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
