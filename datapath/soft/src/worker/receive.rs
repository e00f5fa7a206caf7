//! [`Receive`]: what comes from the TAP goes to the driver.
//!
//! A packet is read into the driver's buffers. How many are needed is known only then: as many as the last one took are offered,
//! and what exceeds them is copied from a buffer of the thread's.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use virtnet_model::Feature;

use super::chain::{Direction, MAX_PIECES, Piece, walk, write};
use super::line::Line;
use super::ring::Broken;
use super::scratch::{LONGEST, Scratch};
use crate::counters::Counter;
use crate::offer::Accepted;

/// Packets after which the driver is told at the latest.
const BATCH: u16 = 64;
/// Chains that are taken at a time: what is waited for of one, which another CPU has just written, others are not waited for beside.
const AHEAD: u16 = 32;
/// Packets after which other queues have their turn.
const TURN: u16 = 256;
/// Where the number of buffers is in the header (virtio 1.2, section 5.1.6).
const NUM_BUFFERS: usize = 10;

/// A receive queue.
#[derive(Debug)]
pub(super) struct Receive {
    pub(super) line: Line,
    tap: Arc<OwnedFd>,
    header: usize,
    mergeable: bool,
    indirect: bool,
    /// The longest packet with its header that the driver is given.
    longest: usize,
    /// Chains that are taken and not filled, in order.
    gathered: VecDeque<Gathered>,
    /// Their pieces.
    pieces: Vec<Piece>,
    /// Their bytes.
    room: usize,
    /// The size of the last packet.
    wanted: usize,
    held: Option<Held>,
    /// The TAP may have more.
    pub(super) readable: bool,
}

#[derive(Clone, Copy, Debug)]
struct Gathered {
    head: u16,
    pieces: usize,
    bytes: usize,
}

/// A packet that is read, of which the beginning is in gathered chains and for the rest there are none.
#[derive(Debug)]
struct Held {
    total: usize,
    /// How much of it is where it is to be.
    direct: usize,
    rest: Vec<u8>,
}

impl Drop for Receive {
    /// A packet for which the driver has made no room is lost when the queue is let go.
    fn drop(&mut self) {
        if self.held.is_some() {
            self.line.tally().count(Counter::Dropped, 1);
        }
    }
}

/// What became of the wish for one more chain.
#[derive(Debug, PartialEq, Eq)]
enum More {
    Got,
    /// The driver has made none available.
    Empty,
    /// There is one that can't be used.
    Bad,
}

impl Receive {
    pub(super) fn new(line: Line, accepted: Accepted, mtu: u16, tap: Arc<OwnedFd>) -> Self {
        let header = accepted.header();
        let frame = usize::from(mtu) + 18;
        Self {
            line,
            tap,
            header,
            mergeable: accepted.has(Feature::MrgRxbuf),
            indirect: accepted.has(Feature::IndirectDesc),
            longest: if accepted.takes_large() { LONGEST } else { header + frame },
            gathered: VecDeque::new(),
            pieces: Vec::new(),
            room: 0,
            wanted: 1,
            held: None,
            readable: true,
        }
    }

    /// Moves packets until there are none, the driver has no buffers, or others have their turn; whether there are more.
    pub(super) fn run(&mut self, scratch: &mut Scratch) -> Result<bool, Broken> {
        let result = self.turn(scratch);
        self.line.flush();
        result
    }

