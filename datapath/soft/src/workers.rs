//! [`Workers`]: the supervisor of the process that moves packets. It tells each worker what the one before had, and starts
//! another when it ends, whatever it ends by.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, setsockopt, socketpair, sockopt};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot, watch};

use crate::fds;
use crate::job::{self, Job, Order, Report};

/// After a worker that ended before it did anything another is started so much later, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LAST_PAUSE: Duration = Duration::from_secs(5);
/// Within which a worker of another program must take orders before it replaces the one that runs.
const START: Duration = Duration::from_secs(10);

/// The program of a worker. It calls [`crate::worker::run`] on its standard input, which is the socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its file.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
}

impl Program {
    /// `virtnet-soft-worker` with so many threads.
    pub fn new(path: impl Into<PathBuf>, threads: usize) -> Self {
        Self { path: path.into(), arguments: vec!["--threads".into(), threads.to_string().into()] }
    }
}

/// What is told of the worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerState {
    /// The process that takes orders now.
    pub pid: Option<u32>,
    /// How many have come to take orders.
    pub started: u64,
}

/// Why a worker could not be replaced. The one before goes on then.
#[derive(Debug, thiserror::Error)]
pub enum ReplaceError {
    /// The program can't be run.
    #[error("starting the worker {}", path.display())]
    Start {
        /// Its file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It runs and takes no orders.
    #[error("the worker {} ended or did not answer within {} s: is it a worker of this version?", path.display(), START.as_secs())]
    Silent {
        /// Its file.
        path: PathBuf,
    },
    /// The supervisor has ended.
    #[error("there are no workers any more")]
    Ended,
}

/// What came of an order: for each queue the index to go on from.
pub(crate) type Outcome = Result<Vec<(u16, u16)>, String>;

enum Ask {
    Have(u64, Option<Job>, oneshot::Sender<Outcome>),
    Replace(Program, oneshot::Sender<Result<(), ReplaceError>>),
}

/// The worker, which all functions share. It ends with the last clone of this.
#[derive(Clone, Debug)]
pub struct Workers {
    asks: mpsc::UnboundedSender<Ask>,
    state: watch::Receiver<WorkerState>,
}

impl Workers {
    /// Starts a worker, and others after it. Must be called inside a tokio runtime.
    pub fn start(program: Program) -> Self {
        if let Err(error) = raise_open_files() {
            tracing::warn!(%error, "the limit of open files stays as it is: it may be reached by some hundred functions");
        }
        let (asks, inbox) = mpsc::unbounded_channel();
        let (tell, state) = watch::channel(WorkerState::default());
        tokio::spawn(Supervisor { program, inbox, tell, held: BTreeMap::new(), sequence: 0 }.supervise());
        Self { asks, state }
    }

    /// The process that works, and every change of it.
    pub fn watch(&self) -> watch::Receiver<WorkerState> {
        self.state.clone()
    }

    /// Has another program do the work from now on: a live update. Drivers see no reset; packets wait meanwhile.
    ///
    /// # Errors
    /// Where it can't be started; the one before goes on then.
    pub async fn replace(&self, program: Program) -> Result<(), ReplaceError> {
        let (done, wait) = oneshot::channel();
        self.asks.send(Ask::Replace(program, done)).map_err(|_| ReplaceError::Ended)?;
        wait.await.map_err(|_| ReplaceError::Ended)?
    }

    /// Has a worker have a function so, or not at all. It returns once one has, over as many workers' ends as there are.
    pub(crate) async fn have(&self, function: u64, job: Option<Job>) -> Outcome {
        let (done, wait) = oneshot::channel();
        let ended = |_| "there are no workers any more".to_owned();
        self.asks.send(Ask::Have(function, job, done)).map_err(|_| ended(()))?;
        wait.await.map_err(|_| ended(()))?
    }
}

/// Lets this process, and workers after it, have as many files open as they may: a function has a dozen in either, and the limit
/// that processes begin with is 1024 for the sake of select(2), which is not used here.
fn raise_open_files() -> nix::Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)
}

