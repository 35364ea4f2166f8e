//! A checkpoint that runs concurrently with commits: on its own thread, or, in tests, during a later call.

use std::io;
use std::thread::JoinHandle;

use crate::storage::StorageError;

/// The result of a checkpoint: `Ok` if the sealed layer is in the tables.
pub(super) type Written = Result<(), StorageError>;

/// Where checkpoints run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Checkpoints {
    /// On their own thread.
    OnThread,
    /// On the commit thread, each up to so many calls later: for tests whose steps must not depend on threads.
    #[cfg(feature = "unstable-storage")]
    Within(u32),
}

/// A checkpoint in progress.
pub(super) enum Checkpoint {
    OnThread(JoinHandle<Written>),
    #[cfg(feature = "unstable-storage")]
    Later {
        calls: u32,
        write: Box<dyn FnOnce() -> Written + Send + Sync>,
    },
}

impl Checkpoints {
    /// Begins a checkpoint. For `Within`, draws the number of calls after which it ends.
    pub(super) fn begin(
        self,
        write: impl FnOnce() -> Written + Send + Sync + 'static,
    ) -> io::Result<Checkpoint> {
        match self {
            Checkpoints::OnThread => {
                let thread = std::thread::Builder::new().name("workpool-checkpoint".into());
                thread.spawn(write).map(Checkpoint::OnThread)
            }
            #[cfg(feature = "unstable-storage")]
            Checkpoints::Within(most) => {
                let (calls, write) = (fastrand::u32(..=most), Box::new(write));
                Ok(Checkpoint::Later { calls, write })
            }
        }
    }
}

impl Checkpoint {
    /// Returns `true` if the checkpoint has ended. Called on every call of the storage; a checkpoint whose tables have
    /// failed ends soon.
    #[cfg_attr(
        not(feature = "unstable-storage"),
        expect(unused_variables, reason = "a thread notices by itself")
    )]
    pub fn has_ended(&mut self, failed: bool) -> bool {
        match self {
            Checkpoint::OnThread(thread) => thread.is_finished(),
            #[cfg(feature = "unstable-storage")]
            Checkpoint::Later { calls, .. } => {
                let ended = failed || *calls == 0;
                *calls = calls.saturating_sub(1);
                ended
            }
        }
    }

    /// Waits until the checkpoint has ended.
    pub fn end(self) -> Written {
        let written = match self {
            Checkpoint::OnThread(thread) => thread.join(),
            #[cfg(feature = "unstable-storage")]
            Checkpoint::Later { write, .. } => {
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(write))
            }
        };
        let panicked = |_| Err(StorageError::Poisoned("a checkpoint panicked".into()));
        written.unwrap_or_else(panicked)
    }
}
