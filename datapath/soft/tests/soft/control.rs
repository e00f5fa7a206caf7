//! What a front end and the control side say to each other: both roles of the socket, configuration, link, queues, memory, and
//! what is under way over a connection's end.

use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;

use virtnet_model::Features;
use virtnet_soft::driver::{Driver, FrontEnd, Options, Request};
use virtnet_soft::{Carries, Function, FunctionError, Socket};

use crate::support::{ALL, OFFLOADS, World, features, packet, settings};
use crate::traffic::{to_the_guest, to_the_tap};

fn words(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_ne_bytes()).collect()
}

/// The first bytes of a configuration space.
fn config(front_end: &FrontEnd) -> Vec<u8> {
    front_end.ask(Request::GetConfig, &[words(&[0, 12, 0]), vec![0; 12]].concat()).unwrap()[12..].to_vec()
}

#[test]
fn a_front_end_sees_what_the_settings_say_and_every_change_of_it() {
    let world = World::new();
    let plain = Carries::default();
    let function = world.function(&settings(ALL, 9), plain);
    let front_end = FrontEnd::new(UnixStream::connect(world.socket()).unwrap()).unwrap();
    let offered = Features::from_bits(front_end.number(Request::GetFeatures).unwrap() & !(1 << 30)).unwrap();
    let carried = "MTU MAC MRG_RXBUF STATUS CTRL_VQ MQ INDIRECT_DESC EVENT_IDX VERSION_1 IN_ORDER";
    assert_eq!(offered, features(carried), "no offloads over a switch that carries none");
    front_end.say(Request::SetProtocolFeatures, &0x1_b239u64.to_ne_bytes(), &[]).unwrap();
    assert_eq!(front_end.number(Request::GetQueueNum).unwrap(), 4);
    assert_eq!(config(&front_end), [0x0c, 0xc4, 0x7a, 0xff, 0x22, 0x93, 1, 0, 4, 0, 0xdc, 5]);
    front_end.tell(Request::NetSetMtu, &1400u64.to_ne_bytes(), &[]).unwrap();
    assert!(front_end.tell(Request::NetSetMtu, &1501u64.to_ne_bytes(), &[]).is_err());
    // The link goes down, which is told by the other channel.
    let (ours, theirs) = UnixStream::pair().unwrap();
    front_end.tell(Request::SetBackendReqFd, &[], &[theirs.as_fd()]).unwrap();
    world.runtime.block_on(function.set_link(false)).unwrap();
    let told = FrontEnd::new(ours).unwrap();
    assert_eq!(told.reply().unwrap().0, 2, "CONFIG_CHANGE_MSG");
    assert_eq!(config(&front_end)[6], 0);
    // So is another MAC and MTU; other features end the connection.
    let mut other = settings(ALL, 9);
    other.mtu = 9000.try_into().unwrap();
    world.namespace.run(|| world.runtime.block_on(function.configure(&other, plain))).unwrap().unwrap();
    assert_eq!(told.reply().unwrap().0, 2);
    assert_eq!(config(&front_end)[6..12], [0, 0, 4, 0, 0x28, 0x23]);
    world.runtime.block_on(function.configure(&other, OFFLOADS)).unwrap();
    assert!(front_end.reply().is_err());
    let front_end = FrontEnd::new(UnixStream::connect(world.socket()).unwrap()).unwrap();
    assert_eq!(front_end.number(Request::GetFeatures).unwrap(), features(ALL).bits() | 1 << 30);
}

