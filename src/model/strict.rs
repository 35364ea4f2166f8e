//! JSON that can be read back.
//!
//! serde_json writes NaN and infinite numbers as `null`, `Some(None)` and `Some(())` as `null`, and any depth of
//! nesting, of which it reads 127 levels. Here each of these is an error that names the field.

use std::io;

use serde::Serialize;
use serde::ser::{self, Error, SerializeSeq, Serializer};
use serde_json::ser::Formatter;

/// The number of levels that serde_json reads.
const MOST_LEVELS: u8 = 127;

/// Appends a value as JSON.
///
/// # Errors
/// Fails if the value has no JSON that it can be read back from, or its own `Serialize` fails. The error names the
/// field.
pub(crate) fn write<T: Serialize + ?Sized>(
    json: &mut Vec<u8>,
    value: &T,
) -> Result<(), serde_json::Error> {
    let from = json.len();
    let mut encoder = serde_json::Serializer::with_formatter(&mut *json, Compact);
    let written = checked(value).serialize(&mut encoder);
    written.map_err(|error| {
        json.truncate(from);
        // Finding the field is slow, so it is done only after a failure.
        let (mut rest, mut track) = (Vec::new(), serde_path_to_error::Track::new());
        let mut encoder = serde_json::Serializer::new(&mut rest);
        let encoder = serde_path_to_error::Serializer::new(&mut encoder, &mut track);
        let again = checked(value).serialize(encoder);
        match (again, track.path().to_string()) {
            (Err(error), path) if path != "." => {
                serde_json::Error::custom(format_args!("field `{path}`: {error}"))
            }
            _ => error,
        }
    })
}

fn checked<T: Serialize + ?Sized>(value: &T) -> Checked<'_, T> {
    Checked { value, state: State { levels: MOST_LEVELS, is_some: false, is_raw: false } }
}

/// Writes bytes as a string in which nothing is escaped. serde_json looks for escapes byte by byte, which took two
/// fifths of the caller's instructions for a job with 100 bytes of text.
struct Compact;

impl Formatter for Compact {
    fn write_byte_array<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        text: &[u8],
    ) -> io::Result<()> {
        writer.write_all(b"\"")?;
        writer.write_all(text)?;
        writer.write_all(b"\"")
    }
}

/// Returns `true` if JSON escapes nothing in this text.
fn is_plain(text: &[u8]) -> bool {
    let is_escaped = |byte: u8| byte < b' ' || byte == b'"' || byte == b'\\';
    // Without branches within a chunk, the compiler compares its bytes at once.
    let has_escapes = |bytes: &[u8]| bytes.iter().fold(false, |any, b| any | is_escaped(*b));
    let (chunks, rest) = text.as_chunks::<16>();
    !chunks.iter().any(|chunk| has_escapes(chunk)) && !has_escapes(rest)
}

/// A value that is checked while it is serialized.
struct Checked<'v, T: ?Sized> {
    value: &'v T,
    state: State,
}

/// A serializer that checks what goes through it.
struct Strict<S> {
    inner: S,
    state: State,
}

#[derive(Clone, Copy)]
struct State {
    /// The number of levels that may follow.
    levels: u8,
    /// Set right within `Some`.
    is_some: bool,
    /// Set in the structs of which serde_json writes the text as it is.
    is_raw: bool,
}

impl State {
    fn value<'v, T: ?Sized>(self, value: &'v T) -> Checked<'v, T> {
        Checked { value, state: self }
    }

    /// Returns the state `levels` further down.
    fn below<E: Error>(self, levels: u8) -> Result<State, E> {
        match self.levels.checked_sub(levels) {
            Some(levels) => Ok(State { levels, is_some: false, is_raw: false }),
            None => Err(E::custom(format_args!("nested deeper than {MOST_LEVELS} levels"))),
        }
    }

    fn number<E: Error>(is_finite: bool) -> Result<(), E> {
        match is_finite {
            true => Ok(()),
            false => Err(E::custom("NaN and infinite numbers have no JSON")),
        }
    }

    fn null<E: Error>(self) -> Result<(), E> {
        match self.is_some {
            true => Err(E::custom("`Some` of nothing is `null` in JSON, which is read as `None`")),
            false => Ok(()),
        }
    }
}

