//! [`Function`]: a virtio-net function as a vhost-user back end.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, oneshot, watch};
use virtnet_controller::Settings;
use virtnet_model::{Feature, Features};

use crate::config::Config;
use crate::counters::QueueCounters;
use crate::fds;
use crate::job::Job;
use crate::offer::{Accepted, Carries, MAX_PAIRS, offered, queue_pairs};
use crate::shared::Shared;
use crate::tap::Tap;
use crate::vhost::message::{self, CONFIG_CHANGE};
use crate::vhost::session::{Device, Session};
use crate::vhost::socket::{Connection, Ends, Message, Socket, Source};
use crate::workers::{Outcome, Workers};

/// Records of the memfds: of all queues that a function can be configured to have.
const RECORDS: usize = 2 * MAX_PAIRS as usize;

/// What is seen of a function's driver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// A front end is connected.
    pub connected: bool,
    /// A driver uses the function: DRIVER_OK where the front end tells the device status, else rings that are started.
    pub in_use: bool,
    /// The features that a driver accepted; `None`: none has got so far.
    pub negotiated: Option<Features>,
    /// Queue pairs that the driver has enabled.
    pub active_pairs: u16,
    /// What the front end last did that it may not, or why the function can't run; it is counted in `refused`.
    pub fault: Option<String>,
    /// Messages that were refused, and workers' refusals, since the function was made.
    pub refused: u64,
}

