//! The Open vSwitch of the tests.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use virtnet_local_switch::{OpenVSwitch, Tools};

/// Where it is: the machine's own, or one that is fetched once.
///
/// # Errors
/// Where it can't be had.
pub fn tools() -> anyhow::Result<Tools> {
    Ok(Tools::told(&lines()?))
}

/// Runs a command as on a machine where it is installed.
///
/// # Errors
/// Where it can't be had.
pub fn installed(command: &mut Command) -> anyhow::Result<()> {
    let lines = lines()?;
    let told = || lines.lines().filter_map(|line| line.split_once('='));
    let programs = told().filter(|(name, _)| name.starts_with("ovs")).map(|(_, path)| Path::new(path));
    let folders: BTreeSet<_> = programs.filter_map(Path::parent).map(Path::to_owned).collect();
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.env("PATH", std::env::join_paths(folders.into_iter().chain(std::env::split_paths(&path)))?);
    if let Some((_, libraries)) = told().find(|(name, path)| *name == "libraries" && !path.is_empty()) {
        command.env("LD_LIBRARY_PATH", libraries);
    }
    Ok(())
}

fn lines() -> anyhow::Result<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("open-vswitch/get.sh");
    let output = Command::new(script).output().context("running open-vswitch/get.sh")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// Starts one with the bridges that a simulated DPU has.
///
/// # Errors
/// Where it can't be had or started.
pub fn start() -> anyhow::Result<OpenVSwitch> {
    OpenVSwitch::start(tools()?, ["ovsbr1", "ovsbr2"])
}
