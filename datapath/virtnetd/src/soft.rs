//! `--device soft`: its arguments, the device of them, and the process that moves its packets.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use virtnet_ovsdb::Address;
use virtnet_soft_device::{Carries, Program, SoftConfig, SoftDevice};
use virtnetd::device::Soft;

/// The command by which this program is the process that moves packets.
pub(crate) const WORKER: &str = "soft-worker";

/// What `--device soft` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct SoftArguments {
    /// Which guests are hosts, and how large the DPU in software is, as YAML or JSON (docs/soft-dpu.md)
    #[arg(long, value_name = "FILE", required_if_eq("device", "soft"))]
    soft_config: Option<PathBuf>,
    /// The Open vSwitch behind the representors, as unix:PATH or tcp:HOST:PORT: checksum and segmentation offloads are offered
    /// where it carries them. Without it, the file says so
    #[arg(long, value_name = "ADDRESS")]
    soft_ovsdb: Option<Address>,
}

impl SoftArguments {
    /// Starts the device.
    pub(crate) async fn start(
        &self,
        program: &Path,
        log_arguments: &[String],
        recovers: bool,
    ) -> anyhow::Result<Soft> {
        let Some(file) = &self.soft_config else { bail!("--device soft needs --soft-config") };
        let reading = || format!("reading {}", file.display());
        let text = std::fs::read_to_string(file).with_context(reading)?;
        let config = SoftConfig::parse(&text).with_context(reading)?;
        if recovers && config.hosts.len() > 1 {
            bail!(
                "--recovery-dir: its files don't say on which of several hosts a function was: leave it out, and the agent plugs what is declared"
            );
        }
        let offloads = match &self.soft_ovsdb {
            Some(address) => virtnet_ovsdb::userspace_tso(address.clone()).await?,
            None => config.offloads,
        };
        tracing::info!(offloads, hosts = config.hosts.len(), slots = config.slots(), "a DPU in software");
        let threads = [WORKER.into(), "--threads".into(), config.threads.to_string().into()];
        let arguments: Vec<OsString> =
            threads.into_iter().chain(log_arguments.iter().map(OsString::from)).collect();
        let worker = Program { path: program.to_owned(), arguments: arguments.clone() };
        let device = SoftDevice::start(config, Carries { offloads }, worker)?;
        Ok(Soft { device, arguments })
    }
}

/// Moves packets, as the supervisor at the standard input says.
pub(crate) fn work(threads: usize) -> anyhow::Result<()> {
    let socket = std::io::stdin().as_fd().try_clone_to_owned().context("taking the supervisor's socket")?;
    virtnet_soft::worker::run(socket, threads).context("moving packets")
}
