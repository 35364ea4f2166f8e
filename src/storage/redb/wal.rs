//! The log: what was committed since the tables were last written, one frame per commit.
//!
//! ```text
//! │ header │ half A: frame frame frame …   │ half B: frame frame …         │ tables (redb) …
//! 0        4 KiB                           + half                         + half
//! ```
//!
//! A commit appends one frame and syncs once, where the system can do that the frame alone; the room is there already,
//! so nothing but the frame's bytes goes to the disk. When a half has enough frames, the log goes on in the other one
//! while a checkpoint brings the first into the tables. Frames are numbered one by one, for ever, and the tables know
//! the number of the last one that they contain. What is left of older frames has lower numbers.
//!
//! A frame that is not whole was never acknowledged, for it was never synced: the log ends before it. If a later frame
//! is there, the broken one was synced once, and the file is damaged.

use std::io;
use std::sync::Arc;

use twox_hash::XxHash3_64;

use super::disk::{CheckedDisk, Disk};
use super::upgrade::{self, FORMAT};
use crate::storage::StorageError;

/// The start of every store.
const MAGIC: [u8; 8] = *b"workpool";

/// The start of a file that is being made into a store. There is nothing in it that anybody was told of.
const MAKING: [u8; 8] = *b"workmake";

/// The place where the first half begins.
const HEADER: u64 = 4096;

/// The length of the log of a new file. A checkpoint is worth more the more it brings together: jobs that come and go
/// within one half never reach the tables. A larger log takes longer to replay, and more memory.
pub(super) const LENGTH: u64 = 16 << 20;

/// Halves are multiples of this.
const UNIT: u64 = 4096;

/// Before each payload: checksum, number, length, kind.
const FRAME: usize = 24;

/// Frames begin at multiples of this.
const ALIGN: usize = 8;

/// A half is no longer than this: it is read into memory as a whole when the store is opened.
const MOST_HALF: u64 = 512 << 20;

/// A commit that is larger gives its memory back.
const MOST_KEPT: usize = 1 << 20;

/// The kind of a frame that was written when everything before it had been synced.
const SYNCED: u32 = u32::from_le_bytes(*b"sync");

/// The kind of a frame that says nothing of those before it.
const RELAXED: u32 = u32::from_le_bytes(*b"lazy");

/// The place where a payload can go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// Into the half that is written to.
    Here,
    /// Into a half that has nothing in it.
    InEmptyHalf,
    /// It is larger than a half.
    Nowhere,
}

/// What was committed since the tables were written.
#[derive(Debug)]
pub(super) struct Wal {
    disk: Arc<CheckedDisk>,
    /// The format that the file has had when it was opened.
    format: u32,
    half_len: u64,
    /// Which half is written to.
    half: u64,
    used: u64,
    /// The number of the next frame.
    next: u64,
    /// Begins each checksum. Another one is drawn each time the store is opened, so that nothing else in the file is
    /// taken for a frame: neither what an earlier process left, nor arguments that are made to look like one.
    seed: u64,
    /// `true` if a write at `used` has failed, so that there may be part of a frame, or all of it.
    dirty: bool,
    /// `true` if every frame is synced.
    synced: bool,
    /// `true` if frames were written that are not.
    unsynced: bool,
    /// The frame under way; its memory serves one after the other.
    frame: Vec<u8>,
}

impl Wal {
    /// Opens the log of a store. An empty file gets one of about this length, and is a store once it is [`Wal::made`];
    /// until then it is made anew.
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
            return Err(StorageError::Poisoned("not a workpool file".into()));
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
        // Zeros, not a hole: later writes then have their place on the disk.
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

    /// From now on the file is a store, of today's format.
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

    /// The place where the tables begin.
    pub fn tables_from(&self) -> u64 {
        HEADER + 2 * self.half_len
    }

    /// Hands over the payloads of all frames behind number `applied`, in order.
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
        // What the tables do not contain begins in one half, and may go on in the other.
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

    /// Begins anew, behind everything that is there: the tables contain it, and know the new seed.
    pub fn restart(&mut self, seed: u64) {
        (self.half, self.used, self.seed, self.dirty) = (0, 0, seed, false);
    }

    /// Sets whether frames are only written, not synced: they survive the process, but not the machine.
    pub fn relax(&mut self, relaxed: bool) {
        self.synced = !relaxed;
    }

    /// The place where a payload of this length can go.
    pub fn room(&self, len: usize) -> Room {
        let len = frame_len(len) as u64;
        match (self.used + len <= self.half_len, len <= self.half_len) {
            (true, _) => Room::Here,
            (false, true) => Room::InEmptyHalf,
            (false, false) => Room::Nowhere,
        }
    }

    /// Returns `true` if a checkpoint is due. There is then as much room left for what comes meanwhile.
    pub fn wants_checkpoint(&self) -> bool {
        self.used > self.half_len / 2
    }

    /// The number of the last frame.
    pub fn last(&self) -> u64 {
        self.next - 1
    }

    /// Takes a number for a commit that goes into the tables at once.
    pub fn skip(&mut self) {
        self.next += 1;
    }

    /// Adds a frame that has room. When this returns, it is on the disk.
    ///
    /// After an error it is not there; after [`StorageError::Poisoned`], nobody knows.
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
            // A frame that is synced says so of those before it.
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

    /// The place where the next frame goes.
    fn end(&self) -> u64 {
        HEADER + self.half * self.half_len + self.used
    }

    /// Makes what a failed write has left no frame. The next frame takes its place, if it is not synced before.
    fn rub_out(&mut self) -> io::Result<()> {
        match self.used + FRAME as u64 <= self.half_len {
            true => self.disk.write_at(self.end(), &[0; FRAME]),
            false => Ok(()),
        }
    }

    /// Goes on in the other half. The tables contain its frames.
    pub fn switch(&mut self) -> Result<(), StorageError> {
        if self.dirty {
            // What failed here must not stand beside the frame that gets its number, not even after a crash.
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
    /// `true` if everything before it was synced when it was written.
    synced: bool,
    payload: &'h [u8],
}

/// Of everything in a frame that stands behind it.
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
