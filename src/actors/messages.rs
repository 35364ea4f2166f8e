//! Messages between the actors, beside those of the protocol.

use actix::prelude::*;

use crate::functions::Completed;
use crate::model::PoolId;
use crate::protocol::{BatchReady, LoopMessage, Request};
use crate::shared::sync::oneshot;
use crate::store::Settled;

impl Message for Request {
    type Result = ();
}

impl Message for BatchReady {
    type Result = ();
}

impl Message for LoopMessage {
    type Result = ();
}

impl<F: 'static, O: Send + 'static> Message for Completed<F, O> {
    type Result = ();
}

/// Store → itself: decide the waiting requests. It arrives behind everything that is queued already.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Flush;

/// Storage thread → store: the results of a group.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct GroupSettled(pub Settled);

/// Runtime → store: finish, and close the storage.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Close(pub oneshot::Sender<()>);

/// Runtime → store: register the loop of a pool.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct AddMain {
    pub pool: PoolId,
    pub main: Recipient<BatchReady>,
}

/// Main → worker host: start so many workers, for the attempts that wait in its pulse.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct StartWorkers(pub usize);

/// Conductor → main: check that there is progress.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Watch;

/// Alarm → main: a job is due.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Ring;
