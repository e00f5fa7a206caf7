//! [`Door`]: a socket at which other programs have commands run in a guest, and [`ask`], the other side.
//!
//! A command is sent, and the sending side closed; the answer is a line with the exit code, and all that the command wrote.

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

use crate::guest::{Done, Guest};

/// What is answered where the guest could not be asked, as ssh(1) does.
const UNASKED: i32 = 255;

/// A guest whose door is open.
#[derive(Debug)]
pub struct Door {
    guest: Guest,
    listener: UnixListener,
}

impl Door {
    /// Opens one at this path.
    ///
    /// # Errors
    /// Where the socket can't be made.
    pub fn new(guest: Guest, socket: &Path) -> anyhow::Result<Self> {
        let listener =
            UnixListener::bind(socket).with_context(|| format!("listening at {}", socket.display()))?;
        Ok(Self { guest, listener })
    }

    /// Who stands behind it.
    #[must_use]
    pub fn guest(&self) -> &Guest {
        &self.guest
    }

    /// Runs the commands that come, one after the other.
    ///
    /// # Errors
    /// Where the socket is gone.
    pub async fn serve(&mut self) -> anyhow::Result<Infallible> {
        loop {
            let (mut stream, _) = self.listener.accept().await.context("taking a guest's next command")?;
            let mut command = String::new();
            // One that went away before it was done has asked nothing, and waits for no answer.
            if stream.read_to_string(&mut command).await.is_err() {
                continue;
            }
            let console = self.guest.console()?;
            let Done { code, output } = console
                .run(&command)
                .await
                .unwrap_or_else(|error| Done { code: UNASKED, output: format!("{error:#}\n") });
            let _ = stream.write_all(format!("{code}\n{output}").as_bytes()).await;
        }
    }
}

/// Has a command run in the guest whose door is there.
///
/// # Errors
/// Where there is no door, or it is closed meanwhile.
pub fn ask(socket: &Path, command: &str) -> anyhow::Result<Done> {
    let mut answer = String::new();
    let mut ask = || {
        let mut stream = UnixStream::connect(socket)?;
        stream.write_all(command.as_bytes())?;
        stream.shutdown(Shutdown::Write)?;
        stream.read_to_string(&mut answer)
    };
    ask().with_context(|| format!("asking the guest at {}", socket.display()))?;
    let (code, output) = answer.split_once('\n').context("the guest is gone")?;
    let code = code.parse().with_context(|| format!("the guest's answer is no exit code: {code:?}"))?;
    Ok(Done { code, output: output.to_owned() })
}
