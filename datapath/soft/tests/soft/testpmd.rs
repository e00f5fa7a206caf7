//! DPDK's `dpdk-testpmd` as the driver: what the TAP receives goes through the function to it, and comes back the same way. Every
//! packet is checked, and their order within a flow.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use virtnet_model::{Feature, Features};
use virtnet_soft::driver::Wire;

use crate::support::{ALL, OFFLOADS, World, features, number, packet, settings};

/// What driver and function agree on, and the longest frame.
#[derive(Clone, Copy, Debug)]
struct Case {
    mergeable: bool,
    in_order: bool,
    indirect: bool,
    /// Descriptors of a ring.
    size: u16,
    /// Queue pairs.
    pairs: u16,
    /// In bytes.
    longest: usize,
}

/// Every two values of two fields are in one of these.
const CASES: [Case; 9] = [
    case([false, false, false], 256, 4, 9000),
    case([false, true, true], 1024, 1, 9000),
    case([false, true, true], 256, 2, 1514),
    case([false, true, true], 64, 4, 128),
    case([true, false, false], 1024, 4, 1514),
    case([true, false, false], 256, 1, 128),
    case([true, false, false], 64, 2, 9000),
    case([true, false, true], 64, 1, 1514),
    case([true, true, false], 1024, 2, 128),
];

const fn case([mergeable, in_order, indirect]: [bool; 3], size: u16, pairs: u16, longest: usize) -> Case {
    Case { mergeable, in_order, indirect, size, pairs, longest }
}

impl Case {
    /// The field of each number, as one.
    fn fields(&self) -> [usize; 6] {
        let flags = [self.mergeable, self.in_order, self.indirect].map(usize::from);
        [flags[0], flags[1], flags[2], self.size.into(), self.pairs.into(), self.longest]
    }

    /// Bytes of a buffer of testpmd's: a frame needs several where they are merged, for only then are there chains and tables.
    fn buffer(&self) -> usize {
        if self.mergeable { self.longest / 4 } else { self.longest }.next_multiple_of(64)
    }

    /// Packets that are under way at most: testpmd drops what its transmit ring has no room for. As many again may have arrived
    /// whose descriptors it has not been told of, since those come back in batches.
    fn window(&self) -> u64 {
        let descriptors = self.longest.div_ceil(self.buffer()) as u64 + 1;
        u64::from(self.size) / (2 * descriptors)
    }

    /// The features of a function that agrees to no more.
    fn features(&self) -> Features {
        features(ALL)
            .with(Feature::MrgRxbuf, self.mergeable)
            .with(Feature::InOrder, self.in_order)
            .with(Feature::IndirectDesc, self.indirect)
    }
}

/// The number of packets that only tell whether it forwards.
const PROBE: u64 = u64::MAX - 1;
/// Flows, by which the kernel spreads packets over queues.
const FLOWS: u64 = 16;

/// A million each with `VIRTNET_TESTPMD_PACKETS=1000000`.
fn count() -> u64 {
    std::env::var("VIRTNET_TESTPMD_PACKETS").map_or(3000, |packets| packets.parse().unwrap())
}

/// The program; it ends with this, and with this process.
struct Testpmd(Child, PathBuf);

impl Drop for Testpmd {
    #[expect(clippy::print_stderr, reason = "why a test fails")]
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        if std::thread::panicking() {
            eprintln!("testpmd says:\n{}", std::fs::read_to_string(&self.1).unwrap_or_default());
        }
    }
}

impl Testpmd {
    fn start(socket: &Path, case: &Case) -> Self {
        let Case { mergeable, in_order, indirect: _, size, pairs, longest } = *case;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/dpdk/get.sh");
        let output = Command::new(script).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let told = String::from_utf8(output.stdout).unwrap();
        let told: BTreeMap<_, _> = told.lines().filter_map(|line| line.split_once('=')).collect();
        let mut command = Command::new(told["testpmd"]);
        command.args("-l 0,1 --no-huge --no-shconf --no-telemetry --no-pci -m 256".split(' '));
        for driver in ["bus_vdev", "mempool_ring", "net_virtio"] {
            command.arg("-d").arg(format!("{}/librte_{driver}.so", told["drivers"]));
        }
        let device = format!(
            "net_virtio_user0,path={},queues={pairs},queue_size={size},cq=1,mrg_rxbuf={},in_order={}",
            socket.display(),
            u8::from(mergeable),
            u8::from(in_order),
        );
        command.arg("--vdev").arg(device).arg("--");
        command.args(
            "--total-num-mbufs=16384 --no-lsc-interrupt --disable-link-check --no-flush-rx --port-topology=loop --forward-mode=io".split(' '),
        );
        command.args([
            format!("--rxq={pairs}"),
            format!("--txq={pairs}"),
            format!("--max-pkt-len={longest}"),
            // What lies before a packet is of the same memory.
            format!("--mbuf-size={}", case.buffer() + 128),
        ]);
        if mergeable {
            // Packets of several segments, which merged buffers alone make.
            command.args(["--tx-offloads=0x8000", "--enable-scatter"]);
        }
        if !told["libraries"].is_empty() {
            command.env("LD_LIBRARY_PATH", told["libraries"]);
        }
        let path = socket.with_extension("log");
        let log = std::fs::File::create(&path).unwrap();
        command.stdin(Stdio::piped()).stdout(log.try_clone().unwrap()).stderr(log);
        Self(command.spawn().unwrap(), path)
    }
}

