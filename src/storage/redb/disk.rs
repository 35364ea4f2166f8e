//! The disk under the store: a file, and the parts of it that the log and the tables use.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ::redb::StorageBackend;

use crate::storage::StorageError;

/// The file operations that a store needs.
///
/// Written bytes are certain to survive a crash only once `sync` has returned; until then any part of them may survive.
/// Two threads may make calls at the same time, and then write to different places.
pub trait Disk: std::fmt::Debug + Send + Sync + 'static {
    /// Returns the length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Sets the length: cuts the end off, or adds zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Fills `into` with the bytes from `offset` on. Fails if there are fewer.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;

    /// Writes all `bytes` from `offset` on.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Waits until everything written so far is on the disk.
    fn sync(&self) -> io::Result<()>;

    /// Returns `true` if it can sync a part of the file alone.
    fn syncs_parts(&self) -> bool {
        false
    }

    /// Waits until these bytes, which were just written there, are on the disk. The result is about these bytes only,
    /// whatever happens to others. For a disk that [syncs parts](Disk::syncs_parts).
    fn sync_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let _ = (offset, bytes);
        self.sync()
    }
}

/// A file that no other process has open as a store.
#[derive(Debug)]
pub(super) struct FileDisk {
    file: File,
    /// A second handle to the file, for writes that return when they are on the disk: a sync of the whole file would
    /// also wait for the pages of a checkpoint. It is opened separately, so that it receives its own write errors.
    through: Option<File>,
}

impl FileDisk {
    pub fn open(path: &Path) -> Result<FileDisk, StorageError> {
        let failed = |error: io::Error| {
            let problem = match error.kind() {
                _ if path.as_os_str().is_empty() => "the path is empty".to_owned(),
                io::ErrorKind::IsADirectory => {
                    format!(
                        "it is a folder; name a file in it, such as {}/work.redb",
                        path.display()
                    )
                }
                io::ErrorKind::NotFound => match path.parent().filter(|folder| !folder.exists()) {
                    Some(folder) => {
                        format!("the folder {} does not exist; create it first", folder.display())
                    }
                    None => error.to_string(),
                },
                io::ErrorKind::PermissionDenied => {
                    format!("{error}; this process must be able to read and write it")
                }
                _ => error.to_string(),
            };
            StorageError::NotOpened { path: path.to_owned(), problem }
        };
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(path);
        let file = file.map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {
                if file.metadata().map_err(failed)?.len() == 0 {
                    sync_folder(path).map_err(failed)?;
                }
                let through = through(path, &file).map_err(failed)?;
                Ok(FileDisk { file, through })
            }
            Err(TryLockError::WouldBlock) => Err(StorageError::InUse),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }
}

/// Opens the file a second time, for writes that are synced one by one.
#[cfg(target_os = "linux")]
fn through(path: &Path, file: &File) -> io::Result<Option<File>> {
    use std::os::unix::fs::MetadataExt;
    let again = OpenOptions::new().write(true).open(path)?;
    let (one, other) = (file.metadata()?, again.metadata()?);
    match (one.dev(), one.ino()) == (other.dev(), other.ino()) {
        true => Ok(Some(again)),
        false => Err(io::Error::other("it was replaced meanwhile")),
    }
}

/// Other systems lack such writes, or the writes may get no further than the disk's own cache.
#[cfg(not(target_os = "linux"))]
fn through(_: &Path, _: &File) -> io::Result<Option<File>> {
    Ok(None)
}

/// Makes the name of a new file durable, which a sync of the file itself does not. (`fsync(2)`.)
#[cfg(unix)]
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// Does nothing: on other systems a folder cannot be synced.
#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

