//! `virtnetctl local`: everything on this machine, until stopped or until all is Ready.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::watch;
use virtnet_crds::metadata::dpu_name;
use virtnet_embedded_api::Listen;

use crate::dpu::{self, Dpu};
use crate::folder::{self, Folder, Outcome};
use crate::machine::{Machine, Plan};
use crate::ready::{self, Standing};
use crate::{access, output, stop};

const EXAMPLES: &str = "\
Examples:
  virtnetctl local --manifests manifests/samples          Until Ctrl-C; kubectl works in another terminal
  virtnetctl local --manifests DIR --until-ready=60       Whether a folder of manifests becomes Ready, for CI
  virtnetctl local --firmware VIRTIO_NET_EMULATION_NUM_PF=4,PF_TOTAL_SF=524
  virtnetctl local --virtnet-conf virtnet.conf            With LAG, an SF pool, MACs for VFs, or the later generation
  virtnetctl local --controller unix:/run/virtnetd/virtnetd.sock --switch ovsdb:unix:/run/openvswitch/db.sock
                                                          The DPU that virtnetd and Open vSwitch are of";

/// How often it is looked whether the agent finds what the API says.
const LOOK: Duration = Duration::from_millis(50);

/// What `local` is told.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The DPU's name: devices with this spec.dpu are its own
    #[arg(long, default_value = "dpu-0", value_name = "NAME", value_parser = dpu_name)]
    dpu: String,
    /// A folder of manifests that is applied and kept in step, removal included
    #[arg(long, value_name = "DIR")]
    manifests: Option<PathBuf>,
    /// Where the state is kept; the kubeconfig is DIR/kubeconfig [default: ~/.local/state/virtnet]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Where the API listens: a loopback address with a port, 0 for a free one, or unix:PATH
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS", value_parser = listen)]
    listen: Listen,
    /// Serve the page to look at, to whoever is on this machine, on a loopback address with a port (a free one)
    #[arg(
        long, value_name = "ADDRESS", num_args = 0..=1, require_equals = true, default_missing_value = "127.0.0.1:0",
        value_parser = page
    )]
    page: Option<SocketAddr>,
    #[command(flatten)]
    machine: dpu::Arguments,
    /// Exit 0 as soon as all devices are Ready; 1 after SECONDS (300), with the list of what is not, and why
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "300")]
    until_ready: Option<u64>,
}

/// Runs it.
pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let mut stop = stop::Requests::listen()?;
    let state_dir = arguments.state_dir.unwrap_or_else(access::default_state_dir);
    let state_dir = std::path::absolute(&state_dir).context("finding the state directory")?;
    if let Some(path) = &arguments.manifests {
        folder::check(path)?;
    }
    let dpu = Dpu::new(&arguments.machine)?;
    let (listen, page) = (arguments.listen, arguments.page);
    let plan = Plan { dpu: &arguments.dpu, state_dir: &state_dir, listen, page, parts: dpu.parts() };
    let machine = Machine::start(plan).await?;
    dpu.tell(&arguments.dpu);
    machine.tell_page();
    machine.tell_kubeconfig();
    let limit = arguments.until_ready.map(Duration::from_secs);
    let code = tokio::select! {
        result = serve(&machine, arguments.manifests.as_deref(), limit) => result,
        () = stop.next() => Ok(match limit {
            None => ExitCode::SUCCESS,
            // Whoever waits for that must not take it for so.
            Some(_) => {
                output::line("stopped before all devices were Ready");
                ExitCode::FAILURE
            }
        }),
    };
    machine.stop().await;
    code
}

async fn serve(
    machine: &Machine,
    folder: Option<&Path>,
    limit: Option<Duration>,
) -> anyhow::Result<ExitCode> {
    // Of no folder, nothing is wrong.
    let (told, outcome) = watch::channel(folder.is_none().then(Outcome::default));
    let keep = async {
        match folder {
            None => std::future::pending().await,
            Some(path) => {
                let folder = Folder::new(path, machine.client.clone())?;
                folder
                    .keep(|outcome| {
                        tell(outcome);
                        told.send_replace(Some(outcome.clone()));
                    })
                    .await
            }
        }
    };
    let ready = async {
        match limit {
            None => std::future::pending().await,
            Some(limit) => until_ready(machine, outcome, limit).await,
        }
    };
    tokio::select! {
        result = keep => match result? {},
        result = ready => result,
    }
}

/// Waits until what is declared is in the API and all devices are Ready.
async fn until_ready(
    machine: &Machine,
    mut outcome: watch::Receiver<Option<Outcome>>,
    limit: Duration,
) -> anyhow::Result<ExitCode> {
    let client = &machine.client;
    let clean =
        |outcome: &Option<Outcome>| outcome.as_ref().is_some_and(|outcome| outcome.problems.is_empty());
    let settled = async {
        loop {
            ready::wait(client, "Ready", None, Standing::ready).await?;
            outcome.wait_for(clean).await.context("waiting for the manifests")?;
            // A file mended meanwhile may have added a device.
            let standing = ready::standing(client).await?;
            // What is stored may be of an earlier run, until this one's agent has looked.
            let found = usize::try_from(machine.metrics.ready.get()).unwrap_or_default();
            if standing.is_ready() && found >= standing.all {
                return anyhow::Ok(standing);
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    if let Ok(settled) = tokio::time::timeout(limit, settled).await {
        output::line(&format!("{0} of {0} devices are Ready", settled?.all));
        return Ok(ExitCode::SUCCESS);
    }
    let standing = ready::standing(client).await?;
    let problems = outcome.borrow().as_ref().map(|outcome| outcome.problems.clone()).unwrap_or_default();
    let (ready, all, after) = (standing.ready(), standing.all, limit.as_secs());
    output::line(&format!("{ready} of {all} devices are Ready after {after} s"));
    for line in standing.not_ready.iter().chain(&problems) {
        output::line(&format!("  {line}"));
    }
    Ok(ExitCode::FAILURE)
}

/// Parses `127.0.0.1:6443` or `unix:PATH`.
fn listen(text: &str) -> Result<Listen, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return Ok(Listen::Unix(path.into()));
    }
    text.parse()
        .map(Listen::Tcp)
        .map_err(|_| "say a loopback address with a port, such as 127.0.0.1:6443, or unix:PATH".to_owned())
}

/// Parses `127.0.0.1:9404`. Whoever reaches the page may read it, so it is for this machine alone.
fn page(text: &str) -> Result<SocketAddr, String> {
    let address = text.parse().ok().filter(|address: &SocketAddr| address.ip().is_loopback());
    address.ok_or_else(|| "say a loopback address with a port, such as 127.0.0.1:9404".to_owned())
}

fn tell(outcome: &Outcome) {
    let Outcome { applied, removed, problems, .. } = outcome;
    let mut text = format!("manifests: {applied} applied");
    if *removed > 0 {
        text.push_str(&format!(", {removed} removed"));
    }
    match problems.len() {
        0 => {}
        1 => text.push_str(", 1 problem"),
        count => text.push_str(&format!(", {count} problems")),
    }
    output::line(&text);
    for problem in problems {
        output::error(problem);
    }
}
