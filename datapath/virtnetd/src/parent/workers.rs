//! The workers, one after another: [`Workers`].

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use virtnet_model::PartError;
use virtnet_rpc::{Caller, Link, NoAnswer};

use super::Shared;
use super::device::attend;
use crate::wire::{self, End, Start};

/// How long there is none after a worker ended by itself. Where it never served, the wait doubles up to [`LAST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LAST_WAIT: Duration = Duration::from_secs(5);
/// How often a worker is asked whether it is there.
const PING: Duration = Duration::from_secs(5);
/// One that has not answered for so long hangs, and is killed.
const HANGS: Duration = Duration::from_secs(10);
/// How long one that is to end may take for it.
const LAST: Duration = Duration::from_secs(10);

/// How it stands with the worker.
#[derive(Clone, Debug)]
pub(super) enum State {
    /// There is none just now.
    Starting,
    /// It works.
    Up(Caller),
}

/// Asks for a worker in place of the one that works, and says what it logs.
#[derive(Clone, Debug)]
pub(super) struct Handle {
    restart: Arc<Notify>,
    log: Arc<Mutex<Option<String>>>,
}

impl Handle {
    /// Another worker takes over.
    pub(super) fn restart(&self) {
        self.restart.notify_one();
    }

    /// The filter of later workers' logs.
    pub(super) fn set_log(&self, filter: &str) {
        *self.log.lock().unwrap_or_else(PoisonError::into_inner) = Some(filter.to_owned());
    }

    fn log(&self) -> Option<String> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Starts workers, and another whenever one ends.
#[derive(Debug)]
pub(super) struct Workers {
    program: PathBuf,
    arguments: Vec<String>,
    conf: String,
    shared: Arc<Shared>,
    state: watch::Sender<State>,
    /// The process of the worker of now.
    process: watch::Sender<Option<u32>>,
    handle: Handle,
}

/// Why a worker is no more.
enum Ended {
    /// By itself, or by someone who killed it.
    Alone,
    /// Because another was asked for.
    ForAnother,
}

impl Workers {
    /// None yet.
    pub(super) fn new(
        program: PathBuf,
        arguments: Vec<String>,
        conf: String,
        shared: Arc<Shared>,
        process: watch::Sender<Option<u32>>,
    ) -> Self {
        let handle = Handle { restart: Arc::new(Notify::new()), log: Arc::default() };
        let state = watch::Sender::new(State::Starting);
        Self { program, arguments, conf, shared, state, process, handle }
    }

    pub(super) fn state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    pub(super) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Sees to it that there is a worker, for as long as it is polled.
    pub(super) async fn run(&self) {
        let mut wait = FIRST_WAIT;
        loop {
            let ended = self.run_one().await;
            let served = matches!(self.state.send_replace(State::Starting), State::Up(_));
            self.process.send_replace(None);
            match ended {
                Ok(Ended::ForAnother) => continue,
                Ok(Ended::Alone) => {}
                Err(error) => tracing::error!("{error:#}; it is tried again"),
            }
            wait = if served { FIRST_WAIT } else { wait };
            sleep(wait).await;
            wait = (wait * 2).min(LAST_WAIT);
        }
    }

    /// One worker from its start to its end.
    async fn run_one(&self) -> anyhow::Result<Ended> {
        let (mut child, stream) = self.spawn().context("starting a worker")?;
        let link = Link::new(stream);
        let caller = link.caller();
        let ended = {
            let attend = attend(link, &self.shared);
            tokio::pin!(attend);
            tokio::select! {
                () = &mut attend => Ended::Alone,
                ended = self.lead(caller) => match ended {
                    Led::Hangs => {
                        tracing::error!("the worker has not answered for {} s and is killed", HANGS.as_secs());
                        child.start_kill().context("killing the worker")?;
                        Ended::Alone
                    }
                    Led::Refused(error) => {
                        tracing::error!("the worker can't serve: {error}");
                        Ended::Alone
                    }
                    Led::ToEnd(caller) => {
                        let end = caller.call::<()>(wire::END, &End { with_service: false });
                        let ended = async {
                            tokio::select! {
                                result = timeout(LAST, end) => result,
                                () = &mut attend => Ok(Ok(())),
                            }
                        };
                        match ended.await {
                            Ok(Ok(())) => {}
                            Ok(Err(error)) => tracing::warn!("{error}"),
                            Err(_) => tracing::warn!("the worker does not end and is killed"),
                        }
                        Ended::ForAnother
                    }
                }
            }
        };
        // The connection is gone by now, and the worker ends of that at the latest.
        let status = match timeout(LAST, child.wait()).await {
            Ok(status) => status.context("waiting for the end of the worker")?,
            Err(_) => {
                child.kill().await.context("killing the worker")?;
                child.wait().await.context("waiting for the end of the worker")?
            }
        };
        if let Ended::Alone = ended {
            tracing::error!("the worker has ended ({status}): another is started; functions stay");
        }
        Ok(ended)
    }

    /// Starts the worker's service and looks after it, until there is reason to end it.
    async fn lead(&self, caller: Caller) -> Led {
        let start = Start { conf: self.conf.clone(), log: self.handle.log() };
        match timeout(HANGS, caller.ask::<()>(wire::START, &start)).await {
            Ok(Ok(())) => {}
            Ok(Err(NoAnswer::Failed(error))) => return Led::Refused(error),
            // The connection is gone, which is seen elsewhere.
            Ok(Err(NoAnswer::Unasked | NoAnswer::Gone)) => return std::future::pending().await,
            Err(_) => return Led::Hangs,
        }
        self.state.send_replace(State::Up(caller.clone()));
        self.shared.notifier.notify();
        loop {
            tokio::select! {
                () = sleep(PING) => {}
                () = self.handle.restart.notified() => {
                    // Who asks from now on waits for the next.
                    self.state.send_replace(State::Starting);
                    return Led::ToEnd(caller);
                }
            }
            if timeout(HANGS, caller.ask::<()>(wire::PING, &())).await.is_err() {
                return Led::Hangs;
            }
        }
    }

    fn spawn(&self) -> anyhow::Result<(Child, UnixStream)> {
        let (ours, theirs) = StdStream::pair().context("making a pair of sockets")?;
        ours.set_nonblocking(true)?;
        let mut command = Command::new(&self.program);
        command
            .arg("worker")
            .args(&self.arguments)
            .stdin(OwnedFd::from(theirs))
            // Ctrl-C on a terminal is for the parent, which ends the worker in order.
            .process_group(0)
            .kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("running {}", self.program.display()))?;
        tracing::info!(process = child.id(), "a worker begins");
        self.process.send_replace(child.id());
        Ok((child, UnixStream::from_std(ours)?))
    }
}

/// Why a worker is looked after no more.
enum Led {
    Hangs,
    Refused(PartError),
    ToEnd(Caller),
}
