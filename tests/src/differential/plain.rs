//! Answers without what no two servers have in common, and requests with it.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::server::{Answer, Request};

/// What one server's answers said so far.
#[derive(Debug, Default)]
pub struct Plain {
    /// Uids in the order of their first sight.
    uids: Vec<String>,
    /// The versions of each object in the order of their first sight, and what it was when it was first seen.
    versions: BTreeMap<String, (Vec<String>, Value)>,
    /// What placeholders stand for.
    known: BTreeMap<String, String>,
}

impl Plain {
    /// The request with this server's uids, versions and tokens.
    #[must_use]
    pub fn fill(&self, request: &Request) -> Request {
        let mut filled = request.clone();
        for (placeholder, value) in &self.known {
            filled.path = filled.path.replace(placeholder, value);
            filled.body = filled.body.replace(placeholder, value);
            for text in filled.query.values_mut() {
                *text = text.replace(placeholder, value);
            }
        }
        filled
    }

    /// The answer with uids and versions as ordinals, and without times and tokens.
    pub fn answer(&mut self, mut answer: Answer) -> Answer {
        for body in &mut answer.bodies {
            self.note(body);
            self.object(body);
            self.texts(body);
            causes(body);
            documents(body);
        }
        // Bookmarks tell progress when a server sees fit; the one that ends the initial events is marked.
        answer.bodies.retain(|body| {
            body["type"] != "BOOKMARK" || body["object"]["metadata"]["annotations"].is_object()
        });
        answer
    }

    /// Remembers what later requests refer to.
    fn note(&mut self, body: &Value) {
        let metadata = &body["metadata"];
        let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let is_list = body["items"].is_array() || body["rows"].is_array();
        if is_list {
            self.known.extend(text(&metadata["resourceVersion"]).map(|version| ("{list}".into(), version)));
            self.known.extend(text(&metadata["continue"]).map(|token| ("{continue}".into(), token)));
            for item in body["items"].as_array().into_iter().flatten() {
                self.note(item);
            }
        } else if let Some(name) = text(&metadata["name"]) {
            let version = text(&metadata["resourceVersion"]);
            self.known.extend(version.map(|version| (format!("{{version {name}}}"), version)));
            self.known.extend(text(&metadata["uid"]).map(|uid| (format!("{{uid {name}}}"), uid)));
        }
    }

    /// Makes the metadata plain of every object in a value.
    fn object(&mut self, value: &mut Value) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| self.object(item)),
            Value::Object(fields) => {
                let content = content(fields);
                if let Some(Value::Object(metadata)) = fields.get_mut("metadata") {
                    self.metadata(metadata, &content);
                }
                for (name, value) in fields {
                    if name != "metadata" {
                        self.object(value);
                    }
                }
            }
            _ => {}
        }
    }

    fn metadata(&mut self, metadata: &mut Map<String, Value>, content: &Value) {
        let uid = metadata.get("uid").and_then(Value::as_str).map(str::to_owned);
        if let Some(Value::String(version)) = metadata.get_mut("resourceVersion") {
            *version = match &uid {
                Some(uid) => self.version(uid, version, content),
                None => "a version".to_owned(),
            };
        }
        if let Some(uid) = &uid {
            metadata.insert("uid".into(), self.uid(uid).into());
        }
        for name in ["creationTimestamp", "deletionTimestamp", "continue"] {
            if let Some(Value::String(text)) = metadata.get_mut(name)
                && !text.is_empty()
            {
                *text = format!("some {name}");
            }
        }
        if let Some(prefix) = metadata.get("generateName").and_then(Value::as_str).map(str::to_owned)
            && let Some(Value::String(name)) = metadata.get_mut("name")
            && name.starts_with(&prefix)
        {
            *name = format!("{prefix}?");
        }
        if let Some(Value::Array(entries)) = metadata.get_mut("managedFields") {
            for entry in entries.iter_mut().filter(|entry| entry["time"].is_string()) {
                entry["time"] = "some time".into();
            }
            // They are in the order of their times.
            entries.sort_by_key(|entry| {
                ["operation", "manager", "subresource"].map(|field| entry[field].to_string())
            });
        }
    }

    fn uid(&mut self, uid: &str) -> String {
        let index = self.uids.iter().position(|known| known == uid).unwrap_or_else(|| {
            self.uids.push(uid.to_owned());
            self.uids.len() - 1
        });
        format!("uid {}", index + 1)
    }

    fn version(&mut self, uid: &str, version: &str, content: &Value) -> String {
        let (versions, first) =
            self.versions.entry(uid.to_owned()).or_insert_with(|| (Vec::new(), content.clone()));
        let index = versions.iter().position(|known| known == version).unwrap_or_else(|| {
            // kube-apiserver stores an object's default status with the first write after its creation, which so is a
            // new version where it changes nothing else.
            if versions.len() == 1 && content == first {
                version.clone_into(&mut versions[0]);
                return 0;
            }
            versions.push(version.to_owned());
            versions.len() - 1
        });
        format!("version {}", index + 1)
    }

    /// Uids and versions that are told in sentences, and ages in tables.
    fn texts(&mut self, value: &mut Value) {
        match value {
            Value::String(text) => {
                for index in 0..self.uids.len() {
                    *text = text.replace(&self.uids[index], &format!("uid {}", index + 1));
                }
                for version in self.versions.values().flat_map(|(versions, _)| versions) {
                    *text = text.replace(&format!(": {version},"), ": some version,");
                    *text = text.replace(&format!("({version})"), "(some version)");
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.texts(item)),
            Value::Object(fields) => fields.values_mut().for_each(|value| self.texts(value)),
            _ => {}
        }
    }
}

