//! `virtnet`, the command line of the virtio-net controller service `virtnetd`, for people and for scripts.
//!
//! An answer is one JSON document on standard output. Exit codes: 0 done; 1 refused or failed, with the reason on standard
//! error; 2 wrong usage.
//!
//! | module | what lives there |
//! |---|---|
//! | `hotplug`, `unplug`, `list`, `query`, `modify`, `log`, `version`, `restart`, `validate`, `update`, `health`, `debug`, `stats`, `completion` | each command's arguments and what it does |
//! | `generation` | what only the later generation has (pure) |
//! | `value` | arguments from text (pure) |
//! | `which` | which function is meant by an index or a VUID (pure) |
//! | `uplink` | which uplink is meant by an RDMA device (pure) |
//! | `device`, `queue` | a function and a queue as JSON (pure) |
//! | `netdev` | what the system knows of a representor |
//! | `output` | standard output, standard error and the advice that goes there |

mod completion;
mod debug;
mod device;
mod generation;
mod health;
mod hotplug;
mod list;
mod log;
mod modify;
mod netdev;
mod output;
mod query;
mod queue;
mod restart;
mod stats;
mod unplug;
mod update;
mod uplink;
mod validate;
mod value;
mod version;
mod which;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{ArgAction, CommandFactory, Parser, Subcommand};
use virtnet_rpc::{Client, DEFAULT_SOCKET};

const EXAMPLES: &str = "\
Examples:
  virtnet list
  virtnet hotplug -i mlx5_0 -f 0x0 -m 0C:C4:7A:FF:22:93 -t 1500 -n 3 -s 1024
  virtnet query -p 0 -v 0
  virtnet modify -p 0 -v 0 device -m 0C:C4:7A:FF:22:98
  virtnet unplug -p 4";

/// Makes, shows, changes and removes the virtio-net functions of this DPU
#[derive(Debug, Parser)]
#[command(name = "virtnet", version, disable_version_flag = true, arg_required_else_help = true)]
#[command(after_help = EXAMPLES)]
struct Arguments {
    /// The socket of the controller service
    #[arg(long, global = true, env = "VIRTNETD_SOCKET", hide_env_values = true, default_value = DEFAULT_SOCKET)]
    #[arg(value_name = "PATH", display_order = 900)]
    socket: PathBuf,
    /// Print the version of this program; `virtnet version` prints the controller's
    #[arg(short = 'v', long, action = ArgAction::Version)]
    version: (),
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Hot-plug a function
    Hotplug(hotplug::Arguments),
    /// Unplug a hot-plugged function
    Unplug(unplug::Arguments),
    /// List the controller's limits and all functions
    List(list::Arguments),
    /// Show all that is known of all functions or of one
    Query(query::Arguments),
    /// Change the settings of a function, or those that a VF will be made with
    Modify(modify::Arguments),
    /// Set how much the controller logs
    Log(log::Arguments),
    /// Print the versions of the controller that runs and of the one that is installed
    Version(version::Arguments),
    /// Let the controller that is installed take over while functions stay, and tell how that went
    Update(update::Arguments),
    /// Let the controller begin anew; functions stay
    Restart(restart::Arguments),
    /// Say whether a virtnet.conf can be used on this DPU (later generation)
    Validate(validate::Arguments),
    /// Tell how the controller and its functions are (later generation)
    Health(health::Arguments),
    /// Print all that the controller knows inside, in a shape that may change without notice (later generation)
    Debug(debug::Arguments),
    /// Print the packets that went through a function's queues (later generation)
    Stats(stats::Arguments),
    /// Print a script that completes this command's words in a shell
    Completion(completion::Arguments),
}

fn main() -> ExitCode {
    let Arguments { socket, command, version: () } = Arguments::parse();
    match run(&socket, command).and_then(|answer| output::print(&answer)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&error, &socket);
            ExitCode::FAILURE
        }
    }
}

/// Does what is wanted: the text that answers.
fn run(socket: &Path, command: Command) -> anyhow::Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // It connects while it is waited for: what needs no service never gets so far.
        let service = Client::connect(socket);
        match command {
            Command::Hotplug(arguments) => hotplug::run(arguments, &service).await,
            Command::Unplug(arguments) => unplug::run(&arguments, &service).await,
            Command::List(list::Arguments {}) => list::run(&service).await,
            Command::Query(arguments) => query::run(&arguments, &service).await,
            Command::Modify(arguments) => modify::run(arguments, &service).await,
            Command::Log(arguments) => log::run(&arguments, &service).await,
            Command::Version(version::Arguments {}) => version::run(&service).await,
            Command::Update(arguments) => update::run(&arguments, &service).await,
            Command::Restart(restart::Arguments {}) => restart::run(&service).await,
            Command::Validate(arguments) => validate::run(&arguments, &service).await,
            Command::Health(arguments) => health::run(&arguments, &service).await,
            Command::Debug(debug::Arguments {}) => debug::run(&service).await,
            Command::Stats(arguments) => stats::run(&arguments, &service).await,
            Command::Completion(arguments) => Ok(completion::run(&arguments, Arguments::command())),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    /// Every command and those below it.
    fn all(command: &clap::Command) -> Vec<clap::Command> {
        let below = command.get_subcommands().flat_map(all);
        std::iter::once(command.clone()).chain(below).collect()
    }

    #[test]
    fn every_command_has_examples_in_its_help_which_it_takes() {
        for command in all(&Arguments::command()) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let examples: Vec<_> = help.lines().filter(|line| line.starts_with("  virtnet ")).collect();
            assert!(!examples.is_empty(), "{}", command.get_name());
            for example in examples {
                // What follows is for the shell or for the reader.
                let line = example.trim_start().split(['|', '>']).next().unwrap();
                let line = line.split("   ").next().unwrap();
                if let Err(error) = Arguments::try_parse_from(line.split_whitespace()) {
                    panic!("{line}: {error}");
                }
            }
        }
    }

    #[test]
    fn the_guides_command_lines_are_taken() {
        for line in [
            "virtnet log -l info",
            "virtnet modify -p 0 -v 0 device -m 0C:C4:7A:FF:22:98",
            "virtnet modify -u VNETS1D0F0 device -m 0C:C4:7A:FF:22:98",
            "virtnet hotplug -i mlx5_0 -f 0x0 -m 0C:C4:7A:FF:22:93 -t 1500 -n 3 -s 1024",
            "virtnet hotplug -i mlx5_0 -f 0x0 -m 0C:C4:7A:FF:22:93 -t 1500 -n 3 -s 1024 -l",
            "virtnet query -p 1",
            "virtnet query -p 0 -v 0",
            "virtnet list",
            "virtnet modify -p 0 device -m 0C:C4:7A:FF:22:98",
            "virtnet unplug -p 1",
            "virtnet version",
            "virtnet update --start",
            "virtnet update -s",
            "virtnet update status",
            "virtnet update -t",
        ] {
            if let Err(error) = Arguments::try_parse_from(line.split_whitespace()) {
                panic!("{line}: {error}");
            }
        }
    }
}
