//! How the API is found: a kubeconfig named on the command line, in KUBECONFIG, or that of `virtnetctl local`.

use std::path::{Path, PathBuf};

use anyhow::Context;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

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
            let kubeconfig =
                Kubeconfig::read_from(path).with_context(|| format!("reading the kubeconfig {}", path.display()))?;
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("using the kubeconfig {}", path.display()))?
        }
        None => Config::infer().await.context(
            "finding a cluster: name a kubeconfig by --kubeconfig or KUBECONFIG, or start one with virtnetctl local",
        )?,
    };
        Client::try_from(config).context("making a client")
    }
}
