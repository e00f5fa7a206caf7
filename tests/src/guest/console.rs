//! The serial line over which a guest does what it is told: `tests/guest/init` is the other side.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;

/// Far longer than anything takes in a guest, on a machine that is busy too.
pub const LIMIT: Duration = Duration::from_secs(180);

/// What a command has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// Its exit code.
    pub code: i32,
    /// All that it wrote.
    pub output: String,
}

type Waiting = Arc<Mutex<BTreeMap<u64, oneshot::Sender<Done>>>>;

/// A serial line to a guest that is ready.
#[derive(Debug)]
pub struct Console {
    output: OwnedWriteHalf,
    waiting: Waiting,
    commands: u64,
    /// How often the guest has said that some netdev of its is another.
    links: watch::Receiver<u64>,
    /// How often it has booted anew.
    boots: watch::Receiver<u64>,
    reader: AbortHandle,
}

impl Drop for Console {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Console {
    /// Takes a line into use, once the guest is ready.
    ///
    /// # Errors
    /// Where it ends first, or the guest is not ready in time.
    pub async fn ready(stream: UnixStream) -> anyhow::Result<Self> {
        let (input, output) = stream.into_split();
        let mut lines = BufReader::new(input).lines();
        let ready = async {
            while let Some(line) = lines.next_line().await? {
                if line.trim() == "ready" {
                    return Ok(());
                }
            }
            bail!("the guest's serial line has ended")
        };
        timeout(LIMIT, ready).await.context("waiting until the guest is ready")??;
        let waiting = Waiting::default();
        let (tell, links) = watch::channel(0);
        let (booted, boots) = watch::channel(0);
        let reader = tokio::spawn(read(lines, Arc::clone(&waiting), tell, booted)).abort_handle();
        Ok(Self { output, waiting, commands: 0, links, boots, reader })
    }

    /// Waits until the guest has booted anew, once more than when this was last waited for.
    ///
    /// # Errors
    /// Where it does not.
    pub async fn rebooted(&mut self) -> anyhow::Result<()> {
        let rebooted = timeout(LIMIT, self.boots.changed()).await;
        rebooted.context("waiting until the guest has booted anew")?.context("the guest is gone")
    }

    /// Runs a command by `sh` and waits for its end.
    ///
    /// # Errors
    /// Where the guest does not answer in time, or is gone.
    pub async fn run(&mut self, command: &str) -> anyhow::Result<Done> {
        self.commands += 1;
        let (reply, done) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(self.commands, reply);
        let line = format!("{} {}\n", self.commands, STANDARD.encode(command));
        let run = async {
            self.output.write_all(line.as_bytes()).await?;
            done.await.context("the guest is gone")
        };
        timeout(LIMIT, run).await.with_context(|| format!("waiting for the guest to do: {command}"))?
    }

    /// Runs a command that succeeds, and returns all that it wrote.
    ///
    /// # Errors
    /// Where it does not.
    pub async fn sh(&mut self, command: &str) -> anyhow::Result<String> {
        let Done { code, output } = self.run(command).await?;
        ensure!(code == 0, "in the guest, {command} ended with {code}:\n{output}");
        Ok(output)
    }

    /// Runs a command that changes a netdev, and waits until the guest has told of that.
    ///
    /// # Errors
    /// Where it does not.
    pub async fn told_of(&mut self, command: &str) -> anyhow::Result<()> {
        let mut links = self.links.clone();
        links.mark_unchanged();
        self.sh(command).await?;
        let told = timeout(LIMIT, links.changed()).await;
        told.with_context(|| format!("waiting for the guest to tell of {command}"))?
            .context("the guest is gone")
    }

    /// Runs a command now and again whenever a netdev of the guest has changed, until what it wrote is what is wanted.
    ///
    /// # Errors
    /// Where it never is, with what it wrote last.
    pub async fn until<T>(
        &mut self,
        command: &str,
        mut wanted: impl FnMut(&str) -> Option<T>,
    ) -> anyhow::Result<T> {
        let mut last = String::new();
        let mut links = self.links.clone();
        let until = async {
            loop {
                links.mark_unchanged();
                last = self.sh(command).await?;
                if let Some(found) = wanted(&last) {
                    return anyhow::Ok(found);
                }
                links.changed().await.context("the guest is gone")?;
            }
        };
        match timeout(LIMIT, until).await {
            Ok(found) => found,
            Err(_) => {
                // Tells a guest in which it is not so from one that never said that it is.
                let late = self.sh(command).await?;
                bail!(
                    "in the guest, {command} never wrote what is wanted; at last:\n{last}\nand now, unasked:\n{late}"
                )
            }
        }
    }
}

async fn read(
    mut lines: tokio::io::Lines<BufReader<OwnedReadHalf>>,
    waiting: Waiting,
    links: watch::Sender<u64>,
    boots: watch::Sender<u64>,
) {
    while let Ok(Some(line)) = lines.next_line().await {
        if line.trim_end() == "ready" {
            boots.send_modify(|boots| *boots += 1);
        } else if line.starts_with("link ") {
            links.send_modify(|links| *links += 1);
        } else if let Some((id, done)) = parse(line.trim_end())
            && let Some(reply) = waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&id)
        {
            let _ = reply.send(done);
        }
    }
    // Those who wait are told by that.
    waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

/// The line that tells of a command's end.
fn parse(line: &str) -> Option<(u64, Done)> {
    let mut words = line.strip_prefix("end ")?.split(' ');
    let (id, code) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    // Of one that wrote nothing there is no third word.
    let output = STANDARD.decode(words.next().unwrap_or_default()).ok()?;
    Some((id, Done { code, output: String::from_utf8_lossy(&output).into_owned() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_command_is_read() {
        let done = Done { code: 3, output: "hello\n".to_owned() };
        assert_eq!(parse("end 7 3 aGVsbG8K"), Some((7, done)));
        for line in ["end 7 0 ", "end 7 0"] {
            assert_eq!(parse(line), Some((7, Done { code: 0, output: String::new() })), "{line}");
        }
        for line in ["", "end", "end 7", "end x 0 ", "end 7 0 !", "ready"] {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}
