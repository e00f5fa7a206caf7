//! The embedded API answers as a real kube-apiserver does: on the sequences of requests of `tests/differential`, and on random
//! ones. `VIRTNET_SEQUENCES=N` runs N random sequences; `VIRTNET_SEQUENCE=S` runs and prints the one of that seed.

#![expect(clippy::unwrap_used, reason = "the helpers of tests panic to fail as the tests themselves do")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use kube::Client;
use serde_json::Value;
use virtnet_embedded_api as embedded;
use virtnet_tests::control_plane::ControlPlane;
use virtnet_tests::differential::server::{Request, Server};
use virtnet_tests::differential::{Case, Step, Verb, random, run};

/// Both servers, with our kinds.
struct Both {
    _plane: Arc<ControlPlane>,
    _api: embedded::Api,
    real: Server,
    embedded: Server,
}

impl Both {
    async fn start() -> Self {
        let plane = ControlPlane::shared().await.unwrap();
        plane.install_kinds().await.unwrap();
        let disk = Arc::new(embedded::MemoryDisk::default());
        let api = embedded::Api::open(embedded::Config::new(virtnet_crds::crd::all(), disk)).await.unwrap();
        let embedded = Server::new(Client::new(api.service(), "default"));
        let real = Server::new(plane.client().await.unwrap());
        Self { _plane: plane, _api: api, real, embedded }
    }

    /// Runs a case in a namespace of its own; answers what differs.
    async fn run(&self, case: &Case, namespace: &str) -> Vec<String> {
        let made = Request {
            method: "POST",
            path: "/api/v1/namespaces".into(),
            query: [].into(),
            content: "application/json".into(),
            accept: String::new(),
            body: format!(
                r#"{{"apiVersion": "v1", "kind": "Namespace", "metadata": {{"name": "{namespace}"}}}}"#
            ),
        };
        for server in [&self.real, &self.embedded] {
            let answer = server.ask(&made).await.unwrap();
            assert_eq!(answer.code, 201, "{answer:?}");
        }
        let found = run(case, namespace, &self.real, &self.embedded).await.unwrap();
        found
            .iter()
            .filter(|difference| difference.claimed.is_none())
            .map(|difference| format!("{}: {difference}", case.rule))
            .collect()
    }
}

/// Requests of a random sequence.
const LENGTH: usize = 40;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
}

#[tokio::test]
async fn each_case_is_answered_alike() {
    let both = Both::start().await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("differential");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let (mut failures, mut claims) = (Vec::new(), BTreeSet::new());
    for file in &files {
        let text = std::fs::read_to_string(file).unwrap();
        let case: Case =
            serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        claims.extend(case.steps.iter().filter_map(|step| step.differs.clone()));
        let name = file.file_stem().unwrap().to_string_lossy();
        failures.extend(both.run(&case, &format!("case-{name}")).await);
    }
    assert!(failures.is_empty(), "{} answers differ:\n{}", failures.len(), failures.join("\n"));
    assert!(files.len() > 10, "only {} cases were found", files.len());
    assert_eq!(claims, listed(), "claimed by cases, and listed in the embedded API's page");
}

/// The rows of the page's table of differences.
fn listed() -> BTreeSet<String> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/embedded-api.md");
    let text = std::fs::read_to_string(page).unwrap();
    let section = text.split("\n## ").find(|section| section.starts_with("Where it differs")).unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    rows.map(|(row, _)| row.to_owned()).collect()
}

/// A case of the embedded API's own tests of server-side apply, of which only the requests count here.
#[derive(serde::Deserialize)]
struct Apply {
    rule: String,
    steps: Vec<Written>,
}

#[derive(serde::Deserialize)]
struct Written {
    write: Verb,
    manager: String,
    #[serde(default)]
    subresource: String,
    #[serde(default)]
    force: bool,
    body: Value,
}

impl From<Apply> for Case {
    fn from(apply: Apply) -> Self {
        let steps = apply.steps.into_iter().map(|step| {
            let mut query = BTreeMap::new();
            if step.force {
                query.insert("force".to_owned(), "true".to_owned());
            }
            let name = "web-0".to_owned();
            Step {
                sub: step.subresource,
                by: step.manager,
                query,
                body: step.body,
                ..Step::of(step.write, name)
            }
        });
        Self { rule: apply.rule, steps: steps.collect() }
    }
}

#[tokio::test]
async fn each_case_of_server_side_apply_is_answered_alike() {
    let both = Both::start().await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../operator/embedded-api/tests/apply");
    let mut failures = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let folder = entry.unwrap().path();
        let text = std::fs::read_to_string(folder.join("case.yaml")).unwrap();
        let case: Apply =
            serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        failures.extend(both.run(&case.into(), &format!("apply-{name}")).await);
    }
    assert!(failures.is_empty(), "{} answers differ:\n{}", failures.len(), failures.join("\n"));
}

#[tokio::test]
async fn random_sequences_are_answered_alike() {
    let both = Both::start().await;
    let seeds = match number("VIRTNET_SEQUENCE") {
        Some(seed) => seed..seed + 1,
        None => 0..number("VIRTNET_SEQUENCES").unwrap_or(60),
    };
    let mut failures = Vec::new();
    let alone = seeds.end - seeds.start == 1;
    for seed in seeds {
        for (index, step) in random::case(seed, LENGTH).steps.iter().enumerate().filter(|_| alone) {
            println!("{}: {}", index + 1, step.request("-"));
        }
        failures.extend(both.run(&random::case(seed, LENGTH), &format!("seed-{seed}")).await);
    }
    assert!(failures.is_empty(), "{} answers differ:\n{}", failures.len(), failures.join("\n"));
}
