//! A partner's API that takes five requests in a second: customers who pay come first, the requests of each customer are in
//! order, and a "429" lets everybody rest.
//!
//! ```text
//! $ cargo run --example limits
//!   0.00 s  paying customer 3, step 1
//!   0.00 s  customer 0, step 1
//!   0.00 s  customer 1, step 1
//!   0.20 s  paying customer 3, step 2
//!   0.40 s  customer 2, step 1
//!   0.60 s  customer 4, step 1: 429, the pool rests for a second
//!   1.60 s  customer 4, step 1
//!   1.80 s  customer 0, step 2
//!   …
//! 10 jobs, 10 attempts that count
//! ```

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use actix_workpool::{
    Action, ActionContext, KeyRule, PoolConfig, Priority, Rate, Runtime, WorkError, WorkFilter,
};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Sync {
    customer: u32,
    step: u32,
    pays: bool,
}

/// The partner, who has had enough once.
struct Partner {
    begun: Instant,
    requests: AtomicU32,
}

impl Partner {
    fn request(&self, who: &str) -> Result<(), WorkError> {
        let at = self.begun.elapsed().as_secs_f64();
        if self.requests.fetch_add(1, Ordering::Relaxed) == 5 {
            println!("{at:6.2} s  {who}: 429, the pool rests for a second");
            return Err(WorkError::limit_pool(Duration::from_secs(1)));
        }
        println!("{at:6.2} s  {who}");
        Ok(())
    }
}

impl Action for Sync {
    const NAME: &'static str = "sync";
    type Output = ();

    async fn run(self, cx: ActionContext) -> Result<(), WorkError> {
        let kind = if self.pays { "paying customer" } else { "customer" };
        cx.data::<Partner>().request(&format!("{kind} {}, step {}", self.customer, self.step))
    }
}

#[actix::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rate = Rate::per_second(5).burst(3);
    let runtime = Runtime::builder()
        .action::<Sync>()
        .data(Partner { begun: Instant::now(), requests: AtomicU32::new(0) })
        .pool("partner", PoolConfig::default().rate(rate).per_key(KeyRule::ordered()).paused(true))
        .start()
        .await?;
    let pool = runtime.pool("partner")?;
    for customer in 0..5 {
        let pays = customer == 3;
        let priority = if pays { Priority::HIGH } else { Priority::NORMAL };
        let steps = (1..=2).map(|step| Sync { customer, step, pays });
        let key = format!("customer-{customer}");
        pool.enqueue_batch(steps).key(key).priority(priority).await?;
    }
    pool.resume().await?;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let waiting = pool.works(WorkFilter::pending().limit(1)).await?.works;
    if let Some(first) = waiting.first() {
        println!("          {}", pool.explain(first.work_id).await?);
    }
    pool.idle().await?;
    let report = pool.diagnostics().await?.report;
    println!("{} jobs, {} attempts that count", report.succeeded, report.completed);
    runtime.shutdown(Duration::from_secs(1)).await;
    Ok(())
}
