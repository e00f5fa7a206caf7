//! Checks of `metadata` as an API server makes them when an object is created.

use serde_json::{Map, Value};

use crate::schema::{FieldError, FieldErrorKind};

/// Longest name, in bytes.
const NAME_MAX: usize = 253;
/// Longest label, label value or name part of a key, in bytes.
const LABEL_MAX: usize = 63;
/// Bytes of all annotations together, keys and values.
const ANNOTATIONS_MAX: u64 = 256 * 1024;

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or \
     '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
     start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const KEY_PART: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
     alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
     '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or \
     '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex \
     used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

/// Where objects of a kind live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// In no namespace.
    Cluster,
    /// In a namespace.
    Namespaced,
}

/// What names of a kind may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// DNS subdomains, as of nearly all kinds.
    Subdomains,
    /// DNS labels, as of namespaces.
    Labels,
}

#[derive(Clone, Copy)]
enum Kind {
    Text,
    Integer,
    List,
    Strings,
}

/// Fields of `metadata` and what they hold.
const FIELDS: [(&str, Kind); 15] = [
    ("annotations", Kind::Strings),
    ("creationTimestamp", Kind::Text),
    ("deletionGracePeriodSeconds", Kind::Integer),
    ("deletionTimestamp", Kind::Text),
    ("finalizers", Kind::List),
    ("generateName", Kind::Text),
    ("generation", Kind::Integer),
    ("labels", Kind::Strings),
    ("managedFields", Kind::List),
    ("name", Kind::Text),
    ("namespace", Kind::Text),
    ("ownerReferences", Kind::List),
    ("resourceVersion", Kind::Text),
    ("selfLink", Kind::Text),
    ("uid", Kind::Text),
];

/// Paths of the fields of `metadata` that no object has, such as `metadata.lables`.
#[must_use]
pub fn unknown_fields(metadata: &Value) -> Vec<String> {
    let names = metadata.as_object().into_iter().flatten().map(|(name, _)| name);
    names
        .filter(|name| FIELDS.iter().all(|(known, _)| known != name))
        .map(|name| format!("metadata.{name}"))
        .collect()
}

/// Everything that is wrong with the metadata of a new object. A namespaced object may leave its namespace to the
/// client that sends it.
#[must_use]
pub fn validate(metadata: Option<&Value>, scope: Scope, names: Names) -> Vec<FieldError> {
    let empty = Map::new();
    let metadata = match metadata {
        None | Some(Value::Null) => &empty,
        Some(Value::Object(metadata)) => metadata,
        Some(other) => return vec![wrong_type("metadata", other, "an object")],
    };
    let mut errors = types(metadata);
    if !errors.is_empty() {
        return errors;
    }
    let text = |name: &str| metadata.get(name).and_then(Value::as_str).unwrap_or_default();
    given_names(text("name"), text("generateName"), names, &mut errors);
    namespace(text("namespace"), scope, &mut errors);
    for (key, value) in entries(metadata, "labels") {
        qualified_name("metadata.labels", key, key, &mut errors);
        label_value(value, &mut errors);
    }
    let mut size = 0;
    for (key, value) in entries(metadata, "annotations") {
        // The case of an annotation's key doesn't matter.
        qualified_name("metadata.annotations", key, &key.to_lowercase(), &mut errors);
        size += (key.len() + value.len()) as u64;
    }
    if size > ANNOTATIONS_MAX {
        errors.push(FieldError::too_long("metadata.annotations", ANNOTATIONS_MAX));
    }
    for finalizer in list(metadata, "finalizers").iter().filter_map(Value::as_str) {
        qualified_name("metadata.finalizers", finalizer, finalizer, &mut errors);
    }
    let owners = list(metadata, "ownerReferences");
    for owner in owners {
        owner_reference(owner, &mut errors);
    }
    let controllers = owners.iter().filter(|owner| owner["controller"] == true).count();
    if controllers > 1 {
        let detail = "Only one reference can have Controller set to true";
        errors.push(FieldError::invalid("metadata.ownerReferences", owners.into(), detail));
    }
    errors
}

fn types(metadata: &Map<String, Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (name, kind) in FIELDS {
        let path = format!("metadata.{name}");
        let Some(value) = metadata.get(name).filter(|value| !value.is_null()) else { continue };
        match (kind, value) {
            (Kind::Text, Value::String(_)) | (Kind::List, Value::Array(_)) => {}
            (Kind::Integer, value) if value.is_i64() => {}
            (Kind::Strings, Value::Object(entries)) => {
                let wrong = entries.iter().filter(|(_, value)| !value.is_string());
                errors.extend(
                    wrong.map(|(key, value)| wrong_type(&format!("{path}.{key}"), value, "a string")),
                );
            }
            (Kind::Text, other) => errors.push(wrong_type(&path, other, "a string")),
            (Kind::Integer, other) => errors.push(wrong_type(&path, other, "a whole number")),
            (Kind::List, other) => errors.push(wrong_type(&path, other, "a list")),
            (Kind::Strings, other) => errors.push(wrong_type(&path, other, "a map of strings")),
        }
    }
    errors
}

fn wrong_type(path: &str, value: &Value, wanted: &str) -> FieldError {
    FieldError::new(path, FieldErrorKind::TypeInvalid, value.clone(), format!("must be {wanted}"))
}

fn entries<'a>(metadata: &'a Map<String, Value>, field: &str) -> impl Iterator<Item = (&'a String, &'a str)> {
    let entries = metadata.get(field).and_then(Value::as_object).into_iter().flatten();
    entries.filter_map(|(key, value)| Some((key, value.as_str()?)))
}

