//! The workers, one after another: [`Workers`].

use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Serialize;
use serde::de::IgnoredAny;
use tokio::process::Child;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use virtnet_controller::advice;
use virtnet_model::{Generation, PartError};
use virtnet_rpc::{Caller, NoAnswer, method};

use super::Shared;
use super::conf::Source;
use super::device::attend;
use super::program::{Program, Spawned};
use super::update::Updates;
use crate::device::Device;
use crate::wire::{self, End, Start};

/// How long there is none after a worker ended by itself. Where it never served, the wait doubles up to [`LAST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LAST_WAIT: Duration = Duration::from_secs(5);
/// How long one may take to take the device over.
const TAKES_OVER: Duration = Duration::from_secs(60);
/// How long one that is to end may take for it.
const LAST: Duration = Duration::from_secs(10);

/// How long what does not answer is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// How often a worker is asked whether it is there.
    pub ping: Duration,
    /// One that has not answered for so long hangs, and is killed.
    pub hangs: Duration,
    /// What a worker that was killed has asked of the device is given up after so long.
    pub device: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { ping: seconds(5), hangs: seconds(10), device: seconds(10) }
    }
}

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
    /// Live updates.
    pub(super) updates: Arc<Updates>,
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
    /// Where the program is that is installed.
    installed: PathBuf,
    arguments: Vec<String>,
    conf: Arc<Source>,
    shared: Arc<Shared>,
    patience: Patience,
    /// Has a part of its own that a live update renews.
    device: Device,
    state: watch::Sender<State>,
    /// The process of the worker of now.
    process: watch::Sender<Option<u32>>,
    handle: Handle,
}

/// Why a worker is no more.
enum Ended {
    /// By itself, or by someone who killed it, in these words.
    Alone(String),
    /// Because another was asked for.
    ForAnother,
    /// Because this one, of a program that was installed, is to take over.
    ForUpdate(Box<Candidate>),
}

/// A worker of a program that was installed, and has passed its check.
struct Candidate {
    program: Program,
    spawned: Spawned,
    /// The virtnet.conf that the worker of before was given.
    conf_before: String,
}

impl Workers {
    /// None yet.
    pub(super) fn new(
        installed: PathBuf,
        arguments: Vec<String>,
        conf: Arc<Source>,
        shared: Arc<Shared>,
        process: watch::Sender<Option<u32>>,
        patience: Patience,
        device: Device,
    ) -> Self {
        let handle = Handle { restart: Arc::default(), updates: Arc::default(), log: Arc::default() };
        let state = watch::Sender::new(State::Starting);
        Self { installed, arguments, conf, shared, patience, device, state, process, handle }
    }

    pub(super) fn state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    pub(super) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Sees to it that there is a worker, for as long as it is polled.
    ///
    /// # Errors
    /// Where the program can't be opened.
    pub(super) async fn run(&self) -> anyhow::Result<()> {
        let mut program = Program::open(&self.installed)?;
        // The program of before with its virtnet.conf, until the one of an update serves.
        let mut before: Option<(Program, String)> = None;
        let mut ready: Option<Spawned> = None;
        let mut wait = FIRST_WAIT;
        loop {
            let spawned = match ready.take() {
                Some(spawned) => Ok(spawned),
                None => program.spawn(&self.arguments).context("starting a worker"),
            };
            let served = AtomicBool::new(false);
            let ended = match spawned {
                Ok(spawned) => self.run_one(spawned, before.is_some(), &served).await,
                Err(error) => Err(error),
            };
            self.state.send_replace(State::Starting);
            self.process.send_replace(None);
            let served = served.into_inner();
            if served {
                before = None;
            }
            let why = match ended {
                Ok(Ended::ForAnother) => continue,
                Ok(Ended::ForUpdate(candidate)) => {
                    let Candidate { program: installed, spawned, conf_before } = *candidate;
                    before = Some((std::mem::replace(&mut program, installed), conf_before));
                    ready = Some(spawned);
                    continue;
                }
                Ok(Ended::Alone(why)) => why,
                Err(error) => format!("{error:#}"),
            };
            self.shared.condition.worker_failed(&why);
            tracing::error!("{why}: another worker is started; functions stay");
            if let Some((before, conf)) = before.take() {
                // It passed its check and does not serve.
                program = before;
                self.conf.go_back(conf);
                self.handle.updates.end(Err(why));
                continue;
            }
            // One that was under way is the next worker's.
            self.handle.updates.resume();
            wait = if served { FIRST_WAIT } else { wait };
            sleep(wait).await;
            wait = (wait * 2).min(LAST_WAIT);
        }
    }

    /// One worker from its start to its end; whether it came to serve is noted.
    async fn run_one(&self, spawned: Spawned, is_update: bool, served: &AtomicBool) -> anyhow::Result<Ended> {
        let Spawned { mut child, link } = spawned;
        self.process.send_replace(child.id());
        self.shared.condition.worker_begins();
        let caller = link.caller();
        let mut hangs = false;
        let ended = {
            let attend = attend(link, &self.shared, self.patience.device);
            tokio::pin!(attend);
            tokio::select! {
                () = &mut attend => None,
                led = self.lead(caller, is_update, served) => match led {
                    Led::Hangs => {
                        hangs = true;
                        child.start_kill().context("killing the worker")?;
                        // What it asked of the device comes to its end, or is given up.
                        let _ = timeout(LAST + self.patience.device, &mut attend).await;
                        None
                    }
                    Led::Refused(error) => Some(Ended::Alone(format!("the worker can't serve: {error}"))),
                    Led::ToEnd(caller, candidate) => {
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
                        Some(candidate.map_or(Ended::ForAnother, Ended::ForUpdate))
                    }
                }
            }
        };
        // The connection is gone by now, and the worker ends of that at the latest.
        let status = wait_for(&mut child).await?;
        Ok(ended.unwrap_or_else(|| {
            Ended::Alone(if hangs {
                format!("the worker had not answered for {:?} and was killed", self.patience.hangs)
            } else {
                format!("the worker has ended ({status})")
            })
        }))
    }

