//! What `manifests/monitoring` has: alerts that say what they are to, by Prometheus' own tool, and metrics that there are.

#![expect(clippy::unwrap_used, reason = "the helpers of tests panic to fail as the tests themselves do")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use prometheus_client::encoding::text::encode;
use regex::Regex;
use serde_json::Value;
use tempfile::TempDir;
use virtnet_crds::yaml;
use virtnet_tests::kubectl::Kubectl;
use virtnet_tests::manifests;

fn read(name: &str) -> String {
    std::fs::read_to_string(manifests::path("monitoring").join(name)).unwrap()
}

fn document(name: &str) -> Value {
    let text = read(name);
    let mut documents: Vec<_> =
        yaml::documents(&text).into_iter().map(|document| document.unwrap().value).collect();
    assert_eq!(documents.len(), 1, "{name}");
    documents.remove(0)
}

fn rules() -> Vec<Value> {
    let groups = document("rules.yaml")["spec"]["groups"].as_array().unwrap().clone();
    groups.into_iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

fn promtool(folder: &Path, arguments: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("prometheus/get.sh");
    let found = Command::new(script).output().unwrap();
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
    let promtool = String::from_utf8(found.stdout).unwrap();
    let output = Command::new(promtool.trim()).args(arguments).current_dir(folder).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).unwrap();
    assert!(output.status.success(), "promtool {arguments:?}\n{said}");
    said
}

#[test]
fn alerts_say_what_they_are_to() {
    let folder = TempDir::new().unwrap();
    // What Prometheus itself reads is the value of `spec`; JSON is YAML.
    let spec = document("rules.yaml")["spec"].to_string();
    std::fs::write(folder.path().join("rules.yaml"), spec).unwrap();
    std::fs::write(folder.path().join("rules.test.yaml"), read("rules.test.yaml")).unwrap();
    let checked = promtool(folder.path(), &["check", "rules", "rules.yaml"]);
    assert!(checked.contains(&format!("{} rules found", rules().len())), "{checked}");
    promtool(folder.path(), &["test", "rules", "rules.test.yaml"]);
}

#[test]
fn each_alert_is_seen_to_be_given_and_not_to_be() {
    let tests = document("rules.test.yaml")["tests"].clone();
    let cases: Vec<Value> = tests
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|test| test["alert_rule_test"].as_array().unwrap().clone())
        .collect();
    for rule in rules() {
        let name = &rule["alert"];
        let of_it = || cases.iter().filter(|case| case["alertname"] == *name);
        assert!(of_it().any(|case| !case["exp_alerts"].is_null()), "{name} is never given");
        assert!(of_it().any(|case| case["exp_alerts"].is_null()), "{name} is given always");
        assert!(rule["labels"]["severity"].is_string(), "{name}");
    }
}

/// The names under which operators and agents serve their metrics.
fn served() -> BTreeSet<String> {
    let agent = virtnet_agent::Metrics::default();
    // There when the first step is taken.
    drop(agent.steps.get_or_create(&virtnet_agent::StepLabels { step: "Plugged", result: "ok" }));
    let registries = [virtnet_operator::Metrics::default().probes().registry, agent.probes().registry];
    let mut names = BTreeSet::new();
    for registry in registries {
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, type_) = line.split_once(' ').unwrap();
            match type_ {
                "counter" => names.insert(format!("{name}_total")),
                "histogram" => names.insert(format!("{name}_bucket")),
                _ => names.insert(name.to_owned()),
            };
        }
    }
    names
}

#[test]
fn alerts_and_dashboard_ask_for_metrics_that_there_are() {
    let served = served();
    let name = Regex::new(r"virtnet_(operator|agent)_[a-z_]+").unwrap();
    let dashboard: Value = serde_json::from_str(&read("dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut asked: Vec<String> =
        rules().iter().map(|rule| rule["expr"].as_str().unwrap().to_owned()).collect();
    asked.extend(panels.iter().map(|panel| panel["targets"][0]["expr"].as_str().unwrap().to_owned()));
    assert!(asked.len() > 15, "{asked:#?}");
    for expression in &asked {
        let mut names = name.find_iter(expression).peekable();
        assert!(names.peek().is_some(), "{expression}");
        for name in names {
            assert!(
                served.contains(name.as_str()),
                "{} of {expression} is not among {served:#?}",
                name.as_str()
            );
        }
    }
}

#[test]
fn the_folder_can_be_applied_by_kustomize() {
    let folder = TempDir::new().unwrap();
    let kubectl = Kubectl::new(folder.path().join("no.kubeconfig"));
    let path = manifests::path("monitoring").display().to_string();
    let text = kubectl.run(&["kustomize", &path]).unwrap().ok().unwrap();
    let kinds: BTreeSet<String> = yaml::documents(&text)
        .into_iter()
        .map(|document| document.unwrap().value["kind"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), ["ConfigMap", "PodMonitor", "PrometheusRule"]);
}
