//! What is measured of a job library, the same for all: a process of its own starts one [`Peer`], gives it jobs, counts
//! what its handler runs, and prints one [`Report`].

use std::future::Future;
use std::ops::Range;
use std::path::Path;

pub use child::{Child, Command, Measure, Report, run_child};
pub use job::Job;
pub use sqlite::sqlite_durability;
pub use tally::{handle, handle_encoded};

mod child;
mod disk;
mod job;
mod sqlite;
mod tally;

/// Jobs that run at once.
pub const PARALLELISM: usize = 64;

/// Jobs that are enqueued at once.
pub const BATCH: u64 = 1_000;

/// A job library, set up as its documentation recommends for speed. Its handler calls [`handle`], or [`handle_encoded`]
/// if the library leaves the decoding to its user.
pub trait Peer: Sized {
    /// Starts it, with its files in the folder, which is new and empty.
    fn start(folder: &Path) -> impl Future<Output = Self>;

    /// Enqueues the jobs with these numbers, in the fastest way that it has.
    fn enqueue(&mut self, numbers: Range<u64>) -> impl Future<Output = ()>;

    /// Enqueues one job, in the fastest way that it has.
    fn enqueue_one(&mut self, number: u64) -> impl Future<Output = ()>;

    /// Every handler has run: waits until the library, too, says that these so many jobs are done.
    fn settle(&mut self, jobs: u64) -> impl Future<Output = ()>;

    /// What survives, in words: as asked of the library, where it can be asked.
    fn durability(&mut self) -> impl Future<Output = String>;

    /// Ends it, for those that do not like to be dropped.
    fn stop(self) -> impl Future<Output = ()> {
        async { drop(self) }
    }
}
