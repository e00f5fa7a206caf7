//! One machine with everything on it: the embedded API with its listener, a DPU, an agent and the operator.

use std::fs::DirBuilder;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::core::v1::Namespace;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use tokio::task::JoinHandle;
use virtnet_agent::{Clock, Metrics, Parts};
use virtnet_crds::LEASE_NAMESPACE;
use virtnet_embedded_api::{self as embedded, FileDisk, Listen, Server};
use virtnet_operator::Leadership;
use virtnet_page::{Board, Page};

use crate::output;

/// How long a stopping listener waits for requests that are under way.
const FAREWELL: Duration = Duration::from_secs(2);

/// What a machine is made of.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    /// The DPU's name.
    pub(crate) dpu: &'a str,
    /// Where the API's state, its credentials and the kubeconfig are.
    pub(crate) state_dir: &'a Path,
    /// Where the API listens.
    pub(crate) listen: Listen,
    /// Where the page is served, if it is.
    pub(crate) page: Option<SocketAddr>,
    /// The hands of the agent.
    pub(crate) parts: Parts,
}

/// A machine that runs.
pub(crate) struct Machine {
    /// A client of its API, in process.
    pub(crate) client: Client,
    /// What its agent counts.
    pub(crate) metrics: Metrics,
    /// What kubectl needs; none on a unix socket, which kubectl can't use.
    kubeconfig: Option<PathBuf>,
    /// Where the page is.
    page: Option<SocketAddr>,
    api: embedded::Api,
    server: Server,
    agent: JoinHandle<()>,
    operator: JoinHandle<()>,
    serving: Option<JoinHandle<()>>,
}

impl Machine {
    /// Starts all of it.
    pub(crate) async fn start(plan: Plan<'_>) -> anyhow::Result<Self> {
        let Plan { dpu, state_dir, listen, page, parts } = plan;
        let board = Board::default();
        // First, since an address that is taken is best told before anything is there.
        let page = match page {
            Some(address) => {
                let page = Page::bind(address, board.clone()).await;
                Some(page.with_context(|| format!("serving the page on {address}: see --page"))?)
            }
            None => None,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(state_dir)
            .with_context(|| format!("making the state directory {}", state_dir.display()))?;
        let disk = FileDisk::open(&state_dir.join("api.redb")).context("opening the API's state")?;
        let config = embedded::Config::new(virtnet_crds::crd::all(), Arc::new(disk));
        let api = embedded::Api::open(config).await.context("opening the API")?;
        let server = Server::start(&api, listen, state_dir).await.context("starting the API's listener")?;
        let client = Client::new(api.service(), "default");
        make_namespace(&client, LEASE_NAMESPACE).await?;
        let config =
            virtnet_agent::Config { dpu: dpu.to_owned(), lease_namespace: LEASE_NAMESPACE.to_owned() };
        let metrics = Metrics::default();
        let agent = virtnet_agent::run(config, client.clone(), parts, Clock::system(), metrics.clone());
        let operator = operate(client.clone(), page.is_some().then_some(board));
        let kubeconfig = server.kubeconfig_path().map(Path::to_owned);
        let (agent, operator) = (tokio::spawn(agent), tokio::spawn(operator));
        let address = page.as_ref().map(Page::address).transpose().context("finding where the page is")?;
        let serving = page.map(|page| tokio::spawn(serve(page)));
        Ok(Self { client, metrics, kubeconfig, page: address, api, server, agent, operator, serving })
    }

    /// Prints where the page is.
    pub(crate) fn tell_page(&self) {
        if let Some(address) = self.page {
            output::line(&format!("Look at it in a browser: http://{address}/"));
        }
    }

    /// Prints the line that points kubectl here.
    pub(crate) fn tell_kubeconfig(&self) {
        match &self.kubeconfig {
            Some(path) => output::line(&format!("export KUBECONFIG={}", path.display())),
            None => output::line("kubectl can't use a unix socket: there is no kubeconfig"),
        }
    }

    /// Stops all of it: agent and operator first, so that what they had under way is not refused by an API that is gone.
    pub(crate) async fn stop(self) {
        for task in [self.agent, self.operator].into_iter().chain(self.serving) {
            task.abort();
            // Cancelled is what was asked for.
            let _ = task.await;
        }
        drop(self.client);
        // Watches that others hold open end here at the latest.
        let _ = tokio::time::timeout(FAREWELL, self.server.shutdown()).await;
        self.api.close().await;
    }
}

/// The one operator of this machine.
async fn operate(client: Client, board: Option<Board>) {
    let config = virtnet_operator::Config {
        lease_namespace: LEASE_NAMESPACE.to_owned(),
        identity: "local".to_owned(),
        board,
    };
    let metrics = virtnet_operator::Metrics::default();
    virtnet_operator::run(config, client, Clock::system(), metrics, &Leadership::of_one()).await;
}

async fn serve(page: Page) {
    if let Err(error) = page.serve().await {
        output::error(&format!("serving the page: {error}"));
    }
}

async fn make_namespace(client: &Client, name: &str) -> anyhow::Result<()> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    namespaces
        .patch(name, &PatchParams::apply("virtnetctl"), &Patch::Apply(namespace))
        .await
        .with_context(|| format!("making the namespace {name}"))?;
    Ok(())
}
