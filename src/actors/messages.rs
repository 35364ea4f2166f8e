//! Everything that the actors of the ring say to each other.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;

use super::post::Post;
use super::worker::Attempt;
use crate::committer::{BatchReady, Request, Settled};
use crate::config::PoolConfig;
use crate::error::PoolError;
use crate::function::Completed;
use crate::model::{RunStatus, WorkId};
use crate::sync::oneshot;

impl Message for Request {
    type Result = ();
}

impl Message for BatchReady {
    type Result = ();
}

impl<F: 'static, O: Send + 'static> Message for Completed<F, O> {
    type Result = ();
}

/// Store → itself: decide what has gathered. It lands behind everything that is queued already.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Flush;

/// Committer thread → store: a group is decided.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct GroupSettled(pub Settled);

/// Runtime → store: finish, and give the storage back.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Close(pub oneshot::Sender<()>);

/// Runtime → store: a pool has a loop from now on.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct AddMain {
    pub pool: crate::model::PoolId,
    pub main: Recipient<BatchReady>,
}

/// Handle → main: change the configuration.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Configure {
    pub config: PoolConfig,
    pub reply: oneshot::Sender<Result<(), PoolError>>,
}

/// Handle → main: drop a canceled work's attempt if it has not ended by then.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Abort {
    pub work_id: WorkId,
    pub after: Duration,
}

/// Handle → main: what are you doing?
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Inspect(pub oneshot::Sender<Inspection>);

/// Runtime → main: start nothing more; answer when nothing runs.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Drain(pub oneshot::Sender<Drained>);

/// What became of the attempts that ended while a loop was draining.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Drained {
    pub finished: u64,
    pub handed_back: u64,
}

impl Drained {
    pub fn count(&mut self, result: &crate::model::RunResult) {
        match result {
            crate::model::RunResult::HandedBack => self.handed_back += 1,
            _ => self.finished += 1,
        }
    }
}

/// Runtime → main: the grace is over. Hand back what runs.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct HandBack {
    /// How long functions have to end after they are told.
    pub notice: Duration,
}

/// Runtime → main: stop.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Stop;

/// What a loop says of itself.
#[derive(Debug)]
pub(crate) struct Inspection {
    pub status: RunStatus,
    pub slots: usize,
    pub turn: u64,
    pub report: crate::model::Report,
    #[cfg(feature = "actix-web")]
    pub recent: crate::figures::Recent,
    pub running: Vec<RunningAttempt>,
}

/// A running attempt, as its loop knows it.
#[derive(Debug)]
pub(crate) struct RunningAttempt {
    pub work_id: WorkId,
    pub function: crate::model::Name,
    pub attempt: u32,
    pub started: crate::model::Segment,
}

/// Main → worker host: start these.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct StartWorkers(pub Vec<Attempt>);

/// Conductor → worker host: another one has taken your place.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Retire;

/// The way to the store, from any thread.
pub(crate) struct StorePort {
    store: Recipient<Request>,
    post: Post,
}

impl StorePort {
    pub(super) fn new(store: Recipient<Request>, post: Post) -> Self {
        StorePort { store, post }
    }

    /// Sends without waiting. A store that is gone drops the message, and with it the reply channel.
    pub fn send(&self, request: Request) {
        self.post.to_store(&self.store, request);
    }
}

/// The way to a pool's loop, from any thread.
pub(crate) struct MainPort {
    pub(super) configure: Recipient<Configure>,
    pub(super) abort: Recipient<Abort>,
    pub(super) inspect: Recipient<Inspect>,
    pub(super) drain: Recipient<Drain>,
    pub(super) hand_back: Recipient<HandBack>,
    pub(super) stop: Recipient<Stop>,
}

impl MainPort {
    pub fn configure(&self, config: PoolConfig) -> oneshot::Receiver<Result<(), PoolError>> {
        let (reply, receiver) = oneshot::channel();
        self.configure.do_send(Configure { config, reply });
        receiver
    }

    pub fn abort(&self, work_id: WorkId, after: Duration) {
        self.abort.do_send(Abort { work_id, after });
    }

    pub fn inspect(&self) -> oneshot::Receiver<Inspection> {
        let (reply, receiver) = oneshot::channel();
        self.inspect.do_send(Inspect(reply));
        receiver
    }

    pub fn drain(&self) -> oneshot::Receiver<Drained> {
        let (reply, receiver) = oneshot::channel();
        self.drain.do_send(Drain(reply));
        receiver
    }

    pub fn hand_back(&self, notice: Duration) {
        self.hand_back.do_send(HandBack { notice });
    }

    pub fn stop(&self) {
        self.stop.do_send(Stop);
    }
}

/// Turns an actor's address into what is called when a work completes.
pub(crate) fn notifier<F, K>(
    recipient: Recipient<Completed<F, F::Output>>,
) -> crate::committer::OnFinish
where
    F: crate::function::Function<K> + 'static,
    F::Output: Send,
{
    Box::new(move |row: &Arc<crate::model::Finished>| {
        let result = match crate::registry::decode_outcome(&row.outcome) {
            Ok(result) => result,
            Err(failure) => crate::function::CompletionResult::Failed(failure),
        };
        recipient.do_send(Completed {
            work_id: row.work_id,
            result,
            attempts: row.attempts,
            function: std::marker::PhantomData,
        });
    })
}
