//! Lists of type set and map: no entry may come twice.

use serde_json::{Map, Value};

use super::error::FieldError;
use super::node::{ListType, Node};

/// Collects the entries that come twice in lists that don't allow it.
pub(crate) fn validate(node: &Node, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                if let Some(property) = node.properties.get(name) {
                    let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    validate(property, field, &path, errors);
                } else if let Some(additional) = node.child(name) {
                    validate(additional, field, &format!("{path}[{name}]"), errors);
                }
            }
        }
        Value::Array(items) => {
            match &node.list_type {
                Some(ListType::Set) => duplicates(items, path, errors),
                Some(ListType::Map(keys)) => entries(keys, items, path, errors),
                Some(ListType::Atomic) | None => {}
            }
            if let Some(schema) = &node.items {
                for (index, item) in items.iter().enumerate() {
                    validate(schema, item, &format!("{path}[{index}]"), errors);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn entries(keys: &[String], items: &[Value], path: &str, errors: &mut Vec<FieldError>) {
    let not_an_object = |item: &Value| !item.is_object() && !item.is_null();
    if let Some((index, item)) = items.iter().enumerate().find(|(_, item)| not_an_object(item)) {
        errors.push(FieldError::invalid(
            &format!("{path}[{index}]"),
            item.clone(),
            "must be an object for an array of list-type map",
        ));
        return;
    }
    let keys_of = |item: &Value| {
        let present = keys.iter().filter_map(|key| Some((key.clone(), item.get(key)?.clone())));
        Value::Object(present.collect::<Map<_, _>>())
    };
    duplicates(&items.iter().map(keys_of).collect::<Vec<_>>(), path, errors);
}

/// Reports each value that comes more than once, at its second place.
fn duplicates(items: &[Value], path: &str, errors: &mut Vec<FieldError>) {
    for (index, item) in items.iter().enumerate() {
        if items[..index].iter().filter(|earlier| *earlier == item).count() == 1 {
            let path = format!("{path}[{index}]");
            errors.push(FieldError::new(&path, super::FieldErrorKind::Duplicate, item.clone(), ""));
        }
    }
}
