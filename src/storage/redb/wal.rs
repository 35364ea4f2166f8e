//! The write-ahead log: the commits since the tables were last written, one frame per commit.
//!
//! ```text
//! │ header │ half A: frame frame frame …   │ half B: frame frame …         │ tables (redb) …
//! 0        4 KiB                           + half                         + half
//! ```
//!
//! A commit appends one frame and syncs once; where the system can, it syncs that frame alone. The space is allocated
//! already, so only the frame's bytes go to the disk. When a half is full enough, the log continues in the other half
//! while a checkpoint writes the first one to the tables. Frame numbers count up by one and are never reused, and the
//! tables store the number of the last frame that they contain. Leftover older frames have lower numbers.
//!
//! An incomplete frame was never synced and so never acknowledged: the log ends before it. If a later synced frame
//! follows, the broken frame had been synced, and the file is damaged.

use std::io;
use std::sync::Arc;

use twox_hash::XxHash3_64;

use super::disk::{CheckedDisk, Disk};
use super::upgrade::{self, FORMAT};
use crate::storage::StorageError;

/// The first bytes of every store.
const MAGIC: [u8; 8] = *b"workpool";

/// The first bytes of a file that is being created. It holds nothing that was acknowledged.
const MAKING: [u8; 8] = *b"workmake";

/// The offset of the first half.
const HEADER: u64 = 4096;

/// The length of the log of a new file. A larger log makes checkpoints more efficient: jobs that are enqueued and
/// finished within one half never reach the tables. It also takes longer to replay, and more memory.
pub(super) const LENGTH: u64 = 16 << 20;

/// The length of a half is a multiple of this.
const UNIT: u64 = 4096;

/// The length of a frame's header: checksum, number, length, kind.
const FRAME: usize = 24;

/// The alignment of frames.
const ALIGN: usize = 8;

/// The maximum length of a half, which is read into memory as a whole when the store is opened.
const MOST_HALF: u64 = 512 << 20;

/// The frame buffer is shrunk after a commit that is larger than this.
const MOST_KEPT: usize = 1 << 20;

/// The kind of a frame before which everything was synced.
const SYNCED: u32 = u32::from_le_bytes(*b"sync");

/// The kind of a frame that says nothing about earlier frames.
const RELAXED: u32 = u32::from_le_bytes(*b"lazy");

/// Where a payload fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// In the current half.
    Here,
    /// In an empty half.
    InEmptyHalf,
    /// Nowhere: it is larger than a half.
    Nowhere,
}

/// The log of a store.
#[derive(Debug)]
pub(super) struct Wal {
    disk: Arc<CheckedDisk>,
    /// The format that the file had when it was opened.
    format: u32,
    half_len: u64,
    /// The half that is written to.
    half: u64,
    used: u64,
    /// The number of the next frame.
    next: u64,
    /// The start of each checksum. A new seed is drawn each time the store is opened, so that nothing else in the file
    /// passes for a frame: neither leftovers of an earlier process, nor arguments crafted to look like one.
    seed: u64,
    /// `true` if a write at `used` has failed, so that all or part of a frame may be there.
    dirty: bool,
    /// `true` if every frame is synced.
    synced: bool,
    /// `true` if frames were written that are not synced.
    unsynced: bool,
    /// The buffer of the current frame, reused for the next.
    frame: Vec<u8>,
}

impl Wal {
    /// Opens the log of a store. An empty file gets a log of about this length, and becomes a store with [`Wal::made`];
    /// until then, each open creates it again.
    pub fn open(disk: &Arc<CheckedDisk>, length: u64) -> Result<Wal, StorageError> {
        let len = disk.len().map_err(unreadable)?;
        let mut header = [0; 24];
        let there = len.min(24) as usize;
        disk.read_at(0, &mut header[..there]).map_err(unreadable)?;
        let mut log = Wal {
            disk: disk.clone(),
            format: FORMAT,
            half_len: (length / 2).next_multiple_of(UNIT).clamp(UNIT, MOST_HALF),
            half: 0,
            used: 0,
            next: 1,
            seed: 0,
            dirty: false,
            synced: true,
            unsynced: false,
            frame: Vec::new(),
        };
        let is_blank = header == [0; 24] && len <= HEADER;
        if is_blank || header[..8] == MAKING {
            log.make().map_err(unwritable)?;
            return Ok(log);
        }
        if header[..8] != MAGIC {
            let begin = header[..8].escape_ascii();
            return Err(StorageError::Poisoned(format!(
                "it is not a workpool file: it begins with \"{begin}\"; choose another path"
            )));
        }
        let number = |from| u64::from_le_bytes(array(&header[from..]));
        if number(16) != XxHash3_64::oneshot(&header[..16]) {
            return Err(StorageError::Poisoned("the file's header is damaged".into()));
        }
        log.format = number(8) as u32;
        upgrade::check(log.format)?;
        log.half_len = (number(8) >> 32) * UNIT;
        if !(UNIT..=MOST_HALF).contains(&log.half_len) {
            return Err(StorageError::Poisoned("the file's header is damaged".into()));
        }
        if len <= log.tables_from() {
            return Err(StorageError::Poisoned("the file was cut short".into()));
        }
        Ok(log)
    }

