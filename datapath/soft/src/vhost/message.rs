//! Messages of the vhost-user protocol (QEMU's docs/interop/vhost-user.rst) as bytes. Numbers are in the machine's own order.

use std::os::fd::OwnedFd;

/// Bytes of a header: request, flags, and the payload's size.
pub(crate) const HEADER: usize = 12;
/// The longest payload that a front end may send, in bytes. A table of [`MAX_REGIONS`] regions needs a quarter of it.
pub(crate) const LONGEST: usize = 4096;
/// Regions of memory that a front end may share: more than QEMU has slots for DIMMs of its own.
pub(crate) const MAX_REGIONS: usize = 32;

/// Flags of a header.
const VERSION: u32 = 1;
const VERSION_MASK: u32 = 3;
const REPLY: u32 = 1 << 2;
const NEED_REPLY: u32 = 1 << 3;

macro_rules! requests {
    ($($name:ident = $number:literal,)*) => {
        /// What a front end asks for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Request {
            $($name = $number,)*
        }

        impl Request {
            fn of(number: u32) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

requests! {
    GetFeatures = 1,
    SetFeatures = 2,
    SetOwner = 3,
    ResetOwner = 4,
    SetMemTable = 5,
    SetVringNum = 8,
    SetVringAddr = 9,
    SetVringBase = 10,
    GetVringBase = 11,
    SetVringKick = 12,
    SetVringCall = 13,
    SetVringErr = 14,
    GetProtocolFeatures = 15,
    SetProtocolFeatures = 16,
    GetQueueNum = 17,
    SetVringEnable = 18,
    NetSetMtu = 20,
    SetBackendReqFd = 21,
    GetConfig = 24,
    SetConfig = 25,
    GetInflightFd = 31,
    SetInflightFd = 32,
    ResetDevice = 34,
    GetMaxMemSlots = 36,
    AddMemReg = 37,
    RemMemReg = 38,
    SetStatus = 39,
    GetStatus = 40,
}

/// `VHOST_USER_BACKEND_CONFIG_CHANGE_MSG`, by the channel that goes the other way.
pub(crate) const CONFIG_CHANGE: u32 = 2;

/// Bits of the protocol's features.
pub(crate) mod protocol {
    pub(crate) const MQ: u64 = 1 << 0;
    pub(crate) const REPLY_ACK: u64 = 1 << 3;
    pub(crate) const NET_MTU: u64 = 1 << 4;
    pub(crate) const BACKEND_REQ: u64 = 1 << 5;
    pub(crate) const CONFIG: u64 = 1 << 9;
    pub(crate) const INFLIGHT_SHMFD: u64 = 1 << 12;
    pub(crate) const RESET_DEVICE: u64 = 1 << 13;
    pub(crate) const CONFIGURE_MEM_SLOTS: u64 = 1 << 15;
    pub(crate) const STATUS: u64 = 1 << 16;

    /// Those that are offered.
    pub(crate) const OFFERED: u64 = MQ
        | REPLY_ACK
        | NET_MTU
        | BACKEND_REQ
        | CONFIG
        | INFLIGHT_SHMFD
        | RESET_DEVICE
        | CONFIGURE_MEM_SLOTS
        | STATUS;
}

/// What is wrong with a message.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Wrong {
    #[error("a message of version {0} of the protocol: it is {VERSION}")]
    Version(u32),
    #[error("a reply to nothing that was asked")]
    Reply,
    #[error("a payload of {0} bytes: the longest is {LONGEST}")]
    Size(usize),
    #[error("request {0} is none that is offered")]
    Request(u32),
    #[error("a payload of {is} bytes where {wanted} are needed")]
    Payload { is: usize, wanted: usize },
    #[error("{is} file descriptors where {wanted} are needed")]
    Fds { is: usize, wanted: usize },
    #[error("queue {0}: there are no more than {1}")]
    Queue(u32, u16),
    #[error("{0}")]
    Value(String),
}

/// A header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) request: u32,
    pub(crate) need_reply: bool,
    /// Bytes of the payload.
    pub(crate) size: usize,
}

impl Header {
    /// The header of these bytes.
    ///
    /// # Errors
    /// After which nothing on the connection can be believed.
    pub(crate) fn parse(bytes: [u8; HEADER]) -> Result<Self, Wrong> {
        let mut payload = Payload(&bytes);
        let (request, flags, size) = (payload.u32()?, payload.u32()?, payload.u32()? as usize);
        if flags & VERSION_MASK != VERSION {
            return Err(Wrong::Version(flags & VERSION_MASK));
        }
        if flags & REPLY != 0 {
            return Err(Wrong::Reply);
        }
        if size > LONGEST {
            return Err(Wrong::Size(size));
        }
        Ok(Self { request, need_reply: flags & NEED_REPLY != 0, size })
    }

    /// What it asks for.
    pub(crate) fn asks(&self) -> Result<Request, Wrong> {
        Request::of(self.request).ok_or(Wrong::Request(self.request))
    }
}

/// A reply to a request.
pub(crate) fn reply(request: u32, payload: &[u8]) -> Vec<u8> {
    message(request, VERSION | REPLY, payload)
}

/// A request of the back end's that wants no reply.
pub(crate) fn ask(request: u32) -> Vec<u8> {
    message(request, VERSION, &[])
}

fn message(request: u32, flags: u32, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let header = [request, flags, size];
    header.iter().flat_map(|number| number.to_ne_bytes()).chain(payload.iter().copied()).collect()
}

/// The rest of a payload.
#[derive(Debug)]
pub(crate) struct Payload<'a>(pub(crate) &'a [u8]);

impl Payload<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Wrong> {
        let (first, rest) =
            self.0.split_first_chunk().ok_or(Wrong::Payload { is: self.0.len(), wanted: N })?;
        self.0 = rest;
        Ok(*first)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Wrong> {
        self.take().map(u16::from_ne_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Wrong> {
        self.take().map(u32::from_ne_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Wrong> {
        self.take().map(u64::from_ne_bytes)
    }
}

/// The one descriptor of a message.
pub(crate) fn one_fd(fds: Vec<OwnedFd>) -> Result<OwnedFd, Wrong> {
    let [fd] = <[OwnedFd; 1]>::try_from(fds).map_err(|fds| Wrong::Fds { is: fds.len(), wanted: 1 })?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(request: u32, flags: u32, size: u32) -> Result<Header, Wrong> {
        let bytes: Vec<u8> = [request, flags, size].iter().flat_map(|number| number.to_ne_bytes()).collect();
        Header::parse(bytes.try_into().unwrap())
    }

    #[test]
    fn headers_are_read_and_what_is_none_is_refused() {
        let read = header(5, VERSION | NEED_REPLY, 40).unwrap();
        assert_eq!((read.asks().unwrap(), read.need_reply, read.size), (Request::SetMemTable, true, 40));
        assert_eq!(header(5, 2, 0).unwrap_err(), Wrong::Version(2));
        assert_eq!(header(5, VERSION | REPLY, 0).unwrap_err(), Wrong::Reply);
        assert_eq!(header(5, VERSION, 4097).unwrap_err(), Wrong::Size(4097));
        assert_eq!(header(7, VERSION, 0).unwrap().asks().unwrap_err(), Wrong::Request(7));
        assert_eq!(reply(1, &[9]), [1, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0, 9]);
    }
}
