//! `validate`, `get`, `demo`, the help, and the plugin of kubectl.

use crate::support::{self, Place, Run, binary, device, sample};

/// A table's cells, ages apart, which pass between two looks.
fn cells(table: &str) -> Vec<String> {
    let age = regex::Regex::new(r" (\d+[dhms])+\b *").expect("a pattern of ages");
    table.lines().map(|line| age.replace(line, " AGE ").into_owned()).collect()
}

#[test]
fn validate_accepts_what_the_api_accepts() {
    let place = Place::new();
    let samples = ["dpu", "hotplug", "selector", "set", "static-pf", "transitional", "vf", "vlans"];
    let files: Vec<String> = samples.iter().map(|name| sample(&format!("{name}.yaml"))).collect();
    let arguments: Vec<&str> = std::iter::once("validate").chain(files.iter().map(String::as_str)).collect();
    assert_eq!(place.virtnetctl(&arguments).ok(), "");
}

#[test]
fn validate_names_file_line_and_fault() {
    let place = Place::new();
    place.write("good.yaml", &device("good", ""));
    place.write("bad.yaml", &device("bad", "  mtu: 70000\n  colour: red\n"));
    let run = place.virtnetctl(&["validate", "manifests/good.yaml", "manifests/bad.yaml"]);
    assert_eq!(run.code, Some(1));
    assert_eq!(
        run.stdout.lines().collect::<Vec<_>>(),
        [
            "manifests/bad.yaml:11: spec.mtu: Invalid value: 70000: spec.mtu in body should be less than or equal \
             to 9978",
            "manifests/bad.yaml:12: unknown field \"spec.colour\"",
        ]
    );
    let absent = place.virtnetctl(&["validate", "absent.yaml"]).failed(1);
    assert!(absent.starts_with("virtnetctl: reading absent.yaml: No such file"), "{absent}");
}

#[test]
fn validate_reads_standard_input() {
    let place = Place::new();
    let validate = |text: &str| {
        std::fs::write(place.path("input"), text).unwrap();
        let input = std::fs::File::open(place.path("input")).unwrap();
        Run::of(place.command(binary()).args(["validate", "-"]).stdin(input).output().unwrap())
    };
    assert_eq!(validate(&device("good", "")).ok(), "");
    let run = validate(&device("bad", "  mtu: 1\n"));
    assert_eq!(run.code, Some(1));
    assert!(run.stdout.starts_with("<stdin>:11: spec.mtu: "), "{run:?}");
}

#[test]
fn get_prints_the_tables_of_kubectl() {
    let place = Place::new();
    let _local = place.start(&[]);
    place.kubectl_ok(&["apply", "-f", &sample("hotplug.yaml"), "-f", &sample("vlans.yaml")]);
    place.kubectl_ok(&["apply", "-f", &sample("set.yaml"), "-f", &sample("static-pf.yaml")]);
    place.kubectl_with(&["apply", "-f", "-"], &device("waits", "  msix: 999\n")).ok();
    place.wait_ready(&["web-0", "access", "trunk", "storage"]);
    place.kubectl_ok(&["wait", "vnd/waits", "--for=condition=Stalled", "--timeout=60s"]);

    let cases: [(&[&str], &[&str]); 7] = [
        (&["get"], &["get", "virtnetdevices"]),
        (&["get", "devices", "-o", "wide"], &["get", "vnd", "-o", "wide"]),
        (&["get", "devices", "web-0"], &["get", "vnd", "web-0"]),
        (&["get", "-A"], &["get", "vnd", "-A"]),
        (&["get", "sets"], &["get", "vnds"]),
        (&["get", "dpus"], &["get", "dpus"]),
        (&["get", "dpus", "-A", "-o", "wide"], &["get", "dpus", "-A", "-o", "wide"]),
    ];
    for (ours, theirs) in cases {
        // What a table tells of may change between two looks at it.
        support::eventually("a table that stays", || {
            let theirs = || cells(&place.kubectl_ok(theirs));
            let (before, ours, after) = (theirs(), cells(&place.virtnetctl(ours).ok()), theirs());
            assert!(before.len() > 1, "{before:?}");
            if before == after {
                assert_eq!(ours, before);
            }
            before == after
        });
    }
    let nothing = place.virtnetctl(&["get", "-n", "kube-system"]);
    let theirs = place.kubectl(&["get", "vnd", "-n", "kube-system"]);
    assert_eq!((nothing.code, nothing.stdout, nothing.stderr), (theirs.code, theirs.stdout, theirs.stderr));
}

#[test]
fn get_prints_objects_as_json_and_yaml() {
    let place = Place::new();
    let _local = place.start(&[]);
    place.kubectl_with(&["apply", "-f", "-"], &device("a", "")).ok();
    place.wait_ready(&["a"]);
    let kubectl: serde_json::Value =
        serde_json::from_str(&place.kubectl_ok(&["get", "vnd", "a", "-o", "json"])).unwrap();
    let json = place.virtnetctl(&["get", "vnd", "a", "-o", "json"]).ok();
    let yaml = place.virtnetctl(&["get", "vnd", "a", "-o", "yaml"]).ok();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap(), kubectl);
    assert_eq!(serde_saphyr::from_str::<serde_json::Value>(&yaml).unwrap(), kubectl);
    let list = place.virtnetctl(&["get", "-o", "json"]).ok();
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    assert_eq!(list["items"][0], kubectl);
}

