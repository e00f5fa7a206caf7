//! CPU nanoseconds that a packet costs a function in software, guest to TAP and TAP to guest, beside DPDK's vhost and TAP drivers and
//! beside bare loops that write and read a TAP, interleaved in one run; and what functions cost that do nothing. JSON on standard
//! output; figures are medians of rounds, and ratios those of the figures of each round. Needs root, and two CPUs.
//!
//!     cargo bench -p virtnet-soft --bench datapath -- --rounds 9 --packets 100000 --peer --plot docs/datapath.svg
//!
//! What is measured is the CPU time of the worker's process, of `dpdk-testpmd`'s, and of the bare loop's thread: what the guest's side and
//! the sender spend is nobody's. The three have TAPs in one network namespace, packets of one sender, and one consumer, which is the
//! kernel's network stack: it counts them and has no use for them. DPDK polls, and its CPU time is that of the clock. So all three are
//! measured alike, and only while there is work: see `side`.
//!
//! Segments are not passed on whole by DPDK's TAP driver: what is told of it is what the frames that carry as much cost it.
//!
//! | module | what lives there |
//! |---|---|
//! | `frames` | what is moved |
//! | `process` | a process that is measured |
//! | `side`, `peer`, `raw` | a back end with its guest, DPDK, and the bare loops |
//! | `rest` | functions that do nothing |
//! | `plot` | the picture |

#![expect(clippy::print_stdout, reason = "the result")]

mod frames;
mod peer;
mod plot;
mod process;
mod raw;
mod rest;
mod side;

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use serde_json::{Value, json};
use virtnet_controller::Settings;
use virtnet_model::Features;
use virtnet_netlink::Namespace;
use virtnet_soft::driver::RawTap;
use virtnet_soft::{Carries, Function, Program, Socket, Tap, Workers};

use crate::frames::pieces;
use crate::peer::Peer;
use crate::process::Process;
use crate::raw::Raw;
use crate::side::Side;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const FEATURES: &str = "MAC MRG_RXBUF INDIRECT_DESC EVENT_IDX VERSION_1 CSUM GUEST_CSUM GUEST_TSO4 GUEST_TSO6 HOST_TSO4 HOST_TSO6";
/// Frames, in bytes: the first two by one set of buffers, the last, a segment that is to be cut, by another.
const SMALL: [usize; 2] = [64, 1514];
const LARGE: [usize; 1] = [65_214];

/// A guest's buffers of each queue, which are the packets of a burst. There are more of small ones than guests have, so that what a
/// process takes to go on has no part in what a packet costs.
#[derive(Clone, Copy, Debug)]
struct Buffers {
    count: u16,
    /// In bytes.
    size: u32,
}

/// What a packet took in one round: the function, the bare loop, and DPDK.
type Taken = (f64, f64, Option<f64>);

/// What a packet of one size and direction costs, in nanoseconds.
#[derive(Clone, Debug)]
struct Figures {
    function: f64,
    raw: f64,
    to_raw: f64,
    dpdk: Option<f64>,
    to_dpdk: Option<f64>,
}

struct Arguments {
    rounds: usize,
    packets: u64,
    peer: bool,
    plot: Option<PathBuf>,
}

fn main() -> Result<()> {
    let mut wanted = Arguments { rounds: 9, packets: 100_000, peer: false, plot: None };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument}: its value is missing"));
        match argument.as_str() {
            "--rounds" => wanted.rounds = value()?.parse()?,
            "--packets" => wanted.packets = value()?.parse()?,
            "--peer" => wanted.peer = true,
            "--plot" => wanted.plot = Some(value()?.into()),
            // This program again, for `rest`.
            "--guests" => return rest::guests(value()?.as_ref()),
            // What cargo adds.
            "--bench" => {}
            other => return Err(format!("{other}: --rounds N --packets N --peer --plot FILE").into()),
        }
    }
    if wanted.rounds == 0 || wanted.packets == 0 {
        return Err("--rounds and --packets: at least 1".into());
    }
    let cpus = process::two_cpus()?;
    let quiet = rest::measure()?;
    let Arguments { rounds, packets, peer, plot } = wanted;
    let mut sizes = run(cpus, (rounds, packets), Buffers { count: 4096, size: 2048 }, &SMALL, peer)?;
    let large = Buffers { count: 256, size: 1 << 17 };
    sizes.extend(run(cpus, (rounds, packets.div_ceil(10)), large, &LARGE, false)?);
    // As many frames of the size before as carry what the segment does.
    let [.., (_, plain), (size, segment)] = &mut sizes[..] else { return Err("sizes are missing".into()) };
    for (plain, segment) in plain.iter().zip(segment) {
        segment.dpdk = plain.dpdk.map(|dpdk| dpdk * pieces(*size) as f64);
        segment.to_dpdk = segment.dpdk.map(|dpdk| segment.function / dpdk);
    }
    if let Some(path) = plot {
        std::fs::write(&path, plot::svg(&sizes))
            .map_err(|error| format!("writing {}: {error}", path.display()))?;
    }
    let told = sizes.iter().map(|(size, [out, back])| {
        json!({
            "bytes": size,
            "dpdkFrames": pieces(*size),
            "guestToTap": direction(out),
            "tapToGuest": direction(back),
        })
    });
    let result = json!({
        "unit": "ns of CPU a packet",
        "rounds": rounds,
        "packetsPerRound": packets,
        "sizes": told.collect::<Vec<_>>(),
        "atRest": quiet,
    });
    println!("{}", serde_json::to_string_pretty(&result)?);
    Ok(())
}

