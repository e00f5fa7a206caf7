//! Sessions as the documents show them: commands after `$`, and below each what it prints. They are run by one shell, and
//! what is printed must be what is shown.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use regex::Regex;

/// Far longer than any command takes, on a machine that is busy too.
const LIMIT: Duration = Duration::from_secs(90);

/// A line that stands for others, which a document leaves out.
const LEFT_OUT: &str = "…";

/// A command, and what is shown below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// The command.
    pub command: String,
    /// The lines of its output.
    pub output: Vec<String>,
}

/// The indented block of a document that has `part` in it.
///
/// # Errors
/// Where there is none, or it is no session.
pub fn session(document: &str, part: &str) -> anyhow::Result<Vec<Shown>> {
    let mut lines: Vec<Shown> = Vec::new();
    for line in block(document, part)? {
        match (line.strip_prefix("$ "), lines.last_mut()) {
            (Some(command), _) => lines.push(Shown { command: command.to_owned(), output: Vec::new() }),
            (None, Some(last)) => last.output.push(line.to_owned()),
            (None, None) => bail!("{line:?} stands before any command"),
        }
    }
    Ok(lines)
}

/// The lines of the indented block of a document that has `part` in it.
///
/// # Errors
/// Where there is none, or it is not indented.
pub fn block<'a>(document: &'a str, part: &str) -> anyhow::Result<Vec<&'a str>> {
    let block = document.split("\n\n").find(|block| block.contains(part));
    let lines = block.with_context(|| format!("no block with {part:?}"))?.lines();
    lines.map(|line| line.strip_prefix("    ").with_context(|| format!("not indented: {line:?}"))).collect()
}

/// Whether what was printed is what is shown, where a line `…` stands for any lines that are left out. `here` makes of a line what
/// it is wherever it is printed.
///
/// # Errors
/// Where it is not, with the lines that were not found, and those among which they were sought.
pub fn printed_as_shown(shown: &[&str], printed: &str, here: impl Fn(&str) -> String) -> anyhow::Result<()> {
    let plainly = |line: &str| plain(&here(line));
    let printed: Vec<_> = printed.lines().map(plainly).filter(|line| !line.is_empty()).collect();
    let mut rest = printed.as_slice();
    let parts: Vec<_> = shown.split(|line| line.trim() == LEFT_OUT).collect();
    for (number, part) in parts.iter().enumerate() {
        let part: Vec<_> = part.iter().map(|line| plainly(line)).collect();
        // The first stands at the beginning, and the last at the end.
        let place = match number {
            0 => rest.starts_with(&part).then_some(0),
            _ if number + 1 == parts.len() => rest.ends_with(&part).then(|| rest.len() - part.len()),
            _ => rest.windows(part.len().max(1)).position(|lines| lines.starts_with(&part)),
        };
        let Some(place) = place else {
            bail!("printed:\n  {}\nand is shown with:\n  {}", rest.join("\n  "), part.join("\n  "));
        };
        rest = &rest[place + part.len()..];
    }
    ensure!(parts.len() > 1 || rest.is_empty(), "printed, and not shown:\n  {}", rest.join("\n  "));
    Ok(())
}

/// A shell that runs commands one after the other.
#[derive(Debug)]
pub struct Shell {
    child: Child,
    input: Option<ChildStdin>,
    printed: Receiver<String>,
}

