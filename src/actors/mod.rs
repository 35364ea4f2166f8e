//! Carriers: the ring of actors, and the only modules that name actix.
//!
//! ```text
//!   handle ── Request ─────────► StoreActor ────── BatchReady ─────► MainActor
//!                                    ▲  ▲                             │    │
//!                                    │  └───────── Advance ───────────┘    │ StartWorkers
//!                                    │                                     ▼
//!                                    └── AttemptsFinished ── WorkerActor ◄─ WorkerHost
//! ```
//!
//! The StoreActor and all MainActors live on the control arbiter; WorkerActors live on the worker arbiters, where a
//! WorkerHost starts them in batches and gathers their reports.

mod boot;
mod hosts;
mod linger;
mod main_loop;
mod messages;
pub mod post;
mod store;
mod worker;

pub use actix::Recipient;
pub(crate) use boot::{Actors, start};
pub(crate) use messages::{Drained, Inspection, MainPort, RunningAttempt, StorePort, notifier};
