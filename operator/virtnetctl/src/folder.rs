//! A folder of manifests kept in step with the API by server-side apply, removal included.
//!
//! Each object that the folder declares bears a label and the name of its file. What bears the label and is in no file
//! any more is deleted, unless its file can't be read now or is empty: a broken file changes nothing, and harms no
//! other. What is deleted or changed in the API by somebody else is applied again; a field that somebody else has taken
//! over is left to them, and told as the conflict that it is.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use futures::StreamExt;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{RecursiveMode, Watcher};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::manifest::{self, KINDS, Key, Manifest, resource};

/// The field manager of what a folder declares.
const MANAGER: &str = "virtnetctl";
/// The label that marks an object as a folder's.
const LABEL: &str = "virtnet.dev/manifests";
/// The annotation that names the file.
const FILE: &str = "virtnet.dev/manifest";
/// What the API refused is tried again after the first, then after twice as long each time up to the last.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Editors replace a file in several steps, and many files come together: they are read when nothing more has come for
/// the first of these, and after the second in any case.
const QUIET: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));

/// A folder, and the API that it is kept in step with.
pub(crate) struct Folder {
    path: PathBuf,
    client: Client,
}

/// What came of reading the folder once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Objects that stand as declared.
    pub(crate) applied: usize,
    /// Objects that were removed.
    pub(crate) removed: usize,
    /// What could not be, one line each: `FILE:LINE: message`.
    pub(crate) problems: Vec<String>,
    /// Whether one of them may be gone at another try, with the files as they are.
    again: bool,
}

/// What the files declare.
#[derive(Default)]
struct Wanted {
    objects: BTreeMap<Key, (String, Manifest)>,
    /// Files that can't be read now, or not as manifests.
    broken: BTreeSet<String>,
    /// Files with nothing in them.
    empty: BTreeSet<String>,
}

impl Folder {
    /// The folder at this path.
    ///
    /// # Errors
    /// If it is none.
    pub(crate) fn new(path: &Path, client: Client) -> anyhow::Result<Self> {
        check(path)?;
        Ok(Self { path: path.to_owned(), client })
    }

