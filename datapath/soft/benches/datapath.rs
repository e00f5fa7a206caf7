//! CPU nanoseconds that a packet costs a function in software, guest to TAP and TAP to guest, beside bare loops that write and read
//! a TAP of the same kind, interleaved in one run. JSON on standard output; figures are medians.
//!
//!     cargo bench -p virtnet-soft --bench datapath -- --rounds 7 --packets 200000 --peer
//!
//! What is measured is the CPU time of the worker's process, and that of the bare loop's thread: what the guest's side of the test and
//! the sender spend is neither's. Needs root.
//!
//! With `--peer` DPDK's vhost and TAP drivers have such a guest beside it. DPDK polls, so what is measured of it is the time in which its
//! thread had a CPU, packets or not: it is a figure for a packet only where guest and peer have a CPU each and nothing else runs.

#![expect(clippy::print_stdout, reason = "the result")]

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use serde_json::{Value, json};
use virtnet_controller::Settings;
use virtnet_model::Features;
use virtnet_netlink::Namespace;
use virtnet_soft::driver::{Driver, Options, RawTap, Wire};
use virtnet_soft::{Carries, Function, Program, Socket, Tap, Workers};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const FEATURES: &str = "MAC MRG_RXBUF INDIRECT_DESC EVENT_IDX VERSION_1 CSUM GUEST_CSUM GUEST_TSO4 GUEST_TSO6 HOST_TSO4 HOST_TSO6";
/// Frames, in bytes. The last is a segment that is to be cut into those of 1448 bytes.
const SIZES: [usize; 3] = [64, 1514, 65_226];
/// Packets that are under way to the guest at most: fewer than a TAP holds.
const WINDOW: u64 = 256;
/// Buffers of each queue, and of the bare loops, and their size in bytes.
const RING: usize = 256;
const BUFFER: usize = 1 << 17;

struct Bench {
    _runtime: tokio::runtime::Runtime,
    _workers: Workers,
    _function: Function,
    function: Side,
    peer: Option<(Side, Peer)>,
    raw: Arc<RawTap>,
    raw_wire: Wire,
}

/// A back end with its guest and the network's side of its TAP.
struct Side {
    driver: Driver,
    wire: Wire,
    /// The CPU time of its process.
    clock: ClockId,
}

/// DPDK's vhost and TAP drivers, with `dpdk-testpmd` between them. It ends with this.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() -> Result<()> {
    let (mut rounds, mut packets, mut with_peer) = (7, 200_000, false);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || {
            arguments
                .next()
                .ok_or("a number is missing")?
                .parse::<u64>()
                .map_err(Box::<dyn std::error::Error>::from)
        };
        match argument.as_str() {
            "--rounds" => rounds = number()?,
            "--packets" => packets = number()?,
            "--peer" => with_peer = true,
            // What cargo adds.
            "--bench" => {}
            other => return Err(format!("{other}: --rounds N --packets N --peer").into()),
        }
    }
    let mut bench = Bench::start(with_peer)?;
    let mut results = Vec::new();
    for size in SIZES {
        let count = if size > 9000 { packets / 10 } else { packets };
        // A segment is nothing that DPDK's TAP driver takes whole.
        let mut peer = bench.peer.take();
        let mut taken: [Vec<f64>; 6] = Default::default();
        for _ in 0..rounds {
            taken[0].push(bench.function.sends(size, count)?);
            taken[1].push(bench.raw_writes(size, count)?);
            taken[2].push(bench.function.receives(size, count)?);
            taken[3].push(bench.raw_reads(size, count)?);
            if let Some((side, _)) = peer.as_mut().filter(|_| size <= 9000) {
                taken[4].push(side.sends(size, count)?);
                taken[5].push(side.receives(size, count)?);
            }
        }
        bench.peer = peer;
        let [sends, writes, receives, reads, peer_sends, peer_receives] = taken.map(median);
        results.push(json!({
            "bytes": size,
            "packetsPerRound": count,
            "guestToTap": direction(sends, writes, peer_sends),
            "tapToGuest": direction(receives, reads, peer_receives),
        }));
    }
    let result: Value = json!({ "unit": "ns of CPU a packet", "rounds": rounds, "sizes": results });
    println!("{}", serde_json::to_string_pretty(&result)?);
    Ok(())
}

fn median(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied()
}

fn direction(function: Option<f64>, raw: Option<f64>, dpdk: Option<f64>) -> Value {
    let tenth = |figure: Option<f64>| figure.map(|figure| (figure * 10.0).round() / 10.0);
    let ratio =
        |to: Option<f64>| function.zip(to).map(|(function, to)| (function / to * 1000.0).round() / 1000.0);
    json!({
        "function": tenth(function),
        "rawTap": tenth(raw),
        "ratioToRawTap": ratio(raw),
        "dpdk": tenth(dpdk),
        "ratioToDpdk": ratio(dpdk),
    })
}

