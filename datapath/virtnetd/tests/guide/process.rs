//! `virtnetd` as systemd has it: [`Service`].

use std::io::{BufRead, BufReader, ErrorKind};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use virtnet_netlink::Namespace;

/// Far longer than anything takes on a machine that is busy too.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// Between two looks at what can only be asked for.
pub(crate) const PAUSE: Duration = Duration::from_millis(20);

pub(crate) const VIRTNETD: &str = env!("CARGO_BIN_EXE_virtnetd");

/// Where clients connect.
pub(crate) fn socket(folder: &Path) -> PathBuf {
    folder.join("virtnetd.sock")
}

/// What it has written to its standard error.
#[derive(Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    more: Condvar,
}

/// A service that runs, until it is dropped at the latest.
pub(crate) struct Service {
    child: Child,
    log: Arc<Log>,
    reader: Option<JoinHandle<()>>,
}

impl Drop for Service {
    fn drop(&mut self) {
        // A worker ends with its parent.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Service {
    /// Starts it with a socket in the folder, and waits until it says to systemd that it serves.
    pub(crate) fn start(folder: &Path, arguments: &[String], namespace: Option<&Namespace>) -> Self {
        let notify = folder.join("notify.sock");
        let _ = std::fs::remove_file(&notify);
        let systemd = UnixDatagram::bind(&notify).unwrap();
        systemd.set_read_timeout(Some(PAUSE)).unwrap();
        let mut command = Command::new(VIRTNETD);
        command
            .args(["--device", "sim", "--socket"])
            .arg(socket(folder))
            .args(arguments)
            .env_remove("JOURNAL_STREAM")
            .env_remove("VIRTNET_LOG")
            .env_remove("WATCHDOG_USEC")
            .env("NOTIFY_SOCKET", &notify)
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        let child = match namespace {
            Some(namespace) => namespace.run(|| command.spawn()).unwrap(),
            None => command.spawn(),
        };
        let mut service = Self { child: child.unwrap(), log: Arc::default(), reader: None };
        let stderr = service.child.stderr.take().unwrap();
        let log = Arc::clone(&service.log);
        service.reader = Some(std::thread::spawn(move || read(stderr, &log)));
        service.until_ready(&systemd);
        service
    }

    fn until_ready(&mut self, systemd: &UnixDatagram) {
        let begun = Instant::now();
        let mut told = [0; 256];
        loop {
            match systemd.recv(&mut told) {
                Ok(length) if told[..length].starts_with(b"READY=1") => return,
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => panic!("listening in place of systemd: {error}"),
            }
            let ended = self.child.try_wait().unwrap();
            let fine = ended.is_none() && begun.elapsed() < LIMIT;
            assert!(fine, "it does not serve ({ended:?}):\n{}", self.log());
        }
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        self.log.lines.lock().unwrap().join("\n")
    }

    /// Waits until it has logged something. Answers its whole log until then.
    pub(crate) fn until_logged(&self, part: &str) -> String {
        let lines = self.log.lines.lock().unwrap();
        let missing = |lines: &mut Vec<String>| !lines.iter().any(|line| line.contains(part));
        let (lines, waited) = self.log.more.wait_timeout_while(lines, LIMIT, missing).unwrap();
        assert!(!waited.timed_out(), "{part:?} is not in the log:\n{}", lines.join("\n"));
        lines.join("\n")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// Lets it end in good order. Answers its log.
    pub(crate) fn stop(&mut self) -> String {
        self.signal(Signal::SIGTERM);
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(begun.elapsed() < LIMIT, "it does not end:\n{}", self.log());
            std::thread::sleep(PAUSE);
        };
        self.reader.take().unwrap().join().unwrap();
        assert!(status.success(), "{status}:\n{}", self.log());
        self.log()
    }
}

fn read(stderr: ChildStderr, log: &Log) {
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        log.lines.lock().unwrap().push(line);
        log.more.notify_all();
    }
}
