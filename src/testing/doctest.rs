//! The setup code that the examples in the documentation hide.

use std::future::Future;

use serde::{Deserialize, Serialize};

use crate::{Action, ActionContext, PoolConfig, Runtime, WorkError};

/// Runs an example in a plain tokio program.
pub fn run(example: impl Future<Output = Result<(), Box<dyn std::error::Error>>>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a tokio runtime can be made");
    runtime.block_on(example).expect("the example succeeds");
}

/// An action that doubles a number.
#[derive(Debug, Serialize, Deserialize)]
pub struct Double(pub u64);

impl Action for Double {
    const NAME: &'static str = "double";
    type Output = u64;

    async fn run(self, _: ActionContext) -> Result<u64, WorkError> {
        self.0.checked_mul(2).ok_or_else(|| WorkError::non_retryable("too large"))
    }
}

/// Starts a runtime with [`Double`] and a pool named `default`.
///
/// # Errors
/// Fails if the runtime does not start.
pub async fn runtime() -> Result<Runtime, Box<dyn std::error::Error>> {
    let builder = Runtime::builder().action::<Double>().pool("default", PoolConfig::default());
    Ok(builder.start().await?)
}
