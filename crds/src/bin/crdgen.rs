//! Writes the CustomResourceDefinitions to `manifests/crds/` and the reference to `docs/`, or all of it to the folder given.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command says what it wrote")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let given = std::env::args_os().nth(1).map(PathBuf::from);
    let (definitions, docs) = match given {
        Some(folder) => (folder.clone(), folder),
        None => (tree.join("manifests/crds"), tree.join("docs")),
    };
    match write_all(&definitions, &docs) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("crdgen: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write_all(definitions: &Path, docs: &Path) -> Result<(), String> {
    for file in virtnet_crds::crd::files()? {
        write(definitions, &file.name, &file.text)?;
    }
    write(docs, "reference.md", &virtnet_crds::reference::page()?)
}

fn write(folder: &Path, name: &str, text: &str) -> Result<(), String> {
    std::fs::create_dir_all(folder)
        .map_err(|error| format!("making the folder {}: {error}", folder.display()))?;
    let path = folder.join(name);
    std::fs::write(&path, text).map_err(|error| format!("writing {}: {error}", path.display()))?;
    println!("wrote {}", path.display());
    Ok(())
}
