//! Packets both ways, over all that a driver and a function may agree on.

use virtnet_controller::Settings;
use virtnet_soft::driver::{Driver, Options, Wire};

use crate::support::{ALL, OFFLOADS, World, features, number, packet, settings};

/// Sends `count` packets of changing sizes from the guest, and checks what arrives.
pub(crate) fn to_the_tap(
    driver: &mut Driver,
    wire: &Wire,
    pair: u16,
    count: u64,
    parts: usize,
    longest: usize,
) {
    let queue = usize::from(pair) * 2 + 1;
    let size = u64::from(driver.rings[queue].size());
    let header = vec![0; driver.header];
    let (mut sent, mut back, mut seen) = (0, 0, 0);
    let mut free: Vec<u64> = (0..size).collect();
    while back < count || seen < count {
        while sent < count
            && let Some(cookie) = free.pop()
        {
            let packet = packet(sent, 60 + (sent as usize * 97) % (longest - 60));
            if !driver.send(pair, cookie, &header, &packet, parts) {
                free.push(cookie);
                break;
            }
            sent += 1;
        }
        driver.rings[queue].notify();
        let before = (back, seen);
        while let Some(given) = driver.rings[queue].given().unwrap() {
            free.push(given.cookie);
            back += 1;
        }
        while let Some(packet) = wire.receive().unwrap() {
            assert_eq!(number(&packet), seen);
            seen += 1;
        }
        if before == (back, seen) && !driver.rings[queue].listen() {
            assert!(wire.wait(&[&driver.rings[queue]]).unwrap(), "{sent} sent, {back} back, {seen} arrived");
        }
    }
}

/// Sends `count` packets to the guest, and checks what arrives.
pub(crate) fn to_the_guest(driver: &mut Driver, wire: &Wire, pair: u16, count: u64, longest: usize) {
    let queue = usize::from(pair) * 2;
    let (mut sent, mut seen) = (0u64, 0u64);
    while seen < count {
        while sent < count && sent - seen < 100 {
            wire.send(&packet(sent, 60 + (sent as usize * 97) % (longest - 60))).unwrap();
            sent += 1;
        }
        let before = seen;
        while let Some(packet) = driver.received(pair).unwrap() {
            let header: Vec<u8> = packet[..driver.header].to_vec();
            assert_eq!(header[..10], [0; 10]);
            assert_eq!(number(&packet[driver.header..]), seen);
            seen += 1;
        }
        if before == seen && !driver.rings[queue].listen() {
            assert!(wire.wait(&[&driver.rings[queue]]).unwrap(), "{sent} sent, {seen} arrived");
        }
    }
}

#[test]
fn packets_pass_over_all_that_can_be_agreed_on() {
    let world = World::new();
    let function = world.function(&settings(ALL, 3), OFFLOADS);
    let wire = world.wire(false);
    let combinations = [
        ("VERSION_1", 16, 2048, 1),
        ("VERSION_1 MRG_RXBUF", 256, 512, 2),
        ("VERSION_1 EVENT_IDX", 256, 2048, 3),
        ("VERSION_1 INDIRECT_DESC", 256, 2048, 7),
        ("VERSION_1 MRG_RXBUF EVENT_IDX INDIRECT_DESC", 1024, 256, 2),
        ("VERSION_1 MRG_RXBUF EVENT_IDX INDIRECT_DESC IN_ORDER", 64, 2048, 1),
        ("", 256, 2048, 2),
        ("MRG_RXBUF", 128, 2048, 2),
    ];
    for (names, size, buffer, parts) in combinations {
        let options = Options { features: features(names), size, buffer, ..Options::default() };
        let mut driver = world.driver(options);
        driver.fill(0);
        to_the_tap(&mut driver, &wire, 0, 3000, parts, (buffer as usize - 12).min(1514));
        to_the_guest(&mut driver, &wire, 0, 3000, 1514);
        let state = world.until(&function, |state| state.in_use);
        assert_eq!(state.negotiated.unwrap(), features(names));
        assert_eq!(state.fault, None, "{names}");
        drop(driver);
        world.until(&function, |state| !state.connected);
    }
    let [receive, transmit] = function.counters(2)[..] else { panic!() };
    assert_eq!((receive.packets, transmit.packets), (24_000, 24_000));
    assert_eq!(
        (receive.dropped, transmit.dropped, transmit.bad_desc_errors, transmit.in_doubt),
        (0, 0, 0, 0)
    );
    assert_eq!(transmit.received_desc, transmit.completed_desc);
}

#[test]
fn a_packet_that_no_single_buffer_holds_is_dropped_where_buffers_are_not_mergeable() {
    let world = World::new();
    world.ip("link set rep0 mtu 9000");
    let large = Settings { mtu: 9000.try_into().unwrap(), ..settings(ALL, 3) };
    let function = world.function(&large, OFFLOADS);
    let wire = world.wire(false);
    let options = Options { features: features("VERSION_1"), size: 64, buffer: 1536, ..Options::default() };
    let mut driver = world.driver(options);
    driver.fill(0);
    to_the_guest(&mut driver, &wire, 0, 100, 1514);
    for _ in 0..3 {
        wire.send(&packet(0, 5000)).unwrap();
    }
    // Whole ones that follow find all buffers but those of the ones before.
    to_the_guest(&mut driver, &wire, 0, 100, 1514);
    let [receive, _] = function.counters(2)[..] else { panic!() };
    assert_eq!((receive.packets, receive.dropped), (200, 3));
}
