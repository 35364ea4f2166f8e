//! The data types: jobs, the tables that hold them, and every write that can be made to these.
//!
//! Nothing here decides, waits, stores or sends. Every folder may import the model; the model imports none.

mod batch;
mod bytes;
mod change;
mod config;
mod config_error;
mod cron;
mod cron_error;
mod cron_fields;
mod every;
mod finished;
mod history;
mod ids;
mod json;
mod key;
mod millis;
mod name;
mod outcome;
mod page;
mod payload;
mod priority;
mod rate;
mod retry;
mod schedule;
mod segment;
mod state;
mod status;
mod strict;
mod unique;
mod work;

pub use batch::{Batch, CancelationRow, Claimed, CompletionRow, Demand, RunningRow, StartRow};
pub use bytes::Bytes;
pub use change::{Change, Counts, StateRow};
pub(crate) use change::{NewKey, PendingTable};
pub use config::{
    LogLevel, MAX_DELAY, MAX_PARALLELISM, MAX_PAYLOAD_BYTES, PoolConfig, Retention, Settings,
};
pub use config_error::ConfigError;
pub use cron::Cron;
pub use cron_error::CronError;
pub use every::{Every, EveryError};
pub use finished::{Finished, FinishedDetails, FinishedWork};
pub(crate) use history::cut;
pub use history::{FailedAttempt, History};
pub use ids::{Epoch, Generation, PoolId, RunNumber, Turn, WorkId};
pub(crate) use json::{decode, encode, encode_typed, write_typed};
pub(crate) use key::MAX_WEIGHT;
pub use key::{KeyRule, LanePlace, LaneRow, WorkKey};
pub(crate) use millis::millis;
pub(crate) use name::validate_name;
pub use name::{Name, TableKey};
pub use outcome::{Failure, FailureKind, Outcome, RunResult};
pub use page::{Cursor, ListedWork, OutcomeKind, WorkFilter, WorkPage};
pub(crate) use page::{Listed, Place};
pub use payload::Payload;
pub use priority::Priority;
pub use rate::Rate;
pub use retry::{Retry, RetryBehavior, RetryPolicy};
pub use schedule::{CatchUp, Overlap};
pub(crate) use schedule::{Recurrence, SCHEDULES, ScheduleRow, Zone};
pub use segment::{Key, Segment, StartKey, StartPlace};
pub use state::{Cursors, InternalState, Report, RunStatus, Running};
pub use status::{Progress, WorkStatus};
pub(crate) use strict::write;
#[cfg(any(feature = "unstable-storage", feature = "redb"))]
pub use unique::UniqueKey;
pub use unique::{Conflict, Unique, UniqueHold, UniquePlace, UniqueRow};
pub use work::{FunctionKind, OnCompleteCall, SpanLink, Spec, SpecHead, SpecOptions, WorkFact};
