//! The shortest whole program: one action, one pool, one result.
//!
//! ```text
//! $ cargo run --example quickstart
//! hello Ada
//! hello Grace
//! hello Barbara
//! 3 succeeded, 0 failed
//! ```

use std::time::Duration;

use actix_workpool::{Action, ActionContext, PoolConfig, Runtime, WorkError};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Greet {
    name: String,
}

impl Action for Greet {
    const NAME: &'static str = "greet";
    type Output = String;

    async fn run(self, _: ActionContext) -> Result<String, WorkError> {
        Ok(format!("hello {}", self.name))
    }
}

#[actix::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = Runtime::builder()
        .action::<Greet>()
        .pool("greetings", PoolConfig::default().max_parallelism(2))
        .start()
        .await?;
    let pool = runtime.pool("greetings")?;

    let names = ["Ada", "Grace", "Barbara"];
    let works = pool.enqueue_batch(names.map(|name| Greet { name: name.to_owned() })).await?;
    for greeting in works.join().await {
        println!("{}", greeting?);
    }

    let report = pool.diagnostics().await?.report;
    println!("{} succeeded, {} failed", report.succeeded, report.failed);
    runtime.shutdown(Duration::from_secs(5)).await;
    Ok(())
}
