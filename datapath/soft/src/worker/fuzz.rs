//! Bytes as a guest's memory, for fuzzing.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};

use super::scratch::{LONGEST, Scratch};
use crate::job::{Description, Mode, Queue, Region};
use crate::shared::Shared;

/// The guest's memory: two regions, with nothing between them and nothing after.
const SIZE: u64 = 0x4000;
const HIGH: u64 = 0x1_0000;
/// Where the parts of the two rings are.
const RINGS: [[u64; 3]; 2] = [[0, 0x400, 0x600], [0x1000, 0x1400, 0x1600]];
/// Turns that both queues have at most.
const TURNS: usize = 4;

/// The first byte says the features and the size of the rings, the second how many packets come from the TAP; what follows is the
/// guest's memory from its beginning. Whether no queue was stopped.
///
/// # Panics
/// Where more is sent or received than the rings have room for, or something is written outside of the guest's memory.
pub fn ring(bytes: &[u8]) -> bool {
    let [kind, packets, image @ ..] = bytes else { return false };
    run(*kind, *packets, image).expect("the machine has what a fuzz target needs")
}

fn run(kind: u8, packets: u8, image: &[u8]) -> std::io::Result<bool> {
    let size = 1u16 << (kind & 7).min(6);
    let features = 1 << 32
        | u64::from(kind >> 3 & 1) << 28
        | u64::from(kind >> 4 & 1) << 29
        | u64::from(kind >> 5 & 1) << 15;
    let memory = memfd_create("fuzz", MFdFlags::MFD_CLOEXEC)?;
    let file = File::from(memory.try_clone()?);
    // What lies around the regions in the file is not the guest's.
    file.set_len(4 * SIZE)?;
    let image = &image[..image.len().min(2 * SIZE as usize)];
    let (low, high) = image.split_at(image.len().min(SIZE as usize));
    file.write_all_at(low, SIZE)?;
    file.write_all_at(high, 2 * SIZE)?;
    let (tap, wire) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_NONBLOCK)?;
    let packet: Vec<u8> = (0..1400u16).map(|byte| byte as u8).collect();
    for number in 0..usize::from(packets % 64) {
        send(wire.as_raw_fd(), &packet[..20 + number * 20], MsgFlags::MSG_DONTWAIT)?;
    }
    let event = || EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).map(OwnedFd::from);
    let fds =
        vec![memory, tap, Shared::create("p", 2)?.fd()?, Shared::create("c", 2)?.fd()?, event()?, event()?];
    let queue = |index: u16| {
        let [descriptors, available, used] = RINGS[usize::from(index)];
        Queue {
            index,
            size,
            descriptors,
            available,
            used,
            kick: 4,
            call: Some(5),
            err: Some(5),
            mode: Mode::Run,
            start: 1,
            base: 0,
            resume: false,
        }
    };
    let region = |guest, offset| Region { guest, size: SIZE, offset, fd: 0 };
    let description = Description {
        features,
        mtu: 1500,
        regions: vec![region(0, SIZE), region(HIGH, 2 * SIZE)],
        queues: vec![queue(0), queue(1)],
        taps: [(0, 1)].into(),
        records: 2,
        progress: 2,
        counters: 3,
    };
    let Ok((_, pairs)) = super::pairs(0, &description, fds) else { return Ok(false) };
    let (mut scratch, mut whole, mut out) = (Scratch::new(), true, 0);
    for (_, mut pair) in pairs {
        for _ in 0..TURNS {
            let (more, stopped) = pair.run(&mut scratch);
            whole &= stopped.is_empty();
            let mut bytes = [0; LONGEST + 1];
            while let Ok(length) = recv(wire.as_fd().as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
                assert!(length <= LONGEST, "a packet of {length} bytes was sent");
                if length == 0 {
                    break;
                }
                out += 1;
            }
            assert!(out <= TURNS * usize::from(size), "{out} packets were sent by a ring of {size}");
            if !more {
                break;
            }
        }
    }
    let mut around = vec![0; SIZE as usize];
    for offset in [0, 3 * SIZE] {
        file.read_exact_at(&mut around, offset)?;
        assert!(around.iter().all(|byte| *byte == 0), "something was written outside of the guest's memory");
    }
    Ok(whole)
}
