use std::ops::Range;
use std::path::Path;

use peers_harness::{Job, PARALLELISM, Peer, handle_encoded};
use ractor::factory::queues::DefaultQueue;
use ractor::factory::routing::QueuerRouting;
use ractor::factory::{
    Factory, FactoryArguments, FactoryMessage, FactoryRef, Job as Dispatched, Worker, WorkerId,
    worker_builder,
};
use ractor::{Actor, ActorProcessingErr, ActorRef};

/// A factory of actors, one for each job that may run at once.
pub struct Ractor {
    factory: FactoryRef<u64, Encoded>,
}

#[derive(Debug)]
pub struct Encoded(Vec<u8>);

struct Handler;

impl Worker for Handler {
    type Key = u64;
    type Message = Encoded;
    type Arguments = ();
    type State = ();

    async fn pre_start(
        &self,
        _: WorkerId,
        _: &ActorRef<FactoryMessage<u64, Encoded>>,
        (): (),
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(
        &self,
        _: WorkerId,
        _: &ActorRef<FactoryMessage<u64, Encoded>>,
        Dispatched { key, msg, .. }: Dispatched<u64, Encoded>,
        (): &mut (),
    ) -> Result<u64, ActorProcessingErr> {
        handle_encoded(&msg.0);
        Ok(key)
    }
}

impl Peer for Ractor {
    async fn start(_: &Path) -> Ractor {
        let factory = Factory::<
            u64,
            Encoded,
            (),
            Handler,
            QueuerRouting<u64, Encoded>,
            DefaultQueue<u64, Encoded>,
        >::default();
        // One queue for all workers, as in its own benchmark.
        let arguments = FactoryArguments::builder()
            .worker_builder(Box::new(worker_builder(|_| (Handler, ()))))
            .num_initial_workers(PARALLELISM)
            .router(QueuerRouting::default())
            .queue(DefaultQueue::default())
            .build();
        let (factory, _) = Actor::spawn(None, factory, arguments).await.expect("it starts");
        Ractor { factory }
    }

    async fn enqueue(&mut self, numbers: Range<u64>) {
        for number in numbers {
            self.enqueue_one(number).await;
        }
    }

    async fn enqueue_one(&mut self, number: u64) {
        let job = Encoded(Job::encoded(number));
        self.factory.dispatch(number, job).expect("the factory is alive");
    }

    async fn settle(&mut self, _: u64) {
        loop {
            let queued = self.factory.queue_depth(None).await.expect("it answers");
            let active = self.factory.active_workers(None).await.expect("it answers");
            if queued.expect("no limit of time") + active.expect("no limit of time") == 0 {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    async fn durability(&mut self) -> String {
        "none".to_owned()
    }
}
