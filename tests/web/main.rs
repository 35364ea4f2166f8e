//! The dashboard: its API and pages, over real sockets, and over a million jobs.
#![cfg(feature = "actix-web")]

#[path = "../common/mod.rs"]
mod common;

#[cfg(feature = "redb")]
mod at_scale;
mod dashboard;
mod keys;
mod pages;
mod service;
mod shown;
