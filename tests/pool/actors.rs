//! Actors that enqueue and are told.

use crate::common::*;
use crate::support::*;
use actix::prelude::*;
use actix_workpool::{Completed, WorkId, Workpool};

type Echoed = Completed<actix_workpool::Call<u64, u64>, u64>;

type Deposited = Completed<Deposit, u64>;

/// Hears of completions, and enqueues from its handlers.
struct Clerk {
    pool: Option<Workpool>,
    heard: tokio::sync::mpsc::UnboundedSender<(WorkId, String)>,
}

impl Actor for Clerk {
    type Context = Context<Self>;
}

impl Handler<Echoed> for Clerk {
    type Result = ();

    fn handle(&mut self, done: Echoed, _: &mut Self::Context) {
        let said = format!("echo {:?} {}", done.result, done.attempts);
        let _ = self.heard.send((done.work_id, said));
    }
}

impl Handler<Deposited> for Clerk {
    type Result = ();

    fn handle(&mut self, done: Deposited, _: &mut Self::Context) {
        let _ = self.heard.send((done.work_id, format!("deposit {:?}", done.result)));
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Order(u64);

impl Handler<Order> for Clerk {
    type Result = ();

    fn handle(&mut self, Order(n): Order, ctx: &mut Self::Context) {
        let pool = self.pool.as_ref().unwrap();
        pool.enqueue(ECHO.call(n))
            .notify(ctx.address().recipient::<Echoed>())
            .do_enqueue()
            .unwrap();
        pool.do_enqueue(ECHO.call(n)).unwrap();
    }
}

#[test]
fn an_actor_is_told_of_each_completion_by_type() {
    on_each_store(|| {
        run_paused(async {
            let builder = builder().echo().mutation::<Deposit>();
            let (runtime, pool) = start(builder, config()).await;
            let (heard, mut told) = tokio::sync::mpsc::unbounded_channel();
            let clerk = Clerk { pool: None, heard }.start();
            let echo = pool.enqueue(ECHO.call(5)).notify(clerk.clone().recipient::<Echoed>());
            let echo = echo.await.unwrap();
            assert_eq!(told.recv().await.unwrap(), (echo.id(), "echo Success(5) 1".into()));
            let deposit = Deposit { account: "a".into(), amount: 3 };
            let deposit = pool.enqueue(deposit).notify(clerk.clone().recipient::<Deposited>());
            let deposit = deposit.await.unwrap();
            assert_eq!(told.recv().await.unwrap(), (deposit.id(), "deposit Success(3)".into()));
            let canceled = pool
                .enqueue(ECHO.call(6))
                .run_after(secs(5))
                .notify(clerk.recipient::<Echoed>())
                .await
                .unwrap();
            canceled.cancel().await.unwrap();
            assert_eq!(told.recv().await.unwrap(), (canceled.id(), "echo Canceled 0".into()));
            assert!(told.try_recv().is_err(), "each is told once");
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn an_actor_enqueues_from_its_handler() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool) = start(builder().echo(), config()).await;
            let (heard, mut told) = tokio::sync::mpsc::unbounded_channel();
            let clerk = Clerk { pool: Some(pool.clone()), heard }.start();
            for n in 0..10 {
                clerk.do_send(Order(n));
            }
            for n in 0..10 {
                assert_eq!(told.recv().await.unwrap().1, format!("echo Success({n}) 1"));
            }
            while pool.pending() > 0 {
                settle().await;
            }
            assert_eq!(pool.diagnostics().await.unwrap().report.succeeded, 20);
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn an_actor_that_asks_for_a_known_id_is_told_of_its_completion() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool, gate) = gated(config()).await;
            let (heard, mut told) = tokio::sync::mpsc::unbounded_channel();
            let clerk = Clerk { pool: None, heard }.start().recipient::<Echoed>();
            let work = pool.enqueue(TASK.call(1)).id(id(1)).await.unwrap();
            let again = pool.enqueue(TASK.call(2)).id(id(1)).notify(clerk.clone());
            again.await.unwrap();
            gate.open();
            work.join().await.unwrap();
            assert_eq!(told.recv().await.unwrap().1, "echo Success(1) 1");
            // It has completed: the actor is told at once, or it would wait for ever.
            pool.enqueue(TASK.call(3)).id(id(1)).notify(clerk).await.unwrap();
            assert_eq!(soon(told.recv()).await.unwrap().1, "echo Success(1) 1");
            runtime.shutdown(secs(1)).await;
        });
    });
}

#[test]
fn an_actor_that_is_gone_hinders_nobody() {
    on_each_store(|| {
        run_paused(async {
            let (runtime, pool) = start(builder().echo(), config()).await;
            let (heard, told) = tokio::sync::mpsc::unbounded_channel();
            drop(told);
            let clerk = Clerk { pool: None, heard }.start();
            let work = pool
                .enqueue(ECHO.call(1))
                .run_after(secs(1))
                .notify(clerk.recipient::<Echoed>())
                .await
                .unwrap();
            assert_eq!(work.join().await, Ok(1));
            assert_eq!(pool.enqueue(ECHO.call(2)).await.unwrap().join().await, Ok(2));
            runtime.shutdown(secs(1)).await;
        });
    });
}
