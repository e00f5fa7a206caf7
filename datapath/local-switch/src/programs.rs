//! [`Programs`] that run beside this process, each with its log in a folder. They end with the value, and should this process be
//! killed, with it.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, mpsc};

use anyhow::{Context, ensure};
use virtnet_netlink::Namespace;

/// Programs that run.
pub struct Programs {
    folder: PathBuf,
    running: BTreeMap<String, Child>,
    /// To the thread that starts them. The kernel ends them when that thread ends, which is when this is dropped or the
    /// whole process is gone.
    starter: mpsc::Sender<(Command, mpsc::Sender<std::io::Result<Child>>)>,
}

impl std::fmt::Debug for Programs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.running.keys()).finish()
    }
}

impl Programs {
    /// None yet; their logs are to be in this folder.
    pub fn new(folder: &Path) -> Self {
        Self::start_by(folder, || {})
    }

    /// The same in a network namespace.
    pub fn inside(folder: &Path, namespace: Arc<Namespace>) -> Self {
        Self::start_by(folder, move || {
            namespace.enter().unwrap_or_else(|error| panic!("entering a network namespace: {error}"));
        })
    }

    /// `prepare` is done first by the thread that starts them.
    fn start_by(folder: &Path, prepare: impl FnOnce() + Send + 'static) -> Self {
        let (starter, commands) = mpsc::channel::<(Command, mpsc::Sender<_>)>();
        std::thread::spawn(move || {
            prepare();
            for (mut command, reply) in commands {
                // Nobody waits for the answer only where the process is about to end.
                let _ = reply.send(command.spawn());
            }
        });
        Self { folder: folder.to_owned(), running: BTreeMap::new(), starter }
    }

    /// Starts a program; its output goes to `NAME.log`. One of that name that ran before must have ended.
    ///
    /// # Errors
    /// Where it can't be started.
    pub fn start(&mut self, name: &str, command: &Command) -> anyhow::Result<()> {
        let log = std::fs::File::create(self.log(name))?;
        let mut tied = Command::new("setpriv");
        tied.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
        let environment = command.get_envs().filter_map(|(name, value)| Some((name, value?)));
        tied.envs(environment).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // Ctrl-C on a terminal is for who started them, which ends them in order.
        tied.process_group(0);
        let (reply, answer) = mpsc::channel();
        self.starter.send((tied, reply)).context("the starter of programs is gone")?;
        let child = answer.recv()?.with_context(|| format!("starting {name} by setpriv (of util-linux)"))?;
        self.running.insert(name.to_owned(), child);
        Ok(())
    }

    /// Kills a program.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn kill(&mut self, name: &str) -> anyhow::Result<()> {
        let mut child = self.running.remove(name).with_context(|| format!("{name} does not run"))?;
        child.kill().and_then(|()| child.wait()).with_context(|| format!("killing {name}"))?;
        Ok(())
    }

    /// Asks a program to end, as the system does when it goes down, and waits until it has.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn end(&mut self, name: &str) -> anyhow::Result<()> {
        let child = self.running.get_mut(name).with_context(|| format!("{name} does not run"))?;
        let asked = Command::new("kill").arg(child.id().to_string()).status().context("running kill")?;
        ensure!(asked.success(), "{name} could not be asked to end: {asked}");
        child.wait().with_context(|| format!("waiting for the end of {name}"))?;
        self.running.remove(name);
        Ok(())
    }

    /// The process of a program that runs.
    pub fn id(&self, name: &str) -> Option<u32> {
        self.running.get(name).map(Child::id)
    }

    /// The programs that have ended by themselves since this was last asked.
    ///
    /// # Errors
    /// Where the system can't tell.
    pub fn take_ended(&mut self) -> anyhow::Result<Vec<(String, ExitStatus)>> {
        let ended = self.ended()?;
        for (name, _) in &ended {
            self.running.remove(name);
        }
        Ok(ended)
    }

    /// Whether all still run.
    ///
    /// # Errors
    /// Where one has ended; the message has the ends of the logs.
    pub fn check(&mut self) -> anyhow::Result<()> {
        let ended = self.ended()?;
        let lines: Vec<_> =
            ended.iter().map(|(name, status)| format!("{name} ended by itself: {status}")).collect();
        ensure!(lines.is_empty(), "{}\n{}", lines.join("\n"), self.logs());
        Ok(())
    }

    fn ended(&mut self) -> anyhow::Result<Vec<(String, ExitStatus)>> {
        let mut ended = Vec::new();
        for (name, child) in &mut self.running {
            if let Some(status) = child.try_wait().with_context(|| format!("looking at {name}"))? {
                ended.push((name.clone(), status));
            }
        }
        Ok(ended)
    }

    /// The ends of the logs.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        for name in self.running.keys() {
            let log = std::fs::read_to_string(self.log(name)).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            for line in &lines[lines.len().saturating_sub(15)..] {
                text.push_str(&format!("{name}: {line}\n"));
            }
        }
        text
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        // All state goes away with them, so there is nothing that they should bring to an end.
        for child in self.running.values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
