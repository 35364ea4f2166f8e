//! The durable file.
//!
//! [`Redb::open`](crate::storage::Redb::open) keeps jobs, outcomes and user tables in one file. `enqueue` returns when the job is in the
//! file and synced.
//!
//! ```
//! # use actix_workpool::doctest::{self, Double};
//! use actix_workpool::storage::Redb;
//! use actix_workpool::{PoolConfig, Runtime};
//!
//! # doctest::run(async {
//! # let folder = std::env::temp_dir().join(format!("workpool-guide-{}", std::process::id()));
//! # std::fs::create_dir_all(&folder)?;
//! # let path = folder.join("work.redb");
//! let start = async || {
//!     let builder = Runtime::builder().action::<Double>().storage(Redb::open(&path)?);
//!     Ok::<_, Box<dyn std::error::Error>>(builder.pool("default", PoolConfig::default()).start().await?)
//! };
//! let runtime = start().await?;
//! let paused = PoolConfig::default().paused(true);
//! runtime.pool("default")?.update(paused).await?;
//! let id = runtime.pool("default")?.enqueue(Double(21)).await?.id();
//! runtime.shutdown(std::time::Duration::ZERO).await;
//!
//! // The next start, perhaps after a crash.
//! let runtime = start().await?;
//! let pool = runtime.pool("default")?;
//! pool.resume().await?;
//! assert_eq!(pool.work::<u64>(id).join().await?, 42);
//! # runtime.shutdown(std::time::Duration::ZERO).await;
//! # std::fs::remove_dir_all(&folder)?;
//! # Ok(()) });
//! ```
//!
//! # Where to put it
//!
//! On a local disk of the machine, not on a network file system: it relies on file locks and fsync. In a container, on a volume. It
//! belongs to one process at a time. A new file takes its log, 16 MiB, at once; it grows with the jobs that wait.
//!
//! # Backups
//!
//! Copy the file while no process has it open, or take a snapshot of the file system: a snapshot looks like a power loss, which the
//! file survives.
//!
//! # When something goes wrong
//!
//! | | what happens |
//! |---|---|
//! | the disk is full | callers get [`StorageError::Unavailable`](crate::storage::StorageError::Unavailable), running attempts keep their reports, and the pools go on when there is space |
//! | an fsync fails | nothing is acknowledged any more until the file is opened again ([`StorageError::Poisoned`](crate::storage::StorageError::Poisoned)); what was acknowledged is there |
//! | power loss, `kill -9` | what was acknowledged is there. Lost attempts count, mutations run again |
//! | a page of the file is damaged | reads find it by checksums and say so |
//! | another process has it open | [`StorageError::InUse`](crate::storage::StorageError::InUse) |
//! | the path is wrong, or the file is something else | [`StorageError::NotOpened`](crate::storage::StorageError::NotOpened) says what was found; the file is left as it is |
//!
//! # Upgrades
//!
//! A newer version upgrades the file when it opens it. An older one refuses a file that it does not know
//! ([`StorageError::TooNew`](crate::storage::StorageError::TooNew)) and leaves it as it is.
