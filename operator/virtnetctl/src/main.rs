//! `virtnetctl`, the command for people. Linked as `kubectl-virtnet` on the PATH it is `kubectl virtnet`.
//!
//! Exit codes: 0 done; 1 something is not as it should be (not Ready, invalid, not found, failed); 2 wrong usage.

mod access;
mod adopt;
mod bundle;
mod demo;
mod dpu;
mod events;
mod export;
mod find;
mod folder;
mod get;
mod ground;
mod lease;
mod local;
mod machine;
mod manifest;
mod output;
mod ready;
mod stop;
mod top;
mod tree;
mod validate;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// What is logged where nothing else is asked for. The client tells its errors to who asked, and need not log them too.
const LOG: &str = "warn,kube_client::client::builder=off";

/// Makes the virtio-net functions of a DPU declarative.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, arg_required_else_help = true)]
struct Arguments {
    /// What to log, as a filter of tracing: warn, info, virtnet_agent=debug …
    #[arg(long, global = true, env = "VIRTNET_LOG", default_value = LOG, value_name = "FILTER")]
    #[arg(value_parser = filter, display_order = 900, hide_env_values = true)]
    log: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything on this machine: an API for kubectl, an agent, and a DPU whose hardware is simulated
    Local(local::Arguments),
    /// Show the whole of it on a simulated DPU, then exit
    Demo(demo::Arguments),
    /// Check manifests offline, with the verdict of the API server
    Validate(validate::Arguments),
    /// Show objects as kubectl would, for machines without kubectl
    Get(get::Arguments),
    /// Show devices, or a DPU with its devices, with all that belongs to them and what became of them
    Tree(tree::Arguments),
    /// Show how much each DPU can hold and how much of that is in use
    Top(top::Arguments),
    /// Print manifests for the functions of a DPU that no object declares; to apply them changes nothing
    Export(export::Arguments),
    /// Gather what others need to help into one file
    Bundle(bundle::Arguments),
}

fn main() -> ExitCode {
    let mut command = Arguments::command();
    if called_as_plugin() {
        command = command.bin_name("kubectl virtnet");
    }
    let arguments = Arguments::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit());
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(&arguments.log))
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let result = match arguments.command {
        // Checking files needs no runtime.
        Command::Validate(arguments) => validate::run(&arguments),
        Command::Local(arguments) => block_on(local::run(arguments)),
        Command::Demo(arguments) => block_on(demo::run(arguments)),
        Command::Get(arguments) => block_on(get::run(arguments)),
        Command::Tree(arguments) => block_on(tree::run(arguments)),
        Command::Top(arguments) => block_on(top::run(arguments)),
        Command::Export(arguments) => block_on(export::run(arguments)),
        Command::Bundle(arguments) => block_on(bundle::run(arguments)),
    };
    output::verdict(result.unwrap_or_else(|error| {
        output::error(&virtnet_agent::chain(error.as_ref()));
        ExitCode::FAILURE
    }))
}

fn block_on(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work)
}

/// A filter that can be read.
fn filter(text: &str) -> Result<String, String> {
    EnvFilter::try_new(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// Whether kubectl started us as its plugin.
fn called_as_plugin() -> bool {
    std::env::args_os()
        .next()
        .as_deref()
        .map(std::path::Path::new)
        .and_then(std::path::Path::file_name)
        .is_some_and(|name| name == "kubectl-virtnet")
}
