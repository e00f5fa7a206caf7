//! Any bytes for a guest's rings and memory, and any for a front end's messages.

use std::path::{Path, PathBuf};
use std::time::Duration;

#[path = "../../../../tests/src/fuzz.rs"]
#[allow(missing_docs, unreachable_pub, reason = "it is a module of another crate")]
mod fuzzer;

/// Five seconds each; `make soak` takes ten minutes.
fn time() -> Duration {
    Duration::from_secs(std::env::var("VIRTNET_FUZZ_SECONDS").map_or(5, |text| text.parse().unwrap()))
}

fn folder(corpus: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/corpora").join(corpus)
}

#[expect(clippy::print_stdout, reason = "the figures, for whoever asks for them")]
fn run(corpus: &str, target: impl Fn(&[u8]) -> bool) {
    let outcome = fuzzer::fuzz(&folder(corpus), 1, time(), target).unwrap();
    println!("{corpus}: {} inputs, {} of them taken for right", outcome.inputs, outcome.taken);
    // Neither is everything refused, for then nothing was looked into, nor is everything taken.
    assert!(outcome.taken > 0 && outcome.taken < outcome.inputs, "{outcome:?}");
}

/// The corpus is what this test says, so that it follows the code. `UPDATE_GOLDEN=1` writes it anew.
fn committed(corpus: &str, inputs: &[(&str, Vec<u8>)]) {
    let folder = folder(corpus);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(&folder).unwrap();
        for (name, input) in inputs {
            std::fs::write(folder.join(name), input).unwrap();
        }
    }
    for (name, input) in inputs {
        let is = std::fs::read(folder.join(name)).unwrap();
        assert!(is == *input, "{corpus}/{name} has drifted: run this test with UPDATE_GOLDEN=1");
    }
}

/// A guest's memory with two rings of eight descriptors, as `virtnet_soft::fuzz::ring` lays them out.
struct Image(Vec<u8>);

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

