//! The kinds that are served, made from CustomResourceDefinitions.

use std::sync::Arc;

use serde_json::{Value, json};
use virtnet_crds::schema::Schema;

use crate::builtin;
use crate::jsonpath::JsonPath;

/// Verbs that a resource answers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Full,
    ReadOnly,
}

/// Which rules a kind follows beyond its schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Custom,
    BuiltIn,
    Namespace,
    /// `v1` events, which is also how events are stored.
    Event,
    /// `events.k8s.io/v1` events: the same objects, four of their fields under other names.
    EventOfEventsGroup,
}

/// One resource: a kind under a group and version.
#[derive(Debug)]
pub struct Resource {
    pub(crate) storage: Arc<str>,
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) kind: String,
    pub(crate) list_kind: String,
    pub(crate) short_names: Vec<String>,
    pub(crate) categories: Vec<String>,
    pub(crate) namespaced: bool,
    pub(crate) form: Form,
    pub(crate) access: Access,
    /// The schema with the structure of `metadata` filled in: for typing, explain and OpenAPI.
    pub(crate) structure: Value,
    pub(crate) schema: Schema,
    /// The schema of `metadata`, the same for all.
    pub(crate) metadata: Arc<Schema>,
    pub(crate) columns: Vec<Column>,
    pub(crate) selectable: Vec<String>,
    pub(crate) status: bool,
    pub(crate) scale: Option<ScalePaths>,
}

/// The structure of `metadata`, and the same compiled.
#[derive(Debug)]
pub(crate) struct Metadata {
    pub(crate) structure: Value,
    pub(crate) schema: Arc<Schema>,
}

/// One column of a table.
#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) format: String,
    pub(crate) description: String,
    pub(crate) priority: i64,
    pub(crate) path: JsonPath,
}

/// Where the numbers of a Scale live in the object.
#[derive(Debug)]
pub(crate) struct ScalePaths {
    pub(crate) spec_replicas: String,
    pub(crate) status_replicas: String,
    pub(crate) selector: Option<String>,
}

/// A definition that can't be served.
#[derive(Debug, thiserror::Error)]
#[error("serving {name}: {problem}")]
pub struct DefinitionError {
    /// The definition.
    pub name: String,
    /// What is wrong with it.
    pub problem: String,
}

/// All resources, in the order of discovery.
#[derive(Debug)]
pub(crate) struct Registry {
    resources: Vec<Arc<Resource>>,
}

impl Resource {
    /// Reads `spec` of a CustomResourceDefinition.
    pub(crate) fn from_definition(
        definition: &Value,
        metadata: &Metadata,
        form: Form,
        access: Access,
    ) -> Result<Self, DefinitionError> {
        let spec = &definition["spec"];
        let names = &spec["names"];
        let (group, plural) = (text(spec, "group"), text(names, "plural"));
        let failed = |problem: String| DefinitionError { name: format!("{plural}.{group}"), problem };
        let served: Vec<&Value> =
            list(spec, "versions").filter(|version| version["served"] == json!(true)).collect();
        let [version] = served.as_slice() else {
            return Err(failed(format!("exactly one version must be served, not {}", served.len())));
        };

        let mut structure = version["schema"]["openAPIV3Schema"].clone();
        let schema = Schema::compile(&structure).map_err(|error| failed(error.to_string()))?;
        structure["properties"]["metadata"] = metadata.structure.clone();
        structure["properties"]["apiVersion"] =
            json!({"type": "string", "description": "The group and version that this object is written in."});
        structure["properties"]["kind"] = json!({"type": "string", "description": "What this object is."});

        let kind = text(names, "kind");
        let list_kind = match text(names, "listKind") {
            given if given.is_empty() => format!("{kind}List"),
            given => given,
        };
        let singular = match text(names, "singular") {
            given if given.is_empty() => kind.to_lowercase(),
            given => given,
        };
        let storage = match form {
            Form::EventOfEventsGroup => builtin::EVENT_STORAGE.into(),
            _ => format!("{group}/{plural}").into(),
        };
        let columns =
            list(version, "additionalPrinterColumns").map(Column::read).collect::<Result<Vec<_>, _>>();
        Ok(Self {
            storage,
            version: text(version, "name"),
            singular,
            kind,
            list_kind,
            short_names: strings(names, "shortNames"),
            categories: strings(names, "categories"),
            namespaced: spec["scope"] == json!("Namespaced"),
            form,
            access,
            structure,
            schema,
            metadata: Arc::clone(&metadata.schema),
            columns: columns.map_err(failed)?,
            selectable: list(version, "selectableFields")
                .map(|field| text(field, "jsonPath").trim_start_matches('.').to_owned())
                .collect(),
            status: version.pointer("/subresources/status").is_some(),
            scale: version
                .pointer("/subresources/scale")
                .filter(|scale| scale.is_object())
                .map(ScalePaths::read),
            group,
            plural,
        })
    }

