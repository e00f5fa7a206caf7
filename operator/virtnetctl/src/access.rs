//! How the API is found: a kubeconfig named on the command line, in KUBECONFIG, or that of `virtnetctl local`.

use std::path::{Path, PathBuf};

use anyhow::Context;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tower::service_fn;
use virtnet_client::in_time;

/// Which API is meant.
#[derive(Debug, clap::Args)]
#[group(id = "access")]
pub(crate) struct Arguments {
    /// The kubeconfig of the API [default: KUBECONFIG, or that of virtnetctl local]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

/// Where `virtnetctl local` keeps its state, unless told otherwise.
pub(crate) fn default_state_dir() -> PathBuf {
    let home = || std::env::home_dir().unwrap_or_default().join(".local/state");
    std::env::var_os("XDG_STATE_HOME").map_or_else(home, PathBuf::from).join("virtnet")
}

/// Where the kubeconfig is in a state directory.
pub(crate) fn kubeconfig_in(state_dir: &Path) -> PathBuf {
    state_dir.join("kubeconfig")
}

impl Arguments {
    /// A client by that kubeconfig, or by what is found where none is named.
    pub(crate) async fn client(&self) -> anyhow::Result<Client> {
        let local = kubeconfig_in(&default_state_dir());
        let path = match self.kubeconfig.as_deref() {
            Some(path) => Some(path),
            None if std::env::var_os("KUBECONFIG").is_none() && local.exists() => Some(local.as_path()),
            None => None,
        };
        let config = match path {
            Some(path) => {
                let kubeconfig = Kubeconfig::read_from(path)
                    .with_context(|| format!("reading the kubeconfig {}", path.display()))?;
                Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                    .await
                    .with_context(|| format!("using the kubeconfig {}", path.display()))?
            }
            None => Config::infer().await.context(
                "finding a cluster: name a kubeconfig by --kubeconfig or KUBECONFIG, or start one with \
                 virtnetctl local",
            )?,
        };
        let url = config.cluster_url.to_string();
        Ok(named(in_time(Client::try_from(config).context("making a client")?), &url))
    }
}

/// A client of the same API that names it where it gives no answer.
fn named(client: Client, url: &str) -> Client {
    let namespace = client.default_namespace().to_owned();
    let silent = format!("no answer from the API at {url}; is it running?");
    let ask = move |request| {
        let (client, silent) = (client.clone(), silent.clone());
        async move {
            client.send(request).await.map_err(|error| match error {
                kube::Error::Service(source) => {
                    kube::Error::Service(anyhow::Error::from_boxed(source).context(silent).into())
                }
                other => other,
            })
        }
    };
    Client::new(service_fn(ask), namespace)
}
