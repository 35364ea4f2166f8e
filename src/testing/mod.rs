//! Tools for tests.
//!
//! With the feature `testing`, for programs that use this crate:
//!
//! - [`TestContext`]: call one function directly, with an [`ActionContext`](crate::ActionContext) of your making.
//! - [`TestRuntime`]: a runtime on the test's own thread and clock. [`TestRuntime::manual`] shows what was enqueued before
//!   it runs, [`TestRuntime::inline`] runs each job within its enqueue.
//! - [`run`]: a test function's body, on a clock that stands still.
//!
//! ```toml
//! [dev-dependencies]
//! actix-workpool = { version = "0.1", features = ["testing"] }
//! ```
//!
//! With that feature, and in every debug build, each argument and result is encoded, decoded and encoded again, and a
//! difference is an error.
//!
//! With the feature `unstable-storage`, for authors of storage backends: [`conformance`].

#[cfg(feature = "unstable-storage")]
pub mod conformance;
#[cfg(feature = "testing")]
mod context;
#[cfg(all(feature = "redb", feature = "unstable-storage"))]
#[doc(hidden)]
pub mod disk;
#[doc(hidden)]
pub mod doctest;
#[cfg(feature = "planted")]
#[doc(hidden)]
pub mod planted;
#[cfg(feature = "testing")]
mod runtime;
#[cfg(all(test, shuttle))]
mod threads;

#[cfg(feature = "unstable-storage")]
#[doc(hidden)]
pub use crate::actors::network;
pub use crate::shared::{Clock, SystemClock};
#[cfg(feature = "testing")]
pub use context::TestContext;
#[cfg(feature = "testing")]
pub use runtime::{EnqueuedWork, TestRuntime, run};
