//! The actors, in the only modules that use actix.
//!
//! ```text
//!   client ── Request ─────────► StoreActor ────── BatchReady ─────► MainActor
//!                                    ▲  ▲                             │    │
//!                                    │  └── Advance, RunInStore ──────┘    │ StartWorkers
//!                                    │                                     ▼
//!                                    └── AttemptsFinished ── WorkerActor ◄─ WorkerHost
//! ```
//!
//! The StoreActor and all MainActors run on the control arbiter. WorkerActors run on the worker arbiters, where a
//! WorkerHost starts them in batches and collects their reports.

mod alarm;
mod attempt;
mod hosts;
mod lifecycle;
mod main_loop;
mod messages;
pub mod network;
mod notify;
mod pulse;
mod scheduler;
mod spin;
mod start;
mod store;
mod wave;
mod worker;

pub use actix::Recipient;
pub(crate) use start::{Actors, Parts, RingError, start};
#[cfg(feature = "testing")]
pub(crate) use start::{assert_in_a_system, run_paused};