    /// Starts the worker's service and looks after it, until there is reason to end it.
    async fn lead(&self, caller: Caller, is_update: bool, served: &AtomicBool) -> Led {
        let start = Start { conf: self.conf.text(), log: self.handle.log() };
        let begun = async {
            begin(&caller, wire::START, &start).await?;
            // One that has taken over may answer each request with the reason for which it does not serve.
            if is_update { begin(&caller, method::OBSERVE, &()).await } else { Ok(()) }
        };
        if let Err(led) = begun.await {
            return led;
        }
        self.state.send_replace(State::Up(caller.clone()));
        served.store(true, Ordering::Relaxed);
        if is_update {
            self.device.update(&self.installed).await;
            self.handle.updates.end(Ok(()));
        }
        self.shared.notifier.notify();
        loop {
            tokio::select! {
                () = sleep(self.patience.ping) => {
                    if timeout(self.patience.hangs, caller.ask::<()>(wire::PING, &())).await.is_err() {
                        return Led::Hangs;
                    }
                }
                () = self.handle.restart.notified() => {
                    self.conf.reread();
                    // Who asks from now on waits for the next.
                    self.state.send_replace(State::Starting);
                    return Led::ToEnd(caller, None);
                }
                () = self.handle.updates.wanted() => match self.candidate(&caller).await {
                    Ok(candidate) => {
                        self.state.send_replace(State::Starting);
                        return Led::ToEnd(caller, Some(Box::new(candidate)));
                    }
                    Err(error) => self.handle.updates.end(Err(format!("{error:#}"))),
                }
            }
        }
    }

    /// Starts a worker of the program that is installed and checks it, while the one of now serves.
    ///
    /// In the later generation nothing is plugged, unplugged or made of VFs meanwhile; in the guide's all goes on.
    async fn candidate(&self, now: &Caller) -> anyhow::Result<Candidate> {
        let refuses = self.conf.said().engine.generation == Generation::Later;
        let set_updating = async |updating: bool| {
            let set = timeout(self.patience.hangs, now.call::<()>(wire::UPDATING, &updating)).await;
            anyhow::Ok(set.context("the worker of now does not answer")??)
        };
        if refuses {
            set_updating(true).await?;
        }
        let conf_before = self.conf.text();
        self.conf.reread();
        let checked = async {
            self.fits(now).await?;
            self.checked().await
        };
        match checked.await {
            Ok((program, spawned)) => Ok(Candidate { program, spawned, conf_before }),
            Err(error) => {
                self.conf.go_back(conf_before);
                if refuses {
                    set_updating(false).await?;
                }
                Err(error.context(format!("checking {}", self.installed.display())))
            }
        }
    }

    /// Refuses to end a worker that serves for one that would not, since device and virtnet.conf have come to contradict each
    /// other. Where the one of now does not serve there is nothing to lose.
    async fn fits(&self, now: &Caller) -> anyhow::Result<()> {
        let serves = timeout(self.patience.hangs, now.call::<IgnoredAny>(method::OBSERVE, &())).await;
        if !matches!(serves, Ok(Ok(_))) {
            return Ok(());
        }
        let device = self.shared.device.watch().await?.state;
        advice(&device, &self.conf.said().engine)?;
        Ok(())
    }

    async fn checked(&self) -> anyhow::Result<(Program, Spawned)> {
        let program = Program::open(&self.installed)?;
        let mut spawned = program.spawn(&self.arguments)?;
        let caller = spawned.link.caller();
        let checked = {
            let conf = self.conf.text();
            let check = caller.ask::<()>(wire::CHECK, &conf);
            // Answers come while the connection is read.
            let read = async { while spawned.link.next().await.is_some() {} };
            tokio::select! {
                checked = timeout(self.patience.hangs, check) => checked,
                () = read => Ok(Err(NoAnswer::Gone)),
            }
        };
        match checked {
            Ok(Ok(())) => Ok((program, spawned)),
            Ok(Err(NoAnswer::Failed(error))) => Err(error.into()),
            Ok(Err(NoAnswer::Unasked | NoAnswer::Gone)) => {
                let status = wait_for(&mut spawned.child).await?;
                bail!("it ended before it was asked to serve ({status})")
            }
            Err(_) => bail!("it did not answer within {:?}", self.patience.hangs),
        }
    }
}

/// Asks a worker for what it begins with. An error is what is to become of it where it does not.
async fn begin(caller: &Caller, method: &str, params: &impl Serialize) -> Result<(), Led> {
    match timeout(TAKES_OVER, caller.ask::<IgnoredAny>(method, params)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(NoAnswer::Failed(error))) => Err(Led::Refused(error)),
        // The connection is gone, which is seen elsewhere.
        Ok(Err(NoAnswer::Unasked | NoAnswer::Gone)) => std::future::pending().await,
        Err(_) => Err(Led::Hangs),
    }
}

/// Waits for the end of a worker, and brings it about where it does not come.
async fn wait_for(child: &mut Child) -> anyhow::Result<ExitStatus> {
    if let Ok(status) = timeout(LAST, child.wait()).await {
        return status.context("waiting for the end of the worker");
    }
    child.kill().await.context("killing the worker")?;
    child.wait().await.context("waiting for the end of the worker")
}

/// Why a worker is looked after no more.
enum Led {
    Hangs,
    Refused(PartError),
    ToEnd(Caller, Option<Box<Candidate>>),
}
