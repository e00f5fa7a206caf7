//! [`Transmit`]: what the driver sends goes to the TAP.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use virtnet_model::Feature;

use super::chain::{Direction, peek, walk};
use super::line::Line;
use super::ring::Broken;
use super::scratch::{LONGEST, Scratch};
use crate::counters::Counter;
use crate::offer::Accepted;

/// Chains after which the driver is told at the latest.
const BATCH: u16 = 64;
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
            for _ in 0..count {
                self.one(scratch)?;
            }
            self.line.flush();
            // A driver that always has one more would else keep the thread.
            left = left.saturating_sub(u16::from(count == 0));
        }
        Ok(true)
    }

    #[inline]
    fn one(&mut self, scratch: &mut Scratch) -> Result<(), Broken> {
        self.line.about_to_take();
        let head = self.line.ring.take()?;
        scratch.pieces.clear();
        let walked = walk(&self.line.ring, head, Direction::Read, self.indirect, &mut scratch.pieces);
        let tally = self.line.tally();
        match walked {
            Err(reason) => tally.count(reason, 1),
            Ok(bytes) if bytes <= self.header || bytes > LONGEST => tally.count(Counter::BadBuffer, 1),
            Ok(bytes) => {
                let [flags, gso_type] = peek(&scratch.pieces);
                // The guest may write another header there before the kernel reads it: the kernel checks what it takes, and
                // what the switch can't carry harms nobody but who sent it.
                let passed = match &self.tap {
                    Some(tap) if self.accepted.may_send(flags, gso_type) => scratch.send(tap).is_ok(),
                    _ => false,
                };
                if passed { tally.packet(bytes - self.header) } else { tally.count(Counter::Dropped, 1) }
            }
        }
        self.line.ring.give_back(head, 0);
        Ok(())
    }
}
