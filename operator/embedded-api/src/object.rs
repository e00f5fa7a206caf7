//! Reading and writing the metadata of an object kept as JSON.

use serde_json::{Map, Value};

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get("metadata").and_then(|meta| meta.get(field)).and_then(Value::as_str).unwrap_or_default()
}

/// A document as it goes over the wire and to disk. Written straight into bytes: `Display` would go through a formatter,
/// which takes twice as long.
pub(crate) fn bytes(document: &Value) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1024);
    // Neither a `Vec` nor a `Value`, whose keys are strings, can refuse.
    let _ = serde_json::to_writer(&mut bytes, document);
    bytes
}

pub(crate) fn name(object: &Value) -> &str {
    text(object, "name")
}

pub(crate) fn namespace(object: &Value) -> &str {
    text(object, "namespace")
}

pub(crate) fn uid(object: &Value) -> &str {
    text(object, "uid")
}

pub(crate) fn resource_version(object: &Value) -> &str {
    text(object, "resourceVersion")
}

pub(crate) fn meta_text<'a>(object: &'a Value, field: &str) -> &'a str {
    text(object, field)
}

pub(crate) fn generation(object: &Value) -> i64 {
    object.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or_default()
}

pub(crate) fn is_terminating(object: &Value) -> bool {
    !text(object, "deletionTimestamp").is_empty()
}

/// The strings of `metadata.finalizers`.
pub(crate) fn finalizers(object: &Value) -> Vec<String> {
    let list = object.pointer("/metadata/finalizers").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

pub(crate) fn set_finalizers(object: &mut Value, finalizers: Vec<String>) {
    if finalizers.is_empty() {
        unset(object, "finalizers");
    } else {
        set(object, "finalizers", finalizers.into());
    }
}

/// The entries of `metadata.ownerReferences`.
pub(crate) fn owners(object: &Value) -> impl Iterator<Item = &Value> {
    object.pointer("/metadata/ownerReferences").and_then(Value::as_array).into_iter().flatten()
}

pub(crate) fn owner_uids(object: &Value) -> Vec<String> {
    owners(object).filter_map(|owner| owner.get("uid")?.as_str().map(str::to_owned)).collect()
}

/// The metadata as a map, made where it is absent or of another type.
pub(crate) fn meta_mut(object: &mut Value) -> &mut Map<String, Value> {
    map_mut(map_mut(object).entry("metadata").or_insert(Value::Null))
}

/// The value as a map; whatever else it was is replaced by an empty one.
pub(crate) fn map_mut(value: &mut Value) -> &mut Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => {
            *other = Value::Object(Map::new());
            map_mut(other)
        }
    }
}

pub(crate) fn set(object: &mut Value, field: &str, value: Value) {
    meta_mut(object).insert(field.to_owned(), value);
}

pub(crate) fn unset(object: &mut Value, field: &str) {
    meta_mut(object).remove(field);
}

pub(crate) fn set_resource_version(object: &mut Value, revision: u64) {
    set(object, "resourceVersion", revision.to_string().into());
}
