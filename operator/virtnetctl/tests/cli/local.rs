//! `virtnetctl local`: its state, its end, its arguments, and `--until-ready`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;

use crate::support::{self, Place, binary, device};

#[test]
fn credentials_are_for_the_owner_alone() {
    let place = Place::new();
    let _local = place.start(&[]);
    for file in ["kubeconfig", "token", "server.key", "api.redb"] {
        let mode = std::fs::metadata(place.state().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let mode = std::fs::metadata(place.state()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "its folder");
}

#[test]
fn who_waits_for_devices_and_is_stopped_does_not_succeed() {
    let place = Place::new();
    let local = place.start(&["--until-ready=300"]);
    assert_eq!(local.stop().code(), Some(1));
    assert_eq!(place.start(&[]).stop().code(), Some(0));
}

#[test]
fn what_an_earlier_run_said_makes_nothing_ready() {
    let place = Place::new();
    place.write("a.yaml", &device("a", ""));
    place.write("b.yaml", &device("b", ""));
    let printed = place.local(&["--manifests", "manifests", "--until-ready"]).ok();
    assert!(printed.contains("2 of 2 devices are Ready"), "{printed}");
    let one = "PCI_SWITCH_EMULATION_NUM_PORT=1";
    let run = place.local(&["--manifests", "manifests", "--firmware", one, "--until-ready=8"]);
    assert_eq!(run.code, Some(1), "{}", run.stdout);
    assert!(run.stdout.contains("1 of 2 devices are Ready after 8 s"), "{}", run.stdout);
}

#[test]
fn it_says_what_it_is_and_where_kubectl_finds_it() {
    let place = Place::new();
    let local = place.start(&["--dpu", "bf3-a"]);
    let printed = local.printed();
    assert!(printed.contains("DPU bf3-a is SIMULATED: no hardware is touched.\n"), "{printed}");
    assert!(printed.contains(&format!("export KUBECONFIG={}\n", place.kubeconfig().display())), "{printed}");
    let created = place.kubectl_ok(&["wait", "--for=create", "dpu/bf3-a", "--timeout=60s"]);
    assert_eq!(created, "dpu.virtnet.dev/bf3-a condition met\n");
}

/// What a server on loopback answers to a GET, up to where this is in it.
fn get(address: &str, path: &str, part: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(support::LIMIT)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let mut bytes = [0; 4096];
    loop {
        let count = stream.read(&mut bytes).unwrap();
        answer.extend_from_slice(&bytes[..count]);
        let text = String::from_utf8_lossy(&answer);
        if text.contains(part) {
            return text.into_owned();
        }
        assert!(count > 0, "{part:?} is not in {text}");
    }
}

#[test]
fn the_page_is_where_it_says_and_tells_of_the_dpu() {
    let place = Place::new();
    let local = place.start(&["--page"]);
    let line = local.wait_for_line("Look at it in a browser: ");
    let address =
        line.strip_prefix("Look at it in a browser: http://").and_then(|rest| rest.strip_suffix('/'));
    let address = address.unwrap();
    assert!(address.starts_with("127.0.0.1:"), "{line}");
    let page = get(address, "/", "</html>");
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n") && page.contains("default-src 'none'"), "{page}");
    place.kubectl_ok(&["wait", "--for=condition=Ready", "dpu/dpu-0", "--timeout=60s"]);
    get(address, "/events", "\"dpus\":{\"dpu-0\":{\"state\":\"ready\"");

    // An address that is taken is told before anything begins.
    let other = Place::new();
    let refused = other.local(&[&format!("--page={address}")]).failed(1);
    assert!(
        refused.starts_with(&format!("virtnetctl: serving the page on {address}: see --page: ")),
        "{refused}"
    );
    assert!(!other.state().exists());
    let without = other.start(&[]);
    assert!(!without.printed().contains("browser"), "{}", without.printed());
    // It ends well though somebody looks.
    let mut reader = TcpStream::connect(address).unwrap();
    reader.write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert!(local.stop().success());
}

#[test]
fn a_restart_keeps_objects_and_credentials_and_converges() {
    let place = Place::new();
    let token = || place.kubectl_ok(&["config", "view", "--raw", "-o", "jsonpath={.users[0].user.token}"]);
    let object = || place.kubectl_ok(&["get", "vnd", "a", "-o", "jsonpath={.metadata.uid} {.spec}"]);
    let local = place.start(&[]);
    place.kubectl_with(&["apply", "-f", "-"], &device("a", "")).ok();
    place.wait_ready(&["a"]);
    let before = (token(), object());
    assert!(before.0.len() > 30, "{}", before.0);
    assert!(local.stop().success());

    // The simulated DPU begins anew, as after a cold boot: the function has to be plugged again.
    let _local = place.start(&[]);
    let again = place.local(&["--until-ready"]).failed(1);
    assert!(again.contains("another process has it open; stop that one"), "{again}");
    place.wait_ready(&["a"]);
    assert_eq!((token(), object()), before);
}

#[test]
fn asked_to_stop_it_ends_well_though_somebody_watches() {
    let place = Place::new();
    let local = place.start(&[]);
    let mut watch = place.command(std::path::Path::new("kubectl"));
    watch.args(["get", "dpus", "-w"]);
    let mut watch = support::Local::start(watch);
    watch.wait_for_line("dpu-0");
    let id = local.id();
    assert_eq!(local.stop().code(), Some(0));
    watch.wait();
    assert!(!std::path::Path::new(&format!("/proc/{id}")).exists());
    // Beside what is kept for the next time, nothing.
    let mut files: Vec<_> = std::fs::read_dir(place.state())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(files, ["api.redb", "ca.crt", "kubeconfig", "server.crt", "server.key", "token"]);
}

#[test]
fn until_ready_ends_when_all_devices_are() {
    let place = Place::new();
    place.write("a.yaml", &device("a", ""));
    place.write("b.yaml", &device("b", "  mtu: 1400\n"));
    let run = place.local(&["--manifests", "manifests", "--until-ready"]);
    assert!(run.stdout.ends_with("2 of 2 devices are Ready\n"), "{run:?}");
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
}

#[test]
fn until_ready_lists_what_is_not_and_why() {
    let place = Place::new();
    place.write("a.yaml", &device("a", ""));
    place.write("b.yaml", &device("b", "  queues:\n    max: 64\n"));
    place.write("c.yaml", &device("c", "  colour: red\n"));
    let run = place.local(&["--manifests", "manifests", "--until-ready=8"]);
    assert_eq!(run.code, Some(1), "{run:?}");
    let mut last = run.stdout.lines().rev();
    assert_eq!(last.next(), Some("  manifests/c.yaml:11: unknown field \"spec.colour\""));
    let why = last.next().unwrap();
    assert!(why.starts_with("  default/b: QueuesAboveLimit: ") && why.contains("64"), "{why}");
    assert_eq!(last.next(), Some("1 of 2 devices are Ready after 8 s"));
}

#[test]
fn firmware_sets_what_the_simulated_dpu_can_do() {
    let place = Place::new();
    for name in ["a", "b"] {
        place.write(&format!("{name}.yaml"), &device(name, ""));
    }
    let one = "PCI_SWITCH_EMULATION_NUM_PORT=1";
    let run = place.local(&["--manifests", "manifests", "--firmware", one, "--until-ready=8"]);
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(run.stdout.contains("1 of 2 devices are Ready"), "{run:?}");
    assert!(run.stdout.contains("PCI_SWITCH_EMULATION_NUM_PORT"), "the setting is not named: {run:?}");
}

#[test]
fn what_firmware_has_not_is_refused() {
    let place = Place::new();
    let cases = [
        ("NOPE=1", "p0/NOPE: no such setting; there are "),
        ("PF_TOTAL_SF", "\"PF_TOTAL_SF\": want KEY=VALUE, or p1/KEY=VALUE for the second port"),
        ("PF_TOTAL_SF=many", "p0/PF_TOTAL_SF=many: not a number from 0 to "),
        ("p7/PF_TOTAL_SF=1", "\"p7/PF_TOTAL_SF=1\": want KEY=VALUE"),
    ];
    for (value, message) in cases {
        let refused = place.local(&["--firmware", value]).failed(1);
        assert!(refused.starts_with(&format!("virtnetctl: reading --firmware: {message}")), "{refused}");
        assert!(!place.state().exists(), "{value} has left something behind");
    }
}

#[test]
fn a_virtnet_conf_is_that_of_the_simulated_controller() {
    let place = Place::new();
    place.write("a.yaml", &device("a", ""));
    place.write("v.yaml", &device("v", "").replace("hotplug: {}", "vf: {pf: 1, vf: 1}"));
    let conf = r#"{
        "generation": "later", "is_lag": 1, "ib_dev_lag": "mlx5_bond_7",
        "vf": {"mac_base": "00:22:22:33:55:00", "vfs_per_pf": 4}
    }"#;
    std::fs::write(place.path("virtnet.conf"), conf).unwrap();
    let firmware = "VIRTIO_NET_EMULATION_NUM_VF=4";
    let local =
        place.start(&["--manifests", "manifests", "--virtnet-conf", "virtnet.conf", "--firmware", firmware]);
    let sriov = r#"{"spec": {"host": {"sriov": [{"pf": 1, "numVfs": 2}]}}}"#;
    place.kubectl_ok(&["wait", "--for=create", "dpu/dpu-0", "--timeout=60s"]);
    place.kubectl_ok(&["patch", "dpu/dpu-0", "--type=merge", "-p", sriov]);
    place.wait_ready(&["a", "v"]);
    let told =
        |name: &str, path: &str| place.kubectl_ok(&["get", "vnd", name, "-o", &format!("jsonpath={path}")]);
    assert_eq!(told("a", "{.status.representor.parentDevice}"), "mlx5_bond_7");
    assert_eq!(told("v", "{.status.function.mac}"), "00:22:22:33:55:05");
    assert!(local.stop().success());
}

#[test]
fn a_virtnet_conf_with_mistakes_is_refused_by_line() {
    let place = Place::new();
    let conf = "{\n\"is_lag\": 1,\n\"ib_dev_p0\": \"mlx5_0\"\n}";
    std::fs::write(place.path("virtnet.conf"), conf).unwrap();
    let refused = place.local(&["--virtnet-conf", "virtnet.conf"]).failed(1);
    let why = "line 3: ib_dev_p0: with is_lag 1 SFs are made on ib_dev_lag: leave it out";
    assert!(refused.contains(&format!("virtnetctl: reading virtnet.conf: {why}")), "{refused}");
    let refused = place.local(&["--virtnet-conf", "absent.conf"]).failed(1);
    assert!(refused.contains("virtnetctl: reading absent.conf: No such file or directory"), "{refused}");
    assert!(!place.state().exists());
}

#[test]
fn wrong_usage_is_told_before_anything_begins() {
    let place = Place::new();
    place.write("a.yaml", "");
    let cases: [(&[&str], i32, &str); 14] = [
        (&["--nope"], 2, "unexpected argument '--nope'"),
        (&["--listen", "here"], 2, "say a loopback address with a port"),
        (&["--listen", "0.0.0.0:0"], 1, "only loopback addresses are allowed"),
        (&["--page=here"], 2, "say a loopback address with a port, such as 127.0.0.1:9404"),
        (&["--page=0.0.0.0:9404"], 2, "say a loopback address with a port"),
        (&["--dpu", "Bad_Name"], 2, "RFC 1123"),
        (&["--until-ready=soon"], 2, "invalid value 'soon'"),
        (&["--log", "a=b=c"], 2, "invalid value 'a=b=c'"),
        (
            &["--controller", "nope"],
            2,
            "say sim, or unix: and the path of a socket, such as unix:/run/virtnetd/",
        ),
        (&["--controller", "unix:s"], 1, "--controller=unix:s needs --switch=ovsdb:ADDRESS"),
        (&["--tap-representors"], 1, "--tap-representors and --netns are of --controller=unix:PATH"),
        (
            &["--netns", "/proc/self/ns/net"],
            1,
            "--tap-representors and --netns are of --controller=unix:PATH",
        ),
        (&["--manifests", "absent"], 1, "virtnetctl: reading the folder absent: No such file or directory"),
        (&["--manifests", "manifests/a.yaml"], 1, "it is a file; name the folder that it is in"),
    ];
    for (arguments, code, message) in cases {
        let refused = place.local(arguments).failed(code);
        assert!(refused.contains(message), "{arguments:?}: {refused}");
    }
}

#[test]
fn beside_a_real_controller_nothing_is_simulated() {
    let place = Place::new();
    let cases: [(&[&str], i32, &str); 4] = [
        (&["--switch=ovsdb:unix:db"], 1, "--switch=ovsdb:ADDRESS needs --controller=unix:PATH"),
        (&["--switch=ovsdb:here"], 2, "invalid value 'ovsdb:here' for '--switch"),
        (
            &["--controller=unix:s", "--switch=ovsdb:unix:db", "--firmware=PF_TOTAL_SF=1"],
            1,
            "--firmware and --virtnet-conf are of --controller=sim: give them to virtnetd",
        ),
        (
            &["--controller=unix:s", "--switch=ovsdb:unix:db", "--netns=absent"],
            1,
            "virtnetctl: entering the network namespace absent: --netns: No such file or directory",
        ),
    ];
    for (arguments, code, message) in cases {
        let mut command = place.command(binary());
        command.args(["local", "--state-dir=state"]).args(arguments);
        let refused = support::Run::of(command.output().unwrap()).failed(code);
        assert!(refused.contains(message), "{arguments:?}: {refused}");
        assert!(!place.state().exists());
    }
}

#[test]
fn on_a_unix_socket_there_is_no_kubeconfig_to_mislead() {
    let place = Place::new();
    let local = support::Local::start({
        let mut command = place.command(binary());
        command.args(["local", "--switch=sim", "--state-dir", "state", "--listen", "unix:api.sock"]);
        command
    });
    local.wait_for_line("kubectl can't use a unix socket: there is no kubeconfig");
    assert!(!place.kubeconfig().exists());
    assert!(local.stop().success());
    assert!(!place.path("api.sock").exists());
}
