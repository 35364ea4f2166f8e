//! What a pool is doing.

use std::sync::Arc;

use serde::Serialize;

use crate::model::{Name, Progress, Report, RunStatus, Segment, WorkId};

/// What a pool is doing. Made by [`Workpool::diagnostics`](crate::Workpool::diagnostics).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Diagnostics {
    /// Which pool.
    pub pool: Name,
    /// Jobs that wait for their time or for a slot.
    pub waiting: u64,
    /// Attempts that occupy a slot.
    pub running: u64,
    /// Attempts that finished and were not handled yet.
    pub completing: u64,
    /// Cancelations that were not handled yet.
    pub canceling: u64,
    /// Jobs whose function is not registered in this process.
    pub unregistered: u64,
    /// The names of those functions.
    pub unregistered_names: Vec<Name>,
    /// When the oldest waiting job was or will be due.
    pub oldest_due: Option<Segment>,
    /// How many more attempts could run at once.
    pub spare_capacity: u64,
    /// Whether the loop runs, and what it waits for.
    pub run_status: RunStatus,
    /// The number of the last turn.
    pub turn: u64,
    /// What the pool has done since it was created.
    pub report: Report,
}

/// An attempt that is running. Made by [`Workpool::running`](crate::Workpool::running).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunningWork {
    /// Which job.
    pub work_id: WorkId,
    /// Its function.
    pub function: Name,
    /// Which attempt it is; the first is 1.
    pub attempt: u32,
    /// When it started.
    pub started: Segment,
    /// What it last said.
    pub progress: Option<Arc<Progress>>,
}
