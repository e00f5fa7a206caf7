//! The embedded API held to a real kube-apiserver: the same requests to both, and the same answers expected.
//!
//! A [`Case`] is a sequence of requests in a namespace of its own. [`run`] puts them to both servers and tells each
//! answer that differs once what no two servers have in common (uids, versions, times) is made [`plain`].

pub mod plain;
pub mod random;
pub mod server;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use self::plain::Plain;
use self::server::{Answer, Request, Server};

/// A sequence of requests, as a file of `tests/differential` holds it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it is about.
    pub rule: String,
    /// The requests.
    pub steps: Vec<Step>,
}

/// What a request does.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// POST to the collection.
    Create,
    /// GET.
    Get,
    /// GET of the collection.
    List,
    /// GET of the collection's changes, for a second.
    Watch,
    /// PUT.
    Update,
    /// PATCH: server-side apply.
    Apply,
    /// PATCH: JSON merge patch.
    Merge,
    /// PATCH: JSON patch.
    Json,
    /// PATCH: strategic merge patch.
    Strategic,
    /// DELETE.
    Delete,
    /// DELETE of the collection.
    Deletecollection,
}

/// One request, and whether its answer may differ.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// What it does.
    pub verb: Verb,
    /// To what kind of object, as its plural.
    #[serde(default = "virtnetdevices")]
    pub of: String,
    /// The object's name; without one it is the collection.
    #[serde(default)]
    pub name: String,
    /// A subresource.
    #[serde(default)]
    pub sub: String,
    /// The whole path, where it follows no rule.
    #[serde(default)]
    pub path: Option<String>,
    /// The field manager.
    #[serde(default)]
    pub by: String,
    /// The query. `{version NAME}`, `{uid NAME}`, `{list}` and `{continue}` stand for what earlier answers said, here and in
    /// the body.
    #[serde(default)]
    pub query: BTreeMap<String, String>,
    /// The body; kind, version and name are filled in where an object has none.
    #[serde(default)]
    pub body: Value,
    /// A body that is sent as it is.
    #[serde(default)]
    pub text: Option<String>,
    /// What answers are accepted; JSON where it is empty.
    #[serde(default)]
    pub accept: String,
    /// The content type, where it doesn't follow from the verb.
    #[serde(default)]
    pub content: Option<String>,
    /// The answers differ here, as the embedded API's page tells under this heading.
    #[serde(default)]
    pub differs: Option<String>,
}

fn virtnetdevices() -> String {
    "virtnetdevices".into()
}

/// Group, kind and whether there are namespaces, of what requests are about.
fn kind_of(plural: &str) -> (&'static str, &'static str, bool) {
    match plural {
        "dpus" => ("virtnet.dev/v1alpha1", "Dpu", false),
        "virtnetdevicesets" => ("virtnet.dev/v1alpha1", "VirtnetDeviceSet", true),
        "leases" => ("coordination.k8s.io/v1", "Lease", true),
        "events" => ("v1", "Event", true),
        "namespaces" => ("v1", "Namespace", false),
        "customresourcedefinitions" => ("apiextensions.k8s.io/v1", "CustomResourceDefinition", false),
        _ => ("virtnet.dev/v1alpha1", "VirtnetDevice", true),
    }
}

impl Step {
    /// A request about a device with nothing but what is given.
    #[must_use]
    pub fn of(verb: Verb, name: String) -> Self {
        Self {
            verb,
            of: virtnetdevices(),
            name,
            sub: String::new(),
            path: None,
            by: String::new(),
            query: BTreeMap::new(),
            body: Value::Null,
            text: None,
            accept: String::new(),
            content: None,
            differs: None,
        }
    }

    /// The request that this is, in this namespace.
    pub fn request(&self, namespace: &str) -> Request {
        let (group, kind, namespaced) = kind_of(&self.of);
        let mut query = self.query.clone();
        if !self.by.is_empty() {
            query.insert("fieldManager".into(), self.by.clone());
        }
        let (method, content) = match self.verb {
            Verb::Create => ("POST", "application/json"),
            Verb::Get | Verb::List => ("GET", ""),
            Verb::Watch => {
                query.insert("watch".into(), "true".into());
                query.entry("timeoutSeconds".into()).or_insert_with(|| "1".into());
                ("GET", "")
            }
            Verb::Update => ("PUT", "application/json"),
            Verb::Apply => ("PATCH", "application/apply-patch+yaml"),
            Verb::Merge => ("PATCH", "application/merge-patch+json"),
            Verb::Json => ("PATCH", "application/json-patch+json"),
            Verb::Strategic => ("PATCH", "application/strategic-merge-patch+json"),
            Verb::Delete | Verb::Deletecollection => ("DELETE", "application/json"),
        };
        let mut body = self.body.clone();
        if let (Verb::Create | Verb::Update | Verb::Apply, Value::Object(fields)) = (self.verb, &mut body)
            && self.sub != "scale"
        {
            complete(fields, group, kind, &self.name);
        }
        let path = self.path.clone().unwrap_or_else(|| {
            let root = if group.contains('/') { "/apis/" } else { "/api/" };
            let place = if namespaced { format!("/namespaces/{namespace}") } else { String::new() };
            let at_object = !self.name.is_empty() && self.verb != Verb::Create;
            let name = if at_object { format!("/{}", self.name) } else { String::new() };
            let sub = if self.sub.is_empty() { String::new() } else { format!("/{}", self.sub) };
            format!("{root}{group}{place}/{}{name}{sub}", self.of)
        });
        Request {
            method,
            path: path.replace("{namespace}", namespace),
            query,
            content: self.content.clone().unwrap_or_else(|| content.to_owned()),
            accept: self.accept.clone(),
            body: match &self.text {
                Some(text) => text.clone(),
                None if body.is_null() => String::new(),
                None => body.to_string(),
            }
            .replace("{namespace}", namespace),
        }
    }
}

