//! Pacing: reads of pools that do not slow the pools down.
//!
//! Callers ask the store one at a time, with a pause after each answer that is much longer than the look-up. A caller
//! gives up if the store does not answer; its turn ends only with the store's answer, so that abandoned requests do not
//! pile up.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use super::OpsError;
use crate::client::PoolError;

/// The maximum time that a caller waits for a store that is busy or does not answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A queue in which callers ask the store one after the other.
#[derive(Clone, Default)]
pub(super) struct Turns(Arc<Mutex<()>>);

impl Turns {
    /// Asks when it is this caller's turn. The answer contains the length of the pause after it.
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

/// Runs a request to its end even if the caller gives up; until then the request keeps its locks.
pub(super) async fn until_answered<T: Send + 'static, E: Send + From<PoolError> + 'static>(
    answer: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<T, E> {
    // It fails only if its runtime ends.
    tokio::spawn(answer).await.map_err(|_| PoolError::Closed)?
}

/// Limits the wait for a store that does not answer.
pub(super) async fn in_time<T, E: Into<OpsError>>(
    answer: impl Future<Output = Result<T, E>>,
) -> Result<T, OpsError> {
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(answer) => answer.map_err(E::into),
        Err(_) => Err(OpsError::TimedOut),
    }
}
