//! Functions that read user tables.

use serde::{Serialize, de::DeserializeOwned};

use super::{Reader, WorkError};

/// A function that reads user tables and changes nothing. Run it directly with
/// [`Runtime::query`](crate::Runtime::query), or enqueue it like any other function.
///
/// ```
/// use actix_workpool::{Query, Reader, WorkError};
/// use serde::{Deserialize, Serialize};
///
/// /// The balance of an account. `runtime.query(Balance { .. })` reads it at once.
/// #[derive(Serialize, Deserialize)]
/// struct Balance { account: String }
///
/// impl Query for Balance {
///     const NAME: &'static str = "balance";
///     type Output = u64;
///     fn read(self, reader: &mut Reader<'_>) -> Result<u64, WorkError> {
///         Ok(reader.get("accounts", &self.account)?.unwrap_or(0))
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a `Query`",
    note = "a query reads user tables; register other functions with `.action::<..>()`, `.blocking_action::<..>()` or `.mutation::<..>()`"
)]
pub trait Query: Serialize + DeserializeOwned + 'static {
    /// See [`Action::NAME`](crate::Action::NAME).
    const NAME: &'static str;
    /// See [`Action::Output`](crate::Action::Output).
    type Output: Serialize + DeserializeOwned + 'static;

    /// Reads through `reader`, which shows a snapshot of the tables.
    ///
    /// # Errors
    /// An error makes the query fail.
    fn read(self, reader: &mut Reader<'_>) -> Result<Self::Output, WorkError>;
}

function!(OfQuery, Query, Query, "query::<..>()");
