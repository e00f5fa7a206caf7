//! A client of the API by a kubeconfig.

use std::path::Path;

use anyhow::Context;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// A client by this kubeconfig; `None`: by what there is, as kubectl does, or in a pod.
///
/// # Errors
/// Where the kubeconfig can't be read, or there is none.
pub async fn connect(kubeconfig: Option<&Path>) -> anyhow::Result<Client> {
    let config = match kubeconfig {
        Some(path) => {
            let kubeconfig = Kubeconfig::read_from(path)
                .with_context(|| format!("reading the kubeconfig {}", path.display()))?;
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("using the kubeconfig {}", path.display()))?
        }
        None => Config::infer().await.context("finding the API: name a kubeconfig by --kubeconfig")?,
    };
    Client::try_from(config).context("making a client of the API")
}
