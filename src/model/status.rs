//! Where a job is in its life.

use std::sync::Arc;

use serde::Serialize;

use super::{Finished, Segment};

/// How far an attempt is, as it says itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// How much is done, in units of the function's choice.
    pub done: u64,
    /// How much there is, if that is known.
    pub total: Option<u64>,
    /// What it is at.
    pub note: Option<String>,
}

/// Where a job is in its life.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum WorkStatus {
    /// It waits for its time or for a slot.
    Pending {
        /// How many attempts counted before.
        previous_attempts: u32,
        /// Before when it is not started; `None` while that is not settled, or if its function is not registered here.
        due: Option<Segment>,
    },
    /// An attempt is running.
    Running {
        /// How many attempts counted before this one.
        previous_attempts: u32,
        /// When it started.
        started: Segment,
        /// What it last said.
        progress: Option<Arc<Progress>>,
    },
    /// It has an outcome.
    Finished(#[serde(serialize_with = "finished_fields")] Arc<Finished>),
    /// No job of this id was ever enqueued here, or its outcome is forgotten.
    Unknown,
}

fn finished_fields<S: serde::Serializer>(row: &Finished, serializer: S) -> Result<S::Ok, S::Error> {
    row.serialize(serializer)
}

impl WorkStatus {
    /// Whether nothing will change any more.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, WorkStatus::Finished(_) | WorkStatus::Unknown)
    }
}
