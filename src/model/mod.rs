//! Nouns: what a work is, which tables hold it, and every write that can be made to them.
//!
//! Nothing here decides, waits, stores or sends. Everybody imports the model; the model imports nobody.

mod batch;
mod change;
mod name;
mod outcome;
mod segment;
mod state;
mod work;

pub use batch::{
    Batch, CancelationRow, Claimed, CompletionRow, Demand, RunningRow, StartRow, Turn,
};
pub(crate) use change::PendingTable;
pub use change::{Change, Counts, Retry, StateRow};
pub use name::{Name, PoolId, TableKey};
pub(crate) use outcome::cut;
pub use outcome::{
    FailedAttempt, Failure, FailureKind, Finished, FinishedDetails, History, Outcome, Payload,
    RunResult,
};
pub use segment::{Key, Segment};
pub use state::{Cursors, Epoch, Generation, InternalState, Report, RunStatus, Running};
pub use work::{
    ArgBytes, FunctionKind, OnCompleteCall, RetryBehavior, RunNumber, SpanLink, Spec, SpecOptions,
    WorkFact, WorkId,
};