fn list<'a>(metadata: &'a Map<String, Value>, field: &str) -> &'a [Value] {
    metadata.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn given_names(name: &str, generate_name: &str, rule: Names, errors: &mut Vec<FieldError>) {
    if !generate_name.is_empty() {
        // A dash at the end is followed by the generated part.
        let whole = match generate_name.strip_suffix('-') {
            Some(stem) if !stem.is_empty() => {
                format!("{}a", &stem[..stem.floor_char_boundary(stem.len() - 1)])
            }
            _ => generate_name.to_owned(),
        };
        object_name("metadata.generateName", generate_name, &whole, rule, errors);
    }
    if !name.is_empty() {
        object_name("metadata.name", name, name, rule, errors);
    } else if generate_name.is_empty() {
        errors.push(FieldError::required("metadata.name", "name or generateName is required"));
    }
}

fn namespace(namespace: &str, scope: Scope, errors: &mut Vec<FieldError>) {
    let path = "metadata.namespace";
    match scope {
        _ if namespace.is_empty() => {}
        Scope::Cluster => errors.push(FieldError::new(
            path,
            FieldErrorKind::Forbidden,
            namespace.into(),
            "not allowed on this type",
        )),
        Scope::Namespaced => object_name(path, namespace, namespace, Names::Labels, errors),
    }
}

fn owner_reference(owner: &Value, errors: &mut Vec<FieldError>) {
    let text = |field: &str| owner.get(field).and_then(Value::as_str).unwrap_or_default();
    let api_version = text("apiVersion");
    let version = match api_version.split_once('/') {
        Some((_, version)) if version.contains('/') => "",
        Some((_, version)) => version,
        None => api_version,
    };
    let mut complain = |field: &str, detail: &str| {
        let path = format!("metadata.ownerReferences.{field}");
        errors.push(FieldError::invalid(&path, text(field).into(), detail));
    };
    if version.is_empty() {
        complain("apiVersion", "version must not be empty");
    }
    for field in ["kind", "name", "uid"] {
        if text(field).is_empty() {
            complain(field, "must not be empty");
        }
    }
}

/// The name of a Dpu, as a command line has it. An empty one is none: devices that are bound to nothing would be its own.
///
/// # Errors
/// What a name may be, where no Dpu can have this one.
pub fn dpu_name(text: &str) -> Result<String, String> {
    let mut errors = Vec::new();
    object_name("name", text, text, Names::Subdomains, &mut errors);
    errors.pop().map_or_else(|| Ok(text.to_owned()), |error| Err(error.detail))
}

/// Reports `shown` where `checked` is no name of an object.
fn object_name(path: &str, shown: &str, checked: &str, rule: Names, errors: &mut Vec<FieldError>) {
    let (max, fits, words) = match rule {
        Names::Subdomains => (NAME_MAX, is_subdomain(checked), SUBDOMAIN),
        Names::Labels => (LABEL_MAX, is_label(checked), LABEL),
    };
    if checked.len() > max {
        errors.push(FieldError::invalid(path, shown.into(), name_too_long(max)));
    }
    if !fits {
        errors.push(FieldError::invalid(path, shown.into(), words));
    }
}

/// Reports `shown` where `checked` is no key: an optional prefix, which is a subdomain, a slash and a name.
fn qualified_name(path: &str, shown: &str, checked: &str, errors: &mut Vec<FieldError>) {
    let mut complain = |detail: String| errors.push(FieldError::invalid(path, shown.into(), detail));
    let (prefix, name) = match checked.split_once('/') {
        Some((_, name)) if name.contains('/') => {
            complain(format!(
                "a valid label key {KEY_PART} with an optional DNS subdomain prefix and '/' \
                 (e.g. 'example.com/MyName')"
            ));
            return;
        }
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, checked),
    };
    match prefix {
        Some("") => complain("prefix part must be non-empty".to_owned()),
        Some(prefix) if prefix.len() > NAME_MAX => complain(format!("prefix part {}", too_long(NAME_MAX))),
        Some(prefix) if !is_subdomain(prefix) => complain(format!("prefix part {SUBDOMAIN}")),
        _ => {}
    }
    if name.is_empty() {
        complain("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_MAX {
        complain(format!("name part {}", too_long(LABEL_MAX)));
    }
    if !is_key_part(name) {
        complain(format!("name part {KEY_PART}"));
    }
}

fn label_value(value: &str, errors: &mut Vec<FieldError>) {
    let path = "metadata.labels";
    if value.len() > LABEL_MAX {
        errors.push(FieldError::invalid(path, value.into(), too_long(LABEL_MAX)));
    }
    if !value.is_empty() && !is_key_part(value) {
        errors.push(FieldError::invalid(path, value.into(), LABEL_VALUE));
    }
}

/// The server counts bytes here too, though it says characters.
fn name_too_long(max: usize) -> String {
    format!("must be no more than {max} characters")
}

fn too_long(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    is_word(text, inner, |byte| byte == b'-')
}

fn is_key_part(text: &str) -> bool {
    is_word(text, |byte| byte.is_ascii_alphanumeric(), |byte| matches!(byte, b'-' | b'_' | b'.'))
}

/// Whether all characters are `inner` ones, or between two such `joining` ones.
fn is_word(text: &str, inner: impl Fn(u8) -> bool, joining: impl Fn(u8) -> bool) -> bool {
    match text.as_bytes() {
        [] => false,
        [first, .., last] if !(inner(*first) && inner(*last)) => false,
        [only] => inner(*only),
        all => all.iter().all(|byte| inner(*byte) || joining(*byte)),
    }
}
