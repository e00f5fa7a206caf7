//! Guests and front ends that do what they may not, and the others whom that must not harm.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use virtnet_soft::driver::{Buffer, Driver, FrontEnd, Options, Request};
use virtnet_soft::{Function, Socket};

use crate::support::{ALL, OFFLOADS, World, features, settings};
use crate::traffic::{to_the_guest, to_the_tap};

/// A world with a second function on the same worker, whose guest does nothing wrong.
struct Neighbours {
    world: World,
    function: Function,
    neighbour: Function,
    good: Driver,
    good_wire: virtnet_soft::driver::Wire,
}

impl Neighbours {
    fn new() -> Self {
        let world = World::new();
        let function = world.function(&settings(ALL, 3), OFFLOADS);
        let path = world.folder.path().join("neighbour");
        let tap = world.new_tap(&"rep1".parse().unwrap());
        world.ip("link set rep1 up txqueuelen 4000");
        let neighbour = {
            let _guard = world.runtime.enter();
            let socket = Socket::Serve(path.clone());
            Function::open(&world.workers, Some(Arc::new(tap)), &settings(ALL, 3), OFFLOADS, socket).unwrap()
        };
        let good_wire =
            world.namespace.run(|| virtnet_soft::driver::Wire::open("rep1", false)).unwrap().unwrap();
        let mut good = Driver::start(UnixStream::connect(path).unwrap(), Options::default()).unwrap();
        good.fill(0);
        Self { world, function, neighbour, good, good_wire }
    }

    /// The neighbour's packets pass, and the worker is still the first one.
    fn is_well(&mut self) {
        to_the_tap(&mut self.good, &self.good_wire, 0, 300, 1, 1000);
        to_the_guest(&mut self.good, &self.good_wire, 0, 300, 1000);
        assert_eq!(self.world.workers.watch().borrow().started, 1);
        let [receive, transmit] = self.neighbour.counters(2)[..] else { panic!() };
        assert_eq!((receive.stopped, transmit.stopped), (0, 0));
        assert_eq!(self.neighbour.watch().borrow().refused, 0);
    }

    fn driver(&self, names: &str) -> Driver {
        let options = Options { features: features(names), size: 16, ..Options::default() };
        self.world.driver(options)
    }
}

/// Waits until the device has given back all chains of a queue.
fn all_back(driver: &mut Driver, queue: usize) {
    driver.rings[queue].notify();
    while driver.rings[queue].outstanding() > 0 {
        while driver.rings[queue].given().unwrap().is_some() {}
        if driver.rings[queue].outstanding() > 0 && !driver.rings[queue].listen() {
            let wire = nix::poll::PollFd::new(driver.rings[queue].call.as_fd(), nix::poll::PollFlags::POLLIN);
            assert_eq!(nix::poll::poll(&mut [wire], 10_000u16).unwrap(), 1, "chains do not come back");
            let _ = driver.rings[queue].call.read();
        }
    }
}

#[test]
fn chains_that_can_not_be_used_come_back_and_are_counted() {
    let mut all = Neighbours::new();
    let mut driver = all.driver("VERSION_1 EVENT_IDX INDIRECT_DESC");
    let here = driver.buffer(1, 0);
    let buffer = |address, length, writable| Buffer { address, length, writable };
    let chains: [&[Buffer]; 8] = [
        &[buffer(u64::MAX - 3, 100, false)],
        &[buffer(here, u32::MAX, false)],
        &[buffer(here, 100, true)],
        &[buffer(here, 3, false)],
        &[buffer(here, 0, false)],
        &[buffer(here, 100, false), buffer(1 << 31, 100, false)],
        // A header that asks for what was not agreed on; an Ethernet frame that is none.
        &[buffer(here + 64, 100, false)],
        &[buffer(here, 15, false)],
    ];
    driver.write(here + 64, &[1, 1]);
    for (cookie, chain) in (0..).zip(chains) {
        assert!(driver.rings[1].add(cookie, chain));
    }
    all_back(&mut driver, 1);
    let transmit = all.function.counters(2)[1];
    assert_eq!(transmit.packets, 0);
    assert_eq!(transmit.completed_desc, 8);
    let wrong =
        transmit.bad_desc_errors + transmit.exceed_max_chain + transmit.invalid_buffer + transmit.dropped;
    assert_eq!(wrong, 8, "{transmit:?}");
    assert_eq!(transmit.stopped, 0);
    all.is_well();
    // And those for what is received.
    for cookie in 0..4 {
        let bad = [
            buffer(here, 100, false),
            buffer(1 << 40, 2000, true),
            buffer(here, 5, true),
            buffer(here, 0, true),
        ];
        assert!(driver.rings[0].add(cookie, &[bad[cookie as usize]]));
    }
    all.world.wire(false).send(&crate::support::packet(1, 100)).unwrap();
    all_back(&mut driver, 0);
    let receive = all.function.counters(2)[0];
    assert_eq!((receive.packets, receive.completed_desc), (0, 4));
    all.is_well();
}

