//! Writes the CustomResourceDefinitions to `manifests/crds/`, or to the folder given.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command says what it wrote")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let folder = std::env::args_os()
        .nth(1)
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/crds"), PathBuf::from);
    match write(&folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("crdgen: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write(folder: &Path) -> Result<(), String> {
    std::fs::create_dir_all(folder)
        .map_err(|error| format!("making the folder {}: {error}", folder.display()))?;
    for file in virtnet_crds::crd::files()? {
        let path = folder.join(&file.name);
        std::fs::write(&path, &file.text).map_err(|error| format!("writing {}: {error}", path.display()))?;
        println!("wrote {}", path.display());
    }
    Ok(())
}