impl Image {
    /// `features`: 1 indirect descriptors, 2 the event index, 4 merged buffers.
    fn new(features: u8, packets: u8) -> Self {
        let mut bytes = vec![0; 0x2002];
        (bytes[0], bytes[1]) = (3 | features << 3, packets);
        Self(bytes)
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        let at = at + 2;
        self.0.resize(self.0.len().max(at + bytes.len()), 0);
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn descriptor(&mut self, at: usize, address: u64, length: u32, flags: u16, next: u16) {
        let tail = length.to_le_bytes().into_iter().chain(flags.to_le_bytes()).chain(next.to_le_bytes());
        self.put(at, &address.to_le_bytes().into_iter().chain(tail).collect::<Vec<_>>());
    }

    /// Makes heads available on a queue: 0 receives, 1 sends.
    fn offer(mut self, queue: usize, heads: &[u16]) -> Self {
        let at = 0x1000 * queue + 0x400;
        self.put(at + 2, &u16::try_from(heads.len()).unwrap().to_le_bytes());
        for (index, head) in heads.iter().enumerate() {
            self.put(at + 4 + 2 * index, &head.to_le_bytes());
        }
        self
    }
}

#[test]
fn no_memory_of_a_guest_is_a_fault() {
    let mut plain = Image::new(0, 4);
    let mut chains = Image::new(2, 4);
    let mut tables = Image::new(3, 0);
    let mut merged = Image::new(6, 40);
    let mut wrong = Image::new(1, 4);
    for index in 0..8u16 {
        let (number, at) = (u64::from(index), 16 * usize::from(index));
        plain.descriptor(at, 0x2000 + number * 0x400, 0x400, WRITE, 0);
        plain.descriptor(0x1000 + at, 0x1_0000 + number * 0x400, 100, 0, 0);
        chains.descriptor(at, 0x2000 + number * 0x200, 0x200, WRITE | (1 - index % 2), index + 1);
        chains.descriptor(0x1000 + at, 0x1_0000 + number * 20, 20, 1 - index % 2, index + 1);
        tables.descriptor(0x1000 + at, 0x1800, 32, INDIRECT, 0);
        merged.descriptor(at, 0x1_0000 + number * 0x100, 0x100, WRITE, 0);
        // Loops, addresses that there are not, tables in tables, and lengths without end.
        wrong.descriptor(at, 0x4000 - 8, 64, WRITE | NEXT, index);
        wrong.descriptor(0x1000 + at, u64::MAX - number, u32::MAX, NEXT, (index + 1) % 8);
    }
    tables.descriptor(0x1800, 0x1_0000, 12, NEXT, 1);
    tables.descriptor(0x1810, 0x1_0100, 60, 0, 0);
    wrong.descriptor(0x1000, 0x1000, 16, INDIRECT, 0);
    let all = [0, 1, 2, 3, 4, 5, 6, 7];
    let inputs = [
        ("plain", plain.offer(0, &all).offer(1, &all).0),
        ("chains", chains.offer(0, &[0, 2, 4, 6]).offer(1, &[0, 2, 4, 6]).0),
        ("tables", tables.offer(0, &[]).offer(1, &all).0),
        ("merged", merged.offer(0, &all).offer(1, &[]).0),
        ("wrong", wrong.offer(0, &all).offer(1, &all).0),
    ];
    committed("vhost-ring", &inputs);
    run("vhost-ring", virtnet_soft::fuzz::ring);
}

/// A message as `virtnet_soft::fuzz::messages` takes it: with so many descriptors of a kind, 0 memory and 1 an eventfd.
fn message(request: u32, fds: u8, kind: u8, words: &[u64]) -> Vec<u8> {
    let payload: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let header = [request, 1, u32::try_from(payload.len()).unwrap()];
    let header = header.iter().flat_map(|number| number.to_ne_bytes());
    [fds | kind << 4].into_iter().chain(header).chain(payload).collect()
}

#[test]
fn no_bytes_of_a_front_end_are_a_panic() {
    let pair = |low: u64, high: u64| low | high << 32;
    let memory = message(5, 2, 0, &[2, 0, 0x8000, 0x7000_0000, 0, 1 << 32, 0x8000, 0x7000_8000, 0x8000]);
    let begin = [
        message(1, 0, 0, &[]),
        message(15, 0, 0, &[]),
        message(16, 0, 0, &[0x1_b239]),
        message(3, 0, 0, &[]),
    ];
    let features = message(2, 0, 0, &[1 << 32 | 1 << 30]);
    let ring = |index: u64| {
        let address = message(9, 0, 0, &[index, 0x7000_0000, 0x7000_1000, 0x7000_2000, 0]);
        let parts = [
            message(13, 1, 1, &[index]),
            message(18, 0, 0, &[pair(index, 1)]),
            message(8, 0, 0, &[pair(index, 256)]),
            message(10, 0, 0, &[pair(index, 7)]),
            address,
            message(12, 1, 1, &[index]),
        ];
        parts.concat()
    };
    let started = [begin.concat(), features.clone(), memory.clone(), ring(0), ring(1)].concat();
    let end =
        [message(39, 0, 0, &[15]), message(40, 0, 0, &[]), message(11, 0, 0, &[0]), message(11, 0, 0, &[1])];
    let inputs = [
        ("started-and-stopped", [started.clone(), end.concat()].concat()),
        ("reset", [started.clone(), message(39, 0, 0, &[0]), message(34, 0, 0, &[]), features].concat()),
        (
            "slots",
            [
                message(36, 0, 0, &[]),
                message(37, 1, 0, &[0, 0, 0x8000, 1 << 40, 0]),
                message(38, 0, 0, &[0, 0, 0x8000, 1 << 40, 0]),
            ]
            .concat(),
        ),
        (
            "config",
            [message(24, 0, 0, &[pair(0, 12), 0]), message(20, 0, 0, &[1400]), message(17, 0, 0, &[])]
                .concat(),
        ),
        (
            "inflight",
            [
                message(31, 0, 0, &[0, 0, 8 | 256 << 16]),
                message(32, 1, 0, &[2048, 0, 8 | 256 << 16]),
                started,
            ]
            .concat(),
        ),
        (
            "wrong",
            [
                message(9, 0, 0, &[99, 0, 0, 0, 0]),
                message(12, 1, 2, &[0]),
                message(5, 1, 2, &[1, 0, 1, 0, 0]),
            ]
            .concat(),
        ),
    ];
    committed("vhost-user", &inputs);
    run("vhost-user", virtnet_soft::fuzz::messages);
}
