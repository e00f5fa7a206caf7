//! [`Guest`]: a QEMU that boots the small guest of `tests/guest`.

use std::ffi::OsString;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use anyhow::{Context, anyhow, ensure};
use futures::future::try_join_all;
use tempfile::TempDir;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;
use virtnet_local_switch::Programs;
use virtnet_qemu_host::HostConfig;
use virtnet_qmp::{Events, Qmp};

use crate::guest::console::{Console, LIMIT};

/// The name under which QEMU runs.
const QEMU: &str = "qemu";
/// How much of a log is shown where something fails.
const LOG_AT_MOST: usize = 4096;

/// Guests are emulated and take a processor each: with more at once than this machine has, none gets on. Two there are at least, who
/// may have to reach each other.
static PROCESSORS: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(std::thread::available_parallelism().map_or(2, NonZero::get).max(2)));

/// What a script beside the tests says, as lines NAME=VALUE.
fn told(script: &str) -> anyhow::Result<Vec<(String, String)>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(script);
    let output = Command::new(path).output().with_context(|| format!("running {script}"))?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout)?;
    let lines = lines.lines().filter_map(|line| line.split_once('='));
    Ok(lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

fn one<'a>(told: &'a [(String, String)], name: &str) -> Option<&'a str> {
    told.iter().find(|(each, _)| each == name).map(|(_, value)| value.as_str())
}

/// QEMU without arguments, but for those that its place needs.
///
/// # Errors
/// Where it can't be had.
pub fn qemu() -> anyhow::Result<Command> {
    let told = told("qemu/get.sh")?;
    let program = one(&told, "program").context("qemu/get.sh names no program")?;
    let mut command = match (one(&told, "loader"), one(&told, "libraries")) {
        // Of another release than this machine's: with its own loader, which no other program here is to know of.
        (Some(loader), Some(libraries)) => {
            let mut command = Command::new(loader);
            command.args(["--library-path", libraries, program]);
            command
        }
        _ => Command::new(program),
    };
    for folder in one(&told, "firmware").into_iter().flat_map(|folders| folders.split(':')) {
        command.args(["-L", folder]);
    }
    if let Some(modules) = one(&told, "modules") {
        command.env("QEMU_MODULE_DIR", modules);
    }
    Ok(command)
}

/// How a guest is made.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// Root ports: `rp0` is slot 0, and so on.
    pub ports: u16,
    /// Further arguments of QEMU.
    pub arguments: Vec<OsString>,
    /// Further arguments of the kernel.
    pub kernel: String,
    /// Without a kernel and with its processors standing still: nothing is waited for.
    pub still: bool,
}

/// A guest that runs. Dropped, it is killed, and its folder goes.
#[derive(Debug)]
pub struct Guest {
    machine: Machine,
    programs: Programs,
    consoles: UnixListener,
    controls: UnixListener,
    console: Option<Console>,
    control: Option<(Qmp, Events)>,
    folder: TempDir,
    /// Dropped last.
    processor: Option<SemaphorePermit<'static>>,
}

impl Guest {
    /// Boots one, and waits until commands can be run in it.
    ///
    /// # Errors
    /// Where it can't be had, or does not boot, with what it said.
    pub async fn boot(machine: Machine) -> anyhow::Result<Self> {
        let mut guest = Self::off(machine)?;
        guest.on().await?;
        Ok(guest)
    }

    /// Boots those that a test needs at once. Their processors are had together: two tests that had one each, and waited for another,
    /// would wait for ever.
    ///
    /// # Errors
    /// Where one can't be had, or does not boot, with what it said.
    pub async fn boot_all<const N: usize>(machines: [Machine; N]) -> anyhow::Result<[Self; N]> {
        let mut processors = PROCESSORS.acquire_many(u32::try_from(N)?).await?;
        let mut guests = Vec::new();
        for machine in machines {
            let mut guest = Self::off(machine)?;
            guest.processor = processors.split(1);
            guests.push(guest);
        }
        try_join_all(guests.iter_mut().map(Self::on)).await?;
        guests.try_into().map_err(|_| anyhow!("as many guests as machines"))
    }

    /// One that is off.
    ///
    /// # Errors
    /// Where its folder can't be made.
    pub fn off(machine: Machine) -> anyhow::Result<Self> {
        let folder =
            tempfile::Builder::new().prefix("virtnet-guest-").tempdir().context("making a folder")?;
        let programs = Programs::new(folder.path());
        // QEMU connects to these, so that nobody has to wait until it listens.
        let listen = |name: &str| UnixListener::bind(folder.path().join(name)).context("listening");
        let (consoles, controls) = (listen("console")?, listen("control")?);
        Ok(Self {
            machine,
            programs,
            consoles,
            controls,
            console: None,
            control: None,
            folder,
            processor: None,
        })
    }

    /// Gives QEMU further arguments when it is switched on the next time.
    pub fn arguments(&mut self, arguments: impl IntoIterator<Item = OsString>) {
        self.machine.arguments.extend(arguments);
    }

