//! What these tests share: [`Service`], a virtnetd in a network namespace, and packets between a guest and a representor.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;
use virtnet_local_switch::Programs;
use virtnet_model::{Controller, ControllerState, Function, HotplugRequest, Mac, QueueSize, Target};
use virtnet_netlink::Namespace;
use virtnet_ovsdb::Address;
use virtnet_rpc::Client;
use virtnet_tests::guest::Guest;
use virtnet_tests::guest::functions::InGuest;
use virtnet_tests::programs::built;

/// Far longer than anything takes, on a machine that is busy too.
pub(crate) const LIMIT: Duration = Duration::from_secs(90);
/// The name under which it runs.
const SERVICE: &str = "virtnetd";

/// A virtnetd of a program of its own, so that another can be installed.
pub(crate) struct Service {
    pub(crate) client: Client,
    pub(crate) folder: TempDir,
    namespace: Arc<Namespace>,
    programs: Programs,
    switch: Option<Address>,
}

impl Service {
    /// One that is not running yet.
    pub(crate) fn off(namespace: Arc<Namespace>) -> Self {
        let folder = tempfile::Builder::new().prefix("virtnet-soft-").tempdir().unwrap();
        std::fs::copy(built("virtnetd").unwrap(), folder.path().join("virtnetd")).unwrap();
        let programs = Programs::inside(folder.path(), Arc::clone(&namespace));
        let client = Client::connect(&folder.path().join("s.sock"));
        Self { client, folder, namespace, programs, switch: None }
    }

    /// Has it ask this Open vSwitch what can be offered.
    pub(crate) fn behind(&mut self, switch: Address) {
        self.switch = Some(switch);
    }

    /// Starts it over a device that is so, with its sockets in a folder of its own, and waits until it serves.
    pub(crate) async fn on(&mut self, mut device: Value) {
        device["mac"] = json!("02:00:00:00:aa:00");
        device["sockets"] = json!(self.sockets());
        let config = self.folder.path().join("soft.json");
        std::fs::write(&config, device.to_string()).unwrap();
        let mut command = Command::new(self.program());
        command.args(["--device", "soft", "--log=info", "--soft-config"]).arg(config);
        command.arg("--socket").arg(self.folder.path().join("s.sock"));
        if let Some(switch) = &self.switch {
            command.arg(format!("--soft-ovsdb={switch}"));
        }
        self.programs.start(SERVICE, &command).unwrap();
        self.until("it serves", |_| true).await;
    }

    pub(crate) fn program(&self) -> PathBuf {
        self.folder.path().join("virtnetd")
    }

    pub(crate) fn sockets(&self) -> PathBuf {
        self.folder.path().join("sockets")
    }

    /// The functions' sockets that there are.
    pub(crate) fn open_sockets(&self) -> usize {
        std::fs::read_dir(self.sockets()).unwrap().count()
    }

    /// Ends it in order.
    pub(crate) fn end(&mut self) {
        self.programs.end(SERVICE).unwrap();
    }

    /// Kills it.
    pub(crate) fn kill(&mut self) {
        self.programs.kill(SERVICE).unwrap();
    }

