//! A simulated DPU with its host, as a person has it who follows the guide: [`Dpu`].

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use virtnet_netlink::Namespace;

use crate::firmware::sim_firmware;
use crate::list::{List, is_up, text};
use crate::process::{LIMIT, PAUSE, Service, VIRTNETD, socket};

/// `virtnet`, which was built into the same folder.
fn virtnet() -> PathBuf {
    let path = Path::new(VIRTNETD).with_file_name("virtnet");
    assert!(path.exists(), "{} is not there: cargo build -p virtnet-cli", path.display());
    path
}

/// A controller service that runs, over a DPU of its own.
pub(crate) struct Dpu {
    service: Service,
    arguments: Vec<String>,
    /// Where it runs; `None`: where the test does.
    namespace: Option<Namespace>,
    folder: TempDir,
}

impl Dpu {
    /// After these `mlxconfig` commands.
    pub(crate) fn start(firmware: &[&str]) -> Self {
        Self::with(firmware, None, None)
    }

    /// The same with this virtnet.conf.
    pub(crate) fn with_conf(firmware: &[&str], conf: &str) -> Self {
        Self::with(firmware, Some(conf), None)
    }

    /// The same with representors that are netdevs, in a network namespace of its own.
    pub(crate) fn with_netdevs(firmware: &[&str]) -> Self {
        Self::with(firmware, None, Some(Namespace::new().unwrap()))
    }

    /// The same with a virtnet.conf too.
    pub(crate) fn with_conf_and_netdevs(firmware: &[&str], conf: &str) -> Self {
        Self::with(firmware, Some(conf), Some(Namespace::new().unwrap()))
    }

    fn with(firmware: &[&str], conf: Option<&str>, namespace: Option<Namespace>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut arguments = vec![format!("--sim-firmware={}", sim_firmware(firmware))];
        if let Some(conf) = conf {
            let path = folder.path().join("virtnet.conf");
            std::fs::write(&path, conf).unwrap();
            arguments.push(format!("--config={}", path.display()));
        }
        if namespace.is_some() {
            arguments.push("--sim-taps".to_owned());
        }
        let service = Service::start(folder.path(), &arguments, namespace.as_ref());
        Self { service, arguments, namespace, folder }
    }

    /// The file that [`Dpu::with_conf`] wrote.
    pub(crate) fn conf(&self) -> PathBuf {
        self.folder.path().join("virtnet.conf")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        socket(self.folder.path())
    }

    fn program(&self, command: &mut Command) -> Output {
        let command = command.env("VIRTNETD_SOCKET", self.socket()).env_remove("JOURNAL_STREAM");
        match &self.namespace {
            Some(namespace) => namespace.run(|| command.output()).unwrap().unwrap(),
            None => command.output().unwrap(),
        }
    }

    /// What a command of the guide prints: `virtnet` and its arguments.
    pub(crate) fn output(&self, command: &str) -> Output {
        let mut words = command.split_whitespace();
        assert_eq!(words.next(), Some("virtnet"), "{command}");
        let mut command = if self.namespace.is_some() {
            // A /sys of this network namespace, as of one that `ip netns exec` enters.
            let mut command = Command::new("unshare");
            let inside = "mount -t sysfs sysfs /sys && exec \"$@\"";
            command.args(["--mount", "sh", "-c", inside, "sh"]).arg(virtnet());
            command
        } else {
            Command::new(virtnet())
        };
        self.program(command.args(words))
    }

