//! A connection on which both sides may ask: [`Link`] takes in, [`Caller`] asks, [`Sender`] answers and tells.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio_util::codec::{FramedRead, LinesCodec};
use virtnet_model::PartError;

use crate::message::{self, Fault, LINE_MAX, Message};

/// Who waits for which answer. `None`: the connection is gone, and nobody need begin to wait.
type Waiting = Arc<Mutex<Option<HashMap<u64, oneshot::Sender<Result<Box<RawValue>, Fault>>>>>>;

/// A line to be written, and what is held until it was.
type Line = (String, Option<OwnedSemaphorePermit>);

/// What the other side sends of itself.
#[derive(Debug)]
pub enum Incoming {
    /// It asks, and waits for an answer with this id.
    Request {
        /// The id of the answer.
        id: u64,
        /// What is asked.
        method: String,
        /// Its parameters.
        params: Box<RawValue>,
    },
    /// It tells.
    Notification {
        /// What is told.
        method: String,
        /// Its parameters.
        params: Box<RawValue>,
    },
}

/// The receiving side of a connection. The connection ends when this is dropped; those who wait for an answer are told.
pub struct Link {
    lines: FramedRead<OwnedReadHalf, LinesCodec>,
    waiting: Waiting,
    sender: Sender,
    /// The id of the next request.
    next: Arc<AtomicU64>,
    /// Writes. It must not outlive this: it holds the connection open.
    writer: AbortHandle,
}

impl Link {
    /// Takes a connection into use, in a task of the present tokio runtime that writes to it.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(stream: UnixStream) -> Self {
        Self::with_lines_of(stream, LINE_MAX)
    }

    /// The same where the other side's lines have no more than so many bytes.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn with_lines_of(stream: UnixStream, line_max: usize) -> Self {
        let (reader, writer) = stream.into_split();
        let (lines, to_write) = mpsc::unbounded_channel();
        let writer = tokio::spawn(write(writer, to_write)).abort_handle();
        Self {
            writer,
            lines: FramedRead::new(reader, LinesCodec::new_with_max_length(line_max)),
            waiting: Arc::new(Mutex::new(Some(HashMap::new()))),
            sender: Sender(lines),
            next: Arc::new(AtomicU64::new(1)),
        }
    }

    /// Asks on this connection.
    pub fn caller(&self) -> Caller {
        Caller {
            waiting: Arc::clone(&self.waiting),
            sender: self.sender.clone(),
            next: Arc::clone(&self.next),
        }
    }

    /// Answers and tells on this connection.
    pub fn sender(&self) -> Sender {
        self.sender.clone()
    }

    /// What the other side sends next; answers go to those who wait for them. `None`: the connection is gone, which is logged
    /// where it is not for the other side's closing it. May be dropped and called again: nothing is lost.
    pub async fn next(&mut self) -> Option<Incoming> {
        loop {
            let line = match self.lines.next().await? {
                Ok(line) => line,
                Err(error) => {
                    tracing::debug!(%error, "the connection was cut");
                    return None;
                }
            };
            match Message::parse(&line) {
                Ok(Message::Request { id, method, params }) => {
                    return Some(Incoming::Request { id, method, params });
                }
                Ok(Message::Notification { method, params }) => {
                    return Some(Incoming::Notification { method, params });
                }
                Ok(Message::Response { id, result }) => {
                    let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(reply) = waiting.as_mut().and_then(|waiting| waiting.remove(&id)) {
                        // Who waited may have gone.
                        let _ = reply.send(result);
                    }
                }
                Err(fault) => {
                    let why = message::one_line(&fault.message);
                    tracing::warn!("the connection is closed: the other side sent what is {why}");
                    return None;
                }
            }
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.writer.abort();
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").finish_non_exhaustive()
    }
}

/// Writes what is to be written, until nobody can send any more or nobody reads.
async fn write(mut writer: OwnedWriteHalf, mut lines: mpsc::UnboundedReceiver<Line>) {
    while let Some((mut line, held)) = lines.recv().await {
        line.push('\n');
        if let Err(error) = writer.write_all(line.as_bytes()).await {
            tracing::debug!(%error, "the other side reads no more");
            return;
        }
        drop(held);
    }
}

/// Why there is no answer to what was asked.
#[derive(Debug)]
pub enum NoAnswer {
    /// The connection had ended before, or the other side says that it did nothing since it is about to end: another may be
    /// asked.
    Unasked,
    /// The connection ended first: what was asked was done or was not.
    Gone,
    /// The other side failed or refused.
    Failed(PartError),
}

/// Asks on a connection. Clones ask on the same one.
#[derive(Clone)]
pub struct Caller {
    waiting: Waiting,
    sender: Sender,
    next: Arc<AtomicU64>,
}

impl Caller {
    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// The other side's, and one that says that the connection ended before there was an answer.
    pub async fn call<R: DeserializeOwned>(
        &self,
        method: &str,
        params: &impl Serialize,
    ) -> Result<R, PartError> {
        self.ask(method, params).await.map_err(|error| match error {
            NoAnswer::Unasked | NoAnswer::Gone => {
                PartError::unavailable(format!("{method}: the connection ended before there was an answer"))
            }
            NoAnswer::Failed(error) => error,
        })
    }

    /// The same, where it matters whether there was an answer.
    ///
    /// # Errors
    /// What came instead of an answer that says what was asked for.
    pub async fn ask<R: DeserializeOwned>(
        &self,
        method: &str,
        params: &impl Serialize,
    ) -> Result<R, NoAnswer> {
        let (reply, answer) = oneshot::channel();
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let line = message::request(Some(id), method, params).map_err(|error| {
            NoAnswer::Failed(PartError::failed(format!("{method}: its parameters have no JSON: {error}")))
        })?;
        {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.as_mut().ok_or(NoAnswer::Unasked)?.insert(id, reply);
        }
        self.sender.line(line, None);
        let result = answer.await.map_err(|_| NoAnswer::Gone)?;
        let result = result.map_err(|fault| match fault {
            fault if fault.is_undone() => NoAnswer::Unasked,
            fault => NoAnswer::Failed(fault.into()),
        })?;
        let answer = serde_json::from_str(result.get());
        answer.map_err(|error| {
            NoAnswer::Failed(PartError::failed(format!("{method}: the answer is not understood: {error}")))
        })
    }
}

impl Caller {
    /// Whether both ask on one connection.
    pub fn is_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.waiting, &other.waiting)
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller").finish_non_exhaustive()
    }
}

/// Answers and tells on a connection. What is sent on one that is gone is lost, which its [`Link`] tells.
#[derive(Clone)]
pub struct Sender(mpsc::UnboundedSender<Line>);

impl Sender {
    /// Answers a request. What is `held` is so until the answer was written.
    pub fn answer(&self, id: u64, result: &Result<Box<RawValue>, Fault>, held: Option<OwnedSemaphorePermit>) {
        match message::response(id, result) {
            Ok(line) => self.line(line, held),
            Err(error) => tracing::error!(%error, "an answer has no JSON"),
        }
    }

    /// Tells something that has no answer.
    pub fn tell(&self, method: &str, params: &impl Serialize, held: Option<OwnedSemaphorePermit>) {
        match message::request(None, method, params) {
            Ok(line) => self.line(line, held),
            Err(error) => tracing::error!(%error, method, "what is to be told has no JSON"),
        }
    }

    fn line(&self, line: String, held: Option<OwnedSemaphorePermit>) {
        // The writer has gone where nobody reads: the Link learns of it too.
        let _ = self.0.send((line, held));
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}
