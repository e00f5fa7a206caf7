//! What the tests share: a `virtnetctl local` of their own with a home of its own, and the real `kubectl`.
//!
//! Everything waits for something to be seen, for at most [`LIMIT`]; a process ends with the value that holds it, also
//! when a test fails.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part of this")]
#![allow(clippy::unwrap_used, reason = "only tests call this, which panic to fail")]

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub mod world;

/// Far longer than anything takes, on a machine that is busy too.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A manifest of a hot-plugged device.
pub fn device(name: &str, more: &str) -> String {
    format!(
        "apiVersion: virtnet.dev/v1alpha1
kind: VirtnetDevice
metadata:
  name: {name}
spec:
  dpu: dpu-0
  function:
    hotplug: {{}}
  port:
    bridge: ovsbr1
{more}"
    )
}

/// A folder for a test: its home, its state and its manifests are in it.
pub struct Place(TempDir);

impl Place {
    pub fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The folder of manifests, made where it is absent.
    pub fn manifests(&self) -> PathBuf {
        let path = self.path("manifests");
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.state().join("kubeconfig")
    }

    /// Writes a manifest into the folder.
    pub fn write(&self, file: &str, text: &str) {
        std::fs::write(self.manifests().join(file), text).unwrap();
    }

    pub fn remove(&self, file: &str) {
        std::fs::remove_file(self.manifests().join(file)).unwrap();
    }

    /// A program in the environment of this place.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.0.path())
            .env("HOME", self.0.path())
            .env_remove("XDG_STATE_HOME")
            .env_remove("VIRTNET_LOG")
            .env("KUBECONFIG", self.kubeconfig())
            .stdin(Stdio::null());
        command
    }

    /// `virtnetctl` to its end.
    pub fn virtnetctl(&self, arguments: &[&str]) -> Run {
        Run::of(self.command(binary()).args(arguments).output().unwrap())
    }

    /// `virtnetctl local` with the state of this place, and these arguments more, to its end.
    pub fn local(&self, arguments: &[&str]) -> Run {
        Run::of(self.local_command(arguments).output().unwrap())
    }

    fn local_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(binary());
        // The same on every machine.
        command.args(["local", "--switch=sim", "--state-dir"]).arg(self.state()).args(arguments);
        command
    }

    /// Starts `virtnetctl local`, and waits until kubectl can use it.
    pub fn start(&self, arguments: &[&str]) -> Local {
        let local = Local::start(self.local_command(arguments));
        local.wait_for_line("export KUBECONFIG=");
        local
    }

    pub fn kubectl(&self, arguments: &[&str]) -> Run {
        Run::of(self.command(Path::new("kubectl")).args(arguments).output().unwrap())
    }

    /// kubectl, which must succeed: what it printed.
    pub fn kubectl_ok(&self, arguments: &[&str]) -> String {
        self.kubectl(arguments).ok()
    }

    /// kubectl with a manifest on its standard input.
    pub fn kubectl_with(&self, arguments: &[&str], manifest: &str) -> Run {
        let file = self.path("stdin.yaml");
        std::fs::write(&file, manifest).unwrap();
        let input = std::fs::File::open(&file).unwrap();
        Run::of(self.command(Path::new("kubectl")).args(arguments).stdin(input).output().unwrap())
    }

    /// Waits until these devices are Ready.
    pub fn wait_ready(&self, devices: &[&str]) {
        for device in devices {
            let name = format!("virtnetdevice/{device}");
            let arguments = ["wait", "--for=create", "--timeout=60s", &name];
            self.kubectl_ok(&arguments);
            self.kubectl_ok(&["wait", "--for=condition=Ready", "--timeout=60s", &name]);
        }
    }

    /// The names of the devices, in order.
    pub fn devices(&self) -> Vec<String> {
        let names = self.kubectl_ok(&["get", "vnd", "-o", "jsonpath={.items[*].metadata.name}"]);
        names.split_whitespace().map(str::to_owned).collect()
    }
}

pub fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_virtnetctl"))
}

/// A sample of the project.
pub fn sample(file: &str) -> String {
    format!("{}/../../manifests/samples/{file}", env!("CARGO_MANIFEST_DIR"))
}

/// A kubeconfig of an API that is not there.
pub fn kubeconfig_of_nothing(place: &Place) -> String {
    let text = "apiVersion: v1\nkind: Config\ncurrent-context: a\n\
                contexts: [{name: a, context: {cluster: a, user: a}}]\n\
                clusters: [{name: a, cluster: {server: 'http://127.0.0.1:1'}}]\nusers: [{name: a, user: {}}]\n";
    let path = place.path("nothing");
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// Compares with what a file beside the tests holds. With UPDATE_GOLDEN=1 it is written anew.
#[track_caller]
pub fn golden(file: &str, printed: &str) {
    let path = format!("{}/tests/golden/{file}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, printed).unwrap();
    }
    assert_eq!(printed, std::fs::read_to_string(&path).unwrap(), "{path}");
}

/// How a process ended, and what it printed.
#[derive(Debug)]
pub struct Run {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    pub fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// What it printed, having succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{}{}", self.stdout, self.stderr);
        self.stdout
    }

    /// What it said was wrong, having ended with this code.
    #[track_caller]
    pub fn failed(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{}{}", self.stdout, self.stderr);
        self.stderr
    }
}

/// A process that runs, and what it has printed so far.
pub struct Local {
    child: Child,
    printed: Arc<(Mutex<String>, Condvar)>,
}

impl Local {
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let printed = Arc::new((Mutex::new(String::new()), Condvar::new()));
        let pipes: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for pipe in pipes {
            let printed = Arc::clone(&printed);
            // The thread ends with the pipe, which ends with the process.
            std::thread::spawn(move || {
                for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                    let (text, more) = &*printed;
                    let mut text = text.lock().unwrap();
                    text.push_str(&line);
                    text.push('\n');
                    more.notify_all();
                }
            });
        }
        Self { child, printed }
    }

    /// Waits for a line with this in it, and gives it.
    #[track_caller]
    pub fn wait_for_line(&self, part: &str) -> String {
        let (text, more) = &*self.printed;
        let has = |text: &mut String| !text.lines().any(|line| line.contains(part));
        let (text, waited) = more.wait_timeout_while(text.lock().unwrap(), LIMIT, has).unwrap();
        assert!(!waited.timed_out(), "no line with {part:?} in:\n{text}");
        text.lines().find(|line| line.contains(part)).unwrap().to_owned()
    }

    pub fn printed(&self) -> String {
        self.printed.0.lock().unwrap().clone()
    }

    /// Its standard input, where it was piped: the process reads to its end when this is dropped.
    pub fn input(&mut self) -> ChildStdin {
        self.child.stdin.take().unwrap()
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to stop, and waits until it has.
    pub fn stop(mut self) -> ExitStatus {
        let asked = Command::new("kill").arg("-TERM").arg(self.id().to_string()).status().unwrap();
        assert!(asked.success());
        self.wait()
    }

    /// Waits until it has ended.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the process ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Looks again and again until something holds: for what says nothing when it changes.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < LIMIT, "not seen within {} s: {what}", LIMIT.as_secs());
        std::thread::sleep(Duration::from_millis(20));
    }
}
