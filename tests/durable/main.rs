//! The embedded file: restarts, kills, bad disks, earlier formats, and the examples that are built on it.

#[cfg(all(feature = "redb", feature = "unstable-storage"))]
#[path = "../common/ledger.rs"]
mod ledger;

#[cfg(all(all(feature = "redb", feature = "unstable-storage"), target_os = "linux"))]
mod bad_disk;
#[cfg(all(target_os = "linux", feature = "redb"))]
mod dedup;
#[cfg(all(feature = "redb", feature = "unstable-storage"))]
mod files;
#[cfg(all(unix, feature = "redb"))]
mod ledger_example;
#[cfg(all(unix, feature = "redb"))]
mod mains;
#[cfg(feature = "redb")]
mod upgrade;