/// Why a function can't be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum FunctionError {
    /// Its socket or its memfds can't be made.
    #[error("opening a function at {}", path.display())]
    Open {
        /// Its socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its TAP can't have so many queues.
    #[error("giving {tap} {pairs} queues")]
    Queues {
        /// Its name.
        tap: String,
        /// How many it was to have.
        pairs: u16,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A driver has it.
    #[error("the function at {} is in use: have the driver let go of it", path.display())]
    InUse {
        /// Its socket.
        path: PathBuf,
    },
    /// It has ended.
    #[error("the function has ended")]
    Ended,
}

enum Ask {
    Configure(Device, oneshot::Sender<bool>),
    Link(bool, oneshot::Sender<()>),
    Tap(Option<Arc<Tap>>, oneshot::Sender<()>),
    Close(oneshot::Sender<()>),
}

/// A function. It ends when this is dropped, and is wholly gone when [`Function::close`] returns; its TAP stays.
#[derive(Debug)]
pub struct Function {
    asks: mpsc::UnboundedSender<Ask>,
    state: watch::Receiver<State>,
    counters: Arc<Shared>,
    socket: Socket,
    behind: Mutex<Behind>,
}

/// What is behind a function.
#[derive(Debug)]
struct Behind {
    tap: Option<Arc<Tap>>,
    /// Queues that the TAP has to have.
    pairs: u16,
}

impl Function {
    /// Makes a function that presents these settings, as far as the switch behind its TAP carries what it offers. The TAP is this
    /// function's alone; without one, queues wait until [`Function::set_tap`] gives it one. Must be called inside a tokio runtime, in
    /// the TAP's network namespace.
    ///
    /// # Errors
    /// Where the socket is in use or can't be made, or the TAP can't have as many queues as the settings say.
    pub fn open(
        workers: &Workers,
        tap: Option<Arc<Tap>>,
        settings: &Settings,
        carries: Carries,
        socket: Socket,
    ) -> Result<Self, FunctionError> {
        static FUNCTIONS: AtomicU64 = AtomicU64::new(0);
        let device = device(settings, carries);
        let behind = Behind { tap, pairs: device.config.pairs };
        behind.grow()?;
        let failed = |source| FunctionError::Open { path: socket.path().to_owned(), source };
        let shared = |name| Shared::create(name, RECORDS).and_then(|shared| Ok((shared.fd()?, shared)));
        let (counters_fd, counters) = shared("virtnet-counters").map_err(failed)?;
        let (progress, _) = shared("virtnet-progress").map_err(failed)?;
        let source = Source::open(&socket).map_err(failed)?;
        let (asks, inbox) = mpsc::unbounded_channel();
        let (tell, state) = watch::channel(State::default());
        let task = Task {
            number: FUNCTIONS.fetch_add(1, Ordering::Relaxed),
            socket: socket.path().to_owned(),
            workers: workers.clone(),
            tap: behind.tap.clone(),
            device,
            progress: Arc::new(progress),
            counters: Arc::new(counters_fd),
            inbox,
            tell,
            told: None,
            given: false,
        };
        tokio::spawn(task.serve(source));
        Ok(Self { asks, state, counters: Arc::new(counters), socket, behind: Mutex::new(behind) })
    }

    /// What is seen of its driver, and every change of that.
    pub fn watch(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// Its socket.
    pub fn socket(&self) -> &Path {
        self.socket.path()
    }

    /// What its queues have counted, by number: two for each pair that it can have. Nobody need be asked for that.
    pub fn counters(&self, queues: u16) -> Vec<QueueCounters> {
        let queues = usize::from(queues).min(RECORDS);
        (0..queues).map(|queue| QueueCounters::read(self.counters.record(queue))).collect()
    }

    /// Has it present other settings. A front end that is connected is told of another MAC, MTU or link; one that was told of other
    /// features or queues has its connection ended, and sees them when it connects again.
    ///
    /// # Errors
    /// Where a driver has it, or the TAP can't have as many queues.
    pub async fn configure(&self, settings: &Settings, carries: Carries) -> Result<(), FunctionError> {
        let device = device(settings, carries);
        {
            let mut behind = self.behind();
            behind.pairs = device.config.pairs;
            behind.grow()?;
        }
        let (done, wait) = oneshot::channel();
        self.asks.send(Ask::Configure(device, done)).map_err(|_| FunctionError::Ended)?;
        let changed = wait.await.map_err(|_| FunctionError::Ended)?;
        let path = self.socket().to_owned();
        if changed { Ok(()) } else { Err(FunctionError::InUse { path }) }
    }

    /// Has its driver see a link or none (STATUS of virtio 1.2, section 5.1.4), also while it is in use. Packets pass all the
    /// same: it is for the driver to stop.
    ///
    /// # Errors
    /// Where it has ended.
    pub async fn set_link(&self, up: bool) -> Result<(), FunctionError> {
        let (done, wait) = oneshot::channel();
        self.asks.send(Ask::Link(up, done)).map_err(|_| FunctionError::Ended)?;
        wait.await.map_err(|_| FunctionError::Ended)
    }

    /// Has its packets go by another TAP, or wait until it has one, also while it is in use. Once this returns the one before is
    /// not this function's any more. Must be called in the TAP's network namespace.
    ///
    /// # Errors
    /// Where the TAP can't have as many queues; then nothing has changed.
    pub async fn set_tap(&self, tap: Option<Arc<Tap>>) -> Result<(), FunctionError> {
        let (done, wait) = oneshot::channel();
        {
            let mut behind = self.behind();
            let next = Behind { tap, pairs: behind.pairs };
            next.grow()?;
            self.asks.send(Ask::Tap(next.tap.clone(), done)).map_err(|_| FunctionError::Ended)?;
            *behind = next;
        }
        wait.await.map_err(|_| FunctionError::Ended)
    }

    fn behind(&self) -> MutexGuard<'_, Behind> {
        // Whoever panicked was before it was another.
        self.behind.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends it: its connection, its socket, and its worker's part.
    pub async fn close(self) {
        let (done, wait) = oneshot::channel();
        // Where it has ended there is nothing to wait for.
        let _ = self.asks.send(Ask::Close(done));
        let _ = wait.await;
    }
}

impl Behind {
    fn grow(&self) -> Result<(), FunctionError> {
        let Self { tap: Some(tap), pairs } = self else { return Ok(()) };
        tap.grow(*pairs).map_err(|source| FunctionError::Queues {
            tap: tap.name().to_string(),
            pairs: *pairs,
            source,
        })
    }
}

fn device(settings: &Settings, carries: Carries) -> Device {
    let features = offered(&settings.features, carries);
    let config = Config {
        mac: settings.mac,
        link: true,
        pairs: queue_pairs(settings.max_queues, &features),
        mtu: u16::try_from(u32::from(settings.mtu)).unwrap_or(u16::MAX),
    };
    let queue_size = u16::try_from(u32::from(settings.queue_size)).unwrap_or(1 << 15);
    Device { offered: features.bits(), queue_size, config }
}

struct Task {
    number: u64,
    socket: PathBuf,
    workers: Workers,
    /// `None`: what the driver sends stays in its rings.
    tap: Option<Arc<Tap>>,
    device: Device,
    progress: Arc<OwnedFd>,
    counters: Arc<OwnedFd>,
    inbox: mpsc::UnboundedReceiver<Ask>,
    tell: watch::Sender<State>,
    /// What a worker has of it, and the indexes that it told. Those of queues at rest stay so.
    told: Option<(Job, Vec<(u16, u16)>)>,
    /// The workers have been given something of it, which one of them may have refused: they keep it until they are told.
    given: bool,
}

/// What goes on after something was asked.
enum Next {
    Same,
    /// The front end must connect again.
    Reconnect,
    End(Option<oneshot::Sender<()>>),
}

impl Task {
    async fn serve(mut self, source: Source) {
        let done = loop {
            tokio::select! {
                connection = source.next() => match connection {
                    Ok(connection) => {
                        if let Some(end) = self.connected(connection).await {
                            break end;
                        }
                    }
                    Err(error) => {
                        tracing::error!(socket = %self.socket.display(), %error, "no front end can connect any more");
                        self.fault(format!("no front end can connect: {error}"));
                        break None;
                    }
                },
                ask = self.inbox.recv() => if let Next::End(done) = self.asked(ask, None).await {
                    break done;
                },
            }
        };
        // The socket is gone before whoever asked for it is told, and the TAP is not held here any more.
        drop(source);
        drop(self);
        if let Some(done) = done {
            let _ = done.send(());
        }
    }

    /// Serves a front end until its connection ends; with who wants to know where the function ends.
    async fn connected(&mut self, mut connection: Connection) -> Option<Option<oneshot::Sender<()>>> {
        let mut session = Session::new(self.device);
        self.show(Some(&session));
        let end = loop {
            tokio::select! {
                message = connection.receive() => {
                    let result = match message {
                        Ok(message) => self.carry_out(&connection, &mut session, message).await,
                        Err(error) => Err(error),
                    };
                    if let Err(error) = result {
                        if !matches!(error, Ends::Closed) {
                            self.fault(chain(&error));
                        }
                        tracing::debug!(socket = %self.socket.display(), %error, "a front end's connection ends");
                        break None;
                    }
                }
                ask = self.inbox.recv() => match self.asked(ask, Some(&mut session)).await {
                    Next::Same => {}
                    Next::Reconnect => break None,
                    Next::End(done) => break Some(done),
                },
            }
        };
        drop(connection);
        // What is to go on from is in the guest's memory.
        let _ = self.have(None, &session).await;
        self.show(None);
        end
    }

    async fn asked(&mut self, ask: Option<Ask>, session: Option<&mut Session>) -> Next {
        match ask {
            None => Next::End(None),
            Some(Ask::Close(done)) => Next::End(Some(done)),
            Some(Ask::Link(up, done)) => {
                self.device.config.link = up;
                self.changed(session);
                let _ = done.send(());
                Next::Same
            }
            Some(Ask::Tap(tap, done)) => {
                self.use_tap(tap, session).await;
                let _ = done.send(());
                Next::Same
            }
            Some(Ask::Configure(device, done)) => {
                if session.as_ref().is_some_and(|session| session.in_use()) {
                    let _ = done.send(false);
                    return Next::Same;
                }
                let link = self.device.config.link;
                let before = std::mem::replace(&mut self.device, device);
                self.device.config.link = link;
                let same = before.offered == device.offered
                    && before.queue_size == device.queue_size
                    && before.config.pairs == device.config.pairs;
                if same {
                    self.changed(session);
                }
                let _ = done.send(true);
                if same { Next::Same } else { Next::Reconnect }
            }
        }
    }

    /// The configuration space is another.
    fn changed(&self, session: Option<&mut Session>) {
        let Some(session) = session else { return };
        session.device.config = self.device.config;
        if let Some(backend) = session.backend.as_ref().filter(|_| session.tells_config()) {
            let told = fds::send(
                backend.as_fd(),
                &message::ask(CONFIG_CHANGE),
                &[],
                nix::sys::socket::MsgFlags::MSG_DONTWAIT,
            );
            if let Err(error) = told {
                tracing::warn!(socket = %self.socket.display(), %error, "a front end can't be told of another configuration");
            }
        }
    }

    async fn carry_out(
        &mut self,
        connection: &Connection,
        session: &mut Session,
        (header, payload, fds): Message,
    ) -> Result<(), Ends> {
        let answer = session.handle(header, &payload, fds);
        let acknowledged = header.need_reply && session.acknowledges();
        let answer = match answer {
            Ok(answer) => answer,
            // Who asks for an answer is told; who does not would go on as if it had been done.
            Err(wrong) if acknowledged => {
                tracing::warn!(socket = %self.socket.display(), error = %wrong, "a front end's message is refused");
                self.fault(wrong.to_string());
                connection.send(&message::reply(header.request, &1u64.to_ne_bytes()), None).await?;
                return Ok(());
            }
            Err(wrong) => return Err(wrong.into()),
        };
        let outcome = self.sync(session, answer.base_of).await;
        self.note(&outcome);
        self.show(Some(session));
        let payload = match answer.base_of {
            Some(queue) => {
                let indexes = outcome.as_deref().unwrap_or_default();
                let index = indexes.iter().find(|(index, _)| *index == queue);
                let index = index.map_or_else(|| session.base(queue), |(_, index)| *index);
                Some(session.stopped(queue, index))
            }
            None => answer.payload,
        };
        let failed = u64::from(outcome.is_err());
        let payload = payload.or_else(|| acknowledged.then(|| failed.to_ne_bytes().into()));
        if let Some(payload) = payload {
            connection.send(&message::reply(header.request, &payload), answer.fd.as_ref()).await?;
        }
        Ok(())
    }

    /// Has packets go by another TAP, of which a worker hears only once it has let go of the one before.
    async fn use_tap(&mut self, tap: Option<Arc<Tap>>, session: Option<&mut Session>) {
        let before = self.tap.take();
        let Some(session) = session else {
            self.tap = tap;
            return;
        };
        if let Some(before) = before {
            let outcome = self.sync(session, None).await;
            self.note(&outcome);
            if let Err(error) = before.detach(|_| false) {
                self.note(&Err(format!("switching the queues of {}: {error}", before.name())));
            }
        }
        self.tap = tap;
        let outcome = self.sync(session, None).await;
        self.note(&outcome);
    }

    /// Tells where a worker can't have the function as it is to be.
    fn note(&self, outcome: &Outcome) {
        if let Err(error) = outcome {
            tracing::warn!(socket = %self.socket.display(), error, "the function can't run");
            self.fault(error.clone());
        }
    }

    /// Has a worker have what the session now says, where it is another than it was told. A queue that is to stop is settled.
    async fn sync(&mut self, session: &Session, settle: Option<u16>) -> Outcome {
        let tap = |pair| self.tap.as_ref()?.queue(pair);
        match session.job(&self.progress, &self.counters, settle, tap) {
            Ok(job) => self.have(job, session).await,
            Err(wrong) => {
                self.have(None, session).await?;
                Err(wrong.to_string())
            }
        }
    }

    async fn have(&mut self, job: Option<Job>, session: &Session) -> Outcome {
        match (&job, &self.told) {
            (Some(job), Some((told, indexes))) if job.same(told) => return Ok(indexes.clone()),
            (None, None) if !self.given => return Ok(Vec::new()),
            _ => {}
        }
        // A TAP's queue is active before a worker reads it, and idle only after.
        let pairs: Vec<u16> = job.iter().flat_map(|job| job.description.taps.keys().copied()).collect();
        let failed = |tap: &Tap, error| format!("switching the queues of {}: {error}", tap.name());
        if let (Some(tap), Some(accepted)) = (&self.tap, session.accepted().filter(|_| !pairs.is_empty()))
            && let Err(error) = tap.attach(Accepted(accepted), |pair| pairs.contains(&pair))
        {
            // What is active now and was not is read by nobody.
            let told = self.told.as_ref().map(|(told, _)| &told.description.taps);
            let _ = tap.detach(|pair| told.is_some_and(|taps| taps.contains_key(&pair)));
            return Err(failed(tap, error));
        }
        self.told = None;
        self.given = job.is_some();
        let outcome = self.workers.have(self.number, job.clone()).await;
        self.told = job.zip(outcome.clone().ok());
        let runs = outcome.is_ok();
        if let Some(tap) = &self.tap {
            tap.detach(|pair| runs && pairs.contains(&pair)).map_err(|error| failed(tap, error))?;
        }
        outcome
    }

    fn show(&self, session: Option<&Session>) {
        let state = session.map(|session| {
            let negotiated = session.accepted().map(|bits| {
                let known = Feature::ALL.iter().filter(|feature| bits >> feature.bit() & 1 == 1);
                known.copied().collect::<Features>()
            });
            let pairs = (0..session.device.config.pairs).filter(|pair| session.active(*pair)).count();
            (session.in_use(), negotiated, u16::try_from(pairs).unwrap_or(u16::MAX))
        });
        self.tell.send_if_modified(|shown| {
            let connected = state.is_some();
            let (in_use, negotiated, active_pairs) = state.unwrap_or_default();
            let next = State { connected, in_use, negotiated, active_pairs, ..shown.clone() };
            let changed = next != *shown;
            *shown = next;
            changed
        });
    }

    fn fault(&self, reason: String) {
        self.tell.send_modify(|state| {
            state.fault = Some(reason);
            state.refused += 1;
        });
    }
}

/// An error with what caused it, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
