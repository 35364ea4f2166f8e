//! The network: carries messages between loops, workers and the store.
//!
//! In one process, messages arrive exactly once and immediately, and this module costs nothing. A simulation sends them
//! through a [`Courier`] that delays and duplicates them, like a network between machines; the fences handle that. The
//! same courier decides which workers are lost.

use actix::Recipient;

use crate::model::WorkId;
#[cfg(feature = "unstable-storage")]
use crate::protocol::Command;
use crate::protocol::{BatchReady, LoopMessage, LoopPort, Request, StorePort};

#[cfg(feature = "unstable-storage")]
mod courier {
    use std::time::Duration;

    use crate::model::WorkId;

    /// A kind of message.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Letter {
        /// Main → store: the decisions of a turn.
        Turn,
        /// Store → main: a batch, or the reason why there is none.
        Batch,
        /// Worker → store, or main in its place: an attempt has ended, or a mutation must run.
        Report,
    }

    /// The delays of a message and of its duplicate.
    #[derive(Clone, Copy, Debug, Default)]
    pub struct Delivery {
        /// The delay of the message.
        pub after: Duration,
        /// The further delay of a duplicate. Reports only: a sender that gets no answer sends its report again.
        pub again: Option<Duration>,
    }

    /// Decides when messages arrive. Called on the sending thread, which must be an actix arbiter.
    pub trait Courier: Send + Sync + 'static {
        /// Decides the delivery of a message.
        fn take(&self, letter: Letter) -> Delivery;

        /// Returns `true` if the worker is lost from now on, without a report. Called whenever an action waits.
        fn loses_worker(&self, work_id: WorkId) -> bool;
    }
}
#[cfg(feature = "unstable-storage")]
pub use courier::{Courier, Delivery, Letter};

/// Sends messages between the actors.
#[derive(Clone, Default)]
pub(crate) struct Network {
    #[cfg(feature = "unstable-storage")]
    courier: Option<std::sync::Arc<dyn Courier>>,
}

impl Network {
    #[cfg(feature = "unstable-storage")]
    pub fn by(courier: impl Courier) -> Network {
        Network { courier: Some(std::sync::Arc::new(courier)) }
    }

    /// Sends without waiting. If the actor is gone, the message is dropped.
    pub fn to_store(&self, store: &Recipient<Request>, request: Request) {
        #[cfg(feature = "unstable-storage")]
        if let Some(courier) = &self.courier {
            let (letter, copy) = match &request {
                Request::Command(Command::Advance(_)) => (Letter::Turn, None),
                Request::Command(Command::AttemptsFinished(reports)) => {
                    (Letter::Report, Some(Command::AttemptsFinished(reports.clone()).into()))
                }
                Request::Command(Command::RunInStore(runs)) => {
                    (Letter::Report, Some(Command::RunInStore(runs.clone()).into()))
                }
                _ => return store.do_send(request),
            };
            return deliver(courier.take(letter), store, request, copy);
        }
        store.do_send(request);
    }

    /// Sends without waiting. If the actor is gone, the message is dropped.
    pub fn to_main(&self, main: &Recipient<BatchReady>, batch: BatchReady) {
        #[cfg(feature = "unstable-storage")]
        if let Some(courier) = &self.courier {
            return deliver(courier.take(Letter::Batch), main, batch, None);
        }
        main.do_send(batch);
    }

    /// Returns `true` if the worker of an attempt must be lost.
    pub fn loses_worker(&self, _work_id: WorkId) -> bool {
        #[cfg(feature = "unstable-storage")]
        if let Some(courier) = &self.courier {
            return courier.loses_worker(_work_id);
        }
        false
    }
}

/// Delivers a message as the courier decides. A message in flight keeps no actor alive.
#[cfg(feature = "unstable-storage")]
fn deliver<M>(delivery: Delivery, to: &Recipient<M>, message: M, copy: Option<M>)
where
    M: actix::Message<Result = ()> + Send + 'static,
{
    let Delivery { after, again } = delivery;
    if after.is_zero() && again.is_none() {
        return to.do_send(message);
    }
    let to = to.downgrade();
    let arrive = async move |wait: std::time::Duration, message| {
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        if let Some(to) = to.upgrade() {
            to.do_send(message);
        }
    };
    actix::spawn(async move {
        arrive(after, message).await;
        if let Some((wait, copy)) = again.zip(copy) {
            arrive(wait, copy).await;
        }
    });
}

/// The port of the StoreActor.
pub(super) struct ToStore {
    pub store: Recipient<Request>,
    pub network: Network,
}

impl StorePort for ToStore {
    fn send(&self, request: Request) {
        self.network.to_store(&self.store, request);
    }
}

/// The port of a MainActor.
impl LoopPort for Recipient<LoopMessage> {
    fn send(&self, message: LoopMessage) {
        self.do_send(message);
    }
}
