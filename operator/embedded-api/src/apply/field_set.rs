//! Sets of field paths, and their form in `managedFields` (FieldsV1).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Map, Value};

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Element {
    /// A field of a struct or a key of a map.
    Field(String),
    /// An item of a keyed list: its keys in order of name, each value as JSON.
    Keys(Vec<(String, String)>),
    /// An item of a set, as JSON.
    Item(String),
    /// A position in a list.
    Index(u64),
}

impl Element {
    fn encode(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Keys(keys) => {
                let pairs: Vec<String> = keys
                    .iter()
                    .map(|(key, value)| format!("{}:{value}", Value::from(key.as_str())))
                    .collect();
                format!("k:{{{}}}", pairs.join(","))
            }
            Self::Item(value) => format!("v:{value}"),
            Self::Index(index) => format!("i:{index}"),
        }
    }

    fn decode(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':')?;
        match kind {
            "f" => Some(Self::Field(rest.to_owned())),
            "k" => {
                let keys: BTreeMap<String, Value> = serde_json::from_str(rest).ok()?;
                Some(Self::Keys(keys.into_iter().map(|(key, value)| (key, value.to_string())).collect()))
            }
            "v" => Some(Self::Item(serde_json::from_str::<Value>(rest).ok()?.to_string())),
            "i" => rest.parse().ok().map(Self::Index),
            _ => None,
        }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Keys(keys) => {
                let pairs: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
                write!(f, "[{}]", pairs.join(","))
            }
            Self::Item(value) => write!(f, "[={value}]"),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// A set of paths, as a tree: a path is in it where its last element is a member of the node before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FieldSet {
    members: BTreeSet<Element>,
    children: BTreeMap<Element, FieldSet>,
}

impl FieldSet {
    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty() && self.children.values().all(Self::is_empty)
    }

    /// Adds a path; the path of the whole object is never owned and adds nothing.
    pub(crate) fn insert(&mut self, path: &[Element]) {
        match path {
            [] => {}
            [last] => {
                self.members.insert(last.clone());
            }
            [first, rest @ ..] => self.children.entry(first.clone()).or_default().insert(rest),
        }
    }

    pub(crate) fn has(&self, element: &Element) -> bool {
        self.members.contains(element)
    }

    /// The paths below `element`.
    pub(crate) fn below(&self, element: &Element) -> Option<&Self> {
        self.children.get(element).filter(|child| !child.is_empty())
    }

    pub(crate) fn union(&self, other: &Self) -> Self {
        let mut union = self.clone();
        union.members.extend(other.members.iter().cloned());
        for (element, child) in &other.children {
            let merged = union.children.get(element).map_or_else(|| child.clone(), |own| own.union(child));
            union.children.insert(element.clone(), merged);
        }
        union
    }

    pub(crate) fn intersection(&self, other: &Self) -> Self {
        let children = self.children.iter().filter_map(|(element, child)| {
            let common = child.intersection(other.children.get(element)?);
            (!common.is_empty()).then(|| (element.clone(), common))
        });
        Self {
            members: self.members.intersection(&other.members).cloned().collect(),
            children: children.collect(),
        }
    }

    pub(crate) fn difference(&self, other: &Self) -> Self {
        let children = self.children.iter().filter_map(|(element, child)| {
            let left = match other.children.get(element) {
                Some(theirs) => child.difference(theirs),
                None => child.clone(),
            };
            (!left.is_empty()).then(|| (element.clone(), left))
        });
        Self {
            members: self.members.difference(&other.members).cloned().collect(),
            children: children.collect(),
        }
    }

    /// Keeps what is at or below the top-level fields that `keep` holds of.
    pub(crate) fn retain_top(&mut self, keep: impl Fn(&str) -> bool) {
        let kept = |element: &Element| matches!(element, Element::Field(name) if keep(name));
        self.members.retain(kept);
        self.children.retain(|element, _| kept(element));
    }

    /// Adds as members the children that `named` holds of, at every level; `named` gets the way to the node.
    pub(crate) fn with_named_members<S: Copy>(
        &self,
        schema: S,
        named: &impl Fn(S, &Element) -> bool,
        descend: &impl Fn(S, &Element) -> S,
    ) -> Self {
        let mut set = Self { members: self.members.clone(), children: BTreeMap::new() };
        for (element, child) in &self.children {
            if named(schema, element) {
                set.members.insert(element.clone());
            }
            let below = child.with_named_members(descend(schema, element), named, descend);
            set.children.insert(element.clone(), below);
        }
        set
    }

    /// Every path, in order.
    pub(crate) fn paths(&self) -> Vec<Vec<Element>> {
        let mut paths = Vec::new();
        self.collect(&mut Vec::new(), &mut paths);
        paths
    }

    fn collect(&self, at: &mut Vec<Element>, paths: &mut Vec<Vec<Element>>) {
        // In the order in which upstream tells them: what is in the set, then what is below it.
        for element in &self.members {
            at.push(element.clone());
            paths.push(at.clone());
            at.pop();
        }
        for (element, child) in &self.children {
            at.push(element.clone());
            child.collect(at, paths);
            at.pop();
        }
    }

    /// The set as FieldsV1.
    pub(crate) fn encode(&self) -> Value {
        let mut map = Map::new();
        for member in &self.members {
            map.insert(member.encode(), Value::Object(Map::new()));
        }
        for (element, child) in self.children.iter().filter(|(_, child)| !child.is_empty()) {
            let mut below = child.encode();
            if self.members.contains(element)
                && let Value::Object(below) = &mut below
            {
                below.insert(".".to_owned(), Value::Object(Map::new()));
            }
            map.insert(element.encode(), below);
        }
        Value::Object(map)
    }

    /// Reads FieldsV1; `None` where it is malformed.
    pub(crate) fn decode(value: &Value) -> Option<Self> {
        let mut set = Self::default();
        for (key, below) in value.as_object()? {
            if key == "." {
                continue;
            }
            let element = Element::decode(key)?;
            let fields = below.as_object()?;
            if fields.is_empty() || fields.contains_key(".") {
                set.members.insert(element.clone());
            }
            let child = Self::decode(below)?;
            if !child.is_empty() {
                set.children.insert(element, child);
            }
        }
        Some(set)
    }
}

