//! What a running attempt knows and can do.

use std::any::{TypeId, type_name};
use std::sync::Arc;

use crate::board::Progress;
use crate::engine::Launch;
use crate::error::PoolError;
use crate::model::{Name, RunNumber, Spec, WorkId};
use crate::pool::Workpool;
use crate::shared::Shared;
use crate::sync::Notify;
use crate::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

/// How urgently an attempt is asked to end. Only ever raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Stage {
    /// Nobody asked.
    Go = 0,
    /// The runtime shuts down: end soon, or be handed back.
    ShuttingDown = 1,
    /// The work was canceled: the function is told, and may end when it likes.
    Canceled = 2,
    /// Drop it now; the work is canceled.
    AbortCanceled = 3,
    /// Drop it now; its time is up.
    AbortTimeout = 4,
    /// Drop it now; the work goes back to the store, uncharged.
    AbortHandBack = 5,
}

impl Stage {
    fn from_u8(stage: u8) -> Stage {
        match stage {
            0 => Stage::Go,
            1 => Stage::ShuttingDown,
            2 => Stage::Canceled,
            3 => Stage::AbortCanceled,
            4 => Stage::AbortTimeout,
            _ => Stage::AbortHandBack,
        }
    }

    pub fn is_abort(self) -> bool {
        self >= Stage::AbortCanceled
    }
}

/// One attempt, as the loop, its worker and its function share it.
///
/// `stage` is written by the loop and read by the worker and the function; everything else never changes.
pub(crate) struct Control {
    pub spec: Arc<Spec>,
    pub attempt: u32,
    pub run: RunNumber,
    /// How large the result may be.
    pub max_result_bytes: usize,
    pub shared: Arc<Shared>,
    stage: AtomicU8,
    /// Which worker host has it; written once, when it is handed over.
    host: AtomicUsize,
    /// Set when the duty to report is done or has gone to the store.
    reported: AtomicBool,
    changed: Notify,
}

impl Control {
    pub fn new(launch: Launch, max_result_bytes: usize, shared: Arc<Shared>) -> Control {
        let Launch { spec, attempt, run, due: _ } = launch;
        let stage = AtomicU8::new(Stage::Go as u8);
        let (host, reported) = (AtomicUsize::new(0), AtomicBool::new(false));
        Control {
            spec,
            attempt,
            run,
            max_result_bytes,
            shared,
            stage,
            host,
            reported,
            changed: Notify::new(),
        }
    }

    pub fn stage(&self) -> Stage {
        Stage::from_u8(self.stage.load(Ordering::SeqCst))
    }

    /// Whether it may begin: nobody has told it to end, and no cancel of its work was answered.
    pub fn may_begin(&self) -> bool {
        // In this order: the loop tells the attempt first, and then the board no longer holds the start.
        !self.shared.board.is_canceling(self.spec.work_id) && self.stage() == Stage::Go
    }

    pub fn is_reported(&self) -> bool {
        self.reported.load(Ordering::SeqCst)
    }

    /// Says whether it was not set before.
    pub fn set_reported(&self) -> bool {
        !self.reported.swap(true, Ordering::SeqCst)
    }

    pub fn host(&self) -> usize {
        self.host.load(Ordering::Relaxed)
    }

    pub fn set_host(&self, host: usize) {
        self.host.store(host, Ordering::Relaxed);
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
            // Registered before the look, so that no change falls between the two.
            changed.as_mut().enable();
            let stage = self.stage();
            if reached(stage) {
                return stage;
            }
            changed.await;
        }
    }
}

/// Given to every attempt: who it is, whether it should stop, what the program lent it.
///
/// It is cheap to clone and may be sent to other threads.
#[derive(Clone)]
pub struct ActionContext {
    pub(crate) control: Arc<Control>,
}

impl ActionContext {
    /// Which work this is.
    #[must_use]
    pub fn work_id(&self) -> WorkId {
        self.control.spec.work_id
    }

    /// Which attempt this is; the first is 1. An attempt that was snoozed or handed back is made again under its
    /// number.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.control.attempt
    }

    /// How many attempts there may be.
    #[must_use]
    pub fn max_attempts(&self) -> u32 {
        self.control.spec.max_attempts()
    }

    /// The name of the function.
    #[must_use]
    pub fn function(&self) -> Name {
        self.control.spec.function
    }

    /// Whether the attempt should stop: its work was canceled, or the runtime shuts down.
    ///
    /// Stop by returning [`WorkError::canceled`](crate::WorkError::canceled). A result that is returned all the same
    /// counts.
    #[must_use]
    pub fn is_canceled(&self) -> bool {
        self.control.stage() != Stage::Go
    }

    /// Waits until the attempt should stop. Cancel-safe.
    pub async fn canceled(&self) {
        self.control.until(|stage| stage != Stage::Go).await;
    }

    /// Says how far the attempt is. Shown by `status`, `watch` and `running` until it says something else.
    pub fn progress(&self, done: u64, total: Option<u64>) {
        self.say(Progress { done, total, note: None });
    }

    /// As [`progress`](Self::progress), with a word on what it is at.
    pub fn progress_note(&self, done: u64, total: Option<u64>, note: impl Into<String>) {
        self.say(Progress { done, total, note: Some(note.into()) });
    }

    fn say(&self, progress: Progress) {
        let control = &self.control;
        control.shared.board.set_progress(control.spec.work_id, control.run, progress);
    }

    /// What the program gave to [`RuntimeBuilder::data`](crate::RuntimeBuilder::data).
    ///
    /// # Panics
    /// When no value of this type was given; the attempt fails and says so. [`try_data`](Self::try_data) does not.
    #[must_use]
    pub fn data<T: Send + Sync + 'static>(&self) -> Arc<T> {
        match self.try_data() {
            Some(data) => data,
            None => panic!("no {} was given to Runtime::builder().data(..)", type_name::<T>()),
        }
    }

    /// What the program gave to [`RuntimeBuilder::data`](crate::RuntimeBuilder::data), if it did.
    #[must_use]
    pub fn try_data<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.control.shared.data.get(&TypeId::of::<T>())?.clone().downcast().ok()
    }

    /// The pool of that name, to spawn more work. What is enqueued there stays, whatever becomes of this attempt.
    ///
    /// # Errors
    /// When there is no pool of that name.
    pub fn pool(&self, name: &str) -> Result<Workpool, PoolError> {
        Workpool::find(&self.control.shared, name)
    }
}

impl std::fmt::Debug for ActionContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ActionContext")
            .field("work_id", &self.work_id())
            .field("function", &self.function())
            .field("attempt", &self.attempt())
            .finish_non_exhaustive()
    }
}
