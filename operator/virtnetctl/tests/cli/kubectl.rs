//! `kubectl`, as a user of a cluster knows it, against `virtnetctl local`.

use std::path::Path;
use std::process::Stdio;

use crate::support::{Local, Place, Run, device, eventually, sample};

#[test]
fn a_sample_is_applied_seen_changed_and_deleted() {
    let place = Place::new();
    let _local = place.start(&[]);
    let hotplug = sample("hotplug.yaml");

    assert_eq!(place.kubectl_ok(&["apply", "-f", &hotplug]), "virtnetdevice.virtnet.dev/web-0 created\n");
    let met = place.kubectl_ok(&["wait", "--for=condition=Ready", "virtnetdevice/web-0", "--timeout=60s"]);
    assert_eq!(met, "virtnetdevice.virtnet.dev/web-0 condition met\n");

    let table = place.kubectl_ok(&["get", "virtnetdevices"]);
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        rows[0],
        ["NAME", "DPU", "TYPE", "PF", "VF", "BDF", "MAC", "REP", "BRIDGE", "READY", "REASON", "AGE"]
    );
    assert_eq!(rows[1][..3], ["web-0", "dpu-0", "HotPlug"]);
    assert_eq!(rows[1][5..10], ["0c:c4:7a:ff:22:93", "en3f0pf0sf2000", "ovsbr1", "True", "Ready"]);
    let wide = place.kubectl_ok(&["get", "vnd", "-o", "wide"]);
    assert!(wide.contains("VUID") && wide.contains("VNETS1D0F0") && wide.contains("virtio-pci"), "{wide}");

    let described = place.kubectl_ok(&["describe", "vnd", "web-0"]);
    for part in [
        "Bridge:  ovsbr1",
        "Type:                  Ready",
        "Vuid:            VNETS1D0F0",
        "virtnet-agent  plug",
    ] {
        assert!(described.contains(part), "no {part:?} in:\n{described}");
    }
    let events = place.kubectl_ok(&["events", "--for", "virtnetdevice/web-0"]);
    assert!(events.contains("Plugged") && events.contains("VirtnetDevice/web-0"), "{events}");

    assert_eq!(place.kubectl_ok(&["diff", "-f", &hotplug]), "");
    assert_eq!(place.kubectl_ok(&["apply", "-f", &hotplug]), "virtnetdevice.virtnet.dev/web-0 unchanged\n");

    let tag = r#"{"spec":{"port":{"tag":7}}}"#;
    place.kubectl_ok(&["patch", "vnd", "web-0", "--type=merge", "-p", tag]);
    place.kubectl_ok(&["wait", "vnd/web-0", "--for=jsonpath={.status.port.tag}=7", "--timeout=60s"]);
    place.wait_ready(&["web-0"]);

    let mtu = r#"{"spec":{"mtu":9000}}"#;
    place.kubectl_ok(&["patch", "vnd", "web-0", "--type=merge", "-p", mtu]);
    place.kubectl_ok(&["wait", "vnd/web-0", "--for=condition=Ready=False", "--timeout=60s"]);
    let pending = place.kubectl_ok(&["get", "vnd", "web-0", "-o", "jsonpath={.status.pending.message}"]);
    assert!(pending.contains("/sys/bus/pci/drivers/virtio-pci/unbind"), "{pending}");
    let diff = place.kubectl(&["diff", "-f", &hotplug]);
    assert_eq!(diff.code, Some(1));
    assert!(diff.stdout.contains("-  mtu: 9000\n+  mtu: 1500"), "{}", diff.stdout);

    assert_eq!(
        place.kubectl_ok(&["delete", "-f", &hotplug]),
        "virtnetdevice.virtnet.dev \"web-0\" deleted\n"
    );
    let none = place.kubectl(&["get", "vnd"]);
    assert_eq!((none.code, none.stderr.as_str()), (Some(0), "No resources found in default namespace.\n"));
}

