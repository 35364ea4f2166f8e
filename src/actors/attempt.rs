//! The obligation to report an attempt.

use std::sync::Arc;

use crate::engine::arrivals::AttemptReport;
use crate::functions::Control;
use crate::model::{Failure, FailureKind, Name, RunResult};
use crate::protocol::Command;

/// The obligation to report one attempt. If it is dropped without a report, it reports the attempt as lost, so that a
/// panic, an arbiter that ends or a leaked future cannot keep a slot occupied.
pub(super) struct Attempt {
    control: Arc<Control>,
}

impl Attempt {
    pub fn new(control: Arc<Control>) -> Attempt {
        Attempt { control }
    }

    pub fn control(&self) -> &Arc<Control> {
        &self.control
    }

    pub fn function(&self) -> Name {
        self.control.spec.function
    }

    pub fn report(&mut self, result: RunResult) -> AttemptReport {
        self.control.set_reported();
        AttemptReport { work_id: self.control.spec.work_id, run: self.control.run, result }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if !self.control.is_reported() && !planted!(WorkerLostSilently) {
            let message = "the worker went away without a report";
            let report =
                self.report(RunResult::Failed(Failure::retryable(FailureKind::Lost, message)));
            // The send fails if the runtime is gone; nobody needs the report then.
            let _ = self.control.lent.client.send(Command::AttemptsFinished(vec![report]));
        }
    }
}

/// The failure of an attempt that exceeded its timeout.
pub(super) fn timed_out(control: &Control) -> Failure {
    let limit = control.spec.timeout().unwrap_or_default();
    Failure::retryable(FailureKind::Timeout, format!("attempt took longer than {limit:?}"))
}
