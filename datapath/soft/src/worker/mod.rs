//! The data side: a process that moves packets between rings and TAPs, as it is told over a socket.
//!
//! | module | what lives there |
//! |---|---|
//! | `memory`, `sigbus` | the guest's memory, and what happens where it turns out not to be there |
//! | `ring`, `chain` | a split ring, and a chain of descriptors as pieces of memory |
//! | `line` | a queue: its ring, notifications, counters and record of progress |
//! | `receive`, `transmit` | the two directions |
//! | `pair`, `thread` | a queue pair, and a thread that gives pairs their turns |

mod chain;
pub(crate) mod fuzz;
mod line;
mod memory;
mod pair;
mod receive;
mod ring;
mod scratch;
mod sigbus;
mod thread;
mod transmit;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, mpsc};

use virtnet_model::Feature;

use self::line::{Around, Line};
use self::memory::Memory;
use self::pair::Pair;
use self::receive::Receive;
pub(crate) use self::sigbus::Watched;
use self::thread::{Command, Thread};
use self::transmit::Transmit;
use crate::job::{self, Description, Mode, Order, Report};
use crate::offer::Accepted;
use crate::shared::Shared;

/// Moves packets until the supervisor at the other end of the socket is gone or asks it to end. `threads` is `eth_vq_workers`
/// of `virtnet.conf`.
///
/// # Errors
/// Where threads can't be started, or the supervisor says what is no order.
pub fn run(socket: OwnedFd, threads: usize) -> io::Result<()> {
    sigbus::install()?;
    let socket = Arc::new(socket);
    let threads = (0..threads.max(1)).map(|index| Thread::start(format!("vq-{index}"), Arc::clone(&socket)));
    let mut worker =
        Worker { threads: threads.collect::<io::Result<_>>()?, functions: BTreeMap::new(), pairs: 0 };
    job::send(socket.as_fd(), &Report::Ready, &[])?;
    let mut fds = Vec::new();
    while let Some(order) = job::receive(socket.as_fd(), &mut fds)? {
        let (function, sequence, result) = match order {
            Order::Fds => continue,
            Order::Quit => break,
            Order::Stop { function, sequence } => {
                (function, sequence, worker.stop(function).map(|()| Vec::new()))
            }
            Order::Run { function, sequence, description } => {
                (function, sequence, worker.run(function, &description, std::mem::take(&mut fds)))
            }
        };
        let result = result.map_err(|error| error.to_string());
        job::send(socket.as_fd(), &Report::Done { function, sequence, result }, &[])?;
    }
    for function in worker.functions.keys().copied().collect::<Vec<_>>() {
        worker.stop(function)?;
    }
    Ok(())
}

#[derive(Debug)]
struct Worker {
    threads: Vec<Thread>,
    /// The pairs of each function: their thread, and their number there.
    functions: BTreeMap<u64, Vec<(usize, u64)>>,
    /// Pairs that there have been.
    pairs: u64,
}

impl Worker {
    fn stop(&mut self, function: u64) -> io::Result<()> {
        let (done, wait) = mpsc::channel();
        for (thread, number) in self.functions.remove(&function).unwrap_or_default() {
            self.threads[thread].command(Command::Remove(number, done.clone()))?;
        }
        drop(done);
        // It ends when the last thread has said so.
        wait.iter().for_each(drop);
        Ok(())
    }

    /// Has a function as described; the index to go on from of each queue.
    fn run(
        &mut self,
        function: u64,
        description: &Description,
        fds: Vec<OwnedFd>,
    ) -> io::Result<Vec<(u16, u16)>> {
        self.stop(function)?;
        let (indexes, pairs) = pairs(function, description, fds)?;
        let mut placed = Vec::new();
        for (pair, queues) in pairs {
            // Functions with one pair, which most are, are spread as well.
            let thread = (function as usize).wrapping_add(usize::from(pair)) % self.threads.len();
            self.pairs += 1;
            self.threads[thread].command(Command::Add(self.pairs, Box::new(queues)))?;
            placed.push((thread, self.pairs));
        }
        self.functions.insert(function, placed);
        Ok(indexes)
    }
}

/// The pairs of a function that have something to do, by number, and the indexes of all its queues.
#[expect(clippy::type_complexity, reason = "it is taken apart where it is made")]
fn pairs(
    function: u64,
    description: &Description,
    fds: Vec<OwnedFd>,
) -> io::Result<(Vec<(u16, u16)>, BTreeMap<u16, Pair>)> {
    let memory = Arc::new(Memory::map(&description.regions, &fds)?);
    let fds: Vec<_> = fds.into_iter().map(Arc::new).collect();
    let shared = |index: usize| {
        let fd = fds.get(index).ok_or_else(|| io::Error::other("a description without its memfd"))?;
        Shared::open_watched(fd.try_clone()?, description.records).map(Arc::new)
    };
    let (progress, counters) = (shared(description.progress)?, shared(description.counters)?);
    let accepted = Accepted(description.features);
    let around = Around {
        memory: &memory,
        fds: &fds,
        counters: &counters,
        progress: &progress,
        event_index: accepted.has(Feature::EventIdx),
    };
    let (mut indexes, mut pairs) = (Vec::new(), BTreeMap::new());
    for queue in &description.queues {
        if usize::from(queue.index) >= description.records {
            return Err(io::Error::other(format!("queue {} has no record", queue.index)));
        }
        let mut line = Line::open(queue, &around)
            .map_err(|reason| io::Error::other(format!("queue {}: {reason}", queue.index)))?;
        indexes.push((queue.index, line.ring.done()));
        if queue.mode == Mode::Settle || line.is_stopped() {
            continue;
        }
        let number = queue.index / 2;
        let tap = description.taps.get(&number).and_then(|index| fds.get(*index));
        let pair = pairs.entry(number).or_insert_with(|| Pair {
            function,
            receive: None,
            transmit: None,
            tap: tap.map(Arc::clone),
            memory: Arc::clone(&memory),
        });
        let tap = tap.map(Arc::clone);
        line.flush();
        if queue.index.is_multiple_of(2) {
            pair.receive = tap.map(|tap| Receive::new(line, accepted, description.mtu, tap));
        } else {
            pair.transmit = Some(Transmit::new(line, accepted, tap.filter(|_| queue.mode == Mode::Run)));
        }
    }
    Ok((indexes, pairs))
}