fn direction(figures: &Figures) -> Value {
    let tenth = |figure: f64| (figure * 10.0).round() / 10.0;
    let ratio = |figure: f64| (figure * 1000.0).round() / 1000.0;
    json!({
        "function": tenth(figures.function),
        "rawTap": tenth(figures.raw),
        "ratioToRawTap": ratio(figures.to_raw),
        "dpdk": figures.dpdk.map(tenth),
        "ratioToDpdk": figures.to_dpdk.map(ratio),
    })
}

fn median(figures: impl Iterator<Item = f64>) -> Option<f64> {
    let mut figures: Vec<_> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied()
}

fn features() -> Result<Features> {
    Ok(FEATURES.split(' ').map(str::parse).collect::<std::result::Result<_, _>>()?)
}

fn settings() -> Result<Settings> {
    Ok(Settings {
        mac: "0c:c4:7a:ff:22:93".parse()?,
        mtu: 1500.try_into()?,
        max_queues: 3,
        queue_size: 4096.try_into()?,
        num_msix: 4,
        features: features()?,
        transitional: false,
    })
}

fn ip(namespace: &Namespace, arguments: &str) -> Result<()> {
    let status = namespace.run(|| Command::new("ip").args(arguments.split(' ')).status())??;
    if status.success() { Ok(()) } else { Err(format!("ip {arguments}: {status}").into()) }
}

/// How many packets have come to a netdev from its TAP.
fn passed(namespace: &Namespace, netdev: &str) -> Result<u64> {
    let all = namespace.run(|| std::fs::read_to_string("/proc/thread-self/net/dev"))??;
    let line = all.lines().find_map(|line| line.trim_start().strip_prefix(netdev)?.strip_prefix(':'));
    let packets = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(packets.ok_or_else(|| format!("there is no netdev {netdev}"))?.parse()?)
}

/// All in turns, for frames of some sizes.
fn run(
    cpus: [usize; 2],
    (rounds, packets): (usize, u64),
    buffers: Buffers,
    sizes: &[usize],
    with_peer: bool,
) -> Result<Vec<(usize, [Figures; 2])>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let _guard = runtime.enter();
    let namespace = Namespace::new()?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("function");
    let (features, settings) = (features()?, settings()?);
    let (tap, raw) = namespace.run(|| {
        // Packets of the kernel's own would be counted.
        std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")?;
        Ok::<_, std::io::Error>((
            Tap::create(&"rep0".parse().map_err(std::io::Error::other)?, 1)?,
            RawTap::create("raw0", features.bits())?,
        ))
    })??;
    // It holds a burst.
    let up = |netdev: &str| ip(&namespace, &format!("link set {netdev} up txqueuelen 5000"));
    up("rep0")?;
    up("raw0")?;
    let workers = Workers::start(Program::new(env!("CARGO_BIN_EXE_virtnet-soft-worker"), 1));
    let socket = Socket::Serve(path.clone());
    let _function =
        Function::open(&workers, Some(Arc::new(tap)), &settings, Carries { offloads: true }, socket)?;
    let mut watch = workers.watch();
    let pid = runtime.block_on(watch.wait_for(|state| state.pid.is_some()))?.pid.ok_or("no worker runs")?;
    let worker = Process::new(pid)?;
    worker.pin(cpus[1])?;
    process::pin(0, cpus[0])?;
    let mut raw = Raw::new(&namespace, raw, "raw0", buffers, cpus[1])?;
    let mut function = Side::connect(&namespace, (&path, "rep0"), (worker, cpus), &features, buffers)?;
    let mut peer = None;
    if with_peer {
        let path = folder.path().join("peer");
        let process = Peer::start(&namespace, &path, cpus)?;
        up(peer::NETDEV)?;
        let measured = Process::new(process.pid())?;
        let side = Side::connect(&namespace, (&path, peer::NETDEV), (measured, cpus), &features, buffers)?;
        peer = Some((side, process));
    }
    let mut result = Vec::new();
    for size in sizes {
        let (size, count) = (*size, packets);
        let mut taken: Vec<[Taken; 2]> = Vec::new();
        // The first is for caches to be filled.
        for _ in 0..=rounds {
            let mut dpdk = [None; 2];
            if let Some((side, _)) = &mut peer {
                side.process.go_on()?;
                dpdk = [side.sends(&namespace, size, count)?, side.receives(size, count)?].map(Some);
                // It polls, and would take the CPU from others.
                side.process.stop(cpus)?;
            }
            let function = [function.sends(&namespace, size, count)?, function.receives(size, count)?];
            let raw = [raw.writes(size, count)?, raw.reads(size, count)?];
            taken.push([0, 1].map(|way| (function[way], raw[way], dpdk[way])));
        }
        let figures = |way: usize| {
            let of = |figure: fn(&Taken) -> Option<f64>| {
                median(taken[1..].iter().filter_map(|round| figure(&round[way])))
            };
            let missing = "there was no round";
            Ok::<_, &str>(Figures {
                function: of(|(function, ..)| Some(*function)).ok_or(missing)?,
                raw: of(|(_, raw, _)| Some(*raw)).ok_or(missing)?,
                to_raw: of(|(function, raw, _)| Some(function / raw)).ok_or(missing)?,
                dpdk: of(|(.., dpdk)| *dpdk),
                to_dpdk: of(|(function, _, dpdk)| dpdk.map(|dpdk| function / dpdk)),
            })
        };
        result.push((size, [figures(0)?, figures(1)?]));
    }
    Ok(result)
}
