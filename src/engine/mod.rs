//! Pure decision functions: they take facts, time and random numbers, and return changes, launches and answers.
//!
//! No `async`, no clock, no random generator, no storage, no logging, no actors. Same input, same output.
//!
//! ```text
//!  arrivals ─ one message of a caller or worker → one Change
//!  step ───── one turn of a pool's loop:
//!               completions → cancelations → recovery → starts → report → cursors
//! ```

pub mod arrivals;
pub mod backoff;
mod cancelations;
mod completions;
mod draft;
pub(crate) mod explain;
pub(crate) mod lanes;
pub(crate) mod limit;
mod recovery;
pub mod rest;
pub(crate) mod schedules;
mod starts;
pub(crate) mod step;

pub use draft::Launch;
pub use explain::{Ahead, Basis, Expected, Explanation, Why};
pub use recovery::Lost;
pub use step::{Step, TurnCx, demand, step};

#[cfg(test)]
mod tests;
