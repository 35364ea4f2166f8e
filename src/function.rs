//! What users write: functions, and what each kind is given.

use std::future::Future;
use std::marker::PhantomData;
use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};

use crate::context::ActionContext;
use crate::error::WorkError;
use crate::model::{Failure, FunctionKind, Name, RetryBehavior, WorkId};
use crate::transaction::{Reader, Transaction};

/// Whether a function's failed attempts are tried again, where the enqueue does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum RetryPolicy {
    /// As the pool has it.
    #[default]
    Inherit,
    /// One attempt only.
    Never,
    /// Like this.
    With(RetryBehavior),
}

/// A function that reaches outside: sends a mail, calls a service, writes a file.
///
/// The value itself is the argument: it is kept as JSON until a slot is free. Without a retry policy an action runs at
/// most once; with one it runs at least once and at most `max_attempts` times, also across crashes.
///
/// The future runs on one thread and need not be `Send`. It is dropped at an await point when its attempt is aborted
/// or times out; what it holds should clean up when dropped.
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
pub trait Action: Serialize + DeserializeOwned + 'static {
    /// The name under which works of this function are stored. Never reuse one for another meaning.
    const NAME: &'static str;
    /// The retry policy of this function.
    const RETRY: RetryPolicy = RetryPolicy::Inherit;
    /// How long an attempt may take; `None` as the pool has it.
    const TIMEOUT: Option<Duration> = None;
    /// What it results in, kept as JSON.
    type Output: Serialize + DeserializeOwned + 'static;

    /// Makes one attempt.
    fn run(self, cx: ActionContext) -> impl Future<Output = Result<Self::Output, WorkError>>;
}

/// An action that keeps its thread busy: it hashes, compresses, or uses blocking I/O.
///
/// It runs on a thread of its own pool. It cannot be dropped while it runs: one that is aborted or overdue is
/// abandoned, its slot freed, and what it reports later is refused. A long one asks
/// [`ActionContext::is_canceled`] now and then.
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
    /// Whatever makes the attempt fail.
    fn run(self, cx: &ActionContext) -> Result<Self::Output, WorkError>;
}

/// A function that changes user tables, exactly once: its effects and its completion are one commit.
///
/// It runs inside the store's transaction and must be quick: everything else waits for it. If it fails or panics,
/// nothing of it stays.
pub trait Mutation: Serialize + DeserializeOwned + 'static {
    /// See [`Action::NAME`].
    const NAME: &'static str;
    /// See [`Action::RETRY`].
    const RETRY: RetryPolicy = RetryPolicy::Inherit;
    /// See [`Action::Output`].
    type Output: Serialize + DeserializeOwned + 'static;

    /// Reads and writes through `tx`.
    ///
    /// # Errors
    /// Whatever makes the attempt fail; the transaction is rolled back.
    fn apply(self, tx: &mut Transaction<'_>) -> Result<Self::Output, WorkError>;
}

/// A function that reads user tables and changes nothing. Ask it directly with
/// [`Runtime::query`](crate::Runtime::query), or enqueue it like any other.
pub trait Query: Serialize + DeserializeOwned + 'static {
    /// See [`Action::NAME`].
    const NAME: &'static str;
    /// See [`Action::Output`].
    type Output: Serialize + DeserializeOwned + 'static;

    /// Reads through `reader`, which sees one moment.
    ///
    /// # Errors
    /// Whatever makes the query fail.
    fn read(self, reader: &mut Reader<'_>) -> Result<Self::Output, WorkError>;
}

/// What happens when a work completes: runs inside the completing commit, exactly once per work.
///
/// If it fails or panics, its own effects are rolled back, the work completes all the same, and the call becomes a
/// work of its own, named after it and retried, in the same commit.
pub trait OnComplete: 'static {
    /// The name under which it is stored with a work. One namespace with the functions.
    const NAME: &'static str;
    /// What the enqueue gives along.
    type Context: Serialize + DeserializeOwned + 'static;
    /// The output of the function that completes.
    type Output: DeserializeOwned + 'static;

    /// Records the completion.
    ///
    /// # Errors
    /// Whatever makes it fail; see above for what follows.
    fn apply(
        tx: &mut Transaction<'_>,
        done: Completion<Self::Context, Self::Output>,
    ) -> Result<(), WorkError>;
}

/// A completed work, as its [`OnComplete`] sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion<C, O> {
    /// Which work.
    pub work_id: WorkId,
    /// What the enqueue gave along.
    pub context: C,
    /// How it ended.
    pub result: CompletionResult<O>,
    /// How many attempts were charged.
    pub attempts: u32,
}

/// How a work ended, with its result decoded.
#[derive(Clone, Debug, PartialEq)]
pub enum CompletionResult<O> {
    /// The function succeeded.
    Success(O),
    /// The last attempt failed and there is no other.
    Failed(Failure),
    /// The work was canceled.
    Canceled,
}

