//! What people and scripts see: JSON on standard output, one line on standard error where something went wrong.

use std::io::{ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;
use virtnet_model::PartError;

/// The text of an answer.
pub(crate) fn json(answer: &impl Serialize) -> anyhow::Result<String> {
    serde_json::to_string_pretty(answer).map(|text| text + "\n").context("write JSON")
}

/// The answer of what has nothing to tell but that it was done.
pub(crate) fn done() -> anyhow::Result<String> {
    #[derive(Serialize)]
    struct Done {
        errno: u8,
        errstr: &'static str,
    }
    json(&Done { errno: 0, errstr: "Success" })
}

/// Prints an answer. A reader that has gone is no error: there is nobody left to tell.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("write to standard output"),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Says what went wrong, and what to do about it where nobody answers at the socket.
pub(crate) fn error(error: &anyhow::Error, socket: &Path) {
    let advice = error.downcast_ref::<PartError>().and_then(|error| advice(error, socket));
    let advice = advice.map(|advice| format!(": {advice}")).unwrap_or_default();
    let _ = writeln!(std::io::stderr().lock(), "virtnet: {}", one_line(&format!("{error:#}{advice}")));
}

/// What to do where it is the socket that is at fault.
fn advice(error: &PartError, socket: &Path) -> Option<&'static str> {
    if error.kind != virtnet_model::ErrorKind::Unavailable {
        return None;
    }
    match UnixStream::connect(socket).err()?.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => Some(
            "virtnetd is not running (systemctl status virtnetd), or listens elsewhere (--socket, VIRTNETD_SOCKET)",
        ),
        ErrorKind::PermissionDenied => Some("the socket is not for this user: try it as root"),
        _ => None,
    }
}

/// What others have written must not end the line that it is put in, nor steer the terminal.
fn one_line(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}
