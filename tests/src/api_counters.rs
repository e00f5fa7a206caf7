//! What a real API server counts of itself, and what processes cost.

use std::fmt::Write;

use anyhow::Context;
use kube::Client;

/// The API server's metrics at one moment.
#[derive(Clone, Debug)]
pub struct Counters(String);

impl Counters {
    /// Reads them.
    ///
    /// # Errors
    /// Where the API server does not tell.
    pub async fn read(client: &Client) -> anyhow::Result<Self> {
        let request = http::Request::get("/metrics").body(Vec::new())?;
        Ok(Self(client.request_text(request).await.context("reading the API server's metrics")?))
    }

    /// The sum of all series of this name that have these labels.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let series = self.0.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (found, found_labels) = series.split_once('{')?;
            let has = |(label, value): &(&str, &str)| {
                let mut text = String::new();
                write!(text, "{label}=\"{value}\"").is_ok()
                    && found_labels.trim_end_matches('}').split(',').any(|found| found == text)
            };
            (found == name && labels.iter().all(has)).then(|| value.parse::<f64>().ok()).flatten()
        });
        series.sum()
    }

    /// How many requests with this verb, as the API server names it, and answered with this code, were about devices, or
    /// about their `subresource`.
    #[must_use]
    pub fn requests(&self, verb: &str, subresource: &str, code: &str) -> f64 {
        let labels =
            [("resource", "virtnetdevices"), ("verb", verb), ("subresource", subresource), ("code", code)];
        self.sum("apiserver_request_total", &labels)
    }

    /// How many writes of devices by an agent it acknowledged: a JSON patch of the object, or an apply of its status.
    #[must_use]
    pub fn agent_writes(&self) -> f64 {
        self.requests("PATCH", "", "200") + self.requests("APPLY", "status", "200")
    }
}

/// The processor time that a process has used, in seconds.
///
/// # Errors
/// Where there is no such process.
pub fn processor_seconds(process: u32) -> anyhow::Result<f64> {
    /// What Linux counts in, on every architecture: USER_HZ.
    const TICKS: f64 = 100.0;
    let path = format!("/proc/{process}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    // The name, in parentheses, may have anything in it. Of what follows, user and system time are the 12th and 13th.
    let (_, fields) = text.rsplit_once(')').with_context(|| format!("{path} has no name"))?;
    let times = fields.split_whitespace().skip(11).take(2);
    let ticks: Result<Vec<f64>, _> = times.map(str::parse).collect();
    Ok(ticks.with_context(|| format!("reading {path}"))?.iter().sum::<f64>() / TICKS)
}

/// The memory that a process has resident, in bytes.
///
/// # Errors
/// Where there is no such process.
pub fn resident_bytes(process: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{process}/status");
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    Ok(1024 * kibibytes.with_context(|| format!("{path} tells of no memory"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_summed_by_their_labels() {
        let text = "# TYPE a counter\na{x=\"1\",y=\"2\"} 3\na{x=\"1\",y=\"3\"} 4.5e+01\nab{x=\"1\"} 7\n";
        let counters = Counters(text.to_owned());
        assert!((counters.sum("a", &[("x", "1")]) - 48.0).abs() < 1e-9);
        assert!((counters.sum("a", &[("x", "1"), ("y", "2")]) - 3.0).abs() < 1e-9);
        assert!(counters.sum("a", &[("x", "2")]).abs() < 1e-9);
    }
}
