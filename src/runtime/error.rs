//! The errors of starting a runtime.

use crate::actors::RingError;
use crate::client::ScheduleError;
use crate::model::{ConfigError, Name};
use crate::storage::StorageError;

/// The reason why a runtime did not start. Nothing is left running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Two functions have the same name.
    #[error("function {0} is registered twice")]
    DuplicateFunction(Name),
    /// Two pools have the same name.
    #[error("pool {0} is configured twice")]
    DuplicatePool(Name),
    /// A value is out of range.
    #[error("pool {pool}: {error}")]
    Config {
        /// The pool with this value.
        pool: Name,
        /// The error.
        error: ConfigError,
    },
    /// Two schedules have the same id.
    #[error("schedule {0} is given twice")]
    DuplicateSchedule(Name),
    /// A schedule cannot run.
    #[error("schedule {schedule}: {error}")]
    Schedule {
        /// The schedule.
        schedule: Name,
        /// The error.
        error: ScheduleError,
    },
    /// A function's own defaults are out of range.
    #[error("function {function}: {error}")]
    Function {
        /// The function.
        function: Name,
        /// The error.
        error: ConfigError,
    },
    /// The storage could not be opened.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A thread could not be started.
    #[error("failed to start a thread: {0}")]
    Thread(#[from] std::io::Error),
    /// The actix system stopped while the runtime was starting.
    #[error("the actix system stopped while the runtime was starting")]
    Closed,
}

impl From<RingError> for StartError {
    fn from(error: RingError) -> StartError {
        match error {
            RingError::Storage(error) => StartError::Storage(error),
            RingError::Thread(error) => StartError::Thread(error),
            RingError::Closed => StartError::Closed,
        }
    }
}
