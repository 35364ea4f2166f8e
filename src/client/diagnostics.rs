//! Diagnostics of a pool.

use std::sync::Arc;

use serde::Serialize;

use crate::model::{Name, Progress, Report, RunStatus, Segment, WorkId};

/// The state of a pool, in numbers. Made by [`Workpool::diagnostics`](crate::Workpool::diagnostics).
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
    pub oldest_due: Option<Segment>,
    /// The number of free slots.
    pub spare_capacity: u64,
    /// The state of the loop: running, or the reason why it rests.
    pub run_status: RunStatus,
    /// The number of the last turn.
    pub turn: u64,
    /// Totals since the pool was created.
    pub report: Report,
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
    pub started: Segment,
    /// The last progress that it reported.
    pub progress: Option<Arc<Progress>>,
}
