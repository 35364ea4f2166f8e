//! Test support: a conformance suite for storage backends (feature `conformance`) and tools for the crate's own tests.

#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(all(feature = "redb", feature = "conformance"))]
#[doc(hidden)]
pub mod disk;
#[doc(hidden)]
pub mod doctest;
#[cfg(feature = "planted")]
#[doc(hidden)]
pub mod planted;
#[cfg(all(test, shuttle))]
mod threads;

#[cfg(feature = "conformance")]
#[doc(hidden)]
pub use crate::actors::network;