#[test]
fn a_function_that_is_in_use_keeps_its_settings() {
    let world = World::new();
    let function = world.function(&settings(ALL, 3), OFFLOADS);
    let driver = world.driver(Options::default());
    world.until(&function, |state| state.in_use);
    let refused = world.runtime.block_on(function.configure(&settings(ALL, 3), OFFLOADS));
    assert!(matches!(refused, Err(FunctionError::InUse { .. })), "{refused:?}");
    // The driver lets go: the device is reset.
    driver.front_end.tell(Request::SetStatus, &0u64.to_ne_bytes(), &[]).unwrap();
    let state = world.until(&function, |state| !state.in_use);
    assert_eq!(state.negotiated, None);
    world.runtime.block_on(function.configure(&settings(ALL, 3), OFFLOADS)).unwrap();
    let path = world.socket();
    let taken = world.namespace.run(|| {
        let _guard = world.runtime.enter();
        Function::open(
            &world.workers,
            Some(Arc::clone(&world.tap)),
            &settings(ALL, 3),
            OFFLOADS,
            Socket::Serve(path.clone()),
        )
    });
    assert!(taken.unwrap().is_err(), "somebody listens there");
    world.runtime.block_on(function.close());
    assert!(!path.exists());
}

#[test]
fn a_function_connects_to_a_front_end_that_serves_and_again_when_it_comes_again() {
    let world = World::new();
    let wire = world.wire(false);
    let folder = world.folder.path().join("vm");
    let path = folder.join("net0");
    let function = world.namespace.run(|| {
        let _guard = world.runtime.enter();
        let socket = Socket::Connect(path.clone());
        Function::open(&world.workers, Some(Arc::clone(&world.tap)), &settings(ALL, 3), OFFLOADS, socket)
            .unwrap()
    });
    let function = function.unwrap();
    // Neither the folder nor the socket is there yet; then another comes in its place; then the same is there again.
    std::fs::create_dir(&folder).unwrap();
    for _ in 0..2 {
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        for _ in 0..2 {
            let (stream, _) = listener.accept().unwrap();
            let mut driver = Driver::start(stream, Options::default()).unwrap();
            driver.fill(0);
            to_the_tap(&mut driver, &wire, 0, 200, 1, 1000);
            to_the_guest(&mut driver, &wire, 0, 200, 1000);
            assert!(function.watch().borrow().connected);
        }
    }
}

#[test]
fn pairs_are_used_as_the_driver_chooses() {
    let world = World::new();
    let function = world.function(&settings(ALL, 9), OFFLOADS);
    let wire = world.wire(false);
    let options = Options { pairs: 4, enabled: 1, size: 128, ..Options::default() };
    let mut driver = world.driver(options);
    (0..4).for_each(|pair| driver.fill(pair));
    assert_eq!(world.until(&function, |state| state.in_use).active_pairs, 1);
    to_the_guest(&mut driver, &wire, 0, 500, 1000);
    // What is sent by a queue that is not enabled comes back and goes nowhere.
    driver.send(2, 0, &[0; 12], &packet(1, 60), 1);
    driver.rings[5].notify();
    while driver.rings[5].given().unwrap().is_none() {
        assert!(driver.rings[5].listen() || wire.wait(&[&driver.rings[5]]).unwrap());
    }
    assert_eq!(wire.receive().unwrap(), None);
    (1..4).for_each(|pair| driver.enable(pair, true).unwrap());
    assert_eq!(function.watch().borrow().active_pairs, 4);
    for pair in 0..4 {
        to_the_tap(&mut driver, &wire, pair, 500, 1, 1000);
    }
    // Flows are spread over the pairs by the kernel: each packet arrives once, by whichever it is.
    let mut seen = std::collections::BTreeSet::new();
    for number in 0..400u64 {
        let mut flow = packet(number, 100);
        // Addresses and ports of UDP over IPv4, of which the kernel makes the flow.
        flow[12..14].copy_from_slice(&[8, 0]);
        flow[14..34].copy_from_slice(&[
            0x45,
            0,
            0,
            86,
            0,
            0,
            0,
            0,
            64,
            17,
            0,
            0,
            10,
            0,
            0,
            1,
            10,
            0,
            1,
            number as u8,
        ]);
        flow[34..38].copy_from_slice(&(number as u32).to_be_bytes());
        wire.send(&flow).unwrap();
    }
    let mut by = [0; 4];
    while seen.len() < 400 {
        for pair in 0..4u16 {
            while let Some(packet) = driver.received(pair).unwrap() {
                let flow = u32::from_be_bytes(packet[46..50].try_into().unwrap());
                assert!(seen.insert(flow), "{flow} came twice");
                by[usize::from(pair)] += 1;
            }
        }
        let rings: Vec<_> =
            driver.rings.iter_mut().step_by(2).map(virtnet_soft::driver::Ring::listen).collect();
        if !rings.contains(&true) && seen.len() < 400 {
            assert!(wire.wait(&driver.rings.iter().step_by(2).collect::<Vec<_>>()).unwrap());
        }
    }
    assert!(by.iter().all(|count| *count > 0), "{by:?}");
    (1..4).for_each(|pair| driver.enable(pair, false).unwrap());
    to_the_guest(&mut driver, &wire, 0, 500, 1000);
}

