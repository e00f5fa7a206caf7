//! The folder of the files: [`Folder`]. What is written is there wholly or not at all, also over a loss of power.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;

use super::record::{Record, is_record};
use super::stamp::{self, Stamp};

/// How the name begins of what is written and not yet in its place.
const UNFINISHED: &str = ".new-";
/// How the names begin of folders of what was set aside.
const ASIDE: &str = "set-aside-";

/// A folder of files, and what is in it.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    /// The text of each file by its name.
    written: BTreeMap<String, String>,
    /// How often something was waited for to reach the disk.
    syncs: Arc<AtomicU64>,
}

/// What was read.
pub(crate) type Records = BTreeMap<String, Record>;

impl Folder {
    /// Opens it, or makes it, and reads the files. Stale ones and those that can't be read are set aside, each with the reason,
    /// which is logged too.
    pub(crate) fn open(path: &Path, now: &Stamp, syncs: Arc<AtomicU64>) -> anyhow::Result<(Self, Records)> {
        let doing = || format!("reading the recovery files of {}", path.display());
        fs::create_dir_all(path).with_context(doing)?;
        let mut names = Vec::new();
        for entry in fs::read_dir(path).with_context(doing)? {
            let name = entry.with_context(doing)?.file_name().to_string_lossy().into_owned();
            if name.starts_with(UNFINISHED) {
                fs::remove_file(path.join(&name)).with_context(doing)?;
            } else if is_record(&name) {
                names.push(name);
            }
        }
        names.sort_by_key(|name| (name.len(), name.clone()));
        let mut folder = Self { path: path.to_owned(), written: BTreeMap::new(), syncs };
        let mut records = Records::new();
        let then = read(&path.join(stamp::FILE));
        let then =
            then.and_then(|text| serde_json::from_slice::<Stamp>(&text).map_err(|error| error.to_string()));
        let stale = match then {
            Ok(then) => then.staleness(now),
            Err(why) => Some(format!("what they are of can't be read: {}: {why}", stamp::FILE)),
        };
        if let Some(why) = stale.filter(|_| !names.is_empty()) {
            folder.set_aside(&names, &why)?;
            names.clear();
        }
        for name in names {
            let record = read(&path.join(&name)).and_then(|bytes| Record::parse(&name, &bytes));
            let record = record.and_then(|record| alone(&records, record));
            match record {
                Ok(record) => {
                    folder.written.insert(name.clone(), record.text().with_context(doing)?);
                    records.insert(name, record);
                }
                Err(why) => folder.set_aside(&[name], &why)?,
            }
        }
        folder.write_all(&[(stamp::FILE.to_owned(), serde_json::to_string_pretty(now)? + "\n")])?;
        Ok((folder, records))
    }

    /// Puts files where nobody obeys them, beside a file that says why.
    pub(crate) fn set_aside(&mut self, names: &[String], why: &str) -> anyhow::Result<()> {
        let doing = || format!("setting recovery files of {} aside", self.path.display());
        let place = (1..)
            .map(|number: u32| self.path.join(format!("{ASIDE}{number}")))
            .find(|place| !place.exists())
            .with_context(doing)?;
        fs::create_dir(&place).with_context(doing)?;
        fs::write(place.join("reason"), format!("{why}\n")).with_context(doing)?;
        for name in names {
            tracing::error!(
                "{}: {why}: it is set aside in {}",
                self.path.join(name).display(),
                place.display()
            );
            fs::rename(self.path.join(name), place.join(name)).with_context(doing)?;
            self.written.remove(name);
        }
        Ok(())
    }

    /// What the files tell.
    pub(crate) fn records(&self) -> Records {
        let record = |name: &str, text: &str| Record::parse(name, text.as_bytes()).ok();
        self.written.iter().filter_map(|(name, text)| Some((name.clone(), record(name, text)?))).collect()
    }

    /// Makes the files those of the records and no more; what is so already is left alone.
    pub(crate) fn keep(&mut self, records: &Records) -> anyhow::Result<()> {
        let mut changed = Vec::new();
        for (name, record) in records {
            let text = record.text()?;
            if self.written.get(name) != Some(&text) {
                changed.push((name.clone(), text));
            }
        }
        let gone: Vec<_> = self.written.keys().filter(|name| !records.contains_key(*name)).cloned().collect();
        for name in gone {
            match fs::remove_file(self.path.join(&name)) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(error)
                        .with_context(|| format!("removing {}", self.path.join(&name).display()));
                }
                _ => self.written.remove(&name),
            };
        }
        self.write_all(&changed)?;
        self.written.extend(changed);
        Ok(())
    }

    /// Writes files in one group: all reach the disk, then all get their names, then the names reach the disk.
    fn write_all(&self, files: &[(String, String)]) -> anyhow::Result<()> {
        if files.is_empty() {
            return Ok(());
        }
        let doing = || format!("writing recovery files to {}", self.path.display());
        for (name, text) in files {
            let mut file = File::create(self.unfinished(name)).with_context(doing)?;
            file.write_all(text.as_bytes()).with_context(doing)?;
        }
        let folder = File::open(&self.path).with_context(doing)?;
        nix::unistd::syncfs(&folder).with_context(doing)?;
        for (name, _) in files {
            fs::rename(self.unfinished(name), self.path.join(name)).with_context(doing)?;
        }
        folder.sync_all().with_context(doing)?;
        self.syncs.fetch_add(2, Ordering::Relaxed);
        Ok(())
    }

    fn unfinished(&self, name: &str) -> PathBuf {
        self.path.join(format!("{UNFINISHED}{name}"))
    }
}

/// What is in a file. What is none, such as a pipe, may never come to an end.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    if !fs::metadata(path).map_err(|error| error.to_string())?.is_file() {
        return Err("it is no file".to_owned());
    }
    fs::read(path).map_err(|error| error.to_string())
}

/// A record that contradicts none that was read before.
fn alone(records: &Records, record: Record) -> Result<Record, String> {
    for (name, other) in records {
        if other.mac == record.mac {
            return Err(format!("its MAC {} is that of {name}", record.mac));
        }
        if (other.pf_num, other.sf_num) == (record.pf_num, record.sf_num) {
            return Err(format!("its SF {} of port {} is that of {name}", record.sf_num, record.pf_num));
        }
    }
    Ok(record)
}
