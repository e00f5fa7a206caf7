//! `virtnetd`: arguments, telemetry and wiring.

#[cfg(feature = "soft")]
mod soft;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::{Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use virtnet_controller::conf::Conf;
use virtnet_model::{Mac, Netdevs};
use virtnet_netlink::Taps;
use virtnet_rpc::{Client, DEFAULT_SOCKET};
use virtnet_sim::{FirmwareConfig, Sim, SimConfig};
use virtnet_telemetry::{LogArguments, LogLevel};
use virtnetd::parent::{self, Config, Patience, Wish};
use virtnetd::store::Left;
use virtnetd::{host, recovery, socket, worker};

/// Threads of the parent, which only passes on what others say.
const THREADS: usize = 2;

const EXAMPLES: &str = "\
Examples:
  virtnetd --device sim --socket /tmp/virtnetd.sock       A simulated DPU
  virtnetd --device sim --config virtnet.conf             At the socket that virtnet and the unit have by default
  virtnetd --device soft --soft-config soft.yaml          A DPU in software, for guests of QEMU
  virtnetd host sriov 0 2                                 The simulated host makes two VFs of PF 0
  virtnetd check virtnet.conf                             What is wrong with a file, by line and key

SIGTERM ends the service, and hot-plugged functions with it; SIGHUP lets another worker take over, and functions stay.";

/// The virtio-net controller of a DPU as a service.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES, args_conflicts_with_subcommands = true, propagate_version = true)]
struct Arguments {
    #[command(flatten)]
    logs: LogArguments,
    #[command(flatten)]
    serve: Serve,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Args)]
struct Serve {
    /// What the controller runs on
    #[arg(long, value_enum, required = true)]
    device: Option<Device>,
    /// virtnet.conf; without it, each setting has its default
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where clients connect
    #[arg(long, default_value = DEFAULT_SOCKET, value_name = "PATH")]
    socket: PathBuf,
    /// Where a file is kept for each function, by which those that are lost with this process are made again at its next start.
    /// Without it, none are
    #[arg(long, value_name = "DIR")]
    recovery_dir: Option<PathBuf>,
    /// Firmware values of the simulated DPU, of the second port as p1/KEY=VALUE
    #[arg(long, value_name = "KEY=VALUE,…", default_value = "", hide_default_value = true)]
    sim_firmware: String,
    /// The simulated DPU's own MAC, of which others are made: different for each DPU of a fleet
    #[arg(long, value_name = "MAC")]
    sim_mac: Option<Mac>,
    /// Whether p0 and p1 of the simulated DPU are one bond when it is switched on. Without it, as virtnet.conf has it (is_lag)
    #[arg(long, value_name = "true|false", action = clap::ArgAction::Set)]
    sim_bond: Option<bool>,
    /// The simulated host binds no driver by itself
    #[arg(long)]
    sim_no_drivers: bool,
    /// Each representor is a TAP in the network namespace of this process
    #[arg(long)]
    sim_taps: bool,
    #[cfg(feature = "soft")]
    #[command(flatten)]
    soft: soft::SoftArguments,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Device {
    /// A simulated DPU with its host, in memory: gone with this process
    Sim,
    /// A DPU in software: its functions are for guests of QEMU, its representors TAPs of this process's network namespace
    #[cfg(feature = "soft")]
    Soft,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Do something at the simulated host
    Host(host::Arguments),
    /// Say what is wrong with a virtnet.conf
    Check {
        /// The file
        file: PathBuf,
    },
    /// What virtnetd starts by itself
    #[command(hide = true)]
    Worker,
    /// What virtnetd starts by itself, to move the packets of functions in software
    #[cfg(feature = "soft")]
    #[command(hide = true, name = soft::WORKER)]
    SoftWorker {
        /// How many threads
        #[arg(long)]
        threads: usize,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let log = arguments.logs.begin();
    match run(arguments, log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments, log: LogLevel) -> anyhow::Result<()> {
    let Arguments { logs, serve, command } = arguments;
    #[cfg(feature = "soft")]
    if let Some(Command::SoftWorker { threads }) = command {
        return soft::work(threads);
    }
    // Before there are threads, since it takes them out of the environment.
    let left = command.is_none().then(Left::from_environment).unwrap_or_default();
    let mut builder = match command {
        // One engine does one thing after another, so it has no use for more threads.
        Some(Command::Worker) => {
            end_by_panic();
            tokio::runtime::Builder::new_current_thread()
        }
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = builder.worker_threads(THREADS).enable_all().build().context("starting the runtime")?;
    runtime.block_on(async {
        match command {
            None => run_parent(serve, logs, log, left).await,
            Some(Command::Worker) => {
                worker::run(worker::parent()?, log).await;
                Ok(())
            }
            Some(Command::Host(host)) => {
                let (method, params) = host.request()?;
                Ok(Client::connect(&host.socket).call::<()>(method, &params).await?)
            }
            Some(Command::Check { file }) => read_conf(Some(&file)).map(|_| ()),
            #[cfg(feature = "soft")]
            Some(Command::SoftWorker { .. }) => unreachable!("it needs no runtime and was run before"),
        }
    })
}

/// A task of a worker that panics would leave a process that looks alive and serves nothing: it ends, and another is started.
fn end_by_panic() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        std::process::exit(101);
    }));
}

