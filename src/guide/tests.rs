//! Testing code that enqueues, and functions.
//!
//! Add the feature `testing` to `[dev-dependencies]`:
//!
//! ```toml
//! [dev-dependencies]
//! actix-workpool = { version = "0.1", features = ["testing"] }
//! ```
//!
//! | to test | use |
//! |---|---|
//! | one function, called directly | `testing::TestContext` |
//! | that code enqueues the right jobs | `testing::TestRuntime::manual` and `enqueued` |
//! | retries, delays, timeouts, without waiting for them | `testing::run`, `TestRuntime::start` and `advance` |
//! | code that enqueues and goes on, in a straight line | `TestRuntime::inline` |
//! | that everything survives a crash | a [`Redb`](crate::storage::Redb) file in a temporary folder, dropped and opened again |
//!
//! Each has an example in [`testing`](crate::testing).
