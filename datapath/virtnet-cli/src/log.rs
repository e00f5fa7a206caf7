//! `virtnet log`: sets how much the controller logs (the guide, section 1.1.2).

use clap::ValueEnum;
use virtnet_rpc::{Client, method};

use crate::output;

const EXAMPLES: &str = "\
Examples:
  virtnet log -l debug";

/// What `log` is told.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// From which level on
    #[arg(short, long, value_enum)]
    level: Level,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Level {
    /// What is done and seen
    Info,
    /// What failed
    Err,
    /// Everything
    Debug,
}

impl From<Level> for method::Level {
    fn from(level: Level) -> Self {
        match level {
            Level::Info => Self::Info,
            Level::Err => Self::Err,
            Level::Debug => Self::Debug,
        }
    }
}

/// Runs it.
pub(crate) async fn run(arguments: &Arguments, service: &Client) -> anyhow::Result<String> {
    service.call::<()>(method::LOG, &method::Log { level: arguments.level.into() }).await?;
    output::done()
}
