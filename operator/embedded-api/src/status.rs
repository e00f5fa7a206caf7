//! Failures as the API machinery words them: a `Status` object with reason, code, details and causes.

use serde_json::{Map, Value, json};

use crate::registry::Resource;

/// A request that could not be served, ready to be sent as a `Status` object of `meta.k8s.io/v1`.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiError {
    /// HTTP status code.
    pub code: u16,
    /// The machine readable reason, such as `NotFound`; empty where the API machinery has none.
    pub reason: &'static str,
    /// What happened, for people.
    pub message: String,
    /// Absent where the API machinery says none, which is not the same as empty.
    details: Option<Map<String, Value>>,
    /// What the client is warned of beside.
    warnings: Vec<String>,
}

/// One cause inside a `Status`: a field and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// Machine readable, such as `FieldValueInvalid`.
    pub reason: String,
    /// For people.
    pub message: String,
    /// Path of the field, such as `spec.mtu`.
    pub field: String,
}

impl ApiError {
    /// A failure with neither subject nor causes.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None, warnings: Vec::new() }
    }

    fn about(code: u16, reason: &'static str, resource: &Resource, name: &str, message: String) -> Self {
        let mut error = Self::new(code, reason, message);
        error.detail("name", name);
        error.detail("group", &resource.group);
        error.detail("kind", &resource.plural);
        error
    }

    fn details_mut(&mut self) -> &mut Map<String, Value> {
        self.details.get_or_insert_default()
    }

    fn detail(&mut self, key: &str, value: &str) {
        if !value.is_empty() {
            self.details_mut().insert(key.to_owned(), value.into());
        }
    }

    /// 400: the request itself is malformed.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 401: no or a wrong bearer token.
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// 403: understood and refused.
    pub fn forbidden(resource: &Resource, name: &str, why: &str) -> Self {
        let message = format!("{} \"{name}\" is forbidden: {why}", resource.qualified());
        Self::about(403, "Forbidden", resource, name, message)
    }

    /// 404: no object of this name.
    pub fn not_found(resource: &Resource, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", resource.qualified());
        Self::about(404, "NotFound", resource, name, message)
    }

    /// 404: nothing is served under this path.
    pub fn no_such_path() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource")
    }

    /// 405: the resource does not have this verb.
    pub fn method_not_allowed(method: &str, what: &str) -> Self {
        let message = format!("{method} is not supported on {what} by the embedded API");
        Self::new(405, "MethodNotAllowed", message)
    }

    /// 406: none of the wanted media types can be produced.
    pub fn not_acceptable(offered: &str) -> Self {
        let message = format!("only the following media types are accepted: {offered}");
        Self::new(406, "NotAcceptable", message)
    }

    /// 409: an object of this name is there already, or still.
    pub fn already_exists(resource: &Resource, name: &str, is_terminating: bool) -> Self {
        let still = if is_terminating { "object is being deleted: " } else { "" };
        let message = format!("{still}{} \"{name}\" already exists", resource.qualified());
        Self::about(409, "AlreadyExists", resource, name, message)
    }

    /// 409: a precondition of the request does not hold.
    pub fn conflict(resource: &Resource, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", resource.qualified());
        Self::about(409, "Conflict", resource, name, message)
    }

    /// 409: a precondition of a deletion does not hold. Upstream names the kind here, and not the resource.
    pub fn unmet(resource: &Resource, name: &str, why: &str) -> Self {
        let (kind, group) = (&resource.kind, &resource.group);
        let dot = if group.is_empty() { "" } else { "." };
        let message = format!("Operation cannot be fulfilled on {kind}{dot}{group} \"{name}\": {why}");
        let mut error = Self::about(409, "Conflict", resource, name, message);
        error.detail("kind", kind);
        error
    }

    /// 409: the resource version given is not the object's.
    pub fn modified(resource: &Resource, name: &str) -> Self {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(resource, name, why)
    }

    /// 409: other field managers own fields of an applied configuration.
    pub fn apply_conflict(message: String, causes: &[Cause]) -> Self {
        Self::new(409, "Conflict", message).with_causes(causes)
    }

    /// 410: the wanted resource version is no longer (or not yet) in the history.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 413: the body is larger than the server reads.
    pub fn too_large(limit: usize) -> Self {
        let message = format!("Request entity too large: limit is {limit}");
        Self::new(413, "RequestEntityTooLarge", message)
    }

    /// 415: the body is in a format that is not understood here.
    pub fn unsupported_media_type(accepted: &str) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {accepted}"
        );
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// 422: the object breaks rules; each cause names a field.
    pub fn invalid(resource: &Resource, name: &str, causes: &[Cause]) -> Self {
        Self::invalid_kind(&resource.kind, &resource.group, name, causes)
    }

    /// 422 for an object or an option set that is no stored resource.
    pub fn invalid_kind(kind: &str, group: &str, name: &str, causes: &[Cause]) -> Self {
        let dot = if group.is_empty() { "" } else { "." };
        let mut words: Vec<String> = Vec::new();
        for cause in causes {
            let line = format!("{}: {}", cause.field, cause.message);
            if !words.contains(&line) {
                words.push(line);
            }
        }
        let words = if words.len() == 1 { words.remove(0) } else { format!("[{}]", words.join(", ")) };
        let message = format!("{kind}{dot}{group} \"{name}\" is invalid: {words}");
        let mut error = Self::new(422, "Invalid", message);
        error.detail("name", name);
        error.detail("group", group);
        error.detail("kind", kind);
        error.with_causes(causes)
    }

    /// 422: a patch document that cannot be applied to the object. Like upstream it does not say why.
    pub fn unprocessable_patch() -> Self {
        let message = "the server rejected our request due to an error in our request";
        Self { details: Some(Map::new()), ..Self::new(422, "Invalid", message) }
    }

    /// 500: a failure of the server, not of the request.
    pub fn internal(message: impl std::fmt::Display) -> Self {
        Self::new(500, "InternalError", format!("Internal error occurred: {message}"))
    }

    /// 504: a resource version that this server has not reached.
    pub fn version_too_large(wanted: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {wanted}, current: {current}");
        let mut error = Self::new(504, "Timeout", message).with_causes(&[Cause {
            reason: "ResourceVersionTooLarge".to_owned(),
            message: "Too large resource version".to_owned(),
            field: String::new(),
        }]);
        error.details_mut().insert("retryAfterSeconds".to_owned(), json!(1));
        error
    }

    /// Adds causes to the details.
    pub fn with_causes(mut self, causes: &[Cause]) -> Self {
        let causes: Vec<Value> = causes.iter().map(Cause::to_value).collect();
        self.details_mut().insert("causes".to_owned(), Value::Array(causes));
        self
    }

    /// The same, with warnings of the request that failed.
    pub(crate) fn warned(self, warnings: Vec<String>) -> Self {
        Self { warnings, ..self }
    }

    /// Takes the warnings out.
    pub(crate) fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// The `Status` object as sent to the client.
    pub fn to_value(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "code": self.code,
        });
        if !self.reason.is_empty() {
            status["reason"] = self.reason.into();
        }
        if let Some(details) = &self.details {
            status["details"] = Value::Object(details.clone());
        }
        status
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({} {})", self.message, self.code, self.reason)
    }
}

