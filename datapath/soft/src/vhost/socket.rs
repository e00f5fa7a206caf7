//! The socket between front end and back end: [`Socket`], which side of it this is, and [`Connection`].

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::socket::MsgFlags;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::{UnixListener, UnixStream};

use super::message::{HEADER, Header, MAX_REGIONS, Wrong};
use crate::fds;

/// How often a socket is tried whose file has just appeared: whoever made it may not yet listen. Each wait is twice the one
/// before.
const TRIES: u32 = 8;
const FIRST_WAIT: Duration = Duration::from_millis(5);
/// How long a front end may leave its answers unread.
const UNREAD: Duration = Duration::from_secs(5);
/// How long a connection is waited with that can't be taken for want of descriptors or memory.
const SHORTAGE: Duration = Duration::from_millis(100);

/// Which side of the socket a function is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Socket {
    /// It makes the socket, and a front end connects (QEMU's `-chardev socket,path=…,reconnect=1`).
    Serve(PathBuf),
    /// A front end makes it (QEMU's `server=on`), and the function connects as soon as it is there, and again whenever the
    /// connection has ended.
    Connect(PathBuf),
}

impl Socket {
    /// Where it is.
    pub fn path(&self) -> &Path {
        match self {
            Self::Serve(path) | Self::Connect(path) => path,
        }
    }
}

/// Where connections come from.
#[derive(Debug)]
pub(crate) enum Source {
    Serve(UnixListener, PathBuf),
    Connect(PathBuf),
}

impl Source {
    /// Makes the socket where it is this side's. One that nobody listens on any more is replaced.
    ///
    /// # Errors
    /// Where somebody does, or the folder is missing.
    pub(crate) fn open(socket: &Socket) -> io::Result<Self> {
        match socket {
            Socket::Connect(path) => Ok(Self::Connect(path.clone())),
            Socket::Serve(path) => {
                let stale = || {
                    std::os::unix::net::UnixStream::connect(path)
                        .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
                };
                let listener = match UnixListener::bind(path) {
                    Err(error) if error.kind() == io::ErrorKind::AddrInUse && stale() => {
                        std::fs::remove_file(path)?;
                        UnixListener::bind(path)?
                    }
                    other => other?,
                };
                Ok(Self::Serve(listener, path.clone()))
            }
        }
    }

    /// The next connection. It takes none while there is another: who connects waits.
    ///
    /// # Errors
    /// Where there can be none any more.
    pub(crate) async fn next(&self) -> io::Result<Connection> {
        loop {
            let stream = match self {
                Self::Serve(listener, _) => listener.accept().await.map(|(stream, _)| stream),
                Self::Connect(path) => connect(path).await,
            };
            match stream {
                Ok(stream) => return Ok(Connection { stream, bytes: Vec::new(), fds: Vec::new() }),
                Err(error) if is_shortage(&error) => {
                    tracing::warn!(%error, "a front end has to wait");
                    tokio::time::sleep(SHORTAGE).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        if let Self::Serve(_, path) = self {
            // Somebody else may have removed it.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// What passes when somebody else gives something back.
fn is_shortage(error: &io::Error) -> bool {
    let shortages = [Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM];
    error.raw_os_error().is_some_and(|error| shortages.contains(&Errno::from_raw(error)))
}

/// Connects once the socket is there, told by inotify(7): a file that appears, or a folder above it.
async fn connect(path: &Path) -> io::Result<UnixStream> {
    loop {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let folders = path.ancestors().skip(1);
        let exists = |folder: &&Path| {
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            let appears = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_ATTRIB;
            let gone = AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF;
            inotify.add_watch(folder, appears | gone).is_ok()
        };
        folders
            .into_iter()
            .find(exists)
            .ok_or_else(|| io::Error::other("no folder above the socket exists"))?;
        // What appeared before is tried, what appears from now on is told.
        let mut wait = FIRST_WAIT;
        for _ in 0..TRIES {
            match UnixStream::connect(path).await {
                Ok(stream) => return Ok(stream),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    tokio::time::sleep(wait).await;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::time::sleep(wait).await,
                Err(_) => break,
            }
            wait *= 2;
        }
        // Which of them it was is no matter: all is looked at anew, by another watch.
        let fd = inotify.as_fd().try_clone_to_owned()?;
        // SAFETY: an owned descriptor is the same and open as long as it lives.
        let told = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?;
        drop(told.readable().await?);
    }
}

/// A message as it came.
pub(crate) type Message = (Header, Vec<u8>, Vec<OwnedFd>);

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    /// What has come of the next message.
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
}

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ends {
    #[error("the front end ended it")]
    Closed,
    #[error("reading or writing it")]
    Io(#[from] io::Error),
    #[error("the front end's message can't be used")]
    Wrong(#[from] Wrong),
}

impl Connection {
    /// The next message. It may be dropped and called again.
    pub(crate) async fn receive(&mut self) -> Result<Message, Ends> {
        loop {
            let header = match self.bytes.first_chunk::<HEADER>() {
                Some(bytes) => Some(Header::parse(*bytes)?),
                None => None,
            };
            let wanted = HEADER + header.map_or(0, |header| header.size);
            if let Some(header) = header
                && self.bytes.len() == wanted
            {
                let payload = self.bytes.split_off(HEADER);
                self.bytes.clear();
                return Ok((header, payload, std::mem::take(&mut self.fds)));
            }
            // Never beyond the message: descriptors come with the bytes of theirs.
            let mut room = vec![0; wanted - self.bytes.len()];
            let (stream, fds) = (&self.stream, &mut self.fds);
            let receive = || fds::receive(stream.as_fd(), &mut room, fds, MsgFlags::MSG_DONTWAIT);
            let count = stream.async_io(Interest::READABLE, receive).await?;
            if count == 0 {
                return Err(Ends::Closed);
            }
            self.bytes.extend_from_slice(&room[..count]);
            // However few bytes of a message it sends at a time.
            if self.fds.len() > MAX_REGIONS {
                return Err(Wrong::Fds { is: self.fds.len(), wanted: MAX_REGIONS }.into());
            }
        }
    }

    /// Sends a message, with a descriptor or without. Who does not read what it asked for is not waited for for ever.
    pub(crate) async fn send(&self, bytes: &[u8], fd: Option<&OwnedFd>) -> io::Result<()> {
        let sent = tokio::time::timeout(UNREAD, self.write(bytes, fd)).await;
        sent.unwrap_or_else(|_| {
            Err(io::Error::new(io::ErrorKind::TimedOut, "the front end does not read its answers"))
        })
    }

    async fn write(&self, mut bytes: &[u8], fd: Option<&OwnedFd>) -> io::Result<()> {
        let fds: Vec<_> = fd.iter().map(|fd| fd.as_raw_fd()).collect();
        let mut fds = &fds[..];
        while !bytes.is_empty() {
            let send = || fds::send(self.stream.as_fd(), bytes, fds, MsgFlags::MSG_DONTWAIT);
            let count = self.stream.async_io(Interest::WRITABLE, send).await?;
            (bytes, fds) = (&bytes[count..], &[]);
        }
        Ok(())
    }
}
