//! The program itself: how it starts and how it stops.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const AGENT: &str = env!("CARGO_BIN_EXE_virtnet-agent");

/// Far longer than anything takes, on a machine that is busy too.
const LIMIT: Duration = Duration::from_secs(60);

/// A kubeconfig of an API that is not there.
const NOWHERE: &str = r#"{"apiVersion": "v1", "kind": "Config", "current-context": "c",
    "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}],
    "users": [{"name": "u", "user": {}}],
    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}]}"#;

fn nowhere() -> std::io::Result<tempfile::NamedTempFile> {
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(NOWHERE.as_bytes())?;
    Ok(file)
}

#[test]
fn asked_to_stop_it_ends_well_although_the_api_is_out_of_reach() {
    let kubeconfig = nowhere().unwrap();
    for signal in ["TERM", "INT"] {
        let mut agent = Command::new(AGENT)
            .args(["run", "--dpu", "dpu-0", "--http", "127.0.0.1:0", "--kubeconfig"])
            .arg(kubeconfig.path())
            .args(["--controller", "sim", "--switch", "sim", "--links", "sim"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(agent.stderr.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("the watch of VirtnetDevices was cut")));
        let sent = Command::new("kill").args(["-s", signal, &agent.id().to_string()]).status().unwrap();
        assert!(sent.success());
        assert_eq!(agent.wait().unwrap().code(), Some(0), "{signal}");
    }
}

/// What a server at this address answers to a GET; none while it does not serve.
fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok().map(|_| answer)
}

#[test]
fn its_metrics_tell_what_went_through_functions() {
    let kubeconfig = nowhere().unwrap();
    // An address of loopback that no other process has.
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let http = SocketAddr::from(([127, 100 + high, middle, low], 9402));
    let mut agent = Command::new(AGENT)
        .args(["run", "--dpu", "dpu-0", "--http", &http.to_string(), "--kubeconfig"])
        .arg(kubeconfig.path())
        .args(["--controller", "sim", "--switch", "sim", "--links", "sim"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // The simulated host boots first, and its drivers take the functions.
    let begun = Instant::now();
    let told = loop {
        let answer = get(http, "/metrics").unwrap_or_default();
        if answer.contains("\nvirtnet_function_packet_bytes_count{vuid=\"VNETS0D0F0\"") {
            break answer;
        }
        if begun.elapsed() > LIMIT {
            agent.kill().unwrap();
            panic!("no queue of a function is told of: {answer}");
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    agent.kill().unwrap();
    agent.wait().unwrap();
    assert!(told.contains("\nvirtnet_function_untold 0\n"), "{told}");
}

#[test]
fn a_filter_that_can_not_be_understood_is_refused() {
    let output = Command::new(AGENT)
        .args(["--log", "virtnet=loud", "plan", "--dpu", "dpu-0"])
        .args(["--controller", "sim", "--switch", "sim", "--links", "sim"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("invalid value 'virtnet=loud' for '--log <FILTER>'"), "{said}");
}

#[test]
fn a_name_that_no_dpu_can_have_is_refused() {
    for name in ["", "Dpu-0", "dpu_0"] {
        let output = Command::new(AGENT)
            .args(["run", "--controller", "sim", "--switch", "sim", "--links", "sim"])
            .env("VIRTNET_DPU", name)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{name:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("a lowercase RFC 1123 subdomain must"), "{said}");
    }
}

#[test]
fn a_switch_and_netdevs_that_can_not_meet_are_refused() {
    for (switch, links, why) in [
        ("ovsdb:unix:/nowhere/db.sock", "sim", "--switch=ovsdb:unix:/nowhere/db.sock needs --links=netlink"),
        ("sim", "netlink", "--links=netlink needs --switch=ovsdb:ADDRESS"),
    ] {
        let output = Command::new(AGENT)
            .args(["run", "--dpu", "dpu-0", "--http", "127.0.0.1:0", "--kubeconfig"])
            .arg(nowhere().unwrap().path())
            .args(["--controller", "sim", "--switch", switch, "--links", links])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(why), "{said}");
        assert!(!said.contains('\u{1b}'), "colours are for terminals: {said}");
    }
}