    /// Keeps the API in step for as long as it is polled. `tell` hears of each outcome that differs from the last.
    pub(crate) async fn keep(&self, mut tell: impl FnMut(&Outcome)) -> anyhow::Result<Infallible> {
        let (changed, mut changes) = mpsc::channel(1);
        let watched = changed.clone();
        // A full channel means that a change is already known: one reading answers for all.
        let mut files = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.map_or(true, |event| is_change(event.kind)) {
                let _ = watched.try_send(());
            }
        })
        .context("watching for changes of files")?;
        files
            .watch(&self.path, RecursiveMode::NonRecursive)
            .with_context(|| format!("watching the folder {}", self.path.display()))?;
        tokio::select! {
            never = self.follow(&mut changes, &mut tell) => Ok(never),
            never = self.watch_objects(&changed) => Ok(never),
        }
    }

    async fn follow(&self, changes: &mut mpsc::Receiver<()>, tell: &mut impl FnMut(&Outcome)) -> Infallible {
        let mut last = None;
        let mut pause = AGAIN.0;
        loop {
            let outcome = self.sync().await.unwrap_or_else(|error| Outcome {
                problems: vec![format!("{}: {}", self.path.display(), virtnet_agent::chain(error.as_ref()))],
                again: true,
                ..Outcome::default()
            });
            let again = outcome.again;
            if last.as_ref() != Some(&outcome) {
                tell(&outcome);
            }
            last = Some(outcome);
            if again && timeout(pause, changes.recv()).await.is_err() {
                pause = (pause * 2).min(AGAIN.1);
                continue;
            }
            if !again {
                changes.recv().await;
            }
            pause = AGAIN.0;
            let settled = async { while let Ok(Some(())) = timeout(QUIET.0, changes.recv()).await {} };
            // Changes that never cease are read all the same.
            let _ = timeout(QUIET.1, settled).await;
        }
    }

    /// Says so when an object of the folder is deleted, or is not what it was. Status is nobody's business here.
    async fn watch_objects(&self, changed: &mpsc::Sender<()>) -> Infallible {
        let events = KINDS.map(|kind| {
            let api = Api::<DynamicObject>::all_with(self.client.clone(), &resource(kind));
            watcher(api, watcher::Config::default().labels(LABEL)).default_backoff().boxed()
        });
        let mut events = futures::stream::select_all(events);
        let mut generations = BTreeMap::new();
        while let Some(event) = events.next().await {
            let news = match event {
                Ok(Event::Apply(object) | Event::InitApply(object)) => {
                    let generation = object.metadata.generation;
                    generations.insert(object.uid(), generation) != Some(generation)
                }
                Ok(Event::Delete(object)) => {
                    generations.remove(&object.uid());
                    true
                }
                // While the watch was cut, something may have gone.
                Ok(Event::InitDone) => true,
                Ok(Event::Init) | Err(_) => false,
            };
            if news {
                let _ = changed.try_send(());
            }
        }
        std::future::pending().await
    }

    /// Reads the folder once and brings the API to what it declares.
    async fn sync(&self) -> anyhow::Result<Outcome> {
        let mut outcome = Outcome::default();
        let wanted = self.read(&mut outcome.problems)?;
        for (file, manifest) in wanted.objects.values() {
            match apply(&self.client, file, manifest).await {
                Ok(()) => outcome.applied += 1,
                Err(error) => {
                    outcome.problems.extend(refusal(&self.shown(file), manifest, &error));
                    outcome.again = true;
                }
            }
        }
        outcome.removed = self.remove_others(&wanted, &mut outcome.problems).await?;
        Ok(outcome)
    }

    fn read(&self, problems: &mut Vec<String>) -> anyhow::Result<Wanted> {
        let mut wanted = Wanted::default();
        for file in files(&self.path)? {
            let shown = self.shown(&file);
            let read = std::fs::read_to_string(self.path.join(&file))
                .map_err(|error| vec![format!("{shown}: {error}")])
                .and_then(|text| manifest::parse(&shown, &text));
            match read {
                Err(found) => {
                    problems.extend(found);
                    wanted.broken.insert(file);
                }
                Ok(manifests) if manifests.is_empty() => drop(wanted.empty.insert(file)),
                Ok(manifests) => {
                    for manifest in manifests {
                        if let Some((first, _)) = wanted.objects.get(&manifest.key) {
                            let line = manifest.line_of(None);
                            let name = manifest.key.shown();
                            problems
                                .push(format!("{shown}:{line}: {name} is in {first} too; that one counts"));
                        } else {
                            wanted.objects.insert(manifest.key.clone(), (file.clone(), manifest));
                        }
                    }
                }
            }
        }
        Ok(wanted)
    }

    async fn remove_others(&self, wanted: &Wanted, problems: &mut Vec<String>) -> anyhow::Result<usize> {
        let mut removed = 0;
        let mut emptied = BTreeSet::new();
        for kind in KINDS {
            let all = Api::<DynamicObject>::all_with(self.client.clone(), &resource(kind));
            let ours = all
                .list(&ListParams::default().labels(LABEL))
                .await
                .with_context(|| format!("listing {kind}s"))?;
            for object in ours {
                let key =
                    Key { kind: kind.to_owned(), namespace: object.namespace(), name: object.name_any() };
                if wanted.objects.contains_key(&key) || object.metadata.deletion_timestamp.is_some() {
                    continue;
                }
                let file = object.annotations().get(FILE);
                if let Some(file) = file.filter(|file| wanted.empty.contains(*file)) {
                    emptied.insert(file.clone());
                    continue;
                }
                if file.is_some_and(|file| wanted.broken.contains(file)) {
                    continue;
                }
                match key.api(&self.client).delete(&key.name, &DeleteParams::default()).await {
                    Ok(_) => removed += 1,
                    Err(kube::Error::Api(status)) if status.code == 404 => {}
                    Err(error) => return Err(error).with_context(|| format!("deleting {}", key.shown())),
                }
            }
        }
        problems.extend(emptied.iter().map(|file| {
            format!("{}:1: is empty; to remove what it declared, delete the file", self.shown(file))
        }));
        Ok(removed)
    }

    fn shown(&self, file: &str) -> String {
        self.path.join(file).display().to_string()
    }
}

