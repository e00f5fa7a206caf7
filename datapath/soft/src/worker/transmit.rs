//! [`Transmit`]: what the driver sends goes to the TAP.
//!
//! A batch of chains is taken before the first of them is sent. Another CPU has just written each of them, and what is waited for of
//! one is not waited for beside others then; a system call between two ends what a CPU does ahead.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use virtnet_model::Feature;

use super::chain::{Direction, MAX_PIECES, peek, touch, walk};
use super::line::Line;
use super::ring::Broken;
use super::scratch::{Chain, LONGEST, Outgoing, Scratch};
use crate::counters::Counter;
use crate::offer::Accepted;

/// Chains that are taken at a time, and after which the driver is told: no more than stay in the nearest cache until they are sent.
const BATCH: u16 = 32;
/// Packets after which other queues have their turn, at the latest.
const TURN: u16 = 256;

/// A transmit queue.
#[derive(Debug)]
pub(super) struct Transmit {
    pub(super) line: Line,
    accepted: Accepted,
    header: usize,
    indirect: bool,
    /// Where packets go; `None`: nowhere.
    tap: Option<Arc<OwnedFd>>,
}

impl Transmit {
    pub(super) fn new(line: Line, accepted: Accepted, tap: Option<Arc<OwnedFd>>) -> Self {
        let indirect = accepted.has(Feature::IndirectDesc);
        Self { line, accepted, header: accepted.header(), indirect, tap }
    }

    /// Moves packets until there are none or others have their turn; whether there are more.
    pub(super) fn run(&mut self, scratch: &mut Scratch) -> Result<bool, Broken> {
        let result = self.turn(scratch);
        self.line.flush();
        result
    }

    fn turn(&mut self, scratch: &mut Scratch) -> Result<bool, Broken> {
        let mut left = self.line.ring.size().min(TURN);
        self.line.ring.hush();
        while left > 0 {
            let available = self.line.ring.available()?;
            if available == 0 {
                self.line.flush();
                if !self.line.ring.listen()? {
                    return Ok(false);
                }
                self.line.ring.hush();
            }
            let count = available.min(left).min(BATCH);
            left -= count;
            // Those before one that the ring does not have are sent.
            let taken = self.take(scratch, count);
            self.send(scratch);
            taken?;
            self.line.flush();
            // A driver that always has one more would else keep the thread.
            left = left.saturating_sub(u16::from(count == 0));
        }
        Ok(true)
    }

    /// Takes so many chains.
    #[inline]
    fn take(&mut self, scratch: &mut Scratch, count: u16) -> Result<(), Broken> {
        let Scratch { pieces, chains, .. } = scratch;
        // What a turn left behind that ended in the middle is not sent by another.
        pieces.clear();
        chains.clear();
        for _ in 0..count {
            let head = self.line.ring.take()?;
            let begin = pieces.len();
            let most = begin + MAX_PIECES;
            let walked = walk(&self.line.ring, head, Direction::Read, self.indirect, (&mut *pieces, most));
            let packet = match walked {
                Ok(bytes) if bytes <= self.header || bytes > LONGEST => Err(Counter::BadBuffer),
                Ok(bytes) => {
                    let [flags, gso_type] = peek(&pieces[begin..]);
                    touch(&pieces[begin..]);
                    Ok(Outgoing { bytes, flags, gso_type })
                }
                Err(reason) => Err(reason),
            };
            chains.push(Chain { head, end: pieces.len(), packet });
        }
        Ok(())
    }

    /// Sends the chains that were taken, and gives them back.
    #[inline]
    fn send(&mut self, scratch: &mut Scratch) {
        let mut begin = 0;
        for index in 0..scratch.chains.len() {
            let Chain { head, end, packet } = scratch.chains[index];
            self.line.about_to_send();
            let tally = self.line.tally();
            match packet {
                Err(reason) => tally.count(reason, 1),
                Ok(Outgoing { bytes, flags, gso_type }) => {
                    // The guest may write another header there before the kernel reads it: the kernel checks what it takes,
                    // and what the switch can't carry harms nobody but who sent it.
                    let passed = match &self.tap {
                        Some(tap) if self.accepted.may_send(flags, gso_type) => {
                            scratch.send(tap, begin..end).is_ok()
                        }
                        _ => false,
                    };
                    if passed { tally.packet(bytes - self.header) } else { tally.count(Counter::Dropped, 1) }
                }
            }
            begin = end;
            self.line.ring.give_back(head, 0);
        }
    }
}
