//! [`Session`]: what a front end has made of a device since it connected. It does nothing itself: it answers messages, and says
//! how a worker is to have the function.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::memory::Table;
use super::message::{Header, MAX_REGIONS, Payload, Request, Wrong, one_fd, protocol};
use super::vring::{Addresses, Vring, eventfd};
use crate::config::Config;
use crate::job::{Job, Mode, Queue, Region};
use crate::shared::Shared;

/// `VHOST_USER_F_PROTOCOL_FEATURES`.
const PROTOCOL_FEATURES: u64 = 1 << 30;
/// `VHOST_USER_VRING_NOFD_MASK`.
const NO_FD: u64 = 1 << 8;
/// Bits of the device status (virtio 1.2, section 2.1).
const DRIVER_OK: u8 = 4;
const FEATURES_OK: u8 = 8;

/// What the device is, whoever connects.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Device {
    /// The features that it offers, as bits.
    pub(crate) offered: u64,
    /// The longest ring.
    pub(crate) queue_size: u16,
    pub(crate) config: Config,
}

impl Device {
    /// Data queues.
    pub(crate) fn queues(&self) -> u16 {
        2 * self.config.pairs
    }
}

/// What is answered.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) payload: Option<Vec<u8>>,
    pub(crate) fd: Option<OwnedFd>,
    /// It is to be completed by the index of this queue once a worker has let go of it.
    pub(crate) base_of: Option<u16>,
}

/// A connection's state.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) device: Device,
    accepted: Option<u64>,
    protocol: u64,
    status: u8,
    mtu: Option<u16>,
    memory: Table,
    vrings: Vec<Vring>,
    /// Records of a front end that had another back end before.
    inflight: Option<Arc<OwnedFd>>,
    /// Where the front end is told that the configuration space has changed.
    pub(crate) backend: Option<OwnedFd>,
}

/// Starts of rings that there have been. They begin somewhere else in each process, so that a record of one before is no
/// record of now.
fn next_start() -> u64 {
    static STARTS: AtomicU64 = AtomicU64::new(1);
    u64::from(std::process::id()) << 40 | STARTS.fetch_add(1, Ordering::Relaxed)
}

impl Session {
    pub(crate) fn new(device: Device) -> Self {
        Self {
            device,
            accepted: None,
            protocol: 0,
            status: 0,
            mtu: None,
            memory: Table::default(),
            vrings: vec![Vring::default(); device.queues().into()],
            inflight: None,
            backend: None,
        }
    }

    /// Whether a driver uses the device: it says so, or else has rings.
    pub(crate) fn in_use(&self) -> bool {
        let rings = self.vrings.iter().any(|vring| vring.kick.is_some());
        rings && (self.protocol & protocol::STATUS == 0 || self.status & DRIVER_OK != 0)
    }

    /// The features that a driver has accepted, as bits: those of the virtio specification.
    pub(crate) fn accepted(&self) -> Option<u64> {
        self.accepted.map(|bits| bits & !PROTOCOL_FEATURES)
    }

    /// Whether a message with NEED_REPLY is acknowledged.
    pub(crate) fn acknowledges(&self) -> bool {
        self.protocol & protocol::REPLY_ACK != 0
    }

    /// Whether a change of the configuration space is told.
    pub(crate) fn tells_config(&self) -> bool {
        self.protocol & protocol::CONFIG != 0
    }

    /// Whether a pair's rings are started and enabled: the driver's choice.
    pub(crate) fn active(&self, pair: u16) -> bool {
        let queue = usize::from(pair) * 2;
        [queue, queue + 1].into_iter().all(|index| self.enabled(index))
    }

    fn enabled(&self, index: usize) -> bool {
        let negotiated = self.accepted.is_some_and(|bits| bits & PROTOCOL_FEATURES != 0);
        // Rings are disabled at first where the protocol's features were agreed on, and enabled where they were not.
        let vring = self.vrings.get(index);
        vring.is_some_and(|vring| vring.kick.is_some() && vring.enabled.unwrap_or(!negotiated))
    }

