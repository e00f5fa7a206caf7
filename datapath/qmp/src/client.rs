//! [`Qmp`]: one connection to a QEMU.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::codec::{FramedRead, LinesCodec, LinesCodecError};
use tracing::debug;

use crate::message::{Event, Malformed, Message, Refused};

/// The longest line that is taken from QEMU, 4 MiB: `query-qmp-schema`, the longest answer there is, has a twentieth.
pub const LINE_MAX: usize = 4 << 20;
/// How many events may wait for whoever takes them.
const EVENTS: usize = 1024;
/// How many commands may wait to be written.
const COMMANDS: usize = 64;
/// How long QEMU may take to greet, and to take up a connection. It serves one client at a time.
const GREETING: Duration = Duration::from_secs(5);
/// How long an answer may take. QEMU does one thing at a time: a command waits until the one before it is done.
const ANSWER: Duration = Duration::from_secs(60);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody listens there, or the socket is not there.
    #[error("connecting to the QMP socket {}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It took the connection and said nothing.
    #[error("QEMU did not greet on {} within {} s: does another client have this monitor?", .0.display(), GREETING.as_secs())]
    NoGreeting(PathBuf),
    /// What it said first is not what a QEMU says.
    #[error("greeting on {}", path.display())]
    Greeting {
        /// The socket.
        path: PathBuf,
        /// What was wrong.
        #[source]
        source: QmpError,
    },
}

impl ConnectError {
    /// Whether there is nobody who listens: QEMU has not begun to, or is gone.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        use std::io::ErrorKind::{ConnectionRefused, NotFound};
        matches!(self, Self::Connect { source, .. } if matches!(source.kind(), NotFound | ConnectionRefused))
    }
}

/// Why a command has no answer that says it was done.
#[derive(Clone, Debug, thiserror::Error)]
pub enum QmpError {
    /// QEMU did not do it.
    #[error("QEMU refused {command}")]
    Refused {
        /// The command.
        command: String,
        /// Its words.
        #[source]
        source: Refused,
    },
    /// The connection ended first: it was done, or was not.
    #[error("the connection to QEMU ended before {command} was answered: {why}")]
    Lost {
        /// The command.
        command: String,
        /// What ended it.
        why: Arc<str>,
    },
    /// QEMU hangs, or waits for a back end that does not answer: it may do it yet.
    #[error("QEMU did not answer {command} within {} s: is it stopped, or does a back end of it hang?", ANSWER.as_secs())]
    NoAnswer {
        /// The command.
        command: String,
    },
}

impl QmpError {
    /// What QEMU said, where it refused.
    #[must_use]
    pub fn refused(&self) -> Option<&Refused> {
        match self {
            Self::Refused { source, .. } => Some(source),
            Self::Lost { .. } | Self::NoAnswer { .. } => None,
        }
    }
}

type Reply = oneshot::Sender<Result<Value, Refused>>;

/// What is known of a connection by all that have a part in it.
#[derive(Debug)]
struct State {
    next: u64,
    waiting: HashMap<u64, Reply>,
    /// Why it ended.
    ended: Option<Arc<str>>,
}

type Shared = Arc<Mutex<State>>;

/// Asks on a connection. Clones ask on the same one.
#[derive(Clone, Debug)]
pub struct Qmp {
    lines: mpsc::Sender<String>,
    shared: Shared,
    version: Arc<str>,
}

/// What QEMU tells of itself on a connection, in order and without a gap.
#[derive(Debug)]
pub struct Events {
    events: mpsc::Receiver<Event>,
    shared: Shared,
}

impl Events {
    /// The next; `None`: the connection has ended.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// Why the connection ended, once it has.
    #[must_use]
    pub fn ended(&self) -> Option<Arc<str>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).ended.clone()
    }
}

