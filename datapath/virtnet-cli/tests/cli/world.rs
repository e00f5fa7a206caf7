//! What the tests share: a simulated DPU whose controller is served on a socket, and the program run against it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::task::AbortHandle;
use virtnet_model::{ControllerState, Function, FunctionId, Generation, Uplink, Vuid};
use virtnet_rpc::method::{self, Health, LastUpdate, Level, Log, UpdateStatus, Validate, Validated, Version};
use virtnet_rpc::{Extra, Fault, Server, raw, read};
use virtnet_sim::{Sim, SimConfig};

/// Far longer than anything takes, on a machine that is busy too.
const LIMIT: Duration = Duration::from_secs(60);

/// What the service has beside its controller.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) levels: Mutex<Vec<Level>>,
    /// Of what else something was asked.
    pub(crate) asked: Mutex<Vec<String>>,
    /// The texts that were to be validated.
    pub(crate) validated: Mutex<Vec<Option<String>>>,
    /// How the service is.
    pub(crate) health: Mutex<Health>,
}

#[async_trait]
impl Extra for Told {
    async fn call(
        &self,
        name: &str,
        params: &serde_json::value::RawValue,
    ) -> Result<Box<serde_json::value::RawValue>, Fault> {
        match name {
            method::LOG => {
                let Log { level } = read(name, params)?;
                self.levels.lock().unwrap().push(level);
                raw(&())
            }
            method::VERSION => {
                raw(&Version { running: "v24.10.13".to_owned(), installed: "v24.10.16".to_owned() })
            }
            method::RESTART | method::UPDATE => {
                self.asked.lock().unwrap().push(name.to_owned());
                raw(&())
            }
            method::UPDATE_STATUS => {
                let last = LastUpdate { failure: None, seconds: 1.655 };
                raw(&UpdateStatus { running: false, last: Some(last) })
            }
            method::HEALTH => raw(&*self.health.lock().unwrap()),
            method::VALIDATE => {
                let Validate { conf } = read(name, params)?;
                let (file, text) = match &conf {
                    Some(text) => (None, text.clone()),
                    None => (Some("/etc/virtnetd/virtnet.conf".to_owned()), String::new()),
                };
                let errors =
                    if text.contains("nonsense") { vec!["line 1: nonsense".to_owned()] } else { vec![] };
                let warnings =
                    if errors.is_empty() { vec!["PF_TOTAL_SF is small".to_owned()] } else { vec![] };
                self.validated.lock().unwrap().push(conf);
                raw(&Validated { file, errors, warnings })
            }
            method::DEBUG => raw(&serde_json::json!({"worker": {"process": 4711}})),
            _ => Err(Fault::no_such_method(name)),
        }
    }
}

/// A DPU with its controller service.
pub(crate) struct World {
    pub(crate) sim: Sim,
    pub(crate) told: Arc<Told>,
    folder: TempDir,
    server: AbortHandle,
}

impl Drop for World {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl World {
    /// With these firmware settings, at rest.
    pub(crate) async fn start(firmware: &[&str]) -> Self {
        let mut config = SimConfig::default();
        config.set_firmware(firmware).unwrap();
        Self::of(config).await
    }

    /// The same of the later generation.
    pub(crate) async fn later(firmware: &[&str]) -> Self {
        let mut config = SimConfig::default();
        config.set_firmware(firmware).unwrap();
        config.engine.generation = Generation::Later;
        Self::of(config).await
    }

    /// A DPU of this configuration, at rest.
    pub(crate) async fn of(config: SimConfig) -> Self {
        let host_on = config.host_on;
        let generation = config.engine.generation;
        let rdma_devices = [Uplink::P0, Uplink::P1, Uplink::Bond]
            .map(|uplink| (uplink, config.rdma_devices.of(uplink).to_owned()))
            .into();
        let sim = Sim::new(config);
        let folder = TempDir::new().unwrap();
        let told = Arc::new(Told::default());
        *told.health.lock().unwrap() = Health { generation, rdma_devices, ..Health::default() };
        let listener = UnixListener::bind(folder.path().join("virtnetd.sock")).unwrap();
        let extra: Arc<dyn Extra> = Arc::<Told>::clone(&told);
        let server = tokio::spawn(Server::new(listener, sim.queues(), extra).serve()).abort_handle();
        let world = Self { sim, told, folder, server };
        if host_on {
            world.wait("drivers are bound", in_use).await;
        } else {
            world.wait("the controller has started", |_| true).await;
        }
        world
    }