impl Disk for FileDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    #[cfg(unix)]
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.file, into, offset)
    }

    #[cfg(unix)]
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(&self.file, bytes, offset)
    }

    #[cfg(windows)]
    fn read_at(&self, mut offset: u64, mut into: &mut [u8]) -> io::Result<()> {
        while !into.is_empty() {
            match std::os::windows::fs::FileExt::seek_read(&self.file, into, offset)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => {
                    into = &mut into[read..];
                    offset += read as u64;
                }
            }
        }
        Ok(())
    }

    #[cfg(windows)]
    fn write_at(&self, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match std::os::windows::fs::FileExt::seek_write(&self.file, bytes, offset)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => {
                    bytes = &bytes[written..];
                    offset += written as u64;
                }
            }
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn syncs_parts(&self) -> bool {
        self.through.is_some()
    }

    /// Writes the bytes once more, synced. This tells an error of the first write from an error of the disk.
    /// (`RWF_DSYNC` of `pwritev2(2)`.)
    #[cfg(target_os = "linux")]
    fn sync_at(&self, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
        use rustix::io::{Errno, ReadWriteFlags, pwritev2};
        let Some(file) = &self.through else { return self.sync() };
        while !bytes.is_empty() {
            let slices = [io::IoSlice::new(bytes)];
            match pwritev2(file, &slices, offset, ReadWriteFlags::DSYNC) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    bytes = &bytes[written..];
                    offset += written as u64;
                }
                Err(Errno::INTR) => {}
                // An old kernel.
                Err(Errno::NOSYS | Errno::OPNOTSUPP) => return file.sync_data(),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// A disk that refuses writes once a sync has failed.
///
/// After a failed sync the content of the disk is unknown: the system may have dropped what it could not write, and a
/// second sync would succeed. (Rebello et al., *Can Applications Recover from fsync Failures?*, USENIX ATC 2020.) An
/// open file reports a write error only once, possibly to the sync of another thread. So syncs run one after the other,
/// and each sees the results of those before it. A sync of a part has its own handle, and gets its own errors.
#[derive(Debug)]
pub(super) struct CheckedDisk {
    disk: Box<dyn Disk>,
    failed: AtomicBool,
    syncing: Mutex<()>,
}

impl CheckedDisk {
    pub fn new(disk: impl Disk) -> Arc<CheckedDisk> {
        let (disk, failed) = (Box::new(disk), AtomicBool::new(false));
        Arc::new(CheckedDisk { disk, failed, syncing: Mutex::new(()) })
    }

    /// Returns `true` if a sync has failed.
    pub fn is_lost(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    fn noting(&self, synced: io::Result<()>) -> io::Result<()> {
        synced.inspect_err(|_| {
            self.failed.store(!planted!(SyncFailureForgotten), Ordering::SeqCst);
        })
    }

    fn check(&self) -> io::Result<()> {
        match self.is_lost() {
            false => Ok(()),
            true => Err(io::Error::other("a sync has failed before")),
        }
    }
}

impl Disk for CheckedDisk {
    fn len(&self) -> io::Result<u64> {
        self.disk.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check()?;
        self.disk.set_len(len)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.disk.read_at(offset, into)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.check()?;
        self.disk.write_at(offset, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        let _one_at_a_time = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        self.check()?;
        self.noting(self.disk.sync())
    }

    fn syncs_parts(&self) -> bool {
        self.disk.syncs_parts()
    }

    fn sync_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if !self.syncs_parts() {
            return self.sync();
        }
        self.check()?;
        self.noting(self.disk.sync_at(offset, bytes))
    }
}

/// The part of the disk behind `from`, as the file that redb sees.
#[derive(Debug)]
pub(super) struct Rest {
    disk: Arc<CheckedDisk>,
    from: u64,
    failed: Arc<AtomicBool>,
}

impl Rest {
    pub fn of(disk: &Arc<CheckedDisk>, from: u64) -> Rest {
        Rest { disk: disk.clone(), from, failed: Arc::default() }
    }

    /// Becomes `true` with the first error. After that redb refuses every call.
    pub fn failed(&self) -> Arc<AtomicBool> {
        self.failed.clone()
    }

    fn noting<T>(&self, answer: io::Result<T>) -> io::Result<T> {
        answer.inspect_err(|_| self.failed.store(true, Ordering::Relaxed))
    }
}

impl StorageBackend for Rest {
    fn len(&self) -> io::Result<u64> {
        Ok(self.noting(self.disk.len())?.saturating_sub(self.from))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.noting(self.disk.read_at(self.from + offset, out))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.noting(self.disk.set_len(self.from + len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.noting(self.disk.sync())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.noting(self.disk.write_at(self.from + offset, data))
    }
}
