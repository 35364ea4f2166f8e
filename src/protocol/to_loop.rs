//! Messages to a pool's loop.

use std::time::Duration;

use crate::model::{Name, PoolConfig, Report, RunResult, Segment, WorkId};
use crate::shared::rates::Recent;
use crate::shared::sync::oneshot;
use crate::storage::StorageError;

/// A message to a pool's loop, from any thread.
pub(crate) enum LoopMessage {
    /// Changes the configuration.
    Configure { config: PoolConfig, reply: oneshot::Sender<Result<(), StorageError>> },
    /// Drops a canceled job's attempt if it has not ended after this time.
    Abort { work_id: WorkId, after: Duration },
    /// Asks for the state of the loop.
    Inspect(oneshot::Sender<Inspection>),
    /// Stops further starts. The answer comes when no attempt runs.
    Drain(oneshot::Sender<Drained>),
    /// Ends the grace: running attempts are told, dropped after the notice, and their jobs returned to the queue.
    ReturnRunning { notice: Duration },
    /// Ends the loop.
    Stop,
}

/// The outcomes of the attempts that ended while a loop was draining.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Drained {
    pub finished: u64,
    pub returned: u64,
}

impl Drained {
    pub fn count(&mut self, result: &RunResult) {
        match result {
            RunResult::Returned => self.returned += 1,
            _ => self.finished += 1,
        }
    }
}

/// A pool, as its loop reports it.
#[derive(Debug)]
pub(crate) struct Inspection {
    pub slots: usize,
    pub report: Report,
    #[cfg_attr(not(feature = "ops"), allow(dead_code))]
    pub recent: Recent,
    pub running: Vec<RunningAttempt>,
}

/// A running attempt, as its loop knows it.
#[derive(Debug)]
pub(crate) struct RunningAttempt {
    pub work_id: WorkId,
    pub function: Name,
    pub attempt: u32,
    pub started: Segment,
}