    /// `virtnet.dev/v1alpha1`, or `v1` for the core group.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `virtnetdevices.virtnet.dev`, or `namespaces` for the core group.
    pub(crate) fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// The verbs of the main resource, as discovery names them.
    pub(crate) fn verbs(&self) -> &'static [&'static str] {
        match self.access {
            Access::Full => {
                &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
            }
            Access::ReadOnly => &["get", "list", "watch"],
        }
    }
}

impl Column {
    fn read(column: &Value) -> Result<Self, String> {
        let path = text(column, "jsonPath");
        Ok(Self {
            name: text(column, "name"),
            kind: text(column, "type"),
            format: text(column, "format"),
            description: text(column, "description"),
            priority: column["priority"].as_i64().unwrap_or_default(),
            path: JsonPath::parse(&path).map_err(|why| format!("the column path {path:?}: {why}"))?,
        })
    }

    /// The AGE column of kinds that name no columns.
    fn age() -> Result<Self, String> {
        Self::read(&json!({
            "name": "Age",
            "type": "date",
            "jsonPath": ".metadata.creationTimestamp",
            "description": "Time since the object was made.",
        }))
    }
}

impl ScalePaths {
    fn read(scale: &Value) -> Self {
        let pointer = |field: &str| text(scale, field).replace('.', "/");
        Self {
            spec_replicas: pointer("specReplicasPath"),
            status_replicas: pointer("statusReplicasPath"),
            selector: Some(pointer("labelSelectorPath")).filter(|path| !path.is_empty()),
        }
    }
}

impl Registry {
    /// The built-in kinds and the given ones.
    pub(crate) fn new(definitions: &[Value]) -> Result<Self, DefinitionError> {
        let metadata = builtin::metadata()?;
        let mut resources = builtin::resources(&metadata)?;
        for definition in definitions {
            resources.push(Resource::from_definition(definition, &metadata, Form::Custom, Access::Full)?);
        }
        for resource in resources.iter_mut().filter(|resource| resource.columns.is_empty()) {
            let failed = |problem| DefinitionError { name: resource.plural.clone(), problem };
            resource.columns.push(Column::age().map_err(failed)?);
        }
        Ok(Self { resources: resources.into_iter().map(Arc::new).collect() })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.iter()
    }

    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.iter().find(|one| one.group == group && one.version == version && one.plural == plural)
    }

    /// The resource in whose form objects of this storage are kept.
    pub(crate) fn of_storage(&self, storage: &str) -> Option<&Arc<Resource>> {
        self.iter().find(|one| &*one.storage == storage && one.form != Form::EventOfEventsGroup)
    }

    /// The resource of an owner reference.
    pub(crate) fn of_kind(&self, api_version: &str, kind: &str) -> Option<&Arc<Resource>> {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        self.iter().find(|one| one.group == group && one.kind == kind)
    }

    /// Group and version pairs, each once, the core group first.
    pub(crate) fn versions(&self) -> Vec<(&str, &str)> {
        let mut versions: Vec<(&str, &str)> =
            self.iter().map(|one| (one.group.as_str(), one.version.as_str())).collect();
        versions.sort_unstable();
        versions.dedup();
        versions
    }
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}

fn list<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    value[field].as_array().into_iter().flatten()
}

fn strings(value: &Value, field: &str) -> Vec<String> {
    list(value, field).filter_map(Value::as_str).map(str::to_owned).collect()
}
