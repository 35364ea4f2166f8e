//! Looking at pools does not slow them down.
//!
//! The store is asked for one thing at a time, and then left to the pools for as long as it would take to look up many
//! more. A caller gives up on a store that does not answer; the turn ends only with the store's answer, so that what is
//! owed to callers who gave up does not pile up.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use super::OpsError;
use crate::client::PoolError;

/// A caller waits no longer than this for a store that is busy or does not answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Lets callers ask one after the other.
#[derive(Clone, Default)]
pub(super) struct Turns(Arc<Mutex<()>>);

impl Turns {
    /// Asks when it is this caller's turn. The answer says how long the pause is to be after it.
    pub async fn ask<T: Send + 'static>(
        &self,
        answer: impl Future<Output = Result<(T, Duration), PoolError>> + Send + 'static,
    ) -> Result<T, OpsError> {
        in_time(async {
            let turn = self.0.clone().lock_owned().await;
            until_answered(async move {
                let (answer, pause) = answer.await?;
                if !pause.is_zero() {
                    tokio::spawn(async move {
                        tokio::time::sleep(pause).await;
                        drop(turn);
                    });
                }
                Ok::<_, PoolError>(answer)
            })
            .await
        })
        .await
    }
}

/// Waits for an answer that comes to its end also if nobody waits any more: until then it keeps what it holds.
pub(super) async fn until_answered<T: Send + 'static, E: Send + From<PoolError> + 'static>(
    answer: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<T, E> {
    // Only the end of its runtime keeps it from that.
    tokio::spawn(answer).await.map_err(|_| PoolError::Closed)?
}

/// Gives up on a store that does not answer.
pub(super) async fn in_time<T, E: Into<OpsError>>(
    answer: impl Future<Output = Result<T, E>>,
) -> Result<T, OpsError> {
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(answer) => answer.map_err(E::into),
        Err(_) => Err(OpsError::TimedOut),
    }
}
