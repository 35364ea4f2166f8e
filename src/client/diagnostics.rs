//! Diagnostics of a pool.

use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;

use crate::model::{Name, Progress, Report, WorkId, millis};

/// The state of a pool, in numbers. Made by [`Workpool::diagnostics`](crate::Workpool::diagnostics).
///
/// ```
/// # use actix_workpool::doctest::{self, Double};
/// use actix_workpool::PoolStatus;
/// # doctest::run(async {
/// # let runtime = doctest::runtime().await?;
/// # let pool = runtime.pool("default")?;
/// let state = pool.diagnostics().await?;
/// assert_eq!((state.status, state.running, state.waiting), (PoolStatus::Idle, 0, 0));
/// # runtime.shutdown(std::time::Duration::ZERO).await;
/// # Ok(()) });
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Diagnostics {
    /// The pool's name.
    pub pool: Name,
    /// Jobs that are not due yet or wait for a slot.
    pub waiting: u64,
    /// Attempts that occupy a slot.
    pub running: u64,
    /// Finished attempts that are not handled yet.
    pub completing: u64,
    /// Cancelations that are not handled yet.
    pub canceling: u64,
    /// Jobs whose function is not registered in this process.
    pub unregistered: u64,
    /// The names of the functions that are not registered.
    pub unregistered_names: Vec<Name>,
    /// The time at which the oldest waiting job was or will be due.
    #[serde(serialize_with = "millis")]
    pub oldest_due: Option<SystemTime>,
    /// The number of free slots.
    pub spare_capacity: u64,
    /// What the pool does.
    pub status: PoolStatus,
    /// Totals since the pool was created.
    pub report: Report,
}

/// What a pool does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PoolStatus {
    /// It is paused, or its `max_parallelism` is 0: nothing starts.
    Paused,
    /// All slots are taken, and jobs that are due wait.
    Full,
    /// Attempts are running, or jobs are about to start.
    Running,
    /// Nothing runs, and nothing is due.
    Idle,
}

impl PoolStatus {
    /// Returns the word used in JSON and on the dashboard: `paused`, `full`, `running` or `idle`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            PoolStatus::Paused => "paused",
            PoolStatus::Full => "full",
            PoolStatus::Running => "running",
            PoolStatus::Idle => "idle",
        }
    }

    pub(super) fn of(slots: u64, running: u64, is_due: bool) -> PoolStatus {
        match () {
            () if slots == 0 => PoolStatus::Paused,
            () if running >= slots && is_due => PoolStatus::Full,
            () if running > 0 || is_due => PoolStatus::Running,
            () => PoolStatus::Idle,
        }
    }
}

/// An attempt that is running. Made by [`Workpool::running`](crate::Workpool::running).
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RunningWork {
    /// The job's id.
    pub work_id: WorkId,
    /// Its function.
    pub function: Name,
    /// The number of the attempt; the first is 1.
    pub attempt: u32,
    /// The time at which it started.
    #[serde(serialize_with = "millis")]
    pub started: SystemTime,
    /// The last progress that it reported.
    pub progress: Option<Arc<Progress>>,
}
