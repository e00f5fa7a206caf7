//! Workers that are killed in the middle of traffic, and replaced: the driver sees no reset, no descriptor comes back twice, none is
//! lost, no packet passes twice, and at most a batch of them is lost.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use virtnet_soft::Function;
use virtnet_soft::driver::{Driver, Options, Wire};

use crate::support::{ALL, OFFLOADS, World, features, number, packet, program, settings};

/// Packets of one direction that may be between the two sides.
const WINDOW: u64 = 200;
/// Packets that a kill may cost a queue: those read from the TAP, or noted as about to be sent, and not yet told to the driver.
const BATCH: u64 = 64;

/// Traffic both ways that notes what it has seen.
struct Traffic {
    driver: Driver,
    wire: Wire,
    free: Vec<u64>,
    sent: u64,
    back: u64,
    arrived: u64,
    last_arrived: Option<u64>,
    wired: u64,
    received: u64,
    last_received: Option<u64>,
    /// Of what was wired before this nothing more need come: a worker was killed since.
    settled: u64,
}

/// The next of numbers that only grow.
fn later(last: &mut Option<u64>, number: u64) {
    assert!(last.is_none_or(|last| last < number), "{number} after {last:?}: twice, or out of order");
    *last = Some(number);
}

impl Traffic {
    fn new(driver: Driver, wire: Wire) -> Self {
        let free = (0..u64::from(driver.rings[1].size())).collect();
        Self {
            driver,
            wire,
            free,
            sent: 0,
            back: 0,
            arrived: 0,
            last_arrived: None,
            wired: 0,
            received: 0,
            last_received: None,
            settled: 0,
        }
    }

    /// What was sent and did not arrive, and what was wired and was not received.
    fn lost(&self) -> (u64, u64) {
        (self.sent - self.arrived, self.wired - self.received)
    }

    /// A step both ways; whether anything moved.
    fn step(&mut self, more: bool) -> bool {
        let before = (self.back, self.arrived, self.received, self.wired, self.sent);
        let header = vec![0; self.driver.header];
        while more && let Some(cookie) = self.free.pop() {
            let packet = packet(self.sent, 60 + self.sent as usize % 900);
            assert!(self.driver.send(0, cookie, &header, &packet, 2));
            self.sent += 1;
        }
        self.driver.rings[1].notify();
        while let Some(given) = self.driver.rings[1].given().unwrap() {
            self.free.push(given.cookie);
            self.back += 1;
        }
        while let Some(packet) = self.wire.receive().unwrap() {
            later(&mut self.last_arrived, number(&packet));
            self.arrived += 1;
        }
        let done = self.last_received.map_or(0, |last| last + 1).max(self.settled);
        while more && self.wired < done + WINDOW {
            self.wire.send(&packet(self.wired, 60 + self.wired as usize % 900)).unwrap();
            self.wired += 1;
        }
        while let Some(packet) = self.driver.received(0).unwrap() {
            later(&mut self.last_received, number(&packet[self.driver.header..]));
            self.received += 1;
        }
        before != (self.back, self.arrived, self.received, self.wired, self.sent)
    }

    /// Gives the worker all that there is room for, and returns after so many packets of one direction.
    fn amid(&mut self, out: bool, count: u64) {
        self.rest();
        let header = vec![0; self.driver.header];
        for number in 0..WINDOW {
            self.wire.send(&packet(self.wired, 60 + number as usize)).unwrap();
            self.wired += 1;
        }
        while let Some(cookie) = self.free.pop() {
            assert!(self.driver.send(0, cookie, &header, &packet(self.sent, 60), 2));
            self.sent += 1;
        }
        self.driver.rings[1].notify();
        let mut seen = 0;
        while seen < count {
            if out && let Some(given) = self.driver.rings[1].given().unwrap() {
                self.free.push(given.cookie);
                (self.back, seen) = (self.back + 1, seen + 1);
            }
            if !out && let Some(packet) = self.driver.received(0).unwrap() {
                later(&mut self.last_received, number(&packet[self.driver.header..]));
                (self.received, seen) = (self.received + 1, seen + 1);
            }
        }
    }

    /// Goes on until something is done and packets pass both ways after that; the longest that either way stood still.
    fn standstill(&mut self, done: impl Fn() -> bool) -> Duration {
        let (mut longest, mut moved) = (Duration::ZERO, [Instant::now(); 2]);
        let mut counts = [self.back, self.received];
        let mut at_end = None;
        while at_end.is_none_or(|end: [u64; 2]| counts[0] == end[0] || counts[1] == end[1]) {
            if at_end.is_none() && done() {
                at_end = Some(counts);
            }
            self.step(true);
            let now = Instant::now();
            for (way, count) in [self.back, self.received].into_iter().enumerate() {
                longest = longest.max(now - moved[way]);
                if count != counts[way] {
                    (counts[way], moved[way]) = (count, now);
                }
            }
        }
        longest
    }

    fn rest(&mut self) {
        // Nothing is under way once all chains are back, and the last packet has come that was put on the wire.
        let last = self.wired;
        self.wire.send(&packet(last, 100)).unwrap();
        self.wired += 1;
        while self.back < self.sent || self.last_received != Some(last) {
            if !self.step(false) && !self.driver.rings.iter_mut().any(virtnet_soft::driver::Ring::listen) {
                let rings: Vec<_> = self.driver.rings.iter().collect();
                assert!(self.wire.wait(&rings).unwrap(), "{} of {} back", self.back, self.sent);
            }
        }
        while self.step(false) {}
    }
}

