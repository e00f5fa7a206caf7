//! Rules that hold for every kind: names, metadata, unknown and duplicate fields.

use serde_json::Value;
use virtnet_crds::metadata::{self, Names, Scope};
use virtnet_crds::schema::FieldError;

use crate::content::Document;
use crate::query::FieldValidation;
use crate::registry::Resource;
use crate::status::{ApiError, Cause};

/// The fields of a document that its schema lacks.
fn unknown_fields(resource: &Resource, document: &Document) -> Vec<String> {
    let mut unknown = resource.schema.unknown_fields(&document.value);
    unknown.retain(|path| !path.starts_with("metadata."));
    if let Some(metadata) = document.value.get("metadata") {
        let inside = resource.metadata.unknown_fields(metadata);
        unknown.extend(inside.into_iter().map(|path| format!("metadata.{path}")));
    }
    unknown
}

/// Names the fields that the schema lacks and the keys given twice: an error where strictness is asked for, else
/// warnings (none where they are to be ignored). An applied configuration is `typed` anyhow, which finds what the schema
/// lacks.
pub(crate) fn check_fields(
    resource: &Resource,
    document: &Document,
    mode: FieldValidation,
    typed: bool,
) -> Result<Vec<String>, ApiError> {
    if mode == FieldValidation::Ignore {
        return Ok(Vec::new());
    }
    let unknown = if typed { Vec::new() } else { unknown_fields(resource, document) };
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
    let scope = if resource.namespaced { Scope::Namespaced } else { Scope::Cluster };
    let names = if resource.plural == "namespaces" { Names::Labels } else { Names::Subdomains };
    causes(&metadata::validate(value.get("metadata"), scope, names))
}

/// What the schema says against an object; `live` is what it replaces.
pub(crate) fn schema(resource: &Resource, value: &Value, live: Option<&Value>) -> Vec<Cause> {
    causes(&resource.schema.validate(value, live))
}

fn causes(errors: &[FieldError]) -> Vec<Cause> {
    errors.iter().map(|error| Cause::new(error.kind.reason(), error.path.as_str(), error.body())).collect()
}