    /// Carries a message out.
    ///
    /// # Errors
    /// What is wrong with it; nothing has changed then.
    pub(crate) fn handle(
        &mut self,
        header: Header,
        payload: &[u8],
        fds: Vec<OwnedFd>,
    ) -> Result<Answer, Wrong> {
        let request = header.asks()?;
        let wants = match request {
            Request::SetMemTable | Request::AddMemReg | Request::RemMemReg => fds.len(),
            Request::SetVringKick | Request::SetVringCall | Request::SetVringErr => fds.len().min(1),
            Request::SetBackendReqFd | Request::SetInflightFd => 1,
            _ => 0,
        };
        if fds.len() != wants {
            return Err(Wrong::Fds { is: fds.len(), wanted: wants });
        }
        let mut payload = Payload(payload);
        let number =
            |bytes: u64| Ok(Answer { payload: Some(bytes.to_ne_bytes().into()), ..Answer::default() });
        match request {
            Request::GetFeatures => return number(self.device.offered | PROTOCOL_FEATURES),
            Request::GetProtocolFeatures => return number(protocol::OFFERED),
            // In pairs, as QEMU and DPDK take it.
            Request::GetQueueNum => return number(self.device.config.pairs.into()),
            Request::GetMaxMemSlots => return number(MAX_REGIONS as u64),
            Request::GetStatus => return number(self.status.into()),
            Request::SetOwner => {}
            Request::SetFeatures => self.set_features(payload.u64()?)?,
            Request::SetProtocolFeatures => {
                let bits = payload.u64()?;
                if bits & !protocol::OFFERED != 0 {
                    let more = bits & !protocol::OFFERED;
                    return Err(Wrong::Value(format!("features {more:#x} of the protocol were not offered")));
                }
                self.protocol = bits;
            }
            Request::ResetOwner | Request::ResetDevice => {
                self.reset();
                self.vrings.iter_mut().for_each(|vring| vring.enabled = None);
            }
            Request::SetMemTable => self.memory = Table::parse(&mut payload, fds)?,
            Request::AddMemReg => {
                payload.u64()?;
                self.memory.add(&mut payload, one_fd(fds)?)?;
            }
            Request::RemMemReg => {
                payload.u64()?;
                self.memory.remove(&mut payload)?;
            }
            Request::SetVringNum => self.set_size(&mut payload)?,
            Request::SetVringAddr => self.set_addresses(&mut payload)?,
            Request::SetVringBase => {
                let (vring, base) = (self.vring(payload.u32()?)?, payload.u32()?);
                vring.base =
                    u16::try_from(base).map_err(|_| Wrong::Value(format!("index {base} of a ring")))?;
            }
            Request::GetVringBase => {
                let index = payload.u32()?;
                self.vring(index)?;
                let base_of = u16::try_from(index).ok();
                return Ok(Answer { base_of, ..Answer::default() });
            }
            Request::SetVringKick => self.set_kick(payload.u64()?, fds)?,
            Request::SetVringCall => {
                let (vring, event) = self.event(payload.u64()?, fds)?;
                vring.call = event;
            }
            Request::SetVringErr => {
                let (vring, event) = self.event(payload.u64()?, fds)?;
                vring.err = event;
            }
            Request::SetVringEnable => {
                let (vring, on) = (self.vring(payload.u32()?)?, payload.u32()?);
                // QEMU sends it before SET_FEATURES: what was offered is what counts.
                vring.enabled = Some(on != 0);
            }
            Request::NetSetMtu => {
                let (mtu, most) = (payload.u64()?, self.device.config.mtu);
                let taken = u16::try_from(mtu).ok().filter(|mtu| (68..=most).contains(mtu));
                self.mtu =
                    Some(taken.ok_or_else(|| Wrong::Value(format!("MTU {mtu}: 68 to {most} can be had")))?);
            }
            Request::SetBackendReqFd => self.backend = Some(one_fd(fds)?),
            Request::GetConfig => return self.config(&mut payload),
            // Nothing there is the driver's to write but what a legacy one may: its MAC, which has the control queue.
            Request::SetConfig => return Err(Wrong::Value("the configuration space is not written".into())),
            // How far rings have got is kept by whoever has the connection, so here it is only said how.
            Request::GetInflightFd => return self.make_inflight(&mut payload),
            Request::SetInflightFd => self.take_inflight(&mut payload, one_fd(fds)?)?,
            Request::SetStatus => self.set_status(payload.u64()?)?,
        }
        Ok(Answer::default())
    }

    fn vring(&mut self, index: u32) -> Result<&mut Vring, Wrong> {
        let queues = self.device.queues();
        self.vrings.get_mut(index as usize).ok_or(Wrong::Queue(index, queues))
    }

