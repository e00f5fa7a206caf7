//! All objects in memory, by collection, with each collection's history.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::history::{After, Change, History};
use super::{Key, Object};

type Objects = BTreeMap<(String, String), Arc<Object>>;

/// What readers see: durable and complete up to `revision`.
#[derive(Debug)]
pub(crate) struct State {
    revision: u64,
    opened_at: u64,
    history_limit: usize,
    collections: BTreeMap<Arc<str>, Collection>,
}

#[derive(Debug)]
struct Collection {
    objects: Objects,
    history: History,
}

impl State {
    /// The state as loaded: no history before `revision` is known.
    pub(crate) fn new(revision: u64, history_limit: usize) -> Self {
        Self { revision, opened_at: revision, history_limit, collections: BTreeMap::new() }
    }

    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// Puts a loaded object in place; it is not a change.
    pub(crate) fn insert_loaded(&mut self, key: Key, object: Object) {
        self.collection(&key.storage).objects.insert((key.namespace, key.name), Arc::new(object));
    }

    fn collection(&mut self, storage: &Arc<str>) -> &mut Collection {
        let (opened_at, limit) = (self.opened_at, self.history_limit);
        self.collections.entry(Arc::clone(storage)).or_insert_with(|| Collection {
            objects: Objects::new(),
            history: History::new(opened_at, limit),
        })
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&Arc<Object>> {
        let at = (key.namespace.clone(), key.name.clone());
        self.collections.get(&key.storage)?.objects.get(&at)
    }

    /// Every object of a collection, in order of namespace and name; of one namespace where it is given.
    pub(crate) fn list(&self, storage: &str, namespace: &str) -> Vec<Arc<Object>> {
        let Some(collection) = self.collections.get(storage) else { return Vec::new() };
        within(&collection.objects, namespace).map(|(_, object)| Arc::clone(object)).collect()
    }

    /// As `list`, at an earlier revision; `None` where the history no longer reaches back so far.
    pub(crate) fn list_at(&self, storage: &str, namespace: &str, revision: u64) -> Option<Vec<Arc<Object>>> {
        let Some(collection) = self.collections.get(storage) else {
            return (revision >= self.opened_at).then(Vec::new);
        };
        let mut objects: BTreeMap<&(String, String), Arc<Object>> =
            within(&collection.objects, namespace).map(|(at, object)| (at, Arc::clone(object))).collect();
        let names: Vec<(Arc<Change>, (String, String))> = collection
            .history
            .since(revision)?
            .rev()
            .filter(|change| namespace.is_empty() || change.key.namespace == namespace)
            .map(|change| (Arc::clone(change), (change.key.namespace.clone(), change.key.name.clone())))
            .collect();
        for (change, at) in &names {
            match &change.before {
                Some(before) => objects.insert(at, Arc::clone(before)),
                None => objects.remove(at),
            };
        }
        Some(objects.into_values().collect())
    }

    /// Changes of a collection after `revision`, or the oldest revision that can still be asked for.
    pub(crate) fn changes(&self, storage: &str, revision: u64) -> Result<Vec<Arc<Change>>, u64> {
        match self.collections.get(storage) {
            None if revision < self.opened_at => Err(self.opened_at),
            None => Ok(Vec::new()),
            Some(collection) => match collection.history.since(revision) {
                Some(changes) => Ok(changes.map(Arc::clone).collect()),
                None => Err(collection.history.oldest()),
            },
        }
    }

    /// Every object that `wanted` holds of, with its key.
    pub(crate) fn find(&self, wanted: impl Fn(&Object) -> bool) -> Vec<(Key, Arc<Object>)> {
        let mut found = Vec::new();
        for (storage, collection) in &self.collections {
            for ((namespace, name), object) in &collection.objects {
                if wanted(object) {
                    let storage = Arc::clone(storage);
                    let key = Key { storage, namespace: namespace.clone(), name: name.clone() };
                    found.push((key, Arc::clone(object)));
                }
            }
        }
        found
    }

    pub(crate) fn publish(&mut self, revision: u64, changes: Vec<Change>) {
        for change in changes {
            let collection = self.collection(&change.key.storage);
            let at = (change.key.namespace.clone(), change.key.name.clone());
            match &change.after {
                After::Stored(object) => collection.objects.insert(at, Arc::clone(object)),
                After::Gone(_) => collection.objects.remove(&at),
            };
            collection.history.push(Arc::new(change));
        }
        self.revision = revision;
    }
}

fn within<'a>(
    objects: &'a Objects,
    namespace: &'a str,
) -> impl Iterator<Item = (&'a (String, String), &'a Arc<Object>)> {
    let from = (namespace.to_owned(), String::new());
    objects.range(from..).take_while(move |((at, _), _)| namespace.is_empty() || at == namespace)
}
