//! When a file that is not there may be, and when one that is there was written to, by inotify: [`Appearance`], [`Writes`].

use std::path::{Path, PathBuf};

use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

/// Tells when something happens where a file would appear: in its folder or, as long as that is not there, in the next one above
/// that is.
#[derive(Debug)]
pub(crate) struct Appearance {
    _watcher: RecommendedWatcher,
    changes: mpsc::Receiver<()>,
}

fn watcher() -> notify::Result<(RecommendedWatcher, mpsc::Receiver<()>)> {
    let (changed, changes) = mpsc::channel(1);
    // A full channel means that a change is already known: one look answers for all.
    let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        // Looking at a folder is an event too, and none that can bring anything about.
        if event.map_or(true, |event| !event.kind.is_access()) {
            let _ = changed.try_send(());
        }
    })?;
    Ok((watcher, changes))
}

fn nearest(path: &Path) -> Option<PathBuf> {
    path.ancestors().skip(1).find(|folder| folder.is_dir()).map(Path::to_owned)
}

impl Appearance {
    /// Watches for a file. What happens from then on is told, so whoever looks for the file after this misses nothing.
    ///
    /// # Errors
    /// Where inotify has no room.
    pub(crate) fn of(path: &Path) -> notify::Result<Self> {
        loop {
            let folder = nearest(path).unwrap_or_else(|| "/".into());
            let (mut watcher, changes) = watcher()?;
            match watcher.watch(&folder, RecursiveMode::NonRecursive) {
                // A nearer folder may have come before this one was watched.
                Ok(()) if nearest(path).as_deref() == Some(&folder) => {
                    return Ok(Self { _watcher: watcher, changes });
                }
                Ok(()) => {}
                Err(_) if !folder.is_dir() => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The next change.
    pub(crate) async fn change(&mut self) {
        if self.changes.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

/// Tells when a file is written to, and empties it.
#[derive(Debug)]
pub(crate) struct Writes {
    path: PathBuf,
    _watcher: RecommendedWatcher,
    changes: mpsc::Receiver<()>,
}

impl Writes {
    /// Watches a file that is there.
    ///
    /// # Errors
    /// Where it is not there, or inotify has no room.
    pub(crate) fn to(path: &Path) -> notify::Result<Self> {
        let (mut watcher, changes) = watcher()?;
        watcher.watch(path, RecursiveMode::NonRecursive)?;
        Ok(Self { path: path.to_owned(), _watcher: watcher, changes })
    }

    /// Waits until something was written. It is gone then.
    pub(crate) async fn next(&mut self) {
        loop {
            if self.changes.recv().await.is_none() {
                std::future::pending::<()>().await;
            }
            // Emptying it is a change as well. Whoever wrote goes on where they were, which leaves a hole and takes no room.
            let written = std::fs::metadata(&self.path).is_ok_and(|file| file.len() > 0);
            if written {
                if let Err(error) = std::fs::OpenOptions::new().write(true).truncate(true).open(&self.path) {
                    tracing::warn!(%error, "emptying {}", self.path.display());
                }
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_file_is_told_of_wherever_its_folders_begin_to_be() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b/file");
        for made in [root.path().join("a"), root.path().join("a/b")] {
            let mut appearance = Appearance::of(&path).unwrap();
            std::fs::create_dir(&made).unwrap();
            timeout(LIMIT, appearance.change()).await.unwrap();
        }
        let mut appearance = Appearance::of(&path).unwrap();
        std::fs::write(&path, "").unwrap();
        timeout(LIMIT, appearance.change()).await.unwrap();
    }

    #[tokio::test]
    async fn what_is_written_is_told_and_emptied() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("trace");
        let mut file = std::fs::File::create(&path).unwrap();
        let mut writes = Writes::to(&path).unwrap();
        for _ in 0..3 {
            writeln!(file, "sriov_register_vfs").unwrap();
            timeout(LIMIT, writes.next()).await.unwrap();
            assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
        }
        assert!(Writes::to(&root.path().join("absent")).is_err());
    }
}