    /// Its text, where it is no JSON.
    pub(crate) fn text(&self, command: &str) -> String {
        let output = self.output(command);
        assert!(output.status.success(), "{command}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Its answer.
    pub(crate) fn run(&self, command: &str) -> Value {
        serde_json::from_str(&self.text(command)).unwrap()
    }

    /// Runs a command of which the answer says no more than that it is done.
    pub(crate) fn done(&self, command: &str) {
        assert_eq!(self.run(command), json!({"errno": 0, "errstr": "Success"}), "{command}");
    }

    /// Why a command is refused.
    pub(crate) fn refused(&self, command: &str) -> String {
        let output = self.output(command);
        assert_eq!(output.status.code(), Some(1), "{command}: {output:?}");
        assert!(output.stdout.is_empty(), "{command}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    fn at_host(&self, command: &str) -> Output {
        self.program(Command::new(VIRTNETD).arg("host").args(command.split_whitespace()))
    }

    /// Does something at the host.
    pub(crate) fn host(&self, command: &str) {
        let output = self.at_host(command);
        assert!(output.status.success(), "at the host: {command}: {output:?}");
    }

    /// Why the host can't do it.
    pub(crate) fn host_refused(&self, command: &str) -> String {
        let output = self.at_host(command);
        assert!(!output.status.success(), "at the host: {command}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// `ip` where the representors are.
    pub(crate) fn ip(&self, arguments: &str) -> String {
        let output = self.program(Command::new("ip").args(arguments.split_whitespace()));
        assert!(output.status.success(), "ip {arguments}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// `virtnet list`.
    pub(crate) fn list(&self) -> List {
        List(self.run("virtnet list"))
    }

    /// Looks at `virtnet list` until something holds of it.
    pub(crate) fn until(&self, what: &str, holds: impl Fn(&List) -> bool) -> List {
        self.wait(what, || {
            let list = self.list();
            if holds(&list) { Ok(list) } else { Err(list) }
        })
    }

    /// The same from a cold boot on: nobody answers until the DPU has booted.
    pub(crate) fn until_up_again(&self, what: &str, holds: impl Fn(&List) -> bool) -> List {
        self.wait(what, || {
            let output = self.output("virtnet list");
            match serde_json::from_slice(&output.stdout).map(List) {
                Ok(list) if holds(&list) => Ok(list),
                _ => Err(output),
            }
        })
    }

    /// Waits until the host runs and has found the static PFs, with an address and a driver for each.
    pub(crate) fn until_booted(&self) -> List {
        self.until("static PFs with addresses and drivers", |list| {
            let mut pfs = list.of("static PF").peekable();
            pfs.peek().is_some() && pfs.all(is_up)
        })
    }

    /// The one function that `virtnet query` shows; `which` is `-p 0 -v 0` or another way to name it.
    pub(crate) fn query(&self, which: &str) -> Value {
        let answer = self.run(&format!("virtnet query {which}"));
        let devices = answer["devices"].as_array().unwrap();
        assert_eq!(devices.len(), 1, "{which}: {devices:?}");
        devices[0].clone()
    }

    /// Waits until the host's driver has a function.
    pub(crate) fn until_bound(&self, which: &str) -> Value {
        self.wait(&format!("a driver of {which}"), || {
            let device = self.query(which);
            if device["driver_loaded"] == true { Ok(device) } else { Err(device) }
        })
    }

    /// `echo BDF > …/unbind` at the host, where the driver has a function. Waits until the controller knows; answers the BDF.
    pub(crate) fn unbind(&self, which: &str) -> String {
        let bdf = text(&self.until_bound(which), "bdf").to_owned();
        self.host(&format!("unbind {bdf}"));
        self.wait(&format!("{which} without a driver"), || {
            let device = self.query(which);
            if device["driver_loaded"] == false { Ok(()) } else { Err(device) }
        });
        bdf
    }

    /// Looks until what was waited for is seen, in place of something else.
    pub(crate) fn wait<T, N: Debug>(&self, what: &str, look: impl Fn() -> Result<T, N>) -> T {
        let begun = Instant::now();
        loop {
            match look() {
                Ok(seen) => return seen,
                Err(instead) if begun.elapsed() > LIMIT => {
                    panic!("not seen: {what}; instead {instead:?}; log:\n{}", self.service.log())
                }
                Err(_) => std::thread::sleep(PAUSE),
            }
        }
    }

    /// Waits until the service has logged something. Answers its whole log until then.
    pub(crate) fn until_logged(&self, part: &str) -> String {
        self.service.until_logged(part)
    }

    /// Asks for another worker, as a reload of the unit does.
    pub(crate) fn hang_up(&self) {
        self.service.signal(Signal::SIGHUP);
    }

    /// `systemctl stop`: the service ends in good order. Answers its log.
    pub(crate) fn stop(&mut self) -> String {
        self.service.stop()
    }

    /// A person bonds the ports of the DPU, or takes the bond apart, while the service is stopped: so it is at the next start.
    pub(crate) fn bond_while_stopped(&mut self, made: bool) {
        self.arguments.retain(|argument| !argument.starts_with("--sim-bond"));
        self.arguments.push(format!("--sim-bond={made}"));
    }

    /// `systemctl start` after [`Dpu::stop`].
    pub(crate) fn start_again(&mut self) {
        self.service = Service::start(self.folder.path(), &self.arguments, self.namespace.as_ref());
    }
}
