//! One module a verb; here what they share.

pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod get;
pub(crate) mod list;
pub(crate) mod patch;
pub(crate) mod update;
pub(crate) mod watch;

use std::sync::Arc;

use http::{Method, header};
use serde_json::Value;

use crate::api::Core;
use crate::audit::Write;
use crate::content::{self, Document, Shape};
use crate::core::{Intent, Written, namespace_mismatch};
use crate::path::Part;
use crate::query::WriteQuery;
use crate::registry::{Access, Form, Resource};
use crate::reply::Reply;
use crate::service::Call;
use crate::status::{ApiError, Cause};
use crate::table::{self, Include};
use crate::{events, object, scale, validation};

/// A request for stored objects.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) core: Arc<Core>,
    pub(crate) call: Call,
    pub(crate) resource: Arc<Resource>,
    /// Empty for cluster scope and for all namespaces.
    pub(crate) namespace: String,
    pub(crate) part: Part,
}

impl Request {
    pub(crate) fn check_access(&self) -> Result<(), ApiError> {
        if self.resource.access == Access::ReadOnly && self.call.method != Method::GET {
            return Err(ApiError::method_not_allowed(self.call.method.as_str(), &self.resource.qualified()));
        }
        Ok(())
    }

    pub(crate) fn intent(&self, query: WriteQuery) -> Intent {
        let agent = self.call.header(header::USER_AGENT);
        let prefix: String = agent.split('/').next().unwrap_or_default().chars().take(128).collect();
        Intent {
            registry: Arc::clone(&self.core.registry),
            ids: Arc::clone(&self.core.ids),
            resource: Arc::clone(&self.resource),
            part: self.part,
            manager: query.field_manager.clone().unwrap_or(prefix),
            now: self.core.clock.now(),
            query,
        }
    }

    /// Reads the body as an object of this resource, in the form of the request.
    pub(crate) fn object(&self) -> Result<Document, ApiError> {
        let mut document = content::body(self.call.content_type(), &self.call.body)?;
        check_type(&self.resource, &document.value)?;
        let fields = object::map_mut(&mut document.value);
        fields.entry("apiVersion").or_insert_with(|| self.resource.api_version().into());
        fields.entry("kind").or_insert_with(|| self.resource.kind.clone().into());
        if self.resource.namespaced {
            let namespace = object::namespace(&document.value);
            if !namespace.is_empty() && namespace != self.namespace {
                return Err(namespace_mismatch());
            }
        }
        Ok(document)
    }

    /// Tells the audit, and answers with the object.
    pub(crate) fn written(
        &self,
        intent: &Intent,
        verb: &'static str,
        written: Written,
    ) -> Result<Reply, ApiError> {
        self.audit(intent, verb, object::name(&written.value), written.changed);
        let code = if written.created { 201 } else { 200 };
        let value = self.present(written.value)?;
        Ok(Reply { code, warnings: written.warnings, ..Reply::ok(value) })
    }

    pub(crate) fn audit(&self, intent: &Intent, verb: &'static str, name: &str, changed: bool) {
        let Some(audit) = self.core.audit.as_ref().filter(|_| !intent.query.dry_run) else { return };
        audit.wrote(Write {
            verb,
            manager: intent.manager.clone(),
            user_agent: self.call.header(header::USER_AGENT).to_owned(),
            group: self.resource.group.clone(),
            resource: self.resource.plural.clone(),
            namespace: self.namespace.clone(),
            name: name.to_owned(),
            subresource: self.part.name(),
            changed,
        });
    }

    /// One stored object in the form that the client asks for.
    pub(crate) fn present(&self, stored: Value) -> Result<Value, ApiError> {
        if self.part == Part::Scale {
            return scale::from_object(&self.resource, &stored);
        }
        let value = events::from_stored(&self.resource, stored);
        Ok(match self.call.shape {
            Shape::Plain | Shape::Discovery => value,
            Shape::Metadata => table::partial(&value),
            Shape::Table => {
                let metadata = serde_json::json!({ "resourceVersion": object::resource_version(&value) });
                let now = self.core.clock.now();
                table::table(&self.resource, &[value], &metadata, self.include()?, true, now)
            }
        })
    }

    pub(crate) fn include(&self) -> Result<Include, ApiError> {
        Include::parse(self.call.pairs.get("includeObject")).ok_or_else(|| {
            ApiError::bad_request("includeObject: allowed are \"None\", \"Metadata\" and \"Object\"")
        })
    }
}

/// Refuses an object of another kind than the path's.
pub(crate) fn check_type(resource: &Resource, value: &Value) -> Result<(), ApiError> {
    let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default();
    if !value.is_object() {
        return Err(ApiError::bad_request("the body must be an object"));
    }
    if value.get("metadata").is_some_and(|metadata| !metadata.is_object()) {
        return Err(ApiError::bad_request("metadata must be an object"));
    }
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    if resource.form != Form::Custom && api_version.is_empty() && kind.is_empty() {
        // The path says it all of a kind that is compiled into a server.
        return Ok(());
    }
    for (field, given) in [("Kind", kind), ("apiVersion", api_version)] {
        if given.is_empty() {
            return Err(ApiError::bad_request(format!("Object '{field}' is missing in the body")));
        }
    }
    if api_version != resource.api_version() {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({api_version}) does not match the expected API version ({})",
            resource.api_version()
        )));
    }
    if kind != resource.kind && resource.form == Form::Custom {
        let cause = Cause::invalid_value("kind", &kind.into(), &format!("must be {}", resource.kind));
        return Err(ApiError::invalid_kind(kind, &resource.group, object::name(value), &[cause]));
    }
    if kind != resource.kind {
        return Err(ApiError::bad_request(format!(
            "the kind in the data ({kind}) does not match the expected kind ({})",
            resource.kind
        )));
    }
    Ok(())
}

/// The outcome of a write with what its request is warned of, which it is also where it fails.
pub(crate) fn warning(
    warnings: Vec<String>,
    outcome: Result<Written, ApiError>,
) -> Result<Written, ApiError> {
    match outcome {
        Ok(written) => Ok(Written { warnings, ..written }),
        // What upstream can't type it doesn't decode, and so warns of nothing in it.
        Err(error) if error.code == 500 => Err(error),
        Err(error) => Err(error.warned(warnings)),
    }
}

/// Names unknown and duplicate fields, and turns the object into its stored form.
pub(crate) fn accept(intent: &Intent, document: Document) -> Result<(Value, Vec<String>), ApiError> {
    take(intent, document, false)
}

/// The same of an applied configuration.
pub(crate) fn accept_applied(intent: &Intent, document: Document) -> Result<(Value, Vec<String>), ApiError> {
    take(intent, document, true)
}

fn take(intent: &Intent, document: Document, typed: bool) -> Result<(Value, Vec<String>), ApiError> {
    let mode = intent.query.field_validation;
    let warnings = validation::check_fields(&intent.resource, &document, mode, typed)?;
    Ok((events::to_stored(&intent.resource, document.value), warnings))
}
