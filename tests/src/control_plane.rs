//! A real Kubernetes control plane on loopback: etcd, kube-apiserver and kube-controller-manager, for as long as the value
//! lives that [`ControlPlane::start`] gives.
//!
//! `control-plane/build.sh` beside this provides the programs. Certificates are made at each start and all state is in a
//! temporary folder. The programs end with the value, and should this process be killed, with it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::conditions;
use kube::runtime::wait::await_condition;
use kube::{Client, ResourceExt};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};
use virtnet_local_switch::Programs;

use crate::identities::Authority;
use crate::ports::own_ports;

/// Far longer than a start takes on a machine that is busy too.
pub(crate) const LIMIT: Duration = Duration::from_secs(90);
/// What a cluster does of itself that our kinds need: removal of dependents, of the content of namespaces, the accounts
/// that pods run as, and the rights of roles that are put together.
const CONTROLLERS: &str = "garbage-collector-controller,namespace-controller,serviceaccount-controller,\
                           serviceaccount-token-controller,root-ca-certificate-publisher-controller,\
                           clusterrole-aggregation-controller";

/// A control plane that runs.
pub struct ControlPlane {
    // In the order of their end: nothing is removed under a program that runs.
    programs: Programs,
    apiserver: Command,
    authority: Authority,
    server: String,
    folder: TempDir,
}

impl std::fmt::Debug for ControlPlane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ControlPlane").field("server", &self.server).finish_non_exhaustive()
    }
}

impl ControlPlane {
    /// Starts a control plane with nothing in it, and waits until it serves.
    ///
    /// # Errors
    /// Where the programs can't be had or don't begin to serve; the message has the end of what they logged.
    pub async fn start() -> anyhow::Result<Self> {
        let paths = tokio::task::spawn_blocking(Paths::find).await??;
        let folder = tempfile::Builder::new().prefix("virtnet-control-plane-").tempdir()?;
        let authority = Authority::new(folder.path())?;
        let [clients, peers, secure] = own_ports()?;
        let server = format!("https://127.0.0.1:{secure}");
        let (programs, apiserver) = (Programs::new(folder.path()), Command::new(&paths.apiserver));
        let mut plane = Self { programs, apiserver, authority, server, folder };
        let file = |name: &str| plane.folder.path().join(name).display().to_string();

        let mut etcd = Command::new(&paths.etcd);
        etcd.args(["--name=test", "--unsafe-no-fsync", "--log-level=error"])
            .arg(format!("--data-dir={}", file("etcd")))
            .arg(format!("--listen-client-urls=https://127.0.0.1:{clients}"))
            .arg(format!("--advertise-client-urls=https://127.0.0.1:{clients}"))
            .arg(format!("--listen-peer-urls=https://127.0.0.1:{peers}"))
            .arg(format!("--initial-advertise-peer-urls=https://127.0.0.1:{peers}"))
            .arg(format!("--initial-cluster=test=https://127.0.0.1:{peers}"))
            .args(["--client-cert-auth", "--peer-client-cert-auth"])
            .arg(format!("--trusted-ca-file={}", file("ca.crt")))
            .arg(format!("--cert-file={}", file("server.crt")))
            .arg(format!("--key-file={}", file("server.key")))
            .arg(format!("--peer-trusted-ca-file={}", file("ca.crt")))
            .arg(format!("--peer-cert-file={}", file("server.crt")))
            .arg(format!("--peer-key-file={}", file("server.key")));

        plane
            .apiserver
            .arg(format!("--etcd-servers=https://127.0.0.1:{clients}"))
            .arg(format!("--etcd-cafile={}", file("ca.crt")))
            .arg(format!("--etcd-certfile={}", file("server.crt")))
            .arg(format!("--etcd-keyfile={}", file("server.key")))
            .args(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1"])
            .arg(format!("--secure-port={secure}"))
            .arg(format!("--cert-dir={}", file("apiserver")))
            .arg(format!("--tls-cert-file={}", file("server.crt")))
            .arg(format!("--tls-private-key-file={}", file("server.key")))
            .arg(format!("--client-ca-file={}", file("ca.crt")))
            .arg("--authorization-mode=RBAC")
            .arg("--service-account-issuer=https://kubernetes.default.svc")
            .arg(format!("--service-account-key-file={}", file("accounts.pub")))
            .arg(format!("--service-account-signing-key-file={}", file("accounts.key")))
            .arg("--service-cluster-ip-range=10.0.0.0/24")
            // There is no network that Services could be part of, and nothing here asks for one.
            .arg("--endpoint-reconciler-type=none");

        let admin = plane.kubeconfig_of("admin", "system:masters")?;
        let mut controllers = Command::new(&paths.controller_manager);
        controllers
            .arg(format!("--kubeconfig={}", admin.display()))
            .arg(format!("--service-account-private-key-file={}", file("accounts.key")))
            .arg(format!("--root-ca-file={}", file("ca.crt")))
            .arg(format!("--controllers={CONTROLLERS}"))
            .args(["--leader-elect=false", "--secure-port=0"]);

        plane.programs.start("etcd", &etcd)?;
        plane.start_apiserver().await?;
        plane.programs.start("kube-controller-manager", &controllers)?;
        plane.until_it_controls().await?;
        Ok(plane)
    }

    /// The control plane that the tests of a program share: it ends with the last that holds it.
    ///
    /// # Errors
    /// As of [`ControlPlane::start`].
    pub async fn shared() -> anyhow::Result<Arc<Self>> {
        static SHARED: Mutex<Weak<ControlPlane>> = Mutex::new(Weak::new());
        static STARTING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
        let _one_at_a_time = STARTING.lock().await;
        let running = SHARED.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
        if let Some(plane) = running {
            return Ok(plane);
        }
        let plane = Arc::new(Self::start().await?);
        *SHARED.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&plane);
        Ok(plane)
    }

