//! The parent: keeps the device, what is to be known of VFs to come, and the clients' sockets, while workers come and go.

mod device;
mod extra;
mod program;
mod systemd;
mod update;
mod upstream;
mod workers;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use virtnet_controller::conf::Conf;
use virtnet_controller::{DeviceModel, Notifier, Prepared};
use virtnet_rpc::Server;
use virtnet_sim::Sim;
use virtnet_telemetry::LogLevel;

use crate::socket::Listening;
use extra::Methods;
use systemd::Systemd;
use upstream::Upstream;
use workers::Workers;

/// How long the service may take to end in good order.
const LAST: Duration = Duration::from_secs(60);

/// What a parent is told.
#[derive(Debug)]
pub struct Config {
    /// The text of virtnet.conf.
    pub conf: String,
    /// The program that workers are: this one.
    pub program: PathBuf,
    /// The socket of clients.
    pub listening: Listening,
    /// By which arguments they log as this process does.
    pub log_arguments: Vec<String>,
    /// What this process logs.
    pub log: LogLevel,
    /// Is told of the process of the worker of now.
    pub worker: watch::Sender<Option<u32>>,
}

/// What a parent is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// End, and the hot-plugged functions with it (the guide, section 1.2).
    Stop,
    /// Let another worker take over. Functions stay.
    Restart,
}

/// What all parts of a parent share.
#[derive(Debug)]
struct Shared {
    device: Arc<dyn DeviceModel>,
    kept: Mutex<Prepared>,
    /// Tells clients that something changed.
    notifier: Notifier,
}

/// Serves a simulated DPU until it is asked to stop. What could not be cleared away then is told.
///
/// # Errors
/// Where the end was not in good order.
pub async fn run(config: Config, sim: Sim, mut wishes: mpsc::Receiver<Wish>) -> anyhow::Result<()> {
    let Config { conf, program, listening, log_arguments, log, worker } = config;
    let Listening { listener, file } = listening;
    let shared = Arc::new(Shared { device: sim.device(), kept: Mutex::default(), notifier: Notifier::new() });
    let generation = Conf::parse(&conf).context("reading virtnet.conf")?.engine.generation;
    let workers =
        Workers::new(program.clone(), log_arguments, (conf, generation), Arc::clone(&shared), worker);
    let upstream = Arc::new(Upstream::new(workers.state(), shared.notifier.clone()));
    let methods = Arc::new(Methods::new(Arc::clone(&upstream), workers.handle(), program, sim, log));
    let server = Server::new(listener, Arc::<Upstream>::clone(&upstream), methods);
    let systemd = Systemd::from_environment();
    let handle = workers.handle();
    let serve = async {
        tokio::select! {
            () = server.serve() => Ok(()),
            () = systemd.tell(&upstream) => Ok(()),
            ended = workers.run() => ended,
        }
    };
    tokio::pin!(serve);
    let wishes = async {
        loop {
            match wishes.recv().await {
                Some(Wish::Restart) => handle.restart(),
                Some(Wish::Stop) | None => return,
            }
        }
    };
    tokio::select! {
        ended = &mut serve => return ended,
        () = wishes => {}
    }
    systemd::stopping();
    tracing::info!("the service ends, and hot-plugged functions with it");
    let ended = async {
        tokio::select! {
            ended = &mut serve => ended,
            ended = timeout(LAST, upstream.end()) => {
                ended.unwrap_or_else(|_| anyhow::bail!("the controller did not end within {} s", LAST.as_secs()))
            }
        }
    };
    let ended = ended.await;
    drop(file);
    ended
}
