//! User code and its environment: functions of each kind, contexts, transactions, errors.
//!
//! ```text
//!   Action, BlockingAction ── ActionContext ── runs on a worker
//!   Mutation, OnComplete ──── Transaction ──── runs in the store, in the commit that completes the job
//!   Query ─────────────────── Reader ───────── runs in the store, and changes nothing
//! ```

/// Implements `Function` for every type of a kind, so that it can be enqueued.
macro_rules! function {
    ($marker:ident, $trait:ident, $kind:ident, $register:literal) => {
        impl<F: $trait> crate::client::Function<crate::client::kind::$marker> for F {
            type Output = F::Output;
            const KIND: crate::model::FunctionKind = crate::model::FunctionKind::$kind;
            const REGISTER: &'static str = $register;
            fn name(&self) -> crate::model::Name {
                crate::model::Name::from_static(F::NAME)
            }
            fn encode(&self, json: &mut Vec<u8>) -> Result<(), serde_json::Error> {
                crate::model::write_typed(json, self)
            }
        }
    };
}

mod action;
mod attempt;
mod context;
mod error;
mod guard;
mod lent;
mod mutation;
mod on_complete;
mod query;
mod registry;
mod transaction;

pub use action::{Action, BlockingAction};
pub(crate) use attempt::{Control, Stage};
pub use context::ActionContext;
pub use error::WorkError;
pub(crate) use error::WorkErrorKind;
pub(crate) use guard::{guarded, panic_message};
pub(crate) use lent::{Data, Lent};
pub use mutation::Mutation;
pub use on_complete::{Completed, Completion, CompletionResult, OnComplete};
pub use query::Query;
pub(crate) use registry::{
    AttemptFuture, Code, CompletionCall, Program, Registry, decode_outcome, limit_result,
};
pub(crate) use transaction::Writes;
pub use transaction::{Reader, Transaction, TransactionError, TransactionPool};
