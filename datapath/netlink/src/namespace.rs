//! [`Namespace`]: a network namespace of one's own, or one that is there (network_namespaces(7)).

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace. One that has no name is gone, with its netdevs, when nothing holds it any more: neither a value of
/// this type, nor a program, a socket or a TAP that was made in it.
#[derive(Debug)]
pub struct Namespace(File);

impl Namespace {
    /// A new one. Its loopback is down, as in every new one.
    ///
    /// # Errors
    /// Where the kernel does not permit it: CAP_SYS_ADMIN is needed.
    pub fn new() -> io::Result<Self> {
        // A thread of its own, so that the namespace of the caller's stays.
        in_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net").map(Self)
        })?
    }

    /// One that is there, by the file that names it: `/run/netns/NAME`, or `/proc/PID/ns/net`.
    ///
    /// # Errors
    /// Where the file can't be opened.
    pub fn open(file: &Path) -> io::Result<Self> {
        File::open(file).map(Self)
    }

    /// The file by which other programs find it, for as long as this value is there.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()))
    }

    /// Does something inside: sockets and TAPs that are opened, and programs that are started there, stay there.
    ///
    /// # Errors
    /// Where the kernel does not permit it.
    pub fn run<T: Send>(&self, job: impl FnOnce() -> T + Send) -> io::Result<T> {
        in_thread(|| {
            self.enter()?;
            Ok(job())
        })?
    }

    /// Brings the calling thread in, for the rest of its life.
    ///
    /// # Errors
    /// Where the kernel does not permit it.
    pub fn enter(&self) -> io::Result<()> {
        Ok(setns(&self.0, CloneFlags::CLONE_NEWNET)?)
    }
}

/// Runs a job on a thread that ends with it. Inside a tokio runtime, its sockets are that runtime's.
fn in_thread<T: Send>(job: impl FnOnce() -> T + Send) -> io::Result<T> {
    let runtime = tokio::runtime::Handle::try_current().ok();
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("namespace".into()).spawn_scoped(scope, move || {
            let _guard = runtime.as_ref().map(tokio::runtime::Handle::enter);
            job()
        })?;
        thread.join().map_err(|_| io::Error::other("the job of the namespace panicked"))
    })
}