/// `.spec.mtu`, `.status.conditions[type="Ready"].status`
pub(crate) fn path_text(path: &[Element]) -> String {
    path.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_v1_survives_a_round_trip() {
        let fields = json!({
            "f:spec": {"f:mtu": {}, "f:features": {".": {}, "v:\"CSUM\"": {}}},
            "f:status": {"f:conditions": {"k:{\"type\":\"Ready\"}": {".": {}, "f:status": {}}}},
        });
        let set = FieldSet::decode(&fields).unwrap();
        assert_eq!(set.encode(), fields);
        let paths: Vec<String> = set.paths().iter().map(|path| path_text(path)).collect();
        assert_eq!(
            paths,
            [
                ".spec.features",
                ".spec.mtu",
                ".spec.features[=\"CSUM\"]",
                ".status.conditions[type=\"Ready\"]",
                ".status.conditions[type=\"Ready\"].status",
            ]
        );
        assert_eq!(FieldSet::decode(&json!({"x": {}})), None);
    }

    #[test]
    fn set_algebra_works_on_paths() {
        let set = |fields: Value| FieldSet::decode(&fields).unwrap();
        let left = set(json!({"f:a": {".": {}, "f:b": {}}, "f:c": {}}));
        let right = set(json!({"f:a": {"f:b": {}}, "f:d": {}}));
        assert_eq!(left.difference(&right), set(json!({"f:a": {}, "f:c": {}})));
        assert_eq!(left.intersection(&right), set(json!({"f:a": {"f:b": {}}})));
        assert_eq!(left.union(&right), set(json!({"f:a": {".": {}, "f:b": {}}, "f:c": {}, "f:d": {}})));
        assert!(left.difference(&left).is_empty());
    }
}