impl<O> CompletionResult<O> {
    /// The output, if the work succeeded.
    pub fn success(self) -> Option<O> {
        match self {
            CompletionResult::Success(output) => Some(output),
            _ => None,
        }
    }
}

/// The message that [`Enqueue::notify`](crate::Enqueue::notify) sends to an actor when the work completes.
///
/// `F` is the function's type, so that one actor can tell apart what it hears of. It is sent once, by this process
/// only: a work that completes after a restart notifies nobody. What must not be missed belongs in an [`OnComplete`].
pub struct Completed<F, O> {
    /// Which work.
    pub work_id: WorkId,
    /// How it ended; a result that does not decode counts as failed.
    pub result: CompletionResult<O>,
    /// How many attempts were charged.
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

/// Everything that can be enqueued. Implemented for all [`Action`]s, [`BlockingAction`]s, [`Mutation`]s, [`Query`]s
/// and for the [`Call`] of an [`ActionKey`]; `K` tells them apart and is always inferred.
pub trait Function<K> {
    /// What it results in.
    type Output: DeserializeOwned + 'static;
    /// What kind it is.
    const KIND: FunctionKind;
    /// Its registered name.
    fn name(&self) -> Name;
    /// Appends its arguments as JSON.
    ///
    /// # Errors
    /// When the type's own `Serialize` fails.
    fn encode(&self, json: &mut Vec<u8>) -> Result<(), serde_json::Error>;
}

/// Tells the kinds of [`Function`] apart. Never named by users.
pub mod kind {
    /// Marks an [`Action`](super::Action).
    #[derive(Debug)]
    pub enum OfAction {}
    /// Marks a [`BlockingAction`](super::BlockingAction).
    #[derive(Debug)]
    pub enum OfBlocking {}
    /// Marks a [`Mutation`](super::Mutation).
    #[derive(Debug)]
    pub enum OfMutation {}
    /// Marks a [`Query`](super::Query).
    #[derive(Debug)]
    pub enum OfQuery {}
    /// Marks a [`Call`](super::Call).
    #[derive(Debug)]
    pub enum OfCall {}
}

macro_rules! function {
    ($marker:ident, $trait:ident, $kind:ident) => {
        impl<F: $trait> Function<kind::$marker> for F {
            type Output = F::Output;
            const KIND: FunctionKind = FunctionKind::$kind;
            fn name(&self) -> Name {
                Name::from_static(F::NAME)
            }
            fn encode(&self, json: &mut Vec<u8>) -> Result<(), serde_json::Error> {
                serde_json::to_writer(json, self)
            }
        }
    };
}

function!(OfAction, Action, Action);
function!(OfBlocking, BlockingAction, Action);
function!(OfMutation, Mutation, Mutation);
function!(OfQuery, Query, Query);

/// The typed name of an action that is registered as a closure.
///
/// ```
/// # actix_workpool::doctest::run(async {
/// use actix_workpool::{ActionKey, PoolConfig, Runtime};
///
/// const DOUBLE: ActionKey<u64, u64> = ActionKey::new("double");
///
/// let runtime = Runtime::builder()
///     .action_fn(DOUBLE, |n, _| async move { Ok(n * 2) })
///     .pool("math", PoolConfig::default())
///     .start()
///     .await?;
/// let work = runtime.pool("math")?.enqueue(DOUBLE.call(21)).await?;
/// assert_eq!(work.join().await?, 42);
/// # runtime.shutdown(std::time::Duration::ZERO).await;
/// # Ok(()) });
/// ```
pub struct ActionKey<A, O> {
    pub(crate) name: Name,
    types: PhantomData<fn(A) -> O>,
}

impl<A, O> ActionKey<A, O> {
    /// A key for closures that take `A` and result in `O`.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        ActionKey { name: Name::from_static(name), types: PhantomData }
    }

    /// What to enqueue to have the closure run with `args`.
    pub fn call(self, args: A) -> Call<A, O> {
        Call { name: self.name, args, output: PhantomData }
    }
}

impl<A, O> Clone for ActionKey<A, O> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A, O> Copy for ActionKey<A, O> {}

impl<A, O> std::fmt::Debug for ActionKey<A, O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ActionKey").field(&self.name).finish()
    }
}

/// The arguments of a closure, ready to be enqueued. See [`ActionKey::call`].
pub struct Call<A, O> {
    name: Name,
    args: A,
    output: PhantomData<fn() -> O>,
}

impl<A, O> std::fmt::Debug for Call<A, O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<A: Serialize, O: DeserializeOwned + 'static> Function<kind::OfCall> for Call<A, O> {
    type Output = O;
    const KIND: FunctionKind = FunctionKind::Action;
    fn name(&self) -> Name {
        self.name
    }
    fn encode(&self, json: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        serde_json::to_writer(json, &self.args)
    }
}
