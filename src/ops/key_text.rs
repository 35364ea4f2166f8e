//! Keys as people read and type them.

use std::fmt::Write as _;

use serde::Serialize;

use super::redaction::{Redaction, Sensitive};
use crate::model::{Name, WorkKey};

/// The begin of a key that is written in hexadecimal digits.
const HEX: &str = "0x";

/// The maximum length of a shown key, in characters: that of the longest one in hexadecimal digits.
const LONGEST: usize = HEX.len() + 2 * WorkKey::MAX;

/// A key as it is shown: the text of the key, or what the redaction puts in its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct ShownKey {
    pub text: String,
    /// `true` if it is the text of the key itself, so that its jobs can be asked for with it.
    #[serde(skip)]
    pub is_own: bool,
}

impl ShownKey {
    /// Returns what is shown of the key of a function's job.
    pub fn of(key: &[u8], function: Name, redaction: &Redaction) -> ShownKey {
        ShownKey::of_any(key, &[function], redaction)
    }

    /// Returns what is shown of a key that jobs of any of these functions may have. It is shown as it is only if it would
    /// be so for each of them.
    pub fn of_any(key: &[u8], functions: &[Name], redaction: &Redaction) -> ShownKey {
        let text = key_text(key);
        let redacted = functions
            .iter()
            .map(|function| redaction.shown(Sensitive::Key, *function, &text))
            .find(|shown| *shown != text);
        match redacted {
            Some(shown) => ShownKey { text: shown.chars().take(LONGEST).collect(), is_own: false },
            None => ShownKey { text, is_own: true },
        }
    }
}

/// Returns the text of a key. No two keys have the same text, and [`key_of`] finds the key.
///
/// A key is its own text if it is UTF-8 that can be typed, without control characters. Others are `0x` and hexadecimal
/// digits, and so are those that look like that.
pub(crate) fn key_text(key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(text) if !text.chars().any(char::is_control) && from_hex(text).is_none() => {
            text.to_owned()
        }
        _ => key.iter().fold(HEX.to_owned(), |mut text, byte| {
            // Writing to a string does not fail.
            let _ = write!(text, "{byte:02x}");
            text
        }),
    }
}

/// Returns the key with that text.
pub(crate) fn key_of(text: &str) -> Vec<u8> {
    from_hex(text).unwrap_or_else(|| text.as_bytes().to_vec())
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix(HEX).filter(|digits| !digits.is_empty())?.as_bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = digits.as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?));
    if rest.is_empty() { bytes.collect() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_by_its_text() {
        let long = [0xFF; WorkKey::MAX];
        for (key, text) in [
            (&b"user-42"[..], "user-42"),
            (" ü \u{202E}<b>".as_bytes(), " ü \u{202E}<b>"),
            (b"\xFF\x00", "0xff00"),
            // Numbers are UTF-8 in part, and cannot be typed.
            (&7_u32.to_be_bytes(), "0x00000007"),
            (b"a\nb", "0x610a62"),
            (b"0x", "0x"),
            (b"0x0", "0x0"),
            (b"0xyz", "0xyz"),
            ("0xü".as_bytes(), "0xü"),
            // One that looks like digits is not taken for them.
            (b"0xff00", "0x307866663030"),
            (b"0xFF00", "0x307846463030"),
            (&long, &format!("0x{}", "ff".repeat(WorkKey::MAX))),
        ] {
            assert_eq!(key_text(key), text);
            assert_eq!(key_of(text), key, "{text}");
        }
        assert_eq!(key_of("0xFF00"), b"\xFF\x00");
    }

    #[test]
    fn a_key_that_one_function_hides_is_hidden_where_functions_are_not_known() {
        let [open, secret] = ["open", "secret"].map(Name::from_static);
        let redaction = Redaction::by(|what, function, text| match (what, function.as_str()) {
            (Sensitive::Key, "secret") => "x".repeat(1_000),
            _ => text.to_owned(),
        });
        let shown = ShownKey::of(b"user-42", open, &redaction);
        assert_eq!(shown, ShownKey { text: "user-42".to_owned(), is_own: true });
        let shown = ShownKey::of_any(b"user-42", &[open, secret], &redaction);
        assert_eq!(shown, ShownKey { text: "x".repeat(LONGEST), is_own: false });
    }
}
