//! Upgrades a file of an earlier format when it is opened, one step per format.
//!
//! A step changes rows of the tables, in transactions of redb. A step may be interrupted and run again, so it must be
//! idempotent: the header keeps the old format until all steps are done and everything is synced. Frames of the log are
//! replayed after the steps, by a decoder that knows every format.

use super::tables::Tables;
use crate::storage::StorageError;

type Step = fn(&Tables) -> Result<(), StorageError>;

/// The format of the file and of its rows.
pub(super) const FORMAT: u32 = 6;

/// The oldest format that this version reads.
const OLDEST: u32 = 2;

/// The steps from each format, starting with [`OLDEST`], to the next.
const STEPS: [Step; (FORMAT - OLDEST) as usize] = [
    // 3: rows of `finished`, and the log, may say what the job was retried as. Rows without it are read as they are.
    |_| Ok(()),
    // 4: the log may have jobs that are enqueued and started in one change.
    |_| Ok(()),
    // 5: jobs may have another priority than the normal one, a cost and a unique key, and pools a rate. Rows and changes
    // without them are read as they are; the table of unique keys is new.
    Tables::make_unique,
    // 6: jobs may have a key, and wait in other places than the queue. Rows and changes without them are read as they
    // are; the tables of jobs that are ready or in lanes are new.
    Tables::make_lanes,
];

/// Fails if this program cannot read files of that format.
pub(super) fn check(format: u32) -> Result<(), StorageError> {
    match format {
        OLDEST..=FORMAT => Ok(()),
        _ if format > FORMAT => Err(StorageError::TooNew { found: format, known: FORMAT }),
        _ => Err(StorageError::Poisoned(format!(
            "the file has format {format}, this program reads {OLDEST} to {FORMAT}"
        ))),
    }
}

/// Upgrades tables of that format to the current one.
pub(super) fn run(format: u32, tables: &Tables) -> Result<(), StorageError> {
    let done = format.saturating_sub(OLDEST) as usize;
    STEPS.iter().skip(done).try_for_each(|step| step(tables))
}
