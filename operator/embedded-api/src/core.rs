//! What every request handler needs, and the rules by which an object becomes the next stored one.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use crate::apply::{self, Writer};
use crate::clock::seconds;
use crate::ids::{self, Ids};
use crate::path::Part;
use crate::query::WriteQuery;
use crate::registry::{Form, Registry, Resource};
use crate::status::{ApiError, Cause};
use crate::store::{Key, Object, Txn};
use crate::{builtin, content, events, gc, object, validation};

/// Levels that a stored object may have. Its file and its clients read 128, with some around the object.
const DEPTH_LIMIT: usize = 64;
/// The label by which namespaces are selected by name.
pub(crate) const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// One write, as its request asked for it.
#[derive(Debug, Clone)]
pub(crate) struct Intent {
    pub(crate) registry: Arc<Registry>,
    pub(crate) ids: Arc<dyn Ids>,
    pub(crate) resource: Arc<Resource>,
    pub(crate) part: Part,
    pub(crate) query: WriteQuery,
    /// The field manager: as named, or the beginning of the user agent.
    pub(crate) manager: String,
    pub(crate) now: Timestamp,
}

/// Whether field ownership is still to be worked out, or came with the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ownership {
    Track,
    Applied,
}

/// A write's outcome.
#[derive(Debug)]
pub(crate) struct Written {
    /// The object now, in its stored form.
    pub(crate) value: Value,
    pub(crate) created: bool,
    /// False where nothing had to be stored.
    pub(crate) changed: bool,
    pub(crate) warnings: Vec<String>,
}

