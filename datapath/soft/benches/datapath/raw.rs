//! [`Raw`]: bare loops over a TAP of the same kind, which are the least that a packet can cost.

use nix::time::ClockId;
use virtnet_netlink::Namespace;
use virtnet_soft::driver::{RawTap, Wire};

use crate::frames::frame;
use crate::process::{nanoseconds, pin};
use crate::{Buffers, Result};

pub(crate) struct Raw {
    tap: RawTap,
    wire: Wire,
    /// As many and as large as a guest's, and as near to each other, so that both are found in the same caches.
    memory: Vec<u8>,
    buffers: Buffers,
    cpu: usize,
}

impl Raw {
    pub(crate) fn new(
        namespace: &Namespace,
        tap: RawTap,
        netdev: &str,
        buffers: Buffers,
        cpu: usize,
    ) -> Result<Self> {
        let wire = namespace.run(|| Wire::open_to_send(netdev))??;
        let memory = vec![0; buffers.size as usize * usize::from(buffers.count)];
        Ok(Self { tap, wire, memory, buffers, cpu })
    }

    /// What a `write` of a packet costs, in nanoseconds.
    pub(crate) fn writes(&mut self, size: usize, count: u64) -> Result<f64> {
        let bytes = frame(size, 2);
        let stride = self.buffers.size as usize;
        let tap = &self.tap;
        let mut taken = 0.0;
        for burst in bursts(count, self.buffers.count.into()) {
            let buffers = &mut self.memory[..burst * stride];
            for buffer in buffers.chunks_mut(stride) {
                buffer[..bytes.len()].copy_from_slice(&bytes);
            }
            taken += aside(self.cpu, || {
                buffers.chunks(stride).try_for_each(|buffer| tap.write(&buffer[..bytes.len()]))
            })?;
        }
        Ok(taken / count as f64)
    }

    /// What a `read` of a packet costs, in nanoseconds.
    pub(crate) fn reads(&mut self, size: usize, count: u64) -> Result<f64> {
        let bytes = frame(size, 0);
        let stride = self.buffers.size as usize;
        let mut taken = 0.0;
        for burst in bursts(count, self.buffers.count.into()) {
            for _ in 0..burst {
                self.wire.send(&bytes)?;
            }
            let (tap, buffers) = (&self.tap, &mut self.memory[..burst * stride]);
            taken += aside(self.cpu, || {
                buffers.chunks_mut(stride).try_for_each(|buffer| tap.read(buffer).map(drop))
            })?;
        }
        Ok(taken / count as f64)
    }
}

fn bursts(count: u64, most: usize) -> impl Iterator<Item = usize> {
    let (whole, rest) = (count / most as u64, (count % most as u64) as usize);
    (0..whole).map(move |_| most).chain((rest > 0).then_some(rest))
}

/// The CPU time of a job on a CPU of its own, in nanoseconds.
fn aside(cpu: usize, job: impl FnOnce() -> std::io::Result<()> + Send) -> Result<f64> {
    let clock = || nanoseconds(ClockId::CLOCK_THREAD_CPUTIME_ID);
    let measured = || -> std::io::Result<f64> {
        pin(0, cpu)?;
        let before = clock()?;
        job()?;
        Ok(clock()? - before)
    };
    let joined = std::thread::scope(|scope| scope.spawn(measured).join());
    Ok(joined.map_err(|_| "a bare loop panicked")??)
}
