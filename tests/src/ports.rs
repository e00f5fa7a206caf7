//! TCP ports on loopback for programs that are told theirs.

use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::Context;

/// The lowest that is given.
const FIRST: u16 = 15_000;
/// How many there are. They end below those that the kernel gives to connections (`ip_local_port_range`), any of which may be
/// taken at any moment.
const COUNT: u16 = 17_000;

/// Ports of this process alone, for as long as it runs: no other test that asks here is given them, though nothing listens there
/// yet, or for a while.
///
/// # Errors
/// Where there is none left.
pub fn own_ports<const N: usize>() -> anyhow::Result<[u16; N]> {
    /// What says to the other processes of this network namespace which ports are this one's; it ends with this one.
    static HELD: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    let mut ports = [0; N];
    for slot in &mut ports {
        // Each process begins elsewhere, so that a port is not given again at once where the last who had it has left
        // connections behind.
        let begin = std::process::id().wrapping_mul(97);
        let (port, name) = (0..COUNT)
            .find_map(|_| {
                let turn = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
                let port = FIRST + u16::try_from(begin.wrapping_add(turn) % u32::from(COUNT)).ok()?;
                let name = SocketAddr::from_abstract_name(format!("virtnet-tests-port-{port}")).ok()?;
                let name = UnixListener::bind_addr(&name).ok()?;
                TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok().map(|_| (port, name))
            })
            .context("no port is free on loopback")?;
        *slot = port;
        held.push(name);
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_given_once_though_nobody_listens_there() {
        let mut all: Vec<u16> = (0..300).flat_map(|_| own_ports::<2>().unwrap()).collect();
        let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
        let first: u16 = range.split_whitespace().next().unwrap().parse().unwrap();
        assert!(all.iter().all(|port| *port < first), "some are given to connections");
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 600);
    }
}
