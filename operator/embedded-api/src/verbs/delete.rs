//! `DELETE` of one object or of what a query selects.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::builtin::NAMESPACE_STORAGE;
use crate::content;
use crate::core::Intent;
use crate::gc::{self, Propagation};
use crate::query::invalid_options;
use crate::registry::Resource;
use crate::reply::Reply;
use crate::status::{self, ApiError, Cause};
use crate::store::{Key, Object, Txn};
use crate::verbs::{Request, list};
use crate::{events, object};

/// How to delete, from the body and the query.
#[derive(Debug, Clone)]
struct Options {
    propagation: Propagation,
    uid: Option<String>,
    resource_version: Option<String>,
}

impl Options {
    fn read(request: &Request, dry_run: &mut bool) -> Result<Self, ApiError> {
        let body =
            if request.call.body.is_empty() { Value::Null } else { content::json(&request.call.body)?.value };
        if !body.is_null() && !body.is_object() {
            return Err(ApiError::bad_request("the body of a deletion is a DeleteOptions object"));
        }
        if let Some(runs) = body.get("dryRun").and_then(Value::as_array).filter(|runs| !runs.is_empty()) {
            if runs.iter().any(|run| run != "All") {
                return Err(invalid_options(
                    "DeleteOptions",
                    Cause::new(
                        "FieldValueNotSupported",
                        "dryRun",
                        "Unsupported value: supported values: \"All\"",
                    ),
                ));
            }
            *dry_run = true;
        }
        let text = |field: &str| body.get(field).and_then(Value::as_str);
        let orphan = match body.get("orphanDependents").and_then(Value::as_bool) {
            Some(true) => Some("Orphan"),
            Some(false) => Some("Background"),
            None => None,
        };
        let named = request.call.pairs.get("propagationPolicy").or(text("propagationPolicy")).or(orphan);
        let propagation = match named {
            None | Some("Background") => Propagation::Background,
            Some("Foreground") => Propagation::Foreground,
            Some("Orphan") => Propagation::Orphan,
            Some(other) => {
                let message = format!(
                    "Unsupported value: {other:?}: supported values: \"Foreground\", \"Background\", \"Orphan\", \
                     \"nil\""
                );
                let cause = Cause::new("FieldValueNotSupported", "propagationPolicy", message);
                return Err(invalid_options("DeleteOptions", cause));
            }
        };
        let precondition = |field: &str| {
            body.pointer(&format!("/preconditions/{field}")).and_then(Value::as_str).map(str::to_owned)
        };
        Ok(Self { propagation, uid: precondition("uid"), resource_version: precondition("resourceVersion") })
    }

    fn check(&self, resource: &Resource, name: &str, live: &Object) -> Result<(), ApiError> {
        if let Some(uid) = self.uid.as_ref().filter(|uid| **uid != live.uid) {
            let why = format!(
                "the UID in the precondition ({uid}) does not match the UID in record ({}). The object might have been \
                 deleted and then recreated",
                live.uid
            );
            return Err(ApiError::unmet(resource, name, &why));
        }
        let found = live.revision.to_string();
        if let Some(wanted) = self.resource_version.as_ref().filter(|wanted| **wanted != found) {
            let why = format!(
                "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record \
                 ({found}). The object might have been modified"
            );
            return Err(ApiError::unmet(resource, name, &why));
        }
        Ok(())
    }
}

pub(crate) async fn one(request: Request, key: Key) -> Result<Reply, ApiError> {
    let mut query = request.call.pairs.write()?;
    let options = Options::read(&request, &mut query.dry_run)?;
    let intent = request.intent(query);
    let work = intent.clone();
    let name = key.name.clone();
    let (left, uid, revision) = request
        .core
        .writer
        .write(move |txn| {
            let live = txn.get(&key).ok_or_else(|| ApiError::not_found(&work.resource, &key.name))?;
            let left = delete(&work, txn, &key, &live, &options)?;
            Ok((left, live.uid.clone(), live.revision))
        })
        .await?;
    request.audit(&intent, "delete", &name, true);
    match left {
        Some(marked) => {
            let mut marked = marked.value.clone();
            if intent.query.dry_run {
                object::set_resource_version(&mut marked, revision);
            }
            request.present(marked).map(Reply::ok)
        }
        None => Ok(Reply::ok(status::deleted(&request.resource, &name, &uid))),
    }
}

pub(crate) async fn collection(request: Request) -> Result<Reply, ApiError> {
    let mut query = request.call.pairs.write()?;
    let selection = request.call.pairs.list()?;
    selection.fields.check_fields(&request.resource)?;
    let options = Options::read(&request, &mut query.dry_run)?;
    if request.resource.namespaced && request.namespace.is_empty() {
        return Err(ApiError::method_not_allowed("DELETE", "all namespaces at once"));
    }
    if &*request.resource.storage == NAMESPACE_STORAGE {
        return Err(ApiError::method_not_allowed("DELETE", "all namespaces at once"));
    }
    let intent = request.intent(query);
    let selected = list::select(&request, &selection, None)?;
    let work = intent.clone();
    let deleted: Vec<Arc<Object>> = request
        .core
        .writer
        .write(move |txn| {
            let mut deleted = Vec::new();
            for found in selected.objects {
                let key = Key {
                    storage: Arc::clone(&work.resource.storage),
                    namespace: object::namespace(&found.value).to_owned(),
                    name: object::name(&found.value).to_owned(),
                };
                // What went or was made anew since it was selected is left alone.
                let Some(live) = txn.get(&key).filter(|live| live.uid == found.uid) else { continue };
                let left = delete(&work, txn, &key, &live, &options)?;
                deleted.push(left.unwrap_or(live));
            }
            Ok(deleted)
        })
        .await?;
    request.audit(&intent, "deletecollection", "", !deleted.is_empty());
    let items: Vec<Value> =
        deleted.iter().map(|one| events::from_stored(&request.resource, one.value.clone())).collect();
    let revision = request.core.store.read(|state| state.revision().to_string());
    Ok(Reply::ok(list::plain(&request.resource, json!({ "resourceVersion": revision }), items)))
}

fn delete(
    intent: &Intent,
    txn: &mut Txn<'_>,
    key: &Key,
    live: &Arc<Object>,
    options: &Options,
) -> Result<Option<Arc<Object>>, ApiError> {
    options.check(&intent.resource, &key.name, live)?;
    if &*key.storage == NAMESPACE_STORAGE && matches!(key.name.as_str(), "default" | "kube-system") {
        return Err(ApiError::forbidden(&intent.resource, &key.name, "this namespace may not be deleted"));
    }
    let left = gc::delete(txn, &intent.registry, key, options.propagation, intent.now);
    if intent.query.dry_run {
        txn.discard();
    }
    Ok(left)
}
