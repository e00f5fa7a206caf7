//! The parent: keeps the device, what is to be known of VFs to come, and the clients' sockets, while workers come and go.

mod conf;
mod device;
mod extra;
mod health;
mod program;
mod systemd;
mod update;
mod upstream;
mod workers;

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures::StreamExt;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use virtnet_controller::conf::{Conf, RdmaDevices};
use virtnet_controller::{DeviceModel, Notifier};
use virtnet_model::Controller;
use virtnet_rpc::Server;
use virtnet_telemetry::LogLevel;

use crate::device::Device;
use crate::recovery::{self, Recovery};
use crate::socket::Listening;
use crate::store::{Left, Store};
use conf::Source;
use extra::Methods;
use health::Condition;
use systemd::Systemd;
use upstream::Upstream;
pub use workers::Patience;
use workers::Workers;

/// How long the service may take to end in good order.
const LAST: Duration = Duration::from_secs(60);

/// What a parent is told.
#[derive(Debug)]
pub struct Config {
    /// The text of virtnet.conf.
    pub conf: String,
    /// Where it was read, and is read again before each worker that is asked for.
    pub conf_file: Option<PathBuf>,
    /// The program that workers are: this one.
    pub program: PathBuf,
    /// The socket of clients.
    pub listening: Listening,
    /// What an earlier start left with systemd.
    pub left: Left,
    /// The recovery files; `None`: there are none.
    pub recovery: Option<recovery::Settings>,
    /// By which arguments they log as this process does.
    pub log_arguments: Vec<String>,
    /// What this process logs.
    pub log: LogLevel,
    /// Is told of the process of the worker of now.
    pub worker: watch::Sender<Option<u32>>,
    /// How long what does not answer is waited for.
    pub patience: Patience,
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
    /// What must survive this process too.
    store: Store,
    /// Tells clients that something changed.
    notifier: Notifier,
    /// How the service is.
    condition: Condition,
}

/// Serves a device until it is asked to stop. What could not be cleared away then is told.
///
/// # Errors
/// Where the end was not in good order.
pub async fn run(
    config: Config,
    device: impl Into<Device>,
    mut wishes: mpsc::Receiver<Wish>,
) -> anyhow::Result<()> {
    let device = device.into();
    let Config { conf, conf_file, program, listening, left, recovery, log_arguments, log, worker, patience } =
        config;
    let Listening { listener, file } = listening;
    let shared = Arc::new(Shared {
        device: device.model(),
        store: Store::open(left, listener.as_fd())?,
        notifier: Notifier::new(),
        condition: Condition::default(),
    });
    let rdma_devices = Conf::parse(&conf).context("reading virtnet.conf")?.rdma_devices;
    let mut recovery = match recovery {
        Some(settings) => {
            let profile = shared.device.watch().await.context("looking at the device")?.state.profile;
            Some(Recovery::open(settings, &profile)?)
        }
        None => None,
    };
    let worker_now = worker.subscribe();
    let conf = Arc::new(Source::new(conf, conf_file));
    let workers = Workers::new(
        program.clone(),
        log_arguments,
        Arc::clone(&conf),
        Arc::clone(&shared),
        worker,
        patience,
        device.clone(),
    );
    let upstream = Arc::new(Upstream::new(workers.state(), Arc::clone(&shared)));
    let methods = Arc::new(Methods {
        shared: Arc::clone(&shared),
        upstream: Arc::clone(&upstream),
        workers: workers.handle(),
        worker: worker_now,
        conf,
        installed: program,
        device: device.clone(),
        log,
    });
    let server = Server::new(listener, Arc::<Upstream>::clone(&upstream), methods);
    let handle = workers.handle();
    let working = workers.run();
    tokio::pin!(working);

    let serve = async {
        // Nobody is served before what was lost is there again, unless the controller can't serve: then they are told why.
        if let Some(recovery) = &mut recovery {
            recovery.restore(&*upstream, &rdma_devices).await?;
        }
        let systemd = async {
            ready(&upstream).await;
            Systemd::from_environment().tell().await;
        };
        tokio::select! {
            () = server.serve() => Ok(()),
            () = systemd => Ok(()),
            ended = follow(&mut recovery, &upstream, &rdma_devices) => ended,
        }
    };
    let wishes = async {
        loop {
            match wishes.recv().await {
                Some(Wish::Restart) => handle.restart(),
                Some(Wish::Stop) | None => return,
            }
        }
    };
    tokio::select! {
        ended = serve => return ended,
        ended = &mut working => return ended,
        () = wishes => {}
    }

    // Nobody is served any more, but the worker goes on until it has ended in order.
    systemd::stopping();
    tracing::info!("the service ends, and hot-plugged functions with it");
    let end = async {
        let state = upstream.observe().await;
        upstream.end().await?;
        if let Some(recovery) = &recovery {
            recovery.forget_plugged(state.ok().as_ref()).await;
        }
        Ok(())
    };
    let ended = tokio::select! {
        ended = &mut working => ended,
        ended = timeout(LAST, end) => {
            ended.unwrap_or_else(|_| anyhow::bail!("the controller did not end within {} s", LAST.as_secs()))
        }
    };
    if timeout(LAST, device.close()).await.is_err() {
        tracing::warn!("not all functions were closed within {} s", LAST.as_secs());
    }
    shared.store.close();
    drop(file);
    ended
}

/// Waits until the controller serves. What keeps it from that a person may have to mend, so systemd is told of it.
async fn ready(upstream: &Upstream) {
    let mut events = upstream.events();
    let mut told = None;
    while let Err(error) = upstream.observe().await {
        let why = error.to_string();
        if told.as_ref() != Some(&why) {
            tracing::warn!("not ready yet: {why}");
            systemd::status(&format!("does not serve: {why}"));
            told = Some(why);
        }
        if events.next().await.is_none() {
            return;
        }
    }
    if told.is_some() {
        systemd::status("serves");
    }
}

/// Keeps the recovery files, where there are any.
async fn follow(
    recovery: &mut Option<Recovery>,
    upstream: &Upstream,
    rdma_devices: &RdmaDevices,
) -> anyhow::Result<()> {
    match recovery {
        Some(recovery) => recovery.follow(upstream, rdma_devices).await,
        None => std::future::pending().await,
    }
}
