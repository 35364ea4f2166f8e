//! The `Function` trait: everything that can be enqueued.

use std::marker::PhantomData;

use serde::{Serialize, de::DeserializeOwned};

use crate::model::{FunctionKind, Name};

/// A function that can be enqueued. Implemented for all [`Action`](crate::Action)s,
/// [`BlockingAction`](crate::BlockingAction)s, [`Mutation`](crate::Mutation)s, [`Query`](crate::Query)s and for the
/// [`Call`] of an [`ActionKey`]; `K` distinguishes them and is always inferred.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a function that can be enqueued",
    label = "not an `Action`, `BlockingAction`, `Mutation`, `Query` or `Call`",
    note = "implement `actix_workpool::Action` for `{Self}` to make it a job, and register it with `.action::<..>()`",
    note = "a closure is enqueued through its key: `pool.enqueue(KEY.call(args))`"
)]
pub trait Function<K> {
    /// The type of its result.
    type Output: DeserializeOwned + 'static;
    /// Its kind.
    const KIND: FunctionKind;
    /// The call of the builder that registers it.
    const REGISTER: &'static str;
    /// Its registered name.
    fn name(&self) -> Name;
    /// Appends its arguments as JSON.
    ///
    /// # Errors
    /// Fails if the type's own `Serialize` fails.
    fn encode(&self, json: &mut Vec<u8>) -> Result<(), serde_json::Error>;
}

/// Markers that distinguish the kinds of [`Function`]. Users never name them.
#[doc(hidden)]
pub mod kind {
    /// Marks an [`Action`](crate::Action).
    #[derive(Debug)]
    pub enum OfAction {}
    /// Marks a [`BlockingAction`](crate::BlockingAction).
    #[derive(Debug)]
    pub enum OfBlocking {}
    /// Marks a [`Mutation`](crate::Mutation).
    #[derive(Debug)]
    pub enum OfMutation {}
    /// Marks a [`Query`](crate::Query).
    #[derive(Debug)]
    pub enum OfQuery {}
    /// Marks a [`Call`](super::Call).
    #[derive(Debug)]
    pub enum OfCall {}
}

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
    /// Creates a key for closures that take `A` and return `O`.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        ActionKey { name: Name::from_static(name), types: PhantomData }
    }

    /// Returns a call of the closure with `args`, to be enqueued.
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

impl<A, O> Call<A, O> {
    /// Returns the arguments, to choose a [key](crate::Enqueue::keyed_by) by them for example.
    pub fn args(&self) -> &A {
        &self.args
    }
}

impl<A, O> std::fmt::Debug for Call<A, O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<A: Serialize, O: DeserializeOwned + 'static> Function<kind::OfCall> for Call<A, O> {
    type Output = O;
    const KIND: FunctionKind = FunctionKind::Action;
    const REGISTER: &'static str = "action_fn(..)";
    fn name(&self) -> Name {
        self.name
    }
    fn encode(&self, json: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        crate::model::write(json, &self.args)
    }
}