impl Qmp {
    /// Connects to a QEMU that was started with `-qmp unix:PATH,server=on,wait=off`, and is greeted.
    ///
    /// # Errors
    /// Where nobody listens, another client is served, or no QEMU answers.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn connect(path: &Path) -> Result<(Self, Events), ConnectError> {
        let connecting = UnixStream::connect(path);
        let stream = match timeout(GREETING, connecting).await {
            Ok(stream) => stream.map_err(|source| ConnectError::Connect { path: path.to_owned(), source })?,
            Err(_) => return Err(ConnectError::NoGreeting(path.to_owned())),
        };
        match timeout(GREETING, Self::greeted(stream)).await {
            Ok(connected) => {
                connected.map_err(|source| ConnectError::Greeting { path: path.to_owned(), source })
            }
            Err(_) => Err(ConnectError::NoGreeting(path.to_owned())),
        }
    }

    /// The same on a connection that is there already. It waits for the greeting as long as it takes.
    ///
    /// # Errors
    /// Where the other side is no QEMU.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn greeted(
        stream: impl AsyncRead + AsyncWrite + Send + 'static,
    ) -> Result<(Self, Events), QmpError> {
        let (reader, writer) = tokio::io::split(stream);
        let mut input = FramedRead::new(reader, LinesCodec::new_with_max_length(LINE_MAX));
        let lost = |why: String| QmpError::Lost { command: "the greeting".to_owned(), why: why.into() };
        let version = match next(&mut input).await.map_err(|end| lost(chain(&end)))? {
            Message::Greeting { version } => version.into(),
            Message::Answer { .. } | Message::Event(_) => return Err(lost("it is no QEMU's".to_owned())),
        };
        let state = State { next: 0, waiting: HashMap::new(), ended: None };
        let shared = Arc::new(Mutex::new(state));
        let (lines, to_write) = mpsc::channel(COMMANDS);
        let (tell, events) = mpsc::channel(EVENTS);
        tokio::spawn(run(input, writer, to_write, tell, Arc::clone(&shared)));
        let qmp = Self { lines, shared: Arc::clone(&shared), version };
        qmp.execute("qmp_capabilities", json!({})).await?;
        Ok((qmp, Events { events, shared }))
    }

    /// QEMU's version, such as `11.1.3`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Whether both ask on one connection.
    #[must_use]
    pub fn is_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Has a command done, and waits for its answer. `arguments` are an object.
    ///
    /// # Errors
    /// QEMU's, and what says that there is no answer. Dropped, it is done all the same.
    pub async fn execute(&self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        let (reply, answer) = oneshot::channel();
        let id = {
            let mut state = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(why) = &state.ended {
                return Err(QmpError::Lost { command: command.to_owned(), why: Arc::clone(why) });
            }
            state.next += 1;
            let id = state.next;
            state.waiting.insert(id, reply);
            id
        };
        let mut line = json!({"execute": command, "id": id});
        line["arguments"] = arguments;
        let line = line.to_string();
        let asked = async {
            // An error says that the task has gone, and then no answer comes either.
            let _ = self.lines.send(line).await;
            answer.await
        };
        match timeout(ANSWER, asked).await {
            Ok(Ok(result)) => {
                result.map_err(|source| QmpError::Refused { command: command.to_owned(), source })
            }
            Ok(Err(_)) => {
                let state = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
                let why = state.ended.clone().unwrap_or_else(|| "nobody listens to events".into());
                Err(QmpError::Lost { command: command.to_owned(), why })
            }
            Err(_) => Err(QmpError::NoAnswer { command: command.to_owned() }),
        }
    }
}

/// What ended a connection.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("QEMU closed it")]
    Closed,
    #[error("reading from QEMU")]
    Read(#[source] std::io::Error),
    #[error("writing to QEMU")]
    Write(#[source] std::io::Error),
    #[error("QEMU sent a line of more than {LINE_MAX} bytes")]
    TooLong,
    #[error("QEMU sent a line that is none of QMP")]
    Malformed(#[from] Malformed),
    #[error("QEMU greeted a second time")]
    Greeting,
    #[error("QEMU answered a command {0} that nobody gave")]
    Unasked(u64),
    #[error("{EVENTS} events of QEMU wait for somebody to take them")]
    Overrun,
    #[error("it is not needed any more")]
    Unneeded,
}

async fn next<R: AsyncRead + Unpin>(input: &mut FramedRead<R, LinesCodec>) -> Result<Message, End> {
    loop {
        let line = match input.next().await {
            None => return Err(End::Closed),
            Some(Ok(line)) => line,
            Some(Err(LinesCodecError::MaxLineLengthExceeded)) => return Err(End::TooLong),
            Some(Err(LinesCodecError::Io(error))) => return Err(End::Read(error)),
        };
        if !line.trim().is_empty() {
            return Ok(Message::parse(&line)?);
        }
    }
}

/// The task of a connection.
async fn run<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    mut input: FramedRead<R, LinesCodec>,
    mut output: W,
    mut lines: mpsc::Receiver<String>,
    events: mpsc::Sender<Event>,
    shared: Shared,
) {
    let reading = async {
        loop {
            match next(&mut input).await {
                Ok(Message::Answer { id, result }) => {
                    let mut state = shared.lock().unwrap_or_else(PoisonError::into_inner);
                    let Some(reply) = state.waiting.remove(&id) else { return End::Unasked(id) };
                    // Who asked may have gone.
                    let _ = reply.send(result);
                }
                Ok(Message::Event(event)) => match events.try_send(event) {
                    Ok(()) => {}
                    Err(mpsc::error::TrySendError::Full(_)) => return End::Overrun,
                    Err(mpsc::error::TrySendError::Closed(_)) => return End::Unneeded,
                },
                Ok(Message::Greeting { .. }) => return End::Greeting,
                Err(end) => return end,
            }
        }
    };
    let writing = async {
        while let Some(mut line) = lines.recv().await {
            line.push('\n');
            if let Err(error) = output.write_all(line.as_bytes()).await {
                return End::Write(error);
            }
        }
        End::Unneeded
    };
    let end = tokio::select! {
        end = reading => end,
        end = writing => end,
        () = events.closed() => End::Unneeded,
    };
    let why = chain(&end);
    debug!("the connection to QEMU has ended: {why}");
    let mut state = shared.lock().unwrap_or_else(PoisonError::into_inner);
    state.ended = Some(why.into());
    // Whoever waits is told by that.
    state.waiting.clear();
}

/// An error with its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
