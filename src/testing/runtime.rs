//! A runtime for tests, on the test's own thread and clock.

use std::future::Future;
use std::ops::Deref;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use serde::de::{DeserializeOwned, IgnoredAny};

use crate::actors;
use crate::client::{PoolError, PoolStatus, WorkHandle};
use crate::model::{Name, PoolConfig, Segment, WorkFilter, WorkId, WorkStatus, decode};
use crate::runtime::{Runtime, RuntimeBuilder, StartError};

/// Runs a test in an actix system of its own, on a clock that stands still.
///
/// Time passes only when everybody waits: a sleep of an hour returns at once, and the clock shows an hour later. Inside
/// `#[actix::test]` and `#[actix_web::test]` call `tokio::time::pause()` instead.
///
/// # Panics
/// Panics if the test panics, or no runtime can be made.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    actors::run_paused(test)
}

/// A runtime for tests. It derefs to [`Runtime`].
///
/// Store, loops and functions run on the test's own thread, in turn with the test, and on its clock: under
/// [`testing::run`](run) a retry that is due in an hour costs no time. Use the memory store, which is the default: while
/// a file works on its own thread, the clock would go on. The same is true of real I/O in functions.
///
/// ```
/// use std::time::Duration;
///
/// use actix_workpool::testing::{self, TestRuntime};
/// use actix_workpool::{Action, ActionContext, PoolConfig, RetryBehavior, Runtime, WorkError};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, PartialEq, Serialize, Deserialize)]
/// struct SendEmail { to: String }
///
/// impl Action for SendEmail {
///     const NAME: &'static str = "send_email";
///     type Output = u32;
///     async fn run(self, cx: ActionContext) -> Result<u32, WorkError> {
///         match cx.attempt() {
///             1 => Err(WorkError::retryable("the server is busy")),
///             attempt => Ok(attempt),
///         }
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// testing::run(async {
///     let retry = RetryBehavior::default().initial_backoff(Duration::from_secs(60));
///     let pool = PoolConfig::default().default_retry(retry);
///     let builder = Runtime::builder().action::<SendEmail>().pool("mail", pool);
///     let test = TestRuntime::manual(builder).await?;
///
///     // Code under test gets a pool or the runtime, as usual.
///     let work = test.pool("mail")?.enqueue(SendEmail { to: "ada".into() }).await?;
///
///     let enqueued = test.enqueued::<SendEmail>(SendEmail::NAME).await?;
///     assert_eq!(enqueued[0].args, SendEmail { to: "ada".into() });
///     assert_eq!(enqueued[0].max_attempts, 5);
///
///     test.run_until_idle().await?; // The first attempt fails, and a retry waits.
///     assert!(!work.status().await?.is_final());
///     test.run_all().await?; // Time passes until the retry.
///     assert_eq!(work.join().await?, 2);
/// #   test.shutdown(Duration::ZERO).await;
///     Ok(())
/// })
/// # }
/// ```
#[derive(Debug)]
pub struct TestRuntime {
    runtime: Runtime,
    /// `true` if jobs run only when that is asked for.
    is_manual: bool,
}

/// A job that waits, as [`TestRuntime::enqueued`] finds it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct EnqueuedWork<F> {
    /// The job's id.
    pub work_id: WorkId,
    /// Its pool.
    pub pool: Name,
    /// Its arguments.
    pub args: F,
    /// The time before which it is not started; `None` if its function is not registered.
    pub due: Option<SystemTime>,
    /// The number of attempts that have counted.
    pub attempts: u32,
    /// The maximum number of attempts.
    pub max_attempts: u32,
    /// The name of its `on_complete`.
    pub on_complete: Option<Name>,
}

impl Deref for TestRuntime {
    type Target = Runtime;

    fn deref(&self) -> &Runtime {
        &self.runtime
    }
}

impl TestRuntime {
    /// Starts a runtime that runs jobs when they are due, as in production.
    ///
    /// # Errors
    /// See [`RuntimeBuilder::start`].
    ///
    /// # Panics
    /// Panics outside of an actix system: use [`testing::run`](run), `#[actix::test]` or `#[actix_web::test]`.
    pub async fn start(builder: RuntimeBuilder) -> Result<TestRuntime, StartError> {
        TestRuntime::of(builder, false).await
    }

    /// Starts a runtime that runs jobs only within [`run_until_idle`](Self::run_until_idle) and
    /// [`run_all`](Self::run_all): see what is enqueued before it runs.
    ///
    /// # Errors
    /// See [`RuntimeBuilder::start`].
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn manual(builder: RuntimeBuilder) -> Result<TestRuntime, StartError> {
        TestRuntime::of(builder, true).await
    }

    /// Starts a runtime whose enqueues return only when the jobs have their outcome, retries included. Code that
    /// enqueues and goes on can so be tested in a straight line.
    ///
    /// Jobs that are due later or wait in a paused pool are not awaited, and neither are those that functions enqueue or
    /// that [`Workpool::do_enqueue`](crate::Workpool::do_enqueue) sends.
    ///
    /// # Errors
    /// See [`RuntimeBuilder::start`].
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn inline(builder: RuntimeBuilder) -> Result<TestRuntime, StartError> {
        let mut test = TestRuntime::of(builder, false).await?;
        test.runtime = test.runtime.inline();
        Ok(test)
    }

