//! What systemd keeps for the next start while this process is gone (its file descriptor store, `sd_pid_notify_with_fds(3)`):
//! [`Left`] is what this start was given of it. Without systemd nothing is kept.
//!
//! | name | what it is |
//! |---|---|
//! | `clients` | the socket that clients connect to: who connects meanwhile waits for the next start |
//! | `vfs-0`, `vfs-1` | the settings of VFs to come, in two files in memory that are written by turns |
//!
//! The service takes all of it back when it ends in good order: what is kept is for one that was killed.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use listenfd::ListenFd;
use nix::sys::memfd::{MFdFlags, memfd_create};
use sd_notify::NotifyState;
use serde::{Deserialize, Serialize};
use virtnet_controller::Prepared;
use virtnet_model::{Change, PfId, VfId};

use crate::wire::Kept;

const CLIENTS: &str = "clients";
const VFS: [&str; 2] = ["vfs-0", "vfs-1"];

/// What an earlier start left with systemd.
#[derive(Debug, Default)]
pub struct Left {
    clients: Option<UnixListener>,
    vfs: [Option<File>; 2],
}

impl Left {
    /// By the environment that systemd gave. What is not understood is told and taken back.
    pub fn from_environment() -> Self {
        let named: Vec<(RawFd, String)> = match sd_notify::listen_fds_with_names() {
            Ok(named) => named.collect(),
            Err(error) => {
                tracing::warn!(%error, "what systemd has kept could not be taken");
                return Self::default();
            }
        };
        let mut sockets = ListenFd::from_env();
        let mut left = Self::default();
        for (index, (number, name)) in named.into_iter().enumerate() {
            let taken = match VFS.iter().position(|vfs| *vfs == name) {
                Some(slot) => reopen(number).map(|file| left.vfs[slot] = Some(file)),
                None if name == CLIENTS => {
                    sockets.take_unix_listener(index).map(|listener| left.clients = listener)
                }
                None => Err(ErrorKind::Unsupported.into()),
            };
            if let Err(error) = taken {
                tracing::warn!(%error, name, "what systemd has kept is of no use");
                remove(&name);
            }
        }
        left
    }

    /// The socket of clients, where there is one and who connects at this path is heard by it. Another is taken back, so that
    /// no two have its name.
    pub fn clients(&mut self, path: &Path) -> Option<UnixListener> {
        let listener = self.clients.take()?;
        let bound = listener.local_addr().ok();
        let is_there = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
        if is_there && bound.as_ref().and_then(SocketAddr::as_pathname) == Some(path) {
            return Some(listener);
        }
        tracing::warn!("the socket that systemd has kept is not the one at {}", path.display());
        remove(CLIENTS);
        None
    }
}

/// The file of a descriptor, which systemd gives as a number.
fn reopen(number: RawFd) -> std::io::Result<File> {
    File::options().read(true).write(true).open(format!("/proc/self/fd/{number}"))
}

/// What is kept for the next start, and what of it is of use to this one.
#[derive(Debug)]
pub(crate) struct Store {
    vfs: Mutex<Vfs>,
}

#[derive(Debug)]
struct Vfs {
    kept: Prepared,
    /// How often it was written.
    writes: u64,
    /// Where it is written by turns; `None`: nobody keeps it.
    files: Option<[File; 2]>,
}

/// What is in one of the files.
#[derive(Serialize, Deserialize)]
struct Written {
    writes: u64,
    kept: Kept,
}

