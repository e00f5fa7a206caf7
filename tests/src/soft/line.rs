//! [`attach`]: a person's terminal on a guest's serial line, where a shell is.

use std::io::{IsTerminal, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

/// What is typed to leave the line: Ctrl-], as in telnet(1).
const LEAVE: u8 = 0x1d;

/// Passes on what is typed to the line whose socket is there, and what comes from it, until Ctrl-] is typed or the guest is gone.
///
/// # Errors
/// Where there is no line.
pub fn attach(socket: &Path) -> anyhow::Result<()> {
    let attaching = || format!("attaching to the guest's line {}", socket.display());
    let mut line = UnixStream::connect(socket).with_context(attaching)?;
    let mut typed = line.try_clone().with_context(attaching)?;
    let _raw = Raw::begin()?;
    // Not waited for: it may stand in a read when the guest is gone, and ends with the program.
    std::thread::spawn(move || {
        // For the shell's prompt, which was shown when nobody looked.
        let mut bytes = vec![b'\n'];
        while !bytes.is_empty() && typed.write_all(&bytes).is_ok() {
            bytes.resize(256, 0);
            let count = std::io::stdin().read(&mut bytes).unwrap_or(0);
            bytes.truncate(count);
            if let Some(end) = bytes.iter().position(|byte| *byte == LEAVE) {
                bytes.truncate(end);
                let _ = typed.write_all(&bytes);
                break;
            }
        }
        let _ = typed.shutdown(Shutdown::Both);
    });
    let mut bytes = [0; 4096];
    let mut output = std::io::stdout().lock();
    loop {
        let count = line.read(&mut bytes).with_context(attaching)?;
        if count == 0 {
            return Ok(());
        }
        // Shown at once, whether a line or not.
        output
            .write_all(&bytes[..count])
            .and_then(|()| output.flush())
            .context("showing what the guest says")?;
    }
}

/// A terminal that passes on each key as it is, and shows nothing by itself, until this is dropped.
struct Raw(Option<String>);

impl Raw {
    fn begin() -> anyhow::Result<Self> {
        if !std::io::stdin().is_terminal() {
            return Ok(Self(None));
        }
        let before = stty(&["-g"])?;
        stty(&["raw", "-echo"])?;
        Ok(Self(Some(before.trim().to_owned())))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = stty(&[before]);
        }
    }
}

fn stty(arguments: &[&str]) -> anyhow::Result<String> {
    let output =
        Command::new("stty").args(arguments).stdin(Stdio::inherit()).output().context("running stty")?;
    ensure!(output.status.success(), "stty {}: {}", arguments.join(" "), output.status);
    Ok(String::from_utf8(output.stdout)?)
}
