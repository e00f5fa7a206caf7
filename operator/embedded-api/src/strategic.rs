//! Strategic merge patch for the built-in kinds, whose lists are few: finalizers and owner references are merged,
//! all others replaced.

use serde_json::{Map, Value};

use crate::object::map_mut;
use crate::status::ApiError;

/// Applies a patch with its directives.
pub(crate) fn merge(value: &mut Value, patch: &Value) -> Result<(), ApiError> {
    let Value::Object(patch) = patch else {
        return Err(ApiError::bad_request("a strategic merge patch is an object"));
    };
    if directive(patch)? == Some("replace") {
        *value = Value::Object(patch.iter().filter(|(key, _)| *key != "$patch").map(owned).collect());
        return Ok(());
    }
    let fields = map_mut(value);
    if let Some(retained) = patch.get("$retainKeys").and_then(Value::as_array) {
        fields.retain(|key, _| retained.iter().any(|one| one == key.as_str()));
    }
    for (key, wanted) in patch {
        if let Some(list) = key.strip_prefix("$deleteFromPrimitiveList/") {
            remove_items(fields, list, wanted);
            continue;
        }
        if key.starts_with('$') {
            continue;
        }
        match wanted {
            Value::Null => {
                fields.remove(key);
            }
            Value::Object(inner) if directive(inner)? == Some("delete") => {
                fields.remove(key);
            }
            Value::Object(_) => merge(fields.entry(key).or_insert(Value::Null), wanted)?,
            Value::Array(items) => {
                let held = fields.entry(key).or_insert_with(|| Value::Array(Vec::new()));
                match key.as_str() {
                    "finalizers" => union(held, items),
                    "ownerReferences" => by_key(held, items, "uid")?,
                    "conditions" => by_key(held, items, "type")?,
                    _ => *held = wanted.clone(),
                }
            }
            scalar => {
                fields.insert(key.clone(), scalar.clone());
            }
        }
    }
    Ok(())
}

fn owned((key, value): (&String, &Value)) -> (String, Value) {
    (key.clone(), value.clone())
}

fn directive(patch: &Map<String, Value>) -> Result<Option<&str>, ApiError> {
    match patch.get("$patch").map(|directive| directive.as_str().unwrap_or_default()) {
        None => Ok(None),
        Some(known @ ("replace" | "delete" | "merge")) => Ok(Some(known)),
        Some(other) => Err(ApiError::bad_request(format!("unknown patch directive {other:?}"))),
    }
}

fn remove_items(fields: &mut Map<String, Value>, list: &str, unwanted: &Value) {
    if let (Some(Value::Array(held)), Some(unwanted)) = (fields.get_mut(list), unwanted.as_array()) {
        held.retain(|item| !unwanted.contains(item));
    }
}

fn union(held: &mut Value, items: &[Value]) {
    if let Value::Array(held) = held {
        for item in items {
            if !held.contains(item) {
                held.push(item.clone());
            }
        }
    }
}

fn by_key(held: &mut Value, items: &[Value], key: &str) -> Result<(), ApiError> {
    let Value::Array(held) = held else { return Ok(()) };
    for item in items {
        let id = item.get(key).ok_or_else(|| {
            ApiError::bad_request(format!("a list item of the patch lacks its key {key:?}"))
        })?;
        let found = held.iter().position(|one| one.get(key) == Some(id));
        let deleted = item.get("$patch").and_then(Value::as_str) == Some("delete");
        match (found, deleted) {
            (Some(at), true) => {
                held.remove(at);
            }
            (Some(at), false) => merge(&mut held[at], item)?,
            (None, true) => {}
            (None, false) => held.push(item.clone()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn maps_merge_and_directives_delete() {
        let mut value =
            json!({"metadata": {"labels": {"a": "1", "b": "2"}, "finalizers": ["x", "y"]}, "spec": {"z": 1}});
        let patch = json!({
            "metadata": {
                "labels": {"a": null, "c": "3"},
                "$deleteFromPrimitiveList/finalizers": ["x"],
                "$setElementOrder/finalizers": ["y", "w"],
                "finalizers": ["w"],
            },
            "spec": {"$patch": "replace", "q": 2},
        });
        merge(&mut value, &patch).unwrap();
        assert_eq!(
            value,
            json!({"metadata": {"labels": {"b": "2", "c": "3"}, "finalizers": ["y", "w"]}, "spec": {"q": 2}})
        );
    }
}
