//! Messages between the parts of a runtime.
//!
//! ```text
//!   client ── Command, Question ──► store ──── BatchReady ───► loop
//!      │                            ▲   ▲                      ▲ │
//!      │                            │   └─ Advance, PoolRequest ─┘
//!      │                            └── AttemptsFinished ── workers
//!      └── LoopMessage ─────────────────────────────────────► loop
//! ```
//!
//! A [`Command`] changes jobs; the store decides many of them in one group. A [`Question`] changes nothing and sees
//! what the group before it has committed. A [`PoolRequest`] takes over a pool, in its own commit. The transports to
//! the store and to the loops are traits ([`StorePort`], [`LoopPort`]), implemented elsewhere.

mod command;
mod event;
mod ports;
mod question;
mod to_loop;
mod turn;

use crate::model::PoolId;
use crate::shared::sync::oneshot;
use crate::storage::StorageError;

pub(crate) use command::{
    CancelAll, Canceled, Command, Enqueue, Refused, RegisterSchedules, RunInStore, ScheduleChange,
    SweepLanes, SweepPage, TickAnswer, TickSchedule,
};
pub(crate) use event::{Event, job_level};
pub(crate) use ports::{LoopPort, Ports, StorePort};
pub(crate) use question::{Listener, Listing, OnFinish, Question};
pub(crate) use to_loop::{Drained, Inspection, LoopMessage, RunningAttempt};
pub(crate) use turn::{Advance, AdvanceError, BatchReady, PoolOpened, PoolRequest};

/// The channel for an answer to a waiting caller. A caller that is gone is no error.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, StorageError>>;

/// A message to the store.
pub(crate) enum Request {
    Command(Command),
    Question(Question),
    Pool(PoolRequest),
    /// A loop has nothing to decide on an early batch.
    Pass(PoolId),
}

impl From<Command> for Request {
    fn from(command: Command) -> Request {
        Request::Command(command)
    }
}

impl From<Question> for Request {
    fn from(question: Question) -> Request {
        Request::Question(question)
    }
}

impl From<PoolRequest> for Request {
    fn from(request: PoolRequest) -> Request {
        Request::Pool(request)
    }
}
