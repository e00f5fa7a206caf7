//! The manifests, put to a real kube-apiserver by kubectl, and the arguments in them, put to the programs.

#![expect(clippy::unwrap_used, reason = "the helpers of tests panic to fail as the tests themselves do")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;
use virtnet_crds::API_VERSION;
use virtnet_tests::control_plane::ControlPlane;
use virtnet_tests::kubectl::Kubectl;
use virtnet_tests::manifests::{self, OVERLAYS, only, overlay};
use virtnet_tests::programs::built;

/// Far longer than any of it takes, on a machine that is busy too.
const LIMIT: Duration = Duration::from_secs(60);

/// A kubectl that asks no server.
fn offline(folder: &TempDir) -> Kubectl {
    Kubectl::new(folder.path().join("no.kubeconfig"))
}

#[tokio::test]
async fn overlays_apply_without_a_warning_and_their_pods_are_admitted() {
    // A control plane of its own, since the overlays differ in what they say of the namespace.
    let plane = ControlPlane::start().await.unwrap();
    let kubectl = manifests::install(&plane).await.unwrap();
    // Not by what apply says: it finds the budget changed each time, since its selector is one that a patch replaces.
    kubectl.run(&["diff", "-k", &overlay("external")]).unwrap().ok().unwrap();

    for name in OVERLAYS {
        let objects = manifests::objects(&kubectl, name).unwrap();
        let namespace = only(&objects, "Namespace").unwrap();
        // In a dry run the namespace stays as it is, and with it what it warns of.
        kubectl.run_with(&["apply", "-f", "-"], &namespace.to_string()).unwrap().ok().unwrap();
        kubectl.run(&["apply", "-k", &overlay(name), "--dry-run=server"]).unwrap().ok().unwrap();
        let of_kinds = ["DaemonSet", "Deployment"].into_iter().filter_map(|kind| only(&objects, kind).ok());
        for workload in of_kinds {
            let pod = manifests::pod(workload, name, None).to_string();
            kubectl.run_with(&["create", "-f", "-"], &pod).unwrap().ok().unwrap();
            kubectl.run_with(&["delete", "-f", "-"], &pod).unwrap().ok().unwrap();
        }
    }
    let applied = kubectl.run(&["apply", "-k", &overlay("simulated")]).unwrap().ok().unwrap();
    assert!(applied.contains("daemonset.apps/virtnet-agent created"), "{applied}");
    kubectl.run(&["diff", "-k", &overlay("simulated")]).unwrap().ok().unwrap();

    // The namespace is strict again, which shows that it does refuse.
    let objects = manifests::objects(&kubectl, "bluefield").unwrap();
    let pod = manifests::pod(only(&objects, "DaemonSet").unwrap(), "too-free", None).to_string();
    let refused = kubectl.run_with(&["create", "-f", "-"], &pod).unwrap();
    assert_eq!(refused.code, Some(1), "{refused:#?}");
    assert!(refused.stderr.contains("violates PodSecurity \"restricted:latest\""), "{refused:#?}");
}

#[tokio::test]
async fn every_sample_is_taken_and_stored() {
    let plane = ControlPlane::shared().await.unwrap();
    let kubectl = manifests::install(&plane).await.unwrap();
    let mut samples: Vec<_> =
        manifests::path("samples").read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    samples.sort();
    assert!(samples.len() >= 7, "{samples:?}");
    for sample in samples {
        let file = sample.to_str().unwrap();
        let applied = kubectl.run(&["apply", "-f", file]).unwrap().ok().unwrap();
        let stored = kubectl.run(&["get", "-f", file, "-o", "name"]).unwrap().ok().unwrap();
        let names: Vec<_> = applied.lines().map(|line| line.trim_end_matches(" created")).collect();
        assert!(!names.is_empty() && names == stored.lines().collect::<Vec<_>>(), "{applied}{stored}");
        kubectl.run(&["delete", "-f", file]).unwrap().ok().unwrap();
    }
}

#[test]
fn no_rule_has_a_wildcard() {
    let folder = TempDir::new().unwrap();
    let mut kinds = BTreeSet::new();
    for name in OVERLAYS {
        for object in manifests::objects(&offline(&folder), name).unwrap() {
            let rules = match object["kind"].as_str().unwrap() {
                "ClusterRole" | "Role" => &object["rules"],
                "ValidatingAdmissionPolicy" => &object["spec"]["matchConstraints"]["resourceRules"],
                _ => continue,
            };
            for rule in rules.as_array().unwrap() {
                assert!(!rule.to_string().contains('*'), "{name}: {}: {rule}", object["metadata"]["name"]);
            }
            kinds.insert(object["kind"].to_string());
        }
    }
    assert_eq!(kinds.len(), 3, "{kinds:?}");
}