    fn make(&self) -> io::Result<()> {
        self.write_header(MAKING)?;
        self.disk.set_len(HEADER)?;
        // Zeros, not a hole: this allocates the disk space for later writes.
        let zeros = vec![0; 1 << 20];
        for offset in (HEADER..self.tables_from()).step_by(zeros.len()) {
            let len = (self.tables_from() - offset).min(zeros.len() as u64);
            self.disk.write_at(offset, &zeros[..len as usize])?;
        }
        Ok(())
    }

    /// The format that the file had when it was opened.
    pub fn format(&self) -> u32 {
        self.format
    }

    /// Marks the file as a store of the current format.
    pub fn made(&self) -> Result<(), StorageError> {
        self.write_header(MAGIC).map_err(unwritable)
    }

    fn write_header(&self, magic: [u8; 8]) -> io::Result<()> {
        let mut header = magic.to_vec();
        header.extend_from_slice(&FORMAT.to_le_bytes());
        header.extend_from_slice(&((self.half_len / UNIT) as u32).to_le_bytes());
        header.extend_from_slice(&XxHash3_64::oneshot(&header).to_le_bytes());
        self.disk.write_at(0, &header)?;
        self.disk.sync()
    }

    /// The offset of the tables.
    pub fn tables_from(&self) -> u64 {
        HEADER + 2 * self.half_len
    }

    /// Passes the payloads of all frames after number `applied`, in order.
    pub fn replay(
        &mut self,
        applied: u64,
        seed: u64,
        mut each: impl FnMut(&[u8]) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        (self.next, self.seed) = (applied + 1, seed);
        let mut halves = [0, 1].map(|_| vec![0; self.half_len as usize]);
        for (half, bytes) in (0..).zip(&mut halves) {
            let offset = HEADER + half * self.half_len;
            self.disk.read_at(offset, bytes).map_err(unreadable)?;
        }
        // Frames that the tables do not contain begin in one half, and may continue in the other.
        for half in [&halves[0], &halves[1], &halves[0]] {
            if planted!(HalfNotReplayed) && self.next > applied + 1 {
                return Ok(());
            }
            let mut at = 0;
            while let Some(frame) = self.frame_at(half, at)
                && frame.number <= self.next
            {
                if frame.number == self.next {
                    each(frame.payload)?;
                    self.next += 1;
                }
                at += frame_len(frame.payload.len());
            }
        }
        for half in &halves {
            // A frame's kind is the second part of its third word.
            let words = half.chunks_exact(ALIGN).zip((0..).step_by(ALIGN)).skip(2);
            for (_, at) in words.filter(|(word, _)| word[4..] == SYNCED.to_le_bytes()) {
                if let Some(frame) = self.frame_at(half, at - 16)
                    && frame.synced
                    && frame.number > self.next
                {
                    let error = format!("commit {} in the log is damaged", self.next);
                    return Err(StorageError::Poisoned(error));
                }
            }
        }
        Ok(())
    }

