//! [`Driver`]: a guest's memory with the rings and buffers of some queue pairs.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::sys::memfd::{MFdFlags, memfd_create};
use virtnet_model::{Feature, Features};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};

use super::front_end::{FrontEnd, Request, words};
use super::ring::{Buffer, Ring};
use crate::offer::Accepted;

/// Where the second region of memory begins in the guest: there is nothing between the two.
const HIGH: u64 = 1 << 32;
/// Where the front end has the file mapped, or says so.
const USER: u64 = 0x7f00_0000_0000;
/// `VHOST_USER_F_PROTOCOL_FEATURES`.
const PROTOCOL: u64 = 1 << 30;

/// What a driver wants.
#[derive(Clone, Debug)]
pub struct Options {
    /// Features to accept of those that are offered.
    pub features: Features,
    /// Queue pairs, of which all are set up.
    pub pairs: u16,
    /// Of these so many are enabled.
    pub enabled: u16,
    /// Descriptors a queue.
    pub size: u16,
    /// Bytes of a buffer, of which each queue has as many as descriptors.
    pub buffer: u32,
    /// Features of the protocol to accept of those that are offered.
    pub protocol: u64,
}

impl Default for Options {
    fn default() -> Self {
        let features = [Feature::Version1, Feature::MrgRxbuf, Feature::EventIdx, Feature::IndirectDesc];
        let features = features.into_iter().collect();
        Self { features, pairs: 1, enabled: 1, size: 256, buffer: 2048, protocol: u64::MAX }
    }
}

/// A driver that has a function.
#[derive(Debug)]
pub struct Driver {
    /// The connection.
    pub front_end: FrontEnd,
    /// The guest's memory: two regions.
    pub memory: GuestMemoryMmap<()>,
    /// The file that it is in.
    pub file: OwnedFd,
    /// Two for each pair: the driver receives by those with even numbers.
    pub rings: Vec<Ring>,
    /// The features that were accepted, as bits.
    pub accepted: u64,
    /// Bytes of the header before each packet.
    pub header: usize,
    options: Options,
    half: u64,
    buffers: u64,
    /// Buffers of the packet that `skip` is in.
    skipping: u16,
}

impl Driver {
    /// Takes the device at the other end of a connection, up to DRIVER_OK.
    ///
    /// # Errors
    /// Where the device refuses something.
    pub fn start(stream: UnixStream, options: Options) -> io::Result<Self> {
        let queues = u64::from(options.pairs) * 2;
        let rings = Ring::bytes(options.size) * queues;
        let buffers = (u64::from(options.buffer) * u64::from(options.size) * queues).next_multiple_of(4096);
        // The rings are in the first region, the buffers in the second.
        let half = rings.next_multiple_of(4096);
        let file = memfd_create("guest", MFdFlags::MFD_CLOEXEC)?;
        File::from(file.try_clone()?).set_len(half + buffers)?;
        let region = |guest, size: u64, start| -> io::Result<_> {
            Ok((
                GuestAddress(guest),
                size as usize,
                Some(FileOffset::new(File::from(file.try_clone()?), start)),
            ))
        };
        let ranges = [region(0, half, 0)?, region(HIGH, buffers, half)?];
        let memory = GuestMemoryMmap::from_ranges_with_files(ranges).map_err(io::Error::other)?;
        let front_end = FrontEnd::new(stream)?;
        let offered = front_end.number(Request::GetFeatures)?;
        let accepted = offered & (options.features.bits() | PROTOCOL);
        let has = |feature: Feature| accepted >> feature.bit() & 1 == 1;
        let mut all = Vec::new();
        for queue in 0..queues {
            let at = queue * Ring::bytes(options.size);
            let indirect = has(Feature::IndirectDesc);
            all.push(Ring::new(memory.clone(), at, options.size, has(Feature::EventIdx), indirect)?);
        }
        let header = Accepted(accepted).header();
        let accepted = accepted & !PROTOCOL;
        let mut driver = Self {
            front_end,
            memory,
            file,
            rings: all,
            accepted,
            header,
            options,
            half,
            buffers,
            skipping: 0,
        };
        driver.set_up(offered)?;
        Ok(driver)
    }