impl Shell {
    /// Starts a shell in this folder, with these folders before those of PATH and these variables.
    ///
    /// # Errors
    /// Where it can't be started.
    pub fn start(folder: &Path, programs: &[&Path], variables: &[(&str, &Path)]) -> anyhow::Result<Self> {
        let before = programs.iter().map(|path| path.to_path_buf());
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(before.chain(std::env::split_paths(&path)))?;
        let mut shell = Command::new("bash");
        shell.args(["--norc", "-s"]).current_dir(folder);
        shell
            .env("PATH", path)
            .env_remove("KUBECONFIG")
            .env_remove("VIRTNET_LOG")
            .envs(variables.iter().copied());
        shell.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut child = shell.spawn().context("starting bash")?;
        let (sender, printed) = channel();
        let (input, output) = (child.stdin.take(), child.stdout.take());
        // The thread ends with the pipe, which ends with the last program that the shell started.
        std::thread::spawn(move || {
            for line in output.into_iter().flat_map(|output| BufReader::new(output).lines()) {
                let Ok(line) = line else { return };
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut shell = Self { child, input, printed };
        shell.enter("exec 2>&1")?;
        Ok(shell)
    }

    /// Runs a command, and gives what it printed. One that ends in `&` goes on beside those that follow; what is shown of
    /// it is waited for.
    ///
    /// # Errors
    /// Where it does not end, or does not print what it should.
    pub fn run(&mut self, Shown { command, output }: &Shown) -> anyhow::Result<Vec<String>> {
        self.enter(command)?;
        let mut lines = Vec::new();
        if command.ends_with('&') {
            while lines.len() < output.len() {
                lines.push(self.line(command)?);
            }
            return Ok(lines);
        }
        const END: &str = "-- end of the command --";
        self.enter(&format!("echo '{END}'"))?;
        loop {
            match self.line(command)? {
                line if line == END => return Ok(lines),
                line => lines.push(line),
            }
        }
    }

    /// Runs the commands of a session, each of which must print what is shown. `here` makes what it names what it is here.
    ///
    /// # Errors
    /// Where one prints something else.
    pub fn follow(&mut self, session: &[Shown], here: impl Fn(&str) -> String) -> anyhow::Result<()> {
        for Shown { command, output } in session {
            let shown = Shown {
                command: here(command),
                output: output.iter().map(|line| plain(&here(line))).collect(),
            };
            let printed = self.run(&shown)?;
            let printed: Vec<_> =
                printed.iter().map(|line| plain(line)).filter(|line| !line.is_empty()).collect();
            ensure!(
                printed == shown.output,
                "{command}\nprinted:\n  {}\nand is shown with:\n  {}",
                printed.join("\n  "),
                shown.output.join("\n  ")
            );
        }
        Ok(())
    }

    /// Lets the shell come to its end.
    ///
    /// # Errors
    /// Where it does not end well.
    pub fn finish(mut self) -> anyhow::Result<()> {
        drop(self.input.take());
        let status = self.child.wait().context("waiting for bash")?;
        ensure!(status.success(), "bash: {status}");
        Ok(())
    }

    fn enter(&mut self, command: &str) -> anyhow::Result<()> {
        let input = self.input.as_mut().context("the shell has ended")?;
        writeln!(input, "{command}").with_context(|| format!("entering {command}"))
    }

    fn line(&self, command: &str) -> anyhow::Result<String> {
        self.printed.recv_timeout(LIMIT).with_context(|| format!("waiting for a line of {command}"))
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // Also what it was to end, where a test fails. It has ended by itself where the test passes.
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
        let _ = self.child.wait();
    }
}

/// What is the same whenever and however fast it is run: ages are one, and columns are as wide as it takes. Later versions
/// of kubectl name the namespace of what they delete.
fn plain(line: &str) -> String {
    let replace = |line: String, pattern: &str, by: &str| match Regex::new(pattern) {
        Ok(pattern) => pattern.replace_all(&line, by).into_owned(),
        Err(_) => line,
    };
    let line = replace(line.to_owned(), r"\b\d+m?\d*s\b", "AGE");
    let line = line.replace("(x2 over AGE)", "").replace(" from default namespace", "");
    let line = replace(line, "-{4,}", "----");
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_may_be_left_out_where_that_is_marked_and_nowhere_else() {
        let as_shown = |shown: &[&str]| printed_as_shown(shown, "a\nb\n\nc  1s\nd\n", str::to_owned).is_ok();
        for shown in [
            &["a", "b", "c 2s", "d"][..],
            &["a", "…", "c 1s", "d"],
            &["…", "c 1s", "…"],
            &["a", "…", "d"],
            &["…"],
            &["a", "b", "…", "c 1s", "d"],
        ] {
            assert!(as_shown(shown), "{shown:?}");
        }
        for shown in [
            &["a", "b", "c 1s"][..],
            &["b", "…"],
            &["…", "c 1s"],
            &["a", "d"],
            &["a", "…", "e", "…"],
            &["…", "c 1s", "…", "b", "…"],
            &["a", "b", "…", "b", "c 1s", "d"],
        ] {
            assert!(!as_shown(shown), "{shown:?}");
        }
    }
}
