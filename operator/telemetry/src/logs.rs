//! Logs: what is logged and how, by arguments that all long-running programs share.

use std::io::IsTerminal;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// What is logged, to the standard error.
#[derive(Clone, Debug, clap::Args)]
pub struct LogArguments {
    /// What to log, as a filter of tracing
    #[arg(long, global = true, env = "VIRTNET_LOG", default_value = "info", value_name = "FILTER")]
    #[arg(value_parser = filter)]
    log: String,
    /// How to log
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// A filter that can be read.
fn filter(text: &str) -> Result<String, String> {
    EnvFilter::try_new(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

impl LogArguments {
    /// Logs so from now on.
    ///
    /// # Panics
    /// Where the process logs already.
    pub fn begin(&self) {
        let logs = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new(&self.log))
            .with_ansi(std::io::stderr().is_terminal())
            .with_writer(std::io::stderr);
        match self.log_format {
            LogFormat::Text => logs.init(),
            LogFormat::Json => logs.json().init(),
        }
    }
}
