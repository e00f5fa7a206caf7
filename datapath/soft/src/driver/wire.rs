//! [`Wire`]: a packet socket (packet(7)) on a netdev, which sees what a guest sends and sends what it receives.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};

/// `PACKET_IGNORE_OUTGOING` and `PACKET_VNET_HDR` of linux/if_packet.h.
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;
const PACKET_VNET_HDR: libc::c_int = 15;

/// A packet socket that sees what comes in, and no packet that goes out.
#[derive(Debug)]
pub struct Wire(OwnedFd);

impl Wire {
    /// On a netdev of the calling thread's network namespace. With `headers` each packet is preceded by a virtio-net header of
    /// ten bytes.
    ///
    /// # Errors
    /// Where the kernel does not permit it.
    pub fn open(name: &str, headers: bool) -> io::Result<Self> {
        Self::of(name, headers, (libc::ETH_P_ALL as u16).to_be())
    }

    /// One that sees nothing and only sends, with such headers.
    ///
    /// # Errors
    /// Where the kernel does not permit it.
    pub fn open_to_send(name: &str) -> io::Result<Self> {
        Self::of(name, true, 0)
    }

    fn of(name: &str, headers: bool, protocol: u16) -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: a call without pointers.
        let fd = unsafe { libc::socket(libc::AF_PACKET, kind, protocol.into()) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made it for this process.
        let wire = Self(unsafe { OwnedFd::from_raw_fd(fd) });
        wire.set(PACKET_IGNORE_OUTGOING, 1)?;
        if headers {
            wire.set(PACKET_VNET_HDR, 1)?;
        }
        setsockopt(&wire.0, sockopt::RcvBufForce, &(64 << 20))?;
        let name = CString::new(name)?;
        // SAFETY: the name ends with a zero.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        // SAFETY: numbers of which all bits may be zero.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = index.cast_signed();
        // SAFETY: the address is whole and its size is told.
        let bound =
            unsafe { libc::bind(fd, (&raw const address).cast(), size_of_val(&address) as libc::socklen_t) };
        if index == 0 || bound != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(wire)
    }

    fn set(&self, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
        let size = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the value outlives the call and its size is told.
        let set = unsafe {
            libc::setsockopt(self.0.as_raw_fd(), libc::SOL_PACKET, option, (&raw const value).cast(), size)
        };
        if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Sends a packet to the netdev's driver: the guest.
    ///
    /// # Errors
    /// Where the netdev is down, or has no room (`ENOBUFS`).
    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        nix::unistd::write(&self.0, packet)?;
        Ok(())
    }

    /// The next packet that the netdev received, if there is one.
    ///
    /// # Errors
    /// Where the netdev is gone.
    pub fn receive(&self) -> io::Result<Option<Vec<u8>>> {
        let mut packet = vec![0; 70_000];
        match nix::unistd::read(&self.0, &mut packet) {
            Ok(length) => {
                packet.truncate(length);
                Ok(Some(packet))
            }
            Err(nix::errno::Errno::EAGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for a packet or for one of the eventfds of `rings` to be written, ten seconds at most; whether there is something.
    ///
    /// # Errors
    /// Where it can't be waited.
    pub fn wait(&self, rings: &[&super::Ring]) -> io::Result<bool> {
        use std::os::fd::AsFd;
        let mut fds = vec![PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        fds.extend(rings.iter().map(|ring| PollFd::new(ring.call.as_fd(), PollFlags::POLLIN)));
        let count = poll(&mut fds, PollTimeout::from(10_000u16))?;
        for ring in rings {
            // Nobody need have written it.
            let _ = ring.call.read();
        }
        Ok(count > 0)
    }
}
