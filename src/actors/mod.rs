//! Carriers: the ring of actors, and the only modules that name actix.
//!
//! ```text
//!   client ── Request ─────────► StoreActor ────── BatchReady ─────► MainActor
//!                                    ▲  ▲                             │    │
//!                                    │  └── Advance, RunInStore ──────┘    │ StartWorkers
//!                                    │                                     ▼
//!                                    └── AttemptsFinished ── WorkerActor ◄─ WorkerHost
//! ```
//!
//! The StoreActor and all MainActors live on the control arbiter; WorkerActors live on the worker arbiters, where a
//! WorkerHost starts them in batches and gathers their reports.

mod attempt;
mod hosts;
mod lifecycle;
mod main_loop;
mod messages;
pub mod network;
mod notify;
mod pulse;
mod spin;
mod start;
mod store;
mod worker;

pub use actix::Recipient;
pub(crate) use start::{Actors, Parts, RingError, start};
