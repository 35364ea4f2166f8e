//! The guard around user code: a panic is a failed attempt.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::model::{Failure, FailureKind, RunResult};

/// Runs user code; a panic is a failed attempt.
pub(crate) fn guarded(code: impl FnOnce() -> RunResult) -> RunResult {
    match catch_unwind(AssertUnwindSafe(code)) {
        Ok(result) => result,
        Err(panic) => {
            RunResult::Failed(Failure::retryable(FailureKind::Panic, panic_message(&*panic)))
        }
    }
}

/// Returns the message of a panic.
pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(message), _) => (*message).to_owned(),
        (_, Some(message)) => message.clone(),
        _ => "a value that is no text".to_owned(),
    }
}