impl Intent {
    fn writer<'a>(&'a self, stored: &'a Resource, time: &'a str) -> Writer<'a> {
        Writer { resource: stored, part: self.part, manager: &self.manager, time }
    }

    /// The resource in whose form objects are stored; another than the request's for events only.
    pub(crate) fn stored(&self) -> &Arc<Resource> {
        self.registry.of_storage(&self.resource.storage).unwrap_or(&self.resource)
    }

    /// Applies a configuration to what is stored, or to nothing.
    pub(crate) fn merge(&self, live: Option<&Value>, config: &Value, force: bool) -> Result<Value, ApiError> {
        let time = seconds(self.now);
        apply::apply(self.writer(self.stored(), &time), live, config, force)
    }

    /// Stores a new object. `value` is in its stored form.
    pub(crate) fn create(
        &self,
        txn: &mut Txn<'_>,
        namespace: &str,
        mut value: Value,
        ownership: Ownership,
    ) -> Result<Written, ApiError> {
        let resource = self.stored();
        self.name(txn, namespace, &mut value);
        self.check_namespace(txn, namespace)?;
        let name = object::name(&value).to_owned();
        let key = Key { storage: Arc::clone(&resource.storage), namespace: namespace.to_owned(), name };
        if !object::resource_version(&value).is_empty() {
            // Upstream's storage says so, too late for it to be the request's fault.
            return Err(ApiError::new(500, "", "resourceVersion should not be set on objects to be created"));
        }
        let time = seconds(self.now);
        for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "resourceVersion"] {
            object::unset(&mut value, field);
        }
        object::set(&mut value, "uid", ids::uid(self.ids.as_ref()).into());
        object::set(&mut value, "creationTimestamp", time.clone().into());
        if resource.form == Form::Custom {
            object::set(&mut value, "generation", 1.into());
        }
        if resource.status {
            object::map_mut(&mut value).remove("status");
        }
        if resource.form == Form::Namespace {
            object::map_mut(&mut value).insert("status".to_owned(), serde_json::json!({ "phase": "Active" }));
        }
        self.settle(&mut value);
        self.validate(&key, &value, None, None)?;
        if let Some(held) = txn.get(&key) {
            let is_terminating = object::is_terminating(&held.value);
            return Err(ApiError::already_exists(&self.resource, &key.name, is_terminating));
        }
        if ownership == Ownership::Track {
            apply::track_update(self.writer(resource, &time), None, &mut value)?;
        }

        if &*resource.storage == builtin::EVENT_STORAGE {
            events::expire(txn, self.now);
        }
        let stored = txn.put(&key, value);
        let mut value = stored.value.clone();
        gc::collect_orphan(txn, &self.registry, &key, &stored, self.now);
        if self.query.dry_run {
            object::unset(&mut value, "resourceVersion");
        }
        Ok(self.written(txn, value, true, true))
    }

    /// Replaces a stored object by `value`, of which only this request's part counts.
    pub(crate) fn update(
        &self,
        txn: &mut Txn<'_>,
        key: &Key,
        live: &Arc<Object>,
        mut value: Value,
        ownership: Ownership,
    ) -> Result<Written, ApiError> {
        self.check_identity(key, live, &value)?;
        let uid = object::uid(&value).to_owned();
        let other = (!uid.is_empty() && uid != live.uid)
            .then(|| Cause::invalid_value("metadata.uid", &uid.into(), "field is immutable"));
        self.keep_other_parts(&mut value, &live.value);
        self.settle(&mut value);
        self.set_generation(&mut value, &live.value);
        self.validate(key, &value, Some(&live.value), other)?;
        if ownership == Ownership::Track {
            let time = seconds(self.now);
            apply::track_update(self.writer(self.stored(), &time), Some(&live.value), &mut value)?;
        }

        if same(&value, &live.value) {
            return Ok(self.written(txn, live.value.clone(), false, false));
        }
        let gone = object::is_terminating(&value) && object::finalizers(&value).is_empty();
        let stored = if gone && self.stored().form != Form::Namespace {
            gc::release(txn, &self.registry, key, value, self.now)
        } else {
            Some(txn.put(key, value))
        };
        let mut value = stored.map_or(Value::Null, |stored| stored.value.clone());
        // As upstream, the answer to the update that lets an object go tells its last version, not that of its deletion.
        if self.query.dry_run || gone {
            object::set_resource_version(&mut value, live.revision);
        }
        Ok(self.written(txn, value, false, true))
    }

    fn written(&self, txn: &mut Txn<'_>, value: Value, created: bool, changed: bool) -> Written {
        if self.query.dry_run {
            txn.discard();
        }
        Written { value, created, changed, warnings: Vec::new() }
    }

    fn name(&self, txn: &Txn<'_>, namespace: &str, value: &mut Value) {
        if self.resource.namespaced {
            object::set(value, "namespace", namespace.into());
        } else {
            object::unset(value, "namespace");
        }
        let prefix = object::meta_text(value, "generateName").to_owned();
        if !object::name(value).is_empty() || prefix.is_empty() {
            return;
        }
        // Names are unique: another suffix is tried where one is taken.
        for _ in 0..8 {
            let name = format!("{prefix}{}", ids::suffix(self.ids.as_ref()));
            let storage = Arc::clone(&self.resource.storage);
            let taken = txn.get(&Key { storage, namespace: namespace.to_owned(), name: name.clone() });
            object::set(value, "name", name.into());
            if taken.is_none() {
                return;
            }
        }
    }

    fn check_namespace(&self, txn: &Txn<'_>, namespace: &str) -> Result<(), ApiError> {
        if !self.resource.namespaced {
            return Ok(());
        }
        let key = gc::namespace_key(namespace);
        let namespaces = self.registry.of_storage(builtin::NAMESPACE_STORAGE).unwrap_or(&self.resource);
        let Some(found) = txn.get(&key) else { return Err(ApiError::not_found(namespaces, namespace)) };
        if object::is_terminating(&found.value) {
            let why = format!(
                "unable to create new content in namespace {namespace} because it is being terminated"
            );
            let cause = Cause::new(
                "NamespaceTerminating",
                "metadata.namespace",
                format!("namespace {namespace} is being terminated"),
            );
            return Err(ApiError::forbidden(&self.resource, "", &why).with_causes(&[cause]));
        }
        Ok(())
    }

    /// Refuses a value that names another object than the one it is to replace, or another state of it.
    pub(crate) fn check_identity(&self, key: &Key, live: &Object, value: &Value) -> Result<(), ApiError> {
        let name = object::name(value);
        if name != key.name {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                key.name
            )));
        }
        let namespace = object::namespace(value);
        if !namespace.is_empty() && namespace != key.namespace {
            return Err(namespace_mismatch());
        }
        let version = object::resource_version(value);
        if !version.is_empty() && version != live.revision.to_string() {
            return Err(ApiError::modified(&self.resource, &key.name));
        }
        Ok(())
    }

    /// Restores what this request can't write: the server's own metadata, and the other side of spec and status.
    fn keep_other_parts(&self, value: &mut Value, live: &Value) {
        if self.part == Part::Status {
            let managed = value.pointer("/metadata/managedFields").cloned();
            let status = value.get("status").cloned();
            *value = live.clone();
            let fields = object::map_mut(value);
            match status {
                Some(status) => fields.insert("status".to_owned(), status),
                None => fields.remove("status"),
            };
            match managed {
                Some(managed) => object::set(value, "managedFields", managed),
                None => object::unset(value, "managedFields"),
            }
            return;
        }
        let fields = object::map_mut(value);
        for field in ["apiVersion", "kind"] {
            if let Some(held) = live.get(field) {
                fields.insert(field.to_owned(), held.clone());
            }
        }
        if self.stored().status {
            match live.get("status") {
                Some(status) => fields.insert("status".to_owned(), status.clone()),
                None => fields.remove("status"),
            };
        }
        let own = [
            "name",
            "namespace",
            "generateName",
            "uid",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "generation",
            "resourceVersion",
            "selfLink",
        ];
        for field in own {
            match live.pointer(&format!("/metadata/{field}")) {
                Some(held) => object::set(value, field, held.clone()),
                None => object::unset(value, field),
            }
        }
    }

    /// Drops what the schema lacks and fills in defaults.
    fn settle(&self, value: &mut Value) {
        let resource = self.stored();
        let metadata = object::map_mut(value).remove("metadata");
        resource.schema.prune(value);
        resource.schema.apply_defaults(value);
        if let Some(mut metadata) = metadata {
            resource.metadata.prune(&mut metadata);
            if let Value::Object(fields) = &mut metadata {
                let empty = |held: &Value| {
                    held.is_null()
                        || held.as_array().is_some_and(Vec::is_empty)
                        || held.as_object().is_some_and(serde_json::Map::is_empty)
                };
                fields.retain(|field, held| field == "managedFields" || !empty(held));
            }
            object::map_mut(value).insert("metadata".to_owned(), metadata);
        }
        if resource.form == Form::Namespace {
            let name = object::name(value).to_owned();
            let labels = object::meta_mut(value).entry("labels").or_insert(Value::Null);
            object::map_mut(labels).insert(NAME_LABEL.to_owned(), name.into());
        }
    }

    fn set_generation(&self, value: &mut Value, live: &Value) {
        if self.stored().form != Form::Custom {
            return;
        }
        let own = if self.resource.status { &["metadata", "status"][..] } else { &["metadata"] };
        let generation = object::generation(live);
        let changed = !same_but(own, Some(value), Some(live));
        object::set(value, "generation", (generation + i64::from(changed)).into());
    }

    /// Checks an object that is to be stored; `known` is what was found wrong before.
    fn validate(
        &self,
        key: &Key,
        value: &Value,
        live: Option<&Value>,
        known: Option<Cause>,
    ) -> Result<(), ApiError> {
        if content::is_deeper_than(value, DEPTH_LIMIT) {
            let why = format!("the object is nested deeper than {DEPTH_LIMIT} levels");
            return Err(ApiError::bad_request(why));
        }
        let mut causes = validation::metadata(self.stored(), value);
        causes.extend(known);
        if let Some(live) = live.filter(|live| object::is_terminating(live)) {
            let held = object::finalizers(live);
            let new: Vec<String> =
                object::finalizers(value).into_iter().filter(|one| !held.contains(one)).collect();
            if !new.is_empty() {
                let detail = format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers \
                     []string{{{}}}",
                    new.iter().map(|one| format!("{one:?}")).collect::<Vec<_>>().join(", ")
                );
                causes.push(Cause::forbidden("metadata.finalizers", &detail));
            }
        }
        causes.extend(validation::schema(self.stored(), value, live));
        if causes.is_empty() { Ok(()) } else { Err(ApiError::invalid(&self.resource, &key.name, &causes)) }
    }
}

