//! The context of a running attempt.

use std::any::type_name;
use std::sync::Arc;

use super::{Control, Stage};
use crate::client::{PoolError, Workpool};
use crate::model::{Name, Progress, WorkId};

/// The context of an attempt: its ids, whether it should stop, and the program's shared values.
///
/// It is cheap to clone and may be sent to other threads.
///
/// ```
/// use actix_workpool::{ActionContext, WorkError};
///
/// async fn download(parts: Vec<String>, cx: ActionContext) -> Result<usize, WorkError> {
///     for done in 0..parts.len() {
///         tokio::select! {
///             () = cx.canceled() => return Err(WorkError::canceled()),
///             () = tokio::task::yield_now() => {} // Download a part.
///         }
///         cx.progress(done as u64 + 1, Some(parts.len() as u64));
///     }
///     println!("job {}, attempt {} of {}", cx.work_id(), cx.attempt(), cx.max_attempts());
///     Ok(parts.len())
/// }
/// ```
#[derive(Clone)]
pub struct ActionContext {
    pub(crate) control: Arc<Control>,
}

impl ActionContext {
    /// Returns the job's id.
    #[must_use]
    pub fn work_id(&self) -> WorkId {
        self.control.spec.work_id
    }

    /// Returns the number of the attempt; the first is 1. An attempt that was snoozed or returned to the queue is
    /// repeated with the same number.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.control.attempt
    }

    /// Returns the maximum number of attempts.
    #[must_use]
    pub fn max_attempts(&self) -> u32 {
        self.control.spec.max_attempts()
    }

    /// Returns the name of the function.
    #[must_use]
    pub fn function(&self) -> Name {
        self.control.spec.function
    }

    /// Returns `true` if the attempt should stop: its job was canceled, or the runtime shuts down.
    ///
    /// To stop, return [`WorkError::canceled`](crate::WorkError::canceled). If the function returns a result instead,
    /// the result counts.
    #[must_use]
    pub fn is_canceled(&self) -> bool {
        self.control.stage() != Stage::Go
    }

    /// Waits until the attempt should stop. Cancel-safe.
    pub async fn canceled(&self) {
        self.control.until(|stage| stage != Stage::Go).await;
    }

    /// Reports the attempt's progress. `status`, `watch` and `running` show it until the next report.
    pub fn progress(&self, done: u64, total: Option<u64>) {
        self.say(Progress { done, total, note: None });
    }

    /// Reports like [`progress`](Self::progress), with a note on the current step.
    pub fn progress_note(&self, done: u64, total: Option<u64>, note: impl Into<String>) {
        self.say(Progress { done, total, note: Some(note.into()) });
    }

    fn say(&self, progress: Progress) {
        let control = &self.control;
        control.lent.client.shared.board.set_progress(control.spec.work_id, control.run, progress);
    }

    /// Returns the value that the program gave to [`RuntimeBuilder::data`](crate::RuntimeBuilder::data).
    ///
    /// # Panics
    /// Panics if no value of this type was given. The job fails at once: no retry would find it.
    /// [`try_data`](Self::try_data) does not panic.
    #[must_use]
    pub fn data<T: Send + Sync + 'static>(&self) -> Arc<T> {
        match self.try_data() {
            Some(data) => data,
            None => {
                self.control.set_hopeless();
                panic!("no {} was given to Runtime::builder().data(..)", type_name::<T>())
            }
        }
    }

    /// Returns the value that the program gave to [`RuntimeBuilder::data`](crate::RuntimeBuilder::data), if it did.
    #[must_use]
    pub fn try_data<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.control.lent.data()
    }

    /// Returns the pool of that name, to enqueue more jobs. These stay enqueued whatever the outcome of this attempt.
    ///
    /// # Errors
    /// Fails if there is no pool of that name.
    pub fn pool(&self, name: &str) -> Result<Workpool, PoolError> {
        Workpool::find(&self.control.lent.client, name)
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
