//! A manifest: an object as a file declares it, and where in the API it belongs.

use std::rc::Rc;

use kube::Client;
use kube::api::{Api, DynamicObject};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::Value;
use virtnet_crds::yaml::{self, Document};

/// What a folder may declare, the contained before what contains it: the order of removal.
pub(crate) const KINDS: [&str; 4] = ["VirtnetDeviceSet", "VirtnetDevice", "Dpu", NAMESPACE];

const NAMESPACE: &str = "Namespace";

/// What names an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    /// Its kind, one of [`KINDS`].
    pub(crate) kind: String,
    /// Its namespace; `None` where the kind has none.
    pub(crate) namespace: Option<String>,
    /// Its name.
    pub(crate) name: String,
}

impl Key {
    fn of(object: &Value) -> Self {
        let kind = object["kind"].as_str().unwrap_or_default().to_owned();
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let namespaced = kind != "Dpu" && kind != NAMESPACE;
        let namespace =
            namespaced.then(|| object["metadata"]["namespace"].as_str().unwrap_or("default").to_owned());
        Self { kind, namespace, name }
    }

    /// The part of the API where the object is.
    pub(crate) fn api(&self, client: &Client) -> Api<DynamicObject> {
        let resource = resource(&self.kind);
        match &self.namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        }
    }

    /// Its name as kubectl prints it: `virtnetdevice.virtnet.dev/web-0`.
    pub(crate) fn shown(&self) -> String {
        let group = if self.kind == NAMESPACE { String::new() } else { format!(".{}", virtnet_crds::GROUP) };
        format!("{}{group}/{}", self.kind.to_lowercase(), self.name)
    }
}

/// The resource of one of [`KINDS`].
pub(crate) fn resource(kind: &str) -> ApiResource {
    let group = if kind == NAMESPACE { "" } else { virtnet_crds::GROUP };
    let version = if kind == NAMESPACE { "v1" } else { virtnet_crds::VERSION };
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

/// An object of a manifest.
pub(crate) struct Manifest {
    /// What names it.
    pub(crate) key: Key,
    /// All of it, with nothing added.
    pub(crate) object: Value,
    document: Rc<Document>,
    /// Where in the document it is; empty for all of it.
    path: String,
}

impl Manifest {
    /// The line of one of its fields; of an absent one, or of none, that of the object.
    pub(crate) fn line_of(&self, field: Option<&str>) -> usize {
        match (self.path.as_str(), field) {
            (path, None) => self.document.line_of(path),
            ("", Some(field)) => self.document.line_of(field),
            (path, Some(field)) => self.document.line_of(&format!("{path}.{field}")),
        }
    }
}

/// The objects of a text, those in lists too, or everything that is wrong with it as `FILE:LINE: message`.
pub(crate) fn parse(name: &str, text: &str) -> Result<Vec<Manifest>, Vec<String>> {
    let problems = virtnet_crds::validate::validate_yaml(name, text);
    if !problems.is_empty() {
        return Err(problems.iter().map(ToString::to_string).collect());
    }
    let mut manifests = Vec::new();
    for document in yaml::documents(text) {
        let document = document.map_err(|error| vec![format!("{name}:{}: {}", error.line, error.message)])?;
        let document = Rc::new(document);
        collect(&document, &document.value, "", &mut manifests);
    }
    Ok(manifests)
}

fn collect(document: &Rc<Document>, object: &Value, path: &str, manifests: &mut Vec<Manifest>) {
    if object["kind"] != "List" {
        let (document, path) = (Rc::clone(document), path.to_owned());
        manifests.push(Manifest { key: Key::of(object), object: object.clone(), document, path });
        return;
    }
    for (index, item) in object["items"].as_array().into_iter().flatten().enumerate() {
        let dot = if path.is_empty() { "" } else { "." };
        collect(document, item, &format!("{path}{dot}items[{index}]"), manifests);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Namespace
  metadata: {name: tenant-a}
- apiVersion: virtnet.dev/v1alpha1
  kind: VirtnetDevice
  metadata: {name: d, namespace: tenant-a}
  spec:
    dpu: dpu-0
    function: {hotplug: {}}
";

    #[test]
    fn lists_are_taken_apart_and_their_lines_kept() {
        let manifests = parse("list.yaml", LIST).unwrap();
        let names: Vec<_> = manifests.iter().map(|manifest| manifest.key.shown()).collect();
        assert_eq!(names, ["namespace/tenant-a", "virtnetdevice.virtnet.dev/d"]);
        assert_eq!(manifests[1].key.namespace.as_deref(), Some("tenant-a"));
        assert_eq!((manifests[1].line_of(Some("spec.function")), manifests[1].line_of(None)), (12, 7));
    }

    #[test]
    fn a_text_with_a_fault_has_no_objects() {
        let Err(problems) = parse("list.yaml", &LIST.replace("hotplug", "hotplugged")) else {
            panic!("a function of no kind was accepted");
        };
        assert!(problems[0].starts_with("list.yaml:12: "), "{problems:?}");
    }
}
