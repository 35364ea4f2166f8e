//! Priorities of jobs.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The priority of a job: of the jobs of a pool that may start, the one with the smallest number starts first.
///
/// Priorities are strict: while jobs of a better priority are due, none of a worse one starts.
/// [`PoolConfig::aging`](crate::PoolConfig::aging) keeps them from waiting for ever. A job keeps its priority across
/// retries. Jobs of the same priority start in the order in which they are due.
///
/// ```
/// use actix_workpool::Priority;
///
/// assert!(Priority::HIGH < Priority::NORMAL && Priority::NORMAL < Priority::LOW);
/// assert!(Priority::new(-20) < Priority::HIGH);
/// assert_eq!(Priority::default(), Priority::NORMAL);
/// ```
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Priority(i8);

impl Priority {
    /// The number -10: before normal jobs.
    pub const HIGH: Priority = Priority(-10);
    /// The number 0, the default.
    pub const NORMAL: Priority = Priority(0);
    /// The number 10: behind normal jobs.
    pub const LOW: Priority = Priority(10);

    /// Makes a priority from its number; the smallest number starts first.
    #[must_use]
    pub const fn new(number: i8) -> Priority {
        Priority(number)
    }

    /// Returns the number.
    #[must_use]
    pub const fn number(self) -> i8 {
        self.0
    }
}

impl fmt::Display for Priority {
    /// Writes `high`, `normal`, `low`, or the number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Priority::HIGH => f.write_str("high"),
            Priority::NORMAL => f.write_str("normal"),
            Priority::LOW => f.write_str("low"),
            Priority(number) => number.fmt(f),
        }
    }
}
