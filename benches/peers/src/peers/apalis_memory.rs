use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use apalis::prelude::*;
use apalis_core::backend::memory::{MemorySink, MemoryStorage, MemoryStorageError};
use futures::channel::mpsc;
use futures::lock::Mutex;
use futures::{SinkExt, StreamExt, stream};
use peers_harness::{Job, PARALLELISM, Peer, handle_encoded};

/// One worker on the storage in memory.
pub struct ApalisMemory {
    jobs: MemorySink<Vec<u8>>,
}

/// A storage, and a sink for its jobs: the storage has one of its own, but it goes to the worker.
fn storage() -> (MemorySink<Vec<u8>>, MemoryStorage<Vec<u8>>) {
    fn sink(sender: mpsc::UnboundedSender<Task<Vec<u8>>>) -> MemorySink<Vec<u8>> {
        MemorySink::new(Arc::new(Mutex::new(Box::new(
            sender.sink_map_err(MemoryStorageError::SendError),
        ))))
    }
    let (sender, receiver) = mpsc::unbounded();
    // Two sinks on one channel: they do not wait for each other.
    (sink(sender.clone()), MemoryStorage::new_with(sink(sender), receiver.boxed()))
}

async fn run(job: Vec<u8>) {
    handle_encoded(&job);
}

impl Peer for ApalisMemory {
    async fn start(_: &Path) -> ApalisMemory {
        let (jobs, storage) = storage();
        // The worker polls its jobs in one task: with `parallelize`, each in a task of its own, it is slower.
        let worker = WorkerBuilder::new("peers").backend(storage).concurrency(PARALLELISM);
        tokio::spawn(worker.build(run).run());
        ApalisMemory { jobs }
    }

    async fn enqueue(&mut self, numbers: Range<u64>) {
        let jobs = numbers.map(|number| Ok(TaskBuilder::new(Job::encoded(number)).build()));
        self.jobs.send_all(&mut stream::iter(jobs)).await.expect("the worker is alive");
    }

    async fn enqueue_one(&mut self, number: u64) {
        self.enqueue(number..number + 1).await;
    }

    /// The storage is a channel, which forgets what it has given to the worker.
    async fn settle(&mut self, _: u64) {}

    async fn durability(&mut self) -> String {
        "none".to_owned()
    }
}
