//! The old object beside the new one, for updates.
//!
//! On an update the server forgives what was wrong before and is unchanged: an error in a part that equals its
//! old value is dropped. Parts correspond by field name, and by their keys in lists of type map; entries of other
//! lists correspond to nothing, they are compared as a whole.

use serde_json::Value;

use super::node::{ListType, Node};

/// What the old object had at the place that is looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prior<'a> {
    /// The old value, where one corresponds.
    pub(crate) value: Option<&'a Value>,
    /// Whether the nearest part around it that has an old value equals that value.
    surroundings_unchanged: bool,
}

impl<'a> Prior<'a> {
    /// The old object, or none on creation.
    pub(crate) fn root(old: Option<&'a Value>) -> Self {
        Self { value: old, surroundings_unchanged: false }
    }

    /// Whether an error at this place was there before and is forgiven.
    pub(crate) fn forgives(self, node: &Node, new: &Value) -> bool {
        match self.value {
            Some(old) => unchanged(node, new, old),
            None => self.surroundings_unchanged,
        }
    }

    /// What the old object had for a field of `new`.
    pub(crate) fn field(self, node: &Node, new: &Value, name: &str) -> Self {
        let value = self.value.and_then(|old| old.get(name));
        self.below(node, new, value)
    }

    /// What the old object had for an item of the list `new`.
    pub(crate) fn item(self, node: &Node, new: &Value, item: &Value) -> Self {
        let value = self.value.and_then(Value::as_array).and_then(|old| same_entry(node, old, item));
        self.below(node, new, value)
    }

    fn below(self, node: &Node, new: &Value, value: Option<&'a Value>) -> Self {
        // Comparing is needed only where nothing corresponds any more.
        let surroundings_unchanged = value.is_none() && self.forgives(node, new);
        Self { value, surroundings_unchanged }
    }
}

/// The entry of `old` with the keys of `item`, in a list of type map.
fn same_entry<'a>(node: &Node, old: &'a [Value], item: &Value) -> Option<&'a Value> {
    match &node.list_type {
        Some(ListType::Map(keys)) => {
            let scalar = |value: &&Value| !value.is_null() && !value.is_object() && !value.is_array();
            let same = |entry: &Value, key| {
                item.get(key).filter(scalar).is_some_and(|value| entry.get(key) == Some(value))
            };
            old.iter().find(|entry| keys.iter().all(|key| same(entry, key)))
        }
        Some(ListType::Atomic | ListType::Set) | None => None,
    }
}

/// Whether two values are the same; the order of lists of type map doesn't matter.
fn unchanged(node: &Node, new: &Value, old: &Value) -> bool {
    match (new, old) {
        (Value::Object(new), Value::Object(old)) => {
            new.len() == old.len()
                && new.iter().all(|(name, value)| {
                    // A field outside the schema corresponds to nothing. An object as a whole has such fields
                    // (metadata), so what is wrong at its root is never forgiven.
                    let child = node.child(name);
                    child.zip(old.get(name)).is_some_and(|(child, old)| unchanged(child, value, old))
                })
        }
        (Value::Array(new), Value::Array(old)) if matches!(node.list_type, Some(ListType::Map(_))) => {
            new.len() == old.len()
                && new.iter().all(|item| {
                    same_entry(node, old, item).is_some_and(|old| match &node.items {
                        Some(items) => unchanged(items, item, old),
                        None => item == old,
                    })
                })
        }
        (new, old) => new == old,
    }
}
