//! What the tests share: an API in memory, raw requests to it, and `kubectl` against a listener.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part of this")]
#![allow(clippy::unwrap_used, reason = "only tests call this, which panic to fail")]

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;
use virtnet_embedded_api::{
    Api, Config, Disk, FileDisk, Listen, MemoryDisk, Recorder, SeededIds, Server, TokioClock,
};

/// Where the API is opened: in memory, with a seed, on the runtime's clock.
pub fn config(disk: Arc<dyn Disk>) -> Config {
    Config {
        clock: Arc::new(TokioClock::starting_at("2026-01-01T00:00:00Z".parse().unwrap())),
        ids: Arc::new(SeededIds::new(1)),
        ..Config::new(virtnet_crds::crd::all(), disk)
    }
}

pub async fn open() -> Api {
    Api::open(config(Arc::new(MemoryDisk::default()))).await.unwrap()
}

pub async fn open_recorded() -> (Api, Arc<Recorder>) {
    let recorder = Arc::new(Recorder::default());
    let config =
        Config { audit: Some(Arc::<Recorder>::clone(&recorder)), ..config(Arc::new(MemoryDisk::default())) };
    (Api::open(config).await.unwrap(), recorder)
}

pub fn client(api: &Api) -> kube::Client {
    kube::Client::new(api.service(), "default")
}

pub const DEVICES: &str = "/apis/virtnet.dev/v1alpha1/namespaces/default/virtnetdevices";
pub const JSON: &str = "application/json";
pub const MERGE: &str = "application/merge-patch+json";
pub const APPLY: &str = "application/apply-patch+yaml";

/// Sends one request and reads the whole answer.
pub async fn send(api: &Api, method: &str, path: &str, media_type: &str, body: &Value) -> (u16, Value) {
    let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
    let response = send_bytes(api, method, path, media_type, body).await;
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (code, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

pub async fn send_bytes(
    api: &Api,
    method: &str,
    path: &str,
    media_type: &str,
    body: Bytes,
) -> Response<virtnet_embedded_api::Body> {
    let request = Request::builder()
        .method(Method::from_bytes(method.as_bytes()).unwrap())
        .uri(path)
        .header("content-type", media_type)
        .header("user-agent", "tester/1.0")
        .body(Full::new(body))
        .unwrap();
    api.service().oneshot(request).await.unwrap()
}

pub async fn get(api: &Api, path: &str) -> (u16, Value) {
    send(api, "GET", path, JSON, &Value::Null).await
}

/// A device that the API accepts.
pub fn device(name: &str) -> Value {
    json!({
        "apiVersion": "virtnet.dev/v1alpha1",
        "kind": "VirtnetDevice",
        "metadata": { "name": name },
        "spec": { "dpu": "bf3-a", "function": { "hotplug": { "uplink": "p0" } }, "mtu": 1500 },
    })
}

pub async fn create(api: &Api, name: &str) -> Value {
    let (code, created) = send(api, "POST", DEVICES, JSON, &device(name)).await;
    assert_eq!(code, 201, "{created}");
    created
}

/// A listener with `kubectl` pointed at it, whose caches are its own.
pub struct Kubectl {
    pub api: Api,
    pub server: Server,
    pub dir: TempDir,
}

impl Kubectl {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let disk = FileDisk::open(&dir.path().join("state.redb")).unwrap();
        let api = Api::open(Config::new(virtnet_crds::crd::all(), Arc::new(disk))).await.unwrap();
        let listen = Listen::Tcp("127.0.0.1:0".parse().unwrap());
        let server = Server::start(&api, listen, dir.path()).await.unwrap();
        Self { api, server, dir }
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command
            .args(args)
            .env("HOME", self.dir.path())
            .env("KUBECONFIG", self.server.kubeconfig_path().unwrap())
            .env("KUBECTL_EXTERNAL_DIFF", "diff -u -N")
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub async fn output(&self, args: &[&str]) -> Output {
        self.output_of(self.command(args)).await
    }

    pub async fn output_of(&self, mut command: Command) -> Output {
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap();
        output.expect("kubectl can't be run: these tests need kubectl 1.32 or later in PATH")
    }

    /// Runs a command that must succeed, and returns what it printed.
    pub async fn ok(&self, args: &[&str]) -> String {
        let output = self.output(args).await;
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "kubectl {args:?} failed:\n{out}{err}");
        out
    }

    /// Runs a command that must fail, and returns its complaint.
    pub async fn fails(&self, args: &[&str]) -> String {
        let output = self.output(args).await;
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(!output.status.success(), "kubectl {args:?} succeeded:\n{out}{err}");
        err
    }

    /// Writes a manifest and returns its path.
    pub fn manifest(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    pub fn state_dir(&self) -> &Path {
        self.dir.path()
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
