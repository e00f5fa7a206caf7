//! The one task that changes the store: it runs what waits, commits it as one batch, then answers.

use std::collections::BTreeMap;
use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::disk::{Batch, Disk, DiskError, Row};
use super::txn::{Overlay, Txn};
use super::{Key, Store};
use crate::object;
use crate::status::ApiError;

/// Requests that are made durable together. More would only delay the first of them.
const BATCH_LIMIT: usize = 64;

type Answer = Box<dyn FnOnce(Result<(), ApiError>) + Send>;
type Job = Box<dyn FnOnce(&mut Txn<'_>) -> (bool, Answer) + Send>;

/// The way to the writing task, which ends when this is dropped or stopped.
#[derive(Debug)]
pub(crate) struct Writer {
    jobs: mpsc::UnboundedSender<Job>,
    stop: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    /// Starts the task on the present runtime.
    pub(crate) fn start(store: Arc<Store>, disk: Arc<dyn Disk>) -> Self {
        let (jobs, waiting) = mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(store, disk, waiting, stop.clone()));
        Self { jobs, stop, task: Mutex::new(Some(task)) }
    }

    /// Is cancelled when the writer stops.
    pub(crate) fn stopping(&self) -> &CancellationToken {
        &self.stop
    }

    /// Takes no more writes, finishes those that wait, and lets go of the disk.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task
            && let Err(error) = task.await
        {
            tracing::error!(%error, "the embedded API's writer ended abnormally");
        }
    }

    /// Runs `work` after all writes before it and returns what it returned once its changes are durable.
    /// Where it fails, none of its changes is kept.
    pub(crate) async fn write<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Txn<'_>) -> Result<R, ApiError> + Send + 'static,
    ) -> Result<R, ApiError> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |txn| {
            let result = catch_unwind(AssertUnwindSafe(|| work(txn))).unwrap_or_else(|_| {
                Err(ApiError::internal("a fault in the server was caught while serving this request"))
            });
            let keep = result.is_ok();
            let answer: Answer = Box::new(move |committed| {
                // A client that went away has nobody to be answered to.
                let _ = answer.send(committed.and(result));
            });
            (keep, answer)
        });
        let stopped = || ApiError::new(503, "ServiceUnavailable", "the embedded API is shutting down");
        self.jobs.send(job).map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }
}

async fn run(
    store: Arc<Store>,
    disk: Arc<dyn Disk>,
    mut waiting: mpsc::UnboundedReceiver<Job>,
    stop: CancellationToken,
) {
    loop {
        let first = tokio::select! {
            biased;
            first = waiting.recv() => first,
            () = stop.cancelled(), if !waiting.is_closed() => {
                waiting.close();
                continue;
            }
        };
        let Some(first) = first else { return };
        let mut jobs = vec![first];
        while jobs.len() < BATCH_LIMIT
            && let Ok(job) = waiting.try_recv()
        {
            jobs.push(job);
        }
        let (batch, answers) = execute(&store, jobs);
        let result = commit(&store, disk.as_ref(), batch).await;
        for answer in answers {
            answer(result.clone());
        }
    }
}

fn execute(store: &Store, jobs: Vec<Job>) -> (Overlay, Vec<Answer>) {
    store.read(|state| {
        let mut batch = Overlay { revision: state.revision(), objects: BTreeMap::new(), changes: Vec::new() };
        let mut answers = Vec::with_capacity(jobs.len());
        for job in jobs {
            let mut txn = Txn::new(state, &batch);
            let (keep, answer) = job(&mut txn);
            answers.push(answer);
            if let Some(own) = txn.finish().filter(|_| keep) {
                batch.revision = own.revision;
                batch.objects.extend(own.objects);
                batch.changes.extend(own.changes);
            }
        }
        (batch, answers)
    })
}

async fn commit(store: &Store, disk: &dyn Disk, batch: Overlay) -> Result<(), ApiError> {
    if batch.changes.is_empty() {
        return Ok(());
    }
    let rows = batch.objects.iter().map(|(key, held)| Row {
        key: disk_key(key),
        value: held.as_ref().map(|object| object::bytes(&object.value)),
    });
    let durable = Batch { revision: batch.revision, rows: rows.collect() };
    disk.commit(durable).await.map_err(|error| refused(&error))?;
    store.publish(batch.revision, batch.changes);
    Ok(())
}

fn refused(error: &DiskError) -> ApiError {
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    tracing::error!("a write was refused because it could not be made durable: {error}{cause}");
    ApiError::internal(format_args!("{error}{cause}"))
}

/// `virtnet.dev/virtnetdevices/default/web-0`; core kinds have an empty group, cluster scope an empty namespace.
pub(crate) fn disk_key(key: &Key) -> String {
    format!("{}/{}/{}", key.storage, key.namespace, key.name)
}