#[test]
fn a_ring_goes_on_from_where_it_was_stopped() {
    let world = World::new();
    let function = world.function(&settings(ALL, 3), OFFLOADS);
    let wire = world.wire(false);
    let mut driver = world.driver(Options::default());
    driver.fill(0);
    for round in 0..3u16 {
        to_the_tap(&mut driver, &wire, 0, 300, 2, 1000);
        to_the_guest(&mut driver, &wire, 0, 300, 1000);
        // QEMU stops rings that it has disabled before, and those that it has not.
        if round == 1 {
            driver.enable(0, false).unwrap();
        }
        let bases = [0, 1].map(|queue| driver.stop_ring(queue).unwrap());
        assert_eq!(bases, [0, 1].map(|queue| driver.rings[queue].seen()));
        assert_eq!(bases[1], 300 * (round + 1));
        // Memory is shared anew meanwhile, as when a DIMM is plugged.
        driver.share().unwrap();
        driver.start_ring(0, bases[0]).unwrap();
        driver.start_ring(1, bases[1]).unwrap();
        driver.enable(0, true).unwrap();
    }
    to_the_tap(&mut driver, &wire, 0, 300, 2, 1000);
    to_the_guest(&mut driver, &wire, 0, 300, 1000);
    let [receive, transmit] = function.counters(2)[..] else { panic!() };
    assert_eq!((transmit.packets, receive.packets, transmit.in_doubt), (1200, 1200, 0));
}

#[test]
fn quiet_functions_cost_no_cpu() {
    let world = World::new();
    let quiet = world.function(&settings(ALL, 9), OFFLOADS);
    let mut driver = world.driver(Options { pairs: 4, enabled: 4, ..Options::default() });
    let wire = world.wire(false);
    (0..4).for_each(|pair| driver.fill(pair));
    to_the_tap(&mut driver, &wire, 0, 300, 2, 1000);
    to_the_guest(&mut driver, &wire, 0, 300, 1000);
    let pid = world.until_at_rest();
    // How often its threads have slept: none of them wakes for what does not concern it.
    let before = World::sleeps(pid);
    for _ in 0..1000 {
        driver.front_end.number(Request::GetFeatures).unwrap();
    }
    assert_eq!(World::sleeps(pid), before);
    assert!(quiet.watch().borrow().in_use);
}

#[test]
fn what_is_under_way_is_kept_by_the_front_end_too() {
    let world = World::new();
    let _function = world.function(&settings(ALL, 3), OFFLOADS);
    let front_end = FrontEnd::new(UnixStream::connect(world.socket()).unwrap()).unwrap();
    front_end.say(Request::SetProtocolFeatures, &0x1_b239u64.to_ne_bytes(), &[]).unwrap();
    let wanted = [vec![0; 16], words(&[2 | 256 << 16])].concat();
    front_end.send(Request::GetInflightFd as u32, false, &wanted, &[]).unwrap();
    let (_, answer, fds) = front_end.reply().unwrap();
    let [fd] = &fds[..] else { panic!("{fds:?}") };
    front_end.tell(Request::SetInflightFd, &answer, &[fd.as_fd()]).unwrap();
    assert!(
        front_end.tell(Request::SetInflightFd, &[0; 20], &[fd.as_fd()]).is_err(),
        "it is no region of that size"
    );
    let null = std::fs::File::open("/dev/null").unwrap();
    assert!(front_end.tell(Request::SetInflightFd, &answer, &[null.as_fd()]).is_err());
}