/// Whether this is a folder that can be read.
pub(crate) fn check(path: &Path) -> anyhow::Result<()> {
    let metadata =
        std::fs::metadata(path).with_context(|| format!("reading the folder {}", path.display()))?;
    if !metadata.is_dir() {
        bail!("reading the folder {}: it is a file; name the folder that it is in", path.display());
    }
    Ok(())
}

/// Applies a manifest, marked as its file's.
async fn apply(client: &Client, file: &str, manifest: &Manifest) -> kube::Result<()> {
    let mut object = manifest.object.clone();
    object["metadata"]["labels"][LABEL] = json!("local");
    object["metadata"]["annotations"][FILE] = json!(file);
    let Key { name, .. } = &manifest.key;
    manifest.key.api(client).patch(name, &PatchParams::apply(MANAGER), &Patch::Apply(&object)).await?;
    Ok(())
}

/// What the API says against a manifest, with the lines of what it names.
fn refusal(file: &str, manifest: &Manifest, error: &kube::Error) -> Vec<String> {
    let whole =
        |text: &str| vec![format!("{file}:{}: {}: {text}", manifest.line_of(None), manifest.key.shown())];
    let kube::Error::Api(status) = error else {
        return whole(&error.to_string());
    };
    let causes = status.details.as_ref().map(|details| details.causes.as_slice()).unwrap_or_default();
    if status.code != 422 || causes.is_empty() || causes.iter().any(|cause| cause.field.is_empty()) {
        return whole(&status.message);
    }
    let line = |field: &str| manifest.line_of(Some(field));
    causes
        .iter()
        .map(|cause| format!("{file}:{}: {}: {}", line(&cause.field), cause.field, cause.message))
        .collect()
}

/// Whether files may be others than before. To read one is no change, and on Linux one that is being written counts when
/// its writer closes it.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        EventKind::Modify(ModifyKind::Data(_)) => !cfg!(target_os = "linux"),
        _ => true,
    }
}

/// The manifests of a folder by name, in order. Hidden files, as editors leave them, are none.
fn files(folder: &Path) -> anyhow::Result<Vec<String>> {
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("reading the folder {}", folder.display()))?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.'))
        .filter(|name| [".yaml", ".yml", ".json"].iter().any(|ending| name.ends_with(ending)))
        .collect();
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use notify::event::{CreateKind, DataChange, RemoveKind, RenameMode};

    use super::*;

    #[test]
    fn a_folder_that_is_only_read_has_not_changed() {
        let read = [
            AccessKind::Read,
            AccessKind::Open(AccessMode::Any),
            AccessKind::Close(AccessMode::Read),
            AccessKind::Any,
        ];
        for kind in read {
            assert!(!is_change(EventKind::Access(kind)), "{kind:?}");
        }
    }

    #[test]
    fn a_file_counts_when_it_has_been_written_moved_or_removed() {
        let changes = [
            EventKind::Access(AccessKind::Close(AccessMode::Write)),
            EventKind::Create(CreateKind::File),
            EventKind::Modify(ModifyKind::Name(RenameMode::To)),
            EventKind::Remove(RemoveKind::File),
        ];
        for kind in changes {
            assert!(is_change(kind), "{kind:?}");
        }
        let half_written = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        assert_eq!(is_change(half_written), !cfg!(target_os = "linux"));
    }
}
