//! Events for the log, and metrics. Names and emission only.

#[cfg(feature = "metrics")]
pub mod metrics;
#[cfg(not(feature = "metrics"))]
pub(crate) mod metrics;
pub mod telemetry;