    /// Where its state and its logs are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The process of one of its programs: `etcd`, `kube-apiserver` or `kube-controller-manager`.
    #[must_use]
    pub fn process(&self, name: &str) -> Option<u32> {
        self.programs.id(name)
    }

    /// Whether all of its programs run.
    ///
    /// # Errors
    /// Where one has ended; the message has the ends of the logs.
    pub fn check(&mut self) -> anyhow::Result<()> {
        self.programs.check()
    }

    /// Kills the API server. All else runs on.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn kill_apiserver(&mut self) -> anyhow::Result<()> {
        self.programs.kill("kube-apiserver")
    }

    /// Starts the API server that was killed, at the same address, and waits until it serves.
    ///
    /// # Errors
    /// Where it does not begin to serve.
    pub async fn start_apiserver(&mut self) -> anyhow::Result<()> {
        self.programs.start("kube-apiserver", &self.apiserver)?;
        self.until_serving().await
    }

    /// A kubeconfig of the cluster's administrator.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("admin.kubeconfig")
    }

    /// Makes a kubeconfig of a user of this group, who proves it by a certificate.
    ///
    /// # Errors
    /// Where it can't be written.
    pub fn kubeconfig_of(&self, user: &str, group: &str) -> anyhow::Result<PathBuf> {
        let path = self.folder.path().join(format!("{}.kubeconfig", user.replace([':', '/'], "-")));
        self.authority.write_kubeconfig(&path, &self.server, user, group)?;
        Ok(path)
    }

    /// A client of the cluster's administrator.
    ///
    /// # Errors
    /// Where its kubeconfig can't be read.
    pub async fn client(&self) -> anyhow::Result<Client> {
        client_of(&self.kubeconfig()).await
    }

    /// Registers our kinds, and waits until they are served.
    ///
    /// # Errors
    /// Where the API server refuses one or does not come to serve it.
    pub async fn install_kinds(&self) -> anyhow::Result<()> {
        let kinds: Api<CustomResourceDefinition> = Api::all(self.client().await?);
        for kind in virtnet_crds::crd::all() {
            let name = kind.name_any();
            let params = PatchParams::apply("virtnet-tests").force();
            kinds
                .patch(&name, &params, &Patch::Apply(&kind))
                .await
                .with_context(|| format!("registering {name}"))?;
            let served = await_condition(kinds.clone(), &name, conditions::is_crd_established());
            timeout(LIMIT, served)
                .await
                .with_context(|| format!("{name} is not served after {} s", LIMIT.as_secs()))??;
        }
        Ok(())
    }

    async fn until_serving(&mut self) -> anyhow::Result<()> {
        let client = self.client().await?;
        self.until("the API server is ready", async || {
            let request = http::Request::get("/readyz").body(Vec::new())?;
            Ok(client.request_text(request).await.is_ok())
        })
        .await
    }

    /// The controllers are at work once they have made the account that each namespace has.
    async fn until_it_controls(&mut self) -> anyhow::Result<()> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client().await?, "default");
        self.until("the controllers are at work", async || Ok(accounts.get_opt("default").await?.is_some()))
            .await
    }

    /// Asks again and again, since a start tells nobody of its end.
    async fn until(
        &mut self,
        what: &str,
        holds: impl AsyncFn() -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let begun = Instant::now();
        while !holds().await.with_context(|| format!("waiting until {what}"))? {
            self.programs.check()?;
            ensure!(
                begun.elapsed() < LIMIT,
                "not seen within {} s: {what}\n{}",
                LIMIT.as_secs(),
                self.programs.logs()
            );
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

/// A client of whom a kubeconfig names.
///
/// # Errors
/// Where it can't be read.
pub async fn client_of(kubeconfig: &Path) -> anyhow::Result<Client> {
    let config = Kubeconfig::read_from(kubeconfig)
        .with_context(|| format!("reading the kubeconfig {}", kubeconfig.display()))?;
    let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// Where the programs are.
struct Paths {
    etcd: PathBuf,
    apiserver: PathBuf,
    controller_manager: PathBuf,
}

impl Paths {
    fn find() -> anyhow::Result<Self> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/control-plane/build.sh");
        let output = Command::new(script)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("running {script}"))?;
        ensure!(output.status.success(), "{script} failed: {}", output.status);
        let text = String::from_utf8(output.stdout)?;
        let mut lines = text.lines().map(PathBuf::from);
        match (lines.next(), lines.next(), lines.next()) {
            (Some(etcd), Some(apiserver), Some(controller_manager)) => {
                Ok(Self { etcd, apiserver, controller_manager })
            }
            _ => bail!("{script} printed {text:?} and not three paths"),
        }
    }
}