    /// As QEMU does it: rings are enabled before features are set.
    fn set_up(&mut self, offered: u64) -> io::Result<()> {
        let front_end = &self.front_end;
        let protocol = front_end.number(Request::GetProtocolFeatures)? & self.options.protocol;
        front_end.say(Request::SetProtocolFeatures, &protocol.to_ne_bytes(), &[])?;
        front_end.say(Request::SetOwner, &[], &[])?;
        for (index, ring) in (0u64..).zip(&self.rings) {
            front_end.say(Request::SetVringCall, &index.to_ne_bytes(), &[ring.call.as_fd()])?;
            let enabled = u32::from(index / 2 < self.options.enabled.into());
            front_end.say(Request::SetVringEnable, &words(&[index as u32, enabled]), &[])?;
        }
        front_end.say(Request::SetFeatures, &(self.accepted | offered & PROTOCOL).to_ne_bytes(), &[])?;
        self.share()?;
        for index in 0..self.rings.len() {
            self.start_ring(index, 0)?;
        }
        self.front_end.tell(Request::SetStatus, &15u64.to_ne_bytes(), &[])
    }

    /// Shares the guest's memory.
    ///
    /// # Errors
    /// Where the back end has ended the connection.
    pub fn share(&self) -> io::Result<()> {
        let mut payload = words(&[2, 0]);
        for (guest, size, offset) in [(0, self.half, 0), (HIGH, self.buffers, self.half)] {
            payload.extend(
                [guest, size, USER + offset, offset].iter().flat_map(|number: &u64| number.to_ne_bytes()),
            );
        }
        self.front_end.say(Request::SetMemTable, &payload, &[self.file.as_fd(), self.file.as_fd()])
    }

    /// Starts a ring at an index.
    ///
    /// # Errors
    /// Where the back end has ended the connection.
    pub fn start_ring(&self, index: usize, base: u16) -> io::Result<()> {
        let (number, ring) = (index as u32, &self.rings[index]);
        self.front_end.say(Request::SetVringNum, &words(&[number, ring.size().into()]), &[])?;
        self.front_end.say(Request::SetVringBase, &words(&[number, base.into()]), &[])?;
        self.front_end.say(Request::SetVringAddr, &Self::addresses(index, ring.parts()), &[])?;
        self.front_end.say(Request::SetVringKick, &(index as u64).to_ne_bytes(), &[ring.kick.as_fd()])
    }

    /// Where the parts of a ring are, as the front end tells it: descriptors, what is available, what is used.
    pub fn addresses(index: usize, parts: [u64; 3]) -> Vec<u8> {
        let [descriptors, available, used] = parts.map(|part| part + USER);
        let mut payload = words(&[index as u32, 0]);
        payload.extend([descriptors, used, available, 0].iter().flat_map(|part| part.to_ne_bytes()));
        payload
    }

    /// Stops a ring; the index to go on from.
    ///
    /// # Errors
    /// Where the back end has ended the connection.
    pub fn stop_ring(&self, index: usize) -> io::Result<u16> {
        let answer = self.front_end.ask(Request::GetVringBase, &words(&[index as u32, 0]))?;
        let base = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
        base.ok_or_else(|| io::Error::other("no index was told"))
    }

    /// Enables or disables a pair.
    ///
    /// # Errors
    /// Where it was refused.
    pub fn enable(&self, pair: u16, on: bool) -> io::Result<()> {
        for index in [2 * pair, 2 * pair + 1] {
            self.front_end.tell(Request::SetVringEnable, &words(&[index.into(), on.into()]), &[])?;
        }
        Ok(())
    }

    /// The address of a buffer of a queue.
    pub fn buffer(&self, queue: usize, buffer: u64) -> u64 {
        HIGH + (queue as u64 * u64::from(self.options.size) + buffer) * u64::from(self.options.buffer)
    }

