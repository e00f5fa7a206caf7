//! The file: a tar archive, gzipped, that is there when it is whole and not before.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use flate2::Compression;
use flate2::write::GzEncoder;
use k8s_openapi::jiff::Timestamp;
use tempfile::NamedTempFile;

/// An archive that is being written.
pub(crate) struct Archive {
    path: PathBuf,
    /// The folder that all files are in once it is unpacked.
    folder: String,
    builder: tar::Builder<GzEncoder<NamedTempFile>>,
    modified: u64,
}

impl Archive {
    /// Begins one that is to be at this path. Until it is finished it is a file with another name in the same folder, for
    /// the owner alone.
    pub(crate) fn create(path: &Path, now: Timestamp) -> anyhow::Result<Self> {
        let beside = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let file = NamedTempFile::new_in(beside)
            .with_context(|| format!("making {}: is there a folder {}", path.display(), beside.display()))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let folder =
            name.trim_end_matches(".gz").trim_end_matches(".tar").trim_end_matches(".tgz").to_owned();
        Ok(Self {
            path: path.to_owned(),
            folder,
            builder: tar::Builder::new(GzEncoder::new(file, Compression::default())),
            modified: u64::try_from(now.as_second()).unwrap_or_default(),
        })
    }

    /// Adds a file.
    pub(crate) fn add(&mut self, path: &str, text: &str) -> anyhow::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(self.modified);
        let inside = Path::new(&self.folder).join(path);
        self.builder
            .append_data(&mut header, inside, text.as_bytes())
            .with_context(|| format!("adding {path} to {}", self.path.display()))
    }

    /// Ends it, in place of a file that was there. Gives its path.
    pub(crate) fn finish(self) -> anyhow::Result<PathBuf> {
        let Self { path, folder: _, builder, modified: _ } = self;
        let write = || -> anyhow::Result<()> {
            let mut file = builder.into_inner()?.finish()?;
            file.flush()?;
            file.persist(&path)?;
            Ok(())
        };
        write().with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }
}
