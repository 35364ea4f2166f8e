//! Simulation, planted bugs, and a model of the protocol.

#[cfg(feature = "redb")]
mod simulation;

mod model;
#[cfg(all(feature = "planted", feature = "redb"))]
mod planted;
#[cfg(feature = "redb")]
mod seeds;
