//! The programs as people run them, on a real switch.

use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::Client;
use kube::api::{Api, ListParams, PostParams};
use serde_json::json;
use virtnet_crds::VirtnetDevice;
use virtnet_embedded_api::{self as embedded, Listen, Server};
use virtnet_local_switch::Programs;
use virtnet_tests::open_vswitch;
use virtnet_tests::ovsdb_wire::{Wire, transactions};
use virtnet_tests::programs::built;
use virtnet_tests::real_world::LIMIT;
use virtnet_tests::world::{DPU, LEASES, not_ready};

/// How many devices the program has.
const DEVICES: usize = 20;

fn device(number: usize) -> VirtnetDevice {
    let function = if number < 16 { json!({"hotplug": {}}) } else { json!({"static": {"pf": number - 16}}) };
    let object = json!({
        "apiVersion": virtnet_crds::API_VERSION, "kind": "VirtnetDevice", "metadata": {"name": format!("web-{number}")},
        "spec": {"dpu": DPU, "function": function, "port": {"bridge": "ovsbr1"}},
    });
    serde_json::from_value::<VirtnetDevice>(object).unwrap()
}

/// What the kernel counts of a process: page faults of children that it has waited for, and its children now. One that ever
/// ran a command has some of either.
fn traces_of_children(process: u32) -> (Vec<String>, String) {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // proc_pid_stat(5): after the name in brackets, which may have spaces, come fields from the third on.
    let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let children = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let children =
        children.map(|task| std::fs::read_to_string(task.unwrap().path().join("children")).unwrap());
    (vec![fields[8].to_owned(), fields[10].to_owned()], children.collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_runs_no_other_program() {
    let ovs = open_vswitch::start().unwrap();
    let wire = Wire::listen(&ovs.folder().join("wire.sock"), &ovs.socket()).unwrap();
    ovs.inside("ip", &["link", "set", "lo", "up"]).unwrap();
    let config = embedded::Config::new(virtnet_crds::crd::all(), Arc::new(embedded::MemoryDisk::default()));
    let api = embedded::Api::open(config).await.unwrap();
    let client = Client::new(api.service(), "default");
    // The agent is in the switch's namespace, and so is the API's loopback.
    let (state, runtime) = (tempfile::tempdir().unwrap(), tokio::runtime::Handle::current());
    let listen = Listen::Tcp((Ipv4Addr::LOCALHOST, 0).into());
    let start = || runtime.block_on(Server::start(&api, listen, state.path()));
    let server = ovs.namespace().run(start).unwrap().unwrap();
    let devices: Api<VirtnetDevice> = Api::default_namespaced(client);
    for number in 0..DEVICES {
        devices.create(&PostParams::default(), &device(number)).await.unwrap();
    }
    let mut programs = Programs::inside(state.path(), ovs.namespace());
    let mut agent = Command::new(built("virtnet-agent").unwrap());
    agent.args(["run", "--dpu", DPU, "--http", "127.0.0.1:0", "--lease-namespace", LEASES, "--kubeconfig"]);
    agent.arg(server.kubeconfig_path().unwrap());
    agent.args(["--controller=sim", "--links=netlink", &format!("--switch=ovsdb:{}", wire.address())]);
    programs.start("agent", &agent).unwrap();
    let begun = Instant::now();
    loop {
        let waiting: Vec<_> =
            devices.list(&ListParams::default()).await.unwrap().items.iter().filter_map(not_ready).collect();
        if waiting.is_empty() {
            break;
        }
        programs.check().unwrap();
        assert!(begun.elapsed() < LIMIT, "{waiting:#?}\n{}", programs.logs());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let made = transactions(&wire.take());
    assert!((1..=16).contains(&made.count) && made.at_once == 1, "{made:?}");
    let nothing = (vec!["0".to_owned(), "0".to_owned()], String::new());
    assert_eq!(traces_of_children(programs.id("agent").unwrap()), nothing);
    // What is looked at does tell.
    let both = "true; cat /dev/null; sleep 60 & echo there are; wait";
    let mut shell = Command::new("sh").args(["-c", both]).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    BufReader::new(shell.stdout.take().unwrap()).read_line(&mut said).unwrap();
    let traces = traces_of_children(shell.id());
    for child in traces.1.split_whitespace() {
        Command::new("kill").arg(child).status().unwrap();
    }
    shell.wait().unwrap();
    assert!(traces.0 != nothing.0 && traces.1 != nothing.1, "{traces:?}");
    drop(programs);
    server.shutdown().await;
}

#[test]
fn the_demo_says_what_is_real_and_leaves_nothing_behind() {
    let temporary = tempfile::tempdir().unwrap();
    let mut demo = Command::new(built("virtnetctl").unwrap());
    demo.args(["demo", "--switch=real"]).env("TMPDIR", temporary.path());
    open_vswitch::installed(&mut demo).unwrap();
    let output = demo.output().unwrap();
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{errors}");
    assert!(said.contains("Open vSwitch and the representors (TAPs) are real"), "{said}");
    assert!(said.contains("are SIMULATED") && said.contains("ovs-vsctl --db=unix:"), "{said}");
    assert!(said.contains("The agent has put it back.") && said.contains("All of it is back"), "{said}");
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0, "files were left behind");
    assert_eq!(processes_of(temporary.path()), Vec::<String>::new(), "programs were left behind");
}

/// The processes that were started with something of this folder.
fn processes_of(folder: &Path) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let commands = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    let commands = commands.map(|command| String::from_utf8_lossy(&command).replace('\0', " "));
    commands.filter(|command| command.contains(folder.to_str().unwrap())).collect()
}

#[test]
fn a_real_switch_that_is_wanted_and_can_not_be_had_is_an_error() {
    let virtnetctl = |arguments: &[&str]| {
        let mut command = Command::new(built("virtnetctl").unwrap());
        // Nothing of Open vSwitch is below there.
        command.args(arguments).env("PATH", "/nowhere");
        let output = command.output().unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let installed = ["/usr/sbin/ovsdb-server", "/usr/local/sbin/ovsdb-server"]
        .iter()
        .any(|path| std::fs::exists(path).unwrap());
    if installed {
        // In folders that are in few people's PATH it is found all the same.
        let (code, said, errors) = virtnetctl(&["demo", "--switch=real"]);
        assert_eq!(code, Some(0), "{errors}");
        assert!(said.contains("Open vSwitch and the representors (TAPs) are real"), "{said}");
        return;
    }
    let (code, _, errors) = virtnetctl(&["demo", "--switch=real"]);
    assert_eq!(code, Some(1));
    assert!(
        errors.contains("--switch=real: Open vSwitch is not installed: there is no ovsdb-server"),
        "{errors}"
    );
    let (code, said, errors) = virtnetctl(&["demo"]);
    assert_eq!(code, Some(0), "{errors}");
    assert!(said.starts_with("DPU dpu-0 is SIMULATED: no hardware is touched.\n"), "{said}");
    assert!(errors.contains("Open vSwitch is simulated too: Open vSwitch is not installed"), "{errors}");
    let (_, said, errors) = virtnetctl(&["demo", "--switch=sim"]);
    assert!(said.contains("SIMULATED") && !errors.contains("Open vSwitch"), "{errors}");
}