async fn run_parent(serve: Serve, logs: LogArguments, log: LogLevel, mut left: Left) -> anyhow::Result<()> {
    let wishes = wishes()?;
    let program = std::env::current_exe().context("finding this program")?;
    let (conf, parsed) = read_conf(serve.config.as_deref())?;
    let listening = socket::listen(&serve.socket, left.clients(&serve.socket))?;
    let recovery = serve.recovery_dir.clone().filter(|_| parsed.recovery).map(recovery::Settings::new);
    let log_arguments = logs.to_arguments();
    let device: virtnetd::device::Device = match serve.device {
        #[cfg(feature = "soft")]
        Some(Device::Soft) => {
            let device = serve.soft.start(&program, &log_arguments, recovery.is_some()).await?.into();
            tracing::info!(socket = %serve.socket.display(), "serves a DPU in software");
            device
        }
        Some(Device::Sim) | None => {
            let device = simulated(&serve, parsed)?.into();
            tracing::info!(socket = %serve.socket.display(), "serves a SIMULATED DPU");
            device
        }
    };
    let config = Config {
        conf,
        conf_file: serve.config,
        program,
        listening,
        left,
        recovery,
        log_arguments,
        log,
        worker: watch::Sender::new(None),
        patience: Patience::default(),
    };
    parent::run(config, device, wishes).await
}

/// A simulated DPU as the arguments say.
fn simulated(serve: &Serve, conf: Conf) -> anyhow::Result<Sim> {
    let Conf { engine, rdma_devices, recovery: _ } = conf;
    let firmware = FirmwareConfig::guide_with(&serve.sim_firmware).context("reading --sim-firmware")?;
    let default = SimConfig::default();
    let config = SimConfig {
        firmware,
        engine,
        rdma_devices,
        bonded: serve.sim_bond,
        autoprobe: !serve.sim_no_drivers,
        base_mac: serve.sim_mac.unwrap_or(default.base_mac),
        ..default
    };
    let netdevs = serve.sim_taps.then(|| Arc::new(Taps::new(None)) as Arc<dyn Netdevs>);
    Ok(Sim::device_only(config, netdevs))
}

/// The text of virtnet.conf, and what it says.
fn read_conf(file: Option<&Path>) -> anyhow::Result<(String, Conf)> {
    let Some(file) = file else { return Ok(("{}".to_owned(), Conf::default())) };
    let reading = || format!("reading {}", file.display());
    let text = std::fs::read_to_string(file).with_context(reading)?;
    let conf = Conf::parse(&text).with_context(reading)?;
    Ok((text, conf))
}

/// What signals ask for, from this call on.
fn wishes() -> anyhow::Result<mpsc::Receiver<Wish>> {
    let (sender, wishes) = mpsc::channel(8);
    for (kind, wish) in [
        (SignalKind::terminate(), Wish::Stop),
        (SignalKind::interrupt(), Wish::Stop),
        (SignalKind::hangup(), Wish::Restart),
    ] {
        let signals = signal(kind).context("listening for signals")?;
        tokio::spawn(pass_on(signals, wish, sender.clone()));
    }
    Ok(wishes)
}

async fn pass_on(mut signals: Signal, wish: Wish, wishes: mpsc::Sender<Wish>) {
    while signals.recv().await.is_some() {
        if wishes.send(wish).await.is_err() {
            return;
        }
    }
}
