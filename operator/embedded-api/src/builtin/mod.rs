//! The kinds served beside the given ones, described by documents in the shape of a CRD's spec.

use std::sync::Arc;

use serde_json::Value;
use virtnet_crds::schema::Schema;

use crate::registry::{Access, DefinitionError, Form, Metadata, Resource};

/// The structure of `metadata`, common to all kinds.
const METADATA: &str = include_str!("metadata.yaml");

const NAMESPACES: &str = include_str!("namespaces.yaml");
const LEASES: &str = include_str!("leases.yaml");
const EVENTS: &str = include_str!("events.yaml");
const EVENTS_K8S_IO: &str = include_str!("events.k8s.io.yaml");
const DEFINITIONS: &str = include_str!("customresourcedefinitions.yaml");

/// Storage name of namespaces.
pub(crate) const NAMESPACE_STORAGE: &str = "/namespaces";
/// Storage name of events, under whichever group they are asked for.
pub(crate) const EVENT_STORAGE: &str = "/events";
/// Storage name of definitions.
pub(crate) const DEFINITION_STORAGE: &str = "apiextensions.k8s.io/customresourcedefinitions";

/// What all kinds have in common.
pub(crate) fn metadata() -> Result<Metadata, DefinitionError> {
    let structure = parse("metadata", METADATA)?;
    let schema = Schema::compile(&structure)
        .map_err(|error| DefinitionError { name: "metadata".to_owned(), problem: error.to_string() })?;
    Ok(Metadata { structure, schema: Arc::new(schema) })
}

/// Every built-in kind.
pub(crate) fn resources(metadata: &Metadata) -> Result<Vec<Resource>, DefinitionError> {
    let built_in = |name: &str, text: &str, form: Form, access: Access| {
        Resource::from_definition(&parse(name, text)?, metadata, form, access)
    };
    Ok(vec![
        built_in("namespaces", NAMESPACES, Form::Namespace, Access::Full)?,
        built_in("events", EVENTS, Form::Event, Access::Full)?,
        built_in("events.events.k8s.io", EVENTS_K8S_IO, Form::EventOfEventsGroup, Access::Full)?,
        built_in("leases", LEASES, Form::BuiltIn, Access::Full)?,
        built_in("customresourcedefinitions", DEFINITIONS, Form::BuiltIn, Access::ReadOnly)?,
    ])
}

fn parse(name: &str, text: &str) -> Result<Value, DefinitionError> {
    serde_saphyr::from_str(text).map_err(|error| DefinitionError {
        name: name.to_owned(),
        problem: format!("its document is no YAML: {error}"),
    })
}
