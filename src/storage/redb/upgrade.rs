//! A file of an earlier format is upgraded when it is opened, one step per format.
//!
//! A step changes rows of the tables, in transactions of redb, and may be interrupted and begun anew: the header keeps
//! the old format until the steps are done and everything behind them is synced. So every step must also take rows that
//! it has changed already. Frames of the log are replayed behind the steps, by a decoder that knows every format.

use super::tables::Tables;
use crate::storage::StorageError;

type Step = fn(&Tables) -> Result<(), StorageError>;

/// The format of the file and of its rows.
pub(super) const FORMAT: u32 = 3;

/// The oldest format that can be read.
const OLDEST: u32 = 2;

/// What leads from each format, from [`OLDEST`] on, to the next one.
const STEPS: [Step; (FORMAT - OLDEST) as usize] = [
    // 3: rows of `finished` may say what the job was retried as, and the log may say so of one. Rows that say nothing
    // of it are read as they are.
    |_| Ok(()),
];

/// Errs if this program cannot read files of that format.
pub(super) fn check(format: u32) -> Result<(), StorageError> {
    match format {
        OLDEST..=FORMAT => Ok(()),
        _ if format > FORMAT => Err(StorageError::TooNew { found: format, known: FORMAT }),
        _ => Err(StorageError::Poisoned(format!(
            "the file has format {format}, this program reads {OLDEST} to {FORMAT}"
        ))),
    }
}

/// Brings tables of that format to today's.
pub(super) fn run(format: u32, tables: &Tables) -> Result<(), StorageError> {
    let done = format.saturating_sub(OLDEST) as usize;
    STEPS.iter().skip(done).try_for_each(|step| step(tables))
}
