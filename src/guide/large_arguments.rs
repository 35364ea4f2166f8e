//! Large arguments and results.
//!
//! Arguments and results are stored as JSON. [`PoolConfig::max_payload_bytes`](crate::PoolConfig::max_payload_bytes) limits each of
//! them: 1 MiB by default. Larger arguments are refused at the enqueue; a larger result fails the job.
//!
//! For bytes use [`Bytes`](crate::Bytes): it is base64 in JSON and takes 1.33 times its size, where a `Vec<u8>` takes 3.6 times.
//!
//! ```
//! use actix_workpool::{BlockingAction, ActionContext, Bytes, WorkError};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Checksum { data: Bytes }
//!
//! impl BlockingAction for Checksum {
//!     const NAME: &'static str = "checksum";
//!     type Output = u64;
//!     fn run(self, _: &ActionContext) -> Result<u64, WorkError> {
//!         Ok(self.data.iter().map(|byte| u64::from(*byte)).sum())
//!     }
//! }
//! ```
//!
//! Put a file of more than a few hundred KiB where all workers can read it, and pass its path or key. The arguments of waiting jobs
//! are in memory or in the file, and every page of a listing reads some of them.
//!
//! # What JSON cannot carry
//!
//! NaN, infinite numbers, `Some(None)`, `Some(())` and more than 127 levels of nesting would come back changed or not at all. They are
//! refused with the name of the field: at the enqueue, or, for a result, by failing the attempt. Debug builds also decode and encode
//! every value again, and refuse one that differs.
//!
//! # Changing a type
//!
//! Jobs that wait in a file were written by an earlier version of the program. Add fields with `#[serde(default)]`, and give a
//! function whose arguments change entirely a new `NAME`; register the old one until its jobs are done. A job whose arguments do not
//! decode fails at once and names the field, and the dashboard can retry it later.
