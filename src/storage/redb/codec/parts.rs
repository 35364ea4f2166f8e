//! The parts of rows: numbers, bytes, ids, keys, failures. Each encoder stands before its decoder.

use std::time::Duration;

use crate::model::{
    Failure, FailureKind, Key, Name, PoolId, Priority, Segment, StartKey, StartPlace, WorkId,
    WorkKey,
};

/// An error in a row. The file was damaged, or written by another program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("damaged row: {0}")]
pub struct Damaged(pub(super) &'static str);

pub type Decoded<T> = Result<T, Damaged>;

/// The bytes that are left to decode.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    pub fn take(&mut self, len: usize) -> Decoded<&'a [u8]> {
        let (taken, left) = self.0.split_at_checked(len).ok_or(Damaged("row is too short"))?;
        self.0 = left;
        Ok(taken)
    }

    pub fn array<const N: usize>(&mut self) -> Decoded<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| Damaged("row is too short"))
    }

    pub fn byte(&mut self) -> Decoded<u8> {
        Ok(self.take(1)?[0])
    }
}

pub fn number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

impl Input<'_> {
    pub fn number(&mut self) -> Decoded<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                break;
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Damaged("number is too long"))
    }

    pub fn small(&mut self) -> Decoded<u32> {
        u32::try_from(self.number()?).map_err(|_| Damaged("number is too large"))
    }
}

pub fn bytes(out: &mut Vec<u8>, value: &[u8]) {
    number(out, value.len() as u64);
    out.extend_from_slice(value);
}

impl<'a> Input<'a> {
    pub fn bytes(&mut self) -> Decoded<&'a [u8]> {
        let len = usize::try_from(self.number()?).map_err(|_| Damaged("length is too large"))?;
        self.take(len)
    }

    pub fn text(&mut self) -> Decoded<&'a str> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Damaged("text is not UTF-8"))
    }

    pub fn name(&mut self) -> Decoded<Name> {
        Ok(Name::intern(self.text()?))
    }
}

pub fn duration(out: &mut Vec<u8>, value: Duration) {
    number(out, value.as_secs());
    number(out, value.subsec_nanos().into());
}

impl Input<'_> {
    pub fn duration(&mut self) -> Decoded<Duration> {
        let (secs, nanos) = (self.number()?, self.small()?);
        if nanos >= 1_000_000_000 {
            return Err(Damaged("duration has too many nanoseconds"));
        }
        Ok(Duration::new(secs, nanos))
    }
}

pub fn put_id(out: &mut Vec<u8>, work_id: WorkId) {
    out.extend_from_slice(work_id.as_uuid().as_bytes());
}

impl Input<'_> {
    pub fn id(&mut self) -> Decoded<WorkId> {
        Ok(WorkId::from_uuid(uuid::Uuid::from_bytes(self.array()?)))
    }
}

pub fn put_key(out: &mut Vec<u8>, key: Key) {
    number(out, key.segment.0);
    number(out, key.seq);
}

impl Input<'_> {
    pub fn key(&mut self) -> Decoded<Key> {
        Ok(Key { segment: Segment(self.number()?), seq: self.number()? })
    }
}

pub fn put_priority(out: &mut Vec<u8>, priority: Priority) {
    out.extend_from_slice(&priority.number().to_le_bytes());
}

impl Input<'_> {
    pub fn priority(&mut self) -> Decoded<Priority> {
        Ok(Priority::new(i8::from_le_bytes(self.array()?)))
    }
}

/// Encodes what a waiting job waits for.
pub fn put_stand(out: &mut Vec<u8>, place: StartPlace) {
    match place {
        StartPlace::Queue => out.push(0),
        StartPlace::Held => out.push(1),
        StartPlace::Ready { tag } => {
            out.push(2);
            number(out, tag);
        }
        StartPlace::Lane => out.push(3),
    }
}

impl Input<'_> {
    pub fn stand(&mut self) -> Decoded<StartPlace> {
        Ok(match self.byte()? {
            0 => StartPlace::Queue,
            1 => StartPlace::Held,
            2 => StartPlace::Ready { tag: self.number()? },
            3 => StartPlace::Lane,
            _ => return Err(Damaged("unknown kind of place")),
        })
    }
}

/// Encodes all parts of a place in `pending_start`.
pub fn put_start_key(out: &mut Vec<u8>, key: StartKey) {
    put_key(out, key.key());
    put_priority(out, key.priority);
    put_stand(out, key.place);
}

impl Input<'_> {
    pub fn start_key(&mut self) -> Decoded<StartKey> {
        let (key, priority) = (self.key()?, self.priority()?);
        Ok(StartKey::at(priority, key).in_place(self.stand()?))
    }

    /// Decodes the key of a job or of a lane.
    pub fn work_key(&mut self) -> Decoded<WorkKey> {
        let key = self.bytes()?;
        WorkKey::validate(key).map_err(|_| Damaged("a key has a wrong length"))?;
        Ok(WorkKey::new(key))
    }
}

pub fn put_place(out: &mut Vec<u8>, work_id: WorkId, pool: PoolId, key: Key) {
    put_id(out, work_id);
    number(out, pool.0.into());
    put_key(out, key);
}

impl Input<'_> {
    pub fn place(&mut self) -> Decoded<(WorkId, PoolId, Key)> {
        Ok((self.id()?, PoolId(self.small()?), self.key()?))
    }
}

pub fn failure_kind(kind: FailureKind) -> u8 {
    match kind {
        FailureKind::Error => 0,
        FailureKind::Panic => 1,
        FailureKind::Timeout => 2,
        FailureKind::Lost => 3,
        FailureKind::Decode => 4,
        FailureKind::Encode => 5,
    }
}

impl Input<'_> {
    pub fn failure_kind(&mut self) -> Decoded<FailureKind> {
        Ok(match self.byte()? {
            0 => FailureKind::Error,
            1 => FailureKind::Panic,
            2 => FailureKind::Timeout,
            3 => FailureKind::Lost,
            4 => FailureKind::Decode,
            5 => FailureKind::Encode,
            _ => return Err(Damaged("unknown kind of failure")),
        })
    }
}

pub fn failure(out: &mut Vec<u8>, value: &Failure) {
    let flags = u8::from(value.retryable) | u8::from(value.retry_after.is_some()) << 1;
    out.extend_from_slice(&[failure_kind(value.kind), flags]);
    bytes(out, value.message.as_bytes());
    if let Some(wait) = value.retry_after {
        duration(out, wait);
    }
}

impl Input<'_> {
    pub fn failure(&mut self) -> Decoded<Failure> {
        let kind = self.failure_kind()?;
        let flags = self.byte()?;
        let message = self.text()?.to_owned();
        let retry_after = match flags & 2 {
            0 => None,
            _ => Some(self.duration()?),
        };
        Ok(Failure { kind, message, retryable: flags & 1 != 0, retry_after })
    }
}

/// A bit of a byte of flags.
pub fn flag(set: bool, bit: u8) -> u8 {
    u8::from(set) << bit
}
