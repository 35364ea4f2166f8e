//! Actions: functions with side effects outside the store.

use std::future::Future;
use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};

use super::{ActionContext, WorkError};
use crate::model::RetryPolicy;

/// A function with side effects outside the store: it sends a mail, calls a service, writes a file.
///
/// The value itself is the argument: it is stored as JSON until a slot is free. Without a retry policy an action runs
/// at most once; with one it runs at least once and at most `max_attempts` times, also across crashes.
///
/// The future runs on one thread and need not be `Send`. It is dropped at an await point when its attempt is aborted
/// or times out; the values that it holds should clean up when dropped.
///
/// ```
/// use actix_workpool::{Action, ActionContext, WorkError};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Greet { name: String }
///
/// impl Action for Greet {
///     const NAME: &'static str = "greet";
///     type Output = String;
///     async fn run(self, _: ActionContext) -> Result<String, WorkError> {
///         Ok(format!("hello {}", self.name))
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an `Action`",
    note = "register other functions with `.blocking_action::<..>()`, `.mutation::<..>()`, `.query::<..>()` or `.on_complete::<..>()`",
    note = "an `Action` also implements `Serialize` and `DeserializeOwned`: derive both with serde"
)]
pub trait Action: Serialize + DeserializeOwned + 'static {
    /// The name under which jobs of this function are stored. Never reuse a name for another function.
    const NAME: &'static str;
    /// The retry policy of this function.
    const RETRY: RetryPolicy = RetryPolicy::Inherit;
    /// The time that an attempt may take; `None` for the pool's timeout.
    const TIMEOUT: Option<Duration> = None;
    /// The type of the result, kept as JSON.
    type Output: Serialize + DeserializeOwned + 'static;

    /// Makes one attempt.
    fn run(self, cx: ActionContext) -> impl Future<Output = Result<Self::Output, WorkError>>;
}

/// An action that keeps its thread busy: it hashes, compresses, or uses blocking I/O.
///
/// It runs on a thread for blocking actions. It cannot be dropped while it runs: if it is aborted or times out, it is
/// abandoned, its slot is freed, and its result is refused. A long action should check [`ActionContext::is_canceled`]
/// now and then.
///
/// ```
/// use actix_workpool::{ActionContext, BlockingAction, WorkError};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct CountLines { path: String }
///
/// impl BlockingAction for CountLines {
///     const NAME: &'static str = "count_lines";
///     type Output = usize;
///     fn run(self, _: &ActionContext) -> Result<usize, WorkError> {
///         Ok(std::fs::read_to_string(&self.path)?.lines().count())
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a `BlockingAction`",
    note = "register an async one with `.action::<..>()`"
)]
pub trait BlockingAction: Serialize + DeserializeOwned + Send + 'static {
    /// See [`Action::NAME`].
    const NAME: &'static str;
    /// See [`Action::RETRY`].
    const RETRY: RetryPolicy = RetryPolicy::Inherit;
    /// See [`Action::TIMEOUT`].
    const TIMEOUT: Option<Duration> = None;
    /// See [`Action::Output`].
    type Output: Serialize + DeserializeOwned + Send + 'static;

    /// Makes one attempt.
    ///
    /// # Errors
    /// An error makes the attempt fail.
    fn run(self, cx: &ActionContext) -> Result<Self::Output, WorkError>;
}

function!(OfAction, Action, Action, "action::<..>()");

function!(OfBlocking, BlockingAction, Action, "blocking_action::<..>()");