#[test]
fn the_images_have_the_version_of_the_programs() {
    let folder = TempDir::new().unwrap();
    let objects = manifests::objects(&offline(&folder), "simulated").unwrap();
    for (kind, program) in [("DaemonSet", "virtnet-agent"), ("Deployment", "virtnet-operator")] {
        let image = &container(only(&objects, kind).unwrap())["image"];
        assert_eq!(*image, format!("{program}:{}", env!("CARGO_PKG_VERSION")));
    }
}

#[test]
fn there_is_an_operator_wherever_one_is_installed_and_one_is_left_when_a_node_is_drained() {
    let folder = TempDir::new().unwrap();
    for name in OVERLAYS {
        let objects = manifests::objects(&offline(&folder), name).unwrap();
        let (deployment, budget) =
            (only(&objects, "Deployment").unwrap(), only(&objects, "PodDisruptionBudget").unwrap());
        assert_eq!(deployment["spec"]["replicas"], 2);
        assert_eq!(budget["spec"]["minAvailable"], 1);
        let labels = &deployment["spec"]["template"]["metadata"]["labels"];
        let selected = budget["spec"]["selector"]["matchLabels"].as_object().unwrap();
        assert!(!selected.is_empty() && selected.iter().all(|(key, value)| labels[key] == *value), "{name}");
    }
}

fn container(workload: &Value) -> &Value {
    &workload["spec"]["template"]["spec"]["containers"][0]
}

fn arguments(overlay: &str) -> Vec<String> {
    arguments_of("DaemonSet", overlay)
}

fn arguments_of(kind: &str, overlay: &str) -> Vec<String> {
    let folder = TempDir::new().unwrap();
    let objects = manifests::objects(&offline(&folder), overlay).unwrap();
    let arguments = &container(only(&objects, kind).unwrap())["args"];
    serde_json::from_value(arguments.clone()).unwrap()
}

async fn run(arguments: &[String], home: &Path) -> (Option<i32>, String) {
    run_program("virtnet-agent", arguments, home).await
}

/// Runs a program where there is no kubeconfig, and so to its end: its exit code, 2 where it doesn't know an argument, and
/// its last words.
async fn run_program(program: &str, arguments: &[String], home: &Path) -> (Option<i32>, String) {
    let output = Command::new(built(program).unwrap())
        .args(arguments)
        .env_clear()
        .env("VIRTNET_DPU", "bf3-a")
        .env("KUBECONFIG", home.join("no.kubeconfig"))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(LIMIT, output).await.expect("it goes on without a kubeconfig").unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test]
async fn the_agent_of_the_simulated_overlay_makes_a_device_ready() {
    let plane = ControlPlane::shared().await.unwrap();
    let kubectl = manifests::install(&plane).await.unwrap();
    let kubeconfig = plane.kubeconfig_of("virtnet:agent:bf3-s", "virtnet:agents").unwrap();
    let mut arguments = arguments("simulated");
    for argument in arguments.iter_mut().filter(|argument| argument.starts_with("--http=")) {
        *argument = "--http=127.0.0.1:0".to_owned();
    }
    let _agent = Command::new(built("virtnet-agent").unwrap())
        .args(arguments)
        .env_clear()
        .env("VIRTNET_DPU", "bf3-s")
        .env("KUBECONFIG", kubeconfig)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let device = json!({
        "apiVersion": API_VERSION, "kind": "VirtnetDevice", "metadata": {"name": "simulated"},
        "spec": {"dpu": "bf3-s", "function": {"hotplug": {}}, "port": {"bridge": "ovsbr1"}},
    });
    kubectl.run_with(&["create", "-f", "-"], &device.to_string()).unwrap().ok().unwrap();
    for wait in [
        "virtnetdevice/simulated --for=condition=Ready",
        "dpu/bf3-s --for=create",
        "dpu/bf3-s --for=condition=Ready",
    ] {
        let words: Vec<_> = ["wait", "--timeout=60s"].into_iter().chain(wait.split(' ')).collect();
        kubectl.run(&words).unwrap().ok().unwrap();
    }
    // It ends only where the agent lives and has removed all.
    kubectl.run(&["delete", "virtnetdevice", "simulated", "--timeout=60s"]).unwrap().ok().unwrap();
}

#[tokio::test]
async fn the_agent_takes_the_arguments_of_the_simulated_overlay() {
    let home = TempDir::new().unwrap();
    let (code, words) = run(&arguments("simulated"), home.path()).await;
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains("finding the API: "), "{words}");
}

#[tokio::test]
async fn the_operator_takes_the_arguments_of_its_deployment() {
    let home = TempDir::new().unwrap();
    let (code, words) =
        run_program("virtnet-operator", &arguments_of("Deployment", "external"), home.path()).await;
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains("finding the API: "), "{words}");
    let (code, words) = run_program("virtnet-operator", &["--log=nonsense=x".to_owned()], home.path()).await;
    assert!(code == Some(2) && words.contains("invalid value 'nonsense=x' for '--log"), "{words}");
}

