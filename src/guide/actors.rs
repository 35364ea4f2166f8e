//! Actors.
//!
//! A [`Workpool`](crate::Workpool) is `Clone + Send + Sync`: keep it as a field of an actor. A handler that must not wait enqueues with
//! [`do_enqueue`](crate::Workpool::do_enqueue), and gets the outcome as a [`Completed`](crate::Completed) message with
//! [`notify`](crate::Enqueue::notify).
//!
//! ```
//! use actix::prelude::*;
//! use actix_workpool::{Completed, CompletionResult, Workpool};
//! # use actix_workpool::{doctest, doctest::Double};
//!
//! struct Calculator { pool: Workpool, results: Vec<u64> }
//!
//! impl Actor for Calculator {
//!     type Context = Context<Self>;
//! }
//!
//! #[derive(Message)]
//! #[rtype(result = "()")]
//! struct Begin(u64);
//!
//! impl Handler<Begin> for Calculator {
//!     type Result = ();
//!     fn handle(&mut self, Begin(number): Begin, ctx: &mut Self::Context) {
//!         let outcome = ctx.address().recipient();
//!         if let Err(error) = self.pool.enqueue(Double(number)).notify(outcome).do_enqueue() {
//!             println!("not enqueued: {error}");
//!         }
//!     }
//! }
//!
//! // The message names the function, so that one actor can tell several apart.
//! impl Handler<Completed<Double, u64>> for Calculator {
//!     type Result = ();
//!     fn handle(&mut self, done: Completed<Double, u64>, _: &mut Self::Context) {
//!         if let CompletionResult::Success(number) = done.result {
//!             self.results.push(number);
//!         }
//!     }
//! }
//! # let system = actix::System::new();
//! # system.block_on(async {
//! #     let runtime = doctest::runtime().await.unwrap();
//! #     let pool = runtime.pool("default").unwrap();
//! #     let actor = Calculator { pool: pool.clone(), results: Vec::new() }.start();
//! #     actor.send(Begin(2)).await.unwrap();
//! #     pool.idle().await.unwrap();
//! #     runtime.shutdown(std::time::Duration::ZERO).await;
//! # });
//! ```
//!
//! The message is sent once, by this process: a job that completes after a restart sends none. Use an
//! [`OnComplete`](crate::OnComplete) where no completion may be missed.
//!
//! The future of an [`Action`](crate::Action) need not be `Send`: it runs on one arbiter from its begin to its end, and may use `Rc` and
//! addresses of actors.