    /// Its processes: the service's, and those that it started.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let Some(parent) = self.programs.id(SERVICE) else { return Vec::new() };
        let tasks = std::fs::read_dir(format!("/proc/{parent}/task")).unwrap().flatten();
        let children = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
        let children: String = children.collect();
        let children = children.split_whitespace().map(|pid| pid.parse().unwrap());
        std::iter::once(parent).chain(children).collect()
    }

    /// The process that moves packets.
    pub(crate) fn mover(&self) -> Option<u32> {
        self.processes().into_iter().find(|pid| {
            std::fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.split(|byte| *byte == 0).any(|word| word == b"soft-worker"))
        })
    }

    /// Waits until something holds of the controller's state.
    pub(crate) async fn until(
        &self,
        what: &str,
        holds: impl Fn(&ControllerState) -> bool,
    ) -> ControllerState {
        let mut events = self.client.events();
        let mut last = None;
        let wait = async {
            loop {
                match self.client.observe().await {
                    Ok(state) if holds(&state) => return state,
                    other => last = Some(other),
                }
                events.next().await;
            }
        };
        let held = timeout(LIMIT, wait).await;
        held.unwrap_or_else(|_| panic!("it never was so that {what}: {last:#?}\n{}", self.log()))
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("virtnetd.log")).unwrap_or_default()
    }

    /// Brings the representor of a function up, without which it has no link, and waits until its driver has it; on a bus, with an
    /// address.
    pub(crate) async fn until_used(&self, target: &Target) -> Function {
        let state = self.until("it is there", |state| state.find(target).is_some()).await;
        self.up(state.find(target).unwrap());
        let used = |state: &ControllerState| {
            state
                .find(target)
                .filter(|function| {
                    function.driver.in_use && (function.socket.is_some() || function.bdf.is_some())
                })
                .cloned()
        };
        let state = self.until("a driver has it", |state| used(state).is_some()).await;
        used(&state).unwrap()
    }

    /// Runs ip(8) in its network namespace.
    pub(crate) fn ip(&self, arguments: &[&str]) -> bool {
        self.namespace.run(|| Command::new("ip").args(arguments).output()).unwrap().unwrap().status.success()
    }

    /// Gives the end of a function here an address, and brings it up.
    pub(crate) fn address(&self, function: &Function, address: &str) {
        let representor = &function.sf.as_ref().unwrap().representor;
        assert!(self.ip(&["address", "replace", address, "dev", representor.as_str()]));
        self.up(function);
    }

    /// Brings the representor of a function up.
    fn up(&self, function: &Function) {
        let representor = &function.sf.as_ref().unwrap().representor;
        assert!(self.ip(&["link", "set", representor.as_str(), "up"]));
    }
}

/// How a device is told of a guest's slots.
pub(crate) fn host(guest: &Guest, first: u16) -> Value {
    let config = guest.config();
    let slots: serde_json::Map<String, Value> =
        config.slots.iter().map(|(slot, port)| ((slot + first).to_string(), json!(port))).collect();
    json!({"qmp": config.qmp, "slots": slots})
}

pub(crate) fn mac(number: u8) -> Mac {
    Mac::local([0, 0, 0, 2, number])
}

pub(crate) fn request(number: u8) -> HotplugRequest {
    HotplugRequest::new(mac(number), 3, QueueSize::DEFAULT)
}

/// Gives a guest's netdev an address, and brings it up.
pub(crate) async fn address(guest: &mut Guest, there: &InGuest, address: &str) {
    let netdev = &there.netdev;
    let command = format!("ip address add {address} dev {netdev} && ip link set {netdev} up");
    guest.console().unwrap().sh(&command).await.unwrap();
}

/// Packets go from a guest to an address and back.
pub(crate) async fn reaches(guest: &mut Guest, address: &str) {
    guest.console().unwrap().sh(&format!("ping -c 2 -W 20 {address}")).await.unwrap();
}

/// Begins to send packets from a guest to an address.
pub(crate) async fn begin_pinging(guest: &mut Guest, address: &str) {
    let command = format!("mkfifo /tmp/end; (ping -i 0.1 {address} >/tmp/ping 2>&1; echo >/tmp/end) &");
    guest.console().unwrap().sh(&command).await.unwrap();
}

/// Ends that: how many packets were sent, and how many came back.
pub(crate) async fn end_pinging(guest: &mut Guest) -> (u32, u32) {
    let command = "kill -INT $(pidof ping); cat /tmp/end; cat /tmp/ping; rm /tmp/end";
    let output = guest.console().unwrap().sh(command).await.unwrap();
    let line = output
        .lines()
        .find(|line| line.contains("packets transmitted"))
        .unwrap_or_else(|| panic!("{output}"));
    let mut numbers = line.split_whitespace().filter_map(|word| word.parse().ok());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// Ends a process.
pub(crate) fn kill(pid: u32) {
    let status = Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap();
    assert!(status.success());
}

/// Installs a program in the place of one that may run.
pub(crate) fn install(program: &Path) {
    let next = program.with_extension("next");
    std::fs::copy(program, &next).unwrap();
    std::fs::rename(next, program).unwrap();
}
