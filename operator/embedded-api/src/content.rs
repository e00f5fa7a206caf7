//! Media types: what a client accepts, and reading what it sent.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::protobuf;
use crate::status::ApiError;

/// The form in which objects are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Plain,
    Table,
    Metadata,
    /// Discovery of all groups in one answer.
    Discovery,
}

/// Media type of aggregated discovery, as answered.
pub(crate) const DISCOVERY: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Picks the first form in the `Accept` header that can be produced.
pub(crate) fn accepted(header: Option<&str>) -> Result<Shape, ApiError> {
    let header = header.unwrap_or("*/*");
    header
        .split(',')
        .find_map(|entry| {
            let mut parts = entry.split(';').map(str::trim);
            let media = parts.next()?;
            let parameter = |wanted: &str| {
                entry.split(';').skip(1).find_map(|part| {
                    part.trim().split_once('=').filter(|(key, _)| *key == wanted).map(|(_, value)| value)
                })
            };
            match (media, parameter("as"), parameter("g"), parameter("v")) {
                ("application/json" | "application/*" | "*/*", None, _, _) => Some(Shape::Plain),
                ("application/json", Some("Table"), Some("meta.k8s.io"), Some("v1")) => Some(Shape::Table),
                (
                    "application/json",
                    Some("PartialObjectMetadata" | "PartialObjectMetadataList"),
                    Some("meta.k8s.io"),
                    Some("v1"),
                ) => Some(Shape::Metadata),
                (
                    "application/json",
                    Some("APIGroupDiscoveryList"),
                    Some("apidiscovery.k8s.io"),
                    Some("v2"),
                ) => Some(Shape::Discovery),
                _ => None,
            }
        })
        .ok_or_else(|| ApiError::not_acceptable("application/json"))
}

/// A document and the paths of keys that it gives more than once.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) value: Value,
    pub(crate) duplicates: Vec<String>,
}

/// Reads an object in the form that the content type says; JSON where it says nothing.
pub(crate) fn body(media_type: &str, body: &[u8]) -> Result<Document, ApiError> {
    const READ: &str = "application/json, application/yaml";
    match media_type {
        "" | "application/json" => json(body),
        "application/yaml" => yaml(body),
        protobuf::MEDIA_TYPE => {
            let value = protobuf::decode(body).ok_or_else(|| ApiError::unsupported_media_type(READ))?;
            Ok(Document { value, duplicates: Vec::new() })
        }
        _ => Err(ApiError::unsupported_media_type(READ)),
    }
}

/// Reads JSON. Numbers without a fraction become integers, as in the API machinery.
pub(crate) fn json(body: &[u8]) -> Result<Document, ApiError> {
    let mut duplicates = Vec::new();
    let mut reader = serde_json::Deserializer::from_slice(body);
    let value = Reader { path: "", duplicates: &mut duplicates }
        .deserialize(&mut reader)
        .and_then(|value| reader.end().map(|()| value))
        .map_err(|error| ApiError::bad_request(format!("couldn't read the body as JSON: {error}")))?;
    Ok(Document { value, duplicates })
}

/// Reads YAML, of which JSON is the part that most clients send.
pub(crate) fn yaml(body: &[u8]) -> Result<Document, ApiError> {
    if let Ok(document) = json(body) {
        return Ok(document);
    }
    let refused = |why: String| ApiError::bad_request(format!("couldn't read the body as YAML: {why}"));
    let text = std::str::from_utf8(body).map_err(|error| refused(error.to_string()))?;
    let mut value: Value = serde_saphyr::from_str(text).map_err(|error| refused(error.to_string()))?;
    whole_numbers(&mut value);
    Ok(Document { value, duplicates: Vec::new() })
}

/// Whether a value has more levels of lists and maps than `limit`.
pub(crate) fn is_deeper_than(value: &Value, limit: usize) -> bool {
    let Some(limit) = limit.checked_sub(1) else { return value.is_array() || value.is_object() };
    match value {
        Value::Array(items) => items.iter().any(|item| is_deeper_than(item, limit)),
        Value::Object(map) => map.values().any(|item| is_deeper_than(item, limit)),
        _ => false,
    }
}

/// The number of values in a document, its texts counted by the byte; stops counting above `limit`.
pub(crate) fn weight(value: &Value, limit: usize) -> usize {
    let mut total: usize = 1;
    match value {
        Value::String(text) => total += text.len(),
        Value::Array(items) => {
            for item in items {
                if total > limit {
                    break;
                }
                total += weight(item, limit - total);
            }
        }
        Value::Object(map) => {
            for (key, item) in map {
                if total > limit {
                    break;
                }
                total += key.len() + weight(item, limit - total);
            }
        }
        _ => {}
    }
    total
}

fn whole_numbers(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(map) => map.values_mut().for_each(whole_numbers),
        Value::Number(number) if number.is_f64() => {
            if let Some(float) = number.as_f64() {
                *value = from_f64(float);
            }
        }
        _ => {}
    }
}

fn from_f64(float: f64) -> Value {
    // Up to 2^53 every integer has exactly one double, so that nothing is lost.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if float.fract() == 0.0 && float.abs() <= EXACT {
        #[expect(clippy::cast_possible_truncation, reason = "the value is whole and within 2^53")]
        return Value::from(float as i64);
    }
    Number::from_f64(float).map_or(Value::Null, Value::Number)
}

struct Reader<'a> {
    path: &'a str,
    duplicates: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
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
        Ok(from_f64(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let path = format!("{}[{}]", self.path, list.len());
            let item = Reader { path: &path, duplicates: &mut *self.duplicates };
            match items.next_element_seed(item)? {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let path = if self.path.is_empty() { key.clone() } else { format!("{}.{key}", self.path) };
            let value = entries.next_value_seed(Reader { path: &path, duplicates: &mut *self.duplicates })?;
            if map.insert(key, value).is_some() {
                self.duplicates.push(path);
            }
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn whole_floats_become_integers_and_duplicates_are_named() {
        let document = super::json(br#"{"a": 1500.0, "b": [{"c": 1, "c": 0.5}]}"#).unwrap();
        assert_eq!(document.value, json!({"a": 1500, "b": [{"c": 0.5}]}));
        assert_eq!(document.duplicates, ["b[0].c"]);
        assert!(super::json(b"{} x").is_err());
        assert!(super::json("[".repeat(10_000).as_bytes()).is_err());
        assert_eq!(yaml(b"a: 1.0\nb: [x]\n").unwrap().value, json!({"a": 1, "b": ["x"]}));
    }

    #[test]
    fn the_first_form_that_can_be_produced_is_taken() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        let protobuf = "application/vnd.kubernetes.protobuf,application/json";
        assert_eq!(accepted(Some(table)).unwrap(), Shape::Table);
        assert_eq!(accepted(Some(protobuf)).unwrap(), Shape::Plain);
        assert_eq!(accepted(None).unwrap(), Shape::Plain);
        assert_eq!(accepted(Some("application/vnd.kubernetes.protobuf")).unwrap_err().code, 406);
    }
}
