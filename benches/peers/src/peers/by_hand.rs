use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use peers_harness::{Job, PARALLELISM, Peer, handle_encoded};
use tokio::sync::Semaphore;

/// What one would write by hand: encode, spawn, wait for a permit, decode, run.
pub struct ByHand {
    permits: Arc<Semaphore>,
}

impl Peer for ByHand {
    async fn start(_: &Path) -> ByHand {
        ByHand { permits: Arc::new(Semaphore::new(PARALLELISM)) }
    }

    async fn enqueue(&mut self, numbers: Range<u64>) {
        for number in numbers {
            let job = Job::encoded(number);
            let permits = self.permits.clone();
            tokio::spawn(async move {
                let _permit = permits.acquire().await.expect("it is never closed");
                handle_encoded(&job);
            });
        }
    }

    async fn enqueue_one(&mut self, number: u64) {
        self.enqueue(number..number + 1).await;
    }

    /// There is nobody to ask.
    async fn settle(&mut self, _: u64) {}

    async fn durability(&mut self) -> String {
        "none".to_owned()
    }
}