    /// Writes to the guest's memory.
    ///
    /// # Panics
    /// Where there is none.
    pub fn write(&self, at: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(at)).expect("buffers are in the guest's memory");
    }

    /// Reads the guest's memory.
    ///
    /// # Panics
    /// Where there is none.
    pub fn read(&self, at: u64, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.memory.read_slice(&mut bytes, GuestAddress(at)).expect("buffers are in the guest's memory");
        bytes
    }

    /// Sends a packet by a pair, its bytes behind `header` in as many buffers as `parts` says; `false`: the ring is full.
    /// The buffer is told by the cookie.
    pub fn send(&mut self, pair: u16, cookie: u64, header: &[u8], packet: &[u8], parts: usize) -> bool {
        let queue = usize::from(pair) * 2 + 1;
        let at = self.buffer(queue, cookie);
        self.write(at, header);
        self.write(at + header.len() as u64, packet);
        let whole = header.len() + packet.len();
        let each = whole.div_ceil(parts.max(1));
        let part = |begin: usize| {
            let length = each.min(whole - begin) as u32;
            Buffer { address: at + begin as u64, length, writable: false }
        };
        let buffers: Vec<_> = (0..whole).step_by(each).map(part).collect();
        self.rings[queue].add(cookie, &buffers)
    }

    /// Sends what a buffer of a pair's transmit queue holds already: so many bytes. `false`: the ring is full.
    pub fn send_again(&mut self, pair: u16, cookie: u64, length: u32) -> bool {
        let queue = usize::from(pair) * 2 + 1;
        let buffer = Buffer { address: self.buffer(queue, cookie), length, writable: false };
        self.rings[queue].add(cookie, &[buffer])
    }

    /// Gives the buffers back that a pair's receive queue has filled, unread; how many packets they are.
    ///
    /// # Errors
    /// Where the device does not do as it should.
    pub fn skip(&mut self, pair: u16) -> io::Result<u64> {
        let queue = usize::from(pair) * 2;
        let mut count = 0;
        while let Some(given) = self.rings[queue].given()? {
            // Of a packet in several buffers only the first has a header, which says how many they are.
            if self.skipping == 0 {
                let bytes = self.read(self.buffer(queue, given.cookie) + 10, 2);
                self.skipping = u16::from_le_bytes([bytes[0], bytes[1]]).max(1);
                count += 1;
            }
            self.skipping -= 1;
            self.give(pair, given.cookie);
        }
        self.rings[queue].notify();
        Ok(count)
    }

    /// Gives a buffer of a pair's receive queue to the device.
    pub fn give(&mut self, pair: u16, cookie: u64) -> bool {
        let queue = usize::from(pair) * 2;
        let buffer =
            Buffer { address: self.buffer(queue, cookie), length: self.options.buffer, writable: true };
        self.rings[queue].add(cookie, &[buffer])
    }

    /// Gives all buffers of a pair's receive queue to the device.
    pub fn fill(&mut self, pair: u16) {
        let mut cookie = 0;
        while cookie < u64::from(self.options.size) && self.give(pair, cookie) {
            cookie += 1;
        }
        self.rings[usize::from(pair) * 2].notify();
    }

    /// The next packet that a pair received, with its header, in one piece. Its buffers are given to the device again.
    ///
    /// # Errors
    /// Where the device does not do as it should.
    pub fn received(&mut self, pair: u16) -> io::Result<Option<Vec<u8>>> {
        let queue = usize::from(pair) * 2;
        let Some(first) = self.rings[queue].given()? else { return Ok(None) };
        let mut packet = self.read(self.buffer(queue, first.cookie), first.length as usize);
        let mut cookies = vec![first.cookie];
        if self.header > 10 {
            let merged = packet.get(10..12).ok_or_else(|| io::Error::other("a packet without a header"))?;
            for _ in 1..u16::from_le_bytes([merged[0], merged[1]]) {
                let more = self.rings[queue].given()?;
                let more = more.ok_or_else(|| io::Error::other("a packet came before all its buffers"))?;
                packet.extend(self.read(self.buffer(queue, more.cookie), more.length as usize));
                cookies.push(more.cookie);
            }
        }
        for cookie in cookies {
            self.give(pair, cookie);
        }
        self.rings[queue].notify();
        Ok(Some(packet))
    }
}
