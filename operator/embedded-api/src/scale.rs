//! The `scale` subresource: an `autoscaling/v1` Scale read from and written to the object's own fields.

use serde_json::{Value, json};

use crate::object;
use crate::registry::{Resource, ScalePaths};
use crate::status::{ApiError, Cause};

fn paths(resource: &Resource) -> Result<&ScalePaths, ApiError> {
    resource.scale.as_ref().ok_or_else(ApiError::no_such_path)
}

/// The scale of an object.
pub(crate) fn from_object(resource: &Resource, stored: &Value) -> Result<Value, ApiError> {
    let paths = paths(resource)?;
    let number = |path: &str| stored.pointer(path).and_then(Value::as_i64);
    let replicas = number(&paths.spec_replicas).ok_or_else(|| {
        ApiError::internal(format_args!(
            "the spec replicas field {} does not exist",
            paths.spec_replicas.replace('/', ".")
        ))
    })?;
    let mut metadata = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(held) = stored.pointer(&format!("/metadata/{field}")) {
            metadata[field] = held.clone();
        }
    }
    let mut status = json!({ "replicas": number(&paths.status_replicas).unwrap_or(0) });
    if let Some(selector) = paths.selector.as_ref().and_then(|path| stored.pointer(path)) {
        status["selector"] = selector.clone();
    }
    Ok(json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": { "replicas": replicas },
        "status": status,
    }))
}

/// The object with the replicas that a scale asks for; the scale's name, uid and version remain preconditions.
pub(crate) fn into_object(resource: &Resource, stored: &Value, scale: &Value) -> Result<Value, ApiError> {
    let paths = paths(resource)?;
    let text = |field: &str| scale.get(field).and_then(Value::as_str);
    if text("kind") != Some("Scale") || text("apiVersion") != Some("autoscaling/v1") {
        return Err(ApiError::bad_request("the body must be a Scale of autoscaling/v1"));
    }
    let invalid = |value: &Value, detail: &str| {
        let cause = Cause::invalid_value("spec.replicas", value, detail);
        ApiError::invalid_kind("Scale", "autoscaling", object::name(scale), &[cause])
    };
    // A Scale without replicas means none, as upstream.
    let zero = json!(0);
    let wanted = scale.pointer("/spec/replicas").unwrap_or(&zero);
    match wanted.as_i64() {
        None => return Err(invalid(wanted, "must be an integer")),
        Some(..0) => return Err(invalid(wanted, "must be greater than or equal to 0")),
        Some(_) => {}
    }
    let mut value = stored.clone();
    let mut at = &mut value;
    for field in paths.spec_replicas.split('/').filter(|field| !field.is_empty()) {
        at = object::map_mut(at).entry(field).or_insert(Value::Null);
    }
    *at = wanted.clone();
    for field in ["name", "namespace", "uid", "resourceVersion"] {
        if let Some(given) = scale.pointer(&format!("/metadata/{field}")).filter(|given| given.is_string()) {
            object::set(&mut value, field, given.clone());
        }
    }
    Ok(value)
}
