//! One request's changes on top of what is stored, kept or discarded as a whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::history::{After, Change};
use super::{Key, Object, State};
use crate::object;

/// The state as the requests of the present batch have made it so far.
#[derive(Debug)]
pub(super) struct Overlay {
    pub(super) revision: u64,
    pub(super) objects: BTreeMap<Key, Option<Arc<Object>>>,
    pub(super) changes: Vec<Change>,
}

/// What one request sees and does.
#[derive(Debug)]
pub(crate) struct Txn<'a> {
    base: &'a State,
    batch: &'a Overlay,
    own: Overlay,
    discarded: bool,
}

impl<'a> Txn<'a> {
    pub(super) fn new(base: &'a State, batch: &'a Overlay) -> Self {
        let own = Overlay { revision: batch.revision, objects: BTreeMap::new(), changes: Vec::new() };
        Self { base, batch, own, discarded: false }
    }

    /// The changes to keep; none after `discard`.
    pub(super) fn finish(self) -> Option<Overlay> {
        (!self.discarded).then_some(self.own)
    }

    /// Makes this a rehearsal: nothing of it will be stored.
    pub(crate) fn discard(&mut self) {
        self.discarded = true;
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Object>> {
        if let Some(held) = self.own.objects.get(key).or_else(|| self.batch.objects.get(key)) {
            return held.clone();
        }
        self.base.get(key).map(Arc::clone)
    }

    /// Every object of any collection that `wanted` holds of, in key order.
    pub(crate) fn find(&self, wanted: impl Fn(&Object) -> bool) -> Vec<(Key, Arc<Object>)> {
        let mut found: BTreeMap<Key, Arc<Object>> = self.base.find(&wanted).into_iter().collect();
        for (key, held) in self.batch.objects.iter().chain(&self.own.objects) {
            match held {
                Some(object) if wanted(object) => found.insert(key.clone(), Arc::clone(object)),
                _ => found.remove(key),
            };
        }
        found.into_iter().collect()
    }

    /// Every object of one collection, of one namespace where it is given.
    pub(crate) fn list(&self, storage: &Arc<str>, namespace: &str) -> Vec<(Key, Arc<Object>)> {
        let key = |object: &Arc<Object>| Key {
            storage: Arc::clone(storage),
            namespace: object::namespace(&object.value).to_owned(),
            name: object::name(&object.value).to_owned(),
        };
        let mut found: BTreeMap<Key, Arc<Object>> =
            self.base.list(storage, namespace).into_iter().map(|object| (key(&object), object)).collect();
        let touched = self.batch.objects.iter().chain(&self.own.objects);
        for (key, held) in touched.filter(|(key, _)| {
            key.storage == *storage && (namespace.is_empty() || key.namespace == namespace)
        }) {
            match held {
                Some(object) => found.insert(key.clone(), Arc::clone(object)),
                None => found.remove(key),
            };
        }
        found.into_iter().collect()
    }

    /// Stores a value under the next revision, which becomes its resource version.
    pub(crate) fn put(&mut self, key: &Key, mut value: Value) -> Arc<Object> {
        let before = self.get(key);
        self.own.revision += 1;
        object::set_resource_version(&mut value, self.own.revision);
        let object = Arc::new(Object::new(value, self.own.revision));
        self.record(key, before, After::Stored(Arc::clone(&object)));
        object
    }

    /// Removes an object, with `last` (or what is stored) as its last state, which gets the next revision as its
    /// resource version.
    pub(crate) fn remove(&mut self, key: &Key, last: Option<Value>) -> Option<Arc<Object>> {
        let before = self.get(key)?;
        self.own.revision += 1;
        let mut value = last.unwrap_or_else(|| before.value.clone());
        object::set_resource_version(&mut value, self.own.revision);
        let last = Arc::new(Object::new(value, self.own.revision));
        self.record(key, Some(before), After::Gone(Arc::clone(&last)));
        Some(last)
    }

    fn record(&mut self, key: &Key, before: Option<Arc<Object>>, after: After) {
        let held = match &after {
            After::Stored(object) => Some(Arc::clone(object)),
            After::Gone(_) => None,
        };
        self.own.objects.insert(key.clone(), held);
        self.own.changes.push(Change { revision: self.own.revision, key: key.clone(), before, after });
    }
}
