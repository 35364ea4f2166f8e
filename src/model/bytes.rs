//! Bytes in arguments and results.

use std::borrow::Cow;
use std::fmt;
use std::ops::{Deref, DerefMut};

use base64::Engine;
use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes that serialize as a base64 string, for arguments and results.
///
/// Arguments and results are stored as JSON, where a `Vec<u8>` is a list of numbers and takes 3.6 times its size.
/// `Bytes` takes 1.33 times its size ([RFC 4648](https://www.rfc-editor.org/rfc/rfc4648), with padding). Keep large
/// files outside of the queue and pass their path:
/// [`PoolConfig::max_payload_bytes`](crate::PoolConfig::max_payload_bytes) limits the JSON.
///
/// ```
/// # actix_workpool::doctest::run(async {
/// use actix_workpool::{Action, ActionContext, Bytes, PoolConfig, Runtime, WorkError};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Reverse { data: Bytes }
///
/// impl Action for Reverse {
///     const NAME: &'static str = "reverse";
///     type Output = Bytes;
///     async fn run(mut self, _: ActionContext) -> Result<Bytes, WorkError> {
///         self.data.reverse();
///         Ok(self.data)
///     }
/// }
///
/// let builder = Runtime::builder().action::<Reverse>().pool("default", PoolConfig::default());
/// let runtime = builder.start().await?;
/// let work = runtime.pool("default")?.enqueue(Reverse { data: vec![1, 2, 255].into() }).await?;
/// assert_eq!(*work.join().await?, [255, 2, 1]);
/// # runtime.shutdown(std::time::Duration::ZERO).await;
/// # Ok(()) });
/// ```
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Base64Display::new(&self.0, &STANDARD))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("base64")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Bytes, E> {
                // The error of the decoder names a byte of the text, which is not to be shown.
                STANDARD.decode(text).map(Bytes).map_err(|_| E::custom("invalid base64"))
            }
        }

        deserializer.deserialize_str(Text)
    }
}

impl Deref for Bytes {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for Bytes {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Bytes {
        Bytes(bytes)
    }
}

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Bytes {
        Bytes(bytes.to_vec())
    }
}

impl From<Cow<'_, [u8]>> for Bytes {
    fn from(bytes: Cow<'_, [u8]>) -> Bytes {
        Bytes(bytes.into_owned())
    }
}

impl From<Bytes> for Vec<u8> {
    fn from(bytes: Bytes) -> Vec<u8> {
        bytes.0
    }
}

impl fmt::Debug for Bytes {
    /// Shows the size only: arguments and results stay out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bytes({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_and_cost_a_third_more() {
        for len in [0, 1, 2, 3, 4, 255, 100_000] {
            let bytes = Bytes((0..len).map(|n| (n * 7 % 256) as u8).collect());
            let json = serde_json::to_string(&bytes).unwrap_or_default();
            assert!(json.len() <= len as usize * 4 / 3 + 6, "{len} take {}", json.len());
            assert_eq!(serde_json::from_str::<Bytes>(&json).ok(), Some(bytes));
        }
    }

    #[test]
    fn what_is_not_base64_is_refused_without_showing_it() {
        for json in [r#""s3cret!""#, r#""YQ""#, "[1,2]", "7"] {
            let error = serde_json::from_str::<Bytes>(json).map_err(|error| error.to_string());
            let Err(error) = error else { panic!("{json} is base64") };
            assert!(error.contains("base64") && !error.contains("s3cret"), "{error}");
        }
    }
}
