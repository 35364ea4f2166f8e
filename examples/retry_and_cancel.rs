//! Retries with backoff, a job that is canceled and says goodbye, and one that has to be aborted.
//!
//! ```text
//! $ cargo run --example retry_and_cancel
//! fetch: waits, failed attempts: 0
//! fetch: attempt 1 runs
//! fetch: waits, failed attempts: 1
//! fetch: attempt 2 runs
//! fetch: waits, failed attempts: 2
//! fetch: attempt 3 runs
//! fetch: success after 3 attempts
//! countdown: told to stop, cleaning up
//! countdown: work was canceled
//! stubborn: dropped
//! stubborn: work was canceled
//! ```

use std::time::Duration;

use actix_workpool::{
    Action, ActionContext, PoolConfig, RetryBehavior, Runtime, WorkError, WorkHandle, WorkStatus,
};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

const SHORT: Duration = Duration::from_millis(200);

/// Fails until its third attempt.
#[derive(Serialize, Deserialize)]
struct Fetch;

impl Action for Fetch {
    const NAME: &'static str = "fetch";
    type Output = String;

    async fn run(self, cx: ActionContext) -> Result<String, WorkError> {
        sleep(SHORT).await;
        match cx.attempt() {
            1 => Err(WorkError::retryable("connection reset")),
            // It knows better than the backoff how long to wait.
            2 => Err(WorkError::retry_after(SHORT, "too many requests")),
            _ => Ok("<html>".to_owned()),
        }
    }
}

/// Looks whether it should stop.
#[derive(Serialize, Deserialize)]
struct Countdown {
    seconds: u32,
}

impl Action for Countdown {
    const NAME: &'static str = "countdown";
    type Output = ();

    async fn run(self, cx: ActionContext) -> Result<(), WorkError> {
        tokio::select! {
            () = sleep(Duration::from_secs(self.seconds.into())) => Ok(()),
            () = cx.canceled() => {
                println!("countdown: told to stop, cleaning up");
                Err(WorkError::canceled())
            }
        }
    }
}

/// Never looks up. It can only be dropped, and what it holds cleans up then.
#[derive(Serialize, Deserialize)]
struct Stubborn;

struct Lock;

impl Drop for Lock {
    fn drop(&mut self) {
        println!("stubborn: dropped");
    }
}

impl Action for Stubborn {
    const NAME: &'static str = "stubborn";
    type Output = ();

    async fn run(self, _: ActionContext) -> Result<(), WorkError> {
        let _lock = Lock;
        std::future::pending().await
    }
}

#[actix::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = Runtime::builder()
        .action::<Fetch>()
        .action::<Countdown>()
        .action::<Stubborn>()
        .pool("demo", PoolConfig::default())
        .start()
        .await?;
    let pool = runtime.pool("demo")?;

    let patient = RetryBehavior::default().max_attempts(4).initial_backoff(SHORT);
    let fetch = pool.enqueue(Fetch).retry(patient).run_after(SHORT).await?;
    let mut changes = fetch.watch();
    while let Some(status) = changes.next().await {
        println!("fetch: {}", describe(&status));
    }

    let countdown = pool.enqueue(Countdown { seconds: 3600 }).await?;
    until_running(&countdown).await;
    countdown.cancel().await?;
    if let Err(error) = countdown.join().await {
        println!("countdown: {error}");
    }

    let stubborn = pool.enqueue(Stubborn).await?;
    until_running(&stubborn).await;
    stubborn.abort(SHORT).await?;
    if let Err(error) = stubborn.join().await {
        println!("stubborn: {error}");
    }

    runtime.shutdown(Duration::from_secs(5)).await;
    Ok(())
}

fn describe(status: &WorkStatus) -> String {
    match status {
        WorkStatus::Pending { previous_attempts, .. } => {
            format!("waits, failed attempts: {previous_attempts}")
        }
        WorkStatus::Running { previous_attempts, .. } => {
            format!("attempt {} runs", previous_attempts + 1)
        }
        WorkStatus::Finished(row) => {
            format!("{} after {} attempts", row.outcome().as_str(), row.attempts())
        }
        WorkStatus::Unknown => "not known".to_owned(),
        other => format!("{other:?}"),
    }
}

/// A job that waits is canceled without ever running; these are to be canceled while they run.
async fn until_running<O>(work: &WorkHandle<O>) {
    let mut changes = work.watch();
    while let Some(status) = changes.next().await {
        if matches!(status, WorkStatus::Running { .. }) {
            return;
        }
    }
}
