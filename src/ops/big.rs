//! 64-bit numbers in JSON.

use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

use crate::model::Segment;

/// A number that JavaScript would round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Big(pub u64);

impl Serialize for Big {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl From<SystemTime> for Big {
    fn from(time: SystemTime) -> Big {
        Segment::of(time).into()
    }
}

impl From<Segment> for Big {
    fn from(time: Segment) -> Big {
        Big(time.0)
    }
}

impl From<Duration> for Big {
    fn from(time: Duration) -> Big {
        Big(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    }
}