#[test]
fn a_loop_of_descriptors_ends() {
    let mut all = Neighbours::new();
    let mut driver = all.driver("VERSION_1 EVENT_IDX");
    let here = driver.buffer(1, 0);
    let half = Buffer { address: here, length: 50, writable: false };
    assert!(driver.rings[1].add(0, &[half, half]));
    // The second descriptor of the chain is descriptor 0 of the table, and the first one is 1.
    let table = driver.rings[1].parts()[0];
    driver.rings[1].descriptor(table, here, 50, 1, 1);
    all_back(&mut driver, 1);
    let transmit = all.function.counters(2)[1];
    assert_eq!((transmit.packets, transmit.completed_desc, transmit.exceed_max_chain), (0, 1, 1));
    all.is_well();
}

#[test]
fn a_ring_that_can_not_be_used_stops_its_queue_until_it_is_started_again() {
    let mut all = Neighbours::new();
    let mut driver = all.driver("VERSION_1");
    let wire = all.world.wire(false);
    let stopped = |all: &Neighbours| all.function.counters(2)[1].stopped;
    // More than the ring has, then a head that is none.
    for number in 0..2 {
        match number {
            0 => driver.rings[1].set_index(500),
            _ => driver.rings[1].offer(999),
        }
        driver.rings[1].kick.write(1).unwrap();
        while stopped(&all) == number {
            all.is_well();
        }
        // A worker that comes after does not try again.
        driver.rings[1].kick.write(1).unwrap();
        all.is_well();
        assert_eq!(stopped(&all), number + 1);
        // The next is served once this one has gone.
        drop(driver);
        driver = all.driver("VERSION_1");
        let fresh = all.world.until(&all.function, |state| state.in_use);
        assert_eq!(fresh.refused, 0);
        to_the_tap(&mut driver, &wire, 0, 100, 1, 1000);
    }
}

#[test]
fn memory_that_is_cut_short_stops_its_queues_alone() {
    let mut all = Neighbours::new();
    let mut driver = all.driver("VERSION_1");
    File::from(driver.file.try_clone().unwrap()).set_len(0).unwrap();
    driver.rings[1].kick.write(1).unwrap();
    while all.function.counters(2)[1].stopped == 0 {
        all.is_well();
    }
    all.is_well();
    // The memory of this process is gone as well.
    std::mem::forget(std::mem::take(&mut driver.rings));
}

#[test]
fn a_record_of_progress_that_is_cut_short_harms_nobody_else() {
    let mut all = Neighbours::new();
    let mut driver = all.driver("VERSION_1");
    let wanted: Vec<u8> = [vec![0; 16], vec![2, 0, 16, 0]].concat();
    driver.front_end.send(Request::GetInflightFd as u32, false, &wanted, &[]).unwrap();
    let (_, answer, fds) = driver.front_end.reply().unwrap();
    driver.front_end.tell(Request::SetInflightFd, &answer, &[fds[0].as_fd()]).unwrap();
    File::from(fds[0].try_clone().unwrap()).set_len(0).unwrap();
    assert!(driver.send(0, 0, &[0; 12], &crate::support::packet(0, 60), 1));
    all_back(&mut driver, 1);
    all.is_well();
}