impl Store {
    /// Goes on with what an earlier start left. With systemd, what is kept from now on survives this process.
    ///
    /// # Errors
    /// Where no files can be made.
    pub(crate) fn open(left: Left, clients: BorrowedFd<'_>) -> anyhow::Result<Self> {
        let mut vfs = Vfs { kept: Prepared::new(), writes: 0, files: None };
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return Ok(Self { vfs: Mutex::new(vfs) });
        }
        let mut files = Vec::new();
        for (name, file) in VFS.into_iter().zip(left.vfs) {
            let file = match file {
                Some(mut file) => {
                    match read(&mut file) {
                        Ok(Some(written)) if written.writes >= vfs.writes => {
                            vfs.writes = written.writes;
                            vfs.kept = written.kept.0;
                        }
                        Ok(_) => {}
                        // It was being written when the process was killed, and the other one holds.
                        Err(error) => tracing::debug!(%error, name, "what is kept is incomplete"),
                    }
                    file
                }
                None => {
                    let file = File::from(
                        memfd_create(name, MFdFlags::MFD_CLOEXEC).context("making a file in memory")?,
                    );
                    keep(name, file.as_fd());
                    file
                }
            };
            files.push(file);
        }
        vfs.files = <[File; 2]>::try_from(files).ok();
        // Where it is kept already, systemd closes the second of the two.
        keep(CLIENTS, clients);
        Ok(Self { vfs: Mutex::new(vfs) })
    }

    fn vfs(&self) -> MutexGuard<'_, Vfs> {
        self.vfs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The settings of VFs to come.
    pub(crate) fn vfs_to_come(&self) -> Prepared {
        self.vfs().kept.clone()
    }

    /// Keeps the settings of a VF to come; an empty change: none.
    ///
    /// # Errors
    /// Where they can't be written; this process has them all the same.
    pub(crate) fn keep_vf(&self, pf: PfId, vf: VfId, change: Change) -> std::io::Result<()> {
        let mut vfs = self.vfs();
        if change.is_empty() {
            vfs.kept.remove(&(pf, vf));
        } else {
            vfs.kept.insert((pf, vf), change);
        }
        vfs.write()
    }

    /// Keeps none any more.
    ///
    /// # Errors
    /// Where that can't be written.
    pub(crate) fn forget_vfs(&self) -> std::io::Result<()> {
        let mut vfs = self.vfs();
        vfs.kept.clear();
        vfs.write()
    }

    /// The service ends in good order, and nothing is kept for another.
    pub(crate) fn close(&self) {
        if self.vfs().files.is_some() {
            VFS.into_iter().chain([CLIENTS]).for_each(remove);
        }
    }
}

impl Vfs {
    /// Writes what is so now over what was so before the last time.
    fn write(&mut self) -> std::io::Result<()> {
        let Some(files) = &mut self.files else { return Ok(()) };
        self.writes += 1;
        let written = Written { writes: self.writes, kept: Kept(self.kept.clone()) };
        let text = serde_json::to_vec(&written)?;
        let file = &mut files[usize::from(self.writes % 2 == 1)];
        file.set_len(0)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&text)
    }
}

/// What is in a file; `None`: it was never written.
fn read(file: &mut File) -> std::io::Result<Option<Written>> {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_string(&mut text)?;
    if text.is_empty() {
        return Ok(None);
    }
    Ok(Some(serde_json::from_str(&text)?))
}

fn keep(name: &str, descriptor: BorrowedFd<'_>) {
    let told = sd_notify::notify_with_fds(&[NotifyState::FdStore, NotifyState::FdName(name)], &[descriptor]);
    if let Err(error) = told {
        tracing::warn!(%error, name, "systemd could not be given what is to be kept");
    }
}

fn remove(name: &str) {
    let told = sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)]);
    if let Err(error) = told {
        tracing::warn!(%error, name, "systemd could not be told what need not be kept any more");
    }
}

#[cfg(test)]
mod tests {
    use virtnet_model::Mtu;

    use super::*;

    fn files() -> [File; 2] {
        VFS.map(|name| File::from(memfd_create(name, MFdFlags::MFD_CLOEXEC).unwrap()))
    }

    /// What another process has that is given the same files.
    fn again(files: &[File; 2]) -> Vec<Option<Written>> {
        files.iter().map(|file| read(&mut file.try_clone().unwrap()).ok().flatten()).collect()
    }

    #[test]
    fn what_was_written_before_holds_where_a_write_was_cut_short() {
        let files = files();
        let clones = [files[0].try_clone().unwrap(), files[1].try_clone().unwrap()];
        let mut vfs = Vfs { kept: Prepared::new(), writes: 0, files: Some(clones) };
        for mtu in [Mtu::MIN, Mtu::DEFAULT, Mtu::MAX] {
            let change = Change { mtu: Some(mtu), ..Change::default() };
            vfs.kept.insert((PfId::MIN, VfId::MIN), change);
            vfs.write().unwrap();
        }
        let mtus = |written: &Option<Written>| {
            let written = written.as_ref().unwrap();
            (written.writes, written.kept.0[&(PfId::MIN, VfId::MIN)].mtu.unwrap())
        };
        let both = again(&files);
        assert_eq!((mtus(&both[0]), mtus(&both[1])), ((2, Mtu::DEFAULT), (3, Mtu::MAX)));
        // The last one, cut short at every length, leaves the one before it.
        let whole = files[1].metadata().unwrap().len();
        for length in (0..whole).rev() {
            files[1].set_len(length).unwrap();
            let both = again(&files);
            assert!(both[1].is_none(), "at {length}");
            assert_eq!(mtus(&both[0]), (2, Mtu::DEFAULT));
        }
    }
}