#[test]
fn segments_and_partial_checksums_pass_whole() {
    let world = World::new();
    let function = world.function(&settings(ALL, 3), OFFLOADS);
    let wire = world.wire(true);
    let names = "VERSION_1 MRG_RXBUF EVENT_IDX CSUM GUEST_CSUM HOST_TSO4 GUEST_TSO4";
    let mut driver =
        world.driver(Options { features: features(names), size: 128, buffer: 4096, ..Options::default() });
    driver.fill(0);
    let (header, frame) = segment(60_000);
    // Towards the guest: one packet, over many buffers, with its header.
    wire.send(&[&header[..], &frame].concat()).unwrap();
    let packet = loop {
        if let Some(packet) = driver.received(0).unwrap() {
            break packet;
        }
        assert!(driver.rings[0].listen() || wire.wait(&[&driver.rings[0]]).unwrap());
    };
    assert_eq!((packet.len(), packet[10]), (12 + frame.len(), 15), "in fifteen buffers");
    assert_eq!((packet[0], packet[1], &packet[12..]), (1, 1, &frame[..]));
    // And from it, in pieces of which the ring's buffers make one chain.
    let wide = Options { features: features(names), size: 16, buffer: 1 << 16, ..Options::default() };
    drop(driver);
    world.until(&function, |state| !state.connected);
    let mut driver = world.driver(wide);
    assert!(driver.send(0, 0, &[&header[..], &[0, 0]].concat(), &frame, 9));
    driver.rings[1].notify();
    let arrived = loop {
        if let Some(packet) = wire.receive().unwrap() {
            break packet;
        }
        assert!(wire.wait(&[]).unwrap());
    };
    assert_eq!((arrived[0], arrived[1], &arrived[10..]), (1, 1, &frame[..]));
    // A guest that did not agree to it is given segments, with their checksums.
    drop(driver);
    world.until(&function, |state| !state.connected);
    let mut driver = world.driver(Options::default());
    driver.fill(0);
    wire.send(&[&header[..], &frame].concat()).unwrap();
    let (mut bytes, mut packets) = (0, 0);
    while bytes < frame.len() - 54 {
        while let Some(packet) = driver.received(0).unwrap() {
            assert_eq!((packet[0] & 1, packet[1]), (0, 0));
            assert!(packet.len() <= 12 + 1514);
            (bytes, packets) = (bytes + packet.len() - 12 - 54, packets + 1);
        }
        assert!(
            bytes >= frame.len() - 54 || driver.rings[0].listen() || wire.wait(&[&driver.rings[0]]).unwrap()
        );
    }
    assert_eq!(packets, (frame.len() - 54).div_ceil(1448));
}

/// A TCP segment of so many bytes that is to be cut into those of 1448, with the ten bytes of its header.
fn segment(size: usize) -> (Vec<u8>, Vec<u8>) {
    let mut frame = packet(5, size);
    let length = u16::try_from(size - 14).unwrap().to_be_bytes();
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14..34].copy_from_slice(&[
        0x45, 0, length[0], length[1], 0, 0, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2,
    ]);
    let sum: u32 =
        frame[14..34].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = !((sum & 0xffff) + (sum >> 16)) as u16;
    frame[24..26].copy_from_slice(&folded.to_be_bytes());
    frame[46..48].copy_from_slice(&[0x50, 0x10]);
    let fields = [54u16, 1448, 34, 16].map(u16::to_le_bytes);
    ([1, 1].into_iter().chain(fields.into_iter().flatten()).collect(), frame)
}
