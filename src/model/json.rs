//! Values as JSON and back.

use std::cell::RefCell;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Failure, FailureKind, Payload};

/// Encodes a value through a buffer that is kept, so that the only allocation is that of the payload itself.
pub(crate) fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Payload, serde_json::Error> {
    thread_local!(static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) });
    BUFFER.with(|buffer| match buffer.try_borrow_mut() {
        Ok(mut buffer) => {
            buffer.clear();
            // One large result does not keep its memory for ever.
            buffer.shrink_to(64 * 1024);
            serde_json::to_writer(&mut *buffer, value)?;
            Ok(Payload::new(&buffer))
        }
        // A `Serialize` that itself encodes a payload.
        Err(_) => Ok(Payload::new(&serde_json::to_vec(value)?)),
    })
}

/// Decodes stored JSON; what does not decode never will, and the failure names the field.
pub(crate) fn decode<T: DeserializeOwned>(json: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(json).map_err(|error| {
        // Only now, for it is slow: where in the value it went wrong. The value itself is not repeated.
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

    #[test]
    fn null_takes_no_memory() {
        assert!(encode(&()).expect("encodes").is_empty());
        assert_eq!(encode(&1).expect("encodes").as_bytes(), b"1");
    }
}