/// Causes have no order, and a server that checks metadata more than once tells each as often. The sentence around them
/// repeats them.
fn causes(body: &mut Value) {
    let Some(Value::Array(causes)) = body.pointer_mut("/details/causes") else { return };
    let of_patch = causes.iter().any(|cause| cause["field"] == "patch");
    for cause in causes.iter_mut().filter(|_| of_patch) {
        // It repeats the whole object, times and all.
        let why = cause["message"].as_str().and_then(|text| Some(text.rsplit_once("}\": ")?.1.to_owned()));
        cause["message"] = why.into();
    }
    causes.sort_by_key(Value::to_string);
    causes.dedup();
    let many = causes.len() > 1 || of_patch;
    if let Some(Value::String(message)) = body.get_mut("message").filter(|_| many)
        && let Some(end) = message.find(" is invalid: ")
    {
        message.truncate(end);
    }
}

/// An object without its version and the times of its managers.
fn content(fields: &Map<String, Value>) -> Value {
    let mut object = Value::Object(fields.clone());
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("resourceVersion");
        for entry in metadata.get_mut("managedFields").and_then(Value::as_array_mut).into_iter().flatten() {
            entry["time"] = Value::Null;
        }
    }
    object
}

/// Lists of resources and columns without order and without what only people read; ages, which pass.
fn documents(body: &mut Value) {
    if !body.is_object() {
        return;
    }
    for resource in body["resources"].as_array_mut().into_iter().flatten() {
        if let Some(Value::Array(verbs)) = resource.get_mut("verbs") {
            verbs.sort_by_key(Value::to_string);
        }
        if let Some(fields) = resource.as_object_mut() {
            fields.remove("storageVersionHash");
        }
    }
    if let Some(Value::Array(resources)) = body.get_mut("resources") {
        resources.sort_by_key(|resource| resource["name"].to_string());
    }
    let table = if body["object"]["kind"] == "Table" { &mut body["object"] } else { body };
    if table["kind"] != "Table" {
        return;
    }
    let columns = table["columnDefinitions"].as_array().cloned().unwrap_or_default();
    for row in table["rows"].as_array_mut().into_iter().flatten() {
        for (cell, column) in row["cells"].as_array_mut().into_iter().flatten().zip(&columns) {
            if column["type"] == "date" || column["name"] == "Age" {
                *cell = "some age".into();
            }
        }
    }
    for column in table["columnDefinitions"].as_array_mut().into_iter().flatten() {
        column["description"] = Value::Null;
    }
}
