//! Those who wait for statuses: kstatus's own library, Flux's copy of it and Argo CD's health check, in Go.

use std::process::Command;

use tempfile::TempDir;
use virtnet_crds::yaml;
use virtnet_tests::kubectl::Kubectl;
use virtnet_tests::manifests;

use crate::fields::GITOPS;
use crate::recording::path;

#[test]
fn those_who_wait_for_statuses_judge_every_phase_as_a_person_does() {
    let output = Command::new(path("judge.sh")).output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success(), "{said}");
}

#[test]
fn argo_cd_is_given_the_health_check_that_was_judged_by() {
    let folder = TempDir::new().unwrap();
    let kubectl = Kubectl::new(folder.path().join("no.kubeconfig"));
    let made =
        kubectl.run(&["kustomize", &manifests::path("argocd").display().to_string()]).unwrap().ok().unwrap();
    let settings = yaml::documents(&made).remove(0).unwrap().value;
    let check = std::fs::read_to_string(manifests::path("argocd/health.lua")).unwrap();
    for kind in ["VirtnetDevice", "VirtnetDeviceSet", "Dpu"] {
        assert_eq!(settings["data"][format!("resource.customizations.health.virtnet.dev_{kind}")], check);
    }
    let metadata = &settings["metadata"];
    assert_eq!((&metadata["name"], &metadata["namespace"]), (&"argocd-cm".into(), &"argocd".into()));
    // Argo CD looks at no ConfigMap without it.
    assert_eq!(metadata["labels"]["app.kubernetes.io/part-of"], "argocd");
}

#[test]
fn the_page_on_gitops_names_what_there_is() {
    let docs = manifests::path("../docs");
    let page = std::fs::read_to_string(docs.join("gitops.md")).unwrap();
    let links: Vec<&str> =
        page.split("](").skip(1).map(|rest| rest.split([')', '#']).next().unwrap()).collect();
    for file in links.iter().filter(|link| !link.starts_with("https:")) {
        assert!(docs.join(file).exists(), "{file}");
    }
    assert!(links.contains(&"../manifests/argocd/health.lua"), "{links:?}");
    for manager in GITOPS {
        assert!(page.contains(manager), "{manager}");
    }
    // Its manifests are YAML, by the lines that begin with four spaces.
    let code: Vec<String> =
        page.lines().map(|line| line.strip_prefix("    ").unwrap_or("---").to_owned()).collect();
    let kinds: Vec<String> = yaml::documents(&code.join("\n"))
        .into_iter()
        .filter_map(|document| Some(document.ok()?.value["kind"].as_str()?.to_owned()))
        .collect();
    for (kind, count) in [("Kustomization", 3), ("Application", 1), ("HorizontalPodAutoscaler", 1)] {
        assert_eq!(kinds.iter().filter(|found| *found == kind).count(), count, "{kind} in {kinds:?}");
    }
}