    async fn of(builder: RuntimeBuilder, is_manual: bool) -> Result<TestRuntime, StartError> {
        actors::assert_in_a_system();
        let runtime = builder.worker_arbiters(0).for_test(is_manual).start().await?;
        Ok(TestRuntime { runtime, is_manual })
    }

    /// Lets time pass, and everything happen that is due meanwhile, in order.
    ///
    /// It takes up to two milliseconds more, because timers and the pool's clock count whole ones.
    pub async fn advance(&self, time: Duration) {
        tokio::time::sleep(time).await;
        // What is due at the end is due within the next millisecond, and happens before the one after it.
        settle().await;
        settle().await;
    }

    /// Runs jobs until nothing runs and nothing is due. Time passes only for running functions that wait; jobs and
    /// retries that are due later stay where they are. Paused pools run nothing.
    ///
    /// # Errors
    /// Fails if the runtime is gone or the storage failed.
    pub async fn run_until_idle(&self) -> Result<(), PoolError> {
        self.run(false).await
    }

    /// Runs jobs until every job has its outcome. Time passes until the last of them is due. Jobs of paused pools and of
    /// functions that are not registered stay. It does not end while a job snoozes again and again.
    ///
    /// # Errors
    /// Fails if the runtime is gone or the storage failed.
    pub async fn run_all(&self) -> Result<(), PoolError> {
        self.run(true).await
    }

    /// Returns the jobs of a function that wait to start, in all pools, in the order in which they are due.
    ///
    /// `function` is its name ([`Action::NAME`](crate::Action::NAME)), and `F` decodes its arguments, such as the
    /// function's own type.
    ///
    /// # Errors
    /// Fails if the runtime is gone or the storage failed.
    ///
    /// # Panics
    /// Panics if the arguments do not decode into `F`.
    pub async fn enqueued<F: DeserializeOwned>(
        &self,
        function: &str,
    ) -> Result<Vec<EnqueuedWork<F>>, PoolError> {
        let first = || WorkFilter::pending().function(function).limit(WorkFilter::MOST);
        let (mut found, mut filter) = (Vec::new(), first());
        loop {
            let page = self.works(filter).await?;
            for work in page.works {
                let explained = self.explain(work.work_id).await?;
                if !explained.is_waiting() {
                    continue;
                }
                let args = decode(work.args().unwrap_or(b"null")).unwrap_or_else(|failure| {
                    panic!("job {} ({function}): {failure}", work.work_id)
                });
                found.push(EnqueuedWork {
                    work_id: work.work_id,
                    pool: work.pool,
                    args,
                    due: explained.due,
                    attempts: explained.attempts,
                    max_attempts: explained.max_attempts,
                    on_complete: explained.on_complete,
                });
            }
            match page.next {
                Some(next) => filter = first().after(next)?,
                None => return Ok(found),
            }
        }
    }

    async fn run(&self, all: bool) -> Result<(), PoolError> {
        let _held_again = self.release().await?;
        loop {
            settle().await;
            let (mut running, mut next) = (Vec::new(), None::<SystemTime>);
            let mut is_busy = false;
            for pool in self.pools() {
                let state = pool.diagnostics().await?;
                is_busy |= state.completing > 0 || state.canceling > 0;
                is_busy |= matches!(state.status, PoolStatus::Running | PoolStatus::Full);
                let attempts = pool.running().await?;
                running.extend(attempts.iter().map(|work| pool.work::<IgnoredAny>(work.work_id)));
                if state.status != PoolStatus::Paused {
                    next = next.into_iter().chain(state.oldest_due).min();
                }
            }
            match next {
                _ if !running.is_empty() => first_end(running).await,
                _ if is_busy => tokio::time::sleep(Duration::from_millis(1)).await,
                Some(due) if all => {
                    let wait = Segment::of(due).since(self.client().shared.seams.segment());
                    tokio::time::sleep(wait.max(Duration::from_millis(1))).await;
                }
                _ => return Ok(()),
            }
        }
    }

    /// Lets a manual runtime start jobs, until what this returns is dropped.
    async fn release(&self) -> Result<Option<Released<'_>>, PoolError> {
        if !self.is_manual {
            return Ok(None);
        }
        self.client().shared.set_held(false);
        let released = Released(self);
        for pool in self.pools() {
            // A change of the configuration, of nothing, makes the loop look.
            pool.update(PoolConfig::default()).await?;
        }
        Ok(Some(released))
    }
}

/// Holds the pools of a manual runtime again when it is dropped.
struct Released<'a>(&'a TestRuntime);

impl Drop for Released<'_> {
    fn drop(&mut self) {
        self.0.client().shared.set_held(true);
    }
}

/// Waits until one of these jobs does not run any more.
async fn first_end(running: Vec<WorkHandle<IgnoredAny>>) {
    let ends = running.into_iter().map(async |work| {
        let mut watch = work.watch();
        while let Some(WorkStatus::Running { .. }) = watch.next().await {}
    });
    let mut ends: Vec<_> = ends.map(Box::pin).collect();
    std::future::poll_fn(|cx| match ends.iter_mut().any(|end| end.as_mut().poll(cx).is_ready()) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
    .await;
}

/// Lets everything happen that needs no time: a clock that stands still goes on only when everybody waits.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}
