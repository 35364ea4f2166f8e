//! Test support: a conformance suite for storage backends (feature `unstable-storage`) and tools for the crate's own tests.

#[cfg(feature = "unstable-storage")]
pub mod conformance;
#[cfg(all(feature = "redb", feature = "unstable-storage"))]
#[doc(hidden)]
pub mod disk;
#[doc(hidden)]
pub mod doctest;
#[cfg(feature = "planted")]
#[doc(hidden)]
pub mod planted;
#[cfg(all(test, shuttle))]
mod threads;

#[cfg(feature = "unstable-storage")]
#[doc(hidden)]
pub use crate::actors::network;
