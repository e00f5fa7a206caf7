//! From a URL's path to what is asked for.

use std::sync::Arc;

use crate::registry::{Registry, Resource};
use crate::store::Key;

/// What a path names.
#[derive(Debug)]
pub(crate) enum Target {
    /// `/version`
    Version,
    /// `/healthz`, `/livez`, `/readyz`
    Health,
    /// `/api`
    CoreVersions,
    /// `/apis`
    Groups,
    /// `/apis/GROUP`
    Group(String),
    /// `/api/v1`, `/apis/GROUP/VERSION`
    Resources { group: String, version: String },
    /// `/openapi/v3`
    OpenApiIndex,
    /// `/openapi/v3/api/v1`, `/openapi/v3/apis/GROUP/VERSION`
    OpenApi { group: String, version: String },
    /// A review that is answered and not stored, such as `selfsubjectaccessreviews`.
    Review { kind: &'static str },
    /// A collection; the namespace is empty for cluster scope and for all namespaces.
    Collection { resource: Arc<Resource>, namespace: String },
    /// One object.
    Object { resource: Arc<Resource>, key: Key, part: Part },
}

/// Which side of an object is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Main,
    Status,
    Scale,
}

impl Part {
    /// The subresource's name; empty for the object itself.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Main => "",
            Self::Status => "status",
            Self::Scale => "scale",
        }
    }
}

/// Reads a path; `None` where nothing is served under it.
pub(crate) fn parse(registry: &Registry, path: &str) -> Option<Target> {
    let segments: Vec<String> =
        path.split('/').filter(|segment| !segment.is_empty()).map(decode).collect::<Option<_>>()?;
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let known = |group: &str, version: &str| registry.versions().contains(&(group, version));
    let target = match segments.as_slice() {
        ["version"] => Target::Version,
        ["healthz" | "livez" | "readyz"] => Target::Health,
        ["api"] => Target::CoreVersions,
        ["apis"] => Target::Groups,
        ["openapi", "v3"] => Target::OpenApiIndex,
        ["openapi", "v3", "api", version] if known("", version) => {
            Target::OpenApi { group: String::new(), version: (*version).to_owned() }
        }
        ["openapi", "v3", "apis", group, version] if known(group, version) => {
            Target::OpenApi { group: (*group).to_owned(), version: (*version).to_owned() }
        }
        ["apis", "authorization.k8s.io", "v1", "selfsubjectaccessreviews"] => {
            Target::Review { kind: "SelfSubjectAccessReview" }
        }
        ["apis", "authorization.k8s.io", "v1", "selfsubjectrulesreviews"] => {
            Target::Review { kind: "SelfSubjectRulesReview" }
        }
        ["apis", "authentication.k8s.io", "v1", "selfsubjectreviews"] => {
            Target::Review { kind: "SelfSubjectReview" }
        }
        ["api", version] if known("", version) => {
            Target::Resources { group: String::new(), version: (*version).to_owned() }
        }
        ["apis", group] if registry.iter().any(|one| one.group == *group) => {
            Target::Group((*group).to_owned())
        }
        ["apis", group, version] if known(group, version) => {
            Target::Resources { group: (*group).to_owned(), version: (*version).to_owned() }
        }
        ["api", version, rest @ ..] => return resource(registry, "", version, rest),
        ["apis", group, version, rest @ ..] => return resource(registry, group, version, rest),
        _ => return None,
    };
    Some(target)
}

fn resource(registry: &Registry, group: &str, version: &str, rest: &[&str]) -> Option<Target> {
    let find = |plural: &str| registry.find(group, version, plural).map(Arc::clone);
    if let ["namespaces", namespace, plural, rest @ ..] = rest
        && let Some(resource) = find(plural).filter(|resource| resource.namespaced)
    {
        return within(resource, namespace, rest);
    }
    let [plural, rest @ ..] = rest else { return None };
    let resource = find(plural)?;
    if resource.namespaced && !rest.is_empty() {
        return None;
    }
    within(resource, "", rest)
}

fn within(resource: Arc<Resource>, namespace: &str, rest: &[&str]) -> Option<Target> {
    let (name, part) = match rest {
        [] => return Some(Target::Collection { resource, namespace: namespace.to_owned() }),
        [name] => (name, Part::Main),
        [name, "status"] if resource.status => (name, Part::Status),
        [name, "scale"] if resource.scale.is_some() => (name, Part::Scale),
        _ => return None,
    };
    let key = Key {
        storage: Arc::clone(&resource.storage),
        namespace: namespace.to_owned(),
        name: (*name).to_owned(),
    };
    Some(Target::Object { resource, key, part })
}

/// Undoes percent-encoding; `None` where it is broken or yields no UTF-8.
pub(crate) fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?].map(|digit| char::from(digit).to_digit(16));
            let [Some(high), Some(low)] = digits else { return None };
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}
