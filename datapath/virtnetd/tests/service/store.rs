//! What systemd keeps of the service while it is gone: it is played here, with its socket and its store of descriptors.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use virtnet_model::{Change, Controller, ControllerState, Mtu, Target};
use virtnet_rpc::Client;

use crate::common::{LIMIT, PROGRAM, mac, pf, vf};

/// What it is given descriptors by: the standard ones become those that systemd gives, which begin with the third.
const GIVE: &str = "exec 3<&0 4<&1 5<&2 </dev/null >/dev/null 2>>\"$LOG\"; export LISTEN_PID=$$; exec \"$@\"";

/// systemd, as far as a service speaks to it.
struct Systemd {
    socket: UnixDatagram,
    path: PathBuf,
    /// The store, by name.
    kept: BTreeMap<String, OwnedFd>,
    told: Vec<String>,
}

impl Systemd {
    fn new(folder: &Path) -> Self {
        let path = folder.join("notify.sock");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        Self { socket, path, kept: BTreeMap::new(), told: Vec::new() }
    }

    /// Takes in the next thing that is told.
    fn next(&mut self) {
        let mut text = [0; 512];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut buffers = [IoSliceMut::new(&mut text)];
        let received = recvmsg(&self.socket, &mut buffers, &mut control, RecvFlags::CMSG_CLOEXEC);
        let length = received.unwrap().bytes;
        let descriptors = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors.collect::<Vec<_>>()),
            _ => None,
        });
        let mut descriptors: Vec<OwnedFd> = descriptors.flatten().collect();
        let text = String::from_utf8(text[..length].to_vec()).unwrap();
        let name = text.lines().find_map(|line| line.strip_prefix("FDNAME=")).map(str::to_owned);
        for line in text.lines() {
            match line {
                "FDSTORE=1" => {
                    assert_eq!(descriptors.len(), 1, "{text}");
                    // Of the same thing given twice, one is kept.
                    self.kept.entry(name.clone().unwrap()).or_insert(descriptors.remove(0));
                }
                "FDSTOREREMOVE=1" => {
                    self.kept.remove(&name.clone().unwrap());
                }
                _ => {}
            }
        }
        self.told.push(text);
    }

    /// Takes in what is told until something is among it.
    fn until(&mut self, what: &str) {
        while !self.told.iter().any(|told| told.contains(what)) {
            self.next();
        }
    }
}

/// The service, with its socket in a folder.
struct Started {
    child: Child,
}

impl Started {
    /// Given what is kept under these names; without any, nothing is.
    fn start(folder: &Path, systemd: &Systemd, given: Option<[(&str, &OwnedFd); 3]>) -> Self {
        let log = folder.join("log");
        let mut command = match given {
            None => {
                let log = std::fs::File::options().create(true).append(true).open(&log).unwrap();
                let mut command = Command::new(PROGRAM);
                command.stdin(Stdio::null()).stderr(log);
                command
            }
            Some(given) => {
                let mut command = Command::new("sh");
                let [stdin, stdout, stderr] = given.map(|(_, kept)| Stdio::from(kept.try_clone().unwrap()));
                command.args(["-c", GIVE, "sh", PROGRAM]).stdin(stdin).stdout(stdout).stderr(stderr);
                let names = given.map(|(name, _)| name).join(":");
                command.env("LOG", &log).env("LISTEN_FDS", "3").env("LISTEN_FDNAMES", names);
                command
            }
        };
        let command = command
            .args(["--device", "sim", "--socket"])
            .arg(socket(folder))
            .env_remove("JOURNAL_STREAM")
            .env_remove("VIRTNET_LOG")
            .env_remove("WATCHDOG_USEC")
            .env("NOTIFY_SOCKET", &systemd.path);
        Self { child: command.spawn().unwrap() }
    }

