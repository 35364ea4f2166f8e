//! The network: how messages travel between loops, workers and the store.
//!
//! In one process they arrive, once and at once, and nothing here costs anything. A simulation sends them by a
//! [`Courier`] who is late and delivers twice, as a network between machines is: what the fences are for. The same one
//! knows which workers are lost.

use actix::Recipient;

use crate::model::WorkId;
#[cfg(feature = "conformance")]
use crate::protocol::Command;
use crate::protocol::{BatchReady, LoopMessage, LoopPort, Request, StorePort};

#[cfg(feature = "conformance")]
mod courier {
    use std::time::Duration;

    use crate::model::WorkId;

    /// A kind of message.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Letter {
        /// Main → store: what a turn has decided.
        Turn,
        /// Store → main: a batch, or why there is none.
        Batch,
        /// Worker → store, or main in its place: an attempt has ended, or a mutation is to be run.
        Report,
    }

    /// The delay of a message.
    #[derive(Clone, Copy, Debug, Default)]
    pub struct Delivery {
        /// After so long.
        pub after: Duration,
        /// And so long after that, once more. Of reports only: whoever reports and hears nothing says it again.
        pub again: Option<Duration>,
    }

    /// Decides when letters arrive. Called on the thread that sends, which must be an actix arbiter.
    pub trait Courier: Send + Sync + 'static {
        /// Takes a letter.
        fn take(&self, letter: Letter) -> Delivery;

        /// Asked whenever an action waits for something: whether its worker is gone from now on, without a word.
        fn loses_worker(&self, work_id: WorkId) -> bool;
    }
}
#[cfg(feature = "conformance")]
pub use courier::{Courier, Delivery, Letter};

/// The way of messages.
#[derive(Clone, Default)]
pub(crate) struct Network {
    #[cfg(feature = "conformance")]
    courier: Option<std::sync::Arc<dyn Courier>>,
}

impl Network {
    #[cfg(feature = "conformance")]
    pub fn by(courier: impl Courier) -> Network {
        Network { courier: Some(std::sync::Arc::new(courier)) }
    }

    /// Sends without waiting. An actor that is gone drops the message.
    pub fn to_store(&self, store: &Recipient<Request>, request: Request) {
        #[cfg(feature = "conformance")]
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

    /// Sends without waiting. An actor that is gone drops the message.
    pub fn to_main(&self, main: &Recipient<BatchReady>, batch: BatchReady) {
        #[cfg(feature = "conformance")]
        if let Some(courier) = &self.courier {
            return deliver(courier.take(Letter::Batch), main, batch, None);
        }
        main.do_send(batch);
    }

    /// Returns `true` if the worker of an attempt is to go away.
    pub fn loses_worker(&self, _work_id: WorkId) -> bool {
        #[cfg(feature = "conformance")]
        if let Some(courier) = &self.courier {
            return courier.loses_worker(_work_id);
        }
        false
    }
}

/// Delivers as the courier says. What is under way keeps nobody alive.
#[cfg(feature = "conformance")]
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

/// The way to the StoreActor.
pub(super) struct ToStore {
    pub store: Recipient<Request>,
    pub network: Network,
}

impl StorePort for ToStore {
    fn send(&self, request: Request) {
        self.network.to_store(&self.store, request);
    }
}

/// The way to a MainActor.
impl LoopPort for Recipient<LoopMessage> {
    fn send(&self, message: LoopMessage) {
        self.do_send(message);
    }
}
