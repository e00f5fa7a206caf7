//! `virtnetctl local --manifests DIR`: a folder kept in step, faults and removals included.

use crate::support::{Place, device, eventually};

#[test]
fn a_broken_manifest_is_named_and_harms_no_other_and_mended_it_converges() {
    let place = Place::new();
    place.write("a.yaml", &device("a", ""));
    place.write("b.yaml", &device("b", "  mtu: 70000\n"));
    place.write("c.yaml", &device("c", ""));
    let local = place.start(&["--manifests", "manifests"]);

    let named = local.wait_for_line("b.yaml");
    let wanted = "manifests/b.yaml:11: spec.mtu: Invalid value: 70000: spec.mtu in body should be less than or \
                  equal to 9978";
    assert_eq!(named, format!("virtnetctl: {wanted}"));
    local.wait_for_line("manifests: 2 applied, 1 problem");
    place.wait_ready(&["a", "c"]);
    assert_eq!(place.devices(), ["a", "c"]);

    place.write("b.yaml", &device("b", "  mtu: 1400\n"));
    place.wait_ready(&["a", "b", "c"]);
    local.wait_for_line("manifests: 3 applied");
}

#[test]
fn a_file_that_breaks_keeps_what_it_declared() {
    let place = Place::new();
    place.write("a.yaml", &device("a", ""));
    let local = place.start(&["--manifests", "manifests"]);
    place.wait_ready(&["a"]);
    let uid = || place.kubectl_ok(&["get", "vnd", "a", "-o", "jsonpath={.metadata.uid}"]);
    let before = uid();

    place.write("a.yaml", "kind: [");
    local.wait_for_line("a.yaml:1: ");
    place.write("a.yaml", "");
    local.wait_for_line("a.yaml:1: is empty; to remove what it declared, delete the file");
    assert_eq!(uid(), before);
}

#[test]
fn a_file_removed_takes_its_objects_with_it_and_no_others() {
    let place = Place::new();
    place.write("a.yaml", &device("a", ""));
    place.write("b.yaml", &format!("{}---\n{}", device("b1", ""), device("b2", "")));
    let local = place.start(&["--manifests", "manifests"]);
    place.kubectl_with(&["apply", "-f", "-"], &device("by-hand", "")).ok();
    place.wait_ready(&["a", "b1", "b2", "by-hand"]);

    place.remove("b.yaml");
    local.wait_for_line("manifests: 1 applied, 2 removed");
    eventually("both are gone", || place.devices() == ["a", "by-hand"]);
}

#[test]
fn what_others_delete_or_change_comes_back() {
    let place = Place::new();
    place.write("a.yaml", &device("a", ""));
    let local = place.start(&["--manifests", "manifests"]);
    place.wait_ready(&["a"]);
    place.kubectl_ok(&["delete", "vnd", "a"]);
    place.wait_ready(&["a"]);

    // A value that somebody else has taken over is theirs: it is told, not fought over.
    let bridge = r#"{"spec":{"port":{"bridge":"ovsbr2"}}}"#;
    place.kubectl_ok(&["patch", "vnd", "a", "--type=merge", "-p", bridge]);
    let conflict = local.wait_for_line("conflict");
    assert!(conflict.contains("manifests/a.yaml:1: virtnetdevice.virtnet.dev/a: "), "{conflict}");
    assert!(conflict.contains(".spec.port") && conflict.contains("kubectl-patch"), "{conflict}");
}

#[test]
fn what_only_the_api_can_refuse_is_named_with_its_line_too() {
    let place = Place::new();
    place.write("a.yaml", &device("a", ""));
    let local = place.start(&["--manifests", "manifests"]);
    place.wait_ready(&["a"]);
    place.write("a.yaml", &device("a", "").replace("hotplug: {}", "static: {pf: 0}"));
    let refused = local.wait_for_line("immutable");
    assert!(refused.starts_with("virtnetctl: manifests/a.yaml:7: spec.function: "), "{refused}");
}

#[test]
fn namespaces_lists_and_several_objects_of_one_name_are_understood() {
    let place = Place::new();
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: tenant-a\n";
    let list = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: virtnet.dev/v1alpha1, kind: VirtnetDevice, \
                metadata: {name: l}, spec: {dpu: dpu-0, function: {hotplug: {}}}}\n";
    place.write("1.yaml", &device("a", "").replace("name: a", "name: a\n  namespace: tenant-a"));
    place.write("2.yaml", &format!("{namespace}---\n{}", device("b", "")));
    place.write("3.yaml", &device("b", "  mtu: 1400\n"));
    place.write("4.json", list);
    place.write(".5.yaml", &device("hidden", ""));
    let local = place.start(&["--manifests", "manifests"]);

    local.wait_for_line("manifests/3.yaml:1: virtnetdevice.virtnet.dev/b is in 2.yaml too; that one counts");
    place.wait_ready(&["b", "l"]);
    let there =
        place.kubectl_ok(&["wait", "-n", "tenant-a", "--for=condition=Ready", "vnd/a", "--timeout=60s"]);
    assert_eq!(there, "virtnetdevice.virtnet.dev/a condition met\n");
    assert_eq!(place.devices(), ["b", "l"]);
}
