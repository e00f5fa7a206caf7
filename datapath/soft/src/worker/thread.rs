//! A thread of a worker: it waits for its pairs' eventfds and TAPs, and gives each that has something to do a turn.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, mpsc};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::pair::{Pair, Wake};
use super::scratch::Scratch;
use crate::job::{self, Report};

/// The event of what comes by the channel. No pair has such a number.
const COMMANDS: u64 = u64::MAX;

/// Between the thread and who gives it pairs.
#[derive(Debug)]
pub(super) enum Command {
    /// Have this pair, by a number that no other has.
    Add(u64, Box<Pair>),
    /// Let go of the pair; then say so.
    Remove(u64, mpsc::Sender<()>),
}

/// A thread, by its channel.
#[derive(Debug)]
pub(super) struct Thread {
    commands: mpsc::Sender<Command>,
    wake: Arc<EventFd>,
}

impl Thread {
    /// Starts one. What it has to report goes to the socket.
    pub(super) fn start(name: String, reports: Arc<OwnedFd>) -> io::Result<Self> {
        let wake = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        let (commands, inbox) = mpsc::channel();
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&*wake, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, COMMANDS))?;
        let pairs =
            Pairs { epoll, all: Vec::new(), ready: VecDeque::new(), scratch: Scratch::new(), reports };
        let held = Arc::clone(&wake);
        std::thread::Builder::new().name(name).spawn(move || {
            let _held = held;
            let result = pairs.serve(&inbox);
            // Without this thread its queues would stand still: another worker does better.
            tracing::error!(?result, "a thread of the worker ends");
            std::process::abort();
        })?;
        Ok(Self { commands, wake })
    }

    /// Gives it something to do.
    pub(super) fn command(&self, command: Command) -> io::Result<()> {
        self.commands.send(command).map_err(|_| io::Error::other("a thread of the worker has ended"))?;
        self.wake.write(1)?;
        Ok(())
    }
}

struct Pairs {
    epoll: Epoll,
    all: Vec<Option<Slot>>,
    /// Which of them have something to do.
    ready: VecDeque<usize>,
    scratch: Scratch,
    reports: Arc<OwnedFd>,
}

struct Slot {
    number: u64,
    pair: Box<Pair>,
    /// It is in `ready`.
    ready: bool,
}

impl Pairs {
    fn serve(mut self, inbox: &mpsc::Receiver<Command>) -> io::Result<()> {
        let mut events = [EpollEvent::empty(); 64];
        loop {
            let timeout = if self.ready.is_empty() { EpollTimeout::NONE } else { EpollTimeout::ZERO };
            let count = match self.epoll.wait(&mut events, timeout) {
                Err(nix::errno::Errno::EINTR) => continue,
                other => other?,
            };
            let mut commands = false;
            for event in &events[..count] {
                match event.data() {
                    COMMANDS => commands = true,
                    data => self.woken((data >> 2) as usize, Wake::ALL[(data & 3) as usize % 3]),
                }
            }
            // After the events: none of them is of a pair that is gone.
            if commands {
                while let Ok(command) = inbox.try_recv() {
                    self.carry_out(command)?;
                }
            }
            for _ in 0..self.ready.len() {
                self.turn()?;
            }
        }
    }

    fn woken(&mut self, index: usize, wake: Wake) {
        if let Some(Some(slot)) = self.all.get_mut(index) {
            slot.pair.wake(wake);
            if !std::mem::replace(&mut slot.ready, true) {
                self.ready.push_back(index);
            }
        }
    }

    /// Gives the next pair its turn.
    fn turn(&mut self) -> io::Result<()> {
        let Some(index) = self.ready.pop_front() else { return Ok(()) };
        let Some(slot) = self.all[index].as_mut() else { return Ok(()) };
        let (more, stopped) = slot.pair.run(&mut self.scratch);
        slot.ready = more;
        if more {
            self.ready.push_back(index);
        }
        for (queue, reason) in stopped {
            let report = Report::Stopped { function: slot.pair.function, queue, reason };
            job::send(self.reports.as_fd(), &report, &[])?;
        }
        Ok(())
    }

    fn carry_out(&mut self, command: Command) -> io::Result<()> {
        match command {
            Command::Add(number, pair) => {
                let index = self.all.iter().position(Option::is_none).unwrap_or(self.all.len());
                if index == self.all.len() {
                    self.all.push(None);
                }
                for (wake, fd) in pair.sources() {
                    let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
                    let event = EpollEvent::new(flags, (index as u64) << 2 | wake as u64);
                    // SAFETY: the pair has the descriptor, and removes it from here before it closes it.
                    self.epoll.add(unsafe { BorrowedFd::borrow_raw(fd) }, event)?;
                }
                self.all[index] = Some(Slot { number, pair, ready: true });
                self.ready.push_back(index);
            }
            Command::Remove(number, done) => {
                let is_it = |slot: &Option<Slot>| slot.as_ref().is_some_and(|slot| slot.number == number);
                if let Some(index) = self.all.iter().position(is_it)
                    && let Some(slot) = self.all[index].take()
                {
                    self.ready.retain(|ready| *ready != index);
                    self.let_go(&slot.pair)?;
                }
                // Who waits for it may have ended.
                let _ = done.send(());
            }
        }
        Ok(())
    }

    /// Other processes have the same open files: closing ours would leave them here.
    fn let_go(&self, pair: &Pair) -> io::Result<()> {
        for (_, fd) in pair.sources() {
            // SAFETY: the pair has the descriptor.
            self.epoll.delete(unsafe { BorrowedFd::borrow_raw(fd) })?;
        }
        Ok(())
    }
}
