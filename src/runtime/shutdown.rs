//! The shutdown of a runtime.

use std::time::Duration;

use serde::Serialize;

use super::{Inner, Runtime};
use crate::actors::Actors;
use crate::client::Client;
use crate::observe::telemetry;
use crate::protocol::{Drained, LoopMessage};
use crate::shared::sync::oneshot;

/// The time between the notice to functions, at the end of a shutdown's grace, and the drop of their attempts.
const NOTICE: Duration = Duration::from_millis(500);

/// The same time for a runtime that is dropped.
const DROP_NOTICE: Duration = Duration::from_millis(100);

/// The longest time for which dropping a runtime blocks its thread.
const DROP_LIMIT: Duration = Duration::from_secs(2);

/// The time after the notice in which jobs must be returned to the queue.
const RETURN_LIMIT: Duration = Duration::from_secs(10);

/// The result of a shutdown. Made by [`Runtime::shutdown`].
///
/// ```
/// # use actix_workpool::doctest::{self, Double};
/// use std::time::Duration;
/// # doctest::run(async {
/// # let runtime = doctest::runtime().await?;
/// let report = runtime.shutdown(Duration::from_secs(10)).await;
/// assert_eq!((report.finished, report.returned, report.pending), (0, 0, 0));
/// # runtime.shutdown(std::time::Duration::ZERO).await;
/// # Ok(()) });
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Attempts that ended within the grace.
    pub finished: u64,
    /// Attempts whose jobs were returned to the queue without using an attempt; they run again when the store is
    /// reopened.
    pub returned: u64,
    /// Jobs without an outcome, including those returned to the queue. In memory they are lost; a durable store keeps
    /// them.
    pub pending: u64,
}

impl ShutdownReport {
    fn count(&mut self, drained: Drained) {
        self.finished += drained.finished;
        self.returned += drained.returned;
    }
}

impl Runtime {
    /// Shuts the runtime down. It stops all enqueues and starts, and gives running attempts `grace` to end. Then it
    /// tells their functions ([`ActionContext::canceled`](crate::ActionContext::canceled)); half a second later it
    /// drops the remaining attempts and returns their jobs to the queue without using an attempt. Returns when
    /// everything is written and the storage is closed.
    ///
    /// It also works outside of tokio and actix, and after the program's system or runtime has stopped. A second call
    /// returns the same report.
    ///
    /// # Cancel safety
    /// A shutdown that has begun goes on, whether it is awaited or not. With
    /// [`worker_arbiters(0)`](crate::RuntimeBuilder::worker_arbiters) it must be awaited to the end.
    pub async fn shutdown(&self, grace: Duration) -> ShutdownReport {
        let mut done = self.inner.shutdown.lock().await;
        if let Some(report) = *done {
            return report;
        }
        // A pool that is being created is either drained with the others or not created.
        let creating = self.inner.creating.lock().await;
        self.client.shared.close();
        drop(creating);
        let (client, actors) = (self.client.clone(), self.inner.actors.clone());
        let end = async move { end(&client, &actors, grace, NOTICE).await };
        let report = self.inner.actors.at_home(end).await.unwrap_or_default();
        let ShutdownReport { finished, returned, pending } = report;
        let in_memory = self.client.shared.is_in_memory();
        telemetry::runtime_shut_down(finished, returned, pending, in_memory);
        *done = Some(report);
        report
    }
}

/// Drains the loops of a closed runtime and ends its actors.
async fn end(
    client: &Client,
    actors: &Actors,
    grace: Duration,
    notice: Duration,
) -> ShutdownReport {
    let pools = client.shared.pools();
    let mut draining = Vec::with_capacity(pools.len());
    for pool in &pools {
        let (reply, drained) = oneshot::channel();
        if client.tell_loop(pool.id, LoopMessage::Drain(reply)).is_ok() {
            draining.push((pool.id, drained));
        }
    }
    // An infinite grace has no deadline.
    let deadline = tokio::time::Instant::now().checked_add(grace);
    let mut report = ShutdownReport::default();
    let mut late = Vec::new();
    for (pool, mut drained) in draining {
        let in_time = match deadline {
            Some(deadline) => tokio::time::timeout_at(deadline, &mut drained).await.ok(),
            None => Some((&mut drained).await),
        };
        match in_time {
            Some(in_time) => report.count(in_time.unwrap_or_default()),
            None => {
                // A loop that is gone has no attempts.
                let _ = client.tell_loop(pool, LoopMessage::ReturnRunning { notice });
                late.push(drained);
            }
        }
    }
    // The limit is for loops whose storage is broken: they cannot return their jobs.
    let limit = tokio::time::Instant::now() + notice + RETURN_LIMIT;
    for drained in late {
        if let Ok(Ok(drained)) = tokio::time::timeout_at(limit, drained).await {
            report.count(drained);
        }
    }
    actors.close().await;
    report.pending = pools.iter().map(|pool| pool.pending()).sum();
    report
}

impl Drop for Inner {
    /// Ends a runtime that was not shut down, and waits for the end if possible.
    fn drop(&mut self) {
        self.client.shared.close();
        if self.shutdown.get_mut().is_some() {
            return;
        }
        let (client, actors) = (self.client.clone(), self.actors.clone());
        let end = async move { end(&client, &actors, Duration::ZERO, DROP_NOTICE).await };
        if let Some(report) = self.actors.block_at_home(end, DROP_LIMIT) {
            telemetry::dropped(report.finished, report.returned, report.pending);
        }
    }
}