    fn set_features(&mut self, bits: u64) -> Result<(), Wrong> {
        let more = bits & !(self.device.offered | PROTOCOL_FEATURES);
        if more != 0 {
            return Err(Wrong::Value(format!("features {more:#x} were not offered")));
        }
        self.accepted = Some(bits);
        Ok(())
    }

    fn set_status(&mut self, status: u64) -> Result<(), Wrong> {
        let status = u8::try_from(status).map_err(|_| Wrong::Value(format!("device status {status:#x}")))?;
        if status == 0 {
            self.reset();
        }
        // Features that can't be had were refused when they were set.
        self.status = if self.accepted.is_some() { status } else { status & !FEATURES_OK };
        Ok(())
    }

    fn reset(&mut self) {
        self.status = 0;
        self.accepted = None;
        self.vrings.iter_mut().for_each(Vring::reset);
    }

    fn set_size(&mut self, payload: &mut Payload<'_>) -> Result<(), Wrong> {
        let most = self.device.queue_size;
        let (vring, size) = (self.vring(payload.u32()?)?, payload.u32()?);
        let taken = u16::try_from(size).ok().filter(|size| size.is_power_of_two() && *size <= most);
        let wrong =
            || Wrong::Value(format!("a ring of {size} descriptors: a power of two up to {most} can be had"));
        vring.size = Some(taken.ok_or_else(wrong)?);
        Ok(())
    }

    fn set_addresses(&mut self, payload: &mut Payload<'_>) -> Result<(), Wrong> {
        let vring = self.vring(payload.u32()?)?;
        let flags = payload.u32()?;
        if flags & 1 != 0 {
            return Err(Wrong::Value("changes of memory are not logged: a guest can't be migrated".into()));
        }
        let (descriptors, used, available) = (payload.u64()?, payload.u64()?, payload.u64()?);
        payload.u64()?;
        vring.addresses = Some(Addresses { descriptors, used, available });
        Ok(())
    }

    fn event(
        &mut self,
        payload: u64,
        fds: Vec<OwnedFd>,
    ) -> Result<(&mut Vring, Option<Arc<OwnedFd>>), Wrong> {
        let event = match (payload & NO_FD, fds) {
            (0, fds) => Some(eventfd(one_fd(fds)?)?),
            (_, fds) if fds.is_empty() => None,
            (_, fds) => return Err(Wrong::Fds { is: fds.len(), wanted: 0 }),
        };
        Ok((self.vring((payload & 0xff) as u32)?, event))
    }

    fn set_kick(&mut self, payload: u64, fds: Vec<OwnedFd>) -> Result<(), Wrong> {
        let (vring, kick) = self.event(payload, fds)?;
        let kick =
            kick.ok_or_else(|| Wrong::Value("a queue without an eventfd would have to be polled".into()))?;
        vring.kick = Some(kick);
        vring.start = next_start();
        Ok(())
    }

    /// Stops a queue, as GET_VRING_BASE asks, once its index is known.
    pub(crate) fn stopped(&mut self, queue: u16, index: u16) -> Vec<u8> {
        if let Some(vring) = self.vrings.get_mut(usize::from(queue)) {
            vring.kick = None;
            vring.base = index;
            vring.resume = false;
        }
        let numbers = [u32::from(queue), u32::from(index)];
        numbers.iter().flat_map(|number| number.to_ne_bytes()).collect()
    }

    /// The index at which a queue that is not started would begin.
    pub(crate) fn base(&self, queue: u16) -> u16 {
        self.vrings.get(usize::from(queue)).map_or(0, |vring| vring.base)
    }

    fn config(&mut self, payload: &mut Payload<'_>) -> Result<Answer, Wrong> {
        let (offset, size, flags) = (payload.u32()?, payload.u32()?, payload.u32()?);
        let bytes = self.device.config.read(offset as usize, size as usize);
        // No bytes say that there are none.
        let bytes = bytes.unwrap_or_default();
        let head = [offset, u32::try_from(bytes.len()).unwrap_or(0), flags];
        let payload = head.iter().flat_map(|number| number.to_ne_bytes()).chain(bytes).collect();
        Ok(Answer { payload: Some(payload), ..Answer::default() })
    }

