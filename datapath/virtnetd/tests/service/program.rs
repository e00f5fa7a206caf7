//! The program as systemd or a person runs it.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::common::{LIMIT, PROGRAM, file, request};

/// The program, with a socket in a folder.
struct Program {
    child: Child,
    folder: TempDir,
}

impl Program {
    fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { child: start(&folder, arguments, environment), folder }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    fn host(&self, arguments: &[&str]) -> std::process::Output {
        let socket = self.folder.path().join("s.sock");
        Command::new(PROGRAM).arg("host").arg("--socket").arg(socket).args(arguments).output().unwrap()
    }

    /// Waits until there is a worker that is not this one: the only child of the program.
    fn worker_after(&self, before: Option<&str>) -> String {
        let begun = Instant::now();
        let tasks = format!("/proc/{}/task", self.child.id());
        loop {
            let threads = std::fs::read_dir(&tasks).unwrap().flatten();
            let children =
                threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
            let worker = children.collect::<String>().trim().to_owned();
            if !worker.is_empty() && before != Some(&worker) {
                return worker;
            }
            assert!(begun.elapsed() < LIMIT, "there is no other worker");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn until_ready(&self) {
        let begun = Instant::now();
        while !self.host(&["autoprobe", "true"]).status.success() {
            assert!(begun.elapsed() < LIMIT, "it does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it, and says whether in good order, with what it logged.
    fn end(mut self, signal: Signal) -> (bool, String) {
        self.signal(signal);
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        (self.child.wait().unwrap().success(), log)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(folder: &TempDir, arguments: &[&str], environment: &[(&str, &str)]) -> Child {
    Command::new(PROGRAM)
        .args(["--device", "sim", "--socket"])
        .arg(folder.path().join("s.sock"))
        .args(arguments)
        .env_remove("JOURNAL_STREAM")
        .env_remove("VIRTNET_LOG")
        .envs(environment.iter().copied())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn it_ends_in_good_order_when_it_is_asked_to() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let program = Program::start(&[], &[]);
        program.until_ready();
        let socket = program.folder.path().join("s.sock");
        let second = start(&program.folder, &[], &[]).wait_with_output().unwrap();
        assert!(!second.status.success());
        let why = String::from_utf8(second.stderr).unwrap();
        assert!(why.contains("s.sock: another virtnetd listens there"), "{why}");
        let (in_order, log) = program.end(signal);
        assert!(in_order, "{log}");
        assert!(log.contains("SIMULATED"), "{log}");
        assert!(!socket.exists());
    }
}

#[test]
fn a_hang_up_is_a_restart() {
    let program = Program::start(&[], &[]);
    let first = program.worker_after(None);
    program.signal(Signal::SIGHUP);
    program.worker_after(Some(&first));
    let (in_order, log) = program.end(Signal::SIGTERM);
    assert!(in_order, "{log}");
    assert_eq!(log.matches("a worker begins").count(), 2, "{log}");
    assert!(!log.contains("ERROR"), "{log}");
}

#[test]
fn who_asks_for_a_change_and_goes_away_is_logged_with_it() {
    let mut program = Program::start(&[], &[]);
    program.until_ready();
    for last in 0..10 {
        let mut stream = UnixStream::connect(program.folder.path().join("s.sock")).unwrap();
        let params = serde_json::to_string(&request(last)).unwrap();
        writeln!(stream, r#"{{"jsonrpc":"2.0","id":1,"method":"hotplug","params":{params}}}"#).unwrap();
        // It goes before it is answered, or even read.
    }
    let log = BufReader::new(program.child.stderr.take().unwrap());
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || log.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let who = format!("process {}", std::process::id());
    let mut wanted: Vec<_> = (0..10).map(|last| format!("hot-plug {}", request(last).mac)).collect();
    while !wanted.is_empty() {
        let line = lines.recv_timeout(LIMIT).unwrap_or_else(|_| panic!("not logged: {wanted:?}"));
        wanted.retain(|what| !(line.contains(what) && line.contains(&who)));
    }
}

#[test]
fn the_simulated_host_does_what_is_asked_or_says_why_not() {
    let program = Program::start(&["--sim-firmware", "VIRTIO_NET_EMULATION_NUM_VF=2"], &[]);
    program.until_ready();
    let begun = Instant::now();
    loop {
        let made = program.host(&["sriov", "0", "2"]);
        if made.status.success() {
            break;
        }
        // Until it has booted it has no such file.
        assert!(begun.elapsed() < LIMIT, "{made:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    let refused = program.host(&["sriov", "0", "3"]);
    assert!(!refused.status.success());
    assert!(program.host(&["sriov", "0", "0"]).status.success());
    let (_, log) = program.end(Signal::SIGTERM);
    assert!(log.contains("PF(0): Unload (2) VFs finished"), "{log}");
}

#[test]
fn a_virtnet_conf_with_mistakes_is_refused_by_line_and_key() {
    let folder = tempfile::tempdir().unwrap();
    let conf = file(folder.path(), "virtnet.conf", "{\n  \"is_lag\": 2,\n  \"nonsense\": 1\n}\n");
    for arguments in [
        vec!["check", conf.to_str().unwrap()],
        vec!["--device=sim", "--socket=/nowhere/s.sock", "--config", conf.to_str().unwrap()],
    ] {
        let output = Command::new(PROGRAM).args(&arguments).output().unwrap();
        let why = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{why}");
        assert!(
            why.contains("line 2: is_lag: 2 is not 0 or 1; line 3: nonsense: there is no such key"),
            "{why}"
        );
    }
    let good = file(folder.path(), "good.conf", "{\"is_lag\": 0}");
    assert!(Command::new(PROGRAM).arg("check").arg(good).status().unwrap().success());
}

#[test]
fn systemd_is_told_of_it_and_its_journal_reads_priorities() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("notify.sock");
    let systemd = UnixDatagram::bind(&socket).unwrap();
    systemd.set_read_timeout(Some(LIMIT)).unwrap();
    let heard = || {
        let mut buffer = [0; 256];
        let length = systemd.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).trim().to_owned()
    };
    // What it is to keep is looked at elsewhere.
    let told = || loop {
        let text = heard();
        if !text.starts_with("FDSTORE=1") {
            return text;
        }
    };
    let environment =
        [("NOTIFY_SOCKET", socket.to_str().unwrap()), ("WATCHDOG_USEC", "200000"), ("JOURNAL_STREAM", "8:1")];
    let program = Program::start(&[], &environment);
    assert_eq!(told(), "READY=1");
    assert_eq!([told(), told()], ["WATCHDOG=1", "WATCHDOG=1"]);
    program.signal(Signal::SIGTERM);
    while told() != "STOPPING=1" {}
    while heard() != "FDSTOREREMOVE=1\nFDNAME=clients" {}
    drop(systemd);
    let (in_order, log) = program.end(Signal::SIGTERM);
    assert!(in_order, "{log}");
    assert!(log.lines().all(|line| line.starts_with("<6>")), "{log}");
}

#[test]
fn systemd_is_told_once_why_it_does_not_serve() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("notify.sock");
    let systemd = UnixDatagram::bind(&socket).unwrap();
    systemd.set_read_timeout(Some(LIMIT)).unwrap();
    let told = || loop {
        let mut buffer = [0; 512];
        let length = systemd.recv(&mut buffer).unwrap();
        let text = String::from_utf8_lossy(&buffer[..length]).trim().to_owned();
        if !text.starts_with("FDSTORE") {
            return text;
        }
    };
    let program = Program::start(&["--sim-bond", "true"], &[("NOTIFY_SOCKET", socket.to_str().unwrap())]);
    let why = told();
    assert!(why.starts_with("STATUS=does not serve: ") && why.contains("the ports are bonded"), "{why}");
    // By then the controller has tried again a few times.
    std::thread::sleep(Duration::from_secs(2));
    let mended = program.host(&["bond", "false"]);
    assert!(mended.status.success(), "{mended:?}");
    assert_eq!([told(), told()], ["STATUS=serves", "READY=1"]);
    drop(systemd);
    let (in_order, log) = program.end(Signal::SIGTERM);
    assert!(in_order, "{log}");
}

#[test]
fn a_worker_is_started_by_virtnetd_alone() {
    let output = Command::new(PROGRAM).arg("worker").stdin(Stdio::null()).output().unwrap();
    assert!(!output.status.success());
    let why = String::from_utf8(output.stderr).unwrap();
    assert!(why.contains("is started by virtnetd itself"), "{why}");
}
