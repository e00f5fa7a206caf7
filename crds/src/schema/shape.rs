//! Which fields an object may have: unknown fields, pruning, nulls and defaults.

use serde_json::{Map, Value};

use super::node::{Additional, Node};

/// Fields that every object has at its root whatever its schema says.
const TYPE_AND_METADATA: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Drops the fields that the schema doesn't know and returns their paths, sorted.
pub(crate) fn prune(root: &Node, object: &mut Value) -> Vec<String> {
    let mut pruner = Pruner { path: String::new(), found: Vec::new() };
    match object {
        Value::Object(fields) => pruner.fields(Some(root), fields, &TYPE_AND_METADATA),
        other => pruner.value(Some(root), other),
    }
    pruner.found.sort();
    pruner.found
}

struct Pruner {
    path: String,
    found: Vec<String>,
}

impl Pruner {
    fn value(&mut self, node: Option<&Node>, value: &mut Value) {
        match value {
            Value::Object(fields) => self.fields(node, fields, &[]),
            Value::Array(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    let length = self.path.len();
                    self.path.push_str(&format!("[{index}]"));
                    self.value(node.and_then(|node| node.items.as_deref()), item);
                    self.path.truncate(length);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn fields(&mut self, node: Option<&Node>, fields: &mut Map<String, Value>, always_known: &[&str]) {
        let preserve = node.is_some_and(|node| node.preserve_unknown);
        fields.retain(|name, value| {
            if always_known.contains(&name.as_str()) {
                return true;
            }
            let length = self.path.len();
            if !self.path.is_empty() {
                self.path.push('.');
            }
            self.path.push_str(name);
            let child = node.and_then(|node| node.child(name));
            let any = matches!(node.and_then(|node| node.additional.as_ref()), Some(Additional::Any));
            let known = child.is_some() || preserve || any;
            match child {
                Some(child) => self.value(Some(child), value),
                None if known => {}
                None => self.found.push(self.path.clone()),
            }
            self.path.truncate(length);
            known
        });
    }
}

/// Drops the nulls that may not be null and have no default; those with a default are left for [`defaults`].
pub(crate) fn drop_nulls(node: &Node, value: &mut Value) {
    match value {
        Value::Object(fields) => fields.retain(|name, value| match node.child(name) {
            Some(child) if value.is_null() => child.nullable || child.default.is_some(),
            Some(child) => {
                drop_nulls(child, value);
                true
            }
            None => true,
        }),
        Value::Array(items) => {
            if let Some(node) = &node.items {
                items.iter_mut().for_each(|item| drop_nulls(node, item));
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Gives absent fields their defaults, also below defaults just given.
pub(crate) fn defaults(node: &Node, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, property) in &node.properties {
                if let Some(default) = &property.default
                    && !fields.contains_key(name)
                {
                    fields.insert(name.clone(), default.clone());
                }
            }
            for (name, field) in fields.iter_mut() {
                if let Some(child) = node.child(name) {
                    replace_null(child, field);
                    defaults(child, field);
                }
            }
        }
        Value::Array(items) => {
            if let Some(node) = &node.items {
                for item in items {
                    replace_null(node, item);
                    defaults(node, item);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn replace_null(node: &Node, value: &mut Value) {
    if value.is_null()
        && !node.nullable
        && let Some(default) = &node.default
    {
        *value = default.clone();
    }
}
