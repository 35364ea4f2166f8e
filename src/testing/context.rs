//! An [`ActionContext`] for unit tests of a function.

use std::any::TypeId;
use std::sync::{Arc, OnceLock};

use crate::client::Client;
use crate::engine::Launch;
use crate::functions::{ActionContext, Control, Data, Lent, Stage};
use crate::model::{
    FunctionKind, MAX_PAYLOAD_BYTES, Name, PoolId, Priority, Progress, Retention, RetryBehavior,
    Segment, Spec, SpecHead, SpecOptions, WorkId,
};
use crate::shared::{Catalog, Seams, Shared, SystemClock};

/// The context of an attempt that no pool runs, to call a function directly.
///
/// It has no pools: `cx.pool(..)` fails. To test functions that enqueue, or mutations, use a
/// [`TestRuntime`](super::TestRuntime).
///
/// ```
/// use actix_workpool::testing::TestContext;
/// use actix_workpool::{Action, ActionContext, WorkError};
/// use serde::{Deserialize, Serialize};
///
/// struct Mailer { sender: String }
///
/// #[derive(Serialize, Deserialize)]
/// struct SendEmail { to: String }
///
/// impl Action for SendEmail {
///     const NAME: &'static str = "send_email";
///     type Output = String;
///     async fn run(self, cx: ActionContext) -> Result<String, WorkError> {
///         cx.progress(1, Some(2));
///         let mailer = cx.data::<Mailer>();
///         match cx.attempt() {
///             1 => Err(WorkError::retryable("the server is busy")),
///             _ => Ok(format!("from {} to {}", mailer.sender, self.to)),
///         }
///     }
/// }
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
/// # runtime.block_on(async {
/// let test = TestContext::new().attempt(2).data(Mailer { sender: "us".into() });
/// let sent = SendEmail { to: "you".into() }.run(test.context()).await;
/// assert_eq!(sent.unwrap(), "from us to you");
/// assert_eq!(test.progress().unwrap().done, 1);
/// # });
/// ```
pub struct TestContext {
    attempt: u32,
    max_attempts: u32,
    work_id: WorkId,
    data: Data,
    control: OnceLock<Arc<Control>>,
}

impl std::fmt::Debug for TestContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TestContext").field("attempt", &self.attempt).finish_non_exhaustive()
    }
}

impl Default for TestContext {
    fn default() -> TestContext {
        TestContext::new()
    }
}

/// The number of the only run.
const RUN: u32 = 1;

impl TestContext {
    /// Makes the context of a first attempt, of one, of a job with a random id.
    #[must_use]
    pub fn new() -> TestContext {
        TestContext {
            attempt: 1,
            max_attempts: 1,
            work_id: WorkId::random(),
            data: Data::new(),
            control: OnceLock::new(),
        }
    }

    /// Sets the number of the attempt; the first is 1. Raises `max_attempts` to it.
    #[must_use]
    pub fn attempt(mut self, attempt: u32) -> TestContext {
        self.attempt = attempt.max(1);
        self.max_attempts = self.max_attempts.max(self.attempt);
        self
    }

    /// Sets the maximum number of attempts.
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> TestContext {
        self.max_attempts = attempts.max(self.attempt);
        self
    }

    /// Sets the job's id.
    #[must_use]
    pub fn work_id(mut self, work_id: WorkId) -> TestContext {
        self.work_id = work_id;
        self
    }

    /// Adds a value for [`ActionContext::data`]. There is one of each type; a second one replaces the first.
    #[must_use]
    pub fn data<T: Send + Sync + 'static>(mut self, value: T) -> TestContext {
        self.data.insert(TypeId::of::<T>(), Arc::new(value));
        self
    }

    /// Returns the context. Every call returns the same one.
    #[must_use]
    pub fn context(&self) -> ActionContext {
        ActionContext { control: self.control().clone() }
    }

    /// Cancels the job: `is_canceled` is `true` from now on, and `canceled` returns.
    pub fn cancel(&self) {
        self.control().raise(Stage::Canceled);
    }

    /// Returns the last progress that the function has reported.
    #[must_use]
    pub fn progress(&self) -> Option<Progress> {
        let progress = self.control().lent.client.shared.board.progress_of(self.work_id)?;
        Some((*progress).clone())
    }

    fn control(&self) -> &Arc<Control> {
        self.control.get_or_init(|| {
            let seams = Seams::new(Arc::new(SystemClock::new()), None);
            let shared = Shared::new(Catalog::default(), seams, Retention::default(), "");
            let now = shared.seams.segment();
            shared.board.set_running(self.work_id, RUN, self.attempt - 1, now);
            let client = Client::new(Arc::new(shared), Vec::new());
            let launch = Launch { spec: self.spec(now), attempt: self.attempt, run: RUN, due: now };
            let lent = Arc::new(Lent::new(client, self.data.clone()));
            Arc::new(Control::new(launch, MAX_PAYLOAD_BYTES, lent))
        })
    }

    fn spec(&self, now: Segment) -> Spec {
        let retry = RetryBehavior::default().max_attempts(self.max_attempts);
        let options = SpecOptions { retry: Some(retry), ..SpecOptions::default() };
        Spec::new(
            self.work_id,
            SpecHead {
                pool: PoolId::default(),
                kind: FunctionKind::Action,
                function: Name::from_static("test"),
                enqueued_at: now,
                priority: Priority::NORMAL,
                options: Some(Box::new(options)),
            },
            b"null",
        )
    }
}