#[tokio::test]
async fn the_agent_takes_the_arguments_of_the_systemd_unit() {
    let home = TempDir::new().unwrap();
    let unit = std::fs::read_to_string(manifests::path("systemd/virtnet-agent.service")).unwrap();
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let start = start.replace("${CREDENTIALS_DIRECTORY}", home.path().to_str().unwrap());
    let mut words = start.split_whitespace().map(str::to_owned);
    assert_eq!(words.next().unwrap(), "/usr/local/bin/virtnet-agent");
    let (code, words) = run(&words.collect::<Vec<_>>(), home.path()).await;
    assert_eq!(code, Some(1), "{words}");
    let sought = format!("reading the kubeconfig {}/kubeconfig", home.path().display());
    assert!(words.contains(&sought), "{words}");
}

#[tokio::test]
async fn the_service_takes_the_arguments_of_its_systemd_unit() {
    let home = TempDir::new().unwrap();
    let unit = std::fs::read_to_string(manifests::path("systemd/virtnetd.service")).unwrap();
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let mut words: Vec<_> = start.split_whitespace().map(str::to_owned).collect();
    assert_eq!(words.remove(0), "/usr/local/bin/virtnetd");
    words.push("--config=/nowhere/virtnet.conf".to_owned());
    let (code, told) = run_program("virtnetd", &words, home.path()).await;
    assert!(code == Some(1) && told.contains("reading /nowhere/virtnet.conf: No such file"), "{told}");
}

/// What the unit hides of /proc is hidden from this one too, in namespaces of its own.
#[tokio::test]
async fn the_service_starts_with_what_its_unit_shows_of_proc() {
    let home = TempDir::new().unwrap();
    let unit = std::fs::read_to_string(manifests::path("systemd/virtnetd.service")).unwrap();
    let said = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key));
    let mut options = Vec::from_iter(said("ProtectProc=").map(|who| format!("hidepid={who}")));
    options.extend(said("ProcSubset=").map(|what| format!("subset={what}")));
    let socket = home.path().join("virtnetd.sock");
    let mut service = Command::new("unshare")
        .args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c"])
        .arg(format!("mount -t proc -o {} proc /proc && exec \"$@\"", options.join(",")))
        .arg("sh")
        .arg(built("virtnetd").unwrap())
        .arg("--device=sim")
        .arg(format!("--recovery-dir={}", home.path().join("recovery").display()))
        .arg(format!("--socket={}", socket.display()))
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut log = BufReader::new(service.stderr.take().unwrap()).lines();
    let mut told = Vec::new();
    let serves = async {
        while let Some(line) = log.next_line().await.unwrap() {
            let serves = line.ends_with("ready");
            told.push(line);
            if serves {
                return true;
            }
        }
        false
    };
    assert!(timeout(LIMIT, serves).await.unwrap(), "{}", told.join("\n"));
    service.kill().await.unwrap();
}

/// A folder of a user who is there for a run alone is below one that only root may enter, where it is kept over a restart.
#[test]
fn who_has_the_group_of_the_service_may_enter_the_folder_of_its_socket() {
    let unit = std::fs::read_to_string(manifests::path("systemd/virtnetd.service")).unwrap();
    assert!(unit.contains("\nUser=virtnetd\n") && !unit.contains("\nDynamicUser=yes"), "{unit}");
    let users = std::fs::read_to_string(manifests::path("systemd/virtnetd.sysusers")).unwrap();
    assert!(users.contains("\nu virtnetd - "), "{users}");
}

/// It tells that it is started when it serves, and a person may have to mend what keeps it from that.
#[test]
fn the_service_is_given_the_time_that_it_takes_to_serve() {
    let unit = std::fs::read_to_string(manifests::path("systemd/virtnetd.service")).unwrap();
    assert!(unit.contains("\nType=notify\n") && unit.contains("\nTimeoutStartSec=infinity\n"), "{unit}");
}

/// As far as systemd says without running them: what a unit may do that it need not.
#[test]
fn the_units_are_sandboxed() {
    for unit in ["virtnetd.service", "virtnet-agent.service"] {
        let output = std::process::Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--threshold=25", "--no-pager"])
            .arg(manifests::path(&format!("systemd/{unit}")))
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{unit}: {told}{}", String::from_utf8_lossy(&output.stderr));
        assert!(told.contains("Overall exposure level"), "{told}");
    }
}

#[tokio::test]
async fn the_agent_takes_the_bluefield_overlay_but_for_its_controller() {
    let home = TempDir::new().unwrap();
    let all = arguments("bluefield");
    let (code, words) = run(&all, home.path()).await;
    assert!(
        code == Some(2) && words.contains("invalid value 'vendor:/usr/bin/virtnet' for '--controller"),
        "change what manifests/overlays/bluefield and docs/install.md say of the controller\n{words}"
    );
    let controller = |argument: &String| argument.starts_with("--controller=");
    let mut others: Vec<_> = all.into_iter().filter(|argument| !controller(argument)).collect();
    others.push("--controller=sim".to_owned());
    let (code, words) = run(&others, home.path()).await;
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains("finding the API: "), "{words}");
}
