//! Values as JSON and back.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde::ser::Error;
use serde_json::Value;

use super::strict::write;
use super::{Failure, FailureKind, Payload};

/// `true` if every value is decoded and encoded again: in debug builds, and in tests of programs.
const CHECKS: bool = cfg!(any(debug_assertions, feature = "testing"));

/// Encodes a value through a reused buffer, so that the only allocation is that of the payload itself.
///
/// # Errors
/// See [`write`].
pub(crate) fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Payload, serde_json::Error> {
    thread_local!(static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) });
    BUFFER.with(|buffer| match buffer.try_borrow_mut() {
        Ok(mut buffer) => {
            buffer.clear();
            // One large result does not keep its memory for ever.
            buffer.shrink_to(64 * 1024);
            write(&mut buffer, value)?;
            Ok(Payload::new(&buffer))
        }
        // The buffer is in use by a `Serialize` that itself encodes a payload.
        Err(_) => {
            let mut buffer = Vec::new();
            write(&mut buffer, value)?;
            Ok(Payload::new(&buffer))
        }
    })
}

/// Encodes like [`encode`]. With [`CHECKS`] it also checks that the value comes back as it was.
pub(crate) fn encode_typed<T: Serialize + DeserializeOwned>(
    value: &T,
) -> Result<Payload, serde_json::Error> {
    let payload = encode(value)?;
    if CHECKS {
        comes_back::<T>(payload.as_bytes())?;
    }
    Ok(payload)
}

/// Writes like [`write`]. With [`CHECKS`] it also checks that the value comes back as it was.
pub(crate) fn write_typed<T: Serialize + DeserializeOwned>(
    json: &mut Vec<u8>,
    value: &T,
) -> Result<(), serde_json::Error> {
    let from = json.len();
    write(json, value)?;
    if CHECKS {
        comes_back::<T>(&json[from..])?;
    }
    Ok(())
}

/// Decodes a value and encodes it again. A difference would change the value on its way to the function or the caller.
fn comes_back<T: Serialize + DeserializeOwned>(json: &[u8]) -> Result<(), serde_json::Error> {
    // A panic in the type's own code shows where the value is really decoded.
    let decoded = catch_unwind(AssertUnwindSafe(|| decode::<T>(json)));
    let again = match decoded {
        Ok(Ok(value)) => serde_json::from_slice(&serde_json::to_vec(&value)?)?,
        Ok(Err(failure)) => {
            let problem = failure.message;
            return Err(Error::custom(format_args!("it does not decode again: {problem}")));
        }
        Err(_) => return Ok(()),
    };
    match difference(&serde_json::from_slice(json)?, &again) {
        None => Ok(()),
        Some(place) => {
            Err(Error::custom(format_args!("it comes back from its JSON as something else{place}")))
        }
    }
}

/// Describes the first place where two values differ.
fn difference(one: &Value, other: &Value) -> Option<String> {
    fn find(one: &Value, other: &Value, path: &mut String) -> bool {
        let len = path.len();
        match (one, other) {
            (Value::Object(one), Value::Object(other)) => {
                let keys = one.keys().chain(other.keys().filter(|key| !one.contains_key(*key)));
                for key in keys {
                    let dot = if path.is_empty() { "" } else { "." };
                    path.push_str(&format!("{dot}{key}"));
                    let null = &Value::Null;
                    if find(one.get(key).unwrap_or(null), other.get(key).unwrap_or(null), path) {
                        return true;
                    }
                    path.truncate(len);
                }
                one.len() != other.len()
            }
            (Value::Array(one), Value::Array(other)) => {
                for (number, (one, other)) in one.iter().zip(other).enumerate() {
                    path.push_str(&format!("[{number}]"));
                    if find(one, other, path) {
                        return true;
                    }
                    path.truncate(len);
                }
                one.len() != other.len()
            }
            (one, other) => one != other,
        }
    }
    let mut path = String::new();
    find(one, other, &mut path).then(|| match path.is_empty() {
        true => String::new(),
        false => format!(" at `{path}`"),
    })
}

/// Decodes stored JSON. A failure is permanent and names the field.
pub(crate) fn decode<T: DeserializeOwned>(json: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(json).map_err(|error| {
        // Finding the field is slow, so it is done only after a failure. The message does not repeat the value.
        let mut decoder = serde_json::Deserializer::from_slice(json);
        let field = match serde_path_to_error::deserialize::<_, T>(&mut decoder) {
            Err(error) => error.path().to_string(),
            Ok(_) => ".".to_owned(),
        };
        let message = error.to_string();
        let problem = match message.split_once(": ") {
            // "invalid type: string \"secret\", expected u64 at line 1 column 9"
            Some((problem, rest)) => match rest.rsplit_once("expected ") {
                Some((_, expected)) => format!("{problem}, expected {expected}"),
                None => problem.to_owned(),
            },
            None => message,
        };
        let place = if field == "." { String::new() } else { format!("field `{field}`: ") };
        Failure::permanent(FailureKind::Decode, format!("{place}{problem}"))
    })
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[allow(dead_code)]
    struct Args {
        to: String,
        retries: Inner,
    }

    #[derive(Debug, Deserialize)]
    #[allow(dead_code)]
    struct Inner {
        count: u64,
    }

    fn problem(json: &str) -> String {
        decode::<Args>(json.as_bytes()).expect_err("does not decode").message
    }

    #[test]
    fn a_value_of_the_wrong_type_is_named_by_its_field_and_not_shown() {
        let message = problem(r#"{"to":"a","retries":{"count":"s3cret"}}"#);
        assert!(message.contains("retries.count"), "{message}");
        assert!(message.contains("u64"), "{message}");
        assert!(!message.contains("s3cret"), "{message}");
    }

    #[test]
    fn a_missing_field_is_named() {
        let message = problem(r#"{"retries":{"count":1}}"#);
        assert!(message.contains("missing field `to`"), "{message}");
    }

    /// A type that reads one field and writes another.
    #[derive(serde::Serialize, Deserialize)]
    struct Renamed {
        inner: Vec<Field>,
    }

    #[derive(serde::Serialize, Deserialize)]
    struct Field {
        #[serde(rename(serialize = "out", deserialize = "in"), default)]
        value: u64,
    }

    #[test]
    fn a_type_that_comes_back_as_something_else_is_refused_in_debug_builds() {
        let changes = |value| {
            let refused = encode_typed(&Renamed { inner: vec![Field { value }] });
            refused.err().map(|error| error.to_string())
        };
        assert_eq!(changes(0), None, "it happens to be the default");
        let expected = "it comes back from its JSON as something else at `inner[0].out`";
        assert_eq!(changes(1).as_deref(), CHECKS.then_some(expected));
        assert!(
            encode_typed(&std::collections::HashMap::from(
                [("b", 1), ("a", 2)].map(|(k, v)| (k.to_owned(), v))
            ))
            .is_ok()
        );
        assert!(encode_typed(&(0.1_f32, 1e300_f64, "\u{0}".to_owned())).is_ok());
    }

    #[test]
    fn null_takes_no_memory() {
        assert!(encode(&()).expect("encodes").is_empty());
        assert_eq!(encode(&1).expect("encodes").as_bytes(), b"1");
    }
}
