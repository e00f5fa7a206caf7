//! Rules that hold for every kind: names, metadata, unknown and duplicate fields.

use serde_json::{Map, Value};

use crate::content::Document;
use crate::object;
use crate::query::FieldValidation;
use crate::registry::Resource;
use crate::status::{ApiError, Cause};

const NAME_LIMIT: usize = 253;
const LABEL_LIMIT: usize = 63;
const ANNOTATIONS_LIMIT: usize = 256 * 1024;
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or \
     '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const DNS_LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and \
     must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or \
     '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex \
     used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const QUALIFIED_NAME: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and \
     end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
     '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

/// Names the fields that the schema lacks and the keys given twice: an error where strictness is asked for, else
/// warnings (none where they are to be ignored).
pub(crate) fn check_fields(
    resource: &Resource,
    document: &Document,
    mode: FieldValidation,
) -> Result<Vec<String>, ApiError> {
    if mode == FieldValidation::Ignore {
        return Ok(Vec::new());
    }
    let mut unknown = resource.schema.unknown_fields(&document.value);
    unknown.retain(|path| !path.starts_with("metadata."));
    if let Some(metadata) = document.value.get("metadata") {
        let inside = resource.metadata.unknown_fields(metadata);
        unknown.extend(inside.into_iter().map(|path| format!("metadata.{path}")));
    }
    let duplicate = document.duplicates.iter().map(|path| format!("duplicate field \"{path}\""));
    let unknown = unknown.iter().map(|path| format!("unknown field \"{path}\""));
    let found: Vec<String> = duplicate.chain(unknown).collect();
    if mode == FieldValidation::Strict && !found.is_empty() {
        return Err(ApiError::bad_request(format!(
            "{kind} in version {version:?} cannot be handled as a {kind}: strict decoding error: {found}",
            kind = resource.kind,
            version = resource.version,
            found = found.join(", "),
        )));
    }
    Ok(found)
}

/// What is wrong with the metadata of an object that is to be stored.
pub(crate) fn metadata(resource: &Resource, value: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let Some(meta) = value.get("metadata").and_then(Value::as_object) else {
        return vec![Cause::required("metadata", "")];
    };
    for (field, held) in meta {
        let fits = match field.as_str() {
            "labels" | "annotations" => strings_only(held, &mut causes, &format!("metadata.{field}")),
            "finalizers" | "ownerReferences" | "managedFields" => held.is_array() || held.is_null(),
            "generation" | "deletionGracePeriodSeconds" => held.is_i64() || held.is_null(),
            _ => held.is_string() || held.is_null(),
        };
        if !fits {
            let field = format!("metadata.{field}");
            causes.push(Cause::invalid_value(&field, held, "it is of another type"));
        }
    }
    name(resource, object::name(value), &mut causes);
    for (key, value) in entries(meta, "labels") {
        qualified_name("metadata.labels", key, &mut causes);
        label_value(value, &mut causes);
    }
    let mut size = 0;
    for (key, value) in entries(meta, "annotations") {
        qualified_name("metadata.annotations", &key.to_lowercase(), &mut causes);
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > ANNOTATIONS_LIMIT {
        let message = format!("Too long: may not be more than {ANNOTATIONS_LIMIT} bytes");
        causes.push(Cause::new("FieldValueTooLong", "metadata.annotations", message));
    }
    finalizers(meta, &mut causes);
    owner_references(meta, &mut causes);
    causes
}

fn entries<'a>(meta: &'a Map<String, Value>, field: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    meta.get(field).and_then(Value::as_object).into_iter().flatten()
}

fn strings_only(held: &Value, causes: &mut Vec<Cause>, field: &str) -> bool {
    let Value::Object(map) = held else { return held.is_null() };
    for (key, value) in map.iter().filter(|(_, value)| !value.is_string()) {
        causes.push(Cause::invalid_value(&format!("{field}.{key}"), value, "it must be a string"));
    }
    true
}

fn name(resource: &Resource, name: &str, causes: &mut Vec<Cause>) {
    if name.is_empty() {
        causes.push(Cause::required("metadata.name", "name or generateName is required"));
        return;
    }
    let label = resource.plural == "namespaces";
    let (limit, rule) = if label { (LABEL_LIMIT, DNS_LABEL) } else { (NAME_LIMIT, SUBDOMAIN) };
    if name.len() > limit {
        let detail = format!("must be no more than {limit} characters");
        causes.push(Cause::invalid_value("metadata.name", &name.into(), &detail));
    }
    let valid = if label { is_dns_label(name) } else { name.split('.').all(is_dns_label) };
    if !valid {
        causes.push(Cause::invalid_value("metadata.name", &name.into(), rule));
    }
}

fn is_dns_label(text: &str) -> bool {
    let inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.iter().all(|byte| inner(byte) || *byte == b'-')
        && bytes.first().is_some_and(inner)
        && bytes.last().is_some_and(inner)
}

fn is_name_part(text: &str) -> bool {
    let bytes = text.as_bytes();
    let within = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    bytes.len() <= LABEL_LIMIT
        && bytes.iter().all(within)
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
}

fn is_qualified_name(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => {
            prefix.len() <= NAME_LIMIT && prefix.split('.').all(is_dns_label) && is_name_part(name)
        }
        None => is_name_part(text),
    }
}

fn qualified_name(field: &str, key: &str, causes: &mut Vec<Cause>) {
    if !is_qualified_name(key) {
        causes.push(Cause::invalid_value(field, &key.into(), QUALIFIED_NAME));
    }
}

fn label_value(value: &Value, causes: &mut Vec<Cause>) {
    let Some(text) = value.as_str() else { return };
    if !text.is_empty() && !is_name_part(text) {
        causes.push(Cause::invalid_value("metadata.labels", value, LABEL_VALUE));
    }
}

fn finalizers(meta: &Map<String, Value>, causes: &mut Vec<Cause>) {
    for finalizer in meta.get("finalizers").and_then(Value::as_array).into_iter().flatten() {
        match finalizer.as_str() {
            Some(text) if is_qualified_name(text) => {}
            _ => causes.push(Cause::invalid_value("metadata.finalizers", finalizer, QUALIFIED_NAME)),
        }
    }
}

fn owner_references(meta: &Map<String, Value>, causes: &mut Vec<Cause>) {
    let owners = meta.get("ownerReferences").and_then(Value::as_array).into_iter().flatten();
    let mut controllers = 0;
    for (index, owner) in owners.enumerate() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner.get(field).and_then(Value::as_str).is_none_or(str::is_empty) {
                let field = format!("metadata.ownerReferences[{index}].{field}");
                causes.push(Cause::required(&field, "must not be empty"));
            }
        }
        controllers += usize::from(owner.get("controller") == Some(&Value::Bool(true)));
    }
    if controllers > 1 {
        let detail = "Only one reference can have Controller set to true";
        let held = meta.get("ownerReferences").cloned().unwrap_or_default();
        causes.push(Cause::invalid_value("metadata.ownerReferences", &held, detail));
    }
}

/// What the schema says against an object; `live` is what it replaces.
pub(crate) fn schema(resource: &Resource, value: &Value, live: Option<&Value>) -> Vec<Cause> {
    let errors = resource.schema.validate(value, live);
    errors.iter().map(|error| Cause::new(error.kind.reason(), error.path.as_str(), error.body())).collect()
}
