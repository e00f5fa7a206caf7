//! Messages with file descriptors over unix sockets (unix(7), SCM_RIGHTS).

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

/// Descriptors that the kernel lets go in one message (SCM_MAX_FD).
pub(crate) const MAX_FDS: usize = 253;

/// Sends bytes with descriptors; how many bytes went.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    fds: &[RawFd],
    flags: MsgFlags,
) -> io::Result<usize> {
    let rights = [ControlMessage::ScmRights(fds)];
    let control = if fds.is_empty() { &[][..] } else { &rights[..] };
    let flags = flags | MsgFlags::MSG_NOSIGNAL;
    let bytes = [IoSlice::new(bytes)];
    uninterrupted(|| Ok(sendmsg::<()>(socket.as_raw_fd(), &bytes, control, flags, None)?))
}

/// Receives into `bytes`; descriptors that come along are added to `fds`. No bytes: the other side is gone.
///
/// # Errors
/// Also where there were more bytes or descriptors than there is room for.
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
    fds: &mut Vec<OwnedFd>,
    flags: MsgFlags,
) -> io::Result<usize> {
    uninterrupted(|| receive_once(socket, bytes, fds, flags | MsgFlags::MSG_CMSG_CLOEXEC))
}

/// A signal that comes while a call waits ends nothing: a process that runs others gets some (SIGCHLD).
fn uninterrupted(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

fn receive_once(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
    fds: &mut Vec<OwnedFd>,
    flags: MsgFlags,
) -> io::Result<usize> {
    let mut slices = [IoSliceMut::new(bytes)];
    let mut space = nix::cmsg_space!([RawFd; MAX_FDS]);
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut space), flags)?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(received) = control {
            // SAFETY: the kernel has just made these descriptors for this process, and nobody else knows of them.
            fds.extend(received.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    if message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message with more than there is room for"));
    }
    Ok(message.bytes)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::thread::JoinHandleExt;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    use super::*;

    static SIGNALS: AtomicUsize = AtomicUsize::new(0);

    extern "C" fn count(_: libc::c_int) {
        SIGNALS.fetch_add(1, Ordering::SeqCst);
    }

    #[test]
    fn a_signal_does_not_end_a_wait() {
        let handler = SigAction::new(SigHandler::Handler(count), SaFlags::empty(), SigSet::empty());
        // SAFETY: nothing else here uses the signal, and the handler only counts.
        unsafe { sigaction(Signal::SIGUSR1, &handler) }.unwrap();
        let (one, other) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
        let (tell, told) = mpsc::channel();
        let waits = std::thread::spawn(move || {
            tell.send(nix::unistd::gettid()).unwrap();
            receive(other.as_fd(), &mut [0; 8], &mut Vec::new(), MsgFlags::empty())
        });
        let stat = format!("/proc/self/task/{}/stat", told.recv().unwrap());
        let until_it_waits = || {
            while std::fs::read_to_string(&stat)
                .is_ok_and(|stat| !stat.rsplit(')').next().unwrap().starts_with(" S"))
            {
                std::thread::yield_now();
            }
        };
        until_it_waits();
        // SAFETY: the thread is not joined yet.
        assert_eq!(unsafe { libc::pthread_kill(waits.as_pthread_t(), libc::SIGUSR1) }, 0);
        while SIGNALS.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        until_it_waits();
        send(one.as_fd(), b"late", &[], MsgFlags::empty()).unwrap();
        assert_eq!(waits.join().unwrap().unwrap(), 4);
    }
}