#[test]
fn what_a_worker_refuses_is_let_go_of_when_the_front_end_goes() {
    let mut all = Neighbours::new();
    let (name, path) = ("rep2".parse().unwrap(), all.world.folder.path().join("refused"));
    let function = {
        let tap = all.world.new_tap(&name);
        let _guard = all.world.runtime.enter();
        let socket = Socket::Serve(path.clone());
        Function::open(&all.world.workers, Some(Arc::new(tap)), &settings(ALL, 3), OFFLOADS, socket).unwrap()
    };
    let driver = Driver::start(UnixStream::connect(path).unwrap(), Options::default()).unwrap();
    all.world.until(&function, |state| state.in_use);
    // What is used must be aligned to four bytes (virtio 1.2, section 2.7).
    let [descriptors, available, used] = driver.rings[1].parts();
    let misaligned = Driver::addresses(1, [descriptors, available, used + 2]);
    driver.front_end.tell(Request::SetVringAddr, &misaligned, &[]).unwrap_err();
    drop(driver);
    all.world.until(&function, |state| !state.connected);
    all.world.runtime.block_on(function.close());
    drop(all.world.new_tap(&name));
    all.is_well();
}

#[test]
fn a_front_end_that_reads_no_answer_does_not_hold_its_function() {
    let mut all = Neighbours::new();
    let path = all.world.folder.path().join("unread");
    let function = {
        let _guard = all.world.runtime.enter();
        Function::open(&all.world.workers, None, &settings(ALL, 3), OFFLOADS, Socket::Serve(path.clone()))
            .unwrap()
    };
    let stream = UnixStream::connect(path).unwrap();
    stream.set_write_timeout(Some(std::time::Duration::from_secs(1))).unwrap();
    let front_end = FrontEnd::new(stream).unwrap();
    while front_end.say(Request::GetFeatures, &[], &[]).is_ok() {}
    let closed = async { tokio::time::timeout(std::time::Duration::from_secs(20), function.close()).await };
    all.world.runtime.block_on(closed).unwrap();
    all.is_well();
}

#[test]
fn descriptors_are_counted_however_few_bytes_they_come_with() {
    let mut all = Neighbours::new();
    let null = File::open("/dev/null").unwrap();
    let many = vec![null.as_fd(); 200];
    let front_end = FrontEnd::new(UnixStream::connect(all.world.socket()).unwrap()).unwrap();
    // The first bytes of a message, whose payload does not come.
    front_end.begin(Request::SetMemTable as u32, 264, &many).unwrap();
    assert!(front_end.reply().is_err());
    let state = all.world.until(&all.function, |state| state.refused == 1 && !state.connected);
    assert!(state.fault.unwrap().contains("200 file descriptors"));
    all.is_well();
}

#[test]
fn messages_that_can_not_be_carried_out_end_the_connection_or_are_refused() {
    let mut all = Neighbours::new();
    let mut refused = 0;
    let null = File::open("/dev/null").unwrap();
    let long = vec![0; 5000];
    let region = [1u64, 0, 1 << 20, 0, 0].iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<_>>();
    let cases: [(u32, &[u8], bool); 9] = [
        (7, &[], false),
        (9999, &[], false),
        (2, &[0xff; 8], false),
        (2, &[0xff; 3], false),
        (8, &[9, 0, 0, 0, 64, 0, 0, 0], false),
        (8, &[0, 0, 0, 0, 63, 0, 0, 0], false),
        (12, &[0; 8], true),
        (5, &region, true),
        (5, &long, false),
    ];
    for (request, payload, fd) in cases {
        let fds = if fd { vec![null.as_fd()] } else { Vec::new() };
        // Who does not ask for an answer is disconnected, and the next is served.
        let front_end = FrontEnd::new(UnixStream::connect(all.world.socket()).unwrap()).unwrap();
        front_end.send(request, false, payload, &fds).unwrap();
        assert!(front_end.reply().is_err(), "request {request} is answered");
        refused += 1;
        all.world.until(&all.function, |state| state.refused == refused && !state.connected);
        if payload.len() > 4096 {
            continue;
        }
        // Who asks is told, and can go on.
        let front_end = FrontEnd::new(UnixStream::connect(all.world.socket()).unwrap()).unwrap();
        front_end.say(Request::SetProtocolFeatures, &8u64.to_ne_bytes(), &[]).unwrap();
        front_end.send(request, true, payload, &fds).unwrap();
        assert_eq!(front_end.reply().unwrap().1, 1u64.to_ne_bytes());
        assert!(front_end.number(Request::GetFeatures).unwrap() != 0);
        refused += 1;
        drop(front_end);
        all.world.until(&all.function, |state| state.refused == refused && !state.connected);
    }
    let fault = all.function.watch().borrow().fault.clone().unwrap();
    assert!(fault.contains("a payload of 5000 bytes"), "{fault}");
    all.is_well();
}
