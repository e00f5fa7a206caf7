//! `metadata.managedFields`: who owns which fields, read and written.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::field_set::FieldSet;
use crate::object;

/// Entries by updates beyond this are merged, the oldest first.
const UPDATE_ENTRIES: usize = 10;
const OLD_UPDATES: &str = "ancient-changes";

/// How fields were written; appliers come before updaters, as upstream sorts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operation {
    Apply,
    Update,
}

/// What tells one entry from another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Manager {
    pub(crate) operation: Operation,
    pub(crate) name: String,
    pub(crate) subresource: String,
    /// Part of an updater's identity; an applier has one entry whatever versions it uses.
    pub(crate) api_version: String,
}

/// The fields of one manager.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Owned {
    pub(crate) set: FieldSet,
    pub(crate) api_version: String,
    pub(crate) time: Option<String>,
}

pub(crate) type Managers = BTreeMap<Manager, Owned>;

impl Manager {
    pub(crate) fn new(operation: Operation, name: &str, subresource: &str, api_version: &str) -> Self {
        Self {
            operation,
            name: if name.is_empty() { "unknown".to_owned() } else { name.to_owned() },
            subresource: subresource.to_owned(),
            api_version: match operation {
                Operation::Apply => String::new(),
                Operation::Update => api_version.to_owned(),
            },
        }
    }

    /// As named in a conflict.
    pub(crate) fn words(&self) -> String {
        let mut words = format!("{:?}", self.name);
        if !self.subresource.is_empty() {
            words += &format!(" with subresource {:?}", self.subresource);
        }
        if self.operation == Operation::Update {
            words += &format!(" using {}", self.api_version);
        }
        words
    }
}

/// The entries of an object; `None` where they are malformed.
pub(crate) fn decode(object: &Value) -> Option<Managers> {
    let Some(entries) = object.pointer("/metadata/managedFields") else { return Some(Managers::new()) };
    let mut managers = Managers::new();
    for entry in entries.as_array()? {
        let text = |field: &str| entry.get(field).and_then(Value::as_str).unwrap_or_default();
        let operation = match text("operation") {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return None,
        };
        let fields = entry.get("fieldsV1").map_or(Some(FieldSet::default()), FieldSet::decode)?;
        let manager = Manager::new(operation, text("manager"), text("subresource"), text("apiVersion"));
        let owned = Owned {
            set: fields,
            api_version: text("apiVersion").to_owned(),
            time: entry.get("time").and_then(Value::as_str).map(str::to_owned),
        };
        managers.insert(manager, owned);
    }
    Some(managers)
}

/// Whether a client asks to forget all ownership: an empty list, or one empty entry.
pub(crate) fn is_reset(object: &Value) -> bool {
    match object.pointer("/metadata/managedFields").and_then(Value::as_array).map(Vec::as_slice) {
        Some([only]) => only.as_object().is_some_and(serde_json::Map::is_empty),
        _ => false,
    }
}

/// Writes the entries into the object.
pub(crate) fn encode(managers: &Managers, object: &mut Value) {
    if managers.is_empty() {
        object::unset(object, "managedFields");
        return;
    }
    let mut entries: Vec<(&Manager, &Owned)> = managers.iter().collect();
    entries.sort_by(|(left, held), (right, other)| {
        (left.operation, &held.time, &left.name, &left.subresource).cmp(&(
            right.operation,
            &other.time,
            &right.name,
            &right.subresource,
        ))
    });
    let entries = entries.into_iter().map(|(manager, owned)| {
        let mut entry = json!({
            "manager": manager.name,
            "operation": if manager.operation == Operation::Apply { "Apply" } else { "Update" },
            "apiVersion": owned.api_version,
            "fieldsType": "FieldsV1",
            "fieldsV1": owned.set.encode(),
        });
        if let Some(time) = &owned.time {
            entry["time"] = time.clone().into();
        }
        if !manager.subresource.is_empty() {
            entry["subresource"] = manager.subresource.clone().into();
        }
        entry
    });
    object::set(object, "managedFields", entries.collect());
}

/// Merges the oldest updaters into one entry where there are too many.
pub(crate) fn cap(managers: &mut Managers) {
    loop {
        let mut updaters: Vec<(Option<String>, Manager)> = managers
            .iter()
            .filter(|(manager, _)| manager.operation == Operation::Update && manager.name != OLD_UPDATES)
            .map(|(manager, owned)| (owned.time.clone(), manager.clone()))
            .collect();
        let buckets = managers.len() - updaters.len();
        if updaters.len() + usize::from(buckets > 0) <= UPDATE_ENTRIES {
            return;
        }
        updaters.sort_unstable();
        let (_, oldest) = updaters.remove(0);
        let Some(owned) = managers.remove(&oldest) else { return };
        let bucket = Manager::new(Operation::Update, OLD_UPDATES, "", &owned.api_version);
        let merged = match managers.remove(&bucket) {
            Some(held) => Owned { set: held.set.union(&owned.set), ..owned },
            None => owned,
        };
        managers.insert(bucket, merged);
    }
}
