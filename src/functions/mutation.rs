//! Functions that change user tables.

use serde::{Serialize, de::DeserializeOwned};

use super::{Transaction, WorkError};
use crate::model::RetryPolicy;

/// A function that changes user tables, exactly once: its effects and its completion are one commit.
///
/// It runs inside the store's transaction and must be quick, since all other requests wait for it. If it fails or
/// panics, its writes are rolled back.
///
/// ```
/// use actix_workpool::{Mutation, Transaction, WorkError};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Deposit { cents: u64 }
///
/// impl Mutation for Deposit {
///     const NAME: &'static str = "deposit";
///     type Output = u64;
///     fn apply(self, tx: &mut Transaction<'_>) -> Result<u64, WorkError> {
///         let balance = tx.get::<u64>("accounts", "ada")?.unwrap_or(0) + self.cents;
///         tx.put("accounts", "ada", &balance)?;
///         Ok(balance)
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a `Mutation`",
    note = "a mutation runs in the store; register other functions with `.action::<..>()`, `.blocking_action::<..>()` or `.query::<..>()`"
)]
pub trait Mutation: Serialize + DeserializeOwned + 'static {
    /// See [`Action::NAME`](crate::Action::NAME).
    const NAME: &'static str;
    /// See [`Action::RETRY`](crate::Action::RETRY).
    const RETRY: RetryPolicy = RetryPolicy::Inherit;
    /// See [`Action::Output`](crate::Action::Output).
    type Output: Serialize + DeserializeOwned + 'static;

    /// Reads and writes through `tx`.
    ///
    /// # Errors
    /// An error makes the attempt fail; the transaction is rolled back.
    fn apply(self, tx: &mut Transaction<'_>) -> Result<Self::Output, WorkError>;
}

function!(OfMutation, Mutation, Mutation, "mutation::<..>()");