    fn frame_at<'h>(&self, half: &'h [u8], at: usize) -> Option<Frame<'h>> {
        let frame = half.get(at..)?;
        let head = frame.get(..FRAME)?;
        let synced = match u32::from_le_bytes(array(&head[20..])) {
            SYNCED => true,
            RELAXED => false,
            _ => return None,
        };
        let len = u32::from_le_bytes(array(&head[16..])) as usize;
        let frame = frame.get(..FRAME.checked_add(len)?)?;
        let checksum = u64::from_le_bytes(array(head));
        let is_whole = checksum == self::checksum(self.seed, frame) || planted!(ChecksumIgnored);
        is_whole.then(|| Frame {
            number: u64::from_le_bytes(array(&head[8..])),
            synced,
            payload: &frame[FRAME..],
        })
    }

    /// Starts the log anew. The tables contain everything in it, and know the new seed.
    pub fn restart(&mut self, seed: u64) {
        (self.half, self.used, self.seed, self.dirty) = (0, 0, seed, false);
    }

    /// Sets whether frames are only written, not synced: they then survive a crash of the process, but not of the
    /// machine.
    pub fn relax(&mut self, relaxed: bool) {
        self.synced = !relaxed;
    }

    /// Returns where a payload of this length fits.
    pub fn room(&self, len: usize) -> Room {
        let len = frame_len(len) as u64;
        match (self.used + len <= self.half_len, len <= self.half_len) {
            (true, _) => Room::Here,
            (false, true) => Room::InEmptyHalf,
            (false, false) => Room::Nowhere,
        }
    }

    /// Returns `true` if a checkpoint is due. As much room is then left for the commits during the checkpoint.
    pub fn wants_checkpoint(&self) -> bool {
        self.used > self.half_len / 2
    }

    /// The number of the last frame.
    pub fn last(&self) -> u64 {
        self.next - 1
    }

    /// Uses up a number for a commit that goes directly to the tables.
    pub fn skip(&mut self) {
        self.next += 1;
    }

    /// Appends a frame that fits. When this returns, the frame is on the disk.
    ///
    /// After an error the frame is not there; after [`StorageError::Poisoned`], it may be.
    pub fn append(&mut self, payload: &[u8]) -> Result<(), StorageError> {
        debug_assert_eq!(self.room(payload.len()), Room::Here, "there is room");
        let kind = if self.synced { SYNCED } else { RELAXED };
        let frame = &mut self.frame;
        frame.clear();
        frame.extend_from_slice(&[0; 8]);
        frame.extend_from_slice(&self.next.to_le_bytes());
        frame.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        frame.extend_from_slice(&kind.to_le_bytes());
        frame.extend_from_slice(payload);
        let checksum = checksum(self.seed, frame);
        frame[..8].copy_from_slice(&checksum.to_le_bytes());
        frame.resize(frame_len(payload.len()), 0);

        if self.synced && std::mem::take(&mut self.unsynced) {
            // A synced frame guarantees that those before it are synced.
            self.disk.sync().map_err(lost)?;
        }
        self.unsynced |= !self.synced;
        self.dirty = true;
        let offset = self.end();
        let early = planted!(SyncTooEarly) && self.disk.sync().is_ok();
        if let Err(error) = self.disk.write_at(offset, &self.frame) {
            let _ = self.rub_out();
            return Err(unwritable(error));
        }
        if self.synced && !early && !planted!(SyncSkipped) {
            self.disk.sync_at(offset, &self.frame).map_err(lost)?;
        }
        self.dirty = false;
        self.used += self.frame.len() as u64;
        self.next += 1;
        if self.frame.capacity() > MOST_KEPT {
            self.frame = Vec::new();
        }
        Ok(())
    }

    /// The offset of the next frame.
    fn end(&self) -> u64 {
        HEADER + self.half * self.half_len + self.used
    }

    /// Overwrites the header of what a failed write left. If this is not synced first, the next frame overwrites it.
    fn rub_out(&mut self) -> io::Result<()> {
        match self.used + FRAME as u64 <= self.half_len {
            true => self.disk.write_at(self.end(), &[0; FRAME]),
            false => Ok(()),
        }
    }

    /// Switches to the other half, whose frames the tables contain.
    pub fn switch(&mut self) -> Result<(), StorageError> {
        if self.dirty {
            // A failed frame must not remain beside the frame that gets its number, not even after a crash.
            self.rub_out().map_err(unwritable)?;
            self.disk.sync().map_err(lost)?;
            self.dirty = false;
        }
        (self.half, self.used) = (1 - self.half, 0);
        Ok(())
    }
}

struct Frame<'h> {
    number: u64,
    /// `true` if everything before it had been synced when it was written.
    synced: bool,
    payload: &'h [u8],
}

/// The checksum of everything in a frame after the checksum itself.
fn checksum(seed: u64, frame: &[u8]) -> u64 {
    let covered = if planted!(TornFrameTaken) { FRAME } else { frame.len() };
    XxHash3_64::oneshot_with_seed(seed, &frame[8..covered])
}

fn frame_len(payload: usize) -> usize {
    (FRAME + payload).next_multiple_of(ALIGN)
}

/// The first bytes of a slice that has as many.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[..N]);
    array
}

fn unreadable(error: io::Error) -> StorageError {
    StorageError::Poisoned(format!("failed to read the file: {error}"))
}

fn unwritable(error: io::Error) -> StorageError {
    StorageError::Unavailable(format!("failed to write the log: {error}"))
}

fn lost(error: io::Error) -> StorageError {
    StorageError::Poisoned(format!("failed to sync the log: {error}"))
}
