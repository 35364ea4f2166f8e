//! The tests that say nothing of where works are kept, once more with all of them in a file.
#![allow(clippy::duplicate_mod)] // Each brings along what it shares with the others.

#[path = "api.rs"]
mod api;
#[path = "controls.rs"]
mod controls;
#[path = "limits.rs"]
mod limits;
#[path = "listing.rs"]
mod listing;
#[path = "recovery.rs"]
mod recovery;
#[path = "retry.rs"]
mod retry;
#[path = "scripts.rs"]
mod scripts;
#[path = "state_table.rs"]
mod state_table;
#[path = "transactions.rs"]
mod transactions;