    fn make_inflight(&mut self, payload: &mut Payload<'_>) -> Result<Answer, Wrong> {
        payload.u64()?;
        payload.u64()?;
        let (queues, size) = (payload.u16()?, payload.u16()?);
        if queues > self.device.queues() {
            return Err(Wrong::Queue(queues.into(), self.device.queues()));
        }
        let failed = |error| Wrong::Value(format!("making the region of what is under way: {error}"));
        let records = usize::from(self.device.queues());
        let fd =
            Shared::create("virtnet-inflight", records).and_then(|shared| shared.fd()).map_err(failed)?;
        self.inflight = None;
        let bytes = (Shared::size(records) as u64).to_ne_bytes().into_iter().chain(0u64.to_ne_bytes());
        let payload = bytes.chain(queues.to_ne_bytes()).chain(size.to_ne_bytes()).collect();
        Ok(Answer { payload: Some(payload), fd: Some(fd), base_of: None })
    }

    fn take_inflight(&mut self, payload: &mut Payload<'_>, fd: OwnedFd) -> Result<(), Wrong> {
        let (size, offset) = (payload.u64()?, payload.u64()?);
        let wanted = Shared::size(self.device.queues().into());
        let wrong =
            |error: &dyn std::fmt::Display| Wrong::Value(format!("a region of what is under way: {error}"));
        if size != wanted as u64 || offset != 0 {
            return Err(wrong(&format!("{size} bytes from {offset}: there are {wanted} from 0")));
        }
        super::memory::check(&fd, 0, size).map_err(|what| wrong(&format!("its bytes {what}")))?;
        self.inflight = Some(Arc::new(fd));
        // It tells of the next start of each ring.
        self.vrings.iter_mut().for_each(|vring| vring.resume = true);
        Ok(())
    }

    /// How a worker is to have the function, by these memfds of progress and counters and this queue of the TAP of each pair. `None`:
    /// there is nothing to have.
    ///
    /// # Errors
    /// Where a ring is not in the memory that was shared.
    pub(crate) fn job(
        &self,
        progress: &Arc<OwnedFd>,
        counters: &Arc<OwnedFd>,
        settle: Option<u16>,
        tap: impl Fn(u16) -> Option<Arc<OwnedFd>>,
    ) -> Result<Option<Job>, Wrong> {
        let Some(features) = self.accepted() else { return Ok(None) };
        let mut job = Job::default();
        for (index, vring) in (0u16..).zip(&self.vrings) {
            let (Some(size), Some(addresses), Some(kick)) = (vring.size, vring.addresses, &vring.kick) else {
                continue;
            };
            let guest = |user: u64| {
                let wrong = || {
                    Wrong::Value(format!(
                        "the ring of queue {index} at {user:#x} is in no memory that is shared"
                    ))
                };
                self.memory.guest(user).ok_or_else(wrong)
            };
            let mode = match (self.active(index / 2), index.is_multiple_of(2)) {
                _ if settle == Some(index) => Mode::Settle,
                // What is sent waits until there is somewhere to send it.
                (true, _) if tap(index / 2).is_none() => Mode::Settle,
                (true, _) => Mode::Run,
                // A ring that is started and disabled takes what is sent, and sends it nowhere.
                (false, false) => Mode::Discard,
                (false, true) => Mode::Settle,
            };
            let queue = Queue {
                index,
                size,
                descriptors: guest(addresses.descriptors)?,
                available: guest(addresses.available)?,
                used: guest(addresses.used)?,
                kick: job.fd(kick),
                call: vring.call.as_ref().map(|fd| job.fd(fd)),
                err: vring.err.as_ref().map(|fd| job.fd(fd)),
                mode,
                start: vring.start,
                base: vring.base,
                resume: vring.resume,
            };
            job.description.queues.push(queue);
        }
        if job.description.queues.is_empty() {
            return Ok(None);
        }
        for region in self.memory.regions() {
            let fd = job.fd(&region.file);
            let region = Region { guest: region.guest, size: region.size, offset: region.offset, fd };
            job.description.regions.push(region);
        }
        for pair in (0..self.device.config.pairs).filter(|pair| self.active(*pair)) {
            if let Some(fd) = tap(pair) {
                let fd = job.fd(&fd);
                job.description.taps.insert(pair, fd);
            }
        }
        job.description.features = features;
        job.description.mtu = self.mtu.unwrap_or(self.device.config.mtu);
        job.description.records = self.device.queues().into();
        job.description.progress = job.fd(self.inflight.as_ref().unwrap_or(progress));
        job.description.counters = job.fd(counters);
        Ok(Some(job))
    }
}