    fn turn(&mut self, scratch: &mut Scratch) -> Result<bool, Broken> {
        self.line.ring.hush();
        for _ in 0..self.line.ring.size().clamp(16, TURN) {
            if let Some(held) = self.held.take() {
                if !self.place(held.total, held.direct, &held.rest)? {
                    self.held = Some(held);
                    return Ok(false);
                }
                continue;
            }
            if !self.readable {
                return Ok(false);
            }
            if self.gathered.is_empty() {
                if self.gather()? != More::Got {
                    self.line.flush();
                    // One that can't be used was given back: the next may do.
                    if self.line.ring.available()? == 0 && !self.line.ring.listen()? {
                        return Ok(false);
                    }
                    continue;
                }
                // Without mergeable buffers a packet has one chain, or none.
                for _ in 1..if self.mergeable { AHEAD } else { 1 } {
                    if self.gather()? != More::Got {
                        break;
                    }
                }
            }
            while self.mergeable && self.room < self.wanted && self.gather()? == More::Got {}
            match self.read(scratch) {
                Ok((total, direct)) => {
                    if !self.place(total, direct, &scratch.bounce)? {
                        let rest = scratch.bounce[..total.saturating_sub(direct)].to_vec();
                        self.held = Some(Held { total, direct, rest });
                        return Ok(false);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The netdev is down or gone: there is nothing to read until something happens there.
                Err(_) => self.readable = false,
            }
            if self.line.ring.unpublished() >= BATCH {
                self.line.flush();
            }
        }
        Ok(true)
    }

    /// Takes one more chain. One that can't be used is given back when it is its turn.
    fn gather(&mut self) -> Result<More, Broken> {
        if self.line.ring.available()? == 0 {
            return Ok(More::Empty);
        }
        let before = self.pieces.len();
        let head = self.line.ring.peek()?;
        let pieces = (&mut self.pieces, MAX_PIECES);
        let walked = walk(&self.line.ring, head, Direction::Write, self.indirect, pieces);
        let reason = match walked {
            Ok(bytes) if bytes > self.header => {
                self.line.ring.take()?;
                self.room += bytes;
                self.gathered.push_back(Gathered { head, pieces: self.pieces.len() - before, bytes });
                return Ok(More::Got);
            }
            Ok(_) => Counter::BadBuffer,
            Err(reason) => reason,
        };
        self.pieces.truncate(before);
        if self.gathered.is_empty() {
            self.line.ring.take()?;
            self.line.ring.give_back(head, 0);
            self.line.tally().count(reason, 1);
        }
        Ok(More::Bad)
    }

    /// Reads a packet: its beginning into as many of the gathered chains as it is likely to need. Its bytes, and how many there
    /// was room for in those; the rest is in the bounce buffer.
    #[inline]
    fn read(&mut self, scratch: &mut Scratch) -> io::Result<(usize, usize)> {
        let (mut direct, mut pieces) = (0, 0);
        for chain in &self.gathered {
            (direct, pieces) = (direct + chain.bytes, pieces + chain.pieces);
            if direct >= self.wanted {
                break;
            }
        }
        // One byte more than the longest tells one that is too long.
        let bounce = direct <= self.longest;
        Ok((scratch.receive(&self.tap, &self.pieces[..pieces], bounce)?, direct))
    }

    /// Gives a packet to the driver, or drops it; `false`: the driver must make more buffers available before.
    #[inline]
    fn place(&mut self, total: usize, direct: usize, rest: &[u8]) -> Result<bool, Broken> {
        if total <= self.header || total > self.longest {
            self.line.tally().count(Counter::Dropped, 1);
            return Ok(true);
        }
        while self.room < total {
            let more = if self.mergeable { self.gather()? } else { More::Bad };
            match more {
                More::Got => {}
                // All that the driver can have is here.
                More::Empty if self.gathered.len() < usize::from(self.line.ring.size()) => {
                    self.line.flush();
                    if !self.line.ring.listen()? {
                        return Ok(false);
                    }
                }
                More::Empty | More::Bad => {
                    self.line.tally().count(Counter::Dropped, 1);
                    return Ok(true);
                }
            }
        }
        if total > direct {
            write(&self.pieces, direct, &rest[..total - direct]);
        }
        let (mut chains, mut covered) = (0u16, 0);
        while covered < total {
            covered += self.gathered[usize::from(chains)].bytes;
            chains += 1;
        }
        if self.header > NUM_BUFFERS {
            write(&self.pieces, NUM_BUFFERS, &chains.to_le_bytes());
        }
        let (mut left, mut pieces) = (total, 0);
        for chain in self.gathered.drain(..usize::from(chains)) {
            let length = left.min(chain.bytes);
            left -= length;
            pieces += chain.pieces;
            self.room -= chain.bytes;
            self.line.ring.give_back(chain.head, length as u32);
        }
        self.pieces.drain(..pieces);
        self.wanted = total;
        self.line.tally().packet(total - self.header);
        Ok(true)
    }
}
