//! `GET` of a collection, whole or in pages of one consistent state.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::content::Shape;
use crate::query::{ListQuery, VersionMatch};
use crate::registry::{Form, Resource};
use crate::reply::Reply;
use crate::status::ApiError;
use crate::store::Object;
use crate::verbs::Request;
use crate::{events, object, table};

/// Where a page ended, and of which state it was a part.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Token {
    revision: u64,
    after: (String, String),
}

impl Token {
    fn encode(&self) -> String {
        let (namespace, name) = &self.after;
        URL_SAFE_NO_PAD.encode(json!([self.revision, namespace, name]).to_string())
    }

    fn decode(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (revision, namespace, name) = serde_json::from_slice(&bytes).ok()?;
        Some(Self { revision, after: (namespace, name) })
    }
}

/// The objects of a collection that a query selects, in order, and the revision that they are of.
#[derive(Debug)]
pub(crate) struct Selected {
    pub(crate) objects: Vec<Arc<Object>>,
    pub(crate) revision: u64,
}

pub(crate) fn list(request: &Request) -> Result<Reply, ApiError> {
    let query = request.call.pairs.list()?;
    query.fields.check_fields(&request.resource)?;
    let token = match query.token.as_str() {
        "" => None,
        text => Some(Token::decode(text).ok_or_else(|| {
            ApiError::bad_request("continue key is not valid: it is none of this server's")
        })?),
    };
    let mut selected = select(request, &query, token.as_ref())?;
    let mut metadata = json!({ "resourceVersion": selected.revision.to_string() });
    if let Some(Token { after, .. }) = token {
        selected.objects.retain(|one| position(&one.value) > after);
    }
    if query.limit > 0 && selected.objects.len() > query.limit {
        let remaining = selected.objects.split_off(query.limit).len();
        if let Some(last) = selected.objects.last() {
            let token = Token { revision: selected.revision, after: position(&last.value) };
            metadata["continue"] = token.encode().into();
        }
        // With a selector upstream does not know how many remain.
        if query.labels == crate::selectors::Selector::default()
            && query.fields == crate::selectors::Selector::default()
        {
            metadata["remainingItemCount"] = remaining.into();
        }
    }
    present(request, &selected.objects, &metadata).map(Reply::ok)
}

/// Looks up what a query selects; a token or an exact version asks for an earlier state.
pub(crate) fn select(
    request: &Request,
    query: &ListQuery,
    token: Option<&Token>,
) -> Result<Selected, ApiError> {
    let storage = &request.resource.storage;
    let exact = match (token, query.resource_version, query.version_match) {
        (Some(token), _, _) => Some(token.revision),
        (None, Some(version), Some(VersionMatch::Exact)) => Some(version),
        (None, Some(version), None) if version > 0 && query.limit > 0 => Some(version),
        _ => None,
    };
    let (objects, revision) = request.core.store.read(|state| {
        let current = state.revision();
        match exact {
            Some(version) if version > current => Err(ApiError::version_too_large(version, current)),
            Some(version) => {
                let objects = state.list_at(storage, &request.namespace, version).ok_or_else(|| match token {
                    Some(_) => ApiError::expired(
                        "The provided continue parameter is too old to display a consistent list result. You must \
                         start a new list without the continue parameter.",
                    ),
                    None => ApiError::expired(format!(
                        "The resourceVersion for the provided list is too old: {version}"
                    )),
                })?;
                Ok((objects, version))
            }
            None => match query.resource_version.filter(|wanted| *wanted > current) {
                Some(wanted) => Err(ApiError::version_too_large(wanted, current)),
                None => Ok((state.list(storage, &request.namespace), current)),
            },
        }
    })?;
    let mut objects = objects;
    objects.retain(|one| matches(request, query, &one.value));
    Ok(Selected { objects, revision })
}

/// Whether a stored object is selected.
pub(crate) fn matches(request: &Request, query: &ListQuery, stored: &Value) -> bool {
    if !query.labels.matches_labels(stored) {
        return false;
    }
    if &*request.resource.storage == crate::builtin::EVENT_STORAGE {
        let asked = events::from_stored(&request.resource, stored.clone());
        return query.fields.matches_fields(&asked);
    }
    query.fields.matches_fields(stored)
}

/// A list of objects. As upstream, those of custom kinds always have a continue token, and items of others no type.
pub(crate) fn plain(resource: &Resource, mut metadata: Value, mut items: Vec<Value>) -> Value {
    if resource.form == Form::Custom {
        if metadata.get("continue").is_none() {
            metadata["continue"] = "".into();
        }
    } else {
        for fields in items.iter_mut().filter_map(Value::as_object_mut) {
            fields.remove("apiVersion");
            fields.remove("kind");
        }
    }
    let mut list = json!({ "kind": resource.list_kind, "apiVersion": resource.api_version() });
    // Moved, where `json!` would copy every item.
    list["metadata"] = metadata;
    list["items"] = Value::Array(items);
    list
}

fn position(value: &Value) -> (String, String) {
    (object::namespace(value).to_owned(), object::name(value).to_owned())
}

fn present(request: &Request, objects: &[Arc<Object>], metadata: &Value) -> Result<Value, ApiError> {
    let resource = &request.resource;
    let items: Vec<Value> =
        objects.iter().map(|one| events::from_stored(resource, one.value.clone())).collect();
    Ok(match request.call.shape {
        Shape::Plain | Shape::Discovery => plain(resource, metadata.clone(), items),
        Shape::Metadata => json!({
            "kind": "PartialObjectMetadataList",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": metadata,
            "items": items.iter().map(table::partial).collect::<Vec<_>>(),
        }),
        Shape::Table => {
            let now = request.core.clock.now();
            table::table(resource, &items, metadata, request.include()?, true, now)
        }
    })
}
