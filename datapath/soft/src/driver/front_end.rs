//! [`FrontEnd`]: vhost-user as a virtual machine monitor speaks it. It blocks.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::sys::socket::MsgFlags;

use crate::fds;
use crate::vhost::message;

/// Requests by their numbers in the protocol.
#[expect(missing_docs, reason = "they are the protocol's names")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Request {
    GetFeatures = 1,
    SetFeatures = 2,
    SetOwner = 3,
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
    GetInflightFd = 31,
    SetInflightFd = 32,
    ResetDevice = 34,
    AddMemReg = 37,
    RemMemReg = 38,
    SetStatus = 39,
    GetStatus = 40,
}

/// A front end's end of a connection.
#[derive(Debug)]
pub struct FrontEnd {
    stream: UnixStream,
}

impl FrontEnd {
    /// On a connection. Answers are waited for ten seconds.
    ///
    /// # Errors
    /// Where it is none.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(std::time::Duration::from_secs(10)))?;
        Ok(Self { stream })
    }

    /// Sends a request, as bytes of whatever kind.
    ///
    /// # Errors
    /// Where the back end has ended the connection.
    pub fn send(
        &self,
        request: u32,
        need_reply: bool,
        payload: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let fds: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let flags = 1 | u32::from(need_reply) << 3;
        let header = [request, flags, u32::try_from(payload.len()).map_err(io::Error::other)?];
        let mut bytes: Vec<u8> = header.iter().flat_map(|number| number.to_ne_bytes()).collect();
        bytes.extend_from_slice(payload);
        fds::send(self.stream.as_fd(), &bytes, &fds, MsgFlags::empty())?;
        Ok(())
    }

    /// Sends the header of a request alone, with descriptors.
    ///
    /// # Errors
    /// Where the back end has ended the connection.
    pub fn begin(&self, request: u32, size: u32, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let fds: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let bytes: Vec<u8> = [request, 1, size].iter().flat_map(|number| number.to_ne_bytes()).collect();
        fds::send(self.stream.as_fd(), &bytes, &fds, MsgFlags::empty())?;
        Ok(())
    }

    /// The next reply: its request, its payload and its descriptors.
    ///
    /// # Errors
    /// Where the back end has ended the connection.
    pub fn reply(&self) -> io::Result<(u32, Vec<u8>, Vec<OwnedFd>)> {
        let mut fds = Vec::new();
        let header = self.exactly(message::HEADER, &mut fds)?;
        let number = |at: usize| {
            header.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_ne_bytes)
        };
        let payload = self.exactly(number(8) as usize, &mut fds)?;
        Ok((number(0), payload, fds))
    }

    fn exactly(&self, count: usize, fds: &mut Vec<OwnedFd>) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        let mut filled = 0;
        while filled < count {
            match fds::receive(self.stream.as_fd(), &mut bytes[filled..], fds, MsgFlags::empty())? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                more => filled += more,
            }
        }
        Ok(bytes)
    }

    /// Sends a request and waits for its acknowledgement.
    ///
    /// # Errors
    /// Where it was refused.
    pub fn tell(&self, request: Request, payload: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.send(request as u32, true, payload, fds)?;
        let (_, answer, _) = self.reply()?;
        if answer == 0u64.to_ne_bytes() {
            Ok(())
        } else {
            Err(io::Error::other(format!("{request:?} is refused")))
        }
    }

    /// Sends a request without asking for an acknowledgement.
    ///
    /// # Errors
    /// Where the back end has ended the connection.
    pub fn say(&self, request: Request, payload: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.send(request as u32, false, payload, fds)
    }

    /// Sends a request that has an answer; the answer.
    ///
    /// # Errors
    /// Where the back end has ended the connection.
    pub fn ask(&self, request: Request, payload: &[u8]) -> io::Result<Vec<u8>> {
        self.send(request as u32, false, payload, &[])?;
        Ok(self.reply()?.1)
    }

    /// A number that is asked for.
    ///
    /// # Errors
    /// Where the back end has ended the connection or answers something else.
    pub fn number(&self, request: Request) -> io::Result<u64> {
        let answer = self.ask(request, &[])?;
        Ok(u64::from_ne_bytes(answer.try_into().map_err(|_| io::Error::other("the answer is no number"))?))
    }
}

/// 32-bit numbers as a payload.
pub(super) fn words(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_ne_bytes()).collect()
}
