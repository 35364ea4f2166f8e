//! Rest: the state of a loop that has nothing to do, and what wakes it.
//!
//! ```text
//!              a turn had nothing to decide
//!   Running ─────────────────────────────────► Scheduled   something is due later, or all slots are taken
//!      ▲  └──────────────────────────────────► Idle        nothing is pending
//!      └── kick · timer · configure · watchdog ◄┘
//! ```

use crate::model::{InternalState, RunStatus, Segment};

/// The reason to wake the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KickSource {
    /// Jobs were enqueued.
    Enqueue,
    /// Attempts finished.
    Completion,
    /// Jobs were canceled.
    Cancelation,
    /// The next job is due.
    Timer,
    /// The configuration changed.
    Configure,
    /// No progress was made for too long.
    Watchdog,
}

impl KickSource {
    /// Returns `true` if this wakes a resting loop. While all slots are taken (`saturated`), new or due jobs do not
    /// wake it, since they cannot start.
    #[must_use]
    pub fn wakes(self, saturated: bool) -> bool {
        !(saturated && matches!(self, KickSource::Enqueue | KickSource::Timer))
    }
}

/// Returns the status in which the loop rests after a turn that had nothing to decide. While the rate admits no start,
/// the store does not wake it for jobs: it looks again when the rate does.
#[must_use]
pub fn rest(state: &InternalState, next_due: Option<Segment>, max_parallelism: usize) -> RunStatus {
    let generation = state.generation;
    let saturated = state.running.len() >= max_parallelism;
    let limited = Some(state.limited_until).filter(|until| *until > Segment::default());
    match limited.or(next_due) {
        Some(segment) => RunStatus::Scheduled { segment, saturated, generation },
        None if saturated && !state.running.is_empty() => {
            RunStatus::Scheduled { segment: Segment::UNREGISTERED, saturated, generation }
        }
        None => RunStatus::Idle { generation },
    }
}
