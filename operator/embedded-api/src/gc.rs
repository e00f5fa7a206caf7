//! Deletion and what follows from it: finalizers, dependents, and the content of namespaces.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use crate::builtin::NAMESPACE_STORAGE;
use crate::clock::seconds;
use crate::object;
use crate::registry::{Form, Registry};
use crate::store::{Key, Object, Txn};

const FOREGROUND: &str = "foregroundDeletion";

/// What becomes of the objects that an object owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Propagation {
    /// The object goes first.
    Background,
    /// The object goes after the dependents that block it.
    Foreground,
    /// Dependents stay and forget their owner.
    Orphan,
}

/// Where a namespace is stored.
pub(crate) fn namespace_key(name: &str) -> Key {
    Key { storage: NAMESPACE_STORAGE.into(), namespace: String::new(), name: name.to_owned() }
}

/// Deletes an object, or marks it where something must happen first. Returns the object where it is still there.
pub(crate) fn delete(
    txn: &mut Txn<'_>,
    registry: &Registry,
    key: &Key,
    propagation: Propagation,
    now: Timestamp,
) -> Option<Arc<Object>> {
    let live = txn.get(key)?;
    let resource = registry.of_storage(&key.storage);
    if resource.is_some_and(|resource| resource.form == Form::Namespace) {
        return delete_namespace(txn, registry, key, &live, now);
    }
    if propagation == Propagation::Orphan {
        for (dependent, held) in dependents(txn, &live.uid) {
            disown(txn, &dependent, &held, &live.uid);
        }
    }
    let mut finalizers = object::finalizers(&live.value);
    let waits_for_dependents =
        propagation == Propagation::Foreground && !dependents(txn, &live.uid).is_empty();
    if waits_for_dependents && !finalizers.iter().any(|one| one == FOREGROUND) {
        finalizers.push(FOREGROUND.to_owned());
    }
    if finalizers.is_empty() {
        remove(txn, registry, key, now);
        return None;
    }
    let mut value = live.value.clone();
    let known = object::finalizers(&value).len();
    let mut stored = live;
    if !object::is_terminating(&value) || finalizers.len() != known {
        object::set_finalizers(&mut value, finalizers);
        if !object::is_terminating(&value) {
            mark(&mut value, now);
        }
        stored = txn.put(key, value);
    }
    if waits_for_dependents {
        for (dependent, _) in dependents(txn, &stored.uid) {
            delete(txn, registry, &dependent, Propagation::Foreground, now);
        }
    }
    txn.get(key)
}

fn mark(value: &mut Value, now: Timestamp) {
    object::set(value, "deletionTimestamp", seconds(now).into());
    object::set(value, "deletionGracePeriodSeconds", 0.into());
    let generation = object::generation(value);
    if generation > 0 {
        object::set(value, "generation", (generation + 1).into());
    }
}

/// Takes an object away, with all that follows.
fn remove(txn: &mut Txn<'_>, registry: &Registry, key: &Key, now: Timestamp) {
    if let Some(last) = txn.remove(key, None) {
        follow(txn, registry, key, &last, now);
    }
}

/// Takes an object away whose last finalizer an update removed; `last` is what the update made of it.
pub(crate) fn release(
    txn: &mut Txn<'_>,
    registry: &Registry,
    key: &Key,
    last: Value,
    now: Timestamp,
) -> Option<Arc<Object>> {
    let last = txn.remove(key, Some(last))?;
    follow(txn, registry, key, &last, now);
    Some(last)
}

/// What the removal of an object brings about.
fn follow(txn: &mut Txn<'_>, registry: &Registry, key: &Key, last: &Object, now: Timestamp) {
    for (dependent, held) in dependents(txn, &last.uid) {
        if object::owners(&held.value).any(|owner| exists(txn, registry, &held.value, owner)) {
            disown(txn, &dependent, &held, &last.uid);
        } else {
            delete(txn, registry, &dependent, Propagation::Background, now);
        }
    }
    for uid in &last.owners {
        release_foreground(txn, registry, uid, now);
    }
    if !key.namespace.is_empty() {
        release_namespace(txn, registry, &key.namespace, now);
    }
}

