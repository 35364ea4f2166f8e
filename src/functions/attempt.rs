//! The control block of one attempt, shared by its loop, its worker and its function.

use std::sync::Arc;

use super::Lent;
use crate::engine::Launch;
use crate::model::{RunNumber, Spec};
use crate::shared::sync::Notify;
use crate::shared::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// The urgency with which an attempt is asked to end. It is only ever raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Stage {
    /// The attempt is not asked to end.
    Go = 0,
    /// The runtime shuts down: the attempt ends soon, or its job is returned to the queue.
    ShuttingDown = 1,
    /// The job was canceled: the function is told, and may stop at any time.
    Canceled = 2,
    /// The attempt is dropped now; the job is canceled.
    AbortCanceled = 3,
    /// The attempt is dropped now; its time is up.
    AbortTimeout = 4,
    /// The attempt is dropped now; the job is returned to the queue without using an attempt.
    AbortReturn = 5,
}

impl Stage {
    fn from_u8(stage: u8) -> Stage {
        match stage {
            0 => Stage::Go,
            1 => Stage::ShuttingDown,
            2 => Stage::Canceled,
            3 => Stage::AbortCanceled,
            4 => Stage::AbortTimeout,
            _ => Stage::AbortReturn,
        }
    }

    pub fn is_abort(self) -> bool {
        self >= Stage::AbortCanceled
    }
}

/// The control block of one attempt, shared by the loop, its worker and its function.
///
/// The loop writes `stage`; the worker and the function read it.
pub(crate) struct Control {
    pub spec: Spec,
    pub attempt: u32,
    pub run: RunNumber,
    /// The maximum size of the result, in bytes.
    pub max_result_bytes: usize,
    pub lent: Arc<Lent>,
    stage: AtomicU8,
    /// Set when the attempt was reported, or the store has taken over the report.
    reported: AtomicBool,
    /// Set when the program lacks a value that the function needs, so that a retry would fail too.
    hopeless: AtomicBool,
    changed: Notify,
}

impl Control {
    pub fn new(launch: Launch, max_result_bytes: usize, lent: Arc<Lent>) -> Control {
        let Launch { spec, attempt, run, due: _ } = launch;
        let stage = AtomicU8::new(Stage::Go as u8);
        let reported = AtomicBool::new(false);
        Control {
            spec,
            attempt,
            run,
            max_result_bytes,
            lent,
            stage,
            reported,
            hopeless: AtomicBool::new(false),
            changed: Notify::new(),
        }
    }

    pub fn stage(&self) -> Stage {
        Stage::from_u8(self.stage.load(Ordering::SeqCst))
    }

    /// Returns `true` if the attempt may begin: it was not told to end, and no cancel of its job was answered.
    pub fn may_begin(&self) -> bool {
        // The board is checked first: the loop raises the stage before the board forgets the cancel.
        !self.lent.client.shared.board.is_canceling(self.spec.work_id) && self.stage() == Stage::Go
    }

    pub fn is_reported(&self) -> bool {
        self.reported.load(Ordering::SeqCst)
    }

    /// Marks the attempt as reported. Returns `true` if it was not marked before.
    pub fn set_reported(&self) -> bool {
        !self.reported.swap(true, Ordering::SeqCst)
    }

    /// Marks the failure of this attempt as permanent: a retry would fail too.
    pub fn set_hopeless(&self) {
        self.hopeless.store(true, Ordering::SeqCst);
    }

    pub fn is_hopeless(&self) -> bool {
        self.hopeless.load(Ordering::SeqCst)
    }

    pub fn raise(&self, stage: Stage) {
        self.stage.fetch_max(stage as u8, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    /// Waits until `reached` holds for the stage.
    pub async fn until(&self, reached: impl Fn(Stage) -> bool) -> Stage {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered before the check, so that no change falls between the two.
            changed.as_mut().enable();
            let stage = self.stage();
            if reached(stage) {
                return stage;
            }
            changed.await;
        }
    }
}
