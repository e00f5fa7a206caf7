//! The program that workers are: [`Program`], as it was when it was opened, whatever is installed in its place since.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;
use virtnet_rpc::Link;

/// How long a program may take to say its version.
const SAYS: Duration = Duration::from_secs(5);

/// A worker's process, and the connection to it.
#[derive(Debug)]
pub(super) struct Spawned {
    pub(super) child: Child,
    pub(super) link: Link,
}

/// A program that workers are started of.
#[derive(Debug)]
pub(super) struct Program {
    path: PathBuf,
    /// Keeps it, though another may be installed at its path.
    file: File,
}

impl Program {
    /// What is at a path now.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Starts a worker, which waits for what it is told.
    pub(super) fn spawn(&self, arguments: &[String]) -> anyhow::Result<Spawned> {
        let (ours, theirs) = StdStream::pair().context("making a pair of sockets")?;
        ours.set_nonblocking(true)?;
        let stream = UnixStream::from_std(ours)?;
        let mut command = self.command();
        command.arg("worker").args(arguments).stdin(OwnedFd::from(theirs));
        let child = command.spawn().with_context(|| format!("running {}", self.path.display()))?;
        // What the command holds of the connection would keep it open.
        drop(command);
        tracing::info!(process = child.id(), "a worker begins");
        Ok(Spawned { child, link: Link::new(stream) })
    }

    /// The version that it says it has.
    pub(super) async fn version(&self) -> anyhow::Result<String> {
        let output = self.command().arg("--version").stdin(Stdio::null()).stdout(Stdio::piped()).output();
        let output = timeout(SAYS, output).await.context("it does not end")??;
        ensure!(output.status.success(), "{}", output.status);
        let text = String::from_utf8(output.stdout)?;
        let version = text.trim().strip_prefix("virtnetd ").with_context(|| format!("it says {text:?}"))?;
        Ok(version.to_owned())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(format!("/proc/self/fd/{}", self.file.as_raw_fd()));
        // Ctrl-C on a terminal is for the parent, which ends the worker in order.
        command.arg0(&self.path).process_group(0).kill_on_drop(true);
        command
    }
}