fn begin(world: &World) -> (Function, Traffic) {
    let function = world.function(&settings(ALL, 3), OFFLOADS);
    let wire = world.wire(false);
    let options = Options { features: features(ALL), buffer: 1024, ..Options::default() };
    let mut driver = world.driver(options);
    driver.fill(0);
    world.until(&function, |state| state.in_use);
    (function, Traffic::new(driver, wire))
}

/// How often a worker ends: 1000 times with `VIRTNET_WORKER_ENDS=1000`.
fn ends() -> u64 {
    std::env::var("VIRTNET_WORKER_ENDS").map_or(100, |ends| ends.parse().unwrap())
}

/// What the start of a process takes at least: fork and exec of one that does nothing but say that it is there.
fn fork_and_exec() -> Duration {
    let began = Instant::now();
    let mut child = Command::new("echo").stdout(Stdio::piped()).spawn().unwrap();
    child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
    let taken = began.elapsed();
    child.wait().unwrap();
    taken
}

/// Standstills, and what a process took to start beside each.
#[derive(Default)]
struct Times {
    standstills: Vec<Duration>,
    starts: Vec<Duration>,
}

impl Times {
    fn note(&mut self, standstill: Duration) {
        self.standstills.push(standstill);
        self.starts.push(fork_and_exec());
    }

    #[expect(clippy::print_stdout, reason = "the figures, for whoever asks for them")]
    fn report(mut self, what: &str, traffic: &Traffic) {
        let (lost_out, lost_in) = traffic.lost();
        let longest = self.standstills.iter().max().copied().unwrap_or_default();
        let [standstill, start] = [&mut self.standstills, &mut self.starts].map(|times| {
            times.sort();
            times[times.len() / 2]
        });
        println!(
            "{what}: {} packets sent, {lost_out} lost; {} received, {lost_in} lost; standstill {standstill:.1?} in the median, \
             {longest:.1?} at most; a bare fork and exec {start:.1?}: {:.1} times that",
            traffic.sent,
            traffic.received,
            standstill.as_secs_f64() / start.as_secs_f64(),
        );
    }
}

#[test]
fn a_worker_that_is_killed_costs_no_descriptor_and_repeats_no_packet() {
    let kills = ends();
    let world = World::new();
    let (function, mut traffic) = begin(&world);
    let mut seen = function.watch();
    seen.mark_unchanged();
    let mut times = Times::default();
    let mut started = world.worker_after(0);
    let mut state = 88172645463325252u64;
    for _ in 0..kills {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let until = traffic.back + traffic.received + 500;
        while traffic.back + traffic.received < until {
            traffic.step(true);
        }
        let pid = Pid::from_raw(world.workers.watch().borrow().pid.unwrap().try_into().unwrap());
        // At a moment of chance while it has all that the rings hold: after so many packets of either direction.
        traffic.amid(state.is_multiple_of(2), (state >> 8) % 150);
        let killed = Instant::now();
        kill(pid, Signal::SIGKILL).unwrap();
        started = world.worker_after(started);
        traffic.settled = traffic.wired;
        let before = (traffic.back, traffic.received);
        while traffic.back == before.0 || traffic.received == before.1 {
            traffic.step(true);
        }
        times.note(killed.elapsed());
    }
    traffic.rest();
    times.report(&format!("{kills} kills"), &traffic);
    let (lost_out, lost_in) = traffic.lost();
    assert_eq!(traffic.back, traffic.sent);
    assert!(lost_out <= kills, "of what is sent a kill may cost one");
    assert!(lost_in <= kills * BATCH, "of what is received a kill may cost a batch");
    let [receive, transmit] = function.counters(2)[..] else { panic!() };
    assert!(transmit.in_doubt >= lost_out, "what was lost is counted");
    assert_eq!((receive.stopped, transmit.stopped, receive.dropped, transmit.dropped), (0, 0, 0, 0));
    assert!(!seen.has_changed().unwrap(), "front end and driver were told nothing, and told nothing");
}

#[test]
fn a_worker_is_replaced_without_a_packet_lost() {
    let updates = ends();
    let world = World::new();
    let (function, mut traffic) = begin(&world);
    let mut seen = function.watch();
    seen.mark_unchanged();
    let mut times = Times::default();
    let mut started = world.worker_after(0);
    for _ in 0..updates {
        let until = traffic.back + traffic.received + 500;
        while traffic.back + traffic.received < until {
            traffic.step(true);
        }
        let replacing = world.workers.clone();
        let done = world.runtime.spawn(async move { replacing.replace(program()).await });
        let standstill = traffic.standstill(|| done.is_finished());
        world.runtime.block_on(done).unwrap().unwrap();
        started = world.worker_after(started);
        times.note(standstill);
    }
    traffic.rest();
    times.report(&format!("{updates} live updates"), &traffic);
    assert_eq!(traffic.lost(), (0, 0));
    assert_eq!(traffic.back, traffic.sent);
    let [receive, transmit] = function.counters(2)[..] else { panic!() };
    assert_eq!((transmit.in_doubt, receive.dropped, transmit.dropped), (0, 0, 0));
    assert!(!seen.has_changed().unwrap(), "front end and driver were told nothing, and told nothing");
    let error = world.runtime.block_on(world.workers.replace(virtnet_soft::Program::new("/bin/true", 2)));
    assert!(error.unwrap_err().to_string().contains("/bin/true ended or did not answer"));
    let error =
        world.runtime.block_on(world.workers.replace(virtnet_soft::Program::new("/nowhere/worker", 2)));
    assert!(error.unwrap_err().to_string().contains("starting the worker /nowhere/worker"));
    traffic.wire.send(&packet(traffic.wired, 60)).unwrap();
    traffic.wired += 1;
    traffic.rest();
}
