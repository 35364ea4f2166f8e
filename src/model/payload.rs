//! Encoded arguments and results.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// Encoded JSON that is shared, not copied. JSON's `null` takes no memory.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Payload(Option<Arc<[u8]>>);

impl Payload {
    /// JSON `null`.
    pub const NULL: Payload = Payload(None);

    /// Copies encoded JSON.
    #[must_use]
    pub fn new(json: &[u8]) -> Payload {
        match json {
            b"null" => Payload::NULL,
            json => Payload(Some(json.into())),
        }
    }

    /// Returns the encoded JSON.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_deref().unwrap_or(b"null")
    }

    /// Returns the number of bytes of the JSON.
    #[must_use]
    pub fn len(&self) -> usize {
        self.as_bytes().len()
    }

    /// Returns `true` if this is JSON `null`.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

impl Serialize for Payload {
    /// Serializes the value that is encoded.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let json = std::str::from_utf8(self.as_bytes()).map_err(serde::ser::Error::custom)?;
        let raw: &RawValue = serde_json::from_str(json).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Ok(Payload::new(raw.get().as_bytes()))
    }
}

impl fmt::Debug for Payload {
    /// Shows the size only: arguments and results stay out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.len())
    }
}

/// Encoded arguments; shown by their size only, so that they stay out of logs.
///
/// Jobs that are enqueued together share blocks of memory: one allocation for many, and one to free, which matters
/// since they are freed by another thread than the one that made them. A block is at most [`ArgBytes::BLOCK`] bytes, or
/// one job's arguments if those are larger, so that a job that stays for long keeps little other memory.
#[derive(Clone, Default)]
pub struct ArgBytes {
    block: Arc<[u8]>,
    from: u32,
    len: u32,
}

impl ArgBytes {
    /// The maximum size of a block that several jobs share.
    pub const BLOCK: usize = 8 * 1024;

    /// Copies arguments to a block of their own.
    #[must_use]
    pub fn new(json: &[u8]) -> ArgBytes {
        ArgBytes { block: json.into(), from: 0, len: json.len() as u32 }
    }

    /// Returns the part of `block` that begins at `from` and has `len` bytes.
    #[must_use]
    pub(crate) fn part(block: &Arc<[u8]>, from: usize, len: usize) -> ArgBytes {
        debug_assert!(from + len <= block.len());
        ArgBytes { block: block.clone(), from: from as u32, len: len as u32 }
    }

    /// Returns the same arguments, in a block of their own unless they fill at least half of theirs. For jobs that stay
    /// for long.
    pub(crate) fn alone(&self) -> ArgBytes {
        match self.block.len() > 2 * self.as_bytes().len() {
            true => ArgBytes::new(self.as_bytes()),
            false => self.clone(),
        }
    }

    /// Returns the encoded JSON.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.block[self.from as usize..][..self.len as usize]
    }
}

impl PartialEq for ArgBytes {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl fmt::Debug for ArgBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ArgBytes({} bytes)", self.len)
    }
}
