//! For tests: a suite that storage backends pass (feature `conformance`), and what the crate's own tests need.

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