/// Deletes a new object all of whose owners are gone already, as the garbage collector would.
pub(crate) fn collect_orphan(
    txn: &mut Txn<'_>,
    registry: &Registry,
    key: &Key,
    object: &Object,
    now: Timestamp,
) {
    let mut owners = object::owners(&object.value).peekable();
    if owners.peek().is_some() && !owners.any(|owner| exists(txn, registry, &object.value, owner)) {
        delete(txn, registry, key, Propagation::Background, now);
    }
}

fn dependents(txn: &Txn<'_>, uid: &str) -> Vec<(Key, Arc<Object>)> {
    txn.find(|object| object.owners.iter().any(|owner| owner == uid))
}

/// Whether an owner is there. Kinds that are not served can't be looked up and count as there.
fn exists(txn: &Txn<'_>, registry: &Registry, dependent: &Value, owner: &Value) -> bool {
    let text = |field: &str| owner.get(field).and_then(Value::as_str).unwrap_or_default();
    let Some(resource) = registry.of_kind(text("apiVersion"), text("kind")) else { return true };
    let namespace = if resource.namespaced { object::namespace(dependent) } else { "" };
    let key = Key {
        storage: Arc::clone(&resource.storage),
        namespace: namespace.to_owned(),
        name: text("name").to_owned(),
    };
    txn.get(&key).is_some_and(|found| found.uid == text("uid"))
}

fn disown(txn: &mut Txn<'_>, key: &Key, held: &Object, uid: &str) {
    let mut value = held.value.clone();
    let left: Vec<Value> = object::owners(&value)
        .filter(|owner| owner.get("uid").and_then(Value::as_str) != Some(uid))
        .cloned()
        .collect();
    if left.is_empty() {
        object::unset(&mut value, "ownerReferences");
    } else {
        object::set(&mut value, "ownerReferences", left.into());
    }
    txn.put(key, value);
}

/// Lets an owner go that waited for its last blocking dependent.
fn release_foreground(txn: &mut Txn<'_>, registry: &Registry, uid: &str, now: Timestamp) {
    let waiting = |object: &Object| {
        object.uid == uid && object::finalizers(&object.value).iter().any(|one| one == FOREGROUND)
    };
    let blocks = |held: &Arc<Object>| {
        object::owners(&held.value).any(|owner| {
            owner.get("uid").and_then(Value::as_str) == Some(uid)
                && owner.get("blockOwnerDeletion") == Some(&Value::Bool(true))
        })
    };
    if dependents(txn, uid).iter().any(|(_, held)| blocks(held)) {
        return;
    }
    for (key, owner) in txn.find(waiting) {
        let mut value = owner.value.clone();
        let mut left = object::finalizers(&value);
        left.retain(|one| one != FOREGROUND);
        let last = left.is_empty();
        object::set_finalizers(&mut value, left);
        if last {
            release(txn, registry, &key, value, now);
        } else {
            txn.put(&key, value);
        }
    }
}

fn delete_namespace(
    txn: &mut Txn<'_>,
    registry: &Registry,
    key: &Key,
    live: &Object,
    now: Timestamp,
) -> Option<Arc<Object>> {
    if !object::is_terminating(&live.value) {
        let mut value = live.value.clone();
        mark(&mut value, now);
        object::map_mut(&mut value)
            .insert("status".to_owned(), serde_json::json!({ "phase": "Terminating" }));
        txn.put(key, value);
    }
    for (inside, _) in txn.find(|object| object::namespace(&object.value) == key.name) {
        delete(txn, registry, &inside, Propagation::Background, now);
    }
    release_namespace(txn, registry, &key.name, now);
    txn.get(key)
}

/// Removes a terminating namespace that is empty.
fn release_namespace(txn: &mut Txn<'_>, registry: &Registry, name: &str, now: Timestamp) {
    let key = namespace_key(name);
    let Some(namespace) = txn.get(&key).filter(|held| object::is_terminating(&held.value)) else { return };
    let finished = object::finalizers(&namespace.value).is_empty();
    if finished && txn.find(|object| object::namespace(&object.value) == name).is_empty() {
        remove(txn, registry, &key, now);
    }
}
