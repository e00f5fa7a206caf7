//! OpenAPI v3 documents, as far as `kubectl explain` and kubectl's look for supported parameters need them.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::OnceLock;

use serde_json::{Map, Value, json};

use crate::registry::{Access, Registry, Resource};

type Documents = BTreeMap<(String, String), Value>;

/// All documents, made when the first is asked for and then kept, for kinds don't change while the server runs.
#[derive(Debug, Default)]
pub(crate) struct OpenApi {
    documents: OnceLock<Documents>,
}

impl OpenApi {
    fn documents(&self, registry: &Registry) -> &Documents {
        let make = |(group, version): (&str, &str)| {
            ((group.to_owned(), version.to_owned()), document(registry, group, version))
        };
        self.documents.get_or_init(|| registry.versions().into_iter().map(make).collect())
    }

    /// `GET /openapi/v3`; each address changes with its document, for clients keep them for long.
    pub(crate) fn index(&self, registry: &Registry) -> Value {
        let paths: Map<String, Value> = self
            .documents(registry)
            .iter()
            .map(|((group, version), document)| {
                let path = root(group, version);
                let mut hasher = DefaultHasher::new();
                document.to_string().hash(&mut hasher);
                let address = format!("/openapi/v3/{path}?hash={:016X}", hasher.finish());
                (path, json!({ "serverRelativeURL": address }))
            })
            .collect();
        json!({ "paths": paths })
    }

    pub(crate) fn document(&self, registry: &Registry, group: &str, version: &str) -> Option<Value> {
        self.documents(registry).get(&(group.to_owned(), version.to_owned())).cloned()
    }
}

fn root(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

fn document(registry: &Registry, group: &str, version: &str) -> Value {
    let mut paths = Map::new();
    let mut schemas = Map::new();
    for resource in registry.iter().filter(|one| one.group == group && one.version == version) {
        let mut schema = resource.structure.clone();
        schema["x-kubernetes-group-version-kind"] = json!([kind(resource)]);
        schemas.insert(schema_name(resource), schema);

        let base = format!("/{}", root(group, version));
        let collection = if resource.namespaced {
            format!("{base}/namespaces/{{namespace}}/{}", resource.plural)
        } else {
            format!("{base}/{}", resource.plural)
        };
        let read = ["get"].map(|verb| (verb, operation(resource, verb)));
        let mut item: Map<String, Value> =
            read.iter().map(|(verb, op)| ((*verb).to_owned(), op.clone())).collect();
        let mut many = item.clone();
        if resource.access == Access::Full {
            for verb in ["put", "patch", "delete"] {
                item.insert(verb.to_owned(), operation(resource, verb));
            }
            for verb in ["post", "delete"] {
                many.insert(verb.to_owned(), operation(resource, verb));
            }
        }
        paths.insert(format!("{collection}/{{name}}"), Value::Object(item));
        paths.insert(collection, Value::Object(many));
    }
    json!({
        "openapi": "3.0.0",
        "info": { "title": "virtnet embedded API", "version": env!("CARGO_PKG_VERSION") },
        "paths": paths,
        "components": { "schemas": schemas },
    })
}

fn kind(resource: &Resource) -> Value {
    json!({ "group": resource.group, "version": resource.version, "kind": resource.kind })
}

/// `dev.virtnet.v1alpha1.VirtnetDevice`, as upstream names the schemas of custom kinds.
fn schema_name(resource: &Resource) -> String {
    let mut labels: Vec<&str> = resource.group.split('.').filter(|label| !label.is_empty()).rev().collect();
    labels.extend([resource.version.as_str(), resource.kind.as_str()]);
    labels.join(".")
}

fn operation(resource: &Resource, verb: &str) -> Value {
    let parameter = |name: &str, description: &str| json!({ "name": name, "in": "query", "description": description, "schema": { "type": "string" } });
    let content = json!({
        "application/json": { "schema": { "$ref": format!("#/components/schemas/{}", schema_name(resource)) } }
    });
    let action = if verb == "get" { "get" } else { verb };
    let mut operation = json!({
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": kind(resource),
        "responses": { "200": { "description": "OK", "content": content } },
    });
    if verb != "get" {
        operation["parameters"] = json!([
            parameter("dryRun", "All: nothing is stored."),
            parameter("fieldManager", "Who writes."),
            parameter("fieldValidation", "Ignore, Warn or Strict."),
        ]);
    }
    operation
}
