//! Notifies actors when a job completes.

use std::marker::PhantomData;
use std::sync::Arc;

use actix::Recipient;

use crate::client::{Enqueue, Function, Workpool};
use crate::functions::{Completed, CompletionResult, decode_outcome};
use crate::model::Finished;
use crate::protocol::OnFinish;

impl<F: Function<K>, K> Enqueue<&Workpool, F, K> {
    /// Sends the actor a [`Completed`] message when the job completes. Only this process does so: a restart loses the
    /// notification.
    pub fn notify(self, recipient: impl Into<Recipient<Completed<F, F::Output>>>) -> Self
    where
        F: 'static,
        F::Output: Send,
    {
        self.on_finish(notifier::<F, K>(recipient.into()))
    }
}

/// Turns an actor's address into the callback for a job's completion.
fn notifier<F, K>(recipient: Recipient<Completed<F, F::Output>>) -> OnFinish
where
    F: Function<K> + 'static,
    F::Output: Send,
{
    Box::new(move |row: &Arc<Finished>| {
        let result = match decode_outcome(&row.outcome) {
            Ok(result) => result,
            Err(failure) => CompletionResult::Failed(failure),
        };
        recipient.do_send(Completed {
            work_id: row.work_id,
            result,
            attempts: row.attempts,
            function: PhantomData,
        });
    })
}
