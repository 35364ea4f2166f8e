//! Times in JSON: milliseconds since the Unix epoch.

use std::time::SystemTime;

use serde::{Serialize, Serializer};

use super::Segment;

/// A time, or one that may be missing.
pub(crate) trait Time {
    fn millis(&self) -> Option<u64>;
}

impl Time for SystemTime {
    fn millis(&self) -> Option<u64> {
        Some(Segment::of(*self).0)
    }
}

impl Time for Option<SystemTime> {
    fn millis(&self) -> Option<u64> {
        self.as_ref().and_then(Time::millis)
    }
}

/// Serializes a time as a number, and a missing one as `null`. For `#[serde(serialize_with = ..)]`.
pub(crate) fn millis<S: Serializer>(time: &impl Time, serializer: S) -> Result<S::Ok, S::Error> {
    time.millis().serialize(serializer)
}
