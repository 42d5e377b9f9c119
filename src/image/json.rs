//! JSON: strict reading (RFC 7493, I-JSON) and canonical writing.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::error::{ImageError, shown};

/// Levels of nesting that are read; documents of the image specification have less than half of that.
const MAX_DEPTH: u8 = 64;

/// A value as the bytes that are hashed: keys sorted by code point at every level, no white space.
pub fn canonical_json(value: &impl Serialize) -> Vec<u8> {
    let value = serde_json::to_value(value).map(sorted).unwrap_or_default();
    value.to_string().into_bytes()
}

/// Sorts keys whatever map `serde_json` was built with: a feature that another crate enables must not change a digest.
fn sorted(value: Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        Value::Object(map) => {
            let ordered: BTreeMap<String, Value> = map.into_iter().map(|(k, v)| (k, sorted(v))).collect();
            Value::Object(ordered.into_iter().collect())
        }
        plain => plain,
    }
}

/// Reads `bytes` as I-JSON: UTF-8, one value and nothing after it, no key twice, at most 64 levels.
pub fn read_json<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, ImageError> {
    from_value(what, strict_value(what, bytes)?)
}

/// The second half of [`read_json`], for callers that need the value in between.
pub(super) fn from_value<T: DeserializeOwned>(what: &'static str, value: Value) -> Result<T, ImageError> {
    serde_json::from_value(value).map_err(|source| ImageError::Json { what, source })
}

/// The first half of [`read_json`].
pub(super) fn strict_value(what: &'static str, bytes: &[u8]) -> Result<Value, ImageError> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { depth: 0 }.deserialize(&mut reader);
    value.and_then(|value| reader.end().map(|()| value)).map_err(|source| ImageError::Json { what, source })
}

/// Reads `null` as an empty list or map: Go writes it for a nil slice.
pub(super) fn null_is_empty<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(from).map(Option::unwrap_or_default)
}

struct Strict {
    depth: u8,
}

impl Strict {
    fn deeper<E: serde::de::Error>(&self) -> Result<u8, E> {
        if self.depth >= MAX_DEPTH {
            return Err(E::custom(format_args!("nested deeper than {MAX_DEPTH} levels")));
        }
        Ok(self.depth + 1)
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let depth = self.deeper()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Strict { depth })? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let depth = self.deeper()?;
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let value = entries.next_value_seed(Strict { depth })?;
            if map.contains_key(&key) {
                return Err(A::Error::custom(format_args!("the key `{}` appears twice", shown(&key))));
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sorted_at_every_level_and_white_space_is_gone() {
        let value: Value = read_json("test", br#"{"b": [ {"z":1,"A":2} ], "a": "x y"}"#).unwrap();
        assert_eq!(canonical_json(&value), br#"{"a":"x y","b":[{"A":2,"z":1}]}"#);
    }

    #[test]
    fn a_number_is_the_same_when_it_was_written_and_read() {
        let numbers = b"[123456789012345678901,0.1,-0.0,1e-7,1.7976931348623157e308,18446744073709551615]";
        let value: Value = read_json("test", numbers).unwrap();
        assert_eq!(read_json::<Value>("test", &canonical_json(&value)).unwrap(), value);
    }

    #[test]
    fn what_two_readers_could_understand_differently_is_refused() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let rows: [(&str, &[u8]); 7] = [
            ("twice", br#"{"a":1,"a":2}"#),
            ("twice", br#"{"x":{"layers":[],"layers":[]}}"#),
            ("trailing", b"{} x"),
            ("deeper", deep.as_bytes()),
            ("expected", b"{\"a\":NaN}"),
            ("unicode", b"\"\xff\""),
            ("EOF", b""),
        ];
        for (reason, bytes) in rows {
            let error = read_json::<Value>("test", bytes).unwrap_err();
            let source = std::error::Error::source(&error).unwrap().to_string();
            assert!(source.contains(reason), "{reason}: {source}");
        }
        let level_64 = format!("{}{}", "[".repeat(64), "]".repeat(64));
        read_json::<Value>("test", level_64.as_bytes()).unwrap();
    }
}