impl<T: Serialize + ?Sized> Serialize for Checked<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(Strict { inner: serializer, state: self.state })
    }
}

macro_rules! pass {
    ($($name:ident($type:ty);)*) => {$(
        fn $name(self, value: $type) -> Result<S::Ok, S::Error> {
            self.inner.$name(value)
        }
    )*};
}

impl<S: Serializer> Serializer for Strict<S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Strict<S::SerializeSeq>;
    type SerializeTuple = Strict<S::SerializeTuple>;
    type SerializeTupleStruct = Strict<S::SerializeTupleStruct>;
    type SerializeTupleVariant = Strict<S::SerializeTupleVariant>;
    type SerializeMap = Strict<S::SerializeMap>;
    type SerializeStruct = Strict<S::SerializeStruct>;
    type SerializeStructVariant = Strict<S::SerializeStructVariant>;

    pass! {
        serialize_bool(bool);
        serialize_i8(i8);
        serialize_i16(i16);
        serialize_i32(i32);
        serialize_i64(i64);
        serialize_i128(i128);
        serialize_u8(u8);
        serialize_u16(u16);
        serialize_u32(u32);
        serialize_u64(u64);
        serialize_u128(u128);
        serialize_char(char);
    }

    fn serialize_str(self, value: &str) -> Result<S::Ok, S::Error> {
        match !self.state.is_raw && is_plain(value.as_bytes()) {
            true => self.inner.serialize_bytes(value.as_bytes()),
            false => self.inner.serialize_str(value),
        }
    }

    /// Writes a sequence: see [`Compact`].
    fn serialize_bytes(self, value: &[u8]) -> Result<S::Ok, S::Error> {
        let mut seq = self.serialize_seq(Some(value.len()))?;
        for byte in value {
            seq.serialize_element(byte)?;
        }
        seq.end()
    }

    fn serialize_f32(self, value: f32) -> Result<S::Ok, S::Error> {
        State::number(value.is_finite())?;
        self.inner.serialize_f32(value)
    }

    fn serialize_f64(self, value: f64) -> Result<S::Ok, S::Error> {
        State::number(value.is_finite())?;
        self.inner.serialize_f64(value)
    }

    fn serialize_none(self) -> Result<S::Ok, S::Error> {
        self.state.null()?;
        self.inner.serialize_none()
    }

    fn serialize_unit(self) -> Result<S::Ok, S::Error> {
        self.state.null()?;
        self.inner.serialize_unit()
    }

    fn serialize_unit_struct(self, name: &'static str) -> Result<S::Ok, S::Error> {
        self.state.null()?;
        self.inner.serialize_unit_struct(name)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        let state = State { is_some: true, ..self.state };
        self.inner.serialize_some(&state.value(value))
    }

    fn serialize_unit_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
    ) -> Result<S::Ok, S::Error> {
        self.inner.serialize_unit_variant(name, index, variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.inner.serialize_newtype_struct(name, &self.state.value(value))
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        let state = self.state.below(1)?;
        self.inner.serialize_newtype_variant(name, index, variant, &state.value(value))
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        let state = self.state.below(1)?;
        Ok(Strict { inner: self.inner.serialize_seq(len)?, state })
    }

    fn serialize_tuple(self, len: usize) -> Result<Self::SerializeTuple, S::Error> {
        let state = self.state.below(1)?;
        Ok(Strict { inner: self.inner.serialize_tuple(len)?, state })
    }

    fn serialize_tuple_struct(
        self,
        name: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleStruct, S::Error> {
        let state = self.state.below(1)?;
        Ok(Strict { inner: self.inner.serialize_tuple_struct(name, len)?, state })
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleVariant, S::Error> {
        let state = self.state.below(2)?;
        Ok(Strict { inner: self.inner.serialize_tuple_variant(name, index, variant, len)?, state })
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        let state = self.state.below(1)?;
        Ok(Strict { inner: self.inner.serialize_map(len)?, state })
    }

    fn serialize_struct(
        self,
        name: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStruct, S::Error> {
        // Raw JSON goes through a struct whose name no type can have.
        let state = State { is_raw: name.starts_with('$'), ..self.state.below(1)? };
        Ok(Strict { inner: self.inner.serialize_struct(name, len)?, state })
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        let state = self.state.below(2)?;
        Ok(Strict { inner: self.inner.serialize_struct_variant(name, index, variant, len)?, state })
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

macro_rules! elements {
    ($($trait:ident $method:ident;)*) => {$(
        impl<C: ser::$trait> ser::$trait for Strict<C> {
            type Ok = C::Ok;
            type Error = C::Error;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
                self.inner.$method(&self.state.value(value))
            }

            fn end(self) -> Result<C::Ok, C::Error> {
                self.inner.end()
            }
        }
    )*};
}

elements! {
    SerializeSeq serialize_element;
    SerializeTuple serialize_element;
    SerializeTupleStruct serialize_field;
    SerializeTupleVariant serialize_field;
}

macro_rules! fields {
    ($($trait:ident;)*) => {$(
        impl<C: ser::$trait> ser::$trait for Strict<C> {
            type Ok = C::Ok;
            type Error = C::Error;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                key: &'static str,
                value: &T,
            ) -> Result<(), C::Error> {
                self.inner.serialize_field(key, &self.state.value(value))
            }

            fn skip_field(&mut self, key: &'static str) -> Result<(), C::Error> {
                self.inner.skip_field(key)
            }

            fn end(self) -> Result<C::Ok, C::Error> {
                self.inner.end()
            }
        }
    )*};
}

fields! {
    SerializeStruct;
    SerializeStructVariant;
}

impl<C: ser::SerializeMap> ser::SerializeMap for Strict<C> {
    type Ok = C::Ok;
    type Error = C::Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), C::Error> {
        self.inner.serialize_key(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
        self.inner.serialize_value(&self.state.value(value))
    }

    fn end(self) -> Result<C::Ok, C::Error> {
        self.inner.end()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::*;

    /// Writes itself through `serialize_bytes`.
    struct Bytes(&'static [u8]);

    impl Serialize for Bytes {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_bytes(self.0)
        }
    }

    #[test]
    fn texts_bytes_and_raw_json_are_written_as_serde_json_writes_them() {
        fn ours<T: Serialize>(value: &T) -> bool {
            let mut json = Vec::new();
            write(&mut json, value).is_ok() && serde_json::to_vec(value).is_ok_and(|it| it == json)
        }
        for place in 0..40 {
            for odd in ["", "\"", "\\", "\u{1f}", "\n", "\u{7f}", "é", "\0"] {
                let text = format!("{}{odd}{}", "x".repeat(place), "y".repeat(39 - place));
                assert!(ours(&text), "{text:?}");
            }
        }
        assert!(ours(&Bytes(b"")) && ours(&Bytes(b"a\"b")));
        let raw = serde_json::value::RawValue::from_string("12".to_owned()).expect("JSON");
        assert!(ours(&raw) && ours(&json!({ "a": ["b", 1.5, null], "c\n": "d" })));
    }

    #[derive(Clone, Debug, PartialEq, Serialize, serde::Deserialize)]
    struct Order {
        lines: Vec<Line>,
        note: Option<Option<String>>,
        done: Option<()>,
    }

    #[derive(Clone, Debug, PartialEq, Serialize, serde::Deserialize)]
    enum Line {
        Free,
        Price(f64),
        Both { price: f32, count: u64 },
        Two(u8, Option<Id>),
    }

    #[derive(Clone, Debug, PartialEq, Serialize, serde::Deserialize)]
    struct Id(Option<u64>);

    fn order(line: Line) -> Order {
        Order { lines: vec![Line::Free, line], note: None, done: None }
    }

    fn written<T: Serialize + ?Sized>(value: &T) -> Result<String, String> {
        let mut json = b"before".to_vec();
        let outcome = write(&mut json, value);
        let json = String::from_utf8(json).unwrap();
        let json = json.strip_prefix("before").unwrap().to_owned();
        match outcome {
            Ok(()) => Ok(json),
            Err(error) => {
                assert_eq!(json, "", "nothing is left of what is refused");
                Err(error.to_string())
            }
        }
    }

    #[test]
    fn it_writes_as_serde_json_does() {
        let id = Some(Id(Some(7)));
        for line in [
            Line::Free,
            Line::Price(-0.5),
            Line::Both { price: 1.5, count: u64::MAX },
            Line::Two(3, id),
        ] {
            let order = Order { note: Some(Some("n".into())), ..order(line) };
            let json = written(&order).unwrap();
            assert_eq!(json, serde_json::to_string(&order).unwrap());
            assert_eq!(serde_json::from_str::<Order>(&json).unwrap(), order);
        }
        let maps = BTreeMap::from([(1, vec![(2_i128, 'c')]), (2, vec![])]);
        assert_eq!(written(&maps).unwrap(), serde_json::to_string(&maps).unwrap());
        let raw = serde_json::value::RawValue::from_string("[1, 2]".into()).unwrap();
        assert_eq!(written(&raw).unwrap(), "[1, 2]");
        assert_eq!(written(&()).unwrap(), "null");
        assert_eq!(written(&json!({"a": [null, {"b": 1}]})).unwrap(), r#"{"a":[null,{"b":1}]}"#);
    }

    #[test]
    fn numbers_that_json_does_not_have_are_named() {
        for (line, field) in [
            (Line::Price(f64::NAN), "lines[1]"),
            (Line::Both { price: f32::INFINITY, count: 1 }, "price"),
        ] {
            let error = written(&order(line)).unwrap_err();
            assert!(error.contains(field) && error.contains("NaN and infinite"), "{error}");
        }
        assert!(written(&f64::NEG_INFINITY).is_err());
    }

    #[test]
    fn some_of_nothing_is_named() {
        let plain = order(Line::Free);
        for (order, field) in [
            (Order { note: Some(None), ..plain.clone() }, "note"),
            (Order { done: Some(()), ..plain }, "done"),
            (order(Line::Two(1, Some(Id(None)))), "lines[1]"),
        ] {
            let error = written(&order).unwrap_err();
            assert!(error.contains(field) && error.contains("`Some` of nothing"), "{error}");
        }
    }

    /// Nests lists `levels` deep.
    fn nested(levels: usize) -> Value {
        (1..levels).fold(json!([]), |inner, _| json!([inner]))
    }

    #[derive(Serialize, serde::Deserialize)]
    enum Deep {
        One(Box<Deep>),
        Tuple(u8, Box<Deep>),
        Struct { inner: Box<Deep> },
        End,
    }

    fn deep(levels: usize, wrap: fn(Deep) -> Deep) -> Deep {
        (0..levels).fold(Deep::End, |inner, _| wrap(inner))
    }

    fn reads<T: Serialize + DeserializeOwned>(value: &T) -> (bool, bool) {
        let json = serde_json::to_vec(value).unwrap();
        (written(value).is_ok(), serde_json::from_slice::<T>(&json).is_ok())
    }

    #[test]
    fn what_is_written_is_no_deeper_than_what_can_be_read() {
        for levels in 120..135 {
            assert_eq!(reads(&nested(levels)), (levels <= 127, levels <= 127), "{levels}");
        }
        type Wrap = fn(Deep) -> Deep;
        let one: Wrap = |inner| Deep::One(Box::new(inner));
        let tuple: Wrap = |inner| Deep::Tuple(1, Box::new(inner));
        let of_struct: Wrap = |inner| Deep::Struct { inner: Box::new(inner) };
        for (wrap, per_level) in [(one, 1), (tuple, 2), (of_struct, 2)] {
            for levels in 55..135 {
                let (is_written, is_read) = reads(&deep(levels, wrap));
                assert!(!is_written || is_read, "{levels} levels of {per_level}");
                // The last one may lie at the limit.
                assert!(is_written || levels * per_level >= 126, "{levels} levels of {per_level}");
            }
        }
    }
}