fn complete(fields: &mut Map<String, Value>, group: &str, kind: &str, name: &str) {
    fields.entry("apiVersion").or_insert_with(|| group.into());
    fields.entry("kind").or_insert_with(|| kind.into());
    if name.is_empty() {
        return;
    }
    if let Value::Object(metadata) = fields.entry("metadata").or_insert_with(|| json!({})) {
        metadata.entry("name").or_insert_with(|| name.into());
    }
}

/// An answer of one server that the other doesn't give.
#[derive(Clone, Debug)]
pub struct Difference {
    /// Which request, from 1 on.
    pub step: usize,
    /// The request in words.
    pub request: String,
    /// The heading that the case claims it under.
    pub claimed: Option<String>,
    /// What each says: a line for each place where they differ, the real server's first.
    pub lines: Vec<String>,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "step {}, {}:", self.step, self.request)?;
        self.lines.iter().try_for_each(|line| write!(f, "\n    {line}"))
    }
}

/// Puts a case to both servers, and tells where their answers differ. Claims that turn out untrue are told too.
///
/// # Errors
/// Where a server can't be asked.
pub async fn run(
    case: &Case,
    namespace: &str,
    real: &Server,
    embedded: &Server,
) -> anyhow::Result<Vec<Difference>> {
    let mut sides = [(real, Plain::default()), (embedded, Plain::default())];
    let mut differences = Vec::new();
    for (index, step) in case.steps.iter().enumerate() {
        let request = step.request(namespace);
        let mut answers: Vec<Answer> = Vec::new();
        for (server, plain) in &mut sides {
            let answer = server.ask(&plain.fill(&request)).await?;
            answers.push(plain.answer(answer));
        }
        let mut lines = compare(&answers[0], &answers[1]);
        if let (true, Some(claim)) = (lines.is_empty(), &step.differs) {
            lines.push(format!("claimed to differ ({claim}), and does not"));
        } else if step.differs.is_some() {
            lines.insert(0, "claimed".to_owned());
        }
        if !lines.is_empty() {
            let request = request.to_string();
            let claimed = step.differs.clone().filter(|_| lines[0] == "claimed");
            differences.push(Difference { step: index + 1, request, claimed, lines });
        }
    }
    Ok(differences)
}

fn compare(real: &Answer, embedded: &Answer) -> Vec<String> {
    let mut lines = Vec::new();
    if real.code != embedded.code {
        lines.push(format!("code: {} and not {}", real.code, embedded.code));
    }
    if real.warnings != embedded.warnings {
        lines.push(format!("warnings: {:?} and not {:?}", real.warnings, embedded.warnings));
    }
    if real.bodies.len() != embedded.bodies.len() {
        let brief = |bodies: &[Value]| bodies.iter().map(|body| body["type"].clone()).collect::<Vec<_>>();
        let (real, embedded) = (brief(&real.bodies), brief(&embedded.bodies));
        lines.push(format!("events: {real:?} and not {embedded:?}"));
        return lines;
    }
    for (real, embedded) in real.bodies.iter().zip(&embedded.bodies) {
        differing("", real, embedded, &mut lines);
    }
    lines
}

/// A line for each place where two values differ.
fn differing(path: &str, real: &Value, embedded: &Value, lines: &mut Vec<String>) {
    match (real, embedded) {
        (Value::Object(one), Value::Object(other)) => {
            let names: std::collections::BTreeSet<_> = one.keys().chain(other.keys()).collect();
            for name in names {
                match (one.get(name), other.get(name)) {
                    (Some(real), Some(embedded)) => {
                        differing(&format!("{path}.{name}"), real, embedded, lines);
                    }
                    (Some(real), None) => lines.push(format!("{path}.{name}: {real} is missing")),
                    (None, Some(embedded)) => lines.push(format!("{path}.{name}: {embedded} is too much")),
                    (None, None) => {}
                }
            }
        }
        // A cause says little without its siblings.
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() && !path.ends_with("causes") => {
            for (index, (real, embedded)) in one.iter().zip(other).enumerate() {
                differing(&format!("{path}[{index}]"), real, embedded, lines);
            }
        }
        (Value::String(one), Value::String(other)) if are_faults_of(one, other) => {}
        _ if real != embedded => lines.push(format!("{path}: {real} and not {embedded}")),
        _ => {}
    }
}

/// Whether both tell what can't be typed, and the real server no more than the other: it stops looking at the first unknown
/// field that it comes across, in no order.
fn are_faults_of(real: &str, embedded: &str) -> bool {
    const FAILURE: &str = "failed to create typed patch object";
    let faults = |text: &str| -> Option<(String, std::collections::BTreeSet<String>)> {
        let (object, faults) = text.strip_prefix(FAILURE)?.split_once("): ")?;
        let faults = faults.trim_start_matches("errors:\n").lines().map(|line| line.trim().to_owned());
        Some((object.to_owned(), faults.collect()))
    };
    match (faults(real), faults(embedded)) {
        (Some((of, real)), Some((object, embedded))) => of == object && real.is_subset(&embedded),
        _ => false,
    }
}