#[test]
fn what_can_not_be_written_is_an_error_but_a_reader_that_has_gone_is_none() {
    let place = Place::new();
    let _local = place.start(&[]);
    let get = |output: std::process::Stdio| {
        let mut get = place.command(binary());
        Run::of(get.args(["get", "dpus", "-o", "yaml"]).stdout(output).output().unwrap())
    };
    let full = get(std::fs::File::create("/dev/full").unwrap().into()).failed(1);
    assert_eq!(full, "virtnetctl: writing to standard output: No space left on device (os error 28)\n");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let gone = get(writer.into());
    assert_eq!((gone.code, gone.stderr.as_str()), (Some(0), ""));
}

#[test]
fn get_says_what_is_wrong_in_one_line() {
    let place = Place::new();
    let nowhere = place.command(binary()).arg("get").env_remove("KUBECONFIG").output().unwrap();
    let nowhere = Run::of(nowhere).failed(1);
    assert!(nowhere.contains("start one with virtnetctl local"), "{nowhere}");
    let gone = place.virtnetctl(&["get", "--kubeconfig", "gone"]).failed(1);
    assert!(gone.contains("reading the kubeconfig gone"), "{gone}");

    let _local = place.start(&[]);
    let absent = place.virtnetctl(&["get", "vnd", "nope"]).failed(1);
    assert!(absent.ends_with(": virtnetdevices.virtnet.dev \"nope\" not found\n"), "{absent}");
    for message in [&nowhere, &gone, &absent] {
        assert_eq!(message.lines().count(), 1, "{message}");
    }
    place.virtnetctl(&["get", "pods"]).failed(2);
    place.virtnetctl(&["get", "vnd", "a", "-A"]).failed(2);
}

#[test]
fn get_finds_the_local_machine_by_itself() {
    let place = Place::new();
    let mut local = place.command(binary());
    local.args(["local", "--switch=sim"]);
    let local = support::Local::start(local);
    local.wait_for_line("export KUBECONFIG=");
    support::eventually("the DPU is shown", || {
        let get = place.command(binary()).args(["get", "dpus"]).env_remove("KUBECONFIG").output().unwrap();
        Run::of(get).ok().contains("dpu-0")
    });
}

#[test]
fn the_demo_shows_both_repairs() {
    let place = Place::new();
    let run = place.virtnetctl(&["demo", "--switch=sim"]);
    let printed = run.ok();
    let mut rest = printed.as_str();
    let story = [
        "SIMULATED",
        "virtnetdevice.virtnet.dev/web-0 serverside-applied",
        "becoming Ready: 6/6",
        "$ kubectl get virtnetdevices\nNAME ",
        "Someone deletes the OVS port en3f0pf0sf",
        "The agent has put it back.",
        "The host loses power.",
        "  default/web-0: HostOff: the host is off",
        "It comes back by a cold boot",
        "All of it is back, as declared.",
        "$ kubectl get virtnetdevices\nNAME ",
        "web-0 ",
    ];
    for part in story {
        let Some((_, after)) = rest.split_once(part) else {
            panic!("no {part:?}, in its place, in:\n{printed}")
        };
        rest = after;
    }
}

#[test]
fn the_demo_can_stay_up_for_kubectl() {
    let place = Place::new();
    let mut demo = place.command(binary());
    demo.args(["demo", "--switch=sim", "--keep"]);
    let demo = support::Local::start(demo);
    let line = demo.wait_for_line("export KUBECONFIG=");
    let kubeconfig = line.strip_prefix("export KUBECONFIG=").unwrap();
    assert!(place.kubectl_ok(&["get", "vnd", "--kubeconfig", kubeconfig]).contains("web-0"));
    assert!(demo.stop().success());
    assert!(!std::path::Path::new(kubeconfig).exists(), "its state was left behind");
}

#[test]
fn kubectl_finds_it_as_a_plugin() {
    let place = Place::new();
    let _local = place.start(&[]);
    place.kubectl_with(&["apply", "-f", "-"], &device("a", "")).ok();
    place.wait_ready(&["a"]);
    let folder = place.path("bin");
    std::fs::create_dir(&folder).unwrap();
    std::os::unix::fs::symlink(binary(), folder.join("kubectl-virtnet")).unwrap();
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    let plugin = |arguments: &[&str]| {
        let mut kubectl = place.command(std::path::Path::new("kubectl"));
        Run::of(kubectl.arg("virtnet").args(arguments).env("PATH", &path).output().unwrap())
    };
    assert_eq!(cells(&plugin(&["get"]).ok()), cells(&place.kubectl_ok(&["get", "vnd"])));
    assert!(plugin(&["--help"]).ok().contains("Usage: kubectl virtnet "));
}

#[test]
fn every_command_explains_itself() {
    let place = Place::new();
    let help = place.virtnetctl(&["--help"]).ok();
    for command in ["local", "demo", "validate", "get", "tree", "top", "export", "bundle"] {
        assert!(help.contains(&format!("\n  {command} ")), "{help}");
        let own = place.virtnetctl(&[command, "--help"]).ok();
        assert!(own.contains(&format!("Usage: virtnetctl {command} ")), "{own}");
        place.virtnetctl(&[command, "--nope"]).failed(2);
    }
    place.virtnetctl(&[]).failed(2);
    place.virtnetctl(&["nope"]).failed(2);
}
