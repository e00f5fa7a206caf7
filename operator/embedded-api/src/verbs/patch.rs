//! `PATCH` of one object: JSON patch, merge patch, strategic merge patch (built-in kinds) and server-side apply.

use serde_json::Value;

use crate::content::{self, Document};
use crate::core::{Intent, Ownership, Written, namespace_mismatch, uid_mismatch};
use crate::path::Part;
use crate::query::invalid_options;
use crate::registry::Form;
use crate::reply::Reply;
use crate::service::BODY_LIMIT;
use crate::status::{ApiError, Cause};
use crate::store::{Key, Txn};
use crate::strategic;
use crate::verbs::{Request, accept, check_type, update};
use crate::{events, object};

const CUSTOM_TYPES: &str =
    "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
const BUILT_IN_TYPES: &str = "application/json-patch+json, application/merge-patch+json, \
     application/strategic-merge-patch+json, application/apply-patch+yaml";

/// Operations of one JSON patch.
const OPERATION_LIMIT: usize = 1000;
/// Levels that an object may have while it is patched.
const PATCHED_DEPTH_LIMIT: usize = 128;

/// A patch, read.
#[derive(Debug)]
enum Patch {
    Json(json_patch::Patch),
    Merge(Value),
    Strategic(Value),
}

pub(crate) async fn patch(request: Request, key: Key) -> Result<Reply, ApiError> {
    let query = request.call.pairs.write()?;
    let applying = request.call.content_type() == "application/apply-patch+yaml";
    if query.force.is_some() && !applying {
        return Err(invalid_options(
            "PatchOptions",
            Cause::forbidden("force", "may not be specified for non-apply patch"),
        ));
    }
    if query.field_manager.is_none() && applying {
        return Err(invalid_options(
            "PatchOptions",
            Cause::required("fieldManager", "is required for apply patch"),
        ));
    }
    let force = query.force.unwrap_or(false);
    let intent = request.intent(query);
    let work = intent.clone();
    let writer = &request.core.writer;
    if applying {
        if request.part == Part::Scale {
            return Err(ApiError::unsupported_media_type(
                "application/json-patch+json, application/merge-patch+json",
            ));
        }
        let document = content::yaml(&request.call.body)?;
        check_type(&request.resource, &document.value)?;
        let (config, warnings) = accept(&intent, document)?;
        let mut written = writer.write(move |txn| apply(&work, txn, &key, config, force)).await?;
        written.warnings = warnings;
        return request.written(&intent, "apply", written);
    }
    let patch = Patch::read(&request)?;
    let written = if request.part == Part::Scale {
        let patched = move |scale| patch.apply(scale);
        writer.write(move |txn| update::patch_scale(&work, txn, &key, patched)).await?
    } else {
        writer.write(move |txn| modify(&work, txn, &key, &patch)).await?
    };
    request.written(&intent, "patch", written)
}

impl Patch {
    fn read(request: &Request) -> Result<Self, ApiError> {
        let custom = request.resource.form == Form::Custom || request.part == Part::Scale;
        let body = &request.call.body;
        match request.call.content_type() {
            "application/json-patch+json" => match serde_json::from_slice::<json_patch::Patch>(body) {
                Ok(patch) if patch.0.len() > OPERATION_LIMIT => Err(ApiError::too_large(OPERATION_LIMIT)),
                Ok(patch) => Ok(Self::Json(patch)),
                Err(error) => Err(ApiError::bad_request(format!("error decoding patch: {error}"))),
            },
            "application/merge-patch+json" => Ok(Self::Merge(content::json(body)?.value)),
            "application/strategic-merge-patch+json" if !custom => {
                Ok(Self::Strategic(content::json(body)?.value))
            }
            _ => Err(ApiError::unsupported_media_type(if custom { CUSTOM_TYPES } else { BUILT_IN_TYPES })),
        }
    }

    fn apply(&self, mut value: Value) -> Result<Value, ApiError> {
        match self {
            Self::Json(patch) => {
                for operation in &patch.0 {
                    json_patch::patch(&mut value, std::slice::from_ref(operation))
                        .map_err(|error| ApiError::unprocessable_patch(&error.to_string()))?;
                    // A few copies of a document into itself would make it larger than memory.
                    if content::is_deeper_than(&value, PATCHED_DEPTH_LIMIT)
                        || content::weight(&value, BODY_LIMIT) > BODY_LIMIT
                    {
                        return Err(ApiError::unprocessable_patch(
                            "it makes the object too deep or too large",
                        ));
                    }
                }
            }
            Self::Merge(patch) => json_patch::merge(&mut value, patch),
            Self::Strategic(patch) => strategic::merge(&mut value, patch)?,
        }
        Ok(value)
    }
}

fn modify(intent: &Intent, txn: &mut Txn<'_>, key: &Key, patch: &Patch) -> Result<Written, ApiError> {
    let live = txn.get(key).ok_or_else(|| ApiError::not_found(&intent.resource, &key.name))?;
    let asked = events::from_stored(&intent.resource, live.value.clone());
    let value = patch.apply(asked)?;
    check_type(&intent.resource, &value)?;
    let (value, warnings) = accept(intent, Document { value, duplicates: Vec::new() })?;
    let written = intent.update(txn, key, &live, value, Ownership::Track)?;
    Ok(Written { warnings, ..written })
}

fn apply(
    intent: &Intent,
    txn: &mut Txn<'_>,
    key: &Key,
    mut config: Value,
    force: bool,
) -> Result<Written, ApiError> {
    let resource = &intent.resource;
    if config.pointer("/metadata/managedFields").is_some_and(|held| !held.is_null()) {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    let name = object::name(&config);
    if !name.is_empty() && name != key.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            key.name
        )));
    }
    let namespace = object::namespace(&config);
    if !namespace.is_empty() && namespace != key.namespace {
        return Err(namespace_mismatch());
    }
    object::set(&mut config, "name", key.name.clone().into());
    if !key.namespace.is_empty() {
        object::set(&mut config, "namespace", key.namespace.clone().into());
    }
    let uid = object::uid(&config).to_owned();
    let Some(live) = txn.get(key) else {
        if intent.part != Part::Main {
            return Err(ApiError::not_found(resource, &key.name));
        }
        if !uid.is_empty() {
            let why = format!(
                "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
            );
            return Err(ApiError::conflict(resource, &key.name, &why));
        }
        let value = intent.merge(None, &config, force)?;
        return intent.create(txn, &key.namespace, value, Ownership::Applied);
    };
    if !uid.is_empty() && uid != live.uid {
        return Err(uid_mismatch(resource, &key.name, &uid, &live.uid));
    }
    let version = object::resource_version(&config);
    if !version.is_empty() && version != live.revision.to_string() {
        return Err(ApiError::modified(resource, &key.name));
    }
    let value = intent.merge(Some(&live.value), &config, force)?;
    intent.update(txn, key, &live, value, Ownership::Applied)
}
