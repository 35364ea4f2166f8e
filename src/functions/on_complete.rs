//! `on_complete`: code that runs when a job completes.

use std::marker::PhantomData;

use serde::{Serialize, de::DeserializeOwned};

use super::{Transaction, WorkError};
use crate::client::{Enqueue, Function};
use crate::model::{Failure, Name, OnCompleteCall, WorkId, encode};

/// Code that runs when a job completes: inside the completing commit, exactly once per job.
///
/// If it fails or panics, its own effects are rolled back and the job still completes. In the same commit the call is
/// enqueued as a follow-up job of the same name, which is retried.
///
/// ```
/// use actix_workpool::{Completion, CompletionResult, OnComplete, Transaction, WorkError};
///
/// /// Stores the result of a job under a key that the caller has passed.
/// struct Keep;
///
/// impl OnComplete for Keep {
///     const NAME: &'static str = "keep";
///     type Context = String;
///     type Output = u64;
///     fn apply(tx: &mut Transaction<'_>, done: Completion<String, u64>) -> Result<(), WorkError> {
///         match done.result {
///             CompletionResult::Success(number) => tx.put("results", &done.context, &number)?,
///             CompletionResult::Failed(_) | CompletionResult::Canceled => {}
///         }
///         Ok(())
///     }
/// }
/// // pool.enqueue(..).on_complete::<Keep>("key".into()).await?
/// ```
pub trait OnComplete: 'static {
    /// The name under which it is stored with a job. It must differ from the names of all functions.
    const NAME: &'static str;
    /// The type of the value that the caller passes at enqueue.
    type Context: Serialize + DeserializeOwned + 'static;
    /// The output of the function that completed.
    type Output: DeserializeOwned + 'static;

    /// Handles the completion.
    ///
    /// # Errors
    /// An error makes it fail, as described above.
    fn apply(
        tx: &mut Transaction<'_>,
        done: Completion<Self::Context, Self::Output>,
    ) -> Result<(), WorkError>;
}

/// A completed job, the input of its [`OnComplete`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Completion<C, O> {
    /// The job's id.
    pub work_id: WorkId,
    /// The value that was passed at enqueue.
    pub context: C,
    /// The outcome.
    pub result: CompletionResult<O>,
    /// The number of attempts that counted.
    pub attempts: u32,
}

/// The outcome of a job, with its result decoded.
#[derive(Clone, Debug, PartialEq)]
pub enum CompletionResult<O> {
    /// The function succeeded.
    Success(O),
    /// The last attempt failed and no retry follows.
    Failed(Failure),
    /// The job was canceled.
    Canceled,
}

impl<O> CompletionResult<O> {
    /// Returns the output, if the job succeeded.
    pub fn success(self) -> Option<O> {
        match self {
            CompletionResult::Success(output) => Some(output),
            _ => None,
        }
    }
}

/// The message that [`Enqueue::notify`](crate::Enqueue::notify) sends to an actor when the job completes.
///
/// `F` is the function's type, so that an actor can tell the messages of several functions apart. The message is sent
/// once, by this process only: none is sent for a job that completes after a restart. Use an [`OnComplete`] if no
/// completion may be missed.
#[non_exhaustive]
pub struct Completed<F, O> {
    /// The job's id.
    pub work_id: WorkId,
    /// The outcome; a result that does not decode counts as failed.
    pub result: CompletionResult<O>,
    /// The number of attempts that counted.
    pub attempts: u32,
    pub(crate) function: PhantomData<fn() -> F>,
}

impl<F, O: std::fmt::Debug> std::fmt::Debug for Completed<F, O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Completed")
            .field("work_id", &self.work_id)
            .field("result", &self.result)
            .field("attempts", &self.attempts)
            .finish()
    }
}

impl<T, F: Function<K>, K> Enqueue<T, F, K> {
    /// Runs `C` in the commit that completes the job, with this context.
    pub fn on_complete<C: OnComplete<Output = F::Output>>(mut self, context: C::Context) -> Self {
        let call = encode(&context)
            .map(|context| OnCompleteCall { name: Name::from_static(C::NAME), context });
        self.options.on_complete = Some(call);
        self
    }
}