/// Bytes of the headers of a flow's packet.
const HEADERS: usize = 38;

/// A packet of a flow of UDP over IPv4.
fn flow(number: u64, length: usize) -> Vec<u8> {
    // The number is in what comes after the headers, and the rest follows from it.
    [&headers(number, length)[..], &packet(number, length - HEADERS)].concat()
}

fn headers(number: u64, length: usize) -> [u8; HEADERS] {
    let port = (number % FLOWS) as u8;
    let size = u16::try_from(length - 14).unwrap().to_be_bytes();
    [
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0, 0, 0, 0, 1, 0x08, 0x00, 0x45, 0, size[0], size[1], 0, 0,
        0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0x30, port, 0x30, 1,
    ]
}

fn there_and_back(function: &virtnet_soft::Function, wire: &Wire, case: &Case) {
    let (window, longest) = (case.window(), case.longest);
    // What is there before it forwards it may drop, and nothing tells when it does: the first that comes back.
    let began = Instant::now();
    while wire.receive().unwrap().is_none() {
        assert!(began.elapsed() < Duration::from_secs(20), "testpmd does not forward");
        wire.send(&flow(PROBE, 100)).unwrap();
        for _ in 0..2000 {
            std::thread::yield_now();
        }
    }
    let (count, mut sent, mut seen) = (count(), 0, 0);
    let mut last = BTreeMap::new();
    while seen < count {
        while sent < count && sent - seen < window {
            wire.send(&flow(sent, 80 + (sent as usize * 131) % (longest - 80))).unwrap();
            sent += 1;
        }
        let before = seen;
        while let Some(packet) = wire.receive().unwrap() {
            let number = number(&packet[HEADERS..]);
            if number == PROBE {
                continue;
            }
            assert_eq!(packet[..HEADERS], headers(number, packet.len()), "packet {number} is another");
            let last = last.insert(number % FLOWS, number);
            assert!(last.is_none_or(|last| last < number), "{number} after {last:?}: twice, or out of order");
            seen += 1;
        }
        if before == seen {
            assert!(wire.wait(&[]).unwrap(), "{seen} of {sent} came back: {:?}", function.counters(2));
        }
    }
}

#[test]
fn every_two_values_are_in_a_case() {
    let all = CASES.map(|case| case.fields());
    for (one, other) in (0..6).flat_map(|one| (0..one).map(move |other| (one, other))) {
        let values = |field: usize| all.iter().map(|fields| fields[field]).collect::<BTreeSet<_>>();
        let together = all.iter().map(|fields| (fields[one], fields[other])).collect::<BTreeSet<_>>();
        assert_eq!(together.len(), values(one).len() * values(other).len(), "fields {other} and {one}");
    }
}

#[test]
fn testpmd_drives_a_function_over_what_can_be_agreed_on() {
    let world = World::new();
    let wire = world.wire(false);
    let mut settings = settings(ALL, 9);
    settings.mtu = 9000.try_into().unwrap();
    world.ip("link set rep0 mtu 9000");
    let function = world.function(&settings, OFFLOADS);
    for case in CASES {
        settings.features = case.features();
        world.runtime.block_on(function.configure(&settings, OFFLOADS)).unwrap();
        let testpmd = Testpmd::start(&world.socket(), &case);
        let state = world.until(&function, |state| state.in_use && state.active_pairs == case.pairs);
        assert_eq!(state.fault, None, "{case:?}");
        let agreed = state.negotiated.unwrap();
        let has = [Feature::MrgRxbuf, Feature::InOrder, Feature::IndirectDesc]
            .map(|feature| agreed.contains(feature));
        assert_eq!(has, [case.mergeable, case.in_order, case.indirect], "{case:?}: {agreed}");
        let began = Instant::now();
        there_and_back(&function, &wire, &case);
        println!("{case:?}: {} packets there and back in {:?}", count(), began.elapsed());
        drop(testpmd);
        world.until(&function, |state| !state.connected);
    }
    let counters = function.counters(8);
    let passed = |side: usize| counters.iter().skip(side).step_by(2).map(|queue| queue.packets).sum::<u64>();
    assert!(passed(0) >= passed(1) && passed(1) >= count() * CASES.len() as u64, "{counters:?}");
    assert!(
        counters.iter().all(|queue| queue.stopped + queue.bad_desc_errors + queue.dropped == 0),
        "{counters:?}"
    );
}
