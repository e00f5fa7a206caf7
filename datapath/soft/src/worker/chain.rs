//! A chain of descriptors as pieces of memory, whatever a driver has written there.

use std::ptr::NonNull;

use super::memory::Memory;
use super::ring::{Descriptor, Ring};
use crate::counters::Counter;

/// Pieces that a system call takes (UIO_MAXIOV), less some for what is put beside a packet.
pub(super) const MAX_PIECES: usize = 1000;
/// Descriptors that an indirect table may have, however short the ring is: QEMU's limit, since drivers exceed the size of a
/// small ring, which they may not.
const MAX_INDIRECT: u32 = 1024;

/// Some of the guest's memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) at: NonNull<u8>,
    pub(super) length: usize,
}

// SAFETY: whoever has one has the memory that it is in.
unsafe impl Send for Piece {}

/// What a chain is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// The device reads it.
    Read,
    /// The device writes to it.
    Write,
}

/// Adds the pieces of the chain that begins with a descriptor, until there are `most`; how many bytes they are.
///
/// # Errors
/// What to count where the chain can't be used. What was added by then stays for the caller to remove.
#[inline]
pub(super) fn walk(
    ring: &Ring,
    head: u16,
    direction: Direction,
    indirect: bool,
    (pieces, most): (&mut Vec<Piece>, usize),
) -> Result<usize, Counter> {
    let first = ring.descriptor(head).ok_or(Counter::BadDescriptor)?;
    let mut walk = Walk { memory: ring.memory(), direction, pieces, most, bytes: 0 };
    if first.flags() & Descriptor::INDIRECT != 0 {
        if !indirect {
            return Err(Counter::BadDescriptor);
        }
        walk.table(first)?;
        return Ok(walk.bytes);
    }
    let mut descriptor = first;
    // A chain of more descriptors than there are is a loop.
    for _ in 0..ring.size() {
        if descriptor.flags() & Descriptor::INDIRECT != 0 {
            // At the end of a chain the specification permits it (2.7.5.3.1), but no driver does so.
            return Err(Counter::BadDescriptor);
        }
        walk.buffer(descriptor)?;
        if descriptor.flags() & Descriptor::NEXT == 0 {
            return Ok(walk.bytes);
        }
        descriptor = ring.descriptor(descriptor.next()).ok_or(Counter::BadDescriptor)?;
    }
    Err(Counter::TooLong)
}

struct Walk<'a> {
    memory: &'a Memory,
    direction: Direction,
    pieces: &'a mut Vec<Piece>,
    most: usize,
    bytes: usize,
}

impl Walk<'_> {
    fn table(&mut self, of: Descriptor) -> Result<(), Counter> {
        let count = of.length() / Descriptor::SIZE as u32;
        if of.flags() & Descriptor::NEXT != 0
            || count == 0
            || !u64::from(of.length()).is_multiple_of(Descriptor::SIZE)
        {
            return Err(Counter::BadDescriptor);
        }
        if count > MAX_INDIRECT {
            return Err(Counter::TooLong);
        }
        let table = self.memory.piece(of.address(), of.length().into()).ok_or(Counter::BadBuffer)?;
        let mut index = 0;
        for _ in 0..count {
            let at = table.as_ptr().wrapping_add(index as usize * Descriptor::SIZE as usize);
            // SAFETY: the table is in the guest's memory as a whole, and the index is below its count. A driver need not
            // align it. What the guest changes meanwhile is another number and no more.
            let descriptor = unsafe { at.cast::<[u8; size_of::<Descriptor>()]>().read_volatile() };
            // SAFETY: any bytes are a descriptor.
            let descriptor: Descriptor = unsafe { std::mem::transmute(descriptor) };
            if descriptor.flags() & Descriptor::INDIRECT != 0 {
                return Err(Counter::BadDescriptor);
            }
            self.buffer(descriptor)?;
            if descriptor.flags() & Descriptor::NEXT == 0 {
                return Ok(());
            }
            index = u32::from(descriptor.next());
            if index >= count {
                return Err(Counter::BadDescriptor);
            }
        }
        Err(Counter::TooLong)
    }

    /// Adds a descriptor's buffer, in as many pieces as the regions it lies in.
    #[inline]
    fn buffer(&mut self, descriptor: Descriptor) -> Result<(), Counter> {
        let written = descriptor.flags() & Descriptor::WRITE != 0;
        if written != (self.direction == Direction::Write) {
            return Err(Counter::BadDescriptor);
        }
        let (mut address, mut left) = (descriptor.address(), u64::from(descriptor.length()));
        self.bytes += left as usize;
        while left > 0 {
            if self.pieces.len() >= self.most {
                return Err(Counter::TooLong);
            }
            let (at, whole) = self.memory.at(address).ok_or(Counter::BadBuffer)?;
            let length = left.min(whole);
            self.pieces.push(Piece { at, length: length as usize });
            left -= length;
            address = address.wrapping_add(length);
        }
        Ok(())
    }
}

/// Copies bytes into pieces, from an offset on; what does not fit is left out.
pub(super) fn write(pieces: &[Piece], mut offset: usize, mut bytes: &[u8]) {
    for piece in pieces {
        if bytes.is_empty() {
            return;
        }
        if offset >= piece.length {
            offset -= piece.length;
            continue;
        }
        let count = bytes.len().min(piece.length - offset);
        // SAFETY: the piece is mapped and so long, and no Rust value is there: a guest's writing there meanwhile has no effect
        // but on what it reads itself.
        unsafe { piece.at.add(offset).as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), count) };
        (bytes, offset) = (&bytes[count..], 0);
    }
}

/// Has the CPU fetch the second line of its cache that a packet is in, so that the kernel need not wait for it. What comes after that it
/// fetches by itself.
#[inline]
pub(super) fn touch(pieces: &[Piece]) {
    const LINE: usize = 64;
    if let Some(piece) = pieces.first().filter(|piece| piece.length > LINE) {
        // SAFETY: the piece is mapped and longer than that; any byte does.
        unsafe { piece.at.add(LINE).read_volatile() };
    }
}

/// The first bytes of pieces.
#[inline]
pub(super) fn peek<const N: usize>(pieces: &[Piece]) -> [u8; N] {
    let mut bytes = [0; N];
    match pieces.first() {
        // SAFETY: the piece is mapped and long enough; any bytes do.
        Some(piece) if piece.length >= N => unsafe { piece.at.cast::<[u8; N]>().read_volatile() },
        _ => {
            let mut filled = 0;
            for piece in pieces {
                let count = piece.length.min(N - filled);
                // SAFETY: the piece is mapped and so long, and the array is this function's own.
                unsafe { piece.at.as_ptr().copy_to_nonoverlapping(bytes[filled..].as_mut_ptr(), count) };
                filled += count;
            }
            bytes
        }
    }
}
