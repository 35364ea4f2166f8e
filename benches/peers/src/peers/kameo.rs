use std::ops::Range;
use std::path::Path;

use kameo::mailbox;
use kameo::prelude::*;
use kameo_actors::pool::{ActorPool, Dispatch};
use peers_harness::{Job, PARALLELISM, Peer, handle_encoded};

/// A pool of actors, one for each job that may run at once.
pub struct Kameo {
    pool: ActorRef<ActorPool<Worker>>,
}

#[derive(Actor)]
struct Worker;

impl Message<Vec<u8>> for Worker {
    type Reply = ();

    async fn handle(&mut self, job: Vec<u8>, _: &mut Context<Self, ()>) {
        handle_encoded(&job);
    }
}

impl Peer for Kameo {
    async fn start(_: &Path) -> Kameo {
        // Unbounded mailboxes: with the default ones, which hold 64 messages, it runs a third fewer jobs.
        let worker = || Worker::spawn_with_mailbox(Worker, mailbox::unbounded());
        let pool = ActorPool::new(PARALLELISM, worker);
        let pool = ActorPool::spawn_with_mailbox(pool, mailbox::unbounded());
        Kameo { pool }
    }

    async fn enqueue(&mut self, numbers: Range<u64>) {
        for number in numbers {
            self.enqueue_one(number).await;
        }
    }

    async fn enqueue_one(&mut self, number: u64) {
        self.pool.tell(Dispatch(Job::encoded(number))).await.expect("the pool is alive");
    }

    /// A pool does not know what its actors have done.
    async fn settle(&mut self, _: u64) {}

    async fn durability(&mut self) -> String {
        "none".to_owned()
    }
}
