//! [`Side`]: a back end with its guest and the network's side of its TAP, and what a packet costs it.
//!
//! Packets are laid before it by the burst, as many as a ring and a TAP hold, while its process stands still. It is measured from
//! when it goes on until the guest has the last of them, or has its buffer back.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use virtnet_model::Features;
use virtnet_netlink::Namespace;
use virtnet_soft::driver::{Driver, Options, Wire};

use crate::frames::frame;
use crate::process::Process;
use crate::{Buffers, Result, passed};

/// Longer than any burst takes.
const LONG: Duration = Duration::from_secs(10);
/// The protocol's features that a function has: the peer is to have no others.
pub(crate) const PROTOCOL: u64 = 0x1_b239;

pub(crate) struct Side {
    pub(crate) driver: Driver,
    wire: Wire,
    netdev: &'static str,
    pub(crate) process: Process,
    cpus: [usize; 2],
    buffers: Buffers,
}

impl Side {
    pub(crate) fn connect(
        namespace: &Namespace,
        (socket, netdev): (&Path, &'static str),
        (process, cpus): (Process, [usize; 2]),
        features: &Features,
        buffers: Buffers,
    ) -> Result<Self> {
        let options = Options {
            features: features.clone(),
            size: buffers.count,
            buffer: buffers.size,
            protocol: PROTOCOL,
            ..Options::default()
        };
        let mut driver = Driver::start(UnixStream::connect(socket)?, options)?;
        driver.fill(0);
        let wire = namespace.run(|| Wire::open_to_send(netdev))??;
        Ok(Self { driver, wire, netdev, process, cpus, buffers })
    }

    /// What a packet from the guest to the TAP costs, in nanoseconds.
    pub(crate) fn sends(&mut self, namespace: &Namespace, size: usize, count: u64) -> Result<f64> {
        let bytes = frame(size, 2);
        let length = u32::try_from(bytes.len())?;
        let before = passed(namespace, self.netdev)?;
        let lay = |side: &mut Self, burst: u64| {
            for cookie in 0..burst {
                // As a guest's it is in the caches of another CPU.
                side.driver.write(side.driver.buffer(1, cookie), &bytes);
                side.driver.send_again(0, cookie, length);
            }
            side.driver.rings[1].notify();
            Ok(())
        };
        let taken = self.bursts(1, count, lay, |side| {
            while side.driver.rings[1].given()?.is_some() {}
            Ok(())
        })?;
        // The peer gives buffers back before it has sent what was in them.
        let began = Instant::now();
        while passed(namespace, self.netdev)? - before < count {
            if began.elapsed() > LONG {
                return Err(
                    format!("fewer than {count} packets of {size} bytes came to {}", self.netdev).into()
                );
            }
        }
        Ok(taken)
    }

    /// What a packet from the TAP to the guest costs, in nanoseconds.
    pub(crate) fn receives(&mut self, size: usize, count: u64) -> Result<f64> {
        let bytes = frame(size, 0);
        let lay = |side: &mut Self, burst: u64| {
            for _ in 0..burst {
                side.wire.send(&bytes)?;
            }
            Ok(())
        };
        self.bursts(0, count, lay, |side| side.driver.skip(0).map(drop).map_err(Into::into))
    }

    /// `lay` makes so many packets ready, and `collect` takes back what the queue has given back.
    fn bursts(
        &mut self,
        queue: usize,
        count: u64,
        mut lay: impl FnMut(&mut Self, u64) -> Result<()>,
        mut collect: impl FnMut(&mut Self) -> Result<()>,
    ) -> Result<f64> {
        let (mut taken, mut left) = (0.0, count);
        self.process.stop(self.cpus)?;
        while left > 0 {
            let burst = left.min(self.buffers.count.into());
            lay(self, burst)?;
            let before = self.process.cpu()?;
            let began = Instant::now();
            self.process.go_on()?;
            while u64::from(self.driver.rings[queue].waiting()) < burst {
                if began.elapsed() > LONG {
                    let waiting = self.driver.rings[queue].waiting();
                    return Err(format!("{waiting} of {burst} packets came by {}", self.netdev).into());
                }
            }
            self.process.stop(self.cpus)?;
            taken += self.process.cpu()? - before;
            collect(self)?;
            left -= burst;
        }
        self.process.go_on()?;
        Ok(taken / count as f64)
    }
}
