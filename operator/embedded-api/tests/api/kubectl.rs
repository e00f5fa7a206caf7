//! The real `kubectl` drives the API unchanged.

use crate::support::{Kubectl, text};

const WEB: &str = "\
apiVersion: virtnet.dev/v1alpha1
kind: VirtnetDevice
metadata: {name: web-0, labels: {app: web}}
spec:
  dpu: bf3-a
  function: {hotplug: {uplink: p0}}
  mtu: 1500
  features: [CSUM]
  port: {bridge: ovsbr1}
";

const SET: &str = "\
apiVersion: virtnet.dev/v1alpha1
kind: VirtnetDeviceSet
metadata: {name: web}
spec:
  dpuSelector: {matchLabels: {rack: a}}
  replicas: 1
  template: {spec: {function: {hotplug: {}}}}
";

const READY: &str = r#"{"status":{"observedGeneration":1,"conditions":[{"type":"Ready","status":"True","reason":"InService","message":"in service","lastTransitionTime":"2026-01-01T00:00:00Z","observedGeneration":1}]}}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_side_apply_creates_changes_and_rests() {
    let kubectl = Kubectl::start().await;
    let file = kubectl.manifest("web.yaml", WEB);
    assert!(kubectl.ok(&["apply", "-f", &file]).await.contains("created"));
    assert!(kubectl.ok(&["apply", "-f", &file]).await.contains("unchanged"));
    assert_eq!(kubectl.ok(&["diff", "-f", &file]).await, "");

    let changed =
        kubectl.manifest("changed.yaml", &WEB.replace("1500", "9000").replace("  features: [CSUM]\n", ""));
    let difference = kubectl.output(&["diff", "-f", &changed]).await;
    assert_eq!(difference.status.code(), Some(1));
    assert!(text(&difference.stdout).contains("+  mtu: 9000"), "{}", text(&difference.stdout));
    assert!(kubectl.ok(&["apply", "-f", &changed]).await.contains("configured"));
    let spec = kubectl.ok(&["get", "vnd", "web-0", "-o", "jsonpath={.spec.mtu} {.spec.features}"]).await;
    assert_eq!(spec, "9000 ");
    assert_eq!(kubectl.ok(&["diff", "-f", &changed]).await, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_side_apply_merges_conflicts_and_removes_dropped_fields() {
    let kubectl = Kubectl::start().await;
    let file = kubectl.manifest("web.yaml", WEB);
    let apply = ["apply", "--server-side", "-f", &file];
    assert!(kubectl.ok(&apply).await.contains("serverside-applied"));
    let version = ["get", "vnd", "web-0", "-o", "jsonpath={.metadata.resourceVersion}"];
    let before = kubectl.ok(&version).await;
    kubectl.ok(&apply).await;
    assert_eq!(kubectl.ok(&version).await, before, "an identical apply changed the object");
    assert_eq!(kubectl.ok(&["diff", "--server-side", "-f", &file]).await, "");

    let other = kubectl.manifest(
        "other.yaml",
        "apiVersion: virtnet.dev/v1alpha1\nkind: VirtnetDevice\nmetadata: {name: web-0}\nspec: {mtu: 9000}\n",
    );
    let taking = ["apply", "--server-side", "--field-manager=other", "-f", &other];
    let refused = kubectl.fails(&taking).await;
    assert!(
        refused.contains("Apply failed with 1 conflict: conflict with \"kubectl\": .spec.mtu"),
        "{refused}"
    );
    kubectl.ok(&[&taking[..], &["--force-conflicts"]].concat()).await;

    // What is left out goes where nobody else has it, and stays where somebody has.
    let less = kubectl.manifest("less.yaml", &WEB.replace("  mtu: 1500\n  features: [CSUM]\n", ""));
    kubectl.ok(&["apply", "--server-side", "-f", &less]).await;
    let spec = kubectl.ok(&["get", "vnd", "web-0", "-o", "jsonpath={.spec.mtu}/{.spec.features}"]).await;
    assert_eq!(spec, "9000/");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_are_edited_by_every_kind_of_patch() {
    let kubectl = Kubectl::start().await;
    let file = kubectl.manifest("web.yaml", WEB);
    kubectl.ok(&["create", "-f", &file]).await;
    assert!(kubectl.fails(&["create", "-f", &file]).await.contains("already exists"));

    let mtu = ["get", "vnd", "web-0", "-o", "jsonpath={.spec.mtu}"];
    kubectl.ok(&["patch", "vnd", "web-0", "--type=merge", "-p", r#"{"spec":{"mtu":1600}}"#]).await;
    assert_eq!(kubectl.ok(&mtu).await, "1600");
    let replace =
        r#"[{"op":"test","path":"/spec/mtu","value":1600},{"op":"replace","path":"/spec/mtu","value":1700}]"#;
    kubectl.ok(&["patch", "vnd", "web-0", "--type=json", "-p", replace]).await;
    assert_eq!(kubectl.ok(&mtu).await, "1700");
    assert!(
        kubectl
            .fails(&["patch", "vnd", "web-0", "--type=json", "-p", replace])
            .await
            .contains("error in our request")
    );
    let strategic = kubectl.fails(&["patch", "vnd", "web-0", "-p", r#"{"spec":{"mtu":1}}"#]).await;
    assert!(strategic.contains("application/strategic-merge-patch+json is not supported"), "{strategic}");

    let mut edit = kubectl.command(&["edit", "vnd", "web-0"]);
    edit.env("KUBE_EDITOR", "sed -i s/1700/1800/");
    let edited = kubectl.output_of(edit).await;
    assert!(edited.status.success(), "{}", text(&edited.stderr));
    assert_eq!(kubectl.ok(&mtu).await, "1800");

    let held = kubectl.ok(&["get", "vnd", "web-0", "-o", "yaml"]).await;
    let held = kubectl.manifest("held.yaml", &held.replace("1800", "1900"));
    kubectl.ok(&["replace", "-f", &held]).await;
    assert_eq!(kubectl.ok(&mtu).await, "1900");
    assert!(kubectl.fails(&["replace", "-f", &held]).await.contains("the object has been modified"));

    kubectl.ok(&["label", "vnd", "web-0", "tier=front"]).await;
    kubectl.ok(&["annotate", "vnd", "web-0", "note=hello"]).await;
    assert!(
        kubectl.ok(&["get", "vnd", "-l", "tier=front,app in (web,db)", "-o", "name"]).await.contains("web-0")
    );
    assert_eq!(kubectl.ok(&["get", "vnd", "-l", "tier!=front", "-o", "name"]).await, "");
    kubectl.ok(&["label", "vnd", "web-0", "tier-"]).await;
    assert_eq!(kubectl.ok(&["get", "vnd", "-l", "tier", "-o", "name"]).await, "");
    assert_eq!(kubectl.ok(&["get", "vnd", "web-0", "-o", "jsonpath={.metadata.generation}"]).await, "5");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_refused_with_the_servers_words() {
    let kubectl = Kubectl::start().await;
    kubectl.ok(&["create", "-f", &kubectl.manifest("web.yaml", WEB)]).await;
    let unknown = kubectl.manifest("unknown.yaml", &WEB.replace("mtu:", "mtuu:"));
    let strictly = "strict decoding error: unknown field \"spec.mtuu\"";
    for (apply, words) in [
        (&["apply", "-f"][..], strictly),
        (&["apply", "--server-side", "-f"], ".spec.mtuu: field not declared in schema"),
        (&["create", "--dry-run=server", "-f"], strictly),
    ] {
        let refused = kubectl.fails(&[apply, &[&unknown]].concat()).await;
        assert!(refused.contains(words), "{apply:?}: {refused}");
    }
    let warned =
        kubectl.output(&["patch", "vnd", "web-0", "--type=merge", "-p", r#"{"spec":{"x":1}}"#]).await;
    assert!(text(&warned.stderr).contains("Warning: unknown field \"spec.x\""), "{}", text(&warned.stderr));
    for (patch, words) in [
        (r#"{"spec":{"mtu":10}}"#, "spec.mtu: Invalid value: 10: "),
        (r#"{"spec":{"function":{"hotplug":null,"static":{"pf":0}}}}"#, "function is immutable"),
        (r#"{"metadata":{"labels":{"a":"?"}}}"#, "metadata.labels: Invalid value: \"?\": a valid label"),
    ] {
        let refused = kubectl.fails(&["patch", "vnd", "web-0", "--type=merge", "-p", patch]).await;
        assert!(refused.contains("is invalid: ") && refused.contains(words), "{patch}: {refused}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn get_prints_tables_documents_and_changes() {
    let kubectl = Kubectl::start().await;
    let file = kubectl.manifest("web.yaml", WEB);
    kubectl.ok(&["apply", "-f", &file]).await;
    let mut watch =
        kubectl.command(&["get", "vnd", "-w", "-o", "custom-columns=N:.metadata.name,M:.spec.mtu"]);
    let mut watch = watch.spawn().expect("kubectl can't be run");
    let table = kubectl.ok(&["get", "vnd"]).await;
    let columns: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(
        columns,
        ["NAME", "DPU", "TYPE", "PF", "VF", "BDF", "MAC", "REP", "BRIDGE", "READY", "REASON", "AGE"]
    );
    let wide = kubectl.ok(&["get", "vnd", "-A", "-o", "wide"]).await;
    assert!(wide.starts_with("NAMESPACE") && wide.contains("VUID") && wide.contains("bf3-a"), "{wide}");

    kubectl.ok(&["patch", "vnd", "web-0", "--subresource=status", "--type=merge", "-p", READY]).await;
    let table = kubectl.ok(&["get", "virtnetdevice/web-0", "--no-headers"]).await;
    assert!(table.contains("True") && table.contains("InService"), "{table}");
    kubectl.ok(&["wait", "--for=condition=Ready", "virtnetdevice/web-0", "--timeout=20s"]).await;

    assert!(kubectl.ok(&["get", "vnd", "web-0", "-o", "json"]).await.contains("\"kind\": \"VirtnetDevice\""));
    assert!(
        kubectl
            .ok(&["get", "vnd", "--field-selector", "spec.dpu=bf3-a", "-o", "name"])
            .await
            .contains("web-0")
    );
    assert_eq!(kubectl.ok(&["get", "vnd", "--field-selector", "spec.dpu=other", "-o", "name"]).await, "");
    assert!(kubectl.ok(&["get", "virtnet", "-o", "name"]).await.contains("virtnetdevice.virtnet.dev/web-0"));
    assert!(kubectl.ok(&["get", "crd", "-o", "name"]).await.contains("virtnetdevices.virtnet.dev"));
    kubectl.ok(&["wait", "--for=condition=Established", "crd/dpus.virtnet.dev", "--timeout=20s"]).await;
    assert!(kubectl.fails(&["delete", "crd", "dpus.virtnet.dev"]).await.contains("not supported"));

    // The watch has printed the list once it has printed a change that came after it; then it may end.
    let lines = std::io::BufRead::lines(std::io::BufReader::new(watch.stdout.take().unwrap()));
    let (sender, mut printed) = tokio::sync::mpsc::unbounded_channel();
    let reader = tokio::task::spawn_blocking(move || {
        lines.map_while(Result::ok).for_each(|line| drop(sender.send(line)));
    });
    let mut mtu = 2000;
    let mut seen = String::new();
    while !seen.contains("2000") {
        mtu += 1;
        assert!(mtu < 2200, "the watch printed no change: {seen}");
        let patch = format!(r#"{{"spec":{{"mtu":{}}}}}"#, if mtu % 2 == 0 { 2000 } else { 1999 });
        kubectl.ok(&["patch", "vnd", "web-0", "--type=merge", "-p", &patch]).await;
        while let Ok(line) = printed.try_recv() {
            seen += &line;
        }
    }
    watch.kill().unwrap();
    watch.wait().unwrap();
    reader.await.unwrap();
    assert!(seen.contains("web-0"), "{seen}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn describe_explain_and_discovery_work() {
    let kubectl = Kubectl::start().await;
    kubectl.ok(&["apply", "-f", &kubectl.manifest("web.yaml", WEB)]).await;
    let uid = kubectl.ok(&["get", "vnd", "web-0", "-o", "jsonpath={.metadata.uid}"]).await;
    let event = format!(
        "apiVersion: events.k8s.io/v1\nkind: Event\nmetadata: {{name: plugged, namespace: default}}\n\
         regarding: {{apiVersion: virtnet.dev/v1alpha1, kind: VirtnetDevice, name: web-0, namespace: default, uid: {uid}}}\n\
         reason: Plugged\nnote: plugged as VNETS1D0F0\ntype: Normal\naction: Plug\nreportingController: virtnet-agent\n\
         reportingInstance: bf3-a\neventTime: \"2026-01-01T00:00:00.000000Z\"\n"
    );
    kubectl.ok(&["create", "-f", &kubectl.manifest("event.yaml", &event)]).await;
    let described = kubectl.ok(&["describe", "vnd", "web-0"]).await;
    assert!(described.contains("Mtu:") && described.contains("plugged as VNETS1D0F0"), "{described}");
    assert!(kubectl.ok(&["events", "--for", "virtnetdevice/web-0"]).await.contains("plugged as VNETS1D0F0"));
    assert!(kubectl.ok(&["get", "events"]).await.contains("virtnetdevice/web-0"));

    let explained = kubectl.ok(&["explain", "virtnetdevice.spec.mtu"]).await;
    assert!(explained.contains("FIELD: mtu <integer>") && explained.contains("68 to 9978"), "{explained}");
    assert!(kubectl.ok(&["explain", "vnd.metadata", "--recursive"]).await.contains("finalizers"));
    let resources = kubectl.ok(&["api-resources"]).await;
    for kind in [
        "Dpu",
        "VirtnetDevice",
        "VirtnetDeviceSet",
        "Namespace",
        "Lease",
        "Event",
        "CustomResourceDefinition",
    ] {
        assert!(resources.contains(kind), "{resources}");
    }
    assert!(kubectl.ok(&["api-versions"]).await.contains("virtnet.dev/v1alpha1"));
    assert!(kubectl.ok(&["version"]).await.contains("Server Version: v1.36"));
    assert_eq!(kubectl.ok(&["auth", "can-i", "create", "vnd"]).await, "yes\n");
    assert!(kubectl.ok(&["auth", "whoami"]).await.contains("virtnet:admin"));
    assert!(kubectl.fails(&["get", "pods"]).await.contains("doesn't have a resource type"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_is_scaled() {
    let kubectl = Kubectl::start().await;
    kubectl.ok(&["apply", "-f", &kubectl.manifest("set.yaml", SET)]).await;
    assert!(kubectl.ok(&["scale", "vnds", "web", "--replicas=3"]).await.contains("scaled"));
    assert_eq!(kubectl.ok(&["get", "vnds", "web", "-o", "jsonpath={.spec.replicas}"]).await, "3");
    let refused = kubectl.fails(&["scale", "vnds", "web", "--replicas=4", "--current-replicas=1"]).await;
    assert!(refused.contains("Expected replicas to be 1, was 3"), "{refused}");
    let patch =
        ["patch", "vnds", "web", "--subresource=scale", "--type=merge", "-p", r#"{"spec":{"replicas":5}}"#];
    kubectl.ok(&patch).await;
    assert_eq!(kubectl.ok(&["get", "vnds", "web", "-o", "jsonpath={.spec.replicas}"]).await, "5");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn namespaces_hold_objects_and_take_them_along() {
    let kubectl = Kubectl::start().await;
    let file = kubectl.manifest("web.yaml", WEB);
    let missing = kubectl.fails(&["apply", "-n", "team-a", "-f", &file]).await;
    assert!(missing.contains("namespaces \"team-a\" not found"), "{missing}");
    kubectl.ok(&["create", "namespace", "team-a"]).await;
    assert!(
        kubectl
            .ok(&["get", "ns", "-l", "kubernetes.io/metadata.name=team-a", "-o", "name"])
            .await
            .contains("team-a")
    );
    let manifest = "apiVersion: v1\nkind: Namespace\nmetadata: {name: team-b, labels: {a: b}}\n";
    let namespace = kubectl.manifest("namespace.yaml", manifest);
    kubectl.ok(&["apply", "-f", &namespace]).await;
    let relabelled = kubectl.manifest("namespace.yaml", &manifest.replace("a: b", "c: d"));
    kubectl.ok(&["apply", "-f", &relabelled]).await;
    let labels = kubectl.ok(&["get", "ns", "team-b", "-o", "jsonpath={.metadata.labels}"]).await;
    assert!(labels.contains(r#""c":"d""#) && !labels.contains(r#""a""#), "{labels}");

    kubectl.ok(&["apply", "-n", "team-a", "-f", &file]).await;
    kubectl.ok(&["delete", "namespace", "team-a", "--timeout=20s"]).await;
    assert_eq!(kubectl.ok(&["get", "vnd", "-A", "-o", "name"]).await, "");
    assert!(kubectl.fails(&["delete", "ns", "default"]).await.contains("may not be deleted"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletion_waits_for_finalizers() {
    let kubectl = Kubectl::start().await;
    let held = WEB.replace("name: web-0,", "name: web-0, finalizers: [virtnet.dev/function],");
    kubectl.ok(&["apply", "-f", &kubectl.manifest("held.yaml", &held)]).await;
    kubectl.ok(&["delete", "vnd", "web-0", "--wait=false"]).await;
    let meta = ["get", "vnd", "web-0", "-o", "jsonpath={.metadata.deletionTimestamp}/{.metadata.generation}"];
    let meta = kubectl.ok(&meta).await;
    assert!(meta.len() > 2 && meta.ends_with("/2"), "{meta}");
    let deleted = kubectl.ok(&["wait", "--for=delete", "vnd/web-0", "--timeout=20s"]);
    let release = r#"{"metadata":{"finalizers":null}}"#;
    let patch = ["patch", "vnd", "web-0", "--type=merge", "-p", release];
    let released = kubectl.ok(&patch);
    tokio::join!(deleted, released);
    assert!(kubectl.fails(&["get", "vnd", "web-0"]).await.contains("not found"));
    kubectl.ok(&["apply", "-f", &kubectl.manifest("web.yaml", WEB)]).await;
    assert!(kubectl.ok(&["delete", "vnd", "--all", "--timeout=20s"]).await.contains("web-0"));
}
