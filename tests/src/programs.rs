//! The programs of this workspace, as tests run them.

use std::path::PathBuf;

use anyhow::{Context, bail};

/// A program of this workspace as cargo built it: in the folder of the one that runs or, for a test, in the one above.
///
/// # Errors
/// Where it is not there.
pub fn built(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("finding this program")?;
    for folder in own.ancestors().skip(1).take(2) {
        let path = folder.join(name);
        if path.is_file() {
            return Ok(path);
        }
    }
    bail!("{name} is not built beside {}: cargo build -p {name}", own.display())
}
