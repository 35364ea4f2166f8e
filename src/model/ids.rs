//! Identities: jobs, pools, runs, generations.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The identity of a job: a UUID, version 7 when the handle makes it.
///
/// Enqueueing the same id twice enqueues once, so an id chosen by the caller makes a repeated request harmless.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WorkId(Uuid);

impl WorkId {
    /// Makes an id from any UUID.
    #[must_use]
    pub const fn from_uuid(uuid: Uuid) -> WorkId {
        WorkId(uuid)
    }

    /// Returns the id as a UUID.
    #[must_use]
    pub const fn as_uuid(&self) -> Uuid {
        self.0
    }

    /// Returns the id as a number, for hashing and for rows.
    #[must_use]
    pub const fn as_u128(&self) -> u128 {
        self.0.as_u128()
    }
}

impl WorkId {
    /// Makes an id that no other job has: a UUID of version 7, like those of jobs that are enqueued without an id.
    #[must_use]
    pub fn random() -> WorkId {
        WorkId(Uuid::now_v7())
    }

    /// Makes the id that belongs to a name, always the same: a UUID of version 5. Use it to enqueue one job for one
    /// thing, however often the request for it arrives.
    ///
    /// ```
    /// use actix_workpool::WorkId;
    ///
    /// assert_eq!(WorkId::from_name("invoice-2026-07"), WorkId::from_name("invoice-2026-07"));
    /// assert_ne!(WorkId::from_name("invoice-2026-07"), WorkId::from_name("invoice-2026-08"));
    /// assert_ne!(WorkId::random(), WorkId::random());
    /// ```
    #[must_use]
    pub fn from_name(name: &str) -> WorkId {
        /// The namespace of these ids, drawn at random.
        const NAMES: Uuid = Uuid::from_u128(0x1d7b_0c35_43aa_4be5_9e0a_52c4_e86d_7f19);
        WorkId(Uuid::new_v5(&NAMES, name.as_bytes()))
    }

    /// Returns the id under which a failed job is enqueued once more. It is always the same, so that this happens once.
    pub(crate) fn once_more(self) -> WorkId {
        /// The namespace of these ids, drawn at random.
        const RETRIES: Uuid = Uuid::from_u128(0x6f0c_2f6e_95b4_4d5e_9c0b_7a51_03d8_e1f4);
        WorkId(Uuid::new_v5(&RETRIES, self.0.as_bytes()))
    }
}

impl fmt::Debug for WorkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for WorkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for WorkId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(WorkId)
    }
}

impl From<Uuid> for WorkId {
    fn from(uuid: Uuid) -> Self {
        WorkId(uuid)
    }
}

/// A pool's number in its store: given once, when a pool of that name is first created there.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct PoolId(pub u32);

impl fmt::Display for PoolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a run: counts the launches of a job, whether or not they count as attempts, and is never reset.
///
/// It is the fence of an attempt: a report that carries another number than the running row is stale.
pub type RunNumber = u32;

/// The number of a generation, that is of one takeover of a pool. Higher is later; a write by an earlier generation is
/// refused.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Generation(pub u64);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A random number that is drawn at each start of a runtime, to tell starts apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Epoch(pub u64);

/// The number of a turn and the generation that takes it: the fence of every commit of a main loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// The generation that takes it.
    pub generation: Generation,
    /// The start of the runtime: tells apart two runtimes that were started from copies of one store.
    pub epoch: Epoch,
    /// Counts up by one with each commit.
    pub number: u64,
}
