//! Pure decisions: facts, time and chance go in; changes, launches and answers come out.
//!
//! No `async`, no clock, no random numbers, no rows, no logging, no actors. Same input, same output.
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
mod recovery;
pub mod run_status;
mod starts;
mod step;

pub use recovery::Lost;
pub use starts::Launch;
pub use step::{MAX_BATCH, Step, TurnCx, demand, step};

#[cfg(test)]
mod tests;
