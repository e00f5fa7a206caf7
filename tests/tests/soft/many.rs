//! Sixteen functions that come by one apply and go again, over and over: nothing is left of them, and nothing grows.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::json;
use virtnet_model::Mac;
use virtnet_tests::guest::functions::sees;
use virtnet_tests::guest::{Guest, Machine};

use crate::common::{host, mac};
use crate::lab::{BRIDGE, Lab};

const FUNCTIONS: u8 = 16;
/// How often they come and go, where nobody says otherwise.
const ROUNDS: u32 = 3;
/// What a process may grow by over all rounds after the first one: far less than a function of each round would take.
const GROWS_KIB: u64 = 4096;

/// What is held where no function is declared.
#[derive(Debug)]
struct Held {
    /// File descriptors of virtnetd's processes: the service's, its worker's, the mover of packets.
    descriptors: Vec<usize>,
    /// The memory of each that is in no file, in KiB.
    memory: Vec<u64>,
    /// The TAPs, those of the switch itself among them.
    netdevs: BTreeSet<String>,
    ports: Vec<String>,
    sockets: usize,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { descriptors, memory, ports, sockets, .. } = self;
        write!(
            f,
            "{descriptors:?} file descriptors, {memory:?} KiB, {} ports, {sockets} sockets",
            ports.len()
        )
    }
}

/// The names in what ip(8) tells of netdevs, a line each.
fn names(lines: &str) -> BTreeSet<String> {
    lines.lines().filter_map(|line| line.split(": ").nth(1)).map(str::to_owned).collect()
}

fn held(lab: &Lab) -> Held {
    let processes = lab.service.processes();
    let descriptors = |pid: &u32| std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let memory = |pid: &u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    Held {
        descriptors: processes.iter().map(descriptors).collect(),
        memory: processes.iter().map(memory).collect(),
        netdevs: names(&lab.ovs.inside("ip", &["-o", "link", "show", "type", "tun"]).unwrap()),
        ports: lab.ports(),
        sockets: lab.service.open_sockets(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_functions_come_and_go_and_leave_nothing() {
    let rounds = std::env::var("VIRTNET_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    let mut guest = Guest::boot(Machine { ports: FUNCTIONS.into(), ..Machine::default() }).await.unwrap();
    let lab = Lab::start(json!({"hosts": {"a": host(&guest, 0)}}), false).await;
    let names: Vec<_> = (1..=FUNCTIONS).map(|number| format!("many-{number}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let macs: Vec<Mac> = (1..=FUNCTIONS).map(mac).collect();
    let netdevs = held(&lab).netdevs;
    let mut first = None;
    for round in 1..=rounds {
        let declared = names.iter().zip(&macs).map(|(name, mac)| {
            let spec = json!({"function": {"hotplug": {}}, "mac": mac, "port": {"bridge": BRIDGE}});
            lab.declare(name, spec)
        });
        futures::future::join_all(declared).await;
        lab.until_ready().await;
        sees(guest.console().unwrap(), macs.iter().copied()).await;
        assert_eq!(lab.ports().len(), usize::from(FUNCTIONS));
        lab.withdraw(&names).await;
        sees(guest.console().unwrap(), []).await;

        let now = held(&lab);
        assert_eq!((now.ports.len(), now.sockets, &now.netdevs), (0, 0, &netdevs), "round {round}");
        let first = first.get_or_insert_with(|| held(&lab));
        assert_eq!(now.descriptors, first.descriptors, "round {round}");
        for (now, first) in now.memory.iter().zip(&first.memory) {
            assert!(*now <= first + GROWS_KIB, "round {round}: {now} KiB, after the first one {first}");
        }
        println!("round {round}: all came and went; left are {now}");
    }
    lab.end().await;
}