    /// Ends it. Whether in good order.
    fn end(&mut self, signal: Signal) -> bool {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
        self.child.wait().unwrap().success()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("s.sock")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_was_killed_goes_on_with_what_systemd_has_kept() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut systemd = Systemd::new(folder);
    let mut first = Started::start(folder, &systemd, None);
    systemd.until("READY=1");
    assert_eq!(systemd.kept.keys().collect::<Vec<_>>(), ["clients", "vfs-0", "vfs-1"]);
    let changes =
        [Mtu::MIN, Mtu::DEFAULT, Mtu::MAX].map(|mtu| Change { mtu: Some(mtu), ..Change::default() });
    {
        let client = Client::connect(&socket(folder));
        for (index, change) in (0..).zip(&changes) {
            client.modify(&Target::Vf(pf(0), vf(index)), change).await.unwrap();
        }
        client.modify(&Target::Vf(pf(0), vf(1)), &Change::default()).await.unwrap();
    }
    assert!(!first.end(Signal::SIGKILL));

    // Nobody is there, and who connects waits.
    let mut waiting = UnixStream::connect(socket(folder)).unwrap();
    waiting.set_read_timeout(Some(LIMIT)).unwrap();
    waiting.write_all(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"observe\"}\n").unwrap();
    systemd.told.clear();
    let given = ["clients", "vfs-0", "vfs-1"].map(|name| (name, &systemd.kept[name]));
    let mut second = Started::start(folder, &systemd, Some(given));
    systemd.until("READY=1");
    assert_eq!(systemd.kept.len(), 3);
    let mut answer = String::new();
    BufReader::new(waiting).read_line(&mut answer).unwrap();
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    let state: ControllerState = serde_json::from_value(answer["result"].clone()).unwrap();
    let prepared: Vec<_> = state.prepared.iter().map(|((_, vf), change)| (*vf, change)).collect();
    assert_eq!(prepared, [(vf(0), &changes[0]), (vf(2), &changes[2])]);

    // What is told to the second is kept for a third, and nothing is once the service has ended in good order.
    {
        let client = Client::connect(&socket(folder));
        let change = Change { mac: Some(mac(7)), ..Change::default() };
        client.modify(&Target::Vf(pf(1), vf(0)), &change).await.unwrap();
    }
    assert!(!second.end(Signal::SIGKILL));
    systemd.told.clear();
    let given = ["vfs-1", "clients", "vfs-0"].map(|name| (name, &systemd.kept[name]));
    let mut third = Started::start(folder, &systemd, Some(given));
    systemd.until("READY=1");
    let client = Client::connect(&socket(folder));
    assert_eq!(client.observe().await.unwrap().prepared.len(), 3);
    assert!(third.end(Signal::SIGTERM));
    while !systemd.kept.is_empty() {
        systemd.next();
    }
    assert!(!socket(folder).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_and_of_no_use_is_given_back_and_the_service_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut systemd = Systemd::new(folder);
    let elsewhere = OwnedFd::from(UnixListener::bind(folder.join("elsewhere.sock")).unwrap());
    let nonsense = folder.join("nonsense");
    std::fs::write(&nonsense, "{\"writes\": 9, \"kept\": [").unwrap();
    let nonsense = OwnedFd::from(std::fs::File::options().read(true).write(true).open(nonsense).unwrap());
    let given = [("clients", &elsewhere), ("nobodys", &elsewhere), ("vfs-0", &nonsense)];
    let mut started = Started::start(folder, &systemd, Some(given));
    systemd.until("READY=1");
    assert!(
        systemd.told.iter().any(|told| told.contains("FDSTOREREMOVE=1") && told.contains("FDNAME=nobodys")),
        "{:?}",
        systemd.told
    );
    // That of another path is not this one's, and there are no two of a name.
    let about = |told: &&String| told.contains("FDNAME=clients");
    let order: Vec<_> = systemd.told.iter().filter(about).map(|told| told.lines().next().unwrap()).collect();
    assert_eq!(order, ["FDSTOREREMOVE=1", "FDSTORE=1"]);
    let client = Client::connect(&socket(folder));
    assert!(client.observe().await.unwrap().prepared.is_empty());
    let change = Change { mac: Some(mac(7)), ..Change::default() };
    client.modify(&Target::Vf(pf(1), vf(0)), &change).await.unwrap();
    assert!(started.end(Signal::SIGTERM));
}
