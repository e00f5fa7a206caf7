//! What people and programs see: lines, YAML or JSON on standard output, errors on standard error, a progress bar where there
//! is a terminal.

use std::fmt;
use std::io::{ErrorKind, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

/// Something could not be written to standard output.
static LOST: AtomicBool = AtomicBool::new(false);

/// A line on standard output.
pub(crate) fn line(text: &str) {
    print(format_args!("{text}\n"));
}

/// Text that ends its lines itself, on standard output.
pub(crate) fn text(text: &str) {
    print(format_args!("{text}"));
}

/// A reader that has gone is no error: there is nobody left to tell. Any other is told once, and whoever runs on does.
fn print(text: fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    match out.write_fmt(text).and_then(|()| out.flush()) {
        Err(why) if why.kind() != ErrorKind::BrokenPipe => {
            if !LOST.swap(true, Ordering::Relaxed) {
                error(&format!("writing to standard output: {why}"));
            }
        }
        Ok(()) | Err(_) => {}
    }
}

/// How the program ends, with this to say: what could not be written was not done.
pub(crate) fn verdict(code: ExitCode) -> ExitCode {
    if LOST.load(Ordering::Relaxed) { ExitCode::FAILURE } else { code }
}

/// A remark on standard error, in kubectl's manner.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// An error on standard error.
pub(crate) fn error(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "virtnetctl: {text}");
}

/// What others have written, on one line: it must not end the line that it is put in, nor steer the terminal. YAML takes the
/// separators of lines and paragraphs for ends of lines too.
pub(crate) fn plain(text: &str) -> String {
    let steers = |letter: char| letter.is_control() || ['\u{2028}', '\u{2029}'].contains(&letter);
    text.chars().map(|letter| if steers(letter) { ' ' } else { letter }).collect()
}

/// Columns as kubectl sets them: three spaces apart, each at least six wide, the last as wide as it is.
pub(crate) fn columns(rows: &[Vec<String>]) -> String {
    const GAP: usize = 3;
    const LEAST: usize = 6;
    let count = rows.first().map(Vec::len).unwrap_or_default();
    let width =
        |index: usize| rows.iter().map(|row| row[index].chars().count() + GAP).max().unwrap_or(0).max(LEAST);
    let widths: Vec<usize> = (0..count.saturating_sub(1)).map(width).collect();
    let mut text = String::new();
    for row in rows {
        for (index, cell) in row.iter().enumerate() {
            let width = widths.get(index).copied().unwrap_or(0);
            text.push_str(&format!("{cell:<width$}"));
        }
        text.push('\n');
    }
    text
}

/// How programs want it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Data {
    Yaml,
    Json,
}

impl Data {
    /// The text of it, to the end of its last line.
    pub(crate) fn render(self, value: &Value) -> anyhow::Result<String> {
        match self {
            Self::Yaml => serde_saphyr::to_string(value).context("writing YAML"),
            Self::Json => serde_json::to_string_pretty(value).map(|text| text + "\n").context("writing JSON"),
        }
    }
}

/// Progress towards a known number: a bar on a terminal, elsewhere a line for each tenth.
#[derive(Debug)]
pub(crate) struct Progress {
    what: String,
    bar: Option<ProgressBar>,
    told: u64,
}

impl Progress {
    /// Begins.
    pub(crate) fn new(what: &str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{msg} [{bar:32}] {pos}/{len} {elapsed}")
                .unwrap_or_else(|_| ProgressStyle::default_bar())
                .progress_chars("=> ");
            let bar = ProgressBar::new(0).with_style(style).with_message(what.to_owned());
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self { what: what.to_owned(), bar, told: 0 }
    }

    /// Tells how far it is.
    pub(crate) fn at(&mut self, done: u64, all: u64) {
        match &self.bar {
            Some(bar) => {
                bar.set_length(all);
                bar.set_position(done);
            }
            None => {
                if is_news(self.told, done, all) {
                    line(&format!("{}: {done}/{all}", self.what));
                    self.told = done;
                }
            }
        }
    }
}

/// Whether a reader of lines wants to know: a tenth has been gained or lost since it was told, or all is done.
fn is_news(told: u64, done: u64, all: u64) -> bool {
    done != told && (done == all || done.abs_diff(told) >= all.div_ceil(10))
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_three_spaces_apart_and_at_least_six_wide() {
        let rows =
            [["NAME", "PF", "READY"], ["web-0", "", "True"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(columns(&rows), "NAME    PF    READY\nweb-0         True\n");
    }

    #[test]
    fn a_line_is_for_a_tenth_and_for_the_end() {
        let (mut told, mut lines) = (0, Vec::new());
        for done in 0..=524 {
            if is_news(told, done, 524) {
                told = done;
                lines.push(done);
            }
        }
        assert_eq!(lines, [53, 106, 159, 212, 265, 318, 371, 424, 477, 524]);
        assert!(!is_news(0, 0, 0));
    }
}