fn nanoseconds(clock: ClockId) -> Result<f64> {
    let time = clock_gettime(clock)?;
    Ok(time.tv_sec() as f64 * 1e9 + time.tv_nsec() as f64)
}

/// A frame with the ten bytes of a header, which is for a segment where the frame is a large one.
fn frame(size: usize) -> (Vec<u8>, Vec<u8>) {
    let mut frame = vec![0; size];
    // To nobody who is there, by an experimental type: it goes no further than the netdev.
    frame[..14].copy_from_slice(&[0x02, 0, 0, 0, 0, 9, 0x02, 0, 0, 0, 0, 8, 0x88, 0xb5]);
    if size <= 9000 {
        return (vec![0; 10], frame);
    }
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    let length = u16::try_from(size - 14).unwrap_or(u16::MAX).to_be_bytes();
    frame[14..34].copy_from_slice(&[
        0x45, 0, length[0], length[1], 0, 0, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2,
    ]);
    let sum: u32 =
        frame[14..34].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = !((sum & 0xffff) + (sum >> 16)) as u16;
    frame[24..26].copy_from_slice(&folded.to_be_bytes());
    frame[34..38].copy_from_slice(&[0x30, 0x39, 0x30, 0x39]);
    frame[46] = 0x50;
    // NEEDS_CSUM, TCPV4, 54 bytes of headers, segments of 1448 bytes, the checksum 16 bytes after byte 34.
    let fields = [54u16, 1448, 34, 16].map(u16::to_le_bytes);
    let header = [1, 1].into_iter().chain(fields.into_iter().flatten()).collect();
    (header, frame)
}

impl Bench {
    fn start(with_peer: bool) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let namespace = Namespace::new()?;
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("function");
        let features: Features =
            FEATURES.split(' ').map(str::parse).collect::<std::result::Result<_, _>>()?;
        let settings = Settings {
            mac: "0c:c4:7a:ff:22:93".parse()?,
            mtu: 1500.try_into()?,
            max_queues: 3,
            queue_size: 1024.try_into()?,
            num_msix: 4,
            features: features.clone(),
            transitional: false,
        };
        let bits = features.bits();
        let (tap, raw) = namespace.run(|| {
            // Packets of the kernel's own would be counted.
            std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")?;
            Ok::<_, std::io::Error>((
                Tap::create(&"rep0".parse().map_err(std::io::Error::other)?, 1)?,
                RawTap::create("raw0", bits)?,
            ))
        })??;
        for name in ["rep0", "raw0"] {
            let arguments = ["link", "set", name, "up", "txqueuelen", "1000"];
            let status = namespace.run(|| Command::new("ip").args(arguments).status())??;
            if !status.success() {
                return Err(format!("ip {arguments:?} failed").into());
            }
        }
        let (workers, function) = {
            let _guard = runtime.enter();
            let workers = Workers::start(Program::new(env!("CARGO_BIN_EXE_virtnet-soft-worker"), 1));
            let offloads = Carries { offloads: true };
            let function = Function::open(
                &workers,
                Some(Arc::new(tap)),
                &settings,
                offloads,
                Socket::Serve(path.clone()),
            )?;
            (workers, function)
        };
        let raw_wire = namespace.run(|| Wire::open_to_send("raw0"))??;
        let side = |path: &Path, netdev: &str, pid: u32| -> Result<Side> {
            // A guest with buffers for whole segments. The protocol's features are those that the function has.
            let options = Options {
                features: features.clone(),
                size: RING as u16,
                buffer: BUFFER as u32,
                protocol: 0x1_b239,
                ..Options::default()
            };
            let mut driver = Driver::start(UnixStream::connect(path)?, options)?;
            driver.fill(0);
            let wire = namespace.run(|| Wire::open_to_send(netdev))??;
            Ok(Side { driver, wire, clock: clock_getcpuclockid(Pid::from_raw(pid.try_into()?))? })
        };
        let mut watch = workers.watch();
        let pid =
            runtime.block_on(watch.wait_for(|state| state.pid.is_some()))?.pid.ok_or("no worker runs")?;
        let function_side = side(&path, "rep0", pid)?;
        let peer = with_peer.then(|| -> Result<_> {
            let path = folder.path().join("peer");
            let peer = Peer(namespace.run(|| start_peer(&path))??);
            // Nothing tells that it forwards: its TAP is there once both its ports are started.
            for _ in 0..200 {
                if namespace.run(|| Wire::open_to_send("dtap0"))?.is_ok() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            std::thread::sleep(Duration::from_secs(1));
            Ok((side(&path, "dtap0", peer.0.id())?, peer))
        });
        let peer = peer.transpose()?;
        Ok(Self {
            _runtime: runtime,
            _workers: workers,
            _function: function,
            function: function_side,
            peer,
            raw: Arc::new(raw),
            raw_wire,
        })
    }

