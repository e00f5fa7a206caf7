//! Logs: what is logged and how, by arguments that all long-running programs share.

use std::fmt;
use std::io::IsTerminal;

use clap::ValueEnum;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{Compact, Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

/// What is logged, to the standard error.
#[derive(Clone, Debug, clap::Args)]
pub struct LogArguments {
    /// What to log, as a filter of tracing
    #[arg(long, global = true, env = "VIRTNET_LOG", default_value = "info", value_name = "FILTER")]
    #[arg(value_parser = filter)]
    log: String,
    /// How to log [default: journal where the standard error is systemd's journal, else text]
    #[arg(long, global = true, value_enum)]
    log_format: Option<LogFormat>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Text,
    Json,
    /// Text without times, each line with its priority for systemd's journal (sd-daemon(3))
    Journal,
}

/// A filter that can be read.
fn filter(text: &str) -> Result<String, String> {
    EnvFilter::try_new(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// What a process logs, while it runs.
#[derive(Clone, Debug)]
pub struct LogLevel(reload::Handle<EnvFilter, Registry>);

impl LogLevel {
    /// Logs by this filter from now on.
    ///
    /// # Errors
    /// What is wrong with the filter.
    pub fn set(&self, filter: &str) -> Result<(), String> {
        let filter = EnvFilter::try_new(filter).map_err(|error| error.to_string())?;
        self.0.reload(filter).map_err(|error| error.to_string())
    }
}

impl LogArguments {
    /// Logs so from now on.
    ///
    /// # Panics
    /// Where the process logs already.
    pub fn begin(&self) -> LogLevel {
        let (filter, level) = reload::Layer::new(EnvFilter::new(&self.log));
        let lines = tracing_subscriber::fmt::layer()
            .with_ansi(std::io::stderr().is_terminal())
            .with_writer(std::io::stderr);
        let logs = tracing_subscriber::registry().with(filter);
        match self.format() {
            LogFormat::Text => logs.with(lines).init(),
            LogFormat::Json => logs.with(lines.json()).init(),
            LogFormat::Journal => logs.with(lines.with_ansi(false).event_format(Journal::default())).init(),
        }
        LogLevel(level)
    }

    fn format(&self) -> LogFormat {
        // systemd sets it where the output goes to the journal, and a terminal that was started from such a process has it too.
        let journal = std::env::var_os("JOURNAL_STREAM").is_some() && !std::io::stderr().is_terminal();
        self.log_format.unwrap_or(if journal { LogFormat::Journal } else { LogFormat::Text })
    }

    /// The arguments by which another process logs the same.
    pub fn to_arguments(&self) -> Vec<String> {
        let format =
            self.format().to_possible_value().map(|value| format!("--log-format={}", value.get_name()));
        std::iter::once(format!("--log={}", self.log)).chain(format).collect()
    }
}

/// Lines as the journal takes them: it has times of its own, and reads the priority from the beginning.
struct Journal(Format<Compact, ()>);

impl Default for Journal {
    fn default() -> Self {
        Self(Format::default().compact().without_time().with_level(false).with_ansi(false))
    }
}

impl<S, N> FormatEvent<S, N> for Journal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        // syslog(3)'s numbers.
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        write!(writer, "<{priority}>")?;
        self.0.format_event(context, writer, event)
    }
}