/// A function as a worker is to have it.
struct Held {
    job: Option<Job>,
    sequence: u64,
    /// Who waits for a worker to have it so.
    waiting: Option<oneshot::Sender<Outcome>>,
}

struct Supervisor {
    program: Program,
    inbox: mpsc::UnboundedReceiver<Ask>,
    tell: watch::Sender<WorkerState>,
    held: BTreeMap<u64, Held>,
    sequence: u64,
}

/// Why a worker is not served any further.
enum End {
    /// Nobody wants any.
    Unwanted,
    /// It ended, having done something or not.
    Gone { useful: bool },
    /// Another is ready to take over.
    Replaced(Box<Process>),
}

impl Supervisor {
    async fn supervise(mut self) {
        let mut pause = FIRST_PAUSE;
        let mut ready: Option<Process> = None;
        loop {
            let process = match ready.take() {
                Some(process) => Ok(process),
                None => Process::start(&self.program),
            };
            let end = match process {
                Ok(process) => self.serve(process).await,
                Err(error) => {
                    let path = self.program.path.display();
                    tracing::error!(%path, %error, "a worker can't be started: no packets pass until one can be");
                    End::Gone { useful: false }
                }
            };
            self.tell.send_modify(|state| state.pid = None);
            match end {
                End::Unwanted => return,
                End::Gone { useful: true } => pause = FIRST_PAUSE,
                End::Replaced(process) => ready = Some(*process),
                End::Gone { useful: false } => {
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = self.tell.closed() => return,
                    }
                    pause = (pause * 2).min(LAST_PAUSE);
                }
            }
        }
    }

    /// Has a worker do all there is to do until it ends.
    async fn serve(&mut self, mut process: Process) -> End {
        let mut useful = false;
        // Functions that no worker is to have: the one that had them is gone.
        self.held.retain(|_, held| {
            if held.job.is_none()
                && let Some(waiting) = held.waiting.take()
            {
                let _ = waiting.send(Ok(Vec::new()));
            }
            held.job.is_some()
        });
        for function in self.held.keys().copied().collect::<Vec<_>>() {
            if let Err(error) = self.order(&process, function).await {
                tracing::warn!(%error, "a worker takes no orders");
                process.end().await;
                return End::Gone { useful };
            }
        }
        loop {
            let result = tokio::select! {
                ask = self.inbox.recv() => match ask {
                    None => {
                        process.quit().await;
                        return End::Unwanted;
                    }
                    Some(Ask::Have(function, job, waiting)) => {
                        self.sequence += 1;
                        let held = Held { job, sequence: self.sequence, waiting: Some(waiting) };
                        self.held.insert(function, held);
                        self.order(&process, function).await
                    }
                    Some(Ask::Replace(program, done)) => match Process::ready(&program).await {
                        Ok(next) => {
                            self.program = program;
                            process.quit().await;
                            let _ = done.send(Ok(()));
                            return End::Replaced(Box::new(next));
                        }
                        Err(error) => {
                            let _ = done.send(Err(error));
                            Ok(())
                        }
                    },
                },
                report = process.receive() => match report {
                    Ok(Some(report)) => {
                        useful |= matches!(report, Report::Done { .. });
                        self.reported(report, process.child.id());
                        Ok(())
                    }
                    Ok(None) => Err(io::ErrorKind::ConnectionReset.into()),
                    Err(error) => Err(error),
                },
            };
            if let Err(error) = result {
                let status = process.end().await;
                tracing::warn!(%error, ?status, "a worker ended: another is started");
                return End::Gone { useful };
            }
        }
    }

    async fn order(&self, process: &Process, function: u64) -> io::Result<()> {
        let Some(held) = self.held.get(&function) else { return Ok(()) };
        let sequence = held.sequence;
        match &held.job {
            Some(Job { description, fds }) => {
                let order = Order::Run { function, sequence, description: description.clone() };
                process.send(&order, fds).await
            }
            None => process.send(&Order::Stop { function, sequence }, &[]).await,
        }
    }

    fn reported(&mut self, report: Report, pid: Option<u32>) {
        match report {
            Report::Ready => self.tell.send_modify(|state| {
                *state = WorkerState { pid, started: state.started + 1 };
            }),
            Report::Stopped { function, queue, reason } => {
                tracing::warn!(function, queue, reason, "a queue is stopped");
            }
            Report::Done { function, sequence, result } => {
                let Some(held) = self.held.get_mut(&function).filter(|held| held.sequence == sequence) else {
                    return;
                };
                match (held.waiting.take(), &result) {
                    (Some(waiting), _) => drop(waiting.send(result)),
                    (None, Err(error)) => {
                        tracing::warn!(function, error, "a worker can't have a function again");
                    }
                    (None, Ok(_)) => {}
                }
                if held.job.is_none() {
                    self.held.remove(&function);
                }
            }
        }
    }
}

