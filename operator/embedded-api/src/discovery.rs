//! What is served, as clients ask for it before anything else.

use serde_json::{Value, json};

use crate::content;
use crate::registry::{Registry, Resource};
use crate::reply::Reply;

/// The upstream version whose behaviour is followed.
const VERSION: (&str, &str, &str) = ("1", "36", "v1.36.0+virtnet");

/// `GET /version`
pub(crate) fn version() -> Value {
    let (major, minor, git_version) = VERSION;
    json!({
        "major": major,
        "minor": minor,
        "gitVersion": git_version,
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    })
}

/// `GET /api`
pub(crate) fn core_versions() -> Value {
    json!({ "kind": "APIVersions", "apiVersion": "v1", "versions": ["v1"], "serverAddressByClientCIDRs": [] })
}

/// `GET /apis`
pub(crate) fn groups(registry: &Registry) -> Value {
    let versions = registry.versions();
    let groups: Vec<Value> = versions
        .iter()
        .filter(|(group, _)| !group.is_empty())
        .map(|(group, version)| group_of(group, version))
        .collect();
    json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
}

/// `GET /apis/GROUP`
pub(crate) fn group(registry: &Registry, group: &str) -> Value {
    let versions = registry.versions();
    let version = versions.iter().find(|(held, _)| *held == group).map_or("", |(_, version)| version);
    let mut value = group_of(group, version);
    value["kind"] = "APIGroup".into();
    value["apiVersion"] = "v1".into();
    value
}

fn group_of(group: &str, version: &str) -> Value {
    let version = json!({ "groupVersion": format!("{group}/{version}"), "version": version });
    json!({ "name": group, "versions": [version], "preferredVersion": version })
}

/// `GET /api/v1`, `GET /apis/GROUP/VERSION`
pub(crate) fn resources(registry: &Registry, group: &str, version: &str) -> Value {
    let mut list = Vec::new();
    let mut group_version = String::new();
    for resource in registry.iter().filter(|one| one.group == group && one.version == version) {
        group_version = resource.api_version();
        let mut main = json!({
            "name": resource.plural,
            "singularName": resource.singular,
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": resource.verbs(),
            "storageVersionHash": "",
        });
        if !resource.short_names.is_empty() {
            main["shortNames"] = json!(resource.short_names);
        }
        if !resource.categories.is_empty() {
            main["categories"] = json!(resource.categories);
        }
        list.push(main);
        for sub in subresources(resource) {
            let mut entry = json!({
                "name": format!("{}/{}", resource.plural, sub.name),
                "singularName": "",
                "namespaced": resource.namespaced,
                "kind": sub.kind,
                "verbs": ["get", "patch", "update"],
            });
            if let Some((group, version)) = sub.foreign {
                entry["group"] = group.into();
                entry["version"] = version.into();
            }
            list.push(entry);
        }
    }
    json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": list })
}

/// `GET /api` and `GET /apis` where the client takes all in one.
pub(crate) fn aggregated(registry: &Registry, core: bool) -> Reply {
    let groups: Vec<Value> = registry
        .versions()
        .into_iter()
        .filter(|(group, _)| group.is_empty() == core)
        .map(|(group, version)| {
            let resources: Vec<Value> = registry
                .iter()
                .filter(|one| one.group == group && one.version == version)
                .map(|resource| aggregated_resource(resource))
                .collect();
            json!({
                "metadata": if group.is_empty() { json!({}) } else { json!({ "name": group }) },
                "versions": [{ "version": version, "resources": resources, "freshness": "Current" }],
            })
        })
        .collect();
    let list = json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": groups,
    });
    Reply { media_type: content::DISCOVERY, ..Reply::ok(list) }
}

fn aggregated_resource(resource: &Resource) -> Value {
    let kind =
        |group: &str, version: &str, kind: &str| json!({ "group": group, "version": version, "kind": kind });
    let own = |name: &str| kind(&resource.group, &resource.version, name);
    let subresources: Vec<Value> = subresources(resource)
        .map(|sub| {
            let response = match sub.foreign {
                Some((group, version)) => kind(group, version, &sub.kind),
                None => own(&sub.kind),
            };
            json!({
                "subresource": sub.name,
                "responseKind": response,
                "verbs": ["get", "patch", "update"],
            })
        })
        .collect();
    let mut value = json!({
        "resource": resource.plural,
        "responseKind": own(&resource.kind),
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": resource.verbs(),
    });
    if !resource.short_names.is_empty() {
        value["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        value["categories"] = json!(resource.categories);
    }
    if !subresources.is_empty() {
        value["subresources"] = subresources.into();
    }
    value
}

struct Subresource {
    name: &'static str,
    kind: String,
    foreign: Option<(&'static str, &'static str)>,
}

fn subresources(resource: &Resource) -> impl Iterator<Item = Subresource> {
    let status =
        resource.status.then(|| Subresource { name: "status", kind: resource.kind.clone(), foreign: None });
    let scale = resource.scale.is_some().then(|| Subresource {
        name: "scale",
        kind: "Scale".to_owned(),
        foreign: Some(("autoscaling", "v1")),
    });
    status.into_iter().chain(scale)
}
