//! Functions whose TAP comes late, goes, and is another function's then: packets wait in the rings for it, also over workers that are
//! killed or replaced.

use std::os::unix::net::UnixStream;
use std::sync::Arc;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use virtnet_soft::driver::{Driver, Options, Wire};
use virtnet_soft::{Function, Socket, Tap};

use crate::support::{ALL, OFFLOADS, World, features, number, packet, program, settings};
use crate::traffic::{to_the_guest, to_the_tap};

/// A function without a TAP, at a socket of this name.
fn open(world: &World, name: &str) -> Function {
    let open = || {
        let _guard = world.runtime.enter();
        let socket = Socket::Serve(world.folder.path().join(name));
        Function::open(&world.workers, None, &settings(ALL, 3), OFFLOADS, socket).unwrap()
    };
    world.namespace.run(open).unwrap()
}

fn drive(function: &Function) -> Driver {
    let stream = UnixStream::connect(function.socket()).unwrap();
    let mut driver =
        Driver::start(stream, Options { features: features(ALL), ..Options::default() }).unwrap();
    driver.fill(0);
    driver
}

fn give(world: &World, function: &Function, tap: Option<Arc<Tap>>) {
    world.namespace.run(|| world.runtime.block_on(function.set_tap(tap))).unwrap().unwrap();
}

fn give_own(world: &World, function: &Function) {
    give(world, function, Some(Arc::clone(&world.tap)));
}

/// Has the driver send packets from one number up to another.
fn send(driver: &mut Driver, from: u64, to: u64) {
    let header = vec![0; driver.header];
    for number in from..to {
        assert!(driver.send(0, number, &header, &packet(number, 100), 1));
    }
    driver.rings[1].notify();
}

/// All of these packets arrive at the TAP, in order, and their buffers come back.
fn arrive(driver: &mut Driver, wire: &Wire, from: u64, to: u64) {
    let (mut next, mut back) = (from, from);
    while next < to || back < to {
        let before = (next, back);
        while let Some(packet) = wire.receive().unwrap() {
            assert_eq!(number(&packet), next);
            next += 1;
        }
        while driver.rings[1].given().unwrap().is_some() {
            back += 1;
        }
        if before == (next, back) && !driver.rings[1].listen() {
            assert!(wire.wait(&[&driver.rings[1]]).unwrap(), "{next} of {to} arrived, {back} came back");
        }
    }
}

#[test]
fn what_a_driver_sends_waits_for_a_tap_over_the_ends_of_workers() {
    let world = World::new();
    let wire = world.wire(false);
    let function = open(&world, "late");
    let mut driver = drive(&function);
    assert_eq!(world.until(&function, |state| state.in_use).active_pairs, 1);
    let started = world.worker_after(0);
    send(&mut driver, 0, 10);
    let pid = world.until_at_rest();
    kill(Pid::from_raw(pid.try_into().unwrap()), Signal::SIGKILL).unwrap();
    world.worker_after(started);
    send(&mut driver, 10, 20);
    world.runtime.block_on(world.workers.replace(program())).unwrap();
    send(&mut driver, 20, 30);
    world.until_at_rest();
    assert!(driver.rings[1].given().unwrap().is_none() && wire.receive().unwrap().is_none());

    give_own(&world, &function);
    arrive(&mut driver, &wire, 0, 30);
    to_the_tap(&mut driver, &wire, 0, 500, 1, 1000);
    to_the_guest(&mut driver, &wire, 0, 500, 1000);
    let [_, transmit] = function.counters(2)[..] else { panic!() };
    assert_eq!((transmit.packets, transmit.dropped, transmit.in_doubt), (530, 0, 0));
    assert_eq!(function.watch().borrow().refused, 0);
}

#[test]
fn a_tap_that_is_taken_away_is_wholly_another_functions() {
    let world = World::new();
    let wire = world.wire(false);
    let (one, other) = (open(&world, "one"), open(&world, "other"));
    let (mut first, mut second) = (drive(&one), drive(&other));
    for _ in 0..3 {
        give_own(&world, &one);
        to_the_tap(&mut first, &wire, 0, 300, 1, 1000);
        to_the_guest(&mut first, &wire, 0, 300, 1000);
        give(&world, &one, None);
        give_own(&world, &other);
        to_the_tap(&mut second, &wire, 0, 300, 1, 1000);
        to_the_guest(&mut second, &wire, 0, 300, 1000);
        // What the first one sends meanwhile waits, and goes with the next TAP: here one of its own.
        send(&mut first, 0, 5);
        let name = "rep1".parse().unwrap();
        let own = world.new_tap(&name);
        world.ip("link set rep1 up");
        let there = world.namespace.run(|| Wire::open("rep1", false)).unwrap().unwrap();
        give(&world, &one, Some(Arc::new(own)));
        arrive(&mut first, &there, 0, 5);
        assert!(wire.receive().unwrap().is_none());
        // Nobody has it any more once it is taken away: the netdev goes.
        give(&world, &one, None);
        give(&world, &other, None);
        world.new_tap(&name);
    }
}

#[test]
fn a_tap_that_comes_before_its_driver_is_used_by_it() {
    let world = World::new();
    let wire = world.wire(false);
    let function = open(&world, "early");
    give_own(&world, &function);
    let mut driver = drive(&function);
    to_the_tap(&mut driver, &wire, 0, 200, 1, 1000);
    // The driver lets go while there is none, and another comes.
    give(&world, &function, None);
    send(&mut driver, 0, 3);
    world.until_at_rest();
    assert_eq!(driver.stop_ring(1).unwrap(), 200, "what waits was not taken");
    drop(driver);
    world.until(&function, |state| !state.connected);
    let mut driver = drive(&function);
    give_own(&world, &function);
    to_the_tap(&mut driver, &wire, 0, 200, 1, 1000);
    to_the_guest(&mut driver, &wire, 0, 200, 1000);
    world.runtime.block_on(function.close());
}
