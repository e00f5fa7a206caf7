//! Whether an applied configuration can be read by the types of the schema at all, in upstream's words.

use serde_json::Value;

use super::field_set::{Element, path_text};
use super::typed::{Shape, Type};

/// What is wrong, a sentence each; sorted, where upstream's order is that of a map.
pub(crate) fn faults(schema: Type<'_>, config: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    look(schema, config, &mut Vec::new(), &mut faults);
    faults.sort();
    faults
}

fn look(schema: Type<'_>, value: &Value, path: &mut Vec<Element>, faults: &mut Vec<String>) {
    if value.is_null() {
        return;
    }
    let mut complain = |path: &[Element], what: &str| faults.push(format!("{}: {what}", path_text(path)));
    match (schema.expects(), value) {
        ("object", Value::Object(fields)) => {
            for (name, member) in fields {
                path.push(Element::Field(name.clone()));
                if schema.allows(name) {
                    look(schema.field(name), member, path, faults);
                } else {
                    faults.push(format!("{}: field not declared in schema", path_text(path)));
                }
                path.pop();
            }
        }
        ("array", Value::Array(items)) => {
            if schema.shape(value) == Shape::Leaf {
                let mut at = Vec::new();
                for (index, item) in items.iter().enumerate() {
                    at.clone_from(path);
                    at.push(Element::Index(index as u64));
                    look(schema.item(), item, &mut at, faults);
                }
                return;
            }
            let mut seen = std::collections::BTreeSet::new();
            for (index, item) in items.iter().enumerate() {
                match schema.identity(item) {
                    Err(why) => faults.push(format!("{}: element {index}: {why}", path_text(path))),
                    Ok(element) => {
                        path.push(element.clone());
                        look(schema.item(), item, path, faults);
                        path.pop();
                        if !seen.insert(element.clone()) {
                            faults.push(format!("{}: duplicate entries for key {element}", path_text(path)));
                        }
                    }
                }
            }
        }
        ("object", other) => complain(path, &format!("expected map, got {}", go_value(other))),
        ("array", other) => complain(path, &format!("expected list, got {}", go_value(other))),
        ("number", other) if !other.is_number() => {
            complain(path, &format!("expected numeric (int or float), got {}", go_type(other)));
        }
        ("string", other) if !other.is_string() => {
            complain(path, &format!("expected string, got {}", go_value(other)));
        }
        ("boolean", other) if !other.is_boolean() => {
            complain(path, &format!("expected boolean, got {}", go_type(other)));
        }
        _ => {}
    }
}

/// A value as upstream prints what it did not expect.
fn go_value(value: &Value) -> String {
    format!("&value.valueUnstructured{{Value:{}}}", go_syntax(value))
}

fn go_syntax(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let fields: Vec<_> =
                fields.iter().map(|(name, value)| format!("{name:?}:{}", go_syntax(value))).collect();
            format!("map[string]interface {{}}{{{}}}", fields.join(", "))
        }
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(go_syntax).collect();
            format!("[]interface {{}}{{{}}}", items.join(", "))
        }
        other => other.to_string(),
    }
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}