impl std::error::Error for ApiError {}

impl Cause {
    /// A cause about one field.
    pub fn new(reason: &str, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { reason: reason.to_owned(), message: message.into(), field: field.into() }
    }

    /// A value that is not allowed.
    pub fn invalid_value(field: &str, value: &Value, detail: &str) -> Self {
        Self::new("FieldValueInvalid", field, format!("Invalid value: {value}: {detail}"))
    }

    /// A value that must be given.
    pub fn required(field: &str, detail: &str) -> Self {
        let colon = if detail.is_empty() { "" } else { ": " };
        Self::new("FieldValueRequired", field, format!("Required value{colon}{detail}"))
    }

    /// A value that must not be given.
    pub fn forbidden(field: &str, detail: &str) -> Self {
        Self::new("FieldValueForbidden", field, format!("Forbidden: {detail}"))
    }

    fn to_value(&self) -> Value {
        let mut cause = json!({ "reason": self.reason, "message": self.message });
        if !self.field.is_empty() {
            cause["field"] = self.field.clone().into();
        }
        cause
    }
}

/// The `Status` that answers a deletion which took place at once.
pub(crate) fn deleted(resource: &Resource, name: &str, uid: &str) -> Value {
    let mut details = json!({ "name": name, "kind": resource.plural, "uid": uid });
    if !resource.group.is_empty() {
        details["group"] = resource.group.clone().into();
    }
    json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": details,
    })
}
