//! Encoded results.

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
