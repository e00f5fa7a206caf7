//! `virtnetctl validate`: manifests checked offline, with the verdict of the strict API server.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use virtnet_crds::validate::validate_yaml;

use crate::output;

/// What `validate` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Manifests: files, or - for standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// Runs it: every finding on standard output as `FILE:LINE: message`, exit 1 if there is one.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut invalid = false;
    for file in &arguments.files {
        let name = if file == Path::new("-") { "<stdin>".to_owned() } else { file.display().to_string() };
        match read(file) {
            Ok(text) => {
                for finding in validate_yaml(&name, &text) {
                    output::line(&finding.to_string());
                    invalid = true;
                }
            }
            Err(error) => {
                output::error(&format!("reading {name}: {error}"));
                invalid = true;
            }
        }
    }
    Ok(if invalid { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn read(file: &Path) -> std::io::Result<String> {
    if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        return Ok(text);
    }
    std::fs::read_to_string(file)
}
