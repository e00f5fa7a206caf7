//! A function with a TAP in a network namespace of the test's own.

use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use virtnet_controller::Settings;
use virtnet_model::{Feature, Features, IfName, Links};
use virtnet_netlink::{Namespace, NetlinkLinks, Representors};
use virtnet_soft::driver::{Driver, Options, Wire};
use virtnet_soft::{Carries, Function, Program, Socket, State, Tap, Workers};

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(20);

/// What a function is made in.
pub(crate) struct World {
    pub(crate) runtime: Runtime,
    pub(crate) namespace: Namespace,
    pub(crate) folder: TempDir,
    pub(crate) workers: Workers,
    pub(crate) tap: Arc<Tap>,
}

/// What every test's driver may want.
pub(crate) fn features(names: &str) -> Features {
    names.split_whitespace().map(|name| name.parse::<Feature>().unwrap()).collect()
}

pub(crate) fn settings(names: &str, max_queues: u16) -> Settings {
    Settings {
        mac: "0c:c4:7a:ff:22:93".parse().unwrap(),
        mtu: 1500.try_into().unwrap(),
        max_queues,
        queue_size: 1024.try_into().unwrap(),
        num_msix: 10,
        features: features(names),
        transitional: false,
    }
}

pub(crate) const ALL: &str = "MAC MTU MQ CTRL_VQ STATUS MRG_RXBUF INDIRECT_DESC EVENT_IDX IN_ORDER VERSION_1 CSUM \
                              GUEST_CSUM GUEST_TSO4 GUEST_TSO6 HOST_TSO4 HOST_TSO6";
pub(crate) const OFFLOADS: Carries = Carries { offloads: true };

pub(crate) fn program() -> Program {
    Program::new(env!("CARGO_BIN_EXE_virtnet-soft-worker"), 2)
}

impl World {
    pub(crate) fn new() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let namespace = Namespace::new().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let tap = namespace.run(|| {
            // The kernel's own packets would come between those of the test.
            std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
            Tap::create(&"rep0".parse().unwrap(), 4).unwrap()
        });
        let tap = Arc::new(tap.unwrap());
        let workers = {
            let _guard = runtime.enter();
            Workers::start(program())
        };
        let world = Self { runtime, namespace, folder, workers, tap };
        world.ip("link set rep0 up txqueuelen 4000");
        world
    }

    pub(crate) fn ip(&self, arguments: &str) {
        let arguments = arguments.split(' ').collect::<Vec<_>>();
        let status = self.namespace.run(|| Command::new("ip").args(arguments).status().unwrap()).unwrap();
        assert!(status.success());
    }

    /// Another TAP, of whose name there is no netdev, or soon none. A process that another test starts has what is open in this one
    /// until it runs its own program, and so a netdev is there a little longer than who made it.
    pub(crate) fn new_tap(&self, name: &IfName) -> Tap {
        let open = || {
            let _guard = self.runtime.enter();
            NetlinkLinks::open(Representors::Taps)
        };
        let links = self.namespace.run(open).unwrap().unwrap();
        let mut events = links.events();
        self.runtime.block_on(async {
            let gone = async {
                while links.observe().await.unwrap().contains_key(name) {
                    events.next().await.unwrap();
                }
            };
            tokio::time::timeout(LONG, gone).await.unwrap_or_else(|_| panic!("{name} is still there"));
        });
        self.namespace.run(|| Tap::create(name, 1)).unwrap().unwrap()
    }

    pub(crate) fn socket(&self) -> std::path::PathBuf {
        self.folder.path().join("function")
    }

    pub(crate) fn function(&self, settings: &Settings, carries: Carries) -> Function {
        let open = || {
            let _guard = self.runtime.enter();
            Function::open(
                &self.workers,
                Some(Arc::clone(&self.tap)),
                settings,
                carries,
                Socket::Serve(self.socket()),
            )
        };
        self.namespace.run(open).unwrap().unwrap()
    }

    pub(crate) fn wire(&self, headers: bool) -> Wire {
        self.namespace.run(|| Wire::open("rep0", headers)).unwrap().unwrap()
    }

    pub(crate) fn driver(&self, options: Options) -> Driver {
        Driver::start(UnixStream::connect(self.socket()).unwrap(), options).unwrap()
    }

    /// Waits until a function's state is as wanted.
    pub(crate) fn until(&self, function: &Function, wanted: impl FnMut(&State) -> bool) -> State {
        let mut watch = function.watch();
        let state = self.runtime.block_on(async {
            tokio::time::timeout(LONG, watch.wait_for(wanted)).await.map(|state| state.unwrap().clone())
        });
        state.unwrap_or_else(|_| panic!("it stays {:?}", function.watch().borrow()))
    }

    /// Waits until all threads of the worker sleep; its process.
    pub(crate) fn until_at_rest(&self) -> u32 {
        let pid = self.workers.watch().borrow().pid.unwrap();
        let states = || {
            let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
            let stat = |task: std::io::Result<std::fs::DirEntry>| {
                std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap()
            };
            tasks.map(stat).all(|stat| stat.rsplit(')').next().unwrap().starts_with(" S"))
        };
        while !states() {
            std::thread::yield_now();
        }
        pid
    }

    /// How often the threads of a process have gone to sleep.
    pub(crate) fn sleeps(pid: u32) -> Vec<String> {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let status = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("status")).unwrap());
        let count = |status: String| {
            status.lines().find(|line| line.starts_with("voluntary_ctxt")).unwrap().to_owned()
        };
        let mut all: Vec<_> = status.map(count).collect();
        all.sort();
        all
    }

    /// Waits until a worker takes orders that is not this one.
    pub(crate) fn worker_after(&self, started: u64) -> u64 {
        let mut watch = self.workers.watch();
        self.runtime.block_on(async {
            let wait = watch.wait_for(|state| state.started > started && state.pid.is_some());
            tokio::time::timeout(LONG, wait).await.expect("no worker comes").unwrap().started
        })
    }
}

/// A packet of a test: an Ethernet header of a type that nobody knows, its number, and bytes that follow from that.
pub(crate) fn packet(number: u64, length: usize) -> Vec<u8> {
    let mut packet = vec![0xff; 6];
    packet.extend([0x02, 0, 0, 0, 0, 1, 0x88, 0xb5]);
    packet.extend(number.to_be_bytes());
    let mut state = number | 1;
    while packet.len() < length {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        packet.extend(state.to_be_bytes());
    }
    packet.truncate(length.max(22));
    packet
}

/// The number of a packet, of which every byte is as it was made.
pub(crate) fn number(bytes: &[u8]) -> u64 {
    let number = u64::from_be_bytes(bytes[14..22].try_into().unwrap());
    assert_eq!(bytes, packet(number, bytes.len()), "packet {number} is another");
    number
}
