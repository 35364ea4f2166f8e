//! Messages between the actors of the ring, beside those of the protocol.

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

/// Store → itself: decide what has gathered. It lands behind everything that is queued already.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Flush;

/// Storage thread → store: a group is decided.
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
    pub pool: PoolId,
    pub main: Recipient<BatchReady>,
}

/// Main → worker host: start so many workers, for the attempts that wait in its pulse.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct StartWorkers(pub usize);
