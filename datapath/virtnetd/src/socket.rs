//! The socket that clients connect to: [`listen`].

use std::io::ErrorKind;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener as StdListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::sys::stat::{Mode, umask};
use tokio::net::UnixListener;

/// Reading and writing for the owner and the group, nothing for others.
const NOT_FOR_OTHERS: Mode = Mode::S_IRWXO.union(Mode::S_IXUSR).union(Mode::S_IXGRP);

/// A socket that goes with this value.
#[derive(Debug)]
pub struct Listening {
    /// What clients connect to.
    pub listener: UnixListener,
    /// Takes the file away.
    pub file: SocketFile,
}

/// Takes a socket's file away when it is dropped.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::debug!(%error, socket = %self.0.display(), "the socket's file was not taken away");
        }
    }
}

/// Listens at a path, in place of a socket at which nobody listens any more. Owner and group may connect, nobody else.
///
/// Call it before there are other threads that make files: it sets the process's umask for a moment.
///
/// # Errors
/// Where another process listens there, where something is there that is no socket, or where it can't be made.
pub fn listen(path: &Path) -> anyhow::Result<Listening> {
    let doing = || format!("listening on {}", path.display());
    match UnixStream::connect(path) {
        Ok(_) => bail!("{}: another virtnetd listens there", doing()),
        // A socket that a killed process left; the kernel says the same of a file that is none.
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            if !std::fs::symlink_metadata(path).with_context(doing)?.file_type().is_socket() {
                bail!("{}: there is something else", doing());
            }
            std::fs::remove_file(path).with_context(doing)?;
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(doing),
    }
    let before = umask(NOT_FOR_OTHERS);
    let listener = StdListener::bind(path);
    umask(before);
    let listener = listener.with_context(doing)?;
    let file = SocketFile(path.to_owned());
    listener.set_nonblocking(true).with_context(doing)?;
    Ok(Listening { listener: UnixListener::from_std(listener).with_context(doing)?, file })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn a_socket_is_for_owner_and_group_and_for_one_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("virtnetd.sock");
        let listening = listen(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        assert!(listen(&path).unwrap_err().to_string().contains("another virtnetd"));
        drop(listening);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn what_a_killed_process_left_is_replaced_and_other_files_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("virtnetd.sock");
        drop(StdListener::bind(&path).unwrap());
        assert!(path.exists());
        listen(&path).unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "text").unwrap();
        listen(&file).unwrap_err();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "text");
    }
}