    /// Switches it on.
    ///
    /// # Errors
    /// Where it does not boot, with what it said.
    pub async fn on(&mut self) -> anyhow::Result<()> {
        if self.processor.is_none() {
            self.processor = Some(PROCESSORS.acquire().await?);
        }
        let command = self.command()?;
        self.programs.start(QEMU, &command)?;
        let on = async {
            let control = accept(&self.controls).await?;
            let control = Qmp::greeted(control).await.context("greeting QEMU")?;
            let console = accept(&self.consoles).await?;
            let console = if self.machine.still { None } else { Some(Console::ready(console).await?) };
            anyhow::Ok((control, console))
        };
        let begun = on.await;
        let (control, console) = begun.with_context(|| self.logs())?;
        (self.control, self.console) = (Some(control), console);
        Ok(())
    }

    /// Takes its power: QEMU is killed.
    ///
    /// # Errors
    /// Where it is off.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        (self.console, self.control) = (None, None);
        self.programs.kill(QEMU)
    }

    /// Waits until it has booted anew after a reset.
    ///
    /// # Errors
    /// Where it does not.
    pub async fn rebooted(&mut self) -> anyhow::Result<()> {
        let rebooted = self.console()?.rebooted().await;
        rebooted.with_context(|| self.logs())
    }

    /// Its serial line.
    ///
    /// # Errors
    /// Where it is off.
    pub fn console(&mut self) -> anyhow::Result<&mut Console> {
        self.console.as_mut().context("the guest is off")
    }

    /// A monitor of the tests' own, beside the one that a bus has.
    ///
    /// # Errors
    /// Where it is off.
    pub fn control(&self) -> anyhow::Result<&Qmp> {
        self.control.as_ref().map(|(qmp, _)| qmp).context("the guest is off")
    }

    /// How a bus is told of it.
    pub fn config(&self) -> HostConfig {
        HostConfig {
            qmp: self.path("qmp"),
            slots: (0..self.machine.ports).map(|slot| (slot, format!("rp{slot}"))).collect(),
            static_pfs: [].into(),
            trace: None,
        }
    }

    /// A file of its folder, which goes with it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// QEMU's process.
    ///
    /// # Errors
    /// Where it is off.
    pub fn pid(&self) -> anyhow::Result<u32> {
        self.programs.id(QEMU).context("the guest is off")
    }

    /// What QEMU and the guest's kernel have said last.
    fn logs(&self) -> String {
        let mut text = String::new();
        for name in ["qemu.log", "kernel.log"] {
            let log = std::fs::read(self.path(name)).unwrap_or_default();
            let tail = String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_AT_MOST)..]).into_owned();
            text.push_str(&format!("{name}:\n{tail}\n"));
        }
        text
    }

    fn command(&self) -> anyhow::Result<Command> {
        let Machine { ports, arguments, kernel, still } = &self.machine;
        let path = |name: &str| self.path(name).display().to_string();
        let mut command = qemu()?;
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-accel", "tcg", "-cpu", "max"]);
        // What a vhost-user back end needs: the guest's memory in a file that can be shared.
        command.args(["-m", "256", "-object", "memory-backend-memfd,id=memory,size=256M,share=on"]);
        command.args(["-machine", "q35,memory-backend=memory"]);
        command.args(["-qmp", &format!("unix:{},server=on,wait=off", path("qmp"))]);
        command.args(["-chardev", &format!("socket,id=control,path={}", path("control"))]);
        command.args(["-mon", "chardev=control,mode=control"]);
        command.args(["-serial", &format!("file:{}", path("kernel.log"))]);
        command.args(["-chardev", &format!("socket,id=console,path={}", path("console"))]);
        command.args(["-serial", "chardev:console"]);
        if *still {
            command.arg("-S");
        } else {
            let guest = told("guest/build.sh")?;
            for (option, name) in [("-kernel", "kernel"), ("-initrd", "initramfs")] {
                command.arg(option).arg(one(&guest, name).with_context(|| format!("no {name}"))?);
            }
            // Nothing is measured or proven of the kernel here that needs its own tests or its secrets. About clocks, idling and RCU it is
            // told nothing but to halt: told more, one guest in ten stood still.
            let quick = "quiet mitigations=off random.trust_cpu=on nokaslr cryptomgr.notests idle=halt";
            command.args(["-append", &format!("console=ttyS0 {quick} {kernel}")]);
        }
        for port in 0..*ports {
            // As many functions as there are ports on a root bus: eight of one device.
            let address = format!("addr={:#x}.{:#x}", 2 + port / 8, port % 8);
            let multi = if port % 8 == 0 { ",multifunction=on" } else { "" };
            command.arg("-device");
            command
                .arg(format!("pcie-root-port,id=rp{port},chassis={},bus=pcie.0,{address}{multi}", port + 1));
        }
        command.args(arguments);
        Ok(command)
    }
}

async fn accept(listener: &UnixListener) -> anyhow::Result<UnixStream> {
    let (stream, _) = timeout(LIMIT, listener.accept()).await.context("waiting for QEMU to connect")??;
    Ok(stream)
}
