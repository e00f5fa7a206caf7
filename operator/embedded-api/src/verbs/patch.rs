//! `PATCH` of one object: JSON patch, merge patch, strategic merge patch (built-in kinds) and server-side apply.

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, CopyOperation, PatchOperation, ReplaceOperation};
use serde_json::Value;

use crate::content::{self, Document};
use crate::core::{Intent, Ownership, Written, namespace_mismatch};
use crate::path::Part;
use crate::query::invalid_options;
use crate::registry::Form;
use crate::reply::Reply;
use crate::service::BODY_LIMIT;
use crate::status::{ApiError, Cause};
use crate::store::{Key, Txn};
use crate::strategic;
use crate::verbs::{Request, accept, accept_applied, check_type, update, warning};
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
        let (config, warnings) = accept_applied(&intent, document)?;
        let written =
            warning(warnings, writer.write(move |txn| apply(&work, txn, &key, config, force)).await)?;
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
                // What is a list of operations, if of none that there are, upstream takes for a patch that can't be applied.
                Err(_) if content::json(body).is_ok_and(|document| is_operations(&document.value)) => {
                    Err(ApiError::unprocessable_patch())
                }
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
                    let operation = &as_upstream(operation, &value);
                    json_patch::patch(&mut value, std::slice::from_ref(operation))
                        .map_err(|_| ApiError::unprocessable_patch())?;
                    // A few copies of a document into itself would make it larger than memory.
                    if content::is_deeper_than(&value, PATCHED_DEPTH_LIMIT)
                        || content::weight(&value, BODY_LIMIT) > BODY_LIMIT
                    {
                        return Err(ApiError::unprocessable_patch());
                    }
                }
            }
            Self::Merge(patch) => json_patch::merge(&mut value, patch),
            Self::Strategic(patch) => strategic::merge(&mut value, patch)?,
        }
        Ok(value)
    }
}

/// Upstream's library reads a member that is absent as null: it can be replaced and copied.
fn as_upstream(operation: &PatchOperation, value: &Value) -> PatchOperation {
    let is_absent = |path: &PointerBuf| {
        let parent = path.split_back().and_then(|(parent, _)| parent.resolve(value).ok());
        parent.is_some_and(Value::is_object) && path.resolve(value).is_err()
    };
    match operation {
        PatchOperation::Replace(ReplaceOperation { path, value }) if is_absent(path) => {
            PatchOperation::Add(AddOperation { path: path.clone(), value: value.clone() })
        }
        PatchOperation::Copy(CopyOperation { from, path }) if is_absent(from) => {
            PatchOperation::Add(AddOperation { path: path.clone(), value: Value::Null })
        }
        other => other.clone(),
    }
}

fn is_operations(value: &Value) -> bool {
    value.as_array().is_some_and(|list| list.iter().all(|one| one.get("op").is_some_and(Value::is_string)))
}

/// What upstream says of a patch whose outcome is not strictly an object of its kind.
fn invalid_patch(outcome: &str, error: &ApiError) -> ApiError {
    let why = error.message.find("strict decoding error").map_or("", |start| &error.message[start..]);
    let cause = Cause::invalid_value("patch", &outcome.into(), why);
    ApiError::invalid_kind("", "", "", &[cause])
}

fn modify(intent: &Intent, txn: &mut Txn<'_>, key: &Key, patch: &Patch) -> Result<Written, ApiError> {
    let live = txn.get(key).ok_or_else(|| ApiError::not_found(&intent.resource, &key.name))?;
    let asked = events::from_stored(&intent.resource, live.value.clone());
    let value = patch.apply(asked)?;
    check_type(&intent.resource, &value)?;
    let text = value.to_string();
    let document = Document { value, duplicates: Vec::new() };
    let (value, warnings) = accept(intent, document).map_err(|error| invalid_patch(&text, &error))?;
    warning(warnings, intent.update(txn, key, &live, value, Ownership::Track))
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
        let mut value = intent.merge(None, &config, force)?;
        // Any version will do where there is none: upstream compares it with what is there alone.
        object::unset(&mut value, "resourceVersion");
        return intent.create(txn, &key.namespace, value, Ownership::Applied);
    };
    let value = intent.merge(Some(&live.value), &config, force)?;
    // Conflicts of ownership are told before those of version and uid.
    intent.check_identity(key, &live, &config)?;
    intent.update(txn, key, &live, value, Ownership::Applied)
}