    fn raw_writes(&self, size: usize, count: u64) -> Result<f64> {
        let (header, frame) = frame(size);
        let bytes: Vec<u8> = header.iter().copied().chain([0, 0]).chain(frame).collect();
        // As many buffers as the function has, so that both find them in the same caches.
        let buffers = vec![bytes; RING];
        let before = nanoseconds(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
        for buffer in buffers.iter().cycle().take(usize::try_from(count)?) {
            self.raw.write(buffer)?;
        }
        Ok((nanoseconds(ClockId::CLOCK_THREAD_CPUTIME_ID)? - before) / count as f64)
    }

    fn raw_reads(&self, size: usize, count: u64) -> Result<f64> {
        let bytes = wired(size);
        let seen = Arc::new(AtomicU64::new(0));
        let (raw, counter) = (Arc::clone(&self.raw), Arc::clone(&seen));
        let reader = std::thread::spawn(move || -> std::io::Result<f64> {
            let mut buffers = vec![vec![0; BUFFER]; RING];
            let clock = || {
                nanoseconds(ClockId::CLOCK_THREAD_CPUTIME_ID)
                    .map_err(|error| std::io::Error::other(error.to_string()))
            };
            let before = clock()?;
            for number in 1..=count {
                raw.read(&mut buffers[number as usize % RING])?;
                counter.store(number, Ordering::Release);
            }
            Ok(clock()? - before)
        });
        let mut sent = 0;
        while seen.load(Ordering::Acquire) < count {
            if reader.is_finished() {
                break;
            }
            while sent < count && sent < seen.load(Ordering::Acquire) + WINDOW {
                self.raw_wire.send(&bytes)?;
                sent += 1;
            }
        }
        Ok(reader.join().map_err(|_| "the reader panicked")?? / count as f64)
    }
}

impl Side {
    fn sends(&mut self, size: usize, count: u64) -> Result<f64> {
        let (header, frame) = frame(size);
        let bytes: Vec<u8> = header.iter().copied().chain([0, 0]).chain(frame).collect();
        for cookie in 0..RING as u64 {
            let at = self.driver.buffer(1, cookie);
            self.driver.write(at, &bytes);
        }
        let length = u32::try_from(bytes.len())?;
        let mut free: Vec<u64> = (0..RING as u64).collect();
        let (mut sent, mut back) = (0, 0);
        let before = nanoseconds(self.clock)?;
        while back < count {
            while sent < count
                && let Some(cookie) = free.pop()
            {
                self.driver.send_again(0, cookie, length);
                sent += 1;
            }
            self.driver.rings[1].notify();
            while let Some(given) = self.driver.rings[1].given()? {
                free.push(given.cookie);
                back += 1;
            }
        }
        Ok((nanoseconds(self.clock)? - before) / count as f64)
    }

    fn receives(&mut self, size: usize, count: u64) -> Result<f64> {
        let bytes = wired(size);
        let (mut sent, mut seen) = (0, 0);
        let before = nanoseconds(self.clock)?;
        while seen < count {
            while sent < count && sent < seen + WINDOW {
                self.wire.send(&bytes)?;
                sent += 1;
            }
            seen += self.driver.skip(0)?;
        }
        Ok((nanoseconds(self.clock)? - before) / count as f64)
    }
}

/// A frame as a packet socket takes it.
fn wired(size: usize) -> Vec<u8> {
    let (header, frame) = frame(size);
    header.into_iter().chain(frame).collect()
}

/// DPDK between a vhost-user socket and a TAP of its own, `dtap0`. It polls: its CPU time is that of the clock.
fn start_peer(socket: &Path) -> std::io::Result<Child> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/dpdk/get.sh");
    let output = Command::new(script).output()?;
    let told = String::from_utf8_lossy(&output.stdout);
    let told = |name: &str| {
        let line = told.lines().filter_map(|line| line.split_once('=')).find(|(key, _)| *key == name);
        line.map(|(_, value)| value.to_owned())
            .ok_or_else(|| std::io::Error::other("tests/dpdk/get.sh told nothing"))
    };
    let (testpmd, drivers, libraries) = (told("testpmd")?, told("drivers")?, told("libraries")?);
    let mut command = Command::new(testpmd);
    command.args("-l 0,1 --no-huge --no-shconf --no-telemetry --no-pci -m 512".split(' '));
    for driver in ["bus_vdev", "mempool_ring", "net_vhost", "net_tap"] {
        command.arg("-d").arg(format!("{drivers}/librte_{driver}.so"));
    }
    command.arg("--vdev").arg(format!("net_vhost0,iface={},queues=1", socket.display()));
    let rest = "--vdev net_tap0,iface=dtap0 -- --total-num-mbufs=32768 --disable-link-check --no-flush-rx";
    command.args(rest.split(' ')).args(["--forward-mode=io", "--no-lsc-interrupt"]);
    if !libraries.is_empty() {
        command.env("LD_LIBRARY_PATH", libraries);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
}
