//! The real `kubectl`, as whom a kubeconfig names.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

/// `kubectl` of one user. What it caches goes beside the kubeconfig.
#[derive(Clone, Debug)]
pub struct Kubectl {
    kubeconfig: PathBuf,
}

/// How a `kubectl` ended, and what it printed.
#[derive(Clone, Debug)]
pub struct Run {
    /// What was run.
    pub command: String,
    /// The exit code; none where a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error, where warnings are too.
    pub stderr: String,
}

impl Kubectl {
    /// That of whom this kubeconfig names.
    #[must_use]
    pub fn new(kubeconfig: PathBuf) -> Self {
        Self { kubeconfig }
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// Where it can't be run.
    pub fn run(&self, arguments: &[&str]) -> anyhow::Result<Run> {
        self.run_with(arguments, "")
    }

    /// Runs it to its end with this on its standard input.
    ///
    /// # Errors
    /// Where it can't be run.
    pub fn run_with(&self, arguments: &[&str], input: &str) -> anyhow::Result<Run> {
        let command = format!("kubectl {}", arguments.join(" "));
        let mut child = Command::new("kubectl")
            .args(arguments)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("KUBECACHEDIR", self.kubeconfig.with_extension("cache"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("running {command}"))?;
        // kubectl reads all of its input before it says much.
        let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(input.as_bytes()));
        let output = child.wait_with_output().with_context(|| format!("running {command}"))?;
        // One that needs no input may have ended before this was written.
        ensure!(written.is_ok() || !output.status.success(), "{command} did not read its input");
        Ok(Run {
            command,
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout)?,
            stderr: String::from_utf8(output.stderr)?,
        })
    }
}

impl Run {
    /// What it printed, having succeeded without a warning.
    ///
    /// # Errors
    /// Where it failed or warned of something.
    pub fn ok(self) -> anyhow::Result<String> {
        ensure!(self.code == Some(0) && self.stderr.is_empty(), "{self:#?}");
        Ok(self.stdout)
    }
}
