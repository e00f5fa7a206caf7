//! The Open vSwitch of the tests.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use virtnet_local_switch::{OpenVSwitch, Tools};

/// Where it is: the machine's own, or one that is fetched once.
///
/// # Errors
/// Where it can't be had.
pub fn tools() -> anyhow::Result<Tools> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("open-vswitch/get.sh");
    let output = Command::new(script).output().context("running open-vswitch/get.sh")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(Tools::told(&String::from_utf8(output.stdout)?))
}

/// Starts one with the bridges that a simulated DPU has.
///
/// # Errors
/// Where it can't be had or started.
pub fn start() -> anyhow::Result<OpenVSwitch> {
    OpenVSwitch::start(tools()?, ["ovsbr1", "ovsbr2"])
}
