//! The README's sessions, line by line: against the embedded API, against Kubernetes, the tour of `make cluster`, and what `make soft`
//! shows.

#![expect(clippy::unwrap_used, reason = "a test that can not go on panics")]

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use regex::Regex;
use tempfile::TempDir;
use virtnet_tests::cluster::{Cluster, Config};
use virtnet_tests::programs::built;
use virtnet_tests::session::{Shell, Shown, block, printed_as_shown, session};

/// The root of the tree, where people stand who follow the README.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
/// Where the README keeps the state of `virtnetctl local`.
const STATE: &str = "/tmp/virtnet";

fn readme() -> String {
    std::fs::read_to_string(format!("{ROOT}/README.md")).unwrap()
}

#[test]
fn each_command_of_the_session_prints_what_is_shown_with_the_embedded_api() {
    let lines = session(&readme(), "$ virtnetctl local").unwrap();
    assert!(lines.len() > 15, "{lines:?}");
    let place = tempfile::tempdir().unwrap();
    let state = place.path().display().to_string();
    let virtnetctl = built("virtnetctl").unwrap();
    let home = [("HOME", place.path())];
    let mut shell = Shell::start(Path::new(ROOT), &[virtnetctl.parent().unwrap()], &home).unwrap();
    shell.follow(&lines, |text| text.replace(STATE, &state)).unwrap();
    shell.finish().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_command_of_the_session_prints_the_same_with_kubernetes() {
    let lines = session(&readme(), "$ virtnetctl local").unwrap();
    // All but the first, which starts the embedded API, the second, which points kubectl there, and the last, which ends it.
    let lines = &lines[2..lines.len() - 1];
    let config = Config { dpus: vec!["dpu-0".into()], ..Config::default() };
    let cluster = Cluster::start(config).await.unwrap();
    let (kubeconfig, home) = (cluster.plane().kubeconfig(), cluster.plane().folder());
    let variables = [("KUBECONFIG", kubeconfig.as_path()), ("HOME", home)];
    let mut shell = Shell::start(Path::new(ROOT), &[], &variables).unwrap();
    shell.follow(lines, str::to_owned).unwrap();
    shell.finish().unwrap();
}

/// The blocks of the section on many DPUs, one after another.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "three minutes, for agents must be silent for a while: make soak-fleet"]
async fn many_dpus_do_as_is_shown() {
    let text = readme();
    let (_, section) = text.split_once("## Many DPUs").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let blocks = section.split("\n\n").filter(|block| block.starts_with("    $ "));
    let blocks: Vec<_> = blocks.map(|block| session(block, "$ ").unwrap()).collect();
    assert_eq!(blocks.len(), 3);
    let dpus = (0..4).map(|number| format!("dpu-{number}")).collect();
    let cluster = Cluster::start(Config { dpus, no_drivers: true, ..Config::default() }).await.unwrap();
    let (kubeconfig, home) = (cluster.plane().kubeconfig(), cluster.plane().folder());
    let variables = [("KUBECONFIG", kubeconfig.as_path()), ("HOME", home)];
    let mut shell = Shell::start(Path::new(ROOT), &[], &variables).unwrap();
    shell.follow(&blocks.concat(), str::to_owned).unwrap();
    shell.finish().unwrap();
}

/// A cluster as `make cluster` starts it, once it has told where it is.
struct Running {
    child: Child,
    kubeconfig: PathBuf,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_cluster")).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let kubeconfig =
            lines.find_map(|line| Some(line.unwrap().strip_prefix("export KUBECONFIG=")?.into()));
        Self { child, kubeconfig: kubeconfig.unwrap(), lines }
    }

    /// The processes that it has started.
    fn children(&self) -> Vec<u32> {
        let id = self.child.id();
        let tasks = std::fs::read_dir(format!("/proc/{id}/task")).unwrap();
        let children =
            tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("children")).unwrap());
        children.flat_map(|ids| ids.split(' ').filter_map(|id| id.parse().ok()).collect::<Vec<_>>()).collect()
    }

    fn signal(id: u32, signal: &str) {
        assert!(Command::new("kill").args(["-s", signal, &id.to_string()]).status().unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended by itself where the test passes; what it started ends with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_tour_of_a_cluster_is_as_shown_and_nothing_of_it_is_left() {
    let lines = session(&readme(), "$ kubectl get dpus").unwrap();
    assert!(lines.len() > 5, "{lines:?}");
    let mut cluster = Running::start();
    let home = cluster.kubeconfig.parent().unwrap().to_owned();
    let variables = [("KUBECONFIG", cluster.kubeconfig.as_path()), ("HOME", home.as_path())];
    let mut shell = Shell::start(Path::new(ROOT), &[], &variables).unwrap();
    shell.follow(&lines, str::to_owned).unwrap();
    shell.finish().unwrap();

    let children = cluster.children();
    assert_eq!(children.len(), 6, "etcd, two servers of Kubernetes, the operator and two agents");
    // An agent that ends is started again, with a DPU that begins anew.
    Running::signal(*children.iter().find(|id| is_an_agent(**id)).unwrap(), "KILL");
    assert!(cluster.lines.any(|line| line.unwrap().contains("is started again")));
    let children = cluster.children();
    assert_eq!(children.len(), 6);

    Running::signal(cluster.child.id(), "INT");
    assert!(cluster.child.wait().unwrap().success());
    let left: Vec<_> = children.into_iter().filter(|id| is_running(*id)).collect();
    assert_eq!(left, Vec::<u32>::new(), "processes");
    assert!(!home.exists(), "{} is left", home.display());
}

fn is_running(id: u32) -> bool {
    Path::new(&format!("/proc/{id}")).exists()
}

fn is_an_agent(id: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{id}/comm")).unwrap().trim() == "virtnet-agent"
}

/// `make soft` with all that it makes in a folder of this test's.
fn soft(place: &TempDir) -> Command {
    let mut soft = Command::new(env!("CARGO_BIN_EXE_soft"));
    soft.env("TMPDIR", place.path()).stdin(Stdio::null()).stdout(Stdio::piped());
    soft
}

/// No process, and so no network namespace, and no file.
fn nothing_is_left(place: &TempDir) {
    let mark = format!("TMPDIR={}", place.path().display());
    let processes = std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    let left = processes.filter(|process| {
        // Of one that has ended meanwhile there is none.
        let environment = std::fs::read(process.join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
    });
    assert_eq!(left.collect::<Vec<_>>(), Vec::<PathBuf>::new(), "processes");
    let files = place.path().read_dir().unwrap().map(|entry| entry.unwrap().path());
    assert_eq!(files.collect::<Vec<_>>(), Vec::<PathBuf>::new(), "files");
}

/// A line of `make soft` without what is another each time: where its folder is, and what was measured.
fn whenever(line: &str) -> String {
    let replacements = [
        (r"/[\w./-]*virtnet-soft-\w+", "FOLDER"),
        (r"^guest-[ab] has booted", "GUEST has booted"),
        (r"[\d.]+ ms", "TIME"),
        (r"[\d.]+-[\d.]+ +sec", "INTERVAL"),
        (r"[\d.]+ [KMG]?Bytes", "BYTES"),
        (r"[\d.]+ [KMG]?bits/sec( +\d+)?", "RATE"),
        (r#"(_packets|_desc|batch_number|total_bytes)": "?\d+"?"#, "$1: COUNT"),
    ];
    replacements.into_iter().fold(line.to_owned(), |line, (pattern, by)| {
        Regex::new(pattern).unwrap().replace_all(&line, by).into_owned()
    })
}

#[test]
fn a_dpu_in_software_does_what_is_shown_and_nothing_of_it_is_left() {
    let place = tempfile::tempdir().unwrap();
    let ended = soft(&place).spawn().unwrap().wait_with_output().unwrap();
    assert!(ended.status.success());
    let printed = String::from_utf8(ended.stdout).unwrap();
    let readme = readme();
    printed_as_shown(&block(&readme, "$ nsenter ").unwrap(), &printed, whenever).unwrap();
    nothing_is_left(&place);
}

#[test]
fn a_dpu_in_software_that_is_interrupted_early_leaves_nothing() {
    let place = tempfile::tempdir().unwrap();
    let mut child = soft(&place).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().starts_with("Booting ")));
    Running::signal(child.id(), "INT");
    assert!(child.wait().unwrap().success());
    nothing_is_left(&place);
}

/// A process that ends with the test.
struct Held(Child);

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// On a terminal, which script(1) is, and where Ctrl-C is typed.
#[test]
fn a_dpu_in_software_stays_on_a_terminal_until_ctrl_c() {
    let place = tempfile::tempdir().unwrap();
    let mut terminal = Command::new("script");
    // What script(1) returns is not always what its command did: it may look for that before the command has quite ended.
    let command = concat!("trap : INT; ", env!("CARGO_BIN_EXE_soft"), "; printf '\\nended with %d\\n' $?");
    terminal.args(["--quiet", "--flush", "--command", command, "/dev/null"]);
    terminal.env("TMPDIR", place.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut terminal = Held(terminal.spawn().unwrap());
    let mut lines = BufReader::new(terminal.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.starts_with("In another terminal")));
    let export = lines.next().unwrap();
    assert!(lines.any(|line| line.starts_with("Ctrl-C ends it")));

    let mut shell = Shell::start(Path::new(ROOT), &[], &[("HOME", place.path())]).unwrap();
    let mut run = |command: &str| {
        let shown = Shown { command: command.to_owned(), output: Vec::new() };
        shell.run(&shown).unwrap().join("\n")
    };
    run(export.trim_end());
    assert_eq!(run("guest-b hostname"), "guest-b");
    assert_eq!(run("guest-a 'echo no >&2; exit 3'; echo $?"), "no\n3");
    let mut line = Command::new(run("command -v guest-a"));
    let mut line = Held(line.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
    let mut typed = line.0.stdin.take().unwrap();
    typed.write_all(b"echo $((6*7))\n").unwrap();
    let mut said = BufReader::new(line.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(said.any(|line| line.trim_end() == "42"));
    typed.write_all(b"\x1d").unwrap();
    assert!(line.0.wait().unwrap().success());
    shell.finish().unwrap();

    terminal.0.stdin.as_mut().unwrap().write_all(b"\x03").unwrap();
    let rest: Vec<_> = lines.collect();
    assert_eq!(rest.last().map(|line| line.trim_end()), Some("ended with 0"), "{}", rest.join("\n"));
    terminal.0.wait().unwrap();
    nothing_is_left(&place);
}
