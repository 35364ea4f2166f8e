use std::ops::Range;
use std::path::Path;

use actix_workpool::storage::{Memory, Redb, Storage};
use actix_workpool::{Action, ActionContext, PoolConfig, Runtime, WorkError, Workpool};
use peers_harness::{Job, PARALLELISM, Peer, handle};
use serde::{Deserialize, Serialize};

/// Jobs in memory.
pub struct InMemory(Pool);

/// Jobs in a file.
pub struct InFile(Pool);

struct Pool {
    pool: Workpool,
    /// Stops the pool when it is dropped.
    _runtime: Runtime,
}

#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Noop(Job);

impl Action for Noop {
    const NAME: &'static str = "noop";
    type Output = ();

    async fn run(self, _: ActionContext) -> Result<(), WorkError> {
        handle(self.0);
        Ok(())
    }
}

impl Pool {
    async fn start(storage: impl Storage) -> Pool {
        let runtime = Runtime::builder()
            .storage(storage)
            .action::<Noop>()
            .pool("peers", PoolConfig::default().max_parallelism(PARALLELISM))
            .start()
            .await
            .expect("the runtime starts");
        Pool { pool: runtime.pool("peers").expect("it is there"), _runtime: runtime }
    }

    async fn enqueue(&self, numbers: Range<u64>) {
        let works = numbers.map(|number| Noop(Job::new(number)));
        self.pool.enqueue_batch(works).await.expect("enqueued");
    }

    async fn settle(&self, jobs: u64) {
        self.pool.idle().await.expect("the pool is there");
        let report = self.pool.diagnostics().await.expect("the pool is there").report;
        assert_eq!(report.succeeded, jobs, "the pool counts what has run");
    }
}

impl Peer for InMemory {
    async fn start(_: &Path) -> InMemory {
        InMemory(Pool::start(Memory::new()).await)
    }

    async fn enqueue(&mut self, numbers: Range<u64>) {
        self.0.enqueue(numbers).await;
    }

    async fn enqueue_one(&mut self, number: u64) {
        // Like a message to an actor: without waiting for an acknowledgement.
        self.0.pool.do_enqueue(Noop(Job::new(number))).expect("enqueued");
    }

    async fn settle(&mut self, jobs: u64) {
        self.0.settle(jobs).await;
    }

    async fn durability(&mut self) -> String {
        "none".to_owned()
    }
}

impl Peer for InFile {
    async fn start(folder: &Path) -> InFile {
        let storage = Redb::open(folder.join("jobs.redb")).expect("the file opens");
        InFile(Pool::start(storage).await)
    }

    async fn enqueue(&mut self, numbers: Range<u64>) {
        self.0.enqueue(numbers).await;
    }

    async fn enqueue_one(&mut self, number: u64) {
        self.0.pool.enqueue(Noop(Job::new(number))).await.expect("enqueued");
    }

    async fn settle(&mut self, jobs: u64) {
        self.0.settle(jobs).await;
    }

    async fn durability(&mut self) -> String {
        "fsync of each group of commits".to_owned()
    }
}