    /// Waits until the controller reports this.
    pub(crate) async fn wait(
        &self,
        what: &str,
        enough: impl Fn(&ControllerState) -> bool,
    ) -> ControllerState {
        let controller = self.sim.controller();
        let wait = async {
            loop {
                // It may be starting.
                if let Ok(state) = controller.observe().await
                    && enough(&state)
                {
                    return state;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LIMIT, wait).await.unwrap_or_else(|_| panic!("never: {what}"))
    }

    /// Waits until this many functions are in use by the host.
    pub(crate) async fn wait_in_use(&self, count: usize) -> ControllerState {
        self.wait("drivers are bound", |state| state.functions.len() == count && in_use(state)).await
    }

    pub(crate) async fn state(&self) -> ControllerState {
        self.sim.controller().observe().await.unwrap()
    }

    /// The function of this VUID.
    pub(crate) async fn function(&self, vuid: &str) -> Function {
        let vuid: Vuid = vuid.parse().unwrap();
        self.state().await.functions.into_values().find(|function| function.vuid == vuid).unwrap()
    }

    /// As the person at the host does before a modification.
    pub(crate) async fn unbind(&self, vuid: &str) {
        self.sim.unbind(self.function(vuid).await.bdf.unwrap()).unwrap();
        let vuid: Vuid = vuid.parse().unwrap();
        self.wait("the driver is gone", |state| {
            state.functions.values().any(|function| function.vuid == vuid && !function.driver.in_use)
        })
        .await;
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("virtnetd.sock")
    }

    /// `virtnet` with these words, to its end.
    pub(crate) fn virtnet(&self, line: &str) -> Run {
        tokio::task::block_in_place(|| virtnet(&self.socket(), line))
    }
}

fn in_use(state: &ControllerState) -> bool {
    state.functions.values().all(|function| function.driver.in_use && function.bdf.is_some())
}

/// Index `pf`, and of its VFs `vf`.
pub(crate) fn id(pf: u32, vf: Option<u32>) -> FunctionId {
    FunctionId { pf: pf.try_into().unwrap(), vf: vf.map(|vf| vf.try_into().unwrap()) }
}

/// The program, whatever the tests' own environment says.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_virtnet"));
    command.env_remove("VIRTNETD_SOCKET").stdin(Stdio::null());
    command
}

/// `virtnet` with these words and this socket, to its end.
pub(crate) fn virtnet(socket: &Path, line: &str) -> Run {
    Run::of(command().arg("--socket").arg(socket).args(line.split_whitespace()).output().unwrap())
}

/// How a program ended, and what it printed.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    pub(crate) fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// It succeeded and had nothing to remark: what it printed.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!((self.code, self.stderr.as_str()), (Some(0), ""), "{self:?}");
        self.stdout
    }

    /// It failed with this line alone.
    #[track_caller]
    pub(crate) fn failed(self, line: &str) {
        assert_eq!(self.stderr, format!("virtnet: {line}\n"));
        assert_eq!((self.code, self.stdout.as_str()), (Some(1), ""));
    }

    /// It was used in a wrong way, and said so with this in it.
    #[track_caller]
    pub(crate) fn misused(self, saying: &str) {
        assert_eq!((self.code, self.stdout.as_str()), (Some(2), ""), "{self:?}");
        assert!(self.stderr.contains(saying), "{:?} lacks {saying:?}", self.stderr);
    }
}

/// Compares with what a file beside the tests holds. With UPDATE_GOLDEN=1 it is written anew.
#[track_caller]
pub(crate) fn golden(file: &str, printed: &str) {
    let path = format!("{}/tests/golden/{file}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, printed).unwrap();
    }
    assert_eq!(printed, std::fs::read_to_string(&path).unwrap(), "{path}");
}