#[test]
fn server_side_apply_drops_fields_and_finds_conflicts() {
    let place = Place::new();
    let _local = place.start(&[]);
    let apply = |more: &[&str], text: &str| {
        place.kubectl_with(&[&["apply", "--server-side", "-f", "-"], more].concat(), text)
    };

    let applied = apply(&[], &device("a", "    tag: 100\n  mtu: 1400\n")).ok();
    assert_eq!(applied, "virtnetdevice.virtnet.dev/a serverside-applied\n");
    place.wait_ready(&["a"]);
    assert_eq!(
        place
            .kubectl_with(&["diff", "--server-side", "-f", "-"], &device("a", "    tag: 100\n  mtu: 1400\n"))
            .ok(),
        ""
    );
    apply(&[], &device("a", "  mtu: 1400\n")).ok();
    let spec = place.kubectl_ok(&["get", "vnd", "a", "-o", "jsonpath={.spec}"]);
    assert!(spec.contains(r#""mtu":1400"#) && !spec.contains("tag"), "{spec}");

    let refused = apply(&["--field-manager=other"], &device("a", "  mtu: 1300\n")).failed(1);
    assert!(refused.contains(r#"with "kubectl""#) && refused.contains(".spec.mtu"), "{refused}");
    apply(&["--field-manager=other", "--force-conflicts"], &device("a", "  mtu: 1300\n")).ok();
    let mtu = place.kubectl_ok(&["get", "vnd", "a", "-o", "jsonpath={.spec.mtu}"]);
    assert_eq!(mtu, "1300");
}

#[test]
fn what_is_not_allowed_is_refused_by_name() {
    let place = Place::new();
    let _local = place.start(&[]);
    place.kubectl_with(&["apply", "-f", "-"], &device("a", "")).ok();
    let patch = |patch: &str| place.kubectl(&["patch", "vnd", "a", "--type=merge", "-p", patch]).failed(1);

    let immutable = patch(r#"{"spec":{"function":{"hotplug":null,"static":{"pf":0}}}}"#);
    assert!(immutable.contains("function is immutable"), "{immutable}");
    let mtu = patch(r#"{"spec":{"mtu":70000}}"#);
    assert!(mtu.contains("spec.mtu in body should be less than or equal to 9978"), "{mtu}");
    let unknown = place.kubectl_with(&["apply", "-f", "-"], &device("b", "  colour: red\n")).failed(1);
    assert!(unknown.contains(r#"unknown field "spec.colour""#), "{unknown}");
    let absent = place.kubectl(&["get", "vnd", "nope"]).failed(1);
    assert_eq!(absent, "Error from server (NotFound): virtnetdevices.virtnet.dev \"nope\" not found\n");
}

#[test]
fn an_editor_changes_a_device() {
    let place = Place::new();
    let _local = place.start(&[]);
    place.kubectl_with(&["apply", "-f", "-"], &device("a", "    tag: 5\n")).ok();
    let mut edit = place.command(Path::new("kubectl"));
    edit.args(["edit", "vnd", "a"]).env("EDITOR", "sed -i s/tag:.5/tag:\\ 6/");
    let edited = Run::of(edit.output().unwrap()).ok();
    assert_eq!(edited, "virtnetdevice.virtnet.dev/a edited\n");
    place.kubectl_ok(&["wait", "vnd/a", "--for=jsonpath={.status.port.tag}=6", "--timeout=60s"]);
}

#[test]
fn a_watch_shows_a_device_become_ready_and_go() {
    let place = Place::new();
    let _local = place.start(&[]);
    let mut watch = place.command(Path::new("kubectl"));
    watch.args(["get", "vnd", "-w", "--output-watch-events"]).stdin(Stdio::null());
    let watch = Local::start(watch);
    place.kubectl_with(&["apply", "-f", "-"], &device("a", "")).ok();
    watch.wait_for_line("ADDED ");
    place.wait_ready(&["a"]);
    let ready = watch.wait_for_line(" True ");
    assert!(ready.starts_with("MODIFIED") && ready.contains("en3f0pf0sf2000"), "{ready}");
    place.kubectl_ok(&["delete", "vnd", "a"]);
    watch.wait_for_line("DELETED ");
}

#[test]
fn the_schema_is_explained() {
    let place = Place::new();
    let _local = place.start(&[]);
    let explained = place.kubectl_ok(&["explain", "virtnetdevice.spec.function"]);
    for part in
        ["FIELD: function <Object>", "immutable", "hotplug\t<Object>", "static\t<Object>", "vf\t<Object>"]
    {
        assert!(explained.contains(part), "no {part:?} in:\n{explained}");
    }
}

#[test]
fn a_set_is_scaled() {
    let place = Place::new();
    let _local = place.start(&[]);
    place.kubectl_ok(&["apply", "-f", &sample("set.yaml")]);
    let scaled = place.kubectl_ok(&["scale", "vnds/worker", "--replicas=5"]);
    assert_eq!(scaled, "virtnetdeviceset.virtnet.dev/worker scaled\n");
    let replicas = place.kubectl_ok(&["get", "vnds", "worker", "-o", "jsonpath={.spec.replicas}"]);
    assert_eq!(replicas, "5");
    place.kubectl_ok(&["delete", "vnds", "--all"]);
    eventually("the sets are gone", || place.kubectl_ok(&["get", "vnds", "-o", "name"]).is_empty());
}
