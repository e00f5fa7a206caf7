//! Offline validation of manifests: the verdict of a strict API server, with the line of each fault.
//!
//! Each document goes the way that it would go to and through the server: YAML as kubectl reads it
//! ([`crate::yaml`]), kind, metadata ([`crate::metadata`]), unknown fields, defaults, schema and rules
//! ([`crate::schema`]). What depends on other objects or on the DPU is not looked at.

use std::fmt;
use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::crd;
use crate::metadata::{self, Names, Scope};
use crate::schema::{CompileError, FieldError, NO_FIELD, Schema};
use crate::yaml::{self, Document};

/// Something that is wrong with a manifest. `Display` is `FILE:LINE: message`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file's name, as given.
    pub file: String,
    /// The line of the field that is named; of a missing one, that of what should have it. Counted from 1.
    pub line: usize,
    /// What is wrong, in the server's words where it is the server's verdict.
    pub message: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.message)
    }
}

/// Everything that is wrong with the manifests in `text`, by line; empty where a server would take them all.
///
/// `file_name` only goes into the result. Besides our kinds, namespaces and lists of objects are understood, since
/// they stand in the same files.
#[must_use]
pub fn validate_yaml(file_name: &str, text: &str) -> Vec<Diagnostic> {
    let mut found: Vec<(usize, String)> = Vec::new();
    match &*KINDS {
        Ok(kinds) => {
            for document in yaml::documents(text) {
                match document {
                    Ok(document) => check(kinds, &document, &document.value, "", &mut found),
                    Err(error) => found.push((error.line, error.message)),
                }
            }
        }
        Err(error) => found.push((1, format!("the built-in schemas can't be used: {error}"))),
    }
    found.sort_by_key(|(line, _)| *line);
    let diagnostic = |(line, message)| Diagnostic { file: file_name.to_owned(), line, message };
    found.into_iter().map(diagnostic).collect()
}

/// A kind that manifests may contain.
struct Kind {
    api_version: String,
    kind: String,
    scope: Scope,
    schema: Schema,
}

static KINDS: LazyLock<Result<Vec<Kind>, CompileError>> = LazyLock::new(kinds);

fn kinds() -> Result<Vec<Kind>, CompileError> {
    let namespace = Kind {
        api_version: "v1".to_owned(),
        kind: "Namespace".to_owned(),
        scope: Scope::Cluster,
        schema: Schema::compile(&json!({
            "type": "object",
            "properties": {
                "spec": {
                    "type": "object",
                    "properties": { "finalizers": { "type": "array", "items": { "type": "string" } } }
                },
                "status": { "type": "object", "x-kubernetes-preserve-unknown-fields": true }
            }
        }))?,
    };
    let mut kinds = vec![namespace];
    for crd in crd::all() {
        let scope = if crd.spec.scope == "Namespaced" { Scope::Namespaced } else { Scope::Cluster };
        for version in &crd.spec.versions {
            let schema = version.schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref());
            kinds.push(Kind {
                api_version: format!("{}/{}", crd.spec.group, version.name),
                kind: crd.spec.names.kind.clone(),
                scope,
                schema: Schema::compile(&json!(schema))?,
            });
        }
    }
    Ok(kinds)
}

/// Checks the object that stands at `path` of the document: at its root, or in a list.
fn check(kinds: &[Kind], document: &Document, object: &Value, path: &str, found: &mut Vec<(usize, String)>) {
    let line_of = |below: &str| match (path, below) {
        ("", below) => document.line_of(below),
        (path, "" | NO_FIELD) => document.line_of(path),
        (path, below) => document.line_of(&format!("{path}.{below}")),
    };
    if !object.is_object() {
        found.push((line_of(""), "a manifest is a map with apiVersion, kind and metadata".to_owned()));
        return;
    }
    let (api_version, name) = match (object["apiVersion"].as_str(), object["kind"].as_str()) {
        (Some(api_version), Some(kind)) => (api_version, kind),
        (None, _) => return found.push((line_of("apiVersion"), "apiVersion: Required value".to_owned())),
        (_, None) => return found.push((line_of("kind"), "kind: Required value".to_owned())),
    };
    if (api_version, name) == ("v1", "List") {
        for (index, item) in object["items"].as_array().into_iter().flatten().enumerate() {
            let below = format!("items[{index}]");
            let path = if path.is_empty() { below } else { format!("{path}.{below}") };
            check(kinds, document, item, &path, found);
        }
        return;
    }
    let Some(kind) = kinds.iter().find(|kind| kind.kind == name && kind.api_version == api_version) else {
        found.push(unknown_kind(kinds, api_version, name, line_of));
        return;
    };
    for (path, message) in verdict(kind, object) {
        found.push((line_of(&path), message));
    }
}

fn unknown_kind(
    kinds: &[Kind],
    api_version: &str,
    name: &str,
    line_of: impl Fn(&str) -> usize,
) -> (usize, String) {
    let of_name: Vec<&str> =
        kinds.iter().filter(|kind| kind.kind == name).map(|kind| kind.api_version.as_str()).collect();
    if of_name.is_empty() {
        let known: Vec<&str> = kinds.iter().map(|kind| kind.kind.as_str()).collect();
        let message = format!("kind: Unsupported value: {name:?}: supported values: {}", quoted_list(&known));
        return (line_of("kind"), message);
    }
    let message = format!(
        "apiVersion: Unsupported value: {api_version:?}: supported values for {name}: {}",
        quoted_list(&of_name)
    );
    (line_of("apiVersion"), message)
}

fn quoted_list(values: &[&str]) -> String {
    let quoted: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
    quoted.join(", ")
}

/// What a server finds wrong with a new object: the paths of fields, and its sentences.
fn verdict(kind: &Kind, object: &Value) -> Vec<(String, String)> {
    let mut unknown = kind.schema.unknown_fields(object);
    unknown.extend(metadata::unknown_fields(&object["metadata"]));
    let mut found: Vec<(String, String)> = unknown
        .into_iter()
        .map(|path| {
            let message = format!("unknown field {path:?}");
            (path, message)
        })
        .collect();

    let mut errors = metadata::validate(object.get("metadata"), kind.scope, Names::Subdomains);
    let mut object = object.clone();
    // Who creates an object can't set its status: the server drops it unseen.
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    kind.schema.prune(&mut object);
    kind.schema.apply_defaults(&mut object);
    // What the server says of no field goes with errors that name theirs, as that rules were left out because of them, unless
    // it is all that there is.
    let (named, other): (Vec<_>, Vec<_>) =
        kind.schema.validate(&object, None).into_iter().partition(|error| error.path != NO_FIELD);
    errors.extend(if named.is_empty() { other } else { named });
    found.extend(errors.into_iter().map(|error| (place(&object, &error), error.to_string())));
    found
}

/// The path whose line is shown. The server names only the map that a bad label or annotation is in, and its key or
/// value.
fn place(object: &Value, error: &FieldError) -> String {
    let map = match error.path.as_str() {
        "metadata.labels" => object["metadata"]["labels"].as_object(),
        "metadata.annotations" => object["metadata"]["annotations"].as_object(),
        _ => None,
    };
    let entry =
        map.into_iter().flatten().find(|(key, value)| error.value == ***key || error.value == **value);
    entry.map_or_else(|| error.path.clone(), |(key, _)| format!("{}.{key}", error.path))
}