/// 400: the object says another namespace than the URL.
pub(crate) fn namespace_mismatch() -> ApiError {
    ApiError::bad_request(
        "the namespace of the provided object does not match the namespace sent on the request",
    )
}

/// 409: the object is not the one that was meant.
pub(crate) fn uid_mismatch(resource: &Resource, name: &str, wanted: &str, found: &str) -> ApiError {
    let why = format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {found}");
    ApiError::conflict(resource, name, &why)
}

/// Whether two maps have the same members, those of these names aside.
fn same_but(aside: &[&str], left: Option<&Value>, right: Option<&Value>) -> bool {
    let [left, right] = [left, right].map(|map| {
        let members = map.and_then(Value::as_object).into_iter().flatten();
        members.filter(|(name, _)| !aside.contains(&name.as_str()))
    });
    left.eq(right)
}

/// Whether two objects differ in nothing but the times in their ownership entries.
fn same(left: &Value, right: &Value) -> bool {
    let timeless = |object: &Value| {
        let entries = object.pointer("/metadata/managedFields").and_then(Value::as_array);
        let mut entries = entries.cloned().unwrap_or_default();
        for entry in entries.iter_mut().filter_map(Value::as_object_mut) {
            entry.remove("time");
        }
        // Entries are sorted by time among others, which must not count either.
        entries.sort_by_key(ToString::to_string);
        entries
    };
    same_but(&["metadata"], Some(left), Some(right))
        && same_but(&["managedFields"], left.get("metadata"), right.get("metadata"))
        && timeless(left) == timeless(right)
}
