//! The state in one redb file; each commit is one transaction, synced before it is acknowledged.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};

use super::disk::{Batch, Disk, DiskError, Loaded};

const OBJECTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("objects");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const REVISION: &str = "revision";

/// A redb database file. It is locked for as long as this lives: one server a file.
pub struct FileDisk {
    path: PathBuf,
    database: Arc<Database>,
}

impl fmt::Debug for FileDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileDisk").field("path", &self.path).finish_non_exhaustive()
    }
}

impl FileDisk {
    /// Opens or creates the file, readable by its owner alone.
    ///
    /// # Errors
    /// Where the file can't be made, is no redb file, or another process has it open.
    pub fn open(path: &Path) -> Result<Self, DiskError> {
        let place = || path.display().to_string();
        let failed = |source| DiskError::Failed { operation: "opening", place: place(), source };
        let file = open_private(path).map_err(|error| failed(error.into()))?;
        let database = redb::backends::FileBackend::new(file)
            .and_then(|backend| redb::Builder::new().create_with_backend(backend))
            .map_err(|error| match error {
                DatabaseError::DatabaseAlreadyOpen => DiskError::InUse { place: place() },
                error => failed(error.into()),
            })?;
        Ok(Self { path: path.to_owned(), database: Arc::new(database) })
    }

    async fn blocking<R: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Database) -> Result<R, redb::Error> + Send + 'static,
    ) -> Result<R, DiskError> {
        let database = Arc::clone(&self.database);
        let failed = |source| DiskError::Failed { operation, place: self.path.display().to_string(), source };
        tokio::task::spawn_blocking(move || work(&database))
            .await
            .map_err(|error| failed(error.into()))?
            .map_err(|error| failed(error.into()))
    }
}

fn open_private(path: &Path) -> std::io::Result<std::fs::File> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

#[async_trait]
impl Disk for FileDisk {
    async fn load(&self) -> Result<Loaded, DiskError> {
        self.blocking("reading", load).await
    }

    async fn commit(&self, batch: Batch) -> Result<(), DiskError> {
        self.blocking("writing", move |database| commit(database, &batch)).await
    }
}

fn load(database: &Database) -> Result<Loaded, redb::Error> {
    // A write transaction creates the tables, so that reading an empty file is no special case.
    let txn = database.begin_write()?;
    txn.open_table(OBJECTS)?;
    txn.open_table(META)?;
    txn.commit()?;

    let txn = database.begin_read()?;
    let revision = txn.open_table(META)?.get(REVISION)?.map_or(0, |held| held.value());
    let mut rows = Vec::new();
    for entry in txn.open_table(OBJECTS)?.iter()? {
        let (key, value) = entry?;
        rows.push((key.value().to_owned(), value.value().to_owned()));
    }
    Ok(Loaded { revision, rows })
}

fn commit(database: &Database, batch: &Batch) -> Result<(), redb::Error> {
    let txn = database.begin_write()?;
    {
        let mut objects = txn.open_table(OBJECTS)?;
        for row in &batch.rows {
            match &row.value {
                Some(value) => objects.insert(row.key.as_str(), value.as_slice())?,
                None => objects.remove(row.key.as_str())?,
            };
        }
        txn.open_table(META)?.insert(REVISION, batch.revision)?;
    }
    txn.commit()?;
    Ok(())
}
