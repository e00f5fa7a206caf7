//! A DPU in software as people would have it: Open vSwitch, virtnetd and `virtnetctl local`, each a program of its own, around one
//! network namespace, and a folder with all that a shell needs to find them. Behind a [`door`] stands a guest, and a [`mod@line`] leads to
//! a shell in it.

pub mod door;
pub mod line;

use std::ffi::OsStr;
use std::fmt::Write;
use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tempfile::TempDir;
use tokio::time::sleep;
use virtnet_local_switch::{OpenVSwitch, Programs};
use virtnet_qemu_host::HostConfig;

use crate::guest::{Guest, Machine};
use crate::open_vswitch;
use crate::programs::built;
use crate::soft::door::Door;

/// The guests' names, which are those of the device's hosts too.
pub const GUESTS: [&str; 2] = ["guest-a", "guest-b"];
/// Functions that each of them can have.
const SLOTS: u16 = 2;
/// The name under which the controller runs.
pub const CONTROLLER: &str = "virtnetd";
/// The name under which API, agent and operator run.
pub const LOCAL: &str = "virtnetctl";
/// How long the API may take to be there, on a machine that is busy too.
const START: Duration = Duration::from_secs(60);

/// The programs of a DPU in software, but for its guests.
#[derive(Debug)]
pub struct Soft {
    // In the order of their end.
    programs: Programs,
    ovs: OpenVSwitch,
    folder: TempDir,
}

impl Soft {
    /// Starts Open vSwitch, with a folder for the rest.
    ///
    /// # Errors
    /// Where it can't be had or started.
    pub fn start() -> anyhow::Result<Self> {
        let ovs = open_vswitch::start()?;
        let folder = tempfile::Builder::new().prefix("virtnet-soft-").tempdir().context("making a folder")?;
        let soft = Self { programs: Programs::new(folder.path()), ovs, folder };
        symlink(soft.ovs.namespace().path(), soft.path("netns")).context("naming the network namespace")?;
        symlink(soft.ovs.socket(), soft.path("db.sock")).context("naming the switch's database")?;
        std::fs::create_dir(soft.path("bin")).context("making a folder of programs")?;
        for name in ["virtnetd", "virtnet", "virtnetctl"] {
            symlink(built(name)?, soft.path("bin").join(name)).with_context(|| format!("naming {name}"))?;
        }
        soft.make_command("ovs-vsctl", &soft.ovs.command("ovs-vsctl")?)?;
        Ok(soft)
    }

    /// A file of its folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What a shell needs that is to find all of it, as variables.
    #[must_use]
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        self.variables_with(&std::env::var("PATH").unwrap_or_default()).into()
    }

    /// The same as the arguments of `export`.
    #[must_use]
    pub fn assignments(&self) -> String {
        self.variables_with("$PATH").map(|(name, value)| format!("{name}={value}")).join(" ")
    }

    fn variables_with(&self, programs: &str) -> [(&'static str, String); 4] {
        let path = |name: &str| self.path(name).display().to_string();
        [
            ("KUBECONFIG", path("state/kubeconfig")),
            ("VIRTNETD_SOCKET", path("virtnetd.sock")),
            ("SOFT", self.folder.path().display().to_string()),
            ("PATH", format!("{}:{programs}", path("bin"))),
        ]
    }

    /// Boots a guest of this name, and opens its door. A command of its name gives a shell in it, or runs what it is told.
    ///
    /// # Errors
    /// Where it does not boot.
    pub async fn boot(&self, name: &str) -> anyhow::Result<Door> {
        let [door, line] = ["door", "line"].map(|what| self.path(&format!("{name}.{what}")));
        let serial = format!("socket,id=line,path={},server=on,wait=off", line.display());
        let machine = Machine {
            ports: SLOTS,
            arguments: ["-chardev", &serial, "-serial", "chardev:line"].map(Into::into).into(),
            // The third serial line: the first two are the kernel's log and the console.
            kernel: format!("hostname={name} shell=/dev/ttyS2"),
            ..Machine::default()
        };
        let guest = Guest::boot(machine).await?;
        let mut command = Command::new(std::env::current_exe().context("finding this program")?);
        self.make_command(name, command.arg("guest").arg(&door).arg(&line))?;
        Door::new(guest, &door)
    }

    /// Writes what virtnetd is told of the device: the guests are its hosts, in their order.
    ///
    /// # Errors
    /// Where a file can't be written.
    pub fn configure(&self, doors: &[Door]) -> anyhow::Result<()> {
        let mut text =
            format!("mac: 02:00:00:00:aa:00\nsockets: {}\nhosts:\n", self.path("sockets").display());
        let mut slot = 0..;
        for (name, door) in GUESTS.into_iter().zip(doors) {
            let HostConfig { qmp, slots, .. } = door.guest().config();
            let slots = slots.values().zip(&mut slot).map(|(port, slot)| format!("{slot}: {port}"));
            let slots = slots.collect::<Vec<_>>().join(", ");
            writeln!(text, "  {name}:\n    qmp: {}\n    slots: {{{slots}}}", qmp.display())?;
        }
        std::fs::write(self.path("soft.yaml"), text).context("writing soft.yaml")?;
        // Without it there are no statistics.
        std::fs::write(self.path("virtnet.conf"), "{\"generation\": \"later\"}\n")
            .context("writing virtnet.conf")
    }

    /// Starts a program as a shell would that has [`Self::variables`]; what it says goes to NAME.log.
    ///
    /// # Errors
    /// Where it can't be started.
    pub fn begin(&mut self, name: &str, command: &str) -> anyhow::Result<()> {
        let mut shell = Command::new("bash");
        shell.args(["-c", &format!("exec {command}")]).envs(self.variables());
        self.programs.start(name, &shell)
    }

    /// Waits until a program has said this, and tells what it said until then.
    ///
    /// # Errors
    /// Where it ends first, or never does.
    pub async fn until_said(&mut self, name: &str, part: &str) -> anyhow::Result<String> {
        let begun = Instant::now();
        loop {
            let said = std::fs::read_to_string(self.path(&format!("{name}.log")))?;
            if let Some((before, _)) = said.split_once(part) {
                return Ok(before.to_owned());
            }
            self.check()?;
            ensure!(begun.elapsed() < START, "{name} never said {part:?}\n{}", self.programs.logs());
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Whether all still run.
    ///
    /// # Errors
    /// Where one has ended; the message has the ends of the logs.
    pub fn check(&mut self) -> anyhow::Result<()> {
        self.programs.check()
    }

    /// Writes a program of this name that runs a command with its surroundings, and with what else it is told.
    fn make_command(&self, name: &str, command: &Command) -> anyhow::Result<()> {
        let quoted = |text: &OsStr| format!("'{}'", text.to_string_lossy().replace('\'', "'\\''"));
        let mut script = "#!/bin/sh\n".to_owned();
        for (variable, value) in command.get_envs().filter_map(|(name, value)| Some((name, value?))) {
            writeln!(script, "export {}={}", variable.to_string_lossy(), quoted(value))?;
        }
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        writeln!(script, "exec {} \"$@\"", words.map(quoted).collect::<Vec<_>>().join(" "))?;
        let file = self.path("bin").join(name);
        std::fs::write(&file, script)
            .and_then(|()| std::fs::set_permissions(&file, Permissions::from_mode(0o755)))
            .with_context(|| format!("writing the command {name}"))
    }
}

impl Drop for Soft {
    fn drop(&mut self) {
        // One that is killed leaves workers behind, which end by themselves, and later.
        for name in [LOCAL, CONTROLLER] {
            let _ = self.programs.end(name);
        }
    }
}
