//! The verdicts on manifests that offline validation gives are a real API server's.

#![expect(clippy::unwrap_used, reason = "the helpers of tests panic to fail as the tests themselves do")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;
use virtnet_crds::yaml;
use virtnet_tests::control_plane::ControlPlane;
use virtnet_tests::differential::server::{Answer, Request, Server};

/// Verdicts that a client gives before it asks a server.
const OF_CLIENTS: [&str; 4] =
    ["api-version-unknown.yaml", "dpu-in-namespace.yaml", "kind-absent.yaml", "namespace.yaml"];

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds/tests/verdicts").join(folder);
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| !OF_CLIENTS.iter().any(|name| file.ends_with(name)));
    files.sort();
    assert!(files.len() > 20);
    files
}

fn request(method: &'static str, object: &Value, dry_run: bool) -> Request {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let place = match object["kind"].as_str() {
        Some("Dpu") => "dpus".to_owned(),
        Some(kind) => {
            let namespace = match text(&object["metadata"]["namespace"]) {
                namespace if namespace.is_empty() => "default".to_owned(),
                namespace => namespace,
            };
            format!("namespaces/{namespace}/{}s", kind.to_lowercase())
        }
        None => panic!("no kind: {object}"),
    };
    let name =
        if method == "PUT" { format!("/{}", text(&object["metadata"]["name"])) } else { String::new() };
    let mut query = BTreeMap::from([("fieldValidation".to_owned(), "Strict".to_owned())]);
    if dry_run {
        query.insert("dryRun".to_owned(), "All".to_owned());
    }
    Request {
        method,
        path: format!("/apis/virtnet.dev/v1alpha1/{place}{name}"),
        query,
        content: "application/json".to_owned(),
        accept: String::new(),
        body: object.to_string(),
    }
}

/// The sentences of a refusal, each with its field.
fn sentences(answer: &Answer) -> BTreeSet<String> {
    let body = &answer.bodies[0];
    let causes = body["details"]["causes"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let strict = text(&body["message"]);
    let strict = strict.split_once("strict decoding error: ").map(|(_, found)| found).unwrap_or_default();
    let strict = strict.split(", ").filter(|found| !found.is_empty()).map(str::to_owned);
    causes
        .iter()
        // It says that there may be more to say; and what a scale may be, the schema says too.
        .filter(|cause| cause["field"] != "<nil>" && cause["field"] != ".spec.replicas")
        .map(|cause| format!("{}: {}", text(&cause["field"]), text(&cause["message"])))
        .chain(strict)
        .collect()
}

#[tokio::test]
async fn a_real_api_server_refuses_and_accepts_the_same() {
    let plane = ControlPlane::shared().await.unwrap();
    plane.install_kinds().await.unwrap();
    let server = Server::new(plane.client().await.unwrap());
    let namespace = serde_json::json!({"metadata": {"name": "shop"}}).to_string();
    let made = Request {
        path: "/api/v1/namespaces".to_owned(),
        body: namespace,
        ..request("POST", &serde_json::json!({"kind": "Dpu"}), false)
    };
    assert_eq!(server.ask(&made).await.unwrap().code, 201);
    let mut failures = Vec::new();
    for (folder, refused) in [("refused", true), ("accepted", false)] {
        for file in files(folder) {
            let text = std::fs::read_to_string(&file).unwrap();
            let expected: BTreeSet<String> =
                text.lines().filter_map(|line| line.strip_prefix("# refused: ")).map(str::to_owned).collect();
            let Ok(documents) = yaml::documents(&text).into_iter().collect::<Result<Vec<_>, _>>() else {
                continue;
            };
            let objects: Vec<Value> = documents.into_iter().map(|document| document.value).collect();
            let is_update = matches!(objects.as_slice(), [old, new] if old["metadata"] == new["metadata"]);
            let mut answers = Vec::new();
            if is_update {
                let Some(answer) = update(&server, &objects).await else { continue };
                answers.push(answer);
            } else {
                for object in objects.iter().filter(|object| object["kind"].is_string()) {
                    answers.push(server.ask(&request("POST", object, true)).await.unwrap());
                }
            }
            let failed: Vec<&Answer> = answers.iter().filter(|answer| answer.code >= 400).collect();
            let told: BTreeSet<String> = failed.iter().flat_map(|answer| sentences(answer)).collect();
            if failed.is_empty() == refused || !told.is_subset(&expected) {
                let codes: Vec<u16> = answers.iter().map(|answer| answer.code).collect();
                failures.push(format!("{}: {codes:?} {told:#?} and not {expected:#?}", file.display()));
            }
        }
    }
    assert!(failures.is_empty(), "{} verdicts differ:\n{}", failures.len(), failures.join("\n"));
}

/// What comes of changing the first object, its status included, to the second.
async fn update(server: &Server, objects: &[Value]) -> Option<Answer> {
    let [old, new] = objects else { panic!("two objects") };
    let created = server.ask(&request("POST", old, false)).await.unwrap();
    if created.code != 201 {
        // An object from before its rules, as no server lets one in now.
        return None;
    }
    let mut version = created.bodies[0]["metadata"]["resourceVersion"].clone();
    if old.get("status").is_some() {
        let mut status = old.clone();
        status["metadata"]["resourceVersion"] = version.clone();
        let mut put = request("PUT", &status, false);
        put.path += "/status";
        let written = server.ask(&put).await.unwrap();
        assert_eq!(written.code, 200, "{written:?}");
        version = written.bodies[0]["metadata"]["resourceVersion"].clone();
    }
    let mut new = new.clone();
    new["metadata"]["resourceVersion"] = version;
    let answer = server.ask(&request("PUT", &new, true)).await.unwrap();
    let mut delete = request("DELETE", old, false);
    delete.path = request("PUT", old, false).path;
    delete.body = String::new();
    delete.query.clear();
    assert_eq!(server.ask(&delete).await.unwrap().code, 200);
    Some(answer)
}
