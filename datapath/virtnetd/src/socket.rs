//! The socket that clients connect to: [`listen`].

use std::ffi::OsString;
use std::fs::{File, Permissions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::sys::stat::{Mode, fchmod};
use tokio::net::{UnixListener, UnixSocket};

/// Reading and writing for the owner and the group, nothing for others.
const MODE: u32 = 0o660;
/// Connections that wait to be taken.
const BACKLOG: u32 = 128;

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
pub struct SocketFile {
    path: PathBuf,
    /// Held for as long as the path is this process's.
    _lock: File,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, socket = %self.path.display(), "the socket's file was not taken away");
        }
    }
}

/// Listens at a path, in place of a socket at which nobody listens any more. Owner and group may connect, nobody else. One that
/// was `left` by an earlier process, which listens there still, is taken over.
///
/// Which of several processes may is told by a lock on the file `PATH.lock`, which stays.
///
/// # Errors
/// Where another process listens there, where something is there that is no socket, or where it can't be made.
///
/// # Panics
/// Outside a tokio runtime.
pub fn listen(path: &Path, left: Option<StdListener>) -> anyhow::Result<Listening> {
    let doing = || format!("listening on {}", path.display());
    let mut lock_path = OsString::from(path);
    lock_path.push(".lock");
    let lock =
        File::options().create(true).truncate(false).write(true).open(lock_path).with_context(doing)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => bail!("{}: another virtnetd listens there", doing()),
        Err(TryLockError::Error(error)) => return Err(error).with_context(doing),
    }
    if let Some(listener) = left {
        listener.set_nonblocking(true).with_context(doing)?;
        let listener = UnixListener::from_std(listener).with_context(doing)?;
        return Ok(Listening { listener, file: SocketFile { path: path.to_owned(), _lock: lock } });
    }
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path).with_context(doing)?,
        Ok(_) => bail!("{}: there is something else", doing()),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(doing),
    }
    let socket = UnixSocket::new_stream().with_context(doing)?;
    // The file has at most the rights that the socket has when it is bound, so there is no moment at which it is for others.
    fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR).with_context(doing)?;
    socket.bind(path).with_context(doing)?;
    let file = SocketFile { path: path.to_owned(), _lock: lock };
    std::fs::set_permissions(path, Permissions::from_mode(MODE)).with_context(doing)?;
    Ok(Listening { listener: socket.listen(BACKLOG).with_context(doing)?, file })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_for_owner_and_group_and_for_one_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("virtnetd.sock");
        let listening = listen(&path, None).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        assert!(listen(&path, None).unwrap_err().to_string().contains("another virtnetd"));
        drop(listening);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn what_a_killed_process_left_is_replaced_and_other_files_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("virtnetd.sock");
        drop(StdListener::bind(&path).unwrap());
        assert!(path.exists());
        listen(&path, None).unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "text").unwrap();
        listen(&file, None).unwrap_err();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "text");
    }
}