/// A worker's process. It does not outlive this.
struct Process {
    child: Child,
    socket: AsyncFd<OwnedFd>,
    /// What has come of the next report.
    fds: Vec<OwnedFd>,
    is_ready: bool,
}

impl Process {
    fn start(program: &Program) -> io::Result<Self> {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        // A function with all its queues is one message.
        setsockopt(&ours, sockopt::SndBuf, &(1 << 20))?;
        nix::fcntl::fcntl(&ours, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))?;
        let child = Command::new(&program.path)
            .args(&program.arguments)
            .stdin(Stdio::from(theirs))
            // Ctrl-C on a terminal is for the supervisor, which ends it in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        // SAFETY: an owned descriptor is the same and open as long as it lives.
        let socket = unsafe { AsyncFd::register(ours) }?;
        Ok(Self { child, socket, fds: Vec::new(), is_ready: false })
    }

    /// One that takes orders.
    async fn ready(program: &Program) -> Result<Self, ReplaceError> {
        let path = program.path.clone();
        let mut process =
            Self::start(program).map_err(|source| ReplaceError::Start { path: path.clone(), source })?;
        match tokio::time::timeout(START, process.receive()).await {
            Ok(Ok(Some(Report::Ready))) => {
                process.is_ready = true;
                Ok(process)
            }
            _ => {
                process.end().await;
                Err(ReplaceError::Silent { path })
            }
        }
    }

    async fn send(&self, order: &Order, fds: &[Arc<OwnedFd>]) -> io::Result<()> {
        for (bytes, fds) in job::packets(order, fds)? {
            let send = |socket: &OwnedFd| fds::send(socket.as_fd(), &bytes, &fds, MsgFlags::MSG_DONTWAIT);
            self.socket.async_io(Interest::WRITABLE, send).await?;
        }
        Ok(())
    }

    async fn receive(&mut self) -> io::Result<Option<Report>> {
        // It was told before this one was served.
        if std::mem::take(&mut self.is_ready) {
            return Ok(Some(Report::Ready));
        }
        let fds = &mut self.fds;
        let receive = |socket: &OwnedFd| job::receive(socket.as_fd(), fds);
        self.socket.async_io(Interest::READABLE, receive).await
    }

    /// Has it bring its queues to rest, and end.
    async fn quit(&mut self) {
        // One that is gone needs no asking.
        let _ = self.send(&Order::Quit, &[]).await;
        if tokio::time::timeout(START, self.child.wait()).await.is_err() {
            tracing::warn!("a worker does not end when it is asked to");
        }
        self.end().await;
    }

    /// Ends it, unless it has ended. After this nothing of it touches a ring any more.
    async fn end(&mut self) -> Option<std::process::ExitStatus> {
        let _ = self.child.start_kill();
        self.child.wait().await.ok()
    }
}
