//! `PUT` of one object, its status or its scale.

use serde_json::Value;

use crate::content;
use crate::core::{Intent, Ownership, Written, uid_mismatch};
use crate::object;
use crate::path::Part;
use crate::registry::Form;
use crate::reply::Reply;
use crate::scale;
use crate::status::{ApiError, Cause};
use crate::store::{Key, Txn};
use crate::verbs::{Request, accept, warning};

pub(crate) async fn update(request: Request, key: Key) -> Result<Reply, ApiError> {
    let intent = request.intent(request.call.pairs.write()?);
    let written = if request.part == Part::Scale {
        let scale = content::json(&request.call.body)?.value;
        let work = intent.clone();
        request.core.writer.write(move |txn| put_scale(&work, txn, &key, &scale)).await?
    } else {
        let (value, warnings) = accept(&intent, request.object()?)?;
        let work = intent.clone();
        warning(warnings, request.core.writer.write(move |txn| put(&work, txn, &key, value)).await)?
    };
    request.written(&intent, "update", written)
}

fn put(intent: &Intent, txn: &mut Txn<'_>, key: &Key, value: Value) -> Result<Written, ApiError> {
    let live = txn.get(key).ok_or_else(|| ApiError::not_found(&intent.resource, &key.name))?;
    let uid = object::uid(&value);
    if !uid.is_empty() && uid != live.uid {
        return Err(uid_mismatch(&intent.resource, &key.name, uid, &live.uid));
    }
    intent.check_identity(key, &live, &value)?;
    if object::resource_version(&value).is_empty() && intent.stored().form == Form::Custom {
        let cause = Cause::invalid_value(
            "metadata.resourceVersion",
            &Value::from(0),
            "must be specified for an update",
        );
        // Upstream refuses it in its storage, which knows resources and not kinds.
        let resource = &intent.resource;
        return Err(ApiError::invalid_kind(&resource.plural, &resource.group, &key.name, &[cause]));
    }
    intent.update(txn, key, &live, value, Ownership::Track)
}

fn put_scale(intent: &Intent, txn: &mut Txn<'_>, key: &Key, wanted: &Value) -> Result<Written, ApiError> {
    let live = txn.get(key).ok_or_else(|| ApiError::not_found(&intent.resource, &key.name))?;
    let value = scale::into_object(&intent.resource, &live.value, wanted)?;
    intent.update(txn, key, &live, value, Ownership::Track)
}

/// The patch of a scale: the scale as it is, patched, put back.
pub(crate) fn patch_scale(
    intent: &Intent,
    txn: &mut Txn<'_>,
    key: &Key,
    patch: impl FnOnce(Value) -> Result<Value, ApiError>,
) -> Result<Written, ApiError> {
    let live = txn.get(key).ok_or_else(|| ApiError::not_found(&intent.resource, &key.name))?;
    let wanted = patch(scale::from_object(&intent.resource, &live.value)?)?;
    put_scale(intent, txn, key, &wanted)
}
