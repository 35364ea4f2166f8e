//! Names, and keys of user tables.

use std::collections::HashSet;
use std::fmt;
use std::sync::{LazyLock, Mutex, PoisonError};

use serde::{Deserialize, Deserializer, Serialize};

use super::ConfigError;

/// The name of a function, a pool or an `on_complete`: cheap to copy, equal by content.
///
/// Names come from the program's own code, so each distinct one is kept for the life of the process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Name(&'static str);

static INTERNED: LazyLock<Mutex<HashSet<&'static str>>> = LazyLock::new(Mutex::default);

impl Name {
    /// Wraps a name that is a constant.
    #[must_use]
    pub const fn from_static(name: &'static str) -> Name {
        Name(name)
    }

    /// Keeps a copy of `name` for the life of the process; a name seen before costs nothing more.
    #[must_use]
    pub fn intern(name: &str) -> Name {
        let mut names = INTERNED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = names.get(name) {
            return Name(known);
        }
        let kept: &'static str = Box::leak(name.to_owned().into_boxed_str());
        names.insert(kept);
        Name(kept)
    }

    /// Returns the name as text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Ok(Name::intern(&name))
    }
}

/// Checks that a name has 1 to 200 bytes: it is stored with every row.
pub(crate) fn validate_name(name: &str) -> Result<(), ConfigError> {
    match name.len() {
        1..=200 => Ok(()),
        _ => Err(ConfigError::NameLength { given: name.to_owned() }),
    }
}

/// A key of a user table: bytes in lexicographic order.
///
/// Numbers are kept big-endian, so that their order is that of their values.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableKey(Vec<u8>);

impl TableKey {
    /// Returns the bytes of the key.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the key as text, if it is text.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// Returns the key as a number, if it has 8 bytes, as one made from a number does.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        self.0.as_slice().try_into().ok().map(u64::from_be_bytes)
    }

    /// Returns the first key behind all keys that begin with `self`; `None` if there is none.
    #[must_use]
    pub fn end_of_prefix(&self) -> Option<TableKey> {
        let mut end = self.0.clone();
        while let Some(last) = end.pop() {
            if let Some(next) = last.checked_add(1) {
                end.push(next);
                return Some(TableKey(end));
            }
        }
        None
    }
}

impl From<&str> for TableKey {
    fn from(key: &str) -> Self {
        TableKey(key.as_bytes().to_vec())
    }
}

impl From<&String> for TableKey {
    fn from(key: &String) -> Self {
        TableKey(key.as_bytes().to_vec())
    }
}

impl From<String> for TableKey {
    fn from(key: String) -> Self {
        TableKey(key.into_bytes())
    }
}

impl From<&[u8]> for TableKey {
    fn from(key: &[u8]) -> Self {
        TableKey(key.to_vec())
    }
}

impl From<Vec<u8>> for TableKey {
    fn from(key: Vec<u8>) -> Self {
        TableKey(key)
    }
}

impl From<u64> for TableKey {
    fn from(key: u64) -> Self {
        TableKey(key.to_be_bytes().to_vec())
    }
}

impl From<super::WorkId> for TableKey {
    fn from(id: super::WorkId) -> Self {
        TableKey(id.as_uuid().as_bytes().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_once() {
        let (first, second) = (Name::intern("a.b"), Name::intern(&String::from("a.b")));
        assert!(std::ptr::eq(first.as_str(), second.as_str()));
        assert_eq!(first, Name::from_static("a.b"));
    }

    #[test]
    fn the_end_of_a_prefix_carries_over() {
        let end = |bytes: &[u8]| TableKey::from(bytes).end_of_prefix();
        assert_eq!(end(b"ab"), Some(TableKey::from(&b"ac"[..])));
        assert_eq!(end(&[1, 255]), Some(TableKey::from(&[2][..])));
        assert_eq!(end(&[255, 255]), None);
        assert_eq!(end(b""), None);
    }

    #[test]
    fn numbers_sort_by_value() {
        assert!(TableKey::from(255u64) < TableKey::from(256u64));
        assert_eq!(TableKey::from(256u64).as_u64(), Some(256));
    }
}
